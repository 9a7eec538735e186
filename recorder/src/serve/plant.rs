//! The sockets of a step, made inside its network namespace.

use crate::StepId;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::patterns::SecretPatterns;
use crate::{Error, Planted, Recorder, Sockets};

impl Recorder {
    /// Plants DNS, listeners and a watch into the network of the step called `step` (for records and messages).
    ///
    /// Nothing of the step may run before this returns. Nothing that holds one of `secrets` is recorded.
    ///
    /// # Errors
    /// When the namespace refuses a socket, or its addresses cannot be claimed.
    pub fn plant(
        &self,
        network: &sandbox::Network,
        step: &StepId,
        secrets: &Arc<SecretPatterns>,
    ) -> Result<Planted, Error> {
        let sockets = network.enter(|inside| {
            inside.claim_every_address()?;
            let dns = SocketAddr::from((Ipv4Addr::LOCALHOST, 53));
            let endpoints = self.options.endpoints.iter().map(|endpoint| {
                let address = SocketAddr::from((Ipv4Addr::UNSPECIFIED, endpoint.port));
                Ok((*endpoint, inside.listen(address)?))
            });
            Ok(Sockets {
                dns_udp: inside.udp(dns)?,
                dns_tcp: inside.listen(dns)?,
                endpoints: endpoints.collect::<sandbox::Result<_>>()?,
                watch: Some(inside.watch()?),
            })
        });
        self.serve(sockets.map_err(|source| Error::Plant(source.into()))?, step, secrets)
    }
}
