//! The sockets of a step, made inside its network namespace.

use std::net::{Ipv4Addr, SocketAddr};

use super::{Capture, Error, Planted, Sockets};

impl Capture {
    /// Plants DNS and listeners into the network of the step called `step` (for records and messages).
    ///
    /// Nothing of the step may run before this returns.
    ///
    /// # Errors
    /// When the namespace refuses a socket, or the capture block cannot be made local to it.
    pub fn plant(&self, network: &sandbox::Network, step: &str) -> Result<Planted, Error> {
        network.claim_capture_block().map_err(|source| Error::Claim(source.into()))?;
        let listen = |ip: Ipv4Addr, port: u16| {
            let address = SocketAddr::from((ip, port));
            network.listen(address).map_err(|source| Error::Listen { address, source: source.into() })
        };
        let dns = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
        let dns_udp =
            network.udp(dns).map_err(|source| Error::Listen { address: dns, source: source.into() })?;
        let sockets = Sockets {
            dns_udp,
            dns_tcp: listen(Ipv4Addr::LOCALHOST, 53)?,
            http: listen(Ipv4Addr::UNSPECIFIED, 80)?,
            https: listen(Ipv4Addr::UNSPECIFIED, 443)?,
        };
        self.serve(sockets, step)
    }
}
