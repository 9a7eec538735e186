//! The record of a build: one document, identified in the provenance by its digest.

use std::collections::BTreeMap;

use attestations::Digest;
use images::{Descriptor, Store};
use serde::{Deserialize, Serialize};

use crate::StepId;

use errors::{Error, Kind, Result};

/// The media type of a record.
pub(crate) const RECORD_MEDIA_TYPE: &str = "application/vnd.countersign.materials.record.v1+json";

/// The version of the format.
const VERSION: u32 = 1;

/// The most bytes of a record: about 100,000 exchanges.
pub(crate) const MAX_RECORD: u64 = 64 << 20;

/// The requests of a build's steps, and the responses they got.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Record {
    version: u32,
    /// The steps that sent requests, in the order they ran.
    pub steps: Vec<StepExchanges>,
}

/// One step of a build.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct StepExchanges {
    /// Its id, as in the provenance's `step` annotations.
    pub step: StepId,
    /// Its complete exchanges, in the order of the requests.
    pub exchanges: Vec<Exchange>,
    /// Its failed requests, in order; they fail in a replay too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub failures: Vec<Failure>,
}

impl StepExchanges {
    /// Its exchanges ordered by URL, method and digests, as in the provenance, independent of the order of the
    /// requests.
    pub fn sorted(&self) -> Vec<&Exchange> {
        let mut all: Vec<_> = self.exchanges.iter().collect();
        all.sort_by(|a, b| a.listed_as().cmp(&b.listed_as()));
        all
    }
}

/// A request and its complete response. It exists only if the whole response was received without an error.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Exchange {
    /// The request.
    pub request: RecordedRequest,
    /// The response.
    pub response: Response,
    /// Whether the step had secrets, or the request credentials: what was answered may not be for everybody.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub private: bool,
}

impl Exchange {
    fn listed_as(&self) -> impl Ord + '_ {
        let (request, response) = (&self.request, &self.response);
        (&request.url, &request.method, response.body, request.body, response.status)
    }
}

/// A recorded request.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RecordedRequest {
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// The headers that can select another response, in alphabetical order, names in lower case. Values that may be
    /// secret are withheld.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub headers: Vec<(String, String)>,
    /// SHA-256 of its body, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub body: Option<Digest>,
}

/// A recorded response.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Response {
    /// The status code.
    pub status: u16,
    /// The headers as the step received them, in order. Bytes above 127 are represented as characters of ISO 8859-1.
    pub headers: Vec<(String, String)>,
    /// SHA-256 of the body as sent: still compressed, but without transfer coding.
    pub body: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// The trailers (HTTP/2 only), in the form of the headers.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trailers: Vec<(String, String)>,
}

/// A request without a response from upstream, and the error that the step received instead.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Failure {
    /// The method.
    pub method: String,
    /// The URL.
    pub url: String,
    /// The status code that the step received.
    pub status: u16,
    /// The reason that the step received.
    pub reason: String,
}

impl Record {
    /// The record of these steps, without those that sent no request.
    pub fn new(steps: Vec<StepExchanges>) -> Record {
        let asked = |step: &StepExchanges| !step.exchanges.is_empty() || !step.failures.is_empty();
        Record { version: VERSION, steps: steps.into_iter().filter(asked).collect() }
    }

    /// Parses a record.
    ///
    /// # Errors
    /// [`Kind::Input`] for anything that is not exactly one record.
    pub fn parse(bytes: &[u8]) -> Result<Record> {
        let bad = |why: String| Error::new(Kind::Input, format!("the record of the materials: {why}"));
        if bytes.len() as u64 > MAX_RECORD {
            return Err(bad(format!("it has more than {MAX_RECORD} bytes")));
        }
        let record: Record = serde_json::from_slice(bytes).map_err(|cause| bad(cause.to_string()))?;
        match record.version {
            VERSION => Ok(record),
            other => Err(bad(format!("it is of version {other}, and this program knows {VERSION}"))
                .hint("use a newer countersign-builder")),
        }
    }

    /// Reads the record with this digest from a store, together with its descriptor.
    ///
    /// # Errors
    /// When it is missing, does not match its digest, or is not a record.
    pub fn stored(store: &Store, digest: &Digest) -> Result<(Descriptor, Record)> {
        let described = store.describe(RECORD_MEDIA_TYPE, digest)?;
        let record = Record::parse(&store.read(&described, MAX_RECORD)?)?;
        Ok((described, record))
    }

    /// Its bytes; equal records have equal bytes.
    ///
    /// # Errors
    /// [`Kind::Input`] when it is larger than a record may be.
    pub fn to_bytes(&self) -> Result<Vec<u8>> {
        let bytes = serde_json::to_vec(self)
            .map_err(|cause| Error::new(Kind::Bug, "writing the record of the materials").because(cause))?;
        match bytes.len() as u64 > MAX_RECORD {
            true => {
                Err(Error::new(Kind::Input, "the build asked for more than a record of materials can hold")
                    .hint("split the image, or build with --no-keep"))
            }
            false => Ok(bytes),
        }
    }

    /// All exchanges, each with its step's id.
    pub fn exchanges(&self) -> impl Iterator<Item = (&StepId, &Exchange)> {
        self.steps.iter().flat_map(|step| step.exchanges.iter().map(|found| (&step.step, found)))
    }

    /// The bodies it refers to, each once, with their sizes.
    pub fn bodies(&self) -> BTreeMap<Digest, u64> {
        self.exchanges().map(|(_, found)| (found.response.body, found.response.size)).collect()
    }

    /// The bodies that only private exchanges received, each with one of its requests.
    pub fn private_bodies(&self) -> BTreeMap<Digest, String> {
        let (private, public): (Vec<_>, Vec<_>) = self.exchanges().partition(|(_, found)| found.private);
        let name = |(step, found): (&StepId, &Exchange)| {
            (found.response.body, format!("{step}: {} {}", found.request.method, found.request.url))
        };
        let mut all: BTreeMap<Digest, String> = private.into_iter().map(name).collect();
        for (_, found) in public {
            all.remove(&found.response.body);
        }
        all
    }
}

/// A header's value as text, without loss of bytes.
pub(crate) fn text_of(value: &[u8]) -> String {
    value.iter().map(|byte| char::from(*byte)).collect()
}

/// The bytes of such a text.
pub fn bytes_of(text: &str) -> Option<Vec<u8>> {
    text.chars().map(|c| u8::try_from(u32::from(c)).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record() -> Record {
        let exchange = Exchange {
            request: RecordedRequest {
                method: "GET".into(),
                url: "http://a.example/".into(),
                headers: vec![("accept".into(), "*/*".into())],
                body: None,
            },
            response: Response {
                status: 200,
                headers: vec![("x-name".into(), text_of(b"caf\xe9"))],
                body: Digest::of(b"x"),
                size: 1,
                trailers: vec![("grpc-status".into(), "0".into())],
            },
            private: false,
        };
        let step =
            |name: &str, exchanges| StepExchanges { step: StepId::new(name, 1), exchanges, failures: vec![] };
        Record::new(vec![step("line 1", vec![exchange]), step("line 2", vec![])])
    }

    #[test]
    fn a_record_comes_back_as_it_was() {
        let record = record();
        assert_eq!(record.steps.len(), 1, "a step that asked for nothing is not told of");
        assert_eq!(Record::parse(&record.to_bytes().unwrap()).unwrap(), record);
        assert_eq!(bytes_of(&record.steps[0].exchanges[0].response.headers[0].1).unwrap(), b"caf\xe9");
    }

    #[test]
    fn strangers_fields_and_versions_are_refused() {
        let text = String::from_utf8(record().to_bytes().unwrap()).unwrap();
        for (from, to) in [
            ("\"version\":1", "\"version\":2"),
            ("\"version\":1", "\"version\":1,\"more\":0"),
            ("\"status\":200", "\"status\":200,\"status\":404"),
            ("\"method\"", "\"Method\""),
            ("sha256:", "md5:"),
        ] {
            assert!(text.contains(from));
            assert!(Record::parse(text.replacen(from, to, 1).as_bytes()).is_err(), "{to}");
        }
    }
}
