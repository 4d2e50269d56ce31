//! Callers of one dialect, upstreams that speak only another: the unmodified SDKs notice nothing, and pay to the micro.

use std::io::Write as _;

use farebox_rig::anvil::BUYER;
use farebox_rig::http::Request;
use farebox_rig::provider::{After, Provider};
use farebox_rig::sdk::Sdk;
use farebox_rig::server::{MODEL, Settings, UPSTREAM_MODEL};
use serde_json::{Value, json};

use crate::shop::{ANSWER, CANARY, CHARGE, RESPONSES, Shop, USAGE, asked, asked_with, params, params_with, step, values};
use crate::{anthropic, openai, responses};

/// A shop whose upstream speaks this alone.
fn speaking(dialect: &str) -> Shop {
    Shop::with(8453, Settings { speaks: Some(dialect.into()), ..Settings::default() })
}

/// The upstream was asked in its own dialect and knows nothing of the buyer; every call was charged, and nothing else.
fn close(shop: Shop, path: &str, calls: usize) {
    let asked = shop.upstream.calls();
    assert_eq!(asked.len(), calls, "one call for each step that buys");
    for call in &asked {
        assert_eq!((&call["path"], &call["body"]["model"]), (&path.into(), &UPSTREAM_MODEL.into()), "{call}");
        assert!(call["body"].to_string().contains(CANARY), "{call}");
        assert!(!call["headers"].to_string().to_lowercase().contains("sk-x402-"), "the buyer's key stays here");
    }
    assert_eq!(shop.logged(), vec![CHARGE; calls]);
    shop.close(&[]);
}

#[test]
fn the_openai_sdks_buy_chat_from_an_upstream_of_messages() {
    for sdk in [Sdk::OpenAiNode, Sdk::OpenAiPython] {
        let mut shop = speaking("messages");
        let key = shop.buyer_with_key();
        let stream = json!({ "stream": true });
        let asking = json!({ "stream": true, "stream_options": { "include_usage": true } });
        let steps = [
            json!({ "do": "models" }),
            step("create", params(USAGE)),
            step("create", params_with(USAGE, stream.clone())),
            step("create", params_with(USAGE, asking)),
            step("create", openai::with_tool(json!({}))),
            step("create", openai::with_tool(stream)),
            step("helper", openai::with_tool(json!({}))),
            step("create", openai::tool_answered()),
        ];
        let bought = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &steps);
        let values = values(&bought);
        openai::assert_texts(&values);
        openai::assert_tools(&values);
        close(shop, "/v1/messages", 7);
    }
}

#[test]
fn the_anthropic_sdks_buy_messages_from_an_upstream_of_chat() {
    for sdk in [Sdk::AnthropicNode, Sdk::AnthropicPython] {
        let mut shop = speaking("chat");
        let key = shop.buyer_with_key();
        let stream = json!({ "stream": true });
        let steps = [
            step("create", params(USAGE)),
            step("create", params_with(USAGE, stream.clone())),
            step("helper", params(USAGE)),
            step("create", anthropic::with_tool(json!({}))),
            step("create", anthropic::with_tool(stream)),
            step("helper", anthropic::with_tool(json!({}))),
            step("create", anthropic::tool_answered()),
        ];
        let bought = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &steps);
        let values = values(&bought);
        for text in &values[..3] {
            assert_eq!((&text["text"], &text["finish"]), (&ANSWER.into(), &"end_turn".into()), "{sdk:?} {text}");
            assert_eq!((&text["usage"]["input_tokens"], &text["usage"]["output_tokens"]), (&20.into(), &7.into()), "{text}");
        }
        for call in &values[3..6] {
            let called = json!([["weather", anthropic::CITY]]);
            assert_eq!((&call["calls"], &call["finish"]), (&called, &"tool_use".into()), "{sdk:?} {call}");
        }
        assert_eq!(values[6]["text"], "TOOLRESULT:rain", "{}", values[6]);
        close(shop, "/v1/chat/completions", 7);
    }
}

#[test]
fn the_openai_sdks_buy_responses_from_upstreams_of_chat_and_of_messages() {
    for (sdk, dialect, path) in [
        (Sdk::OpenAiNode, "chat", "/v1/chat/completions"),
        (Sdk::OpenAiPython, "messages", "/v1/messages"),
        (Sdk::OpenAiPython, "chat", "/v1/chat/completions"),
        (Sdk::OpenAiNode, "messages", "/v1/messages"),
    ] {
        let mut shop = speaking(dialect);
        let key = shop.buyer_with_key();
        let stream = json!({ "stream": true });
        let weather = format!("weather {}", responses::CITY);
        let steps = [
            step("respond", asked(USAGE)),
            step("respond", asked_with(USAGE, stream.clone())),
            step("respond_helper", asked(USAGE)),
            step("respond", responses::with_tools(&weather, json!({}))),
            step("respond_helper", responses::with_tools(&weather, json!({}))),
            step("respond", responses::tool_answered()),
        ];
        let bought = sdk.perform(&[("BASE_URL", &shop.server.url()), ("API_KEY", &key.text)], &steps);
        let values = values(&bought);
        for whole in [values[0], values[2]] {
            assert_eq!((&whole["text"], &whole["status"]), (&ANSWER.into(), &"completed".into()), "{dialect} {whole}");
            assert_eq!((&whole["usage"]["input_tokens"], &whole["usage"]["output_tokens"]), (&20.into(), &7.into()), "{whole}");
        }
        let streamed = values[1];
        assert_eq!((&streamed["heard"], &streamed["last"]), (&ANSWER.into(), &"response.completed".into()), "{streamed}");
        for call in &values[3..5] {
            assert_eq!(call["calls"], json!([["weather", responses::CITY]]), "{dialect} {call}");
        }
        assert_eq!(values[5]["text"], "TOOLRESULT:rain", "{}", values[5]);
        close(shop, path, 6);
    }
}

/// What no upstream of a model can be told is refused before anybody is asked for money.
#[test]
fn what_cannot_be_translated_is_refused_by_name_and_costs_nothing() {
    let mut shop = speaking("messages");
    let key = shop.buyer_with_key();
    let before = shop.upstream.calls().len();
    for (path, body, param) in [
        ("/v1/chat/completions", params_with(USAGE, json!({ "n": 2 })), "n"),
        (RESPONSES, asked_with(USAGE, json!({ "previous_response_id": "resp_1" })), "previous_response_id"),
    ] {
        for identified in [true, false] {
            let mut request = Request::post(path, body.to_string());
            if identified {
                request = request.header("x-api-key", &key.text);
            }
            let refused = shop.server.send(&request);
            assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &param.into()), "{}", refused.text());
            assert_eq!(refused.header("payment-required"), None, "no money would help");
        }
    }
    assert_eq!(shop.upstream.calls().len(), before);
    shop.close(&[]);
}

/// A stream that breaks at the upstream breaks for the caller, in its own dialect, and costs what passed.
#[test]
fn a_translated_stream_that_breaks_never_looks_complete() {
    for (dialect, path, body) in [
        ("messages", "/v1/chat/completions", params_with("<<fake in=20 words=30 cut=12>>", json!({ "stream": true }))),
        ("chat", "/v1/messages", params_with("<<fake in=20 words=30 cut=12>>", json!({ "stream": true }))),
        ("chat", RESPONSES, asked_with("<<fake in=20 words=30 cut=12>>", json!({ "stream": true }))),
    ] {
        let mut shop = speaking(dialect);
        let key = shop.buyer_with_key();
        let answer = shop.server.send(&Request::post(path, body.to_string()).header("x-api-key", &key.text));
        assert_eq!(answer.status, 200);
        let text = answer.text();
        // Responses have an end of their own for what failed, which their clients go by.
        let failed = path == RESPONSES && text.contains("event: response.failed");
        assert!(failed || !answer.complete, "the connection was cut: {text}");
        assert!(text.contains("w0") && text.contains("upstream_error"), "{dialect} {path}: {text}");
        for end in ["[DONE]", "message_stop", "response.completed"] {
            assert!(!text.contains(end), "{dialect} {path}: {text}");
        }
        shop.wait_charged(1);
        let charge: i64 = shop.account(BUYER).statement().of("CHARGE").iter().map(|it| -it).sum();
        assert!((15..CHARGE * 10).contains(&charge), "what passed is charged: {charge}");
        shop.close(&[charge]);
    }
}

/// A shop whose only upstream speaks chat and answers with these bytes.
fn answering(content_type: &'static str, body: String) -> Shop {
    let provider = Provider::start(move |_, stream| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {content_type}\r\ncontent-length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(format!("{head}{body}").as_bytes());
        After::Close
    });
    Shop::with(8453, Settings { speaks: Some("chat".into()), upstream_url: Some(provider.url()), ..Settings::default() })
}

/// Whatever breaks while a model thinks, who cannot see thinking has had nothing of the answer.
#[test]
fn a_translated_stream_that_breaks_while_it_thinks_unseen_costs_nothing() {
    let delta = |delta: Value, reason: Option<&str>| {
        let choice = json!({ "index": 0, "delta": delta, "finish_reason": reason });
        format!("data: {}\n\n", json!({ "choices": [choice], "usage": { "prompt_tokens": 20, "completion_tokens": 7 } }))
    };
    let thinking = delta(json!({ "reasoning_content": "hm hm hm" }), None);
    let text = delta(json!({ "content": "hello" }), None);
    let ends = [String::new(), delta(json!({}), Some("error")), "data: [DONE]\n\n".to_owned()];
    for (said, is_seen) in [(thinking.clone(), false), (thinking + &text, true)] {
        for end in &ends {
            let mut shop = answering("text/event-stream", format!("{said}{end}"));
            let key = shop.buyer_with_key();
            let asked = params_with("", json!({ "stream": true }));
            let answer = shop.server.send(&Request::post("/v1/messages", asked.to_string()).header("x-api-key", &key.text));
            let seen = answer.text();
            assert!(answer.status == 200 && !answer.complete && seen.contains("event: error"), "{seen}");
            assert!(!seen.contains("message_stop") && !seen.contains("end_turn") && !seen.contains("hm hm"), "{seen}");
            assert_eq!(seen.contains("hello"), is_seen, "{seen}");
            shop.wait_charged(1);
            let charged = if is_seen { vec![CHARGE] } else { Vec::new() };
            assert_eq!(shop.account(BUYER).statement().of("CHARGE").iter().map(|it| -it).collect::<Vec<_>>(), charged, "{seen}");
            shop.close(&charged);
        }
    }
}

#[test]
fn a_plain_answer_that_is_none_is_refused_in_the_callers_dialect_and_costs_nothing() {
    let usage = json!({ "prompt_tokens": 20, "completion_tokens": 7 });
    for body in [
        json!({ "error": { "message": "sk-upstream", "code": 502 }, "usage": usage }),
        json!({ "choices": [{ "message": { "content": "half" }, "finish_reason": "error" }], "usage": usage }),
        json!({ "choices": [{ "message": { "content": "half" } }], "usage": usage }),
    ] {
        let mut shop = answering("application/json", body.to_string());
        let key = shop.buyer_with_key();
        let answer = shop.server.send(&Request::post("/v1/messages", params("").to_string()).header("x-api-key", &key.text));
        assert_eq!((answer.status, answer.code().as_str(), answer.complete), (502, "upstream_error", true), "{}", answer.text());
        assert_eq!((&answer.json()["type"], &answer.json()["error"]["type"]), (&json!("error"), &json!("api_error")));
        assert!(!answer.text().contains("sk-upstream") && !answer.text().contains("half"), "{}", answer.text());
        assert_eq!(shop.account(BUYER).statement().of("CHARGE"), [0; 0]);
        shop.close(&[]);
    }
}

/// Which words of a model are shown where: the alias of the catalogue, never the upstream's own name for it.
#[test]
fn a_translated_answer_names_the_model_as_it_is_sold() {
    let mut shop = speaking("messages");
    let key = shop.buyer_with_key();
    let answer =
        shop.server.send(&Request::post("/v1/chat/completions", params(USAGE).to_string()).header("x-api-key", &key.text));
    let body: Value = answer.json();
    assert_eq!((&body["model"], &body["object"]), (&json!(MODEL), &json!("chat.completion")), "{body}");
    assert_eq!(body["choices"][0]["message"]["content"], ANSWER);
    shop.close(&[]);
}
