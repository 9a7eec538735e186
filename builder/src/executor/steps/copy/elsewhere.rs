//! What a commit names without having it: submodules, and files in LFS.

use std::collections::BTreeMap;
use std::io::Read;
use std::sync::{Mutex, MutexGuard, OnceLock, PoisonError};

use attestations::{Commit, Foreign};

use crate::dockerfile::ignore::Ignore;
use crate::source::{Access, Entered, Home, LfsHome, LfsStore, Place, Pointer, SourceError};

/// The most submodules of one build.
const MOST: usize = 100;

/// How it is fetched, and what was.
pub(crate) struct Elsewhere {
    access: Access,
    /// What `.dockerignore` leaves out, by paths in the context.
    ignore: Ignore,
    runtime: tokio::runtime::Handle,
    store: OnceLock<LfsStore>,
    progress: Mutex<Progress>,
}

#[derive(Default)]
struct Progress {
    submodules: BTreeMap<String, TakenSubmodule>,
    files: BTreeMap<String, TakenFile>,
    /// Files that are to be fetched, by repository.
    wanted: BTreeMap<String, (LfsHome, BTreeMap<Pointer, String>)>,
    /// Paths of pointers that cannot be read.
    malformed: Vec<String>,
}

/// What a build took of it.
#[derive(Debug, Clone, Default)]
pub(crate) struct Taken {
    /// Submodules, ordered by path.
    pub(crate) submodules: Vec<TakenSubmodule>,
    /// Files in LFS, ordered by path.
    pub(crate) files: Vec<TakenFile>,
}

/// A submodule that was taken.
#[derive(Debug, Clone)]
pub(crate) struct TakenSubmodule {
    /// Its path in the repository.
    pub(crate) path: String,
    /// Its own repository.
    pub(crate) uri: String,
    /// Its commit.
    pub(crate) commit: Commit,
}

/// A file in LFS that was taken.
#[derive(Debug, Clone)]
pub(crate) struct TakenFile {
    /// Its path in the repository.
    pub(crate) path: String,
    /// The repository whose server has it.
    pub(crate) uri: String,
    /// What it is.
    pub(crate) pointer: Pointer,
}

impl Elsewhere {
    /// Nothing is fetched yet.
    pub(crate) fn new(access: Access, ignore: Ignore, runtime: tokio::runtime::Handle) -> Self {
        Self { access, ignore, runtime, store: OnceLock::new(), progress: Mutex::default() }
    }

    fn progress(&self) -> MutexGuard<'_, Progress> {
        self.progress.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was taken so far.
    pub(super) fn taken(&self) -> Taken {
        let progress = self.progress();
        Taken {
            submodules: progress.submodules.values().cloned().collect(),
            files: progress.files.values().cloned().collect(),
        }
    }

    /// Fetches a submodule. `outside` is how many bytes of a path in the repository lead to the context.
    pub(super) fn enter(
        &self,
        home: &Home,
        place: Place<'_>,
        outside: usize,
    ) -> Result<Option<Entered>, SourceError> {
        let path = text(place.full);
        if self.progress().submodules.len() >= MOST {
            let why = format!("one more than the {MOST} that are fetched");
            return Err(SourceError::Submodule { path, why });
        }
        let wanted = |full: &[u8]| !self.ignore.leaves_out(full.get(outside..).unwrap_or_default());
        let entered = self.access.enter(home, place, &wanted)?;
        if let Some(Entered { commit, uri, .. }) = &entered {
            let (uri, commit) = (uri.clone(), commit.clone());
            self.progress().submodules.insert(path.clone(), TakenSubmodule { path, uri, commit });
        }
        Ok(entered)
    }

    /// Notes that a file in LFS is to be fetched.
    pub(super) fn want(&self, home: &LfsHome, pointer: &[u8], path: &[u8]) -> Result<Pointer, SourceError> {
        let path = text(path);
        let mut progress = self.progress();
        let Some(pointer) = Pointer::parse(pointer) else {
            progress.malformed.push(path.clone());
            return Err(SourceError::LfsPointer { path });
        };
        let uri = home.uri().to_owned();
        let taken = TakenFile { path: path.clone(), uri: uri.clone(), pointer };
        progress.files.insert(path.clone(), taken);
        let (_, files) = progress.wanted.entry(uri).or_insert_with(|| (home.clone(), BTreeMap::new()));
        files.insert(pointer, path);
        Ok(pointer)
    }

    /// Fetches all files in LFS that were noted, together.
    pub(super) fn fetch_files(&self) -> Result<(), SourceError> {
        let wanted = {
            let mut progress = self.progress();
            if let Some(path) = progress.malformed.pop() {
                return Err(SourceError::LfsPointer { path });
            }
            std::mem::take(&mut progress.wanted)
        };
        for (home, files) in wanted.values() {
            let store = self.store(files.values().next().map_or("", String::as_str))?;
            store.fetch(home, files, &self.access.upstream, &self.runtime)?;
        }
        Ok(())
    }

    /// The content of a file in LFS.
    pub(super) fn content(&self, pointer: Pointer, path: &[u8]) -> Result<Box<dyn Read>, SourceError> {
        let path = text(path);
        let store = self.store(&path)?;
        store.content(pointer).map_err(|why| SourceError::Lfs { path, why })
    }

    fn store(&self, path: &str) -> Result<&LfsStore, SourceError> {
        if let Some(store) = self.store.get() {
            return Ok(store);
        }
        let store = LfsStore::open(&self.access.state_dir);
        let store = store.map_err(|why| SourceError::Lfs { path: path.to_owned(), why })?;
        Ok(self.store.get_or_init(|| store))
    }
}

fn text(path: &[u8]) -> String {
    Foreign::new(&String::from_utf8_lossy(path)).to_string()
}
