//! A registry's authentication challenge (`WWW-Authenticate`, RFC 9110, section 11.6.1).

use http_auth::{ChallengeParser, ChallengeRef};
use reqwest::header::{HeaderMap, WWW_AUTHENTICATE};

/// The required authentication.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A token of this service.
    Bearer {
        /// The URL of the service.
        realm: String,
        /// The registry's name at the service.
        service: Option<String>,
    },
    /// A name and a password.
    Basic,
    /// An unsupported scheme.
    Other,
}

/// Parses the challenges of a response. A token is preferred, since the password is then not sent with each request.
///
/// # Errors
/// With a reason for people, when there is none or it cannot be parsed.
pub(super) fn read(headers: &HeaderMap) -> Result<Challenge, String> {
    let mut found = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let text = value.to_str().map_err(|_| "its challenge is no text".to_owned())?;
        for challenge in ChallengeParser::new(text) {
            let challenge = challenge.map_err(|_| "its challenge cannot be read".to_owned())?;
            match of(&challenge) {
                bearer @ Challenge::Bearer { .. } => return Ok(bearer),
                Challenge::Basic => found = Some(Challenge::Basic),
                Challenge::Other => found = found.or(Some(Challenge::Other)),
            }
        }
    }
    found.ok_or_else(|| "it refuses without saying how to authenticate".to_owned())
}

fn of(challenge: &ChallengeRef<'_>) -> Challenge {
    let parameter = |name: &str| {
        let found = challenge.params.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
        found.map(|(_, value)| value.to_unescaped())
    };
    if challenge.scheme.eq_ignore_ascii_case("basic") {
        return Challenge::Basic;
    }
    match parameter("realm") {
        Some(realm) if challenge.scheme.eq_ignore_ascii_case("bearer") => {
            Challenge::Bearer { realm, service: parameter("service") }
        }
        _ => Challenge::Other,
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    fn read_all(values: &[&str]) -> Result<Challenge, String> {
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
        }
        read(&headers)
    }

    fn bearer(realm: &str, service: Option<&str>) -> Result<Challenge, String> {
        Ok(Challenge::Bearer { realm: realm.to_owned(), service: service.map(str::to_owned) })
    }

    #[test]
    fn registries_of_the_world_are_understood() {
        let realm = "https://auth.example.org/token";
        for (text, service) in [
            (
                r#"Bearer realm="https://auth.example.org/token",service="s",scope="repository:a/b:pull,push""#,
                Some("s"),
            ),
            (r#"bearer Realm="https://auth.example.org/token", service=s"#, Some("s")),
            (
                r#"Bearer scope="realm=\"https://evil.example/\"", realm="https://auth.example.org/token""#,
                None,
            ),
            (r#"Bearer otherrealm="x",realm="https://auth.example.org/token",error="invalid_token""#, None),
        ] {
            assert_eq!(read_all(&[text]), bearer(realm, service), "{text}");
        }
        assert_eq!(read_all(&[r#"Basic realm="Registry, \"ours\"""#]), Ok(Challenge::Basic));
        assert_eq!(read_all(&[r#"Digest realm="x", nonce="y""#]), Ok(Challenge::Other));
    }

    #[test]
    fn commas_and_escapes_within_quotes_end_nothing() {
        let text = r#"Bearer realm="https://a.example/t?x=1,2\\3",service="a \"quoted\", name""#;
        assert_eq!(read_all(&[text]), bearer("https://a.example/t?x=1,2\\3", Some("a \"quoted\", name")));
    }

    #[test]
    fn of_several_a_token_is_preferred() {
        let token = r#"Bearer realm="https://a.example/t""#;
        let wanted = bearer("https://a.example/t", None);
        assert_eq!(read_all(&[r#"Basic realm="x""#, token]), wanted);
        assert_eq!(read_all(&[r#"Basic realm="x", Bearer realm="https://a.example/t""#]), wanted);
        assert_eq!(read_all(&["Negotiate", r#"Basic realm="x""#]), Ok(Challenge::Basic));
    }

    #[test]
    fn what_cannot_be_read_is_not_guessed_at() {
        for values in
            [&[][..], &[r#"Bearer realm="https://a.example/t"#], &[r#"Bearer realm="a" "b""#], &[""]]
        {
            assert!(read_all(values).is_err(), "{values:?}");
        }
    }
}
