//! Every table beside the journal, changed by somebody: noticed, never sold on, and made anew where the rest explains it.

use std::path::{Path, PathBuf};

use farebox::clock::Period;
use farebox::ids::RequestId;
use farebox::ledger::{Draw, FILE, Grant, KeyDraw, Ledger, Options, Receipt, Remedy, Report, repair_derived};
use farebox::money::Micros;
use farebox::tariff::Usage;
use redb::{Database, Key, ReadableTable as _, TableDefinition, Value, WriteTransaction};
use tempfile::TempDir;

use super::{attempt, claim, clock, draw, key, payment, wait, wallet};

const BALANCES: TableDefinition<&[u8], (i64, u64)> = TableDefinition::new("balances");
const PAYMENTS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("payments");
const PAY_OPEN: TableDefinition<&[u8; 32], ()> = TableDefinition::new("pay_open");
const HOLDS: TableDefinition<u128, &[u8]> = TableDefinition::new("holds");
const RECEIPTS: TableDefinition<u128, &[u8]> = TableDefinition::new("receipts");
type UsageKey = (&'static [u8], u32, u128, &'static str);
const USAGE: TableDefinition<UsageKey, (u64, u64, u64, u64, u64)> = TableDefinition::new("usage");
const KEY_SPENDING: TableDefinition<(u128, u32), u64> = TableDefinition::new("key_spending");
const ALLOWANCES: TableDefinition<(&[u8], u32), u64> = TableDefinition::new("allowances");
const BLOCKED: TableDefinition<&[u8], &[u8]> = TableDefinition::new("blocked");
const KEY_EVENTS: TableDefinition<u64, &[u8]> = TableDefinition::new("key_events");

/// What wallet 1 has in the end: 2,000 of a top-up, less 500 of 800 (the allowance paid 300), 100 of which came back.
const POSTED: Micros = Micros::new(1_600);

/// Books with something in every table, closed in good order but for two calls that nobody ended.
fn books(folder: &TempDir) -> PathBuf {
    let path = folder.path().join(FILE);
    let (ledger, _) = Ledger::open(&path, clock(), Options::default()).unwrap();
    let durable = |done: Result<farebox::ledger::Durable, _>| done.unwrap().wait_blocking().unwrap();
    let deposit = wait(ledger.deposit(claim(payment(1), wallet(1), 2_000, 100))).unwrap();
    durable(ledger.signed(payment(1), attempt()));
    durable(ledger.confirmed(payment(1), "0xaa", 7));
    drop(deposit);
    let paid = wait(ledger.claim(claim(payment(2), wallet(2), 1_000, 1))).unwrap();
    durable(ledger.signed(payment(2), attempt()));
    durable(ledger.confirmed(payment(2), "0xaa", 7));
    let _ = paid.paid().ok().unwrap().post(Micros::new(400), Usage::default());
    durable(ledger.grant(wallet(1), Some(Grant { per_day: 300, from: None, until: None, note: "beta".into() })));
    let by_key = KeyDraw { id: key(1), limit: Some(Micros::new(5_000)), period: Period::Day };
    let call = wait(ledger.reserve(Draw { key: Some(by_key), ..draw(wallet(1), 900, 2) })).unwrap().paid().ok().unwrap();
    let usage = Usage { input: 10, output: 20, ..Usage::default() };
    assert_eq!(call.post(Micros::new(800), usage), Micros::new(800));
    durable(ledger.flush());
    wait(ledger.refund(RequestId(2), Some(Micros::new(100)))).unwrap();
    for event in [b"minted", b"change", b"revoke"] {
        durable(ledger.journal_key(event.to_vec()).map(|(_, durable)| durable));
    }
    let open = wait(ledger.reserve(draw(wallet(1), 120, 3))).unwrap();
    let unsigned = wait(ledger.claim(claim(payment(3), wallet(2), 77, 4))).unwrap();
    assert_eq!(ledger.standing(wallet(1)).unwrap().posted, POSTED);
    ledger.close();
    // Too late to give them back.
    drop((open, unsigned));
    path
}

type Change = fn(&WriteTransaction);

/// Changes the first row of a table.
fn first<K: Key + 'static, V: Value + 'static>(
    tx: &WriteTransaction,
    table: TableDefinition<K, V>,
    change: impl FnOnce(&mut redb::Table<K, V>, K::SelfType<'_>, V::SelfType<'_>),
) {
    let mut table = tx.open_table(table).unwrap();
    let (key, value) = {
        let (key, value) = table.first().unwrap().expect("there is a row");
        (K::as_bytes(&key.value()).as_ref().to_vec(), V::as_bytes(&value.value()).as_ref().to_vec())
    };
    change(&mut table, K::from_bytes(&key), V::from_bytes(&value));
}

/// Changes the balance of wallet 1 and the last transfer about it, or takes the row away.
fn balance(tx: &WriteTransaction, change: impl FnOnce((i64, u64)) -> Option<(i64, u64)>) {
    let mut balances = tx.open_table(BALANCES).unwrap();
    let key = [&b"W"[..], &wallet(1).to_bytes()].concat();
    let before = balances.remove(key.as_slice()).unwrap().map(|balance| balance.value()).expect("it has a balance");
    if let Some(after) = change(before) {
        balances.insert(key.as_slice(), after).unwrap();
    }
}

/// Changes the receipt of call 2.
fn receipt(tx: &WriteTransaction, change: impl FnOnce(&mut Receipt)) {
    let mut receipts = tx.open_table(RECEIPTS).unwrap();
    let mut receipt = Receipt::from_bytes(receipts.get(2).unwrap().unwrap().value()).unwrap();
    change(&mut receipt);
    receipts.insert(2, receipt.to_bytes().as_slice()).unwrap();
}

fn problems(path: &Path) -> Vec<String> {
    Report::of_file(path, |_| {}).unwrap().problems
}

/// Makes the change on fresh books; it is noticed, and nothing is sold on them. Then they are repaired, as far as they can.
fn after_repair(change: Change, complaint: &str) -> (TempDir, PathBuf) {
    let folder = TempDir::new().unwrap();
    let path = books(&folder);
    assert_eq!(problems(&path), Vec::<String>::new());
    let db = Database::open(&path).unwrap();
    let tx = db.begin_write().unwrap();
    change(&tx);
    tx.commit().unwrap();
    drop(db);
    assert!(problems(&path).iter().any(|problem| problem.contains(complaint)), "{complaint}: {:?}", problems(&path));
    let refused = Ledger::open(&path, clock(), Options::default()).err().expect("nothing is sold on damaged books");
    assert_eq!(refused.remedy, Remedy::Examine, "{refused}");
    repair_derived(&path).unwrap();
    (folder, path)
}

#[test]
fn balances_usage_and_limits_are_noticed_when_they_are_wrong_and_made_anew() {
    let cases: [(Change, &str); 12] = [
        (|tx| balance(tx, |(amount, last)| Some((amount + 1, last))), "has 1601 micros, its postings sum to 1600"),
        (|tx| balance(tx, |(amount, _)| Some((amount, 1))), "1 is not the last transfer of wallet evm:0x0101"),
        (|tx| balance(tx, |_| None), "has postings and no balance"),
        (
            |tx| {
                first(tx, USAGE, |usage, name, sums| {
                    _ = usage.insert(name, (sums.0 + 1, sums.1, sums.2, sums.3, sums.4)).unwrap()
                })
            },
            "usage by day",
        ),
        (
            |tx| {
                first(tx, USAGE, |usage, name, sums| {
                    _ = usage.insert(name, (sums.0, sums.1, sums.2, sums.3, sums.4 + 1)).unwrap()
                })
            },
            "usage by day",
        ),
        (|tx| first(tx, USAGE, |usage, name, _| _ = usage.remove(name).unwrap()), "usage by day"),
        (
            |tx| first(tx, USAGE, |usage, name, sums| _ = usage.insert((name.0, name.1 + 1, name.2, name.3), sums).unwrap()),
            "usage by day",
        ),
        (
            |tx| first(tx, KEY_SPENDING, |keys, name, spent| _ = keys.insert(name, spent + 1).unwrap()),
            "701 micros were counted for key_00000000000000000000000000000002 on 2025-11-20, receipts explain 700",
        ),
        (
            |tx| first(tx, KEY_SPENDING, |keys, (key, day), spent| _ = keys.insert((key, day + 1), spent).unwrap()),
            "700 micros were counted for key_00000000000000000000000000000002 on 2025-11-21, receipts explain 0",
        ),
        (|tx| first(tx, KEY_SPENDING, |keys, name, _| _ = keys.remove(name).unwrap()), "on 2025-11-20, receipts explain 700"),
        (
            |tx| first(tx, ALLOWANCES, |spent, name, _| _ = spent.insert(name, 0).unwrap()),
            "0 micros were counted for the allowance of evm:0x0101",
        ),
        (
            |tx| {
                first(tx, ALLOWANCES, |spent, (wallet, day), _| {
                    _ = spent.remove((wallet, day)).unwrap();
                    spent.insert((wallet, day - 1), 300).unwrap();
                })
            },
            "on 2025-11-19, receipts explain 0",
        ),
    ];
    for (change, complaint) in cases {
        let (_folder, path) = after_repair(change, complaint);
        assert_eq!(problems(&path), Vec::<String>::new(), "mended: {complaint}");
        let (ledger, recovered) = Ledger::open(&path, clock(), Options::default()).unwrap();
        assert_eq!((recovered.voided, recovered.charged), (2, 0), "{complaint}");
        let standing = ledger.standing(wallet(1)).unwrap();
        assert_eq!((standing.posted, standing.available, standing.allowance.get()), (POSTED, POSTED, 0), "{complaint}");
        assert_eq!(ledger.key_spending(key(1), Period::Day).unwrap().spent, 700, "{complaint}");
        let used = ledger.usage(wallet(1), farebox::clock::Day(0)).unwrap();
        assert_eq!(used.iter().map(|used| (used.calls, used.charge, used.output)).collect::<Vec<_>>(), [(1, 800, 20)]);
        let lines = ledger.statement(wallet(1), 10, 0).unwrap().0;
        assert_eq!(
            lines.iter().map(|line| (line.amount, line.balance_after)).collect::<Vec<_>>(),
            [(100, 1600), (-500, 1500), (2000, 2000)]
        );
    }
}

#[test]
fn receipts_payments_holds_and_the_keys_journal_are_noticed_when_they_are_wrong_and_no_repair_hides_it() {
    let cases: [(Change, &str); 13] = [
        (|tx| receipt(tx, |receipt| receipt.charge += 1), "says 501 micros, 500 were moved (Charge)"),
        (|tx| receipt(tx, |receipt| receipt.refunded = 0), "says 0 micros, 100 were moved (Refund)"),
        (|tx| receipt(tx, |receipt| receipt.account = wallet(2)), "receipts do not say what calls were charged"),
        (|tx| receipt(tx, |receipt| receipt.ceiling = 799), "does not add up"),
        (|tx| receipt(tx, |receipt| receipt.payment = Some(payment(1))), "payments do not say of the calls that they paid for"),
        (|tx| _ = tx.open_table(RECEIPTS).unwrap().remove(2).unwrap().unwrap(), "has no receipt over 500 micros"),
        (
            |tx| first(tx, RECEIPTS, |receipts, _, row| _ = receipts.insert(9, row).unwrap()),
            "says 400 micros, 0 were moved (Charge)",
        ),
        (|tx| first(tx, RECEIPTS, |receipts, id, _| _ = receipts.remove(id).unwrap()), "has no receipt over 400 micros"),
        (|tx| _ = tx.open_table(KEY_EVENTS).unwrap().remove(2).unwrap().unwrap(), "event 2 of the keys' journal is missing"),
        (
            |tx| _ = tx.open_table(PAY_OPEN).unwrap().remove(&payment(1).0).unwrap().unwrap(),
            "the list of open payments disagrees",
        ),
        (
            |tx| _ = tx.open_table(PAYMENTS).unwrap().remove(&payment(3).0).unwrap().unwrap(),
            "req_00000000000000000000000000000004 runs on pay_0303",
        ),
        (more_held_than_there_is, "open calls hold 2000 micros of evm:0x0101"),
        (a_top_up_that_served_a_call, "payments do not say of the calls that they paid for"),
    ];
    for (change, complaint) in cases {
        let (_folder, path) = after_repair(change, complaint);
        assert!(problems(&path).iter().any(|problem| problem.contains(complaint)), "hidden: {complaint}");
        assert!(Ledger::open(&path, clock(), Options::default()).is_err(), "sold on: {complaint}");
    }
}

/// The amount of a hold stands behind a byte for the form, one for the fund and 33 for the wallet.
fn more_held_than_there_is(tx: &WriteTransaction) {
    let mut holds = tx.open_table(HOLDS).unwrap();
    let row = holds.get(3).unwrap().unwrap().value().to_vec();
    assert_eq!(row[35], 120);
    // 2,000, seven bits in a byte.
    let more = [&row[..35], &[0xd0, 0x0f], &row[36..]].concat();
    holds.insert(3, more.as_slice()).unwrap();
}

fn a_top_up_that_served_a_call(tx: &WriteTransaction) {
    let mut payments = tx.open_table(PAYMENTS).unwrap();
    let row = String::from_utf8(payments.get(&payment(1).0).unwrap().unwrap().value().to_vec()).unwrap();
    let changed = row.replace(r#"{"Credited":{"amount":2000}}"#, r#"{"Served":{"charge":0,"credited":2000}}"#);
    assert_ne!(changed, row);
    payments.insert(&payment(1).0, changed.as_bytes()).unwrap();
}

#[test]
fn a_row_that_cannot_be_read_ends_the_check_and_the_start() {
    let cases: [(&str, Change); 5] = [
        ("blocked", |tx| _ = tx.open_table(BLOCKED).unwrap().insert(&b"?"[..], &b"{}"[..]).unwrap()),
        ("receipts", |tx| first(tx, RECEIPTS, |receipts, id, _| _ = receipts.insert(id, &b"?"[..]).unwrap())),
        ("holds", |tx| first(tx, HOLDS, |holds, id, _| _ = holds.insert(id, &b"?"[..]).unwrap())),
        ("balances", |tx| _ = tx.open_table(BALANCES).unwrap().insert(&b"?"[..], (1, 1)).unwrap()),
        ("allowances", |tx| _ = tx.open_table(ALLOWANCES).unwrap().insert((&b"?"[..], 1), 1).unwrap()),
    ];
    for (table, change) in cases {
        let folder = TempDir::new().unwrap();
        let path = books(&folder);
        let db = Database::open(&path).unwrap();
        let tx = db.begin_write().unwrap();
        change(&tx);
        tx.commit().unwrap();
        drop(db);
        let started = Ledger::open(&path, clock(), Options::default()).err().expect(table);
        let checked = Report::of_file(&path, |_| {}).expect_err(table);
        for broken in [started, checked] {
            assert_eq!((broken.remedy, broken.cause), (Remedy::Examine, format!("a row of {table} is damaged")));
        }
    }
}
