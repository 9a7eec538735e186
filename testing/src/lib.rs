//! What the end-to-end tests stand on: the real programs, a real registry, a real git repository and a real base image.
//!
//! Everything is started on a free loopback port or in a temporary folder and ended with the value that stands for it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what a test stands on fails the test by panicking")]

mod base;
mod bench;
mod buildkit;
mod cosign;
mod elsewhere;
mod engine;
mod events;
pub mod files;
mod front;
mod git_server;
mod hostile;
mod place;
mod programs;
mod registry;
mod repository;
mod scene;
mod site;
mod skips;
mod terminal;
pub mod timing;

pub use base::{base_image, foreign_base, foreign_busybox, python_base};
pub use bench::Bench;
pub use buildkit::BuildKit;
pub use cosign::Cosign;
pub use elsewhere::{AHEAD, elsewhere};
pub use engine::Engine;
pub use events::{Events, has_one_processor};
pub use front::{Front, Manner};
pub use git_server::answer as git_answer;
pub use hostile::{Hostile, Listing};
pub use place::Place;
pub use programs::{Outcome, builder, built_tool, own_state, program, run, runner, tool};
pub use registry::{Registry, flip_a_byte};
pub use repository::Repository;
pub use scene::{Scene, unmet};
pub use site::{Said, Site, SiteRequest};
pub use skips::{can_run, cannot_run, has_programs, has_root, skip};
pub use terminal::{SIZE, Shown, on_terminal};

/// A processor that is not this machine's.
pub const FOREIGN: &str = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };

/// Whether this machine runs programs of [`FOREIGN`] through an emulator; records a skip when it does not.
#[track_caller]
pub fn has_emulator() -> bool {
    let entry = if FOREIGN == "arm64" { "qemu-aarch64" } else { "qemu-x86_64" };
    let has = std::path::Path::new("/proc/sys/fs/binfmt_misc").join(entry).exists();
    if !has {
        skip(&format!(
            "no emulator for {FOREIGN}; as root: apt-get install qemu-user-static binfmt-support && \
             update-binfmts --enable {entry}"
        ));
    }
    has
}
