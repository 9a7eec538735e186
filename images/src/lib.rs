//! OCI content: a store by digest, canonical layers, unpacking, comparison, and the registry.
//!
//! Knows neither git nor Dockerfiles nor policies.

mod blob;
mod cache;
pub mod compare;
pub mod descriptor;
mod error;
pub mod export;
mod files;
mod hashing;
pub mod image;
pub mod index;
pub mod jks;
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
