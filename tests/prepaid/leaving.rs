//! A caller with a key that hangs up at any event of a stream: the upstream is let go at once, what passed is charged, the rest is back.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::{Duration, Instant};

use farebox_rig::account::Key;
use farebox_rig::anvil::BUYER;
use farebox_rig::http::{self, Request};
use farebox_rig::provider::{After, Provider, Received, wait_gone};
use farebox_rig::server::Settings;
use serde_json::json;

use crate::shop::{CHAT, RESPONSES, Shop, asked_with, params_with};

/// Far more than the milliseconds it takes, and far less than any timer that could end the call instead.
const SOON: Duration = Duration::from_secs(10);
const LAST: usize = 20;
/// Micros per token of the answer, and for the 20 tokens of input that upstreams here report.
const TOKEN: i64 = 15;
const REPORTED_INPUT: i64 = 20 * 3;

/// What the upstream says about usage while it streams.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Usage {
    /// Nothing before the end, as OpenAI does.
    AtTheEnd,
    /// What was used so far, with every event, as vLLM does; far more than the text looks like.
    Running,
    /// The input at the beginning, as Anthropic does.
    InputFirst,
    /// Nothing before the end, as OpenAI does on responses.
    WithTheResponse,
}
use Usage::{AtTheEnd, InputFirst, Running, WithTheResponse};

impl Usage {
    fn route(self) -> &'static str {
        match self {
            AtTheEnd | Running => CHAT,
            InputFirst => "/v1/messages",
            WithTheResponse => RESPONSES,
        }
    }

    fn body(self, directive: &str) -> String {
        let stream = json!({ "stream": true });
        let body = if self == WithTheResponse { asked_with(directive, stream) } else { params_with(directive, stream) };
        body.to_string()
    }

    /// The event of this number, from 1; each but the first of [`InputFirst`] brings one word.
    fn event(self, number: usize) -> String {
        let word = r#""w ""#;
        match self {
            AtTheEnd => format!("data: {{\"choices\":[{{\"delta\":{{\"content\":{word}}}}}]}}\n\n"),
            Running => format!(
                "data: {{\"choices\":[{{\"delta\":{{\"content\":{word}}}}}],\"usage\":{{\"prompt_tokens\":20,\"completion_tokens\":{}}}}}\n\n",
                10 * number
            ),
            WithTheResponse => format!("data: {{\"type\":\"response.output_text.delta\",\"delta\":{word}}}\n\n"),
            InputFirst if number == 1 => "event: message_start\ndata: {\"type\":\"message_start\",\"message\":{\"content\":[],\
                \"usage\":{\"input_tokens\":20,\"output_tokens\":1}}}\n\n"
                .to_owned(),
            InputFirst => format!(
                "event: content_block_delta\ndata: {{\"type\":\"content_block_delta\",\"index\":0,\"delta\":\
                 {{\"type\":\"text_delta\",\"text\":{word}}}}}\n\n"
            ),
        }
    }

    /// What `passed` events cost, in micros, when a prompt that nobody counted costs `prompt`.
    fn owed(self, passed: usize, prompt: i64) -> i64 {
        let passed = i64::try_from(passed).unwrap();
        match self {
            _ if passed == 0 => prompt,
            AtTheEnd | WithTheResponse => prompt + passed * TOKEN,
            Running => REPORTED_INPUT + 10 * passed * TOKEN,
            InputFirst => REPORTED_INPUT + (passed - 1).max(1) * TOKEN,
        }
    }
}

/// How the upstream goes on after the event at which its caller will leave.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Then {
    Silence,
    /// An event every five milliseconds.
    Chatter,
}

/// When an upstream lost its caller, and how many events it had written until then.
struct Gone {
    at: Instant,
    written: usize,
}

/// Writes as many events as the prompt says (`at=07`), then goes on as `then` says until its caller is gone.
fn upstream(usage: Usage, then: Then) -> (Provider, Receiver<Gone>) {
    let (sender, gone) = mpsc::channel();
    let provider = Provider::start(move |received, stream| answer(received, stream, usage, then, &sender));
    (provider, gone)
}

fn answer(received: &Received, stream: &mut TcpStream, usage: Usage, then: Then, sender: &Sender<Gone>) -> After {
    let (_, rest) = received.text.split_once("at=").expect("the prompt says when its caller leaves");
    let leaves_at: usize = rest[..2].parse().expect("two digits");
    let mut said = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n".to_owned();
    (1..=leaves_at).for_each(|number| said.push_str(&chunk(&usage.event(number))));
    stream.write_all(said.as_bytes()).expect("the caller is there");
    let talking = (then == Then::Chatter).then(|| {
        let mut stream = stream.try_clone().expect("a socket can be cloned");
        thread::spawn(move || {
            let more = (leaves_at + 1..).find(|number| {
                thread::sleep(Duration::from_millis(5));
                stream.write_all(chunk(&usage.event(*number)).as_bytes()).is_err()
            });
            more.unwrap_or_default()
        })
    });
    wait_gone(stream);
    let at = Instant::now();
    let written = talking.map_or(leaves_at, |thread| thread.join().expect("it only writes"));
    // The test may have failed in the meantime.
    let _ = sender.send(Gone { at, written });
    After::Close
}

fn chunk(event: &str) -> String {
    format!("{:x}\r\n{event}\r\n", event.len())
}

/// A call whose caller left.
struct Left {
    request: String,
    passed: usize,
    gone: Gone,
}

/// Asks with a key, reads `events` events, hangs up, and waits until the upstream was let go.
fn leave(shop: &Shop, key: &Key, usage: Usage, events: usize, gone: &Receiver<Gone>) -> Left {
    let body = usage.body(&format!("at={events:02}"));
    let request = Request::post(usage.route(), body).header("authorization", &format!("Bearer {}", key.text));
    let mut stream = http::open(shop.server.address(), &request).unwrap();
    assert_eq!(stream.status, 200, "{usage:?} at {events}");
    let request = stream.header("x-request-id").expect("every answer has an id").to_owned();
    let mut seen = String::new();
    while seen.lines().filter(|line| line.starts_with("data: ")).count() < events {
        let chunk = stream.next_chunk().unwrap_or_else(|| panic!("{usage:?} ended before event {events}: {seen}"));
        seen.push_str(&String::from_utf8_lossy(&chunk));
    }
    let left = Instant::now();
    drop(stream);
    let gone = gone.recv_timeout(Duration::from_secs(60)).expect("the upstream is let go");
    let took = gone.at.saturating_duration_since(left);
    assert!(took < SOON, "{usage:?} at {events}: the upstream was let go after {took:?}");
    Left { request, passed: events, gone }
}

/// Leaves at every event from none to the last, one call after the other.
fn leave_everywhere(usage: Usage, then: Then) -> (Shop, Vec<Left>) {
    let (provider, gone) = upstream(usage, then);
    let mut shop = Shop::with(8453, Settings { upstream_url: Some(provider.url()), ..Settings::default() });
    let key = shop.buyer_with_key();
    let left: Vec<_> = (0..=LAST).map(|events| leave(&shop, &key, usage, events, &gone)).collect();
    assert_eq!(provider.requests().len(), left.len(), "nobody asked again");
    shop.wait_charged(left.len());
    (shop, left)
}

fn pays_for_what_passed(usage: Usage) {
    let (shop, left) = leave_everywhere(usage, Then::Silence);
    let statement = shop.account(BUYER).statement();
    let prompt = statement.charge(&left[0].request);
    assert!(prompt > 0 && prompt < 100 * 3, "a prompt of a few words: {prompt}");
    for call in &left {
        let charge = statement.charge(&call.request);
        assert_eq!(charge, usage.owed(call.passed, prompt), "{usage:?} after {} events", call.passed);
    }
    shop.close(&left.iter().map(|call| usage.owed(call.passed, prompt)).collect::<Vec<_>>());
}

#[test]
fn without_any_usage_what_passed_is_counted_by_us() {
    pays_for_what_passed(AtTheEnd);
}

#[test]
fn of_a_response_what_passed_is_counted_by_us() {
    pays_for_what_passed(WithTheResponse);
}

#[test]
fn running_usage_is_charged_as_it_was_last_reported() {
    pays_for_what_passed(Running);
}

#[test]
fn input_that_was_reported_at_the_beginning_is_charged_as_reported_and_the_words_are_counted() {
    pays_for_what_passed(InputFirst);
}

#[test]
fn an_upstream_that_goes_on_talking_is_let_go_as_soon_and_at_most_what_it_said_is_charged() {
    for usage in [AtTheEnd, InputFirst, WithTheResponse] {
        let (shop, left) = leave_everywhere(usage, Then::Chatter);
        let statement = shop.account(BUYER).statement();
        let charges: Vec<_> = left.iter().map(|call| statement.charge(&call.request)).collect();
        for (call, charge) in left.iter().zip(&charges) {
            let prompt = 100 * 3;
            let (least, most) = (usage.owed(call.passed, 0), usage.owed(call.gone.written, prompt).max(prompt));
            assert!((least..=most).contains(charge), "{usage:?} after {}: {charge}, not {least} to {most}", call.passed);
        }
        shop.close(&charges);
    }
}
