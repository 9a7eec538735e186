//! Retries of temporary failures, a few times and with bounded waits. Nothing else is retried.

use std::io;
use std::time::Duration;

use attestations::Repository;
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

use crate::error::{Error, RegistryFailure, Result};

/// The number of attempts.
const TRIES: u32 = 4;
/// The number of attempts with a mirror, after which there is another server to try.
const TRIES_OF_MIRROR: u32 = 2;
/// The first wait; each further one is twice as long. Without jitter, since a single client causes no burst.
const FIRST_WAIT: Duration = Duration::from_millis(250);
/// The longest wait that a registry may ask for.
const LONGEST_WAIT: Duration = Duration::from_secs(30);

/// Why an attempt failed.
#[derive(Debug)]
pub(super) enum Failed {
    /// A temporary failure: the connection broke, or the registry is overloaded. With the wait that it asked for.
    Passing(Error, Option<Duration>),
    /// A permanent failure.
    Lasting(Error),
}

impl From<Error> for Failed {
    fn from(error: Error) -> Self {
        Self::Lasting(error)
    }
}

impl Failed {
    /// From a request without a response, or an interrupted response.
    pub(super) fn of(repository: &Repository, cause: reqwest::Error) -> Self {
        // A refused redirect or a damaged local blob is not a temporary failure.
        let lasts = cause.is_redirect()
            || cause.is_builder()
            || causes(&cause).any(|inner| inner.is::<Error>())
            || unknown_host(&cause).is_some_and(|said| !said.contains("Temporary"));
        let error = registry_error(repository, cause);
        if lasts { Self::Lasting(error) } else { Self::Passing(error, None) }
    }
}

/// The error of a failed request, with the whole chain of its causes.
pub(super) fn registry_error(repository: &Repository, cause: reqwest::Error) -> Error {
    if let (Some(host), Some(said)) = (cause.url().and_then(|url| url.host_str()), unknown_host(&cause)) {
        // The rest of the chain says the same in other words.
        let reason = format!("the name {host} does not resolve: {said}");
        return Error::registry(repository.registry(), RegistryFailure::UnknownHost, reason);
    }
    let mut reason = cause.to_string();
    let mut source = std::error::Error::source(&cause);
    while let Some(inner) = source {
        reason = format!("{reason}: {inner}");
        source = inner.source();
    }
    let (registry, failure) = (repository.registry().to_owned(), failure_of(&cause));
    Error::Registry { registry, failure, reason, source: Some(Box::new(cause)) }
}

/// The kind of failure of a request. The client has types for some kinds, and only messages for others.
fn failure_of(cause: &reqwest::Error) -> RegistryFailure {
    for inner in causes(cause) {
        if inner.is::<rustls::Error>() {
            return RegistryFailure::Tls;
        }
        if let Some(io) = inner.downcast_ref::<io::Error>() {
            match io.kind() {
                io::ErrorKind::ConnectionRefused => return RegistryFailure::ConnectionRefused,
                io::ErrorKind::TimedOut => return RegistryFailure::TimedOut,
                _ => {}
            }
        }
    }
    match cause.is_timeout() {
        true => RegistryFailure::TimedOut,
        false => RegistryFailure::Connection,
    }
}

/// What the resolver says of a name that it does not find. That of the standard library has no error kind for it.
fn unknown_host(cause: &reqwest::Error) -> Option<String> {
    let said = causes(cause).map(ToString::to_string);
    let mut said =
        said.filter_map(|said| Some(said.strip_prefix("failed to lookup address information: ")?.to_owned()));
    said.next()
}

/// The errors below one, outermost first. For an error wrapped in an I/O error, `source` skips the wrapped one, which
/// is included here.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn std::error::Error + 'static)> {
    std::iter::successors(std::error::Error::source(error), |inner| {
        match inner.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(wrapped) => Some(wrapped as _),
            None => inner.source(),
        }
    })
}

/// Whether a retry may get another status.
pub(super) fn is_passing(status: StatusCode) -> bool {
    matches!(status.as_u16(), 429 | 500 | 502 | 503 | 504)
}

/// The seconds of a `Retry-After`. A date is not supported: the default wait applies then.
pub(super) fn asked_wait(headers: &HeaderMap) -> Option<Duration> {
    headers.get(RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// Counts the attempts of one operation, and waits between them.
#[derive(Debug)]
pub(super) struct Tries {
    most: u32,
    made: u32,
    wait: Duration,
}

/// Who is asked: for a mirror another server can stand in, so that less is waited for it.
#[derive(Clone, Copy)]
pub(super) enum Server {
    Registry,
    Mirror,
}

impl Tries {
    pub(super) fn new(server: Server) -> Self {
        let most = match server {
            Server::Registry => TRIES,
            Server::Mirror => TRIES_OF_MIRROR,
        };
        Self { most, made: 0, wait: FIRST_WAIT }
    }

    /// Resets the count after an attempt that made progress.
    pub(super) fn start_again(&mut self) {
        *self = Self { made: 0, wait: FIRST_WAIT, ..*self };
    }

    /// Waits before the next attempt, and passes the reason to `tell`.
    ///
    /// # Errors
    /// The failure itself, when it is permanent or it was the last attempt; then with the number of attempts.
    pub(super) async fn after(&mut self, failed: Failed, report: impl Fn(&str)) -> Result<()> {
        let (error, wait) = self.next(failed)?;
        report(&format!("{error}; trying again in {} ms", wait.as_millis()));
        tokio::time::sleep(wait).await;
        Ok(())
    }

    fn next(&mut self, failed: Failed) -> Result<(Error, Duration)> {
        self.made += 1;
        let (error, asked) = match failed {
            Failed::Lasting(error) => return Err(error),
            Failed::Passing(error, asked) => (error, asked),
        };
        if let Some(asked) = asked.filter(|asked| *asked > LONGEST_WAIT) {
            let (asked, most) = (asked.as_secs(), LONGEST_WAIT.as_secs());
            return Err(noting(error, &format!("it asks to wait {asked} s, and {most} s are the most")));
        }
        if self.made >= self.most {
            return Err(noting(error, &format!("after {} tries", self.made)));
        }
        let wait = self.wait;
        self.wait *= 2;
        Ok((error, wait.max(asked.unwrap_or_default())))
    }
}

/// The same error with a note appended.
pub(super) fn noting(error: Error, note: &str) -> Error {
    match error {
        Error::Registry { registry, failure, reason, source } => {
            Error::Registry { registry, failure, reason: format!("{reason} ({note})"), source }
        }
        other => other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn passing(asked: Option<u64>) -> Failed {
        let error = Error::registry("r.example", RegistryFailure::Answer, "busy");
        Failed::Passing(error, asked.map(Duration::from_secs))
    }

    #[test]
    fn waits_grow_and_end_and_say_how_often() {
        let mut tries = Tries::new(Server::Registry);
        let waits = [250, 500, 1000].map(Duration::from_millis);
        assert_eq!([(); 3].map(|()| tries.next(passing(None)).unwrap().1), waits);
        let error = tries.next(passing(None)).unwrap_err().to_string();
        assert_eq!(error, "r.example: busy (after 4 tries)");
        tries.start_again();
        assert_eq!(tries.next(passing(None)).unwrap().1, waits[0]);
        let mut of_mirror = Tries::new(Server::Mirror);
        assert!(of_mirror.next(passing(None)).is_ok() && of_mirror.next(passing(None)).is_err());
    }

    #[test]
    fn what_the_registry_asks_for_is_bounded() {
        assert_eq!(Tries::new(Server::Registry).next(passing(Some(7))).unwrap().1, Duration::from_secs(7));
        let error = Tries::new(Server::Registry).next(passing(Some(3600))).unwrap_err().to_string();
        assert!(error.contains("3600 s"), "{error}");
    }

    #[test]
    fn what_lasts_is_told_at_once() {
        let error = Error::NotFound { what: "x".into() };
        assert!(Tries::new(Server::Registry).next(error.into()).is_err());
        for (status, passes) in [(429, true), (503, true), (404, false), (401, false), (501, false)] {
            assert_eq!(is_passing(StatusCode::from_u16(status).unwrap()), passes, "{status}");
        }
    }
}
