//! `countersign-runner export` and `import`: images with their evidence in one file, for nodes that reach no registry.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use attestations::{Digest, Policy, Reference};
use clap::Args;
use errors::files::{self, Existing};
use errors::{Form, output, plural};
use images::Store;
use images::archive::{self, Files};
use images::registry::{Carried, Client, ToCarry};
use serde::{Deserialize, Serialize};
use tempfile::TempDir;

use super::output::YES;
use crate::config::Config;
use crate::error::{Error, Kind, Result};

/// The list of what is in a file.
const LIST: &str = "images.json";
/// The policy of the node that exported it.
const POLICY: &str = "policy.toml";
/// The federation's key holders and release, where the node follows one.
const TRUST: &str = "federation-trust";
const RELEASE: &str = "federation-release";
/// The most images of one file.
const MAX_IMAGES: usize = 256;

#[derive(Debug, Args)]
pub(super) struct ExportCommand {
    /// Images, as registry/name:tag or registry/name@sha256:…
    #[arg(value_name = "REFERENCE", required = true)]
    references: Vec<Reference>,
    /// File to write.
    #[arg(long, short, value_name = "FILE")]
    output: PathBuf,
    /// Also export what else is attached, such as recorded responses of the build, which may be large.
    #[arg(long)]
    everything: bool,
}

#[derive(Debug, Args)]
pub(super) struct ImportCommand {
    /// File that `export` wrote.
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// Folder to make for the evidence, the policy and a copy of the images; it must not exist yet.
    #[arg(long, value_name = "FOLDER")]
    into: PathBuf,
}

/// One image of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Listed {
    reference: Reference,
    digest: Digest,
}

impl ExportCommand {
    /// Fetches everything, and writes one file.
    pub(super) fn run(&self, config: &Config, form: Form) -> Result<u8> {
        let runtime = super::runtime()?;
        let client = Client::with(config.registries()?).telling(|text| tracing::warn!("{text}"));
        let folder = beside(&self.output)?;
        let store = Store::open(folder.path())?;
        let wanted = if self.everything { ToCarry::Everything } else { ToCarry::Evidence };
        let (mut list, mut count) = (Vec::new(), 0);
        for reference in &self.references {
            let carried = runtime.block_on(client.fetch_all(reference, &store, wanted))?;
            carried.name_in(&store, &reference.to_string())?;
            count += carried.count();
            list.push(Listed { reference: reference.clone(), digest: carried.digest() });
        }
        let mut beside = policies(config)?;
        let text = serde_json::to_vec_pretty(&list)
            .map_err(|cause| Error::new(Kind::Bug, "writing the list").because(cause))?;
        beside.insert(LIST.to_owned(), text);
        let write = |out: &mut std::io::BufWriter<&File>| {
            archive::write_layout(&store, &beside, out).map_err(Error::from)
        };
        files::write_with(&self.output, Existing::Replaced, 0o644, write)?;
        let (images, attached) = (plural(list.len(), "image"), plural(count, "statement"));
        let text = format!("{images} with {attached}: {}", self.output.display());
        output::result(form, &text, &serde_json::json!({ "images": list, "attached": count }))?;
        Ok(YES)
    }
}

/// The node's policy and what it follows, as they are.
fn policies(config: &Config) -> Result<Files> {
    let mut found = Files::new();
    let mut add = |name: &str, path: &Path| {
        found.insert(name.to_owned(), files::read(path, archive::MAX_FILE)?);
        Ok::<_, Error>(())
    };
    if let Some(policy) = &config.policy {
        add(POLICY, policy)?;
    }
    if let Some(federation) = &config.federation {
        add(TRUST, &federation.trust)?;
        add(RELEASE, &federation.release)?;
    }
    Ok(found)
}

impl ImportCommand {
    /// Checks the whole file, and only then makes the folder and puts the images into the node's store.
    pub(super) fn run(&self, state_dir: &Path, form: Form) -> Result<u8> {
        if self.into.symlink_metadata().is_ok() {
            let text = format!("{} exists already, and stays as it is", self.into.display());
            return Err(Error::new(Kind::Usage, text).hint("name a folder that is not there yet"));
        }
        let folder = beside(&self.into)?;
        let store = Store::open(folder.path().join("images"))?;
        let file = File::open(&self.file).map_err(|cause| Error::io("opening", &self.file, cause))?;
        let mut files = archive::read_layout(BufReader::new(file), &store)?;
        let list = listed(&files.remove(LIST).unwrap_or_default())?;
        let mut all = Vec::new();
        for one in &list {
            let carried = Carried::find_in(&store, Some(&one.reference.to_string()))?;
            carried.check(&store)?;
            if carried.digest() != one.digest {
                let text = format!("the list says that {} is {}", one.reference, one.digest);
                return Err(
                    Error::new(Kind::Input, text).details(vec![format!("it is {}", carried.digest())])
                );
            }
            write_evidence(&carried, &store, folder.path())?;
            all.push(carried);
        }
        for (name, bytes) in &files {
            check_beside(name, bytes)?;
            files::write(&folder.path().join(name), bytes)?;
        }
        let node = Store::open(state_dir.join("images"))?;
        all.iter().try_for_each(|carried| carried.copy_blobs(&store, &node))?;
        show(folder, &self.into)?;
        let value = serde_json::json!({ "images": list, "folder": self.into });
        output::result(form, &told(&list, &all, &self.into), &value)?;
        Ok(YES)
    }
}

fn listed(bytes: &[u8]) -> Result<Vec<Listed>> {
    let unusable = |why: String| Error::new(Kind::Input, format!("{LIST} in the file: {why}"));
    let list: Vec<Listed> = serde_json::from_slice(bytes).map_err(|cause| unusable(cause.to_string()))?;
    match list.len() {
        1..=MAX_IMAGES => Ok(list),
        count => Err(unusable(format!("{count} images; 1 to {MAX_IMAGES} can be imported at once"))),
    }
}

/// The policy has to be one; what else lies beside is known by its name.
fn check_beside(name: &str, bytes: &[u8]) -> Result<()> {
    match name {
        POLICY => {
            let text = std::str::from_utf8(bytes).map_err(|cause| {
                Error::new(Kind::Input, "the policy in the file is no text").because(cause)
            })?;
            Policy::parse(text).map(drop).map_err(|cause| {
                Error::new(Kind::Input, "the policy in the file is not usable").because(cause)
            })
        }
        TRUST | RELEASE => Ok(()),
        other => {
            let name = attestations::Foreign::new(other);
            Err(Error::new(Kind::Input, format!("`{name}` in the file is nothing that `export` writes")))
        }
    }
}

/// The statements about each image, one file each, as `--evidence` takes them.
fn write_evidence(carried: &Carried, store: &Store, folder: &Path) -> Result<()> {
    for (image, bundles) in carried.bundles(store)? {
        let place = folder.join("evidence").join(image.hex());
        fs::create_dir_all(&place).map_err(|cause| Error::io("making", &place, cause))?;
        for bundle in bundles {
            files::write(&place.join(format!("{}.json", Digest::of(&bundle).hex())), &bundle)?;
        }
    }
    Ok(())
}

fn told(list: &[Listed], all: &[Carried], into: &Path) -> String {
    let mut text =
        format!("{} in {}; nothing of it is trusted yet", plural(list.len(), "image"), into.display());
    for (one, carried) in list.iter().zip(all) {
        for image in carried.images() {
            let (repository, digest) = (one.reference.repository(), image.digest());
            let evidence = into.join("evidence").join(digest.hex());
            text.push_str(&format!(
                "\n  countersign-runner verify --offline {repository}@{digest} --evidence {}",
                evidence.display()
            ));
        }
    }
    text
}

/// A folder that nobody looks into, on the same disk.
fn beside(path: &Path) -> Result<TempDir> {
    let parent = files::folder_of(path);
    TempDir::with_prefix_in(".countersign-", parent)
        .map_err(|cause| Error::io("making a folder in", parent, cause))
}

/// Gives a finished folder its name.
fn show(folder: TempDir, name: &Path) -> Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o755))
        .map_err(|cause| Error::io("opening up", folder.path(), cause))?;
    let hidden = folder.keep();
    fs::rename(&hidden, name).map_err(|cause| Error::io("naming", name, cause))
}

/// Where images are, if no configuration says otherwise: an import needs no policy.
pub(super) fn state_dir(named: Option<&PathBuf>, config: Option<&Path>) -> Result<PathBuf> {
    match (named, config) {
        (Some(folder), _) => Ok(folder.clone()),
        (None, Some(path)) => Ok(Config::read(path)?.state_dir),
        (None, None) => Ok(Config::without_file(PathBuf::new()).state_dir),
    }
}
