//! OCI images: a content-addressed store, canonical layers, unpacking, comparison, and registries.
//!
//! Independent of git, Dockerfiles and policies.

pub mod archive;
mod blob;
mod cache;
pub mod compare;
pub mod descriptor;
mod error;
pub mod export;
mod files;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod hashing;
pub mod image;
pub mod index;
pub mod layer;
mod platform;
pub mod registry;
pub mod store;
mod streaming;

pub use cache::LayerCache;
pub use descriptor::Descriptor;
pub use error::{Error, RegistryFailure, Result};
pub use image::{Config, Image, Manifest};
pub use index::Index;
pub use platform::Platform;
pub use store::Store;
