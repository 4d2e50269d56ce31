//! What the built-in upstream makes beside words: embeddings that are a sum of bytes, and pictures of one dot.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use serde_json::{Value, json};

use super::{CREATED, event, text_of};
use crate::dialect::{Goods, Task};
use crate::upstream::answer::{Answer, AnswerBody};

/// A PNG of one red dot.
const DOT: &str = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8z8BQDwAEhQGAhKmMIQAAAABJRU5ErkJggg==";
/// Numbers of an embedding when nobody says how many, and at most.
const DIMENSIONS: u64 = 8;
const MOST_DIMENSIONS: u64 = 4096;
const MOST_PICTURES: u64 = 10;

/// Whether it can.
pub(in crate::upstream) fn makes(task: Task) -> bool {
    matches!(task, Task::Embeddings | Task::ImageGenerations)
}

/// Answers a body that was forwarded for one of the tasks that it [`makes`].
pub(in crate::upstream) fn made(upstream: &str, task: Task, body: &Bytes) -> Answer {
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let pictures = usize::try_from(request["n"].as_u64().unwrap_or(1).clamp(1, MOST_PICTURES)).unwrap_or(1);
    let stream = request["stream"] == true;
    let answer: Bytes = match task {
        Task::Embeddings => embeddings(&request).to_string().into(),
        _ if stream => {
            let done = json!({ "type": "image_generation.completed", "b64_json": DOT, "created_at": CREATED });
            event(Some("image_generation.completed"), &done).repeat(pictures).into()
        }
        _ => json!({ "created": CREATED, "data": vec![json!({ "b64_json": DOT }); pictures] }).to_string().into(),
    };
    let (content_type, length) =
        if stream { ("text/event-stream", None) } else { ("application/json", Some(answer.len() as u64)) };
    Answer {
        form: Goods::Media(task),
        content_type,
        content_length: length,
        upstream: upstream.to_owned(),
        model: String::new(),
        body: AnswerBody::made([answer]),
    }
}

fn embeddings(request: &Value) -> Value {
    let texts = match &request["input"] {
        Value::Array(texts) if !texts.iter().any(Value::is_number) => texts.clone(),
        one => vec![one.clone()],
    };
    let count = request["dimensions"].as_u64().unwrap_or(DIMENSIONS).clamp(1, MOST_DIMENSIONS);
    let count = usize::try_from(count).unwrap_or(1);
    let entry = |(index, text): (usize, &Value)| {
        let text = text.as_str().map_or_else(|| text.to_string(), str::to_owned);
        // How often each remainder occurs among its bytes.
        let mut numbers = vec![0_u16; count];
        text.bytes().for_each(|byte| numbers[usize::from(byte) % count] = numbers[usize::from(byte) % count].saturating_add(1));
        let embedding = match request["encoding_format"] == "base64" {
            true => json!(BASE64.encode(numbers.iter().flat_map(|number| f32::from(*number).to_le_bytes()).collect::<Vec<_>>())),
            false => json!(numbers),
        };
        json!({ "object": "embedding", "index": index, "embedding": embedding })
    };
    let data: Vec<_> = texts.iter().enumerate().map(entry).collect();
    let tokens = text_of(&request["input"]).len().div_ceil(4).max(1);
    let usage = json!({ "prompt_tokens": tokens, "total_tokens": tokens });
    json!({ "object": "list", "data": data, "model": request["model"], "usage": usage })
}
