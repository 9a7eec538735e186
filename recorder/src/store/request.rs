//! Which request is the same as another: method, URL, body, and the headers that can select another answer.

use attestations::Digest;
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, VARY};

use super::record::{Exchange, text_of};

/// Headers that select an answer wherever they are understood (RFC 9110, sections 12 to 14), and git's choice of a
/// protocol. What else selects one, the answer names in `Vary`.
const SELECTING: [&str; 13] = [
    "accept",
    "accept-charset",
    "accept-encoding",
    "accept-language",
    "content-encoding",
    "content-type",
    "git-protocol",
    "if-match",
    "if-modified-since",
    "if-none-match",
    "if-range",
    "if-unmodified-since",
    "range",
];

/// Headers whose values are secret. That they were there is all that is told.
const SECRET: [http::HeaderName; 2] = [AUTHORIZATION, COOKIE];
const WITHHELD: &str = "(withheld)";

/// Whether a recorded header's value is not the one that was sent.
pub fn is_withheld(value: &str) -> bool {
    value == WITHHELD
}

/// A request as it came, with the digest of its body.
#[derive(Debug, Clone)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a str,
    /// The URL.
    pub url: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// SHA-256 of the body, if there was one.
    pub body: Option<Digest>,
}

/// The headers of a request that selected its answer, whose `Vary` names more.
pub(crate) fn selecting(request: &HeaderMap, answer: &HeaderMap) -> Vec<(String, String)> {
    let vary = answer.get_all(VARY).iter().map(|value| text_of(value.as_bytes()));
    choose(request, vary)
}

/// An answer's headers as the record holds them, in order.
pub(crate) fn listed(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text_of(value.as_bytes()))).collect()
}

fn choose(request: &HeaderMap, vary: impl Iterator<Item = String>) -> Vec<(String, String)> {
    let mut names: Vec<String> = SELECTING.iter().map(|name| (*name).to_owned()).collect();
    names.extend(SECRET.iter().map(|name| name.as_str().to_owned()));
    for list in vary {
        names.extend(list.split(',').map(|name| name.trim().to_ascii_lowercase()));
    }
    names.sort_unstable();
    names.dedup();
    let mut chosen = Vec::new();
    for name in names {
        for value in request.get_all(name.as_str()) {
            let secret = SECRET.iter().any(|secret| *secret == name.as_str());
            let text = if secret { WITHHELD.to_owned() } else { text_of(value.as_bytes()) };
            chosen.push((name.clone(), text));
        }
    }
    chosen
}

impl Asked<'_> {
    /// How it differs from a recorded request of the same method, URL and body; nothing when it is the same.
    pub fn differs_from(&self, recorded: &Exchange) -> Option<String> {
        let vary = recorded.response.headers.iter().filter(|(name, _)| name == "vary");
        let own = choose(self.headers, vary.map(|(_, value)| value.clone()));
        if own == recorded.request.headers {
            return None;
        }
        let differs = |a: &[(String, String)], b: &[(String, String)]| {
            a.iter().find(|pair| !b.contains(pair)).map(|(name, value)| format!("{name}: {value}"))
        };
        let now = differs(&own, &recorded.request.headers);
        let then = differs(&recorded.request.headers, &own);
        let text = |side: Option<String>| side.unwrap_or_else(|| "without that header".to_owned());
        Some(format!("now {}, recorded {}", text(now), text(then)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(list: &[(&'static str, &'static str)]) -> HeaderMap {
        list.iter().map(|(name, value)| (name.parse().unwrap(), value.parse().unwrap())).collect()
    }

    #[test]
    fn what_selects_is_kept_and_secrets_are_not() {
        let request = headers(&[
            ("user-agent", "tool/1"),
            ("x-workspace", "random"),
            ("range", "bytes=0-9"),
            ("authorization", "Basic c2VjcmV0"),
            ("accept", "text/html"),
        ]);
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let plain =
            [pair("accept", "text/html"), pair("authorization", WITHHELD), pair("range", "bytes=0-9")];
        assert_eq!(selecting(&request, &headers(&[])), plain);
        let with_agent = selecting(&request, &headers(&[("vary", "Accept, User-Agent")]));
        assert_eq!(with_agent.last(), Some(&pair("user-agent", "tool/1")));
    }
}
