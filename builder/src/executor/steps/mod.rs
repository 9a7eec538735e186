//! What a step does, one file for each kind.

pub(crate) mod add;
pub(crate) mod copy;
pub(crate) mod run;
