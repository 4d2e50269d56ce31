//! What is sold and what is refused, before anybody is asked for money.

mod responses;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::tariff::CacheUse;

fn model() -> Model {
    Model::plain("m")
}

fn chat(extra: Value) -> Value {
    with(json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}), extra)
}

fn messages(extra: Value) -> Value {
    with(json!({"model": "m", "max_tokens": 2000, "messages": [{"role": "user", "content": "hi"}]}), extra)
}

fn with(mut body: Value, extra: Value) -> Value {
    body.as_object_mut().unwrap().extend(extra.as_object().unwrap().clone());
    body
}

fn part(part: Value) -> Value {
    json!({"messages": [{"role": "user", "content": [part]}]})
}

fn refusal(dialect: Dialect, body: impl AsRef<[u8]>) -> Error {
    match Request::read(dialect, body.as_ref()) {
        Ok(_) => panic!("sold: {}", String::from_utf8_lossy(body.as_ref())),
        Err(error) => error,
    }
}

fn forwarded(dialect: Dialect, body: &Value) -> Value {
    let body = body.to_string();
    let request = Request::read(dialect, body.as_bytes()).unwrap();
    serde_json::from_slice(&request.forward("up/m", request.output_limit(&model()), LimitField::MaxTokens)).unwrap()
}

fn bound(dialect: Dialect, body: &Value) -> Bound {
    Request::read(dialect, body.to_string().as_bytes()).unwrap().bound(&model())
}

#[test]
fn what_is_not_json_is_refused_as_such() {
    let ok = chat(json!({})).to_string();
    let nested = |open: &str, close: &str, depth: usize| format!("{}{}", open.repeat(depth), close.repeat(depth)).into_bytes();
    let in_message = |depth| {
        let deep = format!("{}{}", "[".repeat(depth), "]".repeat(depth));
        format!("{{\"model\":\"m\",\"user\":{deep},\"messages\":[{{\"role\":\"user\",\"content\":\"x\"}}]}}").into_bytes()
    };
    for body in [
        b"".to_vec(),
        b"   ".to_vec(),
        b"{\"model\":\"m\",\"messages\":[".to_vec(),
        format!("{ok} garbage").into_bytes(),
        format!("{ok}{ok}").into_bytes(),
        b"\xef\xbb\xbf{}".to_vec(),
        b"{\"model\":\"\xff\xfe\"}".to_vec(),
        br#"{"model":"\ud800","messages":[{"role":"user","content":"x"}]}"#.to_vec(),
        br#"{"model":"m","messages":[{"role":"user","content":"\udc00"}]}"#.to_vec(),
        br#"{"model":"m","unknown":"\ud800\ud800","messages":[{"role":"user","content":"x"}]}"#.to_vec(),
        nested("[", "]", 129),
        nested("[", "]", 100_000),
        nested("{\"a\":", "}", 100_000),
        in_message(128),
        b"{'model':'m'}".to_vec(),
        b"{\"model\":\"a\nb\"}".to_vec(),
    ] {
        let error = refusal(Dialect::Chat, &body);
        assert_eq!(error.code, Code::InvalidJson, "{}", String::from_utf8_lossy(&body[..body.len().min(80)]));
    }
    assert!(Request::read(Dialect::Chat, &in_message(127)).is_ok());
}

#[test]
fn json_that_is_no_request_is_refused_as_such() {
    let many: serde_json::Map<String, Value> = (0..50_000).map(|n| (format!("k{n}"), json!(n))).collect();
    for body in [
        "[]".to_owned(),
        "\"hi\"".into(),
        "null".into(),
        "{}".into(),
        r#"{"model":"a","model":"b","messages":[{"role":"user","content":"x"}]}"#.into(),
        r#"{"model":"a","\u006dodel":"b","messages":[{"role":"user","content":"x"}]}"#.into(),
        r#"{"model":"a","x":1,"x":2,"messages":[{"role":"user","content":"x"}]}"#.into(),
        Value::Object(many).to_string(),
    ] {
        assert_eq!(refusal(Dialect::Chat, &body).code, Code::InvalidRequest, "{}", &body[..body.len().min(80)]);
    }
}

#[test]
fn a_wrong_field_is_refused_by_name() {
    let text = |content: Value| json!({"messages": [{"role": "user", "content": content}]});
    for (extra, param) in [
        (json!({"model": ""}), "model"),
        (json!({"model": 5}), "model"),
        (json!({"model": "x".repeat(257)}), "model"),
        (json!({"messages": null}), "messages"),
        (json!({"messages": []}), "messages"),
        (json!({"messages": {}}), "messages"),
        (json!({"messages": ["hi"]}), "messages"),
        (json!({"messages": [{"content": "hi"}]}), "messages"),
        (json!({"messages": [{"role": 1, "content": "hi"}]}), "messages"),
        (text(json!(5)), "messages"),
        (text(json!({"type": "text"})), "messages"),
        (text(json!(["hi"])), "messages"),
        (part(json!({"text": "hi"})), "messages"),
        (json!({"max_tokens": 0}), "max_tokens"),
        (json!({"max_tokens": -1}), "max_tokens"),
        (json!({"max_tokens": "100"}), "max_tokens"),
        (json!({"max_tokens": true}), "max_tokens"),
        (json!({"max_tokens": 1.5}), "max_tokens"),
        (json!({"max_tokens": 4_294_967_296u64}), "max_tokens"),
        (json!({"max_tokens": u64::MAX}), "max_tokens"),
        (json!({"max_completion_tokens": 0}), "max_completion_tokens"),
        (json!({"max_tokens": 1, "max_completion_tokens": 100_000}), "max_completion_tokens"),
        (json!({"n": 1_000_000}), "n"),
        (json!({"n": 9}), "n"),
        (json!({"n": 0}), "n"),
        (json!({"stream": "true"}), "stream"),
        (json!({"stream": 1}), "stream"),
        (json!({"stream_options": "x"}), "stream_options"),
        (json!({"stream_options": {"include_usage": "yes"}}), "stream_options"),
        (json!({"temperature": "hot"}), "temperature"),
        (json!({"stop": vec!["x".repeat(1000); 1000]}), "stop"),
        (json!({"stop": vec!["x"; 65]}), "stop"),
        (json!({"stop": 5}), "stop"),
        (json!({"tools": [{"type": "web_search"}]}), "tools"),
        (json!({"tools": {}}), "tools"),
        (json!({"tools": ["f"]}), "tools"),
        (json!({"service_tier": "priority"}), "service_tier"),
        (json!({"service_tier": "flex"}), "service_tier"),
        (json!({"web_search_options": {}}), "web_search_options"),
        (json!({"plugins": [{"id": "web"}]}), "plugins"),
        (json!({"best_of": 5}), "best_of"),
        (json!({"modalities": ["text", "audio"]}), "modalities"),
    ] {
        let error = refusal(Dialect::Chat, chat(extra.clone()).to_string());
        assert_eq!((error.code, error.param), (Code::InvalidRequest, Some(param)), "{extra}");
    }
}

#[test]
fn the_messages_route_has_rules_of_its_own() {
    for (extra, param) in [
        (json!({"max_tokens": null}), "max_tokens"),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 1_000_000}}), "thinking"),
        (json!({"thinking": {"type": "enabled", "budget_tokens": 2000}}), "thinking"),
        (json!({"thinking": {"type": "enabled", "budget_tokens": "1"}}), "thinking"),
        (json!({"messages": [{"role": "user"}]}), "messages"),
        (json!({"tools": [{"type": "web_search_20250305", "name": "web_search"}]}), "tools"),
        (json!({"tools": [{"type": "code_execution_20250825", "name": "x"}]}), "tools"),
        (json!({"mcp_servers": [{"url": "https://x"}]}), "mcp_servers"),
        (json!({"speed": "fast"}), "speed"),
        (json!({"context_management": {"edits": [{"type": "compact_20260112"}]}}), "context_management"),
        (part(json!({"type": "document", "source": {"type": "base64", "data": "AAAA"}})), "messages"),
        (part(json!({"type": "image", "source": {"type": "file", "file_id": "file_1"}})), "messages"),
    ] {
        let error = refusal(Dialect::Messages, messages(extra.clone()).to_string());
        assert_eq!((error.code, error.param), (Code::InvalidRequest, Some(param)), "{extra}");
    }
    let body = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}]}).to_string();
    assert_eq!(refusal(Dialect::Messages, body).param, Some("max_tokens"));
}

#[test]
fn what_real_tools_send_is_sold() {
    for extra in [
        json!({"max_tokens": null, "n": null, "stream": null, "stream_options": null, "stop": null, "tools": null}),
        json!({"max_tokens": 5, "max_completion_tokens": 5, "temperature": -0.5, "stop": "x", "service_tier": "auto"}),
        json!({"stream": true, "stream_options": {"include_usage": false}, "reasoning_effort": "extreme"}),
        json!({"tools": [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]}),
        json!({"messages": [{"role": "assistant", "content": null, "tool_calls": []}, {"role": "tool", "content": "x"}]}),
        json!({"api_base": "http://127.0.0.1:1/", "base_url": "http://169.254.169.254/", "user": "a".repeat(100_000)}),
        part(json!({"type": "image_url", "image_url": {"url": "http://169.254.169.254/latest/meta-data/"}})),
        part(json!({"type": "image_url", "image_url": {"url": "data:image/png;base64,AAAA", "detail": "low"}})),
    ] {
        assert!(Request::read(Dialect::Chat, chat(extra.clone()).to_string().as_bytes()).is_ok(), "{extra}");
    }
    for extra in [
        json!({"thinking": {"type": "adaptive", "display": "omitted"}, "metadata": {"user_id": "{}"}}),
        json!({"system": [{"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}], "speed": null}),
        json!({"tools": [{"name": "f", "input_schema": {"type": "object"}}, {"type": "bash_20250124", "name": "bash"}]}),
        json!({"context_management": {"edits": [{"type": "clear_thinking_20251015", "keep": "all"}]}}),
        part(json!({"type": "document", "source": {"type": "text", "media_type": "text/plain", "data": "hello"}})),
        part(json!({"type": "tool_result", "tool_use_id": "t", "content": [
            {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": "AAAA"}}]})),
    ] {
        assert!(Request::read(Dialect::Messages, messages(extra.clone()).to_string().as_bytes()).is_ok(), "{extra}");
    }
}

#[test]
fn a_picture_from_elsewhere_than_the_web_is_refused() {
    for url in ["file:///etc/passwd", "gopher://127.0.0.1:6379/_FLUSHALL", "//x", "", "javascript:1", "ftp://x", " http://x"] {
        for picture in [json!({"type": "image_url", "image_url": {"url": url}}), json!({"type": "input_image", "image_url": url})]
        {
            let error = refusal(Dialect::Chat, chat(part(picture)).to_string());
            assert_eq!((error.code, error.param), (Code::InvalidRequest, Some("messages")), "{url}");
        }
    }
    let escaped = chat(part(json!({"type": "image_url", "image_url": {"url": "https://x/y"}}))).to_string().replace('/', "\\/");
    assert!(Request::read(Dialect::Chat, escaped.as_bytes()).is_ok());
}

#[test]
fn only_what_is_sold_reaches_the_upstream() {
    let body = chat(json!({"api_base": "http://x", "service_tier": "auto", "models": ["dear"], "seed": 1, "store": true}));
    let sent = forwarded(Dialect::Chat, &body);
    assert_eq!(sent, json!({"model": "up/m", "messages": body["messages"], "seed": 1, "max_tokens": 4096}));
}

#[test]
fn values_are_forwarded_as_they_were_written() {
    let raw = r#"{ "temperature" : 1.0e-2, "messages":[ {"content":"\u0041 \/","role":"user"} ] ,"model":"m","seed":00012345678901234567890e0 }"#
        .replace("000123", "123");
    let sent = Request::read(Dialect::Chat, raw.as_bytes()).unwrap().forward("u\"p", 7, LimitField::MaxTokens);
    let expected = r#"{"temperature":1.0e-2,"messages":[ {"content":"\u0041 \/","role":"user"} ],"model":"u\"p","seed":12345678901234567890e0,"max_tokens":7}"#;
    assert_eq!(std::str::from_utf8(&sent).unwrap(), expected);
}

#[test]
fn the_output_limit_is_written_once_in_the_field_the_upstream_takes_it_in() {
    for asked in [
        json!({"max_completion_tokens": 128_000}),
        json!({"max_tokens": 128_000}),
        json!({"max_tokens": 128_000, "max_completion_tokens": 128_000}),
        json!({"max_tokens": null, "max_completion_tokens": 128_000}),
    ] {
        let body = chat(asked).to_string();
        let request = Request::read(Dialect::Chat, body.as_bytes()).unwrap();
        for (field, other) in [(LimitField::MaxTokens, "max_completion_tokens"), (LimitField::MaxCompletionTokens, "max_tokens")]
        {
            let sent: Value = serde_json::from_slice(&request.forward("m", request.output_limit(&model()), field)).unwrap();
            assert_eq!((&sent[field.name()], sent.get(other)), (&json!(64_000), None), "{body}");
        }
    }
    assert_eq!(forwarded(Dialect::Chat, &chat(json!({"max_tokens": null})))["max_tokens"], 4096);
    let body = messages(json!({})).to_string();
    let request = Request::read(Dialect::Messages, body.as_bytes()).unwrap();
    let sent: Value = serde_json::from_slice(&request.forward("m", 2000, LimitField::MaxCompletionTokens)).unwrap();
    assert_eq!((&sent["max_tokens"], sent.get("max_completion_tokens")), (&json!(2000), None));
}

#[test]
fn a_chat_stream_always_asks_the_upstream_for_its_usage() {
    let sent = |extra| forwarded(Dialect::Chat, &chat(extra)).get("stream_options").cloned();
    let asks = Some(json!({"include_usage": true}));
    assert_eq!(sent(json!({"stream": true})), asks);
    assert_eq!(sent(json!({"stream": true, "stream_options": null})), asks);
    assert_eq!(sent(json!({"stream": true, "stream_options": {"include_usage": false}})), asks);
    let other = sent(json!({"stream": true, "stream_options": {"include_obfuscation": false}}));
    assert_eq!(other, Some(json!({"include_obfuscation": false, "include_usage": true})));
    assert_eq!(sent(json!({})), None);
    assert_eq!(forwarded(Dialect::Messages, &messages(json!({"stream": true}))).get("stream_options"), None);
    let wants = |extra| Request::read(Dialect::Chat, chat(extra).to_string().as_bytes()).unwrap().wants_usage();
    assert!(wants(json!({"stream": true, "stream_options": {"include_usage": true}})));
    assert!(!wants(json!({"stream": true, "stream_options": {"include_usage": false}})));
}

#[test]
fn the_bound_is_never_below_what_the_text_can_be() {
    let words = "word ".repeat(1000);
    let base = bound(Dialect::Chat, &chat(json!({})));
    let grown = bound(Dialect::Chat, &chat(json!({"messages": [{"role": "user", "content": words}]})));
    assert_eq!(grown.input - base.input, 5000 - 2);
    let tools = json!({"tools": [{"type": "function", "function": {"name": "f", "description": words}}]});
    assert!(bound(Dialect::Chat, &chat(tools)).input > base.input + 5000);
    assert_eq!(base.output, 4096);
    assert_eq!(bound(Dialect::Chat, &chat(json!({"n": 8, "max_tokens": 100_000}))).output, 8 * 64_000);
}

#[test]
fn a_picture_counts_as_one_and_nothing_hides_behind_it() {
    let data = "A".repeat(100_000);
    let url = format!("data:image/png;base64,{data}");
    let small =
        |dialect, extra: Value| bound(dialect, &if dialect == Dialect::Chat { chat(extra) } else { messages(extra) }).input;
    for picture in [
        json!({"type": "image_url", "image_url": {"url": url}}),
        json!({"image_url": {"detail": "low", "url": url}, "type": "image_url"}),
        json!({"type": "input_image", "image_url": url}),
        json!({"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}),
    ] {
        let input = small(Dialect::Chat, part(picture.clone()));
        assert!((2048..2048 + 300).contains(&input), "{input} for {}", &picture.to_string()[..60]);
    }
    let result = json!({"type": "tool_result", "content": [{"type": "image", "source": {"type": "base64", "data": data}}]});
    assert!(small(Dialect::Messages, part(result)) < 2048 + 400);
    for text in [
        json!({"type": "text", "text": "x", "image_url": {"url": url}}),
        json!({"type": "image_url", "image_url": {"url": "https://x", "text": data}}),
        json!({"type": "image_url", "image_url": {"url": "https://x"}, "text": data}),
        json!({"type": "tool_use", "input": {"type": "image", "source": {"type": "base64", "data": data}}}),
        json!({"type": "document", "source": {"type": "text", "data": data}}),
    ] {
        assert!(small(Dialect::Messages, part(text.clone())) > 100_000, "{}", &text.to_string()[..60]);
    }
    let schema = json!({"tools": [{"name": "f", "input_schema": {"type": "image", "source": {"data": data}}}]});
    assert!(small(Dialect::Messages, schema) > 100_000);
}

#[test]
fn what_no_model_reads_costs_nothing() {
    let plain = bound(Dialect::Chat, &chat(json!({})));
    assert_eq!(bound(Dialect::Chat, &chat(json!({"user": "a".repeat(100_000)}))), plain);
    assert_eq!(bound(Dialect::Chat, &chat(json!({"unknown": "a".repeat(100_000)}))), plain);
    assert!(bound(Dialect::Chat, &chat(json!({"response_format": "a".repeat(1000)}))).input > plain.input + 1000);
}

proptest! {
    #[test]
    fn a_damaged_body_is_refused_or_forwarded_whole(at in 0usize..400, byte: u8, cut in 0usize..400) {
        let body = messages(json!({"stream": true, "system": "\u{e9} \\ \"x\"", "stop_sequences": ["a"], "thinking": {"type": "adaptive"},
            "tools": [{"name": "f", "input_schema": {"type": "object"}, "cache_control": {"type": "ephemeral"}}]}));
        let mut bytes = body.to_string().into_bytes();
        let length = bytes.len();
        bytes[at % length] = byte;
        for damaged in [&bytes[..], &bytes[..cut % length]] {
            for dialect in [Dialect::Chat, Dialect::Messages] {
                let Ok(request) = Request::read(dialect, damaged) else { continue };
                let sent: Value = serde_json::from_slice(&request.forward("up", 5, LimitField::MaxTokens)).unwrap();
                let original: Value = serde_json::from_slice(damaged).unwrap();
                prop_assert_eq!(&sent["messages"], &original["messages"]);
                prop_assert_eq!(&sent["model"], "up");
                prop_assert_eq!(&sent["max_tokens"], 5);
                prop_assert!(request.bound(&model()).input as usize >= sent["messages"][0]["content"].to_string().len() - 2);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(text in r#"[\[\]{}:,"\\a-z0-9 u]{0,60}"#) {
        for body in [text.clone(), format!("{{\"model\":\"m\",\"messages\":{text}}}"), format!("{{\"tools\":{text}}}")] {
            _ = Request::read(Dialect::Chat, body.as_bytes());
            _ = Request::read(Dialect::Messages, body.as_bytes());
        }
    }
}

#[test]
fn any_cache_control_makes_the_quote_cover_cache_writes() {
    let cache = |extra| bound(Dialect::Messages, &messages(extra)).cache;
    let system = |control: Value| json!({"system": [{"type": "text", "text": "x", "cache_control": control}]});
    assert_eq!(cache(json!({})), CacheUse::None);
    assert_eq!(cache(system(json!(null))), CacheUse::None);
    assert_eq!(cache(system(json!({"type": "ephemeral"}))), CacheUse::FiveMinutes);
    assert_eq!(cache(system(json!({"type": "ephemeral", "ttl": "5m"}))), CacheUse::FiveMinutes);
    assert_eq!(cache(system(json!({"type": "ephemeral", "ttl": "1h"}))), CacheUse::OneHour);
    assert_eq!(cache(system(json!({"ttl": 5}))), CacheUse::OneHour, "what cannot be read is the dearest");
    assert_eq!(cache(json!({"cache_control": {"type": "ephemeral", "ttl": "1h"}})), CacheUse::OneHour);
    assert_eq!(cache(json!({"tools": [{"name": "f", "cache_control": {"type": "ephemeral"}}]})), CacheUse::FiveMinutes);
    assert_eq!(cache(part(json!({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}))), CacheUse::FiveMinutes);
    let escaped = messages(system(json!({"type": "ephemeral", "ttl": "1h"}))).to_string().replace("cache_c", "cache\\u005fc");
    assert_eq!(Request::read(Dialect::Messages, escaped.as_bytes()).unwrap().bound(&model()).cache, CacheUse::OneHour);
}

#[test]
fn a_model_is_named_exactly_as_the_caller_wrote_it() {
    for name in ["gpt\0", "<script>alert(1)</script>", "a\nlevel=ERROR forged", "../../admin", "\u{441}laude-haiku-4-5"] {
        let body = chat(json!({"model": name})).to_string();
        assert_eq!(Request::read(Dialect::Chat, body.as_bytes()).unwrap().model(), name);
    }
}

#[test]
fn a_request_on_its_own_says_the_same_and_copies_nothing() {
    let responses = json!({"model": "m", "input": "hi", "include": ["x", "reasoning.encrypted_content"], "stream": true,
        "stream_options": {"include_obfuscation": false}, "tools": [{"type": "web_search"}, {"type": "function", "name": "f"}]});
    let chat = chat(json!({"stream": true, "stream_options": {"x": 1}, "reasoning_effort": "low", "max_tokens": 9}));
    for (dialect, body) in [(Dialect::Chat, chat), (Dialect::Messages, messages(json!({}))), (Dialect::Responses, responses)] {
        let body = Bytes::from(body.to_string());
        let (there, alone) = (Request::read(dialect, &body).unwrap(), Request::read(dialect, &body).unwrap().detached(&body));
        let model = model();
        assert_eq!((alone.model(), alone.stream(), alone.choices()), (there.model(), there.stream(), there.choices()));
        assert_eq!((alone.bound(&model), alone.estimate(&model)), (there.bound(&model), there.estimate(&model)));
        assert_eq!(alone.hidden_output(&model), there.hidden_output(&model));
        let forwarded = |request: &Request<'_>| request.forward("up", 7, LimitField::MaxTokens);
        assert_eq!(forwarded(&alone), forwarded(&there));
        let kept = alone.fields.iter().filter_map(|(_, raw)| match raw {
            Raw::Kept(bytes) => Some(bytes.as_ptr()),
            _ => None,
        });
        assert!(kept.clone().count() > 1 && kept.into_iter().all(|at| body.as_ptr_range().contains(&at)));
    }
}
