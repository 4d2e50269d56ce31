//! A chain that fails under a top-up: nothing is taken and not credited, nothing is credited twice, and nobody is asked to pay again in doubt.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering::SeqCst};

use farebox_rig::anvil::{Anvil, BUYER, MINTER, SETTLER};
use farebox_rig::facilitator::Facilitator;
use farebox_rig::http::{self, Answer, Request};
use farebox_rig::line::Line;
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use farebox_rig::stub::Stub;
use serde_json::json;

use crate::shop::{FIVE, Shop};
use crate::topping::{Payment, TOP_UP, error, now, paying, sign_with};

fn open(prepaid: &[&str]) -> Shop {
    let prepaid = prepaid.iter().map(|line| (*line).to_owned()).collect();
    Shop::with(84532, Settings { prepaid, ..Settings::default() })
}

/// A shop whose one node is at the end of a line that can be cut.
fn open_on_a_line(prepaid: &[&str]) -> (Shop, Line) {
    let chain = Anvil::start(84532);
    let line = Line::to(chain.address());
    let prepaid = prepaid.iter().map(|text| (*text).to_owned()).collect();
    let shop = Shop::on(chain, Settings { rpc_urls: vec![line.url()], prepaid, ..Settings::default() });
    (shop, line)
}

/// Nobody knows yet: keep the payment, sign no other.
fn assert_pending(answer: &Answer) {
    assert_eq!((answer.status, error(answer).as_str()), (504, "SETTLEMENT_TIMEOUT"), "{}", answer.text());
    let details = answer.json()["details"].clone();
    assert_eq!(details["code"], "settlement_pending", "{details}");
    assert!(details["payment_id"].as_str().is_some_and(|id| id.starts_with("pay_")), "{details}");
    assert_eq!((answer.header("payment-required"), answer.header("x-should-retry")), (None, Some("false")), "nobody pays twice");
}

/// It failed and took nothing: sign another one.
fn assert_failed(answer: &Answer, reason: &str) {
    assert_eq!((answer.status, error(answer).as_str()), (402, "SETTLEMENT_FAILED"), "{}", answer.text());
    assert_eq!(answer.json()["details"]["reason"], reason, "{}", answer.text());
    let receipt = answer.decoded("payment-response").expect("a receipt says so");
    assert_eq!((&receipt["success"], &receipt["transaction"]), (&json!(false), &json!("")));
    assert!(answer.header("payment-required").is_some(), "a new payment is asked for");
}

#[test]
fn while_every_node_is_down_a_payment_is_not_used_and_tops_up_when_one_is_back() {
    let (shop, line) = open_on_a_line(&[]);
    let payment = shop.signed(FIVE);
    line.cut();
    for _ in 0..2 {
        let answer = shop.pay_in(&payment);
        assert_eq!((answer.status, error(&answer).as_str()), (503, "NETWORK_UNAVAILABLE"), "{}", answer.text());
        assert_eq!((answer.header("payment-required"), answer.header("x-should-retry")), (None, Some("true")));
    }
    shop.assert_untouched();
    line.mend();
    eventually("payments are taken again", || shop.server.send(&Request::post(TOP_UP, "")).status == 402);
    assert_eq!(shop.pay_in(&payment).status, 200);
    shop.close_with(FIVE, 1);
}

#[test]
fn a_receipt_that_does_not_come_in_time_is_told_so_and_the_payment_is_credited_when_it_comes() {
    let shop = open(&["top_up_wait_ms = 10000"]);
    let payment = shop.signed(FIVE);
    shop.chain.set_automine(false);
    assert_pending(&shop.pay_in(&payment));
    let again = shop.pay_in(&payment);
    assert_eq!((again.status, error(&again).as_str()), (409, "PAYMENT_IN_PROGRESS"), "{}", again.text());
    assert_eq!((shop.earned(), shop.account(BUYER).available()), (0, 0), "nothing is spendable before its chain has it");
    shop.chain.mine(1);
    let credited = shop.insist(&payment);
    assert_eq!(credited.json()["data"]["amountCredited"], 5, "{}", credited.text());
    shop.close_with(FIVE, 1);
}

#[test]
fn a_restart_in_the_middle_of_a_settlement_credits_it_once() {
    let mut shop = open(&[]);
    let payment = shop.signed(FIVE);
    shop.chain.set_automine(false);
    let (address, request) = (shop.server.address().to_owned(), paying(&payment));
    let call = std::thread::spawn(move || http::send(&address, &request));
    eventually("the payment is submitted", || shop.chain.pending_transactions() == 1);
    shop.server.kill();
    assert!(call.join().unwrap().is_err(), "the buyer saw the connection break");
    shop.server.restart();
    let again = shop.pay_in(&payment);
    assert_eq!((again.status, error(&again).as_str()), (409, "PAYMENT_IN_PROGRESS"), "{}", again.text());
    shop.chain.mine(1);
    shop.insist(&payment);
    shop.close_with(FIVE, 1);
}

#[test]
fn a_buyer_who_hangs_up_is_credited_all_the_same() {
    let shop = open(&[]);
    let payment = shop.signed(FIVE);
    shop.chain.set_automine(false);
    let mut tcp = std::net::TcpStream::connect(shop.server.address()).unwrap();
    std::io::Write::write_all(&mut tcp, &paying(&payment).bytes(shop.server.address())).unwrap();
    eventually("the payment is submitted", || shop.chain.pending_transactions() == 1);
    drop(tcp);
    shop.chain.mine(1);
    shop.insist(&payment);
    shop.close_with(FIVE, 1);
}

#[test]
fn somebody_else_who_submits_our_payment_first_makes_it_no_second_credit() {
    let shop = open(&[]);
    let payment = shop.signed(FIVE);
    shop.chain.set_automine(false);
    let answer = shop.pay_in_amid(&payment, || {
        shop.chain.submit(MINTER, &payment.signed);
        shop.chain.mine(1);
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    let transfers = shop.chain.transfers();
    assert_eq!(transfers.len(), 1);
    let told = answer.decoded("payment-response").unwrap();
    assert_eq!(told["transaction"], transfers[0].transaction, "the receipt names what really paid");
    assert_eq!(shop.pay_in(&payment).status, 200);
    shop.close_with(FIVE, 1);
}

#[test]
fn a_payment_that_was_taken_back_before_or_while_we_settle_credits_nothing() {
    let shop = open(&[]);
    let (early, late) = (shop.signed(FIVE), shop.signed(FIVE));
    shop.chain.wait_receipt(&shop.chain.cancel(MINTER, &early.signed));
    let answer = shop.pay_in(&early);
    assert_eq!((answer.status, error(&answer).as_str()), (400, "PAYMENT_VERIFICATION_FAILED"), "{}", answer.text());
    assert_eq!(answer.json()["details"]["reason"], "invalid_exact_evm_nonce_already_used");
    shop.chain.set_automine(false);
    let answer = shop.pay_in_amid(&late, || {
        shop.chain.cancel(MINTER, &late.signed);
        shop.chain.mine(1);
    });
    assert_failed(&answer, "invalid_exact_evm_nonce_already_used");
    shop.chain.mine(6);
    eventually("its end is final", || shop.pay_in(&late).status == 402);
    assert_failed(&shop.pay_in(&late), "invalid_exact_evm_nonce_already_used");
    shop.chain.mine(1);
    let fillers = shop.chain.transactions_of(SETTLER.address);
    shop.close_with(0, fillers);
}

#[test]
fn a_wallet_that_is_emptied_while_we_settle_is_credited_nothing() {
    let shop = open(&[]);
    let payment = shop.signed(FIVE);
    shop.chain.set_automine(false);
    let answer = shop.pay_in_amid(&payment, || {
        shop.chain.drain(BUYER, MINTER);
        shop.chain.mine(1);
    });
    assert_failed(&answer, "invalid_exact_evm_insufficient_balance");
    assert_eq!(shop.account(BUYER).available(), 0);
    shop.close_with(0, 1);
}

#[test]
fn a_payment_that_ends_while_it_waits_credits_nothing() {
    let shop = open(&[]);
    let asked = shop.asked_for(FIVE);
    let payment = sign_with(json!({ "key": BUYER.key, "requirements": asked, "validBefore": now() + 70 }));
    shop.chain.set_automine(false);
    let answer = shop.pay_in_amid(&payment, || {
        shop.chain.rpc("evm_increaseTime", json!([90]));
        shop.chain.mine(1);
    });
    assert_failed(&answer, "invalid_exact_evm_payload_authorization_valid_before");
    shop.close_with(0, 1);
}

#[test]
fn a_top_up_that_a_reorganisation_takes_back_is_submitted_again_and_stays_one_credit() {
    let shop = open(&[]);
    let payment = shop.signed(FIVE);
    assert_eq!(shop.pay_in(&payment).status, 200);
    shop.chain.set_automine(false);
    shop.chain.reorg(1);
    assert_eq!(shop.earned(), 0, "the block is gone, and the money with it");
    eventually("our transaction is submitted again", || shop.chain.pending_transactions() == 1);
    shop.chain.set_automine(true);
    shop.chain.mine(1);
    eventually("the books know", || shop.server.output().matches("settlement confirmed").count() == 2);
    assert_eq!(shop.account(BUYER).available(), 5_000_000);
    assert_eq!(shop.pay_in(&payment).status, 200);
    shop.close_with(FIVE, 1);
}

#[test]
fn a_large_top_up_is_credited_when_its_block_is_safe_and_not_before() {
    let settings = Settings {
        prepaid: vec!["top_up_wait_ms = 10000".into()],
        network: vec!["safe_above = \"4.99\"".into()],
        ..Settings::default()
    };
    let shop = Shop::with(84532, settings);
    let payment = shop.signed(FIVE);
    assert_pending(&shop.pay_in(&payment));
    assert_eq!((shop.earned(), shop.account(BUYER).available()), (FIVE, 0), "its chain has it, and may lose it again");
    shop.chain.mine(8);
    shop.insist(&payment);
    assert_eq!(shop.account(BUYER).available(), 5_000_000);
    shop.close_with(FIVE, 1);
}

#[test]
fn a_node_that_fails_before_anything_was_signed_leaves_the_payment_as_it_was() {
    let chain = Anvil::start(84532);
    let fails = Arc::new(AtomicBool::new(false));
    let failing = fails.clone();
    // It says that the payment is good, and then not what the next transaction must look like.
    let node = Stub::before_node(chain.address(), move |call, ask| {
        let needed = ["eth_getTransactionCount", "eth_maxPriorityFeePerGas", "eth_feeHistory"];
        let asked = call["method"].as_str().unwrap_or_default();
        match failing.load(SeqCst) && needed.contains(&asked) {
            true => json!({ "jsonrpc": "2.0", "id": call["id"], "error": { "code": -32000, "message": "gone" } }),
            false => ask(call),
        }
    });
    let prepaid = vec!["top_up_wait_ms = 1500".into()];
    let shop = Shop::on(chain, Settings { rpc_urls: vec![node.url()], prepaid, ..Settings::default() });
    let payment = shop.signed(FIVE);
    fails.store(true, SeqCst);
    let answer = shop.pay_in(&payment);
    assert_eq!((answer.status, error(&answer).as_str()), (503, "NETWORK_UNAVAILABLE"), "{}", answer.text());
    assert_eq!((answer.header("payment-required"), answer.header("x-should-retry")), (None, Some("true")));
    shop.assert_untouched();
    fails.store(false, SeqCst);
    eventually("the same payment tops up", || shop.pay_in(&payment).status == 200);
    shop.close_with(FIVE, 1);
}

#[test]
fn a_facilitator_tops_up_too() {
    let chain = Anvil::start(84532);
    let facilitator = Facilitator::start(&chain);
    let settings = Settings {
        facilitator_url: Some(facilitator.url()),
        network: vec![format!("rpc_urls = [{:?}]", chain.url())],
        ..Settings::default()
    };
    let shop = Shop::on(chain, settings);
    let payment: Payment = shop.signed(2 * FIVE);
    let answer = shop.pay_in(&payment);
    assert_eq!((answer.status, &answer.json()["data"]["newBalance"]), (200, &json!(10)), "{}", answer.text());
    assert_eq!(shop.pay_in(&payment).status, 200);
    let ours = shop.chain.transactions_of(SETTLER.address);
    shop.close_with(2 * FIVE, ours);
}
