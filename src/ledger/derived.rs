//! What the books say a second time, receipts, usage and what limits have counted, held against what explains it.

use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, HashMap};
use std::fmt;
use std::hash::{Hash, Hasher as _};
use std::ops::ControlFlow;

use super::commit::sums_of;
use super::rows::{Account, Kind, Receipt, Reference, Transfer};
use super::snapshot::Snapshot;
use super::{Broken, adjust, payouts};
use crate::account::AccountId;
use crate::clock::{Day, Timestamp};
use crate::ids::{KeyId, PaymentId, RequestId};

/// A sum over rows in any order. Two tables that say the same have the same one; two that do not, once in 2^64 times. It
/// needs no memory and no look-up, so every row of the largest ledger can be compared.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint(u64);

impl Fingerprint {
    /// Counts numbers under a name. What is counted under one name adds up.
    pub fn add(&mut self, name: impl Hash, numbers: &[u64]) {
        let mut hasher = DefaultHasher::new();
        name.hash(&mut hasher);
        for (place, number) in numbers.iter().enumerate() {
            let mut hasher = hasher.clone();
            place.hash(&mut hasher);
            // Odd, so that no bit of the number is lost.
            self.0 = self.0.wrapping_add((hasher.finish() | 1).wrapping_mul(*number));
        }
    }
}

/// Breaks that are named one by one; of more than these only the fact is told.
const NAMED: usize = 100;

/// What the transfers say that other tables say again.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Explained {
    /// What calls were charged of balances and payments, and what of it was given back.
    charges: Fingerprint,
    refunds: Fingerprint,
    /// What the operator gave and took by hand.
    pub adjustments: Fingerprint,
    /// What wallets gave for payouts.
    pub payouts: Fingerprint,
}

impl Explained {
    pub fn add(&mut self, transfer: &Transfer) {
        match transfer.kind {
            Kind::Charge => self.charges.add((transfer.reference, &transfer.debit), &[transfer.amount.get()]),
            Kind::Refund => self.refunds.add((transfer.reference, &transfer.credit), &[transfer.amount.get()]),
            Kind::Adjustment => {
                let Transfer { reference, debit, credit, amount, .. } = transfer;
                adjust::count(&mut self.adjustments, *reference, debit, credit, *amount);
            }
            Kind::Payout => payouts::count(&mut self.payouts, transfer),
            Kind::Payment | Kind::Credit | Kind::Reversal => {}
        }
    }
}

/// What the receipts say that other tables say again.
#[derive(Default)]
struct Received {
    explained: Explained,
    usage: Fingerprint,
    served: Fingerprint,
    limits: Fingerprint,
    receipts: usize,
    problems: Vec<String>,
}

/// What was found beside the problems: how many receipts there are, and what they say of payments that served calls.
pub(super) struct Receipts {
    pub count: usize,
    pub served: Fingerprint,
}

/// Adds what is wrong with receipts, usage and limits. `None` when `stop` has ended it.
pub(super) fn check(
    snapshot: &Snapshot,
    explained: &Explained,
    stop: &dyn Fn() -> bool,
    problems: &mut Vec<String>,
) -> Result<Option<Receipts>, Broken> {
    let mut received = Received::default();
    let ended = snapshot.receipts(|request, receipt| {
        if received.receipts.is_multiple_of(1024) && stop() {
            return ControlFlow::Break(());
        }
        received.add(request, &receipt);
        ControlFlow::Continue(())
    })?;
    if ended.is_break() {
        return Ok(None);
    }
    if received.explained.charges != explained.charges {
        problems.push("receipts do not say what calls were charged".into());
        name_transfers(snapshot, Kind::Charge, Receipt::paid, problems)?;
    }
    if received.explained.refunds != explained.refunds {
        problems.push("receipts do not say what was given back".into());
        name_transfers(snapshot, Kind::Refund, Receipt::money_back, problems)?;
    }
    let mut usage = Fingerprint::default();
    snapshot.usage_sums(|(wallet, day, key, model), (calls, charge, allowance, input, output)| {
        usage.add((wallet, day, key, model), &[calls, charge, allowance, input, output]);
    })?;
    if received.usage != usage {
        problems.push("usage by day, key and model is not the sum of the receipts".into());
    }
    problems.append(&mut received.problems);
    let mut limits = Fingerprint::default();
    each_limit(snapshot, |limit, day, spent| limits.add((limit, day), &[spent]))?;
    if received.limits != limits {
        problems.push("what limits have counted by day is not the sum of the receipts".into());
        name_limits(snapshot, problems)?;
    }
    Ok(Some(Receipts { count: received.receipts, served: received.served }))
}

/// How a receipt of a call that a payment paid for is counted; the payment is counted in the same way.
pub(super) fn add_served(
    served: &mut Fingerprint,
    request: RequestId,
    (payment, payer): (PaymentId, AccountId),
    charge: u64,
    credited: u64,
) {
    served.add((request, payment, payer), &[1, charge, credited]);
}

impl Received {
    fn add(&mut self, request: RequestId, receipt: &Receipt) {
        self.receipts += 1;
        let (wallet, reference) = (Account::Wallet(receipt.account), Reference::Request(request));
        let fund = if receipt.payment.is_some() { &Account::Transit } else { &wallet };
        self.explained.charges.add((reference, fund), &[receipt.paid()]);
        self.explained.refunds.add((reference, &wallet), &[receipt.money_back()]);
        if let Some(payment) = receipt.payment {
            add_served(&mut self.served, request, (payment, receipt.account), receipt.charge, receipt.credited);
        }
        let ((wallet, day, key, model), (calls, charge, allowance, input, output)) = sums_of(receipt);
        self.usage.add((wallet, day, key, model), &[calls, charge, allowance, input, output]);
        for (limit, day, spent) in counted_by(receipt).into_iter().flatten() {
            self.limits.add((limit, day), &[spent]);
        }
        let adds_up =
            receipt.allowance <= receipt.charge && receipt.charge <= receipt.ceiling && receipt.refunded <= receipt.charge;
        if !adds_up && self.problems.len() < NAMED {
            self.problems.push(format!("the receipt of {request} does not add up"));
        }
    }
}

/// What counts what is spent of it, by day.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Limit {
    Key(KeyId),
    Allowance(AccountId),
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Limit::Key(key) => write!(f, "{key}"),
            Limit::Allowance(wallet) => write!(f, "the allowance of {wallet}"),
        }
    }
}

/// What a receipt counts for which limits, and for which day: what the call cost, less what was given back of it.
pub(super) fn counted_by(receipt: &Receipt) -> [Option<(Limit, Day, u64)>; 2] {
    let day = |began| Timestamp::from_millis(began).day();
    let key = receipt.key.map(|key| (Limit::Key(key), day(receipt.key_began), receipt.charge.saturating_sub(receipt.refunded)));
    let allowance = (
        Limit::Allowance(receipt.account),
        day(receipt.allowance_began),
        receipt.allowance.saturating_sub(receipt.allowance_back()),
    );
    [key, Some(allowance)].map(|counted| counted.filter(|(_, _, spent)| *spent > 0))
}

/// Shows every row of what limits have counted.
fn each_limit(snapshot: &Snapshot, mut visit: impl FnMut(Limit, Day, u64)) -> Result<(), Broken> {
    snapshot.key_spending(|key, day, spent| visit(Limit::Key(key), day, spent))?;
    snapshot.allowance_spending(|wallet, day, spent| visit(Limit::Allowance(wallet), day, spent))
}

/// Adds every limit up anew: slow, and only done when it is known that one is wrong.
fn name_limits(snapshot: &Snapshot, problems: &mut Vec<String>) -> Result<(), Broken> {
    // What was counted, and what receipts explain of that.
    let mut sums: BTreeMap<(Limit, Day), (u64, u64)> = BTreeMap::new();
    each_limit(snapshot, |limit, day, spent| sums.entry((limit, day)).or_default().0 = spent)?;
    let _ = snapshot.receipts(|_, receipt| {
        for (limit, day, spent) in counted_by(&receipt).into_iter().flatten() {
            let (_, explained) = sums.entry((limit, day)).or_default();
            *explained = explained.wrapping_add(spent);
        }
        ControlFlow::Continue(())
    })?;
    let wrong = sums.into_iter().filter(|(_, (counted, explained))| counted != explained).take(NAMED);
    problems.extend(wrong.map(|((limit, day), (counted, explained))| {
        let day: String = day.began().to_rfc3339().chars().take("2026-01-02".len()).collect();
        format!("{counted} micros were counted for {limit} on {day}, receipts explain {explained}")
    }));
    Ok(())
}

/// Looks the receipt of every transfer of a kind up: slow, and only done when it is known that one is wrong.
fn name_transfers(snapshot: &Snapshot, kind: Kind, said: fn(&Receipt) -> u64, problems: &mut Vec<String>) -> Result<(), Broken> {
    let mut moved: HashMap<RequestId, u64> = HashMap::new();
    let _ = snapshot.transfers(|_, transfer| {
        if let (true, Reference::Request(request)) = (transfer.kind == kind, transfer.reference) {
            let sum = moved.entry(request).or_default();
            *sum = sum.saturating_add(transfer.amount.get());
        }
        ControlFlow::Continue(())
    })?;
    let mut wrong = Vec::new();
    let _ = snapshot.receipts(|request, receipt| {
        let moved = moved.remove(&request).unwrap_or(0);
        if moved != said(&receipt) {
            wrong.push((
                request,
                format!("the receipt of {request} says {} micros, {moved} were moved ({kind:?})", said(&receipt)),
            ));
        }
        if wrong.len() >= NAMED { ControlFlow::Break(()) } else { ControlFlow::Continue(()) }
    })?;
    if wrong.len() < NAMED {
        wrong.extend(moved.iter().map(|(request, moved)| (*request, format!("{request} has no receipt over {moved} micros"))));
    }
    wrong.sort();
    problems.extend(wrong.into_iter().take(NAMED).map(|(_, problem)| problem));
    Ok(())
}
