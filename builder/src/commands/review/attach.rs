//! `review attach`.

use std::path::PathBuf;

use attestations::{Digest, Reference, SignedBundle};
use errors::{files, plural};
use images::Platform;
use serde_json::json;

use super::{Answer, MAX_FILE, Session};
use crate::commands::registries::Reach;
use crate::error::{Error, Kind, Result};
use crate::registry::Registry;
use crate::review::gate::{self, HandedIn};

/// Its arguments.
#[derive(Debug, clap::Args)]
pub(super) struct Arguments {
    /// Image in a registry to attach the reviews to.
    #[arg(value_name = "REFERENCE")]
    reference: Reference,
    /// Signed reviews, as `review sign` writes them.
    #[arg(value_name = "FILE", required = true, num_args = 1..)]
    reviews: Vec<PathBuf>,
    /// File with the public keys of reviewers, as PEM blocks or OpenSSH lines; a review that none of them signed is then
    /// refused.
    #[arg(long, value_name = "FILE")]
    reviewer_keys: Option<PathBuf>,
    /// Platforms of a multi-platform image; all by default.
    #[arg(long = "platform", value_name = "PLATFORM", value_delimiter = ',')]
    platforms: Vec<Platform>,
    #[command(flatten)]
    reach: Reach,
}

/// Attaches.
///
/// # Errors
/// When a file is no review, nobody known signed it, or the registry refuses it.
pub(super) fn run(arguments: &Arguments, session: &Session) -> Result<Answer> {
    let reviews = read(arguments)?;
    let runtime = session.workspace().runtime()?;
    let registry =
        Registry::new(arguments.reach.registries()?, session.workspace(), runtime.handle().clone());
    let mut attached = Vec::new();
    for image in registry.images(&arguments.reference, &arguments.platforms)? {
        let manifest = registry.describe(&image)?;
        let known: Vec<Digest> =
            registry.attachments(&image)?.iter().map(|found| Digest::of(&found.bytes)).collect();
        let new: Vec<&HandedIn> = reviews.iter().filter(|it| !known.contains(&it.digest())).collect();
        if new.is_empty() {
            continue;
        }
        let bundles: Vec<&SignedBundle> = new.iter().map(|review| &review.bundle).collect();
        registry.attach(&image, &manifest, &bundles)?;
        attached.extend(new.iter().map(
            |review| json!({ "image": image.digest(), "review": review.digest(), "file": review.origin }),
        ));
    }
    let text = match attached.len() {
        0 => "all of them were attached already".to_owned(),
        count => format!("{} attached to {}", plural(count, "review"), arguments.reference),
    };
    session.result(&text, &json!({ "reference": arguments.reference, "attached": attached }))?;
    Ok(Answer::Yes)
}

fn read(arguments: &Arguments) -> Result<Vec<HandedIn>> {
    let keys = arguments.reviewer_keys.as_ref().map(|path| gate::read_keys(path, MAX_FILE)).transpose()?;
    let mut reviews: Vec<HandedIn> = Vec::new();
    for path in &arguments.reviews {
        let origin = path.display().to_string();
        let review =
            HandedIn::parse(&origin, &files::read(path, MAX_FILE)?, keys.as_deref().unwrap_or_default())?;
        if keys.is_some() && review.signed().is_none() {
            return Err(Error::new(
                Kind::Refused,
                format!("{origin} is signed by none of the reviewers' keys"),
            ));
        }
        if reviews.iter().all(|other| other.digest() != review.digest()) {
            reviews.push(review);
        }
    }
    Ok(reviews)
}
