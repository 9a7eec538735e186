//! A log in a folder. Bundles and tiles are files that grow at their end: the partial form of the specification is a prefix
//! of each, and [`Reader::export`] writes it out. What counts is what the checkpoint covers; it is replaced last, when all
//! that it covers is on the disk.

mod append;
mod check;
mod export;
mod read;

pub use append::{Appended, Log};
pub use check::Checked;
pub use read::Reader;
