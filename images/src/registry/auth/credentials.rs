//! The user's credentials: Docker's configuration and its credential helpers, read as Docker does.

use std::path::PathBuf;
use std::time::Duration;

use docker_credential::{CredentialRetrievalError as Failure, DockerCredential as Found};

use crate::files;

/// The most bytes of a configuration.
const MAX_CONFIG: u64 = 1 << 20;
/// How long a helper may take; it may have to ask the user to unlock a key ring.
const HELPER: Duration = Duration::from_secs(60);
/// The most characters of a helper's output that are shown.
const MAX_SHOWN: usize = 200;

/// Credentials for a request.
#[derive(Clone)]
pub(in crate::registry) enum Auth {
    /// None.
    Anonymous,
    /// A name and a password.
    Basic(String, String),
    /// A token: from a token service, or an identity token for such a service in place of a password.
    Bearer(String),
}

/// The credentials for a host (`host` or `host:port`), which may be none.
///
/// # Errors
/// With a reason, when the configuration or a helper cannot be read: a request is never silently sent without
/// credentials that the user configured.
pub(super) async fn of(host: &str) -> Result<Auth, String> {
    let Some(config) = read_config()? else { return Ok(Auth::Anonymous) };
    let (sender, receiver) = tokio::sync::oneshot::channel();
    let asked = host.to_owned();
    // A thread of its own, so that a helper that never ends does not block the end of the runtime.
    std::thread::spawn(move || {
        // The receiver is gone after the timeout.
        let _ = sender.send(look_up(&config, &asked));
    });
    match tokio::time::timeout(HELPER, receiver).await {
        Ok(Ok(found)) => found,
        Ok(Err(_)) => Err("reading them failed".to_owned()),
        Err(_) => Err(format!("the credential helper did not answer within {} s", HELPER.as_secs())),
    }
}

fn read_config() -> Result<Option<Vec<u8>>, String> {
    let home = || std::env::var_os("HOME").map(|home| PathBuf::from(home).join(".docker"));
    let Some(folder) = std::env::var_os("DOCKER_CONFIG").map(PathBuf::from).or_else(home) else {
        return Ok(None);
    };
    let path = folder.join("config.json");
    let bytes = match files::read(&path, MAX_CONFIG) {
        Ok(Some(bytes)) => bytes,
        Ok(None) => return Err(format!("{} has more than {MAX_CONFIG} bytes", path.display())),
        Err(cause) if cause.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(cause) => return Err(format!("{}: {cause}", path.display())),
    };
    if serde_json::from_slice::<serde_json::Map<_, serde_json::Value>>(&bytes).is_err() {
        return Err(format!("{} is no JSON object", path.display()));
    }
    Ok(Some(bytes))
}

/// Looks up the host, also in the URL form that helpers know Docker Hub by.
fn look_up(config: &[u8], host: &str) -> Result<Auth, String> {
    for server in [host.to_owned(), format!("https://{host}/v1/")] {
        match docker_credential::get_credential_from_reader(config, &server) {
            Ok(Found::UsernamePassword(user, password)) => return Ok(Auth::Basic(user, password)),
            Ok(Found::IdentityToken(token)) => return Ok(Auth::Bearer(token)),
            Err(Failure::NoCredentialConfigured) => {}
            // The message of helpers for this case (Docker's helper protocol).
            Err(Failure::HelperFailure { stdout, .. }) if stdout.contains("credentials not found") => {}
            Err(failure) => return Err(words(&failure)),
        }
    }
    Ok(Auth::Anonymous)
}

fn words(failure: &Failure) -> String {
    match failure {
        Failure::HelperFailure { helper, stdout, stderr } => {
            let said = format!("{stdout} {stderr}");
            let said: String =
                said.chars().map(|c| if c.is_control() { ' ' } else { c }).take(MAX_SHOWN).collect();
            format!("{helper} failed: {}", said.trim())
        }
        Failure::HelperCommunicationError => {
            "the credential helper that Docker's configuration names cannot be run, or never read what it was asked"
                .to_owned()
        }
        other => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn found(config: &str, host: &str) -> Option<(String, String)> {
        match look_up(config.as_bytes(), host).unwrap() {
            Auth::Anonymous => None,
            Auth::Basic(user, password) => Some((user, password)),
            Auth::Bearer(token) => Some(("<token>".to_owned(), token)),
        }
    }

    #[test]
    fn each_host_gets_its_own_and_no_other() {
        // "user:hunter2"
        let config = r#"{"auths": {"r.example:5000": {"auth": "dXNlcjpodW50ZXIy"}, "https://h.example/v1/": {"auth": "dXNlcjpodW50ZXIy"},
            "t.example": {"auth": "dXNlcjo=", "identitytoken": "refresh"}, "empty.example": {}}}"#;
        let user = Some(("user".to_owned(), "hunter2".to_owned()));
        assert_eq!(found(config, "r.example:5000"), user);
        assert_eq!(found(config, "h.example"), user);
        assert_eq!(found(config, "t.example"), Some(("<token>".to_owned(), "refresh".to_owned())));
        for host in ["r.example", "r.example:5001", "evil.r.example:5000", "empty.example", "example"] {
            assert_eq!(found(config, host), None, "{host}");
        }
        assert!(look_up(br#"{"auths": {"r.example": {"auth": "%%%"}}}"#, "r.example").is_err());
    }
}
