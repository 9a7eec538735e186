//! Headers of RPM's database (rpm's `docs/manual/hregions.md`): an index of tags, and their values.

use super::{Purl, RecordError, Result, malformed};

const NAME: u32 = 1000;
const VERSION: u32 = 1001;
const RELEASE: u32 = 1002;
const EPOCH: u32 = 1003;
const ARCH: u32 = 1022;

/// The packages of these headers. Keys that RPM keeps as packages are none.
pub(super) fn read(headers: &[Vec<u8>]) -> Result<Vec<Purl>> {
    let packages = headers.iter().map(|header| package(header)).collect::<Result<Vec<_>>>()?;
    Ok(packages.into_iter().filter(|package| package.name != "gpg-pubkey").collect())
}

fn package(header: &[u8]) -> Result<Purl> {
    let parsed = Header::of(header).ok_or(RecordError::Malformed("a malformed header"))?;
    let text = |tag| parsed.text(tag).unwrap_or_default();
    let (name, version, release) = (text(NAME), text(VERSION), text(RELEASE));
    if name.is_empty() || version.is_empty() {
        return malformed("a package without name or version");
    }
    let epoch = parsed.number(EPOCH).map(|epoch| epoch.to_string()).unwrap_or_default();
    let purl = Purl::new("rpm", name, format!("{version}-{release}")).with("arch", text(ARCH));
    Ok(purl.with("epoch", epoch))
}

struct Header<'h> {
    index: &'h [u8],
    data: &'h [u8],
}

impl<'h> Header<'h> {
    fn of(bytes: &'h [u8]) -> Option<Self> {
        let count = usize::try_from(number(bytes, 0)?).ok()?;
        let length = usize::try_from(number(bytes, 4)?).ok()?;
        let rest = bytes.get(8..)?;
        let (index, data) = rest.split_at_checked(count.checked_mul(16)?)?;
        Some(Self { index, data: data.get(..length)? })
    }

    /// The offset of a tag's value of a type.
    fn offset(&self, tag: u32, kinds: &[u32]) -> Option<usize> {
        let entry = self.index.chunks_exact(16).find(|entry| number(entry, 0) == Some(tag))?;
        kinds.contains(&number(entry, 4)?).then_some(())?;
        usize::try_from(number(entry, 8)?).ok()
    }

    /// A string, or the first of an array of strings.
    fn text(&self, tag: u32) -> Option<&'h str> {
        let rest = self.data.get(self.offset(tag, &[6, 8, 9])?..)?;
        let end = rest.iter().position(|byte| *byte == 0)?;
        std::str::from_utf8(&rest[..end]).ok()
    }

    /// A number of 32 bits.
    fn number(&self, tag: u32) -> Option<u32> {
        number(self.data, self.offset(tag, &[4])?)
    }
}

fn number(bytes: &[u8], at: usize) -> Option<u32> {
    let bytes = bytes.get(at..at.checked_add(4)?)?;
    Some(u32::from_be_bytes(bytes.try_into().ok()?))
}
