//! The folder `.git` of a context, as version tools need it (`git describe`, `git ls-files`, `git status`): made from the
//! commit itself, with the same bytes on every machine, and only when something takes it.
//!
//! It has every commit that leads to the built one, the files of the built one and of its parents (`git show` compares
//! them), and the nearest tags. Deliberately absent: branches, remotes, reflogs, and the files of earlier commits. Tags can be moved, so those that were found
//! are recorded in the provenance, and a rebuild takes those.

mod index;
mod pack;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use attestations::provenance::{GitFolder, GitHistory};
use attestations::{Commit, GitId};
use git2::{ObjectType, Oid};

use super::tree::{EntryKind, Walk};
use super::{Blobs, Location, Pointer, Repository, Snapshot, SourceError, fetch, object_id};
use index::Indexed;

/// The most tags: those nearest to the commit.
const MOST_TAGS: usize = 64;
/// Longer names of tags are left out, in bytes.
const LONGEST_TAG: usize = 200;
/// Without times: no step that commits something writes when.
const CONFIG: &str = "[core]\n\trepositoryformatversion = 0\n\tfilemode = true\n\tbare = false\n\
                      \tlogallrefupdates = false\n\tcheckStat = minimal\n\ttrustctime = false\n";

/// A `.git` on this machine.
pub(crate) struct Made {
    folder: tempfile::TempDir,
    /// What of it the repository can change, for the provenance.
    pub(crate) taken: GitFolder,
}

impl Made {
    /// Where it is.
    pub(crate) fn path(&self) -> PathBuf {
        self.folder.path().join("git")
    }
}

/// Everything that is needed to make it.
#[derive(Debug, Clone)]
pub(crate) struct Recipe {
    /// The state directory.
    pub(crate) state_dir: PathBuf,
    /// The repository.
    pub(crate) location: Location,
    /// The commit.
    pub(crate) commit: Commit,
    /// What an earlier build took.
    pub(crate) recorded: Option<GitFolder>,
}

impl Recipe {
    /// Makes the folder. `is_there` says which files of the commit the context has.
    ///
    /// # Errors
    /// When the history or a recorded tag cannot be fetched, or the disk is full.
    pub(crate) fn make(&self, is_there: &dyn Fn(&[u8]) -> bool) -> Result<Made, SourceError> {
        let repository = Repository::open(&self.state_dir, &self.location)?;
        let snapshot = repository.commit(&self.commit)?;
        let source = Source::find(&snapshot, self.recorded.as_ref())?;
        let folder = tempfile::tempdir().map_err(|cause| source.failed(cause))?;
        let made = Made { folder, taken: source.taken() };
        source.write(&made.path(), is_there)?;
        Ok(made)
    }
}

/// A tag, and what it leads to.
#[derive(Debug, Clone)]
struct Tag {
    /// The object that the reference names: a commit, or a tag's own object.
    id: Oid,
    commit: Oid,
}

/// What a folder is made from.
struct Source<'a> {
    snapshot: &'a Snapshot<'a>,
    head: Oid,
    /// Where commits and tags are.
    commits: &'a git2::Repository,
    history: GitHistory,
    /// Every commit, the newest first.
    order: Vec<Oid>,
    tags: BTreeMap<String, Tag>,
}

impl<'a> Source<'a> {
    fn find(snapshot: &'a Snapshot<'a>, recorded: Option<&GitFolder>) -> Result<Self, SourceError> {
        let alone = recorded.is_some_and(|it| it.history == GitHistory::Alone);
        let head = snapshot.commit.id();
        let (commits, history) = match alone {
            true => (snapshot.repository.git(), GitHistory::Alone),
            false => match snapshot.history() {
                Ok(git) => (git, GitHistory::Whole),
                // A shallow clone has no more, and gives what Docker would see in it.
                Err(SourceError::NoHistory { .. }) if recorded.is_none() => {
                    (snapshot.repository.git(), GitHistory::Alone)
                }
                Err(error) => return Err(error),
            },
        };
        let order = match history {
            GitHistory::Alone => vec![head],
            GitHistory::Whole => {
                let mut walk = commits.revwalk()?;
                walk.set_sorting(git2::Sort::TOPOLOGICAL | git2::Sort::TIME)?;
                walk.push(head)?;
                walk.collect::<Result<_, _>>()?
            }
        };
        let mut source = Self { snapshot, head, commits, history, order, tags: BTreeMap::new() };
        source.tags = match recorded {
            Some(recorded) => source.recorded_tags(recorded)?,
            None => source.nearest_tags()?,
        };
        Ok(source)
    }

    /// The tags nearest to the commit, as the repository has them now.
    fn nearest_tags(&self) -> Result<BTreeMap<String, Tag>, SourceError> {
        let places: BTreeMap<Oid, usize> =
            self.order.iter().enumerate().map(|(at, oid)| (*oid, at)).collect();
        let listed = fetch::tags(self.commits.path(), &self.snapshot.repository.location)?;
        let mut found: Vec<(usize, String, Tag)> = listed
            .into_iter()
            .filter(|(name, ..)| {
                name.len() <= LONGEST_TAG && git2::Reference::is_valid_name(&reference(name))
            })
            .filter_map(|(name, id, commit)| Some((*places.get(&commit)?, name, Tag { id, commit })))
            .collect();
        found.sort_by(|a, b| (a.0, &a.1).cmp(&(b.0, &b.1)));
        found.truncate(MOST_TAGS);
        let tags: BTreeMap<String, Tag> = found.into_iter().map(|(_, name, tag)| (name, tag)).collect();
        self.fetch_objects(&tags.iter().map(|(name, tag)| (name.clone(), tag.id)).collect())?;
        Ok(tags)
    }

    /// The tags that an earlier build took, whatever they are now.
    fn recorded_tags(&self, recorded: &GitFolder) -> Result<BTreeMap<String, Tag>, SourceError> {
        let mut ids = BTreeMap::new();
        for (name, id) in &recorded.tags {
            if !git2::Reference::is_valid_name(&reference(name)) || ids.len() == MOST_TAGS {
                return Err(SourceError::Tag {
                    name: name.clone(),
                    why: "it is no tag that was recorded here",
                });
            }
            ids.insert(name.clone(), object_id(id.as_str())?);
        }
        self.fetch_objects(&ids)?;
        let mut tags = BTreeMap::new();
        for (name, id) in ids {
            let commit = self.commits.find_object(id, None)?.peel(ObjectType::Commit)?.id();
            if !self.order.contains(&commit) {
                return Err(SourceError::Tag {
                    name,
                    why: "what it names is not in the history of the commit",
                });
            }
            tags.insert(name, Tag { id, commit });
        }
        Ok(tags)
    }

    /// Fetches the objects of tags that have one of their own.
    fn fetch_objects(&self, ids: &BTreeMap<String, Oid>) -> Result<(), SourceError> {
        let odb = self.commits.odb()?;
        let missing: Vec<&String> =
            ids.iter().filter(|(_, id)| !odb.exists(**id)).map(|(name, _)| name).collect();
        if !missing.is_empty() {
            fetch::objects_of_tags(self.commits.path(), &self.snapshot.repository.location, &missing)?;
            odb.refresh()?;
        }
        match ids.iter().find(|(_, id)| !odb.exists(**id)) {
            None => Ok(()),
            Some((name, _)) => Err(SourceError::gone_tag(name)),
        }
    }

    fn taken(&self) -> GitFolder {
        let tags = self
            .tags
            .iter()
            .filter_map(|(name, tag)| Some((name.clone(), tag.id.to_string().parse::<GitId>().ok()?)));
        GitFolder { history: self.history, tags: tags.collect() }
    }

    fn write(&self, path: &Path, is_there: &dyn Fn(&[u8]) -> bool) -> Result<(), SourceError> {
        let failed = |cause| self.failed(cause);
        for folder in ["objects/pack", "objects/info", "refs/heads", "refs/tags"] {
            std::fs::create_dir_all(path.join(folder)).map_err(failed)?;
        }
        let put = |name: &str, bytes: &[u8]| std::fs::write(path.join(name), bytes).map_err(failed);
        put("HEAD", format!("{}\n", self.head).as_bytes())?;
        put("config", CONFIG.as_bytes())?;
        put("packed-refs", self.packed_references().as_bytes())?;
        if self.history == GitHistory::Alone && self.snapshot.commit.parent_count() > 0 {
            put("shallow", format!("{}\n", self.head).as_bytes())?;
        }
        let files = self.snapshot.walk("", &|_| true)?;
        let blobs = self.snapshot.blobs()?;
        let time = u32::try_from(self.snapshot.committed_at()).unwrap_or_default();
        let indexed = self.indexed(&files, &blobs, is_there)?;
        put("index", &index::bytes(&indexed, time).map_err(failed)?)?;
        let mut objects = self.objects()?;
        add_files(&mut objects, self.snapshot.tree, &files);
        if self.history == GitHistory::Whole {
            for parent in self.snapshot.commit.parent_ids() {
                let parent = self.snapshot.repository.commit(&super::commit_id(parent)?)?;
                add_files(&mut objects, parent.tree, &parent.walk("", &|_| true)?);
            }
        }
        pack::write(&path.join("objects/pack"), &objects, &|id| self.read(id)).map_err(failed)
    }

    fn packed_references(&self) -> String {
        let mut text = "# pack-refs with: peeled fully-peeled sorted \n".to_owned();
        for (name, tag) in &self.tags {
            text.push_str(&format!("{} {}\n", tag.id, reference(name)));
            if tag.id != tag.commit {
                text.push_str(&format!("^{}\n", tag.commit));
            }
        }
        text
    }

    fn indexed(
        &self,
        files: &Walk,
        blobs: &Blobs,
        is_there: &dyn Fn(&[u8]) -> bool,
    ) -> Result<Vec<Indexed>, SourceError> {
        let odb = self.snapshot.repository.git.odb()?;
        let mut indexed = Vec::new();
        for entry in files {
            let mode = match entry.kind {
                EntryKind::Directory => continue,
                EntryKind::File { executable: true } | EntryKind::LfsPointer { executable: true } => {
                    0o100_755
                }
                EntryKind::File { .. } | EntryKind::LfsPointer { .. } => 0o100_644,
                EntryKind::Link => 0o120_000,
                EntryKind::Submodule => 0o160_000,
            };
            let is_there = is_there(&entry.path);
            let size = match (entry.kind, is_there) {
                (EntryKind::Submodule, _) | (_, false) => 0,
                // A checkout has the file, and not the pointer to it.
                (EntryKind::LfsPointer { .. }, _) => lfs_size(&blobs.read(entry.id, &entry.form)?),
                _ if entry.form.is_converted() => blobs.read(entry.id, &entry.form)?.len(),
                _ => odb.read_header(entry.id)?.0,
            };
            indexed.push(Indexed {
                path: entry.path.clone(),
                mode,
                id: entry.id,
                size: size as u32,
                is_there,
            });
        }
        indexed.sort_by(|a, b| a.path.cmp(&b.path));
        Ok(indexed)
    }

    /// Commits and tags.
    fn objects(&self) -> Result<BTreeMap<Oid, ObjectType>, SourceError> {
        let mut all: BTreeMap<Oid, ObjectType> =
            self.order.iter().map(|commit| (*commit, ObjectType::Commit)).collect();
        for mut id in self.tags.values().map(|tag| tag.id) {
            // A tag may name another tag.
            while let Ok(tag) = self.commits.find_tag(id) {
                all.insert(id, ObjectType::Tag);
                id = tag.target_id();
            }
        }
        Ok(all)
    }

    fn read(&self, id: Oid) -> Result<Vec<u8>, git2::Error> {
        let own = self.snapshot.repository.git.odb()?;
        let odb = if own.exists(id) { own } else { self.commits.odb()? };
        Ok(odb.read(id)?.data().to_vec())
    }

    fn failed(&self, source: std::io::Error) -> SourceError {
        SourceError::Cache { path: self.snapshot.repository.cache.clone(), source }
    }
}

/// Adds a tree with everything in it.
fn add_files(objects: &mut BTreeMap<Oid, ObjectType>, tree: Oid, files: &Walk) {
    objects.insert(tree, ObjectType::Tree);
    for entry in files {
        match entry.kind {
            EntryKind::Directory => objects.insert(entry.id, ObjectType::Tree),
            EntryKind::Submodule => None,
            _ => objects.insert(entry.id, ObjectType::Blob),
        };
    }
}

/// The size of the file that a pointer stands for; of a malformed one, its own.
fn lfs_size(pointer: &[u8]) -> usize {
    Pointer::parse(pointer)
        .map_or(pointer.len(), |pointer| usize::try_from(pointer.size).unwrap_or(usize::MAX))
}

fn reference(tag: &str) -> String {
    format!("refs/tags/{tag}")
}
