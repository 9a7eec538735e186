//! Searches the files that a step changed for the step's secrets, before any of them becomes a layer.

use std::fs::{self, File};
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{lgetxattr, llistxattr};

use recorder::SecretPatterns;

/// The most bytes of a file's extended attributes, and of the list of their names, in Linux.
const MAX_ATTRIBUTES: usize = 64 * 1024;

/// Where a secret was found.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Leak {
    /// The secret's id.
    pub(crate) id: String,
    /// The part of the file that holds it: its name, its content, …
    pub(crate) part: &'static str,
    /// The path in the image; without its last part, if that holds the secret.
    pub(crate) path: String,
}

/// The first of `needles` in the upper directory of an overlay: in names, contents, link targets, and names and
/// values of extended attributes. Files of any length are read in blocks.
///
/// # Errors
/// When something cannot be read: then the absence of secrets is not shown.
pub(crate) fn find(upper: &Path, needles: &Arc<SecretPatterns>) -> io::Result<Option<Leak>> {
    if needles.is_empty() {
        return Ok(None);
    }
    let mut open: Vec<PathBuf> = vec![PathBuf::new()];
    while let Some(folder) = open.pop() {
        for entry in fs::read_dir(upper.join(&folder))? {
            let entry = entry?;
            let path = folder.join(entry.file_name());
            if let Some(found) = one(&entry.path(), &path, needles)? {
                return Ok(Some(found));
            }
            if entry.file_type()?.is_dir() {
                open.push(path);
            }
        }
    }
    Ok(None)
}

fn one(place: &Path, path: &Path, needles: &Arc<SecretPatterns>) -> io::Result<Option<Leak>> {
    let shown = |path: &Path| needles.redacted(&format!("/{}", path.display()));
    let leak = |id: &str, part, path: &Path| Some(Leak { id: id.to_owned(), part, path: shown(path) });
    // The whole path is searched, since a secret may contain slashes.
    if let Some(id) = needles.find(path.as_os_str().as_bytes()) {
        return Ok(leak(id, "a name in", path.parent().unwrap_or(Path::new(""))));
    }
    let kind = fs::symlink_metadata(place)?.file_type();
    if kind.is_symlink() {
        let target = fs::read_link(place)?;
        if let Some(id) = needles.find(target.as_os_str().as_bytes()) {
            return Ok(leak(id, "the target of the link", path));
        }
    }
    if kind.is_file()
        && let Some(id) = needles.find_in(File::open(place)?)?
    {
        return Ok(leak(&id, "the file", path));
    }
    Ok(attributes(place, needles)?.and_then(|id| leak(&id, "an attribute of", path)))
}

fn attributes(place: &Path, needles: &SecretPatterns) -> io::Result<Option<String>> {
    let mut names = vec![0_u8; MAX_ATTRIBUTES];
    let length = match llistxattr(place, &mut names) {
        Err(rustix::io::Errno::OPNOTSUPP) => 0,
        length => length?,
    };
    let mut value = vec![0_u8; if length > 0 { MAX_ATTRIBUTES } else { 0 }];
    for name in names[..length].split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let count = lgetxattr(place, name, &mut value)?;
        if let Some(id) = needles.find(name).or_else(|| needles.find(&value[..count])) {
            return Ok(Some(id.to_owned()));
        }
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;
    use crate::secrets::{Given, Secrets};

    fn needles(folder: &Path) -> Arc<SecretPatterns> {
        let path = folder.join("secret");
        fs::write(&path, "hunter2/and+more\n").unwrap();
        let given: Given = format!("id=token,src={}", path.display()).parse().unwrap();
        Arc::new(Secrets::read(&[given]).unwrap().all_needles())
    }

    #[test]
    fn a_secret_is_found_in_whatever_a_layer_would_hold() {
        let folder = tempfile::tempdir().unwrap();
        let needles = needles(folder.path());
        let upper = folder.path().join("upper");
        let find = || find(&upper, &needles).unwrap().map(|leak| (leak.part, leak.path));
        let fresh = || {
            let _ = fs::remove_dir_all(&upper);
            fs::create_dir_all(upper.join("a/b")).unwrap();
            fs::write(upper.join("a/b/c"), "hunter2/and+mor").unwrap();
        };
        fresh();
        assert_eq!(find(), None);
        let far = [vec![b'x'; (1 << 16) - 5], b"hunter2/and+more".to_vec()].concat();
        fs::write(upper.join("a/b/c"), far).unwrap();
        assert_eq!(find(), Some(("the file", "/a/b/c".to_owned())));
        fresh();
        fs::write(upper.join("a/b/basic"), "authorization: Basic dTpodW50ZXIyL2FuZCttb3Jl").unwrap();
        assert_eq!(find(), Some(("the file", "/a/b/basic".to_owned())));
        fresh();
        fs::create_dir_all(upper.join("a/hunter2/and+more")).unwrap();
        assert_eq!(find(), Some(("a name in", "/a/hunter2".to_owned())));
        fresh();
        std::os::unix::fs::symlink("/x/hunter2/and+more", upper.join("a/link")).unwrap();
        assert_eq!(find(), Some(("the target of the link", "/a/link".to_owned())));
        fresh();
        let attribute = rustix::fs::setxattr(
            upper.join("a/b"),
            c"user.note",
            b"hunter2/and+more",
            rustix::fs::XattrFlags::empty(),
        );
        if attribute.is_ok() {
            assert_eq!(find(), Some(("an attribute of", "/a/b".to_owned())));
        }
    }
}
