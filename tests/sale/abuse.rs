//! Buyers who play the gateway, and tools that would make honest ones pay twice.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;

use farebox_rig::anvil::{BUYER, SETTLER};
use farebox_rig::http::Request;
use farebox_rig::process::eventually;
use farebox_rig::server::{MODEL, Server, Settings};
use serde_json::json;

use crate::shop::{CHAT, MESSAGES, Shop, USAGE, body, paid};

fn send_and_leave_open(server: &Server, request: &Request) -> TcpStream {
    let mut stream = TcpStream::connect(server.address()).unwrap();
    stream.write_all(&request.bytes(server.address())).unwrap();
    stream
}

#[test]
fn a_plain_answer_that_is_read_too_slowly_is_paid_for_and_never_looks_complete() {
    let limits = ["per_ip_per_second = 1000", "per_ip_burst = 1000", "wall_clock_seconds = 8"].map(str::to_owned).to_vec();
    let mut shop = Shop::with(84532, &Settings { limits, ..Settings::default() });
    let body = body("<<fake in=20 out=7 text=hello+wallet pad=12000000>>", false);
    let payment = shop.pay(CHAT, &body);
    let mut stalled = send_and_leave_open(&shop.server, &paid(CHAT, &body, &payment));
    let mut head = [0; 64];
    stalled.read_exact(&mut head).unwrap();
    assert!(head.starts_with(b"HTTP/1.1 200"));
    eventually("the call is ended", || shop.server.output().contains("the client left"));
    let mut rest = Vec::new();
    // The connection may be reset or end; either way the JSON is not whole.
    let _ = stalled.read_to_end(&mut rest);
    assert!(rest.len() < 12_000_000, "the end was withheld");
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(
        books.balance(BUYER.address),
        0,
        "twelve megabytes are worth more than the quote, and the buyer took what it wanted"
    );
}

#[test]
fn hanging_up_again_and_again_buys_one_upstream_call_and_then_settles_first() {
    let settings = Settings { payments: vec!["settle_after_ms = 20000".into()], ..Settings::default() };
    let mut shop = Shop::with(84532, &settings);
    let body = body(USAGE, true);
    let payment = shop.pay(CHAT, &body);
    shop.upstream.configure(&json!({ "ttfb": 30000 }));
    let first = send_and_leave_open(&shop.server, &paid(CHAT, &body, &payment));
    eventually("the upstream is asked", || shop.served() == 1);
    assert_eq!(shop.earned(), 0, "nothing has settled");
    drop(first);
    eventually("the upstream is let go", || shop.upstream.calls()[0]["outcome"] == "client_gone");
    // The claim was given back, so the same payment buys again; but now the money comes first.
    let mut again = Vec::new();
    for _ in 0..4 {
        again.push(send_and_leave_open(&shop.server, &paid(CHAT, &body, &payment)));
    }
    eventually("the payment settles", || shop.earned() == payment.amount);
    eventually("and only then the upstream is asked", || shop.served() == 2);
    drop(again);
    eventually("the call is ended", || shop.upstream.calls()[1]["outcome"] == "client_gone");
    assert_eq!(shop.chain.transactions_of(SETTLER.address), 1);
    shop.close(0);
}

#[test]
fn no_answer_after_a_settlement_asks_a_tool_to_send_the_request_again() {
    let settings = Settings { payments: vec!["payg_order = \"settle-first\"".into()], ..Settings::default() };
    let mut shop = Shop::with(84532, &settings);
    let body = body(USAGE, false);
    let mut paid_for = 0;
    for (upstream, expected) in [(529, 529), (503, 503), (429, 503)] {
        let is_offered = || shop.server.send(&Request::post(CHAT, body.as_str())).status == 402;
        eventually("the time is over for which the upstream wanted to be left alone", is_offered);
        let payment = shop.pay(CHAT, &body);
        paid_for += payment.amount;
        shop.upstream.configure(&json!({ "status": upstream, "retry_after": 2 }));
        let failed = shop.buy(CHAT, &body, &payment);
        let copy = shop.buy(CHAT, &body, &payment);
        assert_eq!((failed.status, copy.status), (expected, 409), "{}", failed.text());
        for answer in [failed, copy] {
            assert_eq!(answer.header("x-should-retry"), Some("false"), "an SDK would pay a second time: {}", answer.text());
            assert_eq!(answer.header("retry-after"), None);
        }
    }
    let books = shop.close(0);
    assert_eq!(books.balance(BUYER.address), paid_for);
}

#[test]
fn a_model_that_does_not_speak_the_routes_dialect_is_refused_before_a_price_is_named() {
    // Chat and messages are translated into each other, and neither into responses.
    let settings = Settings { speaks: Some("responses".into()), ..Settings::default() };
    let shop = Shop::with(84532, &settings);
    let body = body(USAGE, false);
    for route in [CHAT, MESSAGES] {
        let answer = shop.server.send(&Request::post(route, body.as_str()));
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"));
        assert!(answer.text().contains("/v1/responses"), "it says where the model is sold: {}", answer.text());
        assert_eq!(answer.header("payment-required"), None);
    }
    let response = json!({ "model": MODEL, "input": "hi" }).to_string();
    assert_eq!(shop.server.send(&Request::post("/v1/responses", response)).status, 402);
    shop.assert_untouched();
}

#[test]
fn an_authorization_that_ends_too_soon_opens_nothing() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let requirements = shop.requirements(CHAT, &body);
    let payment = shop.sign_until(BUYER, requirements, crate::shop::now() + 15);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.code().as_str()), (402, "payment_invalid"), "{}", answer.text());
    assert_eq!(answer.json()["error"]["reason"], "invalid_exact_evm_payload_authorization_valid_before");
    shop.assert_untouched();
}
