//! The registry (OCI distribution-spec): images and what is attached to them, from and to a stranger's server.
//!
//! What has a digest may come from anybody, such as a mirror: it is held against the digest. What may pass by itself is
//! tried again, and a blob that broke off goes on where it stopped.
//!
//! From below to above: [`config`] (which hosts are reached how), `auth` (who is asking), `client` (requests, pull and
//! push), `attached` (what is attached to an image).

mod attached;
mod auth;
mod client;
pub mod config;
mod hosts;
mod response;
mod retry;

pub use attached::{Attachment, Budget, MAX_ATTACHMENTS};
pub use client::{Client, Named, Traffic};
pub use config::{Mirror, Mirrored, Registries, RegistryConfig};
