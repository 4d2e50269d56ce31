//! Several upstreams for one model: the next one serves what the first cannot, who is down is left alone, and what nobody can
//! serve costs nothing.

use std::io::Write as _;

use farebox_rig::anvil::{BUYER, OTHER_BUYER, SETTLER};
use farebox_rig::http::{Answer, Request};
use farebox_rig::process::eventually;
use farebox_rig::provider::{After, Provider};
use farebox_rig::server::Settings;
use farebox_rig::upstream::Upstream;
use serde_json::json;

use crate::shop::{ANSWER, CHARGE, CHAT, MESSAGES, Payment, Shop, USAGE, body};

/// Ten minutes: longer than any test.
const LONG: &str = "pause_ms = 600000";
const LONGEST: &str = "longest_pause_ms = 3600000";

/// Settlement waits for the upstreams' word, however busy the machine is.
fn settings(others: &[&Upstream], failover: &[&str]) -> Settings {
    Settings {
        payments: vec!["settle_after_ms = 20000".into()],
        others: others.iter().map(|other| other.url()).collect(),
        failover: failover.iter().map(|line| (*line).to_owned()).collect(),
        ..Settings::default()
    }
}

/// So many payments for the same call.
fn payments(shop: &mut Shop, body: &str, count: usize) -> Vec<Payment> {
    let requirements = shop.requirements(CHAT, body);
    shop.sign_all(BUYER, vec![requirements; count])
}

fn assert_served(answer: &Answer) {
    assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    // A stream says it word by word.
    assert!(answer.text().contains(ANSWER.split(' ').next_back().unwrap_or_default()), "{}", answer.text());
}

/// Refused for now: the caller hears when to come again, and neither is asked to pay nor told of a receipt.
fn assert_later(answer: &Answer, within: u64) {
    assert_eq!((answer.status, answer.code().as_str()), (503, "upstream_unavailable"), "{}", answer.text());
    let seconds: u64 = answer.header("retry-after").and_then(|text| text.parse().ok()).expect("a time to wait");
    assert!(seconds >= 1 && seconds <= within, "{seconds}");
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    assert_eq!((answer.header("payment-required"), answer.header("payment-response")), (None, None));
}

#[test]
fn an_upstream_that_is_down_is_left_alone_and_the_next_one_serves_all_that_follows() {
    let second = Upstream::start();
    let mut shop = Shop::with(84532, &settings(&[&second], &["failures = 3", LONG, LONGEST]));
    let body = body(USAGE, false);
    let payments = payments(&mut shop, &body, 8);
    shop.upstream.configure(&json!({ "status": 500 }));
    for (number, payment) in payments.iter().enumerate() {
        assert_served(&shop.buy(CHAT, &body, payment));
        // Each call tries the first one twice, until three have found it down, whichever worker they came to.
        assert_eq!((shop.served(), second.calls().len()), (2 * (number + 1).min(3), number + 1));
    }
    shop.server.has_said("upstream fake fails at");
    assert!(!shop.server.output().contains("upstream fake2 fails at"));
    let all = u64::try_from(payments.len()).unwrap();
    assert_eq!(shop.earned(), all * payments[0].amount, "each was paid once, whoever served it");
    shop.close(all * CHARGE);
}

#[test]
fn one_call_finds_out_that_an_upstream_is_back_and_from_then_on_it_is_asked_first_again() {
    let second = Upstream::start();
    let failover = ["failures = 1", "pause_ms = 300", "longest_pause_ms = 300"];
    let mut shop = Shop::with(84532, &settings(&[&second], &failover));
    let body = body(USAGE, false);
    let payments = payments(&mut shop, &body, 4);
    shop.upstream.configure(&json!({ "status": 401 }));
    assert_served(&shop.buy(CHAT, &body, &payments[0]));
    shop.server.has_said("upstream fake fails at");
    shop.upstream.configure(&json!({}));
    let before = shop.served();

    // Nothing but time ends a pause.
    std::thread::sleep(std::time::Duration::from_millis(350));
    assert_served(&shop.buy(CHAT, &body, &payments[1]));
    shop.server.has_said("upstream fake serves");
    for payment in &payments[2..] {
        assert_served(&shop.buy(CHAT, &body, payment));
    }
    assert_eq!((shop.served() - before, second.calls().len()), (3, 1));
    shop.close(4 * CHARGE);
}

#[test]
fn an_upstream_is_not_asked_before_the_time_it_named_and_the_next_one_serves() {
    for status in [429, 503, 529] {
        let second = Upstream::start();
        let mut shop = Shop::with(84532, &settings(&[&second], &[]));
        let body = body(USAGE, true);
        let payments = payments(&mut shop, &body, 4);
        shop.upstream.configure(&json!({ "status": status, "retry_after": 300 }));
        for payment in &payments {
            assert_served(&shop.buy(CHAT, &body, payment));
        }
        assert_eq!((shop.served(), second.calls().len()), (1, 4), "{status}: asked once, and not at once again");
        shop.close(4 * CHARGE);
    }
}

#[test]
fn what_nobody_can_serve_costs_nothing_and_is_not_even_offered() {
    for order in ["overlap", "settle-first"] {
        let mut only = settings(&[], &["failures = 1", "pause_ms = 2000", "longest_pause_ms = 60000"]);
        only.payments.push(format!("payg_order = {order:?}"));
        let mut shop = Shop::with(84532, &only);
        let body = body(USAGE, false);
        let payments = payments(&mut shop, &body, 2);
        shop.upstream.configure(&json!({ "status": 429, "retry_after": 40 }));
        let told = shop.buy(CHAT, &body, &payments[0]);
        let mut expected = 0;
        if order == "settle-first" {
            // The money had moved before the upstream could say no: it is the payer's balance.
            expected = payments[0].amount;
        }
        assert_eq!((told.status, told.header("retry-after")), (503, Some("40").filter(|_| expected == 0)), "{}", told.text());
        assert_eq!(shop.served(), 1);

        let gas = shop.chain.transactions_of(SETTLER.address);
        for _ in 0..3 {
            assert_later(&shop.buy(CHAT, &body, &payments[1]), 40);
            assert_later(&shop.server.send(&Request::post(CHAT, body.as_str())), 40);
            assert_later(&shop.server.send(&Request::post(MESSAGES, body.as_str())), 40);
        }
        assert_eq!(shop.served(), 1, "{order}: the upstream is left alone");
        assert_eq!(shop.earned(), expected, "{order}: nothing was settled for what nobody could serve");
        assert_eq!(shop.chain.transactions_of(SETTLER.address), gas, "{order}: no gas was spent");
        shop.close(0);
    }
}

#[test]
fn an_only_upstream_that_is_down_is_asked_again_after_the_pause_and_the_same_payment_buys_then() {
    let mut shop = Shop::with(84532, &settings(&[], &["failures = 2", "pause_ms = 4000", "longest_pause_ms = 60000"]));
    let body = body(USAGE, true);
    let payment = shop.pay(CHAT, &body);
    let requirements = shop.requirements(CHAT, &body);
    let of_another = shop.sign(OTHER_BUYER, requirements);
    shop.upstream.configure(&json!({ "status": 500 }));
    for payment in [&payment, &of_another] {
        assert_eq!(shop.buy(CHAT, &body, payment).status, 502);
    }
    assert_later(&shop.buy(CHAT, &body, &payment), 4);
    assert_eq!((shop.served(), shop.earned()), (4, 0), "two calls tried twice, it was refused without a call, and nothing moved");
    shop.upstream.configure(&json!({}));
    eventually("the model is offered again", || shop.server.send(&Request::post(CHAT, body.as_str())).status == 402);
    assert_served(&shop.buy(CHAT, &body, &payment));
    assert_eq!((shop.served(), shop.earned()), (5, payment.amount));
    shop.close(CHARGE);
}

#[test]
fn who_makes_an_upstream_fail_on_purpose_keeps_nobody_else_out() {
    let mut shop = Shop::with(84532, &settings(&[], &["failures = 2", LONG, LONGEST]));
    let (bad, good) = (body("<<fake status=500>>", false), body(USAGE, false));
    let requirements = shop.requirements(CHAT, &bad);
    let of_the_other = shop.sign_all(OTHER_BUYER, vec![requirements; 3]);
    let payments = payments(&mut shop, &good, 2);
    for payment in &of_the_other[..2] {
        assert_eq!(shop.buy(CHAT, &bad, payment).status, 502);
    }
    let asked = shop.served();
    assert_later(&shop.buy(CHAT, &bad, &of_the_other[2]), 60);
    assert_eq!((shop.served(), shop.earned()), (asked, 0), "who failed alone is not sent on, and has paid nothing");
    assert_eq!(shop.server.send(&Request::post(CHAT, good.as_str())).status, 402, "all others are offered the model");
    payments.iter().for_each(|payment| assert_served(&shop.buy(CHAT, &good, payment)));
    assert_eq!(shop.served(), asked + 2);
    shop.close(2 * CHARGE);
}

#[test]
fn an_upstream_that_says_with_status_200_that_it_failed_is_passed_over_and_taken_for_down() {
    let error = r#"{"error":{"code":502,"message":"sk-upstream"},"usage":{"prompt_tokens":20,"completion_tokens":7}}"#;
    let first = Provider::start(move |_, stream| {
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n";
        let _ = stream.write_all(format!("{head}content-length: {}\r\n\r\n{error}", error.len()).as_bytes());
        After::Keep
    });
    let second = Upstream::start();
    let mut shop = Shop::with(
        84532,
        &Settings { upstream_url: Some(first.url()), ..settings(&[&second], &["failures = 3", LONG, LONGEST]) },
    );
    let body = body(USAGE, false);
    let payments = payments(&mut shop, &body, 5);
    for (number, payment) in payments.iter().enumerate() {
        assert_served(&shop.buy(CHAT, &body, payment));
        assert_eq!((first.requests().len(), second.calls().len()), ((number + 1).min(3), number + 1), "asked once a call");
    }
    shop.server.has_said("upstream fake fails at");
    shop.close(5 * CHARGE);
}

#[test]
fn a_payment_that_settles_while_the_first_upstream_fails_buys_from_the_second() {
    let second = Upstream::start();
    let mut early = settings(&[&second], &[]);
    early.payments = vec!["settle_after_ms = 50".into()];
    for stream in [false, true] {
        let mut shop = Shop::with(84532, &early);
        let body = body(USAGE, stream);
        let payment = shop.pay(CHAT, &body);
        shop.upstream.configure(&json!({ "ttfb": 1500, "status": 500 }));
        let answer = shop.buy(CHAT, &body, &payment);
        assert_served(&answer);
        assert_eq!(answer.decoded("payment-response").expect("a receipt")["success"], true);
        assert_eq!(shop.served(), 2, "one retry");
        assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (payment.amount, 1));
        shop.close(CHARGE);
    }
    assert_eq!(second.calls().len(), 2);
}

#[test]
fn after_its_first_byte_an_answer_is_nobody_elses_to_finish() {
    let second = Upstream::start();
    let mut shop = Shop::with(84532, &settings(&[&second], &[]));
    let body = body("<<fake words=40 cut=6>>", true);
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.complete), (200, false));
    assert_eq!((shop.served(), second.calls().len()), (1, 0));
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    let (earned, balance) = (shop.earned(), books.balance(BUYER.address));
    assert!(
        earned == payment.amount && balance > 0 && balance < earned,
        "charged for what passed: {balance} of {earned} is left"
    );
}
