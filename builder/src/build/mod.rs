//! The build: the plan of a Dockerfile, and its execution step by step over overlays.

pub mod cli;
pub mod config;
pub mod copy;
pub mod environment;
pub mod plan;
pub mod platform;
pub mod reviews;
pub mod trust;
