//! `/var/lib/dpkg/status`, and the files of `status.d` where there is no dpkg.

use super::{Content, Purl, Result, field, malformed, paragraphs};

/// The largest list, in bytes: some thousand packages are two MiB.
const LIMIT: u64 = 64 << 20;

/// The packages whose files are there. Those of which only configuration is left are not.
pub(super) fn read(content: Content<'_>) -> Result<Vec<Purl>> {
    let text = content.text(LIMIT)?;
    let mut packages = Vec::new();
    for paragraph in paragraphs(&text) {
        let state = field(paragraph, "Status").and_then(|status| status.rsplit(' ').next());
        if matches!(state, Some("not-installed" | "config-files")) {
            continue;
        }
        let (Some(name), Some(version)) = (field(paragraph, "Package"), field(paragraph, "Version")) else {
            return malformed("a package without name or version");
        };
        let architecture = field(paragraph, "Architecture").unwrap_or_default();
        packages.push(Purl::new("deb", name, version).with("arch", architecture));
    }
    Ok(packages)
}
