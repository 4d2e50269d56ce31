//! Responses with a key, through the unmodified OpenAI SDKs: whole, streamed, with tools, and charged to the micro.

use std::io::Write as _;

use farebox_rig::anvil::{BUYER, OTHER_BUYER};
use farebox_rig::http::Request;
use farebox_rig::process::eventually;
use farebox_rig::provider::{After, Provider, wait_gone};
use farebox_rig::proxy::hides_breaks;
use farebox_rig::sdk::Sdk;
use farebox_rig::server::{Settings, UPSTREAM_MODEL};
use serde_json::{Value, json};

use crate::shop::{ANSWER, CANARY, CHARGE, RESPONSES, Shop, USAGE, asked, asked_with, step, values};

#[test]
fn the_typescript_sdk_buys_responses_with_a_key() {
    buys_responses(Sdk::OpenAiNode);
}

#[test]
fn the_python_sdk_buys_responses_with_a_key() {
    buys_responses(Sdk::OpenAiPython);
}

pub const CITY: &str = r#"{"city":"Llanfairpwllgwyngyll"}"#;
const PATCH: &str = "*** Begin Patch";
/// 200 tokens in, of which 100 were read from the cache and 50 written to it.
const CACHED: &str = "<<fake in=200 out=7 cached=100 cw=50 text=hello+wallet>>";
/// 50 x 3 + 100 x 0.3 + 50 x 3.75 + 7 x 15, rounded up once.
const CACHED_CHARGE: i64 = 473;

/// The tools that Codex sends: its own, and one that runs at the upstream.
fn tools() -> Value {
    let schema = json!({
        "type": "object", "properties": { "city": { "type": "string" } }, "required": ["city"], "additionalProperties": false,
    });
    let weather = json!({ "type": "function", "name": "weather", "strict": true, "parameters": schema });
    json!([weather, { "type": "custom", "name": "patch", "description": "edits" }, { "type": "web_search" }])
}

pub fn with_tools(call: &str, fields: Value) -> Value {
    let mut params = asked_with(&format!("<<fake in=20 out=7>> CALL:{call}"), fields);
    params["tools"] = tools();
    params
}

/// The second turn: the tool has answered.
pub fn tool_answered() -> Value {
    let mut params = with_tools(&format!("weather {CITY}"), json!({}));
    let said = params["input"].take();
    params["input"] = json!([
        { "role": "user", "content": [{ "type": "input_text", "text": said }] },
        { "type": "function_call", "call_id": "call_1", "name": "weather", "arguments": CITY },
        { "type": "function_call_output", "call_id": "call_1", "output": "rain" },
    ]);
    params
}

fn buys_responses(sdk: Sdk) {
    let mut shop = Shop::open();
    let key = shop.buyer_with_key();
    let stream = json!({ "stream": true });
    let weather = format!("weather {CITY}");
    let steps = [
        step("respond", asked(USAGE)),
        step("respond", asked_with(USAGE, stream.clone())),
        step("respond_helper", asked(USAGE)),
        step("respond", with_tools(&weather, json!({}))),
        step("respond_helper", with_tools(&weather, json!({}))),
        step("respond", with_tools(&format!("patch {PATCH}"), stream.clone())),
        step("respond", tool_answered()),
        step("respond", asked(CACHED)),
        step("respond", asked_with("<<fake in=20 out=7 think=1 finish=length text=hello+wallet>>", stream.clone())),
    ];
    let bought = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &steps);
    let values = values(&bought);
    assert_answers(&values);
    assert_passed_on(&shop);
    let answered = shop.logged();
    assert_eq!(answered.iter().filter(|charge| **charge == CACHED_CHARGE).count(), 1, "{answered:?}");
    assert_eq!(answered.iter().filter(|charge| **charge == CHARGE).count(), 8, "{answered:?}");
    shop.close(&[]);
}

fn assert_answers(values: &[&Value]) {
    for whole in [values[0], values[2]] {
        assert_eq!((&whole["text"], &whole["status"]), (&ANSWER.into(), &"completed".into()), "{whole}");
        assert_eq!((&whole["usage"]["input_tokens"], &whole["usage"]["output_tokens"]), (&20.into(), &7.into()), "{whole}");
    }
    assert!(values[0]["request_id"].as_str().is_some_and(|id| id.starts_with("req_")), "{}", values[0]);
    assert!(values[0]["balance_remaining"].as_str().is_some_and(|left| left.starts_with("4.9")), "{}", values[0]);
    let streamed = values[1];
    assert_eq!((&streamed["heard"], &streamed["last"]), (&ANSWER.into(), &"response.completed".into()), "{streamed}");
    assert_eq!(streamed["usage"]["output_tokens"], 7, "{streamed}");
    for call in &values[3..5] {
        assert_eq!(call["calls"], json!([["weather", CITY]]), "{call}");
    }
    assert_eq!(values[5]["calls"][0][0], "patch", "{}", values[5]);
    assert_eq!(values[6]["text"], "TOOLRESULT:rain", "{}", values[6]);
    assert_eq!(values[7]["usage"]["input_tokens_details"]["cached_tokens"], 100, "{}", values[7]);
    let cut = values[8];
    assert_eq!((&cut["status"], &cut["reason"]), (&"incomplete".into(), &"max_output_tokens".into()), "{cut}");
    assert_eq!(cut["reasons"], json!(["thinking about it"]), "{cut}");
}

/// The upstream was asked what the SDK was asked, not by whom, to keep nothing, and for no tool that costs extra.
fn assert_passed_on(shop: &Shop) {
    let calls = shop.upstream.calls();
    assert_eq!(calls.len(), 9, "one call for each step");
    for call in &calls {
        let body = &call["body"];
        assert_eq!((&call["path"], &body["model"]), (&"/v1/responses".into(), &UPSTREAM_MODEL.into()), "the alias is ours alone");
        assert!(body.to_string().contains(CANARY), "{call}");
        assert_eq!((&body["store"], &body["max_output_tokens"]), (&json!(false), &json!(256)), "{body}");
        assert!(!body.to_string().contains("web_search"), "{body}");
        let headers = call["headers"].to_string().to_lowercase();
        assert!(!headers.contains("sk-x402-"), "the buyer's key stays here: {headers}");
    }
    let offered: Vec<_> = calls[3]["body"]["tools"].as_array().unwrap().iter().map(|tool| tool["name"].clone()).collect();
    assert_eq!(offered, ["weather", "patch"]);
    assert_eq!(calls[6]["body"]["input"].as_array().unwrap().len(), 3);
}

#[test]
fn under_the_prefix_of_wallet_clients_responses_are_sold_and_refused_as_everywhere_there() {
    let mut shop = Shop::open();
    let key = shop.buyer_with_key();
    let request = |body: Value| Request::post("/api/v1/responses", body.to_string()).header("x-api-key", &key.text);
    let answer = shop.server.send(&request(asked(USAGE)));
    assert_eq!((answer.status, &answer.json()["output"][0]["content"][0]["text"]), (200, &json!(ANSWER)), "{}", answer.text());
    let refused = shop.server.send(&request(json!({ "model": "test-model" })));
    assert_eq!((refused.status, refused.code().as_str()), (400, "INVALID_REQUEST"), "{}", refused.text());
    assert!(refused.json()["error"].as_str().unwrap().contains("input is required"), "{}", refused.text());
    assert_eq!(shop.upstream.calls().len(), 1);
    shop.close(&[]);
}

/// An upstream that says these events, one after the other, and closes its connection if they are not the whole answer.
fn saying(events: &[Value], whole: bool) -> Provider {
    let said: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
    let said = format!("{HEAD}{:x}\r\n{said}\r\n{}", said.len(), if whole { "0\r\n\r\n" } else { "" });
    Provider::start(move |_, stream| match stream.write_all(said.as_bytes()) {
        Ok(()) if whole => After::Keep,
        _ => After::Close,
    })
}

const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";

fn begun() -> Value {
    json!({ "type": "response.created", "response": { "id": "r", "status": "in_progress", "output": [], "usage": null } })
}

fn word() -> Value {
    json!({ "type": "response.output_text.delta", "item_id": "m", "output_index": 0, "content_index": 0, "delta": "four" })
}

fn ended(how: &str, usage: Value) -> Value {
    let error = (how == "failed").then(|| json!({ "code": "server_error", "message": "key sk-of-the-operator" }));
    json!({ "type": format!("response.{how}"), "response": { "id": "r", "status": how, "output": [], "error": error, "usage": usage } })
}

fn reported(output: u64) -> Value {
    json!({ "input_tokens": 20, "output_tokens": output })
}

/// What a caller with a key gets of such an upstream on `route`: the text, whether it ends as HTTP says, and the charge.
fn caller_of(route: &str, events: &[Value], whole: bool) -> (String, bool, i64) {
    let provider = saying(events, whole);
    let mut shop = Shop::with(8453, Settings { upstream_url: Some(provider.url()), ..Settings::default() });
    let key = shop.buyer_with_key();
    let body = asked_with("", json!({ "stream": true })).to_string();
    let answer = shop.server.send(&Request::post(route, body).header("x-api-key", &key.text));
    assert_eq!((answer.status, answer.header("content-type")), (200, Some("text/event-stream")), "{}", answer.text());
    let in_books = || ["charged 0.", "nothing was charged"].iter().any(|word| shop.server.output().contains(word));
    eventually("the call is over in the books", in_books);
    let charge: i64 = shop.account(BUYER).statement().of("CHARGE").iter().map(|it| -it).sum();
    assert_eq!(provider.requests().len(), 1, "nobody asked again");
    shop.close(&Vec::from_iter((charge > 0).then_some(charge)));
    (answer.text(), answer.complete, charge)
}

#[test]
fn events_come_with_the_names_that_clients_go_by_and_every_ending_is_charged_as_it_says() {
    for how in ["completed", "incomplete"] {
        let (text, complete, charge) = caller_of(RESPONSES, &[begun(), word(), word(), ended(how, reported(7))], true);
        assert!(complete, "{text}");
        assert_eq!(charge, CHARGE, "{how}");
        let names: Vec<_> = text.lines().filter_map(|line| line.strip_prefix("event: ")).collect();
        let last = format!("response.{how}");
        assert_eq!(names, ["response.created", "response.output_text.delta", "response.output_text.delta", &last], "{text}");
    }
}

#[test]
fn a_response_that_breaks_off_fails_in_its_own_dialect_and_costs_what_passed() {
    let (mut prompts, cut) = (Vec::new(), [begun(), word(), word()]);
    for (events, whole, known) in [
        // With a report of the upstream, its tokens count, and no fewer than were delivered.
        (vec![begun(), word(), word(), ended("failed", reported(9))], true, Some(60 + 9 * 15)),
        (vec![begun(), word(), word(), ended("failed", reported(1))], true, Some(60 + 2 * 15)),
        // Nobody pays for an attempt that brought nothing.
        (vec![begun(), ended("failed", reported(9))], true, Some(0)),
        (vec![begun(), json!({ "type": "error", "code": "server_error", "message": "sk-of-the-operator" })], true, Some(0)),
        // Without one the words are counted.
        (vec![begun(), word(), word(), ended("failed", Value::Null)], true, None),
        (vec![begun(), word(), word(), json!({ "type": "error", "code": null, "message": "sk-of-the-operator" })], true, None),
        (cut.to_vec(), true, None),
        (cut.to_vec(), false, None),
    ] {
        let (text, _, charge) = caller_of(RESPONSES, &events, whole);
        assert!(!text.contains("response.completed"), "a part never looks like the whole: {text}");
        let (_, last) = text.rsplit_once("event: response.failed\ndata: ").unwrap_or_else(|| panic!("no last word: {text}"));
        let last: Value = serde_json::from_str(last.trim()).unwrap();
        assert_eq!((&last["type"], &last["response"]["status"]), (&json!("response.failed"), &json!("failed")), "{last}");
        assert_eq!(last["response"]["error"]["code"], "upstream_error", "{last}");
        assert_eq!(text.matches("response.failed").count(), 2, "once, and with a name: {text}");
        assert!(!text.contains("sk-of-the-operator"), "{text}");
        match known {
            Some(known) => assert_eq!(charge, known, "{events:?}"),
            None => prompts.push(charge - 2 * 15),
        }
    }
    assert!(prompts.iter().all(|prompt| *prompt == prompts[0]) && (1..300).contains(&prompts[0]), "a short prompt: {prompts:?}");
}

#[test]
fn the_connection_breaks_with_the_response_where_clients_know_no_other_sign() {
    let failing = [begun(), word(), ended("failed", reported(1))];
    for (route, breaks) in [(RESPONSES, false), ("/api/v1/responses", true)] {
        let (text, complete, charge) = caller_of(route, &failing, true);
        assert_eq!(
            complete,
            !breaks || hides_breaks(),
            "Codex reads the event only if the stream ends after it, wallet clients do not know it: {text}"
        );
        assert!(text.ends_with("}\n\n") && text.contains("event: response.failed"), "{text}");
        assert_eq!(charge, 60 + 15, "{route}");
    }
}

#[test]
fn a_response_that_runs_out_of_money_says_so_to_both_sdks_and_costs_what_passed() {
    // 16,000 letters are 4,000 tokens by our count, which are 0.06 dollars.
    let long = json!({ "type": "response.output_text.delta", "item_id": "m", "output_index": 0, "content_index": 0,
        "delta": "w ".repeat(8000) });
    let said = format!("event: response.output_text.delta\ndata: {long}\n\n").repeat(100);
    let said = format!("{HEAD}{:x}\r\n{said}\r\n", said.len());
    for sdk in [Sdk::OpenAiNode, Sdk::OpenAiPython] {
        let said = said.clone();
        let provider = Provider::start(move |_, stream| {
            // It may be let go before it has said everything.
            let _ = stream.write_all(said.as_bytes());
            wait_gone(stream);
            After::Close
        });
        let prepaid = vec!["hold_output = 1000".into(), "top_up_minimum = \"0.10\"".into()];
        let settings = Settings { upstream_url: Some(provider.url()), prepaid, ..Settings::default() };
        let mut shop = Shop::with(8453, settings);
        shop.top_up(BUYER, 500_000);
        let key = shop.mint(BUYER, &json!({ "name": "k" }));
        let params = asked_with("", json!({ "stream": true, "max_output_tokens": 64_000 }));
        let steps = [json!({ "do": "respond", "params": params, "retries": 0 })];
        let outcomes = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &steps);
        let error = &outcomes[0]["error"];
        assert_eq!((&error["class"], &error["code"]), (&"APIError".into(), &"insufficient_balance".into()), "{sdk:?}: {error}");
        assert!(error["message"].as_str().is_some_and(|it| it.contains("top up and send the request again")), "{sdk:?}: {error}");
        shop.wait_charged(1);
        let charges = shop.account(BUYER).statement().of("CHARGE");
        // Half a dollar buys 8 such events; the ninth would have owed more than there was.
        assert!((480_001..480_300).contains(&-charges[0]), "eight events and a short prompt: {charges:?}");
        assert_eq!(shop.account(BUYER).available(), 500_000 + charges[0], "the rest is back");
        shop.close(&[-charges[0]]);
    }
}

#[test]
fn a_failure_reads_as_one_in_both_sdks() {
    for sdk in [Sdk::OpenAiNode, Sdk::OpenAiPython] {
        let mut shop = Shop::open();
        let key = shop.buyer_with_key();
        let ask = |directive: &str| json!({ "do": "respond", "retries": 0, "params": asked_with(directive, json!({ "stream": true })) });
        let steps = [
            ask("<<fake words=40 errev=0>>"),
            ask("<<fake words=40 errev=8 pad=xxxxxx>>"),
            ask("<<fake words=40 cut=8 cut_mode=eof>>"),
        ];
        let outcomes = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &steps);
        for outcome in &outcomes {
            let error = &outcome["error"];
            assert_eq!((&error["class"], &error["code"]), (&"APIError".into(), &"upstream_error".into()), "{sdk:?}: {outcome}");
        }
        shop.wait_charged(3);
        let charges: Vec<i64> = shop.account(BUYER).statement().of("CHARGE").iter().map(|it| -it).collect();
        assert_eq!(charges.len(), 2, "what brought nothing is not in the statement");
        assert_eq!(charges[0], charges[1], "the same four words passed");
        shop.close(&charges);
    }
}

#[test]
fn every_identity_buys_responses_and_every_limit_binds_on_them() {
    let mut shop = Shop::with(8453, Settings { models: vec!["other-model".into()], ..Settings::default() });
    let key = shop.buyer_with_key();
    let post = |route: &str| Request::post(route, asked(USAGE).to_string());
    let mut served = 0;
    for route in [RESPONSES, "/api/v1/responses"] {
        let sign_in = shop.account(BUYER).sign_in();
        for (number, name) in ["x-sign-in-with-x", "sign-in-with-x"].into_iter().enumerate() {
            let answer = shop.server.send(&post(route).header(name, &sign_in));
            assert_eq!(answer.status, if number == 0 { 200 } else { 401 }, "a sign-in pays once: {}", answer.text());
        }
        assert_eq!(shop.server.send(&post(route).header("x-api-key", &key.text)).status, 200);
        served += 2;
        shop.wait_charged(served);
    }
    let poor = shop.account(OTHER_BUYER).mint_by_hand();
    let narrow = shop.mint(BUYER, &json!({ "name": "narrow", "models": ["other-model"] }));
    let small = shop.mint(BUYER, &json!({ "name": "small", "spend_limit_usd": "0.0001" }));
    let ended = shop.mint(BUYER, &json!({ "name": "ended" }));
    shop.account(BUYER).revoke(&ended);
    for (key, status, code) in [
        (&poor, 402, "insufficient_balance"),
        (&narrow, 403, "model_not_allowed"),
        (&small, 403, "spend_limit_exceeded"),
        (&ended, 401, "key_revoked"),
    ] {
        for stream in [false, true] {
            let body = asked_with(USAGE, json!({ "stream": stream })).to_string();
            let answer = shop.server.send(&Request::post(RESPONSES, body).header("x-api-key", &key.text));
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{}", answer.text());
        }
    }
    assert_eq!(shop.upstream.calls().len(), served, "who is refused costs no call upstream");
    assert_eq!(shop.logged(), vec![CHARGE; served]);
    shop.close(&[]);
}
