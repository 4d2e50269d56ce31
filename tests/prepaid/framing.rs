//! However an upstream frames its stream, the same words reach clients that read less of the standard than it allows.

use std::io::Write as _;
use std::net::TcpStream;

use farebox_rig::anvil::BUYER;
use farebox_rig::provider::{After, Provider, Received};
use farebox_rig::sdk::Sdk;
use farebox_rig::server::Settings;
use serde_json::{Value, json};

use crate::shop::{CHARGE, Shop, params, params_with, step, values};

/// Bytes of every length that UTF-8 has.
const WORDS: [&str; 3] = ["h\u{e9}llo ", "\u{20ac} ", "\u{1f4b6}"];

/// One way of writing the same events, and its name in the prompt.
struct Framing {
    name: &'static str,
    /// Makes a stream of the payloads of its events.
    write: fn(&[String]) -> String,
    /// Bytes that are written at once.
    piece: usize,
}

const FRAMINGS: [Framing; 8] = [
    Framing { name: "usual", write: |events| lines(events, "data: ", "\n\n"), piece: 4096 },
    Framing { name: "torn", write: |events| lines(events, "data: ", "\n\n"), piece: 1 },
    Framing { name: "no-space", write: |events| lines(events, "data:", "\n\n"), piece: 4096 },
    Framing { name: "crlf", write: |events| lines(events, "data: ", "\r\n\r\n"), piece: 7 },
    Framing { name: "cr", write: |events| lines(events, "data: ", "\r\r"), piece: 4096 },
    Framing {
        name: "fields",
        write: |events| lines(events, ": ping\n\nid: 7\nretry: 9\nevent: message\ndata: ", "\n\n"),
        piece: 4096,
    },
    Framing { name: "mark", write: |events| format!("\u{feff}{}", lines(events, "data: ", "\n\n")), piece: 4096 },
    Framing { name: "no-last-line-end", write: |events| lines(events, "data: ", "\n\n").trim_end().to_owned(), piece: 4096 },
];

fn lines(events: &[String], before: &str, after: &str) -> String {
    events.iter().map(|event| format!("{before}{event}{after}")).collect()
}

/// Answers in the way that the prompt names, and reports 20 tokens in and 7 out.
fn answer(received: &Received, stream: &mut TcpStream) -> After {
    let asked = |framing: &&Framing| received.text.contains(&format!("framing={};", framing.name));
    let framing = FRAMINGS.iter().find(asked).expect("the prompt names a framing");
    let mut events: Vec<String> =
        WORDS.iter().map(|word| json!({ "choices": [{ "delta": { "content": word } }] }).to_string()).collect();
    events.push(json!({ "choices": [{ "delta": {}, "finish_reason": "stop" }] }).to_string());
    events.push(json!({ "choices": [], "usage": { "prompt_tokens": 20, "completion_tokens": 7 } }).to_string());
    events.push("[DONE]".to_owned());
    let body = (framing.write)(&events);
    let mut said = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_vec();
    for piece in body.as_bytes().chunks(framing.piece) {
        said.extend_from_slice(format!("{:x}\r\n", piece.len()).as_bytes());
        said.extend_from_slice(piece);
        said.extend_from_slice(b"\r\n");
    }
    said.extend_from_slice(b"0\r\n\r\n");
    if stream.write_all(&said).is_ok() { After::Keep } else { After::Close }
}

#[test]
fn every_framing_brings_the_same_words_at_the_same_charge() {
    let provider = Provider::start(answer);
    let mut shop = Shop::with(8453, Settings { upstream_url: Some(provider.url()), ..Settings::default() });
    let key = shop.buyer_with_key();
    let url = shop.server.url();
    let prompt = |framing: &Framing| format!("framing={};", framing.name);
    let steps: Vec<_> = FRAMINGS.iter().map(|framing| step("chatStream", params(&prompt(framing)))).collect();
    let heard = Sdk::Venice.perform(&[("BASE_URL", &url), ("PRIVATE_KEY", BUYER.key)], &steps);
    for (framing, pieces) in FRAMINGS.iter().zip(values(&heard)) {
        assert_eq!(pieces, &json!(WORDS), "venice-x402-client, {}", framing.name);
    }
    let streamed = |framing: &Framing| step("create", params_with(&prompt(framing), json!({ "stream": true })));
    let steps: Vec<_> = FRAMINGS.iter().map(streamed).collect();
    for sdk in [Sdk::OpenAiNode, Sdk::OpenAiPython] {
        let heard = sdk.perform(&[("BASE_URL", &url), ("API_KEY", &key.text)], &steps);
        for (framing, outcome) in FRAMINGS.iter().zip(values(&heard)) {
            assert_eq!(
                (&outcome["text"], &outcome["finish"]),
                (&Value::from(WORDS.concat()), &"stop".into()),
                "{sdk:?}, {}",
                framing.name
            );
        }
    }
    assert_eq!(provider.requests().len(), 3 * FRAMINGS.len(), "nobody asked twice");
    shop.close(&[CHARGE; 3 * FRAMINGS.len()]);
}
