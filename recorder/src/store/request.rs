//! When two requests count as the same: equal method, URL and body, and equal headers that can select another
//! response.

use attestations::Digest;
use http::HeaderMap;
use http::header::{AUTHORIZATION, COOKIE, VARY};

use super::record::{Exchange, text_of};

/// Headers that select a response wherever they are understood (RFC 9110, sections 12 to 14), and git's protocol
/// version. Others are those in the response's `Vary`.
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

/// Headers with secret values. Only their presence is recorded.
const SECRET: [http::HeaderName; 2] = [AUTHORIZATION, COOKIE];
const WITHHELD: &str = "(withheld)";

/// Whether a recorded header's value was withheld.
pub fn is_withheld(value: &str) -> bool {
    value == WITHHELD
}

/// Query parameters that give access to whoever has the URL: those of cloud storage, and other usual names.
const SIGNING: [&str; 8] = [
    "x-amz-signature",
    "x-amz-security-token",
    "x-goog-signature",
    "signature",
    "sig",
    "token",
    "access_token",
    "private_token",
];

/// Whether a URL's query contains a signature or token. URLs are public in the provenance.
pub fn is_signed(url: &str) -> bool {
    let query = url.split_once('?').map_or("", |(_, query)| query);
    url::form_urlencoded::parse(query.as_bytes())
        .any(|(name, value)| !value.is_empty() && SIGNING.contains(&name.to_ascii_lowercase().as_str()))
}

/// A request as received, with the digest of its body.
#[derive(Debug, Clone)]
pub struct StepRequest<'a> {
    /// The method.
    pub method: &'a str,
    /// The URL.
    pub url: &'a str,
    /// All headers.
    pub headers: &'a HeaderMap,
    /// SHA-256 of the body, if there was one.
    pub body: Option<Digest>,
}

/// The request headers that can have selected the response, including those in its `Vary`.
pub(crate) fn selecting(request: &HeaderMap, answer: &HeaderMap) -> Vec<(String, String)> {
    let vary = answer.get_all(VARY).iter().map(|value| text_of(value.as_bytes()));
    choose(request, vary)
}

/// A response's headers in the form of the record, in order.
pub(crate) fn listed(headers: &HeaderMap) -> Vec<(String, String)> {
    headers.iter().map(|(name, value)| (name.as_str().to_owned(), text_of(value.as_bytes()))).collect()
}

/// Parts of the names of headers whose values give access to whoever has them.
const ADMITTING: [&str; 6] =
    ["authorization", "authentication-info", "token", "secret", "session", "api-key"];

/// A private response's headers in the form of the record. A cookie keeps its name and attributes, since a client
/// without cookies sends none and its requests would then differ in a replay. Values that a client derives from
/// withheld ones are withheld in its requests too.
pub(crate) fn without_credentials(headers: Vec<(String, String)>) -> Vec<(String, String)> {
    let withhold = |(name, value): (String, String)| {
        let value = match name.as_str() {
            "set-cookie" | "set-cookie2" => {
                let (cookie, attributes) = value.split_once(';').unwrap_or((&value, ""));
                let own = cookie.split_once('=').map_or("", |(own, _)| own);
                let separator = if attributes.is_empty() { "" } else { ";" };
                format!("{own}=withheld{separator}{attributes}")
            }
            name if ADMITTING.iter().any(|word| name.contains(word)) => WITHHELD.to_owned(),
            _ => value,
        };
        (name, value)
    };
    headers.into_iter().map(withhold).collect()
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

impl StepRequest<'_> {
    /// How it differs from a recorded request with the same method, URL and body; none if they are the same.
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
    fn signed_urls_are_known() {
        for query in ["X-Amz-Date=1&X-Amz-Signature=ab", "sv=1&sig=ab%2F", "Signature=ab", "Token=ab"] {
            assert!(is_signed(&format!("https://a.example/x?{query}")), "{query}");
        }
        for url in ["https://a.example/token=x", "https://a.example/?sigma=x", "https://a.example/?sig="] {
            assert!(!is_signed(url), "{url}");
        }
    }

    #[test]
    fn a_private_answer_s_credentials_are_withheld() {
        let pair = |name: &str, value: &str| (name.to_owned(), value.to_owned());
        let given = vec![
            pair("content-type", "text/plain"),
            pair("set-cookie", "sid=abc=; Path=/; HttpOnly"),
            pair("set-cookie", "lone"),
            pair("x-auth-token", "abc"),
        ];
        let kept = [
            pair("content-type", "text/plain"),
            pair("set-cookie", "sid=withheld; Path=/; HttpOnly"),
            pair("set-cookie", "=withheld"),
            pair("x-auth-token", WITHHELD),
        ];
        assert_eq!(without_credentials(given), kept);
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
