//! Seeing what is tried in a namespace: the first packet of every connection and every datagram (packet(7)).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{AddressFamily, Protocol, RecvFlags, SocketFlags, SocketType, recv, socket_with};

/// Something that was tried.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Attempt {
    /// Over TCP; else it was UDP.
    pub is_tcp: bool,
    /// Whereto.
    pub to: SocketAddr,
}

/// Sees what processes of a namespace try. It is there before any of them, and never in their way.
#[derive(Debug)]
pub struct Watch {
    socket: OwnedFd,
}

impl Watch {
    /// Watches the namespace of the calling thread.
    pub(super) fn here() -> io::Result<Watch> {
        let every = Protocol::from_raw(everything());
        let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
        let socket = socket_with(AddressFamily::PACKET, SocketType::DGRAM, flags, Some(every))?;
        attach(&socket, &FILTER)?;
        Ok(Watch { socket })
    }

    /// The next attempt, or none for now. The same one may come more than once.
    ///
    /// # Errors
    /// When the kernel refuses to tell.
    pub fn next(&self) -> io::Result<Option<Attempt>> {
        let mut head = [0; 128];
        loop {
            let length = match recv(&self.socket, &mut head[..], RecvFlags::empty()) {
                Ok((_, length)) => length.min(head.len()),
                Err(Errno::AGAIN) => return Ok(None),
                Err(Errno::INTR) => continue,
                Err(cause) => return Err(cause.into()),
            };
            if let Some(attempt) = parse(&head[..length]) {
                return Ok(Some(attempt));
            }
        }
    }
}

/// `ETH_P_ALL` in network order.
const fn everything() -> std::num::NonZeroU32 {
    match std::num::NonZeroU32::new((libc::ETH_P_ALL as u16).to_be() as u32) {
        Some(number) => number,
        None => std::num::NonZeroU32::MIN,
    }
}

const TCP: u8 = 6;
const UDP: u8 = 17;

/// What a packet tries, if it begins something.
fn parse(packet: &[u8]) -> Option<Attempt> {
    let (to, protocol, rest): (IpAddr, u8, &[u8]) = match packet.first()? >> 4 {
        4 => {
            let length = usize::from(packet[0] & 15) * 4;
            let to: [u8; 4] = packet.get(16..20)?.try_into().ok()?;
            (Ipv4Addr::from(to).into(), *packet.get(9)?, packet.get(length..)?)
        }
        6 => {
            let to: [u8; 16] = packet.get(24..40)?.try_into().ok()?;
            (Ipv6Addr::from(to).into(), *packet.get(6)?, packet.get(40..)?)
        }
        _ => return None,
    };
    let port = u16::from_be_bytes(rest.get(2..4)?.try_into().ok()?);
    let is_tcp = match protocol {
        TCP => true,
        UDP => false,
        _ => return None,
    };
    Some(Attempt { is_tcp, to: SocketAddr::new(to, port) })
}

/// Lets through UDP, and of TCP only what opens a connection: SYN without ACK. Everything else, which is nearly all there
/// is, never leaves the kernel. Offsets are from the IP header. IPv6 with extension headers is not seen.
const FILTER: [libc::sock_filter; 19] = [
    op(LOAD_BYTE, 0, 0, 0),
    op(SHIFT_RIGHT, 0, 0, 4),
    op(EQUAL, 1, 0, 4),  // IPv4: on with 4
    op(EQUAL, 7, 14, 6), // IPv6: on with 11; else no
    op(LOAD_BYTE, 0, 0, 9),
    op(EQUAL, 11, 0, UDP as u32),
    op(EQUAL, 0, 11, TCP as u32),
    op(LOAD_HEADER_LENGTH, 0, 0, 0),
    op(LOAD_BYTE_AT_X, 0, 0, 13),
    op(AND, 0, 0, 0x12),
    op(EQUAL, 6, 7, 0x02),
    op(LOAD_BYTE, 0, 0, 6),
    op(EQUAL, 4, 0, UDP as u32),
    op(EQUAL, 0, 4, TCP as u32),
    op(LOAD_BYTE, 0, 0, 40 + 13),
    op(AND, 0, 0, 0x12),
    op(EQUAL, 0, 1, 0x02),
    op(RETURN, 0, 0, 128),
    op(RETURN, 0, 0, 0),
];

const LOAD_BYTE: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_ABS;
const LOAD_BYTE_AT_X: u32 = libc::BPF_LD | libc::BPF_B | libc::BPF_IND;
const LOAD_HEADER_LENGTH: u32 = libc::BPF_LDX | libc::BPF_B | libc::BPF_MSH;
const SHIFT_RIGHT: u32 = libc::BPF_ALU | libc::BPF_RSH | libc::BPF_K;
const AND: u32 = libc::BPF_ALU | libc::BPF_AND | libc::BPF_K;
const EQUAL: u32 = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
const RETURN: u32 = libc::BPF_RET | libc::BPF_K;

const fn op(code: u32, jt: u8, jf: u8, k: u32) -> libc::sock_filter {
    libc::sock_filter { code: code as u16, jt, jf, k }
}

fn attach(socket: &OwnedFd, filter: &[libc::sock_filter; 19]) -> io::Result<()> {
    let program = libc::sock_fprog { len: filter.len() as u16, filter: filter.as_ptr().cast_mut() };
    // SAFETY: the descriptor is open; the kernel copies the program, whose instructions live until the call returns, and
    // does not write to it.
    #[expect(unsafe_code, reason = "no crate at hand wraps this option")]
    let answer = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_FILTER,
            (&raw const program).cast(),
            size_of::<libc::sock_fprog>() as libc::socklen_t,
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_by_their_headers_and_hostile_ones_not_at_all() {
        let mut v4 = vec![0x46; 44];
        v4[9] = TCP;
        v4[16..20].copy_from_slice(&[192, 0, 2, 7]);
        v4[26..28].copy_from_slice(&8443u16.to_be_bytes());
        let expected = Attempt { is_tcp: true, to: "192.0.2.7:8443".parse().unwrap() };
        assert_eq!(parse(&v4), Some(expected), "the header has options");
        let mut v6 = vec![0x60; 48];
        v6[6] = UDP;
        v6[24..40].copy_from_slice(&"2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        v6[42..44].copy_from_slice(&53u16.to_be_bytes());
        assert_eq!(parse(&v6), Some(Attempt { is_tcp: false, to: "[2001:db8::1]:53".parse().unwrap() }));
        for length in 0..28 {
            assert_eq!(parse(&v4[..length]), None);
        }
        v4[9] = 1;
        assert_eq!(parse(&v4), None, "a ping has no port");
    }
}
