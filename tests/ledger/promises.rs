//! One promise per test, on a disk without trouble unless the test says so.

use farebox::ids::Funds as _;
use farebox::ledger::{Denied, Ledger, Money, Options, Outcome, Refused, State};
use farebox::money::Micros;
use farebox::tariff::Usage;

use super::disk::{Disk, Trouble};
use super::{attempt, claim, clock, draw, payment, wait, wallet};

fn open(disk: &Disk) -> Ledger {
    Ledger::open_on(disk.clone(), clock(), Options::default()).unwrap().0
}

fn confirm(ledger: &Ledger, n: u8) {
    ledger.signed(payment(n), attempt()).unwrap().wait_blocking().unwrap();
    ledger.confirmed(payment(n), "0xaa", 7).unwrap().wait_blocking().unwrap();
}

/// A wallet gets balance by a payment whose call delivered nothing.
fn with_balance(ledger: &Ledger, who: u8, amount: u64) {
    let reservation = wait(ledger.claim(claim(payment(200 + who), wallet(who), amount, 1 << 100 | u128::from(who)))).unwrap();
    confirm(ledger, 200 + who);
    reservation.void();
}

#[test]
fn a_paid_call_is_charged_and_the_remainder_becomes_balance() {
    let disk = Disk::new(Trouble::None);
    let ledger = open(&disk);
    let reservation = wait(ledger.claim(claim(payment(1), wallet(1), 1000, 1))).unwrap();
    confirm(&ledger, 1);
    let Ok(paid) = reservation.paid() else { panic!("confirmed money lets bytes out") };
    assert_eq!(paid.post(Micros::new(300), Usage::default()), Micros::new(300));
    assert_eq!(ledger.available(wallet(1)), Micros::new(700));
    let row = ledger.payment(payment(1)).unwrap().unwrap();
    assert_eq!(row.outcome, Some(Outcome::Served { charge: 300, credited: 700 }));
    ledger.close();
    let ledger = open(&disk.reopened());
    assert_eq!(ledger.available(wallet(1)), Micros::new(700));
    assert!(is_clean(&ledger));
}

fn is_clean(ledger: &Ledger) -> bool {
    let report = ledger.verify().unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    report.ok
}

#[test]
fn a_charge_is_never_above_what_was_held() {
    let ledger = open(&Disk::new(Trouble::None));
    let reservation = wait(ledger.claim(claim(payment(1), wallet(1), 1000, 1))).unwrap();
    confirm(&ledger, 1);
    assert_eq!(reservation.paid().ok().unwrap().post(Micros::new(u64::MAX), Usage::default()), Micros::new(1000));
    assert_eq!(ledger.available(wallet(1)), Micros::ZERO);
}

#[test]
fn nothing_is_relayed_before_the_chain_has_confirmed() {
    let ledger = open(&Disk::new(Trouble::None));
    let reservation = wait(ledger.claim(claim(payment(1), wallet(1), 1000, 1))).unwrap();
    let Err(reservation) = reservation.paid() else { panic!("a claim is not money") };
    ledger.signed(payment(1), attempt()).unwrap().wait_blocking().unwrap();
    assert!(reservation.paid().is_err(), "a signature is not money");
}

#[test]
fn a_copy_of_a_payment_is_known_while_it_runs_and_ever_after() {
    let disk = Disk::new(Trouble::None);
    let ledger = open(&disk);
    let reservation = wait(ledger.claim(claim(payment(1), wallet(1), 1000, 1))).unwrap();
    let copy = |ledger: &Ledger, request| match wait(ledger.claim(claim(payment(1), wallet(1), 1000, request))) {
        Err(Denied::Refused(Refused::Known(row))) => row.state,
        other => panic!("a second sale: {:?}", other.map(|r| r.request())),
    };
    assert_eq!(copy(&ledger, 2), State::Claimed);
    confirm(&ledger, 1);
    let _ = reservation.paid().ok().unwrap().post(Micros::new(1), Usage::default());
    ledger.finalized(payment(1)).unwrap();
    assert_eq!(copy(&ledger, 3), State::Final);
    ledger.close();
    drop(ledger);
    assert_eq!(copy(&open(&disk.reopened()), 4), State::Final);
}

#[test]
fn a_claim_given_back_before_signing_may_be_claimed_again_but_not_signed() {
    let ledger = open(&Disk::new(Trouble::None));
    drop(wait(ledger.claim(claim(payment(1), wallet(1), 1000, 1))).unwrap());
    assert_eq!(
        ledger.signed(payment(1), attempt()).err(),
        Some(Denied::Refused(Refused::WrongState)),
        "a voided claim is never sent"
    );
    assert!(wait(ledger.claim(claim(payment(1), wallet(1), 999, 2))).is_err(), "nor by another amount under the same nonce");
    assert!(wait(ledger.claim(claim(payment(1), wallet(1), 1000, 2))).is_ok());
}

#[test]
fn money_that_arrives_after_its_call_was_given_up_is_the_payers() {
    let ledger = open(&Disk::new(Trouble::None));
    let reservation = wait(ledger.claim(claim(payment(1), wallet(1), 1000, 1))).unwrap();
    ledger.signed(payment(1), attempt()).unwrap().wait_blocking().unwrap();
    drop(reservation);
    assert_eq!(ledger.available(wallet(1)), Micros::ZERO, "nothing has arrived yet");
    ledger.confirmed(payment(1), "0xaa", 7).unwrap().wait_blocking().unwrap();
    ledger.confirmed(payment(1), "0xbb", 8).unwrap().wait_blocking().unwrap();
    assert_eq!(ledger.available(wallet(1)), Micros::new(1000), "credited once, however often it is confirmed");
    assert!(is_clean(&ledger));
}

#[test]
fn a_claim_given_back_whose_money_arrives_all_the_same_is_the_payers() {
    let ledger = open(&Disk::new(Trouble::None));
    drop(wait(ledger.claim(claim(payment(1), wallet(1), 1000, 1))).unwrap());
    // A later commit: the closed claim is forgotten by memory before somebody else's submission is seen.
    with_balance(&ledger, 9, 1);
    with_balance(&ledger, 8, 1);
    ledger.confirmed(payment(1), "0xaa", 7).unwrap().wait_blocking().unwrap();
    assert_eq!(ledger.available(wallet(1)), Micros::new(1000));
    assert!(wait(ledger.claim(claim(payment(1), wallet(1), 1000, 2))).is_err(), "and it buys nothing more");
    assert!(is_clean(&ledger));
}

#[test]
fn a_flat_price_does_not_apply_to_a_part() {
    let disk = Disk::new(Trouble::None);
    let keep = Options { keep_remainder: true, ..Options::default() };
    let ledger = Ledger::open_on(disk.clone(), clock(), keep).unwrap().0;
    let call = |n: u8| {
        let reservation = wait(ledger.claim(claim(payment(n), wallet(n), 1000, u128::from(n)))).unwrap();
        confirm(&ledger, n);
        reservation.paid().ok().unwrap()
    };
    assert_eq!(call(1).post(Micros::new(300), Usage::default()), Micros::new(1000), "a whole answer costs its flat price");
    assert_eq!(call(2).post_part(Micros::new(300), Usage::default()), Micros::new(300));
    let crashed = call(3);
    crashed.checkpoint(Micros::new(200));
    std::mem::forget(crashed);
    ledger.close();
    let ledger = Ledger::open_on(disk.reopened(), clock(), keep).unwrap().0;
    let left = [1, 2, 3].map(|n| ledger.available(wallet(n)).get());
    assert_eq!(left, [0, 700, 800]);
    assert!(is_clean(&ledger));
}

#[test]
fn one_ledger_never_holds_two_kinds_of_money() {
    let disk = Disk::new(Trouble::None);
    let kept_in = |money| Options { money, ..Options::default() };
    let ledger = Ledger::open_on(disk.clone(), clock(), kept_in(Money::Simulated)).unwrap().0;
    with_balance(&ledger, 1, 1000);
    ledger.close();
    for money in [Money::Test, Money::Main] {
        assert!(
            Ledger::open_on(disk.reopened(), clock(), kept_in(money)).is_err(),
            "simulated balances would be spent as {money:?}"
        );
    }
    assert!(Ledger::open_on(disk.reopened(), clock(), kept_in(Money::Simulated)).is_ok());
}

#[test]
fn a_transfer_that_a_reorg_removed_for_good_is_the_operators_loss_not_another_wallets() {
    let ledger = open(&Disk::new(Trouble::None));
    with_balance(&ledger, 9, 500);
    let reservation = wait(ledger.claim(claim(payment(1), wallet(1), 1000, 1))).unwrap();
    confirm(&ledger, 1);
    let _ = reservation.paid().ok().unwrap().post(Micros::new(300), Usage::default());
    assert!(ledger.failed(payment(1), "gone").is_err(), "what the chain has confirmed does not fail unseen");
    ledger.reorged(payment(1)).unwrap();
    ledger.failed(payment(1), "gone").unwrap().wait_blocking().unwrap();
    assert_eq!(ledger.available(wallet(1)), Micros::ZERO, "its credit is taken back");
    assert_eq!(ledger.available(wallet(9)), Micros::new(500));
    let report = ledger.verify().unwrap();
    assert_eq!((report.ok, report.house["bad debt"]), (true, -300), "{:?}", report.problems);
}

#[test]
fn concurrent_calls_cannot_spend_a_balance_twice() {
    let ledger = open(&Disk::new(Trouble::None));
    with_balance(&ledger, 1, 1000);
    let held: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..64u128)
            .map(|n| {
                let ledger = ledger.clone();
                scope.spawn(move || wait(ledger.reserve(draw(wallet(1), 100, n))).ok())
            })
            .collect();
        threads.into_iter().filter_map(|thread| thread.join().unwrap()).collect()
    });
    assert_eq!(held.len(), 10);
    assert_eq!(ledger.available(wallet(1)), Micros::ZERO);
    drop(held);
    assert_eq!(ledger.available(wallet(1)), Micros::new(1000), "a dropped reservation is a refund");
    assert!(is_clean(&ledger));
}

#[test]
fn a_hold_grows_while_a_call_goes_on_and_ends_once() {
    let ledger = open(&Disk::new(Trouble::None));
    with_balance(&ledger, 1, 1000);
    let mut paid = wait(ledger.reserve(draw(wallet(1), 400, 5))).unwrap().paid().ok().unwrap();
    assert_eq!(paid.extend(Micros::new(400)).unwrap(), Micros::new(400));
    assert_eq!(paid.ceiling(), Micros::new(800));
    assert_eq!(paid.extend(Micros::new(400)).unwrap(), Micros::new(200), "only what the wallet has");
    assert!(paid.extend(Micros::new(400)).is_err(), "which is nothing now");
    assert_eq!((paid.ceiling(), ledger.available(wallet(1))), (Micros::new(1000), Micros::ZERO));
    assert_eq!(paid.post(Micros::new(700), Usage::default()), Micros::new(700));
    assert_eq!(ledger.available(wallet(1)), Micros::new(300));
    assert!(is_clean(&ledger));
}

#[test]
fn a_start_voids_calls_that_relayed_nothing_and_charges_the_checkpoint_of_the_others() {
    let disk = Disk::new(Trouble::None);
    let ledger = open(&disk);
    with_balance(&ledger, 1, 1000);
    let idle = wait(ledger.reserve(draw(wallet(1), 100, 1))).unwrap();
    let busy = wait(ledger.reserve(draw(wallet(1), 500, 2))).unwrap().paid().ok().unwrap();
    busy.checkpoint(Micros::new(200));
    let paid = wait(ledger.claim(claim(payment(1), wallet(2), 900, 3))).unwrap();
    confirm(&ledger, 1);
    // The crash: nobody ends these calls.
    std::mem::forget((idle, busy, paid));
    let (ledger, recovered) = Ledger::open_on(disk.reopened(), clock(), Options::default()).unwrap();
    assert_eq!((recovered.voided, recovered.charged), (2, 1));
    assert_eq!(ledger.available(wallet(1)), Micros::new(800));
    assert_eq!(ledger.available(wallet(2)), Micros::new(900), "confirmed money of a call nobody serves is the payer's");
    assert_eq!(ledger.open_holds(), 0);
    assert!(is_clean(&ledger));
}
