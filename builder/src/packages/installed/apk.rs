//! `/lib/apk/db/installed`: lines of a letter, a colon and a value; an empty line ends a package.

use super::{Content, Purl, Result, malformed, paragraphs};

/// The largest list, in bytes: it names every file.
const LIMIT: u64 = 256 << 20;

/// The packages.
pub(super) fn read(content: Content<'_>) -> Result<Vec<Purl>> {
    let text = content.text(LIMIT)?;
    let package = |paragraph: &str| {
        let value = |letter: &str| paragraph.lines().find_map(|line| line.strip_prefix(letter));
        let (Some(name), Some(version)) = (value("P:"), value("V:")) else {
            return malformed("a package without name or version");
        };
        Ok(Purl::new("apk", name, version).with("arch", value("A:").unwrap_or_default()))
    };
    paragraphs(&text).map(package).collect()
}
