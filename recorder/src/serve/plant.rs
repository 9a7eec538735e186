//! Creates the sockets of a step inside its network namespace.

use crate::StepId;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;

use crate::patterns::SecretPatterns;
use crate::{Error, Planted, Recorder, Sockets};

impl Recorder {
    /// Sets up DNS, listeners and the detection of other connections in the network of the step with the id `step`.
    ///
    /// No program of the step may run before this returns. An exchange that contains one of `secrets` is not
    /// recorded.
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
