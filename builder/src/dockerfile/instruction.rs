//! From a logical line to a typed instruction.

use super::lines::HereDocument;
use super::mount::RunMount;
use super::words::{Flag, Json, Opening, first_word, flags, json, pairs, plain_words, quoted_words};
use super::{Problem, health, remote};

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Command {
    /// Given to the shell.
    Shell(String),
    /// Given to the kernel.
    Exec(Vec<String>),
}

/// A name and its value, neither expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pair<V> {
    /// The name.
    pub(crate) name: String,
    /// The value as written, with its quotes.
    pub(crate) value: V,
}

/// `RUN`, not expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct RunInstruction {
    /// What is run.
    pub(crate) command: Command,
    /// The here-documents that it opens.
    pub(crate) documents: Vec<HereDocument>,
    /// Its network access.
    pub(crate) network: Network,
    /// Its mounts and secrets.
    pub(crate) mounts: Vec<RunMount>,
}

/// The network access of a `RUN`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Network {
    /// Everything, recorded.
    Default,
    /// Only its own loopback.
    None,
}

/// `HEALTHCHECK`, as the configuration has it: times in nanoseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Health {
    /// `NONE`, `CMD` or `CMD-SHELL`, and the command.
    pub(crate) test: Vec<String>,
    /// Between two checks.
    pub(crate) interval: i64,
    /// For one check.
    pub(crate) timeout: i64,
    /// Before failures count.
    pub(crate) start_period: i64,
    /// Between two checks in that time.
    pub(crate) start_interval: i64,
    /// Failures in a row.
    pub(crate) retries: i64,
}

/// `COPY` and `ADD`; not expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Copy {
    /// Which of the two.
    pub(crate) keyword: &'static str,
    /// The here-documents among the sources.
    pub(crate) documents: Vec<HereDocument>,
    /// `--link`: whether the layer is independent of those below. Each layer here is still made for its own base; the
    /// files are the same.
    pub(crate) link: bool,
    /// The stage to copy from, instead of the repository.
    pub(crate) from: Option<String>,
    /// `user[:group]`, by name or number.
    pub(crate) chown: Option<String>,
    /// Permissions: octal, or changes.
    pub(crate) chmod: Option<String>,
    /// Patterns to leave out.
    pub(crate) excludes: Vec<String>,
    /// Whether the folders above a source are created as well.
    pub(crate) parents: bool,
    /// Whether archives are unpacked. By default `ADD` unpacks those of the repository, but not fetched ones.
    pub(crate) unpack: Option<bool>,
    /// The checksum of the one source that is fetched.
    pub(crate) checksum: Option<String>,
    /// Paths, patterns and URLs; at least one, unless there are here-documents.
    pub(crate) sources: Vec<String>,
    /// The destination.
    pub(crate) destination: String,
}

/// An instruction other than `FROM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Instruction {
    /// `ARG name[=default] …`
    Arg(Vec<Pair<Option<String>>>),
    /// `ENV name=value …`
    Env(Vec<Pair<String>>),
    /// `RUN`
    Run(RunInstruction),
    /// `COPY` and `ADD`
    Copy(Copy),
    /// `WORKDIR`
    Workdir(String),
    /// `USER`
    User(String),
    /// `LABEL name=value …`
    Label(Vec<Pair<String>>),
    /// `ENTRYPOINT`
    Entrypoint(Command),
    /// `CMD`
    Cmd(Command),
    /// `EXPOSE port[/protocol] …`
    Expose(String),
    /// `SHELL [ … ]`
    Shell(Vec<String>),
    /// `VOLUME path …`
    Volume(Vec<String>),
    /// `STOPSIGNAL`
    StopSignal(String),
    /// `HEALTHCHECK`
    HealthCheck(Health),
    /// `ONBUILD instruction`, as written.
    OnBuild(String),
    /// `MAINTAINER`
    Maintainer(String),
}

#[derive(Debug)]
pub(super) enum Parsed {
    From { base: String, platform: Option<String>, name: Option<String> },
    Other(Instruction),
}

pub(super) fn parse(line: &str, documents: Vec<HereDocument>, escape: char) -> Result<Parsed, Problem> {
    let line = line.trim();
    let (word, rest) = first_word(line);
    let keyword = word.to_ascii_uppercase();
    let (flags, rest) = flags(rest, escape);
    let rest = rest.trim();
    let has_flags = ["FROM", "RUN", "COPY", "ADD", "HEALTHCHECK"].contains(&keyword.as_str());
    if let (Some(flag), false) = (flags.first(), has_flags) {
        return Err(refuse_flag(&keyword.chars().take(64).collect::<String>(), flag));
    }
    let other = match keyword.as_str() {
        "FROM" => return from(&flags, rest),
        "ARG" => Instruction::Arg(arguments(rest, escape)?),
        "ENV" => Instruction::Env(pairs(rest, escape, "ENV")?),
        "LABEL" => Instruction::Label(pairs(rest, escape, "LABEL")?),
        "RUN" => run(&flags, rest, documents)?,
        "COPY" => copy("COPY", &flags, rest, documents)?,
        "ADD" => copy("ADD", &flags, rest, documents)?,
        "WORKDIR" => Instruction::Workdir(one(rest, "WORKDIR needs a path")?),
        "USER" => Instruction::User(one(rest, "USER needs a user")?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(rest)?),
        "CMD" => Instruction::Cmd(command(rest)?),
        "EXPOSE" => Instruction::Expose(one(rest, "EXPOSE needs at least one port")?),
        "SHELL" => Instruction::Shell(shell(rest)?),
        "VOLUME" => Instruction::Volume(volumes(rest)?),
        "STOPSIGNAL" => Instruction::StopSignal(one(rest, "STOPSIGNAL needs a signal")?),
        "HEALTHCHECK" => Instruction::HealthCheck(health::parse(&flags, rest)?),
        "MAINTAINER" => Instruction::Maintainer(one(rest, "MAINTAINER needs a name")?),
        "ONBUILD" => {
            let text = HereDocument::all_behind(rest, &documents);
            trigger(rest, documents, escape)?;
            Instruction::OnBuild(text)
        }
        _ => return Err(Problem::UnknownInstruction(word.chars().take(64).collect())),
    };
    Ok(Parsed::Other(other))
}

/// The instruction after `ONBUILD`.
pub(super) fn trigger(
    text: &str,
    documents: Vec<HereDocument>,
    escape: char,
) -> Result<Instruction, Problem> {
    let keyword = first_word(text.trim()).0.to_ascii_uppercase();
    if ["ONBUILD", "FROM", "MAINTAINER", ""].contains(&keyword.as_str()) {
        return Err(Problem::syntax(format!("ONBUILD {keyword} is not allowed")));
    }
    match parse(text, documents, escape)? {
        Parsed::Other(instruction) => Ok(instruction),
        Parsed::From { .. } => Err(Problem::syntax("ONBUILD FROM is not allowed")),
    }
}

fn volumes(rest: &str) -> Result<Vec<String>, Problem> {
    let paths: Vec<String> = match json(rest)? {
        Json::Strings(paths) => paths.iter().map(|path| path.trim().to_owned()).collect(),
        Json::No => plain_words(rest).map(str::to_owned).collect(),
    };
    match paths.is_empty() || paths.iter().any(|path| path.trim().is_empty()) {
        true => Err(Problem::syntax("VOLUME needs at least one path")),
        false => Ok(paths),
    }
}

fn refuse_flag(instruction: &str, flag: &Flag) -> Problem {
    let name: String = flag.name.chars().take(64).collect();
    let instead = match (instruction, name.as_str()) {
        ("RUN", "security") => "leave it out: steps have Docker's default privileges",
        ("ADD", "parents") => "use COPY, which has it",
        ("ADD", "keep-git-dir") => {
            "a .git folder holds times and inode numbers, which differ each time: leave it out, or clone in a RUN and write down what is needed of it"
        }
        _ => "leave it out",
    };
    Problem::unsupported(format!("{instruction} --{name}"), instead)
}

fn value(instruction: &str, flag: &Flag) -> Result<String, Problem> {
    match &flag.value {
        Some(value) => Ok(value.clone()),
        None => Err(Problem::syntax(format!("{instruction} --{} needs a value", flag.name))),
    }
}

fn yes_or_no(instruction: &str, flag: &Flag) -> Result<bool, Problem> {
    match flag.value.as_ref().map(|value| value.to_ascii_lowercase()).as_deref() {
        None | Some("true") => Ok(true),
        Some("false") => Ok(false),
        Some(_) => Err(Problem::syntax(format!("{instruction} --{} is true or false", flag.name))),
    }
}

/// Sets a flag; an empty value counts as unset.
fn set(slot: &mut Option<String>, instruction: &str, flag: &Flag) -> Result<(), Problem> {
    let value = value(instruction, flag)?;
    if slot.is_some() {
        return Err(Problem::syntax(format!("{instruction} --{} is given twice", flag.name)));
    }
    *slot = Some(value).filter(|value| !value.is_empty());
    Ok(())
}

fn one(rest: &str, otherwise: &str) -> Result<String, Problem> {
    match rest.is_empty() {
        true => Err(Problem::syntax(otherwise)),
        false => Ok(rest.to_owned()),
    }
}

fn from(flags: &[Flag], rest: &str) -> Result<Parsed, Problem> {
    let mut platform = None;
    for flag in flags {
        match flag.name.as_str() {
            "platform" => set(&mut platform, "FROM", flag)?,
            _ => return Err(refuse_flag("FROM", flag)),
        }
    }
    let words: Vec<&str> = plain_words(rest).collect();
    let (base, name) = match words.as_slice() {
        [base] => (*base, None),
        [base, keyword, name] if keyword.eq_ignore_ascii_case("as") => (*base, Some(stage_name(name)?)),
        _ => return Err(Problem::syntax("FROM takes an image, and optionally AS and a name")),
    };
    Ok(Parsed::From { base: base.to_owned(), platform, name })
}

fn stage_name(name: &str) -> Result<String, Problem> {
    let name = name.to_lowercase();
    let starts = name.starts_with(|letter: char| letter.is_ascii_lowercase());
    let plain = name.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(letter));
    match starts && plain && name != "scratch" && name != "context" {
        true => Ok(name),
        false => Err(Problem::syntax(format!("{name} cannot be the name of a stage"))),
    }
}

fn arguments(rest: &str, escape: char) -> Result<Vec<Pair<Option<String>>>, Problem> {
    let words = quoted_words(rest, escape);
    if words.is_empty() {
        return Err(Problem::syntax("ARG needs a name"));
    }
    let pair = |word: &String| {
        let (name, value) = match word.split_once('=') {
            Some((name, value)) => (name, Some(value.to_owned())),
            None => (word.as_str(), None),
        };
        match name.is_empty() {
            true => Err(Problem::syntax(format!("ARG {word} has no name"))),
            false => Ok(Pair { name: name.to_owned(), value }),
        }
    };
    words.iter().map(pair).collect()
}

fn run(flags: &[Flag], rest: &str, documents: Vec<HereDocument>) -> Result<Instruction, Problem> {
    let (mut network, mut mounts) = (None, Vec::new());
    for flag in flags {
        match flag.name.as_str() {
            "mount" => mounts.push(RunMount::parse(flag)?),
            "network" => set(&mut network, "RUN", flag)?,
            // The default of all steps.
            "security" if flag.value.as_deref() == Some("sandbox") => {}
            _ => return Err(refuse_flag("RUN", flag)),
        }
    }
    let network = match network.as_deref() {
        None | Some("default") => Network::Default,
        Some("none") => Network::None,
        Some(other) => {
            let what = format!("RUN --network={}", other.chars().take(64).collect::<String>());
            return Err(Problem::unsupported(what, "use default, which is recorded, or none"));
        }
    };
    match command(rest)? {
        Command::Exec(words) if words.is_empty() => Err(Problem::syntax("RUN needs a command")),
        Command::Shell(text) if text.is_empty() => Err(Problem::syntax("RUN needs a command")),
        Command::Exec(_) if !documents.is_empty() => {
            Err(Problem::syntax("a here-document is for RUN in its shell form"))
        }
        command => Ok(Instruction::Run(RunInstruction { command, documents, network, mounts })),
    }
}

fn copy(
    keyword: &'static str,
    flags: &[Flag],
    rest: &str,
    documents: Vec<HereDocument>,
) -> Result<Instruction, Problem> {
    let (mut from, mut chown, mut chmod, mut excludes) = (None, None, None, Vec::new());
    let (mut link, mut parents, mut unpack, mut checksum) = (false, false, None, None);
    for flag in flags {
        match (keyword, flag.name.as_str()) {
            ("COPY", "from") => set(&mut from, keyword, flag)?,
            (_, "chown") => set(&mut chown, keyword, flag)?,
            (_, "chmod") => set(&mut chmod, keyword, flag)?,
            (_, "exclude") => excludes.extend(Some(value(keyword, flag)?).filter(|it| !it.is_empty())),
            (_, "link") => link = yes_or_no(keyword, flag)?,
            ("ADD", "unpack") => unpack = Some(yes_or_no(keyword, flag)?),
            ("ADD", "checksum") => set(&mut checksum, keyword, flag)?,
            ("ADD", "keep-git-dir") if flag.value.as_deref() == Some("false") => {}
            ("COPY", "parents") => parents = yes_or_no(keyword, flag)?,
            _ => return Err(refuse_flag(keyword, flag)),
        }
    }
    let mut sources = match json(rest)? {
        Json::Strings(words) => words,
        Json::No => plain_words(rest).map(str::to_owned).collect(),
    };
    let Some(destination) = sources.pop() else {
        return Err(Problem::syntax(format!("{keyword} needs at least one source and a destination")));
    };
    if !documents.is_empty() {
        if Opening::of(&destination).is_some() {
            return Err(Problem::syntax(format!("a here-document is no destination of {keyword}")));
        }
        let is_no_name = |name: &str| name.contains('/') || name == "." || name == "..";
        if let Some(HereDocument { name, .. }) = documents.iter().find(|one| is_no_name(&one.name)) {
            return Err(Problem::syntax(format!(
                "a here-document is put there by its name, and {name} is none for a file"
            )));
        }
        sources.retain(|word| Opening::of(word).is_none());
    } else if sources.is_empty() {
        return Err(Problem::syntax(format!("{keyword} needs at least one source and a destination")));
    }
    if let Some(source) = sources.iter().find(|source| remote::is_remote(source))
        && keyword == "COPY"
    {
        let source: String = source.chars().take(64).collect();
        return Err(Problem::syntax(format!("COPY {source}: only ADD fetches")));
    }
    if checksum.is_some() && sources.len() + documents.len() != 1 {
        return Err(Problem::syntax("ADD --checksum is for one source"));
    }
    Ok(Instruction::Copy(Copy {
        keyword,
        documents,
        link,
        from,
        chown,
        chmod,
        excludes,
        parents,
        unpack,
        checksum,
        sources,
        destination,
    }))
}

fn command(rest: &str) -> Result<Command, Problem> {
    match json(rest)? {
        Json::Strings(words) => Ok(Command::Exec(words)),
        Json::No => Ok(Command::Shell(rest.to_owned())),
    }
}

fn shell(rest: &str) -> Result<Vec<String>, Problem> {
    match json(rest)? {
        Json::Strings(words) if !words.is_empty() => Ok(words),
        _ => Err(Problem::syntax("SHELL needs a JSON array, such as [\"/bin/bash\", \"-c\"]")),
    }
}
