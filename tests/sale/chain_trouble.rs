//! Ten ways in which a chain fails under a sale, in the order of the promises, and a few more: who holds the money then?
//!
//! Expired, not yet valid, drained, cancelled, front-run, stuck and replaced, reorganised, down, lying, silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use farebox_rig::anvil::{Anvil, BUYER, MINTER, SETTLER};
use farebox_rig::http::{self, Answer};
use farebox_rig::line::Line;
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use farebox_rig::stub::Stub;
use serde_json::{Value, json};

use crate::shop::{ANSWER, CHARGE, CHAT, Payment, Shop, USAGE, body, now, paid};

fn open(payments: &[&str]) -> Shop {
    let payments = payments.iter().map(|line| (*line).to_owned()).collect();
    Shop::with(84532, &Settings { payments, ..Settings::default() })
}

/// A shop whose one node is at the end of a line that can be cut.
fn open_on_a_line(payments: &[&str]) -> (Shop, Line) {
    let chain = Anvil::start(84532);
    let line = Line::to(chain.address());
    let payments = payments.iter().map(|line| (*line).to_owned()).collect();
    let shop = Shop::on(chain, &Settings { rpc_urls: vec![line.url()], payments, ..Settings::default() });
    (shop, line)
}

/// Buys, and does `trouble` as soon as `ready` says that the moment has come.
fn buy_amid(shop: &Shop, payment: &Payment, ready: impl Fn() -> bool, trouble: impl FnOnce()) -> Answer {
    let (address, request) = (shop.server.address().to_owned(), paid(CHAT, &body(USAGE, true), payment));
    std::thread::scope(|scope| {
        let call = scope.spawn(|| http::send(&address, &request).unwrap());
        eventually("the moment of the trouble comes", ready);
        trouble();
        call.join().unwrap()
    })
}

/// The same for what comes after the payment was verified, while the upstream thinks: settlement starts when that has accepted.
fn buy_before_it_settles(shop: &Shop, payment: &Payment, trouble: impl FnOnce()) -> Answer {
    shop.upstream.configure(&json!({ "ttfb": 60000 }));
    let trouble = || {
        trouble();
        shop.upstream.hurry();
    };
    buy_amid(shop, payment, || shop.served() == 1, trouble)
}

/// Our trouble, not the buyer's: come back with the same payment.
fn assert_come_back(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (503, "network_unavailable"), "{}", answer.text());
    assert_eq!(answer.header("x-should-retry"), Some("true"));
    assert_eq!((answer.header("payment-required"), answer.header("payment-response")), (None, None));
    assert!(!answer.text().contains(ANSWER));
}

/// The payment failed and took nothing: sign another one.
fn assert_failed(answer: &Answer, reason: &str) {
    assert_eq!((answer.status, answer.code().as_str()), (402, "settlement_failed"), "{}", answer.text());
    assert_eq!(answer.json()["error"]["reason"], reason, "{}", answer.text());
    let receipt = answer.decoded("payment-response").expect("a receipt says so");
    assert_eq!((&receipt["success"], &receipt["transaction"]), (&false.into(), &"".into()));
    assert!(answer.header("payment-required").is_some(), "a new payment is asked for");
    assert!(!answer.text().contains(ANSWER), "nothing is handed out for it");
}

/// What a copy of the payment is told about it.
fn outcome(shop: &Shop, payment: &Payment) -> Value {
    let copy = shop.buy(CHAT, &body(USAGE, true), payment);
    assert_eq!(copy.status, 409, "{}", copy.text());
    copy.json()["error"]["outcome"].clone()
}

#[test]
fn expired_in_the_queue_fails_and_takes_nothing() {
    let mut shop = open(&[]);
    let asked = shop.requirements(CHAT, &body(USAGE, true));
    let payment = shop.sign_until(BUYER, asked, now() + 70);
    shop.chain.set_automine(false);
    let answer = buy_amid(
        &shop,
        &payment,
        || shop.chain.pending_transactions() == 1,
        || {
            shop.chain.rpc("evm_increaseTime", json!([90]));
            shop.chain.mine(1);
        },
    );
    assert_failed(&answer, "invalid_exact_evm_payload_authorization_valid_before");
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (0, 1), "ours was mined and reverted");
    assert_eq!(outcome(&shop, &payment), "pending", "what a reorganisation could undo is not in the books");
    shop.chain.mine(6);
    eventually("its end is final", || outcome(&shop, &payment) == "failed");
    assert_eq!(shop.earned(), 0);
    shop.close(0);
}

#[test]
fn not_yet_valid_is_refused_until_it_is() {
    // The chain's clock is behind ours, by less than what is taken for wrong.
    let mut shop = Shop::on(Anvil::start_ahead(84532, -60), &Settings::default());
    let body = body(USAGE, true);
    let asked = shop.requirements(CHAT, &body);
    let later = shop.sign_after(BUYER, asked.clone(), now() + 3600);
    let sooner = shop.sign_after(BUYER, asked, now() - 10);
    for payment in [&later, &sooner] {
        let answer = shop.buy(CHAT, &body, payment);
        assert_eq!((answer.status, answer.code().as_str()), (402, "payment_invalid"), "{}", answer.text());
        assert_eq!(answer.json()["error"]["reason"], "invalid_exact_evm_payload_authorization_valid_after");
    }
    shop.assert_untouched();
    shop.chain.rpc("evm_increaseTime", json!([60]));
    shop.chain.mine(1);
    assert_eq!(shop.buy(CHAT, &body, &later).status, 402, "an hour is not over yet");
    let answer = shop.buy(CHAT, &body, &sooner);
    assert_eq!(answer.status, 200, "the refusal did not use it up: {}", answer.text());
    assert_eq!((shop.served(), shop.earned()), (1, sooner.amount));
    shop.close(CHARGE);
}

#[test]
fn drained_between_verify_and_settle_fails_and_takes_nothing() {
    let mut shop = open(&["settle_after_ms = 20000"]);
    let payment = shop.pay(CHAT, &body(USAGE, true));
    let answer = buy_before_it_settles(&shop, &payment, || {
        shop.chain.drain(BUYER, MINTER);
        eventually("it is empty", || shop.chain.usdc_balance(BUYER.address) == 0);
    });
    assert_failed(&answer, "invalid_exact_evm_insufficient_balance");
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (0, 0), "no gas is spent on a lost cause");
    assert_eq!(outcome(&shop, &payment), "failed");
    assert_eq!(shop.served(), 1);
    shop.elsewhere = shop.chain.transfers().iter().map(|transfer| transfer.value).sum();
    shop.close(0);
}

#[test]
fn drained_while_our_transaction_waits_fails_and_takes_nothing() {
    let mut shop = open(&[]);
    let payment = shop.pay(CHAT, &body(USAGE, true));
    shop.chain.set_automine(false);
    let answer = buy_amid(
        &shop,
        &payment,
        || shop.chain.pending_transactions() == 1,
        || {
            shop.chain.drain(BUYER, MINTER);
            shop.chain.mine(1);
        },
    );
    assert_failed(&answer, "invalid_exact_evm_insufficient_balance");
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (0, 1), "ours was mined and reverted");
    shop.elsewhere = shop.chain.transfers().iter().map(|transfer| transfer.value).sum();
    shop.close(0);
}

#[test]
fn what_reverted_at_our_expense_counts_and_a_wallet_without_a_balance_is_settled_for_no_more() {
    let mut shop = open(&["failed_transfers_per_day = 1"]);
    let payment = shop.pay(CHAT, &body(USAGE, true));
    shop.chain.set_automine(false);
    let mut drained = 0;
    let answer = buy_amid(
        &shop,
        &payment,
        || shop.chain.pending_transactions() == 1,
        || {
            drained = shop.chain.drain(BUYER, MINTER);
            shop.chain.mine(1);
        },
    );
    assert_failed(&answer, "invalid_exact_evm_insufficient_balance");
    shop.chain.set_automine(true);
    shop.chain.pay(MINTER, BUYER, drained);
    let payment = shop.pay(CHAT, &body(USAGE, true));
    let answer = shop.buy(CHAT, &body(USAGE, true), &payment);
    assert_eq!((answer.status, answer.code().as_str()), (429, "rate_limited"), "{}", answer.text());
    assert_eq!(answer.header("payment-required"), None, "another payment would not help");
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (0, 1), "no more gas is spent on it");
    shop.elsewhere = shop.chain.transfers().iter().map(|transfer| transfer.value).sum();
    shop.close(0);
}

#[test]
fn who_signs_many_payments_and_empties_the_wallet_costs_us_the_gas_of_four() {
    let mut shop = open(&["settle_wait_ms = 4000"]);
    let body = body(USAGE, false);
    let payments: Vec<_> = (0..9).map(|_| shop.pay(CHAT, &body)).collect();
    shop.chain.set_automine(false);
    let address = shop.server.address().to_owned();
    std::thread::scope(|scope| {
        let send = |payment| {
            let order = paid(CHAT, &body, payment);
            let address = &address;
            scope.spawn(move || http::send(address, &order).unwrap())
        };
        let calls: Vec<_> = payments.iter().map(send).collect();
        eventually("some are sent", || shop.chain.pending_transactions() >= 4);
        shop.chain.drain(BUYER, MINTER);
        shop.chain.mine(1);
        let answers: Vec<_> = calls.into_iter().map(|call| call.join().unwrap()).collect();
        assert!(answers.iter().all(|answer| answer.status != 200), "nobody is served");
    });
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (0, 4));
    shop.elsewhere = shop.chain.transfers().iter().map(|transfer| transfer.value).sum();
    shop.close(0);
}

#[test]
fn cancelled_fails_and_takes_nothing() {
    let mut shop = open(&["settle_after_ms = 20000"]);
    let body = body(USAGE, true);
    let (early, late) = (shop.pay(CHAT, &body), shop.pay(CHAT, &body));
    let answer = buy_before_it_settles(&shop, &early, || {
        shop.chain.wait_receipt(&shop.chain.cancel(MINTER, &early.signed));
    });
    assert_failed(&answer, "invalid_exact_evm_nonce_already_used");
    assert_eq!(shop.chain.transactions_of(SETTLER.address), 0, "no gas is spent on a lost cause");

    shop.chain.set_automine(false);
    let answer = buy_amid(
        &shop,
        &late,
        || shop.chain.pending_transactions() == 1,
        || {
            shop.chain.cancel(MINTER, &late.signed);
            shop.chain.mine(1);
        },
    );
    assert_failed(&answer, "invalid_exact_evm_nonce_already_used");
    assert_eq!(outcome(&shop, &late), "pending", "what a reorganisation could undo is not in the books");
    shop.chain.mine(6);
    eventually("the cancellation is final", || outcome(&shop, &late) == "failed");
    assert_eq!((outcome(&shop, &early), shop.earned()), ("failed".into(), 0));
    assert_eq!(shop.served(), 1, "who failed once settles before the upstream is asked");
    shop.close(0);
}

#[test]
fn front_run_between_verify_and_settle_is_served_and_costs_no_gas() {
    let mut shop = open(&["settle_after_ms = 20000"]);
    let payment = shop.pay(CHAT, &body(USAGE, true));
    let answer = buy_before_it_settles(&shop, &payment, || {
        shop.chain.wait_receipt(&shop.chain.submit(MINTER, &payment.signed));
    });
    assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    let theirs = shop.chain.transfers().remove(0).transaction;
    assert_eq!(answer.decoded("payment-response").unwrap()["transaction"], theirs, "the receipt names what really paid");
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (payment.amount, 0));
    assert_eq!((outcome(&shop, &payment), shop.served()), ("served".into(), 1));
    shop.close(CHARGE);
}

#[test]
fn stuck_it_is_replaced_at_a_higher_fee_and_pays_once() {
    let mut shop = open(&["settle_wait_ms = 90000"]);
    let payment = shop.pay(CHAT, &body(USAGE, true));
    shop.chain.set_automine(false);
    let waiting = || -> Vec<Value> {
        let pool = shop.chain.rpc("txpool_content", json!([]));
        pool["pending"]
            .as_object()
            .into_iter()
            .flatten()
            .flat_map(|(_, by_nonce)| by_nonce.as_object().unwrap().values().cloned().collect::<Vec<_>>())
            .collect()
    };
    let answer = buy_amid(
        &shop,
        &payment,
        || waiting().len() == 1,
        || {
            let first = waiting().remove(0);
            // A block in which the base fee is above what it offers leaves it out.
            shop.chain.rpc("anvil_setNextBlockBaseFeePerGas", json!(["0x12a05f200"]));
            shop.chain.mine(1);
            eventually("it is replaced", || waiting().iter().any(|other| other["hash"] != first["hash"]));
            let second = waiting().remove(0);
            assert_eq!((&first["nonce"], &first["input"], waiting().len()), (&second["nonce"], &second["input"], 1));
            shop.chain.mine(1);
        },
    );
    assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (payment.amount, 1));
    assert_eq!(shop.served(), 1);
    shop.close(CHARGE);
}

#[test]
fn a_one_block_reorg_after_the_call_was_served_is_paid_for_again() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!(answer.status, 200, "{}", answer.text());
    shop.chain.set_automine(false);
    shop.chain.reorg(1);
    assert_eq!(shop.earned(), 0, "the block is gone, and the money with it");
    shop.server.has_said("a confirmed transfer vanished");
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
fn a_reorg_that_undoes_a_failure_makes_the_payment_its_payers_balance() {
    let mut shop = open(&[]);
    let payment = shop.pay(CHAT, &body(USAGE, true));
    shop.chain.set_automine(false);
    let answer = buy_amid(
        &shop,
        &payment,
        || shop.chain.pending_transactions() == 1,
        || {
            shop.chain.drain(BUYER, MINTER);
            shop.chain.mine(1);
        },
    );
    assert_failed(&answer, "invalid_exact_evm_insufficient_balance");
    // The wallet was not emptied after all, and a stranger who read our transaction submits the payment.
    shop.chain.reorg(1);
    shop.chain.rpc("anvil_dropAllTransactions", json!([]));
    shop.chain.submit(MINTER, &payment.signed);
    shop.chain.mine(1);
    assert_eq!(shop.earned(), payment.amount);
    eventually("the money is found", || outcome(&shop, &payment) == "credited");
    let books = shop.close(0);
    assert_eq!(books.balance(BUYER.address), payment.amount);
}

#[test]
fn a_payment_that_failed_and_is_submitted_later_by_a_stranger_is_its_payers_balance() {
    let mut shop = open(&[]);
    let payment = shop.pay(CHAT, &body(USAGE, true));
    shop.chain.set_automine(false);
    let mut drained = 0;
    let answer = buy_amid(
        &shop,
        &payment,
        || shop.chain.pending_transactions() == 1,
        || {
            drained = shop.chain.drain(BUYER, MINTER);
            shop.chain.mine(1);
        },
    );
    assert_failed(&answer, "invalid_exact_evm_insufficient_balance");
    shop.server.restart();
    assert_eq!(outcome(&shop, &payment), "pending", "until its end anybody may submit what we made public");
    shop.chain.set_automine(true);
    shop.chain.drain(MINTER, BUYER);
    eventually("the wallet has money again", || shop.chain.usdc_balance(BUYER.address) >= payment.amount);
    shop.chain.wait_receipt(&shop.chain.submit(MINTER, &payment.signed));
    assert_eq!(shop.earned(), payment.amount);
    eventually("the money is found", || outcome(&shop, &payment) == "credited");
    assert_eq!((shop.served(), shop.chain.transactions_of(SETTLER.address)), (1, 1), "nothing is sent for it again");
    shop.elsewhere = shop.chain.transfers().iter().map(|transfer| transfer.value).sum::<u64>() - payment.amount;
    assert!(shop.elsewhere >= 2 * drained);
    let books = shop.close(0);
    assert_eq!(books.balance(BUYER.address), payment.amount);
}

#[test]
fn while_every_node_is_down_a_payment_is_not_used_and_buys_when_one_is_back() {
    let (mut shop, line) = open_on_a_line(&[]);
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
fn a_node_that_goes_down_before_anything_was_signed_leaves_the_payment_as_it_was() {
    let (mut shop, line) = open_on_a_line(&["settle_after_ms = 20000", "settle_wait_ms = 1500"]);
    let body = body(USAGE, true);
    let payment = shop.pay(CHAT, &body);
    let answer = buy_before_it_settles(&shop, &payment, || line.cut());
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
fn a_node_that_goes_down_after_sending_leaves_the_payment_pending_and_then_the_payers_balance() {
    let (mut shop, line) = open_on_a_line(&["settle_wait_ms = 4000"]);
    let payment = shop.pay(CHAT, &body(USAGE, true));
    shop.chain.set_automine(false);
    let answer = buy_amid(
        &shop,
        &payment,
        || shop.chain.pending_transactions() == 1,
        || {
            line.cut();
            shop.chain.mine(1);
        },
    );
    assert_pending(&answer);
    assert_eq!(outcome(&shop, &payment), "pending");

    line.mend();
    shop.chain.set_automine(true);
    eventually("the payment is found", || outcome(&shop, &payment) == "credited");
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (payment.amount, 1), "paid once");
    let books = shop.close(0);
    assert_eq!(books.balance(BUYER.address), payment.amount);
}

/// Nobody knows yet: keep the payment's name and sign nothing.
fn assert_pending(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (504, "settlement_pending"), "{}", answer.text());
    let told = answer.json()["error"]["payment_id"].clone();
    assert!(told.as_str().is_some_and(|id| id.starts_with("pay_")), "{}", answer.text());
    assert_eq!((answer.header("payment-required"), answer.header("payment-response")), (None, None));
    assert!(!answer.text().contains(ANSWER), "not a word of the answer before the money is known to be there");
}

#[test]
fn a_node_that_lies_about_its_chain_id_sells_nothing_for_as_long_as_it_lies() {
    let lies = Arc::new(AtomicBool::new(true));
    let lying = lies.clone();
    let chain = Anvil::start(84532);
    let node = Stub::before_node(chain.address(), move |call, ask| {
        let mut answer = ask(call);
        if call["method"] == "eth_chainId" && lying.load(SeqCst) {
            answer["result"] = json!("0x2105");
        }
        answer
    });
    let mut shop = Shop::on(chain, &Settings { rpc_urls: vec![node.url()], ..Settings::default() });
    let body = body(USAGE, true);
    shop.server.has_said("NOT SOLD ON: rpc_urls lead to chain 8453, not to 84532");
    let unpaid = shop.server.send(&http::Request::post(CHAT, body.as_str()));
    assert_come_back(&unpaid);
    lies.store(false, SeqCst);
    shop.server.has_said("payments are taken on eip155:84532");

    let payment = shop.pay(CHAT, &body);
    lies.store(true, SeqCst);
    assert_come_back(&shop.buy(CHAT, &body, &payment));
    shop.assert_untouched();
    lies.store(false, SeqCst);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((shop.served(), shop.earned()), (1, payment.amount));
    shop.close(CHARGE);
}

#[test]
fn a_receipt_that_does_not_come_in_time_leaves_the_payment_pending_and_then_the_payers_balance() {
    let mut shop = open(&["settle_wait_ms = 4000"]);
    let payment = shop.pay(CHAT, &body(USAGE, true));
    shop.chain.set_automine(false);
    assert_pending(&shop.buy(CHAT, &body(USAGE, true), &payment));
    assert_eq!((outcome(&shop, &payment), shop.earned()), ("pending".into(), 0));
    eventually("it waits for a block", || shop.chain.pending_transactions() == 1);
    shop.chain.mine(1);
    eventually("the payment is found", || outcome(&shop, &payment) == "credited");
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (payment.amount, 1), "paid once");
    assert_eq!(shop.served(), 1, "the call is not run late");
    let books = shop.close(0);
    assert_eq!(books.balance(BUYER.address), payment.amount);
}

#[test]
fn a_large_payment_is_believed_only_when_its_block_is_safe_and_nobody_works_for_it_before() {
    let looks = Arc::new(AtomicU64::new(0));
    let looked = looks.clone();
    let chain = Anvil::start(84532);
    let node = Stub::before_node(chain.address(), move |call, ask| {
        let answer = ask(call);
        if call["method"] == "eth_getTransactionReceipt" && answer["result"]["status"] == "0x1" {
            looked.fetch_add(1, SeqCst);
        }
        answer
    });
    let network = vec!["safe_above = \"0.000001\"".into()];
    let mut shop = Shop::on(chain, &Settings { network, rpc_urls: vec![node.url()], ..Settings::default() });
    let payment = shop.pay(CHAT, &body(USAGE, true));
    let answer = buy_amid(
        &shop,
        &payment,
        || looks.load(SeqCst) >= 5,
        || {
            assert_eq!(shop.earned(), payment.amount, "the transfer is on the chain");
            assert_eq!(shop.served(), 0, "its receipt was seen again and again, and the upstream is not asked");
            assert!(!shop.server.output().contains("settlement confirmed"));
            shop.chain.mine(8);
        },
    );
    assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    assert_eq!((shop.served(), shop.chain.transactions_of(SETTLER.address)), (1, 1));
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
    shop.upstream.configure(&json!({ "ttfb": 4000, "status": 500 }));
    let answer = shop.buy(CHAT, &body, &failed);
    assert!((500..600).contains(&answer.status), "{}", answer.text());
    assert_eq!(shop.earned(), served.amount + failed.amount);
    let books = shop.close(served.amount);
    assert_eq!(books.balance(BUYER.address), failed.amount, "an answer that never came is not kept");
}
