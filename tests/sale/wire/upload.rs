//! Requests on their way: large ones pass, refusals that come early are heard, and callers that never finish are cut.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use farebox_rig::anvil::BUYER;
use farebox_rig::http::{self, Request};
use farebox_rig::provider::{After, Provider, wait_gone};
use farebox_rig::server::{MODEL, Server, Settings};
use serde_json::json;

use super::answers::{SHAPES, good, refusal, say};
use super::stall::Stall;
use crate::shop::{ANSWER, CHAT, Shop, USAGE, body, paid};

/// A prompt that encodes to a little more than `length` bytes. Escapes keep its price low.
fn long(length: usize) -> String {
    let prompt = "words ".repeat(length / 6);
    let request = json!({ "model": MODEL, "max_tokens": 256, "messages": [{ "role": "user", "content": prompt }] });
    request.to_string()
}

/// Prompts of megabytes have quotes that would only be believed once their block is safe.
fn dear() -> Vec<String> {
    vec!["safe_above = \"1000.00\"".to_owned()]
}

#[test]
fn a_refusal_that_comes_while_five_megabytes_go_out_is_passed_on_and_costs_nothing() {
    let cases = [
        ("413 Too Large", After::Close, 413, "request_too_large"),
        ("413 Too Large", After::Keep, 413, "request_too_large"),
        ("401 Unauthorized", After::Close, 502, "upstream_auth"),
        ("401 Unauthorized", After::Keep, 502, "upstream_auth"),
        ("307 Temporary Redirect", After::Close, 502, "upstream_error"),
        ("307 Temporary Redirect", After::Keep, 502, "upstream_error"),
    ];
    for (status, after, expected, code) in cases {
        let provider = Provider::connections(move |mut stream, _| {
            let mut beginning = [0; 16 * 1024];
            let _ = stream.read(&mut beginning);
            say(&mut stream, &refusal(status, "application/json", r#"{"error":{"message":"enough"}}"#));
            if after == After::Keep {
                // It reads no further and waits: the caller has to notice by itself.
                std::thread::sleep(Duration::from_secs(20));
            }
        });
        let payments = vec!["settle_after_ms = 20000".to_owned()];
        let settings = Settings { payments, upstream_url: Some(provider.url()), network: dear(), ..Settings::default() };
        let mut shop = Shop::with(84532, &settings);
        let body = long(5_000_000);
        let payment = shop.pay(CHAT, &body);
        let begun = Instant::now();
        let answer = shop.buy(CHAT, &body, &payment);
        assert_eq!((answer.status, answer.code().as_str()), (expected, code), "{status} {after:?}: {}", answer.text());
        assert!(begun.elapsed() < Duration::from_secs(15), "nobody waited for the rest of the request to be read");
        assert_eq!(provider.connected(), 1, "a refusal is no reason to send five megabytes again");
        assert_eq!(shop.earned(), 0, "nothing settled");
        shop.close(0);
    }
}

#[test]
fn a_body_of_twenty_megabytes_is_sold_and_one_above_the_limit_is_refused_before_it_is_read() {
    let mut shop = Shop::with(84532, &Settings { network: dear(), ..Settings::default() });
    let body = long(20_000_000).replace("words words \"", &format!("words {}\"", USAGE.replace('"', "'")));
    assert!(body.len() > 19_000_000 && body.contains("<<fake"));
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    assert!(answer.text().contains(ANSWER));
    let mut caller = TcpStream::connect(shop.server.address()).unwrap();
    let announced = 33 * 1024 * 1024;
    write!(caller, "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: {announced}\r\n\r\n").unwrap();
    assert!(first_line(&mut caller).starts_with("HTTP/1.1 413"), "said before any of it was sent");
    assert_eq!(shop.served(), 1);
    shop.close(crate::shop::CHARGE);
}

#[test]
fn an_answer_of_twelve_megabytes_passes_whole() {
    let mut shop = Shop::open();
    let body = body("<<fake in=20 out=7 text=hello+wallet pad=12000000>>", false);
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert!(answer.complete && answer.body.len() > 12_000_000, "{} bytes", answer.body.len());
    assert_eq!(shop.earned(), payment.amount);
    shop.close(crate::shop::CHARGE);
}

fn first_line(stream: &mut TcpStream) -> String {
    stream.set_read_timeout(Some(Duration::from_secs(60))).unwrap();
    let mut answer = [0; 1024];
    let read = stream.read(&mut answer).expect("an answer, or the end of the connection");
    String::from_utf8_lossy(&answer[..read]).lines().next().unwrap_or_default().to_owned()
}

/// A server whose callers have four seconds for a body, and one without a byte.
fn impatient() -> (Provider, Stall) {
    with_time(4)
}

/// A server whose callers have so many seconds for a body, and a quarter of them without a byte.
fn with_time(seconds: u32) -> (Provider, Stall) {
    let provider = Provider::start(|_, stream| say(stream, &good(SHAPES[0])));
    let time = format!("body_seconds = {seconds}");
    let stall = Stall::open(&[provider.url()], &[&time, "max_body_mb = 16", "max_bodies_mb = 256"]);
    (provider, stall)
}

#[test]
fn a_body_that_stops_or_trickles_is_cut_with_408_and_costs_nothing() {
    let (provider, mut stall) = with_time(16);
    let order = stall.orders(CHAT, &body("", false), 1).remove(0).bytes(stall.server.address());
    let half = order.len() - 100;
    let mut stopped = TcpStream::connect(stall.server.address()).unwrap();
    let mut trickling = TcpStream::connect(stall.server.address()).unwrap();
    let begun = Instant::now();
    stopped.write_all(&order[..half]).unwrap();
    trickling.write_all(&order[..half]).unwrap();
    let mut sending = trickling.try_clone().unwrap();
    let rest = order[half..].to_vec();
    std::thread::spawn(move || {
        // One byte at a time never stops; a caller that was cut off ends it.
        for byte in rest {
            std::thread::sleep(Duration::from_millis(200));
            if sending.write_all(&[byte]).is_err() {
                return;
            }
        }
    });
    assert!(first_line(&mut stopped).starts_with("HTTP/1.1 408"));
    assert!(begun.elapsed() < Duration::from_secs(15), "a stop is cut before the whole time is over");
    assert!(first_line(&mut trickling).starts_with("HTTP/1.1 408"));
    assert!(begun.elapsed() > Duration::from_secs(14), "it was not cut for a stop");
    assert!(provider.requests().is_empty(), "half a request goes nowhere");
    let refused = amount(&stall);
    stall.close(refused, |charged| charged == 0);
}

/// What one call costs.
fn amount(stall: &Stall) -> u64 {
    let offer = stall.server.send(&Request::post(CHAT, body("", false))).decoded("payment-required").unwrap();
    offer["accepts"][0]["amount"].as_str().unwrap().parse().unwrap()
}

#[test]
fn bodies_that_never_end_hold_their_memory_no_longer_than_their_time() {
    // Long enough for all of them to be held at the same time.
    let (_provider, stall) = with_time(20);
    let address = stall.server.address();
    let before = stall.server.memory();
    let piece = vec![b' '; 1_000_000];
    let mut slow: Vec<TcpStream> = (0..60).map(|_| TcpStream::connect(address).unwrap()).collect();
    for caller in &mut slow {
        write!(caller, "POST {CHAT} HTTP/1.1\r\nhost: x\r\ncontent-length: 15000000\r\n\r\n").unwrap();
        // One that is turned away for want of room may be gone already.
        let _ = caller.write_all(&piece);
    }
    let answers: Vec<_> = slow.iter_mut().map(first_line).collect();
    let told = |status: &str| answers.iter().filter(|line| line.starts_with(status)).count();
    let (cut, turned_away) = (told("HTTP/1.1 408"), told("HTTP/1.1 503"));
    assert_eq!(cut + turned_away, 60, "{answers:?}");
    assert!(cut > 0 && turned_away > 0, "one address gets a part of the room: {cut} held, {turned_away} turned away");
    let grown = stall.server.memory().saturating_sub(before);
    assert!(grown < 200_000_000, "{grown} bytes for bodies that may take 64 MB together");
    let large = body(&"long words ".repeat(500_000), false);
    let answer = http::send(address, &Request::post(CHAT, large)).unwrap();
    assert_eq!(answer.status, 402, "there is room again: {}", answer.text());
    stall.close(0, |charged| charged == 0);
}

#[test]
fn a_head_that_trickles_is_cut_and_a_connection_without_a_request_does_not_stay() {
    let (provider, stall) = impatient();
    let mut head = TcpStream::connect(stall.server.address()).unwrap();
    write!(head, "POST {CHAT} HTTP/1.1\r\nhost: x\r\n").unwrap();
    let mut sending = head.try_clone().unwrap();
    std::thread::spawn(move || {
        while sending.write_all(b"x-more: y\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    let mut silent = TcpStream::connect(stall.server.address()).unwrap();
    let begun = Instant::now();
    assert!(first_line(&mut head).starts_with("HTTP/1.1 408"));
    wait_gone(&mut silent);
    assert!(begun.elapsed() < Duration::from_secs(40), "ten seconds for a head, and some to close");
    assert!(provider.requests().is_empty());
    stall.close(0, |charged| charged == 0);
}

#[test]
fn a_second_head_that_trickles_is_cut_as_the_first_is() {
    let (provider, stall) = impatient();
    let mut caller = TcpStream::connect(stall.server.address()).unwrap();
    write!(caller, "GET /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
    assert!(first_line(&mut caller).starts_with("HTTP/1.1 200"));
    let begun = Instant::now();
    write!(caller, "POST {CHAT} HTTP/1.1\r\nhost: x\r\n").unwrap();
    let mut sending = caller.try_clone().unwrap();
    std::thread::spawn(move || {
        while sending.write_all(b"x-more: y\r\n").is_ok() {
            std::thread::sleep(Duration::from_millis(300));
        }
    });
    wait_gone(&mut caller);
    assert!(begun.elapsed() < Duration::from_secs(60), "it would else stay for ever");
    assert!(provider.requests().is_empty());
    stall.close(0, |charged| charged == 0);
}

#[test]
fn a_connection_that_was_silent_for_longer_than_a_client_keeps_one_serves_on_and_holds_up_no_stop() {
    let (_provider, stall) = impatient();
    let mut caller = TcpStream::connect(stall.server.address()).unwrap();
    for silence in [Duration::from_secs(7), Duration::ZERO] {
        write!(caller, "HEAD /healthz HTTP/1.1\r\nhost: x\r\n\r\n").unwrap();
        assert!(first_line(&mut caller).starts_with("HTTP/1.1 200"));
        // Node's pool keeps a connection for four seconds, httpx's for five, each as well as its event loop can.
        std::thread::sleep(silence);
    }
    stall.close(0, |charged| charged == 0);
    wait_gone(&mut caller);
}

#[test]
fn a_caller_that_asks_and_asks_and_reads_no_answer_is_cut() {
    let (provider, stall) = impatient();
    let asked = b"GET /v1/models HTTP/1.1\r\nhost: x\r\n\r\n".repeat(1000);
    let mut caller = TcpStream::connect(stall.server.address()).unwrap();
    caller.set_write_timeout(Some(Duration::from_millis(100))).unwrap();
    let (begun, mut taken) = (Instant::now(), 0);
    let cut = loop {
        match caller.write(&asked) {
            Ok(bytes) => taken += bytes,
            Err(error) if error.kind() != ErrorKind::WouldBlock => break error,
            Err(_) => assert!(begun.elapsed() < Duration::from_secs(40), "it is held for ever, {taken} bytes in"),
        }
    };
    assert!([ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&cut.kind()), "{cut}");
    assert!(taken > asked.len(), "it was served before: {taken} bytes");
    assert_eq!(stall.server.send(&Request::get("/v1/models")).status, 200, "others are served");
    assert!(provider.requests().is_empty());
    stall.close(0, |charged| charged == 0);
}

#[test]
fn a_caller_that_waits_for_leave_to_send_its_body_gets_it() {
    let (provider, mut stall) = impatient();
    let order = stall.orders(CHAT, &body("", false), 1).remove(0).header("expect", "100-continue");
    let bytes = order.bytes(stall.server.address());
    let head = bytes.windows(4).position(|window| window == b"\r\n\r\n").unwrap() + 4;
    let mut caller = TcpStream::connect(stall.server.address()).unwrap();
    caller.write_all(&bytes[..head]).unwrap();
    assert!(first_line(&mut caller).starts_with("HTTP/1.1 100"));
    caller.write_all(&bytes[head..]).unwrap();
    assert!(first_line(&mut caller).starts_with("HTTP/1.1 200"));
    assert_eq!(provider.requests().len(), 1);
    assert!(!provider.requests()[0].to_lowercase().contains("expect"), "between the caller and us only");
    stall.close(0, |charged| charged == crate::shop::CHARGE);
}

#[test]
fn an_interrupted_upload_costs_nobody_anything() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    let request = paid(CHAT, &body, &payment).bytes(shop.server.address());
    let mut caller = TcpStream::connect(shop.server.address()).unwrap();
    caller.write_all(&request[..request.len() - 10]).unwrap();
    drop(caller);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.complete), (200, true), "the same payment buys: {}", answer.text());
    let books = shop.close(crate::shop::CHARGE);
    assert!(books.balance(BUYER.address) > 0);
}

/// The limit of open files that a server runs with.
fn open_files(server: &Server) -> u64 {
    let line = server.status_of("limits", "Max open files").expect("the system says so");
    line.split_whitespace().next().and_then(|soft| soft.parse().ok()).expect("a number")
}

#[test]
fn as_many_files_may_be_open_as_the_promised_streams_need() {
    let (_provider, stall) = impatient();
    let files = open_files(&stall.server);
    let said = stall.server.output().contains("fewer open files are allowed than limits.streams needs");
    assert!(files >= 2 * 4096 || said, "{files} files for 4096 streams, and the operator was not told");
    let held: Vec<_> = (0..600).map(|_| TcpStream::connect(stall.server.address()).unwrap()).collect();
    assert_eq!(http::send(stall.server.address(), &Request::get("/healthz")).unwrap().status, 200);
    drop(held);
    stall.close(0, |charged| charged == 0);
}
