//! What waits for the writer. Rows that nobody waits for let it sleep until its time; a wake-up costs a call more than its rows do.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::Stopped;
use super::book::Write;

/// The rows of one command, and who waits for them to be durable.
pub(super) struct Batch {
    pub ticket: u64,
    pub writes: Vec<Write>,
    pub ack: Option<oneshot::Sender<Result<(), Stopped>>>,
}

/// How long a commit that nobody waits for may gather company. Calls that ended within it and the commit that follows are
/// what a power cut gives away; half of it would cost a busy gateway a tenth more of its time.
const WINDOW: Duration = Duration::from_millis(10);
/// Batches in one commit at most.
const COMPANY: usize = 4096;

/// Between those who decide and the one thread that writes.
#[derive(Default)]
pub(super) struct Queue {
    waiting: Mutex<Waiting>,
    news: Condvar,
}

#[derive(Default)]
struct Waiting {
    batches: Vec<Batch>,
    /// Somebody waits for one of them.
    is_awaited: bool,
    /// The writer sleeps.
    sleep: Option<Sleep>,
    end: Option<End>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Sleep {
    /// There is nothing to write.
    Idle,
    /// There is something to write, for which it is not time yet; so many are enough once somebody waits.
    Gathering(usize),
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum End {
    /// Somebody waits for the end: what is here is written, and then one commit that makes the next start easy.
    Closing,
    /// All who could decide have gone: what is here is written.
    Deserted,
    /// There is no writer any more.
    Over,
}

/// Those who came for the last commit, if they were many.
#[derive(Clone, Copy, Default)]
pub(super) struct Crowd {
    /// How long the next commit waits for as many.
    pub patience: Duration,
    pub size: usize,
}

/// What is to be written together.
pub(super) struct Group {
    pub batches: Vec<Batch>,
    /// Nothing comes after it.
    pub is_last: bool,
}

impl Queue {
    /// Hands rows over, in the order in which they are to be written. False when nobody writes any more.
    pub fn push(&self, batch: Batch) -> bool {
        let mut waiting = self.lock();
        if waiting.end.is_some() {
            return false;
        }
        let is_awaited_first = batch.ack.is_some() && !waiting.is_awaited;
        waiting.is_awaited |= is_awaited_first;
        waiting.batches.push(batch);
        let wakes = match waiting.sleep {
            None => false,
            Some(Sleep::Idle) => true,
            Some(Sleep::Gathering(enough)) => {
                is_awaited_first || waiting.batches.len() >= if waiting.is_awaited { enough } else { COMPANY }
            }
        };
        if wakes {
            waiting.sleep = None;
        }
        drop(waiting);
        if wakes {
            self.news.notify_one();
        }
        true
    }

    /// Has the writer write what is here and end. What is pushed from now on is refused.
    pub fn close(&self) {
        self.end(End::Closing);
    }

    /// The same, when nobody is left who waits for the end.
    pub fn desert(&self) {
        self.end(End::Deserted);
    }

    fn end(&self, end: End) {
        self.lock().end.get_or_insert(end);
        self.news.notify_one();
    }

    /// For the writer, when it ends: whoever waits hears that nobody writes.
    pub fn over(&self) {
        let mut waiting = self.lock();
        waiting.end = Some(End::Over);
        waiting.batches.clear();
    }

    /// For the writer: what is to be written next, once it is time. While nobody waits for it that is [`WINDOW`] after the
    /// first came; once somebody does, when the crowd is there again or its patience has ended. `None`: there is nothing,
    /// and nothing will come.
    pub fn take(&self, crowd: Crowd) -> Option<Group> {
        let mut waiting = self.lock();
        while waiting.batches.is_empty() && waiting.end.is_none() {
            waiting.sleep = Some(Sleep::Idle);
            waiting = self.news.wait(waiting).unwrap_or_else(PoisonError::into_inner);
        }
        let opened = Instant::now();
        while waiting.batches.len() < COMPANY && waiting.end.is_none() {
            let patience = match waiting.is_awaited {
                false => WINDOW,
                true if waiting.batches.len() < crowd.size => crowd.patience,
                true => Duration::ZERO,
            };
            let left = patience.saturating_sub(opened.elapsed());
            if left.is_zero() {
                break;
            }
            waiting.sleep = Some(Sleep::Gathering(crowd.size));
            waiting = self.news.wait_timeout(waiting, left).unwrap_or_else(PoisonError::into_inner).0;
        }
        waiting.sleep = None;
        let rest = waiting.batches.len().min(COMPANY);
        let rest = waiting.batches.split_off(rest);
        let batches = std::mem::replace(&mut waiting.batches, rest);
        waiting.is_awaited = waiting.batches.iter().any(|batch| batch.ack.is_some());
        let is_last = waiting.end.is_some() && waiting.batches.is_empty();
        match batches.is_empty() && waiting.end != Some(End::Closing) {
            true => None,
            false => Some(Group { batches, is_last }),
        }
    }

    /// Nothing that can panic is done under the lock.
    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
