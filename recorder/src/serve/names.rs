//! Which name an address of the capture block stands for.
//!
//! Every name asked for gets one address, the same one in every step of a build, so that the address a program
//! connects to says which name it meant.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::fmt;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

/// Names a build may ask for. Real builds need a few dozen; the bound keeps a RUN from growing our memory.
const MAX_NAMES: usize = 4096;

/// Longest name in its textual form (RFC 1035, section 2.3.4).
const MAX_NAME: usize = 253;

/// Longest label (RFC 1035, section 2.3.4).
const MAX_LABEL: usize = 63;

/// The addresses at the start of the block that no name gets: the network, and what the namespace itself carries.
const RESERVED: u32 = 256;

/// A lower-case host name that is neither an IP address in any spelling nor a name of this machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) struct HostName(String);

impl HostName {
    /// Checks a host name as it stands in a Host header, in SNI or in a DNS question.
    ///
    /// One trailing dot is accepted and dropped. Underscores are accepted, as real names have them.
    pub(crate) fn parse(text: &str) -> Result<HostName, BadName> {
        let name = text.strip_suffix('.').unwrap_or(text);
        if name.is_empty() || name.len() > MAX_NAME {
            return Err(BadName::Malformed);
        }
        if is_address(name) {
            return Err(BadName::Address);
        }
        let name = name.to_ascii_lowercase();
        if !name.split('.').all(is_label) {
            return Err(BadName::Malformed);
        }
        if name == "localhost" || name.ends_with(".localhost") {
            return Err(BadName::Local);
        }
        Ok(HostName(name))
    }

    /// The name in lower case without a trailing dot.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for HostName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// Why a text is not a name that can be captured.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum BadName {
    /// An IP address in one of its spellings: nothing says which host it means.
    #[error("is an IP address, not a name")]
    Address,
    /// A name of this machine.
    #[error("means this machine itself")]
    Local,
    /// Not a host name.
    #[error("is not a host name")]
    Malformed,
}

/// True for every spelling that a URL parser would read as an address: WHATWG reads any name whose last label is a
/// number (decimal, octal or hexadecimal) as IPv4.
fn is_address(name: &str) -> bool {
    if name.contains(':') || name.starts_with('[') {
        return true;
    }
    let last = name.rsplit('.').next().unwrap_or(name);
    let digits = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
    match digits {
        Some(hex) => hex.bytes().all(|b| b.is_ascii_hexdigit()),
        None => !last.is_empty() && last.bytes().all(|b| b.is_ascii_digit()),
    }
}

fn is_label(label: &str) -> bool {
    !label.is_empty()
        && label.len() <= MAX_LABEL
        && label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'_')
}

/// A block of addresses that the kernel treats as local inside the step's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    first: u32,
    size: u32,
}

impl Block {
    /// 198.18.0.0/15, set aside for benchmarks (RFC 2544), so that no real host has an address in it.
    pub(crate) const CAPTURE: Block = Block::new(Ipv4Addr::new(198, 18, 0, 0), 15);

    pub(crate) const fn new(network: Ipv4Addr, prefix: u32) -> Block {
        Block { first: network.to_bits(), size: 1 << (32 - prefix) }
    }

    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits().wrapping_sub(self.first) < self.size
    }
}

/// The table of names and their addresses, shared by all steps of one build.
pub(crate) struct NameTable {
    block: Block,
    table: Mutex<Table>,
}

#[derive(Default)]
struct Table {
    by_name: HashMap<HostName, Ipv4Addr>,
    by_address: HashMap<Ipv4Addr, HostName>,
}

/// More names were asked for than a build may have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the build asked for more than {MAX_NAMES} names")]
pub(crate) struct TooManyNames;

impl NameTable {
    pub(crate) fn new(block: Block) -> NameTable {
        NameTable { block, table: Mutex::default() }
    }

    /// The address of a name, given out at the first question.
    ///
    /// It follows from the name alone (but for collisions), so that an address that ends up in an image does not
    /// depend on the order of questions.
    pub(crate) fn address_of(&self, name: &HostName) -> Result<Ipv4Addr, TooManyNames> {
        let mut table = self.table();
        if let Some(address) = table.by_name.get(name) {
            return Ok(*address);
        }
        if table.by_name.len() >= MAX_NAMES {
            return Err(TooManyNames);
        }
        let room = self.block.size - RESERVED;
        let start = spread(name) % room;
        for step in 0..room {
            let offset = RESERVED + (start + step) % room;
            let address = Ipv4Addr::from_bits(self.block.first + offset);
            if let Entry::Vacant(free) = table.by_address.entry(address) {
                free.insert(name.clone());
                table.by_name.insert(name.clone(), address);
                return Ok(address);
            }
        }
        Err(TooManyNames)
    }

    /// The name that was answered with this address, if any was.
    pub(crate) fn name_of(&self, address: IpAddr) -> Option<HostName> {
        let address = match address {
            IpAddr::V4(v4) => v4,
            IpAddr::V6(v6) => v6.to_ipv4_mapped()?,
        };
        if !self.block.contains(address) {
            return None;
        }
        self.table().by_address.get(&address).cloned()
    }

    fn table(&self) -> MutexGuard<'_, Table> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn spread(name: &HostName) -> u32 {
    let hash = Sha256::digest(name.as_str().as_bytes());
    u32::from_be_bytes([hash[0], hash[1], hash[2], hash[3]])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_in_every_spelling_are_not_names() {
        for text in [
            "127.0.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0177.0.0.1",
            "169.254.169.254",
            "[::1]",
            "::1",
            "example.1",
            "1.",
            "a.0x",
        ] {
            assert_eq!(HostName::parse(text), Err(BadName::Address), "{text}");
        }
    }

    #[test]
    fn names_are_normalised_and_bounded() {
        assert_eq!(HostName::parse("EXAMPLE.org.").unwrap().as_str(), "example.org");
        assert!(HostName::parse("_x.1a.example").is_ok());
        for text in ["", ".", "..", "a..b", "a b", "a/b", "é.example", "a\0b", "user@host"] {
            assert_eq!(HostName::parse(text), Err(BadName::Malformed), "{text}");
        }
        assert_eq!(HostName::parse(&"a".repeat(64)), Err(BadName::Malformed));
        assert_eq!(HostName::parse(&"a.".repeat(130)), Err(BadName::Malformed));
        assert_eq!(HostName::parse("LocalHost"), Err(BadName::Local));
        assert_eq!(HostName::parse("x.localhost."), Err(BadName::Local));
    }

    #[test]
    fn a_name_keeps_its_address_whatever_the_order() {
        let names: Vec<_> = (0..40).map(|i| HostName::parse(&format!("n{i}.example")).unwrap()).collect();
        let (forth, back) = (NameTable::new(Block::CAPTURE), NameTable::new(Block::CAPTURE));
        for name in &names {
            forth.address_of(name).unwrap();
        }
        for name in names.iter().rev() {
            back.address_of(name).unwrap();
        }
        for name in &names {
            let address = forth.address_of(name).unwrap();
            assert!(Block::CAPTURE.contains(address));
            assert_eq!(back.address_of(name).unwrap(), address);
            assert_eq!(forth.name_of(IpAddr::V4(address)).as_ref(), Some(name));
        }
    }

    #[test]
    fn the_table_is_bounded_and_collisions_are_resolved() {
        let names = NameTable::new(Block::new(Ipv4Addr::new(10, 0, 0, 0), 19));
        let mut seen = std::collections::HashSet::new();
        for i in 0..MAX_NAMES {
            let name = HostName::parse(&format!("n{i}.example")).unwrap();
            assert!(seen.insert(names.address_of(&name).unwrap()), "given twice");
        }
        let one_more = HostName::parse("one-more.example").unwrap();
        assert_eq!(names.address_of(&one_more), Err(TooManyNames));
    }

    #[test]
    fn addresses_nobody_was_given_have_no_name() {
        let names = NameTable::new(Block::CAPTURE);
        assert_eq!(names.name_of("198.18.7.7".parse().unwrap()), None);
        assert_eq!(names.name_of("127.0.0.1".parse().unwrap()), None);
        assert_eq!(names.name_of("::1".parse().unwrap()), None);
    }
}
