//! Trouble with the chain while a call is sold: what the buyer hears, who holds the money, and that nobody pays twice.

use farebox_rig::http::{self, Answer, Request};
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use farebox_rig::solana::{BUYER, PAY_TO, POOR_BUYER, SETTLER, Solana};
use serde_json::json;

use crate::shop::{CHARGE, CHAT, Payment, Shop, USAGE, body, paid};

pub fn open(payments: &[&str]) -> Shop {
    let payments = payments.iter().map(|line| (*line).to_owned()).collect();
    Shop::on(Solana::start(), &Settings { payments, ..Settings::default() })
}

#[test]
fn a_send_that_is_lost_and_one_that_is_late_delay_the_answer_and_nothing_else() {
    let mut shop = Shop::open();
    let body = body(USAGE, true);
    for trouble in [|chain: &Solana| chain.drop_sends(2), |chain: &Solana| chain.delay(15)] {
        let payment = shop.pay(CHAT, &body);
        trouble(&shop.chain);
        let answer = shop.buy(CHAT, &body, &payment);
        assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    }
    assert_eq!((shop.served(), shop.chain.landed().len()), (2, 2));
    shop.close(2 * CHARGE);
}

#[test]
fn a_payment_that_is_not_on_the_chain_in_time_is_pending_and_then_its_payers_balance() {
    let mut shop = open(&["settle_wait_ms = 4000"]);
    let body = body(USAGE, true);
    let payment = shop.pay(CHAT, &body);
    shop.chain.pause(true);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.code().as_str()), (504, "settlement_pending"), "{}", answer.text());
    assert_eq!(answer.header("payment-required"), None, "nobody is asked to pay twice");
    assert_eq!((shop.earned(), shop.chain.landed().len()), (0, 0));
    shop.chain.pause(false);
    eventually("the payment arrives", || shop.buy(CHAT, &body, &payment).json()["error"]["outcome"] == "credited");
    assert_eq!((shop.served(), shop.earned(), shop.chain.landed().len()), (1, payment.amount, 1));
    let books = shop.close(0);
    assert_eq!(books.balance(BUYER.address), payment.amount);
}

#[test]
fn a_payment_whose_blockhash_ends_in_the_queue_has_failed_and_took_nothing() {
    let mut shop = open(&["settle_wait_ms = 4000"]);
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    shop.chain.drop_sends(10_000);
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 504);
    shop.chain.expire();
    eventually("it is proven", || shop.buy(CHAT, &body, &payment).json()["error"]["outcome"] == "failed");
    shop.chain.drop_sends(0);
    assert_eq!((shop.earned(), shop.chain.landed().len()), (0, 0));
    assert_eq!(shop.chain.lamports(SETTLER), 1_000_000_000, "and cost no fee");
    let requirements = shop.requirements_of_now(CHAT, &body);
    let fresh = shop.sign(BUYER, requirements);
    assert_eq!(shop.buy(CHAT, &body, &fresh).status, 200, "a new one buys");
    shop.close(CHARGE);
}

#[test]
fn an_offer_that_is_paid_too_late_gets_a_new_one_and_nothing_is_signed() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    shop.chain.expire();
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.code().as_str()), (402, "payment_invalid"), "{}", answer.text());
    assert_eq!(answer.json()["error"]["reason"], "invalid_exact_svm_transaction_expired");
    assert!(answer.decoded("payment-required").is_some(), "with a new offer");
    shop.assert_untouched();
    shop.close(0);
}

/// Buys, and empties the buyer's wallet while its transfer waits for a block.
pub fn buy_emptied(shop: &Shop, body: &str, payment: &Payment) -> Answer {
    let sends = shop.chain.sends();
    shop.chain.pause(true);
    let address = shop.server.address().to_owned();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| http::send(&address, &paid(CHAT, body, payment)).unwrap());
        eventually("it is sent", || shop.chain.sends() > sends);
        shop.chain.set_balance(BUYER, 0);
        shop.chain.pause(false);
        call.join().unwrap()
    })
}

#[test]
fn a_wallet_that_is_emptied_while_we_settle_gets_a_402_and_no_answer() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    let answer = buy_emptied(&shop, &body, &payment);
    assert_eq!((answer.status, answer.code().as_str()), (402, "settlement_failed"), "{}", answer.text());
    assert_eq!(answer.json()["error"]["reason"], "invalid_exact_svm_transaction_failed");
    assert_eq!(answer.decoded("payment-response").unwrap()["success"], false);
    assert_eq!(shop.earned(), 0);
    shop.chain.finalize();
    eventually("the books close it", || shop.buy(CHAT, &body, &payment).json()["error"]["outcome"] == "failed");
    shop.close(0);
}

#[test]
fn nobody_works_for_a_payment_whose_blockhash_we_do_not_know_before_it_has_settled() {
    for known in [true, false] {
        let mut shop = Shop::open();
        let body = body(USAGE, false);
        let payment = shop.pay(CHAT, &body);
        if !known {
            // What was offered before is forgotten, and what is offered now is another one.
            shop.chain.advance(2);
            shop.server.restart();
        }
        shop.chain.pause(true);
        let address = shop.server.address().to_owned();
        let answer = std::thread::scope(|scope| {
            let call = scope.spawn(|| http::send(&address, &paid(CHAT, &body, &payment)).unwrap());
            eventually("it is sent", || shop.chain.sends() > 0);
            if known {
                eventually("the upstream has begun", || shop.served() == 1);
            } else {
                assert_eq!(shop.served(), 0, "it may be about to end");
            }
            shop.chain.pause(false);
            call.join().unwrap()
        });
        assert_eq!((answer.status, shop.served(), shop.earned()), (200, 1, payment.amount), "{}", answer.text());
        shop.close(CHARGE);
    }
}

#[test]
fn a_poor_wallet_is_told_what_is_missing_before_anybody_works_for_it() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let requirements = shop.requirements(CHAT, &body);
    let payment = shop.sign(POOR_BUYER, requirements);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.code().as_str()), (402, "payment_invalid"), "{}", answer.text());
    let error = answer.json()["error"].take();
    assert_eq!(error["reason"], "invalid_exact_svm_transaction_simulation_failed");
    assert!(error["message"].as_str().unwrap().contains("holds 0.000000 USDC"), "{error}");
    shop.assert_untouched();
    shop.close(0);
}

#[test]
fn a_settler_without_sol_or_a_missing_token_account_sells_nothing_and_says_what_to_do() {
    for (lose, told) in [
        ((|chain: &Solana| chain.set_lamports(SETTLER, 5000)) as fn(&Solana), "send it some SOL"),
        (|chain: &Solana| chain.close_token_account(PAY_TO), "spl-token create-account"),
    ] {
        let chain = Solana::start();
        lose(&chain);
        let shop = Shop::on(chain, &Settings::default());
        let answer = shop.server.send(&Request::post(CHAT, body(USAGE, false)));
        assert_eq!((answer.status, answer.code().as_str()), (503, "network_unavailable"), "{}", answer.text());
        assert!(answer.header("payment-required").is_none(), "a network that cannot settle is not offered");
        shop.server.has_said(told);
        assert_eq!((shop.served(), shop.earned()), (0, 0));
    }
}

#[test]
fn a_settler_that_runs_dry_between_offer_and_payment_takes_no_payment_and_asks_for_no_other() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    shop.chain.set_lamports(SETTLER, 5000);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.code().as_str()), (503, "network_unavailable"), "{}", answer.text());
    assert_eq!(answer.header("payment-required"), None);
    assert_eq!((shop.served(), shop.earned(), shop.chain.sends()), (0, 0, 0));
    let told = shop.server.send(&Request::get("/healthz")).json();
    assert!(told.to_string().contains(shop.chain.network()), "{told}");
    shop.close(0);
}

#[test]
fn a_fork_that_takes_a_served_payment_away_costs_nobody_anything() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let signature = answer.decoded("payment-response").unwrap()["transaction"].as_str().unwrap().to_owned();
    shop.chain.pause(true);
    shop.chain.undo(&signature);
    assert_eq!(shop.earned(), 0, "the block is gone, and the money with it");
    shop.server.has_said("a confirmed transfer vanished");
    shop.chain.pause(false);
    eventually("it is there again", || shop.earned() == payment.amount);
    eventually("it is confirmed again", || shop.server.output().matches("settlement confirmed").count() == 2);
    assert_eq!((shop.served(), shop.chain.landed().len()), (1, 1), "one call, one transaction");
    shop.close(CHARGE);
}

#[test]
fn a_killed_program_goes_on_with_what_it_had_sent() {
    let mut shop = open(&["settle_wait_ms = 3000"]);
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    shop.chain.pause(true);
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 504);
    shop.server.kill();
    shop.chain.pause(false);
    shop.server.restart();
    eventually("it is credited", || shop.buy(CHAT, &body, &payment).json()["error"]["outcome"] == "credited");
    assert_eq!((shop.earned(), shop.chain.landed().len()), (payment.amount, 1));
    shop.close(0);
}

#[test]
fn an_upstream_that_refuses_leaves_the_payment_unsigned_and_good_for_another_try() {
    let mut shop = open(&["settle_after_ms = 8000"]);
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    shop.upstream.configure(&json!({ "status": 400 }));
    let answer = shop.buy(CHAT, &body, &payment);
    assert!(answer.status >= 400 && answer.status != 402, "{} {}", answer.status, answer.text());
    assert_eq!((shop.earned(), shop.chain.sends()), (0, 0), "nothing was settled");
    shop.upstream.configure(&json!({}));
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 200, "the same payment buys");
    assert_eq!((shop.earned(), shop.chain.landed().len()), (payment.amount, 1));
    shop.close(CHARGE);
}

#[test]
fn a_served_payment_that_a_fork_takes_away_for_good_is_in_the_books_as_the_loss_it_is() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let signature = answer.decoded("payment-response").unwrap()["transaction"].as_str().unwrap().to_owned();
    shop.chain.drop_sends(10_000);
    shop.chain.undo(&signature);
    shop.server.has_said("a confirmed transfer vanished");
    shop.chain.expire();
    shop.server.has_said("settlement failed");
    assert_eq!((shop.earned(), shop.chain.landed().len()), (0, 0));
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(books.balance(BUYER.address), 0, "what did not come in is nobody's balance: {:#}", books.json);
}

#[test]
fn a_node_that_is_down_makes_offers_wait_once_and_not_for_long() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    shop.chain.fail_requests(1000, 503);
    // What offers would name becomes too old; nobody is kept from the offer by that.
    eventually("offers go without a blockhash", || shop.requirements(CHAT, &body)["extra"]["recentBlockhash"].is_null());
    shop.chain.fail_requests(0, 503);
    let payment = shop.pay(CHAT, &body);
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 200, "a client that finds a blockhash for itself pays all the same");
    shop.close(CHARGE);
}
