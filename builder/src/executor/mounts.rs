//! The mounts of a step: prepared before it, removed after it, and never part of its layer.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use sandbox::{Host, Memory, Mount, MountPoint, Overlay, Tmpfs};
use zeroize::Zeroizing;

use super::steps::copy::{self, ContextTree, CopyError, Folder, RootTree};
use crate::dockerfile::SecretMount;
use crate::error::Error;
use crate::plan::step::{MountSource, Mounted};

/// The bytes of a tmpfs for which the Dockerfile gives no size.
const DEFAULT_SIZE: u64 = 1 << 30;

/// The mounts of one step. Must be kept until the step has ended.
#[derive(Default)]
pub(crate) struct Mounts {
    pub(crate) mounts: Vec<Mount>,
    pub(crate) tmpfs: Vec<Tmpfs>,
    /// Their mount points, which the sandbox has to create below the root.
    pub(crate) points: Vec<MountPoint>,
    /// Secrets as environment variables.
    pub(crate) variables: Vec<(String, Zeroizing<String>)>,
    /// The folders of caches, by name, permissions and owner.
    caches: BTreeMap<(String, u32, (u32, u32)), PathBuf>,
    /// The stages that some are bound from.
    _views: Vec<Overlay>,
    /// The memory file systems with the secrets.
    memories: Vec<Memory>,
}

/// Why a mount cannot be prepared.
pub(crate) enum MountError {
    /// Its source cannot be copied.
    Copy(CopyError),
    /// The machine failed.
    Machine(sandbox::Error),
    /// The stage that it is bound from failed.
    Stage(Error),
}

impl From<CopyError> for MountError {
    fn from(cause: CopyError) -> Self {
        Self::Copy(cause)
    }
}

impl From<sandbox::Error> for MountError {
    fn from(cause: sandbox::Error) -> Self {
        Self::Machine(cause)
    }
}

impl Mounts {
    /// Prepares them below `scratch`, a folder of this step alone. `stages` gives the unpacked layers of an earlier
    /// stage.
    pub(crate) fn make(
        wanted: &[Mounted],
        host: &Host,
        scratch: &Path,
        context: &ContextTree,
        stages: &dyn Fn(usize) -> crate::error::Result<Vec<PathBuf>>,
    ) -> Result<Self, MountError> {
        let mut made = Self::default();
        for (number, mounted) in wanted.iter().enumerate() {
            // A later mount on the same target hides it.
            if wanted[number + 1..].iter().any(|later| later.target == mounted.target) {
                continue;
            }
            let folder = scratch.join(number.to_string());
            made.one(mounted, host, &folder, context, stages)?;
        }
        Ok(made)
    }

    /// Adds a secret, as a read-only file in memory or as a variable.
    pub(crate) fn add_secret(
        &mut self,
        secret: &SecretMount,
        bytes: &[u8],
        host: &Host,
    ) -> Result<(), MountError> {
        if let Some(name) = &secret.env {
            let value = std::str::from_utf8(bytes).ok().filter(|text| !text.contains('\0'));
            let value = value.ok_or_else(|| CopyError::NoText(secret.id.clone()))?;
            self.variables.push((name.clone(), Zeroizing::new(value.to_owned())));
        }
        if let Some(target) = &secret.target {
            let memory = host.memory()?;
            let source = memory.path().join("secret");
            write_secret(&source, secret, bytes).map_err(|cause| CopyError::Io {
                doing: "writing the secret",
                path: target.clone(),
                source: cause,
            })?;
            self.points.push(MountPoint::File(target.clone()));
            self.mounts.push(Mount { source, target: target.clone(), readonly: true });
            self.memories.push(memory);
        }
        Ok(())
    }

    fn one(
        &mut self,
        mounted: &Mounted,
        host: &Host,
        folder: &Path,
        context: &ContextTree,
        stages: &dyn Fn(usize) -> crate::error::Result<Vec<PathBuf>>,
    ) -> Result<(), MountError> {
        let target = mounted.target.clone();
        let (source, readonly) = match &mounted.what {
            MountSource::Temporary { size, writable } => {
                self.points.push(MountPoint::Temporary(target.clone()));
                self.tmpfs.push(Tmpfs { target, size: size.unwrap_or(DEFAULT_SIZE), readonly: !writable });
                return Ok(());
            }
            MountSource::Cache { id, mode, owner, writable } => {
                let cache = self.caches.entry((id.clone(), *mode, *owner));
                let cache = cache.or_insert_with(|| folder.to_path_buf());
                make(cache, *mode, *owner)?;
                (cache.clone(), !writable)
            }
            MountSource::Bind { from: None, source, writable } => {
                make(folder, 0o755, (0, 0))?;
                let sources = std::slice::from_ref(source);
                let request = copy::CopyRequest::plain(sources, "/", 0);
                let path = copy::lookup(context, source.as_bytes())?;
                copy::copy(context, &mut Folder::open(folder)?, &request)?;
                let is_folder = copy::is_folder(context, &path)?;
                (if is_folder { folder.to_path_buf() } else { folder.join(name_of(source)) }, !writable)
            }
            MountSource::Bind { from: Some(stage), source, writable } => {
                let folders = stages(*stage).map_err(MountError::Stage)?;
                let view = if *writable { host.overlay(&folders)? } else { host.view(&folders)? };
                let tree = RootTree::open(view.merged())?;
                let path = copy::lookup(&tree, source.as_bytes())?;
                copy::existing(&tree, &path)?;
                let place = view.merged().join(Path::new(std::ffi::OsStr::from_bytes(&path)));
                self._views.push(view);
                (place, !writable)
            }
        };
        self.points.push(match source.is_dir() {
            true => MountPoint::Directory(target.clone()),
            false => MountPoint::File(target.clone()),
        });
        self.mounts.push(Mount { source, target, readonly });
        Ok(())
    }
}

fn write_secret(path: &Path, secret: &SecretMount, bytes: &[u8]) -> std::io::Result<()> {
    fs::write(path, bytes)?;
    let (user, group) = secret.owner;
    std::os::unix::fs::chown(path, Some(user), Some(group))?;
    fs::set_permissions(path, fs::Permissions::from_mode(secret.mode))
}

fn name_of(source: &str) -> &str {
    source.trim_end_matches('/').rsplit('/').next().unwrap_or_default()
}

fn make(folder: &Path, mode: u32, (user, group): (u32, u32)) -> Result<(), CopyError> {
    let failed = |cause| CopyError::Io {
        doing: "making the mount",
        path: folder.display().to_string(),
        source: cause,
    };
    fs::create_dir_all(folder).map_err(failed)?;
    std::os::unix::fs::chown(folder, Some(user), Some(group)).map_err(failed)?;
    fs::set_permissions(folder, fs::Permissions::from_mode(mode)).map_err(failed)
}
