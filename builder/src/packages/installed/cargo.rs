//! What `cargo auditable` writes into a program: the crates that it is made of, as JSON, compressed.

use libdeflater::{DecompressionError, Decompressor};
use serde::Deserialize;

use super::elf::Program;
use super::{Purl, RecordError, Result};

/// The most bytes of the section.
const LIMIT: u64 = 8 << 20;
/// The most bytes of the list.
const MAX_LIST: usize = 64 << 20;

#[derive(Deserialize)]
struct List {
    packages: Vec<Crate>,
}

#[derive(Deserialize)]
struct Crate {
    name: String,
    version: String,
    #[serde(default)]
    kind: Kind,
}

#[derive(Deserialize, Default, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Kind {
    /// A part of the program.
    #[default]
    Runtime,
    /// What only ran while it was built.
    Build,
}

/// The crates in a program; none where it does not tell.
pub(super) fn read(program: &Program<'_>) -> Result<Vec<Purl>> {
    let Some(section) = program.section(".dep-v0", LIMIT)? else { return Ok(Vec::new()) };
    let list: List = serde_json::from_slice(&inflated(&section)?)
        .map_err(|_| RecordError::Malformed("cargo's list of crates is malformed"))?;
    let in_it = list.packages.into_iter().filter(|one| one.kind == Kind::Runtime);
    Ok(in_it.map(|one| Purl::new("cargo", one.name, one.version)).collect())
}

fn inflated(section: &[u8]) -> Result<Vec<u8>> {
    let mut list = vec![0; 1 << 20];
    loop {
        match Decompressor::new().zlib_decompress(section, &mut list) {
            Ok(length) => {
                list.truncate(length);
                return Ok(list);
            }
            Err(DecompressionError::InsufficientSpace) if list.len() < MAX_LIST => {
                list.resize(2 * list.len(), 0);
            }
            Err(_) => return Err(RecordError::Malformed("cargo's list of crates cannot be unpacked")),
        }
    }
}
