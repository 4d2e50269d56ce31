//! Pictures and films for payments on Solana: sold at once, or ordered, waited for, and paid back when nothing comes of them.

use farebox_rig::http::{Answer, Request};
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use farebox_rig::solana::{BUYER, SETTLER, Solana};
use serde_json::{Value, json};

use crate::shop::Shop;

const PICTURES: &str = "/v1/images/generations";
const FILMS: &str = "/v1/video/queue";
/// Micros that a picture and five seconds of film cost.
const PICTURE: u64 = 50_000;
const FILM: u64 = 500_000;

/// A shop that sells pictures and films.
fn open() -> Shop {
    // An upstream that fails does so before a payment is settled, however slow the machine is.
    let payments = vec!["settle_after_ms = 8000".to_owned()];
    let mut shop = Shop::on(Solana::start(), &Settings { payments, ..Settings::default() });
    shop.server.reconfigure(|text| {
        let text = text.replace(r#""responses"]"#, r#""responses", "images", "video"]"#);
        let model = |id: &str, kind: &str, price: &str| {
            format!("\n[[model]]\nid = \"{id}\"\nkind = \"{kind}\"\nupstreams = [{{ name = \"fake\", model = \"{id}\" }}]\nprice = {price}\n")
        };
        text + &model("painter", "image", r#"{ image = "0.05" }"#) + &model("film", "video", r#"{ second = "0.10" }"#)
    });
    shop.server.restart();
    eventually("payments are taken", || shop.server.send(&Request::post(PICTURES, picture(""))).status == 402);
    shop
}

fn picture(directive: &str) -> String {
    json!({ "model": "painter", "prompt": format!("a cat {directive}"), "response_format": "b64_json" }).to_string()
}

fn film(directive: &str) -> String {
    json!({ "model": "film", "prompt": format!("a cat {directive}"), "duration": "5s" }).to_string()
}

/// Orders a film for a payment of its own and returns the name of the job.
fn order(shop: &mut Shop, directive: &str) -> String {
    let body = film(directive);
    let payment = shop.pay(FILMS, &body);
    let before = shop.earned();
    let ordered = shop.buy(FILMS, &body, &payment);
    assert_eq!((ordered.status, &ordered.json()["status"]), (200, &json!("QUEUED")), "{}", ordered.text());
    assert_eq!((payment.amount, shop.earned() - before), (FILM, FILM), "it was paid when it was queued");
    let receipt = ordered.decoded("payment-response").expect("a receipt");
    let landed = shop.chain.landed();
    assert_eq!(receipt["transaction"], landed.last().expect("a transaction").signature);
    let again = shop.server.send_again(&crate::shop::paid(FILMS, &body, &payment));
    assert_eq!((again.status, again.code().as_str()), (409, "payment_already_used"), "one payment orders one film");
    ordered.json()["queue_id"].as_str().expect("the name of the job").to_owned()
}

/// Asks for a film by its name alone, which is all that its buyer has.
fn poll(shop: &Shop, id: &str) -> Answer {
    shop.server.send(&Request::post("/v1/video/retrieve", json!({ "queue_id": id }).to_string()))
}

fn orders(shop: &Shop) -> usize {
    shop.upstream.calls().iter().filter(|call| call["path"] == FILMS).count()
}

#[test]
fn a_film_is_ordered_waited_for_and_fetched_for_a_payment_on_solana() {
    let mut shop = open();
    let id = order(&mut shop, "<<fake video_polls=1>>");
    assert_eq!(poll(&shop, &id).json()["status"], "PROCESSING");
    let fetched = poll(&shop, &id);
    assert_eq!((fetched.status, fetched.header("content-type"), fetched.complete), (200, Some("video/mp4"), true));
    assert!(!fetched.body.is_empty());
    assert_eq!((orders(&shop), shop.chain.landed().len()), (1, 1), "one order and one transaction");
    shop.close(FILM);
}

#[test]
fn a_film_that_fails_is_paid_back_once_to_the_wallet_that_paid_for_it_on_solana() {
    let mut shop = open();
    let id = order(&mut shop, "<<fake video_polls=0 video_fail=1>>");
    let fees = shop.chain.lamports(SETTLER);
    for _ in 0..3 {
        let told = poll(&shop, &id).json();
        assert_eq!((&told["status"], &told["credits_refunded"]), (&json!("failed"), &Value::Bool(true)), "{told}");
    }
    let account = shop.server.account(BUYER);
    let statement = account.statement();
    statement.assert_sums();
    let back: i64 = statement.of("REFUND").iter().sum();
    assert_eq!(back, i64::try_from(FILM).unwrap(), "all of it and once: {:#?}", statement.rows);
    assert_eq!(account.available(), back, "it is balance, to be spent on something else");
    assert_eq!(shop.chain.lamports(SETTLER), fees, "nothing was sent back on the chain");
    assert_eq!((orders(&shop), shop.chain.landed().len()), (1, 1));
    shop.close(0);
}

#[test]
fn an_order_that_the_upstream_refuses_is_balance_of_the_wallet_that_paid_on_solana() {
    let mut shop = open();
    let body = film("<<fake status=400>>");
    let payment = shop.pay(FILMS, &body);
    let refused = shop.buy(FILMS, &body, &payment);
    assert_eq!((refused.status, refused.code().as_str()), (400, "upstream_rejected"), "{}", refused.text());
    assert_eq!(refused.json()["error"]["credited_micro"], FILM, "{}", refused.text());
    assert_eq!((shop.earned(), orders(&shop)), (FILM, 1));
    shop.close(0);
}

#[test]
fn a_picture_is_sold_for_a_payment_on_solana_and_one_that_breaks_off_is_not() {
    let mut shop = open();
    for (directive, status) in [("", 200), ("<<fake cut=1>>", 502)] {
        let body = picture(directive);
        let requirements = shop.requirements_of_now(PICTURES, &body);
        let payment = shop.sign(BUYER, requirements);
        assert_eq!(payment.amount, PICTURE);
        let made = shop.buy(PICTURES, &body, &payment);
        assert_eq!((made.status, made.complete), (status, true), "{}", made.text());
    }
    assert_eq!((shop.earned(), shop.served(), shop.chain.landed().len()), (PICTURE, 2, 1), "the second was not settled");
    shop.close(PICTURE);
}
