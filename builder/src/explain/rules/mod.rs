//! Which rules apply to an instruction. They judge the commands that it calls, by their words, and so can be wrong in both
//! directions: their result is advice. Every exchange with the network is recorded in any case.

mod calls;
mod downloads;
mod languages;
mod python;
mod systems;
mod values;
#[cfg(test)]
mod verdicts;

use std::collections::BTreeMap;

use attestations::Foreign;

use super::files::Files;
use super::hazards::*;
use super::shell::{self, Simple};
use crate::dockerfile::{Command, Copy, HereDocument, Instruction, RunInstruction, remote};
use calls::Call;

/// The most characters of the words that a hazard is about.
const MAX_WORDS: usize = 100;
/// The deepest script that calls a script.
const MAX_DEPTH: usize = 4;

/// What is known beside an instruction.
#[derive(Clone)]
pub(super) struct Scene<'a> {
    /// The files of the context.
    pub(super) files: &'a dyn Files,
    /// The variables that the stage has set.
    variables: BTreeMap<String, String>,
    /// Whether an earlier step leads apt to a snapshot.
    has_snapshot: bool,
}

impl<'a> Scene<'a> {
    /// At the beginning of a stage.
    pub(super) fn new(files: &'a dyn Files) -> Self {
        Self { files, variables: BTreeMap::new(), has_snapshot: false }
    }

    fn is_set(&self, name: &str) -> bool {
        self.variables.get(name).is_some_and(|value| !matches!(value.as_str(), "" | "0" | "false"))
    }
}

pub(super) fn of_base(base: &str) -> Vec<Hazard> {
    let is_incomplete = base.ends_with([':', '@', '/']) || base.contains("//") || base.contains("/:");
    let rule = match () {
        () if is_incomplete => &EMPTY_ARGUMENT,
        () if base.contains("@sha256:") => return Vec::new(),
        () => &BASE_BY_TAG,
    };
    vec![Hazard { rule, words: cut(base), file: None }]
}

/// The hazards of an instruction; what it sets is known to the next ones.
pub(super) fn of_instruction(instruction: &Instruction, text: &str, scene: &mut Scene<'_>) -> Vec<Hazard> {
    let found = match instruction {
        Instruction::Run(run) => of_run(run, scene),
        Instruction::Copy(copy) if copy.keyword == "ADD" => of_add(copy),
        Instruction::Arg(pairs) => of_names(pairs.iter().map(|pair| (pair.name.as_str(), None))),
        Instruction::Env(pairs) => {
            let found = of_names(pairs.iter().map(|pair| (pair.name.as_str(), Some(pair.value.as_str()))));
            for pair in pairs {
                let value = pair.value.trim_matches(['"', '\'']).to_owned();
                scene.variables.insert(pair.name.clone(), value);
            }
            found
        }
        _ => Vec::new(),
    };
    scene.has_snapshot |= leads_to_snapshot(text);
    found
}

fn leads_to_snapshot(text: &str) -> bool {
    ["snapshot.debian.org", "snapshot.ubuntu.com", "snapshot-cloudflare.debian.org", "repro-sources-list"]
        .iter()
        .any(|it| text.contains(it))
}

/// Names of variables that hold a secret by their words.
fn of_names<'p>(pairs: impl Iterator<Item = (&'p str, Option<&'p str>)>) -> Vec<Hazard> {
    let secret = |(name, value): &(&str, Option<&str>)| {
        let upper = name.to_ascii_uppercase();
        let words: Vec<&str> = upper.split('_').collect();
        let has = |word: &str| words.contains(&word);
        let is_key =
            has("KEY") && ["PRIVATE", "API", "ACCESS", "SSH", "DEPLOY", "SECRET"].iter().any(|it| has(it));
        let is_secret =
            ["PASSWORD", "PASSWD", "SECRET", "TOKEN", "APIKEY", "CREDENTIAL", "CREDENTIALS", "PAT"]
                .iter()
                .any(|it| has(it));
        let about =
            ["URL", "FILE", "PATH", "DIR", "ID", "NAME", "LENGTH", "TTL", "TYPE", "HEADER", "ALGORITHM"];
        let is_about = words.last().is_some_and(|last| about.contains(last));
        let is_empty = value.is_some_and(|value| matches!(value, "" | "\"\"" | "''"));
        (is_key || is_secret) && !is_about && !is_empty
    };
    let hazard =
        |(name, _): (&str, Option<&str>)| Hazard { rule: &SECRET_ARGUMENT, words: cut(name), file: None };
    pairs.filter(secret).map(hazard).collect()
}

fn of_add(copy: &Copy) -> Vec<Hazard> {
    let is_commit = |source: &str| {
        let reference = source.split_once('#').map_or("", |(_, fragment)| fragment).split(':').next();
        reference.is_some_and(downloads::is_commit)
    };
    let open = |source: &&String| copy.checksum.is_none() && remote::is_remote(source);
    let mut found: Vec<Hazard> = Vec::new();
    for source in copy.sources.iter().filter(open) {
        let rule = match (remote::is_git(source), is_commit(source)) {
            (true, true) => continue,
            (true, false) => &MOVING_GIT,
            (false, _) => &UNCHECKED_ADD,
        };
        if !found.iter().any(|hazard| hazard.rule == rule) {
            found.push(Hazard { rule, words: cut(source), file: None });
        }
    }
    found
}

fn of_run(run: &RunInstruction, scene: &Scene<'_>) -> Vec<Hazard> {
    let documents: Vec<String> = run.documents.iter().map(HereDocument::content).collect();
    let (script, documents) = match (&run.command, &documents[..]) {
        // The document is the script.
        (Command::Shell(text), [document]) if HereDocument::is_all_of(text) => (document.clone(), Vec::new()),
        (Command::Shell(text), _) => (text.clone(), documents),
        (Command::Exec(words), _) => {
            (words.iter().map(|word| quoted(word)).collect::<Vec<_>>().join(" "), documents)
        }
    };
    let mut judge = Judge::new(scene);
    if run.mounts.iter().any(|mount| mount.is_secret()) {
        judge.push(&SECRET, "--mount=type=secret".to_owned());
    }
    judge.script(&script, &documents);
    judge.found
}

fn quoted(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// What is known of a whole script.
#[derive(Debug, Default, Clone, Copy)]
struct Facts {
    /// Whether something is held against a digest or signature.
    is_checked: bool,
    /// Whether the whole id of a commit is named.
    has_commit: bool,
    has_snapshot: bool,
    /// Whether it sets `SOURCE_DATE_EPOCH` itself.
    sets_epoch: bool,
    /// Whether it freezes Ruby's bundle.
    sets_frozen: bool,
    /// Whether a dated repository of R packages is named.
    has_dated_r: bool,
}

/// Collects hazards.
struct Judge<'a> {
    scene: &'a Scene<'a>,
    found: Vec<Hazard>,
    facts: Facts,
    /// The script that is read, where that is a file of the context.
    file: Option<String>,
    depth: usize,
}

impl<'a> Judge<'a> {
    fn new(scene: &'a Scene<'a>) -> Self {
        Self { scene, found: Vec::new(), facts: Facts::default(), file: None, depth: 0 }
    }

    /// Whether the context is known, and lacks a file.
    fn lacks(&self, file: &str) -> bool {
        self.scene.files.are_known() && self.scene.files.read(file).is_none()
    }

    /// Whether a file is not known to be in the context.
    fn lacks_or_unknown(&self, file: &str) -> bool {
        self.scene.files.read(file).is_none()
    }

    fn uses_snapshot(&self) -> bool {
        self.scene.has_snapshot || self.facts.has_snapshot
    }

    fn uses_dated_r(&self) -> bool {
        self.facts.has_dated_r || self.scene.variables.values().any(|value| languages::names_date(value))
    }

    fn add(&mut self, rule: &'static Rule, call: &Call<'_>) {
        self.push(rule, cut(&format!("{} {}", call.program, call.args.join(" "))));
    }

    /// A line of a file of the context.
    fn add_in(&mut self, rule: &'static Rule, line: &str, file: &str) {
        let known = self.file.replace(file.to_owned());
        self.push(rule, cut(line));
        self.file = known;
    }

    fn push(&mut self, rule: &'static Rule, words: String) {
        let hazard = Hazard { rule, words, file: self.file.clone() };
        // Each rule once for a script.
        if !self.found.iter().any(|it| it.rule == rule && it.file == hazard.file) {
            self.found.push(hazard);
        }
    }

    fn script(&mut self, script: &str, documents: &[String]) {
        let before = self.facts;
        let commands = shell::commands(script, documents);
        self.note(&commands);
        self.note_epoch(script);
        self.all(&commands, false);
        if self.depth > 0 {
            self.facts = before;
        }
    }

    /// Commands one after the other. What they fetch is run if a shell reads it, or if all of it is (`is_run`).
    fn all(&mut self, commands: &[Simple], is_run: bool) {
        for (number, simple) in commands.iter().enumerate() {
            let piped = commands[number..].windows(2).take_while(|pair| pair[0].is_piped);
            let mut readers = piped.filter_map(|pair| Call::of(&pair[1]));
            let feeds_shell = readers.any(|call| downloads::is_interpreter(&call));
            self.simple(simple, is_run || feeds_shell);
        }
    }

    fn note(&mut self, commands: &[Simple]) {
        for simple in commands {
            self.note(&simple.inner);
            let has = |word: &str| simple.words.iter().any(|it| it == word);
            let names = |text: &str| simple.words.iter().any(|it| it.contains(text));
            let checks = simple.words.iter().any(|word| word.ends_with("sum"))
                && simple.words.iter().any(|word| {
                    word == "--check"
                        || word.starts_with('-') && !word.starts_with("--") && word.contains('c')
                });
            let verifies =
                has("--verify") || has("gpgv") || has("cosign") || has("minisign") || names("--checksum=");
            self.facts.is_checked |= checks || verifies;
            self.facts.has_commit |= simple
                .words
                .iter()
                .any(|word| word.split(|c: char| !c.is_ascii_alphanumeric()).any(downloads::is_commit));
            self.facts.has_snapshot |= simple.words.iter().any(|word| leads_to_snapshot(word));
            self.facts.sets_epoch |= simple.words.iter().any(|word| word.starts_with("SOURCE_DATE_EPOCH="));
            self.facts.has_dated_r |= simple.words.iter().any(|word| languages::names_date(word));
            self.facts.sets_frozen |=
                has("bundle") && names("config") && (names("frozen") || names("deployment"));
        }
    }

    /// A date that is taken from `SOURCE_DATE_EPOCH`, for more than a time in the result.
    fn note_epoch(&mut self, script: &str) {
        let reads = script.contains("SOURCE_DATE_EPOCH") && !self.facts.sets_epoch;
        let is_own = self.scene.is_set("SOURCE_DATE_EPOCH");
        let selects = self.file.is_some() || script.contains("snapshot") || script.contains("sources.list");
        if reads && selects && !is_own {
            self.push(&READS_EPOCH, "SOURCE_DATE_EPOCH".to_owned());
        }
    }

    fn simple(&mut self, simple: &Simple, is_run: bool) {
        let call = Call::of(simple);
        let runs_words = call.as_ref().is_some_and(downloads::runs_its_words);
        self.all(&simple.inner, runs_words);
        let Some(call) = call else { return };
        values::judge_words(self, &call, &simple.words);
        let _is_known = python::judge(self, &call)
            || systems::judge(self, &call)
            || downloads::judge(self, &call, is_run)
            || values::judge(self, &call)
            || languages::judge(self, &call);
        self.nested(&call, simple);
    }

    /// A script that a command is given: as a word, a document, or a file of the context.
    fn nested(&mut self, call: &Call<'_>, simple: &Simple) {
        if call.args.iter().any(|arg| arg.contains("repro-sources-list"))
            || call.program.contains("repro-sources-list")
        {
            self.push_epoch(call);
        }
        if self.depth == MAX_DEPTH {
            return;
        }
        self.depth += 1;
        let documents = simple.documents.iter().map(String::as_str);
        // What another command prints was looked at already.
        let is_printed = |script: &&str| script.starts_with("$(") || script.starts_with('`');
        let documents = documents.filter(|document| !is_printed(document));
        let scripts: Vec<&str> =
            call.script().filter(|script| !is_printed(script)).into_iter().chain(documents).collect();
        for script in scripts {
            match call.program.as_str() {
                "sh" | "bash" | "dash" | "ash" | "zsh" | "su" => self.script(script, &[]),
                "python" => values::judge_python(self, call, script),
                "R" | "Rscript" | "r" => languages::judge_r(self, call, script),
                "julia" => languages::judge_julia(self, call, script),
                _ => {}
            }
        }
        self.file_of(call);
        self.depth -= 1;
    }

    fn push_epoch(&mut self, call: &Call<'_>) {
        if !self.scene.is_set("SOURCE_DATE_EPOCH") && !self.facts.sets_epoch {
            self.add(&READS_EPOCH, call);
        }
    }

    /// A script of the context that is called by its path, or given to an interpreter.
    fn file_of(&mut self, call: &Call<'_>) {
        let is_shell =
            matches!(call.program.as_str(), "sh" | "bash" | "dash" | "ash" | "zsh" | "source" | ".");
        let is_python = call.program == "python";
        let named = match is_shell || is_python || matches!(call.program.as_str(), "Rscript" | "julia") {
            true => call.args.iter().find(|arg| !arg.starts_with('-')).filter(|_| call.script().is_none()),
            false => None,
        };
        let path = match named {
            Some(path) => path.clone(),
            None if call.program.ends_with(".sh") => call.path.to_owned(),
            None => return,
        };
        if self.file.as_deref() == Some(path.as_str()) {
            return;
        }
        let Some(text) = self.scene.files.read(&path) else { return };
        let (known, facts) = (self.file.replace(path), self.facts);
        self.facts = Facts::default();
        match call.program.as_str() {
            "python" => {
                self.note_epoch(&text);
                values::judge_python(self, call, &text);
            }
            "Rscript" => languages::judge_r(self, call, &text),
            "julia" => languages::judge_julia(self, call, &text),
            _ => self.script(&text, &[]),
        }
        (self.file, self.facts) = (known, facts);
    }
}

/// Words without what could steer a terminal, and not too many.
fn cut(words: &str) -> String {
    let words = words.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = match words.char_indices().nth(MAX_WORDS) {
        None => words,
        Some((at, _)) => format!("{}…", &words[..at]),
    };
    Foreign::new(&words).to_string()
}
