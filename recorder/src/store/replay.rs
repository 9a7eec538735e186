//! Answers requests from a record, and from nothing else.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{self, Read, Seek};
use std::sync::{Mutex, PoisonError};

use attestations::Digest;
use http::{HeaderMap, HeaderName, HeaderValue};
use images::{Descriptor, Store};

use super::record::{Exchange, Failure, Record, bytes_of};
use super::request::StepRequest;
use super::writer::BODY_MEDIA_TYPE;
use crate::StepId;
use errors::{Error, Kind, Result};

/// How many similar recorded requests are listed for one that is not in the record.
const NEAREST: usize = 3;

/// A request without its headers: method, URL, body.
type Key = (String, String, Option<Digest>);

/// A record with its bodies.
#[derive(Debug)]
pub struct Replay {
    store: Store,
    digest: Digest,
    record: Record,
    /// Positions in the record by request and step, in the order of the requests.
    by_request: BTreeMap<Key, BTreeMap<StepId, Vec<(usize, usize)>>>,
    /// Whether responses recorded for another step are used if the step has none: steps may be added between commits.
    from_any_step: bool,
    state: Mutex<ReplayState>,
}

#[derive(Debug, Default)]
struct ReplayState {
    /// The positions that each step has received.
    given: BTreeSet<(StepId, (usize, usize))>,
    /// Bodies whose digests were verified.
    checked: BTreeSet<Digest>,
}

/// The record's answer to a request.
#[derive(Debug)]
pub enum Answer<'a> {
    /// The recorded exchange.
    Exchange(&'a Exchange),
    /// The request failed when it was recorded.
    Failure(&'a Failure),
}

/// The request is not in the record; with similar ones that are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Miss(pub String);

impl Replay {
    /// Loads the record with this digest. Each of its bodies must be in the store with the recorded size.
    ///
    /// # Errors
    /// When the record or a body is missing, or the record does not match its digest.
    pub fn load(store: Store, digest: &Digest) -> Result<Replay> {
        let (_, record) = Record::stored(&store, digest)?;
        let private = record.private_bodies();
        let missing: Vec<_> = private.iter().filter(|(body, _)| !store.contains(body)).collect();
        if !missing.is_empty() {
            return Err(not_for_everybody(missing.into_iter().map(|(_, asked)| asked.clone()).collect()));
        }
        for (body, size) in record.bodies() {
            let found = store.describe(BODY_MEDIA_TYPE, &body)?;
            if found.size != size {
                return Err(Error::new(
                    Kind::Input,
                    format!(
                        "material {body} has {} bytes in the store, and {size} were recorded",
                        found.size
                    ),
                )
                .hint("the store was changed: remove that blob and fetch the materials again"));
            }
        }
        let mut by_request = BTreeMap::<Key, BTreeMap<StepId, Vec<_>>>::new();
        for (number, step) in record.steps.iter().enumerate() {
            for (place, found) in step.exchanges.iter().enumerate() {
                let asked = &found.request;
                let key = (asked.method.clone(), asked.url.clone(), asked.body);
                let by_step = by_request.entry(key).or_default();
                by_step.entry(step.step.clone()).or_default().push((number, place));
            }
        }
        Ok(Replay {
            store,
            digest: *digest,
            record,
            by_request,
            from_any_step: false,
            state: Mutex::default(),
        })
    }

    /// Allows every step to receive the responses of any step, for a replay of another commit than the recorded one.
    #[must_use]
    pub fn for_any_step(mut self) -> Replay {
        self.from_any_step = true;
        self
    }

    /// The record's digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }

    /// The record.
    pub fn record(&self) -> &Record {
        &self.record
    }

    /// The recorded answer to a request of `step`. A repeated request gets the next recorded response; after the
    /// last, that one again if all were the same.
    ///
    /// # Errors
    /// When the record does not have it.
    pub fn answer(&self, step: &StepId, asked: &StepRequest<'_>) -> std::result::Result<Answer<'_>, Miss> {
        let key = (asked.method.to_owned(), asked.url.to_owned(), asked.body);
        let by_step = self.by_request.get(&key);
        let own = by_step.and_then(|by_step| by_step.get(step));
        let other = || by_step.filter(|_| self.from_any_step)?.values().next();
        let places = own.or_else(other).map(Vec::as_slice).unwrap_or_default();
        let fitting: Vec<(usize, usize)> =
            places.iter().copied().filter(|place| asked.differs_from(self.at(*place)).is_none()).collect();
        let Some(last) = fitting.last() else { return self.unknown(step, asked, places) };
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let next = fitting.iter().find(|place| !state.given.contains(&(step.clone(), **place)));
        let place = match next {
            Some(place) => place,
            None if self.all_alike(&fitting) => last,
            None => {
                let text = format!(
                    "{} {} was asked {} times when it was recorded, with different answers, and now once more",
                    asked.method,
                    asked.url,
                    fitting.len()
                );
                return Err(Miss(text));
            }
        };
        state.given.insert((step.clone(), *place));
        Ok(Answer::Exchange(self.at(*place)))
    }

    /// Starts from the first responses for a step that is run again.
    pub fn again(&self, step: &StepId) {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.given.retain(|(asker, _)| asker != step);
    }

    fn at(&self, (step, place): (usize, usize)) -> &Exchange {
        &self.record.steps[step].exchanges[place]
    }

    fn all_alike(&self, places: &[(usize, usize)]) -> bool {
        let answer = |place: &(usize, usize)| {
            let response = &self.at(*place).response;
            (response.status, response.body, &response.trailers)
        };
        places.windows(2).all(|two| answer(&two[0]) == answer(&two[1]))
    }

    fn unknown(
        &self,
        step: &StepId,
        asked: &StepRequest<'_>,
        places: &[(usize, usize)],
    ) -> std::result::Result<Answer<'_>, Miss> {
        if let Some(first) = places.first() {
            let how = asked.differs_from(self.at(*first)).unwrap_or_default();
            return Err(Miss(format!("it was recorded with other headers: {how}")));
        }
        let steps = self.record.steps.iter().filter(|found| found.step == *step);
        let failed = steps
            .flat_map(|found| &found.failures)
            .find(|failure| failure.method == asked.method && failure.url == asked.url);
        match failed {
            Some(failure) => Ok(Answer::Failure(failure)),
            None => Err(Miss(self.nearest(step, asked))),
        }
    }

    /// The recorded requests most similar to this one: the same request by another step or with another body, then
    /// the URLs with the longest common prefix.
    fn nearest(&self, step: &StepId, asked: &StepRequest<'_>) -> String {
        let mut all: Vec<(usize, String)> = Vec::new();
        for (own, found) in self.record.exchanges() {
            let request = &found.request;
            let common = request.url.bytes().zip(asked.url.bytes()).take_while(|(a, b)| a == b).count();
            let same = request.url == asked.url;
            let note = match (same, request.method == asked.method, own == step) {
                (true, true, true) => " with another body".to_owned(),
                (true, _, false) => format!(" by {own}"),
                _ => String::new(),
            };
            all.push((common + usize::from(same), format!("{} {}{note}", request.method, request.url)));
        }
        all.sort_by(|a, b| b.0.cmp(&a.0).then_with(|| a.1.cmp(&b.1)));
        all.dedup_by(|a, b| a.1 == b.1);
        let names: Vec<String> = all.into_iter().take(NEAREST).map(|(_, name)| name).collect();
        match names.is_empty() {
            true => "nothing was recorded".to_owned(),
            false => format!("the nearest that was recorded: {}", names.join(", ")),
        }
    }

    /// Opens a recorded body at its beginning, with its digest verified. Slow the first time, because it reads the
    /// whole body.
    ///
    /// # Errors
    /// When it is missing or does not match its digest.
    pub fn body(&self, exchange: &Exchange) -> io::Result<File> {
        let response = &exchange.response;
        let mut file = File::open(self.store.path_of(&response.body))?;
        let checked = |state: &ReplayState| state.checked.contains(&response.body);
        if !checked(&self.state.lock().unwrap_or_else(PoisonError::into_inner)) {
            let wanted = Descriptor::new(BODY_MEDIA_TYPE, response.body, response.size);
            let mut reader = images::store::VerifyingReader::new(&mut file, &wanted);
            let mut buffer = vec![0; 1 << 16];
            while reader.read(&mut buffer)? > 0 {}
            file.rewind()?;
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.checked.insert(response.body);
        }
        Ok(file)
    }
}

impl Exchange {
    /// The response's headers.
    ///
    /// # Errors
    /// With the name of an invalid header.
    pub fn headers(&self) -> std::result::Result<HeaderMap, String> {
        header_map(&self.response.headers)
    }

    /// The response's trailers, if any.
    ///
    /// # Errors
    /// With the name of an invalid header.
    pub fn trailers(&self) -> std::result::Result<Option<HeaderMap>, String> {
        let trailers = header_map(&self.response.trailers)?;
        Ok((!trailers.is_empty()).then_some(trailers))
    }
}

/// Private bodies are missing, as they should be everywhere but at the first builder.
pub(super) fn not_for_everybody(asked: Vec<String>) -> Error {
    Error::new(Kind::NotFound, "recorded responses are missing that were given to steps with secrets or credentials")
        .details(asked)
        .hint(
            "they are not attached to an image: ask its builder for `materials export --include-private`, and give \
             the file with --materials; or ask the servers themselves with --online",
        )
}

fn header_map(list: &[(String, String)]) -> std::result::Result<HeaderMap, String> {
    let mut all = HeaderMap::new();
    for (name, value) in list {
        let bad = || format!("the record has a header {name:?} that cannot be one");
        let key = HeaderName::from_bytes(name.as_bytes()).map_err(|_| bad())?;
        let value = bytes_of(value).and_then(|bytes| HeaderValue::from_bytes(&bytes).ok());
        all.append(key, value.ok_or_else(bad)?);
    }
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(number: usize) -> StepId {
        StepId::new("stage", number)
    }

    use crate::store::record::{RecordedRequest, Response, StepExchanges};
    use crate::store::writer::StoreWriter;

    const URL: &str = "http://a.example/simple/";

    fn exchange(url: &str, accept: &str, body: &[u8]) -> Exchange {
        Exchange {
            request: RecordedRequest {
                method: "GET".into(),
                url: url.into(),
                headers: vec![("accept".into(), accept.into())],
                body: None,
            },
            response: Response {
                status: 200,
                headers: vec![("content-type".into(), "text/plain".into())],
                body: Digest::of(body),
                size: body.len() as u64,
                trailers: vec![],
            },
            private: false,
        }
    }

    fn replay(bodies: &[(&str, &str, &[u8])]) -> (tempfile::TempDir, Replay) {
        let folder = tempfile::tempdir().unwrap();
        let store = Store::open(folder.path()).unwrap();
        bodies.iter().for_each(|(_, _, body)| drop(store.put(BODY_MEDIA_TYPE, body).unwrap()));
        let exchanges = bodies.iter().map(|(url, accept, body)| exchange(url, accept, body)).collect();
        let failures = vec![Failure {
            method: "GET".into(),
            url: "http://down.example/".into(),
            status: 502,
            reason: "upstream failed".into(),
        }];
        let record = Record::new(vec![StepExchanges { step: line(1), exchanges, failures }]);
        let digest = StoreWriter::new(store.clone()).finish(&record).unwrap();
        (folder, Replay::load(store, &digest).unwrap())
    }

    fn ask(replay: &Replay, step: &StepId, url: &str, accept: &str) -> std::result::Result<Vec<u8>, Miss> {
        let mut headers = HeaderMap::new();
        headers.insert("accept", accept.parse().unwrap());
        let asked = StepRequest { method: "GET", url, headers: &headers, body: None };
        match replay.answer(step, &asked)? {
            Answer::Failure(failure) => Ok(failure.reason.clone().into_bytes()),
            Answer::Exchange(found) => {
                let mut bytes = Vec::new();
                replay.body(found).unwrap().read_to_end(&mut bytes).unwrap();
                Ok(bytes)
            }
        }
    }

    #[test]
    fn answers_come_in_the_order_of_asking_and_never_more() {
        let (_folder, replay) = replay(&[(URL, "a", b"1"), (URL, "a", b"2"), (URL, "b", b"3")]);
        assert_eq!(ask(&replay, &line(1), URL, "a"), Ok(b"1".to_vec()));
        assert_eq!(ask(&replay, &line(1), URL, "b"), Ok(b"3".to_vec()));
        assert_eq!(ask(&replay, &line(1), URL, "a"), Ok(b"2".to_vec()));
        let Miss(why) = ask(&replay, &line(1), URL, "a").unwrap_err();
        assert!(why.contains("asked 2 times"), "{why}");
        assert_eq!(ask(&replay, &line(1), URL, "b"), Ok(b"3".to_vec()), "the only answer does again");
        replay.again(&line(2));
        assert!(ask(&replay, &line(1), URL, "a").is_err());
        replay.again(&line(1));
        assert_eq!(ask(&replay, &line(1), URL, "a"), Ok(b"1".to_vec()));
    }

    #[test]
    fn where_another_step_asks_it_has_an_order_of_its_own() {
        let (_folder, replay) = replay(&[(URL, "a", b"1"), (URL, "a", b"2")]);
        let replay = replay.for_any_step();
        for step in [&line(2), &line(3)] {
            assert_eq!(ask(&replay, step, URL, "a"), Ok(b"1".to_vec()));
            assert_eq!(ask(&replay, step, URL, "a"), Ok(b"2".to_vec()));
            assert!(ask(&replay, step, URL, "a").is_err());
        }
        replay.again(&line(3));
        assert_eq!(ask(&replay, &line(3), URL, "a"), Ok(b"1".to_vec()));
        assert!(ask(&replay, &line(2), URL, "a").is_err());
    }

    #[test]
    fn what_was_not_recorded_is_told_with_what_is_nearest() {
        let (_folder, replay) = replay(&[(URL, "a", b"1"), ("http://b.example/", "a", b"2")]);
        let Miss(why) = ask(&replay, &line(1), "http://a.example/simple/x", "a").unwrap_err();
        assert!(
            why.contains("nearest that was recorded: GET http://a.example/simple/, GET http://b"),
            "{why}"
        );
        let Miss(why) = ask(&replay, &line(1), URL, "c").unwrap_err();
        assert_eq!(why, "it was recorded with other headers: now accept: c, recorded accept: a");
        let Miss(why) = ask(&replay, &line(9), URL, "a").unwrap_err();
        assert!(why.contains("GET http://a.example/simple/ by stage#1"), "{why}");
        let failed = ask(&replay, &line(1), "http://down.example/", "a");
        assert_eq!(failed, Ok(b"upstream failed".to_vec()));
    }

    #[test]
    fn a_changed_missing_or_longer_body_is_found_before_it_is_used() {
        let (folder, replay) = replay(&[(URL, "a", b"body")]);
        let path = replay.store.path_of(&Digest::of(b"body"));
        std::fs::write(&path, b"bodY").unwrap();
        let found = &replay.record.steps[0].exchanges[0];
        let error = replay.body(found).unwrap_err().to_string();
        assert!(error.contains("should have the digest"), "{error}");
        for (bytes, words) in [(Some(&b"body+"[..]), "5 bytes"), (None, "is not there")] {
            std::fs::remove_file(&path).unwrap();
            if let Some(bytes) = bytes {
                std::fs::write(&path, bytes).unwrap();
            }
            assert!(replay.body(found).is_err());
            let again = Replay::load(Store::open(folder.path()).unwrap(), &replay.digest());
            let error = again.unwrap_err();
            let text = format!("{error} {}", error.causes().join(" "));
            assert!(text.contains(words), "{text}");
            std::fs::write(&path, b"body").unwrap();
        }
        let record = replay.store.path_of(&replay.digest());
        let mut bytes = std::fs::read(&record).unwrap();
        bytes[20] ^= 1;
        std::fs::write(&record, bytes).unwrap();
        assert!(Replay::load(Store::open(folder.path()).unwrap(), &replay.digest()).is_err());
    }
}
