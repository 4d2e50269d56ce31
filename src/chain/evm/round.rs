//! Receipts that many settlements want at about the same moment: asked for together, in one round trip.

use std::cell::{Cell, RefCell};

use futures_util::future::join_all;
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Duration, Instant, sleep};

use super::node::{self, Asked, Block, Receipt};
use super::rpc::{Rpc, RpcError};

/// How long the first who asks waits for others.
const GATHER: Duration = Duration::from_millis(10);
/// Receipts in one round trip, which asks for the latest block as well; some providers refuse lists of more than ten calls.
const MOST: usize = 9;

/// The receipts, `None` where there is none, and the latest block when they were asked for.
pub type Receipts = (Vec<Option<Receipt>>, Block);

/// Who waits for the next round.
#[derive(Default)]
pub struct Rounds {
    waiting: RefCell<Vec<Wanted>>,
    /// Whether somebody is gathering.
    led: Cell<bool>,
}

struct Wanted {
    hashes: Vec<[u8; 32]>,
    tell: oneshot::Sender<Asked<Receipts>>,
}

/// Gathers; if it is dropped before it asked, so are those who wait, and they learn it.
struct Lead<'a>(Option<&'a Rounds>);

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        if let Some(rounds) = self.0 {
            rounds.led.set(false);
            rounds.waiting.borrow_mut().clear();
        }
    }
}

impl Rounds {
    /// The receipts of some transactions of ours. Never of a stranger's, whose receipt can be as large as a block: the
    /// answers of everybody in the round come together.
    pub async fn receipts(&self, rpc: &Rpc, hashes: &[[u8; 32]]) -> Asked<Receipts> {
        let (tell, answer) = oneshot::channel();
        self.waiting.borrow_mut().push(Wanted { hashes: hashes.to_vec(), tell });
        if !self.led.replace(true) {
            let mut lead = Lead(Some(self));
            sleep(GATHER).await;
            let wanted = self.waiting.take();
            self.led.set(false);
            lead.0 = None;
            join_all(trips(wanted).into_iter().map(|trip| ask_for_all(rpc, trip))).await;
        }
        answer.await.unwrap_or_else(|_| Err(RpcError::Unreachable("nobody was asked".into())))
    }
}

/// One answer that many want, asked for once.
pub struct Shared<T>(Mutex<Option<(Instant, Asked<T>)>>);

impl<T> Default for Shared<T> {
    fn default() -> Shared<T> {
        Shared(Mutex::default())
    }
}

impl<T: Copy> Shared<T> {
    /// The next who asks is not told what was answered before.
    pub fn forget(&self) {
        // Whoever is asking now has not been answered yet.
        if let Ok(mut known) = self.0.try_lock() {
            *known = None;
        }
    }

    /// What was answered last if that is younger than `age`, else what `ask` answers now. Whoever comes in between waits for
    /// the same answer, and hears of the same trouble.
    pub async fn get(&self, age: Duration, ask: impl Future<Output = Asked<T>>) -> Asked<T> {
        let mut known = self.0.lock().await;
        if let Some((at, answer)) = &*known
            && at.elapsed() < if answer.is_ok() { age } else { age.min(GATHER) }
        {
            return answer.clone();
        }
        let answer = ask.await;
        *known = Some((Instant::now(), answer.clone()));
        answer
    }
}

/// Divides what is wanted into round trips; what one wants stays together.
fn trips(wanted: Vec<Wanted>) -> Vec<Vec<Wanted>> {
    let mut trips: Vec<Vec<Wanted>> = Vec::new();
    let mut room = 0;
    for one in wanted {
        match trips.last_mut().filter(|_| one.hashes.len() <= room) {
            Some(trip) => {
                room -= one.hashes.len();
                trip.push(one);
            }
            None => {
                room = MOST.saturating_sub(one.hashes.len());
                trips.push(vec![one]);
            }
        }
    }
    trips
}

async fn ask_for_all(rpc: &Rpc, trip: Vec<Wanted>) {
    let all: Vec<_> = trip.iter().flat_map(|one| one.hashes.iter().copied()).collect();
    let answers = answers(rpc, &all).await;
    let mut from = 0;
    for one in trip {
        let mine = from..from + one.hashes.len();
        from = mine.end;
        let told = answers
            .as_ref()
            .map_err(Clone::clone)
            .and_then(|(receipts, latest)| Ok((receipts[mine].iter().cloned().collect::<Asked<Vec<_>>>()?, *latest)));
        // Nobody listening is fine: the next look asks again.
        let _ = one.tell.send(told);
    }
}

/// Asks for receipts at once, and says which of them cannot be read.
async fn answers(rpc: &Rpc, hashes: &[[u8; 32]]) -> Asked<(Vec<Asked<Option<Receipt>>>, Block)> {
    let mut calls = vec![node::block("latest")];
    calls.extend(hashes.iter().map(node::receipt));
    let mut answers = rpc.batch(calls).await?.into_iter();
    let latest = answers.next().ok_or_else(|| RpcError::Unreachable("the node left calls unanswered".into()))??;
    let latest = node::read_block(latest)?;
    let receipts = answers.zip(hashes).map(|(answer, hash)| node::read_receipt(&answer?, hash)).collect();
    Ok((receipts, latest))
}

/// The receipts of any transactions, in a round trip of their own.
pub async fn alone(rpc: &Rpc, hashes: &[[u8; 32]]) -> Asked<Receipts> {
    let (receipts, latest) = answers(rpc, hashes).await?;
    Ok((receipts.into_iter().collect::<Asked<_>>()?, latest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_asks_for_a_bounded_number_and_divides_nobodys_question() {
        let want = |count| Wanted { hashes: vec![[7; 32]; count], tell: oneshot::channel().0 };
        let sizes = |counts: &[usize]| -> Vec<Vec<usize>> {
            let trips = trips(counts.iter().map(|count| want(*count)).collect());
            trips.iter().map(|trip| trip.iter().map(|one| one.hashes.len()).collect()).collect()
        };
        assert_eq!(sizes(&[1; 12]), [vec![1; 9], vec![1; 3]]);
        assert_eq!(sizes(&[8, 2, 7]), [vec![8], vec![2, 7]]);
        assert_eq!(sizes(&[20, 1]), [vec![20], vec![1]], "more than fits goes alone");
        assert!(sizes(&[]).is_empty());
    }
}
