//! What Go's linker writes into a program (Go's `debug/buildinfo`): its own version and the modules.

use super::elf::Program;
use super::{Purl, RecordError, Result, malformed};

const MAGIC: &[u8] = b"\xff Go buildinf:";
/// The section is aligned to this.
const ALIGN: usize = 16;
/// The length of what stands before the texts.
const HEAD: usize = 32;
/// The most bytes of the section, and of each text.
const LIMIT: u64 = 16 << 20;
/// What stands around the list of modules.
const MARK: usize = 16;

/// The standard library, the main module and those that it needs; nothing for a program that is none of Go's.
pub(super) fn read(program: &Program<'_>) -> Result<Vec<Purl>> {
    let Some(section) = program.section(".go.buildinfo", LIMIT)? else { return Ok(Vec::new()) };
    let info = section.chunks(ALIGN).position(|part| part.starts_with(MAGIC));
    let info = &section[info.map_or(section.len(), |at| at * ALIGN)..];
    let Some([width, flags]) = info.get(MAGIC.len()..ALIGN).and_then(|it| <[u8; 2]>::try_from(it).ok())
    else {
        return Ok(Vec::new());
    };
    let (version, modules) = match flags & 2 != 0 {
        true => inline(info)?,
        false => pointed(program, info, usize::from(width), flags & 1 != 0)?,
    };
    let list = match modules.len() {
        0 => &modules[..],
        length => modules.get(MARK..length.saturating_sub(MARK)).unwrap_or_default(),
    };
    Ok(packages(&String::from_utf8_lossy(&version), &String::from_utf8_lossy(list)))
}

/// The two texts where they follow the head, each after its length.
fn inline(info: &[u8]) -> Result<(Vec<u8>, Vec<u8>)> {
    let text = |at: usize| {
        let rest = info.get(at..)?;
        let (length, taken) = varint(rest)?;
        let text = rest.get(taken..taken.checked_add(usize::try_from(length).ok()?)?)?;
        Some((text.to_vec(), at + taken + text.len()))
    };
    let texts = text(HEAD).and_then(|(version, next)| Some((version, text(next)?.0)));
    texts.ok_or(RecordError::Malformed("Go's list of modules is cut off"))
}

/// The two texts as Go before 1.18 kept them: by the addresses of two strings.
fn pointed(program: &Program<'_>, info: &[u8], width: usize, is_big: bool) -> Result<(Vec<u8>, Vec<u8>)> {
    if !matches!(width, 4 | 8) {
        return malformed("Go's list of modules is in an unknown form");
    }
    let number = |bytes: &[u8]| {
        let add = |sum: u64, byte: &u8| sum << 8 | u64::from(*byte);
        if is_big { bytes.iter().fold(0, add) } else { bytes.iter().rev().fold(0, add) }
    };
    let text = |at: usize| {
        let pointer =
            info.get(at..at + width).ok_or(RecordError::Malformed("Go's list of modules is cut off"))?;
        let string = program.memory(number(pointer), 2 * width)?;
        let (address, length) = (number(&string[..width]), number(&string[width..]));
        match length {
            0 => Ok(Vec::new()),
            _ if length > LIMIT => malformed("Go's list of modules is too large"),
            _ => program.memory(address, length as usize),
        }
    };
    Ok((text(ALIGN)?, text(ALIGN + width)?))
}

/// A number of seven bits a byte, the lowest first, and how many bytes there are.
fn varint(bytes: &[u8]) -> Option<(u64, usize)> {
    let mut number = 0_u64;
    for (at, byte) in bytes.iter().take(9).enumerate() {
        number |= u64::from(byte & 0x7f) << (7 * at);
        if byte & 0x80 == 0 {
            return Some((number, at + 1));
        }
    }
    None
}

fn packages(version: &str, list: &str) -> Vec<Purl> {
    let own = version.trim_start_matches("go").split(' ').next().unwrap_or_default();
    let mut packages = vec![Purl::new("golang", "stdlib", own)];
    for line in list.lines() {
        let parts: Vec<&str> = line.split('\t').collect();
        let (kind, path, version) = match parts[..] {
            [kind, path, version, ..] => (kind, path, version),
            _ => continue,
        };
        match kind {
            // What is built from its own sources has no version.
            "mod" if version == "(devel)" => packages.push(module(path, "")),
            "mod" | "dep" => packages.push(module(path, version)),
            // It stands in for the one before, unless it is a folder.
            "=>" if packages.len() > 1 && !path.starts_with(['.', '/']) => {
                packages.pop();
                packages.push(module(path, version));
            }
            _ => {}
        }
    }
    packages
}

fn module(path: &str, version: &str) -> Purl {
    let (namespace, name) = path.rsplit_once('/').unwrap_or(("", path));
    Purl::new("golang", name, version).within(namespace)
}
