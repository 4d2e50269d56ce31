//! Whose transfers we risk fees for: a transfer that fails in its block costs us its fee and brings nothing, and whoever signs
//! many can let them all fail at once.

use std::collections::{HashMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::account::AccountId;
use crate::clock::Timestamp;
use crate::ids::PaymentId;
use crate::money::Micros;

const DAY: Duration = Duration::from_secs(24 * 60 * 60);
/// So many transfers of one wallet may fail in their blocks in a day, and so many of them count in the budget of all: one wallet
/// alone must not spend it.
const FAILURES_OF_A_WALLET: usize = 3;
/// A wallet with this much here, or that has brought as much, is no stranger.
const STANDING: Micros = Micros::new(1_000_000);
/// Transfers of a wallet that may be under way before any of it has arrived; each that arrives makes room for one more.
const FIRST_OF_A_STRANGER: usize = 4;
const FIRST: usize = 16;
/// Nobody is settled for after so many times the budget.
const CEILING: usize = 5;
/// Wallets that are remembered before old ones are forgotten.
const WALLETS: usize = 10_000;

/// The fees that bought nothing, and those that still may, network by network. A restart forgets them: they are fees, not money
/// of payers.
pub(super) struct Waste {
    budget: usize,
    networks: HashMap<String, Mutex<Network>>,
}

#[derive(Default)]
struct Network {
    wallets: HashMap<AccountId, Wallet>,
    /// Transfers that are signed and not in a block yet, and whether they are a stranger's.
    open: HashMap<PaymentId, (AccountId, bool)>,
    strangers_open: usize,
    /// When transfers failed, the oldest first: no more than three of each wallet, as many as the budget has.
    failed: VecDeque<Timestamp>,
    /// When any failed, as many as the ceiling.
    all: VecDeque<Timestamp>,
}

#[derive(Default)]
struct Wallet {
    open: usize,
    /// When the latest failed, the oldest first.
    failed: VecDeque<Timestamp>,
    /// When one never got into a block, unless one arrived since.
    silent: Option<Timestamp>,
    arrived: usize,
    brought: Micros,
    seen: Timestamp,
}

/// One payment that asks for its fee.
#[derive(Clone, Copy)]
pub(super) struct Asking<'a> {
    pub network: &'a str,
    pub wallet: AccountId,
    /// What the wallet has here.
    pub balance: Micros,
    pub now: Timestamp,
}

impl Waste {
    /// `networks` are those (CAIP-2) on which the fees are ours, and of each so many may be lost a day.
    pub fn new<'a>(networks: impl Iterator<Item = &'a str>, failures_per_day: u32) -> Waste {
        let budget = usize::try_from(failures_per_day).unwrap_or(usize::MAX);
        Waste { budget, networks: networks.map(|name| (name.to_owned(), Mutex::default())).collect() }
    }

    /// Whether another transfer of this wallet is settled for at all. `Err` says for how long not.
    pub fn pays_for(&self, asking: Asking<'_>) -> Result<(), Duration> {
        self.network(asking.network).map_or(Ok(()), |network| network.pays_for(asking, self.budget))
    }

    /// Whether there is room for this transfer now, or only when others are in their blocks.
    pub fn has_room(&self, id: PaymentId, asking: Asking<'_>) -> bool {
        self.network(asking.network).is_none_or(|network| network.has_room(id, asking, self.budget))
    }

    /// Takes the room for a transfer that is about to be signed, if there is any. From then on it may be lost, until it is known
    /// that it is not.
    pub fn risk(&self, id: PaymentId, asking: Asking<'_>) -> bool {
        let Some(mut network) = self.network(asking.network) else { return true };
        let room = network.has_room(id, asking, self.budget);
        if room {
            network.open(id, asking, self.budget);
        }
        room
    }

    /// The transfer is in a block, or can never get there: nothing more is lost by it.
    pub fn over(&self, network: &str, id: PaymentId) {
        if let Some(mut network) = self.network(network) {
            network.close(id);
        }
    }

    /// The transfer was signed, sent for a minute, and never got into a block. It cost no fee, and one wallet must not keep us
    /// at that.
    pub fn note_silence(&self, network: &str, id: PaymentId, now: Timestamp) {
        let Some(mut network) = self.network(network) else { return };
        if let Some(wallet) = network.close(id) {
            network.wallet(wallet, now).silent = Some(now);
        }
    }

    /// The transfer arrived.
    pub fn note_arrival(&self, network: &str, id: PaymentId, wallet: AccountId, amount: Micros, now: Timestamp) {
        let Some(mut network) = self.network(network) else { return };
        network.close(id);
        let wallet = network.wallet(wallet, now);
        wallet.silent = None;
        wallet.arrived = wallet.arrived.saturating_add(1);
        wallet.brought = Micros::new(wallet.brought.get().saturating_add(amount.get()));
    }

    /// The transfer failed in its block, and we have paid the fee.
    pub fn note_failure(&self, name: &str, id: PaymentId, wallet: AccountId, now: Timestamp) {
        let Some(mut network) = self.network(name) else { return };
        network.close(id);
        let own = network.wallet(wallet, now);
        let counts = recent(&own.failed, now) < FAILURES_OF_A_WALLET;
        push(&mut own.failed, FAILURES_OF_A_WALLET, now);
        push(&mut network.all, self.budget.saturating_mul(CEILING), now);
        if counts {
            push(&mut network.failed, self.budget, now);
        }
        if let Some(left) = spent_for(&network.failed, self.budget, now) {
            tracing::warn!(
                network = name,
                failed = network.failed.len(),
                seconds = left.as_secs(),
                "so many transfers failed in their blocks within a day, each at our expense, that only wallets with a balance are \
                 settled for until then (failed_transfers_per_day)"
            );
        }
    }

    fn network(&self, name: &str) -> Option<MutexGuard<'_, Network>> {
        self.networks.get(name).map(|network| network.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Network {
    fn is_stranger(&self, asking: Asking<'_>) -> bool {
        asking.balance < STANDING && self.wallets.get(&asking.wallet).is_none_or(|wallet| wallet.brought < STANDING)
    }

    fn pays_for(&self, asking: Asking<'_>, budget: usize) -> Result<(), Duration> {
        let own = self.wallets.get(&asking.wallet);
        let own = own.and_then(|wallet| spent_for(&wallet.failed, FAILURES_OF_A_WALLET, asking.now));
        let strangers = spent_for(&self.failed, budget, asking.now).filter(|_| self.is_stranger(asking));
        let everybody = spent_for(&self.all, budget.saturating_mul(CEILING), asking.now);
        own.or(strangers).or(everybody).map_or(Ok(()), Err)
    }

    /// What is under way counts as if it was going to fail.
    fn has_room(&self, id: PaymentId, asking: Asking<'_>, budget: usize) -> bool {
        if self.open.contains_key(&id) {
            return true;
        }
        if self.pays_for(asking, budget).is_err() {
            return false;
        }
        let (budget, stranger) = (budget.max(1), self.is_stranger(asking));
        let (failed, all) = (recent(&self.failed, asking.now), recent(&self.all, asking.now));
        let of_its_own = self.wallets.get(&asking.wallet).is_none_or(|wallet| wallet.open < wallet.room(stranger, asking.now));
        let of_strangers = !stranger || self.strangers_open.saturating_add(failed) < budget;
        of_its_own && of_strangers && self.open.len().saturating_add(all) < budget.saturating_mul(CEILING)
    }

    fn open(&mut self, id: PaymentId, asking: Asking<'_>, budget: usize) {
        let stranger = self.is_stranger(asking);
        if self.wallets.len() > budget.max(WALLETS) {
            self.wallets.retain(|_, wallet| wallet.open > 0 || wallet.seen.plus(DAY) > asking.now);
        }
        if self.open.insert(id, (asking.wallet, stranger)).is_none() {
            self.strangers_open += usize::from(stranger);
            self.wallet(asking.wallet, asking.now).open += 1;
        }
    }

    /// Whose transfer it was, if it was under way.
    fn close(&mut self, id: PaymentId) -> Option<AccountId> {
        let (wallet, stranger) = self.open.remove(&id)?;
        self.strangers_open = self.strangers_open.saturating_sub(usize::from(stranger));
        if let Some(own) = self.wallets.get_mut(&wallet) {
            own.open = own.open.saturating_sub(1);
        }
        Some(wallet)
    }

    fn wallet(&mut self, wallet: AccountId, now: Timestamp) -> &mut Wallet {
        let own = self.wallets.entry(wallet).or_default();
        own.seen = now;
        own
    }
}

impl Wallet {
    /// How many transfers may be under way.
    fn room(&self, stranger: bool, now: Timestamp) -> usize {
        let first = if stranger { FIRST_OF_A_STRANGER } else { FIRST };
        match recent(&self.failed, now) {
            0 if self.silent.is_some_and(|time| time.plus(DAY) > now) => 1,
            0 => first.saturating_add(self.arrived),
            failed => FAILURES_OF_A_WALLET.saturating_sub(failed),
        }
    }
}

fn recent(times: &VecDeque<Timestamp>, now: Timestamp) -> usize {
    times.iter().filter(|time| time.plus(DAY) > now).count()
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

#[cfg(test)]
mod tests {
    use super::*;

    const A_DAY: u64 = 24 * 60 * 60;
    const BASE: &str = "eip155:8453";
    const SOLANA: &str = "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp";

    fn at(secs: u64) -> Timestamp {
        Timestamp::from_secs(1_000_000 + secs)
    }

    fn wallet(n: u8) -> AccountId {
        AccountId::Evm([n; 20])
    }

    fn asking(n: u8, balance: u64, secs: u64) -> Asking<'static> {
        Asking { network: BASE, wallet: wallet(n), balance: Micros::new(balance), now: at(secs) }
    }

    fn waste(budget: u32) -> Waste {
        Waste::new([BASE, SOLANA].into_iter(), budget)
    }

    fn id(n: usize) -> PaymentId {
        let mut id = [0; 32];
        id[..8].copy_from_slice(&n.to_be_bytes());
        PaymentId(id)
    }

    fn fail(waste: &Waste, n: u8, secs: u64) {
        waste.note_failure(BASE, id(9_000), wallet(n), at(secs));
    }

    /// How many of these payments find room at once.
    fn risked(waste: &Waste, first: usize, count: usize, n: u8, balance: u64) -> usize {
        (first..first + count).filter(|number| waste.risk(id(*number), asking(n, balance, 0))).count()
    }

    #[test]
    fn a_wallet_whose_transfers_failed_at_our_expense_is_not_paid_for_until_a_day_has_passed() {
        let waste = waste(100);
        let pays = |n, secs| waste.pays_for(asking(n, 5_000_000, secs));
        for secs in 0..3 {
            assert_eq!(pays(1, secs), Ok(()), "a transfer may fail by accident");
            fail(&waste, 1, secs);
        }
        assert_eq!(pays(1, 10), Err(Duration::from_secs(A_DAY - 10)));
        assert_eq!(pays(2, 10), Ok(()), "others have nothing to do with it");
        assert_eq!((pays(1, A_DAY - 1), pays(1, A_DAY)), (Err(Duration::from_secs(1)), Ok(())));
        fail(&waste, 1, A_DAY);
        assert!(pays(1, A_DAY).is_err(), "the second and third of yesterday are not a day old");
    }

    #[test]
    fn too_many_failures_at_our_expense_leave_only_wallets_that_have_money_here_or_have_brought_some() {
        for (budget, failures) in [(3, 3), (1, 1), (0, 1)] {
            let waste = waste(budget);
            waste.note_arrival(BASE, id(1), wallet(98), STANDING, at(0));
            let pays = |n, balance, secs| waste.pays_for(asking(n, balance, secs));
            for n in 0..failures {
                assert_eq!(pays(99, 0, 0), Ok(()));
                fail(&waste, n, 0);
            }
            assert_eq!(pays(99, 0, 9), Err(Duration::from_secs(A_DAY - 9)), "{budget}");
            assert!(pays(99, 999_999, 9).is_err(), "a balance of next to nothing is none");
            if budget > 0 {
                assert_eq!((pays(99, 1_000_000, 9), pays(98, 0, 9)), (Ok(()), Ok(())));
            }
            assert_eq!(pays(99, 0, A_DAY), Ok(()));
        }
    }

    #[test]
    fn beyond_a_multiple_of_the_budget_nobody_is_paid_for_whatever_it_has() {
        let waste = waste(2);
        let rich = |secs| waste.pays_for(asking(99, 1_000_000_000, secs));
        for n in 0..10 {
            assert_eq!(rich(0), Ok(()));
            fail(&waste, n, 0);
        }
        assert_eq!((rich(1), rich(A_DAY)), (Err(Duration::from_secs(A_DAY - 1)), Ok(())));
    }

    #[test]
    fn one_wallet_alone_spends_no_more_than_three_of_the_budget_of_all_and_nothing_of_another_network() {
        let waste = waste(4);
        (0..4).for_each(|_| fail(&waste, 1, 0));
        assert_eq!(waste.pays_for(asking(2, 0, 0)), Ok(()));
        fail(&waste, 3, 0);
        assert!(waste.pays_for(asking(2, 0, 0)).is_err());
        assert_eq!(waste.pays_for(Asking { network: SOLANA, ..asking(2, 0, 0) }), Ok(()));
        assert_eq!(waste.pays_for(Asking { network: "eip155:1", ..asking(1, 0, 0) }), Ok(()), "its fees are not ours");
    }

    #[test]
    fn what_is_under_way_may_fail_so_a_wallet_has_few_such_until_some_have_arrived() {
        let waste = waste(100);
        assert_eq!(risked(&waste, 0, 50, 1, 0), 4);
        assert!(waste.risk(id(3), asking(1, 0, 0)), "the same one is one");
        assert_eq!(risked(&waste, 100, 50, 2, STANDING.get()), 16, "more of one with a balance");
        (0..4).for_each(|number| waste.note_arrival(BASE, id(number), wallet(1), Micros::new(10), at(0)));
        assert_eq!(risked(&waste, 200, 50, 1, 0), 8, "four arrived");
        waste.over(BASE, id(200));
        assert_eq!(risked(&waste, 300, 50, 1, 0), 1);
        waste.note_failure(BASE, id(201), wallet(1), at(0));
        (202..400).for_each(|number| waste.over(BASE, id(number)));
        assert_eq!(risked(&waste, 400, 50, 1, 0), 2, "two more may fail");
    }

    #[test]
    fn all_strangers_together_have_no_more_under_way_than_the_budget_has_left_and_others_are_not_held_up_by_them() {
        let waste = waste(6);
        fail(&waste, 9, 0);
        assert_eq!(risked(&waste, 0, 9, 1, 0) + risked(&waste, 10, 9, 2, 0) + risked(&waste, 20, 9, 3, 0), 5);
        assert_eq!(risked(&waste, 30, 9, 4, STANDING.get()), 9);
        assert_eq!(risked(&waste, 40, 50, 5, STANDING.get()) + risked(&waste, 90, 50, 6, STANDING.get()), 30 - 1 - 5 - 9);
    }

    #[test]
    fn a_wallet_whose_transfer_never_landed_has_one_under_way_at_a_time_until_one_arrives() {
        let waste = waste(100);
        assert_eq!(risked(&waste, 0, 4, 1, 0), 4);
        waste.note_silence(BASE, id(0), at(0));
        (1..4).for_each(|number| waste.over(BASE, id(number)));
        assert_eq!(waste.pays_for(asking(1, 0, 0)), Ok(()), "it cost no fee");
        assert_eq!(risked(&waste, 10, 9, 1, 0), 1);
        waste.note_arrival(BASE, id(10), wallet(1), Micros::new(10), at(0));
        assert_eq!(risked(&waste, 20, 9, 1, 0), 5);
        waste.note_silence(BASE, id(7_777), at(0));
        assert_eq!(waste.networks[BASE].lock().unwrap().wallets[&wallet(1)].silent, None, "what was never signed says nothing");
    }
}
