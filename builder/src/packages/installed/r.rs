//! `DESCRIPTION` of an installed R package.

use super::{Content, Purl, Result, field, malformed};

/// The largest file, in bytes.
const LIMIT: u64 = 4 << 20;

/// The package; none where the file is that of sources, or of a package that is a part of R itself.
pub(super) fn read(content: Content<'_>) -> Result<Option<Purl>> {
    let text = content.text(LIMIT)?;
    // R writes this field when it installs.
    if field(&text, "Built").is_none() || field(&text, "Priority") == Some("base") {
        return Ok(None);
    }
    match (field(&text, "Package"), field(&text, "Version")) {
        (Some(name), Some(version)) => Ok(Some(Purl::new("cran", name, version))),
        _ => malformed("a package without name or version"),
    }
}
