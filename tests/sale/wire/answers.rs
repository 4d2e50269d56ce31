//! Answers of upstreams byte by byte, good ones to be spoiled.

use std::io::Write as _;
use std::net::TcpStream;

use farebox_rig::provider::After;

use crate::shop::{ANSWER, CHAT, MESSAGES, RESPONSES};

/// In which of its six forms an answer is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Shape {
    pub route: &'static str,
    pub stream: bool,
}

pub const SHAPES: [Shape; 6] = [
    Shape { route: CHAT, stream: false },
    Shape { route: CHAT, stream: true },
    Shape { route: MESSAGES, stream: false },
    Shape { route: MESSAGES, stream: true },
    Shape { route: RESPONSES, stream: false },
    Shape { route: RESPONSES, stream: true },
];

/// The token counts that [`crate::shop::CHARGE`] is for.
pub const INPUT: &str = "20";
pub const OUTPUT: &str = "7";

impl Shape {
    pub fn is_chat(self) -> bool {
        self.route == CHAT
    }

    /// The last thing of a whole stream.
    pub fn terminator(self) -> &'static str {
        match self.route {
            CHAT => "[DONE]",
            MESSAGES => "message_stop",
            _ => "response.completed",
        }
    }

    /// Whether a broken stream of this form ends like a whole one, after an event that says that it is none.
    pub fn ends_with_its_words(self) -> bool {
        self.stream && self.route == RESPONSES
    }

    pub fn content_type(self) -> &'static str {
        if self.stream { "text/event-stream" } else { "application/json" }
    }

    /// A head with everything that says how the body ends left out.
    pub fn open_head(self) -> String {
        format!("HTTP/1.1 200 OK\r\ncontent-type: {}\r\n", self.content_type())
    }

    /// A `usage` object whose counts are `input` and `output`, written as they are.
    pub fn usage(self, input: &str, output: &str) -> String {
        match self.is_chat() {
            true => format!(r#"{{"prompt_tokens":{input},"completion_tokens":{output}}}"#),
            false => format!(r#"{{"input_tokens":{input},"output_tokens":{output}}}"#),
        }
    }

    pub fn good_usage(self) -> String {
        self.usage(INPUT, OUTPUT)
    }

    /// The whole body, reporting `usage` as it stands there; nothing where it is empty.
    pub fn body(self, usage: &str) -> String {
        if self.stream { self.events(usage).concat() } else { self.json(usage) }
    }

    fn json(self, usage: &str) -> String {
        let usage = if usage.is_empty() { String::new() } else { format!(r#","usage":{usage}"#) };
        let content = format!(r#"[{{"type":"text","text":"{ANSWER}"}}]"#);
        match self.route {
            CHAT => format!(r#"{{"choices":[{{"message":{{"role":"assistant","content":"{ANSWER}"}}}}]{usage}}}"#),
            MESSAGES => format!(r#"{{"type":"message","content":{content}{usage}}}"#),
            _ => format!(r#"{{"object":"response","output":[{{"type":"message","content":{content}}}]{usage}}}"#),
        }
    }

    /// The events of a stream, the terminator last.
    pub fn events(self, usage: &str) -> Vec<String> {
        match self.route {
            CHAT => chat_events(usage),
            MESSAGES => messages_events(usage),
            _ => responses_events(usage),
        }
    }
}

fn chat_events(usage: &str) -> Vec<String> {
    let said = ANSWER.split_inclusive(' ');
    let mut events: Vec<_> =
        said.map(|word| format!("data: {{\"choices\":[{{\"delta\":{{\"content\":\"{word}\"}}}}]}}\n\n")).collect();
    events.push("data: {\"choices\":[{\"delta\":{},\"finish_reason\":\"stop\"}]}\n\n".into());
    if !usage.is_empty() {
        events.push(format!("data: {{\"choices\":[],\"usage\":{usage}}}\n\n"));
    }
    events.push("data: [DONE]\n\n".into());
    events
}

fn messages_events(usage: &str) -> Vec<String> {
    let event = |name: &str, rest: &str| format!("event: {name}\ndata: {{\"type\":\"{name}\"{rest}}}\n\n");
    let usage = if usage.is_empty() { String::new() } else { format!(",\"usage\":{usage}") };
    let mut events = vec![event("message_start", &format!(",\"message\":{{\"content\":[]{usage}}}"))];
    let said = |word: &str| format!(",\"index\":0,\"delta\":{{\"type\":\"text_delta\",\"text\":\"{word}\"}}");
    events.extend(ANSWER.split_inclusive(' ').map(|word| event("content_block_delta", &said(word))));
    events.push(event("message_delta", &format!(",\"delta\":{{\"stop_reason\":\"end_turn\"}}{usage}")));
    events.push(event("message_stop", ""));
    events
}

/// Without their names, as some upstreams send them.
fn responses_events(usage: &str) -> Vec<String> {
    let event = |kind: &str, rest: &str| format!("data: {{\"type\":\"response.{kind}\",{rest}}}\n\n");
    let usage = if usage.is_empty() { String::new() } else { format!(",\"usage\":{usage}") };
    let mut events = vec![event("created", "\"response\":{\"output\":[],\"usage\":null}")];
    let said = |word: &str| format!("\"output_index\":0,\"delta\":\"{word}\"");
    events.extend(ANSWER.split_inclusive(' ').map(|word| event("output_text.delta", &said(word))));
    events.push(event("completed", &format!("\"response\":{{\"output\":[]{usage}}}")));
    events
}

/// `body` behind `head`, with its length.
pub fn sized(head: &str, body: &str) -> String {
    format!("{head}content-length: {}\r\n\r\n{body}", body.len())
}

/// `parts` behind `head`, one chunk each; the last chunk of all is up to the caller.
pub fn chunked(head: &str, parts: &[impl AsRef<str>]) -> String {
    let chunk = |part: &str| format!("{:x}\r\n{part}\r\n", part.len());
    format!("{head}transfer-encoding: chunked\r\n\r\n{}", parts.iter().map(|part| chunk(part.as_ref())).collect::<String>())
}

pub const LAST_CHUNK: &str = "0\r\n\r\n";

/// A good answer, as most upstreams send it.
pub fn good(shape: Shape) -> String {
    let body = shape.body(&shape.good_usage());
    match shape.stream {
        true => chunked(&shape.open_head(), &shape.events(&shape.good_usage())) + LAST_CHUNK,
        false => sized(&shape.open_head(), &body),
    }
}

/// An error answer with a body.
pub fn refusal(status: &str, content_type: &str, body: &str) -> String {
    sized(&format!("HTTP/1.1 {status}\r\ncontent-type: {content_type}\r\n"), body)
}

/// Sends `bytes`; a caller that left is no failure of the test.
pub fn say(stream: &mut TcpStream, bytes: &str) -> After {
    if stream.write_all(bytes.as_bytes()).is_ok() { After::Keep } else { After::Close }
}
