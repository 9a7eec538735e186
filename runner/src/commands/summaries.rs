//! A decision for other tools: SLSA's Verification Summary Attestation and in-toto's Simple Verification Result, signed with the
//! node's key.

use std::path::{Path, PathBuf};

use attestations::summary::{self, Edition, Verifier};
use attestations::{Decision, Statement};
use clap::Args;
use errors::files;
use jiff::Timestamp;

use crate::config::Config;
use crate::error::{Error, Kind, Result};
use crate::node::Node;
use crate::record;

#[derive(Debug, Args)]
pub(super) struct SummaryArguments {
    /// Write the decision to this file as a SLSA Verification Summary Attestation, signed with the node's key; levels of
    /// SLSA drafts go to a second file beside it, with .draft in its name.
    #[arg(long, value_name = "FILE", requires = "verifier_id", conflicts_with = "at")]
    vsa: Option<PathBuf>,
    /// Write what was verified to this file as an in-toto Simple Verification Result, signed with the node's key; a denial
    /// has none.
    #[arg(long, value_name = "FILE", requires = "verifier_id", conflicts_with = "at")]
    svr: Option<PathBuf>,
    /// URI that names this node in what --vsa and --svr write.
    #[arg(long, value_name = "URI", env = "COUNTERSIGN_VERIFIER_ID", value_parser = uri)]
    verifier_id: Option<String>,
}

impl SummaryArguments {
    /// Writes what was asked for; the files, in the order they were written.
    pub(super) fn write(
        &self,
        config: &Config,
        node: &Node,
        decision: &Decision,
        at: Timestamp,
    ) -> Result<Vec<PathBuf>> {
        let Some(id) = self.verifier_id.as_deref().filter(|_| self.vsa.is_some() || self.svr.is_some())
        else {
            return Ok(Vec::new());
        };
        let all = [self.vsa.clone(), self.vsa.as_deref().map(beside), self.svr.clone()];
        let there = all.iter().flatten().find(|path| path.exists());
        if let Some(path) =
            there.or(self.svr.as_ref().filter(|path| all[..2].iter().flatten().any(|it| it == *path)))
        {
            // An old yes beside a new no would be believed.
            return Err(Error::new(Kind::Usage, format!("{} would be overwritten", path.display()))
                .hint("name files that are not there yet, a different one for each"));
        }
        let policy = match decision {
            Decision::Admitted(admitted) => *admitted.policy(),
            Decision::Denied(_) => node.policy_digest()?,
        };
        let verifier = Verifier { id, policy: &policy, at };
        let mut wanted: Vec<(PathBuf, Statement)> = Vec::new();
        if let Some(path) = &self.vsa {
            let statement = summary::vsa(decision, &verifier, Edition::Approved).ok_or_else(|| {
                Error::new(Kind::NotFound, "there is no image to sum up: no rule is about this name")
                    .hint("ask for an image that a rule of the policy may be about")
            })?;
            wanted.push((path.clone(), statement));
            let draft = summary::vsa(decision, &verifier, Edition::Draft);
            wanted.extend(draft.map(|statement| (beside(path), statement)));
        }
        if let Some(path) = &self.svr {
            wanted.extend(summary::svr(decision, &verifier).map(|statement| (path.clone(), statement)));
        }
        config.make_state_dir()?;
        let key = record::key(config)?;
        for (path, statement) in &wanted {
            let bundle = attestations::sign(statement, &*key)
                .map_err(|cause| Error::new(Kind::Key, "the summary could not be signed").because(cause))?;
            files::write_new(path, bundle.to_bytes())?;
        }
        Ok(wanted.into_iter().map(|(path, _)| path).collect())
    }
}

/// An absolute URI of a kind that names a verifier.
fn uri(text: &str) -> std::result::Result<String, String> {
    match url::Url::parse(text) {
        Ok(url) if ["https", "http", "urn"].contains(&url.scheme()) => Ok(text.to_owned()),
        _ => Err("not a URI that begins with https://, http:// or urn:".to_owned()),
    }
}

/// `vsa.json` becomes `vsa.draft.json`.
fn beside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(match name.rsplit_once('.') {
        Some((stem, extension)) if !stem.is_empty() => format!("{stem}.draft.{extension}"),
        _ => format!("{name}.draft"),
    })
}
