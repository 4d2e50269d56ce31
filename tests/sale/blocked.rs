//! Payments of a wallet that the operator has barred: refused before anything is asked or moved, whatever is right or wrong with them.

use std::io::Write as _;
use std::sync::{Mutex, mpsc};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox_rig::anvil::{Anvil, BUYER, OTHER_BUYER, SETTLER};
use farebox_rig::facilitator::Facilitator;
use farebox_rig::http::{self, Answer, Request};
use farebox_rig::line::Line;
use farebox_rig::process::{eventually, run};
use farebox_rig::provider::{After, Provider};
use farebox_rig::server::Settings;
use serde_json::{Value, json};

use crate::shop::{CHARGE, CHAT, MESSAGES, RESPONSES, Shop, USAGE, body, body_for, paid};

const TOP_UP: &str = "/api/v1/x402/top-up";
const FLAT: &str = "/api/v1/chat/completions";

/// The operator's word about the buyer, whose address is written in small letters here and never by its wallet.
fn by_hand(shop: &Shop, word: &str) {
    let address = BUYER.address.to_lowercase();
    let reason = ["--reason", "spam"];
    let arguments = [&[word, address.as_str()][..], if word == "block" { &reason } else { &[] }].concat();
    let (code, _, said) = run(shop.server.command(&arguments), "");
    assert_eq!(code, 0, "{said}");
}

/// It is told whom to ask, and nothing that a stranger might want to know; it is not invited to pay.
fn assert_barred(answer: &Answer) {
    let text = answer.text();
    assert_eq!((answer.status, answer.code().to_lowercase().as_str()), (403, "account_blocked"), "{text}");
    assert!(text.contains("write to the operator") && text.contains("stays its own"), "{text}");
    assert!(!text.contains("spam") && !text.contains("USDC"), "{text}");
    assert_eq!([answer.header("payment-required"), answer.header("x-balance-remaining")], [None; 2]);
    assert!(!text.contains("accepts"), "{text}");
}

fn encoded(value: &Value) -> String {
    STANDARD.encode(value.to_string())
}

fn decoded(header: &str) -> Value {
    serde_json::from_slice(&STANDARD.decode(header).unwrap()).unwrap()
}

#[test]
fn a_payment_of_a_barred_wallet_is_refused_on_every_route_and_bought_with_once_it_is_let_in() {
    let mut shop = Shop::open();
    let requests: Vec<_> = [CHAT, MESSAGES, RESPONSES, FLAT].map(|route| (route, body_for(route, USAGE, true))).into();
    let payments: Vec<_> = requests.iter().map(|(route, body)| shop.pay(route, body)).collect();
    let others = shop.requirements(CHAT, &requests[0].1);
    let top_up = shop.server.account(BUYER).top_up_payment(2_000_000);
    by_hand(&shop, "block");
    for ((route, body), payment) in requests.iter().zip(&payments) {
        assert_barred(&shop.buy(route, body, payment));
        assert_barred(&shop.server.send(&Request::post(route, body.as_str()).header("x-payment", payment.v1())));
    }
    assert_barred(&shop.server.send(&Request::post(TOP_UP, "").header("payment-signature", &top_up)));
    assert_barred(&shop.server.send(&Request::post(TOP_UP, "").header("x-402-payment", &encoded(&flat(&top_up)))));
    // Whatever is wrong with it, a better one is not asked for.
    let chat = requests[0].1.as_str();
    let send = |route: &str, payment: &Value| {
        let body = if route == CHAT { chat } else { "" };
        shop.server.send(&Request::post(route, body).header("payment-signature", &encoded(payment)))
    };
    for (field, value) in [("value", "1"), ("validBefore", "1"), ("to", OTHER_BUYER.address)] {
        let mut wrong = decoded(payments[0].v2());
        wrong["payload"]["authorization"][field] = value.into();
        [CHAT, TOP_UP].iter().for_each(|route| assert_barred(&send(route, &wrong)));
    }
    for network in ["eip155:1", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"] {
        let mut wrong = decoded(&top_up);
        wrong["accepted"]["network"] = network.into();
        [CHAT, TOP_UP].iter().for_each(|route| assert_barred(&send(route, &wrong)));
    }
    let mut nobodys = decoded(&top_up);
    nobodys["payload"]["authorization"]["from"] = "0x11".into();
    assert_eq!(send(CHAT, &nobodys).status, 400, "what no wallet has signed is nobody's");
    shop.assert_untouched();
    assert_eq!(shop.server.send(&Request::post(CHAT, chat)).status, 402, "nobody gets the quote");
    by_hand(&shop, "unblock");
    for ((route, body), payment) in requests.iter().zip(&payments) {
        let answer = shop.buy(route, body, payment);
        assert_eq!((answer.status, answer.complete), (200, true), "it was not used: {}", answer.text());
    }
    assert_eq!(shop.served(), 4);
    by_hand(&shop, "block");
    // What another wallet brings is no business of this one.
    let payment = shop.sign(OTHER_BUYER, others);
    assert_eq!(shop.buy(CHAT, &requests[0].1, &payment).status, 200);
    let books = shop.close(4 * CHARGE + payment.amount);
    assert_eq!(books.balance(OTHER_BUYER.address), payment.amount - CHARGE);
}

/// A top-up as wallet clients of version 1 send it.
fn flat(header: &str) -> Value {
    let signed = decoded(header);
    json!({ "x402Version": 1, "scheme": "exact", "network": "base-sepolia", "payload": signed["payload"] })
}

#[test]
fn a_payment_that_was_settling_when_its_wallet_was_barred_is_its_balance_and_buys_nothing() {
    let mut shop = Shop::open();
    let body = body(USAGE, true);
    let payment = shop.pay(CHAT, &body);
    let top_up = shop.server.account(BUYER).top_up_payment(2_000_000);
    shop.chain.set_automine(false);
    let (bought, topped_up) = std::thread::scope(|scope| {
        let buying = scope.spawn(|| shop.buy(CHAT, &body, &payment));
        let request = Request::post(TOP_UP, "").header("payment-signature", &top_up);
        let (server, topping) = (&shop.server, request);
        let topping = scope.spawn(move || server.send(&topping));
        eventually("both are on their way", || shop.chain.pending_transactions() == 2);
        by_hand(&shop, "block");
        shop.chain.set_automine(true);
        shop.chain.mine(3);
        (buying.join().unwrap(), topping.join().unwrap())
    });
    assert_eq!((bought.status, bought.code().as_str()), (403, "account_blocked"), "{}", bought.text());
    let error = &bought.json()["error"];
    assert_eq!(error["credited_micro"], payment.amount, "{error}");
    assert!(error["message"].as_str().unwrap().contains("has settled and is balance of"), "{error}");
    assert_eq!(bought.header("payment-required"), None);
    assert_eq!(topped_up.status, 200, "{}", topped_up.text());
    let again = shop.server.send(&Request::post(TOP_UP, "").header("payment-signature", &top_up));
    assert_eq!(again.status, 200, "what was credited is said as often as it is asked: {}", again.text());
    let copy = shop.buy(CHAT, &body, &payment);
    assert_eq!(
        (copy.status, copy.code().as_str()),
        (409, "payment_already_used"),
        "it has settled, and that is said: {}",
        copy.text()
    );
    let balance = i64::try_from(payment.amount + 2_000_000).unwrap();
    let account = shop.server.account(BUYER);
    assert_eq!((account.available(), account.statement().balance), (balance, balance), "its owner sees it");
    assert_eq!(shop.chain.transactions_of(SETTLER.address), 2, "and nothing else was sent");
    shop.close(0);
}

#[test]
fn a_payment_whose_upstream_was_asked_before_its_wallet_was_barred_is_not_settled_and_may_be_used_later() {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let provider = Provider::start(move |_, stream| {
        let _ = gate.lock().expect("one call at a time").recv();
        let usage = json!({ "prompt_tokens": 20, "completion_tokens": 7 });
        let body = json!({ "choices": [{ "message": { "content": "hello" } }], "usage": usage }).to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
        After::Close
    });
    // Settlement waits for the upstream, however slow the machine is.
    let payments = vec!["settle_after_ms = 25000".to_owned()];
    let mut shop = Shop::with(84532, &Settings { upstream_url: Some(provider.url()), payments, ..Settings::default() });
    let body = body("", false);
    let payment = shop.pay(CHAT, &body);
    let refused = std::thread::scope(|scope| {
        let buying = scope.spawn(|| shop.buy(CHAT, &body, &payment));
        eventually("the upstream is asked", || provider.requests().len() == 1);
        by_hand(&shop, "block");
        go.send(()).unwrap();
        buying.join().unwrap()
    });
    assert_barred(&refused);
    shop.assert_untouched();
    by_hand(&shop, "unblock");
    go.send(()).unwrap();
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.complete), (200, true), "its claim was given back: {}", answer.text());
    assert_eq!((provider.requests().len(), shop.chain.transactions_of(SETTLER.address)), (2, 1));
    shop.close(CHARGE);
}

#[test]
fn a_stream_that_was_paid_for_ends_when_its_wallet_is_barred_and_costs_what_passed() {
    let mut shop = Shop::open();
    let body = body("<<fake in=20 words=400 gap=100>>", true);
    let payment = shop.pay(CHAT, &body);
    let mut stream = http::open(shop.server.address(), &paid(CHAT, &body, &payment)).unwrap();
    let mut text = String::new();
    let mut read = |stream: &mut http::Stream| stream.next_chunk().map(|chunk| text.push_str(&String::from_utf8_lossy(&chunk)));
    (0..3).for_each(|_| read(&mut stream).expect("it goes on"));
    by_hand(&shop, "block");
    while read(&mut stream).is_some() {}
    assert!(!stream.complete, "a part never looks like the whole");
    let last = text.lines().rfind(|line| line.starts_with("data: ")).unwrap();
    assert!(last.contains("\"account_blocked\"") && !last.contains("spam"), "{last}");
    eventually("the call has ended in the books", || shop.server.output().contains("outcome=\"blocked\""));
    let left = u64::try_from(shop.server.account(BUYER).available()).unwrap();
    assert!(left > 0 && left < payment.amount, "charged for what passed and no more: {left} of {}", payment.amount);
    assert_eq!(shop.chain.transactions_of(SETTLER.address), 1);
    shop.close(payment.amount - left);
}

#[test]
fn no_facilitator_is_asked_about_a_payment_of_a_barred_wallet() {
    let chain = Anvil::start(84532);
    let facilitator = Facilitator::start(&chain);
    let line = Line::to(facilitator.address());
    let mut shop = Shop::on(chain, &Settings { facilitator_url: Some(line.url()), ..Settings::default() });
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    by_hand(&shop, "block");
    // Whoever asks it now hears nothing, and says so.
    line.cut();
    assert_barred(&shop.buy(CHAT, &body, &payment));
    line.mend();
    assert_barred(&shop.buy(CHAT, &body, &payment));
    shop.assert_untouched();
    by_hand(&shop, "unblock");
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 200);
    shop.close(CHARGE);
}
