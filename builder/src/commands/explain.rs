//! `explain-dockerfile` on the command line.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

use errors::files;
use images::Platform;

use super::{Answer, Session};
use crate::explain::{CommitFiles, Explanation, Files, FolderFiles, Hazard};
use crate::parameters::BuildSelection;
use crate::pipeline;
use crate::plan::PlanRequest;
use crate::source::{Location, Repository};

use crate::dockerfile::{Dockerfile, SIZE_LIMIT};
use crate::error::{Error, Kind, Result};

/// Its arguments.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Dockerfile to explain; it need not be committed, since nothing is built. With --repo, its path in the commit,
    /// instead of the one that countersign.toml names.
    file: Option<PathBuf>,
    /// Git repository with the Dockerfile, to explain it as it is in a commit: a local path or a URL.
    #[arg(long, value_name = "PATH|URL", requires = "commit")]
    repo: Option<String>,
    /// Full ID of the commit.
    #[arg(long, value_name = "ID", requires = "repo")]
    commit: Option<String>,
    /// Image to explain, by its name in the commit's countersign.toml; needed only when the file names several.
    #[arg(long, value_name = "NAME", requires = "repo")]
    image: Option<String>,
    /// Folder that COPY and ADD see: files in it that commands are given are read as well.
    #[arg(long, value_name = "FOLDER")]
    context: Option<String>,
    /// Stage to explain, instead of the last one.
    #[arg(long, value_name = "STAGE")]
    target: Option<String>,
    /// Value for an ARG of the Dockerfile; may be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    build_arg: Vec<String>,
}

/// Runs it.
///
/// # Errors
/// Those that a build of the file would have, with the line.
pub(crate) fn run(arguments: &Arguments, session: &Session) -> Result<Answer> {
    let given = arguments.build_arg.iter().map(|pair| {
        let (name, value) = pair.split_once('=').ok_or_else(|| {
            Error::new(Kind::Usage, format!("--build-arg {pair} is not of the form NAME=VALUE"))
        })?;
        Ok((name.to_owned(), value.to_owned()))
    });
    let given = given.collect::<Result<BTreeMap<_, _>>>()?;
    let explained = match (&arguments.repo, &arguments.commit) {
        (Some(repo), Some(commit)) => of_commit(arguments, session, (repo, commit), given)?,
        _ => of_file(arguments, given)?,
    };
    let value = serde_json::to_value(&explained)
        .map_err(|cause| Error::new(Kind::Bug, "writing the explanation").because(cause))?;
    session.result(&text(&explained), &value)?;
    Ok(Answer::Yes)
}

/// A file of this machine.
fn of_file(arguments: &Arguments, given: BTreeMap<String, String>) -> Result<Explanation> {
    let path = arguments.file.clone().unwrap_or_else(|| PathBuf::from("Dockerfile"));
    let bytes = files::read(&path, SIZE_LIMIT)?;
    let beside = || path.parent().unwrap_or(Path::new("")).to_owned();
    let files = FolderFiles {
        folder: arguments.context.as_ref().map_or_else(beside, PathBuf::from),
        is_context: arguments.context.is_some(),
    };
    explained(&bytes, &path.display().to_string(), request(arguments.target.clone(), given), &files)
}

/// The Dockerfile of a commit, as a build would find it.
fn of_commit(
    arguments: &Arguments,
    session: &Session,
    (repo, commit): (&str, &str),
    given: BTreeMap<String, String>,
) -> Result<Explanation> {
    let file = arguments.file.as_ref().map(|path| path.display().to_string());
    let what = BuildSelection::Project {
        image: arguments.image.clone(),
        dockerfile: file,
        context: arguments.context.clone(),
        target: arguments.target.clone(),
        arguments: given,
        labels: BTreeMap::new(),
        platforms: BTreeSet::new(),
    };
    let commit = commit.parse().map_err(|cause| {
        Error::new(Kind::Usage, format!("{commit} is no commit's full id"))
            .hint("`git rev-parse HEAD` prints it")
            .because(cause)
    })?;
    let repository = Repository::open(session.workspace().state_dir(), &Location::parse(repo)?)?;
    let snapshot = repository.commit(&commit)?;
    let (recipe, bytes) = pipeline::dockerfile_of(&snapshot, &what)?;
    let files = CommitFiles { snapshot: &snapshot, context: recipe.context.clone() };
    explained(&bytes, &recipe.dockerfile, request(recipe.target, recipe.arguments), &files)
}

fn request(target: Option<String>, arguments: BTreeMap<String, String>) -> PlanRequest {
    PlanRequest {
        target,
        arguments,
        labels: BTreeMap::new(),
        platform: Platform::here(),
        created: "1970-01-01T00:00:00Z".to_owned(),
    }
}

fn explained(bytes: &[u8], path: &str, request: PlanRequest, files: &dyn Files) -> Result<Explanation> {
    let named =
        |error: crate::dockerfile::DockerfileError| Error::new(Kind::Input, format!("{path}: {error}"));
    let file = Dockerfile::parse(bytes).map_err(named)?;
    Explanation::new(&file, &request, files).map_err(named)
}

fn text(explained: &Explanation) -> String {
    let mut text = String::new();
    let mut line = |words: String| _ = writeln!(text, "{words}");
    for stage in &explained.stages {
        let at = stage.line.map_or_else(|| "  image".to_owned(), |number| format!("{number:>7}"));
        line(format!("{at}  FROM {} ({})", stage.base, stage.name));
        hazards(&stage.hazards, &mut line);
        for step in &stage.steps {
            line(format!("{:>7}  {}", step.line, step.shown));
            hazards(&step.hazards, &mut line);
        }
    }
    let count = explained.count();
    let total: usize = count.values().sum();
    line(String::new());
    line(match total {
        0 => "nothing here is known to be hard to repeat".to_owned(),
        _ => {
            let rules: Vec<String> = count.iter().map(|(rule, times)| format!("{rule} ({times})")).collect();
            format!("{total} to look at: {}", rules.join(", "))
        }
    });
    let left = explained
        .stages_in_file
        .saturating_sub(explained.stages.iter().filter(|it| it.line.is_some()).count());
    if left > 0 {
        line(format!("{left} stage(s) of the file are not needed and not built"));
    }
    text
}

fn hazards(found: &[Hazard], line: &mut impl FnMut(String)) {
    for Hazard { rule, words, file } in found {
        let place = file.as_ref().map(|file| format!(" in {file}")).unwrap_or_default();
        line(format!("         ! {}{place}: {words}", rule.name));
        line(format!("           {}", rule.why));
        line(format!("           {}", rule.fix));
    }
}
