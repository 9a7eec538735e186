//! Repeating a build from its provenance, and comparing images.

pub(crate) mod evidence;
pub(crate) mod finding;
pub(crate) mod inputs;
