//! What a caller asks in one dialect, as an upstream of another reads it.

use serde_json::{Value, json};

use super::*;
use crate::error::Code;

mod chat_to_messages;
mod functions;
mod messages_to_chat;
mod random;
mod responses;

fn terms(stream: bool) -> Terms<'static> {
    Terms { model: "up/m", output_limit: 500, limit_field: LimitField::MaxCompletionTokens, stream }
}

/// The request that the upstream gets. It must be one that a caller of that dialect could have sent.
fn translated(from: Dialect, to: Dialect, body: &Value) -> Value {
    let body = body.to_string();
    if from != Dialect::Responses {
        Request::read(from, body.as_bytes()).expect("the caller's request is sold");
    }
    let sent = request(from, to, body.as_bytes(), &terms(false)).unwrap_or_else(|error| panic!("{error}: {body}"));
    assert_eq!(request(from, to, body.as_bytes(), &terms(false)).unwrap(), sent, "the same every time");
    serde_json::from_slice(&sent).expect("what is sent is JSON")
}

fn refusal(from: Dialect, to: Dialect, body: &Value) -> Error {
    match request(from, to, body.to_string().as_bytes(), &terms(false)) {
        Ok(sent) => panic!("sent {}", String::from_utf8_lossy(&sent)),
        Err(error) => error,
    }
}

/// Each of `bodies` is refused for the field beside it, in words that hold the text beside that.
fn refused_for(from: Dialect, to: Dialect, bodies: Vec<(Value, &str, &str)>) {
    for (body, param, says) in bodies {
        let error = refusal(from, to, &body);
        assert_eq!((error.code, error.param), (Code::InvalidRequest, Some(param)), "{body}: {error}");
        assert!(error.message.contains(says), "{error} does not say {says:?}");
    }
}

#[test]
fn only_the_pairs_that_are_wanted_are_translated() {
    use Dialect::{Chat, Messages, Responses};
    let body = br#"{"model":"m","max_tokens":5,"messages":[{"role":"user","content":"hi"}],"input":"hi"}"#;
    for from in Dialect::ALL {
        for to in Dialect::ALL {
            let wanted = matches!((from, to), (Chat, Messages) | (Messages, Chat) | (Responses, Chat | Messages));
            assert_eq!(translates(from, to), wanted, "{from:?} {to:?}");
            let sent = request(from, to, body, &terms(false));
            assert_eq!(sent.is_ok(), wanted);
            if let Err(error) = sent {
                assert_eq!((error.code, error.param), (Code::InvalidRequest, Some("model")));
                assert!(error.message.contains(to.path()), "{error}");
            }
        }
    }
}

#[test]
fn what_is_no_request_is_refused_and_never_panics() {
    for body in [&b""[..], b"{", b"\xff", br#"{"messages":"\ud800"}"#, b"[]", b"{}", b"null", br#"{"messages":[[]],"input":{}}"#]
    {
        for from in Dialect::ALL {
            for to in Dialect::ALL {
                let error = request(from, to, body, &terms(false)).unwrap_err();
                assert!(matches!(error.code, Code::InvalidJson | Code::InvalidRequest), "{error}");
            }
        }
    }
}

#[test]
fn the_limit_the_model_and_the_stream_are_those_of_the_terms_and_never_the_callers() {
    let chat = json!({"model": "alias", "max_tokens": 99_999, "max_completion_tokens": 99_999, "stream": true,
        "stream_options": {"include_usage": false}, "messages": [{"role": "user", "content": "hi"}]});
    let messages =
        json!({"model": "alias", "max_tokens": 99_999, "stream": true, "messages": [{"role": "user", "content": "hi"}]});
    let responses = json!({"model": "alias", "max_output_tokens": 99_999, "stream": true, "input": "hi"});
    let both = json!([{"role": "user", "content": "hi"}]);
    let blocks = json!([{"role": "user", "content": [{"type": "text", "text": "hi"}]}]);
    for (stream, from, to, body) in [
        (true, Dialect::Chat, Dialect::Messages, &chat),
        (false, Dialect::Chat, Dialect::Messages, &chat),
        (true, Dialect::Messages, Dialect::Chat, &messages),
        (false, Dialect::Messages, Dialect::Chat, &messages),
        (true, Dialect::Responses, Dialect::Chat, &responses),
        (true, Dialect::Responses, Dialect::Messages, &responses),
    ] {
        let sent = request(from, to, body.to_string().as_bytes(), &terms(stream)).unwrap();
        let mut expected = match to {
            Dialect::Messages => json!({"model": "up/m", "max_tokens": 500, "messages": blocks}),
            _ => json!({"model": "up/m", "max_completion_tokens": 500, "messages": both}),
        };
        if stream {
            expected["stream"] = json!(true);
        }
        if stream && to == Dialect::Chat {
            expected["stream_options"] = json!({"include_usage": true});
        }
        assert_eq!(serde_json::from_slice::<Value>(&sent).unwrap(), expected, "{from:?} {to:?}");
    }
    let other = Terms { limit_field: LimitField::MaxTokens, ..terms(false) };
    let sent = request(Dialect::Messages, Dialect::Chat, messages.to_string().as_bytes(), &other).unwrap();
    let sent: Value = serde_json::from_slice(&sent).unwrap();
    assert_eq!((&sent["max_tokens"], sent.get("max_completion_tokens")), (&json!(500), None));
}

#[test]
fn what_is_not_sold_is_never_written() {
    let dear = json!({"service_tier": "auto", "speed": "standard", "web_search_options": null, "plugins": [], "mcp_servers": [],
        "api_base": "http://x", "models": ["dear"], "store": true, "metadata": {"k": "v"}, "best_of": 1, "cache_control":
        {"type": "ephemeral", "ttl": "1h"}, "context_management": {"edits": []}, "include": ["x"], "truncation": "auto"});
    let mut chat = json!({"model": "m", "messages": [{"role": "user", "content": "hi"}], "seed": 1, "logprobs": true,
        "frequency_penalty": 1, "presence_penalty": 1, "logit_bias": {"1": 1}, "prompt_cache_key": "k"});
    let mut messages = json!({"model": "m", "max_tokens": 9, "messages": [{"role": "user", "content": "hi"}], "top_k": 4,
        "thinking": {"type": "adaptive", "display": "omitted"}, "output_config": {"effort": "high"}});
    let mut responses = json!({"model": "m", "input": "hi", "top_logprobs": 3, "client_metadata": {"a": 1}});
    for body in [&mut chat, &mut messages, &mut responses] {
        body.as_object_mut().unwrap().extend(dear.as_object().unwrap().clone());
    }
    let names = |sent: Value| sent.as_object().unwrap().keys().cloned().collect::<Vec<_>>();
    let plain = ["max_tokens", "messages", "model"];
    assert_eq!(names(translated(Dialect::Chat, Dialect::Messages, &chat)), plain);
    assert_eq!(names(translated(Dialect::Responses, Dialect::Messages, &responses)), plain);
    let plain = ["max_completion_tokens", "messages", "model"];
    assert_eq!(names(translated(Dialect::Messages, Dialect::Chat, &messages)), plain);
    assert_eq!(names(translated(Dialect::Responses, Dialect::Chat, &responses)), plain);
}
