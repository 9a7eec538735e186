//! The builder: from a reviewed commit to a signed image. Git source, Dockerfile, build, recorded network, review,
//! provenance and rebuild. The library's one public function is the program itself; see docs/architecture.md for the
//! modules.

mod bases;
mod commands;
mod confirm;
mod dockerfile;
mod error;
mod executor;
mod explain;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod lock;
mod lookup;
mod packages;
mod parameters;
mod pipeline;
mod plan;
mod progress;
mod project;
mod provenance;
mod publish;
mod rebuild;
mod registry;
mod review;
mod scheduler;
mod secrets;
mod source;
mod speculation;
mod workspace;

pub use commands::main;
