//! What a rule allows of parameters that the reviewed tree does not give.

use std::collections::BTreeMap;

use serde::Deserialize;
use toml::Spanned;

use super::Allowed;
use super::text::{At, ListText, PolicyError};
use crate::provenance::{ExternalParameters, Override};

/// Parameters that may be chosen when a build is asked for. What is not here may not.
#[derive(Debug, Clone)]
pub(crate) struct Parameters {
    build_args: BTreeMap<String, Allowed<String>>,
    labels: Allowed<String>,
    secrets: Allowed<String>,
    targets: Allowed<String>,
    dockerfiles: Allowed<String>,
    contexts: Allowed<String>,
    platforms: Allowed<String>,
    ports: Allowed<String>,
    bases: Allowed<String>,
}

impl Parameters {
    /// Those of a rule that has no such table: the reviewed tree gives all, or the build does not count.
    pub(crate) fn of_the_tree() -> Self {
        let none = || Allowed::Only(Vec::new());
        Self {
            build_args: BTreeMap::new(),
            labels: none(),
            secrets: none(),
            targets: none(),
            dockerfiles: none(),
            contexts: none(),
            platforms: none(),
            ports: none(),
            bases: none(),
        }
    }

    /// Whether this parameter may have the value that the build gave it.
    pub(crate) fn permit(&self, one: &Override, given: &ExternalParameters) -> bool {
        match one {
            Override::BuildArg(name) => match (self.build_args.get(name), given.build_args.get(name)) {
                (Some(allowed), Some(value)) => allowed.permits(value),
                _ => false,
            },
            Override::Label(key) => self.labels.permits(key),
            Override::Secret(id) => self.secrets.permits(id),
            Override::Target => given.target.as_ref().is_some_and(|stage| self.targets.permits(stage)),
            Override::Dockerfile => self.dockerfiles.permits(&given.dockerfile),
            Override::Context => self.contexts.permits(&given.context),
            Override::Platform => self.platforms.permits(&given.platform),
            Override::Port(port) => self.ports.permits(&port.to_string()),
            Override::Base(name) => self.bases.permits(name),
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct ParametersText {
    #[serde(default)]
    build_args: BTreeMap<String, Spanned<ListText>>,
    labels: Option<Spanned<ListText>>,
    secrets: Option<Spanned<ListText>>,
    targets: Option<Spanned<ListText>>,
    dockerfiles: Option<Spanned<ListText>>,
    contexts: Option<Spanned<ListText>>,
    platforms: Option<Spanned<ListText>>,
    ports: Option<Spanned<ListText>>,
    bases: Option<Spanned<ListText>>,
}

impl ParametersText {
    pub(super) fn read(self, at: At<'_>) -> Result<Parameters, PolicyError> {
        let words = |text: Spanned<ListText>| at.list(text, |_, _, word| Ok(word.to_owned()));
        let list = |text: Option<Spanned<ListText>>| text.map_or(Ok(Allowed::Only(Vec::new())), words);
        let build_args = self.build_args.into_iter().map(|(name, values)| Ok((name, words(values)?)));
        Ok(Parameters {
            build_args: build_args.collect::<Result<_, _>>()?,
            labels: list(self.labels)?,
            secrets: list(self.secrets)?,
            targets: list(self.targets)?,
            dockerfiles: list(self.dockerfiles)?,
            contexts: list(self.contexts)?,
            platforms: list(self.platforms)?,
            ports: list(self.ports)?,
            bases: list(self.bases)?,
        })
    }
}
