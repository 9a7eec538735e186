//! The program that holds an entrypoint until its network is there.

/// `gate <port> <seconds> <argv…>`: a static ELF program for this crate's own target, to be mounted into a container.
///
/// It waits until 127.0.0.1:`port` accepts a connection, then executes `argv` with the same environment, searching
/// `PATH` as a shell would. Exit codes: 125 when nothing accepts within `seconds`, 126 when the program cannot be
/// executed, 127 when there is none. It needs nothing of the image, not even a C library.
pub fn binary() -> &'static [u8] {
    include_bytes!(concat!(env!("OUT_DIR"), "/gate"))
}
