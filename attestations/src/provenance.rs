//! SLSA provenance v1 with this project's build type. Documented in `docs/predicates/build-v1.md`.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::digest::{Commit, Digest, GitId, Tree};
use crate::keys::KeyId;
use crate::review::Person;

mod locked;
mod named;
mod overrides;
mod responses;

pub use locked::lock_digest;
pub use named::{NamedExchange, RecordedBase, UnnamedBase};
pub use overrides::Override;
pub use responses::{Confirmation, Responses};

/// The URI that names provenance.
pub const PREDICATE_TYPE: &str = "https://slsa.dev/provenance/v1";
/// The URI that names how this project builds.
pub const BUILD_TYPE: &str = "https://countersign.dev/build/v1";
/// The version of the rules by which produced layers are normalised.
pub const NORMALISER: &str = "countersign/1";

/// What every version of this project's build type begins with.
pub(crate) const BUILD_TYPES: &str = "https://countersign.dev/build/";

/// The build type that provenance claims: its shape is held to be ours when the type is.
pub(crate) fn build_type(predicate: &str) -> serde_json::Result<String> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Claim {
        build_definition: Definition,
    }
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Definition {
        build_type: String,
    }
    serde_json::from_str::<Claim>(predicate).map(|claim| claim.build_definition.build_type)
}

/// How an image came to be.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Provenance {
    /// What was built, from what.
    pub build_definition: BuildDefinition,
    /// Who built it, when.
    pub run_details: RunDetails,
}

/// What was built, from what.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BuildDefinition {
    /// Always [`BUILD_TYPE`].
    pub build_type: String,
    /// What the person who asked for the build chose.
    pub external_parameters: ExternalParameters,
    /// What the builder found or chose.
    pub internal_parameters: InternalParameters,
    /// Everything that entered.
    pub resolved_dependencies: Vec<ResourceDescriptor>,
}

/// What the person who asked for the build chose. A field that is not known here is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExternalParameters {
    /// The repository, as `git+` and its URL or path.
    pub source: String,
    /// The commit.
    pub commit: Commit,
    /// The image's name in `countersign.toml`, or `default`.
    pub image: String,
    /// The Dockerfile's path in the tree.
    pub dockerfile: String,
    /// The context's path in the tree; `.` is the whole.
    pub context: String,
    /// The stage that was built, when it is not the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub target: Option<String>,
    /// Arguments of the build.
    #[serde(default)]
    pub build_args: BTreeMap<String, String>,
    /// Labels beside those of the Dockerfile.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// The platform, as `linux/amd64`.
    pub platform: String,
    /// The ids of the secrets that steps were told, never anything of their bytes. Who repeats the build has to have them.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub secrets: BTreeSet<String>,
    /// Ports other than 80 and 443 that steps could reach, and what is spoken there.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub ports: BTreeMap<u16, Spoken>,
    /// What of the repository beside the commit was in the context's `.git`, when something took that.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub git: Option<GitFolder>,
    /// Which of these the reviewed tree does not give: somebody chose them on the command line.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub overrides: BTreeSet<Override>,
}

/// What a `.git` that was made for a build holds beside the commit.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GitFolder {
    /// How much of the history.
    pub history: GitHistory,
    /// The tags, and the object that each names: a commit, or the tag's own. They can be moved later.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub tags: BTreeMap<String, GitId>,
}

/// How much of a commit's history was there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum GitHistory {
    /// Every commit that leads to it.
    Whole,
    /// The commit alone, as in a shallow clone.
    Alone,
}

/// What is spoken on a port.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Spoken {
    /// Plain HTTP.
    Http,
    /// HTTP under TLS.
    Https,
}

/// What the builder found or chose.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct InternalParameters {
    /// The version of the rules that normalise layers: [`NORMALISER`].
    pub normaliser: String,
    /// The compressor with its settings; another one gives the same content in other compressed bytes.
    pub compressor: String,
    /// The committer's time of the commit, in seconds since 1970.
    pub source_date_epoch: i64,
    /// Who wrote the commit: its author and co-authors.
    pub authors: Vec<Person>,
    /// Who committed it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub committers: Vec<Person>,
    /// The SSH key that the commit is signed with.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub author_keys: BTreeSet<KeyId>,
    /// The digest of the image's config.
    pub config_digest: Digest,
    /// The layers, from the lowest.
    pub layers: Vec<LayerRecord>,
    /// Whether everything that entered is named.
    pub materials: Materials,
    /// How the builder came by the responses that entered over the network. Where nothing is said, it saw none of them
    /// for itself.
    #[serde(default)]
    pub responses: Responses,
    /// Whether every record of installed packages in the image could be read. Where nothing is said, nobody looked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub inventory: Option<Inventory>,
    /// Which rules of the normaliser changed a file, and how many.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub normalised: BTreeMap<String, u64>,
    /// What this repeats, if it is a rebuild.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rebuild_of: Option<RebuildOf>,
}

/// One layer of the image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LayerRecord {
    /// The digest of the uncompressed archive.
    pub diff_id: Digest,
    /// The digest of the blob.
    pub digest: Digest,
    /// The blob's size in bytes.
    pub size: u64,
    /// The instruction that made it.
    pub created_by: String,
    /// Whether it came with the base, byte for byte.
    pub from_base: bool,
}

/// Whether everything that entered is named in `resolvedDependencies`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Materials {
    /// No byte could enter unrecorded.
    Complete,
    /// Some could.
    Incomplete {
        /// Which step, and why.
        reasons: Vec<String>,
    },
}

/// Whether every record of installed packages in the image could be read, so that all that they name is named as `package`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub enum Inventory {
    /// All were read.
    Complete,
    /// Some were not.
    Incomplete {
        /// Which record, and why.
        reasons: Vec<String>,
    },
}

/// What a rebuild repeats, and how it came out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RebuildOf {
    /// The manifest's digest of the image that was to be repeated.
    pub subject: Digest,
    /// The digest of the bundle that holds the provenance that was repeated.
    pub provenance: Digest,
    /// How it came out.
    pub verdict: RebuildVerdict,
}

/// How a rebuild came out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum RebuildVerdict {
    /// The same manifest.
    Identical,
    /// Another one, which is this statement's subject.
    Differs,
}

/// Who built it, when.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RunDetails {
    /// Who.
    pub builder: Builder,
    /// When.
    pub metadata: Metadata,
    /// What else came of it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub byproducts: Vec<ResourceDescriptor>,
}

/// Who built it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Builder {
    /// The URI of the builder. It counts only with a key that the policy gives it.
    pub id: String,
    /// Versions of its parts.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub version: BTreeMap<String, String>,
}

/// When it was built.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// A name for this one build.
    pub invocation_id: String,
    /// Its start.
    pub started_on: Timestamp,
    /// Its end.
    pub finished_on: Timestamp,
}

/// Something that entered or came out (in-toto `ResourceDescriptor`). Its `name` tells the kind here.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ResourceDescriptor {
    /// The kind: one of the constants below.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Where it came from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uri: Option<String>,
    /// Its digests by algorithm.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty", deserialize_with = "crate::digest::set")]
    pub digest: BTreeMap<String, String>,
    /// Its media type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub media_type: Option<String>,
    /// What else is known of it.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, Value>,
}

impl ResourceDescriptor {
    /// The kind of the commit that was built.
    pub const SOURCE: &str = "source";
    /// The kind of that commit's tree.
    pub const SOURCE_TREE: &str = "source-tree";
    /// The kind of a submodule's commit: that of the commit that was built names it.
    pub const SUBMODULE: &str = "submodule";
    /// The kind of a file in Git LFS, which the commit that was built has a pointer to.
    pub const LFS: &str = "lfs";
    /// The kind of a base image.
    pub const BASE: &str = "base";
    /// The kind of a review.
    pub const REVIEW: &str = "review";
    /// The kind of the record of all exchanges, by which they can be replayed.
    pub const RECORD: &str = "record";
    /// The kind of a package that is in the image.
    pub const PACKAGE: &str = "package";
    /// The kind of a package that came over the network, and of which nothing in the image tells.
    pub const FETCHED: &str = "fetched";
    /// The kind of an exchange over the network.
    pub const EXCHANGE: &str = "exchange";
    /// The kind of a commit of another repository, whose files a step added.
    pub const GIT: &str = "git";

    /// The annotation of a package that tells whether it came with the image's base: [`FROM_BASE`](Self::FROM_BASE).
    pub const FROM: &str = "from";
    /// What that annotation says of a package of the base.
    pub const FROM_BASE: &str = "base";
    /// What it says of any other.
    pub const FROM_BUILD: &str = "build";

    /// The annotation of a base that keeps its name in the Dockerfile.
    pub const BASE_NAME: &str = "name";
    /// The annotation of a base that keeps the digest of the index it was chosen from by its platform.
    pub const BASE_INDEX: &str = "index";

    fn of(kind: &str, uri: impl Into<String>, algorithm: &str, digest: impl Into<String>) -> Self {
        Self {
            name: Some(kind.to_owned()),
            uri: Some(uri.into()),
            digest: BTreeMap::from([(algorithm.to_owned(), digest.into())]),
            ..Self::default()
        }
    }

    /// The commit that was built, of the repository `uri`.
    pub fn source(uri: impl Into<String>, commit: &Commit) -> Self {
        Self::of(Self::SOURCE, uri, "gitCommit", commit.as_str())
    }

    /// The tree of that commit.
    pub fn tree(uri: impl Into<String>, tree: &Tree) -> Self {
        Self::of(Self::SOURCE_TREE, uri, "gitTree", tree.as_str())
    }

    /// A submodule of that commit, by its own.
    pub fn submodule(uri: impl Into<String>, commit: &Commit) -> Self {
        Self::of(Self::SUBMODULE, uri, "gitCommit", commit.as_str())
    }

    /// A file in Git LFS, by the digest in its pointer.
    pub fn lfs(uri: impl Into<String>, content: &Digest) -> Self {
        Self::of(Self::LFS, uri, "sha256", content.hex())
    }

    /// A base image, by the digest of its manifest.
    pub fn base(uri: impl Into<String>, manifest: &Digest) -> Self {
        Self::of(Self::BASE, uri, "sha256", manifest.hex())
    }

    /// A review, by the digest of its bundle.
    pub fn review(uri: impl Into<String>, bundle: &Digest) -> Self {
        Self::of(Self::REVIEW, uri, "sha256", bundle.hex())
    }

    /// The record of all exchanges, by the digest of its document.
    pub fn record(document: &Digest) -> Self {
        let digest = BTreeMap::from([("sha256".to_owned(), document.hex())]);
        Self { name: Some(Self::RECORD.to_owned()), digest, ..Self::default() }
    }

    /// A package that is in the image, by its name (purl), where the file that it was installed from is not known.
    pub fn installed(purl: impl Into<String>) -> Self {
        Self { name: Some(Self::PACKAGE.to_owned()), uri: Some(purl.into()), ..Self::default() }
    }

    /// A package that is in the image, by its name (purl) and the digest of the file that it was installed from.
    pub fn package(purl: impl Into<String>, file: &Digest) -> Self {
        Self::of(Self::PACKAGE, purl, "sha256", file.hex())
    }

    /// A package that came over the network and of which nothing in the image tells, by its name (purl) and the digest of
    /// its file.
    pub fn fetched(purl: impl Into<String>, file: &Digest) -> Self {
        Self::of(Self::FETCHED, purl, "sha256", file.hex())
    }

    /// An exchange over the network, by the digest of the response's body.
    pub fn exchange(url: impl Into<String>, body: &Digest) -> Self {
        Self::of(Self::EXCHANGE, url, "sha256", body.hex())
    }

    /// A commit of another repository, whose files a step added.
    pub fn git(uri: impl Into<String>, commit: &Commit) -> Self {
        Self::of(Self::GIT, uri, "gitCommit", commit.as_str())
    }

    /// The same with one more annotation.
    #[must_use]
    pub fn annotated(mut self, key: &str, value: impl Into<Value>) -> Self {
        self.annotations.insert(key.to_owned(), value.into());
        self
    }

    /// An annotation that is a text.
    pub fn text(&self, key: &str) -> Option<&str> {
        self.annotations.get(key).and_then(Value::as_str)
    }

    /// Whether it is of this kind.
    pub fn is(&self, kind: &str) -> bool {
        self.name.as_deref() == Some(kind)
    }

    /// The SHA-256 digest, if it has a well-formed one.
    pub fn sha256(&self) -> Option<Digest> {
        Digest::from_hex(self.digest.get("sha256")?).ok()
    }
}
