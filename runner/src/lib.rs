//! See docs/architecture.md.

pub mod egress;
