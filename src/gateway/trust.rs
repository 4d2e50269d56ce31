//! Who has to settle before the upstream is opened: a wallet whose settlement failed, for a day, and everybody on a day
//! with too many failures.

use std::collections::HashMap;
use std::sync::Mutex;
use std::time::Duration;

use crate::account::AccountId;
use crate::clock::Timestamp;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Failed settlements of the last day. A restart forgets them: they cost upstream calls, not money of payers.
pub(super) struct Trust {
    budget: usize,
    failures: Mutex<HashMap<AccountId, Vec<Timestamp>>>,
}

impl Trust {
    pub fn new(failures_per_day: u32) -> Self {
        Trust { budget: usize::try_from(failures_per_day).unwrap_or(usize::MAX), failures: Mutex::default() }
    }

    pub fn settlement_failed(&self, wallet: AccountId, now: Timestamp) {
        if let Ok(mut failures) = self.failures.lock() {
            forget_old(&mut failures, now);
            failures.entry(wallet).or_default().push(now);
        }
    }

    pub fn must_settle_first(&self, wallet: AccountId, now: Timestamp) -> bool {
        let Ok(mut failures) = self.failures.lock() else { return true };
        forget_old(&mut failures, now);
        failures.contains_key(&wallet) || failures.values().map(Vec::len).sum::<usize>() >= self.budget
    }
}

fn forget_old(failures: &mut HashMap<AccountId, Vec<Timestamp>>, now: Timestamp) {
    failures.retain(|_, times| {
        times.retain(|time| time.plus(DAY) > now);
        !times.is_empty()
    });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_settlement_costs_a_wallet_a_day_of_trust() {
        let trust = Trust::new(3);
        let (wallet, other) = (AccountId::Evm([1; 20]), AccountId::Evm([2; 20]));
        let now = Timestamp::from_secs(1_000_000);
        trust.settlement_failed(wallet, now);
        assert!(trust.must_settle_first(wallet, now));
        assert!(!trust.must_settle_first(other, now));
        assert!(!trust.must_settle_first(wallet, now.plus(DAY)));
    }

    #[test]
    fn too_many_failures_cost_everybody_their_trust() {
        let trust = Trust::new(2);
        let now = Timestamp::from_secs(1_000_000);
        (0..2).for_each(|n| trust.settlement_failed(AccountId::Evm([n; 20]), now));
        assert!(trust.must_settle_first(AccountId::Evm([9; 20]), now));
    }
}
