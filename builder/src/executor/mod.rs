//! Executes the steps of a stage. Each makes one canonical layer over the layers below it.
//!
//! The order of stages is up to `scheduler`, and early execution to `speculation`.

pub(crate) mod compression;
pub(crate) mod emulation;
pub(crate) mod environment;
pub(crate) mod failures;
pub(crate) mod leak;
pub(crate) mod limits;
pub(crate) mod mounts;
pub(crate) mod output;
pub(crate) mod scratch;
pub(crate) mod stage;
pub(crate) mod stage_files;
pub(crate) mod stages;
pub(crate) mod steps;
pub(crate) mod survey;
pub(crate) mod trust;
