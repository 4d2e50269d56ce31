//! Connections to upstreams: stale ones, protocols, headers, redirects, time limits, and the end of the program.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::os::linux::net::TcpStreamExt as _;
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use farebox_rig::anvil::{BUYER, OTHER_BUYER};
use farebox_rig::http;
use farebox_rig::process::eventually;
use farebox_rig::provider::{After, Provider, wait_gone};
use farebox_rig::server::Settings;
use farebox_rig::upstream::UPSTREAM_KEY;

use super::answers::{SHAPES, Shape, chunked, good, say, sized};
use super::stall::Stall;
use crate::shop::{CHARGE, CHAT, Shop, USAGE, body, paid};

const PLAIN: Shape = SHAPES[0];
const STREAM: Shape = SHAPES[1];

#[test]
fn a_connection_that_was_closed_meanwhile_is_no_buyers_trouble() {
    // Eight calls at once leave eight connections, each of which is dropped when its second request comes.
    const AT_ONCE: usize = 8;
    let together = Arc::new(Barrier::new(AT_ONCE));
    let provider = Provider::start(move |received, stream| {
        if received.on_connection > 0 {
            return After::Close;
        }
        if received.body().contains("row together end") {
            together.wait();
        }
        say(stream, &good(PLAIN))
    });
    let mut stall = Stall::open(&[provider.url()], &[]);
    let address = stall.server.address().to_owned();
    let orders = stall.orders(CHAT, &body("row together end", false), AT_ONCE);
    std::thread::scope(|scope| {
        let calls: Vec<_> = orders.iter().map(|order| scope.spawn(|| http::send(&address, order).unwrap())).collect();
        assert!(calls.into_iter().all(|call| call.join().unwrap().status == 200));
    });
    assert_eq!(provider.requests().len(), AT_ONCE);
    for order in stall.orders(CHAT, &body("", false), 2 * AT_ONCE) {
        let before = provider.requests().len();
        let answer = stall.server.send(&order);
        assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
        assert!(provider.requests().len() - before <= 2, "one more try at most");
    }
    let calls = 3 * AT_ONCE;
    assert!(provider.requests().len() > calls, "some connections were stale, or this test shows nothing");
    stall.close(0, |charged| charged == CHARGE * calls as u64);
}

#[test]
fn an_upstream_that_always_hangs_up_is_tried_twice_and_after_a_head_never_again() {
    let provider = Provider::start(|received, stream| {
        if received.body().contains("row begins end") {
            say(stream, &chunked(&STREAM.open_head(), &STREAM.events("")[..1]));
        }
        After::Close
    });
    let payments = vec!["settle_after_ms = 20000".to_owned()];
    let mut shop = Shop::with(84532, &Settings { payments, upstream_url: Some(provider.url()), ..Settings::default() });
    let hangs_up = body("", true);
    let payment = shop.pay(CHAT, &hangs_up);
    let answer = shop.buy(CHAT, &hangs_up, &payment);
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_error"));
    assert_eq!((provider.requests().len(), shop.earned()), (2, 0), "once more, and nothing settled");
    let begins = body("row begins end", true);
    let payment = shop.pay(CHAT, &begins);
    let answer = shop.buy(CHAT, &begins, &payment);
    assert_eq!((answer.status, answer.complete), (200, false));
    assert_eq!(provider.requests().len(), 3, "what was begun is not begun again");
    let earned = shop.earned();
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    let balance = books.balance(BUYER.address);
    assert!(balance > 0 && balance < earned, "what passed is paid, the rest is the buyer's: {balance} of {earned}");
}

#[test]
fn an_upstream_sees_these_headers_and_a_buyer_those_and_no_others() {
    let provider = Provider::start(|_, stream| {
        let more = "set-cookie: a=b\r\nopenai-organization: ours\r\nx-ratelimit-remaining: 3\r\nserver: secret\r\n";
        say(stream, &good(PLAIN).replace("content-type", &format!("{more}content-type")))
    });
    let settings = Settings { upstream_url: Some(provider.url()), ..Settings::default() };
    let mut shop = Shop::with(84532, &settings);
    let body = body("", false);
    let payment = shop.pay(CHAT, &body);
    let request = paid(CHAT, &body, &payment)
        .header("accept-encoding", "gzip, br")
        .header("cookie", "c=d")
        .header("x-forwarded-for", "203.0.113.7")
        .header("expect", "")
        .header("te", "trailers")
        .header("openai-beta", "one")
        .header("openai-beta", "two");
    let answer = shop.server.send(&request);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let requests = provider.requests();
    let head = requests[0].split("\r\n\r\n").next().unwrap();
    assert!(head.starts_with("POST /v1/chat/completions HTTP/1.1\r\n"), "{head}");
    let mut names: Vec<_> = head.lines().skip(1).map(|line| line.split(':').next().unwrap().to_lowercase()).collect();
    names.sort();
    let allowed = [
        "accept",
        "accept-encoding",
        "anthropic-version",
        "authorization",
        "content-length",
        "content-type",
        "date",
        "host",
        "openai-beta",
        "openai-beta",
        "user-agent",
    ];
    assert_eq!(names, allowed);
    let lower = head.to_lowercase();
    assert!(lower.contains("accept-encoding: identity") && lower.contains(&format!("authorization: bearer {UPSTREAM_KEY}")));
    for header in ["set-cookie", "openai-organization", "x-ratelimit-remaining", "server", "content-encoding"] {
        assert_eq!(answer.header(header), None, "{header} describes the operator's account, not the answer");
    }
    shop.close(CHARGE);
}

#[test]
fn a_redirect_carries_neither_the_key_nor_the_money_elsewhere() {
    let elsewhere = Provider::start(|_, stream| say(stream, &good(PLAIN)));
    let location = format!("location: {}/v1/chat/completions\r\n", elsewhere.url());
    let provider = Provider::start(move |_, stream| say(stream, &sized(&format!("HTTP/1.1 307 There\r\n{location}"), "")));
    let payments = vec!["settle_after_ms = 20000".to_owned()];
    let mut shop = Shop::with(84532, &Settings { payments, upstream_url: Some(provider.url()), ..Settings::default() });
    let body = body("", false);
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_error"));
    assert_eq!((elsewhere.connected(), shop.earned()), (0, 0));
    shop.close(0);
}

#[test]
fn a_chain_node_whose_answers_cannot_be_read_is_not_sold_on_and_the_operator_is_told_why() {
    let node = Provider::start(|_, stream| {
        say(
            stream,
            "HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-type: application/json\r\n\r\n{\"jsonrpc\":\"2.0\",\"id\":1,\"result\":\"0x1\"}",
        );
        After::Close
    });
    let shop = Shop::with(84532, &Settings { rpc_urls: vec![node.url()], ..Settings::default() });
    let answer = shop.server.send(&http::Request::post(CHAT, body(USAGE, false)));
    assert_eq!((answer.status, answer.code().as_str()), (503, "network_unavailable"), "{}", answer.text());
    eventually("the operator is told", || shop.server.output().contains("names no length"));
    shop.assert_untouched();
    shop.close(0);
}

#[test]
fn an_upstream_that_thinks_for_longer_than_the_librarys_five_seconds_is_waited_for() {
    let provider = Provider::start(|_, stream| {
        std::thread::sleep(Duration::from_millis(6500));
        say(stream, &good(PLAIN))
    });
    let mut shop = Shop::with(84532, &Settings { upstream_url: Some(provider.url()), ..Settings::default() });
    let body = body("", false);
    let payment = shop.pay(CHAT, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    assert_eq!(provider.requests().len(), 1);
    shop.close(CHARGE);
}

#[test]
fn the_time_limit_counts_from_the_requests_arrival_and_holds_in_every_phase() {
    let provider = Provider::start(|received, stream| {
        if received.body().contains("row begins end") {
            say(stream, &chunked(&STREAM.open_head(), &STREAM.events("")[..1]));
        }
        wait_gone(stream);
        After::Close
    });
    let limits = ["per_ip_per_second = 100000", "per_ip_burst = 100000", "wall_clock_seconds = 20"].map(str::to_owned).to_vec();
    let payments = vec!["settle_after_ms = 20000".to_owned()];
    let settings = Settings { limits, payments, upstream_url: Some(provider.url()), ..Settings::default() };
    let mut shop = Shop::with(84532, &settings);
    let (silent, begins) = (body("", true), body("row begins end", true));
    let unanswered = shop.requirements(CHAT, &silent);
    let unanswered = shop.sign(OTHER_BUYER, unanswered);
    let payment = shop.pay(CHAT, &begins);
    let bytes = paid(CHAT, &begins, &payment).bytes(shop.server.address());
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let begun = Instant::now();
            let answer = shop.buy(CHAT, &silent, &unanswered);
            assert_eq!((answer.status, answer.code().as_str()), (504, "upstream_timeout"), "{}", answer.text());
            assert!((19..60).contains(&begun.elapsed().as_secs()), "{:?}", begun.elapsed());
        });
        let mut slow = TcpStream::connect(shop.server.address()).unwrap();
        let begun = Instant::now();
        slow.write_all(&bytes[..bytes.len() - 5]).unwrap();
        std::thread::sleep(Duration::from_secs(10));
        slow.write_all(&bytes[bytes.len() - 5..]).unwrap();
        let mut answer = Vec::new();
        // The connection is aborted at the end, which may read as an error.
        let _ = slow.read_to_end(&mut answer);
        let (text, took) = (String::from_utf8_lossy(&answer).into_owned(), begun.elapsed());
        assert!(text.contains("hello") && text.contains("upstream_timeout") && !text.contains("[DONE]"), "{text}");
        assert!(!text.ends_with("0\r\n\r\n"), "it must not look complete: {text}");
        assert!(took < Duration::from_millis(29_500), "twenty seconds from the first byte, not from the last: {took:?}");
    });
    let earned = shop.earned();
    assert_eq!(earned, payment.amount, "nothing settled for an upstream that never began");
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert!(books.balance(BUYER.address) > earned / 2 && books.balance(BUYER.address) < earned);
}

#[test]
fn small_pieces_of_a_stream_do_not_wait_for_an_acknowledgement() {
    // Two events 2 ms apart. Without TCP_NODELAY the second one waits until the client acknowledges the first, which a
    // client that acknowledges lazily does after 40 ms.
    let provider = Provider::start(|_, stream| {
        let _ = stream.set_nodelay(true);
        let events = STREAM.events("");
        say(stream, &chunked(&STREAM.open_head(), &events[..1]));
        for _ in 0..20 {
            std::thread::sleep(Duration::from_millis(120));
            say(stream, &format!("{:x}\r\n{}\r\n", events[0].len(), events[0]));
            std::thread::sleep(Duration::from_millis(2));
            say(stream, &format!("{:x}\r\n{}\r\n", events[1].len(), events[1]));
        }
        say(stream, &format!("{:x}\r\n{}\r\n0\r\n\r\n", events[3].len(), events[3]))
    });
    let mut stall = Stall::open(&[provider.url()], &[]);
    let order = stall.orders(CHAT, &body("", true), 1).remove(0).bytes(stall.server.address());
    let mut client = TcpStream::connect(stall.server.address()).unwrap();
    client.write_all(&order).unwrap();
    client.set_quickack(false).unwrap();
    let (mut gaps, mut last) = (Vec::new(), Instant::now());
    for line in BufReader::new(client.try_clone().unwrap()).lines().map_while(Result::ok) {
        client.set_quickack(false).unwrap();
        if line.contains("hello ") {
            last = Instant::now();
        } else if line.contains("wallet") {
            gaps.push(last.elapsed());
        }
    }
    // On a busy machine some come late; a client that waits for itself gets nearly all of them late.
    gaps.sort();
    println!("the second of two events came {:?} after the first, five of {} times", gaps.get(5), gaps.len());
    assert!(gaps.get(5).is_some_and(|gap| *gap < Duration::from_millis(25)), "{gaps:?}");
    stall.close(0, |charged| charged > 0);
}

#[test]
fn a_stop_closes_the_door_at_once_and_lets_a_running_answer_end() {
    let mut shop = Shop::open();
    let body = body(&USAGE.replace("text=hello+wallet", "words=40 gap=1000"), true);
    let payment = shop.pay(CHAT, &body);
    let address = shop.server.address().to_owned();
    let mut stream = http::open(&address, &paid(CHAT, &body, &payment)).unwrap();
    assert!(stream.next_chunk().is_some());
    shop.server.signal();
    eventually("nobody new is let in", || TcpStream::connect(&address).is_err());
    assert!(shop.server.is_running(), "the running answer is not cut off");
    shop.upstream.hurry();
    let mut text = String::new();
    while let Some(chunk) = stream.next_chunk() {
        text.push_str(&String::from_utf8_lossy(&chunk));
    }
    assert!(text.ends_with("data: [DONE]\n\n"), "{text}");
    shop.server.wait_exit();
    let books = shop.server.verify(&["--chain"]);
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(books.balance(BUYER.address), payment.amount - CHARGE, "the last call is in the books");
}
