//! What the offers of a Solana network say beside the requirement: who pays the fee, a recent blockhash, and a memo of their own.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{PoisonError, RwLock};

use serde_json::{Map, Value};
use tokio::time::{Duration, Instant};

use super::address::Pubkey;
use super::memo::Memos;
use super::node::Blockhash;
use super::{order, payload};
use crate::clock::Timestamp;
use crate::x402::Payment;

/// A blockhash that is younger is good enough for everybody.
const FRESH: Duration = Duration::from_secs(3);
/// One that is older is not offered: it lives for about a minute, and its payer needs time.
const STALE: Duration = Duration::from_secs(15);
/// After there was none to be had, offers go without one for so long.
const SILENCE: Duration = Duration::from_secs(5);
/// Blockhashes that were offered and are remembered: a new one is asked for at most every half second, and none is of use for
/// longer than two minutes.
const REMEMBERED: usize = 256;
/// Numbers of memos that a start leaves to each millisecond before it, so that no number is given twice.
const NUMBERS_PER_MILLISECOND: u64 = 1 << 12;

/// What changes from offer to offer on one network.
pub struct Offers {
    memos: Memos,
    next: AtomicU64,
    fee_payer: RwLock<Option<Pubkey>>,
    blockhash: RwLock<Option<(Blockhash, Instant)>>,
    /// Those that offers named, the latest last.
    named: RwLock<VecDeque<Blockhash>>,
    /// When there was none to be had.
    silence: RwLock<Option<Instant>>,
}

/// How old the blockhash is that offers would name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Age {
    Fresh,
    /// Good, and it is time to ask for another.
    Used,
    /// There is none that is good; it is worth waiting for one.
    Stale,
    /// There was no other to be had a moment ago.
    Unasked,
}

impl Offers {
    /// `secret` decides who can make memos. Without a `fee_payer` there are no offers until it is told.
    pub fn new(secret: &[u8], fee_payer: Option<Pubkey>, now: Timestamp) -> Offers {
        Offers {
            memos: Memos::new(secret),
            next: AtomicU64::new(now.millis().saturating_mul(NUMBERS_PER_MILLISECOND)),
            fee_payer: RwLock::new(fee_payer),
            blockhash: RwLock::default(),
            named: RwLock::default(),
            silence: RwLock::default(),
        }
    }

    /// Somebody else pays the fee: a facilitator said so.
    pub fn note_fee_payer(&self, fee_payer: Pubkey) {
        *self.fee_payer.write().unwrap_or_else(PoisonError::into_inner) = Some(fee_payer);
    }

    /// Whether it is known who pays the fee.
    pub fn has_fee_payer(&self) -> bool {
        self.fee_payer.read().unwrap_or_else(PoisonError::into_inner).is_some()
    }

    pub fn note_blockhash(&self, blockhash: Blockhash) {
        *self.blockhash.write().unwrap_or_else(PoisonError::into_inner) = Some((blockhash, Instant::now()));
        let mut named = self.named.write().unwrap_or_else(PoisonError::into_inner);
        if named.iter().all(|known| known.hash != blockhash.hash) {
            named.push_back(blockhash);
            if named.len() > REMEMBERED {
                named.pop_front();
            }
        }
    }

    /// The last height at which a transaction may name this blockhash, if it is one that we offered. `None` says nothing about
    /// how old it is.
    pub fn last_valid(&self, hash: &[u8; 32]) -> Option<u64> {
        let named = self.named.read().unwrap_or_else(PoisonError::into_inner);
        named.iter().rev().find(|known| known.hash == *hash).map(|known| known.last_valid)
    }

    /// There was none to be had: for a while nobody waits for one.
    pub fn note_silence(&self) {
        *self.silence.write().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
    }

    fn blockhash(&self) -> Option<(Blockhash, Instant)> {
        *self.blockhash.read().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn age(&self) -> Age {
        match self.blockhash().map(|(_, at)| at.elapsed()) {
            Some(age) if age < FRESH => Age::Fresh,
            _ if self.was_silent() => Age::Unasked,
            Some(age) if age < STALE => Age::Used,
            _ => Age::Stale,
        }
    }

    fn was_silent(&self) -> bool {
        self.silence.read().unwrap_or_else(PoisonError::into_inner).is_some_and(|at| at.elapsed() < SILENCE)
    }

    /// The `extra` of a new offer for `subject` (x402 2.27, exact on SVM).
    pub fn extra(&self, subject: &str) -> Map<String, Value> {
        let memo = self.memos.make(self.next.fetch_add(1, Ordering::Relaxed), subject);
        let mut extra = self.lasting(memo);
        if let Some((blockhash, _)) = self.blockhash().filter(|(_, at)| at.elapsed() < STALE) {
            extra.insert("recentBlockhash".into(), Pubkey(blockhash.hash).to_string().into());
            // Text, as clients expect it.
            extra.insert("lastValidBlockHeight".into(), blockhash.last_valid.to_string().into());
        }
        extra
    }

    /// The `extra` that a payment for `subject` must answer to: with its own memo if that was made here for this subject, else
    /// with one that it cannot have.
    pub fn answered(&self, payment: &Payment, subject: &str) -> Map<String, Value> {
        let theirs = payload::parse(&payment.payload).ok();
        let theirs = theirs.and_then(|transaction| order::Order::read(&transaction.message).ok()?.memo);
        match theirs.filter(|memo| self.memos.is_for(memo, subject)) {
            Some(memo) => self.lasting(memo),
            None => self.lasting(self.memos.make(self.next.fetch_add(1, Ordering::Relaxed), subject)),
        }
    }

    /// The `extra` of a payout, whose memo is its id's; with the blockhash that it may name.
    pub fn extra_of_payout(&self, memo: String) -> Map<String, Value> {
        let mut extra = self.lasting(memo);
        if let Some((blockhash, _)) = self.blockhash().filter(|(_, at)| at.elapsed() < STALE) {
            extra.insert("recentBlockhash".into(), Pubkey(blockhash.hash).to_string().into());
        }
        extra
    }

    fn lasting(&self, memo: String) -> Map<String, Value> {
        let mut extra = Map::new();
        if let Some(fee_payer) = *self.fee_payer.read().unwrap_or_else(PoisonError::into_inner) {
            extra.insert("feePayer".into(), fee_payer.to_string().into());
        }
        extra.insert("memo".into(), memo.into());
        extra
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_blockhashes_that_were_offered_are_known_with_their_end() {
        let offers = Offers::new(b"secret", None, Timestamp::from_secs(1_763_640_000));
        let blockhash = |number: usize| {
            let mut hash = [0; 32];
            hash[..8].copy_from_slice(&number.to_le_bytes());
            Blockhash { hash, last_valid: 1000 + number as u64 }
        };
        assert_eq!(offers.last_valid(&blockhash(0).hash), None);
        for number in 0..=REMEMBERED {
            // The same one again takes no second place.
            offers.note_blockhash(blockhash(number));
            offers.note_blockhash(blockhash(number));
        }
        assert_eq!(offers.last_valid(&blockhash(0).hash), None, "no more than so many are kept");
        for number in 1..=REMEMBERED {
            assert_eq!(offers.last_valid(&blockhash(number).hash), Some(1000 + number as u64));
        }
    }
}
