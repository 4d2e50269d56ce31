//! Plain answers that came whole, until each is written: none of them holds its money and its place for long.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use tokio::time::{Instant, sleep};

use super::till::{End, Till};
use super::{Incomplete, Piece, STALL};
use crate::gateway::Place;

/// How often the shelf is looked over.
const ROUND: Duration = Duration::from_secs(5);

/// The answers of one worker thread that wait for their clients.
#[derive(Default)]
pub struct Shelf {
    waiting: RefCell<BTreeMap<u64, Waiting>>,
    next: Cell<u64>,
}

/// A call whose answer is on the shelf.
struct Waiting {
    since: Instant,
    till: Box<Till>,
    place: Option<Place>,
}

impl Shelf {
    pub(super) fn put(self: &Rc<Self>, till: Till, answer: Bytes, complete: bool, place: Option<Place>) -> Whole {
        let ticket = self.next.replace(self.next.get() + 1);
        let waiting = Waiting { since: Instant::now(), till: Box::new(till), place };
        self.waiting.borrow_mut().insert(ticket, waiting);
        Whole { shelf: Rc::clone(self), ticket, answer: Some(answer), written: false, complete }
    }

    /// Ends the call, if it has not ended yet.
    fn end(&self, ticket: u64, end: End) {
        // The books are told when nothing of ours is borrowed.
        let waiting = self.waiting.borrow_mut().remove(&ticket);
        if let Some(mut waiting) = waiting {
            if let (End::Broken(error), Some(place)) = (&end, &waiting.place) {
                place.broke_off(waiting.till.request(), error, waiting.till.seller());
            }
            waiting.till.end = Some(end);
            waiting.till.finish();
        }
    }

    /// Gives up, round by round, clients that leave their answer unread: the server waits for them for ever. Ends with
    /// the worker.
    pub async fn look_after(shelf: Weak<Shelf>) {
        loop {
            sleep(ROUND).await;
            let Some(shelf) = shelf.upgrade() else { return };
            shelf.give_up(Instant::now());
        }
    }

    pub(super) fn give_up(&self, now: Instant) {
        loop {
            let oldest = self.waiting.borrow().first_key_value().map(|(ticket, waiting)| (*ticket, waiting.since));
            match oldest {
                Some((ticket, since)) if now.saturating_duration_since(since) >= STALL => self.end(ticket, End::ClientStalled),
                _ => return,
            }
        }
    }
}

/// One of them, on its way to its client.
pub(super) struct Whole {
    shelf: Rc<Shelf>,
    ticket: u64,
    answer: Option<Bytes>,
    /// The answer was taken, and there was a turn in which to write it.
    written: bool,
    /// All of it is an answer.
    complete: bool,
}

impl Whole {
    /// The answer, and then its end. The books are told only after an idle turn in which the answer is written, so that
    /// nobody is charged for one that was still in here when the program died.
    pub fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Option<Piece>> {
        if let Some(answer) = self.answer.take() {
            return Poll::Ready(Some(Ok(answer)));
        }
        if !std::mem::replace(&mut self.written, true) {
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.end();
        Poll::Ready(if self.complete { None } else { Some(Err(Incomplete)) })
    }

    fn end(&mut self) {
        let end = match (&self.answer, self.complete) {
            (Some(_), _) => End::Untaken,
            (None, true) => End::Complete,
            (None, false) => End::Broken(super::cut_short()),
        };
        self.shelf.end(self.ticket, end);
    }
}

impl Drop for Whole {
    fn drop(&mut self) {
        self.end();
    }
}
