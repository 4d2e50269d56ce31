//! A flood of copies of one payment, each with other bytes where we are to sign: one sale, one transaction, one fee.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox_rig::buyer::send_at_once;
use farebox_rig::http::Request;
use farebox_rig::solana::{BUYER, SETTLER};
use serde_json::Value;

use crate::shop::{CHARGE, CHAT, MESSAGES, Payment, Shop, USAGE, body};

/// The same message with other bytes in the fee payer's place.
fn with_slot(payment: &Payment, number: u32) -> String {
    let mut envelope: Value = serde_json::from_slice(&STANDARD.decode(payment.v2()).unwrap()).unwrap();
    let mut raw = STANDARD.decode(envelope["payload"]["transaction"].as_str().unwrap()).unwrap();
    for (place, byte) in raw[1..65].iter_mut().enumerate() {
        *byte = number.wrapping_mul(2_654_435_761).rotate_left(u32::try_from(place).unwrap()).to_le_bytes()[0];
    }
    raw[1..5].copy_from_slice(&number.to_le_bytes());
    envelope["payload"]["transaction"] = STANDARD.encode(raw).into();
    STANDARD.encode(envelope.to_string())
}

#[test]
fn of_64_copies_with_other_bytes_in_the_fee_payers_place_one_is_sold() {
    flood(64);
}

#[test]
fn of_1024_copies_with_other_bytes_in_the_fee_payers_place_one_is_sold() {
    flood(1024);
}

fn flood(count: u32) {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    let copies: Vec<_> = (0..count).map(|number| copy(&body, &with_slot(&payment, number))).collect();
    let answers = send_at_once(shop.server.address(), &copies.iter().collect::<Vec<_>>());
    let mut statuses = HashMap::new();
    for (status, answer) in &answers {
        *statuses.entry(*status).or_insert(0) += 1;
        let refused = answer.contains("payment_in_progress") || answer.contains("payment_already_used");
        assert_eq!(*status == 409, refused, "{answer}");
    }
    assert_eq!(statuses, HashMap::from([(200, 1), (409, count - 1)]));
    assert_sold_once(&shop, &payment);
    shop.close(CHARGE);
}

fn copy(body: &str, header: &str) -> Request {
    Request::post(CHAT, body).header("payment-signature", header)
}

fn assert_sold_once(shop: &Shop, payment: &Payment) {
    let landed = shop.chain.landed();
    assert_eq!((shop.served(), landed.len()), (1, 1), "one call upstream, one transaction");
    assert_eq!(shop.earned(), payment.amount, "paid once");
    assert_eq!(shop.chain.lamports(SETTLER), 1_000_000_000 - landed[0].fee, "one fee");
}

#[test]
fn a_used_payment_is_known_after_a_restart_on_other_routes_and_however_it_is_written() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 200);
    let v1 = payment.signed["v1"].as_str().unwrap().to_owned();
    let disguises = [
        ("payment-signature", payment.v2().to_owned()),
        ("payment-signature", with_slot(&payment, 7)),
        ("x-payment", v1),
        ("x-402-payment", payment.v2().to_owned()),
    ];
    for restarted in [false, true] {
        if restarted {
            shop.server.wait_posted(BUYER.address);
            shop.server.restart();
        }
        for route in [CHAT, MESSAGES, "/api/v1/chat/completions"] {
            for (header, value) in &disguises {
                let answer = shop.server.send_again(&Request::post(route, body.as_str()).header(header, value));
                let seen = (answer.status, answer.code().to_ascii_lowercase());
                assert_eq!(seen, (409, "payment_already_used".into()), "{header} on {route}, restarted: {restarted}");
                assert_eq!(answer.header("payment-required"), None, "a buyer is not asked to pay again");
            }
        }
        assert_sold_once(&shop, &payment);
    }
    shop.close(CHARGE);
}

#[test]
fn two_calls_with_the_same_words_in_the_same_moment_are_two_sales() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payments = [(); 2].map(|()| shop.pay(CHAT, &body));
    let copies = payments.each_ref().map(|payment| copy(&body, payment.v2()));
    let answers = send_at_once(shop.server.address(), &copies.iter().collect::<Vec<_>>());
    assert!(answers.iter().all(|(status, _)| *status == 200), "{answers:?}");
    assert_eq!((shop.served(), shop.chain.landed().len()), (2, 2));
    assert_eq!(shop.earned(), 2 * payments[0].amount);
    shop.close(2 * CHARGE);
}
