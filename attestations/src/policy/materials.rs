//! What a rule asks of the materials of every build that is to count.

use serde::Deserialize;
use toml::Spanned;

use super::text::{At, ListText, PolicyError};
use super::{Allowed, Pattern};

/// What the materials of a build must be.
#[derive(Debug, Clone)]
pub(crate) struct Materials {
    /// Whether the builder must say that nothing entered unnamed.
    pub(crate) gaps: Gaps,
    /// The hosts that exchanges may be with.
    pub(crate) hosts: Allowed<Pattern>,
    /// Packages of which one each must be in the image.
    pub(crate) require: Vec<Pattern>,
    /// Packages that must not be in the image.
    pub(crate) forbid: Vec<Pattern>,
    /// Packages that must not have come over the network, whatever became of them.
    pub(crate) forbid_fetched: Vec<Pattern>,
}

/// Whether something may have entered a build without a name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Gaps {
    /// It may.
    Allowed,
    /// It must not.
    Refused,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct MaterialsText {
    complete: Spanned<bool>,
    hosts: Spanned<ListText>,
    #[serde(default)]
    require: Vec<Spanned<String>>,
    #[serde(default)]
    forbid: Vec<Spanned<String>>,
    #[serde(default)]
    forbid_fetched: Vec<Spanned<String>>,
}

impl MaterialsText {
    pub(super) fn read(self, at: At<'_>) -> Result<Materials, PolicyError> {
        let packages = |texts: &[Spanned<String>]| {
            let read = |text: &Spanned<String>| {
                Pattern::package(text.get_ref()).map_err(|why| {
                    let message = format!("`{}` can match no package: {why}", text.get_ref());
                    at.error(text.span(), &message, "write pkg:TYPE/NAME@VERSION with `*` or `**`")
                })
            };
            texts.iter().map(read).collect::<Result<Vec<_>, _>>()
        };
        let (require, forbid) = (packages(&self.require)?, packages(&self.forbid)?);
        let forbid_fetched = packages(&self.forbid_fetched)?;
        for (wanted, text) in require.iter().zip(&self.require) {
            if let Some(other) = forbid.iter().find(|other| other.covers(wanted)) {
                let message = format!("`{wanted}` is required, and forbidden by `{other}`");
                return Err(at.error(text.span(), &message, "keep one of them"));
            }
        }
        let hosts = at.list(self.hosts, |at, span, text| {
            Pattern::host(text).ok_or_else(|| {
                let message = format!("`{text}` can match no host");
                at.error(
                    span,
                    &message,
                    "write a host in small letters with `*` or `**`, without scheme or port",
                )
            })
        })?;
        let gaps = if *self.complete.get_ref() { Gaps::Refused } else { Gaps::Allowed };
        // What was not recorded has no host and no name: such a rule would look strict and prove nothing.
        if gaps == Gaps::Allowed && (matches!(hosts, Allowed::Only(_)) || !forbid_fetched.is_empty()) {
            let message = "hosts and forbid_fetched mean nothing where materials may be incomplete";
            let hint = "write complete = true, or hosts = \"any\" without forbid_fetched";
            return Err(at.error(self.complete.span(), message, hint));
        }
        Ok(Materials { gaps, hosts, require, forbid, forbid_fetched })
    }
}
