//! The crate from outside, as one program: linking each file by itself took longer than the tests.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic, reason = "tests")]

mod common;
mod decide;
mod decide_age;
mod decide_bases;
mod decide_independence;
mod decide_materials;
mod decide_memory;
mod decide_parameters;
mod decide_reviews;
mod federation;
mod foreign_forms;
mod policy;
mod privileges;
mod properties;
mod sigstore;
mod sigstore_world;
