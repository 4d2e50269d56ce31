//! Limits while clocks are wrong and owners change them: what was spent in a period stays spent, and no wrong date takes from a right one.

use farebox::clock::Period;
use farebox::ids::RequestId;
use farebox::ledger::{Denied, Ledger, Refused};
use farebox::money::Micros;

use super::prepaid::{DAY, HOUR, by_key, close, grant, has, new, open, post, reserve, top_up};
use super::{NOON, draw, key, wait, wallet};

const YEAR: u64 = 365 * DAY;

fn left(micros: u64) -> Option<Denied> {
    Some(Denied::Refused(Refused::KeyLimit { left: Micros::new(micros) }))
}

#[test]
fn a_clock_that_was_years_ahead_freezes_no_limit_and_opens_none_again() {
    for period in [Period::Day, Period::Week, Period::Month] {
        let (ledger, disk, hands) = new();
        top_up(&ledger, 10_000);
        grant(&ledger, Some(500));
        assert_eq!(post(reserve(&ledger, by_key(1_000, period, 900, 1)).unwrap(), 900), 900);
        assert_eq!(has(&ledger), (9_600, 0, 0));
        hands.set(NOON + 30 * YEAR);
        assert_eq!(post(reserve(&ledger, by_key(1_000, period, 1_000, 2)).unwrap(), 1_000), 1_000);
        let late = reserve(&ledger, draw(wallet(1), 10, 3)).unwrap();
        // The clock is right again: what it counted there takes nothing from today, and today's is still spent.
        hands.set(NOON + HOUR);
        assert_eq!(has(&ledger), (9_100, 10, 0), "{period:?}: today's allowance was used up before");
        assert_eq!(reserve(&ledger, by_key(1_000, period, 101, 4)).err(), left(100), "{period:?}");
        assert_eq!(post(reserve(&ledger, by_key(1_000, period, 100, 5)).unwrap(), 100), 100, "{period:?}");
        assert_eq!(post(late, 10), 10);
        ledger.close();
        let ledger = open(&disk.reopened(), &hands);
        assert_eq!(reserve(&ledger, by_key(1_000, period, 1, 6)).err(), left(0), "{period:?}: a restart changes nothing");
        hands.set(NOON + 31 * DAY);
        assert_eq!(has(&ledger).2, 500, "the next days have their allowance");
        assert_eq!(post(reserve(&ledger, by_key(1_000, period, 1_000, 7)).unwrap(), 1_000), 1_000, "{period:?}");
        close(&ledger, 400 + 500 + 10 + 100 + 500);
    }
}

#[test]
fn a_clock_that_is_set_to_and_fro_over_midnight_spends_each_day_once() {
    let (ledger, _, hands) = new();
    top_up(&ledger, 100_000);
    grant(&ledger, Some(100));
    let mut spent = [0u64; 2];
    for n in 0..40u64 {
        let day = n % 2;
        hands.set(NOON + 12 * HOUR - 1 + day);
        if let Ok(paid) = reserve(&ledger, by_key(1_000, Period::Day, 150, u128::from(n))) {
            spent[usize::try_from(day).unwrap()] += post(paid, 150);
        }
    }
    assert_eq!(spent, [900, 900], "six calls of 150 fit into a limit of 1,000, on each of the two days");
    assert_eq!(has(&ledger).0, 100_000 - 1_800 + 200, "of which each day's allowance paid 100, once");
    close(&ledger, 1_600);
}

#[test]
fn a_limit_for_ever_knows_what_was_spent_before_it_was_set_and_no_call_over_midnight_wipes_that() {
    let (ledger, _, hands) = new();
    top_up(&ledger, 10_000);
    let mut open = reserve(&ledger, by_key(700, Period::Day, 100, 1)).unwrap();
    assert_eq!(post(reserve(&ledger, by_key(700, Period::Day, 400, 2)).unwrap(), 400), 400);
    // Its owner says now: 1,000 in all.
    assert_eq!(post(reserve(&ledger, by_key(1_000, Period::Ever, 300, 3)).unwrap(), 300), 300);
    hands.set(NOON + DAY);
    assert_eq!(open.extend(Micros::new(50)), Ok(Micros::new(50)), "it goes by the limit that it began with");
    let spending = |period| ledger.key_spending(key(1), period).map(|spending| (spending.spent, spending.held));
    assert_eq!(spending(Period::Ever), Ok((700, 150)));
    assert_eq!(reserve(&ledger, by_key(1_000, Period::Ever, 151, 4)).err(), left(150));
    assert_eq!(post(open, 150), 150);
    assert_eq!(
        (spending(Period::Ever), spending(Period::Month), spending(Period::Day)),
        (Ok((850, 0)), Ok((850, 0)), Ok((150, 0)))
    );
    close(&ledger, 850);
}

#[test]
fn a_call_that_wants_more_after_midnight_takes_its_allowance_of_the_new_day() {
    let (ledger, disk, hands) = new();
    top_up(&ledger, 1_000);
    grant(&ledger, Some(300));
    let mut paid = reserve(&ledger, draw(wallet(1), 200, 1)).unwrap();
    hands.set(NOON + 12 * HOUR);
    assert_eq!(has(&ledger), (1_000, 0, 300), "until it wants more it is yesterday's");
    assert_eq!(paid.extend(Micros::new(250)), Ok(Micros::new(250)));
    assert_eq!(has(&ledger), (1_000, 150, 0), "300 of today, 150 of the balance");
    hands.set(NOON + 11 * HOUR);
    assert_eq!(has(&ledger).2, 300, "nothing of yesterday is taken any more");
    hands.set(NOON + 12 * HOUR);
    assert_eq!(post(paid, 400), 400);
    assert_eq!(has(&ledger), (900, 0, 0));
    // There are 60 of the third day left: less than this one holds, which is why it keeps its own.
    let mut paid = reserve(&ledger, draw(wallet(1), 100, 2)).unwrap();
    hands.set(NOON + 36 * HOUR);
    assert_eq!(has(&ledger), (900, 100, 300), "of the second day nothing was left");
    let mut other = reserve(&ledger, draw(wallet(1), 240, 3)).unwrap();
    assert_eq!((paid.extend(Micros::new(20)), has(&ledger)), (Ok(Micros::new(20)), (900, 100, 40)), "it had none of the second");
    hands.set(NOON + 60 * HOUR);
    assert_eq!(post(reserve(&ledger, draw(wallet(1), 100, 4)).unwrap(), 100), 100);
    assert_eq!((other.extend(Micros::new(10)), has(&ledger)), (Ok(Micros::new(10)), (900, 110, 200)), "240 do not fit into 200");
    assert_eq!((post(paid, 120), post(other, 250)), (120, 250));
    assert_eq!(has(&ledger), (900 - 100 - 10, 0, 200));
    ledger.close();
    let ledger = open(&disk.reopened(), &hands);
    assert_eq!(has(&ledger), (790, 0, 200));
    close(&ledger, 210);
}

#[test]
fn what_is_given_back_on_the_same_day_comes_back_to_the_allowance_and_to_the_keys_limit() {
    let (ledger, disk, hands) = new();
    top_up(&ledger, 1_000);
    grant(&ledger, Some(100));
    let spent = |ledger: &Ledger| [Period::Day, Period::Ever].map(|period| ledger.key_spending(key(1), period).unwrap().spent);
    let all = |ledger: &Ledger, n| wait(ledger.refund(RequestId(n), None)).map(|(receipt, now)| (receipt.refunded, now.get()));
    for n in [1, 2] {
        assert_eq!(post(reserve(&ledger, by_key(500, Period::Day, 200, n)).unwrap(), 200), 200);
        ledger.flush().unwrap().wait_blocking().unwrap();
    }
    assert_eq!((has(&ledger), spent(&ledger)), ((700, 0, 0), [400, 400]), "the allowance paid half of the first");
    let part = wait(ledger.refund(RequestId(1), Some(Micros::new(150)))).unwrap();
    assert_eq!((part.0.refunded, has(&ledger), spent(&ledger)), (150, (800, 0, 50), [250, 250]), "100 of money, 50 of allowance");
    assert_eq!((all(&ledger, 1), has(&ledger), spent(&ledger)), (Ok((200, 50)), (800, 0, 100), [200, 200]));
    assert_eq!((all(&ledger, 1), has(&ledger)), (Ok((200, 0)), (800, 0, 100)), "once");
    // Of an allowance whose day is over nothing comes back, and no money takes its place.
    assert_eq!(post(reserve(&ledger, by_key(500, Period::Day, 300, 3)).unwrap(), 300), 300);
    assert_eq!((has(&ledger), spent(&ledger)), ((600, 0, 0), [500, 500]));
    assert!(reserve(&ledger, by_key(500, Period::Day, 1, 4)).is_err());
    hands.set(NOON + DAY);
    ledger.close();
    let ledger = open(&disk.reopened(), &hands);
    let too_much = Refused::Insufficient { available: Micros::new(200), needed: Micros::new(201) };
    assert_eq!(wait(ledger.refund(RequestId(3), Some(Micros::new(201)))).err(), Some(Denied::Refused(too_much)));
    assert_eq!((all(&ledger, 3), has(&ledger), spent(&ledger)), (Ok((200, 200)), (800, 0, 100), [0, 300]));
    assert_eq!((all(&ledger, 1), has(&ledger)), (Ok((200, 0)), (800, 0, 100)), "what came back yesterday stays");
    hands.set(NOON);
    assert_eq!(spent(&ledger), [300, 300], "the day on which it was spent has 200 less");
    close(&ledger, 200);
}
