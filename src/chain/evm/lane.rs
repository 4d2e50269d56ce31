//! The order of our own transactions on one network: one nonce after the other, none twice, none left out.

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;

use tokio::sync::{Mutex, MutexGuard};

use super::gap::Gap;

/// So many mined nonces are remembered as ours, for nodes that are behind and for reorganisations.
const REMEMBERED: u64 = 1000;

/// Hands out gas nonces. A nonce is used up only when its transaction is in the journal, so a refused entry leaves no gap.
#[derive(Default)]
pub struct Lane {
    next: Cell<u64>,
    turn: Mutex<()>,
    /// The nonces of our settlements.
    held: RefCell<BTreeSet<u64>>,
    pub gap: Cell<Option<Gap>>,
}

/// The right to use one nonce; dropped without [`Turn::taken`], the nonce goes to the next in line.
pub struct Turn<'a> {
    lane: &'a Lane,
    nonce: u64,
    _turn: MutexGuard<'a, ()>,
}

impl Lane {
    /// A transaction that was journaled before a restart holds this nonce, whether the nodes remember it or not.
    pub fn occupied(&self, nonce: u64) {
        self.next.set(self.next.get().max(nonce.saturating_add(1)));
        self.held.borrow_mut().insert(nonce);
    }

    /// Its settlement is over. Should a reorganisation drop the transaction now, nobody else fills the nonce.
    pub fn release(&self, nonce: u64) {
        self.held.borrow_mut().remove(&nonce);
    }

    /// Whether a settlement of ours sees to it that this nonce is used.
    pub fn holds(&self, nonce: u64) -> bool {
        self.held.borrow().contains(&nonce)
    }

    /// The chain counts so many transactions of ours; older nonces are forgotten.
    pub fn mined(&self, count: u64) {
        let mut held = self.held.borrow_mut();
        *held = held.split_off(&count.saturating_sub(REMEMBERED));
    }

    /// Waits for its turn. `pending` is what the chain counts, including what waits there; it may lag behind us, and it
    /// may be ahead when the operator used the key by hand.
    pub async fn turn(&self, pending: u64) -> Turn<'_> {
        let turn = self.turn.lock().await;
        Turn { lane: self, nonce: self.next.get().max(pending), _turn: turn }
    }
}

impl Turn<'_> {
    pub fn nonce(&self) -> u64 {
        self.nonce
    }

    /// The transaction with this nonce is durable.
    pub fn taken(self) {
        self.lane.occupied(self.nonce);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn block_on<T>(future: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(future)
    }

    #[test]
    fn a_nonce_is_used_once_and_a_refused_one_is_not_lost() {
        block_on(async {
            let lane = Lane::default();
            lane.occupied(4);
            let refused = lane.turn(3).await;
            assert_eq!(refused.nonce(), 5, "the chain does not remember what we journaled");
            drop(refused);
            let kept = lane.turn(3).await;
            assert_eq!(kept.nonce(), 5, "the journal refused, so nothing was sent with it");
            kept.taken();
            assert_eq!(lane.turn(3).await.nonce(), 6);
            assert!(lane.holds(5) && !lane.holds(6), "a refused nonce is nobody's");
            assert_eq!(lane.turn(9).await.nonce(), 9, "the key was used by hand");
            lane.release(5);
            assert!(lane.holds(4) && !lane.holds(5), "the nonce of a settlement that is over may be filled");
            assert_eq!(lane.turn(3).await.nonce(), 6, "and is not handed out again");
        });
    }
}
