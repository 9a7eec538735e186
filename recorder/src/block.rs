//! The block of addresses for names inside a step's network.

use std::net::Ipv4Addr;

/// A block of addresses that are local inside the step's network namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Block {
    pub(crate) first: u32,
    pub(crate) size: u32,
}

impl Block {
    /// 198.18.0.0/15, reserved for benchmarks (RFC 2544), so that it has no real hosts.
    pub(crate) const CAPTURE: Block = Block::new(Ipv4Addr::new(198, 18, 0, 0), 15);

    pub(crate) const fn new(network: Ipv4Addr, prefix: u32) -> Block {
        Block { first: network.to_bits(), size: 1 << (32 - prefix) }
    }

    pub(crate) fn contains(self, address: Ipv4Addr) -> bool {
        address.to_bits().wrapping_sub(self.first) < self.size
    }
}
