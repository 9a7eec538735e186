//! From a logical line to a typed instruction.

use super::Problem;
use super::words::{Flag, Json, flags, has_here_document, json, pairs, quoted_words};

/// A command in one of its two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Given to the shell.
    Shell(String),
    /// Given to the kernel.
    Exec(Vec<String>),
}

/// A name and its value, neither expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair<V> {
    /// The name.
    pub name: String,
    /// The value as written, with its quotes.
    pub value: V,
}

/// `COPY`, not expanded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Copy {
    /// The stage to copy from, instead of the repository.
    pub from: Option<String>,
    /// `user[:group]`, by name or number.
    pub chown: Option<String>,
    /// Octal permissions.
    pub chmod: Option<String>,
    /// Paths and patterns; at least one.
    pub sources: Vec<String>,
    /// Where to.
    pub destination: String,
}

/// An instruction other than `FROM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Instruction {
    /// `ARG name[=default] …`
    Arg(Vec<Pair<Option<String>>>),
    /// `ENV name=value …`
    Env(Vec<Pair<String>>),
    /// `RUN`
    Run(Command),
    /// `COPY`
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
}

#[derive(Debug)]
pub(super) enum Parsed {
    From { base: String, platform: Option<String>, name: Option<String> },
    Other(Instruction),
}

pub(super) fn parse(line: &str, escape: char) -> Result<Parsed, Problem> {
    let line = line.trim();
    let (word, rest) = line.split_once(char::is_whitespace).unwrap_or((line, ""));
    let keyword = word.to_ascii_uppercase();
    let (flags, rest) = match keyword.as_str() {
        "FROM" | "RUN" | "COPY" | "ADD" | "HEALTHCHECK" => flags(rest),
        _ => (Vec::new(), rest),
    };
    let rest = rest.trim();
    let other = match keyword.as_str() {
        "FROM" => return from(&flags, rest),
        "ARG" => Instruction::Arg(arguments(rest, escape)?),
        "ENV" => Instruction::Env(pairs(rest, escape, "ENV")?),
        "LABEL" => Instruction::Label(pairs(rest, escape, "LABEL")?),
        "RUN" => run(&flags, rest, escape)?,
        "COPY" => copy(&flags, rest, escape)?,
        "WORKDIR" => Instruction::Workdir(one(rest, "WORKDIR needs a path")?),
        "USER" => Instruction::User(one(rest, "USER needs a user")?),
        "ENTRYPOINT" => Instruction::Entrypoint(command(rest)?),
        "CMD" => Instruction::Cmd(command(rest)?),
        "EXPOSE" => Instruction::Expose(one(rest, "EXPOSE needs at least one port")?),
        "SHELL" => Instruction::Shell(shell(rest)?),
        _ => return Err(refuse(word, &keyword)),
    };
    Ok(Parsed::Other(other))
}

fn refuse(word: &str, keyword: &str) -> Problem {
    let instead = match keyword {
        "ADD" => "use COPY for files of the repository, and RUN with a download tool for the rest",
        "MAINTAINER" => "use LABEL org.opencontainers.image.authors=\"…\"",
        "VOLUME" => "leave it out; whoever runs the image mounts what it needs",
        "HEALTHCHECK" | "STOPSIGNAL" => "leave it out; an algorithm runs once and ends by itself",
        "ONBUILD" => "write the instruction in the Dockerfile that needs it",
        _ => return Problem::UnknownInstruction(word.chars().take(64).collect()),
    };
    Problem::unsupported(keyword, instead)
}

fn refuse_flag(instruction: &str, flag: &Flag) -> Problem {
    let name: String = flag.name.chars().take(64).collect();
    let instead = match (instruction, name.as_str()) {
        ("RUN", "mount") => {
            "leave it out: what is mounted is not in the commit, and caches start empty anyway"
        }
        ("RUN", "network") => "leave it out: every request is recorded",
        ("RUN", "security") => "leave it out: steps have Docker's default privileges",
        ("COPY", "link") => "leave it out: the files are the same without it",
        _ => "leave it out",
    };
    Problem::unsupported(format!("{instruction} --{name}"), instead)
}

fn value(instruction: &str, flag: &Flag) -> Result<String, Problem> {
    match flag.value.as_deref() {
        Some(value) if !value.is_empty() => Ok(value.to_owned()),
        _ => Err(Problem::syntax(format!("{instruction} --{} needs a value", flag.name))),
    }
}

fn set(slot: &mut Option<String>, instruction: &str, flag: &Flag) -> Result<(), Problem> {
    let value = value(instruction, flag)?;
    match slot.replace(value) {
        Some(_) => Err(Problem::syntax(format!("{instruction} --{} is given twice", flag.name))),
        None => Ok(()),
    }
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
    let words: Vec<&str> = rest.split_whitespace().collect();
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

fn run(flags: &[Flag], rest: &str, escape: char) -> Result<Instruction, Problem> {
    if let Some(flag) = flags.first() {
        return Err(refuse_flag("RUN", flag));
    }
    refuse_here_document("RUN", rest, escape)?;
    match command(rest)? {
        Command::Exec(words) if words.is_empty() => Err(Problem::syntax("RUN needs a command")),
        command => Ok(Instruction::Run(command)),
    }
}

fn refuse_here_document(instruction: &str, rest: &str, escape: char) -> Result<(), Problem> {
    match has_here_document(rest, escape) {
        true => Err(Problem::unsupported(
            format!("a here-document in {instruction}"),
            "put its text into a file of the repository",
        )),
        false => Ok(()),
    }
}

fn copy(flags: &[Flag], rest: &str, escape: char) -> Result<Instruction, Problem> {
    let (mut from, mut chown, mut chmod) = (None, None, None);
    for flag in flags {
        match flag.name.as_str() {
            "from" => set(&mut from, "COPY", flag)?,
            "chown" => set(&mut chown, "COPY", flag)?,
            "chmod" => set(&mut chmod, "COPY", flag)?,
            _ => return Err(refuse_flag("COPY", flag)),
        }
    }
    refuse_here_document("COPY", rest, escape)?;
    let mut words = match json(rest)? {
        Json::Strings(words) => words,
        Json::No => rest.split_whitespace().map(str::to_owned).collect(),
    };
    match words.pop() {
        Some(destination) if !words.is_empty() => {
            Ok(Instruction::Copy(Copy { from, chown, chmod, sources: words, destination }))
        }
        _ => Err(Problem::syntax("COPY needs at least one source and a destination")),
    }
}

fn command(rest: &str) -> Result<Command, Problem> {
    match json(rest)? {
        Json::Strings(words) => Ok(Command::Exec(words)),
        Json::No if rest.is_empty() => Err(Problem::syntax("a command is missing; [] clears it")),
        Json::No => Ok(Command::Shell(rest.to_owned())),
    }
}

fn shell(rest: &str) -> Result<Vec<String>, Problem> {
    match json(rest)? {
        Json::Strings(words) if !words.is_empty() => Ok(words),
        _ => Err(Problem::syntax("SHELL needs a JSON array, such as [\"/bin/bash\", \"-c\"]")),
    }
}
