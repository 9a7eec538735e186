//! COPY and ADD: from the commit, a stage, the Dockerfile itself, a URL or a git repository. Requests for remote
//! sources go through the recorder under the step's id, like those of a RUN.

use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use attestations::Commit;
use sandbox::Overlay;

use super::copy::{self, ContextTree, CopyError, FetchedFile, InlineTree, LayerTarget, RootTree};
use crate::dockerfile::remote::{Remote, RemoteFile, RemoteGit};
use crate::error::{Error, Kind, Result};
use crate::executor::failures::{cancelled, copy_failed, machine};
use crate::executor::stage::{NewLayer, StageRun, StageState};
use crate::plan::step::{Copying, Source, Step};
use crate::progress::{Event, Label};
use crate::source::{self, RecordedError, RemoteTree, SourceError};
use recorder::{FetchError, StepId, StepRecord};

/// The machine's files for name resolution. Fetching programs see the recorder's in their place.
const NAMES: [(&str, &str); 3] =
    [("resolv.conf", "/etc/resolv.conf"), ("hosts", "/etc/hosts"), ("nsswitch.conf", "/etc/nsswitch.conf")];
/// Only `hosts` and DNS, so that no cache or service of the machine is asked.
const NSSWITCH: &str = "hosts: files dns\n";
/// The socket folder of a name-caching daemon, if there is one; it is replaced by an empty folder.
const NAME_CACHE: &str = "/run/nscd";

/// A commit that a step took files from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct GitTaken {
    /// The repository's URL.
    pub(crate) url: String,
    /// The commit.
    pub(crate) commit: Commit,
    /// The branch, tag or commit in the Dockerfile.
    pub(crate) reference: Option<String>,
    /// Its path, if it is a submodule.
    pub(crate) submodule: Option<String>,
    /// The step.
    pub(crate) step: StepId,
}

/// A source of a copy, which is kept until its bytes are written.
struct Gathered<'a> {
    from: Origin<'a>,
    paths: Vec<String>,
    archives: bool,
    /// Whether `--exclude` and `--parents` apply to it.
    is_picked: bool,
}

enum Origin<'a> {
    Context(&'a ContextTree),
    /// With the overlay that keeps it mounted.
    Stage(RootTree, #[expect(dead_code, reason = "it is held")] Overlay),
    Inline(InlineTree<'a>),
    Fetched(FetchedFile),
    Git(Box<ContextTree>),
}

impl Gathered<'_> {
    fn copy<'t>(
        &'t self,
        target: &mut dyn LayerTarget<'t>,
        request: &copy::CopyRequest<'_>,
    ) -> std::result::Result<(), CopyError> {
        let request = copy::CopyRequest { sources: &self.paths, archives: self.archives, ..request.clone() };
        let request = match self.is_picked {
            true => request,
            false => copy::CopyRequest { excludes: None, parents: false, ..request },
        };
        match &self.from {
            Origin::Context(tree) => copy::copy(*tree, target, &request),
            Origin::Stage(tree, _) => copy::copy(tree, target, &request),
            Origin::Inline(tree) => copy::copy(tree, target, &request),
            Origin::Git(tree) => copy::copy(&**tree, target, &request),
            Origin::Fetched(file) => copy::copy_fetched(file, target, &request),
        }
    }
}

impl<'a> StageRun<'a> {
    /// Executes a COPY or ADD.
    pub(crate) fn copy(
        &mut self,
        stage: &StageState,
        step: &Step,
        copying: &Copying,
        label: &Label,
    ) -> Result<Option<NewLayer>> {
        let Copying { destination, chown, chmod, excludes, parents, .. } = copying;
        let owner = chown.as_ref().map(|text| self.owner(&stage.root, text, step)).transpose()?;
        let request = copy::CopyRequest {
            sources: &[],
            destination,
            owner,
            mode: chmod.as_ref(),
            archives: false,
            excludes: Some(excludes),
            parents: *parents,
            epoch: self.epoch,
        };
        let gathered = self.gather(step, copying, label)?;
        if gathered.iter().any(|one| one.archives) {
            // An archive may contain a hard link to a file of a lower layer, whose content is needed then.
            stage.root.folders(self.resources)?;
        }
        let made = self.build_virtual(stage, step, copying.apart, &mut |layer_builder| {
            gathered.iter().try_for_each(|one| one.copy(layer_builder, &request))
        })?;
        drop(gathered);
        sandbox::remove_tree(&self.fetched()).map_err(machine)?;
        Ok(made)
    }

    /// All sources of the step, in order. Remote ones are fetched.
    fn gather<'s>(&mut self, step: &Step, copying: &'s Copying, label: &Label) -> Result<Vec<Gathered<'s>>>
    where
        'a: 's,
    {
        let Copying { from, sources, inline, archives, remote_archives, .. } = copying;
        let mut gathered = Vec::new();
        // Consecutive paths are one request, since a pattern among several sources may match nothing.
        for group in sources.chunk_by(|a, b| matches!((a, b), (Source::Path(_), Source::Path(_)))) {
            let paths: Vec<String> = group.iter().filter_map(path_of).collect();
            if !paths.is_empty() {
                let from = match from {
                    None => Origin::Context(self.context),
                    Some(stage) => {
                        let view = self.resources.host.view(&self.folders_of(*stage)?).map_err(machine)?;
                        let tree = RootTree::open(view.merged());
                        Origin::Stage(tree.map_err(|cause| copy_failed(step, cause))?, view)
                    }
                };
                gathered.push(Gathered { from, paths, archives: *archives, is_picked: true });
            }
            for remote in group.iter().filter_map(remote_of) {
                let folder = self.fetched();
                std::fs::create_dir_all(&folder).map_err(|cause| Error::io("making", &folder, cause))?;
                let place = folder.join(gathered.len().to_string());
                let (from, paths) = match remote {
                    Remote::File(file) => {
                        (Origin::Fetched(self.fetch(step, label, file, place)?), Vec::new())
                    }
                    Remote::Git(git) => (
                        Origin::Git(Box::new(self.fetch_git(step, label, git, &place)?)),
                        vec!["/".to_owned()],
                    ),
                };
                gathered.push(Gathered { from, paths, archives: *remote_archives, is_picked: true });
            }
        }
        if !inline.is_empty() {
            gathered.push(Gathered {
                from: Origin::Inline(InlineTree::new(inline, self.epoch)),
                paths: inline.iter().map(|document| document.name.clone()).collect(),
                archives: false,
                is_picked: false,
            });
        }
        Ok(gathered)
    }

    /// The folder for fetched files until they are written.
    fn fetched(&self) -> PathBuf {
        self.resources.scratch.join("fetched")
    }

    fn fetch(
        &mut self,
        step: &Step,
        label: &Label,
        remote: &RemoteFile,
        path: PathBuf,
    ) -> Result<FetchedFile> {
        self.fetching(label, remote.url.as_str());
        let writing = |cause| Error::io("writing", &path, cause);
        let mut file = File::create(&path).map_err(writing)?;
        let mut hasher = remote.checksum.as_ref().map(|checksum| (checksum, checksum.hasher()));
        let mut take = |bytes: &[u8]| {
            if let Some((_, hasher)) = &mut hasher {
                hasher.update(bytes);
            }
            file.write_all(bytes)
        };
        let fetcher = self.resources.capture.fetcher(&step.id);
        let got = fetcher.get(&remote.url, &mut take, &|| self.resources.canceller.is_cancelled());
        self.noted(step, label, fetcher.finish(), got.map_err(|cause| fetch_failed(step, cause)))?;
        file.flush().map_err(writing)?;
        if let Some((checksum, hasher)) = hasher
            && let Some(found) = checksum.differs(hasher)
        {
            let what = format!("line {}: {} is not what --checksum says", step.line, remote.url);
            return Err(Error::new(Kind::Input, what)
                .details(vec![format!("wanted {checksum}"), format!("found  {found}")])
                .hint(
                    "look at what the server gives now: if it is what you want, write its checksum there",
                ));
        }
        Ok(FetchedFile::new(path, remote.name.as_deref().unwrap_or_default(), self.epoch))
    }

    fn fetch_git(
        &mut self,
        step: &Step,
        label: &Label,
        remote: &RemoteGit,
        into: &Path,
    ) -> Result<ContextTree> {
        self.fetching(label, remote.url.as_str());
        let resources = self.resources;
        let over = self.names()?;
        let certificates = resources.scratch.join("ca.pem");
        let wanted = RemoteTree {
            url: &remote.url,
            reference: remote.reference.as_deref(),
            folder: &remote.folder,
            into,
            certificates: &certificates,
        };
        let network = resources.host.network().map_err(machine)?;
        let planted = resources.capture.plant(&network, &step.id, &Arc::default()).map_err(|cause| {
            Error::new(Kind::Machine, "the step's network could not be set up").because(cause)
        })?;
        let mut run = |command| {
            let ran = network.run_program(command, &over, resources.canceller)?;
            Ok(match ran.status.success() {
                true => Ok(()),
                false => Err(String::from_utf8_lossy(&ran.stderr).into_owned()),
            })
        };
        let found = source::fetch_recorded(&wanted, &mut run);
        let found = match resources.canceller.is_cancelled() {
            true => Err(cancelled()),
            false => found.map_err(|cause| git_failed(step, remote, cause)),
        };
        let found = self.noted(step, label, planted.finish(), found)?;
        if let Some(commit) = &remote.commit
            && commit != found.commit()
        {
            let what =
                format!("line {}: {} is not at the commit that --checksum says", step.line, remote.url);
            return Err(Error::new(Kind::Input, what)
                .details(vec![format!("wanted {commit}"), format!("found  {}", found.commit())])
                .hint("look at what is there now: if it is what you want, write that commit's id there"));
        }
        let walked = found.walk(&remote.folder);
        let (snapshot, walk) = walked.map_err(|cause| git_failed(step, remote, cause.into()))?;
        let tree = ContextTree::new(&snapshot, walk)?;
        let (commit, reference) = (found.commit().clone(), remote.reference.clone());
        let step = &step.id;
        self.reports.git.push(GitTaken {
            url: remote.url.to_string(),
            commit,
            reference,
            submodule: None,
            step: step.clone(),
        });
        self.reports.git.extend(found.submodules().iter().map(|inner| GitTaken {
            url: inner.url.to_string(),
            commit: inner.commit.clone(),
            reference: None,
            submodule: Some(inner.path.clone()),
            step: step.clone(),
        }));
        Ok(tree)
    }

    /// The recorder's files for name resolution, each with the machine's path that it replaces.
    fn names(&self) -> Result<Vec<(PathBuf, PathBuf)>> {
        let scratch = self.resources.scratch;
        let path = scratch.join("nsswitch.conf");
        std::fs::write(&path, NSSWITCH).map_err(|cause| Error::io("writing", &path, cause))?;
        let empty = scratch.join("nothing");
        std::fs::create_dir_all(&empty).map_err(|cause| Error::io("making", &empty, cause))?;
        let files = NAMES.iter().map(|(ours, theirs)| (scratch.join(ours), PathBuf::from(theirs)));
        Ok(files.chain([(empty, PathBuf::from(NAME_CACHE))]).collect())
    }

    fn fetching(&self, label: &Label, url: &str) {
        self.resources.workspace.report(&Event::Fetching { label, url });
    }

    /// Records the exchanges of a fetch; returns its result together with any network incident.
    fn noted<T>(&mut self, step: &Step, label: &Label, record: StepRecord, fetched: Result<T>) -> Result<T> {
        let incidents = self.note(step, record, label)?;
        fetched.map_err(|error| match incidents.is_empty() {
            true => error,
            false => error.hint(format!("its network: {}", incidents.join("; "))),
        })
    }
}

fn path_of(source: &Source) -> Option<String> {
    match source {
        Source::Path(path) => Some(path.clone()),
        Source::Remote(_) => None,
    }
}

fn remote_of(source: &Source) -> Option<&Remote> {
    match source {
        Source::Path(_) => None,
        Source::Remote(remote) => Some(remote),
    }
}

fn fetch_failed(step: &Step, cause: FetchError) -> Error {
    let (kind, hint) = match &cause {
        FetchError::Cancelled => return cancelled(),
        FetchError::Target { .. } => {
            (Kind::Input, "give a URL with a host's name, on a port that is captured")
        }
        FetchError::Redirect { .. } => (Kind::Network, "write the URL that it should lead to"),
        FetchError::Status { .. } => {
            (Kind::Network, "check the URL: only an answer with status 200 is taken")
        }
        FetchError::Write { .. } => (Kind::Machine, "free some space for the state directory"),
        _ => (Kind::Network, "check that the server can be reached from here"),
    };
    Error::new(kind, format!("line {}: {cause}", step.line)).hint(hint).because(cause)
}

fn git_failed(step: &Step, remote: &RemoteGit, cause: RecordedError<sandbox::Error>) -> Error {
    let (kind, hint) = match cause {
        RecordedError::Run(sandbox::Error::Path { action: "start", source, .. }) => {
            return SourceError::NoGit(source).into();
        }
        RecordedError::Run(cause) => return machine(cause),
        RecordedError::Git(_) => {
            (Kind::Network, "check the URL, and that the branch, tag or commit is there")
        }
        RecordedError::Submodule { .. } => (
            Kind::Input,
            "ADD a folder without it, as #REF:FOLDER, and the submodule's own repository into its folder",
        ),
        RecordedError::Source(SourceError::Unsupported { .. } | SourceError::NoSuchPath { .. }) => {
            (Kind::Input, "ADD a folder of the repository that an image can hold: #REF:FOLDER")
        }
        RecordedError::Source(cause) => return cause.into(),
    };
    Error::new(kind, format!("line {}: {}: {cause}", step.line, remote.url))
        .hint(hint)
        .because(cause.to_string())
}
