//! Responses from a record instead of from upstream. Nothing here can reach the network.

use std::fs::File;
use std::io::{self, Read};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use attestations::Digest;
use bytes::Bytes;
use http::header::CONTENT_LENGTH;
use http::{HeaderMap, Request, Response, StatusCode, Version};
use http_body_util::BodyExt;
use hyper::body::{Body, Frame, Incoming, SizeHint};
use sha2::{Digest as _, Sha256};
use url::Url;

use super::body::digest_of;
use super::gateway::{Answer, say};
use super::request;
use crate::step::{Complete, IncidentKind, StepRecorder};
use crate::store as materials;
use crate::store::{Exchange, Miss, Replay, StepRequest};

/// The bytes of a stored body that are read at once.
const PIECE: usize = 1 << 16;

/// Answers one request of the step that `recorder` belongs to.
pub(crate) async fn answer(
    replay: &Arc<Replay>,
    recorder: &Arc<StepRecorder>,
    request: Request<Incoming>,
    url: &Url,
    max_body: u64,
) -> Answer {
    let _flight = recorder.begin();
    let (parts, incoming) = request.into_parts();
    let target = format!("{} {url}", parts.method);
    let is_http2 = parts.version == Version::HTTP_2;
    let headers = request::upstream_headers(parts.headers, parts.version);
    let body = match digest(incoming, max_body).await {
        Ok(body) => body,
        Err((kind, status)) => {
            recorder.incident(kind, &target, "", 0);
            return say(status, &kind.to_string());
        }
    };
    let asked = StepRequest { method: parts.method.as_str(), url: url.as_str(), headers: &headers, body };
    match replay.answer(recorder.step(), &asked) {
        Ok(materials::Answer::Exchange(found)) => {
            let found = found.clone();
            give(replay.clone(), recorder, found, &target, is_http2).await
        }
        Ok(materials::Answer::Failure(failure)) => {
            recorder.incident(IncidentKind::FailedBefore, &target, &failure.reason, 0);
            recorder.failure(recorder.order(), failure.clone());
            let status = StatusCode::from_u16(failure.status).unwrap_or(StatusCode::BAD_GATEWAY);
            say(status, &failure.reason)
        }
        Err(Miss(why)) => {
            recorder.incident(IncidentKind::NotRecorded, &target, &why, 0);
            // A status that clients do not retry: the build fails in any case.
            say(StatusCode::FORBIDDEN, &format!("{}: {why}", IncidentKind::NotRecorded))
        }
    }
}

async fn digest(mut body: Incoming, max: u64) -> Result<Option<Digest>, (IncidentKind, StatusCode)> {
    if body.is_end_stream() {
        return Ok(None);
    }
    let (mut hasher, mut size) = (Sha256::new(), 0);
    while let Some(frame) = body.frame().await {
        let Ok(frame) = frame else {
            return Err((IncidentKind::RequestTruncated, StatusCode::BAD_REQUEST));
        };
        if let Ok(data) = frame.into_data() {
            size += data.len() as u64;
            if size > max {
                return Err((IncidentKind::TooLarge, StatusCode::PAYLOAD_TOO_LARGE));
            }
            hasher.update(&data);
        }
    }
    Ok(Some(digest_of(&mut hasher)))
}

async fn give(
    replay: Arc<Replay>,
    recorder: &Arc<StepRecorder>,
    found: Exchange,
    target: &str,
    is_http2: bool,
) -> Answer {
    let changed = |why: &str| {
        recorder.incident(IncidentKind::Changed, target, why, 0);
        say(StatusCode::FORBIDDEN, &format!("{}: {why}", IncidentKind::Changed))
    };
    let (headers, status) = match (found.headers(), StatusCode::from_u16(found.response.status)) {
        (Ok(headers), Ok(status)) => (headers, status),
        (Err(why), _) => return changed(&why),
        (_, Err(_)) => return changed("its status is none"),
    };
    let trailers = match found.trailers() {
        // HTTP/1.1 responses are forwarded without trailers.
        Ok(trailers) => trailers.filter(|_| is_http2),
        Err(why) => return changed(&why),
    };
    let opened = {
        let found = found.clone();
        // A large body is hashed before its first byte is sent.
        tokio::task::spawn_blocking(move || replay.body(&found)).await
    };
    let file = match opened {
        Ok(Ok(file)) => file,
        Ok(Err(error)) => return changed(&error.to_string()),
        Err(error) => return changed(&error.to_string()),
    };
    let sized = headers.contains_key(CONTENT_LENGTH);
    let body = Stored { file, left: found.response.size, sized, trailers };
    recorder.complete(Complete { order: recorder.order(), exchange: found });
    let mut answer = Response::new(body.boxed_unsync());
    *answer.status_mut() = status;
    *answer.headers_mut() = headers;
    answer
}

/// A stored body on its way to the step.
struct Stored {
    file: File,
    left: u64,
    /// Whether the recorded response had a Content-Length; one without it ends in the same form again.
    sized: bool,
    /// Its trailers.
    trailers: Option<HeaderMap>,
}

impl Body for Stored {
    type Data = Bytes;
    type Error = Box<dyn std::error::Error + Send + Sync>;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Self::Error>>> {
        if self.left == 0 {
            return Poll::Ready(self.trailers.take().map(|trailers| Ok(Frame::trailers(trailers))));
        }
        let mut piece = vec![0; PIECE.min(usize::try_from(self.left).unwrap_or(PIECE))];
        // Short enough to read synchronously; it was just read for the verification, so it is cached.
        Poll::Ready(Some(match self.file.read(&mut piece) {
            Ok(0) => Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(count) => {
                piece.truncate(count);
                self.left -= count as u64;
                Ok(Frame::data(Bytes::from(piece)))
            }
            Err(error) => Err(error.into()),
        }))
    }

    fn is_end_stream(&self) -> bool {
        self.sized && self.left == 0 && self.trailers.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        match self.sized {
            true => SizeHint::with_exact(self.left),
            false => SizeHint::default(),
        }
    }
}
