//! Who has to settle before the upstream is opened: wallets that cost us upstream calls for nothing, for a day, and all others on a
//! day with too many of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::Mutex;
use std::time::Duration;

use crate::account::AccountId;
use crate::clock::{Clock, Timestamp};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Unsettled upstream calls of the last day. A restart forgets them: they cost upstream calls, not money of payers.
pub(super) struct Trust {
    budget: usize,
    failures: Mutex<Failures>,
}

#[derive(Default)]
struct Failures {
    /// When each wallet last failed.
    wallets: HashMap<AccountId, Timestamp>,
    /// When anybody failed, as many as the budget has.
    latest: VecDeque<Timestamp>,
    /// Wallets with an upstream call that has not settled yet.
    open: HashSet<AccountId>,
}

impl Trust {
    pub fn new(failures_per_day: u32) -> Self {
        Trust { budget: usize::try_from(failures_per_day).unwrap_or(usize::MAX), failures: Mutex::default() }
    }

    /// Lets the upstream be opened before this wallet's payment has settled, and watches that call; `None` when it has to
    /// settle first. A wallet has one such call at a time: its balance may cover each of many payments and only one of all.
    pub fn head_start(&self, wallet: AccountId, clock: &Clock) -> Option<Watch<'_>> {
        let mut failures = self.failures.lock().ok()?;
        let now = clock.now();
        let recent = |time: &Timestamp| time.plus(DAY) > now;
        let exhausted = failures.latest.len() >= self.budget && failures.latest.front().is_none_or(recent);
        if exhausted || failures.wallets.get(&wallet).is_some_and(recent) || !failures.open.insert(wallet) {
            return None;
        }
        Some(Watch { trust: self, wallet, clock: clock.clone(), verdict: Verdict::Nothing })
    }

    fn end(&self, wallet: AccountId, verdict: Verdict, now: Timestamp) {
        let Ok(mut failures) = self.failures.lock() else { return };
        failures.open.remove(&wallet);
        if verdict == Verdict::Fine {
            return;
        }
        failures.wallets.insert(wallet, now);
        if failures.wallets.len() > self.budget.max(WALLETS) {
            failures.wallets.retain(|_, time| time.plus(DAY) > now);
        }
        if verdict == Verdict::Nothing {
            failures.latest.push_back(now);
            if failures.latest.len() > self.budget {
                failures.latest.pop_front();
            }
        }
    }
}

/// Wallets that are remembered before old ones are forgotten.
const WALLETS: usize = 10_000;

/// What an upstream call with a head start was for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Verdict {
    /// For nothing, as far as is known: it counts against the wallet and in the budget of all.
    Nothing,
    /// The settlement is under way and nobody knows yet: that may be our own chain's trouble, so it counts against the
    /// wallet only.
    Unknown,
    /// It was paid for, or the upstream refused it.
    Fine,
}

/// One upstream call with a head start. When it is dropped, also because its caller went away, the verdict counts.
pub(super) struct Watch<'a> {
    trust: &'a Trust,
    wallet: AccountId,
    clock: Clock,
    verdict: Verdict,
}

impl Watch<'_> {
    /// Its payment settled, or the upstream refused it.
    pub fn was_fine(&mut self) {
        self.verdict = Verdict::Fine;
    }

    /// Its payment is being settled.
    pub fn is_settling(&mut self) {
        self.verdict = Verdict::Unknown;
    }

    /// Its payment failed to settle.
    pub fn was_for_nothing(&mut self) {
        self.verdict = Verdict::Nothing;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        self.trust.end(self.wallet, self.verdict, self.clock.now());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock(secs: u64) -> Clock {
        Clock::new(move || Timestamp::from_secs(1_000_000 + secs))
    }

    fn wallet(n: u8) -> AccountId {
        AccountId::Evm([n; 20])
    }

    const A_DAY: u64 = 24 * 60 * 60;

    #[test]
    fn an_upstream_call_for_nothing_costs_a_wallet_a_day_of_trust() {
        let trust = Trust::new(3);
        drop(trust.head_start(wallet(1), &clock(0)));
        assert!(trust.head_start(wallet(1), &clock(A_DAY - 1)).is_none());
        assert!(trust.head_start(wallet(2), &clock(0)).is_some());
        assert!(trust.head_start(wallet(1), &clock(A_DAY)).is_some());
    }

    #[test]
    fn a_call_that_was_paid_for_costs_no_trust() {
        let trust = Trust::new(3);
        trust.head_start(wallet(1), &clock(0)).unwrap().was_fine();
        assert!(trust.head_start(wallet(1), &clock(0)).is_some());
    }

    #[test]
    fn a_wallet_has_one_unsettled_call_at_a_time() {
        let trust = Trust::new(3);
        let mut first = trust.head_start(wallet(1), &clock(0)).unwrap();
        assert!((0..8).all(|_| trust.head_start(wallet(1), &clock(0)).is_none()), "its balance may cover only one");
        first.was_fine();
        drop(first);
        assert!(trust.head_start(wallet(1), &clock(0)).is_some());
    }

    #[test]
    fn too_many_calls_for_nothing_cost_everybody_their_trust_for_a_day_and_our_own_trouble_does_not() {
        let trust = Trust::new(2);
        for n in 0..5 {
            trust.head_start(wallet(n), &clock(0)).unwrap().is_settling();
        }
        assert!(trust.head_start(wallet(1), &clock(0)).is_none(), "each of these wallets settles first");
        drop((trust.head_start(wallet(10), &clock(0)), trust.head_start(wallet(11), &clock(0))));
        assert!(trust.head_start(wallet(12), &clock(0)).is_none());
        assert!(trust.head_start(wallet(12), &clock(A_DAY)).is_some());
    }
}
