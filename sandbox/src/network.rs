mod program;
mod route;
mod watch;

use std::fs::{self, File};
use std::io;
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpListener, UdpSocket};
use std::os::fd::AsRawFd;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use nix::mount::{MsFlags, mount};
use nix::sched::{CloneFlags, setns, unshare};

use crate::owned::Owned;
use crate::{Error, Result, mounts};

pub use program::Ran;
pub use watch::{Attempt, Watch};

/// A network namespace with nothing but loopback in it.
///
/// Nobody in it can reach anything except the listeners planted here: every other address answers "network is
/// unreachable", for there is no other interface and no route.
#[derive(Debug)]
pub struct Network {
    namespace: File,
    path: PathBuf,
    /// Kept so that the owner's directory, where the namespace is mounted, outlives us. `None` when borrowed.
    owner: Option<Arc<Owned>>,
}

impl Network {
    pub(crate) fn create(owner: Arc<Owned>) -> Result<Self> {
        let path = owner.fresh("net");
        File::create_new(&path).map_err(Error::path("create", &path))?;
        let target = path.clone();
        in_thread(move || {
            // A thread's namespace is its own and ends with it; the bind mount keeps this one.
            unshare(CloneFlags::CLONE_NEWNET)?;
            interface::up("lo")?;
            let none: Option<&str> = None;
            Ok(mount(Some("/proc/thread-self/ns/net"), &target, none, MsFlags::MS_BIND, none)?)
        })
        .map_err(Error::path("make a network namespace at", &path))?;
        let namespace = File::open(&path).map_err(Error::path("open", &path))?;
        Ok(Self { namespace, path, owner: Some(owner) })
    }

    /// The namespace that a running process lives in, such as a Docker container's; it is not ours and stays.
    ///
    /// # Errors
    /// When there is no such process, and when it shares this machine's own network.
    pub fn of_process(pid: u32) -> Result<Self> {
        let theirs = PathBuf::from(format!("/proc/{pid}/ns/net"));
        let namespace = File::open(&theirs).map_err(Error::path("open", &theirs))?;
        let inode = |m: fs::Metadata| (m.dev(), m.ino());
        let found = namespace.metadata().map(inode).map_err(Error::path("look at", &theirs))?;
        let own = Path::new("/proc/self/ns/net");
        let ours = fs::metadata(own).map(inode).map_err(Error::path("look at", own))?;
        // The first process's may be closed even to root; our own tells the machine's network well enough.
        let first = fs::metadata("/proc/1/ns/net").map(inode).ok();
        if found == ours || Some(found) == first {
            return Err(Error::NotIsolated { pid });
        }
        // By our descriptor, not by their pid, which the kernel may give to somebody else.
        let path = PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), namespace.as_raw_fd()));
        Ok(Self { namespace, path, owner: None })
    }

    /// The file by which an OCI runtime joins the namespace.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Runs `act` in a short-lived thread that has entered the namespace. What it opens stays there, and is served from
    /// outside like any other socket: whatever is planted is there before any process of the sandbox.
    ///
    /// # Errors
    /// Those of `act`, and when the namespace cannot be entered.
    pub fn enter<T: Send>(&self, act: impl FnOnce(&Inside) -> Result<T> + Send) -> Result<T> {
        let entering = Error::system("enter the sandbox's network");
        let inside = || {
            setns(&self.namespace, CloneFlags::CLONE_NEWNET)?;
            Ok(act(&Inside { _thread: PhantomData }))
        };
        in_thread(inside).map_err(entering)?
    }

    /// Plants one TCP listener.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn listen(&self, address: SocketAddr) -> Result<TcpListener> {
        self.enter(|inside| inside.listen(address))
    }
}

/// Proof that the thread at hand has entered a network. It stays in that thread.
#[derive(Debug)]
pub struct Inside {
    _thread: PhantomData<*const ()>,
}

impl Inside {
    /// Plants a TCP listener.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn listen(&self, address: SocketAddr) -> Result<TcpListener> {
        TcpListener::bind(address).map_err(|source| Error::Bind { address, source })
    }

    /// Plants a UDP socket.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn udp(&self, address: SocketAddr) -> Result<UdpSocket> {
        UdpSocket::bind(address).map_err(|source| Error::Bind { address, source })
    }

    /// Gives loopback the address 198.18.0.1/15 (RFC 2544, never routed), which makes that whole block local: a listener
    /// on 0.0.0.0 then answers for each of its 131,072 addresses. Every other address becomes local, too: what is tried
    /// there is refused at once by this very namespace, and a [`Watch`] sees it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn claim_every_address(&self) -> Result<()> {
        interface::address("lo:1", [198, 18, 0, 1], [255, 254, 0, 0])
            .and_then(|()| route::everything_local(interface::LOOPBACK))
            .map_err(Error::system("make every address local to the sandbox's network"))
    }

    /// Watches what is tried in this namespace.
    ///
    /// # Errors
    /// When the kernel has no packet sockets.
    pub fn watch(&self) -> Result<Watch> {
        Watch::here().map_err(Error::system("watch the sandbox's network"))
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        if self.owner.is_some() {
            mounts::discard_mount(&self.path);
            mounts::discard_file(&self.path);
        }
    }
}

pub(crate) fn in_thread<T: Send>(act: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().name("sandbox".into()).spawn_scoped(scope, act)?;
        thread.join().unwrap_or_else(|_| Err(io::Error::other("the helper thread ended early")))
    })
}

/// The three `ioctl`s on an interface for which no safe wrapper is at hand.
mod interface {
    use std::io;
    use std::net::UdpSocket;
    use std::os::fd::AsRawFd;

    /// Loopback's index: the kernel makes it the first interface of each namespace.
    pub(super) const LOOPBACK: u32 = 1;

    pub(super) fn up(name: &str) -> io::Result<()> {
        let flags = (libc::IFF_UP | libc::IFF_RUNNING) as libc::c_short;
        set(name, libc::SIOCSIFFLAGS, libc::__c_anonymous_ifr_ifru { ifru_flags: flags })
    }

    pub(super) fn address(name: &str, address: [u8; 4], mask: [u8; 4]) -> io::Result<()> {
        set(name, libc::SIOCSIFADDR, libc::__c_anonymous_ifr_ifru { ifru_addr: ipv4(address) })?;
        set(name, libc::SIOCSIFNETMASK, libc::__c_anonymous_ifr_ifru { ifru_netmask: ipv4(mask) })
    }

    /// A `sockaddr_in` written as the `sockaddr` that `ifreq` holds: two bytes of port, then the address.
    fn ipv4(octets: [u8; 4]) -> libc::sockaddr {
        let mut data = [0; 14];
        for (to, from) in data[2..6].iter_mut().zip(octets) {
            *to = from as libc::c_char;
        }
        libc::sockaddr { sa_family: libc::AF_INET as libc::sa_family_t, sa_data: data }
    }

    fn set(name: &str, request: libc::Ioctl, value: libc::__c_anonymous_ifr_ifru) -> io::Result<()> {
        let mut ifr_name = [0; libc::IFNAMSIZ];
        for (to, from) in ifr_name[..libc::IFNAMSIZ - 1].iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        let message = libc::ifreq { ifr_name, ifr_ifru: value };
        // Any socket of the namespace will do to speak to its interfaces.
        let socket = UdpSocket::bind(("0.0.0.0", 0))?;
        // SAFETY: the descriptor is open, and these requests read one `ifreq`, which lives until the call returns; its
        // name ends in a zero byte because the array's last element is never written.
        #[expect(unsafe_code, reason = "no crate at hand wraps these requests")]
        let answer = unsafe { libc::ioctl(socket.as_raw_fd(), request, &raw const message) };
        if answer < 0 {
            return Err(io::Error::last_os_error());
        }
        Ok(())
    }
}
