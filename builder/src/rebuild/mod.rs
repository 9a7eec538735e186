//! Repeats a build from its provenance, and compares the images.

pub(crate) mod evidence;
pub(crate) mod finding;
pub(crate) mod inputs;
