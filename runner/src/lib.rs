//! Runs an image only when a policy admits it, with one proxy as its only way out. See `docs/architecture.md`.

pub mod api;
pub mod cli;
pub mod config;
pub mod egress;
pub mod engine;
pub mod error;
pub mod node;
pub mod queue;
pub mod task;
