//! What the end-to-end tests stand on: the real programs, a real registry, a real git repository and a real base image.
//!
//! Everything is started on a free loopback port or in a temporary folder and ended with the value that stands for it.

#![allow(clippy::unwrap_used, clippy::panic, reason = "what a test stands on fails the test by panicking")]

mod base;
mod bench;
mod buildkit;
mod elsewhere;
mod engine;
mod events;
pub mod files;
mod git_server;
mod hostile;
mod place;
mod programs;
mod registry;
mod repository;
mod scene;
mod site;
mod terminal;
pub mod timing;

pub use base::{base_image, foreign_base, foreign_busybox, python_base};
pub use bench::Bench;
pub use buildkit::BuildKit;
pub use elsewhere::{AHEAD, elsewhere};
pub use engine::Engine;
pub use events::{Events, has_one_processor};
pub use hostile::{Hostile, Listing};
pub use place::Place;
pub use programs::{Outcome, builder, program, run, runner};
pub use registry::{Registry, flip_a_byte};
pub use repository::Repository;
pub use scene::{Scene, unmet};
pub use site::{Asked, Said, Site};
pub use terminal::{SIZE, Shown, on_terminal};

/// A processor that is not this machine's.
pub const FOREIGN: &str = if cfg!(target_arch = "aarch64") { "amd64" } else { "arm64" };

/// Whether this machine runs programs of [`FOREIGN`] through an emulator; says so loudly when it does not.
pub fn has_emulator() -> bool {
    let entry = if FOREIGN == "arm64" { "qemu-aarch64" } else { "qemu-x86_64" };
    let has = std::path::Path::new("/proc/sys/fs/binfmt_misc").join(entry).exists();
    if !has {
        eprintln!(
            "\n*** SKIP: no emulator for {FOREIGN} is registered here; as root: apt-get install qemu-user-static binfmt-support && update-binfmts --enable {entry} ***\n"
        );
    }
    has
}

/// Why a test that needs root or a program of the machine cannot run here; `None` when it can.
///
/// A skip is said loudly: the closing lines of a run without root must not read like a run that proved everything.
pub fn cannot_run(programs: &[&str]) -> Option<String> {
    if !is_root() {
        return Some("needs root (mounts, namespaces)".to_owned());
    }
    let missing: Vec<_> = programs.iter().filter(|program| !on_path(program)).copied().collect();
    (!missing.is_empty()).then(|| format!("needs {}; `make test` installs it", missing.join(", ")))
}

/// Ends the calling test with a loud line when it cannot run on this machine.
#[macro_export]
macro_rules! need {
    ($($program:literal),* $(,)?) => {
        if let Some(reason) = $crate::cannot_run(&[$($program),*]) {
            eprintln!("\n*** SKIP {}: {reason} ***\n", module_path!());
            return;
        }
    };
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    status.lines().any(|line| line.starts_with("Uid:") && line.split_whitespace().nth(2) == Some("0"))
}

fn on_path(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .chain([std::path::PathBuf::from("/usr/sbin")])
        .any(|folder| folder.join(program).exists())
}
