//! Prices of media: as they are listed, as they are quoted, and flat ones that are kept.

use farebox_rig::http::Request;
use serde_json::{Value, json};

use crate::shop::{Shop, by_key, plain_key};

const DRAW: &str = "/v1/images/generations";

fn draw(body: &Value) -> Request {
    Request::post(DRAW, body.to_string())
}

#[test]
fn a_quote_is_for_the_size_and_quality_that_are_asked_for_however_they_are_written() {
    let shop = Shop::open();
    for (fields, micros) in [
        (r#""size":"1024x1024""#, 40_000),
        (r#""size":"1024X1024","n":3"#, 120_000),
        (r#""size":"1024x1024","quality":"hd""#, 80_000),
        (r#""size":"1024x1024","quality":"\u0068d""#, 80_000),
        (r#""size":"auto""#, 50_000),
        (r#""size":"999x999""#, 50_000),
    ] {
        let body = format!(r#"{{"model":"dall-e-3","prompt":"p",{fields}}}"#);
        assert_eq!(shop.offer(&Request::post(DRAW, body)).1, micros, "{fields}");
    }
    // Any of its sizes could come of a request that names none, where nothing is said of those.
    let upscaled = Request::post("/v1/image/upscale", json!({ "image": "aGk=", "scale": "4" }).to_string());
    assert_eq!(shop.offer(&upscaled).1, 80_000);
    // The first model that draws is meant where none is named.
    assert_eq!(shop.offer(&draw(&json!({ "prompt": "p", "size": "1024x1024" }))).1, 40_000);
    shop.close(0);
}

#[test]
fn the_price_list_has_every_kind_in_its_own_units() {
    let shop = Shop::open();
    let listed = shop.server.send(&Request::get("/v1/pricing")).json();
    let model = |id: &str| listed["data"].as_array().unwrap().iter().find(|model| model["id"] == id).unwrap().clone();
    let dalle = model("dall-e-3");
    assert_eq!((&dalle["kind"], &dalle["usd_per_image"]["1024x1024/hd"]), (&json!("image"), &json!("0.080000")));
    assert_eq!(model("tts-1")["usd_per_character"], json!({ "default": "0.000015" }));
    let typical = |id: &str| model(id)["ceiling"]["typical_call"].clone();
    assert_eq!([typical("dall-e-3"), typical("tts-1"), typical("whisper-1")], ["0.040000", "0.015000", "0.006000"]);
    assert_eq!(model("whisper-1")["usd_per_second"], json!({ "default": "0.000100" }));
    assert_eq!(model("text-embedding-3-small")["usd_per_million_tokens"]["input"], "2.000000");
    assert_eq!(model("flat-image")["ceiling"], json!({ "kind": "flat", "per_call": "0.100000" }));
    assert_eq!(model("watcher")["usd_per_call"], "0.050000");
    shop.close(0);
}

#[test]
fn a_flat_price_that_is_kept_is_what_every_call_costs_and_nothing_where_nothing_came() {
    let mut shop = Shop::with(&["payg_remainder = \"keep\""]);
    let key = shop.key(&plain_key());
    let request = draw(&json!({ "model": "flat-image", "prompt": "p" }));
    let payments = shop.payments(&[request.clone(), request.clone()]);
    assert!(payments.iter().all(|(_, amount)| *amount == 100_000), "the quote is the price");
    let pay = |(payment, _): &(String, u64)| request.clone().header("payment-signature", payment);
    assert_eq!(shop.server.send(&by_key(&request, &key)).status, 200);
    shop.wait_charged(100_000);
    assert_eq!(shop.server.send(&pay(&payments[0])).status, 200);
    shop.came_in(100_000);
    shop.wait_charged(100_000);
    shop.upstream.configure(&json!({ "cut": 1 }));
    for request in [by_key(&request, &key), pay(&payments[1])] {
        let answer = shop.server.send(&request);
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_error"), "{}", answer.text());
        // Where the cut came after the payment had settled, that is balance.
        shop.came_in(if answer.header("payment-response").is_some() { 100_000 } else { 0 });
        shop.wait_charged(0);
    }
    shop.close(200_000);
}

#[test]
fn the_shop_as_it_comes_sells_embeddings_and_pictures_that_its_own_upstream_makes() {
    let shipped = include_str!("../../config.toml").replace("public_url = \"http://127.0.0.1:4020\"", "");
    let shipped = shipped.replace("127.0.0.1:4020", "127.0.0.1:0");
    let mut server = farebox_rig::server::Server::configured(env!("CARGO_BIN_EXE_farebox"), &shipped);
    let account = server.account(farebox_rig::anvil::BUYER);
    assert_eq!(account.top_up(1_000_000).status, 200);
    let key = account.mint(&plain_key());
    let embed = json!({ "model": "echo-embedding", "input": ["four", "more"], "encoding_format": "base64" });
    let drawn = json!({ "model": "echo-image", "prompt": "p", "n": 2, "size": "1024x1024" });
    let streamed = json!({ "prompt": "p", "size": "1024x1536", "stream": true });
    let mut left = 1_000_000;
    for (path, body, charge, seen) in [
        ("/v1/embeddings", embed, 1, "embedding"),
        (DRAW, drawn, 80_000, "b64_json"),
        (DRAW, streamed, 60_000, "image_generation.completed"),
    ] {
        let answer = server.send(&by_key(&Request::post(path, body.to_string()), &key));
        assert!(answer.status == 200 && answer.complete && answer.text().contains(seen), "{}", answer.text());
        left -= charge;
        farebox_rig::process::eventually("the call is charged", || account.available() == left);
    }
    let books = server.audit();
    assert!(books.clean && books.balance(farebox_rig::anvil::BUYER.address) == u64::try_from(left).unwrap(), "{:#}", books.json);
}
