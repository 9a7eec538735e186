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
    pub(crate) fn plant(
        &self,
        network: &sandbox::Network,
        step: &str,
        secrets: &Arc<Needles>,
    ) -> Result<Planted, Error> {
        let sockets = network.enter(|inside| {
            inside.claim_every_address()?;
            let dns = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
            let doors = self.options.doors.iter().map(|door| {
                let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, door.port));
                Ok((*door, inside.listen(address)?))
            });
            Ok(Sockets {
                dns_udp: inside.udp(dns)?,
                dns_tcp: inside.listen(dns)?,
                doors: doors.collect::<sandbox::Result<_>>()?,
                watch: Some(inside.watch()?),
            })
        });
        self.serve(sockets.map_err(|source| Error::Plant(source.into()))?, step, secrets)
    }
}
