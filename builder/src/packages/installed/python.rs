//! `METADATA` and `PKG-INFO`, which pip, uv, conda and setuptools leave for each Python package.

use super::{Content, Purl, Result, field, malformed};

/// The largest file, in bytes: the package's whole description follows the fields.
const LIMIT: u64 = 16 << 20;

/// The package.
pub(super) fn read(content: Content<'_>) -> Result<Purl> {
    let text = content.text(LIMIT)?.replace("\r\n", "\n");
    let fields = text.split("\n\n").next().unwrap_or_default();
    match (field(fields, "Name"), field(fields, "Version")) {
        (Some(name), version) => Ok(Purl::new("pypi", name, version.unwrap_or_default())),
        (None, _) => malformed("a package without a name"),
    }
}
