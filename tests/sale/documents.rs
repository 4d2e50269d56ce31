//! The documents that crawlers and tools read: the API's own OpenAPI document, and the list of what is paid for and how.

use farebox_rig::anvil::PAY_TO;
use farebox_rig::http::Request;
use farebox_rig::sdk::judge_openapi;
use farebox_rig::server::{MODEL, Settings};
use serde_json::{Value, json};

use crate::shop::{CHAT, MESSAGES, Shop, USAGE, body};

const RESPONSES: &str = "/v1/responses";
const METHODS: [&str; 4] = ["get", "post", "patch", "delete"];

fn get(shop: &Shop, path: &str) -> Value {
    let answer = shop.server.send(&Request::get(path));
    assert_eq!(answer.status, 200, "{path}: {}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("public, max-age=300"), "it is the same for everybody");
    assert_eq!(answer.header("content-type"), Some("application/json"));
    answer.json()
}

#[test]
fn the_openapi_document_is_one_by_the_schema_of_its_version() {
    let shop = Shop::open();
    let document = get(&shop, "/openapi.json");
    let judged = judge_openapi(&document.to_string());
    assert_eq!((&judged["valid"], &judged["version"]), (&true.into(), &"3.1".into()), "{judged:#}");
    // The judge is one: it takes no document for another.
    for (pointer, wrong) in [("/info/title", json!(7)), ("/paths/~1v1~1models/get/responses/200/description", json!(null))] {
        let mut spoiled = document.clone();
        *spoiled.pointer_mut(pointer).expect(pointer) = wrong;
        assert_eq!(judge_openapi(&spoiled.to_string())["valid"], false, "{pointer}");
    }
    shop.assert_untouched();
}

#[test]
fn what_the_openapi_document_says_is_there_and_nothing_else_at_the_same_addresses() {
    let shop = Shop::open();
    let document = get(&shop, "/openapi.json");
    let paths = document["paths"].as_object().unwrap();
    assert!(paths.len() > 50, "{}", paths.len());
    for (path, item) in paths {
        let address = path.replace("{wallet}", PAY_TO.address).replace("{id}", MODEL);
        for method in METHODS {
            let answer = shop.server.send(&Request::with_body(&method.to_uppercase(), &address, "{}"));
            let named = format!("{method} {path}: {} {}", answer.status, answer.text());
            if item.get(method).is_none() {
                assert_eq!((answer.status, answer.code().to_lowercase().as_str()), (405, "method_not_allowed"), "{named}");
                let allowed = answer.header("allow").unwrap_or_default().to_lowercase();
                let documented = METHODS.into_iter().filter(|method| item.get(*method).is_some());
                assert!(documented.clone().all(|method| allowed.contains(method)), "{named}: {allowed}");
                assert_eq!(allowed.contains("head"), item.get("get").is_some(), "{named}: {allowed}");
            } else {
                assert!(
                    answer.status != 405 && !answer.code().eq_ignore_ascii_case("not_found") || path.contains("{id}"),
                    "{named}"
                );
                let is_open = item[method]["security"] == json!([]);
                assert!(is_open || matches!(answer.status, 400..=404 | 415), "it costs something or is somebody's: {named}");
            }
        }
    }
    shop.assert_untouched();
}

#[test]
fn a_crawler_finds_what_is_paid_for_and_the_402_there_is_what_the_list_said() {
    let shop = Shop::open();
    let list = get(&shop, "/.well-known/x402");
    assert_eq!((&list["x402Version"], &list["version"]), (&2.into(), &1.into()));
    let url = |path: &str| Value::from(format!("{}{path}", shop.server.public_url()));
    let expected = [CHAT, MESSAGES, RESPONSES, "/v1/x402/top-up"].map(url);
    assert_eq!(list["resources"], json!(expected), "only routes on which a model is sold");
    assert_eq!(list["pagination"], json!({ "limit": 4, "offset": 0, "total": 4 }));
    for (item, url) in list["items"].as_array().unwrap().iter().zip(&expected) {
        assert_eq!((&item["resource"], &item["type"], &item["method"]), (url, &"http".into(), &"POST".into()));
        assert!(item["metadata"]["amount"].as_str().is_some_and(|note| note.len() > 20), "it says what the amount is: {item}");
        let path = url.as_str().unwrap().strip_prefix(&shop.server.public_url()).unwrap();
        let body = match path {
            RESPONSES => json!({ "model": MODEL, "input": "hi" }).to_string(),
            _ => body(USAGE, false),
        };
        let mut asked = shop.requirements(path, &body);
        let mut listed = item["accepts"][0].clone();
        assert!(listed["amount"].as_str().is_some_and(|amount| amount.parse::<u64>().is_ok_and(|amount| amount > 0)));
        // What this one call costs is said by its own 402 alone.
        for entry in [&mut asked, &mut listed] {
            entry.as_object_mut().unwrap().remove("amount");
        }
        assert_eq!(listed, asked, "{path}");
    }
    assert_eq!(list["items"][3]["accepts"][0]["amount"], "1000000", "the least of a top-up");
    for link in ["openapi", "models", "pricing"] {
        let path = list[link].as_str().unwrap().strip_prefix(&shop.server.public_url()).unwrap();
        assert_eq!(shop.server.send(&Request::get(path)).status, 200, "{link}");
    }
    let priced = get(&shop, "/openapi.json")["paths"]["/v1/chat/completions"]["post"]["x-payment-info"].clone();
    assert_eq!((&priced["protocols"], &priced["price"]["currency"]), (&json!(["x402"]), &"USD".into()));
    shop.assert_untouched();
    shop.close(0);
}

#[test]
fn a_route_on_which_no_model_is_sold_is_not_listed() {
    let shop = Shop::with(84532, &Settings { speaks: Some("embeddings".into()), ..Settings::default() });
    let list = get(&shop, "/.well-known/x402");
    let url = |path: &str| Value::from(format!("{}{path}", shop.server.public_url()));
    assert_eq!(list["resources"], json!([url("/v1/x402/top-up")]));
    assert!(get(&shop, "/openapi.json")["paths"][CHAT]["post"].get("x-payment-info").is_none());
    shop.assert_untouched();
}
