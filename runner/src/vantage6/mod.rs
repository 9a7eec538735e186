//! What this node takes from vantage6 (version 4).

mod contract;
mod result;

pub use contract::Input;
pub(crate) use contract::{AdmittedCall, CallRequest, Files, PROXY_PORT, temporary_folders};
pub(crate) use result::Returned;
pub use result::Unusable;
