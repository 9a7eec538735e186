//! The node's configuration, `runner.toml`: typed, and a field that is not known is an error.

mod record;

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use admission::Policies;
use attestations::policy::Budget;
use errors::trusted;
use images::registry::config::{CertificateError, read_certificates};
use images::registry::{Registries, RegistryConfig};
use serde::Deserialize;

use crate::egress;
use crate::error::{Error, Kind, Result};
pub use record::{Quorum, Record};

/// A commented configuration, as `countersign-runner init` writes it.
pub(crate) const EXAMPLE: &str = include_str!("config/example.toml");
/// Where the configuration is looked for when no other is named.
pub(crate) const DEFAULT_PATH: &str = "/etc/countersign/runner.toml";
/// The most bytes of a configuration, policy or input that are read.
pub(crate) const MAX_FILE: u64 = 16 << 20;

/// The node's configuration.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The version of this format: 1.
    version: u32,
    /// Where images, unpacked layers and the queue are kept.
    #[serde(default = "state_dir")]
    pub state_dir: PathBuf,
    /// The node's own policy; relative to this file. Without one, a federation's decides alone.
    pub policy: Option<PathBuf>,
    /// The federation whose policy is followed.
    pub federation: Option<Federation>,
    /// What starts the containers.
    #[serde(default)]
    pub engine: EngineKind,
    /// The socket of Docker's engine.
    #[serde(default = "docker_socket")]
    pub docker_socket: PathBuf,
    /// Registries that are reached without TLS, as `host:port`. Those on loopback always are.
    #[serde(default)]
    pub plain_registries: Vec<String>,
    /// Mirrors of registries, and more registries without TLS.
    #[serde(default)]
    pub registries: RegistryConfig,
    /// Files with certificates (PEM) that registries may have beside the system's; relative to this file.
    #[serde(default)]
    pub extra_ca: Vec<PathBuf>,
    /// What one run may use.
    #[serde(default)]
    pub limits: LimitSettings,
    /// The one server that algorithms may speak to, and what they may ask it.
    #[serde(default)]
    pub upstream: Upstream,
    /// What is written down of what runs.
    #[serde(default)]
    pub record: Record,
    /// The data, by label.
    #[serde(default)]
    pub databases: BTreeMap<String, Database>,
}

/// A federation whose policy is followed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Federation {
    /// The file that says whose keys count.
    pub trust: PathBuf,
    /// The folder with its policy and bundles.
    pub release: PathBuf,
}

/// What starts the containers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum EngineKind {
    /// OCI runtime of the machine (runc), without a daemon.
    #[default]
    Oci,
    /// Docker Engine.
    Docker,
}

/// What one run may use.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LimitSettings {
    /// Mebibytes of memory.
    pub memory_mib: u64,
    /// Processes and threads at one time.
    pub pids: u64,
    /// Processors' worth of time.
    pub cpus: f64,
    /// Seconds from start to end.
    pub wall_seconds: u64,
    /// Mebibytes of each of `/tmp` and `TEMPORARY_FOLDER`, which are in memory, and of any one file that is written.
    pub temporary_mib: u64,
    /// Kibibytes of the result.
    pub result_kib: u64,
    /// Kibibytes of output that are kept of a run; the rest is counted.
    pub log_kib: u64,
    /// Whether algorithms may write to their root. What they write is discarded either way.
    pub writable_root: bool,
}

impl Default for LimitSettings {
    fn default() -> Self {
        Self {
            memory_mib: 4096,
            pids: 256,
            cpus: 2.0,
            wall_seconds: 3600,
            temporary_mib: 256,
            result_kib: 16 << 10,
            log_kib: 1024,
            writable_root: false,
        }
    }
}

impl LimitSettings {
    /// The smaller of each that both these limits and a rule's budget have.
    #[must_use]
    pub fn within(&self, budget: &Budget) -> Self {
        let smaller = |own: u64, granted: Option<u64>| granted.map_or(own, |granted| own.min(granted));
        Self {
            wall_seconds: smaller(self.wall_seconds, budget.wall_seconds.map(NonZeroU64::get)),
            result_kib: smaller(self.result_kib, budget.result_kib),
            ..self.clone()
        }
    }

    /// Time from start to end.
    pub fn wall(&self) -> Duration {
        Duration::from_secs(self.wall_seconds)
    }

    /// Bytes of memory.
    pub fn memory(&self) -> u64 {
        self.memory_mib << 20
    }

    /// Bytes of each temporary folder, and of any one file.
    pub fn temporary(&self) -> u64 {
        self.temporary_mib << 20
    }

    /// Bytes of the result.
    pub fn result(&self) -> u64 {
        self.result_kib << 10
    }

    /// Bytes of output that are kept.
    pub fn log(&self) -> usize {
        (self.log_kib << 10) as usize
    }
}

/// The one server that algorithms may speak to.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Upstream {
    /// Its URL. Without one, everything an algorithm asks for is refused.
    pub url: Option<url::Url>,
    /// A file with the token that is sent in place of whatever the algorithm sends.
    pub token_file: Option<PathBuf>,
    /// What may be asked at the most, whatever the policy grants; without it, the policy alone decides.
    pub allow: Option<egress::Rules>,
}

/// One source of data.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Database {
    /// The file or folder. Algorithms see it read-only.
    pub path: PathBuf,
    /// Its type, in vantage6's words.
    #[serde(rename = "type", default = "csv")]
    pub kind: String,
}

impl Config {
    /// Reads the configuration at `path`.
    ///
    /// # Errors
    /// When it is missing, too large, half-written, has a field that is not known, or others may change it.
    pub(crate) fn read(path: &Path) -> Result<Self> {
        let text = trusted::read_text(path, MAX_FILE)?;
        let folder = path.parent().filter(|folder| *folder != Path::new("")).unwrap_or(Path::new("."));
        let folder = &std::path::absolute(folder).map_err(|cause| Error::io("finding", folder, cause))?;
        let mut config: Self = toml::from_str(&text).map_err(|cause| {
            let hint = "compare with what `countersign-runner init` writes";
            Error::new(Kind::Input, format!("the configuration {} is not usable", path.display()))
                .hint(hint)
                .because(cause)
        })?;
        if config.version != 1 {
            return Err(Error::new(
                Kind::Input,
                format!("{}: version {} is not known: 1 is", path.display(), config.version),
            ));
        }
        config.state_dir = folder.join(config.state_dir);
        config.policy = config.policy.map(|file| folder.join(file));
        config.federation = config
            .federation
            .map(|it| Federation { trust: folder.join(it.trust), release: folder.join(it.release) });
        config.upstream.token_file = config.upstream.token_file.map(|file| folder.join(file));
        config.record.resolve(folder);
        if config.record.quorum == Quorum::Required && config.record.witnesses.is_none() {
            return Err(Error::new(
                Kind::Input,
                format!("{}: a quorum is required, and no witnesses are named", path.display()),
            )
            .hint("name the file with the witnesses in [record] witnesses, or leave quorum out"));
        }
        for file in &mut config.extra_ca {
            *file = folder.join(&*file);
        }
        for database in config.databases.values_mut() {
            database.path = folder.join(&database.path);
        }
        Ok(config)
    }

    /// Makes the state directory, for us alone, where it is not there yet.
    ///
    /// # Errors
    /// When it cannot be made, or others may write to it: they could put other layers below a verified image.
    pub(crate) fn make_state_dir(&self) -> Result<()> {
        trusted::state_directory(&self.state_dir, 0o700)
    }

    /// The file in which the node remembers what it saw.
    pub(crate) fn memory(&self) -> PathBuf {
        self.state_dir.join("memory.sqlite")
    }

    /// The node's own policy.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn own_policy(&self) -> Result<&Path> {
        self.policy.as_deref().ok_or_else(|| {
            Error::new(Kind::NotFound, "this node has no policy of its own")
                .hint("name one with --policy; `countersign-runner policy show` tells what decides here")
        })
    }

    /// Where the policies are that decide.
    ///
    /// # Errors
    /// When there is none at all: nothing is admitted then.
    pub(crate) fn policies(&self) -> Result<Policies> {
        let federation = self.federation.clone();
        let federation =
            federation.map(|Federation { trust, release }| admission::Federation { trust, release });
        match (self.policy.clone(), federation) {
            (Some(node), None) => Ok(Policies::Node(node)),
            (None, Some(federation)) => Ok(Policies::Federation(federation)),
            (Some(node), Some(federation)) => Ok(Policies::Narrowed { federation, node }),
            (None, None) => Err(Error::new(
                Kind::Input,
                "the configuration names neither a policy nor a federation, so nothing is admitted",
            )
            .hint("add `policy = \"policy.toml\"`, or a [federation], to runner.toml")),
        }
    }

    /// The folder of the log of what ran.
    pub(crate) fn log_folder(&self) -> PathBuf {
        self.record.log.clone().unwrap_or_else(|| self.state_dir.join("log"))
    }

    /// How registries are reached.
    ///
    /// # Errors
    /// When a mirror is none, or a file of certificates cannot be read or holds something else.
    pub(crate) fn registries(&self) -> Result<Registries> {
        const UNUSABLE: &str = "how registries are reached is not usable";
        let mut all = Registries { plain: self.plain_registries.clone(), ..Registries::default() };
        all.add(&self.registries).map_err(|cause| {
            Error::new(Kind::Input, UNUSABLE)
                .hint("see [[registries.registry]] in runner.toml")
                .because(cause)
        })?;
        all.roots = read_certificates(&self.extra_ca).map_err(|cause| {
            let (kind, hint) = match &cause {
                CertificateError::Read(error) => (error.kind(), error.hint_text()),
                _ => (Kind::Input, None),
            };
            let hint = hint.unwrap_or(
                "extra_ca in runner.toml names files with certificates as PEM, between BEGIN CERTIFICATE and END \
                 CERTIFICATE",
            );
            Error::new(kind, UNUSABLE).hint(hint).because(cause)
        })?;
        Ok(all)
    }

    /// What holds where there is no configuration: no policy is assumed.
    pub fn without_file(policy: PathBuf) -> Self {
        Self {
            version: 1,
            state_dir: state_dir(),
            policy: Some(policy),
            federation: None,
            engine: EngineKind::default(),
            docker_socket: docker_socket(),
            plain_registries: Vec::new(),
            registries: RegistryConfig::default(),
            extra_ca: Vec::new(),
            limits: LimitSettings::default(),
            upstream: Upstream::default(),
            record: Record::default(),
            databases: BTreeMap::new(),
        }
    }
}

fn state_dir() -> PathBuf {
    PathBuf::from("/var/lib/countersign")
}

fn docker_socket() -> PathBuf {
    PathBuf::from("/var/run/docker.sock")
}

fn csv() -> String {
    "csv".to_owned()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn the_example_is_read_and_mirrors_reach_the_client() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("runner.toml");
        std::fs::write(&path, EXAMPLE).unwrap();
        assert!(Config::read(&path).unwrap().registries().unwrap().mirrored.is_empty());
        let commented = EXAMPLE.replace("# [[registries", "[[registries").replace("# name = ", "name = ");
        let commented =
            commented.replace("# only = false", "only = true").replace("# mirror = ", "mirror = ");
        std::fs::write(
            &path,
            commented.replace("plain_registries = []", "plain_registries = [\"p.example\"]"),
        )
        .unwrap();
        let all = Config::read(&path).unwrap().registries().unwrap();
        assert_eq!(all.plain, ["p.example"]);
        let mirrored = &all.mirrored["registry.example"];
        assert!(mirrored.only && mirrored.mirrors[0].host() == "mirror.hospital.example:5000");
    }
}
