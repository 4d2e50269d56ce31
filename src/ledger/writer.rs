//! The one thread that writes: it gathers batches, commits them together, then answers those who wait.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

use super::book::Write;
use super::store::{Commit, Store};
use super::{Inner, Stopped};
use crate::fault;

/// The rows of one command, and who waits for them to be durable.
pub(super) struct Batch {
    pub ticket: u64,
    pub writes: Vec<Write>,
    pub ack: Option<oneshot::Sender<Result<(), Stopped>>>,
}

pub(super) enum Message {
    Batch(Batch),
    Stop,
}

/// How long a commit that nobody waits for may gather company.
const WINDOW: Duration = Duration::from_millis(5);
/// Batches in one commit from which there is a crowd.
const CROWD: usize = 8;
/// The longest that anybody waits for a crowd.
const PATIENCE: Duration = Duration::from_millis(2);
/// Batches in one commit at most.
const COMPANY: usize = 4096;
/// How often a commit also spares the next start its repair.
const QUICK_REPAIR_EVERY: Duration = Duration::from_secs(60);

pub(super) fn run(store: Arc<Store>, inbox: Receiver<Message>, inner: Weak<Inner>) {
    let guard = Guard(inner.clone());
    commit_until_stopped(&store, &inbox, &inner);
    // A planned end; anything else (a panic) is a failed write.
    std::mem::forget(guard);
}

/// Stops the ledger when the writer ends in a way nobody planned.
struct Guard(Weak<Inner>);

impl Drop for Guard {
    fn drop(&mut self) {
        if let Some(inner) = self.0.upgrade() {
            inner.fail("the writer ended in the middle of its work");
        }
    }
}

fn commit_until_stopped(store: &Store, inbox: &Receiver<Message>, inner: &Weak<Inner>) {
    let mut last_quick = Instant::now();
    let mut crowd = Crowd::default();
    loop {
        let Ok(first) = inbox.recv() else { return };
        let (group, stop) = gather(first, inbox, crowd);
        let begun = Instant::now();
        let commit = if stop || last_quick.elapsed() > QUICK_REPAIR_EVERY {
            last_quick = Instant::now();
            Commit::QuickRepair
        } else {
            Commit::Usual
        };
        fault::point("commit.before");
        if (stop || !group.is_empty())
            && let Err(error) = store.write(group.iter().flat_map(|batch| &batch.writes), commit)
        {
            // Unknown outcome: never retry. Everybody who waits learns nothing happened that they may rely on.
            if let Some(inner) = inner.upgrade() {
                inner.fail(&error.to_string());
            }
            return;
        }
        fault::point("commit.after");
        if let (Some(inner), Some(last)) = (inner.upgrade(), group.last()) {
            inner.committed(last.ticket, group.len());
        }
        // A commit costs nearly as much for one batch as for ten: while there is a crowd, the next may gather for as long as
        // this one took, or until it is as many. Nobody waits who is alone.
        crowd = match group.len() {
            0..CROWD => Crowd::default(),
            size => Crowd { patience: begun.elapsed().min(PATIENCE), size },
        };
        for batch in group {
            if let Some(ack) = batch.ack {
                // Nobody waits any more when the caller went away; the rows stand all the same.
                let _ = ack.send(Ok(()));
            }
        }
        if stop {
            return;
        }
    }
}

/// Those who came for the last commit, if they were many.
#[derive(Clone, Copy, Default)]
struct Crowd {
    /// How long the next commit waits for as many.
    patience: Duration,
    size: usize,
}

/// Takes what is there. While nobody waits, gives others `WINDOW` to join; once somebody does, the crowd its patience.
fn gather(first: Message, inbox: &Receiver<Message>, crowd: Crowd) -> (Vec<Batch>, bool) {
    let mut group = Vec::new();
    let mut next = first;
    let mut waited = false;
    let opened = Instant::now();
    loop {
        match next {
            Message::Stop => return (group, true),
            Message::Batch(batch) => {
                waited |= batch.ack.is_some();
                group.push(batch);
            }
        }
        if group.len() >= COMPANY {
            return (group, false);
        }
        let patience = match waited {
            false => WINDOW,
            true if group.len() < crowd.size => crowd.patience,
            true => Duration::ZERO,
        };
        next = match inbox.recv_timeout(patience.saturating_sub(opened.elapsed())) {
            Ok(message) => message,
            Err(RecvTimeoutError::Timeout) => return (group, false),
            Err(RecvTimeoutError::Disconnected) => return (group, true),
        };
    }
}
