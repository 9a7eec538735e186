//! Reading a federation's policy: whom the node trusts for it, and the release that lies in a folder.

use std::path::{Path, PathBuf};

use attestations::Evidence;
use attestations::federation::{Edition, MAX_SIGNATURES, Release, ReleaseError, Trust};
use errors::{Error, Kind, Result, files, trusted};
use jiff::Timestamp;

use crate::memory::{Keeping, Memory};

/// The most bytes of a policy, and of the file that says whose keys count.
const MAX_POLICY: u64 = 1 << 20;
/// The most bytes of a bundle beside a policy.
const MAX_BUNDLE: u64 = 64 << 10;

/// A federation whose policy is followed.
#[derive(Debug, Clone)]
pub struct Federation {
    /// The node's own file that says whose keys count. Nobody else may change it.
    pub trust: PathBuf,
    /// The folder with `policy.toml` and its bundles (`*.json`). Anybody may deliver it: what counts is signed.
    pub release: PathBuf,
}

/// Reads whom a node trusts for a federation's policy.
///
/// # Errors
/// When the file is missing or not usable, or others may change it.
pub fn read_trust(path: &Path) -> Result<Trust> {
    let what = || format!("whom to trust for the federation's policy is not known: {}", path.display());
    let text = trusted::read_text(path, MAX_POLICY).map_err(|cause| {
        let hint = cause.hint_text().unwrap_or("docs/federation.md has an example").to_owned();
        Error::new(cause.kind(), what()).hint(hint).because(cause)
    })?;
    Trust::parse(&text).map_err(|cause| {
        Error::new(Kind::Input, what())
            .hint("mend what it names; docs/federation.md has an example")
            .because(cause)
    })
}

/// Reads the release that is in force now.
///
/// # Errors
/// When there is none: too few signatures, a step back, a release that expired or is no policy. Nothing is admitted then.
pub(crate) fn read(federation: &Federation, keeping: Keeping<'_>, now: Timestamp) -> Result<Release> {
    let trust = read_trust(&federation.trust)?;
    let folder = &federation.release;
    let unusable = |kind| {
        let (name, folder) = (trust.name(), folder.display());
        Error::new(kind, format!("no usable policy of {name} is in {folder}, so nothing is admitted"))
    };
    let unread = |cause: Error| {
        let hint = format!(
            "copy policy.toml and its bundles (*.json) from the federation to {}; docs/federation.md says how",
            folder.display()
        );
        unusable(cause.kind()).hint(hint).because(cause)
    };
    let refused = |cause: ReleaseError| unusable(kind(&cause)).hint(cause.remedy()).because(cause);
    let path = folder.join("policy.toml");
    let text =
        files::read_regular(&path, MAX_POLICY).and_then(|bytes| files::text(bytes, &path)).map_err(unread)?;
    let bundles = bundles(folder).map_err(unread)?;
    let signed = trust.check(&text, &bundles, now).map_err(refused)?;
    let memory = match keeping {
        Keeping::In(memory) | Keeping::Against(memory) => Some(memory),
        Keeping::Nowhere => None,
    };
    let seen = memory.map(|memory| memory.release(trust.name())).transpose()?.flatten();
    let followed = signed.follow(seen.as_ref()).map_err(refused)?;
    if let Keeping::In(memory) = keeping {
        keep(memory, &trust, followed.edition(), seen.as_ref())?;
    }
    followed.in_force(now).map_err(refused)
}

/// Also a release that cannot be used was issued: what comes before it is a step back.
fn keep(memory: &Memory, trust: &Trust, edition: &Edition, seen: Option<&Edition>) -> Result<()> {
    match seen == Some(edition) {
        true => Ok(()),
        false => memory.keep_release(trust.name(), edition),
    }
}

fn kind(cause: &ReleaseError) -> Kind {
    match cause {
        ReleaseError::NotAPolicy { .. } | ReleaseError::TooManySignatures { .. } => Kind::Input,
        _ => Kind::Key,
    }
}

/// Every bundle in the folder, up to one more than are looked at.
fn bundles(folder: &Path) -> Result<Vec<Evidence>> {
    let entries = std::fs::read_dir(folder).map_err(|cause| Error::io("reading", folder, cause))?;
    let mut paths = Vec::new();
    for entry in entries {
        let path = entry.map_err(|cause| Error::io("reading", folder, cause))?.path();
        if path.extension().is_some_and(|extension| extension == "json") {
            paths.push(path);
        }
        if paths.len() > MAX_SIGNATURES {
            break;
        }
    }
    paths.sort();
    let read = |path: PathBuf| {
        let bytes = files::read_regular(&path, MAX_BUNDLE)?;
        let origin = path.file_name().unwrap_or(path.as_os_str()).to_string_lossy().into_owned();
        Ok(Evidence { origin, bytes })
    };
    paths.into_iter().map(read).collect()
}
