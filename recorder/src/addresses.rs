//! The addresses that a build may fetch from: only those that are reachable by everybody on the Internet.
//!
//! The builder's network need not trust the authors of a Dockerfile: a name that points to an intranet or to a
//! cloud's metadata service must not give a step access there, least of all for a record that is published. The
//! tables are IANA's registries of special-purpose addresses, for IPv4 and for IPv6.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use crate::block::Block;

/// IPv4 networks that are not globally reachable.
const SPECIAL_V4: [(Ipv4Addr, u32); 17] = [
    (Ipv4Addr::new(0, 0, 0, 0), 8),
    (Ipv4Addr::new(10, 0, 0, 0), 8),
    (Ipv4Addr::new(100, 64, 0, 0), 10),
    (Ipv4Addr::new(127, 0, 0, 0), 8),
    (Ipv4Addr::new(169, 254, 0, 0), 16),
    (Ipv4Addr::new(172, 16, 0, 0), 12),
    (Ipv4Addr::new(192, 0, 0, 0), 24),
    (Ipv4Addr::new(192, 0, 2, 0), 24),
    // Deprecated 6to4 relays, behind which anything may answer.
    (Ipv4Addr::new(192, 88, 99, 0), 24),
    (Ipv4Addr::new(192, 168, 0, 0), 16),
    (Ipv4Addr::new(198, 18, 0, 0), 15),
    (Ipv4Addr::new(198, 51, 100, 0), 24),
    (Ipv4Addr::new(203, 0, 113, 0), 24),
    (Ipv4Addr::new(224, 0, 0, 0), 4),
    (Ipv4Addr::new(240, 0, 0, 0), 4),
    // A cloud's metadata service outside all special-purpose networks.
    (Ipv4Addr::new(168, 63, 129, 16), 32),
    (Ipv4Addr::new(255, 255, 255, 255), 32),
];

/// Globally reachable addresses in one of them.
const GLOBAL_V4: [Ipv4Addr; 2] = [Ipv4Addr::new(192, 0, 0, 9), Ipv4Addr::new(192, 0, 0, 10)];

/// The IPv6 range for Internet hosts; the rest is local, reserved, or has another meaning.
const UNICAST: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);

/// Networks in it that are not globally reachable.
const SPECIAL_V6: [(Ipv6Addr, u32); 3] = [
    // Protocol assignments, including Teredo (2001::/32), whose other end is unknown.
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23),
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20),
];

/// Globally reachable networks in one of them.
const GLOBAL_V6: [(Ipv6Addr, u32); 7] = [
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 1), 128),
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 2), 128),
    (Ipv6Addr::new(0x2001, 1, 0, 0, 0, 0, 0, 3), 128),
    (Ipv6Addr::new(0x2001, 3, 0, 0, 0, 0, 0, 0), 32),
    (Ipv6Addr::new(0x2001, 4, 0x112, 0, 0, 0, 0, 0), 48),
    (Ipv6Addr::new(0x2001, 0x20, 0, 0, 0, 0, 0, 0), 28),
    (Ipv6Addr::new(0x2001, 0x30, 0, 0, 0, 0, 0, 0), 28),
];

/// IPv4 addresses behind a translator (RFC 6052). 64:ff9b:1::/48 is for translators of private networks.
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);
/// IPv6 networks behind an IPv4 address.
const SIX_TO_FOUR: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16);

/// Whether an address is on the public Internet. If it contains an IPv4 address, that decides.
pub(crate) fn is_global(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => is_global_v4(v4),
        IpAddr::V6(v6) if is_in(v6, NAT64) => is_global_v4(Ipv4Addr::from_bits(v6.to_bits() as u32)),
        IpAddr::V6(v6) if is_in(v6, SIX_TO_FOUR) => {
            is_global_v4(Ipv4Addr::from_bits((v6.to_bits() >> 80) as u32))
        }
        IpAddr::V6(v6) => {
            let is_special = || SPECIAL_V6.iter().any(|network| is_in(v6, *network));
            let is_excepted = || GLOBAL_V6.iter().any(|network| is_in(v6, *network));
            is_in(v6, UNICAST) && (!is_special() || is_excepted())
        }
    }
}

/// Whether an address can be permitted at all: not a link-local one, where clouds give a machine its credentials, not
/// one that no host can have, and not one of the recorder's own.
pub(crate) fn can_be_permitted(address: IpAddr) -> bool {
    match address.to_canonical() {
        IpAddr::V4(v4) => {
            let is_barred = v4.is_link_local()
                || v4.is_multicast()
                || v4.octets()[0] == 0
                || v4.octets()[0] >= 240
                || Block::CAPTURE.contains(v4);
            !is_barred
        }
        IpAddr::V6(v6) => {
            let embedded = match (is_in(v6, NAT64), is_in(v6, SIX_TO_FOUR)) {
                (true, _) => Some(v6.to_bits() as u32),
                (_, true) => Some((v6.to_bits() >> 80) as u32),
                _ => None,
            };
            let is_barred = v6.is_unspecified() || v6.is_multicast() || v6.is_unicast_link_local();
            !is_barred && embedded.is_none_or(|v4| can_be_permitted(Ipv4Addr::from_bits(v4).into()))
        }
    }
}

fn is_global_v4(address: Ipv4Addr) -> bool {
    let is_special = SPECIAL_V4
        .iter()
        .any(|(network, length)| (address.to_bits() ^ network.to_bits()).leading_zeros() >= *length);
    !is_special || GLOBAL_V4.contains(&address)
}

fn is_in(address: Ipv6Addr, (network, length): (Ipv6Addr, u32)) -> bool {
    (address.to_bits() ^ network.to_bits()).leading_zeros() >= length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_addresses_of_the_internet_are_global() {
        let table = [
            (
                false,
                "0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.255 127.0.0.1 127.9.9.9 169.254.169.254",
            ),
            (false, "172.16.0.1 172.31.255.255 192.0.0.1 192.0.0.170 192.0.2.1 192.88.99.1 192.168.1.1"),
            (false, "198.18.0.1 198.19.255.255 198.51.100.1 203.0.113.1 224.0.0.1 239.1.1.1 240.0.0.1"),
            (false, "255.255.255.255 168.63.129.16"),
            (true, "1.1.1.1 93.184.216.34 100.63.255.255 100.128.0.1 172.15.255.255 172.32.0.1 192.0.0.9"),
            (true, "192.0.0.10 192.0.1.1 192.167.1.1 198.17.255.255 198.20.0.1 223.255.255.255 126.1.1.1"),
            (
                false,
                ":: ::1 ::10.0.0.1 ::8.8.8.8 100::1 fc00::1 fd00:ec2::254 fe80::1 fec0::1 ff02::1 5f00::1",
            ),
            (false, "2001::1 2001:0:4136:e378:8000:63bf:3fff:fdd2 2001:2::1 2001:10::1 2001:db8::1 3fff::1"),
            (false, "4000::1 64:ff9b:1::808:808 64:ff9b:0:1::808:808"),
            // Mapped, translated and tunnelled.
            (
                false,
                "::ffff:127.0.0.1 ::ffff:10.0.0.1 64:ff9b::10.0.0.1 64:ff9b::169.254.169.254 64:ff9b::127.0.0.1",
            ),
            (false, "2002:a00:1::1 2002:7f00:1::1 2002:a9fe:a9fe::1 2002:c0a8:101::1"),
            (true, "::ffff:8.8.8.8 64:ff9b::8.8.8.8 2002:808:808::1"),
            (
                true,
                "2606:4700::1111 2a00:1450:4001::200e 2001:4860:4860::8888 2001:1::1 2001:3::1 2001:20::1 2001:30::1",
            ),
        ];
        for (is, addresses) in table {
            for text in addresses.split(' ') {
                assert_eq!(is_global(text.parse().unwrap()), is, "{text}");
            }
        }
    }

    #[test]
    fn what_is_permitted_is_a_host_of_ones_own_network() {
        for text in ["10.0.0.1", "192.168.1.1", "127.0.0.1", "fd00::1", "::1", "64:ff9b::10.0.0.1"] {
            assert!(can_be_permitted(text.parse().unwrap()), "{text}");
        }
        for text in [
            "169.254.169.254",
            "fe80::1",
            "::ffff:169.254.169.254",
            "64:ff9b::169.254.169.254",
            "198.18.0.1",
            "::",
            "0.0.0.0",
        ] {
            assert!(!can_be_permitted(text.parse().unwrap()), "{text}");
        }
    }
}
