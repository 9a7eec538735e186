//! What a checkout makes of a file's blob, by the `.gitattributes` of the commit itself: `eol`, `working-tree-encoding`
//! and `ident`. `docker build` sees a checkout, so COPY has to give the same.
//!
//! Git itself decides and converts, without the machine's configuration and attributes. Deliberately absent: `filter`,
//! whose programs only a configuration can name.

use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::io::{Read as _, Write as _};
use std::os::unix::ffi::OsStrExt as _;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use git2::Oid;

use super::{SourceError, recorded};

/// The name of the files in which attributes are written.
pub(super) const FILE: &[u8] = b".gitattributes";
/// The attributes that change what a checkout writes.
const ASKED: [&str; 3] = ["eol", "working-tree-encoding", "ident"];
/// A file of attributes that has none of these words changes nothing.
const WORDS: [&[u8]; 3] = [b"eol", b"encoding", b"ident"];
/// The most bytes of a file of attributes; git itself reads no more.
pub(super) const SIZE_LIMIT: usize = 100 << 20;

/// Whether a file of attributes may change what a checkout writes.
pub(super) fn may_convert(attributes: &[u8]) -> bool {
    WORDS.iter().any(|word| memchr::memmem::find(attributes, word).is_some())
}

/// How the bytes of a file come from its blob.
#[derive(Debug, Clone, Default)]
pub(crate) enum Form {
    /// They are the blob's.
    #[default]
    Blob,
    /// As a checkout writes them.
    Checkout(Arc<Attributes>, Vec<u8>),
}

impl Form {
    /// Whether the bytes are others than the blob's.
    pub(super) fn is_converted(&self) -> bool {
        matches!(self, Self::Checkout(..))
    }
}

/// The attributes of one tree.
#[derive(Debug)]
pub(crate) struct Attributes {
    repository: PathBuf,
    /// A working tree that has nothing but the files of attributes.
    place: tempfile::TempDir,
    converted: BTreeSet<Vec<u8>>,
}

impl Attributes {
    /// Asks git which files of a tree a checkout converts, by its files of attributes.
    ///
    /// # Errors
    /// When git fails.
    pub(super) fn of(
        git: &git2::Repository,
        attributes: &[(Vec<u8>, Oid)],
        files: &[Vec<u8>],
    ) -> Result<Arc<Self>, SourceError> {
        let cache = |source| SourceError::Cache { path: git.path().to_path_buf(), source };
        let place = tempfile::tempdir().map_err(cache)?;
        for (folder, id) in attributes {
            let folder = place.path().join(OsStr::from_bytes(folder));
            std::fs::create_dir_all(&folder).map_err(cache)?;
            let file = folder.join(OsStr::from_bytes(FILE));
            std::fs::write(file, git.find_blob(*id)?.content()).map_err(cache)?;
        }
        let repository = git.path().to_path_buf();
        let mut attributes = Self { repository, place, converted: BTreeSet::new() };
        let mut input = Vec::new();
        for file in files {
            input.extend_from_slice(file);
            input.push(0);
        }
        let arguments = [&["check-attr", "--stdin", "-z"], &ASKED[..]].concat();
        let output = attributes.run(&arguments, &input)?;
        attributes.converted = converted(&output);
        Ok(Arc::new(attributes))
    }

    /// The form of a file.
    pub(super) fn form(self: &Arc<Self>, path: &[u8]) -> Form {
        match self.converted.contains(path) {
            true => Form::Checkout(self.clone(), path.to_vec()),
            false => Form::Blob,
        }
    }

    /// What a checkout writes for a blob.
    pub(super) fn convert(&self, blob: Oid, path: &[u8]) -> Result<Vec<u8>, SourceError> {
        let mut named = OsString::from("--path=");
        named.push(OsStr::from_bytes(path));
        let mut command = self.command();
        command.args(["cat-file", "--filters"]).arg(named).arg(blob.to_string());
        output_of(command, b"")
    }

    fn run(&self, arguments: &[&str], input: &[u8]) -> Result<Vec<u8>, SourceError> {
        let mut command = self.command();
        command.args(arguments);
        output_of(command, input)
    }

    fn command(&self) -> Command {
        let mut command = Command::new("git");
        recorded::isolate(&mut command, self.place.path());
        command
            .current_dir(self.place.path())
            .env("GIT_ATTR_NOSYSTEM", "1")
            .env("GIT_DIR", &self.repository)
            .env("GIT_WORK_TREE", self.place.path());
        command
    }
}

/// The files of `check-attr -z`, a path, an attribute and a value each, that a checkout on Linux converts.
fn converted(output: &[u8]) -> BTreeSet<Vec<u8>> {
    let words: Vec<&[u8]> = output.split(|byte| *byte == 0).collect();
    let is_converted = |attribute: &[u8], value: &[u8]| match attribute {
        b"eol" => value == b"crlf",
        _ => !matches!(value, b"unspecified" | b"unset"),
    };
    let triples = words.chunks_exact(3).filter(|it| is_converted(it[1], it[2]));
    triples.map(|it| it[0].to_vec()).collect()
}

fn output_of(mut command: Command, input: &[u8]) -> Result<Vec<u8>, SourceError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(SourceError::NoGit)?;
    let (mut stdin, mut stderr) = (child.stdin.take(), child.stderr.take());
    let (mut output, mut said) = (Vec::new(), Vec::new());
    let done = std::thread::scope(|scope| {
        scope.spawn(|| {
            // A program that stops reading says why itself.
            let _ = stdin.take().map(|mut stdin| stdin.write_all(input));
        });
        scope.spawn(|| stderr.as_mut().map(|stderr| stderr.read_to_end(&mut said)));
        child.stdout.take().map(|mut stdout| stdout.read_to_end(&mut output)).transpose()
    });
    let status = child.wait().map_err(SourceError::NoGit)?;
    done.map_err(SourceError::NoGit)?;
    match status.success() {
        true => Ok(output),
        false => Err(SourceError::Checkout(super::fetch::said(&String::from_utf8_lossy(&said)))),
    }
}
