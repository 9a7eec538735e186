//! The route that makes every address one of the namespace's own (rtnetlink(7)): whatever is tried then stays inside and
//! can be seen, instead of failing before there is a packet.

use std::io;

use rustix::net::{AddressFamily, RecvFlags, SendFlags, SocketFlags, SocketType, recv, send, socket_with};

/// `struct nlmsghdr` and `struct rtmsg` and one attribute, as the kernel lays them out.
const LENGTH: u32 = 16 + 12 + 8;

/// Makes all addresses local to the interface with this index.
pub(super) fn everything_local(interface: u32) -> io::Result<()> {
    request(libc::AF_INET, interface)?;
    match request(libc::AF_INET6, interface) {
        // A kernel without IPv6 has nothing to catch there.
        Err(cause) if is_without_ipv6(&cause) => Ok(()),
        other => other,
    }
}

fn is_without_ipv6(cause: &io::Error) -> bool {
    [libc::EAFNOSUPPORT, libc::EOPNOTSUPP, libc::EACCES, libc::ENETDOWN]
        .iter()
        .any(|code| cause.raw_os_error() == Some(*code))
}

fn request(family: i32, interface: u32) -> io::Result<()> {
    let socket = socket_with(AddressFamily::NETLINK, SocketType::RAW, SocketFlags::CLOEXEC, None)?;
    let flags = libc::NLM_F_REQUEST | libc::NLM_F_ACK | libc::NLM_F_CREATE | libc::NLM_F_EXCL;
    let mut message = Vec::with_capacity(LENGTH as usize);
    message.extend(LENGTH.to_ne_bytes());
    message.extend(libc::RTM_NEWROUTE.to_ne_bytes());
    message.extend((flags as u16).to_ne_bytes());
    message.extend([0; 8]); // sequence number and port: the kernel fills in ours
    // Prefix lengths of 0: every address. Then TOS, table, protocol, scope, type, and no flags.
    message.extend([family as u8, 0, 0, 0, libc::RT_TABLE_LOCAL]);
    message.extend([libc::RTPROT_STATIC, libc::RT_SCOPE_HOST, libc::RTN_LOCAL]);
    message.extend([0; 4]);
    message.extend(8u16.to_ne_bytes());
    message.extend(libc::RTA_OIF.to_ne_bytes());
    message.extend(interface.to_ne_bytes());
    send(&socket, &message, SendFlags::empty())?;
    let mut answer = [0; 256];
    let (_, length) = recv(&socket, &mut answer[..], RecvFlags::empty())?;
    // `struct nlmsgerr` follows the header: 0, or a negative error number.
    match answer.get(16..20).filter(|_| length >= 20) {
        Some(code) => match i32::from_ne_bytes([code[0], code[1], code[2], code[3]]) {
            0 => Ok(()),
            code => Err(io::Error::from_raw_os_error(-code)),
        },
        None => Err(io::Error::other("the kernel's answer is too short")),
    }
}
