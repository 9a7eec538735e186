//! The parameters of a build: which image of the commit, what somebody changed of what its tree says, and how both stand in
//! the provenance.

use std::collections::{BTreeMap, BTreeSet};

use attestations::provenance::{ExternalParameters, Override, RecordedBase};
use attestations::review::Parameters;
use attestations::{Commit, Digest};
use images::Platform;

use crate::bases::{Base, BaseOrigin};
use crate::error::{Error, Kind, Result};
use crate::project::{self, Project, Recipe};
use crate::secrets::Secrets;
use crate::source::Location;

/// Which image of a commit to build.
#[derive(Debug, Clone)]
pub(crate) enum BuildSelection {
    /// As the repository's `countersign.toml` says, with the caller's changes.
    Project {
        /// The image's name.
        image: Option<String>,
        /// Another Dockerfile, by its path in the repository.
        dockerfile: Option<String>,
        /// Another folder of the repository as the context.
        context: Option<String>,
        /// Another target stage.
        target: Option<String>,
        /// Additional or changed build arguments.
        arguments: BTreeMap<String, String>,
        /// Labels in addition to those of the Dockerfile.
        labels: BTreeMap<String, String>,
        /// Other platforms.
        platforms: BTreeSet<Platform>,
    },
    /// Exactly as a provenance says.
    Recorded {
        /// Its parameters.
        parameters: Box<ExternalParameters>,
        /// Its bases, by the name in the Dockerfile: origin and digest.
        bases: BTreeMap<String, RecordedBase>,
    },
}

impl BuildSelection {
    /// The image of that name, or the only one, as the repository's `countersign.toml` says.
    pub(crate) fn image(image: Option<String>) -> Self {
        Self::Project {
            image,
            dockerfile: None,
            context: None,
            target: None,
            arguments: BTreeMap::new(),
            labels: BTreeMap::new(),
            platforms: BTreeSet::new(),
        }
    }
}

/// What is built.
///
/// # Errors
/// When the tree has no such image, or the parameters are none.
pub(crate) fn recipe(what: &BuildSelection, project: &Project) -> Result<Recipe> {
    match what {
        BuildSelection::Project { image, dockerfile, context, target, arguments, labels, platforms } => {
            let mut recipe = project.recipe(image.as_deref())?.clone();
            if let Some(context) = context {
                recipe = recipe.in_context(relative("--context", context)?);
            }
            if let Some(dockerfile) = dockerfile {
                recipe.dockerfile = relative("--file", dockerfile)?;
            }
            recipe.target = target.clone().or(recipe.target);
            recipe.arguments.extend(arguments.clone());
            recipe.labels.extend(labels.clone());
            if !platforms.is_empty() {
                recipe.platforms = platforms.iter().cloned().collect();
            }
            Ok(recipe)
        }
        BuildSelection::Recorded { parameters, .. } => Ok(Recipe {
            image: parameters.image.clone(),
            context: project::relative(&parameters.context, "context")?,
            dockerfile: project::relative(&parameters.dockerfile, "dockerfile")?,
            target: parameters.target.clone(),
            arguments: parameters.build_args.clone(),
            labels: parameters.labels.clone(),
            platforms: vec![parameters.platform.parse().map_err(|why: String| Error::new(Kind::Input, why))?],
            ports: parameters.ports.clone(),
            repository: None,
        }),
    }
}

/// A path of the repository on the command line.
fn relative(option: &str, path: &str) -> Result<String> {
    project::relative(path, option).map_err(|_| {
        Error::new(Kind::Usage, format!("{option} {path} is no path in the repository"))
            .hint("give it relative to the repository's root, as it is in the commit")
    })
}

/// Which parameters the reviewed tree does not give. Whoever repeats the build finds this out anew, so that nobody has to
/// believe it.
///
/// # Errors
/// When the tree has no such image.
pub(crate) fn overrides(
    what: &BuildSelection,
    project: &Project,
    (used, platform): (&Recipe, &Platform),
    bases: &[Base],
) -> Result<BTreeSet<Override>> {
    let tree = project.recipe(Some(&used.image))?;
    let mut found = BTreeSet::new();
    let mut differ = |is_other: bool, one: Override| {
        if is_other {
            found.insert(one);
        }
    };
    differ(used.dockerfile != tree.dockerfile, Override::Dockerfile);
    differ(used.context != tree.context, Override::Context);
    differ(used.target != tree.target, Override::Target);
    // A tree that names no platform leaves it to the machine; a node runs its own platform's image alone.
    differ(!tree.platforms.is_empty() && !tree.platforms.contains(platform), Override::Platform);
    for name in used.arguments.keys().chain(tree.arguments.keys()) {
        differ(used.arguments.get(name) != tree.arguments.get(name), Override::BuildArg(name.clone()));
    }
    for (key, value) in &used.labels {
        differ(tree.labels.get(key) != Some(value), Override::Label(key.clone()));
    }
    for port in used.ports.keys().chain(tree.ports.keys()) {
        differ(used.ports.get(port) != tree.ports.get(port), Override::Port(*port));
    }
    let chosen_before = |name: &str| match what {
        BuildSelection::Project { .. } => false,
        BuildSelection::Recorded { parameters, .. } => {
            parameters.overrides.contains(&Override::Base(name.to_owned()))
        }
    };
    for base in bases {
        let is_chosen = match base.origin {
            BaseOrigin::Pinned | BaseOrigin::Named => false,
            BaseOrigin::Given => true,
            BaseOrigin::Recorded => chosen_before(&base.asked),
        };
        differ(is_chosen, Override::Base(base.asked.clone()));
    }
    Ok(found)
}

/// The platforms to build for.
pub(crate) fn platforms(recipe: &Recipe) -> Vec<Platform> {
    match recipe.platforms.is_empty() {
        true => vec![Platform::here()],
        false => recipe.platforms.clone(),
    }
}

/// Arguments and labels are published in the provenance and in the image.
///
/// # Errors
/// When one of them holds a secret.
pub(crate) fn refuse_secrets(secrets: &Secrets, recipe: &Recipe) -> Result<()> {
    let needles = secrets.all_needles();
    let all = recipe.arguments.iter().chain(&recipe.labels);
    let mut found = all.filter_map(|(name, value)| Some((name, needles.find(value.as_bytes())?)));
    match found.next() {
        None => Ok(()),
        Some((name, id)) => {
            Err(Error::new(Kind::Usage, format!("the argument or label {name} holds the secret {id}"))
                .hint("it would stand in the provenance and in the image: use RUN --mount=type=secret alone"))
        }
    }
}

/// The parameters as a review names them. Only a lock gives the digest of every base.
pub(crate) fn to_be_reviewed(recipe: &Recipe, bases: Option<BTreeMap<String, Digest>>) -> Parameters {
    Parameters {
        dockerfile: recipe.dockerfile.clone(),
        context: context_of(recipe),
        target: recipe.target.clone(),
        build_args: recipe.arguments.clone(),
        bases,
    }
}

/// The context's path as provenance and reviews have it.
fn context_of(recipe: &Recipe) -> String {
    if recipe.context.is_empty() { ".".to_owned() } else { recipe.context.clone() }
}

/// The parameters as the provenance states them, apart from what only the build shows.
pub(crate) fn external(
    location: &Location,
    commit: &Commit,
    recipe: &Recipe,
    platform: &Platform,
) -> ExternalParameters {
    let recipe = recipe.clone();
    ExternalParameters {
        source: format!("git+{}", location.uri()),
        commit: commit.clone(),
        context: context_of(&recipe),
        image: recipe.image,
        dockerfile: recipe.dockerfile,
        target: recipe.target,
        build_args: recipe.arguments,
        labels: recipe.labels,
        platform: platform.to_string(),
        ports: recipe.ports,
        secrets: BTreeSet::new(),
        git: None,
        overrides: BTreeSet::new(),
    }
}
