//! Behind real nginx and real Caddy, as the shipped snippets set them up: the clients buy, events come one by one, and a caller
//! that leaves is noticed.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::TcpListener;
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use farebox_rig::anvil::{Anvil, BUYER};
use farebox_rig::buyer::{Client, Order};
use farebox_rig::http::{self, Request};
use farebox_rig::process::{eventually, free_port, run};
use farebox_rig::proxy::{Kind, Proxy};
use farebox_rig::sdk::Sdk;
use farebox_rig::server::Settings;
use serde_json::json;

use crate::shop::{CHARGE, CHAT, FIVE, Shop, USAGE, body, with_key};

/// A shop that callers see at the proxy's address.
fn behind(kind: Kind) -> (Shop, Proxy) {
    let port = free_port();
    let server = vec![format!("public_url = \"http://127.0.0.1:{port}\""), "trusted_proxies = [\"127.0.0.1/32\"]".into()];
    let mut shop = Shop::on(Anvil::start(8453), Settings { server, ..Settings::default() });
    // On a port that nobody else is given while it is away.
    shop.server.reconfigure(|text| text.replacen("127.0.0.1:0", &format!("127.0.0.1:{}", free_port()), 1));
    shop.server.restart();
    let proxy = Proxy::start(kind, port, shop.server.address());
    (shop, proxy)
}

fn clients_buy(kind: Kind) {
    let (mut shop, proxy) = behind(kind);
    let url = format!("http://{}", proxy.address);
    let asked = Request::post(CHAT, body(USAGE, false));
    let (direct, through) = (shop.server.send(&asked), http::send(&proxy.address, &asked).unwrap());
    assert_eq!((direct.status, through.status), (402, 402), "{}", through.text());
    // All of it but the invitation to sign in, which is fresh each time.
    let offer = |answer: &http::Answer| {
        let mut offer = answer.decoded("payment-required").expect("the offer fits");
        offer.as_object_mut().unwrap().remove("extensions").expect("an invitation to sign in");
        offer
    };
    assert_eq!(offer(&through), offer(&direct), "the offer passes unchanged");
    for client in Client::ALL {
        for stream in [false, true] {
            let text = body(USAGE, stream);
            let order = Order { base_url: &url, route: CHAT, body: &text, wallet: BUYER, max_value_usd: "0.5" };
            let before: u64 = shop.chain.transfers().iter().map(|it| it.value).sum();
            let bought = client.buy(&order);
            assert_eq!(
                (&bought["status"], &bought["text"]),
                (&200.into(), &"hello wallet".into()),
                "{kind:?} {client:?}: {bought}"
            );
            let after: u64 = shop.chain.transfers().iter().map(|it| it.value).sum();
            shop.came_in(after - before, CHARGE);
        }
    }
    let key = shop.key();
    let messages = json!([{ "role": "user", "content": USAGE }]);
    for sdk in [Sdk::OpenAiNode, Sdk::OpenAiPython, Sdk::AnthropicNode, Sdk::AnthropicPython] {
        let step = |stream: bool| {
            let params = json!({ "model": "test-model", "max_tokens": 256, "stream": stream, "messages": messages });
            json!({ "do": "create", "params": params })
        };
        let outcomes = sdk.perform(&[("BASE_URL", &url), ("API_KEY", &key.text)], &[step(false), step(true)]);
        assert!(outcomes.iter().all(|outcome| outcome.get("error").is_none()), "{kind:?} {sdk:?}: {outcomes:?}");
        shop.came_in(0, 2 * CHARGE);
    }
    shop.close();
}

fn events_come_one_by_one(kind: Kind) {
    let (mut shop, proxy) = behind(kind);
    let key = shop.key();
    let prompt = "<<fake in=20 out=7 words=40 gap=500>>";
    let mut stream = http::open(&proxy.address, &with_key(&key, prompt, true)).unwrap();
    assert_eq!(stream.status, 200);
    let header = |name: &str| stream.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.clone());
    assert!(header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")), "{:?}", stream.headers);
    assert!(header("x-request-id").is_some() && header("x-balance-remaining").is_some() && header("content-encoding").is_none());
    let (mut pieces, mut text) = (0, Vec::new());
    while let Some(piece) = stream.next_chunk() {
        pieces += 1;
        text.extend(piece);
        if pieces == 4 {
            let done = shop.upstream.calls().iter().any(|call| call["outcome"] == "done");
            assert!(!done, "{kind:?}: the first events came while the upstream had more to say");
            shop.upstream.hurry();
        }
    }
    assert!(stream.complete && String::from_utf8_lossy(&text).ends_with("data: [DONE]\n\n"));
    assert!(pieces >= 4, "{kind:?}: forty words came in {pieces} pieces");
    shop.upstream.configure(&json!({}));

    // A caller that hangs up at the proxy is noticed, and pays for what passed.
    let mut stream = http::open(&proxy.address, &with_key(&key, "<<fake in=20 words=400 gap=100>>", true)).unwrap();
    assert!(stream.next_chunk().is_some());
    drop(stream);
    shop.server.has_said("the client left; charged");
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    let left = books.balance(BUYER.address);
    assert!(left < FIVE - CHARGE && left > FIVE - CHARGE - 400 * 15, "what passed was charged: {left}");
}

fn a_broken_answer_never_looks_complete(kind: Kind) {
    let (mut shop, proxy) = behind(kind);
    let key = shop.key();
    let answer = http::send(&proxy.address, &with_key(&key, "<<fake in=20 words=40 cut=3>>", true)).unwrap();
    let text = answer.text();
    assert!(answer.status == 200 && !text.contains("[DONE]"), "{kind:?}: {text}");
    assert!(text.lines().any(|line| line.starts_with("data: ") && line.contains("upstream_error")), "it says so itself: {text}");
    assert!(!answer.complete || kind.hides_breaks(), "nor does it end like a whole one: {text}");
    let large = Request::post(CHAT, body(&"x".repeat(33 * 1024 * 1024), false));
    let refused = http::send(&proxy.address, &large);
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.status == 413), "{kind:?}: a body above the limit is refused");
    let books = shop.server.audit();
    assert!(books.clean && books.balance(BUYER.address) <= FIVE, "{:#}", books.json);
}

/// While the gateway is away callers hear so, and what they brought is in nobody's log.
fn nothing_secret_is_logged(kind: Kind) {
    let (mut shop, proxy) = behind(kind);
    let key = shop.key();
    let payment = shop.buyer().top_up_payment(FIVE);
    let sign_in = shop.buyer().sign_in();
    let requests = [
        with_key(&key, "canary-prompt", true),
        Request::post(CHAT, body("canary-prompt", false)).header("x-api-key", &key.text),
        Request::post(CHAT, body("canary-prompt", false)).header("payment-signature", &payment),
        Request::get("/api/account").header("x-sign-in-with-x", &sign_in),
    ];
    let broken = http::send(&proxy.address, &with_key(&key, "<<fake in=20 words=40 cut=3>>", true)).unwrap();
    assert_eq!(broken.status, 200);
    let books = shop.server.audit();
    assert!(books.clean && books.balance(BUYER.address) < FIVE, "{:#}", books.json);
    for request in &requests {
        assert_eq!(http::send(&proxy.address, request).unwrap().status, 502);
    }
    let said = proxy.output();
    for secret in [&key.text, &payment, &sign_in, "canary-prompt"] {
        assert!(!said.contains(secret), "{kind:?} wrote {secret}:\n{said}");
    }
    assert_eq!(shop.chain.transfers().len(), 1, "only what was paid before came in");
}

/// The status that a caller at another address of this machine gets, who claims to be somewhere else.
fn status_from(source: &str, url: &str, claimed: usize) -> String {
    let mut curl = Command::new("curl");
    curl.args(["--silent", "--output", "/dev/null", "--write-out", "%{http_code}", "--interface", source]);
    curl.arg("--header").arg(format!("X-Forwarded-For: 203.0.113.{claimed}"));
    curl.arg("--header").arg(format!("Forwarded: for=203.0.113.{claimed}")).arg(url);
    run(curl, "").1
}

fn callers_are_told_apart_by_their_own_address(kind: Kind) {
    let port = free_port();
    let url = format!("http://127.0.0.1:{port}/v1/models");
    let server = vec![format!("public_url = \"http://127.0.0.1:{port}\""), "trusted_proxies = [\"127.0.0.1/32\"]".into()];
    let limits = vec!["per_ip_per_second = 1".into(), "per_ip_burst = 2".into()];
    let shop = Shop::on(Anvil::start(8453), Settings { server, limits, ..Settings::default() });
    let _proxy = Proxy::start(kind, port, shop.server.address());
    let mut asked = 0;
    eventually("who asks too often is refused, whoever it claims to be", || {
        asked += 1;
        status_from("127.0.0.2", &url, asked % 250) == "429"
    });
    assert!(asked > 2, "{kind:?}: not before");
    assert_eq!(status_from("127.0.0.3", &url, 1), "200", "{kind:?}: and nobody else");
    shop.close();
}

/// It closes a silent connection before farebox does, which would be in the middle of the next request.
fn silent_connections_end_at_the_proxy(kind: Kind) {
    let behind = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = behind.local_addr().unwrap().to_string();
    let (sender, ended) = mpsc::channel();
    std::thread::spawn(move || {
        let mut connection = BufReader::new(behind.accept().unwrap().0);
        let mut line = String::new();
        while connection.read_line(&mut line).is_ok_and(|bytes| bytes > 0) {
            if line == "\r\n" {
                connection.get_mut().write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n").unwrap();
            }
            line.clear();
        }
        let _ = sender.send(());
    });
    let _proxy = Proxy::start(kind, free_port(), &address);
    // Left to themselves nginx keeps it for a minute, Caddy for two.
    assert!(ended.recv_timeout(Duration::from_secs(50)).is_ok(), "{kind:?} keeps it");
}

#[test]
fn silent_connections_end_at_nginx() {
    silent_connections_end_at_the_proxy(Kind::Nginx);
}

#[test]
fn silent_connections_end_at_caddy() {
    silent_connections_end_at_the_proxy(Kind::Caddy);
}

#[test]
fn callers_are_told_apart_behind_nginx() {
    callers_are_told_apart_by_their_own_address(Kind::Nginx);
}

#[test]
fn callers_are_told_apart_behind_caddy() {
    callers_are_told_apart_by_their_own_address(Kind::Caddy);
}

#[test]
fn nothing_that_a_caller_brings_is_logged_by_nginx() {
    nothing_secret_is_logged(Kind::Nginx);
}

#[test]
fn nothing_that_a_caller_brings_is_logged_by_caddy() {
    nothing_secret_is_logged(Kind::Caddy);
}

#[test]
fn the_clients_buy_through_nginx() {
    clients_buy(Kind::Nginx);
}

#[test]
fn the_clients_buy_through_caddy() {
    clients_buy(Kind::Caddy);
}

#[test]
fn events_come_one_by_one_through_nginx() {
    events_come_one_by_one(Kind::Nginx);
}

#[test]
fn events_come_one_by_one_through_caddy() {
    events_come_one_by_one(Kind::Caddy);
}

#[test]
fn a_broken_answer_is_broken_through_nginx() {
    a_broken_answer_never_looks_complete(Kind::Nginx);
}

#[test]
fn a_broken_answer_is_broken_through_caddy() {
    a_broken_answer_never_looks_complete(Kind::Caddy);
}
