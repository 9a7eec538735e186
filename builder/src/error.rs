//! What the program tells the person who called it when it cannot go on: see [`answers`].

pub use answers::{Error, Kind, Result};
