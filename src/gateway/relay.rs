//! The answer on its way: bytes pass through, the meter reads them, and whatever ends the stream ends the call once.

mod bought;
mod growth;
mod shelf;
mod till;

use std::cell::Cell;
use std::future::{Future, ready};
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{self, Context, Poll};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::future::poll_immediate;
use tokio::sync::mpsc;
use tokio::sync::mpsc::error::TrySendError;
use tokio::task::yield_now;
use tokio::time::{Instant, Sleep, sleep, sleep_until};

use super::Place;
use crate::dialect::{Dialect, Event, Gauge, Pass, Splitter, Translation, broken_stream};
use crate::error::{Code, Error};
use crate::fault;
use crate::money::Micros;
use crate::upstream::{AnswerBody, Broken};

pub(super) use bought::{Pace, pass_on};
pub(super) use growth::Growth;
pub use shelf::Shelf;
use shelf::Whole;
pub(super) use till::Tab;
use till::{End, Till};

/// One piece of the body, or the sign that the connection must be aborted because the answer is not complete.
pub type Piece = Result<Bytes, Incomplete>;

/// The answer broke off. The connection is aborted, so that nobody takes it for complete.
#[derive(Debug, Clone, Copy, thiserror::Error)]
#[error("the answer is not complete")]
pub struct Incomplete;

/// The body of a served call; dropping it (the client went away) cancels the upstream and ends the call.
///
/// It ends cleanly only when the pump has said that the answer is complete, or where [`RelayBody::end_with_its_words`] was asked
/// for. A pump that stopped for any other reason, and whatever of the answer is still waiting here, ends with [`Incomplete`].
pub struct RelayBody(Source);

enum Source {
    /// On its way through a pump.
    Pumped { pieces: mpsc::Receiver<Bytes>, close: Rc<Cell<Close>>, words_end_it: bool, breaking: bool },
    /// All of a plain answer, which was there when its head was.
    Whole(Whole),
    /// All of an answer whose call has ended in the books.
    Charged(Option<Bytes>),
}

/// How an answer ended when there is nothing more to take.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Close {
    Broken,
    /// It broke off, and its last piece says so.
    Explained,
    Complete,
}

impl Stream for RelayBody {
    type Item = Piece;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        let piece = task::ready!(self.poll_piece(cx));
        if let Some(Ok(_)) = piece {
            fault::point("reply.piece");
        }
        Poll::Ready(piece)
    }
}

impl RelayBody {
    /// Has a broken answer end cleanly after the words that say why. For clients to which these words are an end of their own,
    /// and which believe them only if the stream ends after them.
    pub fn end_with_its_words(&mut self) {
        if let Source::Pumped { words_end_it, .. } = &mut self.0 {
            *words_end_it = true;
        }
    }

    /// A body whose pieces come through a pump, which says at its end how it went.
    fn pumped() -> (mpsc::Sender<Bytes>, Rc<Cell<Close>>, RelayBody) {
        let (out, pieces) = mpsc::channel(AHEAD);
        let close = Rc::new(Cell::new(Close::Broken));
        let source = Source::Pumped { pieces, close: Rc::clone(&close), words_end_it: false, breaking: false };
        (out, close, RelayBody(source))
    }

    /// An answer that was charged before.
    pub(super) fn charged(answer: Bytes) -> RelayBody {
        RelayBody(Source::Charged(Some(answer)))
    }

    fn poll_piece(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        match &mut self.0 {
            Source::Pumped { breaking: true, .. } => Poll::Ready(Some(Err(Incomplete))),
            Source::Pumped { pieces, close, words_end_it, breaking } => match (task::ready!(pieces.poll_recv(cx)), close.get()) {
                (Some(piece), _) => Poll::Ready(Some(Ok(piece))),
                (None, Close::Complete) => Poll::Ready(None),
                (None, Close::Explained) if *words_end_it => Poll::Ready(None),
                (None, _) => {
                    // The server drops what it has not written when a body fails: one idle turn lets the last words out first.
                    *breaking = true;
                    cx.waker().wake_by_ref();
                    Poll::Pending
                }
            },
            Source::Whole(whole) => whole.poll(cx),
            Source::Charged(answer) => Poll::Ready(answer.take().map(Ok)),
        }
    }
}

/// Pieces between the upstream and a client that reads slowly; beyond them the upstream waits. Every client that stalls
/// holds so many times [`TOGETHER`].
const AHEAD: usize = 2;
/// Bytes of events that leave in one piece, about.
const TOGETHER: usize = 4 * 1024;
/// How long a client may leave a piece waiting.
const STALL: Duration = Duration::from_secs(30);
/// A stream that is silent for this long gets a comment, so that proxies keep it open.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// How long the upstream may take to end a body whose terminator has passed, or whose value is closed.
const LAST_BYTES: Duration = Duration::from_millis(100);
/// How often a running call's debt is noted for recovery.
const CHECKPOINT: Duration = Duration::from_secs(5);

/// Events that were there at the same moment, on their way to the client.
#[derive(Default)]
struct Together {
    first: Option<Bytes>,
    others: Vec<Bytes>,
    bytes: usize,
}

impl Together {
    fn add(&mut self, event: Bytes) {
        self.bytes += event.len();
        match self.first {
            None => self.first = Some(event),
            Some(_) => self.others.push(event),
        }
    }

    /// Adds what may be nothing.
    fn add_some(&mut self, event: Bytes) {
        if !event.is_empty() {
            self.add(event);
        }
    }

    /// All of them as one piece; `None` when there are none. A single event, the usual case, is not copied.
    fn piece(self) -> Option<Bytes> {
        let first = self.first?;
        if self.others.is_empty() {
            return Some(first);
        }
        let mut piece = BytesMut::with_capacity(self.bytes);
        piece.extend_from_slice(&first);
        self.others.iter().for_each(|event| piece.extend_from_slice(event));
        Some(piece.freeze())
    }
}

/// What is being relayed and how it is charged.
pub(super) struct Sale {
    pub tab: Tab,
    pub gauge: Gauge,
    /// Of an answer that does not come in the caller's dialect.
    pub translation: Option<Translation>,
    /// What the upstream speaks, and what the caller does.
    pub heard: Dialect,
    pub dialect: Dialect,
    pub stream: bool,
    /// Bytes of the body that the client was promised; `None` for one that ends where it ends.
    pub length: Option<u64>,
    /// When the answer must have ended.
    pub deadline: Instant,
    /// Resolves when who pays for it may not any more, with what it is told.
    pub ended: Ended,
}

/// The word that a payer may not go on, once it comes.
pub(in crate::gateway) type Ended = Pin<Box<dyn Future<Output = Error>>>;

/// Starts to relay. What needs no pump is handed over as it is; otherwise the pump is a task of its own, so that the deadline
/// and a client that left are noticed even while nobody reads. It makes its first step at once: what has arrived by now
/// leaves together with the head, in one write.
pub(super) async fn relay(mut body: AnswerBody, sale: Sale, shelf: &Rc<Shelf>, place: Place) -> RelayBody {
    if sale.length.is_some()
        && let Some(answer) = body.whole().await
    {
        return RelayBody(Source::Whole(shelve(sale, answer, shelf, Some(place))));
    }
    let (pump, relayed) = Pump::new(sale);
    let mut pumping = Box::pin(async move {
        pump.run(body, Some(&place)).await;
    });
    if poll_immediate(&mut pumping).await.is_none() {
        actix_web::rt::spawn(pumping);
    }
    relayed
}

/// Takes an answer in that came whole.
fn shelve(mut sale: Sale, answer: Bytes, shelf: &Rc<Shelf>, place: Option<Place>) -> Whole {
    handing_over();
    sale.gauge.chunk(&answer);
    sale.gauge.ended();
    let complete = sale.gauge.complete();
    shelf.put(Till::new(sale.tab, sale.gauge, sale.stream), answer, complete, place)
}

struct Pump {
    till: Till,
    translation: Option<Translation>,
    heard: Dialect,
    dialect: Dialect,
    stream: bool,
    length: Option<u64>,
    until: Pin<Box<Sleep>>,
    ended: Ended,
    out: mpsc::Sender<Bytes>,
    /// What the body goes by when there is nothing more to take.
    close: Rc<Cell<Close>>,
    /// When a checkpoint was noted last.
    noted: Option<Instant>,
    /// What was owed when a piece was handed over after which a checkpoint is due, and how many pieces followed it.
    owed: Option<(Micros, usize)>,
}

impl Pump {
    fn new(sale: Sale) -> (Pump, RelayBody) {
        let (out, close, relayed) = RelayBody::pumped();
        let Sale { tab, gauge, translation, heard, dialect, stream, length, deadline, ended } = sale;
        let (mut till, until) = (Till::new(tab, gauge, stream), Box::pin(sleep_until(deadline)));
        till.unseen = translation.is_some();
        let pump = Pump { till, translation, heard, dialect, stream, length, until, ended, out, close, noted: None, owed: None };
        (pump, relayed)
    }

    async fn run(mut self, mut body: AnswerBody, place: Option<&Place>) {
        let end = match self.stream {
            true => self.events(&mut body).await,
            false => self.chunks(&mut body).await,
        };
        if let End::Complete = end {
            // Read to its very end the connection can be used again; the client has its whole answer already.
            let _ = tokio::time::timeout(LAST_BYTES, body.next()).await;
        }
        // Otherwise this closes the upstream connection, before the books are closed.
        drop(body);
        if let End::Complete = end {
            self.close.set(Close::Complete);
        }
        if let (End::Broken(error), Some(place)) = (&end, place) {
            place.broke_off(self.till.request(), error, self.till.seller());
        }
        let last_words = match &end {
            End::PayerEnded(error) | End::Broken(error) | End::Spent { error, .. } if self.stream => {
                Some(broken_stream(self.dialect, error, self.till.request()))
            }
            _ => None,
        };
        let is_waiting = matches!(end, End::Complete | End::Broken(_) | End::Spent { .. });
        // Of a plain answer that was still to be translated nobody has had anything.
        let untaken = !self.stream && self.translation.is_some() && matches!(end, End::PayerEnded(_));
        self.till.end = Some(if untaken { End::Untaken } else { end });
        if is_waiting {
            self.taken().await;
        }
        self.till.finish();
        if let Some(words) = last_words {
            // A client that does not take its last words has left: the connection breaks either way.
            if let Ok(Ok(())) = tokio::time::timeout(KEEP_ALIVE, self.out.send(words)).await {
                self.close.set(Close::Explained);
            }
        }
    }

    /// An event stream: whole events, each flushed as it comes.
    async fn events(&mut self, body: &mut AnswerBody) -> End {
        let mut splitter = Splitter::of(self.heard);
        // Both are asked before every wait, and neither is set anew for every event.
        let out = self.out.clone();
        let mut gone = pin!(out.closed());
        let mut silence = pin!(sleep(KEEP_ALIVE));
        let mut heard = Instant::now();
        let mut is_more_here = false;
        loop {
            if is_more_here {
                // Hundreds of upstreams that say much at once would hold up everybody else on this thread.
                yield_now().await;
            }
            let chunk = tokio::select! {
                biased;
                () = &mut gone => return End::ClientGone,
                () = &mut self.until => return End::Broken(too_long()),
                error = &mut self.ended => return End::PayerEnded(error),
                rest = ready(Bytes::new()), if is_more_here => Some(Ok(rest)),
                chunk = body.next() => chunk,
                () = &mut silence => {
                    if heard.elapsed() >= KEEP_ALIVE {
                        if let Some(end) = self.send(Bytes::from_static(b": keep-alive\n\n")).await {
                            return end;
                        }
                        heard = Instant::now();
                    }
                    silence.as_mut().reset(heard + KEEP_ALIVE);
                    continue;
                }
            };
            let mut together = Together::default();
            let mut end = self.read(chunk, &mut splitter, &mut together);
            // Events that are here already leave together, in one write; nothing is waited for.
            while end.is_none() && together.bytes < TOGETHER {
                let Some(chunk) = poll_immediate(body.next()).await else { break };
                end = self.read(chunk, &mut splitter, &mut together);
            }
            is_more_here = together.bytes >= TOGETHER;
            if let Some(piece) = together.piece() {
                // What is heard and not passed on, as thinking that nobody asked to see, is silence to the client.
                heard = Instant::now();
                if let Some(gone) = self.send(piece).await {
                    return gone;
                }
            }
            if let Some(end) = end {
                return end;
            }
        }
    }

    /// Takes what came from the upstream, as much of it as leaves in one piece; the splitter keeps the rest. `Some` when the
    /// stream ends with it.
    fn read(&mut self, chunk: Option<Result<Bytes, Broken>>, splitter: &mut Splitter, together: &mut Together) -> Option<End> {
        match chunk {
            Some(Ok(bytes)) => {
                for event in splitter.push(bytes) {
                    let end = match event {
                        Ok(event) => self.pass(event, together),
                        Err(too_long) => Some(End::Broken(cut(&too_long.to_string()))),
                    };
                    if end.is_some() || together.bytes >= TOGETHER {
                        return end;
                    }
                }
                None
            }
            Some(Err(broken)) => Some(End::Broken(cut(&broken.to_string()))),
            None => {
                // An event that was not finished counts, and only a terminator makes the answer complete.
                let end = splitter.finish().and_then(|event| self.pass(event, together));
                Some(end.unwrap_or_else(|| End::Broken(cut("the upstream ended the stream before it was complete"))))
            }
        }
    }

    /// Meters one event on its way; `Some` when the stream ends with it.
    fn pass(&mut self, event: Event, together: &mut Together) -> Option<End> {
        let end = match self.till.gauge.event(&event) {
            Pass::Forward => None,
            Pass::Drop => return None,
            Pass::Error(error) => return Some(End::Broken(error)),
            Pass::Done => Some(End::Complete),
        };
        if let Some(spent) = self.till.cover() {
            return Some(spent);
        }
        if let Some(translation) = &mut self.translation {
            together.add_some(translation.event(&event));
            let ending = end.is_some().then(|| translation.end());
            self.till.unseen = !translation.has_output();
            return match ending {
                None => end,
                Some(Some(words)) => {
                    together.add_some(words);
                    end
                }
                Some(None) => Some(End::Broken(cut("the upstream ended the stream without a word on why it stopped"))),
            };
        }
        if let (Some(End::Complete), Some(usage)) = (&end, self.till.gauge.owed_usage()) {
            // The caller asked for usage and the upstream never reported any: it gets our count, before the terminator.
            together.add(usage);
        }
        together.add(event.bytes);
        end
    }

    /// A plain answer: bytes as they come. Where its length was promised it is whole when all of them have passed, and
    /// where nothing says how long it is, when its content is.
    async fn chunks(&mut self, body: &mut AnswerBody) -> End {
        loop {
            let whole = self.length.is_none() && self.till.gauge.complete();
            let chunk = tokio::select! {
                biased;
                () = self.out.closed() => return End::ClientGone,
                () = &mut self.until => return if whole { self.complete().await } else { End::Broken(too_long()) },
                error = &mut self.ended => return if whole { self.complete().await } else { End::PayerEnded(error) },
                chunk = body.next() => chunk,
                // An upstream that keeps the connection open without a word on the end may never say more.
                () = sleep(LAST_BYTES), if whole => return self.complete().await,
            };
            match chunk {
                Some(Ok(bytes)) => {
                    self.till.gauge.chunk(&bytes);
                    if let Some(translation) = &mut self.translation {
                        if !translation.chunk(&bytes) {
                            return End::Broken(cut("the answer is too long to be translated"));
                        }
                    } else if let Some(end) = self.send(bytes).await {
                        return end;
                    }
                }
                None => {
                    if body.ended_well() {
                        self.till.gauge.ended();
                    }
                    return if self.till.gauge.complete() { self.complete().await } else { End::Broken(cut_short()) };
                }
                // It may also end without a farewell.
                Some(Err(_)) if whole => return self.complete().await,
                Some(Err(broken)) => return End::Broken(cut(&broken.to_string())),
            }
        }
    }

    /// All of a plain answer is there. One that was to be translated goes to the client now.
    async fn complete(&mut self) -> End {
        let Some(translation) = self.translation.take() else { return End::Complete };
        let Some(answer) = translation.whole() else {
            return End::Broken(cut("the upstream's answer is none in its dialect"));
        };
        self.send(answer).await.unwrap_or(End::Complete)
    }

    /// Hands one piece to the client; a client that does not take it for long, or before the deadline, is given up.
    async fn send(&mut self, bytes: Bytes) -> Option<End> {
        handing_over();
        self.checkpoint();
        let full = match self.out.try_send(bytes) {
            Ok(()) => None,
            Err(TrySendError::Closed(_)) => return Some(End::ClientGone),
            Err(TrySendError::Full(piece)) => Some(piece),
        };
        if let Some(piece) = full {
            let end = tokio::select! {
                biased;
                sent = self.out.send(piece) => sent.err().map(|_| End::ClientGone),
                () = &mut self.until => Some(End::ClientStalled),
                error = &mut self.ended => Some(End::PayerEnded(error)),
                () = sleep(STALL) => Some(End::ClientStalled),
            };
            if end.is_some() {
                return end;
            }
        }
        if let Some((_, followed)) = &mut self.owed {
            *followed += 1;
        }
        // Half a plain answer is none, so only a stream owes for a part.
        let is_due = self.stream && self.noted.is_none_or(|noted| noted.elapsed() >= CHECKPOINT);
        if is_due && self.owed.is_none() && self.till.has_parts() {
            self.owed = self.till.owed().map(|owed| (owed, 0));
        }
        None
    }

    /// Notes what was owed for pieces that have been taken: soon after the first one of the answer itself, and every few
    /// seconds after. Not before: a program that dies then would charge for words that nobody heard.
    fn checkpoint(&mut self) {
        let waiting = AHEAD - self.out.capacity();
        if let Some((owed, followed)) = self.owed
            && waiting <= followed
        {
            self.owed = None;
            self.noted = Some(Instant::now());
            self.till.checkpoint(owed);
        }
    }

    /// Waits until the last piece was taken to be written, which happens before this task runs again. The books are told
    /// after that, so that nobody is charged for an answer that was still in here when the program died.
    async fn taken(&mut self) {
        tokio::select! {
            biased;
            // An error means that nobody takes anything any more.
            _ = self.out.reserve_many(AHEAD) => {}
            () = &mut self.until => {}
            () = sleep(STALL) => {}
        }
    }
}

/// A piece of an answer is about to leave for its client.
fn handing_over() {
    fault::point("stream.chunk");
}

fn too_long() -> Error {
    Error::new(Code::UpstreamTimeout, "the call was ended at its time limit; you pay for what was delivered")
}

fn cut(cause: &str) -> Error {
    Error::new(Code::UpstreamError, "the answer broke off at the upstream; you pay for what was delivered").because(cause)
}

fn cut_short() -> Error {
    cut("the upstream ended the answer before it was complete")
}

#[cfg(test)]
mod tests;
