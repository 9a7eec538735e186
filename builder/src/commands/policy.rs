//! `policy`.

use std::num::NonZeroU32;
use std::path::PathBuf;

use attestations::policy::Moment;
use attestations::policy_release::PolicyRelease;
use attestations::{FederationName, Policy, Predicate, Statement, Subject};
use errors::files;
use jiff::Timestamp;
use serde_json::json;

use super::password::PasswordArguments;
use super::{Answer, Session};
use crate::error::{Error, Kind, Result};

/// The most bytes of a policy that are read.
const FILE_LIMIT: u64 = 1 << 20;

#[derive(Debug, clap::Subcommand)]
pub(crate) enum Command {
    /// Sign a policy as one of a federation's key holders; enough such signatures over one text are a release.
    ///
    /// Each holder signs the same text with the same version and expiry. A release is a folder with the text as
    /// policy.toml and every signature as a file of its own (*.json).
    Sign(SignArguments),
}

#[derive(Debug, clap::Args)]
pub(crate) struct SignArguments {
    /// File with the policy.
    #[arg(value_name = "POLICY.toml")]
    policy: PathBuf,
    /// Name of the federation, as nodes have it in their trust file.
    #[arg(long, value_name = "NAME")]
    federation: FederationName,
    /// Version of the release, from 1; each release has a higher one, also if only the expiry changes.
    #[arg(long, value_name = "N")]
    policy_version: NonZeroU32,
    /// When nodes stop admitting anything by it: a date, or a time (2027-01-31T00:00:00Z).
    #[arg(long, value_name = "DATE")]
    expires: Moment,
    /// Private key to sign with: PKCS#8 PEM, OpenSSH, or ssh-agent:NAME for one in an SSH agent.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    password: PasswordArguments,
    /// File to write the signature to.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
}

/// Runs it.
///
/// # Errors
/// See [`Kind`].
pub(crate) fn run(command: &Command, session: &Session) -> Result<Answer> {
    match command {
        Command::Sign(arguments) => sign(arguments, session),
    }
}

fn sign(arguments: &SignArguments, session: &Session) -> Result<Answer> {
    let path = arguments.policy.display();
    let text = files::read_text(&arguments.policy, FILE_LIMIT)?;
    let policy = Policy::parse(&text).map_err(|cause| {
        Error::new(Kind::Input, format!("{path} is no policy, so it is not signed"))
            .hint("mend the line it names; docs/policy.md describes every field")
            .because(cause)
    })?;
    let (expires, now) = (arguments.expires.0, Timestamp::now());
    if expires <= now {
        return Err(Error::new(Kind::Usage, format!("a release that expires at {expires} is of no use"))
            .hint("give a later --expires"));
    }
    let key = arguments.password.open(&arguments.key, session.workspace())?;
    let release = PolicyRelease {
        federation: arguments.federation.clone(),
        version: arguments.policy_version,
        expires,
        signed_on: now,
    };
    let (federation, version) = (release.federation.clone(), release.version);
    let statement =
        Statement { subject: vec![Subject::policy(&text)], predicate: Predicate::PolicyRelease(release) };
    let bundle = attestations::sign(&statement, &*key)
        .map_err(|cause| Error::new(Kind::Key, "the policy could not be signed").because(cause))?;
    files::write(&arguments.out, bundle.to_bytes())?;
    let (digest, out) = (policy.digest(), arguments.out.display());
    let text =
        format!("signed {digest}\nversion {version} of the policy of {federation}, until {expires}\n{out}");
    let value = json!({
        "event": "policySigned",
        "policy": digest,
        "federation": federation,
        "version": version,
        "expires": expires,
        "file": arguments.out,
    });
    session.result(&text, &value)?;
    Ok(Answer::Yes)
}
