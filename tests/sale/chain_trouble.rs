//! The chain fails under a sale: no node answers, a block is taken back. Nobody pays twice, and nobody's money is lost.

use farebox_rig::anvil::{Anvil, BUYER, SETTLER};
use farebox_rig::http::{self, Answer};
use farebox_rig::line::Line;
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use serde_json::json;

use crate::shop::{ANSWER, CHARGE, CHAT, Shop, USAGE, body, paid};

/// A shop whose one node is at the end of a line that can be cut.
fn open(payments: &[&str]) -> (Shop, Line) {
    let chain = Anvil::start(84532);
    let line = Line::to(chain.address());
    let payments = payments.iter().map(|line| (*line).to_owned()).collect();
    let shop = Shop::on(chain, &Settings { rpc_urls: vec![line.url()], payments, ..Settings::default() });
    (shop, line)
}

/// Our trouble, not the buyer's: come back with the same payment.
fn assert_come_back(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (503, "network_unavailable"), "{}", answer.text());
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    assert_eq!((answer.header("payment-required"), answer.header("payment-response")), (None, None));
    assert!(!answer.text().contains(ANSWER));
}

#[test]
fn without_a_node_a_payment_is_not_used_and_buys_when_the_node_is_back() {
    let (mut shop, line) = open(&[]);
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
fn a_node_that_is_lost_before_anything_was_signed_leaves_the_payment_as_it_was() {
    let (mut shop, line) = open(&["settle_after_ms = 20000", "settle_wait_ms = 1500"]);
    let body = body(USAGE, true);
    let payment = shop.pay(CHAT, &body);
    shop.upstream.configure(&json!({ "ttfb": 2000 }));
    let address = shop.server.address().to_owned();
    let answer = std::thread::scope(|scope| {
        let call = scope.spawn(|| http::send(&address, &paid(CHAT, &body, &payment)).unwrap());
        eventually("the upstream is asked", || shop.served() == 1);
        line.cut();
        call.join().unwrap()
    });
    assert_come_back(&answer);
    line.mend();
    std::thread::sleep(std::time::Duration::from_secs(4));
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (0, 0), "what was given up is not sent later");

    shop.upstream.configure(&json!({}));
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (payment.amount, 1));
    shop.close(CHARGE);
}

#[test]
fn a_node_that_is_lost_after_sending_leaves_the_payment_pending_and_then_the_payers_balance() {
    let (mut shop, line) = open(&["settle_wait_ms = 4000"]);
    let body = body(USAGE, true);
    let payment = shop.pay(CHAT, &body);
    shop.chain.set_automine(false);
    let address = shop.server.address().to_owned();
    let answer = std::thread::scope(|scope| {
        let call = scope.spawn(|| http::send(&address, &paid(CHAT, &body, &payment)).unwrap());
        eventually("our transaction is submitted", || shop.chain.pending_transactions() == 1);
        line.cut();
        shop.chain.mine(1);
        call.join().unwrap()
    });
    assert_eq!((answer.status, answer.code().as_str()), (504, "settlement_pending"), "{}", answer.text());
    let told = answer.json()["error"]["payment_id"].clone();
    assert!(told.as_str().is_some_and(|id| id.starts_with("pay_")), "{}", answer.text());
    assert_eq!((answer.header("payment-required"), answer.header("payment-response")), (None, None));
    assert!(!answer.text().contains(ANSWER), "not a word of the answer before the money is known to be there");
    let early = shop.buy(CHAT, &body, &payment);
    assert_eq!((early.status, &early.json()["error"]["outcome"]), (409, &"pending".into()), "{}", early.text());

    line.mend();
    shop.chain.set_automine(true);
    eventually("the payment is found", || shop.buy(CHAT, &body, &payment).json()["error"]["outcome"] == "credited");
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (payment.amount, 1), "paid once");
    let books = shop.close(0);
    assert_eq!(books.balance(BUYER.address), payment.amount);
}

#[test]
fn a_block_that_is_taken_back_after_the_call_was_served_is_paid_for_again() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!(answer.status, 200, "{}", answer.text());
    shop.chain.set_automine(false);
    shop.chain.reorg(1);
    assert_eq!(shop.earned(), 0, "the block is gone, and the money with it");
    eventually("we notice", || shop.server.output().contains("a confirmed transfer vanished"));
    eventually("our transaction is submitted again", || shop.chain.pending_transactions() == 1);
    shop.chain.set_automine(true);
    shop.chain.mine(1);
    eventually("the transfer is on the chain again", || shop.earned() == payment.amount);
    eventually("the books know", || shop.server.output().matches("settlement confirmed").count() == 2);
    assert_eq!((shop.served(), shop.chain.transfers().len()), (1, 1), "one call, one transfer");
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 409);
    shop.close(CHARGE);
}

#[test]
fn a_flat_price_keeps_what_the_call_did_not_cost_but_not_the_money_of_a_call_that_failed() {
    let settings = ["payg_remainder = \"keep\"", "settle_after_ms = 50"].map(str::to_owned).to_vec();
    let mut shop = Shop::with(84532, &Settings { payments: settings, ..Settings::default() });
    let body = body(USAGE, false);
    let served = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &served);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(served.amount > CHARGE);

    let failed = shop.pay(CHAT, &body);
    shop.upstream.configure(&json!({ "ttfb": 1500, "status": 500 }));
    let answer = shop.buy(CHAT, &body, &failed);
    assert!((500..600).contains(&answer.status), "{}", answer.text());
    assert_eq!(shop.earned(), served.amount + failed.amount);
    let books = shop.close(served.amount);
    assert_eq!(books.balance(BUYER.address), failed.amount, "an answer that never came is not kept");
}
