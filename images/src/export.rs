//! Exports an image, or an index of several, to one file: an OCI image layout in a tar archive, which `docker load`
//! accepts as well if it has Docker's own manifest list. Equal images give equal bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::descriptor::{Descriptor, INDEX};
use crate::error::{At, Error, Result};
use crate::image::Image;
use crate::index::Index;
use crate::layer::{Entry, Kind, write_end, write_header, write_padding};
use crate::store::{LAYOUT, REF_NAME, Store};

/// The reader of the archive.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An OCI image layout.
    Oci,
    /// The same, with the list that `docker load` reads.
    Docker,
}

/// The content of an archive: one image, or an index with its images.
#[derive(Debug, Clone, Copy)]
pub struct Content<'a> {
    index: Option<&'a Index>,
    images: &'a [&'a Image],
}

impl<'a> Content<'a> {
    /// One image.
    pub fn image(image: &'a &'a Image) -> Self {
        Self { index: None, images: std::slice::from_ref(image) }
    }

    /// An index and the images that it lists.
    pub fn index(index: &'a Index, images: &'a [&'a Image]) -> Self {
        Self { index: Some(index), images }
    }

    /// The images.
    pub fn images(&self) -> &'a [&'a Image] {
        self.images
    }

    /// The top-level descriptor: that of the index, or of the only image.
    ///
    /// # Errors
    /// When there is neither.
    pub fn top(&self) -> Result<&'a Descriptor> {
        let image = || self.images.first().map(|image| image.manifest());
        let top = self.index.map(Index::descriptor).or_else(image);
        top.ok_or_else(|| Error::refused("the output", "it holds no image".to_owned()))
    }

    /// Every blob, each image's manifest after its blobs, and the index last.
    pub fn blobs(&self) -> impl Iterator<Item = &'a Descriptor> {
        let of_image =
            |image: &&'a Image| image.layers().iter().chain([image.config_descriptor(), image.manifest()]);
        self.images.iter().flat_map(of_image).chain(self.index.map(Index::descriptor))
    }
}

/// Writes an archive. `names` are the image's names when it is loaded, possibly none; for Docker, a repository and a
/// tag each.
///
/// # Errors
/// When there are several images for one of Docker's archives, a blob is missing or does not match its digest, or the
/// archive cannot be written.
pub fn write_archive(
    store: &Store,
    content: Content<'_>,
    form: Form,
    names: &[&str],
    out: &mut impl Write,
) -> Result<()> {
    let mut blobs: BTreeMap<String, &Descriptor> = BTreeMap::new();
    for blob in content.blobs() {
        blobs.insert(path_of(blob), blob);
    }
    for folder in ["blobs", "blobs/sha256"] {
        header(folder, Kind::Directory, 0o755, out)?;
    }
    for (path, blob) in blobs {
        header(&path, Kind::File { size: blob.size }, 0o644, out)?;
        let mut from = store.open_blob(blob)?;
        io::copy(&mut from, out).at("writing", &path)?;
        write_padding(blob.size, out).at("writing", &path)?;
    }
    file("index.json", &layout_index(content.top()?, form, names), out)?;
    match (form, content.images()) {
        (Form::Oci, _) => {}
        (Form::Docker, [image]) => file("manifest.json", &docker_list(image, names), out)?,
        (Form::Docker, _) => {
            return Err(Error::refused("the output", "Docker's archive holds one image".to_owned()));
        }
    }
    let layout: Value = serde_json::from_str(LAYOUT).map_err(io::Error::from).at("writing", "oci-layout")?;
    file("oci-layout", &layout, out)?;
    write_end(out).at("writing", "the archive")
}

fn path_of(blob: &Descriptor) -> String {
    format!("blobs/sha256/{}", blob.digest.hex())
}

/// One entry for each name, all of one manifest, as readers expect for several names.
fn layout_index(top: &Descriptor, form: Form, names: &[&str]) -> Value {
    let named = |name: &&str| {
        let mut manifest = json!(top);
        manifest["annotations"] = match form {
            Form::Oci => json!({ REF_NAME: name }),
            Form::Docker => json!({
                REF_NAME: name.rsplit_once(':').map_or(*name, |(_, tag)| tag),
                "io.containerd.image.name": full_name(name),
            }),
        };
        manifest
    };
    let mut manifests: Vec<Value> = names.iter().map(named).collect();
    if manifests.is_empty() {
        manifests.push(json!(top));
    }
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": manifests })
}

/// Docker's list; its layers may be compressed, and may occur twice.
fn docker_list(image: &Image, names: &[&str]) -> Value {
    let layers: Vec<String> = image.layers().iter().map(path_of).collect();
    let names: BTreeSet<&str> = names.iter().copied().collect();
    json!([{ "Config": path_of(image.config_descriptor()), "RepoTags": names, "Layers": layers }])
}

/// A name in Docker's full form: with its registry, and with `library` if there is no other folder.
fn full_name(name: &str) -> String {
    match name.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => name.to_owned(),
        Some(_) => format!("docker.io/{name}"),
        None => format!("docker.io/library/{name}"),
    }
}

fn file(path: &str, value: &Value, out: &mut impl Write) -> Result<()> {
    let bytes = value.to_string().into_bytes();
    header(path, Kind::File { size: bytes.len() as u64 }, 0o644, out)?;
    out.write_all(&bytes).at("writing", path)?;
    write_padding(bytes.len() as u64, out).at("writing", path)
}

fn header(path: &str, kind: Kind, mode: u32, out: &mut impl Write) -> Result<()> {
    let path = path.as_bytes().to_vec();
    let entry = Entry { path, kind, mode, uid: 0, gid: 0, mtime: 0, xattrs: BTreeMap::new() };
    write_header(&entry, out).at("writing", "the archive")
}

#[cfg(test)]
mod tests {
    use super::full_name;

    #[test]
    fn names_are_spelled_out() {
        assert_eq!(full_name("glm:1"), "docker.io/library/glm:1");
        assert_eq!(full_name("org/glm:1"), "docker.io/org/glm:1");
        assert_eq!(full_name("localhost/glm:1"), "localhost/glm:1");
        assert_eq!(full_name("r.example:5000/glm:1"), "r.example:5000/glm:1");
    }
}
