//! The tables of the ledger's file: their names, keys and values, how they are made and copied.

use redb::{ReadTransaction, ReadableTable as _, TableDefinition, WriteTransaction};

pub const META: TableDefinition<&str, u64> = TableDefinition::new("meta");
/// What each account has, and the last transfer about it, where the statement of a wallet begins.
pub const BALANCES: TableDefinition<&[u8], (i64, u64)> = TableDefinition::new("balances");
pub const TRANSFERS: TableDefinition<u64, &[u8]> = TableDefinition::new("transfers");
pub const PAYMENTS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("payments");
/// Payments the chain may still change, so that a start need not read all of them.
pub const PAY_OPEN: TableDefinition<&[u8; 32], ()> = TableDefinition::new("pay_open");
pub const HOLDS: TableDefinition<u128, &[u8]> = TableDefinition::new("holds");
/// What calls cost, by their names, which sort by time.
pub const RECEIPTS: TableDefinition<u128, &[u8]> = TableDefinition::new("receipts");
/// (wallet, day, key or zero, model): calls, charge, allowance, input, output; sums of the receipts.
pub const USAGE: TableDefinition<UsageKey, UsageSums> = TableDefinition::new("usage");
/// (key, day): what was spent of its limit.
pub const KEY_SPENDING: TableDefinition<(u128, u32), u64> = TableDefinition::new("key_spending");
/// (wallet, day): what was spent of its allowance.
pub const ALLOWANCES: TableDefinition<(&[u8], u32), u64> = TableDefinition::new("allowances");
pub const GRANTS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("grants");
/// Sign-ins that were used, by when they are forgotten.
pub const NONCES: TableDefinition<(u64, &[u8; 16]), ()> = TableDefinition::new("nonces");
/// Jobs that were charged, by their names, which sort by time.
pub const JOBS: TableDefinition<u128, &[u8]> = TableDefinition::new("jobs");
/// (wallet, job): which jobs a wallet has.
pub const JOBS_OF: TableDefinition<(&[u8], u128), ()> = TableDefinition::new("jobs_of");
/// The keys' journal, which is replayed into their store.
pub const KEY_EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("key_events");
/// What the operator adjusted by hand, by the ids that it had.
pub const ADJUSTMENTS: TableDefinition<&str, &[u8]> = TableDefinition::new("adjustments");
/// (day, network, transaction): what the chain took from us for it, in the smallest unit of its coin.
pub const FEES: TableDefinition<(u32, &str, &str), u64> = TableDefinition::new("fees");
/// Wallets that the operator has barred, and why.
pub const BLOCKED: TableDefinition<&[u8], &[u8]> = TableDefinition::new("blocked");

pub type UsageKey = (&'static [u8], u32, u128, &'static str);
pub type UsageSums = (u64, u64, u64, u64, u64);

/// The layout of the tables above. A file with a newer one is not opened.
pub const SCHEMA: u64 = 7;
/// The oldest layout whose rows are all read: a start counts the file as one of [`SCHEMA`] from then on, a check leaves it as it
/// is. Layout 5 has no fees, no adjustments, and receipts without their upstream and its cost. Layout 6 has no
/// wallets that are barred.
pub const OLDEST: u64 = 5;

/// Makes what is missing, and counts a run of the program.
pub fn prepare(tx: &WriteTransaction) -> Result<(), redb::Error> {
    tx.open_table(BALANCES)?;
    tx.open_table(TRANSFERS)?;
    tx.open_table(PAYMENTS)?;
    tx.open_table(PAY_OPEN)?;
    tx.open_table(HOLDS)?;
    tx.open_table(RECEIPTS)?;
    tx.open_table(USAGE)?;
    tx.open_table(KEY_SPENDING)?;
    tx.open_table(ALLOWANCES)?;
    tx.open_table(GRANTS)?;
    tx.open_table(NONCES)?;
    tx.open_table(JOBS)?;
    tx.open_table(JOBS_OF)?;
    tx.open_table(KEY_EVENTS)?;
    tx.open_table(FEES)?;
    tx.open_table(ADJUSTMENTS)?;
    tx.open_table(BLOCKED)?;
    let mut meta = tx.open_table(META)?;
    let boot = meta.get("boot")?.map_or(0, |boot| boot.value()) + 1;
    meta.insert("schema", SCHEMA)?;
    meta.insert("boot", boot)?;
    Ok(())
}

/// Writes all tables of one ledger into another one.
pub fn copy(read: &ReadTransaction, write: &WriteTransaction) -> Result<(), redb::Error> {
    copy_table(read, write, META)?;
    copy_table(read, write, BALANCES)?;
    copy_table(read, write, TRANSFERS)?;
    copy_table(read, write, PAYMENTS)?;
    copy_table(read, write, PAY_OPEN)?;
    copy_table(read, write, HOLDS)?;
    copy_table(read, write, RECEIPTS)?;
    copy_table(read, write, USAGE)?;
    copy_table(read, write, KEY_SPENDING)?;
    copy_table(read, write, ALLOWANCES)?;
    copy_table(read, write, GRANTS)?;
    copy_table(read, write, NONCES)?;
    copy_table(read, write, JOBS)?;
    copy_table(read, write, JOBS_OF)?;
    copy_table(read, write, KEY_EVENTS)?;
    copy_table(read, write, FEES)?;
    copy_table(read, write, ADJUSTMENTS)?;
    copy_table(read, write, BLOCKED)
}

fn copy_table<K: redb::Key + 'static, V: redb::Value + 'static>(
    read: &ReadTransaction,
    write: &WriteTransaction,
    table: TableDefinition<K, V>,
) -> Result<(), redb::Error> {
    let mut to = write.open_table(table)?;
    let from = match read.open_table(table) {
        Ok(from) => from,
        // The first write of all had failed.
        Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    for row in from.iter()? {
        let (key, value) = row?;
        to.insert(key.value(), value.value())?;
    }
    Ok(())
}
