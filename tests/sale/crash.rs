//! `kill -9` at any moment of a purchase: after the restart the books are clean, the chain agrees, and the payer is whole.

use std::thread;
use std::time::Duration;

use farebox_rig::anvil::{BUYER, SETTLER};
use farebox_rig::http::{self, Answer};
use farebox_rig::process::eventually;
use serde_json::json;

use crate::shop::{CHARGE, CHAT, Payment, Shop, USAGE, body, paid};

#[test]
fn a_kill_while_the_transfer_is_unconfirmed_pays_once_and_credits_the_payer() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    shop.chain.set_automine(false);
    let request = paid(CHAT, &body, &payment);
    let address = shop.server.address().to_owned();
    let call = thread::spawn(move || http::send(&address, &request));
    eventually("the payment is submitted", || shop.chain.pending_transactions() == 1);
    shop.server.kill();
    assert!(call.join().unwrap().is_err(), "the buyer saw the connection break");

    shop.server.restart();
    let early = shop.buy(CHAT, &body, &payment);
    assert_eq!(early.status, 409, "the payment is still claimed: {}", early.text());
    shop.chain.mine(1);
    shop.chain.set_automine(true);
    eventually("the payment is settled", || is_decided(&shop.buy(CHAT, &body, &payment)));
    assert_eq!(shop.chain.transactions_of(SETTLER.address), 1, "the stored bytes were sent again, not a second transfer");
    let books = shop.close(0);
    assert_eq!(books.balance(BUYER.address), payment.amount, "paid and not served: all of it is the payer's");
}

#[test]
fn a_kill_whose_transfer_confirms_while_we_are_down_credits_the_payer() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    shop.chain.set_automine(false);
    let request = paid(CHAT, &body, &payment);
    let address = shop.server.address().to_owned();
    let call = thread::spawn(move || http::send(&address, &request));
    eventually("the payment is submitted", || shop.chain.pending_transactions() == 1);
    shop.server.kill();
    assert!(call.join().unwrap().is_err());
    shop.chain.mine(3);
    shop.chain.set_automine(true);
    assert_eq!(shop.earned(), payment.amount, "the transfer landed without us");

    shop.server.restart();
    eventually("the payment is found", || is_decided(&shop.buy(CHAT, &body, &payment)));
    assert_eq!(shop.chain.transactions_of(SETTLER.address), 1, "nothing was sent a second time");
    shop.close(0);
}

#[test]
fn a_kill_at_any_moment_of_a_purchase_leaves_the_payer_whole() {
    // The upstream takes a while, so that the later kills strike in the middle of the answer.
    let body = body("<<fake in=20 out=7 text=hello+wallet gap=40>>", true);
    let delays_ms = [0, 1, 2, 4, 7, 11, 16, 25, 40, 60, 90, 130, 180, 260];
    let (even, odd): (Vec<_>, Vec<_>) = delays_ms.into_iter().partition(|delay| delay % 2 == 0);
    thread::scope(|scope| {
        for delays in [even, odd] {
            let body = &body;
            scope.spawn(move || delays.into_iter().for_each(|delay| kill_after(delay, body)));
        }
    });
}

fn kill_after(delay_ms: u64, body: &str) {
    let mut shop = Shop::open();
    let payment = shop.pay(CHAT, body);
    let request = paid(CHAT, body, &payment);
    let address = shop.server.address().to_owned();
    let call = thread::spawn(move || http::send(&address, &request));
    thread::sleep(Duration::from_millis(delay_ms));
    shop.server.kill();
    let first = call.join().unwrap().ok();
    shop.server.restart();
    let second = insist(&shop, body, &payment);

    let what = format!("killed after {delay_ms} ms, then {} {}", second.status, second.text());
    assert_eq!(shop.earned(), payment.amount, "{what}: the transfer lands exactly once");
    let whole = |answer: &Answer| answer.status == 200 && answer.complete;
    assert!(!(first.as_ref().is_some_and(whole) && whole(&second)), "{what}: one payment never buys two answers");
    let books = shop.server.audit();
    assert!(books.clean, "{what}: {:#}", books.json);
    let charged = payment.amount - books.balance(BUYER.address);
    let begun = |answer: &Answer| answer.status == 200;
    let most = if first.as_ref().is_some_and(begun) || begun(&second) { CHARGE } else { 0 };
    assert!(charged <= most, "{what}: charged {charged} for what is worth at most {most}: {:#}", books.json);
    let transfers = shop.chain.transfers();
    assert_eq!(transfers.len(), 1, "{what}: {}", json!(transfers.iter().map(|t| t.value).collect::<Vec<_>>()));
}

/// Presents the payment again until it is decided: served now, or used before.
fn insist(shop: &Shop, body: &str, payment: &Payment) -> Answer {
    let mut last = None;
    eventually("the payment is decided", || {
        let answer = shop.buy(CHAT, body, payment);
        let decided = answer.status == 200 || is_decided(&answer);
        last = Some(answer);
        decided
    });
    last.unwrap()
}

/// Whether it is known what became of a payment: a pending one is used already, but may still arrive.
fn is_decided(answer: &Answer) -> bool {
    answer.code() == "payment_already_used" && answer.json()["error"]["outcome"] != "pending"
}
