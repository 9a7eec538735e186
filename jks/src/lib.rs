//! Java's key store format `JKS`. Every version of Java reads it. It is documented only by the code of its readers,
//! and has not changed since 1998.
//!
//! Numbers are big-endian. Magic, version, count; for each certificate a 2, its alias, the time it was added in
//! milliseconds, its type, and its DER; then SHA-1 over the password, a fixed text and everything before.

#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;

use aws_lc_rs::digest::{Context, SHA1_FOR_LEGACY_USE_ONLY};

const MAGIC: u32 = 0xFEED_FEED;
const VERSION: u32 = 2;
const TRUSTED_CERTIFICATE: u32 = 2;
/// The usual password, which protects nothing.
const PASSWORD: &str = "changeit";
/// The text that is hashed between password and content.
const SALT: &[u8] = b"Mighty Aphrodite";
const DIGEST: usize = 20;

/// A list of trusted certificates.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyStore {
    /// In the order of the file.
    pub certificates: Vec<Trusted>,
}

/// A trusted certificate.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Trusted {
    /// Its alias.
    pub alias: Vec<u8>,
    /// When it was added, in milliseconds since 1970.
    pub added: u64,
    /// `X.509`.
    pub kind: Vec<u8>,
    /// The certificate.
    pub der: Vec<u8>,
}

impl KeyStore {
    /// Parses a key store with the usual password. None for anything else, such as one with private keys.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (content, digest) = bytes.split_at_checked(bytes.len().checked_sub(DIGEST)?)?;
        if digest_of(content).as_ref() != digest {
            return None;
        }
        let mut rest = content;
        if (number(&mut rest)?, number(&mut rest)?) != (MAGIC, VERSION) {
            return None;
        }
        let mut certificates = Vec::new();
        for _ in 0..number(&mut rest)? {
            if number(&mut rest)? != TRUSTED_CERTIFICATE {
                return None;
            }
            let alias = text(&mut rest)?;
            let added = u64::from_be_bytes(take(&mut rest, 8)?.try_into().ok()?);
            let kind = text(&mut rest)?;
            let length = number(&mut rest)? as usize;
            let der = take(&mut rest, length)?.to_vec();
            certificates.push(Trusted { alias, added, kind, der });
        }
        rest.is_empty().then_some(Self { certificates })
    }

    /// Its bytes, with the usual password. None if it exceeds the format's limits.
    pub fn to_bytes(&self) -> Option<Vec<u8>> {
        let mut out = Vec::new();
        for number in [MAGIC, VERSION, u32::try_from(self.certificates.len()).ok()?] {
            out.extend(number.to_be_bytes());
        }
        for one in &self.certificates {
            out.extend(TRUSTED_CERTIFICATE.to_be_bytes());
            out.extend(u16::try_from(one.alias.len()).ok()?.to_be_bytes());
            out.extend(&one.alias);
            out.extend(one.added.to_be_bytes());
            out.extend(u16::try_from(one.kind.len()).ok()?.to_be_bytes());
            out.extend(&one.kind);
            out.extend(u32::try_from(one.der.len()).ok()?.to_be_bytes());
            out.extend(&one.der);
        }
        let digest = digest_of(&out);
        out.extend(digest.as_ref());
        Some(out)
    }
}

fn digest_of(content: &[u8]) -> aws_lc_rs::digest::Digest {
    let mut hash = Context::new(&SHA1_FOR_LEGACY_USE_ONLY);
    PASSWORD.encode_utf16().for_each(|unit| hash.update(&unit.to_be_bytes()));
    hash.update(SALT);
    hash.update(content);
    hash.finish()
}

fn take<'a>(rest: &mut &'a [u8], length: usize) -> Option<&'a [u8]> {
    let (taken, left) = rest.split_at_checked(length)?;
    *rest = left;
    Some(taken)
}

fn number(rest: &mut &[u8]) -> Option<u32> {
    Some(u32::from_be_bytes(take(rest, 4)?.try_into().ok()?))
}

fn text(rest: &mut &[u8]) -> Option<Vec<u8>> {
    let length = u16::from_be_bytes(take(rest, 2)?.try_into().ok()?);
    Some(take(rest, usize::from(length))?.to_vec())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(alias: &str, added: u64) -> Trusted {
        Trusted { alias: alias.into(), added, kind: b"X.509".to_vec(), der: vec![0x30, 3, 1, 2, 3] }
    }

    #[test]
    fn a_list_comes_back_as_it_was_and_a_changed_one_is_none() {
        let list = KeyStore { certificates: vec![one("b", 7), one("a", 8)] };
        let bytes = list.to_bytes().unwrap();
        assert_eq!(KeyStore::parse(&bytes), Some(list));
        for at in 0..bytes.len() {
            let mut changed = bytes.clone();
            changed[at] ^= 1;
            assert_eq!(KeyStore::parse(&changed), None, "byte {at}");
            assert_eq!(KeyStore::parse(&bytes[..at]), None);
        }
    }
}
