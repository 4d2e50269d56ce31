//! What is derived from transfers and receipts, made anew: balances, usage, and what limits have counted.

use std::collections::HashMap;
use std::ops::ControlFlow;
use std::path::Path;

use redb::{ReadableDatabase as _, ReadableTable as _, WriteTransaction};

use super::commit::{add, sums_of};
use super::derived::{Limit, counted_by};
use super::rows::{Account, Balance, Receipt};
use super::snapshot::Snapshot;
use super::tables::{ALLOWANCES, BALANCES, KEY_SPENDING, USAGE};
use super::{Broken, store};

/// All of it, in one transaction, with memory for accounts and keys alone.
pub(super) fn rebuild(path: &Path) -> Result<(), Broken> {
    let db = store::existing(path)?;
    let read = db.begin_read().map_err(|error| Broken::new("read", error))?;
    let tx = db.begin_write().map_err(|error| Broken::new("begin", error))?;
    from_transfers(&Snapshot(&read), &tx)?;
    from_receipts(&Snapshot(&read), &tx)?;
    tx.commit().map_err(|error| Broken::new("commit", error))
}

fn failed(error: impl Into<redb::Error>) -> Broken {
    Broken::new("rebuild", error.into())
}

fn from_transfers(snapshot: &Snapshot, tx: &WriteTransaction) -> Result<(), Broken> {
    let mut sums: HashMap<Account, Balance> = HashMap::new();
    let _ = snapshot.transfers(|number, transfer| {
        for (account, amount) in transfer.postings() {
            let before = sums.get(account).map_or(0, |balance| balance.amount);
            sums.insert(account.clone(), Balance { amount: before.saturating_add(amount), last: number });
        }
        ControlFlow::Continue(())
    })?;
    tx.delete_table(BALANCES).map_err(failed)?;
    let mut balances = tx.open_table(BALANCES).map_err(failed)?;
    for (account, balance) in &sums {
        balances.insert(account.to_key().as_slice(), (balance.amount, balance.last)).map_err(failed)?;
    }
    Ok(())
}

fn from_receipts(snapshot: &Snapshot, tx: &WriteTransaction) -> Result<(), Broken> {
    tx.delete_table(USAGE).and_then(|_| tx.delete_table(KEY_SPENDING)).map_err(failed)?;
    tx.delete_table(ALLOWANCES).map_err(failed)?;
    let mut usage = tx.open_table(USAGE).map_err(failed)?;
    let (mut keys, mut allowances) = (tx.open_table(KEY_SPENDING).map_err(failed)?, tx.open_table(ALLOWANCES).map_err(failed)?);
    let mut wrote = Ok(());
    let mut count = |receipt: Receipt| -> Result<(), redb::Error> {
        for (limit, day, spent) in counted_by(&receipt).into_iter().flatten() {
            match limit {
                Limit::Key(key) => {
                    let before = keys.get((key.0, day.0))?.map_or(0, |spent| spent.value());
                    keys.insert((key.0, day.0), before.wrapping_add(spent))?;
                }
                Limit::Allowance(wallet) => {
                    let wallet = wallet.to_bytes();
                    let before = allowances.get((wallet.as_slice(), day.0))?.map_or(0, |spent| spent.value());
                    allowances.insert((wallet.as_slice(), day.0), before.wrapping_add(spent))?;
                }
            }
        }
        let ((wallet, day, key, model), sums) = sums_of(&receipt);
        let wallet = wallet.to_bytes();
        let name = (wallet.as_slice(), day, key, model);
        let before = usage.get(name)?.map(|sums| sums.value()).unwrap_or_default();
        usage.insert(name, add(before, sums))?;
        Ok(())
    };
    let _ = snapshot.receipts(|_, receipt| {
        wrote = count(receipt);
        if wrote.is_ok() { ControlFlow::Continue(()) } else { ControlFlow::Break(()) }
    })?;
    wrote.map_err(failed)
}
