//! The image's configuration: read from the base, changed by instructions, written in one fixed form.
//!
//! Only what is named here survives from a base; Docker's records of how it was built do not.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// What Docker gives a step whose image names no `PATH`.
pub const DEFAULT_PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The document an image's config descriptor points to. Fields are written in this order, maps by key.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Config {
    /// When it was created; the commit's time for images made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// Who made the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// `amd64`, `arm64`, …
    pub architecture: String,
    /// `linux`.
    pub os: String,
    /// Of the architecture, such as `v8`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variant: Option<String>,
    /// How it is run.
    #[serde(default)]
    pub config: Execution,
    /// The layers' uncompressed digests.
    pub rootfs: RootFs,
    /// What made each layer.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub history: Vec<History>,
}

/// How an image is run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
pub struct Execution {
    /// `USER`
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub user: String,
    /// `EXPOSE`
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub exposed_ports: BTreeMap<String, Empty>,
    /// `ENV`, as `name=value` in the order they were first set.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub env: Vec<String>,
    /// `ENTRYPOINT`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub entrypoint: Option<Vec<String>>,
    /// `CMD`
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cmd: Option<Vec<String>>,
    /// From the base.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub volumes: BTreeMap<String, Empty>,
    /// `WORKDIR`
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub working_dir: String,
    /// `LABEL`
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "null_is_empty")]
    pub labels: BTreeMap<String, String>,
    /// From the base.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub stop_signal: String,
    /// From the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub healthcheck: Option<serde_json::Value>,
    /// Of the base; a base that has any is refused, so this is never written.
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub on_build: Vec<String>,
    /// `SHELL`
    #[serde(default, skip_serializing_if = "Vec::is_empty", deserialize_with = "null_is_empty")]
    pub shell: Vec<String>,
}

/// `{}`
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Empty {}

/// The layers' uncompressed digests.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RootFs {
    /// Always `layers`.
    #[serde(rename = "type")]
    pub kind: String,
    /// From the bottom up.
    #[serde(default, deserialize_with = "null_is_empty")]
    pub diff_ids: Vec<String>,
}

/// What made a layer, or changed the configuration.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct History {
    /// The commit's time for what was made here.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created: Option<String>,
    /// The instruction.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub created_by: Option<String>,
    /// From the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub author: Option<String>,
    /// From the base.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub comment: Option<String>,
    /// Whether no layer belongs to it.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub empty_layer: bool,
}

impl Config {
    /// What `FROM scratch` starts with, as in BuildKit.
    pub fn scratch(os: &str, architecture: &str, variant: Option<&str>) -> Self {
        Self {
            created: None,
            author: None,
            architecture: architecture.to_owned(),
            os: os.to_owned(),
            variant: variant.map(str::to_owned),
            config: Execution {
                env: vec![format!("PATH={DEFAULT_PATH}")],
                working_dir: "/".to_owned(),
                ..Execution::default()
            },
            rootfs: RootFs { kind: "layers".to_owned(), diff_ids: Vec::new() },
            history: Vec::new(),
        }
    }

    /// The bytes that go into the image: no white space, fields and keys in a fixed order.
    ///
    /// # Errors
    /// Never for a value of this type; the signature is serde's.
    pub fn to_bytes(&self) -> Result<Vec<u8>, serde_json::Error> {
        serde_json::to_vec(self)
    }
}

impl Execution {
    /// The value of an environment variable.
    pub fn variable(&self, name: &str) -> Option<&str> {
        self.env
            .iter()
            .find_map(|pair| pair.split_once('=').filter(|(key, _)| *key == name))
            .map(|(_, value)| value)
    }

    /// Sets an environment variable in the place it already has, or at the end.
    pub fn set_variable(&mut self, name: &str, value: &str) {
        let pair = format!("{name}={value}");
        let known = self
            .env
            .iter_mut()
            .find(|pair| pair.split_once('=').map_or(pair.as_str(), |(key, _)| key) == name);
        match known {
            Some(known) => *known = pair,
            None => self.env.push(pair),
        }
    }
}

/// Go writes an empty list or map as `null`.
fn null_is_empty<'de, D: serde::Deserializer<'de>, T: Default + Deserialize<'de>>(
    from: D,
) -> Result<T, D::Error> {
    Ok(Option::<T>::deserialize(from)?.unwrap_or_default())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn what_docker_writes_is_read() {
        let text = r#"{"architecture":"amd64","os":"linux","docker_version":"20","container":"x",
            "config":{"Hostname":"","User":"","Env":["PATH=/bin","A=b=c"],"Cmd":["sh"],"Volumes":null,"Entrypoint":null,
            "OnBuild":null,"Labels":null,"ArgsEscaped":true},"history":null,
            "rootfs":{"type":"layers","diff_ids":["sha256:00"]}}"#;
        let config: Config = serde_json::from_str(text).unwrap();
        assert_eq!(config.config.variable("A"), Some("b=c"));
        assert_eq!(config.config.cmd.as_deref(), Some(["sh".to_owned()].as_slice()));
        let bytes = String::from_utf8(config.to_bytes().unwrap()).unwrap();
        assert_eq!(
            bytes,
            r#"{"architecture":"amd64","os":"linux","config":{"Env":["PATH=/bin","A=b=c"],"Cmd":["sh"]},"rootfs":{"type":"layers","diff_ids":["sha256:00"]},"history":[]}"#
        );
    }

    #[test]
    fn a_variable_keeps_its_place() {
        let mut execution =
            Execution { env: vec!["A=1".to_owned(), "B=2".to_owned()], ..Execution::default() };
        execution.set_variable("A", "3");
        execution.set_variable("C", "4");
        assert_eq!(execution.env, ["A=3", "B=2", "C=4"]);
    }
}
