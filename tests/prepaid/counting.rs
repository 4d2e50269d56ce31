//! Counting tokens is free and asks nobody: no key, no upstream, no row in the books; what is counted is what would be charged.

use farebox_rig::anvil::BUYER;
use farebox_rig::http::Request;
use farebox_rig::sdk::Sdk;
use farebox_rig::server::Settings;
use serde_json::{Value, json};

use crate::shop::{Shop, asked_with, params, params_with, step, values};

const COUNT: &str = "/v1/messages/count_tokens";

fn count(shop: &Shop, route: &str, body: &Value) -> u64 {
    let answer = shop.server.send(&Request::post(route, body.to_string()));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert!(answer.header("x-request-id").is_some_and(|id| id.starts_with("req_")));
    assert_eq!(answer.header("payment-required"), None);
    answer.json()["input_tokens"].as_u64().unwrap_or_else(|| panic!("no number: {}", answer.text()))
}

/// Without the output limit, which counting does not need.
fn unlimited(mut params: Value) -> Value {
    params.as_object_mut().unwrap().remove("max_tokens");
    params
}

#[test]
fn both_sdks_count_without_a_key_that_anybody_knows() {
    let shop = Shop::open();
    let text = "word ".repeat(1000);
    let long = unlimited(params(&text));
    let tools = json!([{ "name": "f", "description": text, "input_schema": { "type": "object" } }]);
    let with_tools = unlimited(params_with("", json!({ "tools": tools, "system": "be kind" })));
    for sdk in [Sdk::AnthropicNode, Sdk::AnthropicPython] {
        let steps = [unlimited(params("")), long.clone(), with_tools.clone()].map(|params| step("count", params));
        let outcomes = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", "nobody")], &steps);
        let counted: Vec<u64> = values(&outcomes).iter().map(|value| value.as_u64().unwrap()).collect();
        assert!((1..100).contains(&counted[0]), "{sdk:?}: {counted:?}");
        assert!((1250..1400).contains(&counted[1]) && (1250..1400).contains(&counted[2]), "{sdk:?}: {counted:?}");
    }
    assert_eq!(count(&shop, "/api/v1/messages/count_tokens", &long), count(&shop, COUNT, &long));
    assert_eq!(count(&shop, "/v1/messages/count_tokens?beta=true", &long), count(&shop, COUNT, &long));
    shop.assert_untouched();
    shop.close(&[]);
}

#[test]
fn what_is_counted_is_what_is_charged_for_input_that_no_upstream_reports() {
    let mut shop = Shop::open();
    let key = shop.buyer_with_key();
    let body = params("<<fake usage=omit text=hello+wallet>>");
    let counted = count(&shop, COUNT, &body);
    assert_eq!(shop.upstream.calls().len(), 0);
    let answer = shop.server.send(&Request::post("/v1/messages", body.to_string()).header("x-api-key", &key.text));
    assert_eq!(answer.status, 200, "{}", answer.text());
    shop.wait_charged(1);
    // Twelve letters are three tokens by our count.
    let charge = i64::try_from(counted * 3 + 3 * 15).unwrap();
    assert_eq!(shop.account(BUYER).statement().of("CHARGE"), [-charge]);
    assert_eq!(count(&shop, COUNT, &body), counted);
    assert_eq!(shop.account(BUYER).statement().of("CHARGE").len(), 1, "counting again is free as well");
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
}

#[test]
fn who_counts_too_often_has_to_wait_and_a_body_is_not_read_beyond_its_bound() {
    let limits = vec!["per_ip_per_second = 1".into(), "per_ip_burst = 10".into(), "max_body_mb = 1".into()];
    let mut shop = Shop::with(8453, Settings { limits, ..Settings::default() });
    let body = unlimited(params("")).to_string();
    let statuses: Vec<_> = (0..30).map(|_| shop.server.send(&Request::post(COUNT, &*body)).status).collect();
    assert!(statuses[0] == 200 && statuses.contains(&429), "{statuses:?}");
    assert!(statuses.iter().all(|status| [200, 429].contains(status)), "{statuses:?}");
    let large = params(&"x".repeat(2 << 20)).to_string();
    farebox_rig::process::eventually("its turn has come", || {
        let answer = shop.server.send(&Request::post(COUNT, &*large));
        assert!(["rate_limited", "request_too_large"].contains(&answer.code().as_str()), "{}", answer.text());
        answer.status == 413
    });
    shop.assert_untouched();
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
}

#[test]
fn a_body_of_another_route_is_not_counted() {
    let shop = Shop::open();
    let answer = shop.server.send(&Request::post(COUNT, asked_with("", json!({})).to_string()));
    assert_eq!((answer.status, answer.json()["error"]["param"].as_str()), (400, Some("messages")), "{}", answer.text());
    shop.assert_untouched();
    shop.close(&[]);
}
