//! The mapping between names and addresses of the block.
//!
//! Every name gets one address, the same in every step of a build, so that the address a program connects to
//! identifies the name.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

use sha2::{Digest as _, Sha256};

use crate::block::Block;
use crate::host_name::HostName;

/// The most names of a build. Real builds need a few dozen; the limit bounds the memory that a RUN can use here.
const MAX_NAMES: usize = 4096;

/// Addresses at the start of the block that no name gets: the network's, and those of the namespace itself.
const RESERVED: u32 = 256;

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

    /// The address of a name, assigned at its first query.
    ///
    /// It depends on the name alone (except for collisions), so that an address that ends up in an image does not
    /// depend on the order of queries.
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

    /// The name that has this address, if any.
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
