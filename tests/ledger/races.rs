//! Many at once, and never more than there is: a balance, a key's limit, an allowance, a sign-in, a refund.

use std::sync::Barrier;
use std::sync::atomic::{AtomicU64, Ordering};

use farebox::clock::Period;
use farebox::ids::RequestId;
use farebox::ledger::{Denied, Draw, Grant, KeyDraw, Ledger, Options, Refused, Reservation};
use farebox::money::Micros;
use farebox::tariff::Usage;

use super::disk::{Disk, Trouble};
use super::steps::nonce;
use super::{NOON, attempt, claim, clock, draw, key, payment, wait, wallet};

/// How many ask at once.
const CROWDS: [u64; 2] = [64, 1024];
/// What one call holds and costs, and how many of them there is for.
const COST: u64 = 100;
const CALLS: u64 = 10;

fn open() -> Ledger {
    Ledger::open_on(Disk::new(Trouble::None), clock(), Options::default()).unwrap().0
}

fn top_up(ledger: &Ledger, n: u8, who: u8, amount: u64) {
    let deposit = wait(ledger.deposit(claim(payment(n), wallet(who), amount, 1 << 100 | u128::from(n)))).unwrap();
    ledger.signed(payment(n), attempt()).unwrap().wait_blocking().unwrap();
    ledger.confirmed(payment(n), "0xaa", 7).unwrap().wait_blocking().unwrap();
    drop(deposit);
}

/// Lets so many threads ask at the same moment; returns what each was told.
fn at_once<T: Send>(crowd: u64, ask: impl Fn(u64) -> T + Sync) -> Vec<T> {
    let start = Barrier::new(usize::try_from(crowd).unwrap());
    std::thread::scope(|scope| {
        let (start, ask) = (&start, &ask);
        let one = |n| {
            move || {
                start.wait();
                ask(n)
            }
        };
        let threads: Vec<_> = (0..crowd).map(|n| scope.spawn(one(n))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Lets a crowd ask for calls; says how many got one, what the others were told, and charges all that were held in full.
fn call_at_once(ledger: &Ledger, crowd: u64, draw: impl Fn(u64) -> Draw + Sync) -> (u64, Vec<Refused>) {
    let told = at_once(crowd, |n| wait(ledger.reserve(draw(n))));
    let mut refused = Vec::new();
    let mut held: Vec<Reservation> = Vec::new();
    for answer in told {
        match answer {
            Ok(reservation) => held.push(reservation),
            Err(Denied::Refused(why)) => refused.push(why),
            Err(Denied::Stopped(stopped)) => panic!("{stopped}"),
        }
    }
    let served = held.len() as u64;
    let charged = at_once_each(held, |reservation| reservation.paid().ok().unwrap().post(Micros::new(COST), Usage::default()));
    assert!(charged.iter().all(|charge| charge.get() == COST));
    (served, refused)
}

fn at_once_each<A: Send, T: Send>(items: Vec<A>, work: impl Fn(A) -> T + Sync) -> Vec<T> {
    std::thread::scope(|scope| {
        let work = &work;
        let threads: Vec<_> = items.into_iter().map(|item| scope.spawn(move || work(item))).collect();
        threads.into_iter().map(|thread| thread.join().unwrap()).collect()
    })
}

/// Who holds the money at the end: wallet 1 and the operator; nothing is held, and the books are clean.
fn close(ledger: &Ledger, posted: u64, sales: u64) {
    ledger.flush().unwrap().wait_blocking().unwrap();
    let standing = ledger.standing(wallet(1)).unwrap();
    assert_eq!((standing.posted.get(), standing.held.get(), standing.open_calls), (posted, 0, 0));
    let report = ledger.verify().unwrap();
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(report.house.get("sales").copied().unwrap_or(0), sales as i64);
    let lines = ledger.statement(wallet(1), usize::MAX, 0).unwrap().0;
    assert_eq!(lines.iter().map(|line| line.amount).sum::<i64>(), posted as i64, "the statement sums to the balance");
}

#[test]
fn of_a_crowd_on_a_balance_for_ten_calls_ten_are_served() {
    for crowd in CROWDS {
        let ledger = open();
        top_up(&ledger, 1, 1, CALLS * COST + COST - 1);
        let (served, refused) = call_at_once(&ledger, crowd, |n| draw(wallet(1), COST, n.into()));
        assert_eq!(served, CALLS, "of {crowd}");
        let too_little = Refused::Insufficient { available: Micros::new(COST - 1), needed: Micros::new(COST) };
        assert!(refused.iter().all(|why| *why == too_little), "{refused:?}");
        close(&ledger, COST - 1, CALLS * COST);
    }
}

#[test]
fn of_a_crowd_on_a_keys_limit_for_ten_calls_ten_are_served() {
    for crowd in CROWDS {
        let ledger = open();
        top_up(&ledger, 1, 1, 10_000_000);
        let by = KeyDraw { id: key(1), limit: Some(Micros::new(CALLS * COST + 1)), period: Period::Month };
        let (served, refused) = call_at_once(&ledger, crowd, |n| Draw { key: Some(by), ..draw(wallet(1), COST, n.into()) });
        assert_eq!(served, CALLS, "of {crowd}");
        assert!(refused.iter().all(|why| *why == Refused::KeyLimit { left: Micros::new(1) }), "{refused:?}");
        let spending = ledger.key_spending(key(1), Period::Month).unwrap();
        assert_eq!((spending.spent, spending.held), (CALLS * COST, 0));
        close(&ledger, 10_000_000 - CALLS * COST, CALLS * COST);
    }
}

#[test]
fn of_a_crowd_with_one_sign_in_one_is_served() {
    for crowd in CROWDS {
        let ledger = open();
        top_up(&ledger, 1, 1, 10_000_000);
        let (served, refused) =
            call_at_once(&ledger, crowd, |n| Draw { nonce: Some(nonce(1, NOON)), ..draw(wallet(1), COST, n.into()) });
        assert_eq!(served, 1, "of {crowd}");
        assert!(refused.iter().all(|why| *why == Refused::NonceUsed), "{refused:?}");
        let used = at_once(crowd, |_| ledger.use_nonce(nonce(2, NOON)).is_ok());
        assert_eq!(used.into_iter().filter(|used| *used).count(), 1, "also where it stands for no call");
        close(&ledger, 10_000_000 - COST, COST);
    }
}

#[test]
fn of_a_crowd_on_an_allowance_for_ten_calls_ten_are_served_and_no_balance_moves() {
    for crowd in CROWDS {
        let ledger = open();
        let grant = Grant { per_day: CALLS * COST, from: None, until: None, note: String::new() };
        ledger.grant(wallet(1), Some(grant)).unwrap().wait_blocking().unwrap();
        let (served, refused) = call_at_once(&ledger, crowd, |n| draw(wallet(1), COST, n.into()));
        assert_eq!(served, CALLS, "of {crowd}");
        let too_little = Refused::Insufficient { available: Micros::ZERO, needed: Micros::new(COST) };
        assert!(refused.iter().all(|why| *why == too_little), "{refused:?}");
        assert_eq!(ledger.standing(wallet(1)).unwrap().allowance, Micros::ZERO);
        close(&ledger, 0, 0);
    }
}

#[test]
fn a_wallet_has_no_more_calls_open_at_once_than_it_may_and_an_end_makes_room() {
    let ledger = open();
    top_up(&ledger, 1, 1, 10_000_000);
    let few = |n: u64| Draw { most_calls: 5, ..draw(wallet(1), COST, n.into()) };
    let (served, refused) = call_at_once(&ledger, 64, few);
    assert_eq!(served, 5);
    assert!(refused.iter().all(|why| *why == Refused::TooManyCalls), "{refused:?}");
    let (served, _) = call_at_once(&ledger, 64, |n| few(100 + n));
    assert_eq!(served, 5, "the first five have ended");
    close(&ledger, 10_000_000 - 10 * COST, 10 * COST);
}

#[test]
fn top_ups_refunds_and_calls_at_once_lose_nothing() {
    let ledger = open();
    top_up(&ledger, 250, 1, 64 * COST);
    let (served, _) = call_at_once(&ledger, 64, |n| draw(wallet(1), COST, n.into()));
    assert_eq!(served, 64);
    ledger.flush().unwrap().wait_blocking().unwrap();
    let [topped_up, charged, refunded] = [(); 3].map(|()| AtomicU64::new(0));
    let add = |sum: &AtomicU64, amount: u64| sum.fetch_add(amount, Ordering::SeqCst);
    at_once(192, |n| match n % 3 {
        // Each payment is brought by four, and counted once.
        0 => {
            let p = u8::try_from(n / 12).unwrap();
            if let Ok(deposit) = wait(ledger.deposit(claim(payment(p), wallet(1), 777, 1 << 90 | u128::from(n)))) {
                ledger.signed(payment(p), attempt()).unwrap().wait_blocking().unwrap();
                ledger.confirmed(payment(p), "0xaa", 7).unwrap().wait_blocking().unwrap();
                ledger.confirmed(payment(p), "0xaa", 7).unwrap().wait_blocking().unwrap();
                add(&topped_up, 777);
                drop(deposit);
            }
        }
        1 => {
            let Ok(reservation) = wait(ledger.reserve(draw(wallet(1), COST, 1000 + u128::from(n)))) else { return };
            add(&charged, reservation.paid().ok().unwrap().post(Micros::new(COST / 2), Usage::default()).get());
        }
        // Each call is given back by four, two of whom say half of it and two all of it: as much as it cost, and no more.
        _ => {
            let total = Micros::new(if n % 2 == 0 { COST } else { COST / 2 });
            let (_, given_back) = wait(ledger.refund(RequestId((n / 12).into()), Some(total))).unwrap();
            add(&refunded, given_back.get());
        }
    });
    let [topped_up, charged, refunded] = [topped_up, charged, refunded].map(AtomicU64::into_inner);
    assert_eq!((topped_up, refunded), (16 * 777, 16 * COST), "each payment once, each refund in full");
    close(&ledger, topped_up + refunded - charged, 64 * COST + charged - refunded);
}

#[test]
fn a_wallet_that_is_barred_by_who_went_away_is_barred_and_who_waits_for_it_hears_of_it() {
    let ledger = open();
    top_up(&ledger, 1, 1, 10 * COST);
    let running = wait(ledger.reserve(draw(wallet(1), COST, 1))).unwrap();
    wait(async {
        let heard = ledger.until_blocked(wallet(1));
        let mut asked = Box::pin(ledger.block(wallet(1), "spam"));
        // It is decided with the first look.
        std::future::poll_fn(|context| std::task::Poll::Ready(asked.as_mut().poll(context).is_ready())).await;
        drop(asked);
        heard.await;
    });
    assert!(ledger.is_blocked(wallet(1)) && !ledger.is_blocked(wallet(2)));
    let refused = |denied| matches!(denied, Some(Denied::Refused(Refused::Blocked)));
    assert!(refused(wait(ledger.reserve(draw(wallet(1), COST, 2))).err()));
    assert!(refused(wait(ledger.claim(claim(payment(2), wallet(1), COST, 3))).err()));
    assert!(refused(wait(ledger.deposit(claim(payment(2), wallet(1), COST, 4))).err()));
    assert_eq!(ledger.payment(payment(2)).unwrap(), None, "nothing is claimed");
    let (block, is_new) = wait(ledger.block(wallet(1), "another reason")).unwrap();
    assert_eq!((block.reason.as_str(), is_new), ("spam", false), "as it was barred first");
    assert_eq!(running.paid().ok().unwrap().post(Micros::new(COST), Usage::default()).get(), COST, "what runs is paid for");
    assert_eq!(wait(ledger.unblock(wallet(1))).unwrap(), Some(block));
    assert_eq!(wait(ledger.unblock(wallet(1))).unwrap(), None);
    drop(wait(ledger.reserve(draw(wallet(1), COST, 5))).unwrap());
    close(&ledger, 9 * COST, COST);
}

#[test]
fn of_many_who_bar_and_let_in_at_once_each_finds_its_word_in_effect() {
    let ledger = open();
    at_once(64, |n| {
        let own = wallet(u8::try_from(n).unwrap());
        for _ in 0..20 {
            assert!(wait(ledger.block(own, "spam")).unwrap().1 && ledger.is_blocked(own));
            wait(ledger.until_blocked(own));
            assert!(wait(ledger.unblock(own)).unwrap().is_some() && !ledger.is_blocked(own));
        }
    });
    assert_eq!(ledger.blocked().unwrap(), []);
    close(&ledger, 0, 0);
}

#[test]
fn a_refund_whose_caller_went_away_is_not_made_twice() {
    let ledger = open();
    top_up(&ledger, 1, 1, 10 * COST);
    // The operator has earned enough to pay twice.
    assert_eq!(call_at_once(&ledger, 10, |n| draw(wallet(1), COST, n.into())).0, 10);
    ledger.flush().unwrap().wait_blocking().unwrap();
    wait(async {
        let mut first = Box::pin(ledger.refund(RequestId(5), None));
        // It is decided with the first look; whoever waited for the disk is gone.
        let looked = std::future::poll_fn(|context| std::task::Poll::Ready(first.as_mut().poll(context).is_ready())).await;
        drop(first);
        let (receipt, given_back) = ledger.refund(RequestId(5), None).await.unwrap();
        assert_eq!((receipt.refunded, given_back), (COST, Micros::ZERO), "done at once: {looked}");
    });
    close(&ledger, COST, 9 * COST);
}
