//! One process tree, one root, one planted socket.
//!
//! A [`Host`] prepares three things and puts them together: a [`Network`] namespace that holds nothing but loopback and
//! the listeners planted in it, an [`Overlay`] as the root directory, and a [`Process`] which an OCI runtime (`runc`)
//! starts in both. Everything a host makes lies in one directory under its state directory, held by a lock; what a
//! killed program left behind is cleared by the next [`Host::open`]. See `docs/sandbox.md`.
//!
//! Deliberately absent: bridges, addresses and routes that lead outside, rootless operation, interactive terminals.

mod cgroup;
mod config;
#[rustfmt::skip] // tables of names, packed
mod defaults;
mod directory;
mod error;
mod filter;
pub mod gate;
mod host;
mod memory;
mod mounts;
mod network;
mod overlay;
mod owned;
mod process;
mod run;
mod runtime;
mod user;

pub use error::Error;
pub use host::Host;
pub use memory::Memory;
pub use mounts::remove_tree;
pub use network::{Attempt, Inside, Network, Ran, Watch};
pub use overlay::{MountPoint, Overlay, Upper};
pub use process::{Canceller, Exit, Mount, Process, ProcessLimits, Profile, Stream, Tmpfs};
pub use user::{User, read_user_table, resolve_user, resolve_user_in};

/// What every fallible call of this crate answers.
pub type Result<T> = std::result::Result<T, Error>;
