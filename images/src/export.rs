//! An image as one file: an OCI image layout in a tar archive, which `docker load` takes as well when it holds Docker's own
//! list. The same image gives the same bytes.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Write};

use serde_json::{Value, json};

use crate::descriptor::{Descriptor, INDEX};
use crate::error::{At, Result};
use crate::image::Image;
use crate::layer::{Entry, Kind, write_end, write_header, write_padding};
use crate::store::{LAYOUT, REF_NAME, Store};

/// What the archive is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Form {
    /// An OCI image layout.
    Oci,
    /// The same, with the list that `docker load` reads.
    Docker,
}

/// Writes an image's archive. `name` is what whoever loads it will call it: for Docker, a repository and a tag.
///
/// # Errors
/// When a blob is missing or not what its digest says, or the archive cannot be written.
pub fn write_archive(
    store: &Store,
    image: &Image,
    form: Form,
    name: Option<&str>,
    out: &mut impl Write,
) -> Result<()> {
    let mut blobs: BTreeMap<String, &Descriptor> = BTreeMap::new();
    for blob in image.layers().iter().chain([image.config_descriptor(), image.manifest()]) {
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
    file("index.json", &index(image, form, name), out)?;
    if form == Form::Docker {
        file("manifest.json", &docker_list(image, name), out)?;
    }
    let layout: Value = serde_json::from_str(LAYOUT).map_err(io::Error::from).at("writing", "oci-layout")?;
    file("oci-layout", &layout, out)?;
    write_end(out).at("writing", "the archive")
}

fn path_of(blob: &Descriptor) -> String {
    format!("blobs/sha256/{}", blob.digest.hex())
}

fn index(image: &Image, form: Form, name: Option<&str>) -> Value {
    let mut manifest = json!(image.manifest());
    if let Some(name) = name {
        manifest["annotations"] = match form {
            Form::Oci => json!({ REF_NAME: name }),
            Form::Docker => json!({
                REF_NAME: name.rsplit_once(':').map_or(name, |(_, tag)| tag),
                "io.containerd.image.name": full_name(name),
            }),
        };
    }
    json!({ "schemaVersion": 2, "mediaType": INDEX, "manifests": [manifest] })
}

/// Docker's list: layers may stand in it compressed, and twice.
fn docker_list(image: &Image, name: Option<&str>) -> Value {
    let layers: Vec<String> = image.layers().iter().map(path_of).collect();
    let names: BTreeSet<&str> = name.into_iter().collect();
    json!([{ "Config": path_of(image.config_descriptor()), "RepoTags": names, "Layers": layers }])
}

/// A name as Docker spells it out: with its registry, and with `library` where there is no other folder.
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
