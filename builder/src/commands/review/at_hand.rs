//! The reviews at hand: files, folders, and what is attached to an image.

use std::path::{Path, PathBuf};

use attestations::{PublicKey, Reference};
use errors::files;

use super::{MAX_FILE, Session};
use crate::commands::registries::Reach;
use crate::error::{Error, Kind, Result};
use crate::progress::Event;
use crate::registry::Registry;
use crate::review::gate::{self, HandedIn};

/// The most files looked at in one folder.
const MAX_FILES: usize = 4096;

/// Where reviews are taken from, and whose count.
#[derive(Debug, clap::Args)]
pub(super) struct AtHand {
    /// Signed reviews: files, or folders with files whose names end in .json.
    #[arg(long, value_name = "FILE|FOLDER", num_args = 1.., requires = "reviewer_keys")]
    reviews: Vec<PathBuf>,
    /// Image in a registry, whose attached reviews are taken as well.
    #[arg(long, value_name = "REFERENCE", requires = "reviewer_keys")]
    attached_to: Option<Reference>,
    /// File with the public keys of the reviewers that count, as PEM blocks or OpenSSH lines.
    #[arg(long, value_name = "FILE")]
    reviewer_keys: Option<PathBuf>,
    #[command(flatten)]
    reach: Reach,
}

impl AtHand {
    /// Every review. What is no review in a folder or at an image is left out; what cannot be read there is told.
    ///
    /// # Errors
    /// When a named file is no review, or something cannot be read.
    pub(super) fn collect(&self, session: &Session) -> Result<Vec<HandedIn>> {
        let Some(path) = &self.reviewer_keys else { return Ok(Vec::new()) };
        let keys = gate::read_keys(path, MAX_FILE)?;
        let mut found = ReviewsAtHand { keys, session, reviews: Vec::new() };
        for path in &self.reviews {
            match path.is_dir() {
                true => found.folder(path)?,
                false => {
                    let bytes = files::read(path, MAX_FILE)?;
                    found.reviews.push(HandedIn::parse(&path.display().to_string(), &bytes, &found.keys)?);
                }
            }
        }
        if let Some(reference) = &self.attached_to {
            let runtime = session.workspace().runtime()?;
            let registries = self.reach.registries()?;
            let registry = Registry::new(registries, session.workspace(), runtime.handle().clone());
            for image in registry.images(reference, &[])? {
                for one in registry.attachments(&image)? {
                    found.maybe(&one.origin, &one.bytes);
                }
            }
        }
        Ok(found.reviews)
    }
}

struct ReviewsAtHand<'a> {
    keys: Vec<PublicKey>,
    session: &'a Session,
    reviews: Vec<HandedIn>,
}

impl ReviewsAtHand<'_> {
    fn folder(&mut self, folder: &Path) -> Result<()> {
        let failed = |cause| {
            Error::new(Kind::NotFound, format!("the folder {} cannot be read", folder.display()))
                .because(cause)
        };
        let mut paths = Vec::new();
        for entry in std::fs::read_dir(folder).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|it| it == "json") && path.is_file() {
                paths.push(path);
            }
            if paths.len() > MAX_FILES {
                let text = format!("{} has more than {MAX_FILES} files", folder.display());
                return Err(Error::new(Kind::Input, text).hint("name the reviews one by one"));
            }
        }
        paths.sort();
        for path in paths {
            self.maybe(&path.display().to_string(), &files::read(&path, MAX_FILE)?);
        }
        Ok(())
    }

    fn maybe(&mut self, origin: &str, bytes: &[u8]) {
        if gate::is_other_statement(bytes) {
            return;
        }
        match HandedIn::parse(origin, bytes, &self.keys) {
            Ok(review) => self.reviews.push(review),
            Err(error) => {
                let message = format!("{error}; it is left out");
                self.session.workspace().report(&Event::Warning { message: &message, path: None });
            }
        }
    }
}
