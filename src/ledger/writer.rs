//! The one thread that writes: it gathers batches, commits them together, then answers those who wait.

use std::sync::{Arc, Weak};
use std::time::{Duration, Instant};

use super::Inner;
use super::queue::{Crowd, Group, Queue};
use super::store::{Commit, Store};
use crate::{fault, metrics};

/// Batches in one commit from which there is a crowd.
const CROWD: usize = 8;
/// The longest that anybody waits for a crowd.
const PATIENCE: Duration = Duration::from_millis(2);
/// How often a commit also spares the next start its repair.
const QUICK_REPAIR_EVERY: Duration = Duration::from_secs(60);

pub(super) fn run(store: Arc<Store>, queue: Arc<Queue>, inner: Weak<Inner>) {
    let _over = Over(Arc::clone(&queue));
    let guard = Guard(inner.clone());
    commit_until_stopped(&store, &queue, &inner);
    // A planned end; anything else (a panic) is a failed write.
    std::mem::forget(guard);
}

/// However the writer ends, whoever waits for it hears of it.
struct Over(Arc<Queue>);

impl Drop for Over {
    fn drop(&mut self) {
        self.0.over();
    }
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

fn commit_until_stopped(store: &Store, queue: &Queue, inner: &Weak<Inner>) {
    let mut last_quick = Instant::now();
    let mut crowd = Crowd::default();
    while let Some(Group { batches: group, is_last }) = queue.take(crowd) {
        let begun = Instant::now();
        let commit = if is_last || last_quick.elapsed() > QUICK_REPAIR_EVERY {
            last_quick = Instant::now();
            Commit::QuickRepair
        } else {
            Commit::Usual
        };
        fault::point("commit.before");
        if let Err(error) = store.write(group.iter().flat_map(|batch| &batch.writes), commit) {
            // Unknown outcome: never retry. Everybody who waits learns nothing happened that they may rely on.
            if let Some(inner) = inner.upgrade() {
                inner.fail(&error.to_string());
            }
            return;
        }
        metrics::COMMITS.of(&[]).took(begun.elapsed());
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
        if is_last {
            return;
        }
    }
}
