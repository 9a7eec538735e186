//! `withdraw`.

use std::path::PathBuf;

use attestations::withdrawal::Withdrawal;
use attestations::{Bundle, Predicate, Reference, Statement, Subject};
use errors::files;
use serde_json::json;

use super::password::PasswordArguments;
use super::registries::Reach;
use super::{Answer, Session};
use crate::error::{Error, Kind, Result};
use crate::registry::Registry;

/// Largest bundle read, in bytes.
const FILE_LIMIT: u64 = 16 * 1024 * 1024;

/// Take back a statement that was signed with the same key, such as a rejection or a failed rebuild.
///
/// Nodes keep every no that they have seen, so deleting it from a registry changes nothing. They leave it out once they
/// see this withdrawal.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// File with the signed statement to take back.
    #[arg(value_name = "BUNDLE")]
    bundle: PathBuf,
    /// Why it is taken back, in a sentence that others will read.
    #[arg(long, value_name = "TEXT")]
    reason: String,
    /// Private key that signed the statement: PKCS#8 PEM, OpenSSH, or ssh-agent:NAME for one in an SSH agent.
    #[arg(long, value_name = "FILE")]
    key: PathBuf,
    #[command(flatten)]
    password: PasswordArguments,
    /// File to write the signed withdrawal to.
    #[arg(long, value_name = "FILE")]
    out: PathBuf,
    /// Also attach it to this image in its registry; may be given several times.
    #[arg(long, value_name = "REFERENCE")]
    attach: Vec<Reference>,
    #[command(flatten)]
    reach: Reach,
}

/// Runs it.
///
/// # Errors
/// See [`Kind`].
pub(crate) fn run(arguments: &Arguments, session: &Session) -> Result<Answer> {
    let path = arguments.bundle.display();
    let unusable = |cause| {
        Error::new(Kind::Input, format!("{path} holds no signed statement that could be taken back"))
            .because(cause)
    };
    let bundle = Bundle::parse(&files::read(&arguments.bundle, FILE_LIMIT)?).map_err(unusable)?;
    let key = arguments.password.open(&arguments.key, session.workspace())?;
    bundle.verify(key.public_key()).map_err(|cause| {
        Error::new(Kind::Key, format!("{path} was not signed with {}", arguments.key.display()))
            .hint("only the key that signed a statement can take it back")
            .because(cause)
    })?;
    let statement = bundle.statement_unverified().map_err(unusable)?;
    if matches!(statement.value().predicate, Predicate::Withdrawal(_)) {
        return Err(Error::new(Kind::Usage, format!("{path} is a withdrawal itself, and stays one"))
            .hint("to say no again, sign the rejection or the rebuild anew"));
    }
    let taken_back = bundle.statement_digest();
    let said = Withdrawal { reason: arguments.reason.clone(), withdrawn_on: jiff::Timestamp::now() };
    let statement = Statement {
        subject: vec![Subject::statement("statement", &taken_back)],
        predicate: Predicate::Withdrawal(said),
    };
    let withdrawal = attestations::sign(&statement, &*key)
        .map_err(|cause| Error::new(Kind::Key, "the withdrawal could not be signed").because(cause))?;
    files::write(&arguments.out, withdrawal.to_bytes())?;
    let mut attached = Vec::new();
    if !arguments.attach.is_empty() {
        let runtime = session.workspace().runtime()?;
        let registry =
            Registry::new(arguments.reach.registries()?, session.workspace(), runtime.handle().clone());
        for reference in &arguments.attach {
            for pinned in registry.images(reference, &[])? {
                registry.attach(&pinned, &registry.describe(&pinned)?, &[&withdrawal])?;
                attached.push(pinned.to_string());
            }
        }
    }
    let mut text = format!("takes back {taken_back}\n{}", arguments.out.display());
    for place in &attached {
        text.push_str(&format!("\nattached to {place}"));
    }
    let value =
        json!({ "event": "withdrawn", "statement": taken_back, "file": arguments.out, "attached": attached });
    session.result(&text, &value)?;
    Ok(Answer::Yes)
}
