//! `/healthz` says whether it lives and `/readyz` whether all of it works; why not is said to the operator alone.

use farebox_rig::http::Request;
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use serde_json::{Value, json};

use crate::shop::{CHARGE, Shop, USAGE, with_key};

fn parts(answer: &Value) -> Vec<&str> {
    answer["waits_for"].as_array().unwrap().iter().map(|missing| missing["part"].as_str().unwrap()).collect()
}

#[test]
fn a_network_whose_node_is_gone_is_not_ready_and_the_gateway_lives_and_sells_to_balances() {
    // The node's URL holds a key, as those of providers do.
    let chain = farebox_rig::anvil::Anvil::start(8453);
    let dead = "http://127.0.0.1:9/node-key-5d1c".to_owned();
    let shop = Shop::on(chain, Settings { rpc_urls: vec![dead], ..Settings::default() });
    let public = shop.server.send(&Request::get("/readyz"));
    assert_eq!((public.status, parts(&public.json())), (503, vec!["network eip155:8453"]));
    assert_eq!(public.json()["waits_for"][0].get("why"), None, "callers are not told why");
    let own = shop.ask("/readyz");
    assert_eq!(own.status, 503);
    let why = own.json()["waits_for"][0]["why"].as_str().unwrap().to_owned();
    assert!(!why.is_empty() && !own.text().contains("node-key"), "{why}");
    assert_eq!(shop.server.send(&Request::get("/healthz")).status, 200, "it lives");
    assert_eq!(shop.ask("/healthz").status, 200);
    assert_eq!(shop.numbers().get("farebox_network_ready{network=\"eip155:8453\"}"), "0");
    shop.close();
}

#[test]
fn a_model_whose_upstreams_are_all_down_is_not_ready_until_one_is_back() {
    let failover = ["failures = 1", "pause_ms = 6000", "longest_pause_ms = 6000"].map(str::to_owned).to_vec();
    let payments = vec!["settle_after_ms = 8000".to_owned()];
    let mut shop = Shop::with(Settings { failover, payments, ..Settings::default() });
    let key = shop.key();
    assert_eq!(shop.server.send(&Request::get("/readyz")).json(), json!({ "ready": true, "waits_for": [] }));
    shop.upstream.configure(&json!({ "status": 500 }));
    assert!(shop.call(&key, USAGE, false, 0).status >= 500);
    assert_eq!(shop.ask("/readyz").status, 200, "it failed for one wallet alone");
    shop.fails_for_another();
    let answer = shop.ask("/readyz");
    assert_eq!((answer.status, parts(&answer.json())), (503, vec!["model test-model"]));
    assert_eq!(shop.ask("/healthz").status, 200, "it lives");
    shop.upstream.configure(&json!({}));
    eventually("the upstream is asked again", || shop.server.send(&with_key(&key, USAGE, false)).status == 200);
    shop.call(&key, USAGE, false, 2 * CHARGE);
    assert_eq!(shop.ask("/readyz").status, 200);
    shop.close();
}

#[test]
fn a_gateway_that_stops_is_not_ready_while_its_last_answer_passes() {
    let mut shop = Shop::open();
    let key = shop.key();
    let mut stream =
        farebox_rig::http::open(shop.server.address(), &with_key(&key, "<<fake in=20 out=7 words=40 gap=1000>>", true)).unwrap();
    assert!(stream.next_chunk().is_some());
    shop.server.signal();
    eventually("it says that it stops", || shop.server.output().contains("stopping"));
    let answer = shop.ask("/readyz");
    assert_eq!((answer.status, parts(&answer.json())), (503, vec!["program"]));
    shop.upstream.hurry();
    while stream.next_chunk().is_some() {}
    assert!(stream.complete, "the answer came to its end");
    shop.server.wait_exit();
    let books = shop.server.verify(&[]);
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(books.balance(farebox_rig::anvil::BUYER.address), crate::shop::FIVE - CHARGE);
}
