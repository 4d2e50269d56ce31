//! The built-in upstream: answers with the caller's last words, in every dialect, so that everything works without an account.

mod response;

mod media;

use bytes::Bytes;
use serde_json::{Value, json};

use super::answer::{Answer, AnswerBody};
use crate::dialect::{Dialect, Goods};

pub(super) use media::{made, makes};

/// A moment that is always the same: echoes are reproducible.
const CREATED: u64 = 1_767_225_600;
/// Choices that one request can ask for.
const MAX_CHOICES: u64 = 8;

/// What is answered, before it is written in a dialect.
struct Reply {
    model: String,
    /// Words with the white space before them.
    words: Vec<String>,
    /// Whether the output limit cut it.
    cut: bool,
    input_tokens: u64,
    choices: u64,
}

/// Answers a body that [`crate::dialect::Request::forward`] wrote.
pub(super) fn answer(upstream: &str, form: Goods, body: &Bytes) -> Answer {
    let dialect = form.dialect();
    let request: Value = serde_json::from_slice(body).unwrap_or_default();
    let reply = Reply::to(dialect, &request);
    let stream = request["stream"] == true;
    let chunks = match (dialect, stream) {
        (Dialect::Chat, false) => vec![reply.completion()],
        (Dialect::Chat, true) => reply.chunks(request["stream_options"]["include_usage"] == true),
        (Dialect::Responses, false) => vec![reply.response(&request)],
        (Dialect::Responses, true) => reply.response_events(&request),
        (Dialect::Messages, false) => vec![reply.message()],
        (Dialect::Messages, true) => reply.events(),
    };
    let content_length = (!stream).then(|| chunks.iter().map(|chunk| chunk.len() as u64).sum());
    let content_type = if stream { "text/event-stream" } else { "application/json" };
    Answer {
        form,
        content_type,
        content_length,
        upstream: upstream.to_owned(),
        model: String::new(),
        body: AnswerBody::made(chunks),
    }
}

/// The messages of a request; a text alone is one of the user's.
fn messages_of(dialect: Dialect, request: &Value) -> Vec<Value> {
    match &request[dialect.conversation()] {
        Value::String(text) => vec![json!({ "role": "user", "content": text })],
        list => list.as_array().cloned().unwrap_or_default(),
    }
}

/// All text in the content of a message.
fn text_of(content: &Value) -> String {
    match content {
        Value::String(text) => text.clone(),
        Value::Array(parts) => parts.iter().map(text_of).filter(|text| !text.is_empty()).collect::<Vec<_>>().join("\n"),
        Value::Object(part) => text_of(part.get("text").or_else(|| part.get("content")).unwrap_or(&Value::Null)),
        Value::Null | Value::Bool(_) | Value::Number(_) => String::new(),
    }
}

fn event(name: Option<&str>, data: &Value) -> Bytes {
    match name {
        Some(name) => format!("event: {name}\ndata: {data}\n\n").into(),
        None => format!("data: {data}\n\n").into(),
    }
}

impl Reply {
    fn to(dialect: Dialect, request: &Value) -> Reply {
        let messages = messages_of(dialect, request);
        let said = messages.iter().rev().find(|message| message["role"] == "user").map(|message| text_of(&message["content"]));
        let text = format!("You said: {}", said.unwrap_or_default());
        let mut words: Vec<String> = text.split_inclusive(char::is_whitespace).map(str::to_owned).collect();
        let limit = ["max_completion_tokens", "max_tokens", "max_output_tokens"]
            .iter()
            .find_map(|name| request[name].as_u64())
            .unwrap_or(u64::MAX);
        let limit = usize::try_from(limit).unwrap_or(usize::MAX);
        let cut = words.len() > limit;
        words.truncate(limit);
        let read: usize = messages.iter().map(|message| text_of(&message["content"]).len()).sum();
        let above: usize = ["system", "instructions"].iter().map(|name| text_of(&request[name]).len()).sum();
        let input_tokens = (read + above).div_ceil(4).max(1) as u64;
        let choices = match dialect {
            Dialect::Chat => request["n"].as_u64().unwrap_or(1).clamp(1, MAX_CHOICES),
            Dialect::Messages | Dialect::Responses => 1,
        };
        Reply { model: request["model"].as_str().unwrap_or_default().to_owned(), words, cut, input_tokens, choices }
    }

    fn text(&self) -> String {
        self.words.concat()
    }

    fn output_tokens(&self) -> u64 {
        self.words.len() as u64 * self.choices
    }

    fn chat_usage(&self) -> Value {
        let (input, output) = (self.input_tokens, self.output_tokens());
        json!({ "prompt_tokens": input, "completion_tokens": output, "total_tokens": input + output })
    }

    fn finish_reason(&self) -> &'static str {
        if self.cut { "length" } else { "stop" }
    }

    fn stop_reason(&self) -> &'static str {
        if self.cut { "max_tokens" } else { "end_turn" }
    }

    fn completion(&self) -> Bytes {
        let choice = |index| {
            let message = json!({ "role": "assistant", "content": self.text(), "refusal": null });
            json!({ "index": index, "message": message, "logprobs": null, "finish_reason": self.finish_reason() })
        };
        let body = json!({
            "id": "chatcmpl-echo",
            "object": "chat.completion",
            "created": CREATED,
            "model": self.model,
            "choices": (0..self.choices).map(choice).collect::<Vec<_>>(),
            "usage": self.chat_usage(),
        });
        body.to_string().into()
    }

    fn chunks(&self, with_usage: bool) -> Vec<Bytes> {
        let chunk = |choices: Value, usage: Option<Value>| {
            let mut body = json!({
                "id": "chatcmpl-echo",
                "object": "chat.completion.chunk",
                "created": CREATED,
                "model": self.model,
                "choices": choices,
            });
            if with_usage {
                body["usage"] = usage.unwrap_or_default();
            }
            event(None, &body)
        };
        let delta = |index: u64, delta: Value, finish: Value| {
            chunk(json!([{ "index": index, "delta": delta, "logprobs": null, "finish_reason": finish }]), None)
        };
        let mut chunks = Vec::new();
        for index in 0..self.choices {
            chunks.push(delta(index, json!({ "role": "assistant", "content": "" }), Value::Null));
            chunks.extend(self.words.iter().map(|word| delta(index, json!({ "content": word }), Value::Null)));
            chunks.push(delta(index, json!({}), self.finish_reason().into()));
        }
        if with_usage {
            chunks.push(chunk(json!([]), Some(self.chat_usage())));
        }
        chunks.push(Bytes::from_static(b"data: [DONE]\n\n"));
        chunks
    }

    fn message(&self) -> Bytes {
        let body = json!({
            "id": "msg_echo",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [{ "type": "text", "text": self.text() }],
            "stop_reason": self.stop_reason(),
            "stop_sequence": null,
            "usage": { "input_tokens": self.input_tokens, "output_tokens": self.output_tokens() },
        });
        body.to_string().into()
    }

    fn events(&self) -> Vec<Bytes> {
        let typed = |body: Value| event(body["type"].as_str(), &body);
        let message = json!({
            "id": "msg_echo",
            "type": "message",
            "role": "assistant",
            "model": self.model,
            "content": [],
            "stop_reason": null,
            "stop_sequence": null,
            "usage": { "input_tokens": self.input_tokens, "output_tokens": 1 },
        });
        let mut events = vec![
            typed(json!({ "type": "message_start", "message": message })),
            typed(json!({ "type": "content_block_start", "index": 0, "content_block": { "type": "text", "text": "" } })),
            typed(json!({ "type": "ping" })),
        ];
        let delta = |word: &String| {
            typed(json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": word } }))
        };
        events.extend(self.words.iter().map(delta));
        let stop = json!({ "stop_reason": self.stop_reason(), "stop_sequence": null });
        events.push(typed(json!({ "type": "content_block_stop", "index": 0 })));
        events.push(typed(json!({ "type": "message_delta", "delta": stop, "usage": { "output_tokens": self.output_tokens() } })));
        events.push(typed(json!({ "type": "message_stop" })));
        events
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use futures_util::StreamExt as _;

    use super::*;
    use crate::dialect::{Meter, Pass, Request, Splitter};
    use crate::tariff::Usage;

    fn ask(dialect: Dialect, body: &Value) -> Vec<u8> {
        let body = body.to_string();
        let forwarded =
            Request::read(dialect, body.as_bytes()).unwrap().forward("echo", 100, crate::dialect::LimitField::MaxTokens);
        let answer = answer("e", Goods::Words(dialect), &forwarded);
        let chunks = answer.body.collect::<Vec<_>>().now_or_never().expect("made at once");
        let whole: Vec<u8> = chunks.into_iter().flat_map(Result::unwrap).collect();
        assert!(answer.content_length.is_none_or(|length| length == whole.len() as u64));
        whole
    }

    fn request(dialect: Dialect, stream: bool) -> Value {
        let turns = json!([
            {"role": "user", "content": "before"}, {"role": "assistant", "content": "x"},
            {"role": "user", "content": [{"type": if dialect == Dialect::Responses { "input_text" } else { "text" }, "text": "hello there"}]}]);
        let mut body = json!({"model": "m", "stream": stream, dialect.conversation(): turns});
        if dialect != Dialect::Responses {
            body["max_tokens"] = 50.into();
        }
        body
    }

    #[test]
    fn it_says_what_it_heard_and_reports_what_it_used() {
        for dialect in Dialect::ALL {
            let body = ask(dialect, &request(dialect, false));
            let answer: Value = serde_json::from_slice(&body).unwrap();
            let text = match dialect {
                Dialect::Chat => &answer["choices"][0]["message"],
                Dialect::Messages => &answer["content"][0],
                Dialect::Responses => &answer["output"][0]["content"][0],
            };
            assert!(text.to_string().contains("You said: hello there"), "{answer}");
            let mut meter = Meter::new(dialect, false, false, 0);
            meter.chunk(&body);
            assert!(meter.complete());
            // 18 bytes in, four words out.
            assert_eq!(meter.usage().usage, Usage { input: 5, output: 4, ..Usage::default() });
        }
    }

    #[test]
    fn its_streams_are_whole_and_need_no_rewriting() {
        for dialect in Dialect::ALL {
            let body = Bytes::from(ask(dialect, &request(dialect, true)));
            let mut splitter = Splitter::of(dialect);
            let mut meter = Meter::new(dialect, true, false, 0);
            let events: Vec<_> = splitter.push(body.clone()).map(Result::unwrap).collect();
            let passed: Vec<Pass> = events.iter().map(|event| meter.event(event)).collect();
            assert!(matches!(passed.last(), Some(Pass::Done)));
            assert_eq!(events.iter().map(|event| event.bytes.len()).sum::<usize>(), body.len());
            assert_eq!(meter.usage().usage, Usage { input: 5, output: 4, ..Usage::default() });
            assert!(!meter.usage().estimated);
        }
    }

    #[test]
    fn it_stops_at_the_output_limit() {
        let long = |dialect| {
            let mut body = request(dialect, false);
            body[dialect.conversation()][2]["content"] = "word ".repeat(500).into();
            serde_json::from_slice::<Value>(&ask(dialect, &body)).unwrap()
        };
        let answer = long(Dialect::Chat);
        assert_eq!(answer["choices"][0]["finish_reason"], "length");
        assert_eq!(answer["usage"]["completion_tokens"], 100);
        let answer = long(Dialect::Responses);
        assert_eq!(
            (&answer["status"], &answer["incomplete_details"]["reason"]),
            (&json!("incomplete"), &json!("max_output_tokens"))
        );
        assert_eq!(answer["usage"]["output_tokens"], 100);
    }
}
