//! What provenance names, read from its descriptors into types.

use std::collections::BTreeMap;
use std::fmt;

use super::{Provenance, ResourceDescriptor};
use crate::digest::Digest;
use crate::foreign::Foreign;

/// A base as provenance names it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RecordedBase {
    /// Where it came from, as the builder writes it: `oci://` and a reference, or another place.
    pub uri: String,
    /// The digest of its manifest.
    pub digest: Digest,
    /// The index that it was chosen from by its platform, where it was.
    pub index: Option<Digest>,
}

/// A base without its name in the Dockerfile, or without its digest.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the provenance names a base without its name in the Dockerfile or its digest: {0}")]
pub struct UnnamedBase(Foreign);

impl Provenance {
    /// The bases that were built on, by their names in the Dockerfile.
    ///
    /// # Errors
    /// When one lacks its name or digest.
    pub fn recorded_bases(&self) -> Result<BTreeMap<String, RecordedBase>, UnnamedBase> {
        let all = self.build_definition.resolved_dependencies.iter();
        all.filter(|found| found.is(ResourceDescriptor::BASE))
            .map(|found| {
                let uri = found.uri.clone().unwrap_or_default();
                match (found.text(ResourceDescriptor::BASE_NAME), found.sha256()) {
                    (Some(name), Some(digest)) => {
                        let index = found.text(ResourceDescriptor::BASE_INDEX).and_then(|it| it.parse().ok());
                        Ok((name.to_owned(), RecordedBase { uri, digest, index }))
                    }
                    _ => Err(UnnamedBase(Foreign::new(&uri))),
                }
            })
            .collect()
    }
}

/// An exchange over the network as provenance names it, with everything that is said about it: two are the same exactly
/// when their descriptors are.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct NamedExchange {
    url: String,
    method: String,
    step: String,
    status: u64,
    size: u64,
    body: Digest,
    request_body: Option<Digest>,
}

impl NamedExchange {
    /// Reads a descriptor; none when it says less or more than this.
    pub fn read(found: &ResourceDescriptor) -> Option<Self> {
        const KNOWN: [&str; 5] = ["method", "step", "status", "size", "requestBody"];
        let known = found.annotations.keys().all(|key| KNOWN.contains(&key.as_str()));
        if !found.is(ResourceDescriptor::EXCHANGE) || !known || found.media_type.is_some() {
            return None;
        }
        let number = |key| found.annotations.get(key).and_then(serde_json::Value::as_u64);
        let request_body = match found.annotations.get("requestBody") {
            Some(digest) => Some(digest.as_str()?.parse().ok()?),
            None => None,
        };
        Some(Self {
            url: found.uri.clone()?,
            method: found.text("method")?.to_owned(),
            step: found.text("step")?.to_owned(),
            status: number("status")?,
            size: number("size")?,
            body: found.sha256().filter(|_| found.digest.len() == 1)?,
            request_body,
        })
    }
}

impl fmt::Display for NamedExchange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let [method, url, step] = [&self.method, &self.url, &self.step].map(|text| Foreign::new(text));
        write!(f, "{method} {url} of {step}: status {}, {} bytes, {}", self.status, self.size, self.body)?;
        match &self.request_body {
            Some(body) => write!(f, ", to a request with {body}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exchange() -> ResourceDescriptor {
        ResourceDescriptor::exchange("https://a.example/x", &Digest::of(b"x"))
            .annotated("step", "line 7")
            .annotated("method", "GET")
            .annotated("status", 200)
            .annotated("size", 1)
    }

    #[test]
    fn exchanges_are_the_same_when_all_that_is_said_is() {
        let read = |it: ResourceDescriptor| NamedExchange::read(&it);
        let one = read(exchange()).unwrap();
        assert_eq!(read(exchange()), Some(one.clone()));
        let body = Digest::of(b"q").to_string();
        for other in [
            exchange().annotated("step", "line 8"),
            exchange().annotated("method", "POST"),
            exchange().annotated("status", 404),
            exchange().annotated("size", 2),
            exchange().annotated("requestBody", body),
            ResourceDescriptor { uri: Some("https://b.example/x".into()), ..exchange() },
        ] {
            assert_ne!(read(other).unwrap(), one);
        }
        for unknown in [
            exchange().annotated("more", 1),
            exchange().annotated("size", "1"),
            exchange().annotated("requestBody", "none"),
            ResourceDescriptor { media_type: Some("text/html".into()), ..exchange() },
            ResourceDescriptor::package("pkg:pypi/a@1", &Digest::of(b"x")),
        ] {
            assert_eq!(read(unknown), None);
        }
    }
}
