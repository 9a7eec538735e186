//! From a reviewed commit to a signed image: git source, Dockerfile, build, network capture, review, provenance and
//! rebuild. See docs/architecture.md.

pub mod build;
pub mod capture;
pub mod cli;
pub mod dockerfile;
pub mod error;
pub mod explain;
pub mod keys;
pub mod lock;
pub mod materials;
pub mod packages;
pub mod progress;
pub mod project;
pub mod provenance;
pub mod rebuild;
pub mod review;
pub mod secrets;
pub mod source;
