//! Payouts: taken of a balance once for each id, of money that nothing else can spend, and back when they are proven to have failed.

use std::path::Path;
use std::sync::Barrier;

use farebox::ids::RequestId;
use farebox::ledger::{Claim, Denied, Durable, FILE, Ledger, Movement, Options, Refused, Report, State, repair_derived};
use farebox::money::Micros;
use farebox::tariff::Usage;
use redb::{Database, TableDefinition};
use tempfile::TempDir;

use super::{attempt, claim, clock, draw, payment, wait, wallet};

const PAYOUTS: TableDefinition<&str, &[u8]> = TableDefinition::new("payouts");
const PAYMENTS: TableDefinition<&[u8; 32], &[u8]> = TableDefinition::new("payments");

fn durable(done: Result<Durable, Denied>) {
    done.unwrap().wait_blocking().unwrap();
}

/// Wallet 1 has a thousand.
fn open(folder: &TempDir) -> Ledger {
    let (ledger, _) = Ledger::open(&folder.path().join(FILE), clock(), Options::default()).unwrap();
    let deposit = wait(ledger.deposit(claim(payment(1), wallet(1), 1_000, 100))).unwrap();
    durable(ledger.signed(payment(1), attempt()));
    durable(ledger.confirmed(payment(1), "0xaa", 7));
    drop(deposit);
    ledger.finalized(payment(1)).unwrap();
    ledger
}

fn pay_out(ledger: &Ledger, id: &str, n: u8, amount: u64) -> Result<(), Denied> {
    wait(ledger.pay_out(id, "asked for", Claim { model: None, ..claim(payment(n), wallet(1), amount, u128::from(n)) }))
}

fn available(ledger: &Ledger) -> u64 {
    ledger.available(wallet(1)).get()
}

#[test]
fn a_payout_is_taken_once_and_comes_back_once_when_it_has_failed() {
    let folder = TempDir::new().unwrap();
    let ledger = open(&folder);
    pay_out(&ledger, "a", 2, 400).unwrap();
    assert_eq!(available(&ledger), 600, "before anybody could carry it");
    assert!(matches!(pay_out(&ledger, "a", 2, 400), Err(Denied::Refused(Refused::Known(row))) if row.state == State::Claimed));
    assert!(matches!(pay_out(&ledger, "a", 3, 400), Err(Denied::Refused(Refused::Known(_)))), "nor with another transfer");
    assert!(matches!(pay_out(&ledger, "a", 2, 401), Err(Denied::Refused(Refused::Duplicate))));
    assert!(matches!(pay_out(&ledger, "b", 2, 400), Err(Denied::Refused(Refused::Known(_)))), "nor one transfer for two");
    assert!(matches!(pay_out(&ledger, "b", 3, 601), Err(Denied::Refused(Refused::Insufficient { .. }))));
    assert_eq!((available(&ledger), ledger.expected(wallet(1)).unwrap().arriving), (600, Micros::ZERO), "it does not come in");
    durable(ledger.failed(payment(2), "proof"));
    assert_eq!(available(&ledger), 1_000);
    assert!(ledger.failed(payment(2), "proof").is_err() && ledger.confirmed(payment(2), "0xbb", 8).is_err());
    // The same nonce again, which is another authorization of the same transfer.
    pay_out(&ledger, "a", 2, 400).unwrap();
    durable(ledger.signed(payment(2), attempt()));
    durable(ledger.confirmed(payment(2), "0xbb", 8));
    durable(ledger.confirmed(payment(2), "0xbb", 8));
    assert!(ledger.failed(payment(2), "proof").is_err(), "what has arrived fails only after it vanished");
    ledger.reorged(payment(2)).unwrap();
    durable(ledger.failed(payment(2), "proof"));
    assert_eq!(available(&ledger), 1_000, "what vanished for good is with us again");
    pay_out(&ledger, "a", 4, 400).unwrap();
    durable(ledger.confirmed(payment(4), "0xcc", 9));
    ledger.finalized(payment(4)).unwrap();
    let (payout, row) = ledger.payout("a").unwrap().unwrap();
    assert_eq!((payout.payment, row.state, payout.reason.as_str()), (payment(4), State::Final, "asked for"));
    durable(ledger.flush());
    let lines = ledger.statement(wallet(1), 10, 0).unwrap().0;
    let amounts: Vec<_> = lines.iter().map(|line| line.amount).collect();
    assert_eq!(amounts, [-400, 400, -400, 400, -400, 1_000]);
    assert!(lines[..5].iter().all(|line| line.movement == Movement::Payout));
    assert_eq!(ledger.totals().unwrap().outgoing, 0);
    let report = ledger.verify().unwrap();
    assert!(report.ok, "{:?}", report.problems);
    let came_in: i64 = report.house.iter().filter(|(name, _)| name.starts_with("external")).map(|(_, micros)| *micros).sum();
    assert_eq!(came_in, -600, "a thousand came in and four hundred went out: {:?}", report.house);
}

#[test]
fn what_a_chain_can_still_take_back_is_not_paid_out() {
    let folder = TempDir::new().unwrap();
    let ledger = open(&folder);
    let deposit = wait(ledger.deposit(claim(payment(2), wallet(1), 300, 200))).unwrap();
    durable(ledger.signed(payment(2), attempt()));
    durable(ledger.confirmed(payment(2), "0xbb", 8));
    drop(deposit);
    assert_eq!((available(&ledger), ledger.payable(wallet(1)).unwrap().get()), (1_300, 1_000));
    let refused = pay_out(&ledger, "a", 3, 1_001);
    assert!(matches!(refused, Err(Denied::Refused(Refused::Insufficient { available, .. })) if available.get() == 1_000));
    pay_out(&ledger, "a", 3, 900).unwrap();
    assert!(pay_out(&ledger, "b", 4, 101).is_err(), "what is left is not final either");
    ledger.close();
    drop(ledger);
    let (ledger, _) = Ledger::open(&folder.path().join(FILE), clock(), Options::default()).unwrap();
    assert!(pay_out(&ledger, "b", 4, 101).is_err(), "nor after a restart");
    ledger.finalized(payment(2)).unwrap();
    pay_out(&ledger, "b", 4, 400).unwrap();
    assert_eq!(available(&ledger), 0);
    assert!(ledger.verify().unwrap().ok);
}

#[test]
fn what_was_given_back_of_a_call_whose_payment_is_not_final_is_not_paid_out_either() {
    let folder = TempDir::new().unwrap();
    let ledger = open(&folder);
    let call = wait(ledger.claim(claim(payment(2), wallet(1), 500, 200))).unwrap();
    durable(ledger.signed(payment(2), attempt()));
    durable(ledger.confirmed(payment(2), "0xbb", 8));
    let payable = || ledger.payable(wallet(1)).unwrap().get();
    assert_eq!((available(&ledger), payable()), (1_000, 1_000), "what pays for an open call is no balance");
    let _ = call.paid().ok().unwrap().post(Micros::new(300), Usage::default());
    assert_eq!((available(&ledger), payable()), (1_200, 1_000), "the rest of it is");
    durable(ledger.flush());
    wait(ledger.refund(RequestId(200), None)).unwrap();
    assert_eq!((available(&ledger), payable()), (1_500, 1_000), "and what it cost, given back");
    assert!(pay_out(&ledger, "a", 3, 1_001).is_err());
    // The payment vanishes for good: whoever was paid out has left what must be taken back.
    pay_out(&ledger, "a", 3, 1_000).unwrap();
    ledger.reorged(payment(2)).unwrap();
    durable(ledger.failed(payment(2), "proof"));
    assert_eq!(available(&ledger), 0);
    let report = ledger.verify().unwrap();
    assert!(report.ok, "{:?}", report.problems);
    let lost = report.house.iter().find(|(name, _)| *name == "bad debt").map_or(0, |(_, micros)| *micros);
    assert_eq!(lost, 0, "{:?}", report.house);
}

#[test]
fn calls_and_payouts_at_the_same_moment_take_no_more_than_there_is() {
    for _ in 0..20 {
        let folder = TempDir::new().unwrap();
        let ledger = open(&folder);
        let start = Barrier::new(40);
        let taken: Vec<_> = std::thread::scope(|scope| {
            let (ledger, start) = (&ledger, &start);
            let one = |n: u8| {
                move || {
                    start.wait();
                    match n % 2 {
                        0 => pay_out(ledger, &n.to_string(), 10 + n, 100).map(|()| None),
                        _ => wait(ledger.reserve(draw(wallet(1), 100, 1_000 + u128::from(n)))).map(Some),
                    }
                }
            };
            let threads: Vec<_> = (0..40).map(|n| scope.spawn(one(n))).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(taken.iter().filter(|taken| taken.is_ok()).count(), 10, "ten times a hundred of a thousand");
        assert_eq!(available(&ledger), 0);
        assert!(ledger.verify().unwrap().ok);
    }
}

#[test]
fn a_start_goes_on_with_a_payout_that_was_claimed_and_gives_nothing_back() {
    let folder = TempDir::new().unwrap();
    let ledger = open(&folder);
    pay_out(&ledger, "a", 2, 400).unwrap();
    ledger.close();
    drop(ledger);
    let (ledger, recovered) = Ledger::open(&folder.path().join(FILE), clock(), Options::default()).unwrap();
    assert_eq!((recovered.open_payments, recovered.voided), (1, 0));
    let open: Vec<_> = ledger.open_payments().into_iter().filter(|(_, row)| row.payout.is_some()).collect();
    assert_eq!((open.len(), open[0].0, open[0].1.state), (1, payment(2), State::Claimed));
    assert_eq!((available(&ledger), ledger.totals().unwrap().outgoing), (600, 400));
    assert!(matches!(pay_out(&ledger, "a", 2, 400), Err(Denied::Refused(Refused::Known(_)))));
    assert!(ledger.receipt(RequestId(2)).unwrap().is_none());
}

/// Changes the row under a name in a table of JSON rows, or takes it away.
fn change(path: &Path, table: &str, from: &str, to: Option<&str>) {
    let tx = Database::open(path).unwrap().begin_write().unwrap();
    let edit = |row: &[u8]| String::from_utf8(row.to_vec()).unwrap().replace(from, to.unwrap_or_default());
    if table == "payouts" {
        let mut rows = tx.open_table(PAYOUTS).unwrap();
        let after = edit(rows.remove("a").unwrap().unwrap().value());
        let _ = to.map(|_| rows.insert("a", after.as_bytes()).map(drop).unwrap());
    } else {
        let mut rows = tx.open_table(PAYMENTS).unwrap();
        let after = edit(rows.remove(&payment(2).0).unwrap().unwrap().value());
        let _ = to.map(|_| rows.insert(&payment(2).0, after.as_bytes()).map(drop).unwrap());
    }
    tx.commit().unwrap();
}

#[test]
fn payouts_that_were_changed_are_noticed_and_no_repair_hides_it() {
    for (table, from, to, complaint) in [
        ("payouts", "", None, "payouts do not say"),
        ("payouts", "\"micros\":400", Some("\"micros\":401"), "has no transfer of its own"),
        ("payouts", "0101", Some("0202"), "has no transfer of its own"),
        ("payments", "\"payout\":\"a\"", Some("\"payout\":\"b\""), "has no transfer of its own"),
        ("payments", ",\"payout\":\"a\"", Some(""), "are on their way"),
        ("payments", "Claimed", Some("Sent"), ""),
        ("payments", "Claimed", Some("Confirmed"), "outgoing, open payouts explain 0"),
        ("payments", "Claimed", Some("Failed"), "payouts do not say"),
        ("payments", "\"amount\":400", Some("\"amount\":40"), "has no transfer of its own"),
    ] {
        let folder = TempDir::new().unwrap();
        let (ledger, path) = (open(&folder), folder.path().join(FILE));
        pay_out(&ledger, "a", 2, 400).unwrap();
        ledger.close();
        drop(ledger);
        assert!(Report::of_file(&path, |_| ()).unwrap().ok);
        change(&path, table, from, to);
        repair_derived(&path).unwrap();
        let problems = Report::of_file(&path, |_| ()).unwrap().problems;
        match complaint {
            "" => assert_eq!(problems, Vec::<String>::new(), "a step on its way is as good as another"),
            _ => assert!(problems.iter().any(|problem| problem.contains(complaint)), "{from} {to:?}: {problems:?}"),
        }
    }
}
