//! One payment buys once: on whatever route, however encoded, also after a restart; two payments buy twice.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use farebox_rig::anvil::{BUYER, SETTLER};
use farebox_rig::http::{self, Request};
use farebox_rig::process::eventually;
use serde_json::{Value, json};

use crate::shop::{CHARGE, CHAT, MESSAGES, Payment, Shop, USAGE, body, paid};

/// One sale, and nothing that a second one would have left behind.
fn assert_sold_once(shop: &Shop, payment: &Payment) {
    assert_eq!(shop.served(), 1, "one call upstream");
    assert_eq!(shop.chain.transactions_of(SETTLER.address), 1, "one transaction");
    assert_eq!(shop.earned(), payment.amount, "paid once");
}

#[test]
fn a_used_payment_is_refused_after_a_restart_on_the_other_route_and_in_every_encoding() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 200);
    for restarted in [false, true] {
        if restarted {
            shop.server.wait_posted(BUYER.address);
            shop.server.restart();
        }
        for route in [CHAT, MESSAGES, "/api/v1/chat/completions"] {
            for (what, header, value) in disguises(&payment) {
                let again = Request::post(route, body.as_str()).header(header, &value);
                let mut answer = shop.server.send(&again);
                eventually("the call has ended in the books, soon after its answer was written", || {
                    answer = shop.server.send(&again);
                    answer.code() != "payment_in_progress"
                });
                let seen = (answer.status, answer.code().to_ascii_lowercase());
                assert_eq!(seen, (409, "payment_already_used".into()), "{what} on {route}, restarted: {restarted}");
                assert_eq!(answer.header("payment-required"), None, "a buyer is not asked to pay again");
            }
        }
        assert_sold_once(&shop, &payment);
    }
    shop.close(CHARGE);
}

/// The same authorization, as different bytes.
fn disguises(payment: &Payment) -> Vec<(&'static str, &'static str, String)> {
    let json = STANDARD.decode(payment.v2()).unwrap();
    let envelope: Value = serde_json::from_slice(&json).unwrap();
    let (accepted, payload) = (&envelope["accepted"], &envelope["payload"]);
    let reordered =
        format!("{{ \"accepted\": {accepted:#},\n \"payload\" : {payload:#}, \"extensions\": {{}}, \"x402Version\":2 }}");
    let mut upper = envelope.clone();
    let from = payload["authorization"]["from"].as_str().unwrap().trim_start_matches("0x");
    upper["payload"]["authorization"]["from"] = json!(format!("0x{}", from.to_uppercase()));
    let nonce = payload["authorization"]["nonce"].as_str().unwrap().trim_start_matches("0x");
    upper["payload"]["authorization"]["nonce"] = json!(format!("0x{}", nonce.to_uppercase()));
    vec![
        ("as it was", "payment-signature", payment.v2().to_owned()),
        ("in version 1", "x-payment", payment.v1().to_owned()),
        ("under the third header name", "x-402-payment", payment.v2().to_owned()),
        ("in URL-safe base64 without padding", "payment-signature", URL_SAFE_NO_PAD.encode(&json)),
        ("with its fields in another order", "payment-signature", STANDARD.encode(reordered)),
        ("in upper-case hex", "payment-signature", STANDARD.encode(upper.to_string())),
    ]
}

#[test]
fn a_payment_in_flight_is_refused_on_every_route_until_it_is_settled() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    shop.chain.set_automine(false);
    let address = shop.server.address().to_owned();
    std::thread::scope(|scope| {
        let first = scope.spawn(|| http::send(&address, &paid(CHAT, &body, &payment)).unwrap());
        eventually("the payment is submitted", || shop.chain.pending_transactions() == 1);
        for route in [CHAT, MESSAGES] {
            let copy = shop.buy(route, &body, &payment);
            assert_eq!((copy.status, copy.code().as_str()), (409, "payment_in_progress"), "{}", copy.text());
            assert_eq!(copy.header("payment-required"), None, "whoever is paying is not asked to pay again");
        }
        shop.chain.mine(1);
        assert_eq!(first.join().unwrap().status, 200);
    });
    shop.chain.set_automine(true);
    assert_sold_once(&shop, &payment);
    shop.close(CHARGE);
}

#[test]
fn two_payments_of_one_wallet_are_two_sales() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payments = [shop.pay(CHAT, &body), shop.pay(CHAT, &body)];
    let address = shop.server.address().to_owned();
    std::thread::scope(|scope| {
        let calls = payments.each_ref().map(|payment| {
            let request = paid(CHAT, &body, payment);
            let address = &address;
            scope.spawn(move || http::send(address, &request).unwrap())
        });
        for call in calls {
            let answer = call.join().unwrap();
            assert_eq!(answer.status, 200, "{}", answer.text());
        }
    });
    assert_eq!((shop.served(), shop.earned()), (2, payments[0].amount + payments[1].amount));
    let books = shop.close(2 * CHARGE);
    assert_eq!(books.balance(BUYER.address), payments[0].amount + payments[1].amount - 2 * CHARGE);
}
