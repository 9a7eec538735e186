//! From a reference to a decision: resolve, gather, decide. The policy is read anew each time, so that a revocation counts at once.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use attestations::{Case, Decision, Gathered, Policy, Question, Reference};
use errors::trusted;
use images::Store;
use images::registry::Client;
use jiff::Timestamp;

use crate::error::{self, Error, Kind, Result};
use crate::{config, evidence};

/// What is asked, and where evidence may come from.
#[derive(Debug, Clone)]
pub struct Request {
    /// The image.
    pub reference: Reference,
    /// The function to be called, where it is known.
    pub function: Option<String>,
    /// Files and folders with bundles, about the image or its bases.
    pub evidence: Vec<PathBuf>,
    /// Whether the registry is asked too.
    pub registry: Registry,
}

/// Whether the registry is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Registry {
    /// For the digest behind a tag, and for what is attached.
    Asked,
    /// For nothing: the reference has to name a digest, and evidence comes from files.
    Offline,
}

/// Reads a policy.
///
/// # Errors
/// When it is missing, empty, half-written, has a field that is not known, or others may change it. None of these ever
/// admits anything.
pub fn read_policy(path: &Path) -> Result<Policy> {
    let text = trusted::read_text(path, config::MAX_FILE).map_err(|cause| {
        let hint = match (cause.kind(), cause.hint_text()) {
            (Kind::Refused, Some(remedy)) => remedy.to_owned(),
            _ => "`countersign-runner init DIR` writes a commented example; name yours with --policy or in runner.toml".to_owned(),
        };
        Error::new(cause.kind(), format!("there is no usable policy, so nothing is admitted: {}", path.display())).hint(hint).because(cause)
    })?;
    Policy::parse(&text).map_err(|cause| {
        Error::new(
            Kind::Input,
            format!("the policy {} is not usable, so nothing is admitted", path.display()),
        )
        .hint("mend the line it names; docs/policy.md describes every field")
        .because(cause)
    })
}

/// Decides whether an image may run, now. Evidence that is in `kept` already is not fetched again; that it still is
/// attached is asked each time.
///
/// # Errors
/// When it cannot be decided: no policy, no such image, a registry that fails.
pub async fn admit(
    client: &Client,
    policy: &Path,
    request: &Request,
    kept: Option<&Store>,
) -> Result<Decision> {
    let policy = read_policy(policy)?;
    let digest = match (request.reference.digest(), request.registry) {
        (Some(digest), Registry::Offline) => *digest,
        (None, Registry::Offline) => {
            return Err(Error::new(
                Kind::Usage,
                format!("{} is a tag, and what it names is only known to the registry", request.reference),
            )
            .hint("with --offline, name the image by digest: registry/name@sha256:…"));
        }
        (_, Registry::Asked) => {
            let doing = format!("finding {}", request.reference);
            client.resolve(&request.reference).await.map_err(|cause| error::images(&doing, cause))?
        }
    };
    let mut found = Vec::new();
    for path in &request.evidence {
        found.extend(evidence::from_path(path)?);
    }
    if request.registry == Registry::Asked {
        let pinned = request.reference.repository().clone().pin(digest);
        found.extend(evidence::from_registry(client, &pinned, kept).await?);
    }
    let question = Question { asked: request.reference.clone(), digest, function: request.function.clone() };
    let case = Case::open(&policy, &question, &found, Timestamp::now());
    let mut bases = BTreeMap::new();
    for base in case.bases() {
        let gathered = match request.registry {
            Registry::Asked => evidence::of_base(client, base, kept).await,
            // The files are at hand already, and whoever decides offline says that they are all there is.
            Registry::Offline => Gathered::Bundles(Vec::new()),
        };
        bases.insert(base.digest, gathered);
    }
    Ok(case.decide(&bases))
}
