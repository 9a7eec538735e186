//! What is served in a step's network: names, connections, requests, and where their responses come from.

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
