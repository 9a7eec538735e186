//! Runs an image only when a policy admits it, with one proxy as its only way out. See `docs/architecture.md`.
//!
//! The order of the modules, each importing only from those above it: `error`, `caller`, `egress`, `config`, `vantage6`, `engine`,
//! `record`, `node`, `service`, `commands`.

mod caller;
mod commands;
pub mod config;
pub mod egress;
mod engine;
mod error;
pub mod node;
pub mod record;
mod revocation;
pub mod service;
pub mod vantage6;

pub use commands::main;
pub use error::{Error, Kind, Result};
