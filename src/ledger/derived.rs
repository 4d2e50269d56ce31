//! What the books say a second time, receipts, usage and what limits have counted, held against what explains it.

use std::collections::HashMap;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher as _};
use std::ops::ControlFlow;

use super::Broken;
use super::commit::sums_of;
use super::rows::{Account, Kind, Receipt, Reference, Transfer};
use super::snapshot::Snapshot;
use crate::account::AccountId;
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
}

impl Explained {
    pub fn add(&mut self, transfer: &Transfer) {
        match transfer.kind {
            Kind::Charge => self.charges.add((transfer.reference, &transfer.debit), &[transfer.amount.get()]),
            Kind::Refund => self.refunds.add((transfer.reference, &transfer.credit), &[transfer.amount.get()]),
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
    limits: Limits,
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
    let mut received = Received { limits: Limits::of(snapshot)?, ..Received::default() };
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
        name_transfers(snapshot, Kind::Charge, paid, problems)?;
    }
    if received.explained.refunds != explained.refunds {
        problems.push("receipts do not say what was given back".into());
        name_transfers(snapshot, Kind::Refund, |receipt| receipt.refunded, problems)?;
    }
    let mut usage = Fingerprint::default();
    snapshot.usage_sums(|(wallet, day, key, model), (calls, charge, allowance, input, output)| {
        usage.add((wallet, day, key, model), &[calls, charge, allowance, input, output]);
    })?;
    if received.usage != usage {
        problems.push("usage by day, key and model is not the sum of the receipts".into());
    }
    problems.append(&mut received.problems);
    received.limits.judge(problems);
    Ok(Some(Receipts { count: received.receipts, served: received.served }))
}

/// What of a call was taken from a balance or a payment.
fn paid(receipt: &Receipt) -> u64 {
    receipt.charge.saturating_sub(receipt.allowance)
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
        self.explained.charges.add((reference, fund), &[paid(receipt)]);
        self.explained.refunds.add((reference, &wallet), &[receipt.refunded]);
        if let Some(payment) = receipt.payment {
            add_served(&mut self.served, request, (payment, receipt.account), receipt.charge, receipt.credited);
        }
        let ((wallet, day, key, model), (calls, charge, allowance, input, output)) = sums_of(receipt);
        self.usage.add((wallet, day, key, model), &[calls, charge, allowance, input, output]);
        self.limits.explain(receipt);
        let adds_up =
            receipt.allowance <= receipt.charge && receipt.charge <= receipt.ceiling && receipt.refunded <= paid(receipt);
        if !adds_up && self.problems.len() < NAMED {
            self.problems.push(format!("the receipt of {request} does not add up"));
        }
    }
}

/// What was counted of each limit in its last period.
#[derive(Default)]
struct Limits {
    keys: HashMap<KeyId, Limit>,
    allowances: HashMap<AccountId, Limit>,
    /// Receipts of a later period than was counted, or of one that nobody counted.
    uncounted: usize,
}

/// When its period began, what was counted in it, and what receipts explain of that.
#[derive(Clone, Copy)]
struct Limit {
    began: u64,
    spent: u64,
    explained: u64,
}

impl Limit {
    fn counted((began, spent): (u64, u64)) -> Limit {
        Limit { began, spent, explained: 0 }
    }
}

impl Limits {
    fn of(snapshot: &Snapshot) -> Result<Limits, Broken> {
        let mut limits = Limits::default();
        snapshot.key_spending(|key, spent| _ = limits.keys.insert(key, Limit::counted(spent)))?;
        snapshot.allowance_spending(|wallet, spent| _ = limits.allowances.insert(wallet, Limit::counted(spent)))?;
        Ok(limits)
    }

    fn explain(&mut self, receipt: &Receipt) {
        let key = receipt.key.map(|key| explain(self.keys.get_mut(&key), receipt.key_began, receipt.charge));
        let uses_allowance = receipt.allowance > 0;
        let of_today = self.allowances.get_mut(&receipt.account).filter(|_| uses_allowance);
        let allowance = uses_allowance.then(|| explain(of_today, receipt.allowance_began, receipt.allowance));
        self.uncounted += [key, allowance].into_iter().flatten().filter(|is_counted| !is_counted).count();
    }

    fn judge(&self, problems: &mut Vec<String>) {
        if self.uncounted > 0 {
            problems.push(format!("{} receipts were counted for no limit", self.uncounted));
        }
        let wrong = |(_, limit): &(String, &Limit)| limit.spent != limit.explained;
        let keys = self.keys.iter().map(|(key, limit)| (key.to_string(), limit));
        let allowances = self.allowances.iter().map(|(wallet, limit)| (format!("the allowance of {wallet}"), limit));
        let sentence = |(what, limit): (String, &Limit)| {
            format!("{} micros were counted for {what} in its period, receipts explain {}", limit.spent, limit.explained)
        };
        let mut named: Vec<_> = keys.chain(allowances).filter(wrong).take(NAMED).map(sentence).collect();
        named.sort();
        problems.append(&mut named);
    }
}

/// Adds what a receipt explains of a period; whether the period was counted, or is over.
fn explain(limit: Option<&mut Limit>, began: u64, amount: u64) -> bool {
    let Some(limit) = limit else { return false };
    if limit.began == began {
        limit.explained = limit.explained.saturating_add(amount);
    }
    began <= limit.began
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
