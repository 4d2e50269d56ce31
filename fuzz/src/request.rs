//! Requests: what is taken is JSON to everybody else as well, and what is forwarded says the same as what came.

use farebox::catalogue::{Kind, Model};
use farebox::dialect::{Dialect, LimitField, Request};
use farebox::error::Code;
use farebox::tariff::{Ceiling, Tariff};
use serde_json::Value;
use serde_json::value::RawValue;

/// Fields that are written anew.
const OURS: [&str; 4] = ["model", "max_tokens", "max_completion_tokens", "stream_options"];

/// Reads the bytes as a request in both dialects.
pub fn check(data: &[u8]) {
    let is_json = serde_json::from_slice::<&RawValue>(data).is_ok();
    // Fails for numbers beyond an f64 as well, which are JSON all the same.
    let value = serde_json::from_slice::<Value>(data);
    for dialect in [Dialect::Chat, Dialect::Messages] {
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
        let (limits, field) = match (dialect, field) {
            (Dialect::Messages | Dialect::Responses, _) | (_, LimitField::MaxTokens) => (&forwarded["max_tokens"], "max_tokens"),
            (Dialect::Chat, LimitField::MaxCompletionTokens) => (&forwarded["max_completion_tokens"], "max_completion_tokens"),
        };
        assert_eq!(limits, &Value::from(limit), "{field}");
        for (name, member) in forwarded.as_object().expect("an object is forwarded") {
            if !OURS.contains(&name.as_str()) {
                assert_eq!(Some(member), value.get(name), "{name} was changed");
            }
        }
    }
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
    Model {
        id: "m".into(),
        kind: Kind::Chat,
        upstreams: Vec::new(),
        tariff: Tariff::default(),
        pieces: None,
        ceiling: Ceiling::Computed,
        default_output: 4096,
        max_output: 64_000,
        image_tokens: 2048,
        hidden_output: false,
    }
}
