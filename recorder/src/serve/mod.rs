//! The services in a step's network: names, connections, requests, and the sources of their responses.

pub(crate) mod accept;
pub(crate) mod authority;
pub(crate) mod blocked;
pub(crate) mod body;
pub(crate) mod dns;
pub(crate) mod fetch;
pub(crate) mod gateway;
pub(crate) mod http2;
pub(crate) mod names;
pub(crate) mod plant;
pub(crate) mod replayed;
pub(crate) mod request;
