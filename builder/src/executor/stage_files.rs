//! The root file system of a stage: the layers of its base, and above them those of its steps. The layer of a COPY
//! stays virtual until its files are needed in a folder.

use std::fs::File;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use images::layer::{Layer, LayerLimits, LayerStack, Packing, StackedLayer, VirtualLayer, unpack};
use sandbox::Upper;

use super::failures::machine;
use super::stage::Resources;
use super::steps::copy::{self, CopyError, Node, NodeLookup};
use crate::error::{Error, Kind, Result};

/// A virtual layer of a stage whose files are not in a folder.
pub(crate) struct PackedLayer(Arc<Pending>);

impl PackedLayer {
    /// Its blob, once it is compressed.
    ///
    /// # Errors
    /// When it cannot be written, or the build was cancelled.
    pub(crate) fn layer(&self, resources: &Resources<'_>) -> Result<Layer> {
        resources.packed(&self.0.layer, Error::from)
    }
}

/// The layer stack of a stage. Cheap to clone, since the layers are shared.
#[derive(Clone, Default)]
pub(crate) struct StageFiles {
    /// The topmost first.
    layers: Vec<Part>,
}

#[derive(Clone)]
enum Part {
    /// A layer of the base, unpacked.
    Base(PathBuf),
    /// The layer of a command, in the folder it was written to.
    Written(Arc<Upper>),
    /// The virtual layer of a COPY.
    Virtual(Arc<Pending>),
}

/// A virtual layer, which is unpacked into a folder when needed.
struct Pending {
    layer: Packing,
    virtual_layer: Arc<VirtualLayer>,
    folder: Mutex<Option<Arc<Upper>>>,
}

impl StageFiles {
    /// The unpacked layers of a base, the topmost first.
    pub(crate) fn of_base(folders: Vec<PathBuf>) -> Self {
        Self { layers: folders.into_iter().map(Part::Base).collect() }
    }

    /// Adds a command's layer on top.
    pub(crate) fn add_written(&mut self, upper: Arc<Upper>) {
        self.layers.insert(0, Part::Written(upper));
    }

    /// Adds a virtual layer on top.
    pub(crate) fn add_virtual(&mut self, layer: Packing, virtual_layer: VirtualLayer) {
        let pending = Pending { layer, virtual_layer: Arc::new(virtual_layer), folder: Mutex::new(None) };
        self.layers.insert(0, Part::Virtual(Arc::new(pending)));
    }

    /// The layer stack for looking up files; nothing is unpacked for it.
    pub(crate) fn layer_stack(&self) -> LayerStack {
        let layers = self.layers.iter().map(|part| match part {
            Part::Base(folder) => StackedLayer::Folder(folder.clone()),
            Part::Written(upper) => StackedLayer::Folder(upper.path().to_owned()),
            Part::Virtual(pending) => match pending.unpacked() {
                Some(upper) => StackedLayer::Folder(upper.path().to_owned()),
                None => StackedLayer::Virtual(pending.virtual_layer.clone()),
            },
        });
        LayerStack::new(layers.collect())
    }

    /// The layers of its base alone.
    pub(crate) fn base(&self) -> LayerStack {
        let folders = self.layers.iter().filter_map(|part| match part {
            Part::Base(folder) => Some(StackedLayer::Folder(folder.clone())),
            Part::Written(_) | Part::Virtual(_) => None,
        });
        LayerStack::new(folders.collect())
    }

    /// Whether the layer at this place, counted from the top, is one of its base.
    pub(crate) fn is_of_base(&self, at: usize) -> bool {
        matches!(self.layers.get(at), Some(Part::Base(_)))
    }

    /// The virtual layer at this place, counted from the top, if there is one.
    pub(crate) fn packed(&self, at: usize) -> Option<PackedLayer> {
        match self.layers.get(at)? {
            Part::Virtual(pending) => Some(PackedLayer(pending.clone())),
            Part::Base(_) | Part::Written(_) => None,
        }
    }

    /// The folders, the topmost first. Virtual layers are unpacked now.
    ///
    /// # Errors
    /// When one cannot be unpacked.
    pub(crate) fn folders(&self, resources: &Resources<'_>) -> Result<Vec<PathBuf>> {
        let folder = |part: &Part| match part {
            Part::Base(folder) => Ok(folder.clone()),
            Part::Written(upper) => Ok(upper.path().to_owned()),
            Part::Virtual(pending) => pending.folder(resources),
        };
        self.layers.iter().map(folder).collect()
    }

    /// The content of a table of users or groups, with symbolic links followed; empty when there is none. If it is in
    /// a virtual layer, that is unpacked.
    ///
    /// # Errors
    /// When it is not a regular file, or larger than 4 MiB.
    pub(crate) fn user_table(&self, path: &str, resources: &Resources<'_>) -> Result<String> {
        let failed = |cause| Error::io("reading", Path::new(path), cause);
        let mut layer_stack = self.layer_stack();
        let resolved = copy::lookup(&Seen(&layer_stack), path.as_bytes())
            .map_err(|cause| Error::new(Kind::Input, cause.to_string()).because(cause))?;
        let Some(mut found) = layer_stack.find(&resolved)? else { return Ok(String::new()) };
        if found.on_disk().is_none() {
            self.folders(resources)?;
            layer_stack = self.layer_stack();
            let Some(again) = layer_stack.find(&resolved)? else { return Ok(String::new()) };
            found = again;
        }
        let flags = (rustix::fs::OFlags::NOFOLLOW | rustix::fs::OFlags::NONBLOCK).bits().cast_signed();
        // Everything is unpacked by now; only the root itself, to which a link may lead, is in no layer's folder.
        let place = found.on_disk().ok_or_else(|| failed(std::io::Error::other("not a regular file")))?;
        let file = File::options().read(true).custom_flags(flags).open(place);
        file.and_then(sandbox::read_user_table).map_err(failed)
    }
}

impl Pending {
    fn unpacked(&self) -> Option<Arc<Upper>> {
        self.folder.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn folder(&self, resources: &Resources<'_>) -> Result<PathBuf> {
        let mut folder = self.folder.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(upper) = &*folder {
            return Ok(upper.path().to_owned());
        }
        let upper = resources.host.folder().map_err(machine)?;
        let Layer { descriptor, diff_id, .. } = resources.packed(&self.layer, Error::from)?;
        unpack(resources.store, &descriptor, &diff_id, upper.path(), LayerLimits::default())?;
        Ok(folder.insert(Arc::new(upper)).path().to_owned())
    }
}

/// A layer stack for path lookups.
struct Seen<'a>(&'a LayerStack);

impl NodeLookup for Seen<'_> {
    fn node(&self, path: &[u8]) -> std::result::Result<Option<Node>, CopyError> {
        Ok(self.0.find(path)?.map(|found| found.node))
    }

    fn target(&self, path: &[u8]) -> std::result::Result<Vec<u8>, CopyError> {
        Ok(self.0.find(path)?.map_or(Ok(Vec::new()), |found| found.target())?)
    }
}
