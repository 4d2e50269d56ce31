//! What is on sale, as each kind of client reads it: OpenAI's, Anthropic's page by page, wallet clients', and the prices.

use farebox_rig::http::{Answer, Request};
use farebox_rig::sdk::Sdk;
use farebox_rig::server::{MODEL, Settings};
use serde_json::{Value, json};

use crate::shop::Shop;

/// Beside the one that every shop sells; names as aggregators have them.
const MORE: [&str; 4] = ["vendor/second", "third", "vendor/fourth:free", "fifth"];

fn shop() -> Shop {
    Shop::with(84532, &Settings { models: MORE.map(str::to_owned).to_vec(), ..Settings::default() })
}

fn ids(list: &Value) -> Vec<&str> {
    list["data"].as_array().unwrap().iter().map(|entry| entry["id"].as_str().unwrap()).collect()
}

fn all() -> Vec<&'static str> {
    [MODEL].into_iter().chain(MORE).collect()
}

fn keys(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn anthropic(shop: &Shop, path: &str) -> Answer {
    shop.server.send(&Request::get(path).header("anthropic-version", "2023-06-01"))
}

#[test]
fn everybodys_list_is_read_by_openais_clients_and_has_no_end_to_ask_beyond() {
    let shop = shop();
    let list = shop.server.send(&Request::get("/v1/models")).json();
    assert_eq!((ids(&list), &list["object"], &list["has_more"]), (all(), &"list".into(), &false.into()));
    for id in all() {
        for path in [format!("/v1/models/{id}"), format!("/v1/models/{}", id.replace('/', "%2F"))] {
            let one = shop.server.send(&Request::get(&path));
            assert_eq!((one.status, &one.json()["id"], &one.json()["object"]), (200, &id.into(), &"model".into()), "{path}");
        }
    }
    shop.assert_untouched();
}

#[test]
fn anthropics_clients_get_exactly_their_list_page_by_page() {
    let shop = shop();
    for prefix in ["/v1", "/api/v1"] {
        let list = anthropic(&shop, &format!("{prefix}/models")).json();
        assert_eq!(keys(&list), ["data", "first_id", "has_more", "last_id"]);
        assert_eq!((ids(&list), &list["has_more"]), (all(), &false.into()));
        assert_eq!((&list["first_id"], &list["last_id"]), (&MODEL.into(), &"fifth".into()));
        let expected = json!({ "type": "model", "id": MODEL, "display_name": MODEL, "created_at": "2026-01-01T00:00:00Z" });
        assert_eq!(list["data"][0], expected);
        assert_eq!(anthropic(&shop, &format!("{prefix}/models/{MODEL}")).json(), expected);
    }
    let page = |query: &str| anthropic(&shop, &format!("/v1/models?{query}")).json();
    let next = page("limit=2&after_id=vendor%2Fsecond");
    assert_eq!((ids(&next), &next["has_more"]), (vec!["third", "vendor/fourth:free"], &true.into()));
    assert_eq!(ids(&page("limit=1000")), all());
    assert_eq!(ids(&page("limit=1&before_id=third")), ["vendor/second"]);

    for (query, param) in [
        ("limit=0", "limit"),
        ("limit=1001", "limit"),
        ("limit=few", "limit"),
        ("after_id=gone", "after_id"),
        ("before_id=gone", "before_id"),
        ("before_id=third&after_id=third", "before_id"),
    ] {
        let refused = anthropic(&shop, &format!("/v1/models?{query}"));
        assert_eq!((refused.status, refused.code().as_str()), (400, "invalid_request"), "{query}");
        assert_eq!(refused.json()["error"]["param"], param, "{query}: {}", refused.text());
    }
    assert_eq!(anthropic(&shop, "/v1/models/gone").code(), "model_not_found");
    shop.assert_untouched();
}

#[test]
fn anthropics_sdks_walk_through_all_pages_and_know_each_model() {
    let shop = shop();
    for sdk in [Sdk::AnthropicNode, Sdk::AnthropicPython] {
        let url = shop.server.url();
        let step = json!({ "do": "pages", "limit": 2, "key": "sk-x402-nobody-needs-a-key-here" });
        let seen = sdk.perform(&[("BASE_URL", &url), ("API_KEY", "none")], &[step]).remove(0);
        let value = &seen["value"];
        assert_eq!((&value["ids"], &value["single"]), (&json!(all()), &json!(all())), "{sdk:?}: {seen}");
        assert_eq!((&value["first"]["type"], &value["first"]["display_name"]), (&"model".into(), &MODEL.into()), "{seen}");
    }
    shop.assert_untouched();
}

#[test]
fn wallet_clients_get_their_list_with_prices_whatever_they_sign() {
    let shop = shop();
    let get = |path: &str| shop.server.send(&Request::get(path).header("x-sign-in-with-x", "not a sign-in at all"));
    let list = get("/api/v1/models").json();
    assert_eq!((ids(&list), &list["object"], &list["type"]), (all(), &"list".into(), &"all".into()));
    let entry = &list["data"][1];
    assert_eq!((&entry["object"], &entry["type"]), (&"model".into(), &"text".into()));
    let spec = &entry["model_spec"];
    assert_eq!((&spec["name"], &spec["offline"]), (&"vendor/second".into(), &false.into()));
    for (name, usd) in [("input", 3), ("output", 15), ("cache_input", 3), ("cache_write", 3)] {
        assert_eq!(spec["pricing"][name], json!({ "usd": usd, "diem": usd }), "{name}: {spec}");
    }
    assert_eq!(&get("/api/v1/models/vendor/second").json(), entry);
    assert_eq!(ids(&get("/api/v1/models?type=text").json()), all());
    assert_eq!(ids(&get("/api/v1/models?type=image").json()), [""; 0]);
    let refused = get("/api/v1/models?type=poem");
    assert_eq!((refused.status, refused.code().as_str()), (400, "INVALID_REQUEST"));
    assert!(refused.text().contains("text, tts"), "it says what there is: {}", refused.text());
    assert!(!list.to_string().contains("fake"), "who serves a model is the operator's business");
    shop.assert_untouched();
}
