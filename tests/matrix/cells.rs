//! The cells of the table: each is one call by one identity that meets one fate, alone on its line of the upstream's log and of its
//! buyer's statement.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::thread;

use farebox_rig::http::{Answer, Request};
use farebox_rig::process::eventually;
use serde_json::{Value, json};

use crate::calls::{self, Call};
use crate::shop::{Buyer, Shop, is_broken, marked, sign_all, wallet};

/// Buyers at work at the same time.
const BUYERS: usize = 4;

/// Who pays.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum By {
    Key,
    SignIn,
    Payment,
}

const EVERYBODY: [By; 3] = [By::Key, By::SignIn, By::Payment];

/// What happens to a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Served,
    /// The key's limit, the wallet's balance or the payment's amount is too small.
    TooLittle,
    /// A key comes along that may not buy this model.
    NotAllowed,
    /// The upstream finds fault with the request.
    Refused,
    /// The upstream breaks its answer off.
    Cut,
    /// The caller leaves while the upstream is at work. An order cannot be called back: it is carried out and charged.
    Gone,
}

/// A payment's header and what it brings.
type Paid = (String, u64);

/// The request of one cell.
fn request(buyer: &Buyer, call: &Call, (by, fate): (By, Fate), paid: &Paid) -> Request {
    let request = call.request();
    let keyed = |request: Request, key: &str| request.header("authorization", &format!("Bearer {key}"));
    let sign_in = |wallet| buyer.shop.account(wallet).sign_in();
    let request = match (by, fate) {
        (By::Key, Fate::TooLittle) => return keyed(request, &buyer.poor.text),
        (By::Key, Fate::NotAllowed) => return keyed(request, &buyer.picky.text),
        (By::Key, _) => return keyed(request, &buyer.key.text),
        // A wallet that never had anything.
        (By::SignIn, Fate::TooLittle) => request.header("x-sign-in-with-x", &sign_in(wallet(999))),
        (By::SignIn, _) => request.header("x-sign-in-with-x", &sign_in(buyer.wallet)),
        (By::Payment, _) => request.header("payment-signature", &paid.0),
    };
    // What a key may not buy, its wallet may, for its own money.
    if fate == Fate::NotAllowed { keyed(request, &buyer.picky.text) } else { request }
}

/// The rows by which the buyer's statement goes on after a cell. Whoever gets no answer pays for none; a payment that had settled by
/// then is its payer's balance.
fn rows(call: &Call, (by, fate): (By, Fate), amount: u64, is_distrusted: bool) -> Vec<(&'static str, i64)> {
    let micros = |amount: u64| i64::try_from(amount).expect("a few dollars");
    let is_served = match fate {
        Fate::Served => true,
        Fate::NotAllowed => by != By::Key,
        Fate::Gone => call.is_job,
        Fate::TooLittle | Fate::Refused | Fate::Cut => false,
    };
    // Nobody makes what is ordered before its payment has settled, nor works for who has left before.
    let settles_first = call.is_job || is_distrusted;
    let settles = match fate {
        Fate::Cut => settles_first || call.is_passed_on,
        Fate::Refused | Fate::Gone => settles_first,
        Fate::Served | Fate::TooLittle | Fate::NotAllowed => false,
    };
    match (by, is_served) {
        // It pays for itself: what it brought beyond that is balance.
        (By::Payment, true) => vec![("REFUND", micros(amount - call.charge))].into_iter().filter(|row| row.1 > 0).collect(),
        (By::Payment, false) if settles => vec![("REFUND", micros(amount))],
        (By::Key | By::SignIn, true) => vec![("CHARGE", -micros(call.charge))],
        _ => Vec::new(),
    }
}

/// How often the upstream is asked.
fn times_asked((by, fate): (By, Fate)) -> usize {
    match (by, fate) {
        (_, Fate::TooLittle) | (By::Key, Fate::NotAllowed) => 0,
        _ => 1,
    }
}

/// Holds an answer against what a cell must say.
fn judge(call: &Call, (by, fate): (By, Fate), answer: &Answer) {
    let cell = format!("{} {by:?} {fate:?}: {} {}", call.path, answer.status, answer.text());
    let refused = |status: u16, code: &str| {
        assert_eq!(answer.status, status, "{cell}");
        assert_eq!(answer.code().to_lowercase(), code, "{cell}");
    };
    match (by, fate) {
        (By::Key, Fate::TooLittle) => refused(403, "spend_limit_exceeded"),
        (By::SignIn, Fate::TooLittle) if call.path.starts_with("/api") => refused(402, "payment_required"),
        (By::SignIn, Fate::TooLittle) => refused(402, "insufficient_balance"),
        (By::Payment, Fate::TooLittle) => {
            assert_eq!(answer.status, 402, "{cell}");
            assert!(answer.header("payment-required").is_some(), "{cell}");
        }
        (By::Key, Fate::NotAllowed) => refused(403, "model_not_allowed"),
        (_, Fate::Served | Fate::NotAllowed) => {
            assert!(answer.status == 200 && answer.complete, "{cell}");
            assert_eq!(answer.header("x-balance-remaining").is_some(), by != By::Payment, "{cell}");
            assert_eq!(answer.header("payment-response").is_some(), by == By::Payment, "{cell}");
        }
        (_, Fate::Refused) => refused(400, "upstream_rejected"),
        (_, Fate::Cut) if call.is_passed_on => assert!(is_broken(answer), "{cell}"),
        (_, Fate::Cut) => refused(502, "upstream_error"),
        (_, Fate::Gone) => unreachable!("who has left sees no answer"),
    }
}

/// Sends a call, waits until the upstream has it, and leaves; sees how it ends at the upstream.
fn send_and_leave(buyer: &Buyer, request: &Request, (mark, ends): (&str, &str)) {
    let mut caller = TcpStream::connect(buyer.shop.server.address()).expect("the server listens");
    caller.write_all(&request.bytes("shop")).expect("the server reads");
    eventually("the upstream has the call", || buyer.shop.asked().contains_key(mark));
    drop(caller);
    let has_ended = || buyer.shop.asked()[mark].iter().all(|(_, outcome)| outcome == ends);
    eventually(&format!("{mark} is {ends}"), has_ended);
}

/// All calls of one buyer, by everybody and with each of these fates; returns how often the upstream must have been asked on
/// which path, by mark.
fn trade(buyer: &mut Buyer, calls: &[Call], fates: &[Fate]) -> BTreeMap<String, Vec<String>> {
    let (offers, mut expected) = (buyer.shop.offers(calls), BTreeMap::new());
    for fate in fates {
        let payments = sign_all(buyer.wallet, &offers, u64::from(*fate == Fate::TooLittle));
        for (number, (call, paid)) in calls.iter().zip(&payments).enumerate() {
            for by in EVERYBODY {
                let cell = (by, *fate);
                let mark = format!("{}-{number}-{by:?}-{fate:?}", buyer.wallet.address);
                let request = marked(request(buyer, call, cell, paid), &mark);
                match fate {
                    Fate::Gone => send_and_leave(buyer, &request, (&mark, if call.is_job { "done" } else { "client_gone" })),
                    _ => judge(call, cell, &buyer.shop.server.send(&request)),
                }
                let rows = rows(call, cell, paid.1, buyer.is_distrusted);
                buyer.expect(&format!("{} {cell:?} is over", call.path), &rows);
                buyer.is_distrusted |= cell == (By::Payment, Fate::Gone) && !call.is_job;
                let path = call.path.trim_start_matches("/api").to_owned();
                if times_asked(cell) > 0 {
                    expected.insert(mark, vec![path; times_asked(cell)]);
                }
            }
        }
    }
    expected
}

/// Every one of these calls by everybody with each of these fates, at a shop whose upstream does this.
fn play(behaviour: &Value, calls: &[Call], fates: &[Fate]) {
    let shop = Shop::open(behaviour, "");
    let trades = thread::scope(|scope| {
        let buyers = calls.chunks(calls.len().div_ceil(BUYERS)).enumerate();
        let at_work = |(number, calls)| {
            let shop = &shop;
            scope.spawn(move || {
                let mut buyer = Buyer::new(shop, number);
                let expected = trade(&mut buyer, calls, fates);
                (expected, (buyer.wallet, buyer.left()))
            })
        };
        let at_work: Vec<_> = buyers.map(at_work).collect();
        at_work.into_iter().map(|buyer| buyer.join().expect("every cell is as it should be")).collect::<Vec<_>>()
    });
    let (expected, wallets): (Vec<_>, Vec<_>) = trades.into_iter().unzip();
    let expected: BTreeMap<_, _> = expected.into_iter().flatten().collect();
    let asked: BTreeMap<_, Vec<_>> =
        shop.asked().into_iter().map(|(mark, calls)| (mark, calls.into_iter().map(|(path, _)| path).collect())).collect();
    assert_eq!(asked, expected, "the upstream was asked for what was paid for, and for nothing else");
    shop.close(&wallets);
}

#[test]
fn what_is_served_is_charged_to_the_micro_and_what_may_not_be_bought_costs_nothing() {
    play(&json!({}), &calls::all(), &[Fate::Served, Fate::TooLittle, Fate::NotAllowed]);
}

#[test]
fn what_the_upstream_refuses_costs_nobody_anything() {
    play(&json!({ "status": 400 }), &calls::all(), &[Fate::Refused]);
}

#[test]
fn what_the_upstream_breaks_off_before_it_says_anything_costs_nobody_anything() {
    play(&json!({ "cut": 1 }), &calls::all(), &[Fate::Cut]);
}

#[test]
fn who_leaves_before_there_is_an_answer_pays_nothing_and_lets_the_upstream_go_unless_it_was_an_order() {
    let (orders, calls): (Vec<_>, Vec<_>) = calls::all().into_iter().partition(|call| call.is_job);
    play(&json!({ "ttfb": 60_000 }), &calls, &[Fate::Gone]);
    play(&json!({ "ttfb": 800 }), &orders, &[Fate::Gone]);
}

#[test]
fn the_table_has_every_paid_route_that_there_is() {
    let shop = Shop::open(&json!({}), "");
    let listed = shop.server.send(&Request::get("/openapi.json")).json();
    let mut paid: Vec<_> = listed["paths"].as_object().expect("paths by name").iter().collect();
    paid.retain(|(path, row)| row["post"]["responses"].get("402").is_some() && !path.ends_with("/x402/top-up"));
    let mut tried: Vec<_> = calls::all().into_iter().map(|call| call.path).collect();
    tried.sort();
    tried.dedup();
    assert_eq!(paid.into_iter().map(|(path, _)| path.clone()).collect::<Vec<_>>(), tried);
    shop.close(&[]);
}
