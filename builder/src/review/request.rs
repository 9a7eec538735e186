//! A file that asks for a review: which commit, which files with which content, for which roles, and how it is to be built.
//! Whoever reviews works it out again from the repository, so that nothing but the truth can be asked for.

use std::collections::{BTreeMap, BTreeSet};

use attestations::review::{Parameters, Role, Scope};
use attestations::{Commit, Digest, Tree};
use serde::{Deserialize, Serialize};

use super::contents::{self, Contents, Entry};
use super::{Subjects, diff, visible};
use crate::error::{Error, Kind, Result};
use crate::lock::Lock;
use crate::parameters::BuildSelection;
use crate::pipeline::{parameters_for_review, plan_for_review};
use crate::source::Repository;

/// Largest file read, in bytes.
pub(crate) const SIZE_LIMIT: u64 = 64 << 20;
const VERSION: u32 = 1;

/// What is to be reviewed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(crate) struct ReviewRequest {
    version: u32,
    /// Where the asker has the repository. A reviewer says themselves where they fetch it from.
    repository: String,
    /// The commit.
    pub(crate) commit: Commit,
    /// Its tree.
    tree: Tree,
    /// How much of it.
    pub(crate) scope: Scope,
    /// The files to read, as they are in the tree.
    files: Vec<File>,
    /// What it is to be read for.
    pub(crate) roles: BTreeSet<Role>,
    /// The image's name in `countersign.toml`, where it is not the only one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    image: Option<String>,
    /// How it is to be built.
    pub(crate) parameters: Parameters,
    /// The digest of the commit's lock of bases and packages.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) lock: Option<Digest>,
    /// Anything the asker wants to say.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    note: Option<String>,
}

/// One file to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    /// Its path, made visible.
    path: String,
    /// Its mode, as git writes it; 000000 where it was removed.
    mode: String,
    /// Its object.
    id: String,
}

/// What an asker chooses.
#[derive(Debug, Clone)]
pub(crate) struct Choice {
    /// The image's name in `countersign.toml`.
    pub(crate) image: Option<String>,
    /// Another Dockerfile.
    pub(crate) dockerfile: Option<String>,
    /// Another context.
    pub(crate) context: Option<String>,
    /// Another target stage.
    pub(crate) target: Option<String>,
    /// Additional or changed build arguments.
    pub(crate) arguments: BTreeMap<String, String>,
    /// What it is to be read for.
    pub(crate) roles: BTreeSet<Role>,
    /// Anything else.
    pub(crate) note: Option<String>,
}

impl ReviewRequest {
    /// Asks for a review of these subjects.
    ///
    /// # Errors
    /// When the commit cannot be read, or could not be built like this.
    pub(crate) fn new(subjects: &Subjects<'_>, choice: Choice) -> Result<Self> {
        let commit = subjects.commit();
        let mut what = BuildSelection::image(choice.image.clone());
        if let BuildSelection::Project { dockerfile, context, target, arguments, .. } = &mut what {
            (*dockerfile, *context) = (choice.dockerfile, choice.context);
            (*target, *arguments) = (choice.target, choice.arguments);
        }
        let (parameters, lock) = plan_for_review(commit, &what)?;
        Ok(Self {
            version: VERSION,
            repository: commit.repository().location().uri().to_owned(),
            commit: commit.id().clone(),
            tree: commit.tree()?,
            scope: subjects.scope()?,
            files: files(subjects)?,
            roles: choice.roles,
            image: choice.image,
            parameters,
            lock: lock.as_ref().map(Lock::digest),
            note: choice.note,
        })
    }

    /// Parses a request. Nothing in it is believed before [`ReviewRequest::subjects`] has worked it out again.
    ///
    /// # Errors
    /// When it is not exactly one request.
    pub(crate) fn parse(origin: &str, bytes: &[u8]) -> Result<Self> {
        let bad = |why: String| Error::new(Kind::Input, format!("{origin} is no review request: {why}"));
        let request: Self = serde_json::from_slice(bytes).map_err(|cause| bad(cause.to_string()))?;
        match (request.version, request.roles.is_empty()) {
            (VERSION, false) => Ok(request),
            (VERSION, true) => Err(bad("it names no role".to_owned())),
            (other, _) => Err(bad(format!("it is of version {other}, and this program knows {VERSION}"))),
        }
    }

    /// The image's name in `countersign.toml`, where it is said.
    pub(crate) fn image(&self) -> Option<String> {
        self.image.clone()
    }

    /// Its text, the same for equal requests.
    ///
    /// # Errors
    /// Never for what the two constructors give.
    pub(crate) fn to_text(&self) -> Result<String> {
        let text = serde_json::to_string_pretty(self)
            .map_err(|cause| Error::new(Kind::Bug, "writing the request").because(cause))?;
        Ok(text + "\n")
    }

    /// What it asks to review, from a repository that has exactly that.
    ///
    /// # Errors
    /// [`Kind::Refused`] when the request says otherwise than the repository.
    pub(crate) fn subjects<'a>(&self, repository: &'a Repository) -> Result<Subjects<'a>> {
        let since = match &self.scope {
            Scope::Tree => None,
            Scope::Changes { since, .. } => Some(since.as_str()),
        };
        let subjects = Subjects::fetch(repository, self.commit.as_str(), since)?;
        let choice = Choice {
            image: self.image.clone(),
            dockerfile: Some(self.parameters.dockerfile.clone()),
            context: Some(self.parameters.context.clone()),
            target: self.parameters.target.clone(),
            arguments: self.parameters.build_args.clone(),
            roles: self.roles.clone(),
            note: self.note.clone(),
        };
        let own = Self { repository: self.repository.clone(), ..Self::new(&subjects, choice)? };
        let same = [
            (self.tree == own.tree, "tree"),
            (self.scope == own.scope, "tree of the commit before"),
            (self.files == own.files, "list of files"),
            (self.parameters == own.parameters, "way to build it"),
            (self.lock == own.lock, "lock"),
        ];
        match same.into_iter().find(|(same, _)| !same) {
            None => Ok(subjects),
            Some((_, what)) => {
                let text = format!("the request names another {what} than commit {} has", self.commit);
                Err(Error::new(Kind::Refused, text)
                    .hint("do not sign it; ask for a request made with `countersign-builder review request`"))
            }
        }
    }

    /// What else than files it asks to read, a line each; what the commit itself does not say is marked.
    ///
    /// # Errors
    /// When the commit cannot be read.
    pub(crate) fn lines(&self, subjects: &Subjects<'_>) -> Result<Vec<String>> {
        let own = parameters_for_review(subjects.commit(), &BuildSelection::image(self.image()))?;
        let named = &self.parameters;
        let mark = |same: bool| if same { "" } else { "  [NOT FROM THE COMMIT]" };
        let roles: Vec<&str> = self.roles.iter().map(Role::as_str).collect();
        let mut lines = vec![
            format!("for         {}", roles.join(", ")),
            format!("dockerfile  {}{}", named.dockerfile, mark(named.dockerfile == own.dockerfile)),
            format!("context     {}{}", named.context, mark(named.context == own.context)),
        ];
        if let Some(target) = &named.target {
            lines.push(format!("target      {target}{}", mark(named.target == own.target)));
        }
        for (name, value) in &named.build_args {
            lines
                .push(format!("build-arg   {name}={value}{}", mark(own.build_args.get(name) == Some(value))));
        }
        for (name, digest) in named.bases.iter().flatten() {
            lines.push(format!("base        {name} {digest}"));
        }
        lines.extend(self.lock.map(|lock| format!("lock        {lock}")));
        lines.extend(self.note.as_ref().map(|note| format!("note        {note}")));
        Ok(lines.iter().map(|line| visible::line(line)).collect())
    }
}

fn files(subjects: &Subjects<'_>) -> Result<Vec<File>> {
    let file = |entry: &Entry| File { path: entry.path(), mode: entry.mode(), id: entry.id() };
    let Some(since) = &subjects.since else {
        return Ok(contents::entries(&subjects.commit)?.iter().map(file).collect());
    };
    let (changes, _) = diff::changes(since, &subjects.commit, &Contents::None)?;
    let changed = changes.iter().filter_map(|change| match (&change.before, &change.after) {
        (_, Some(now)) => Some(file(&now.entry)),
        (Some(gone), None) => Some(File { mode: "000000".to_owned(), ..file(&gone.entry) }),
        (None, None) => None,
    });
    Ok(changed.collect())
}
