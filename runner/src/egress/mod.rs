//! The only way out of an algorithm container: a proxy that passes listed requests to one server.
//!
//! The container's network namespace has nothing but loopback and the listener this module serves. Everything that
//! is not explicitly listed in [`Rules`] is refused with 403 and a JSON reason. Deliberately absent: `CONNECT`,
//! upgrades, absolute-form requests, redirects, cookies, connection reuse, and any choice of server by the container.

mod body;
mod forward;
#[cfg(any(fuzzing, test))]
#[doc(hidden)]
pub mod fuzzing;
mod head;
mod log;
mod rules;
mod serve;
mod target;

use std::{fmt, sync::Arc, time::Duration};

use attestations::policy::Budget;
pub use log::{EgressEntry, EgressLog, Outcome, Spent};
pub use rules::Rules;
use serde::Deserialize;
pub use serve::ServeHandle;
use url::Url;

/// Why the proxy could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The server's address cannot be used.
    #[error("the server address {url} is not usable: {reason}")]
    Upstream {
        /// The address as given, without any credentials.
        url: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The token holds bytes that cannot stand in a header.
    #[error("the run's token holds bytes that cannot stand in a header")]
    Token,
    /// The planted listener could not be served.
    #[error("the proxy's listener cannot be served: {0}")]
    Listener(#[source] std::io::Error),
    /// `serve` was called where no tokio runtime runs.
    #[error("the proxy needs a running tokio runtime")]
    NoRuntime,
}

/// The one server that the container may talk to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Upstream {
    /// No server: every request is refused.
    None,
    /// The base address; a container's `/task` becomes this path plus `/task`.
    Url(Url),
}

/// The run's own token, put in place of whatever `Authorization` the container sends.
#[derive(Clone, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct Token(String);

impl TryFrom<String> for Token {
    type Error = Error;

    fn try_from(secret: String) -> Result<Token, Error> {
        Token::new(secret)
    }
}

impl Token {
    /// Takes a token; it is checked to be plain visible ASCII, so that it cannot add header lines.
    pub fn new(secret: impl Into<String>) -> Result<Token, Error> {
        let secret = secret.into();
        let plain =
            !secret.is_empty() && secret.len() <= 16 * 1024 && secret.bytes().all(|b| b.is_ascii_graphic());
        if plain { Ok(Token(secret)) } else { Err(Error::Token) }
    }

    /// The secret itself, for where it is kept.
    pub(crate) fn secret(&self) -> &str {
        &self.0
    }

    /// What the algorithm may read of it: whom it runs for, without the part that proves it. The proxy adds that.
    pub(crate) fn claims(&self) -> String {
        self.0.rsplit_once('.').map_or_else(String::new, |(claims, _)| format!("{claims}."))
    }

    fn header(&self) -> Result<http::HeaderValue, Error> {
        let mut value =
            http::HeaderValue::from_str(&format!("Bearer {}", self.0)).map_err(|_| Error::Token)?;
        value.set_sensitive(true);
        Ok(value)
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(redacted)")
    }
}

/// What one container may use up. The defaults are meant for real runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EgressLimits {
    /// Bytes of a request body.
    pub request_body: u64,
    /// Bytes of a response body.
    pub response_body: u64,
    /// Connections at the same time.
    pub connections: usize,
    /// Time for a complete request head.
    pub head: Duration,
    /// Longest pause within a body, in either direction.
    pub idle: Duration,
    /// Longest wait for the server's answer, and longest time for one whole exchange.
    pub total: Duration,
}

impl Default for EgressLimits {
    fn default() -> EgressLimits {
        EgressLimits {
            request_body: 16 << 20,
            response_body: 64 << 20,
            connections: 32,
            head: Duration::from_secs(10),
            idle: Duration::from_secs(15),
            total: Duration::from_secs(300),
        }
    }
}

/// A proxy for one run: what is allowed, where it goes, and as whom.
#[derive(Debug)]
pub struct Proxy {
    rules: Rules,
    ceiling: Option<Rules>,
    upstream: Upstream,
    authorization: Option<http::HeaderValue>,
    limits: EgressLimits,
    budget: Budget,
}

impl Proxy {
    /// Describes a proxy; nothing is opened or contacted.
    ///
    /// # Errors
    /// When the server's address is not plain `http` or `https`, or carries credentials, a query or a fragment.
    pub fn new(rules: Rules, upstream: Upstream, token: Option<Token>) -> Result<Proxy, Error> {
        if let Upstream::Url(url) = &upstream {
            check_upstream(url)?;
        }
        let authorization = token.as_ref().map(Token::header).transpose()?;
        let (limits, budget) = (EgressLimits::default(), Budget::default());
        Ok(Proxy { rules, ceiling: None, upstream, authorization, limits, budget })
    }

    /// Sets a second list. A request passes only where both have it.
    #[must_use]
    pub fn within(self, ceiling: Option<Rules>) -> Proxy {
        Proxy { ceiling, ..self }
    }

    /// Sets what the whole run may use up.
    #[must_use]
    pub fn with_budget(self, budget: Budget) -> Proxy {
        Proxy { budget, ..self }
    }

    /// Replaces the default limits.
    #[must_use]
    pub fn with_limits(self, limits: EgressLimits) -> Proxy {
        Proxy { limits, ..self }
    }

    /// Serves a listener, which may stand in another network namespace, until the handle is dropped.
    ///
    /// # Errors
    /// When no tokio runtime runs here or the listener cannot be registered with it.
    pub fn serve(self, listener: std::net::TcpListener) -> Result<ServeHandle, Error> {
        serve::start(Arc::new(forward::Forwarder::new(self)), listener)
    }
}

fn check_upstream(url: &Url) -> Result<(), Error> {
    let reason = if !matches!(url.scheme(), "http" | "https") {
        "only http and https are spoken"
    } else if !url.username().is_empty() || url.password().is_some() {
        "credentials belong in the token, not in the address"
    } else if url.query().is_some() || url.fragment().is_some() {
        "a base address has no query and no fragment"
    } else {
        return Ok(());
    };
    let mut shown = url.clone();
    let _ = shown.set_username("");
    let _ = shown.set_password(None);
    Err(Error::Upstream { url: shown.to_string(), reason })
}
