//! A body that streams, but never more than so many bytes and never with a longer pause than so.

use std::{
    future::Future as _,
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
    time::Duration,
};

use bytes::Bytes;
use http_body_util::BodyExt as _;
use hyper::body::{Body, Frame, SizeHint};
use tokio::time::{Instant, Sleep, sleep_until};

use super::{
    head::Refusal,
    log::{Recorder, Spent},
};

/// What is counted and refused differs by direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Direction {
    ToServer,
    ToContainer,
}

/// Where a body leaves the reason for its end, for whoever has to answer.
#[derive(Debug, Clone, Default)]
pub(super) struct Reason(Arc<Mutex<Option<Refusal>>>);

impl Reason {
    fn set(&self, refusal: Refusal) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(refusal);
    }

    pub(super) fn take(&self) -> Option<Refusal> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// The error of a body that was cut off.
#[derive(Debug, thiserror::Error)]
#[error("the body was cut off: {0}")]
pub(super) struct CutOff(String);

pub(super) struct Bounds {
    pub(super) direction: Direction,
    pub(super) max: u64,
    pub(super) idle: Duration,
    pub(super) deadline: Instant,
}

/// A body within bounds. Trailers are dropped: nothing that is allowed uses them.
pub(super) struct Bounded {
    inner: http_body_util::combinators::BoxBody<Bytes, CutOff>,
    bounds: Bounds,
    seen: u64,
    timer: Pin<Box<Sleep>>,
    recorder: Arc<Recorder>,
    reason: Reason,
}

impl Bounded {
    pub(super) fn new<B>(inner: B, bounds: Bounds, recorder: Arc<Recorder>, reason: Reason) -> Bounded
    where
        B: Body<Data = Bytes> + Send + Sync + 'static,
        B::Error: std::fmt::Display,
    {
        let inner = inner.map_err(|error| CutOff(error.to_string())).boxed();
        let timer = Box::pin(sleep_until(next(&bounds)));
        Bounded { inner, bounds, seen: 0, timer, recorder, reason }
    }

    fn cut(&self, refusal: Refusal) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        let text = refusal.to_string();
        self.reason.set(refusal);
        Poll::Ready(Some(Err(CutOff(text))))
    }

    fn count(&mut self, data: &Bytes) -> Result<(), Refusal> {
        let (length, max) = (data.len() as u64, self.bounds.max);
        self.seen = self.seen.saturating_add(length);
        match self.bounds.direction {
            Direction::ToServer if self.seen > max => return Err(Refusal::RequestTooLarge(max)),
            Direction::ToContainer if self.seen > max => return Err(Refusal::ResponseTooLarge(max)),
            Direction::ToServer => {
                self.recorder.spend(Spent::BytesOut, length)?;
                self.recorder.sent(length);
            }
            Direction::ToContainer => {
                self.recorder.spend(Spent::BytesIn, length)?;
                self.recorder.received(length);
            }
        }
        Ok(())
    }
}

fn next(bounds: &Bounds) -> Instant {
    (Instant::now() + bounds.idle).min(bounds.deadline)
}

impl Body for Bounded {
    type Data = Bytes;
    type Error = CutOff;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, CutOff>>> {
        loop {
            match Pin::new(&mut self.inner).poll_frame(cx) {
                Poll::Ready(Some(Ok(frame))) => {
                    let Ok(data) = frame.into_data() else { continue };
                    let deadline = next(&self.bounds);
                    self.timer.as_mut().reset(deadline);
                    return match self.count(&data) {
                        Ok(()) => Poll::Ready(Some(Ok(Frame::data(data)))),
                        Err(refusal) => self.cut(refusal),
                    };
                }
                Poll::Ready(Some(Err(error))) => {
                    if self.bounds.direction == Direction::ToServer {
                        self.reason.set(Refusal::RequestBroken);
                    }
                    return Poll::Ready(Some(Err(error)));
                }
                Poll::Ready(None) => return Poll::Ready(None),
                Poll::Pending => break,
            }
        }
        match self.timer.as_mut().poll(cx) {
            Poll::Pending => Poll::Pending,
            Poll::Ready(()) if self.bounds.direction == Direction::ToServer => {
                self.cut(Refusal::RequestTooSlow)
            }
            Poll::Ready(()) => {
                Poll::Ready(Some(Err(CutOff("the server's answer came too slowly".to_owned()))))
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}
