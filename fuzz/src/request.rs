//! Requests: what is taken is JSON to everybody else as well, and what is forwarded says the same as what came.

use farebox::catalogue::Model;
use farebox::dialect::{Dialect, LimitField, Request};
use farebox::error::Code;
use serde_json::Value;
use serde_json::value::RawValue;

/// Fields that are written anew.
const OURS: [&str; 6] = ["model", "max_tokens", "max_completion_tokens", "max_output_tokens", "stream_options", "store"];
/// Fields of responses of which a part may be left out.
const LISTS: [&str; 2] = ["tools", "include"];

/// Reads the bytes as a request in every dialect.
pub fn check(data: &[u8]) {
    let is_json = serde_json::from_slice::<&RawValue>(data).is_ok();
    // Fails for numbers beyond an f64 as well, which are JSON all the same.
    let value = serde_json::from_slice::<Value>(data);
    let _ = Request::read_to_count(data);
    for dialect in Dialect::ALL {
        match Request::read(dialect, data) {
            Ok(request) => {
                assert!(is_json, "what is sold is no JSON");
                taken(&request, dialect, value.as_ref().ok(), data.len());
            }
            Err(error) => {
                // A number that no f64 holds, and a nesting of 128, are JSON that the reference's tree refuses.
                assert!(
                    error.code != Code::InvalidJson || value.is_err() || is_half_a_surrogate(data),
                    "refused as no JSON: {}",
                    error.message
                );
            }
        }
    }
}

fn taken(request: &Request, dialect: Dialect, value: Option<&Value>, length: usize) {
    let model = model();
    let bound = request.bound(&model);
    assert!(bound.input <= 1_000_000 + 64 * length as u64 + pictures(length), "{} tokens for {length} bytes", bound.input);
    assert!(request.estimate(&model) <= bound.input, "the estimate is above the bound");
    let limit = request.output_limit(&model);
    assert!(limit <= model.max_output);
    for field in [LimitField::MaxTokens, LimitField::MaxCompletionTokens] {
        let forwarded = request.forward("up/\"m", limit, field);
        serde_json::from_slice::<&RawValue>(&forwarded).expect("what is forwarded is JSON");
        let Some(value) = value else { continue };
        let forwarded: Value = serde_json::from_slice(&forwarded).expect("its numbers are those that came");
        assert_eq!(forwarded["model"], "up/\"m");
        let field = match (dialect, field) {
            (Dialect::Responses, _) => "max_output_tokens",
            (Dialect::Messages, _) | (_, LimitField::MaxTokens) => "max_tokens",
            (Dialect::Chat, LimitField::MaxCompletionTokens) => "max_completion_tokens",
        };
        assert_eq!(forwarded[field], Value::from(limit), "{field}");
        assert_eq!(forwarded.get("store"), (dialect == Dialect::Responses).then_some(&Value::Bool(false)));
        for (name, member) in forwarded.as_object().expect("an object is forwarded") {
            if dialect == Dialect::Responses && LISTS.contains(&name.as_str()) {
                assert_part(name, member, &value[name]);
            } else if !OURS.contains(&name.as_str()) {
                assert_eq!(Some(member), value.get(name), "{name} was changed");
            }
        }
    }
}

/// Of a list everything is forwarded in its order but what is not sold, which is never added.
fn assert_part(name: &str, sent: &Value, came: &Value) {
    let (Some(sent), Some(came)) = (sent.as_array(), came.as_array()) else {
        assert_eq!(sent, came, "{name} was changed");
        return;
    };
    let kept: Vec<_> = came.iter().filter(|tool| sent.contains(tool)).collect();
    assert!(sent.iter().all(|tool| came.contains(tool)) && sent.len() <= kept.len(), "{name} was changed");
    let is_hosted = |tool: &Value| tool["type"].as_str().is_some_and(|kind| kind.starts_with("web_search"));
    assert!(!sent.iter().any(is_hosted), "a tool that costs extra is forwarded");
}

/// What pictures may count, of which no two fit into fewer bytes than this.
fn pictures(length: usize) -> u64 {
    (length as u64 / 8 + 1) * 2048
}

fn is_half_a_surrogate(data: &[u8]) -> bool {
    let escape = |pair: &[u8]| pair[0] == b'\\' && pair[1] == b'u';
    data.windows(4).any(|four| escape(four) && four[2].eq_ignore_ascii_case(&b'd'))
}

fn model() -> Model {
    Model::plain("m")
}
