//! The check of the books: every rule they must keep, tested on one snapshot, every break named.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::Path;

use redb::{ReadTransaction, ReadableDatabase as _};
use serde::Serialize;

use super::rows::{Account, Fund, Hold, Kind, Outcome, Payment, Posting, Reference, State};
use super::store::{self, Snapshot};
use super::{Broken, rescue};
use crate::ids::{PaymentId, RequestId};

/// What a check found.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    pub ok: bool,
    /// One sentence for each rule that is broken.
    pub problems: Vec<String>,
    pub postings: u64,
    /// What each wallet has.
    pub wallets: BTreeMap<String, Wallet>,
    /// Micros on the accounts that are no wallet's.
    pub house: BTreeMap<String, i64>,
    pub open_holds: usize,
    /// How many payments are in each state.
    pub payments: BTreeMap<String, usize>,
}

/// Micros of one wallet.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct Wallet {
    pub available: i64,
    pub held: i64,
}

/// One payment as the books have it, for a comparison with the chain.
#[derive(Debug, Clone)]
pub struct Counted {
    pub id: PaymentId,
    pub payment: Payment,
}

impl Report {
    /// Checks a ledger file that no program has open. A file that was not closed cleanly is repaired first, as a start
    /// would do it; calls and payments that were left open stay as they are.
    pub fn of_file(path: &Path) -> Result<(Report, Vec<Counted>), Broken> {
        let _lock = rescue::lock(path)?;
        let db = rescue::marked_on_failure(path, || store::existing(path))?;
        let tx = db.begin_read().map_err(|error| Broken::new("read", error))?;
        let mut counted = Vec::new();
        Snapshot(&tx).payments(|id, payment, _| counted.push(Counted { id, payment }))?;
        Ok((check(&tx)?, counted))
    }
}

/// Makes what is derived from the postings anew: balances and the wallets' lists. Everything else stays as it is.
pub fn repair_derived(path: &Path) -> Result<(), Broken> {
    let _lock = rescue::lock(path)?;
    rescue::marked_on_failure(path, || store::rebuild_derived(path))
}

/// Everything a check adds up on its way through the postings.
#[derive(Default)]
struct Sums {
    balances: HashMap<Account, i64>,
    sum: i128,
    /// Micros that came in for each payment, and how often.
    arrived: HashMap<PaymentId, (i64, u32)>,
    reversed: HashSet<PaymentId>,
    /// What each call or payment brought to an account: charges to sales, credits to wallets.
    brought: HashMap<(Reference, Account), i64>,
    wallet_rows: u64,
}

pub(super) fn check(tx: &ReadTransaction) -> Result<Report, Broken> {
    let snapshot = Snapshot(tx);
    let mut report = Report::default();
    let mut problems = Vec::new();
    let sums = check_postings(&snapshot, &mut report, &mut problems)?;
    check_balances(&snapshot, &sums, &mut report, &mut problems)?;
    let mut holds = HashMap::new();
    snapshot.holds(|request, hold| {
        holds.insert(request, hold);
    })?;
    report.open_holds = holds.len();
    check_payments(&snapshot, &sums, &holds, &mut report, &mut problems)?;
    check_holds(&sums, &holds, &mut problems);
    if snapshot.wallet_rows()? != sums.wallet_rows {
        problems.push("the wallets' lists do not name every posting on a wallet".into());
    }
    report.ok = problems.is_empty();
    report.problems = problems;
    Ok(report)
}

fn check_postings(snapshot: &Snapshot, report: &mut Report, problems: &mut Vec<String>) -> Result<Sums, Broken> {
    let mut sums = Sums::default();
    let mut expected = (0u64, 0u8);
    let mut head = [0u8; 8];
    let mut debit = 0i64;
    snapshot.postings(|seq, leg, posting| {
        if (seq, leg) != expected {
            problems.push(format!("posting {}.{} is missing", expected.0, expected.1));
        }
        if posting.hash != posting.chained(head) {
            problems.push(format!("posting {seq}.{leg} does not continue the hash chain"));
        }
        if leg == 1 && posting.amount.checked_neg() != Some(debit) {
            problems.push(format!("transfer {seq} does not balance"));
        }
        debit = posting.amount;
        head = posting.hash;
        expected = if leg == 0 { (seq, 1) } else { (seq + 1, 0) };
        report.postings += 1;
        sums.add(posting);
    })?;
    if expected.1 == 1 {
        problems.push(format!("transfer {} has one leg", expected.0));
    }
    if sums.sum != 0 {
        problems.push(format!("the sum of all postings is {} micros, not zero", sums.sum));
    }
    Ok(sums)
}

impl Sums {
    fn add(&mut self, posting: Posting) {
        self.sum += i128::from(posting.amount);
        *self.balances.entry(posting.account.clone()).or_default() += posting.amount;
        self.wallet_rows += u64::from(matches!(posting.account, Account::Wallet(_)));
        if let (Kind::Payment, Reference::Payment(id), Account::Transit) = (posting.kind, posting.reference, &posting.account) {
            let (amount, times) = self.arrived.entry(id).or_default();
            *amount += posting.amount;
            *times += 1;
        }
        if let (Kind::Charge, Account::Sales) | (Kind::Credit, Account::Wallet(_)) = (posting.kind, &posting.account) {
            *self.brought.entry((posting.reference, posting.account.clone())).or_default() += posting.amount;
        }
        if let (Kind::Reversal, Reference::Payment(id)) = (posting.kind, posting.reference) {
            self.reversed.insert(id);
        }
    }

    fn balance(&self, account: &Account) -> i64 {
        self.balances.get(account).copied().unwrap_or(0)
    }
}

fn check_balances(snapshot: &Snapshot, sums: &Sums, report: &mut Report, problems: &mut Vec<String>) -> Result<(), Broken> {
    let mut seen = HashSet::new();
    snapshot.balances(|account, balance| {
        if balance != sums.balance(&account) {
            problems.push(format!("{account} has {balance} micros, its postings sum to {}", sums.balance(&account)));
        }
        if balance < 0 && !account.may_be_negative() {
            problems.push(format!("{account} is below zero: {balance} micros"));
        }
        match account {
            Account::Wallet(id) => report.wallets.entry(id.to_string()).or_default().available = balance,
            Account::Held(id) => report.wallets.entry(id.to_string()).or_default().held = balance,
            _ => _ = report.house.insert(account.to_string(), balance),
        }
        seen.insert(account);
    })?;
    for account in sums.balances.keys().filter(|account| !seen.contains(account)) {
        problems.push(format!("{account} has postings and no balance"));
    }
    Ok(())
}

fn check_payments(
    snapshot: &Snapshot,
    sums: &Sums,
    holds: &HashMap<RequestId, Hold>,
    report: &mut Report,
    problems: &mut Vec<String>,
) -> Result<(), Broken> {
    let mut in_transit = 0i64;
    let mut known = HashSet::new();
    snapshot.payments(|id, payment, listed| {
        known.insert(id);
        *report.payments.entry(format!("{:?}", payment.state).to_lowercase()).or_default() += 1;
        if payment.is_open() != listed {
            problems.push(format!("{id} is {:?}, but the list of open payments disagrees", payment.state));
        }
        let (arrived, times) = sums.arrived.get(&id).copied().unwrap_or_default();
        let counted = matches!(payment.state, State::Confirmed | State::Final) || sums.reversed.contains(&id);
        // A payment of nothing, for a model that is free, moves nothing and leaves no posting.
        let once = u32::from(payment.amount > 0);
        if counted && (times != once || u64::try_from(arrived) != Ok(payment.amount)) {
            problems.push(format!(
                "{id} is {:?} over {} micros, but {arrived} were counted in {times} postings",
                payment.state, payment.amount
            ));
        }
        if !counted && times != 0 {
            problems.push(format!("{id} is {:?}, but money was counted for it", payment.state));
        }
        let running = holds.get(&RequestId(payment.request)).is_some_and(|hold| hold.fund == Fund::Payment(id));
        if payment.state == State::Confirmed && running {
            in_transit += arrived;
        }
        problems.extend(outcome_problem(id, &payment, running, sums));
    })?;
    if in_transit != sums.balance(&Account::Transit) {
        problems.push(format!("{} micros are in transit, running calls explain {in_transit}", sums.balance(&Account::Transit)));
    }
    for id in sums.arrived.keys().filter(|id| !known.contains(id)) {
        problems.push(format!("money was counted for {id}, which nobody knows"));
    }
    Ok(())
}

/// A payment that is counted and whose call has ended has an outcome that adds up to its amount, and the postings brought
/// exactly that to the operator and to its payer.
fn outcome_problem(id: PaymentId, payment: &Payment, running: bool, sums: &Sums) -> Option<String> {
    if running || !matches!(payment.state, State::Confirmed | State::Final) {
        return None;
    }
    let (charge, credited) = match payment.outcome {
        Some(Outcome::Served { charge, credited }) => (charge, credited),
        Some(Outcome::Credited { amount }) => (0, amount),
        None => return Some(format!("{id} over {} micros has no outcome and no running call", payment.amount)),
    };
    if charge.checked_add(credited) != Some(payment.amount) {
        return Some(format!("{id} over {} micros ended as {:?}", payment.amount, payment.outcome));
    }
    let references = [Reference::Payment(id), Reference::Request(RequestId(payment.request))];
    let brought = |account: Account| -> i64 {
        references.iter().filter_map(|reference| sums.brought.get(&(*reference, account.clone()))).sum()
    };
    let (charged, given) = (brought(Account::Sales), brought(Account::Wallet(payment.payer)));
    let agrees = u64::try_from(charged) == Ok(charge) && u64::try_from(given) == Ok(credited);
    (!agrees).then(|| {
        format!("{id} ended as {:?}, but its postings charge {charged} micros and credit its payer {given}", payment.outcome)
    })
}

fn check_holds(sums: &Sums, holds: &HashMap<RequestId, Hold>, problems: &mut Vec<String>) {
    let mut held: HashMap<Account, i64> = HashMap::new();
    for hold in holds.values() {
        if let Fund::Wallet(wallet) = hold.fund {
            *held.entry(Account::Held(wallet)).or_default() += i64::try_from(hold.amount).unwrap_or(i64::MAX);
        }
    }
    for (account, balance) in sums.balances.iter().filter(|(account, _)| matches!(account, Account::Held(_))) {
        let explained = held.remove(account).unwrap_or(0);
        if explained != *balance {
            problems.push(format!("{account} has {balance} micros, open calls explain {explained}"));
        }
    }
    for (account, explained) in held.into_iter().filter(|(_, explained)| *explained != 0) {
        problems.push(format!("open calls hold {explained} micros on {account}, which has none"));
    }
}
