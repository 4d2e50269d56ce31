//! The check of the books: every rule they must keep, tested on one snapshot, every break named.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::ops::ControlFlow;
use std::path::Path;

use redb::{ReadTransaction, ReadableDatabase as _};
use serde::Serialize;

use super::adjust::Adjustment;
use super::derived::{Explained, Fingerprint};
use super::rows::{Account, Balance, Fund, Hold, Kind, Line, Payment, Reference, State, Transfer};
use super::snapshot::Snapshot;
use super::store;
use super::{Broken, adjust, blocked, derived, jobs, payouts, rebuild, reconcile, rescue};
use crate::account::AccountId;
use crate::ids::{PaymentId, RequestId};

/// What a check found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub ok: bool,
    /// One sentence for each rule that is broken; of a rule that is broken often, the first hundred.
    pub problems: Vec<String>,
    /// Debits and credits: two for each transfer.
    pub postings: u64,
    /// Calls that were charged, also those that the allowance paid or that cost nothing.
    pub receipts: usize,
    /// Events in the keys' journal.
    pub key_events: u64,
    /// What each wallet has that ever had something.
    pub wallets: BTreeMap<String, Wallet>,
    /// Micros on the accounts that are no wallet's.
    pub house: BTreeMap<String, i64>,
    /// Calls that money stands for.
    pub open_holds: usize,
    /// Wallets that the operator has barred.
    pub blocked: usize,
    /// How many payments are in each state.
    pub payments: BTreeMap<String, usize>,
}

/// Micros of one wallet; both together are what its statement sums to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Wallet {
    pub available: i64,
    /// What of its balance stands for open calls; allowances are no balance.
    pub held: i64,
}

/// One payment as the books have it, for a comparison with the chain.
#[derive(Debug, Clone)]
pub struct Counted {
    pub id: PaymentId,
    pub payment: Payment,
}

impl Report {
    fn judged(self) -> Report {
        Report { ok: self.problems.is_empty(), ..self }
    }

    /// Checks a ledger file that no program has open. A file that was not closed cleanly is repaired first, as a start
    /// would do it; calls and payments that were left open stay as they are. Every payment is shown to `visit`, none is kept.
    pub fn of_file(path: &Path, visit: impl FnMut(Counted)) -> Result<Report, Broken> {
        let _lock = rescue::lock(path)?;
        Report::of_kept(path, visit)
    }

    /// The same, for whoever keeps the folder already.
    pub(super) fn of_kept(path: &Path, mut visit: impl FnMut(Counted)) -> Result<Report, Broken> {
        let db = rescue::marked_on_failure(path, || store::existing(path))?;
        let tx = db.begin_read().map_err(|error| Broken::new("read", error))?;
        Snapshot(&tx).payments(|id, payment, _| visit(Counted { id, payment }))?;
        check(&tx, reconcile::PAYMENTS_IN_A_PASS)
    }
}

/// The keys' journal of a ledger file that no gateway has open.
pub fn key_events_of_file(path: &Path) -> Result<Vec<(u64, Vec<u8>)>, Broken> {
    let _lock = rescue::lock(path)?;
    let db = rescue::marked_on_failure(path, || store::existing(path))?;
    let tx = db.begin_read().map_err(|error| Broken::new("read", error))?;
    Snapshot(&tx).key_events_after(0)
}

/// Every adjustment in a ledger file that no gateway has open, by its id.
pub fn adjustments_of_file(path: &Path) -> Result<HashMap<String, Adjustment>, Broken> {
    let _lock = rescue::lock(path)?;
    let db = rescue::marked_on_failure(path, || store::existing(path))?;
    let tx = db.begin_read().map_err(|error| Broken::new("read", error))?;
    let mut adjustments = HashMap::new();
    adjust::each(&tx, |id, row| _ = adjustments.insert(id.to_owned(), row))?;
    Ok(adjustments)
}

/// Makes what is derived anew: balances from the transfers, usage and what limits have counted from the
/// receipts. Everything else stays as it is.
pub fn repair_derived(path: &Path) -> Result<(), Broken> {
    let _lock = rescue::lock(path)?;
    rescue::marked_on_failure(path, || rebuild::rebuild(path))
}

/// Postings after which a check asks whether it has to end.
const ASK_EVERY: u64 = 1024;

/// Everything a check adds up on its way through the postings.
#[derive(Default)]
struct Sums {
    balances: HashMap<Account, Balance>,
    sum: i128,
    /// Transfers that say that money came in for a payment.
    arrivals: u64,
    /// What other tables must say again.
    explained: Explained,
}

/// What a check goes on with when the totals are right or wrong: what is needed to look at each payment.
struct Totals {
    report: Report,
    arrivals: u64,
    served: Fingerprint,
}

/// Every rule that needs no more memory than there are accounts, keys and open calls: the hash chain, the sum, balances,
/// holds, statements, receipts, usage, limits, the keys' journal. `None` when `stop` has ended it.
pub(super) fn check_totals(tx: &ReadTransaction, stop: &dyn Fn() -> bool) -> Result<Option<Report>, Broken> {
    let checked = totals(&Snapshot(tx), stop)?;
    Ok(checked.map(|totals| totals.report.judged()))
}

/// All rules, those about each payment in passes over so many payments.
pub(super) fn check(tx: &ReadTransaction, payments_in_a_pass: usize) -> Result<Report, Broken> {
    let snapshot = Snapshot(tx);
    let Some(Totals { mut report, arrivals, served }) = totals(&snapshot, &|| false)? else { return Ok(Report::default()) };
    reconcile::check(&snapshot, arrivals, served, payments_in_a_pass, &mut report)?;
    Ok(report.judged())
}

fn totals(snapshot: &Snapshot, stop: &dyn Fn() -> bool) -> Result<Option<Totals>, Broken> {
    let mut report = Report::default();
    let mut problems = Vec::new();
    let Some(sums) = check_transfers(snapshot, stop, &mut report, &mut problems)? else { return Ok(None) };
    check_balances(snapshot, &sums, &mut report, &mut problems)?;
    let mut holds = HashMap::new();
    snapshot.holds(|request, hold| {
        holds.insert(request, hold);
    })?;
    report.open_holds = holds.len();
    check_transit(snapshot, &sums, &holds, &mut problems)?;
    check_holds(&sums, &holds, &mut report, &mut problems);
    check_key_events(snapshot, &mut report, &mut problems)?;
    jobs::check(snapshot, &mut problems)?;
    adjust::check(snapshot, sums.explained.adjustments, &mut problems)?;
    blocked::each(snapshot.0, |_, _| report.blocked += 1)?;
    payouts::check(snapshot, sums.explained.payouts, sums.balance(&Account::Outgoing), &mut problems)?;
    let Some(receipts) = derived::check(snapshot, &sums.explained, stop, &mut problems)? else { return Ok(None) };
    (report.receipts, report.problems) = (receipts.count, problems);
    Ok(Some(Totals { report, arrivals: sums.arrivals, served: receipts.served }))
}

fn check_transfers(
    snapshot: &Snapshot,
    stop: &dyn Fn() -> bool,
    report: &mut Report,
    problems: &mut Vec<String>,
) -> Result<Option<Sums>, Broken> {
    let mut sums = Sums::default();
    let mut expected = 0u64;
    let mut head = [0u8; 8];
    let ended = snapshot.transfers(|seq, transfer| {
        if expected.is_multiple_of(ASK_EVERY) && stop() {
            return ControlFlow::Break(());
        }
        if seq != expected {
            problems.push(format!("transfer {expected} is missing"));
        }
        if transfer.hash != transfer.chained(head) {
            problems.push(format!("transfer {seq} does not continue the hash chain"));
        }
        head = transfer.hash;
        expected = seq + 1;
        report.postings += 2;
        let line = sums.add(seq, &transfer);
        if transfer.line != line {
            problems.push(format!("transfer {seq} says {:?} of its wallet's statement, it is {line:?}", transfer.line));
        }
        ControlFlow::Continue(())
    })?;
    if ended.is_break() {
        return Ok(None);
    }
    if sums.sum != 0 {
        problems.push(format!("the sum of all postings is {} micros, not zero", sums.sum));
    }
    Ok(Some(sums))
}

impl Sums {
    /// Adds one up; returns the line that it is in its wallet's statement.
    fn add(&mut self, number: u64, transfer: &Transfer) -> Option<Line> {
        let mut line = None;
        for (account, amount) in transfer.postings() {
            self.sum += i128::from(amount);
            let before = self.balances.get(account).copied();
            let after = before.map_or(0, |before| before.amount).saturating_add(amount);
            self.balances.insert(account.clone(), Balance { amount: after, last: number });
            if let Account::Wallet(_) = account {
                line = Some(Line { after, previous: before.map(|before| before.last) });
            }
        }
        self.arrivals += u64::from(arrival(transfer).is_some());
        self.explained.add(transfer);
        line
    }

    fn balance(&self, account: &Account) -> i64 {
        self.balances.get(account).map_or(0, |balance| balance.amount)
    }
}

fn check_balances(snapshot: &Snapshot, sums: &Sums, report: &mut Report, problems: &mut Vec<String>) -> Result<(), Broken> {
    let mut seen = HashSet::new();
    snapshot.balances(|account, balance| {
        let Balance { amount: balance, last } = balance;
        if balance != sums.balance(&account) {
            problems.push(format!("{account} has {balance} micros, its postings sum to {}", sums.balance(&account)));
        }
        if sums.balances.get(&account).is_some_and(|summed| summed.last != last) {
            problems.push(format!("{last} is not the last transfer of {account}"));
        }
        if balance < 0 && !account.may_be_negative() {
            problems.push(format!("{account} is below zero: {balance} micros"));
        }
        match account {
            Account::Wallet(id) => report.wallets.entry(id.to_string()).or_default().available = balance,
            _ => _ = report.house.insert(account.to_string(), balance),
        }
        seen.insert(account);
    })?;
    for account in sums.balances.keys().filter(|account| !seen.contains(account)) {
        problems.push(format!("{account} has postings and no balance"));
    }
    Ok(())
}

/// The keys' journal counts from one, with no event missing: it is replayed by its numbers.
fn check_key_events(snapshot: &Snapshot, report: &mut Report, problems: &mut Vec<String>) -> Result<(), Broken> {
    let mut expected = 1;
    snapshot.key_event_numbers(|number| {
        if number != expected {
            problems.push(format!("event {expected} of the keys' journal is missing"));
        }
        expected = number + 1;
        report.key_events += 1;
    })
}

/// What is in transit came for calls that run, and each of them has the payment that it was claimed with.
fn check_transit(
    snapshot: &Snapshot,
    sums: &Sums,
    holds: &HashMap<RequestId, Hold>,
    problems: &mut Vec<String>,
) -> Result<(), Broken> {
    let mut in_transit = 0i128;
    for (request, hold) in holds {
        let Fund::Payment(id) = hold.fund else { continue };
        let own = |payment: &Payment| {
            !payment.top_up && payment.payout.is_none() && payment.is_open() && RequestId(payment.request) == *request
        };
        match snapshot.payment(id)?.filter(own) {
            Some(payment) if payment.state == State::Confirmed => in_transit += i128::from(payment.amount),
            Some(_) => {}
            None => problems.push(format!("{request} runs on {id}, which is not its payment")),
        }
    }
    let balance = sums.balance(&Account::Transit);
    if in_transit != i128::from(balance) {
        problems.push(format!("{balance} micros are in transit, running calls explain {in_transit}"));
    }
    Ok(())
}

/// The payment that a transfer says money came in for.
pub(super) fn arrival(transfer: &Transfer) -> Option<PaymentId> {
    match (transfer.kind, transfer.reference, &transfer.credit) {
        (Kind::Payment, Reference::Payment(id), Account::Transit) => Some(id),
        _ => None,
    }
}

/// No wallet holds more for its open calls than it has. What it holds cannot be spent.
fn check_holds(sums: &Sums, holds: &HashMap<RequestId, Hold>, report: &mut Report, problems: &mut Vec<String>) {
    let mut held: HashMap<AccountId, i64> = HashMap::new();
    for hold in holds.values() {
        if let Fund::Wallet(wallet) = hold.fund {
            let sum = held.entry(wallet).or_default();
            *sum = sum.saturating_add(i64::try_from(hold.amount).unwrap_or(i64::MAX));
        }
    }
    for (wallet, amount) in held {
        let balance = sums.balance(&Account::Wallet(wallet));
        if amount > balance {
            problems.push(format!("open calls hold {amount} micros of {wallet}, which has {balance}"));
        }
        let shown = report.wallets.entry(wallet.to_string()).or_default();
        (shown.held, shown.available) = (amount, shown.available.saturating_sub(amount));
    }
}
