//! Settlement by somebody else's facilitator: the official one settles for us, and only its plain success is money.

use farebox_rig::anvil::{Anvil, BUYER, POOR_BUYER, SETTLER};
use farebox_rig::buyer::{Client, Order};
use farebox_rig::facilitator::Facilitator;
use farebox_rig::http::{self, Answer, Request};
use farebox_rig::line::Line;
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use farebox_rig::stub::Stub;
use serde_json::{Value, json};

use crate::shop::{ANSWER, CHARGE, CHAT, MESSAGES, Shop, USAGE, body, paid};

/// A shop whose money moves through the official facilitator, and the line to it.
fn open(payments: &[&str]) -> (Shop, Facilitator, Line) {
    let chain = Anvil::start(84532);
    let facilitator = Facilitator::start(&chain);
    let line = Line::to(facilitator.address());
    let payments = payments.iter().map(|line| (*line).to_owned()).collect();
    let shop = Shop::on(chain, &Settings { facilitator_url: Some(line.url()), payments, ..Settings::default() });
    (shop, facilitator, line)
}

/// Our trouble, not the buyer's: come back with the same payment.
fn assert_come_back(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (503, "network_unavailable"), "{}", answer.text());
    assert!(answer.header("retry-after").is_some());
    assert_eq!((answer.header("payment-required"), answer.header("payment-response")), (None, None));
}

#[test]
fn a_call_is_bought_through_the_official_facilitator_and_the_receipt_is_its_transaction() {
    let (mut shop, _facilitator, _line) = open(&[]);
    let body = body(USAGE, true);
    for (number, route) in [CHAT, MESSAGES].into_iter().enumerate() {
        let payment = shop.pay(route, &body);
        let before = shop.earned();
        let answer = shop.buy(route, &body, &payment);
        assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
        assert_eq!(shop.earned() - before, payment.amount);
        let hash = answer.decoded("payment-response").unwrap()["transaction"].as_str().unwrap().to_owned();
        let transfers = shop.chain.transfers();
        assert_eq!((transfers.len(), &transfers[number].transaction), (number + 1, &hash));
        assert_eq!(shop.chain.receipt(&hash).unwrap()["status"], "0x1");
        let again = shop.server.send_again(&paid(route, &body, &payment));
        assert_eq!((again.status, again.code().as_str()), (409, "payment_already_used"));
    }
    for (number, client) in [Client::FetchV1, Client::FetchV2].into_iter().enumerate() {
        let order = Order { base_url: &shop.server.url(), route: CHAT, body: &body, wallet: BUYER, max_value_usd: "0.5" };
        let bought = client.buy(&order);
        assert_eq!((&bought["status"], &bought["text"]), (&200.into(), &ANSWER.into()), "{client:?}: {bought}");
        assert_eq!(bought["receipt"]["transaction"], shop.chain.transfers()[2 + number].transaction);
    }
    assert_eq!(shop.chain.transactions_of(SETTLER.address), 4, "each purchase is one transaction");
    shop.close(4 * CHARGE);
}

#[test]
fn a_reorg_after_the_call_was_served_has_the_facilitator_settle_again() {
    let chain = Anvil::start(84532);
    let facilitator = Facilitator::start(&chain);
    let network = vec![format!("rpc_urls = [{:?}]", chain.url())];
    let url = format!("http://{}", facilitator.address());
    let mut shop = Shop::on(chain, &Settings { facilitator_url: Some(url), network, ..Settings::default() });
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!(answer.status, 200, "{}", answer.text());
    shop.chain.reorg(1);
    assert_eq!(shop.earned(), 0, "the block is gone, and the money with it");
    shop.server.has_said("a confirmed transfer vanished");
    eventually("it is settled again", || shop.earned() == payment.amount);
    shop.server.has_said("the facilitator's transfer is on the chain again");
    assert_eq!((shop.served(), shop.chain.transfers().len()), (1, 1), "one call, one transfer");
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 409);
    shop.close(CHARGE);
}

#[test]
fn a_wallet_without_money_is_refused_by_the_facilitator_and_nothing_is_sent() {
    let (mut shop, _facilitator, _line) = open(&[]);
    let body = body(USAGE, false);
    let requirements = shop.requirements(CHAT, &body);
    let payment = shop.sign(POOR_BUYER, requirements);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.code().as_str()), (402, "payment_invalid"), "{}", answer.text());
    assert_eq!(
        answer.json()["error"]["reason"],
        "invalid_exact_evm_transaction_simulation_failed",
        "its own word: {}",
        answer.text()
    );
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("transfer amount exceeds balance"), "{message}");
    let signature = payment.signed["signature"].as_str().unwrap();
    for private in [&signature[2..66], &shop.chain.url(), "Contract Call"] {
        assert!(!answer.text().contains(private), "its dump of the call is not passed on: {message}");
    }
    shop.assert_untouched();
    shop.close(0);
}

#[test]
fn a_facilitator_that_is_down_costs_nobody_anything_and_the_payment_buys_when_it_is_back() {
    let (mut shop, _facilitator, line) = open(&[]);
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    line.cut();
    for _ in 0..2 {
        assert_come_back(&shop.buy(CHAT, &body, &payment));
    }
    shop.assert_untouched();
    line.mend();
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((shop.served(), shop.earned()), (1, payment.amount));
    shop.close(CHARGE);
}

#[test]
fn a_facilitator_that_is_lost_while_it_settles_leaves_the_payment_pending_and_then_the_payers_balance() {
    let (mut shop, _facilitator, line) = open(&["settle_after_ms = 20000", "settle_wait_ms = 3000"]);
    let body = body(USAGE, true);
    let payment = shop.pay(CHAT, &body);
    // The upstream thinks until the line is cut; settlement starts when it has accepted.
    shop.upstream.configure(&json!({ "ttfb": 60000 }));
    let address = shop.server.address().to_owned();
    let answer = std::thread::scope(|scope| {
        let call = scope.spawn(|| http::send(&address, &paid(CHAT, &body, &payment)).unwrap());
        eventually("the upstream is asked", || shop.served() == 1);
        line.cut();
        shop.upstream.hurry();
        call.join().unwrap()
    });
    assert_eq!((answer.status, answer.code().as_str()), (504, "settlement_pending"), "{}", answer.text());
    assert_eq!(answer.header("payment-required"), None, "nobody is asked to pay twice");
    assert!(!answer.text().contains(ANSWER), "not a word of the answer before the money is there");
    assert_eq!(shop.earned(), 0);
    line.mend();
    eventually("the payment arrives", || shop.buy(CHAT, &body, &payment).json()["error"]["outcome"] == "credited");
    assert_eq!((shop.served(), shop.earned()), (1, payment.amount));
    let books = shop.close(0);
    assert_eq!(books.balance(BUYER.address), payment.amount);
}

#[test]
fn revert_grant_a_success_that_is_false_is_never_taken_for_money() {
    is_never_taken_for_money(&json!({ "errorReason": "insufficient_funds" }), &[], (402, "settlement_failed"));
    // Each of these is waited for in vain, so all are at once.
    std::thread::scope(|scope| {
        for said in [
            // Said of a transaction that was sent as well, so it proves nothing.
            json!({ "errorReason": "invalid_transaction_state" }),
            json!({}),
            json!({ "errorReason": "unexpected_settle_error" }),
            json!({ "transaction": format!("0x{}", "ab".repeat(32)), "errorReason": "timeout" }),
        ] {
            scope.spawn(move || is_never_taken_for_money(&said, &["settle_wait_ms = 3000"], (504, "settlement_pending")));
        }
    });
}

fn is_never_taken_for_money(said: &Value, payments: &[&str], (status, code): (u16, &str)) {
    let stub = refuses_to_settle(said);
    let payments = payments.iter().map(|line| (*line).to_owned()).collect();
    let mut shop = Shop::with(84532, &Settings { facilitator_url: Some(stub.url()), payments, ..Settings::default() });
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.code().as_str()), (status, code), "{said}: {}", answer.text());
    assert!(!answer.text().contains(ANSWER), "{said}: nothing is handed out for it");
    assert_eq!(answer.header("payment-required").is_some(), status == 402, "{said}: a new payment helps only after a no");
    if let Some(receipt) = answer.decoded("payment-response") {
        assert_eq!(receipt["success"], false, "{said}");
    }
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 409, "{said}: what was handed over is not taken twice");
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (0, 0));
    let books = shop.close(0);
    assert_eq!(books.balance(BUYER.address), 0, "{said}: nothing came, so nothing is credited");
    let open = books.json["open_payments"].as_array().expect("a list of sentences");
    assert_eq!(open.len(), usize::from(status == 504), "{said}");
    let advised = |line: &Value| line.as_str().is_some_and(|line| line.contains("name the network's rpc_urls"));
    assert!(open.iter().all(advised), "the operator is told what to do: {open:?}");
}

/// Verifies everything and settles nothing, with status 200.
fn refuses_to_settle(said: &Value) -> Stub {
    let mut refusal = json!({ "success": false, "transaction": "", "network": "eip155:84532", "payer": BUYER.address });
    refusal.as_object_mut().unwrap().extend(said.as_object().unwrap().clone());
    Stub::start(move |request| match request.split(' ').nth(1) {
        Some("/supported") => Some((404, "{}".into())),
        Some("/verify") => Some((200, json!({ "isValid": true, "payer": BUYER.address }).to_string())),
        _ => Some((200, refusal.to_string())),
    })
}

#[test]
fn a_facilitator_that_does_not_serve_our_network_sells_nothing() {
    let base = Anvil::start(8453);
    let facilitator = Facilitator::start(&base);
    let shop = Shop::with(84532, &Settings { facilitator_url: Some(facilitator.url()), ..Settings::default() });
    let answer = shop.server.send(&Request::post(CHAT, body(USAGE, false)));
    assert_eq!((answer.status, answer.code().as_str()), (503, "network_unavailable"), "{}", answer.text());
    shop.server.has_said("NOT SOLD ON: the facilitator does not settle on eip155:84532");
    shop.assert_untouched();
}
