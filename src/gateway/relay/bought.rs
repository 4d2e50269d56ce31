//! What was bought before, on its way: it is not metered, and who does not take it lets go of it all the same.

use std::future::Future;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use futures_util::future::poll_immediate;
use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until, timeout_at};

use super::{AHEAD, Close, RelayBody, STALL};
use crate::upstream::{AnswerBody, Broken};

/// How fast a body must pass: it may take `grace`, and beyond that as long as so many bytes a second take. A film is not cut in
/// the hands of an honest reader for its size, and nobody keeps a connection to an upstream with a byte now and then.
#[derive(Debug, Clone, Copy)]
pub(in crate::gateway) struct Pace {
    pub grace: Duration,
    pub bytes_per_second: u64,
}

impl Pace {
    /// The time of a call, and then no slower than a poor mobile line.
    pub fn after(grace: Duration) -> Pace {
        Pace { grace, bytes_per_second: 100_000 }
    }

    fn until(&self, begun: Instant, passed: u64) -> Instant {
        let millis = passed.saturating_mul(1000) / self.bytes_per_second.max(1);
        begun + self.grace + Duration::from_millis(millis)
    }
}

/// Passes a body on, of so many bytes if that was said, at this pace at least. `guard` is let go when it ends, however it does;
/// `then` follows only when all of it was taken.
pub(in crate::gateway) fn pass_on(
    (mut body, length): (AnswerBody, Option<u64>),
    pace: Pace,
    guard: impl Sized + 'static,
    then: impl Future<Output = ()> + 'static,
) -> RelayBody {
    let (out, close, relayed) = RelayBody::pumped();
    actix_web::rt::spawn(async move {
        let ended = pass((&mut body, length), pace, &out).await;
        if ended.is_ok() {
            // Read to its very end the connection can be used again.
            _ = poll_immediate(body.next()).await;
        }
        // This closes the connection to an upstream that has more.
        drop(body);
        let taken = match ended {
            Ok(until) => {
                close.set(Close::Complete);
                timeout_at(until, out.reserve_many(AHEAD)).await.is_ok_and(|taken| taken.is_ok())
            }
            Err(cause) => {
                tracing::warn!(cause, "what a job made was not passed on to its end");
                false
            }
        };
        drop((out, guard));
        if taken {
            then.await;
        }
    });
    relayed
}

/// Passes all of it on, and returns until when its last pieces may be taken; the error says why it ended before.
async fn pass((body, length): (&mut AnswerBody, Option<u64>), pace: Pace, out: &mpsc::Sender<Bytes>) -> Result<Instant, String> {
    let (begun, mut passed) = (Instant::now(), 0u64);
    loop {
        let until = pace.until(begun, passed);
        let last_may_be_taken_until = until.max(Instant::now() + STALL);
        // A reader that has all that it was promised may leave before the upstream has ended.
        if length == Some(passed) {
            return Ok(last_may_be_taken_until);
        }
        let next = tokio::select! {
            biased;
            () = out.closed() => return Err("its reader left".into()),
            next = timeout_at(until, body.next()) => next.map_err(|_| "it took too long")?,
        };
        match next {
            Some(Ok(piece)) => {
                passed = passed.saturating_add(piece.len() as u64);
                tokio::select! {
                    biased;
                    sent = out.send(piece) => sent.map_err(|_| "its reader left")?,
                    () = sleep_until(until.min(Instant::now() + STALL)) => return Err("its reader takes too little of it".into()),
                }
            }
            // A cut connection ends a body as its end does, unless its framing tells.
            None if passed == 0 => return Err("there was nothing in it".into()),
            None if body.ended_well() => return Ok(last_may_be_taken_until),
            None => return Err("the connection to the upstream was cut".into()),
            Some(Err(broken)) => return Err(Broken::to_string(&broken)),
        }
    }
}
