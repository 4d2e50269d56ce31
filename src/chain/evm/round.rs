//! Receipts that many settlements want at about the same moment: asked for together, in one round trip.

use futures_util::future::join_all;

use super::node::{self, Asked, Block, Receipt};
use crate::chain::rounds;
use crate::chain::rpc::{Rpc, RpcError};

/// Receipts in one round trip, which asks for the latest block as well; some providers refuse lists of more than ten calls.
const MOST: usize = 9;

/// The receipts, `None` where there is none, and the latest block when they were asked for.
pub type Receipts = (Vec<Option<Receipt>>, Block);

/// Who waits for receipts.
pub type Rounds = rounds::Rounds<Vec<[u8; 32]>, Receipts>;
type Wanted = rounds::Wanted<Vec<[u8; 32]>, Receipts>;

/// The receipts of some transactions of ours, in the next round. Never of a stranger's, whose receipt can be as large as a
/// block: the answers of everybody in the round come together.
pub async fn together(rounds: &Rounds, rpc: &Rpc, hashes: &[[u8; 32]]) -> Asked<Receipts> {
    let ask = |wanted| async { drop(join_all(trips(wanted).into_iter().map(|trip| ask_for_all(rpc, trip))).await) };
    rounds.join(hashes.to_vec(), ask).await
}

/// Divides what is wanted into round trips; what one wants stays together.
fn trips(wanted: Vec<Wanted>) -> Vec<Vec<Wanted>> {
    let mut trips: Vec<Vec<Wanted>> = Vec::new();
    let mut room = 0;
    for one in wanted {
        match trips.last_mut().filter(|_| one.question.len() <= room) {
            Some(trip) => {
                room -= one.question.len();
                trip.push(one);
            }
            None => {
                room = MOST.saturating_sub(one.question.len());
                trips.push(vec![one]);
            }
        }
    }
    trips
}

async fn ask_for_all(rpc: &Rpc, trip: Vec<Wanted>) {
    let all: Vec<_> = trip.iter().flat_map(|one| one.question.iter().copied()).collect();
    let answers = answers(rpc, &all).await;
    let mut from = 0;
    for one in trip {
        let mine = from..from + one.question.len();
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
        let want = |count| Wanted { question: vec![[7; 32]; count], tell: tokio::sync::oneshot::channel().0 };
        let sizes = |counts: &[usize]| -> Vec<Vec<usize>> {
            let trips = trips(counts.iter().map(|count| want(*count)).collect());
            trips.iter().map(|trip| trip.iter().map(|one| one.question.len()).collect()).collect()
        };
        assert_eq!(sizes(&[1; 12]), [vec![1; 9], vec![1; 3]]);
        assert_eq!(sizes(&[8, 2, 7]), [vec![8], vec![2, 7]]);
        assert_eq!(sizes(&[20, 1]), [vec![20], vec![1]], "more than fits goes alone");
        assert!(sizes(&[]).is_empty());
    }
}
