//! `os-release`: the distribution's name.

use super::{Content, Result};

/// The largest file, in bytes.
const LIMIT: u64 = 1 << 20;

/// The name that purls have for the distribution; empty when the file has none.
pub(super) fn read(content: Content<'_>) -> Result<String> {
    let text = content.text(LIMIT)?;
    let id = text.lines().find_map(|line| line.strip_prefix("ID="));
    let id = id.unwrap_or_default().trim().trim_matches(['"', '\'']).to_ascii_lowercase();
    Ok(match id.as_str() {
        "rhel" => "redhat".to_owned(),
        id if id.starts_with("opensuse") => "opensuse".to_owned(),
        id => id.chars().filter(|c| c.is_ascii_alphanumeric() || "._-".contains(*c)).collect(),
    })
}
