//! What a balance, a key, an allowance and a top-up promise, one promise per test.

use farebox::clock::{Day, Period, Timestamp};
use farebox::ids::RequestId;
use farebox::ledger::{Denied, Draw, Grant, KeyDraw, Ledger, Movement, Options, Outcome, Paid, Refused, State};
use farebox::money::Micros;
use farebox::tariff::Usage;

use super::disk::{Disk, Random, Trouble};
use super::steps::nonce;
use super::{Hands, NOON, attempt, claim, draw, key, payment, wait, wallet};

pub const HOUR: u64 = 3_600_000;
pub const DAY: u64 = 24 * HOUR;

pub fn open(disk: &Disk, hands: &Hands) -> Ledger {
    Ledger::open_on(disk.clone(), hands.clock(), Options::default()).unwrap().0
}

pub fn new() -> (Ledger, Disk, Hands) {
    let (disk, hands) = (Disk::new(Trouble::None), Hands::at(NOON));
    (open(&disk, &hands), disk, hands)
}

fn confirm(ledger: &Ledger, n: u8) {
    ledger.signed(payment(n), attempt()).unwrap().wait_blocking().unwrap();
    ledger.confirmed(payment(n), "0xaa", 7).unwrap().wait_blocking().unwrap();
}

pub fn top_up(ledger: &Ledger, amount: u64) {
    let deposit = wait(ledger.deposit(claim(payment(200), wallet(1), amount, 1 << 100))).unwrap();
    confirm(ledger, 200);
    drop(deposit);
}

pub fn grant(ledger: &Ledger, per_day: Option<u64>) {
    let grant = per_day.map(|per_day| Grant { per_day, from: None, until: None, note: "beta".into() });
    ledger.grant(wallet(1), grant).unwrap().wait_blocking().unwrap();
}

pub fn reserve(ledger: &Ledger, draw: Draw) -> Result<Paid, Denied> {
    wait(ledger.reserve(draw)).map(|reservation| reservation.paid().ok().expect("a balance is there"))
}

fn call(ledger: &Ledger, amount: u64, n: u128) -> Result<Paid, Denied> {
    reserve(ledger, draw(wallet(1), amount, n))
}

pub fn by_key(limit: u64, period: Period, amount: u64, n: u128) -> Draw {
    Draw { key: Some(KeyDraw { id: key(1), limit: Some(Micros::new(limit)), period }), ..draw(wallet(1), amount, n) }
}

pub fn post(paid: Paid, owed: u64) -> u64 {
    paid.post(Micros::new(owed), Usage::default()).get()
}

/// What wallet 1 has posted, held and left of its allowance.
pub fn has(ledger: &Ledger) -> (u64, u64, u64) {
    let standing = ledger.standing(wallet(1)).unwrap();
    assert_eq!(standing.available.get(), standing.posted.get() - standing.held.get());
    (standing.posted.get(), standing.held.get(), standing.allowance.get())
}

/// The books are clean, and the operator earned this.
pub fn close(ledger: &Ledger, sales: i64) {
    ledger.flush().unwrap().wait_blocking().unwrap();
    let report = ledger.verify().unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!((report.open_holds, report.house.get("sales").copied().unwrap_or(0)), (0, sales));
}

#[test]
fn the_allowance_is_spent_first_then_the_balance_within_one_call() {
    let (ledger, ..) = new();
    top_up(&ledger, 1_000);
    grant(&ledger, Some(300));
    let paid = call(&ledger, 500, 1).unwrap();
    assert_eq!(has(&ledger), (1_000, 200, 0), "300 of the allowance and 200 of the balance stand for it");
    assert_eq!(post(paid, 420), 420);
    assert_eq!(has(&ledger), (880, 0, 0), "the allowance paid 300, the balance 120");
    grant(&ledger, Some(1_000));
    assert_eq!(post(call(&ledger, 500, 2).unwrap(), 50), 50);
    assert_eq!(has(&ledger), (880, 0, 650), "a larger grant counts at once, and a call that it pays moves no balance");
    ledger.flush().unwrap().wait_blocking().unwrap();
    let receipts = [1, 2].map(|n| ledger.receipt(RequestId(n)).unwrap().unwrap());
    assert_eq!(receipts.map(|receipt| (receipt.charge, receipt.allowance)), [(420, 300), (50, 50)]);
    let lines = ledger.statement(wallet(1), 10, 0).unwrap().0;
    let lines: Vec<_> = lines.iter().map(|line| (line.amount, line.movement, line.request)).collect();
    assert_eq!(lines, [(-120, Movement::Charge, Some(RequestId(1))), (1_000, Movement::TopUp, None)]);
    grant(&ledger, None);
    assert_eq!(has(&ledger), (880, 0, 0));
    let refused = Refused::Insufficient { available: Micros::new(880), needed: Micros::new(881) };
    assert_eq!(call(&ledger, 881, 3).err(), Some(Denied::Refused(refused)));
    close(&ledger, 120);
}

#[test]
fn a_call_across_midnight_counts_for_the_day_on_which_it_began() {
    let (ledger, _, hands) = new();
    grant(&ledger, Some(1_000));
    let late = call(&ledger, 800, 1).unwrap();
    hands.set(NOON + 12 * HOUR - 1);
    assert_eq!(has(&ledger), (0, 0, 200), "the last millisecond of the day");
    hands.set(NOON + 12 * HOUR);
    assert_eq!(has(&ledger), (0, 0, 1_000), "nothing rolls over, nothing is missing");
    let early = call(&ledger, 600, 2).unwrap();
    assert_eq!(post(late, 800), 800);
    assert_eq!(has(&ledger), (0, 0, 400), "what began yesterday is not spent of today");
    assert_eq!(post(early, 10), 10);
    assert_eq!(has(&ledger), (0, 0, 990));
    hands.set(NOON);
    assert_eq!(has(&ledger), (0, 0, 200), "a clock that is set back gives no second allowance of that day");
    close(&ledger, 0);
}

#[test]
fn a_keys_limit_starts_again_with_its_period_and_not_before() {
    // Noon of a Thursday, the 20th: the day ends in 12 hours, the week in 3 days and a half, the month in 10 and a half.
    let ends = [(Period::Day, 12 * HOUR), (Period::Week, 3 * DAY + 12 * HOUR), (Period::Month, 10 * DAY + 12 * HOUR)];
    for (period, after) in ends {
        let (ledger, _, hands) = new();
        top_up(&ledger, 10_000);
        assert_eq!(post(reserve(&ledger, by_key(1_000, period, 900, 1)).unwrap(), 900), 900);
        let refused = Some(Denied::Refused(Refused::KeyLimit { left: Micros::new(100) }));
        hands.set(NOON + after - 1);
        assert_eq!(reserve(&ledger, by_key(1_000, period, 101, 2)).err(), refused, "{period:?}");
        assert_eq!(has(&ledger), (9_100, 0, 0), "a refused call holds nothing");
        hands.set(NOON + after);
        assert_eq!(post(reserve(&ledger, by_key(1_000, period, 1_000, 3)).unwrap(), 1_000), 1_000, "{period:?}");
        hands.set(NOON);
        assert!(reserve(&ledger, by_key(1_000, period, 101, 4)).is_err(), "a clock that is set back begins no period anew");
        close(&ledger, 1_900);
    }
    let (ledger, _, hands) = new();
    top_up(&ledger, 10_000);
    assert_eq!(post(reserve(&ledger, by_key(1_000, Period::Ever, 900, 1)).unwrap(), 900), 900);
    hands.set(NOON + 400 * DAY);
    assert!(reserve(&ledger, by_key(1_000, Period::Ever, 101, 2)).is_err(), "a limit for ever never starts again");
    close(&ledger, 900);
}

#[test]
fn a_restart_keeps_what_was_spent_and_used_and_granted() {
    let (ledger, disk, hands) = new();
    top_up(&ledger, 10_000);
    grant(&ledger, Some(500));
    let first = Draw { nonce: Some(nonce(1, NOON)), ..by_key(1_000, Period::Week, 900, 1) };
    assert_eq!(post(reserve(&ledger, first).unwrap(), 800), 800);
    ledger.use_nonce(nonce(2, NOON)).unwrap().wait_blocking().unwrap();
    let before = (has(&ledger), ledger.grants().unwrap(), ledger.key_spending(key(1), Period::Week).unwrap());
    ledger.close();
    let ledger = open(&disk.reopened(), &hands);
    let after = (has(&ledger), ledger.grants().unwrap(), ledger.key_spending(key(1), Period::Week).unwrap());
    assert_eq!(after, before);
    assert_eq!(after.0, (9_700, 0, 0));
    assert!(reserve(&ledger, by_key(1_000, Period::Week, 201, 2)).is_err());
    for used in [1, 2] {
        let again = Draw { nonce: Some(nonce(used, NOON)), ..draw(wallet(1), 1, 3) };
        assert_eq!(reserve(&ledger, again).err(), Some(Denied::Refused(Refused::NonceUsed)));
    }
    assert_eq!(ledger.usage(wallet(1), Day(0)).unwrap().len(), 1);
    assert_eq!(has(&ledger), (9_700, 0, 0));
    close(&ledger, 300);
}

#[test]
fn a_hold_above_the_threshold_is_durable_before_its_call_goes_on_and_others_wait_for_no_disk() {
    let options = Options { hold_durable_above: Micros::new(100), ..Options::default() };
    for seed in 0..50 {
        let (disk, hands) = (Disk::new(Trouble::None), Hands::at(NOON));
        let ledger = Ledger::open_on(disk.clone(), hands.clock(), options).unwrap().0;
        top_up(&ledger, 1_000);
        let large = wait(ledger.reserve(draw(wallet(1), 101, 1))).unwrap();
        disk.cut();
        let small = wait(ledger.reserve(draw(wallet(1), 100, 2)));
        let another = wait(ledger.reserve(draw(wallet(1), 101, 3)));
        assert!(another.is_err(), "it waits for the disk, which is gone");
        assert!(small.is_ok(), "it is decided in memory");
        let after = disk.after_power_cut(&mut Random::new(seed));
        drop((large, small));
        let (ledger, recovered) = Ledger::open_on(after, hands.clock(), options).unwrap();
        assert!(recovered.voided >= 1, "the large one was on the disk");
        assert_eq!(has(&ledger), (1_000, 0, 0), "and was given back");
        close(&ledger, 0);
    }
}

#[test]
fn a_hold_grows_by_as_much_as_allowance_balance_and_the_keys_limit_have() {
    let (ledger, _, hands) = new();
    top_up(&ledger, 1_000);
    grant(&ledger, Some(200));
    let mut paid = reserve(&ledger, by_key(700, Period::Day, 100, 1)).unwrap();
    assert_eq!(has(&ledger), (1_000, 0, 100));
    assert_eq!(paid.extend(Micros::new(300)), Ok(Micros::new(300)));
    assert_eq!(has(&ledger), (1_000, 200, 0), "allowance first");
    assert_eq!(paid.extend(Micros::new(400)), Ok(Micros::new(300)), "the key has no more");
    assert_eq!(paid.extend(Micros::new(1)), Err(Denied::Refused(Refused::KeyLimit { left: Micros::ZERO })));
    assert_eq!((paid.ceiling().get(), has(&ledger)), (700, (1_000, 500, 0)), "a refusal changes nothing");
    assert_eq!(post(paid, 700), 700);
    assert_eq!(has(&ledger), (500, 0, 0));
    hands.set(NOON + DAY);
    let mut paid = call(&ledger, 300, 2).unwrap();
    assert_eq!(has(&ledger), (500, 100, 0));
    hands.set(NOON + 2 * DAY);
    assert_eq!(
        paid.extend(Micros::new(500)),
        Ok(Micros::new(400)),
        "what the balance has: the new day has no more than it holds"
    );
    assert_eq!(has(&ledger), (500, 500, 200));
    let none = Refused::Insufficient { available: Micros::ZERO, needed: Micros::new(1) };
    assert_eq!(paid.extend(Micros::new(1)), Err(Denied::Refused(none)));
    paid.void();
    assert_eq!(has(&ledger), (500, 0, 200));
    close(&ledger, 500);
}

#[test]
fn a_call_that_wants_more_in_a_new_period_counts_for_that_one_so_that_no_limit_is_exceeded() {
    let (ledger, _, hands) = new();
    top_up(&ledger, 10_000);
    let mut paid = reserve(&ledger, by_key(700, Period::Day, 500, 1)).unwrap();
    hands.set(NOON + DAY);
    assert_eq!(post(reserve(&ledger, by_key(700, Period::Day, 100, 2)).unwrap(), 100), 100);
    assert_eq!(paid.extend(Micros::new(300)), Ok(Micros::new(100)), "700 less the 100 spent today and the 500 it has");
    let spending = || ledger.key_spending(key(1), Period::Day).map(|spending| (spending.spent, spending.held));
    assert_eq!(spending(), Ok((100, 600)));
    assert_eq!(post(paid, 550), 550);
    assert_eq!(spending(), Ok((650, 0)));
    close(&ledger, 650);
}

#[test]
fn a_call_that_its_payment_pays_for_never_holds_more() {
    let (ledger, ..) = new();
    top_up(&ledger, 1_000);
    let reservation = wait(ledger.claim(claim(payment(1), wallet(1), 100, 1))).unwrap();
    confirm(&ledger, 1);
    let mut paid = reservation.paid().ok().unwrap();
    assert_eq!(paid.extend(Micros::new(1)), Err(Denied::Refused(Refused::WrongState)));
    assert_eq!((post(paid, 1_000), has(&ledger)), (100, (1_000, 0, 0)), "what the wallet has beside it is not touched");
    close(&ledger, 100);
}

#[test]
fn a_top_up_is_balance_once_the_chain_has_it_and_however_often_it_is_brought() {
    let (ledger, disk, hands) = new();
    let deposit = wait(ledger.deposit(claim(payment(1), wallet(1), 2_000, 1))).unwrap();
    let known = |n| match wait(ledger.deposit(claim(payment(1), wallet(1), 2_000, n))).err() {
        Some(Denied::Refused(Refused::Known(row))) => (row.state, row.outcome),
        other => panic!("{other:?}"),
    };
    assert_eq!(known(2), (State::Claimed, None));
    ledger.signed(payment(1), attempt()).unwrap().wait_blocking().unwrap();
    drop(deposit);
    assert_eq!(known(3), (State::Signed, None), "once it is signed, leaving gives nothing back");
    assert_eq!(has(&ledger), (0, 0, 0), "nothing has arrived");
    ledger.confirmed(payment(1), "0xaa", 7).unwrap().wait_blocking().unwrap();
    ledger.confirmed(payment(1), "0xaa", 7).unwrap().wait_blocking().unwrap();
    let credited = Some(Outcome::Credited { amount: 2_000 });
    assert_eq!((known(4), has(&ledger)), ((State::Confirmed, credited), (2_000, 0, 0)));
    ledger.close();
    let ledger = open(&disk.reopened(), &hands);
    assert!(matches!(wait(ledger.claim(claim(payment(1), wallet(1), 2_000, 5))), Err(Denied::Refused(Refused::Known(_)))));
    let lines = ledger.statement(wallet(1), 10, 0).unwrap().0;
    let lines: Vec<_> = lines.iter().map(|line| (line.amount, line.movement, line.request)).collect();
    assert_eq!(lines, [(2_000, Movement::TopUp, None)]);
    assert!(ledger.receipt(RequestId(1)).unwrap().is_none(), "no call was served");
    close(&ledger, 0);
}

#[test]
fn a_payment_that_nobody_remembers_is_not_waited_for_and_counts_when_it_turns_up() {
    let (ledger, _, _) = new();
    let deposit = wait(ledger.deposit(claim(payment(1), wallet(1), 2_000, 1))).unwrap();
    ledger.signed(payment(1), attempt()).unwrap().wait_blocking().unwrap();
    drop(deposit);
    let arriving = || ledger.expected(wallet(1)).unwrap().arriving.get();
    assert_eq!(arriving(), 2_000);
    ledger.forgotten(payment(1)).unwrap();
    assert_eq!((arriving(), has(&ledger)), (0, (0, 0, 0)));
    assert_eq!(ledger.open_payments().len(), 1, "it stays open");
    ledger.confirmed(payment(1), "0xaa", 7).unwrap().wait_blocking().unwrap();
    assert_eq!((arriving(), has(&ledger)), (0, (2_000, 0, 0)));
    close(&ledger, 0);
}

#[test]
fn a_top_up_that_nobody_signed_may_be_brought_again_also_after_a_crash() {
    let (ledger, disk, hands) = new();
    drop(wait(ledger.deposit(claim(payment(1), wallet(1), 2_000, 1))).unwrap());
    assert_eq!(ledger.payment(payment(1)).unwrap().unwrap().state, State::Voided);
    assert!(ledger.signed(payment(1), attempt()).is_err(), "what was given back is never sent");
    let waiting = wait(ledger.deposit(claim(payment(1), wallet(1), 2_000, 2))).unwrap();
    let signed = wait(ledger.deposit(claim(payment(2), wallet(1), 300, 3))).unwrap();
    ledger.signed(payment(2), attempt()).unwrap().wait_blocking().unwrap();
    // The crash: nobody waits for these any more.
    std::mem::forget((waiting, signed));
    let ledger = open(&disk.reopened(), &hands);
    let states = [1, 2].map(|n| ledger.payment(payment(n)).unwrap().unwrap().state);
    assert_eq!(states, [State::Voided, State::Signed], "what was signed may be on its way");
    let deposit = wait(ledger.deposit(claim(payment(1), wallet(1), 2_000, 4))).unwrap();
    for n in [1, 2] {
        confirm(&ledger, n);
    }
    drop(deposit);
    assert_eq!(has(&ledger), (2_300, 0, 0));
    close(&ledger, 0);
}

#[test]
fn a_refund_gives_back_what_was_paid_and_never_more() {
    let (ledger, ..) = new();
    top_up(&ledger, 1_000);
    grant(&ledger, Some(100));
    assert_eq!(post(call(&ledger, 500, 1).unwrap(), 400), 400);
    ledger.flush().unwrap().wait_blocking().unwrap();
    // What is given back of a call then, and what of it just now.
    let refund = |n, total| {
        wait(ledger.refund(RequestId(n), Some(Micros::new(total)))).map(|(receipt, now)| (receipt.refunded, now.get()))
    };
    let left =
        |left, needed| Err(Denied::Refused(Refused::Insufficient { available: Micros::new(left), needed: Micros::new(needed) }));
    assert_eq!(refund(1, 401), left(400, 401), "300 of the balance, 100 of the allowance");
    assert_eq!((refund(1, 200), has(&ledger)), (Ok((200, 200)), (900, 0, 0)));
    assert_eq!((refund(1, 200), has(&ledger)), (Ok((200, 0)), (900, 0, 0)), "so much in all: asking again changes nothing");
    assert_eq!((refund(1, 50), has(&ledger)), (Ok((200, 0)), (900, 0, 0)), "and what was given back stays");
    assert_eq!((refund(1, 300), has(&ledger)), (Ok((300, 100)), (1_000, 0, 0)), "the money comes first");
    assert_eq!(refund(9, 1), Err(Denied::Refused(Refused::WrongState)), "no such call was charged");
    // A payment that vanished from its chain was never there to be given back.
    let reservation = wait(ledger.claim(claim(payment(1), wallet(1), 500, 2))).unwrap();
    confirm(&ledger, 1);
    assert_eq!(post(reservation.paid().ok().unwrap(), 500), 500);
    ledger.reorged(payment(1)).unwrap();
    ledger.failed(payment(1), "gone").unwrap().wait_blocking().unwrap();
    assert_eq!(refund(2, 1), Err(Denied::Refused(Refused::WrongState)));
    assert_eq!(has(&ledger), (1_000, 0, 0));
    // Nor does it stay, if it had been given back before.
    let reservation = wait(ledger.claim(claim(payment(2), wallet(1), 500, 3))).unwrap();
    confirm(&ledger, 2);
    assert_eq!(post(reservation.paid().ok().unwrap(), 500), 500);
    ledger.flush().unwrap().wait_blocking().unwrap();
    assert_eq!((refund(3, 400), has(&ledger)), (Ok((400, 400)), (1_400, 0, 0)));
    ledger.reorged(payment(2)).unwrap();
    ledger.failed(payment(2), "gone").unwrap().wait_blocking().unwrap();
    assert_eq!(has(&ledger), (1_000, 0, 0));
    close(&ledger, 600);
}

#[test]
fn a_sign_in_is_remembered_for_an_hour_longer_than_it_is_good() {
    let (ledger, _, hands) = new();
    let first = nonce(1, NOON);
    ledger.use_nonce(first).unwrap().wait_blocking().unwrap();
    let forgotten = first.forget_at.millis() + HOUR;
    hands.set(forgotten);
    ledger.use_nonce(nonce(2, forgotten)).unwrap().wait_blocking().unwrap();
    hands.set(NOON);
    assert!(ledger.use_nonce(first).is_err(), "a clock that was an hour ahead opens nothing again");
    hands.set(forgotten + 1);
    ledger.use_nonce(nonce(3, forgotten)).unwrap().wait_blocking().unwrap();
    assert_eq!([1, 2, 3].map(|n| ledger.is_used(nonce(n, NOON)).unwrap()), [false, true, true]);
    close(&ledger, 0);
}

#[test]
fn an_allowance_counts_while_its_grant_does_and_is_never_beyond_reason() {
    let (ledger, ..) = new();
    let of = |from, until, per_day| Some(Grant { per_day, from, until, note: String::new() });
    for (grant, left) in [
        (of(Some(NOON), Some(NOON + 1), 5), 5),
        (of(Some(NOON + 1), None, 5), 0),
        (of(None, Some(NOON), 5), 0),
        (of(None, None, 1_000_000_000_000_000), 1_000_000_000_000_000),
    ] {
        ledger.grant(wallet(1), grant).unwrap().wait_blocking().unwrap();
        assert_eq!(has(&ledger).2, left);
    }
    let absurd = ledger.grant(wallet(1), of(None, None, 1_000_000_000_000_001)).err();
    assert_eq!(absurd, Some(Denied::Refused(Refused::Overflow)));
    assert_eq!(has(&ledger).2, 1_000_000_000_000_000, "a refused grant leaves the one before");
    assert_eq!(ledger.standing(wallet(2)).unwrap(), Default::default(), "nobody else has anything");
    close(&ledger, 0);
}

#[test]
fn usage_is_summed_by_day_key_and_model_whatever_an_upstream_says() {
    let (ledger, _, hands) = new();
    top_up(&ledger, 10_000);
    let most = u64::MAX;
    let absurd = Usage { input: most, output: most, cache_write_5m: most, cache_write_1h: 1, cache_read: most, units: most };
    for n in 0..3 {
        let _ = call(&ledger, 10, n).unwrap().post(Micros::new(10), absurd);
    }
    let usage = Usage { input: 5, output: 7, ..Usage::default() };
    let _ = reserve(&ledger, by_key(1_000, Period::Day, 20, 3)).unwrap().post_part(Micros::new(15), usage);
    hands.set(NOON + DAY);
    let _ = reserve(&ledger, Draw { model: "other".into(), ..draw(wallet(1), 20, 4) }).unwrap().post(Micros::ZERO, usage);
    ledger.flush().unwrap().wait_blocking().unwrap();
    let today = Timestamp::from_millis(NOON).day();
    let used = ledger.usage(wallet(1), today).unwrap();
    let rows: Vec<_> = used.iter().map(|used| (used.day, used.key, used.model.as_str(), used.calls, used.charge)).collect();
    let tomorrow = Day(today.0 + 1);
    assert_eq!(rows, [(today, None, "echo", 3, 30), (today, Some(key(1)), "echo", 1, 15), (tomorrow, None, "other", 1, 0)]);
    let most = 3 * u64::from(u32::MAX);
    assert_eq!((used[0].input, used[0].output, used[1].input, used[1].output), (most, most, 5, 7));
    assert_eq!(ledger.usage(wallet(1), tomorrow).unwrap().len(), 1);
    assert_eq!(ledger.usage(wallet(2), Day(0)).unwrap(), []);
    close(&ledger, 45);
}

#[test]
fn the_keys_journal_keeps_its_order_across_starts() {
    let (ledger, disk, hands) = new();
    for (number, event) in [(1, b"one"), (2, b"two")] {
        let (seq, durable) = ledger.journal_key(event.to_vec()).unwrap();
        durable.wait_blocking().unwrap();
        assert_eq!(seq, number);
    }
    ledger.close();
    let ledger = open(&disk.reopened(), &hands);
    let (seq, durable) = ledger.journal_key(b"three".to_vec()).unwrap();
    durable.wait_blocking().unwrap();
    assert_eq!(seq, 3);
    assert_eq!(ledger.key_events_after(1).unwrap(), [(2, b"two".to_vec()), (3, b"three".to_vec())]);
    assert_eq!(ledger.key_events_after(3).unwrap(), []);
    close(&ledger, 0);
}
