//! `--output`: the image as files, for machines that share no registry with this one.

use std::io::BufWriter;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use attestations::Reference;
use errors::files::{self, Existing, folder_of};
use images::export::{Content, Form, write_archive};
use images::layer::write_root;
use images::{Image, LayerCache, Store};

use crate::bases::copy_blobs;
use crate::error::{Error, Kind, Result};
use crate::executor::failures::machine;
use crate::executor::steps::copy::{self, Folder, RootTree};
use crate::workspace::Workspace;

/// One `--output`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Output {
    form: OutputForm,
    destination: PathBuf,
    /// The image's name in the output.
    name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum OutputForm {
    /// A folder with an OCI image layout, or a tar file of one.
    Oci { is_folder: bool },
    /// A tar file for `docker load`.
    DockerArchive,
    /// A tar file of the root file system.
    Tar,
    /// A folder with the root file system.
    Local,
}

impl FromStr for Output {
    type Err = String;

    fn from_str(text: &str) -> std::result::Result<Self, String> {
        let (mut kind, mut destination, mut name, mut tar) = (None, None, None, None);
        for part in text.split(',') {
            let (key, value) =
                part.split_once('=').ok_or_else(|| format!("{part} is not of the form key=value"))?;
            let slot = match key {
                "type" => &mut kind,
                "dest" => &mut destination,
                "name" => &mut name,
                "tar" => &mut tar,
                _ => return Err(format!("{key} is none of type, dest, name, tar")),
            };
            if value.is_empty() || slot.replace(value.to_owned()).is_some() {
                return Err(format!("{key} is empty or given twice"));
            }
        }
        let is_folder = match tar.as_deref() {
            None | Some("true") => false,
            Some("false") => true,
            Some(_) => return Err("tar is true or false".to_owned()),
        };
        let form = match kind.as_deref() {
            Some("oci") => OutputForm::Oci { is_folder },
            _ if tar.is_some() => return Err("tar=… belongs to type=oci".to_owned()),
            Some("docker-archive" | "docker") => OutputForm::DockerArchive,
            Some("tar") => OutputForm::Tar,
            Some("local") => OutputForm::Local,
            _ => return Err("give type=oci, docker-archive, tar or local".to_owned()),
        };
        match (&form, &name) {
            (OutputForm::Tar | OutputForm::Local, Some(_)) => {
                return Err("name=… belongs to an image, and not to its files alone".to_owned());
            }
            (OutputForm::DockerArchive, Some(name)) if !is_tagged(name) => {
                return Err(format!("{name} is not a repository and a tag, such as glm:1.0"));
            }
            _ => {}
        }
        let destination = destination.ok_or("give dest=, the file or folder to write")?.into();
        Ok(Self { form, destination, name })
    }
}

/// The names of the image in an output that gives no other.
pub(crate) struct ImageNames {
    /// Each `--tag`.
    pub(crate) tags: Vec<Reference>,
    /// Its name in `countersign.toml`.
    pub(crate) image: String,
}

/// Whether this is a `repository:tag` in the characters that Docker allows.
fn is_tagged(name: &str) -> bool {
    let plain = |text: &str, more: &str| {
        text.starts_with(|letter: char| letter.is_ascii_alphanumeric())
            && text.chars().all(|letter| letter.is_ascii_alphanumeric() || more.contains(letter))
    };
    name.rsplit_once(':').is_some_and(|(repository, tag)| {
        plain(repository, "._-/:") && plain(tag, "._-") && repository.to_ascii_lowercase() == *repository
    })
}

impl Output {
    /// An OCI image layout in a folder.
    pub(crate) fn layout(folder: PathBuf) -> Self {
        Self { form: OutputForm::Oci { is_folder: true }, destination: folder, name: None }
    }

    /// For messages.
    pub(crate) fn destination(&self) -> &Path {
        &self.destination
    }

    /// Checks before the build that the output can be written.
    ///
    /// # Errors
    /// When something of another kind is at the destination, its folder is not empty, or its parent does not exist.
    pub(crate) fn check(&self) -> Result<()> {
        let place = &self.destination;
        let refuse = |why: &str, hint: &'static str| {
            Err(Error::new(Kind::Usage, format!("--output {}: {why}", place.display())).hint(hint))
        };
        match self.form {
            OutputForm::Oci { is_folder: true } if place.exists() && !place.is_dir() => {
                refuse("is a file, and a folder is to be written", "name another")
            }
            OutputForm::Oci { is_folder: true } => Ok(()),
            OutputForm::Local => match place.symlink_metadata() {
                Ok(there) if !there.is_dir() => {
                    refuse("is a file, and a folder is to be written", "name another")
                }
                Ok(_) if std::fs::read_dir(place).is_ok_and(|mut files| files.next().is_none()) => Ok(()),
                Ok(_) => refuse("is not empty", "name a folder that is, or is not there yet"),
                Err(_) => Ok(()),
            },
            _ if place.is_dir() => refuse("is a folder, and a file is to be written", "name a file in it"),
            _ if !folder_of(place).is_dir() => {
                refuse("is in a folder that does not exist", "make the folder first")
            }
            _ => Ok(()),
        }
    }

    /// Why the output can hold only one image, if so.
    pub(crate) fn alone(&self) -> Option<&'static str> {
        match self.form {
            OutputForm::Oci { .. } => None,
            OutputForm::DockerArchive => Some("Docker's archive holds one image"),
            OutputForm::Tar | OutputForm::Local => Some("a root file system is of one image"),
        }
    }

    /// Writes the image.
    ///
    /// # Errors
    /// When a blob is damaged, or the files cannot be written. A file appears whole or not at all.
    pub(crate) fn write(
        &self,
        workspace: &Workspace,
        store: &Store,
        content: Content<'_>,
        names: &ImageNames,
    ) -> Result<()> {
        let tags: Vec<String> = match &self.name {
            Some(name) => vec![name.clone()],
            None => names.tags.iter().map(ToString::to_string).collect(),
        };
        let tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        // A layout may use the name in `countersign.toml` too; Docker would take that for a tag.
        let called = if tags.is_empty() { vec![names.image.as_str()] } else { tags.clone() };
        match self.form {
            OutputForm::Oci { is_folder: true } => {
                let layout = Store::open(&self.destination)?;
                copy_blobs(store, &layout, content.blobs())?;
                let top = content.top()?;
                called.iter().try_for_each(|name| layout.set_ref(name, top)).map_err(Error::from)
            }
            OutputForm::Oci { is_folder: false } => {
                self.file(&mut |out| write_archive(store, content, Form::Oci, &called, out))
            }
            OutputForm::DockerArchive => {
                self.file(&mut |out| write_archive(store, content, Form::Docker, &tags, out))
            }
            OutputForm::Tar => with_root(workspace, store, only(content)?, &mut |root| {
                self.file(&mut |out| write_root(root, folder_of(&self.destination), out))
            }),
            OutputForm::Local => with_root(workspace, store, only(content)?, &mut |root| self.local(root)),
        }
    }

    fn file(
        &self,
        write: &mut dyn FnMut(&mut BufWriter<&std::fs::File>) -> images::Result<()>,
    ) -> Result<()> {
        files::write_with(&self.destination, Existing::Replaced, 0o644, |out| Ok(write(out)?))
    }

    fn local(&self, root: &Path) -> Result<()> {
        let place = &self.destination;
        std::fs::create_dir_all(place).map_err(|cause| Error::io("making", place, cause))?;
        let all = ["/".to_owned()];
        let copied = || {
            let (tree, mut folder) = (RootTree::open(root)?, Folder::open(place)?);
            copy::copy(&tree, &mut folder, &copy::CopyRequest::plain(&all, "/", 0))
        };
        copied().map_err(|cause| {
            let kind = if cause.is_machine() { Kind::Machine } else { Kind::Input };
            Error::new(kind, format!("--output {}: {cause}", place.display())).because(cause)
        })
    }
}

fn only<'a>(content: Content<'a>) -> Result<&'a Image> {
    match content.images() {
        [image] => Ok(image),
        _ => Err(Error::new(Kind::Bug, "a root file system is of one image")),
    }
}

/// Runs `take` with the image's root file system, mounted read-only.
fn with_root(
    workspace: &Workspace,
    store: &Store,
    image: &Image,
    take: &mut dyn FnMut(&Path) -> Result<()>,
) -> Result<()> {
    let cache = LayerCache::open(workspace.state_dir().join("layers"))?;
    let host = sandbox::Host::open(&workspace.state_dir().join("sandbox")).map_err(machine)?;
    let view = host.view(&cache.lower_dirs(store, image)?).map_err(machine)?;
    take(view.merged())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    #[test]
    fn outputs_are_read_or_refused() {
        let read = |text: &str| text.parse::<Output>();
        assert_eq!(read("type=oci,dest=x,tar=false").unwrap(), Output::layout("x".into()));
        assert_eq!(
            read("dest=x.tar,type=docker-archive,name=r.example:5000/a/b:1").unwrap().form,
            OutputForm::DockerArchive
        );
        assert_eq!(read("type=tar,dest=x").unwrap().form, OutputForm::Tar);
        for text in [
            "",
            "x",
            "type=oci",
            "dest=x",
            "type=zip,dest=x",
            "type=tar,dest=x,tar=false",
            "type=tar,dest=x,name=a:1",
            "type=tar,dest=",
            "type=tar,type=tar,dest=x",
            "type=oci,dest=x,tar=maybe",
            "type=oci,dest=x,more=1",
            "type=docker-archive,dest=x,name=a",
            "type=docker-archive,dest=x,name=A:1",
            "type=docker-archive,dest=x,name=a:1/b",
        ] {
            assert!(read(text).is_err(), "{text}");
        }
    }

    #[test]
    fn what_is_in_the_way_is_said_before_the_build() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("file"), "").unwrap();
        let check = |kind: &str, name: &str| {
            let place = folder.path().join(name);
            format!("type={kind},dest={}", place.display()).parse::<Output>().unwrap().check()
        };
        assert!(check("local", "new").is_ok() && check("tar", "new").is_ok() && check("tar", "file").is_ok());
        for (kind, name) in
            [("local", ""), ("local", "file"), ("tar", ""), ("tar", "no/where"), ("oci,tar=false", "file")]
        {
            assert!(check(kind, name).is_err(), "{kind} {name}");
        }
    }
}
