//! What both programs do at their edge, in one copy: failures with their kind, exit code, causes and hint; how they are
//! printed; the main function; files that are read with a limit, written whole or not at all, or refused because others
//! may change them; text that is safe to show; logs.
//!
//! It imports no other crate of the workspace, so that each of them may import it.

pub mod chain;
mod error;
pub mod files;
pub mod logs;
pub mod output;
pub mod plural;
pub mod program;
pub mod report;
pub mod terminal;
pub mod trusted;

pub use error::{Error, Kind, Result};
pub use plural::plural;
pub use report::Form;
