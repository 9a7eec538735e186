//! Sends a build's recorded requests again and compares the responses. A replay shows that an image follows from the
//! recorded responses; only the servers can show that they give them to others than the builder.

use std::time::Duration;

use attestations::Digest;
use attestations::provenance::Confirmation;
use errors::chain;
use futures_util::StreamExt as _;
use http::{HeaderName, HeaderValue, Method, StatusCode};
use jiff::Timestamp;
use serde::Serialize;
use sha2::{Digest as _, Sha256};
use url::Url;

use crate::packages;
use recorder::{Clients, Exchange, Record, StepId, Upstream, bytes_of, is_withheld};

/// The number of concurrent requests.
const AT_ONCE: usize = 8;
/// The longest time to connect, and the longest silence in the middle of a response.
const CONNECT: Duration = Duration::from_secs(30);
const STALL: Duration = Duration::from_secs(60);

/// The result for one recorded response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Confirmed {
    /// The step that received it.
    pub(crate) step: StepId,
    /// The method.
    pub(crate) method: String,
    /// The URL.
    pub(crate) url: String,
    /// The package in it, if it is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) package: Option<String>,
    /// Whether it is an index, which changes with each package that is published.
    pub(crate) is_index: bool,
    /// How the present response compares.
    pub(crate) verdict: Verdict,
    /// The reason, if it is not the same.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) reason: Option<String>,
}

impl Confirmed {
    /// Whether it is a package that was requested again without getting the same content: the build depends on it.
    pub(crate) fn is_doubtful(&self) -> bool {
        self.package.is_some() && matches!(self.verdict, Verdict::Other | Verdict::Unavailable)
    }
}

/// How the present response compares with the recorded one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The same status and the same bytes.
    Same,
    /// Another status or other bytes.
    Other,
    /// The server did not respond, or does not have it any more.
    Unavailable,
    /// The request cannot be repeated: it may change something on the server, or a header that selected the response
    /// was withheld.
    NotAsked,
}

impl Verdict {
    /// Its name in the results.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Same => "same",
            Self::Other => "other",
            Self::Unavailable => "unavailable",
            Self::NotAsked => "not-asked",
        }
    }
}

impl Serialize for Verdict {
    fn serialize<S: serde::Serializer>(&self, out: S) -> std::result::Result<S::Ok, S::Error> {
        out.serialize_str(self.name())
    }
}

/// What a signed statement says of these results.
pub(crate) fn confirmation(all: &[Confirmed], record: Digest, now: Timestamp) -> Confirmation {
    let mut found = Confirmation {
        record,
        confirmed_on: now,
        same: 0,
        changed_indexes: 0,
        gone: Vec::new(),
        differs: Vec::new(),
    };
    for one in all {
        let name = || one.package.clone().unwrap_or_else(|| one.url.clone());
        match one.verdict {
            Verdict::Same => found.same += 1,
            // What an index led to is a response of its own.
            _ if one.is_index => found.changed_indexes += 1,
            Verdict::Other => found.differs.push(name()),
            Verdict::Unavailable | Verdict::NotAsked => found.gone.push(name()),
        }
    }
    found
}

/// Sends every request of a record once, several at a time. `told` gets each result in the order of the record, with
/// the number of results so far and the total.
///
/// # Errors
/// When no client can be set up.
pub(crate) fn confirm(
    record: &Record,
    upstream: &Upstream,
    runtime: &tokio::runtime::Handle,
    told: &dyn Fn(&Confirmed, usize, usize),
) -> Result<Vec<Confirmed>, recorder::Error> {
    let clients = upstream.clients(CONNECT, STALL)?;
    let mut seen = std::collections::BTreeSet::new();
    let each: Vec<(&StepId, &Exchange)> = record
        .exchanges()
        .filter(|(_, it)| seen.insert((&it.request, it.response.status, it.response.body)))
        .collect();
    let total = each.len();
    let mut all = Vec::with_capacity(total);
    runtime.block_on(async {
        let asking = each.into_iter().map(|(step, exchange)| one(&clients, step, exchange));
        let mut answers = futures_util::stream::iter(asking).buffered(AT_ONCE);
        while let Some(confirmed) = answers.next().await {
            told(&confirmed, all.len() + 1, total);
            all.push(confirmed);
        }
    });
    Ok(all)
}

async fn one(clients: &Clients, step: &StepId, exchange: &Exchange) -> Confirmed {
    let (verdict, reason) = match asked(exchange) {
        Err(why) => (Verdict::NotAsked, Some(why)),
        Ok(request) => match compare(clients, request, exchange).await {
            Ok(()) => (Verdict::Same, None),
            Err((verdict, why)) => (verdict, Some(why)),
        },
    };
    Confirmed {
        step: step.clone(),
        method: exchange.request.method.clone(),
        url: exchange.request.url.clone(),
        package: packages::brought_by(exchange).map(|purl| purl.to_string()),
        is_index: packages::is_index(&exchange.request.url),
        verdict,
        reason,
    }
}

/// The same request again, or why it cannot be repeated.
fn asked(exchange: &Exchange) -> Result<reqwest::Request, String> {
    let recorded = &exchange.request;
    let method = match recorded.method.as_str() {
        "GET" => Method::GET,
        "HEAD" => Method::HEAD,
        other => return Err(format!("{other} may change something")),
    };
    if recorded.body.is_some() {
        return Err("it sent a body, which is not kept".to_owned());
    }
    let url = Url::parse(&recorded.url).map_err(|cause| format!("its URL is none: {cause}"))?;
    if !["http", "https"].contains(&url.scheme()) {
        return Err(format!("its URL is one of {}", url.scheme()));
    }
    // The record may come from a third party, and no step can have sent such a request.
    if !recorder::can_be_asked(&url) {
        return Err("its URL names an address or this machine".to_owned());
    }
    let mut request = reqwest::Request::new(method, url);
    for (name, value) in &recorded.headers {
        if is_withheld(value) {
            return Err(format!("its header {name} is not kept"));
        }
        let pair = HeaderName::try_from(name)
            .ok()
            .zip(bytes_of(value).and_then(|bytes| HeaderValue::from_bytes(&bytes).ok()));
        let (name, value) = pair.ok_or_else(|| format!("its header {name} is none"))?;
        request.headers_mut().append(name, value);
    }
    Ok(request)
}

async fn compare(
    clients: &Clients,
    request: reqwest::Request,
    recorded: &Exchange,
) -> Result<(), (Verdict, String)> {
    let wanted = &recorded.response;
    let gone = |cause: reqwest::Error| (Verdict::Unavailable, chain::line(&cause));
    let mut answer = clients.execute(request, false).await.map_err(gone)?;
    let status = answer.status();
    if status.as_u16() != wanted.status {
        let is_gone = status.is_server_error()
            || [StatusCode::NOT_FOUND, StatusCode::GONE, StatusCode::TOO_MANY_REQUESTS].contains(&status);
        let verdict = if is_gone { Verdict::Unavailable } else { Verdict::Other };
        return Err((verdict, format!("answered with {status}, recorded {}", wanted.status)));
    }
    let (mut hash, mut size) = (Sha256::new(), 0_u64);
    while let Some(piece) = answer.chunk().await.map_err(gone)? {
        size += piece.len() as u64;
        // A longer body is another one, whatever follows.
        if size > wanted.size {
            return Err((Verdict::Other, format!("more than the {} bytes recorded", wanted.size)));
        }
        hash.update(&piece);
    }
    let found = Digest::from_bytes(hash.finalize().into());
    match found == wanted.body {
        true => Ok(()),
        false => Err((Verdict::Other, format!("{found} of {size} bytes, recorded {}", wanted.body))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stranger_s_record_leads_to_no_address() {
        let asked_for = |url: &str| {
            let request = json(url);
            asked(&serde_json::from_value(request).unwrap())
        };
        assert!(asked_for("http://a.example/x").is_ok());
        for url in
            ["http://169.254.169.254/latest", "http://2130706433/", "http://[::1]/", "http://localhost:9/"]
        {
            assert!(asked_for(url).unwrap_err().contains("address"), "{url}");
        }
    }

    fn json(url: &str) -> serde_json::Value {
        let body = Digest::of(b"").to_string();
        serde_json::json!({
            "request": { "method": "GET", "url": url },
            "response": { "status": 200, "headers": [], "body": body, "size": 0 },
        })
    }
}
