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

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::thread;

    use super::*;

    /// Longer than any test.
    const FOREVER: Duration = Duration::from_secs(3600);

    type Answer = oneshot::Receiver<Result<(), Stopped>>;

    fn unawaited(ticket: u64) -> Batch {
        Batch { ticket, writes: Vec::new(), ack: None }
    }

    fn awaited(ticket: u64) -> (Batch, Answer) {
        let (ack, answer) = oneshot::channel();
        (Batch { ack: Some(ack), ..unawaited(ticket) }, answer)
    }

    fn tickets(group: &Group) -> Vec<u64> {
        group.batches.iter().map(|batch| batch.ticket).collect()
    }

    fn take(queue: &Queue) -> Option<(Vec<u64>, bool)> {
        queue.take(Crowd::default()).map(|group| (tickets(&group), group.is_last))
    }

    #[test]
    fn rows_that_nobody_waits_for_gather_company_for_a_while_and_leave_in_their_order() {
        let queue = Queue::default();
        assert!((1..=3).all(|ticket| queue.push(unawaited(ticket))));
        let begun = Instant::now();
        assert_eq!(take(&queue), Some((vec![1, 2, 3], false)));
        assert!(begun.elapsed() >= WINDOW, "the writer slept until it was time");
    }

    #[test]
    fn a_writer_that_sleeps_wakes_for_what_comes() {
        let queue = Arc::new(Queue::default());
        let writer = thread::spawn({
            let queue = Arc::clone(&queue);
            move || take(&queue)
        });
        assert!(queue.push(unawaited(7)));
        assert_eq!(writer.join().unwrap(), Some((vec![7], false)));
    }

    #[test]
    fn who_is_waited_for_waits_for_as_many_as_came_before_and_no_longer_than_their_patience() {
        let queue = Arc::new(Queue::default());
        let (first, _first) = awaited(1);
        assert!(queue.push(first));
        let writer = thread::spawn({
            let queue = Arc::clone(&queue);
            move || queue.take(Crowd { patience: FOREVER, size: 3 }).map(|group| tickets(&group))
        });
        let (third, _third) = awaited(3);
        assert!(queue.push(unawaited(2)) && queue.push(third));
        assert_eq!(writer.join().unwrap(), Some(vec![1, 2, 3]), "with less than the crowd it would have slept for an hour");
        let (alone, _alone) = awaited(4);
        assert!(queue.push(alone));
        let group = queue.take(Crowd { patience: Duration::from_millis(1), size: 100 });
        assert_eq!(group.map(|group| tickets(&group)), Some(vec![4]), "a crowd that does not come is not waited for");
    }

    #[test]
    fn a_commit_has_an_end_and_what_is_left_is_still_waited_for() {
        let queue = Queue::default();
        let count = u64::try_from(COMPANY).unwrap() + 2;
        assert!((1..count).all(|ticket| queue.push(unawaited(ticket))));
        let (last, _last) = awaited(count);
        assert!(queue.push(last));
        let (first, is_last) = take(&queue).unwrap();
        assert_eq!((first.len(), first.last().copied(), is_last), (COMPANY, Some(count - 2), false));
        assert!(queue.lock().is_awaited);
        assert_eq!(take(&queue), Some((vec![count - 1, count], false)));
        assert!(!queue.lock().is_awaited);
    }

    #[test]
    fn what_is_there_at_the_end_is_written_and_nothing_comes_after_it() {
        for (end, is_over) in [(Queue::close as fn(&Queue), Some((vec![], true))), (Queue::desert, None)] {
            let queue = Queue::default();
            assert!(queue.push(unawaited(1)));
            end(&queue);
            let (late, answer) = awaited(2);
            assert!(!queue.push(late), "it would never be written");
            assert!(answer.blocking_recv().is_err(), "and whoever waits for it hears of it");
            assert_eq!(take(&queue), Some((vec![1], true)));
            assert_eq!(take(&queue), is_over, "a planned end has one more commit, for the next start");
        }
        let queue = Arc::new(Queue::default());
        let writer = thread::spawn({
            let queue = Arc::clone(&queue);
            move || take(&queue)
        });
        queue.close();
        assert_eq!(writer.join().unwrap(), Some((vec![], true)), "a writer that sleeps hears of the end");
    }

    #[test]
    fn when_the_writer_is_gone_nobody_waits_for_it() {
        let queue = Queue::default();
        let (batch, answer) = awaited(1);
        assert!(queue.push(batch));
        queue.over();
        assert!(answer.blocking_recv().is_err());
        assert!(!queue.push(unawaited(2)));
    }

    #[test]
    fn of_many_who_push_at_once_each_is_written_once_and_in_its_own_order() {
        const EACH: u64 = 2_000;
        let queue = Queue::default();
        let mut written = Vec::new();
        thread::scope(|scope| {
            let pushing: Vec<_> = (0..4u64)
                .map(|who| {
                    let queue = &queue;
                    scope.spawn(move || {
                        for number in 0..EACH {
                            // Some wait for theirs, which must not be in vain.
                            let (batch, answer) = awaited(who * EACH + number);
                            match number % 50 {
                                0 => {
                                    assert!(queue.push(batch));
                                    assert!(answer.blocking_recv().is_ok());
                                }
                                _ => assert!(queue.push(unawaited(batch.ticket))),
                            }
                        }
                    })
                })
                .collect();
            scope.spawn(|| {
                pushing.into_iter().for_each(|pusher| pusher.join().unwrap());
                queue.close();
            });
            loop {
                let group = queue.take(Crowd::default()).unwrap();
                written.extend(tickets(&group));
                group.batches.into_iter().filter_map(|batch| batch.ack).for_each(|ack| _ = ack.send(Ok(())));
                if group.is_last {
                    break;
                }
            }
        });
        for who in 0..4 {
            let own: Vec<_> = written.iter().copied().filter(|ticket| ticket / EACH == who).collect();
            assert_eq!(own, (who * EACH..(who + 1) * EACH).collect::<Vec<_>>());
        }
    }
}
