//! Who has to settle before the upstream is opened, and whose transfers we pay no fees for any more: wallets that cost us upstream
//! calls or fees for nothing, for a day, and others on a day with too many of them.

use std::collections::{HashMap, HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use crate::account::AccountId;
use crate::clock::{Clock, Timestamp};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// So many transfers of one wallet may fail in their blocks in a day, each at our expense.
const WASTE_OF_A_WALLET: usize = 3;

/// Unsettled upstream calls of the last day, and fees that bought nothing. A restart forgets them: they cost upstream calls and
/// fees, not money of payers.
pub(super) struct Trust {
    budget: usize,
    failures: Mutex<Failures>,
    waste: Mutex<Waste>,
}

/// Transfers that we paid the fee of and that moved nothing.
#[derive(Default)]
struct Waste {
    /// When each wallet's latest failed, the oldest first.
    wallets: HashMap<AccountId, VecDeque<Timestamp>>,
    /// When anybody's failed, as many as the budget has.
    latest: VecDeque<Timestamp>,
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
        Trust {
            budget: usize::try_from(failures_per_day).unwrap_or(usize::MAX),
            failures: Mutex::default(),
            waste: Mutex::default(),
        }
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

    /// A transfer of this wallet failed in its block, and we have paid the fee.
    pub fn note_waste(&self, wallet: AccountId, now: Timestamp) {
        let mut waste = self.waste.lock().unwrap_or_else(PoisonError::into_inner);
        if waste.wallets.len() > self.budget.max(WALLETS) {
            waste.wallets.retain(|_, times| times.back().is_some_and(|time| time.plus(DAY) > now));
        }
        push(waste.wallets.entry(wallet).or_default(), WASTE_OF_A_WALLET, now);
        push(&mut waste.latest, self.budget, now);
        if let Some(left) = spent_for(&waste.latest, self.budget, now) {
            tracing::warn!(
                failed = waste.latest.len(),
                seconds = left.as_secs(),
                "so many transfers failed in their blocks within a day, each at our expense, that only wallets with a balance are \
                 settled for until then (failed_settlements_per_day)"
            );
        }
    }

    /// Whether we pay the fee of another transfer of this wallet, on a bad day only of one that `has_balance` here. `Err` says
    /// for how long not.
    pub fn pays_for(&self, wallet: AccountId, has_balance: impl FnOnce() -> bool, now: Timestamp) -> Result<(), Duration> {
        let waste = self.waste.lock().unwrap_or_else(PoisonError::into_inner);
        let own = waste.wallets.get(&wallet).and_then(|times| spent_for(times, WASTE_OF_A_WALLET, now));
        let all = spent_for(&waste.latest, self.budget, now);
        drop(waste);
        match own.or_else(|| all.filter(|_| !has_balance())) {
            Some(wait) => Err(wait),
            None => Ok(()),
        }
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

/// Keeps the latest of these times, at least one.
fn push(times: &mut VecDeque<Timestamp>, most: usize, now: Timestamp) {
    times.push_back(now);
    if times.len() > most.max(1) {
        times.pop_front();
    }
}

/// For how long a budget is still spent of which these were the latest costs.
fn spent_for(times: &VecDeque<Timestamp>, budget: usize, now: Timestamp) -> Option<Duration> {
    let first = times.front().filter(|_| times.len() >= budget)?;
    let left = first.plus(DAY).millis().saturating_sub(now.millis());
    (left > 0).then(|| Duration::from_millis(left))
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
    fn a_wallet_whose_transfers_failed_at_our_expense_is_not_paid_for_until_a_day_has_passed() {
        let trust = Trust::new(100);
        let at = |secs| clock(secs).now();
        let pays = |n, secs| trust.pays_for(wallet(n), || true, at(secs));
        for secs in 0..3 {
            assert_eq!(pays(1, secs), Ok(()), "a transfer may fail by accident");
            trust.note_waste(wallet(1), at(secs));
        }
        assert_eq!(pays(1, 10), Err(Duration::from_secs(A_DAY - 10)));
        assert_eq!(pays(2, 10), Ok(()), "others have nothing to do with it");
        assert_eq!((pays(1, A_DAY - 1), pays(1, A_DAY)), (Err(Duration::from_secs(1)), Ok(())));
        trust.note_waste(wallet(1), at(A_DAY));
        assert!(pays(1, A_DAY).is_err(), "the second and third of yesterday are not a day old");
    }

    #[test]
    fn too_many_failures_at_our_expense_leave_only_wallets_with_a_balance() {
        for (budget, failures) in [(3, 3), (1, 1), (0, 1)] {
            let trust = Trust::new(budget);
            let at = |secs| clock(secs).now();
            let pays = |has_balance, secs| trust.pays_for(wallet(99), || has_balance, at(secs));
            assert_eq!(pays(false, 0), Ok(()));
            for n in 0..failures {
                assert_eq!(pays(false, 0), Ok(()));
                trust.note_waste(wallet(n), at(0));
            }
            assert_eq!((pays(false, 9), pays(true, 9)), (Err(Duration::from_secs(A_DAY - 9)), Ok(())), "{budget}");
            assert_eq!(pays(false, A_DAY), Ok(()));
        }
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
