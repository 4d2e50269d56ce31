//! Who has to settle before the upstream is opened: a wallet that had an upstream call for nothing, for a day, and
//! everybody on a day with too many of them.

use std::collections::{HashMap, VecDeque};
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
}

impl Trust {
    pub fn new(failures_per_day: u32) -> Self {
        Trust { budget: usize::try_from(failures_per_day).unwrap_or(usize::MAX), failures: Mutex::default() }
    }

    /// Watches one upstream call that is opened before its payment has settled. Unless the watch is called off, the call
    /// was for nothing: it counts, whether the settlement failed or the caller just went away.
    pub fn watch(&self, wallet: AccountId, clock: Clock) -> Watch<'_> {
        Watch { trust: self, wallet, clock, on: true }
    }

    fn failed(&self, wallet: AccountId, now: Timestamp) {
        let Ok(mut failures) = self.failures.lock() else { return };
        failures.wallets.insert(wallet, now);
        failures.latest.push_back(now);
        if failures.latest.len() > self.budget {
            failures.latest.pop_front();
        }
        if failures.wallets.len() > self.budget.max(WALLETS) {
            failures.wallets.retain(|_, time| time.plus(DAY) > now);
        }
    }

    pub fn must_settle_first(&self, wallet: AccountId, now: Timestamp) -> bool {
        let Ok(failures) = self.failures.lock() else { return true };
        let recent = |time: &Timestamp| time.plus(DAY) > now;
        let exhausted = failures.latest.len() >= self.budget && failures.latest.front().is_none_or(recent);
        exhausted || failures.wallets.get(&wallet).is_some_and(recent)
    }
}

/// Wallets that are remembered before old ones are forgotten.
const WALLETS: usize = 10_000;

/// See [`Trust::watch`].
pub(super) struct Watch<'a> {
    trust: &'a Trust,
    wallet: AccountId,
    clock: Clock,
    on: bool,
}

impl Watch<'_> {
    /// The call was not for nothing: its payment settled, or the upstream refused it.
    pub fn call_off(&mut self) {
        self.on = false;
    }
}

impl Drop for Watch<'_> {
    fn drop(&mut self) {
        if self.on {
            self.trust.failed(self.wallet, self.clock.now());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn clock() -> Clock {
        Clock::new(|| Timestamp::from_secs(1_000_000))
    }

    #[test]
    fn an_upstream_call_for_nothing_costs_a_wallet_a_day_of_trust() {
        let trust = Trust::new(3);
        let (wallet, other) = (AccountId::Evm([1; 20]), AccountId::Evm([2; 20]));
        drop(trust.watch(wallet, clock()));
        let now = clock().now();
        assert!(trust.must_settle_first(wallet, now));
        assert!(!trust.must_settle_first(other, now));
        assert!(!trust.must_settle_first(wallet, now.plus(DAY)));
    }

    #[test]
    fn a_call_that_was_paid_for_costs_no_trust() {
        let trust = Trust::new(3);
        let wallet = AccountId::Evm([1; 20]);
        trust.watch(wallet, clock()).call_off();
        assert!(!trust.must_settle_first(wallet, clock().now()));
    }

    #[test]
    fn too_many_calls_for_nothing_cost_everybody_their_trust_for_a_day() {
        let trust = Trust::new(2);
        (0..5).for_each(|n| drop(trust.watch(AccountId::Evm([n; 20]), clock())));
        let now = clock().now();
        assert!(trust.must_settle_first(AccountId::Evm([9; 20]), now));
        assert!(!trust.must_settle_first(AccountId::Evm([9; 20]), now.plus(DAY)));
    }
}
