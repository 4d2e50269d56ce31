//! An upstream's accepted answer: its head, and its body as it comes.

use std::collections::VecDeque;
use std::future::{Future as _, poll_fn};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::StreamExt as _;
use tokio::time::{Instant, Sleep, sleep_until};

use super::connection::Body;
use crate::dialect::Goods;

/// An answer that an upstream has begun. Nothing of its head goes to the caller but what stands here: the other headers
/// describe the operator's account.
#[derive(Debug)]
pub struct Answer {
    /// What it is an answer to: what was asked, or the same in another dialect.
    pub form: Goods,
    /// `text/event-stream` or `application/json`, as was asked.
    pub content_type: &'static str,
    /// Bytes of the body, if the upstream said so. A stream's length changes when its events are normalised.
    pub content_length: Option<u64>,
    /// Which upstream it was, and what it calls the model.
    pub upstream: String,
    pub model: String,
    pub body: AnswerBody,
}

/// Why a body ended before its end.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    #[error("the upstream closed the connection after {seen} of {expected} bytes")]
    Truncated { seen: u64, expected: u64 },
    #[error("the connection to the upstream broke: {0}")]
    Connection(String),
    #[error("the upstream did not finish within the time a call may take")]
    Deadline,
}

/// The bytes of an answer. Dropping it closes the connection to the upstream; one that was read to its end is kept for
/// the next call.
///
/// The end of a body whose length was not said may be a cut connection. Whether an answer of words is whole, only the
/// [`crate::dialect::Meter`] knows; of a file it is [`AnswerBody::ended_well`].
pub struct AnswerBody(Source);

enum Source {
    Http(Box<HttpBody>),
    /// Read to its end already.
    Here {
        bytes: Bytes,
        well: bool,
    },
    Made(VecDeque<Bytes>),
    Ended {
        well: bool,
    },
}

struct HttpBody {
    body: Body,
    expected: Option<u64>,
    seen: u64,
    deadline: Pin<Box<Sleep>>,
    /// What was read before its turn.
    early: Option<Option<Result<Bytes, Broken>>>,
}

/// How much of an answer was read ahead. It comes once more, from the start.
#[derive(Debug)]
pub(super) enum Ahead {
    /// All there is, or all that its content needs.
    Whole(Bytes),
    /// More than was to be read.
    Part,
}

impl std::fmt::Debug for AnswerBody {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("AnswerBody")
    }
}

impl AnswerBody {
    pub(super) fn http(body: Body, expected: Option<u64>, deadline: Instant) -> Self {
        let deadline = Box::pin(sleep_until(deadline));
        AnswerBody(Source::Http(Box::new(HttpBody { body, expected, seen: 0, deadline, early: None })))
    }

    /// All of the answer, if it is here already and as long as was said. Otherwise it comes piece by piece.
    pub async fn whole(&mut self) -> Option<Bytes> {
        match &mut self.0 {
            Source::Http(body) => poll_fn(|cx| Poll::Ready(body.whole(cx))).await,
            Source::Here { bytes, well } => {
                let (bytes, well) = (std::mem::take(bytes), *well);
                self.0 = Source::Ended { well };
                Some(bytes)
            }
            Source::Made(_) | Source::Ended { .. } => None,
        }
    }

    /// Reads on until the answer is over or more than `most` bytes of it are here. One whose length was not said is over as soon
    /// as `is_closed` says so of the pieces that it was shown: an upstream that keeps the connection open says no more.
    ///
    /// # Errors
    /// The answer broke off.
    pub(super) async fn read_ahead(&mut self, most: usize, mut is_closed: impl FnMut(&Bytes) -> bool) -> Result<Ahead, Broken> {
        let mut read = BytesMut::new();
        let mut only: Option<Bytes> = None;
        loop {
            let Some(piece) = self.next().await.transpose()? else {
                let (bytes, well) = (only.unwrap_or_else(|| read.freeze()), self.ended_well());
                self.0 = Source::Here { bytes: bytes.clone(), well };
                return Ok(Ahead::Whole(bytes));
            };
            let Source::Http(body) = &mut self.0 else { return Ok(Ahead::Part) };
            let is_over = body.expected.is_none() && is_closed(&piece);
            only = if read.is_empty() { Some(piece.clone()) } else { None };
            read.extend_from_slice(&piece);
            if is_over || read.len() > most {
                let bytes = only.unwrap_or_else(|| read.freeze());
                body.early = Some(Some(Ok(bytes.clone())));
                return Ok(if is_over { Ahead::Whole(bytes) } else { Ahead::Part });
            }
        }
    }

    /// Whether the body is over and its framing said so: its length was reached, or its last chunk came. The end of a
    /// connection says nothing.
    pub fn ended_well(&self) -> bool {
        matches!(self.0, Source::Ended { well: true })
    }

    pub(super) fn made(chunks: impl IntoIterator<Item = Bytes>) -> Self {
        AnswerBody(Source::Made(chunks.into_iter().collect()))
    }
}

impl HttpBody {
    /// All of the body, read to its end, if it came in one piece with the head; whatever else came is kept for later.
    fn whole(&mut self, cx: &mut Context<'_>) -> Option<Bytes> {
        let Poll::Ready(first) = self.poll(cx) else { return None };
        match first {
            Some(Ok(bytes)) if self.expected == Some(bytes.len() as u64) => {
                // Read to its very end the connection is used again; where the end is still to come, it is not.
                _ = self.poll(cx);
                Some(bytes)
            }
            other => {
                self.early = Some(other);
                None
            }
        }
    }

    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Bytes, Broken>>> {
        if let Some(early) = self.early.take() {
            return Poll::Ready(early);
        }
        let next = match Pin::new(&mut self.body).poll_next(cx) {
            Poll::Pending => return self.deadline.as_mut().poll(cx).map(|()| Some(Err(Broken::Deadline))),
            Poll::Ready(next) => next,
        };
        Poll::Ready(match (next, self.expected) {
            (Some(Ok(chunk)), _) => {
                self.seen = self.seen.saturating_add(chunk.len() as u64);
                Some(Ok(chunk))
            }
            (Some(Err(error)), _) => Some(Err(Broken::Connection(error.to_string()))),
            // The codec takes a connection that closed early for a clean end.
            (None, Some(expected)) if self.seen < expected => Some(Err(Broken::Truncated { seen: self.seen, expected })),
            (None, _) => None,
        })
    }
}

impl Stream for AnswerBody {
    type Item = Result<Bytes, Broken>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let next = match &mut self.0 {
            Source::Ended { .. } => return Poll::Ready(None),
            Source::Here { bytes, well } => {
                let (bytes, well) = (std::mem::take(bytes), *well);
                self.0 = Source::Ended { well };
                return Poll::Ready(Some(Ok(bytes)).filter(|piece| piece.as_ref().is_ok_and(|bytes| !bytes.is_empty())));
            }
            Source::Made(chunks) => Poll::Ready(chunks.pop_front().map(Ok)),
            Source::Http(body) => body.poll(cx),
        };
        if matches!(next, Poll::Ready(None | Some(Err(_)))) {
            // Closes a broken connection at once, and never polls past the end.
            let well = match &self.0 {
                Source::Http(body) => body.body.ended_well(),
                Source::Made(_) | Source::Here { .. } | Source::Ended { .. } => true,
            };
            self.0 = Source::Ended { well: well && matches!(next, Poll::Ready(None)) };
        }
        next
    }
}
