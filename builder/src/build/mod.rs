//! The build: the plan of a Dockerfile, and its execution step by step over overlays.

mod add;
mod ahead;
pub mod bases;
pub mod cli;
mod command;
pub mod config;
pub mod copy;
mod course;
pub mod emulation;
pub mod environment;
pub mod execute;
pub mod export;
mod failures;
mod foretold;
mod graph;
mod leak;
pub mod limits;
mod mounts;
pub mod order;
mod output;
mod packing;
pub mod plan;
pub mod platform;
mod push;
pub mod registries;
pub mod registry;
mod report;
pub mod reviews;
mod root;
mod scratch;
mod stage;
pub mod stages;
pub mod step;
pub mod trust;

pub use add::GitTaken;
pub use foretold::Foretold;
