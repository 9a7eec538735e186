//! The files of the context, as far as explaining needs them.

use std::path::PathBuf;

use crate::source::Snapshot;

/// The largest file that is read, in bytes.
const LIMIT: u64 = 1 << 20;

/// Files that an instruction may speak of.
pub(crate) trait Files {
    /// Whether the context is known at all.
    fn are_known(&self) -> bool;
    /// The text at a path of the context.
    fn at(&self, path: &str) -> Option<String>;

    /// The text of a file by its path in the image: the context's file with the longest end of that path.
    fn read(&self, path: &str) -> Option<String> {
        let path = path.trim_start_matches("./").trim_start_matches('/');
        let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty() && *part != ".").collect();
        if parts.contains(&"..") {
            return None;
        }
        (0..parts.len()).find_map(|from| self.at(&parts[from..].join("/")))
    }
}

/// Nothing but the Dockerfile is known.
#[cfg(test)]
pub(super) struct NoFiles;

#[cfg(test)]
impl Files for NoFiles {
    fn are_known(&self) -> bool {
        false
    }

    fn at(&self, _path: &str) -> Option<String> {
        None
    }
}

/// A folder of a commit.
pub(crate) struct CommitFiles<'a> {
    /// The commit.
    pub(crate) snapshot: &'a Snapshot<'a>,
    /// The context's path; "" is the whole.
    pub(crate) context: String,
}

impl Files for CommitFiles<'_> {
    fn are_known(&self) -> bool {
        true
    }

    fn at(&self, path: &str) -> Option<String> {
        let path = match self.context.as_str() {
            "" => path.to_owned(),
            context => format!("{context}/{path}"),
        };
        // What is too large, or no file, says nothing here.
        let bytes = self.snapshot.file(&path, LIMIT).ok()??;
        String::from_utf8(bytes).ok()
    }
}

/// A folder of this machine.
pub(crate) struct FolderFiles {
    /// Where it is.
    pub(crate) folder: PathBuf,
    /// Whether it is known to be the context, and not only taken for it.
    pub(crate) is_context: bool,
}

impl Files for FolderFiles {
    fn are_known(&self) -> bool {
        self.is_context
    }

    fn at(&self, path: &str) -> Option<String> {
        let place = self.folder.join(path);
        let metadata = std::fs::symlink_metadata(&place).ok()?;
        if !metadata.is_file() {
            return None;
        }
        errors::files::read(&place, LIMIT).ok().and_then(|bytes| String::from_utf8(bytes).ok())
    }
}
