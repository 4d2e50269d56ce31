//! Clocks that jump, the machine's and the chain's: nothing is released, doubled or lost, and no payment is judged by a wrong time.

use farebox_rig::anvil::{Anvil, BUYER, SETTLER};
use farebox_rig::http::{self, Answer, Stream};
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use farebox_rig::stub::Stub;
use serde_json::json;

use crate::shop::{CHARGE, CHAT, Payment, Shop, USAGE, body, now, paid};

const HOUR: i64 = 3600;

/// The clocks are wrong, and not the payment: keep it, and come back later.
fn assert_clocks_disagree(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (503, "clock_skew"), "{}", answer.text());
    assert_eq!((answer.header("x-should-retry"), answer.header("retry-after")), (Some("true"), Some("30")));
    assert_eq!((answer.header("payment-required"), answer.header("payment-response")), (None, None));
    let message = answer.json()["error"]["message"].as_str().unwrap().to_owned();
    assert!(message.contains("not used") && message.contains("again later"), "{message}");
}

fn rest(mut stream: Stream) -> String {
    let mut text = Vec::new();
    while let Some(chunk) = stream.next_chunk() {
        text.extend(chunk);
    }
    String::from_utf8(text).unwrap()
}

#[test]
fn an_hour_forward_under_open_calls_and_payments_moves_nothing() {
    jump_amid_a_sale(HOUR, "s ahead of the latest block");
}

#[test]
fn an_hour_back_under_open_calls_and_payments_moves_nothing() {
    jump_amid_a_sale(-HOUR, "s behind the latest block");
}

/// One answer is streaming and one payment waits for its block when the clock jumps.
fn jump_amid_a_sale(seconds: i64, told: &str) {
    let mut shop = Shop::open();
    let (slow, quick) = (body("<<fake in=20 out=7 words=40 gap=50>>", true), body(USAGE, true));
    let streaming = shop.pay(CHAT, &slow);
    let (waiting, later) = (shop.pay(CHAT, &quick), shop.pay(CHAT, &quick));
    let address = shop.server.address().to_owned();
    let mut stream = http::open(&address, &paid(CHAT, &slow, &streaming)).unwrap();
    assert!(stream.status == 200 && stream.next_chunk().is_some());
    shop.chain.set_automine(false);
    let answer = std::thread::scope(|scope| {
        let call = scope.spawn(|| http::send(&address, &paid(CHAT, &quick, &waiting)).unwrap());
        eventually("the payment waits for its block", || shop.chain.pending_transactions() == 1);
        shop.server.move_clock(seconds);
        assert_clocks_disagree(&shop.buy(CHAT, &quick, &later));
        assert_clocks_disagree(&shop.buy(CHAT, &quick, &later));
        let copy = shop.buy(CHAT, &quick, &waiting);
        assert_eq!((copy.status, copy.code().as_str()), (409, "payment_in_progress"), "a copy is a copy: {}", copy.text());
        assert!(rest(stream).ends_with("data: [DONE]\n\n"), "an answer that is paid for goes on to its end");
        assert!(!call.is_finished(), "the payment is neither given up nor believed");
        shop.chain.mine(1);
        call.join().unwrap()
    });
    shop.chain.set_automine(true);
    assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    assert_eq!((shop.served(), shop.chain.transactions_of(SETTLER.address)), (2, 2), "the third one reached nobody");
    // The operator is told which way and by how much.
    shop.server.has_said(told);

    shop.server.move_clock(0);
    shop.chain.mine(1);
    let answer = insist(&shop, &later);
    assert_eq!((answer.status, answer.complete), (200, true), "the payment was not used up: {}", answer.text());
    assert_eq!(shop.earned(), streaming.amount + waiting.amount + later.amount);
    shop.close(3 * CHARGE);
}

/// Presents the payment again until the clocks are found to agree.
fn insist(shop: &Shop, payment: &Payment) -> Answer {
    let mut last = None;
    eventually("payments are taken again", || {
        let answer = shop.buy(CHAT, &body(USAGE, true), payment);
        let taken = answer.status != 503;
        last = Some(answer);
        taken
    });
    last.unwrap()
}

#[test]
fn a_restart_under_a_wrong_clock_loses_no_open_payment_and_sells_nothing_before_it_is_right() {
    for seconds in [HOUR, -HOUR] {
        let mut shop = Shop::open();
        let body = body(USAGE, true);
        let (payment, later) = (shop.pay(CHAT, &body), shop.pay(CHAT, &body));
        shop.chain.set_automine(false);
        let (address, request) = (shop.server.address().to_owned(), paid(CHAT, &body, &payment));
        let call = std::thread::spawn(move || http::send(&address, &request));
        eventually("the payment waits for its block", || shop.chain.pending_transactions() == 1);
        shop.server.kill();
        assert!(call.join().unwrap().is_err(), "the buyer saw the connection break");

        shop.server.move_clock(seconds);
        shop.server.restart();
        shop.server.has_said("NOT SOLD ON: clock");
        let copy = shop.buy(CHAT, &body, &payment);
        assert_eq!((copy.status, &copy.json()["error"]["outcome"]), (409, &"pending".into()), "{}", copy.text());
        assert_clocks_disagree(&shop.buy(CHAT, &body, &later));
        shop.chain.mine(1);
        shop.chain.set_automine(true);
        let outcome = || shop.buy(CHAT, &body, &payment).json()["error"]["outcome"].clone();
        eventually("the payment is found", || outcome() == "credited");
        assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (payment.amount, 1), "{seconds}: paid once");

        // The books go on under the right time, which is before or after that of their last entries.
        shop.server.move_clock(0);
        shop.chain.mine(1);
        assert_eq!(insist(&shop, &later).status, 200);
        let books = shop.close(CHARGE);
        assert_eq!(books.balance(BUYER.address), payment.amount + later.amount - CHARGE, "{seconds}");
    }
}

#[test]
fn a_payment_that_ends_while_the_clock_is_an_hour_behind_fails_by_the_chains_clock() {
    let mut shop = Shop::open();
    let body = body(USAGE, true);
    let asked = shop.requirements(CHAT, &body);
    let payment = shop.sign_until(BUYER, asked, now() + 70);
    shop.chain.set_automine(false);
    let (address, request) = (shop.server.address().to_owned(), paid(CHAT, &body, &payment));
    let answer = std::thread::scope(|scope| {
        let call = scope.spawn(|| http::send(&address, &request).unwrap());
        eventually("the payment waits for its block", || shop.chain.pending_transactions() == 1);
        shop.server.move_clock(-HOUR);
        shop.chain.rpc("evm_increaseTime", json!([90]));
        shop.chain.mine(1);
        call.join().unwrap()
    });
    assert_eq!((answer.status, answer.code().as_str()), (402, "settlement_failed"), "{}", answer.text());
    shop.chain.mine(6);
    eventually("its end is final", || shop.buy(CHAT, &body, &payment).json()["error"]["outcome"] == "failed");
    assert_eq!(shop.earned(), 0);
    shop.close(0);
}

#[test]
fn a_wallet_that_lost_its_trust_does_not_get_it_back_because_both_clocks_jumped_a_day() {
    let mut shop = Shop::open();
    let body = body(USAGE, true);
    let lost = shop.pay(CHAT, &body);
    shop.chain.set_automine(false);
    let (address, request) = (shop.server.address().to_owned(), paid(CHAT, &body, &lost));
    std::thread::scope(|scope| {
        let call = scope.spawn(|| http::send(&address, &request).unwrap());
        eventually("the payment waits for its block", || shop.chain.pending_transactions() == 1);
        shop.chain.cancel(farebox_rig::anvil::MINTER, &lost.signed);
        shop.chain.mine(1);
        assert_eq!(call.join().unwrap().status, 402);
    });
    let day = 25 * HOUR;
    shop.server.move_clock(day);
    shop.chain.rpc("evm_increaseTime", json!([day]));
    shop.chain.mine(1);
    let asked = shop.requirements(CHAT, &body);
    let payment = shop.sign_until(BUYER, asked, now() + 300 + day.unsigned_abs());
    let request = paid(CHAT, &body, &payment);
    std::thread::scope(|scope| {
        let call = scope.spawn(|| http::send(&address, &request).unwrap());
        eventually("the payment waits for its block", || shop.chain.pending_transactions() == 1);
        assert_eq!(shop.served(), 1, "it still settles before the upstream is asked");
        shop.chain.mine(1);
        assert_eq!(call.join().unwrap().status, 200);
    });
    assert_eq!(shop.earned(), payment.amount);
    shop.close(CHARGE);
}

#[test]
fn a_chain_clock_that_is_ahead_sells_nothing_until_ours_agrees() {
    let mut shop = Shop::open();
    let body = body(USAGE, true);
    let payment = shop.pay(CHAT, &body);
    shop.chain.rpc("evm_increaseTime", json!([1000]));
    shop.chain.mine(1);
    assert_clocks_disagree(&shop.buy(CHAT, &body, &payment));
    assert_clocks_disagree(&shop.buy(CHAT, &body, &payment));
    shop.assert_untouched();
    shop.server.has_said("s behind the latest block of eip155:84532");
    shop.server.move_clock(1000);
    let asked = shop.requirements_when_sold(CHAT, &body);
    let payment = shop.sign_until(BUYER, asked, now() + 1300);
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 200);
    assert_eq!((shop.served(), shop.earned()), (1, payment.amount));
    shop.close(CHARGE);
}

#[test]
fn a_chain_clock_that_is_behind_sells_nothing_from_the_start() {
    let mut shop = Shop::on(Anvil::start_ahead(84532, -HOUR), &Settings::default());
    shop.server.has_said("NOT SOLD ON: clock: this machine's clock is 36");
    let body = body(USAGE, true);
    let unpaid = shop.server.send(&http::Request::post(CHAT, body.as_str()));
    assert_eq!((unpaid.status, unpaid.code().as_str()), (503, "network_unavailable"), "{}", unpaid.text());
    shop.assert_untouched();
    // From now on the chain's next block is of now.
    shop.chain.rpc("evm_setTime", json!([now()]));
    shop.chain.mine(1);
    let asked = shop.requirements_when_sold(CHAT, &body);
    let payment = shop.sign(BUYER, asked);
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 200);
    shop.close(CHARGE);
}

#[test]
fn a_test_chain_that_is_idle_is_sold_on_and_a_main_chain_that_stands_still_is_not() {
    for (chain_id, sold) in [(84532, true), (8453, false)] {
        let chain = Anvil::start_ahead(chain_id, -HOUR);
        // Its last block is an hour old, and its next one would be of now.
        chain.rpc("evm_setTime", json!([now()]));
        let mut shop = Shop::on(chain, &Settings::default());
        let body = body(USAGE, true);
        if !sold {
            shop.server.has_said("NOT SOLD ON: clock");
            assert_eq!(shop.server.send(&http::Request::post(CHAT, body.as_str())).status, 503);
            shop.assert_untouched();
            continue;
        }
        let asked = shop.requirements(CHAT, &body);
        // As the published clients sign: valid since ten minutes ago, which is long after the latest block.
        let payment = shop.sign_after(BUYER, asked, now() - 600);
        let answer = shop.buy(CHAT, &body, &payment);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!((shop.served(), shop.earned()), (1, payment.amount));
        shop.close(CHARGE);
    }
}

#[test]
fn with_a_facilitator_the_chains_clock_is_asked_where_the_operator_named_its_nodes() {
    let stub = Stub::start(|request| match request.split(' ').nth(1) {
        Some("/verify") => Some((200, json!({ "isValid": true, "payer": BUYER.address }).to_string())),
        _ => Some((404, "{}".into())),
    });
    let chain = Anvil::start(84532);
    let network = vec![format!("rpc_urls = [{:?}]", chain.url())];
    let mut shop = Shop::on(chain, &Settings { facilitator_url: Some(stub.url()), network, ..Settings::default() });
    let body = body(USAGE, true);
    let payment = shop.pay(CHAT, &body);
    for seconds in [HOUR, -HOUR] {
        shop.server.move_clock(seconds);
        assert_clocks_disagree(&shop.buy(CHAT, &body, &payment));
    }
    shop.assert_untouched();
    shop.close(0);
}
