//! The kinds of steps, one file each.

pub(crate) mod add;
pub(crate) mod copy;
pub(crate) mod run;
