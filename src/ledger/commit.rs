//! How the rows of one commit are written: everything that moved money in order, of everything else the last state only.

use std::collections::{BTreeMap, HashMap};

use redb::{ReadableTable as _, WriteTransaction};

use super::blocked::Block;
use super::book::Write;
use super::jobs::Job;
use super::rows::{Account, Balance, Grant, Hold, Payment, Receipt};
use super::tables::{
    ADJUSTMENTS, ALLOWANCES, BALANCES, BLOCKED, FEES, GRANTS, HOLDS, JOBS, JOBS_OF, KEY_EVENTS, KEY_SPENDING, NONCES, PAY_OPEN,
    PAYMENTS, RECEIPTS, TRANSFERS, USAGE, UsageSums,
};
use crate::account::AccountId;
use crate::clock::{Day, Timestamp};
use crate::ids::{JobId, PaymentId, RequestId};

/// Writes them; nothing is there before the transaction commits.
pub fn apply<'a>(tx: &WriteTransaction, writes: impl Iterator<Item = &'a Write>) -> Result<(), redb::Error> {
    let mut transfers = None;
    // Within one commit only the last of each row matters: a call that ends is written once, however many steps it took.
    let mut last = Last::default();
    for write in writes {
        match write {
            Write::Transfer(seq, transfer) => {
                let table = match &mut transfers {
                    Some(table) => table,
                    none => none.insert(tx.open_table(TRANSFERS)?),
                };
                table.insert(*seq, transfer.to_bytes().as_slice())?;
            }
            Write::Balance(account, balance) => _ = last.balances.insert(account, balance),
            Write::Payment(id, row) => _ = last.payments.insert(id, row),
            Write::Opened(request, hold) => last.holds.entry(request).or_insert((true, None)).1 = Some(hold),
            Write::Hold(request, hold) => last.holds.entry(request).or_insert((false, None)).1 = hold.as_ref(),
            Write::Receipt(request, receipt) => _ = last.receipts.insert(request, receipt),
            Write::Usage(request, receipt) => {
                last.receipts.insert(request, receipt);
                last.count(receipt);
            }
            Write::KeySpent(id, day, more) => count(last.keys.entry((id.0, day.0)).or_default(), *more),
            Write::AllowanceSpent(wallet, day, more) => count(last.allowances.entry((*wallet, *day)).or_default(), *more),
            Write::Grant(wallet, grant) => _ = last.grants.insert(wallet, grant),
            Write::Nonce(id, forget_at) => _ = last.nonces.insert((forget_at.millis(), id), true),
            Write::ForgetNonce(id, forget_at) => _ = last.nonces.insert((forget_at.millis(), id), false),
            Write::Job(id, job) => _ = last.jobs.insert(id, (&job.account, Some(job))),
            Write::ForgetJob(id, account) => _ = last.jobs.insert(id, (account, None)),
            Write::KeyEvent(seq, event) => _ = tx.open_table(KEY_EVENTS)?.insert(*seq, event.as_slice())?,
            Write::Adjustment(id, row) => _ = tx.open_table(ADJUSTMENTS)?.insert(id.as_str(), to_json(row).as_slice())?,
            Write::Block(wallet, block) => write_block(tx, *wallet, block.as_ref())?,
            Write::Fee(day, network, name, fee) => write_fee(tx, *day, (network, name), *fee)?,
        }
    }
    last.write_money(tx)?;
    last.write_jobs(tx)?;
    last.write_limits(tx)
}

/// A transaction that was heard of the day before, as when the program died in between, is counted there already.
fn write_fee(tx: &WriteTransaction, day: Day, (network, name): (&str, &str), fee: u64) -> Result<(), redb::Error> {
    let mut fees = tx.open_table(FEES)?;
    let counted = fees.get((day.0.saturating_sub(1), network, name))?.is_some();
    if !counted {
        fees.insert((day.0, network, name), fee)?;
    }
    Ok(())
}

fn write_block(tx: &WriteTransaction, wallet: AccountId, block: Option<&Block>) -> Result<(), redb::Error> {
    let mut blocked = tx.open_table(BLOCKED)?;
    match block {
        Some(block) => _ = blocked.insert(wallet.to_bytes().as_slice(), to_json(block).as_slice())?,
        None => _ = blocked.remove(wallet.to_bytes().as_slice())?,
    }
    Ok(())
}

/// The last state of each row that one commit writes.
#[derive(Default)]
struct Last<'a> {
    balances: HashMap<&'a Account, &'a Balance>,
    payments: BTreeMap<&'a PaymentId, &'a Payment>,
    /// Whether it was opened by this commit, and what it is now.
    holds: BTreeMap<&'a RequestId, (bool, Option<&'a Hold>)>,
    receipts: BTreeMap<&'a RequestId, &'a Receipt>,
    usage: HashMap<UsageName<'a>, UsageSums>,
    /// What more was spent, by day.
    keys: HashMap<(u128, u32), u64>,
    allowances: HashMap<(AccountId, Day), u64>,
    grants: HashMap<&'a AccountId, &'a Option<Grant>>,
    nonces: BTreeMap<(u64, &'a [u8; 16]), bool>,
    /// Whose each is, and nothing when it is forgotten.
    jobs: BTreeMap<&'a JobId, (&'a AccountId, Option<&'a Job>)>,
}

impl<'a> Last<'a> {
    fn count(&mut self, receipt: &'a Receipt) {
        let (name, more) = sums_of(receipt);
        let sums = self.usage.entry(name).or_default();
        *sums = add(*sums, more);
    }

    /// Opening a table costs as much as several rows: only those are opened of which a row is written.
    fn write_money(&self, tx: &WriteTransaction) -> Result<(), redb::Error> {
        if !self.payments.is_empty() {
            self.write_payments(tx)?;
        }
        // What came and went within this commit is none of the disk's business.
        let mut left = self.holds.iter().filter(|(_, (opened_here, hold))| hold.is_some() || !opened_here).peekable();
        if left.peek().is_some() {
            let mut holds = tx.open_table(HOLDS)?;
            for (request, (_, hold)) in left {
                match hold {
                    Some(hold) => _ = holds.insert(request.0, hold.to_bytes().as_slice())?,
                    None => _ = holds.remove(request.0)?,
                }
            }
        }
        if !self.balances.is_empty() {
            let mut balances = tx.open_table(BALANCES)?;
            for (account, balance) in &self.balances {
                balances.insert(account.to_key().as_slice(), (balance.amount, balance.last))?;
            }
        }
        if !self.receipts.is_empty() {
            let mut receipts = tx.open_table(RECEIPTS)?;
            for (request, receipt) in &self.receipts {
                receipts.insert(request.0, receipt.to_bytes().as_slice())?;
            }
        }
        if !self.usage.is_empty() {
            let mut usage = tx.open_table(USAGE)?;
            for ((account, day, key, model), sums) in &self.usage {
                let account = account.to_bytes();
                let name = (account.as_slice(), *day, *key, *model);
                let before = usage.get(name)?.map(|sums| sums.value()).unwrap_or_default();
                usage.insert(name, add(before, *sums))?;
            }
        }
        Ok(())
    }

    fn write_payments(&self, tx: &WriteTransaction) -> Result<(), redb::Error> {
        let (mut payments, mut pay_open) = (tx.open_table(PAYMENTS)?, tx.open_table(PAY_OPEN)?);
        for (id, row) in &self.payments {
            payments.insert(&id.0, to_json(row).as_slice())?;
            // Looking is cheaper than writing: most steps of a payment leave the list as it is.
            let is_listed = pay_open.get(&id.0)?.is_some();
            match row.is_open() {
                true if !is_listed => _ = pay_open.insert(&id.0, ())?,
                false if is_listed => _ = pay_open.remove(&id.0)?,
                _ => {}
            }
        }
        Ok(())
    }

    fn write_jobs(&self, tx: &WriteTransaction) -> Result<(), redb::Error> {
        if self.jobs.is_empty() {
            return Ok(());
        }
        let (mut jobs, mut owned) = (tx.open_table(JOBS)?, tx.open_table(JOBS_OF)?);
        for (id, (account, job)) in &self.jobs {
            let owner = account.to_bytes();
            match job {
                Some(job) => {
                    jobs.insert(id.0, to_json(job).as_slice())?;
                    owned.insert((owner.as_slice(), id.0), ())?;
                }
                None => {
                    jobs.remove(id.0)?;
                    owned.remove((owner.as_slice(), id.0))?;
                }
            }
        }
        Ok(())
    }

    fn write_limits(&self, tx: &WriteTransaction) -> Result<(), redb::Error> {
        if !self.keys.is_empty() {
            let mut keys = tx.open_table(KEY_SPENDING)?;
            for (name, more) in &self.keys {
                let before = keys.get(name)?.map_or(0, |spent| spent.value());
                keys.insert(name, before.wrapping_add(*more))?;
            }
        }
        if !self.allowances.is_empty() {
            let mut allowances = tx.open_table(ALLOWANCES)?;
            for ((wallet, day), more) in &self.allowances {
                let wallet = wallet.to_bytes();
                let name = (wallet.as_slice(), day.0);
                let before = allowances.get(name)?.map_or(0, |spent| spent.value());
                allowances.insert(name, before.wrapping_add(*more))?;
            }
        }
        if !self.grants.is_empty() {
            let mut grants = tx.open_table(GRANTS)?;
            for (wallet, grant) in &self.grants {
                match grant {
                    Some(grant) => _ = grants.insert(wallet.to_bytes().as_slice(), to_json(grant).as_slice())?,
                    None => _ = grants.remove(wallet.to_bytes().as_slice())?,
                }
            }
        }
        if !self.nonces.is_empty() {
            let mut nonces = tx.open_table(NONCES)?;
            for ((forget_at, id), used) in &self.nonces {
                match used {
                    true => _ = nonces.insert((*forget_at, *id), ())?,
                    false => _ = nonces.remove((*forget_at, *id))?,
                }
            }
        }
        Ok(())
    }
}

/// What is given back is counted as what is missing to 2^64, so that a sum of both is right.
fn count(sum: &mut u64, more: u64) {
    *sum = sum.wrapping_add(more);
}

/// A wallet, a day, a key or zero, a model.
pub(super) type UsageName<'a> = (AccountId, u32, u128, &'a str);

/// Where a receipt is counted, and what it counts.
pub(super) fn sums_of(receipt: &Receipt) -> (UsageName<'_>, UsageSums) {
    let day = Timestamp::from_millis(receipt.at).day();
    let name = (receipt.account, day.0, receipt.key.map_or(0, |key| key.0), receipt.model.as_str());
    (name, (1, receipt.charge, receipt.allowance, receipt.input, receipt.output))
}

/// Nothing leaves u64: what one call can bring is bounded. Should it all the same, the check counts in the same way.
pub(super) fn add(a: UsageSums, b: UsageSums) -> UsageSums {
    let sum = u64::wrapping_add;
    (sum(a.0, b.0), sum(a.1, b.1), sum(a.2, b.2), sum(a.3, b.3), sum(a.4, b.4))
}

fn to_json(row: &impl serde::Serialize) -> Vec<u8> {
    serde_json::to_vec(row).expect("rows have string keys and no failing serializers")
}
