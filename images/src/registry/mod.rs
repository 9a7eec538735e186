//! Registries (OCI distribution-spec): images and their attachments, from and to untrusted servers.
//!
//! Content with a known digest may come from any server, such as a mirror: it is verified against the digest.
//! Temporary failures are retried, and an interrupted blob is resumed.
//!
//! From low to high level: [`config`] (how hosts are reached), `auth` (authentication), `client` (requests, pull and
//! push), `attached` (attachments of an image).

mod attached;
mod auth;
mod client;
pub mod config;
mod hosts;
mod response;
mod retry;

pub use attached::{
    Attached, Attachment, Budget, Carried, Copied, Gone, Listed, MAX_BUNDLES, MAX_LISTED, Passed, Statement,
    ToCarry, Unused,
};
pub use client::{Client, Named, Traffic};
pub use config::{Mirror, Mirrored, Registries, RegistryConfig};
