//! Loading the policies: the node's own, a federation's, or both.

use std::path::{Path, PathBuf};

use attestations::Policy;
use errors::{Error, Kind, Result, trusted};
use jiff::Timestamp;

use crate::federation::{self, Federation};
use crate::memory::Keeping;

/// The most bytes of a policy.
const MAX_POLICY: u64 = 16 << 20;

/// Where the policies are that decide. They are read for each decision, so that a revocation counts at once.
#[derive(Debug, Clone)]
pub enum Policies {
    /// The node's own alone.
    Node(PathBuf),
    /// A federation's alone.
    Federation(Federation),
    /// A federation's, and the node's own, which can only narrow it: an image has to be admitted by each.
    Narrowed {
        /** The federation's. */
        federation: Federation,
        /** The node's own. */
        node: PathBuf,
    },
}

/// One policy or two, of which each has to say yes.
#[derive(Debug)]
pub(crate) struct Loaded {
    first: Policy,
    second: Option<Policy>,
}

impl Loaded {
    /// Each of them; the node's own first.
    pub(crate) fn each(&self) -> impl Iterator<Item = &Policy> {
        std::iter::once(&self.first).chain(&self.second)
    }
}

impl From<Policy> for Loaded {
    fn from(policy: Policy) -> Self {
        Self { first: policy, second: None }
    }
}

impl Policies {
    /// Reads all of them. Where one cannot be used, none is.
    ///
    /// # Errors
    /// As [`read`] and [`federation::read`].
    pub(crate) fn read(&self, keeping: Keeping<'_>, now: Timestamp) -> Result<Loaded> {
        let release = |it| Ok::<_, Error>(federation::read(it, keeping, now)?.into_policy());
        match self {
            Self::Node(path) => Ok(read(path)?.into()),
            Self::Federation(federation) => Ok(release(federation)?.into()),
            Self::Narrowed { federation, node } => {
                Ok(Loaded { first: read(node)?, second: Some(release(federation)?) })
            }
        }
    }

    /// Each of them alone: what one revokes does not depend on whether the other can be read.
    pub(crate) fn split(&self) -> Vec<Self> {
        match self {
            Self::Narrowed { federation, node } => {
                vec![Self::Node(node.clone()), Self::Federation(federation.clone())]
            }
            one => vec![one.clone()],
        }
    }

    /// The federation that is followed, if one is.
    pub(crate) fn federation(&self) -> Option<&Federation> {
        match self {
            Self::Node(_) => None,
            Self::Federation(federation) | Self::Narrowed { federation, .. } => Some(federation),
        }
    }
}

/// Reads a policy of the node's own. It is read anew for each decision, so that a revocation counts at once.
///
/// # Errors
/// When it is missing, empty, half-written, or has a field that is not known, or others may change it. None of these
/// ever admits anything.
pub fn read(path: &Path) -> Result<Policy> {
    let text = trusted::read_text(path, MAX_POLICY).map_err(|cause| {
        let what = format!("there is no usable policy, so nothing is admitted: {}", path.display());
        let hint = match (cause.kind(), cause.hint_text()) {
            (Kind::Refused, Some(remedy)) => remedy.to_owned(),
            _ => "`countersign-runner init DIR` writes a commented example; name yours with --policy or in \
                  runner.toml"
                .to_owned(),
        };
        Error::new(cause.kind(), what).hint(hint).because(cause)
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
