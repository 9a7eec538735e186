//! The sockets of a step, made inside its network namespace.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use super::{Capture, Error, Planted, Sockets};
use crate::secrets::Needles;

impl Capture {
    /// Plants DNS, listeners and a watch into the network of the step called `step` (for records and messages).
    ///
    /// Nothing of the step may run before this returns. Nothing that holds one of `secrets` is recorded.
    ///
    /// # Errors
    /// When the namespace refuses a socket, or its addresses cannot be claimed.
    pub fn plant(
        &self,
        network: &sandbox::Network,
        step: &str,
        secrets: &Arc<Needles>,
    ) -> Result<Planted, Error> {
        network.claim_every_address().map_err(|source| Error::Claim(source.into()))?;
        let listen = |ip: Ipv4Addr, port: u16| {
            let address = SocketAddr::from((ip, port));
            network.listen(address).map_err(|source| Error::Listen { address, source: source.into() })
        };
        let dns = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
        let dns_udp =
            network.udp(dns).map_err(|source| Error::Listen { address: dns, source: source.into() })?;
        let doors = self.options.doors.iter();
        let doors = doors.map(|door| Ok((*door, listen(Ipv4Addr::UNSPECIFIED, door.port)?)));
        let sockets = Sockets {
            dns_udp,
            dns_tcp: listen(Ipv4Addr::LOCALHOST, 53)?,
            doors: doors.collect::<Result<_, Error>>()?,
            watch: Some(network.watch().map_err(|source| Error::Claim(source.into()))?),
        };
        self.serve(sockets, step, secrets)
    }
}
