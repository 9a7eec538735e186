//! `countersign-runner policy`: what a policy means, before anything is decided by it.

mod cases;
mod check;
mod diff;
mod show;

use std::path::{Path, PathBuf};

use clap::Subcommand;
use errors::Form;

use crate::config::Config;
use crate::error::Result;

#[derive(Debug, Subcommand)]
pub(super) enum PolicyCommand {
    /// Show which policies decide now: the node's own, and a federation's release with its version, expiry and signers.
    Show,
    /// Report rules that nothing reaches, thresholds that nobody can meet, calls that nobody can make, and keys that have
    /// ended or end soon.
    ///
    /// The exit code is 1 if there is an error; warnings alone do not change it.
    Check {
        /// Policy file to check, instead of the node's own.
        #[arg(value_name = "FILE")]
        file: Option<PathBuf>,
    },
    /// Decide cases of a file and compare each with what it expects; the exit code is 1 if one comes out otherwise.
    ///
    /// The file is TOML: [[case]] with name, reference (by digest), evidence (files or folders, relative to the file),
    /// expect ("admitted", or a list of codes of unmet conditions), and optionally
    /// function, arguments, databases, user and at (a time).
    Test {
        /// File with the cases.
        #[arg(value_name = "FILE.toml")]
        file: PathBuf,
    },
    /// Decide by two policies about every image that this node ran, and list those that come out otherwise; the exit
    /// code is 1 if there are any.
    Diff(diff::Arguments),
}

impl PolicyCommand {
    /// The policy file that it names itself, with which it needs no configuration.
    pub(super) fn own_policy(&self) -> Option<&Path> {
        match self {
            Self::Check { file } => file.as_deref(),
            Self::Show | Self::Test { .. } => None,
            Self::Diff(arguments) => Some(arguments.new_policy()),
        }
    }

    pub(super) fn run(&self, config: &Config, form: Form) -> Result<u8> {
        match self {
            Self::Show => show::run(config, form),
            Self::Check { file: Some(file) } => check::run(file, form),
            Self::Check { file: None } => check::run(config.own_policy()?, form),
            Self::Test { file } => cases::run(config, file, form),
            Self::Diff(arguments) => diff::run(config, arguments, form),
        }
    }
}
