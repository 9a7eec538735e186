//! `package.json` of an installed npm package.

use serde_json::Value;

use super::{Content, Purl, RecordError, Result};

/// The largest file, in bytes.
const LIMIT: u64 = 16 << 20;

/// The package that a folder right below `node_modules`, or below a scope there, is named for.
pub(super) fn folder_name(folder: &str) -> Option<&str> {
    let below = match folder.rfind("node_modules/") {
        Some(at) if at == 0 || folder.as_bytes()[at - 1] == b'/' => &folder[at + "node_modules/".len()..],
        _ => return None,
    };
    let parts = below.split('/').count();
    (parts == if below.starts_with('@') { 2 } else { 1 }).then_some(below)
}

/// The package. One without a name is known by its folder's.
pub(super) fn read(path: &str, content: Content<'_>) -> Result<Purl> {
    let bytes = content.whole(LIMIT)?;
    // Some tools begin the file with a byte order mark.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes);
    let package: Value =
        serde_json::from_slice(bytes).map_err(|_| RecordError::Malformed("it is not JSON"))?;
    let text = |key: &str| package.get(key).and_then(Value::as_str).unwrap_or_default();
    let folder = path.rsplit_once('/').and_then(|(folder, _)| folder_name(folder)).unwrap_or_default();
    let name = match text("name") {
        "" => folder,
        name => name,
    };
    let (scope, name) = name.split_once('/').unwrap_or(("", name));
    Ok(Purl::new("npm", name, text("version")).within(scope))
}
