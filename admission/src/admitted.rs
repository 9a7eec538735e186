//! The image that was admitted, as a type: whoever holds one has pulled exactly what the proof is about.

use attestations::Admitted;
use errors::{Error, Kind, Result};
use images::{Image, Store};

/// An admitted image at hand: its proof, its manifest, and the store that holds its layers. Only [`crate::Admission::fetch`]
/// makes one, from the proof itself.
///
/// ```compile_fail,E0451
/// fn forge(it: admission::AdmittedImage, image: images::Image) -> admission::AdmittedImage {
///     admission::AdmittedImage { image, ..it }
/// }
/// ```
#[derive(Debug, Clone)]
pub struct AdmittedImage {
    admitted: Admitted,
    image: Image,
    store: Store,
}

impl AdmittedImage {
    /// `image` was taken from `store` by the digest of the proof. The manifest names its config by digest; what the counted
    /// builders said of the config is held against that here.
    pub(crate) fn new(admitted: &Admitted, image: Image, store: &Store) -> Result<Self> {
        let wanted = (admitted.pinned().digest(), admitted.config_digest());
        let found = (&image.digest(), &image.config_descriptor().digest);
        if wanted != found {
            return Err(Error::new(
                Kind::Refused,
                format!(
                    "the image at hand is not the admitted one: {} with config {} was admitted, {} with {} is here",
                    wanted.0, wanted.1, found.0, found.1
                ),
            ));
        }
        Ok(Self { admitted: admitted.clone(), image, store: store.clone() })
    }

    /// The proof that it may run.
    pub fn admitted(&self) -> &Admitted {
        &self.admitted
    }

    /// The image.
    pub fn image(&self) -> &Image {
        &self.image
    }

    /// The store that holds its config and layers.
    pub fn store(&self) -> &Store {
        &self.store
    }
}
