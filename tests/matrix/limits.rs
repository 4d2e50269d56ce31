//! Every limit binds on every paid route, for everybody whom it is about, and who meets it has paid nothing.

use std::io::Write as _;
use std::net::TcpStream;

use farebox_rig::http::{Answer, Request};
use farebox_rig::process::eventually;
use serde_json::json;

use crate::calls::{self, Call};
use crate::shop::{Buyer, Shop, marked, sign_all};

/// Tries within which a bucket of one is surely empty.
const TRIES: usize = 50;

fn keyed(request: Request, key: &str) -> Request {
    request.header("authorization", &format!("Bearer {key}"))
}

fn assert_refused(call: &Call, answer: &Answer, status: u16, code: &str) {
    let said = answer.code().to_lowercase();
    assert_eq!((answer.status, said.trim_start_matches("x402_")), (status, code), "{}: {}", call.path, answer.text());
}

/// A call that the upstream is at work on until it is dropped.
fn hanging(shop: &Shop, request: Request, mark: &str) -> TcpStream {
    let mut caller = TcpStream::connect(shop.server.address()).expect("the server listens");
    caller.write_all(&marked(request, mark).bytes("shop")).expect("the server reads");
    eventually("the upstream has the call", || shop.asked().contains_key(mark));
    caller
}

#[test]
fn a_wallet_has_so_many_calls_at_once_on_whatever_route_and_however_it_says_who_it_is() {
    let shop = Shop::open(&json!({ "ttfb": 60_000 }), "streams_per_account = 1");
    let (mut buyer, calls) = (Buyer::new(&shop, 0), calls::all());
    let running = hanging(&shop, keyed(calls[0].request(), &buyer.key.text), "the first");
    for call in &calls {
        assert_refused(call, &shop.server.send(&keyed(call.request(), &buyer.key.text)), 429, "concurrency_limit");
        let sign_in = shop.account(buyer.wallet).sign_in();
        let signed = call.request().header("x-sign-in-with-x", &sign_in);
        assert_refused(call, &shop.server.send(&signed), 429, "concurrency_limit");
    }
    assert_eq!(shop.asked().len(), 1, "the upstream has the first call and no other");
    drop(running);
    buyer.expect("the first call is over", &[]);
    let left = buyer.left();
    let wallet = buyer.wallet;
    shop.close(&[(wallet, left)]);
}

#[test]
fn the_shop_has_so_many_calls_at_once_on_whatever_route_and_whoever_pays() {
    let shop = Shop::open(&json!({ "ttfb": 60_000 }), "streams = 1");
    let (mut buyer, calls) = (Buyer::new(&shop, 0), calls::all());
    let payments = sign_all(buyer.wallet, &shop.offers(&calls), 0);
    let running = hanging(&shop, keyed(calls[0].request(), &buyer.key.text), "the first");
    for (call, (payment, _)) in calls.iter().zip(&payments) {
        let sign_in = shop.account(buyer.wallet).sign_in();
        for request in [
            keyed(call.request(), &buyer.key.text),
            call.request().header("x-sign-in-with-x", &sign_in),
            call.request().header("payment-signature", payment),
        ] {
            let answer = shop.server.send(&request);
            assert_eq!(answer.status, 503, "{}: {}", call.path, answer.text());
            assert!(answer.header("retry-after").is_some(), "{}", call.path);
        }
    }
    assert_eq!(shop.asked().len(), 1, "the upstream has the first call and no other");
    drop(running);
    buyer.expect("the first call is over", &[]);
    let (wallet, left) = (buyer.wallet, buyer.left());
    shop.close(&[(wallet, left)]);
}

#[test]
fn a_key_that_has_ended_and_a_body_that_is_too_large_buy_nothing_anywhere() {
    let shop = Shop::open(&json!({}), "max_body_mb = 1");
    let buyer = Buyer::new(&shop, 0);
    let revoked = shop.account(buyer.wallet).mint(&json!({ "name": "revoked" }));
    shop.account(buyer.wallet).revoke(&revoked);
    let blanks = " ".repeat((1 << 20) + 1);
    for call in calls::all() {
        assert_refused(&call, &shop.server.send(&keyed(call.request(), &revoked.text)), 401, "key_revoked");
        let large = keyed(call.request().with_text(&format!("{}{blanks}", call.body)), &buyer.key.text);
        let answer = shop.server.send(&large);
        assert_eq!(answer.status, 413, "{}: {}", call.path, answer.text());
    }
    assert!(shop.asked().is_empty(), "the upstream was not asked");
    let (wallet, left) = (buyer.wallet, buyer.left());
    shop.close(&[(wallet, left)]);
}

/// Whether one of many copies is told to slow down.
fn is_slowed_down(shop: &Shop, request: &Request) -> bool {
    (0..TRIES).any(|_| {
        let answer = shop.server.send(request);
        let told = answer.status == 429;
        assert!(!told || answer.header("retry-after").is_some(), "{}", answer.text());
        told
    })
}

#[test]
fn an_address_that_asks_too_often_is_told_to_slow_down_on_every_route() {
    let shop = Shop::open(&json!({}), "per_ip_per_second = 1\nper_ip_burst = 1");
    for call in calls::all() {
        assert!(is_slowed_down(&shop, &call.request()), "{}", call.path);
    }
    assert!(shop.asked().is_empty(), "the upstream was not asked");
    shop.close(&[]);
}

#[test]
fn an_address_that_pays_too_often_is_told_to_slow_down_on_every_route() {
    let shop = Shop::open(&json!({}), "payments_per_ip_per_minute = 1");
    let calls = calls::all();
    let offers = shop.offers(&calls);
    // Too little by a micro, so that nothing is bought.
    let payments = sign_all(crate::shop::wallet(7), &offers, 1);
    for (call, (payment, _)) in calls.iter().zip(&payments) {
        assert!(is_slowed_down(&shop, &call.request().header("payment-signature", payment)), "{}", call.path);
    }
    assert!(shop.asked().is_empty(), "the upstream was not asked");
    shop.close(&[]);
}
