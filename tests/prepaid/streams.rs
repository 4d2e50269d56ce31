//! Streams from a balance: a hold that grows with the answer, its end when nothing is left or the key is revoked, the exact charge.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::{Duration, Instant};

use farebox_rig::account::Key;
use farebox_rig::anvil::BUYER;
use farebox_rig::http::{self, Request, Stream};
use farebox_rig::provider::{After, Provider, wait_gone};
use farebox_rig::server::Settings;
use serde_json::{Value, json};

use crate::shop::{CHAT, FIVE, Shop, params, params_with};

/// Half a dollar, in micros.
const HALF: u64 = 500_000;
/// What each event of [`counting`] says that it brought; micros for each token of the answer and for the input.
const TOKENS: u64 = 1000;
const PRICE: u64 = 15;
const INPUT: u64 = 20 * 3;
/// Long enough for a machine that does much else; far shorter than the time limit of a call.
const SOON: Duration = Duration::from_secs(20);

/// An upstream that brings a word with every event and reports a thousand tokens for each as it goes, so many in all; then
/// it is silent if it is told to hang. Tells when its caller is gone.
pub fn counting(events: u64, hang: bool) -> (Provider, Receiver<Instant>) {
    let (sender, gone) = mpsc::channel();
    let provider = Provider::start(move |received, stream| {
        if !received.body().contains("\"stream\":true") {
            wait_gone(stream);
            let _ = sender.send(Instant::now());
            return After::Close;
        }
        let written = write_events(stream, events);
        if written && !hang && stream.write_all(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n").is_ok() {
            return After::Keep;
        }
        wait_gone(stream);
        // The test may have failed in the meantime.
        let _ = sender.send(Instant::now());
        After::Close
    });
    (provider, gone)
}

fn write_events(stream: &mut TcpStream, events: u64) -> bool {
    let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
    if stream.write_all(head.as_bytes()).is_err() {
        return false;
    }
    (1..=events).all(|number| {
        let usage = json!({ "prompt_tokens": 20, "completion_tokens": TOKENS * number });
        let event = format!("data: {}\n\n", json!({ "choices": [{ "delta": { "content": "w " } }], "usage": usage }));
        stream.write_all(format!("{:x}\r\n{event}\r\n", event.len()).as_bytes()).is_ok()
    })
}

pub fn shop(provider: &Provider, hold_output: u64) -> Shop {
    let prepaid = vec![format!("hold_output = {hold_output}"), "top_up_minimum = \"0.10\"".into()];
    Shop::with(8453, Settings { upstream_url: Some(provider.url()), prepaid, ..Settings::default() })
}

/// A request for a stream that may have as many tokens as the model gives: about a dollar's worth.
pub fn long(key: &Key) -> Request {
    let body = params_with("", json!({ "stream": true, "max_tokens": 128_000 })).to_string();
    Request::post(CHAT, body).header("authorization", &format!("Bearer {}", key.text))
}

/// All data lines of a stream, and whether it ended as HTTP says.
pub fn read(mut stream: Stream) -> (Vec<Value>, bool) {
    let mut text = String::new();
    while let Some(chunk) = stream.next_chunk() {
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    let lines = text.lines().filter_map(|line| line.strip_prefix("data: "));
    (lines.map(|line| serde_json::from_str(line).unwrap_or(json!(line))).collect(), stream.complete)
}

fn words(events: &[Value]) -> u64 {
    events.iter().filter(|event| event["choices"][0]["delta"]["content"] == "w ").count() as u64
}

fn of(words: u64) -> i64 {
    i64::try_from(INPUT + words * TOKENS * PRICE).unwrap()
}

#[test]
fn a_stream_with_an_absurd_limit_begins_with_a_small_hold_and_is_charged_to_the_micro() {
    let (provider, _gone) = counting(30, false);
    let mut shop = shop(&provider, 4096);
    shop.top_up(BUYER, HALF);
    let key = shop.mint(BUYER, &json!({ "name": "k" }));
    let unstreamed = params_with("", json!({ "max_tokens": 128_000 })).to_string();
    let unstreamed = Request::post(CHAT, unstreamed).header("x-api-key", &key.text);
    assert_eq!(shop.server.send(&unstreamed).status, 402, "an answer in one piece holds all that it may cost");
    assert_eq!(provider.requests().len(), 0);

    let stream = http::open(shop.server.address(), &long(&key)).unwrap();
    let left: u64 = stream.header("x-balance-remaining").unwrap().replace('.', "").parse().unwrap();
    let held = HALF - left;
    assert!((4096 * PRICE..4096 * PRICE + 2000).contains(&held), "the prompt and a first step of the answer: {held}");
    let (events, complete) = read(stream);
    assert!(complete && events.last() == Some(&json!("[DONE]")), "{events:?}");
    assert_eq!(words(&events), 30, "30,000 tokens, more than seven steps");
    shop.wait_charged(1);
    assert_eq!(shop.account(BUYER).statement().of("CHARGE"), [-of(30)]);
    shop.close(&[of(30)]);
}

#[test]
fn a_stream_ends_with_the_balance_and_costs_what_passed() {
    for hold_output in [1, 500, 4096, 100_000] {
        let (provider, gone) = counting(100, true);
        let mut shop = shop(&provider, hold_output);
        shop.top_up(BUYER, HALF);
        let key = shop.mint(BUYER, &json!({ "name": "k" }));
        if hold_output == 100_000 {
            // What is held at first is the whole quote here, as if there were no steps.
            assert_eq!(shop.server.send(&long(&key)).status, 402);
            shop.close(&[]);
            continue;
        }
        let (events, complete) = read(http::open(shop.server.address(), &long(&key)).unwrap());
        gone.recv_timeout(SOON).expect("the upstream is let go");
        assert!(!complete, "a part never looks like the whole");
        let last = &events.last().unwrap()["error"];
        assert_eq!((&last["code"], &last["type"]), (&json!("insufficient_balance"), &json!("insufficient_quota")), "{last}");
        // Half a dollar buys 33 events and the input; not one more was delivered, and not one less.
        assert_eq!(words(&events), (HALF - INPUT) / (TOKENS * PRICE));
        shop.wait_charged(1);
        assert_eq!(shop.account(BUYER).statement().of("CHARGE"), [-of(33)]);
        assert_eq!(shop.account(BUYER).available(), i64::try_from(HALF).unwrap() - of(33), "the rest is back");
        shop.close(&[of(33)]);
    }
}

#[test]
fn a_stream_ends_with_the_limit_of_its_key_and_the_balance_stays() {
    let (provider, gone) = counting(100, true);
    let mut shop = shop(&provider, 1000);
    shop.top_up(BUYER, FIVE);
    let key = shop.mint(BUYER, &json!({ "name": "k", "spend_limit_usd": "0.2" }));
    let (events, complete) = read(http::open(shop.server.address(), &long(&key)).unwrap());
    gone.recv_timeout(SOON).expect("the upstream is let go");
    assert!(!complete);
    assert_eq!(events.last().unwrap()["error"]["code"], "spend_limit_exceeded", "{:?}", events.last());
    assert_eq!(words(&events), 13, "0.2 dollars buy 13 events and the input");
    shop.wait_charged(1);
    assert_eq!(shop.account(BUYER).available(), i64::try_from(FIVE).unwrap() - of(13));
    shop.close(&[of(13)]);
}

#[test]
fn tokens_that_nobody_saw_until_the_end_are_charged_as_far_as_there_is_money_and_never_above_the_hold() {
    // As with hidden reasoning: two words, and a report of 20,000 tokens in the last event but one.
    let provider = Provider::start(|_, stream| {
        let word = json!({ "choices": [{ "delta": { "content": "w " } }] });
        let report = json!({ "choices": [], "usage": { "prompt_tokens": 20, "completion_tokens": 20_000 } });
        let events = format!("data: {word}\n\ndata: {word}\n\ndata: {report}\n\ndata: [DONE]\n\n");
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let said = format!("{head}{:x}\r\n{events}\r\n0\r\n\r\n", events.len());
        if stream.write_all(said.as_bytes()).is_ok() { After::Keep } else { After::Close }
    });
    let mut shop = shop(&provider, 4096);
    shop.top_up(BUYER, HALF);
    let key = shop.mint(BUYER, &json!({ "name": "k" }));
    let whole = i64::try_from(INPUT + 20_000 * PRICE).unwrap();
    let (events, complete) = read(http::open(shop.server.address(), &long(&key)).unwrap());
    assert!(complete && events.last() == Some(&json!("[DONE]")), "{events:?}");
    shop.wait_charged(1);
    assert_eq!(shop.account(BUYER).statement().of("CHARGE"), [-whole]);
    let left = i64::try_from(HALF).unwrap() - whole;
    let (events, complete) = read(http::open(shop.server.address(), &long(&key)).unwrap());
    assert_eq!(events.last().unwrap()["error"]["code"], "insufficient_balance", "{events:?}");
    assert!(!complete);
    shop.wait_charged(2);
    assert_eq!(shop.account(BUYER).statement().of("CHARGE"), [-whole, -left], "all there was, and no more");
    assert_eq!(shop.account(BUYER).available(), 0);
    shop.close(&[whole, left]);
}

/// Waits for `stream` to bring so many words.
pub fn wait_words(stream: &mut Stream, count: usize) {
    let mut seen = String::new();
    while seen.matches("\"w \"").count() < count {
        seen.push_str(&String::from_utf8_lossy(&stream.next_chunk().expect("the stream goes on")));
    }
}

#[test]
fn a_revoked_key_ends_its_streams_at_once_and_nobody_elses() {
    let (provider, gone) = counting(3, true);
    let mut shop = shop(&provider, 4096);
    shop.top_up(BUYER, FIVE);
    let (key, other) = (shop.mint(BUYER, &json!({ "name": "lost" })), shop.mint(BUYER, &json!({ "name": "other" })));
    let mut streams: Vec<_> =
        [&key, &key, &other].map(|key| http::open(shop.server.address(), &long(key)).unwrap()).into_iter().collect();
    streams.iter_mut().for_each(|stream| wait_words(stream, 3));
    // One more that has no head yet.
    let (address, unstreamed) = (shop.server.address().to_owned(), params("").to_string());
    let unstreamed = Request::post(CHAT, unstreamed).header("x-api-key", &key.text);
    let waiting = thread::spawn(move || http::send(&address, &unstreamed).unwrap());
    farebox_rig::process::eventually("the upstream has all calls", || provider.requests().len() == 4);
    shop.account(BUYER).revoke(&key);
    let revoked = Instant::now();
    for _ in 0..3 {
        let at = gone.recv_timeout(SOON).expect("its upstream calls are closed");
        assert!(at.saturating_duration_since(revoked) < SOON);
    }
    let kept = streams.pop().unwrap();
    for stream in streams {
        let (events, complete) = read(stream);
        assert!(!complete, "a part never looks like the whole");
        assert_eq!(events.last().unwrap()["error"]["code"], "key_revoked", "{events:?}");
    }
    let answer = waiting.join().unwrap();
    assert_eq!((answer.status, answer.code().as_str()), (401, "key_revoked"), "{}", answer.text());
    assert_eq!(shop.server.send(&long(&key)).code(), "key_revoked", "and it buys nothing more");
    shop.wait_charged(2);
    assert_eq!(shop.account(BUYER).statement().of("CHARGE"), [-of(3), -of(3)], "what passed is charged, the rest is back");
    drop(kept);
    gone.recv_timeout(SOON).expect("the other stream went on until its caller left");
    shop.wait_charged(3);
    assert_eq!(provider.requests().len(), 4);
    shop.close(&[of(3); 3]);
}

#[test]
fn a_stream_of_messages_that_runs_out_of_money_says_so_in_its_own_dialect() {
    let provider = Provider::start(|_, stream| {
        let start =
            json!({ "type": "message_start", "message": { "content": [], "usage": { "input_tokens": 20, "output_tokens": 1 } } });
        let word =
            json!({ "type": "content_block_delta", "index": 0, "delta": { "type": "text_delta", "text": "w ".repeat(8000) } });
        let mut events = format!("event: message_start\ndata: {start}\n\n");
        (0..100).for_each(|_| events.push_str(&format!("event: content_block_delta\ndata: {word}\n\n")));
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let _ = stream.write_all(format!("{head}{:x}\r\n{events}\r\n", events.len()).as_bytes());
        wait_gone(stream);
        After::Close
    });
    let mut shop = shop(&provider, 1000);
    shop.top_up(BUYER, HALF);
    let key = shop.mint(BUYER, &json!({ "name": "k" }));
    let body = params_with("", json!({ "stream": true, "max_tokens": 64_000 })).to_string();
    let request = Request::post("/v1/messages", body).header("x-api-key", &key.text);
    let (events, complete) = read(http::open(shop.server.address(), &request).unwrap());
    let last = events.last().unwrap();
    assert_eq!((&last["type"], &last["error"]["type"]), (&json!("error"), &json!("billing_error")), "{last}");
    assert_eq!(last["error"]["code"], "insufficient_balance");
    assert!(!complete);
    // 16,000 letters are 4,000 tokens by our count: half a dollar buys 8 such events.
    let passed = events.iter().filter(|event| event["type"] == "content_block_delta").count();
    assert_eq!(passed, 8);
    shop.wait_charged(1);
    let charge = 60 + 8 * 4000 * 15;
    assert_eq!(shop.account(BUYER).statement().of("CHARGE"), [-charge]);
    shop.close(&[charge]);
}
