//! Parses Dockerfiles into typed instructions, with the line of each.
//!
//! The semantics are those of BuildKit's Dockerfile reference. An instruction or flag that is not supported is
//! refused by name and line, never skipped. Nothing is expanded or looked up here: see [`expand`] and `plan`.

mod chmod;
pub(crate) mod expand;
mod glob;
pub(crate) mod health;
pub(crate) mod ignore;
mod instruction;
mod lines;
mod mount;
pub(crate) mod pattern;
pub(crate) mod remote;
mod words;

use std::fmt;

pub(crate) use chmod::Chmod;
pub(crate) use instruction::{Command, Copy, Health, Instruction, Network, Pair, RunInstruction};
pub(crate) use lines::HereDocument;
pub(crate) use mount::bytes;
pub(crate) use mount::{Mount, MountKind, SecretMount};

/// The most bytes of a Dockerfile; real ones have a few kilobytes.
pub(crate) const SIZE_LIMIT: u64 = 1024 * 1024;

/// Whether a file of this name is a Dockerfile by custom: `Dockerfile`, `gpu.Dockerfile`, `Dockerfile.gpu`, and the same
/// with `Containerfile`.
pub(crate) fn is_name_of_one(name: &[u8]) -> bool {
    let name = name.to_ascii_lowercase();
    let is_beside_one = name.ends_with(b".dockerignore") || name.ends_with(b".lock");
    !is_beside_one
        && [&b"dockerfile"[..], b"containerfile"].iter().any(|kind| {
            let is_first =
                name.strip_prefix(*kind).is_some_and(|rest| rest.is_empty() || rest.starts_with(b"."));
            is_first || name.strip_suffix(*kind).is_some_and(|rest| rest.ends_with(b"."))
        })
}

/// A Dockerfile that cannot be used, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(crate) struct DockerfileError {
    /// The line, counted from 1, where the instruction starts.
    pub(crate) line: usize,
    /// What is wrong.
    pub(crate) problem: Problem,
}

/// What is wrong with a Dockerfile.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Problem {
    /// Over [`SIZE_LIMIT`].
    #[error("the file has {0} bytes, more than the 1 MiB allowed")]
    TooLarge(usize),
    /// Not text.
    #[error("{0}")]
    NotText(&'static str),
    /// Not a Dockerfile instruction at all.
    #[error("unknown instruction {0}")]
    UnknownInstruction(String),
    /// A Dockerfile instruction, or a form of one, that is not supported.
    #[error("{what} is not supported: {instead}")]
    Unsupported {
        /// The instruction, flag or form.
        what: String,
        /// What to write instead.
        instead: &'static str,
    },
    /// An instruction that does not follow its own syntax.
    #[error("{0}")]
    Syntax(String),
    /// A variable's expansion that cannot be done.
    #[error("{0}")]
    Expansion(#[from] expand::ExpandError),
}

impl Problem {
    pub(crate) fn syntax(text: impl Into<String>) -> Self {
        Self::Syntax(text.into())
    }

    pub(crate) fn unsupported(what: impl Into<String>, instead: &'static str) -> Self {
        Self::Unsupported { what: what.into(), instead }
    }

    pub(crate) fn at(self, line: usize) -> DockerfileError {
        DockerfileError { line, problem: self }
    }
}

/// Something with the line it starts at.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Located<T> {
    /// Counted from 1.
    pub(crate) line: usize,
    /// The instruction as written, continuation lines joined.
    pub(crate) text: String,
    /// The parsed value.
    pub(crate) value: T,
}

/// One `FROM` and what follows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stage {
    /// Counted from 1.
    pub(crate) line: usize,
    /// The base as written, not expanded.
    pub(crate) base: String,
    /// The platform as written, not expanded.
    pub(crate) platform: Option<String>,
    /// Its name, in lower case.
    pub(crate) name: Option<String>,
    /// Its instructions.
    pub(crate) instructions: Vec<Located<Instruction>>,
}

/// A parsed Dockerfile; it has at least one stage.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Dockerfile {
    /// The escape character, `\` or a backquote.
    pub(crate) escape: char,
    /// The `ARG`s before the first `FROM`.
    pub(crate) arguments: Vec<Located<Vec<Pair<Option<String>>>>>,
    /// The stages in order.
    pub(crate) stages: Vec<Stage>,
}

impl Dockerfile {
    /// Parses a Dockerfile.
    ///
    /// # Errors
    /// The first problem, with its line.
    pub(crate) fn parse(bytes: &[u8]) -> Result<Self, DockerfileError> {
        let lines = lines::read(bytes)?;
        let mut file = Self { escape: lines.escape, arguments: Vec::new(), stages: Vec::new() };
        for line in lines.lines {
            let number = line.number;
            file.take(line).map_err(|problem| problem.at(number))?;
        }
        match file.stages.is_empty() {
            true => Err(Problem::syntax("there is no FROM, so nothing to build").at(1)),
            false => Ok(file),
        }
    }

    fn take(&mut self, line: lines::Line) -> Result<(), Problem> {
        let parsed = instruction::parse(&line.text, line.documents, self.escape)?;
        let located = |value| Located { line: line.number, text: line.text.clone(), value };
        match (parsed, self.stages.last_mut()) {
            (instruction::Parsed::From { base, platform, name }, _) => {
                self.stages.push(Stage { line: line.number, base, platform, name, instructions: Vec::new() });
            }
            (instruction::Parsed::Other(value), Some(stage)) => stage.instructions.push(located(value)),
            (instruction::Parsed::Other(Instruction::Arg(pairs)), None) => {
                self.arguments.push(Located { line: line.number, text: line.text, value: pairs });
            }
            (instruction::Parsed::Other(_), None) => {
                return Err(Problem::syntax("only ARG may stand before the first FROM"));
            }
        }
        Ok(())
    }

    /// Parses an instruction of a base's `ONBUILD`, for the stage at `line`.
    ///
    /// # Errors
    /// When it is not allowed there.
    pub(crate) fn trigger(text: &str, line: usize) -> Result<Located<Instruction>, DockerfileError> {
        let parse = || {
            let lines = lines::read(text.as_bytes()).map_err(|error| error.problem)?;
            let [only] = <[lines::Line; 1]>::try_from(lines.lines)
                .map_err(|_| Problem::syntax("ONBUILD holds one instruction"))?;
            let value = instruction::trigger(&only.text, only.documents, lines.escape)?;
            Ok(Located { line, text: only.text, value })
        };
        parse().map_err(|problem: Problem| problem.at(line))
    }

    /// The index of a stage by its name, of which the last counts, or by its number.
    pub(crate) fn stage(&self, name: &str) -> Option<usize> {
        let lower = name.to_lowercase();
        self.stages
            .iter()
            .rposition(|stage| stage.name.as_ref() == Some(&lower))
            .or_else(|| name.parse().ok().filter(|index| *index < self.stages.len()))
    }
}

impl fmt::Display for Command {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Shell(text) => out.write_str(text),
            Self::Exec(words) => write!(out, "{words:?}"),
        }
    }
}

#[cfg(test)]
mod tests;
