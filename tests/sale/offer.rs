//! What everybody may see without paying: the 402 that every client can read, the models, the prices, the health.

use farebox_rig::anvil::PAY_TO;
use farebox_rig::http::{Answer, Request};
use farebox_rig::server::{MODEL, OUTPUT_PRICE, Settings};
use serde_json::Value;

use crate::shop::{CHAT, MESSAGES, Shop, USAGE, body};

#[test]
fn the_operator_is_warned_at_the_start_of_quotes_that_do_not_pay_for_their_gas() {
    const WARNING: &str = "less than its settlement on eip155:84532 costs in gas";
    let open = |coin: &str| Shop::with(84532, &Settings { network: vec![format!("coin_usd = {coin:?}")], ..Settings::default() });
    // A gas price of a gwei is dear for Base.
    let dear = open("2500");
    dear.server.has_said(WARNING);
    dear.assert_untouched();
    let cheap = open("0.01");
    cheap.assert_untouched();
    assert!(!cheap.server.output().contains(WARNING));
}

#[test]
fn one_402_is_read_by_old_clients_new_clients_and_both_dialects() {
    let shop = Shop::open();
    for (route, kind) in [(CHAT, "payment_required"), (MESSAGES, "billing_error")] {
        let request = Request::post(route, body(USAGE, false)).header("origin", "https://app.example");
        let answer = shop.server.send(&request);
        assert_eq!(answer.status, 402, "{}", answer.text());
        let json = answer.json();
        assert_eq!((&json["error"]["code"], &json["error"]["type"]), (&"payment_required".into(), &kind.into()), "{json}");
        assert!(json["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{json}");
        assert_eq!(json["type"], "error");
        assert_same_offer(&shop, route, &answer);
        assert_headers_of_a_402(&answer);
    }
    shop.assert_untouched();
    shop.close(0);
}

/// The offer of version 2 in the header and of version 1 in the body ask for the same.
fn assert_same_offer(shop: &Shop, route: &str, answer: &Answer) {
    let (v2, v1) = (answer.decoded("payment-required").unwrap(), answer.json());
    assert_eq!((&v2["x402Version"], &v1["x402Version"]), (&2.into(), &1.into()));
    let (new, old) = (&v2["accepts"][0], &v1["accepts"][0]);
    assert_eq!(new["network"], shop.chain.network());
    assert_eq!(old["network"], "base-sepolia");
    for name in ["scheme", "asset", "payTo", "maxTimeoutSeconds", "extra"] {
        assert_eq!(new[name], old[name], "{name}");
    }
    assert_eq!(new["scheme"], "exact");
    assert!(new["payTo"].as_str().unwrap().eq_ignore_ascii_case(PAY_TO.address));
    assert_eq!(new["asset"], shop.chain.usdc());
    assert_eq!((&new["extra"]["name"], &new["extra"]["version"]), (&"USDC".into(), &"2".into()));
    assert_eq!(new["amount"], old["maxAmountRequired"]);
    let amount: u64 = new["amount"].as_str().unwrap().parse().unwrap();
    assert!(amount >= 256 * OUTPUT_PRICE, "the quote covers every token that the caller allows");
    assert!(amount < 100_000, "an ordinary call stays below the spending limit of stock clients");
    assert_eq!(v1["required_micro"], amount);
    for url in [&v2["resource"]["url"], &old["resource"]] {
        let url = url.as_str().unwrap();
        assert!(url.starts_with("http://") && url.ends_with(route), "{url}");
    }
    assert!(!answer.text().contains("null,\"maxTimeout") && no_nulls(old), "version 1 clients refuse explicit nulls: {old}");
}

fn no_nulls(entry: &Value) -> bool {
    entry.as_object().unwrap().values().all(|value| !value.is_null())
}

fn assert_headers_of_a_402(answer: &Answer) {
    let header = |name: &str| answer.header(name).unwrap_or_default().to_ascii_lowercase();
    assert!(header("cache-control").contains("no-store"));
    assert!(header("content-type").starts_with("application/json"));
    assert!(header("x-request-id").starts_with("req_"));
    assert_eq!(header("x-should-retry"), "false", "an SDK must not retry what only money can mend");
    assert!(!header("access-control-allow-origin").is_empty());
    for exposed in
        ["payment-required", "payment-response", "x-payment-response", "x-request-id", "x-balance-remaining", "retry-after"]
    {
        assert!(header("access-control-expose-headers").contains(exposed), "{exposed} is exposed to browsers");
    }
    assert_eq!(answer.header("payment-response"), None, "nothing was settled");
    let size: usize = answer.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    assert!(size < 3500, "{size} bytes of headers do not pass a default reverse proxy");
}

#[test]
fn a_browser_may_ask_and_pay_from_another_origin() {
    let shop = Shop::open();
    let wanted =
        "content-type,payment-signature,x-payment,x-402-payment,anthropic-version,access-control-expose-headers,payment-retry";
    let request = Request::new("OPTIONS", CHAT).header("origin", "https://app.example");
    let request = request.header("access-control-request-method", "POST").header("access-control-request-headers", wanted);
    let answer = shop.server.send(&request);
    assert!(answer.status == 200 || answer.status == 204, "{}", answer.status);
    let allowed = answer.header("access-control-allow-headers").unwrap_or_default().to_ascii_lowercase();
    for name in wanted.split(',') {
        assert!(allowed.contains(name), "{name} is not among {allowed}");
    }
    assert!(answer.header("access-control-allow-methods").unwrap_or_default().contains("POST"));
    shop.assert_untouched();
}

#[test]
fn the_same_request_gets_the_same_quote() {
    let shop = Shop::open();
    let body = body(USAGE, true);
    let first = shop.requirements(CHAT, &body);
    assert_eq!(first, shop.requirements(CHAT, &body), "the paid retry must find the price that was quoted");
    let longer = body.replace("\"max_tokens\":256", "\"max_tokens\":512");
    let longer = shop.requirements(CHAT, &longer)["amount"].as_str().unwrap().parse::<u64>().unwrap();
    assert_eq!(longer - first["amount"].as_str().unwrap().parse::<u64>().unwrap(), 256 * OUTPUT_PRICE);
    shop.assert_untouched();
}

#[test]
fn models_prices_and_health_need_neither_key_nor_money() {
    let shop = Shop::open();
    let get = |path: &str| {
        let answer = shop.server.send(&Request::get(path));
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        assert!(answer.header("x-request-id").is_some(), "{path}");
        answer.json()
    };
    for prefix in ["/v1", "/api/v1"] {
        let models = get(&format!("{prefix}/models"));
        assert_eq!((&models["object"], &models["data"][0]["id"]), (&"list".into(), &MODEL.into()));
        assert_eq!(get(&format!("{prefix}/models/{MODEL}"))["id"], MODEL);
        let pricing = get(&format!("{prefix}/pricing"));
        let price = &pricing["data"][0]["usd_per_million_tokens"];
        assert_eq!((&price["input"], &price["output"]), (&"3.000000".into(), &"15.000000".into()), "{pricing}");
        assert!(!pricing.to_string().contains("fake"), "who serves a model is the operator's business");
    }
    get("/healthz");
    let missing = shop.server.send(&Request::get("/v1/models/nothing"));
    assert_eq!((missing.status, missing.code().as_str()), (404, "model_not_found"));
    shop.assert_untouched();
}

#[test]
fn both_prefixes_sell_the_same_and_the_flat_one_says_errors_flatly() {
    let shop = Shop::open();
    let body = body(USAGE, false);
    let answer = shop.server.send(&Request::post(&format!("/api{CHAT}"), body.as_str()));
    assert_eq!(answer.status, 402);
    assert!(answer.json()["error"].is_string(), "{}", answer.text());
    assert!(answer.code().eq_ignore_ascii_case("payment_required"));
    let offer = answer.decoded("payment-required").unwrap();
    assert_eq!(offer["accepts"][0]["amount"], shop.requirements(CHAT, &body)["amount"]);
    shop.assert_untouched();
}
