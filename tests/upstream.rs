//! Promises about calls to upstreams: kept against a real HTTP server that misbehaves on request, and raw sockets that do worse.

#[path = "upstream/several.rs"]
mod several;

use std::future::ready;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use farebox::account::AccountId;
use farebox::catalogue::Serving;
use farebox::config::{Failover, Secret, Speaks, Upstream, UpstreamKind};
use farebox::dialect::{Dialect, Goods, LimitField, Meter, Metered, Pass, Request, Splitter};
use farebox::error::{Code, Error};
use farebox::ids::{Funds, RequestId};
use farebox::money::Micros;
use farebox::upstream::{Answer, Broken, Call, Health, Upstreams};
use farebox_rig::upstream::{UPSTREAM_KEY as KEY, Upstream as FakeUpstream};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::Instant;

/// Stands for a call of these tests; the name of its request is its lot.
struct TestFunds(u128);

impl Funds for TestFunds {
    fn request(&self) -> RequestId {
        RequestId(self.0)
    }

    fn ceiling(&self) -> Micros {
        Micros::ONE
    }
}

/// Waits until the outcome of the last request is known.
async fn outcome(fake: &FakeUpstream) -> String {
    for _ in 0..1000 {
        if let Some(outcome) = fake.calls().last().and_then(|last| last["outcome"].as_str()) {
            return outcome.to_owned();
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    "none".into()
}

/// Serves raw connections, one thread each, and counts them.
fn raw(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> (String, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (serve, count) = (Arc::new(serve), Arc::new(AtomicUsize::new(0)));
    let counted = count.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let (serve, n) = (serve.clone(), counted.fetch_add(1, Ordering::SeqCst));
            std::thread::spawn(move || serve(stream, n));
        }
    });
    (url, count)
}

/// Reads one request head and its body; `None` at the end of the connection.
fn read_request(stream: &mut TcpStream) -> Option<String> {
    let mut request = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let read = stream.read(&mut buffer).ok().filter(|read| *read > 0)?;
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).to_lowercase();
        let Some((head, body)) = text.split_once("\r\n\r\n") else { continue };
        let length = head.lines().find_map(|line| line.strip_prefix("content-length: ")?.parse().ok()).unwrap_or(0);
        if body.len() >= length {
            return Some(text);
        }
    }
}

fn http_upstream(name: &str, url: &str) -> Upstream {
    let api_key = Some(Secret::from(KEY.to_owned()));
    let (base_url, limit_field, media_hosts) = (url.into(), LimitField::MaxTokens, Vec::new());
    let kind = UpstreamKind::Http { base_url, api_key, ca_file: None, limit_field, media_hosts };
    Upstream { name: name.into(), kind, speaks: vec![Speaks::Chat, Speaks::Messages] }
}

fn configured(urls: &[&str]) -> (Vec<Upstream>, Vec<Serving>) {
    let named = |(n, url): (usize, &&str)| http_upstream(&format!("up{n}"), url);
    let configured: Vec<_> = urls.iter().enumerate().map(named).collect();
    let serving =
        |one: &Upstream| Serving { upstream: one.name.clone(), model: format!("{}/m", one.name), weight: None, cost: None };
    let servings = configured.iter().map(serving).collect();
    (configured, servings)
}

/// Upstreams that are asked however often they fail.
fn upstreams(urls: &[&str]) -> (Upstreams, Vec<Serving>) {
    let (configured, servings) = configured(urls);
    let health = Health::new(&configured, Failover { failures: 0, ..Failover::default() });
    (Upstreams::sharing(&configured, health).unwrap(), servings)
}

fn prompt(dialect: Dialect, stream: bool, text: &str) -> String {
    let mut body = json!({"model": "m", "stream": stream, "messages": [{"role": "user", "content": text}]});
    if dialect == Dialect::Messages {
        body["max_tokens"] = 100.into();
    }
    body.to_string()
}

struct Sent {
    dialect: Dialect,
    stream: bool,
    body: String,
    within: Duration,
    headers: Vec<(String, String)>,
}

fn call(dialect: Dialect, stream: bool, text: &str) -> Sent {
    Sent { dialect, stream, body: prompt(dialect, stream, text), within: Duration::from_secs(10), headers: Vec::new() }
}

impl Sent {
    async fn to(&self, urls: &[&str]) -> Result<Answer, Error> {
        let (upstreams, servings) = upstreams(urls);
        self.through(&upstreams, &servings).await
    }

    async fn through(&self, upstreams: &Upstreams, servings: &[Serving]) -> Result<Answer, Error> {
        self.with_lot(7, upstreams, servings).await
    }

    async fn with_lot(&self, lot: u128, upstreams: &Upstreams, servings: &[Serving]) -> Result<Answer, Error> {
        self.of((lot, 1), upstreams, servings).await
    }

    /// With a lot, by one of many accounts.
    async fn of(&self, (lot, number): (u128, u8), upstreams: &Upstreams, servings: &[Serving]) -> Result<Answer, Error> {
        let request = Request::read(self.dialect, self.body.as_bytes()).unwrap();
        let call = Call {
            account: AccountId::Evm([number; 20]),
            servings,
            goods: Goods::Words(self.dialect),
            content_type: "application/json".into(),
            body: &|_form, model, field| Box::pin(ready(Ok(request.forward(model, 100, field)))),
            headers: &self.headers,
            query: Some("beta=true"),
            stream: self.stream,
            deadline: Instant::now() + self.within,
        };
        upstreams.send(&TestFunds(lot), call).await
    }

    async fn refused_by(&self, urls: &[&str]) -> Error {
        self.to(urls).await.expect_err("the call must fail")
    }

    /// Reads an answer to its end as the gateway does.
    async fn read(&self, mut answer: Answer) -> Read {
        let mut meter = Meter::new(self.dialect, self.stream, false, 1000);
        let (mut splitter, mut passed, mut broken) = (Splitter::new(), Vec::new(), None);
        while let Some(chunk) = answer.body.next().await {
            match chunk {
                Ok(chunk) if self.stream => {
                    for event in splitter.push(chunk) {
                        let event = event.unwrap();
                        if let Pass::Forward | Pass::Done = meter.event(&event) {
                            passed.extend_from_slice(&event.bytes);
                        }
                    }
                }
                Ok(chunk) => {
                    meter.chunk(&chunk);
                    passed.extend_from_slice(&chunk);
                }
                Err(error) => broken = Some(error),
            }
        }
        let text = String::from_utf8_lossy(&passed).into_owned();
        Read { text, complete: meter.complete(), metered: meter.usage(), output: meter.has_output(), broken }
    }
}

struct Read {
    text: String,
    complete: bool,
    output: bool,
    metered: Metered,
    broken: Option<Broken>,
}

const BOTH: [Dialect; 2] = [Dialect::Chat, Dialect::Messages];

fn header<'a>(request: &'a Value, name: &str) -> Option<&'a str> {
    let headers = request["headers"].as_array()?;
    headers.iter().find(|header| header[0].as_str().is_some_and(|found| found.eq_ignore_ascii_case(name)))?[1].as_str()
}

#[actix_web::test]
async fn an_answer_comes_whole_and_with_its_usage() {
    let fake = FakeUpstream::start();
    for (dialect, stream) in BOTH.into_iter().flat_map(|dialect| [(dialect, false), (dialect, true)]) {
        for behaviour in ["words=20", "words=20 split=1", "words=20 crlf=1 bom=1 comment=2", "words=20 flush=1"] {
            let sent = call(dialect, stream, &format!("<<fake in=500 out=20 cached=100 {behaviour}>>"));
            let answer = sent.to(&[&fake.url()]).await.unwrap();
            assert_eq!(answer.content_type, if stream { "text/event-stream" } else { "application/json" });
            let read = sent.read(answer).await;
            assert!(read.complete && read.output && read.broken.is_none(), "{dialect:?} {stream} {behaviour}");
            let usage = read.metered.usage;
            let input = if dialect == Dialect::Chat { 400 } else { 500 };
            assert_eq!((usage.input, usage.output, usage.cache_read), (input, 20, 100), "{dialect:?} {stream} {behaviour}");
            assert!(!read.metered.estimated && read.text.contains("w19") && !read.text.contains('\r'));
        }
    }
}

#[actix_web::test]
async fn the_operators_key_goes_up_and_the_callers_secrets_do_not() {
    let fake = FakeUpstream::start();
    for dialect in BOTH {
        let mut sent = call(dialect, false, "hi");
        let pairs = [
            ("authorization", "Bearer sk-x402-caller"),
            ("x-api-key", "sk-x402-caller"),
            ("payment-signature", "caller"),
            ("x-session-affinity", "kept"),
            ("anthropic-beta", "context-1m-2025-08-07,claude-code-20250219"),
            ("accept-encoding", "gzip"),
        ];
        sent.headers = pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).to_vec();
        sent.to(&[&fake.url()]).await.unwrap();
        let log = fake.calls();
        let request = log.last().unwrap();
        assert!(!request["headers"].to_string().contains("caller"), "{}", request["headers"]);
        assert_eq!(header(request, "x-session-affinity"), Some("kept"));
        assert_eq!(header(request, "anthropic-beta"), Some("claude-code-20250219"));
        assert_eq!(header(request, "accept-encoding"), Some("identity"));
        assert_eq!(header(request, "content-type"), Some("application/json"));
        assert!(header(request, "content-length").is_some() && header(request, "transfer-encoding").is_none());
        assert_eq!((&request["path"], &request["query"]), (&json!(dialect.path()), &json!("beta=true")));
        assert_eq!(request["body"]["model"], "up0/m");
        match dialect {
            Dialect::Chat | Dialect::Responses => assert_eq!(header(request, "authorization"), Some(&*format!("Bearer {KEY}"))),
            Dialect::Messages => {
                assert_eq!((header(request, "x-api-key"), header(request, "authorization")), (Some(KEY), None));
                assert_eq!(header(request, "anthropic-version"), Some("2023-06-01"));
            }
        }
    }
    let mut sent = call(Dialect::Messages, false, "hi");
    sent.headers = vec![("anthropic-version".into(), "2026-10-21".into())];
    sent.to(&[&fake.url()]).await.unwrap();
    assert_eq!(header(fake.calls().last().unwrap(), "anthropic-version"), Some("2026-10-21"), "the caller's, not ours");
}

#[actix_web::test]
async fn a_cut_stream_is_never_taken_for_a_whole_one() {
    let fake = FakeUpstream::start();
    for (dialect, mode) in BOTH.into_iter().flat_map(|dialect| ["fin", "rst", "eof"].map(|mode| (dialect, mode))) {
        let sent = call(dialect, true, &format!("<<fake words=50 cut=20 cut_mode={mode}>>"));
        let answer = sent.to(&[&fake.url()]).await.unwrap();
        let read = sent.read(answer).await;
        assert!(!read.complete, "{dialect:?} {mode}");
        if mode != "rst" {
            assert!(read.output && read.metered.usage.output >= 10, "{dialect:?} {mode}: what passed is owed");
            assert!(read.metered.estimated);
        }
    }
    let sent = call(Dialect::Chat, true, "<<fake words=5 nodone=1>>");
    let answer = sent.to(&[&fake.url()]).await.unwrap();
    assert!(!sent.read(answer).await.complete, "no [DONE], no complete answer");
}

#[actix_web::test]
async fn a_cut_body_is_never_taken_for_a_whole_one() {
    let (fake, second) = (FakeUpstream::start(), FakeUpstream::start());
    let sent = call(Dialect::Chat, false, "<<fake words=50>>");
    fake.script(&[json!({ "cut": 200 }), json!({ "cut": 200 })]);
    let error = sent.refused_by(&[&fake.url()]).await;
    assert_eq!(error.code, Code::UpstreamError);
    assert!(error.cause.is_some_and(|cause| cause.contains("closed the connection after 200 of")));
    assert_eq!(sent.to(&[&fake.url(), &second.url()]).await.unwrap().upstream, "up1", "nothing of it had gone to anybody");
    assert_eq!((fake.calls().len(), second.calls().len()), (2, 1), "nobody is asked twice for what was begun");

    // One that is too long to be waited for is passed on as it comes, and then it is too late for another upstream.
    let (url, _) = raw(|mut stream, _| {
        read_request(&mut stream);
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 3000000\r\n\r\n";
        let half = format!("{{\"choices\":\"{}", "x".repeat(1_500_000 - 12));
        _ = stream.write_all(format!("{head}{half}").as_bytes());
    });
    let answer = sent.to(&[&url, &second.url()]).await.unwrap();
    assert_eq!(answer.upstream, "up0");
    let read = sent.read(answer).await;
    assert_eq!(read.broken, Some(Broken::Truncated { seen: 1_500_000, expected: 3_000_000 }));
    assert!(!read.complete);
}

#[actix_web::test]
async fn dropping_the_answer_closes_the_upstreams_connection() {
    let fake = FakeUpstream::start();
    let sent = call(Dialect::Chat, true, "<<fake words=50 hang=10>>");
    let mut answer = sent.to(&[&fake.url()]).await.unwrap();
    assert!(answer.body.next().await.unwrap().is_ok());
    drop(answer);
    assert_eq!(outcome(&fake).await, "client_gone");

    // Also while the upstream still thinks.
    let sent = call(Dialect::Chat, true, "<<fake ttfb=60000>>");
    let abandoned = tokio::time::timeout(Duration::from_millis(200), sent.to(&[&fake.url()])).await;
    assert!(abandoned.is_err());
    assert_eq!(outcome(&fake).await, "client_gone");
}

#[actix_web::test]
async fn what_an_upstream_refuses_is_told_apart() {
    let fake = FakeUpstream::start();
    for (behaviour, code, tries) in [
        ("status=400", Code::UpstreamRejected, 1),
        ("status=404", Code::UpstreamError, 1),
        ("status=422", Code::UpstreamRejected, 1),
        ("status=413", Code::RequestTooLarge, 1),
        ("status=401", Code::UpstreamAuth, 1),
        ("status=402", Code::UpstreamAuth, 1),
        ("status=403", Code::UpstreamAuth, 1),
        ("status=429", Code::UpstreamUnavailable, 1),
        ("status=529", Code::UpstreamOverloaded, 1),
        ("status=500", Code::UpstreamError, 2),
        ("status=502 shape=html", Code::UpstreamError, 2),
        ("status=503 shape=empty", Code::UpstreamError, 2),
        ("status=408", Code::UpstreamError, 2),
        ("status=504", Code::UpstreamError, 1),
        ("status=524", Code::UpstreamError, 1),
        ("status=302 shape=text", Code::UpstreamError, 1),
    ] {
        for (dialect, stream) in [(Dialect::Chat, true), (Dialect::Messages, false)] {
            let before = fake.calls().len();
            let error = call(dialect, stream, &format!("<<fake {behaviour}>>")).refused_by(&[&fake.url()]).await;
            assert_eq!(error.code, code, "{behaviour}");
            assert_eq!(fake.calls().len() - before, tries, "{behaviour}");
        }
    }
    let error = call(Dialect::Chat, false, "<<fake status=429 retry_after=7>>").refused_by(&[&fake.url()]).await;
    assert_eq!(error.retry_after, Some(7));
}

#[actix_web::test]
async fn the_operators_key_is_in_no_answer() {
    let fake = FakeUpstream::start();
    for status in [400, 401, 403, 404, 413, 429, 500] {
        let behaviour = format!("<<fake status={status} emsg=bad+key+{KEY}+or+sk-upst*****5d2f+at+{}+sorry>>", fake.url());
        let error = call(Dialect::Chat, false, &behaviour).refused_by(&[&fake.url()]).await;
        let said = format!("{error:?}");
        assert!(!said.contains("sk-") && !said.contains(fake.url().trim_start_matches("http://")), "{status}: {said}");
        if status == 400 {
            assert!(error.message.contains("sorry"), "the rest of the reason is kept: {}", error.message);
        }
    }
    let sent = call(Dialect::Chat, true, &format!("<<fake words=9 errev=3 emsg={KEY}>>"));
    let answer = sent.to(&[&fake.url()]).await.unwrap();
    let read = sent.read(answer).await;
    assert!(!read.text.contains("sk-") && !read.complete);
}

#[actix_web::test]
async fn a_failing_upstream_is_tried_twice_and_then_the_next_one() {
    let (first, second) = (FakeUpstream::start(), FakeUpstream::start());
    let sent = call(Dialect::Chat, false, "hi");

    first.script(&[json!({"status": 500})]);
    let answer = sent.to(&[&first.url(), &second.url()]).await.unwrap();
    assert_eq!(answer.upstream, "up0", "the second try was good");
    assert_eq!((first.calls().len(), second.calls().len()), (2, 0));

    first.script(&[json!({"status": 500}), json!({"status": 503, "shape": "html"})]);
    let answer = sent.to(&[&first.url(), &second.url()]).await.unwrap();
    assert_eq!(answer.upstream, "up1");
    assert_eq!((first.calls().len(), second.calls().len()), (4, 1));
    assert_eq!(second.calls()[0]["body"]["model"], "up1/m", "under the name that this upstream knows");

    for status in [401, 429, 529] {
        first.script(&[json!({ "status": status })]);
        assert_eq!(sent.to(&[&first.url(), &second.url()]).await.unwrap().upstream, "up1", "{status}");
    }
    assert_eq!(first.calls().len(), 7, "no second try where it cannot help");

    first.script(&[json!({"status": 400})]);
    let served = second.calls().len();
    assert_eq!(sent.refused_by(&[&first.url(), &second.url()]).await.code, Code::UpstreamRejected);
    assert_eq!(second.calls().len(), served, "a bad request is not sent to everybody");

    first.script(&[json!({"status": 429, "retry_after": 9})]);
    second.script(&[json!({"status": 401})]);
    let error = sent.refused_by(&[&first.url(), &second.url()]).await;
    assert_eq!((error.code, error.retry_after), (Code::UpstreamUnavailable, Some(9)), "waiting helps, so that is the advice");
}

#[actix_web::test]
async fn a_request_is_sent_again_only_if_nothing_of_an_answer_has_come() {
    const HALF: &str = "HTTP/1.1 200 OK\r\ncontent-type: appl";
    const HEAD: &str = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n";
    for (said, tries) in [("", 2), ("H", 1), (HALF, 1), ("HTTP/1.1 100 Continue\r\n\r\n", 1), (HEAD, 1)] {
        for (prompt, is_reset) in [("hi".to_owned(), false), ("hi".to_owned(), true), ("long ".repeat(1_000_000), true)] {
            let (url, count) = raw(move |mut stream, _| {
                // A connection that is closed before all of the request was read is reset.
                if is_reset {
                    _ = stream.read(&mut [0; 16]);
                } else {
                    read_request(&mut stream);
                }
                _ = stream.write_all(said.as_bytes());
            });
            let answered = call(Dialect::Chat, false, &prompt).to(&[&url]).await;
            let named = format!("{said:?}, {} bytes, reset: {is_reset}", prompt.len());
            assert_eq!(count.load(Ordering::SeqCst), tries, "{named}");
            assert!(answered.is_err(), "a head alone is no answer: {named}");
        }
    }
}

#[actix_web::test]
async fn an_upstream_that_is_down_is_passed_over() {
    let closed = "127.0.0.1:9";
    let fake = FakeUpstream::start();
    let sent = call(Dialect::Messages, true, "hi");
    let answer = sent.to(&[&format!("http://{closed}"), &fake.url()]).await.unwrap();
    assert_eq!(answer.upstream, "up1");
    assert!(sent.read(answer).await.complete);
    assert_eq!(sent.refused_by(&[&format!("http://{closed}")]).await.code, Code::UpstreamError);
}

#[actix_web::test]
async fn nobody_waits_for_an_answer_beyond_the_deadline() {
    let fake = FakeUpstream::start();
    let mut sent = call(Dialect::Chat, true, "<<fake ttfb=60000>>");
    sent.within = Duration::from_secs(2);
    let begun = Instant::now();
    assert_eq!(sent.refused_by(&[&fake.url(), &fake.url()]).await.code, Code::UpstreamTimeout);
    assert!(begun.elapsed() < Duration::from_secs(10));
    assert_eq!(fake.calls().len(), 1, "there is no time for another upstream");
    assert_eq!(outcome(&fake).await, "client_gone");
}

#[actix_web::test]
async fn no_answer_outlasts_the_deadline() {
    let fake = FakeUpstream::start();
    let mut sent = call(Dialect::Chat, true, "<<fake words=50 hang=5>>");
    sent.within = Duration::from_secs(3);
    let answer = sent.to(&[&fake.url()]).await.unwrap();
    let read = sent.read(answer).await;
    assert_eq!(read.broken, Some(Broken::Deadline));
    assert!(!read.complete && read.output);
    assert_eq!(outcome(&fake).await, "client_gone");
}

#[actix_web::test]
async fn what_is_not_the_answer_that_was_asked_for_is_not_passed_on() {
    for (stream, head) in [
        (false, "HTTP/1.1 200 OK\r\ncontent-type: text/html\r\ncontent-length: 2"),
        (false, "HTTP/1.1 200 OK\r\ncontent-length: 2"),
        (false, "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: 2"),
        (true, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 2"),
        (false, "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-encoding: gzip\r\ncontent-length: 2"),
        (false, "HTTP/1.1 204 None\r\ncontent-type: application/json"),
        (false, "no HTTP at all"),
    ] {
        let (url, _) = raw(move |mut stream, _| {
            read_request(&mut stream);
            _ = stream.write_all(format!("{head}\r\n\r\n{{}}").as_bytes());
        });
        let error = call(Dialect::Chat, stream, "hi").refused_by(&[&url]).await;
        assert!(matches!(error.code, Code::UpstreamError), "{head}: {error:?}");
    }
    let (url, _) = raw(|mut stream, _| {
        read_request(&mut stream);
        let huge = "x".repeat(1 << 20);
        _ = stream.write_all(format!("HTTP/1.1 200 OK\r\nx-huge: {huge}\r\n\r\n").as_bytes());
    });
    assert_eq!(call(Dialect::Chat, false, "hi").refused_by(&[&url]).await.code, Code::UpstreamError);
}

#[actix_web::test]
async fn a_large_request_arrives_whole() {
    let fake = FakeUpstream::start();
    let sent = call(Dialect::Chat, false, &format!("{} ECHO:end", "é words ".repeat(300_000)));
    let answer = sent.to(&[&fake.url()]).await.unwrap();
    let read = sent.read(answer).await;
    assert!(read.complete && read.text.contains("\"content\":\"end\""));
}

/// A good answer in every framing: its bytes, and where the first byte is without which it is not whole.
fn framed(dialect: Dialect, stream: bool) -> Vec<(String, usize)> {
    let (body, last) = match (dialect, stream) {
        (Dialect::Chat, true) => ("data: {\"choices\":[{\"delta\":{\"content\":\"hi\"}}]}\n\ndata: [DONE]\n\n", "]\n\n"),
        (Dialect::Chat, false) => ("{\"choices\":[{\"message\":{\"content\":\"hi\"}}],\"usage\":{\"prompt_tokens\":1}}", "}"),
        (Dialect::Messages, true) => (
            "event: content_block_delta\ndata: {\"type\":\"content_block_delta\",\"delta\":{\"text\":\"hi\"}}\n\n\
             event: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
            "}\n\n",
        ),
        (Dialect::Responses, true) => (
            "event: response.output_text.delta\ndata: {\"type\":\"response.output_text.delta\",\"delta\":\"hi\"}\n\n\
             event: response.completed\ndata: {\"type\":\"response.completed\",\"response\":{\"output\":[]}}\n\n",
            "}\n\n",
        ),
        (Dialect::Responses, false) => ("{\"output\":[],\"usage\":{\"input_tokens\":1}}", "}"),
        (Dialect::Messages, false) => ("{\"content\":[{\"type\":\"text\",\"text\":\"hi\"}],\"usage\":{\"input_tokens\":1}}", "}"),
    };
    let kind = if stream { "text/event-stream" } else { "application/json" };
    let head = format!("HTTP/1.1 200 OK\r\ncontent-type: {kind}\r\n");
    let (first, second) = body.split_at(body.len() / 2);
    let chunks = format!("{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    let framings = [
        format!("{head}content-length: {}\r\n\r\n{body}", body.len()),
        format!("{head}transfer-encoding: chunked\r\n\r\n{chunks}"),
        format!("{head}connection: close\r\n\r\n{body}"),
        format!("HTTP/1.1 103 Early Hints\r\nlink: </x>\r\n\r\n{head}\r\n{body}"),
    ];
    framings.into_iter().map(|answer| (answer.clone(), answer.rfind(last).unwrap())).collect()
}

#[actix_web::test]
async fn an_answer_that_is_cut_at_any_byte_is_never_taken_for_a_whole_one() {
    for (dialect, stream) in BOTH.into_iter().flat_map(|dialect| [(dialect, false), (dialect, true)]) {
        for (answer, essential) in framed(dialect, stream) {
            // The first byte of the prompt says how many bytes of the answer are sent.
            let sent = answer.clone();
            let (url, _) = raw(move |mut stream, _| {
                let request = read_request(&mut stream).unwrap_or_default();
                let length = request.split("cut at ").nth(1).and_then(|rest| rest.split('.').next()?.parse().ok());
                _ = stream.write_all(&sent.as_bytes()[..length.unwrap_or(0)]);
            });
            let (upstreams, servings) = upstreams(&[&url]);
            for length in 0..=answer.len() {
                let call = call(dialect, stream, &format!("cut at {length}."));
                let Ok(begun) = call.through(&upstreams, &servings).await else {
                    assert!(length <= essential, "a whole answer was refused: {answer}");
                    continue;
                };
                let complete = call.read(begun).await.complete;
                assert!(!complete || length > essential, "cut at {length}, taken for whole: {:?}", &answer[..length]);
                assert!(complete || length < answer.len(), "whole, and taken for cut: {answer}");
            }
        }
    }
}

#[actix_web::test]
async fn whatever_bytes_an_upstream_sends_a_call_comes_to_its_end() {
    // Good answers with one byte changed to something that means something to HTTP, JSON or an event stream.
    const MEANT: &[u8] = b"\0\r\n :;,{}[]\"\\0f-+\xff";
    for (dialect, stream) in BOTH.into_iter().flat_map(|dialect| [(dialect, false), (dialect, true)]) {
        for (n, (answer, _)) in framed(dialect, stream).into_iter().enumerate() {
            let sent = answer.clone();
            let (url, _) = raw(move |mut stream, _| {
                let request = read_request(&mut stream).unwrap_or_default();
                let place = request.split("change ").nth(1).and_then(|rest| rest.split('.').next()?.parse::<usize>().ok());
                let mut bytes = sent.clone().into_bytes();
                if let Some(place) = place {
                    bytes[place] = MEANT[(place + n) % MEANT.len()];
                }
                _ = stream.write_all(&bytes);
            });
            let (upstreams, servings) = upstreams(&[&url]);
            for place in 0..answer.len() {
                let call = call(dialect, stream, &format!("change {place}."));
                let begun = Instant::now();
                if let Ok(answer) = call.through(&upstreams, &servings).await {
                    let read = call.read(answer).await;
                    assert!(
                        read.metered.usage.output < 1_000_000,
                        "{place} of {answer:?}",
                        answer = framed(dialect, stream)[n].0
                    );
                }
                assert!(begun.elapsed() < Duration::from_secs(8), "it waited for what never comes: {place} of {answer:?}");
            }
        }
    }
}
