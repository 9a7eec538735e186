//! Expands the instructions of one stage, with the variables as they are set at each instruction.

use super::Plan;
use super::config::{self, Config};
use super::step::{Action, Copying, Execution, Inline, MountSource, Mounted, Script, Source, Step};
use crate::dockerfile::ignore::Ignore;
use crate::dockerfile::remote::{Remote, is_remote};
use crate::dockerfile::{
    Chmod, Command, Copy, Health, HereDocument, Instruction, Located, Mount, MountKind, Pair, Problem,
    RunInstruction, SecretMount, expand, health,
};

/// A stage during expansion.
pub(crate) struct StageExpansion<'a> {
    plan: &'a Plan<'a>,
    stage: usize,
    pub(crate) config: Config,
    /// The `ARG`s of this stage so far: the last of each name, at the position of its first.
    pub(crate) arguments: Vec<Argument>,
    cmd_is_set: bool,
    /// The number of steps so far that can use the network.
    asking: usize,
}

/// An `ARG` that was reached.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Argument {
    name: String,
    /// None when it has neither a given nor a default value.
    value: Option<String>,
    /// Whether a later `ENV` of the same name hides it.
    hidden: bool,
}

impl Argument {
    /// False for arguments that only control BuildKit: they are in the history, but no command sees them.
    fn is_variable(&self) -> bool {
        !["BUILDKIT_SBOM_SCAN_CONTEXT", "BUILDKIT_SBOM_SCAN_STAGE"].contains(&self.name.as_str())
    }
}

impl<'a> StageExpansion<'a> {
    pub(crate) fn new(plan: &'a Plan<'a>, stage: usize, base: Config, inherited: Vec<Argument>) -> Self {
        // The base's `ENV` variables hide inherited `ARG`s.
        let is_set = |name: &str| config::variable(&base.config, name).is_some();
        let arguments = inherited.into_iter().map(|it| Argument { hidden: is_set(&it.name), ..it }).collect();
        Self { plan, stage, config: base, arguments, cmd_is_set: false, asking: 0 }
    }

    pub(crate) fn step(&mut self, located: &Located<Instruction>) -> Result<Step, Problem> {
        let (created_by, action) = match &located.value {
            Instruction::Arg(pairs) => (self.arg(pairs)?, Action::Configure),
            Instruction::Env(pairs) => (self.env(pairs)?, Action::Configure),
            Instruction::Label(pairs) => (self.label(pairs)?, Action::Configure),
            Instruction::Run(run) => self.run(run)?,
            Instruction::Copy(copy) => self.copy(copy)?,
            Instruction::Workdir(path) => self.workdir(path)?,
            Instruction::User(user) => (self.user(user)?, Action::Configure),
            Instruction::Expose(ports) => (self.expose(ports)?, Action::Configure),
            Instruction::Shell(words) => {
                config::set_shell(&mut self.config.config, words);
                (format!("SHELL [{}]", words.join(" ")), Action::Configure)
            }
            Instruction::Volume(paths) => (self.volume(paths)?, Action::Configure),
            Instruction::StopSignal(signal) => (self.stop_signal(signal)?, Action::Configure),
            Instruction::HealthCheck(health) => (self.health_check(health), Action::Configure),
            Instruction::OnBuild(text) => {
                config::add_trigger(&mut self.config.config, text);
                // BuildKit does not record it in the history.
                (String::new(), Action::Configure)
            }
            Instruction::Maintainer(name) => {
                self.config.author = Some(name.clone());
                (format!("MAINTAINER {name}"), Action::Configure)
            }
            Instruction::Cmd(command) => {
                let args = self.in_shell(command);
                self.cmd_is_set = true;
                self.config.config.cmd = Some(args.clone());
                (format!("CMD {}", list(&args)), Action::Configure)
            }
            Instruction::Entrypoint(command) => {
                let args = self.in_shell(command);
                if !self.cmd_is_set {
                    // A base's CMD belongs to the base's ENTRYPOINT.
                    self.config.config.cmd = None;
                }
                self.config.config.entrypoint = Some(args.clone());
                (format!("ENTRYPOINT {}", list(&args)), Action::Configure)
            }
        };
        self.asking += usize::from(action.can_ask());
        let id = self.plan.step_id(self.stage, self.asking);
        Ok(Step { id, line: located.line, text: located.text.clone(), created_by, action })
    }

    /// The last `ENV` or `ARG` of a name counts, as in BuildKit; an `ARG` without a value changes nothing.
    fn lookup(&self, name: &str) -> Option<String> {
        let is_it =
            |argument: &&Argument| argument.name == name && !argument.hidden && argument.is_variable();
        let argument = self.arguments.iter().find(is_it);
        let variable = || config::variable(&self.config.config, name).map(str::to_owned);
        argument.and_then(|argument| argument.value.clone()).or_else(variable)
    }

    fn word(&self, text: &str) -> Result<String, Problem> {
        Ok(expand::word(text, self.plan.escape(), &|name| self.lookup(name))?)
    }

    fn arg(&mut self, pairs: &[Pair<Option<String>>]) -> Result<String, Problem> {
        let mut entry = Vec::new();
        for pair in pairs {
            let value = match (self.plan.given(&pair.name), &pair.value) {
                (Some(given), _) => Some(given.clone()),
                (None, Some(text)) => Some(self.word(text)?),
                (None, None) => self.plan.global(&pair.name),
            };
            entry.push(value.as_ref().map_or(pair.name.clone(), |value| format!("{}={value}", pair.name)));
            let argument = Argument { name: pair.name.clone(), value, hidden: false };
            // It keeps its position in the variables of later commands.
            match self.arguments.iter_mut().find(|other| other.name == pair.name) {
                Some(other) if argument.value.is_some() => *other = argument,
                Some(_) => {}
                None => self.arguments.push(argument),
            }
        }
        Ok(format!("ARG {}", entry.join(" ")))
    }

    fn env(&mut self, pairs: &[Pair<String>]) -> Result<String, Problem> {
        let expanded = self.pairs(pairs)?;
        for (name, value) in &expanded {
            config::set_variable(&mut self.config.config, name, value);
            let same = self.arguments.iter_mut().filter(|argument| argument.name == *name);
            same.for_each(|argument| argument.hidden = true);
        }
        Ok(history_entry("ENV", &expanded))
    }

    fn label(&mut self, pairs: &[Pair<String>]) -> Result<String, Problem> {
        let expanded = self.pairs(pairs)?;
        self.config.config.labels.extend(expanded.iter().cloned());
        Ok(history_entry("LABEL", &expanded))
    }

    /// All pairs of an instruction see the variables as they were before it.
    fn pairs(&self, pairs: &[Pair<String>]) -> Result<Vec<(String, String)>, Problem> {
        pairs.iter().map(|pair| Ok((self.name(&pair.name)?, self.word(&pair.value)?))).collect()
    }

    fn name(&self, text: &str) -> Result<String, Problem> {
        let name = self.word(text)?;
        match name.is_empty() {
            true => Err(Problem::syntax(format!("the name {text} is empty once expanded"))),
            false => Ok(name),
        }
    }

    fn in_shell(&self, command: &Command) -> Vec<String> {
        match command {
            Command::Exec(words) => words.clone(),
            Command::Shell(text) => [config::shell(&self.config.config), vec![text.clone()]].concat(),
        }
    }

    /// A here-document alone is run by the shell, or as a program of its own if it begins with `#!`. After a command,
    /// the shell gets the whole text as written.
    fn command(&self, run: &RunInstruction) -> Result<(Vec<String>, Option<Script>), Problem> {
        let (Command::Shell(text), [first, ..]) = (&run.command, run.documents.as_slice()) else {
            return Ok((self.in_shell(&run.command), None));
        };
        let alone = HereDocument::is_all_of(text);
        let in_shell = |text: String| self.in_shell(&Command::Shell(text));
        if !alone {
            return Ok((in_shell(HereDocument::all_behind(text, &run.documents)), None));
        }
        if run.documents.len() > 1 {
            return Err(Problem::syntax("one here-document alone can be run"));
        }
        let content = first.content();
        match content.starts_with("#!") {
            false => Ok((in_shell(content), None)),
            true => {
                let script = Script { path: format!("/dev/pipes/{}", first.name), text: content };
                Ok((in_shell(script.path.clone()), Some(script)))
            }
        }
    }

    fn run(&self, run: &RunInstruction) -> Result<(String, Action), Problem> {
        let (args, script) = self.command(run)?;
        let variables = self.arguments.iter().filter(|it| it.is_variable());
        let set: Vec<(String, String)> =
            variables.filter_map(|it| Some((it.name.clone(), self.lookup(&it.name)?))).collect();
        let config = &self.config.config;
        let is_argument = |name: &str| set.iter().any(|(argument, _)| argument == name);
        let variables = config.env.iter().map(|pair| config::name_and_value(pair));
        let variables = variables.filter(|(name, _)| !is_argument(name));
        let mut env = set.clone();
        env.extend(variables.map(|(name, value)| (name.to_owned(), value.to_owned())));
        let mut words: Vec<String> = Vec::new();
        if !self.arguments.is_empty() {
            words.push(format!("|{}", self.arguments.len()));
            let value =
                |it: &Argument| self.lookup(&it.name).or_else(|| it.value.clone()).unwrap_or_default();
            words.extend(self.arguments.iter().map(|it| format!("{}={}", it.name, value(it))));
        }
        words.extend(args.iter().cloned());
        let (cwd, user) = (absolute("/", &config.working_dir), config.user.clone());
        let (mut mounts, mut secrets) = (Vec::new(), Vec::new());
        for mount in &run.mounts {
            match mount.expanded(&|text| self.word(text))? {
                Mount::Seen { target, kind } => mounts.push(self.seen(&target, kind)?),
                Mount::Secret(secret) => secrets.push(self.secret(secret)?),
            }
        }
        let execution = Execution { args, env, cwd, user, network: run.network, script, mounts, secrets };
        Ok((format!("RUN {}", words.join(" ")), Action::Run(execution)))
    }

    fn seen(&self, target: &str, kind: MountKind) -> Result<Mounted, Problem> {
        let target = self.mount_target(target)?;
        let what = match kind {
            MountKind::Cache { id, mode, owner, writable } => {
                let id = if id.is_empty() { target.clone() } else { id };
                MountSource::Cache { id, mode, owner, writable }
            }
            MountKind::Temporary { size, writable } => MountSource::Temporary { size, writable },
            MountKind::Bind { from, source, writable } => MountSource::Bind {
                from: from.map(|name| self.plan.earlier(self.stage, &name)).transpose()?,
                source,
                writable,
            },
        };
        Ok(Mounted { target, what })
    }

    fn mount_target(&self, text: &str) -> Result<String, Problem> {
        let target = absolute(&self.config.config.working_dir, text);
        match target == "/" {
            true => Err(Problem::syntax("RUN --mount cannot cover the root")),
            false => Ok(target),
        }
    }

    fn secret(&self, secret: SecretMount) -> Result<SecretMount, Problem> {
        let target = secret.target.map(|text| self.mount_target(&text));
        if secret.env.as_ref().is_some_and(|name| name.contains(['=', '\0'])) {
            return Err(Problem::syntax("RUN --mount: the name of a variable cannot hold `=`"));
        }
        Ok(SecretMount { target: target.transpose()?, ..secret })
    }

    fn copy(&self, copy: &Copy) -> Result<(String, Action), Problem> {
        let sources = copy.sources.iter().map(|source| self.word(source)).collect::<Result<Vec<_>, _>>()?;
        let written = self.word(&copy.destination)?;
        let mut destination = absolute(&self.config.config.working_dir, &written);
        if is_folder(&written) && !destination.ends_with('/') {
            destination.push('/');
        }
        let is_mixed = !copy.documents.is_empty() && !sources.is_empty();
        if !destination.ends_with('/')
            && (is_mixed || (sources.len() > 1 && sources.iter().any(|source| is_remote(source))))
        {
            let what = format!("with several sources, {}'s destination must end with /", copy.keyword);
            return Err(Problem::syntax(what));
        }
        let optional = |text: &Option<String>| -> Result<Option<String>, Problem> {
            let word = text.as_ref().map(|text| self.word(text)).transpose()?;
            Ok(word.filter(|word| !word.is_empty()))
        };
        let checksum = optional(&copy.checksum)?;
        let (chown, chmod) = (optional(&copy.chown)?, optional(&copy.chmod)?);
        let inline = copy
            .documents
            .iter()
            .map(|document| {
                let text = match document.expand {
                    true => expand::document(&document.content(), &|name| self.lookup(name))?,
                    false => document.content(),
                };
                Ok(Inline { name: document.name.clone(), text })
            })
            .collect::<Result<Vec<_>, Problem>>()?;
        let mut entry = vec![copy.keyword.to_owned()];
        entry.extend(copy.link.then(|| "--link".to_owned()));
        entry.extend(copy.parents.then(|| "--parents".to_owned()));
        entry.extend(copy.from.iter().map(|from| format!("--from={from}")));
        entry.extend(checksum.iter().map(|checksum| format!("--checksum={checksum}")));
        entry.extend(chown.iter().map(|chown| format!("--chown={chown}")));
        entry.extend(chmod.iter().map(|chmod| format!("--chmod={chmod}")));
        entry.extend(sources.iter().cloned());
        entry.extend(inline.iter().map(|document| format!("<<{}", document.name)));
        entry.push(destination.clone());
        let from = copy.from.as_ref().map(|name| self.plan.earlier(self.stage, name)).transpose()?;
        // As in BuildKit, it is independent of the layers below unless permissions are to be changed.
        let apart = copy.link && chmod.is_none();
        let chmod = chmod.as_deref().map(|text| permissions(copy.keyword, text)).transpose()?;
        let excludes = Ignore::of(&copy.excludes).map_err(|cause| Problem::syntax(cause.to_string()))?;
        let is_add = copy.keyword == "ADD";
        let sources = match is_add {
            false => sources.into_iter().map(Source::Path).collect(),
            true => added(sources, checksum.as_deref(), &destination)?,
        };
        let (archives, remote_archives) = (copy.unpack.unwrap_or(is_add), copy.unpack == Some(true));
        let copying = Copying {
            from,
            sources,
            inline,
            archives,
            remote_archives,
            destination,
            chown,
            chmod,
            excludes,
            parents: copy.parents,
            apart,
        };
        Ok((entry.join(" "), Action::Copy(copying)))
    }

    fn workdir(&mut self, path: &str) -> Result<(String, Action), Problem> {
        let written = self.word(path)?;
        let path = absolute(&self.config.config.working_dir, &written);
        // An absolute path is recorded as written.
        let shown = if written.starts_with('/') { written } else { path.clone() };
        self.config.config.working_dir.clone_from(&shown);
        let entry = format!("WORKDIR {shown}");
        match path.as_str() {
            "/" => Ok((entry, Action::Configure)),
            _ => Ok((entry, Action::Workdir { path, user: self.config.config.user.clone() })),
        }
    }

    fn user(&mut self, text: &str) -> Result<String, Problem> {
        let user = self.word(text)?;
        self.config.config.user.clone_from(&user);
        Ok(format!("USER {user}"))
    }

    fn volume(&mut self, paths: &[String]) -> Result<String, Problem> {
        let paths = paths.iter().map(|path| self.word(path)).collect::<Result<Vec<_>, _>>()?;
        for path in &paths {
            if path.is_empty() {
                return Err(Problem::syntax("a path of VOLUME is empty once expanded"));
            }
            self.config.config.volumes.insert(path.clone(), serde_json::json!({}));
        }
        Ok(format!("VOLUME [{}]", paths.join(" ")))
    }

    fn stop_signal(&mut self, text: &str) -> Result<String, Problem> {
        let signal = self.word(text)?;
        if !is_signal(&signal) {
            return Err(Problem::syntax(format!("{signal} is no signal: write SIGTERM or its number")));
        }
        config::set_stop_signal(&mut self.config.config, &signal);
        Ok(format!("STOPSIGNAL {signal}"))
    }

    fn health_check(&mut self, it: &Health) -> String {
        config::set_health(&mut self.config.config, it);
        let time = health::format_duration;
        format!(
            "HEALTHCHECK {{Test:[{}] Interval:{} Timeout:{} StartPeriod:{} StartInterval:{} Retries:{}}}",
            it.test.join(" "),
            time(it.interval),
            time(it.timeout),
            time(it.start_period),
            time(it.start_interval),
            it.retries
        )
    }

    fn expose(&mut self, text: &str) -> Result<String, Problem> {
        let mut words =
            expand::words(text, self.plan.escape(), &|name| self.lookup(name)).map_err(Problem::Expansion)?;
        words.sort();
        let mut exposed: Vec<String> = Vec::new();
        for word in &words {
            let new = ports(word)?.into_iter().filter(|port| !exposed.contains(port));
            exposed.extend(new.collect::<Vec<_>>());
        }
        for port in &exposed {
            self.config.config.exposed_ports.insert(port.clone(), serde_json::json!({}));
        }
        Ok(format!("EXPOSE [{}]", exposed.join(" ")))
    }
}

/// Sorts the sources of `ADD` into paths and remote ones.
fn added(sources: Vec<String>, checksum: Option<&str>, destination: &str) -> Result<Vec<Source>, Problem> {
    let mut all = Vec::new();
    for source in sources {
        let source = match Remote::parse(&source, checksum)? {
            Some(Remote::File(file)) if file.name.is_none() && destination.ends_with('/') => {
                let what = format!("ADD {}: the URL holds no name for a file in {destination}", file.url);
                return Err(Problem::syntax(what));
            }
            Some(remote) => Source::Remote(remote),
            None if checksum.is_some() => {
                return Err(Problem::syntax(format!(
                    "ADD --checksum is for what is fetched, and {source} is not"
                )));
            }
            None => Source::Path(source),
        };
        all.push(source);
    }
    Ok(all)
}

fn history_entry(instruction: &str, pairs: &[(String, String)]) -> String {
    let pairs: Vec<String> = pairs.iter().map(|(name, value)| format!("{name}={value}")).collect();
    format!("{instruction} {}", pairs.join(" "))
}

/// Whether this is a signal's name, with or without `SIG`, or a number, as Docker accepts them.
fn is_signal(text: &str) -> bool {
    const NAMES: [&str; 36] = [
        "ABRT", "ALRM", "BUS", "CHLD", "CLD", "CONT", "FPE", "HUP", "ILL", "INT", "IO", "IOT", "KILL",
        "PIPE", "POLL", "PROF", "PWR", "QUIT", "SEGV", "STKFLT", "STOP", "SYS", "TERM", "TRAP", "TSTP",
        "TTIN", "TTOU", "URG", "USR1", "USR2", "VTALRM", "WINCH", "XCPU", "XFSZ", "RTMIN", "RTMAX",
    ];
    let upper = text.to_ascii_uppercase();
    let name = upper.strip_prefix("SIG").unwrap_or(&upper);
    let within = |offset: &str, most: u8| {
        let number = offset.parse::<u8>().ok().filter(|number| (1..=most).contains(number));
        number.is_some_and(|number| number.to_string() == offset)
    };
    let real_time = || {
        name.strip_prefix("RTMIN+").is_some_and(|offset| within(offset, 15))
            || name.strip_prefix("RTMAX-").is_some_and(|offset| within(offset, 14))
    };
    text.parse::<i64>().is_ok_and(|number| number != 0) || NAMES.contains(&name) || real_time()
}

/// In the form of Docker's histories: quoted, separated by blanks.
fn list(words: &[String]) -> String {
    let words: Vec<String> = words.iter().map(|word| format!("{word:?}")).collect();
    format!("[{}]", words.join(" "))
}

fn is_folder(written: &str) -> bool {
    matches!(written.rsplit('/').next(), None | Some("" | "." | ".."))
}

/// `path` relative to `from`, without `.`, `..`, doubled slashes and a slash at the end.
fn absolute(from: &str, path: &str) -> String {
    let joined = if path.starts_with('/') { path.to_owned() } else { format!("{from}/{path}") };
    let mut parts: Vec<&str> = Vec::new();
    for part in joined.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            _ => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

fn permissions(keyword: &str, text: &str) -> Result<Chmod, Problem> {
    Chmod::parse(text).ok_or_else(|| {
        let text: String = text.chars().take(64).collect();
        Problem::syntax(format!(
            "{keyword} --chmod={text} is neither an octal number, such as 0755, nor changes, such as u=rwX,go=rX"
        ))
    })
}

/// `80`, `80/tcp`, `8000-8010/udp` in the form of the configuration. Of `8080:80`, as in `docker run`, the part after
/// the colon counts.
fn ports(word: &str) -> Result<Vec<String>, Problem> {
    let refuse = || Problem::syntax(format!("EXPOSE {word} is not a port"));
    let (range, protocol) = word.split_once('/').unwrap_or((word, "tcp"));
    let protocol = if protocol.is_empty() { "tcp".to_owned() } else { protocol.to_ascii_lowercase() };
    if !["tcp", "udp", "sctp"].contains(&protocol.as_str()) {
        return Err(refuse());
    }
    let numbers = |range: &str| -> Result<(u16, u16), Problem> {
        let (low, high) = range.split_once('-').unwrap_or((range, range));
        let (low, high) = (low.parse().map_err(|_| refuse())?, high.parse().map_err(|_| refuse())?);
        if low > high { Err(refuse()) } else { Ok((low, high)) }
    };
    let (published, range) =
        range.rsplit_once(':').map_or((None, range), |(outside, range)| (Some(outside), range));
    let (low, high) = numbers(range)?;
    if let Some(outside) =
        published.map(|it| it.rsplit_once(':').map_or(it, |(_, port)| port)).filter(|it| !it.is_empty())
    {
        let (first, last) = numbers(outside)?;
        // Several host ports may map to one, but otherwise the numbers must be equal.
        if high != low && last - first != high - low {
            return Err(refuse());
        }
    }
    Ok((low..=high).map(|port| format!("{port}/{protocol}")).collect())
}
