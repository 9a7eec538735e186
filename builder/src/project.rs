//! `countersign.toml`: the repository's settings for its images, so that they are reviewed with the commit.

pub(crate) mod example;

use std::collections::{BTreeMap, BTreeSet};

use attestations::provenance::Spoken;
use attestations::reference::{Pinned, Reference, ReferenceError};
use images::Platform;
use serde::Deserialize;

/// Where the file is in the repository.
pub(crate) const PATH: &str = "countersign.toml";
/// Largest file read, in bytes.
pub(crate) const SIZE_LIMIT: u64 = 256 * 1024;
/// The image of a repository without the file, and the one built when none is named and there is only one.
pub(crate) const DEFAULT_IMAGE: &str = "default";

/// Why a `countersign.toml` cannot be used.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ProjectError {
    /// Not TOML, or not of the expected form; the text has line and column.
    #[error("countersign.toml: {0}")]
    Form(String),
    /// A value that cannot be used.
    #[error("countersign.toml: {0}")]
    Value(String),
    /// No image of that name.
    #[error("countersign.toml has no image {asked}; it has {known}")]
    NoSuchImage {
        /// The name asked for.
        asked: String,
        /// The names there are.
        known: String,
    },
    /// Several images and none named.
    #[error("countersign.toml has several images: {0}")]
    Ambiguous(String),
}

impl From<ProjectError> for crate::error::Error {
    fn from(error: ProjectError) -> Self {
        use crate::error::{Error, Kind};
        let (kind, hint) = match &error {
            ProjectError::Form(_) | ProjectError::Value(_) => (Kind::Input, "correct the file and commit it"),
            ProjectError::NoSuchImage { .. } => (Kind::NotFound, "name one of them with --image"),
            ProjectError::Ambiguous(_) => (Kind::Usage, "name the one to build with --image"),
        };
        Error::new(kind, error.to_string()).hint(hint)
    }
}

/// What to build.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Recipe {
    /// Its name in the file, or [`DEFAULT_IMAGE`].
    pub(crate) image: String,
    /// The folder that `COPY` sees, relative to the repository; "" is its root.
    pub(crate) context: String,
    /// The Dockerfile's path in the repository.
    pub(crate) dockerfile: String,
    /// The stage to build; the last one by default.
    pub(crate) target: Option<String>,
    /// Values of `ARG`s.
    pub(crate) arguments: BTreeMap<String, String>,
    /// Labels in addition to those of the Dockerfile; the file itself has none.
    pub(crate) labels: BTreeMap<String, String>,
    /// The target platforms, each once and in order; empty means this machine's platform.
    pub(crate) platforms: Vec<Platform>,
    /// Ports other than 80 and 443 that its steps may reach, with their schemes.
    pub(crate) ports: BTreeMap<u16, Spoken>,
    /// The repository that it is intended for. Only a hint for people: nothing is pushed there on its own.
    pub(crate) repository: Option<String>,
}

impl Recipe {
    /// The same in another context. A Dockerfile that lies in the context because none was named lies in the new one.
    pub(crate) fn in_context(self, context: String) -> Self {
        let dockerfile = match self.dockerfile == dockerfile_in(&self.context) {
            true => dockerfile_in(&context),
            false => self.dockerfile,
        };
        Self { context, dockerfile, ..self }
    }
}

fn dockerfile_in(context: &str) -> String {
    if context.is_empty() { "Dockerfile".to_owned() } else { format!("{context}/Dockerfile") }
}

/// A parsed file.
#[derive(Debug, Clone)]
pub(crate) struct Project {
    recipes: Vec<Recipe>,
    bases: BTreeMap<String, Pinned>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    #[serde(default)]
    image: BTreeMap<String, Image>,
    #[serde(default)]
    bases: BTreeMap<String, String>,
}

#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields)]
struct Image {
    context: Option<String>,
    dockerfile: Option<String>,
    target: Option<String>,
    #[serde(default)]
    args: BTreeMap<String, String>,
    platform: Option<Platforms>,
    name: Option<String>,
    #[serde(default)]
    ports: BTreeMap<String, Spoken>,
}

/// One platform, or a list.
#[derive(Deserialize)]
#[serde(untagged, expecting = "`platform` is one text, or a list of them")]
enum Platforms {
    One(String),
    Several(Vec<String>),
}

impl Project {
    /// Parses the file's bytes, or takes the defaults when the repository has no such file.
    ///
    /// # Errors
    /// See [`ProjectError`].
    pub(crate) fn parse(bytes: Option<&[u8]>) -> Result<Self, ProjectError> {
        let Some(bytes) = bytes else {
            let recipe = recipe(DEFAULT_IMAGE.to_owned(), Image::default())?;
            return Ok(Self { recipes: vec![recipe], bases: BTreeMap::new() });
        };
        let text =
            std::str::from_utf8(bytes).map_err(|_| ProjectError::Form("the text is not UTF-8".to_owned()))?;
        let file: File = toml::from_str(text).map_err(|error| ProjectError::Form(error.to_string()))?;
        if file.version != 1 {
            return Err(ProjectError::Value(format!(
                "version {} is not known; write version = 1",
                file.version
            )));
        }
        if file.image.is_empty() {
            return Err(ProjectError::Value("there is no image: write at least [image.default]".to_owned()));
        }
        let recipes =
            file.image.into_iter().map(|(name, image)| recipe(name, image)).collect::<Result<_, _>>()?;
        let bases = file.bases.into_iter().map(pin).collect::<Result<_, _>>()?;
        Ok(Self { recipes, bases })
    }

    /// The recipe of the image `name`; of the only one when no name is given.
    ///
    /// # Errors
    /// When there is no such image, or several and none is named.
    pub(crate) fn recipe(&self, name: Option<&str>) -> Result<&Recipe, ProjectError> {
        let known = || self.recipes.iter().map(|recipe| recipe.image.as_str()).collect::<Vec<_>>().join(", ");
        match (name, self.recipes.as_slice()) {
            (None, [only]) => Ok(only),
            (None, all) => all
                .iter()
                .find(|recipe| recipe.image == DEFAULT_IMAGE)
                .ok_or_else(|| ProjectError::Ambiguous(known())),
            (Some(name), all) => all
                .iter()
                .find(|recipe| recipe.image == name)
                .ok_or_else(|| ProjectError::NoSuchImage { asked: name.to_owned(), known: known() }),
        }
    }

    /// The digest that the file pins a base of the Dockerfile to. Names are compared as references.
    pub(crate) fn base(&self, name: &str) -> Option<&Pinned> {
        said_of_base(&self.bases, name)
    }
}

fn ports(named: BTreeMap<String, Spoken>, of: &str) -> Result<BTreeMap<u16, Spoken>, ProjectError> {
    let port = |(text, spoken): (String, Spoken)| match text.parse::<u16>() {
        Ok(80 | 443) => Err(ProjectError::Value(format!("{of}: {text} is captured without being named"))),
        Ok(0 | 53) | Err(_) => {
            Err(ProjectError::Value(format!("{of}: {text:?} is no port that can be captured")))
        }
        Ok(port) => Ok((port, spoken)),
    };
    named.into_iter().map(port).collect()
}

fn recipe(name: String, image: Image) -> Result<Recipe, ProjectError> {
    let of = |what: &str| format!("image.{name}.{what}");
    let context = relative(image.context.as_deref().unwrap_or("."), &of("context"))?;
    let dockerfile = match &image.dockerfile {
        Some(path) => relative(path, &of("dockerfile"))?,
        None => dockerfile_in(&context),
    };
    if dockerfile.is_empty() {
        return Err(ProjectError::Value(format!("{} is a folder", of("dockerfile"))));
    }
    Ok(Recipe {
        context,
        dockerfile,
        target: image.target,
        arguments: image.args,
        labels: BTreeMap::new(),
        platforms: platforms(image.platform, &of("platform"))?,
        ports: ports(image.ports, &of("ports"))?,
        repository: image.name,
        image: name,
    })
}

fn platforms(named: Option<Platforms>, of: &str) -> Result<Vec<Platform>, ProjectError> {
    let texts = match named {
        None => return Ok(Vec::new()),
        Some(Platforms::One(text)) => vec![text],
        Some(Platforms::Several(texts)) if texts.is_empty() => {
            return Err(ProjectError::Value(format!("{of} is an empty list")));
        }
        Some(Platforms::Several(texts)) => texts,
    };
    let parsed = texts.iter().map(|text| text.parse()).collect::<Result<BTreeSet<Platform>, _>>();
    Ok(parsed.map_err(|why| ProjectError::Value(format!("{of}: {why}")))?.into_iter().collect())
}

/// Parses a path within the repository, and removes `.` and doubled slashes. A path that leads outside is refused.
pub(crate) fn relative(path: &str, what: &str) -> Result<String, ProjectError> {
    let mut parts = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                return Err(ProjectError::Value(format!("{what} = {path:?} leads out of the repository")));
            }
            _ => parts.push(part),
        }
    }
    match path.starts_with('/') || path.is_empty() || path.contains('\0') {
        true => {
            Err(ProjectError::Value(format!("{what} = {path:?} is not a path relative to the repository")))
        }
        false => Ok(parts.join("/")),
    }
}

/// A reference as Docker reads it in FROM: without tag and digest, `latest` is meant.
///
/// # Errors
/// When it is no reference.
pub(crate) fn as_docker_reads(text: &str) -> Result<Reference, ReferenceError> {
    match text.parse() {
        Err(ReferenceError::NoVersion { .. }) => format!("{text}:latest").parse(),
        other => other,
    }
}

/// What is said of a base: under the very name, or else under one that means the same.
pub(crate) fn said_of_base<'m, T>(said: &'m BTreeMap<String, T>, name: &str) -> Option<&'m T> {
    let by_reference = || said.iter().find(|(written, _)| is_same_base(written, name));
    said.get(name).or_else(|| Some(by_reference()?.1))
}

/// Whether two names mean the same base. A name without a digest means every digest of that name.
pub(crate) fn is_same_base(given: &str, name: &str) -> bool {
    let (Ok(given), Ok(name)) = (as_docker_reads(given), as_docker_reads(name)) else { return false };
    let is_same_tag = || given.tag() == name.tag();
    given.repository() == name.repository()
        && match (given.digest(), name.digest()) {
            (Some(given), digest) => Some(given) == digest,
            (None, _) => is_same_tag(),
        }
}

fn pin((name, reference): (String, String)) -> Result<(String, Pinned), ProjectError> {
    let refuse = |why: String| ProjectError::Value(format!("bases.{name:?} = {reference:?}: {why}"));
    let parsed: Reference = reference.parse().map_err(|error| refuse(format!("{error}")))?;
    let digest =
        *parsed.digest().ok_or_else(|| refuse("a pin needs a digest, as in name@sha256:…".to_owned()))?;
    let pinned = parsed.pin(digest).map_err(|error| refuse(format!("{error}")))?;
    Ok((name, pinned))
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn parse(text: &str) -> Result<Project, ProjectError> {
        Project::parse(Some(text.as_bytes()))
    }

    #[test]
    fn without_the_file_there_is_one_image() {
        let project = Project::parse(None).unwrap();
        let recipe = project.recipe(None).unwrap();
        assert_eq!(
            (recipe.image.as_str(), recipe.dockerfile.as_str(), recipe.context.as_str()),
            ("default", "Dockerfile", "")
        );
        assert!(matches!(project.recipe(Some("x")), Err(ProjectError::NoSuchImage { .. })));
    }

    #[test]
    fn a_whole_file() {
        let digest = "0".repeat(64);
        let project = parse(&format!(
            r#"
version = 1
[image.glm]
context = "./glm/"
target = "final"
args = {{ PKG = "v6-glm" }}
platform = "linux/amd64"
name = "registry.example/glm"
[image.average]
dockerfile = "docker/average.Dockerfile"
platform = ["linux/arm64", "linux/amd64", "linux/aarch64"]
[bases]
"python:3.11" = "registry.example/python@sha256:{digest}"
"#
        ))
        .unwrap();
        let glm = project.recipe(Some("glm")).unwrap();
        assert_eq!((glm.context.as_str(), glm.dockerfile.as_str()), ("glm", "glm/Dockerfile"));
        assert_eq!(glm.arguments["PKG"], "v6-glm");
        assert_eq!(project.recipe(Some("average")).unwrap().dockerfile, "docker/average.Dockerfile");
        assert_eq!(glm.platforms, [Platform::linux("amd64")]);
        let several = &project.recipe(Some("average")).unwrap().platforms;
        assert_eq!(*several, [Platform::linux("amd64"), Platform::linux("arm64")]);
        assert!(matches!(project.recipe(None), Err(ProjectError::Ambiguous(_))));
        assert!(project.base("python:3.11").unwrap().to_string().ends_with(&digest));
        assert!(project.base("docker.io/library/python:3.11").is_some());
        assert!(project.base("python:3.12").is_none());
        let moved = glm.clone().in_context("other".to_owned());
        assert_eq!((moved.context.as_str(), moved.dockerfile.as_str()), ("other", "other/Dockerfile"));
        let named = project.recipe(Some("average")).unwrap().clone().in_context("docker".to_owned());
        assert_eq!(named.dockerfile, "docker/average.Dockerfile");
    }

    #[test]
    fn bases_are_compared_as_references() {
        let digest = format!("sha256:{}", "0".repeat(64));
        for (given, name) in [
            ("python:3.11", "docker.io/library/python:3.11"),
            ("docker.io/python:3.11", "python:3.11"),
            ("python", "python:latest"),
            ("python:latest", "python"),
            ("base:1", "docker.io/library/base:1"),
            ("python:3.11", &format!("python:3.11@{digest}")),
            (&format!("python@{digest}"), &format!("python:3.11@{digest}")),
        ] {
            assert!(is_same_base(given, name), "{given} {name}");
        }
        for (given, name) in [
            ("python:3.11", "python:3.12"),
            ("python", "python:3.11"),
            ("team/python:3.11", "python:3.11"),
            ("registry.example/library/python:3.11", "python:3.11"),
            (&format!("python:3.11@{digest}"), "python:3.11"),
            ("A b", "A b"),
        ] {
            assert!(!is_same_base(given, name), "{given} {name}");
        }
    }

    #[test]
    fn mistakes_are_refused() {
        for text in [
            "",
            "version = 2\n[image.a]",
            "version = 1",
            "version = 1\n[image.a]\ncontex = \"x\"",
            "version = 1\n[image.a]\ncontext = \"../x\"",
            "version = 1\n[image.a]\ncontext = \"/x\"",
            "version = 1\n[image.a]\ndockerfile = \".\"",
            "version = 1\n[image.a]\n[bases]\n\"a:1\" = \"registry.example/a:1\"",
            "version = 1\n[image.a]\nargs = { A = 1 }",
            "version = 1\n[image.a]\nplatform = \"linux/amd46\"",
            "version = 1\n[image.a]\nplatform = []",
            "version = 1\n[image.a]\nplatform = [\"linux/amd64\", \"windows/amd64\"]",
        ] {
            assert!(parse(text).is_err(), "{text}");
        }
    }
}
