//! A key that ends in the middle of an answer, by its owner's own hand: what was delivered is paid for, as when its caller leaves.

use std::io::Write as _;
use std::sync::Mutex;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use farebox_rig::account::Key;
use farebox_rig::anvil::{BUYER, OTHER_BUYER};
use farebox_rig::http::{self, Request};
use farebox_rig::process::{eventually, run, wait_out_midnight};
use farebox_rig::provider::{After, Provider, wait_gone};
use farebox_rig::server::Settings;
use serde_json::json;

use crate::shop::{CHAT, FIVE, Shop, params};
use crate::streams::{counting, long, read, wait_words};

fn plain(key: &Key) -> Request {
    Request::post(CHAT, params("").to_string()).header("x-api-key", &key.text)
}

/// Gives the key a new secret; the old one ends at once.
fn rotate(shop: &Shop, key: &Key) {
    let answer = shop.account(BUYER).post(&format!("/api/keys/{}/rotate", key.id), &json!({}));
    assert_eq!(answer.status, 200, "{}", answer.text());
}

fn settings(provider: &Provider) -> Settings {
    Settings { upstream_url: Some(provider.url()), ..Settings::default() }
}

#[test]
fn who_rotates_the_key_while_a_plain_answer_is_made_gets_none_of_it_and_pays_nothing() {
    // The upstream brings 400 letters of a longer answer, and then no more.
    let (sender, gone) = mpsc::channel();
    let provider = Provider::start(move |_, stream| {
        let part = format!("{{\"choices\":[{{\"message\":{{\"content\":\"{}", "w".repeat(400));
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9000\r\n\r\n";
        let _ = stream.write_all(format!("{head}{part}").as_bytes());
        wait_gone(stream);
        let _ = sender.send(());
        After::Close
    });
    let mut shop = Shop::with(8453, settings(&provider));
    let key = shop.buyer_with_key();
    let answer = thread::scope(|scope| {
        let asking = scope.spawn(|| shop.server.send(&plain(&key)));
        eventually("the upstream has begun", || provider.requests().len() == 1);
        rotate(&shop, &key);
        asking.join().unwrap()
    });
    assert_eq!((answer.status, answer.complete), (401, true), "{}", answer.text());
    assert!(!answer.text().contains("www"), "a part is not shown");
    gone.recv_timeout(Duration::from_secs(20)).expect("the upstream is let go");
    assert_eq!(shop.account(BUYER).statement().of("CHARGE"), [0; 0], "nobody had anything of it");
    shop.close(&[]);
}

#[test]
fn who_rotates_the_key_instead_of_taking_a_long_plain_answer_pays_for_it() {
    // Far more than the buffers between upstream and caller hold, so that it waits for its reader here.
    let content = "w".repeat(24 << 20);
    let body = json!({ "choices": [{ "message": { "content": content } }] }).to_string();
    let provider = Provider::start(move |_, stream| {
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len());
        let _ = stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body.as_bytes()));
        After::Close
    });
    let mut shop = Shop::with(8453, settings(&provider));
    let key = shop.buyer_with_key();
    let stream = http::open(shop.server.address(), &plain(&key)).unwrap();
    rotate(&shop, &key);
    shop.wait_charged(1);
    drop(stream);
    let charges = shop.account(BUYER).statement().of("CHARGE");
    assert!(charges[0] < -256 * 15, "all that its limit allows: {charges:?}");
    assert_eq!(charges.len(), 1);
    shop.close(&[-charges[0]]);
}

fn by_hand(shop: &Shop, arguments: &[&str]) {
    let (code, _, said) = run(shop.server.command(arguments), "");
    assert_eq!(code, 0, "{said}");
}

#[test]
fn the_calls_of_a_wallet_that_is_barred_end_at_once_whatever_pays_for_them_and_cost_what_passed() {
    let (provider, gone) = counting(3, true);
    let mut shop = Shop::with(8453, settings(&provider));
    let key = shop.buyer_with_key();
    shop.top_up(OTHER_BUYER, FIVE);
    let of_other = shop.mint(OTHER_BUYER, &json!({ "name": "other" }));
    let signed = long(&key).header("x-sign-in-with-x", &shop.account(BUYER).sign_in());
    let mut streams = [&long(&key), &signed, &long(&of_other)].map(|call| http::open(shop.server.address(), call).unwrap());
    streams.iter_mut().for_each(|stream| wait_words(stream, 3));
    // One more that has no head yet.
    let waiting = thread::scope(|scope| {
        let waiting = scope.spawn(|| shop.server.send(&plain(&key)));
        eventually("the upstream has all calls", || provider.requests().len() == 4);
        by_hand(&shop, &["block", BUYER.address, "--reason", "spam"]);
        waiting.join().unwrap()
    });
    assert_eq!((waiting.status, waiting.code().as_str()), (403, "account_blocked"), "{}", waiting.text());
    (0..3).for_each(|_| _ = gone.recv_timeout(Duration::from_secs(20)).expect("its upstream calls are closed"));
    let [by_key, by_sign_in, others] = streams;
    for stream in [by_key, by_sign_in] {
        let (events, complete) = read(stream);
        assert!(!complete, "a part never looks like the whole");
        let error = &events.last().unwrap()["error"];
        assert_eq!(error["code"], "account_blocked", "{events:?}");
        assert!(!error.to_string().contains("spam"), "the reason is the operator's: {error}");
    }
    shop.wait_charged(2);
    let charge = 20 * 3 + 3 * 1000 * 15;
    assert_eq!(shop.account(BUYER).statement().of("CHARGE"), [-charge; 2], "what passed is charged, the rest is back");
    drop(others);
    gone.recv_timeout(Duration::from_secs(20)).expect("the other wallet's went on until its caller left");
    shop.wait_charged(3);
    assert_eq!(provider.requests().len(), 4, "nobody was asked again");
    shop.close(&[charge; 3]);
}

#[test]
fn an_answer_that_is_whole_when_the_key_ends_is_whole_for_its_caller_and_charged() {
    // Nothing says how long it is, and blanks after its end keep everybody waiting for more.
    let (sender, gone) = mpsc::channel();
    let provider = Provider::start(move |_, stream| {
        let usage = json!({ "prompt_tokens": 20, "completion_tokens": 7 });
        let body = json!({ "choices": [{ "message": { "content": "hello" } }], "usage": usage });
        let head = "HTTP/1.1 200 OK\r\ncontent-type: application/json\r\nconnection: close\r\n\r\n";
        let mut written = stream.write_all(format!("{head}{body}").as_bytes());
        while written.is_ok() {
            thread::sleep(Duration::from_millis(10));
            written = stream.write_all(b" ");
        }
        let _ = sender.send(());
        After::Close
    });
    let mut shop = Shop::with(8453, settings(&provider));
    let key = shop.buyer_with_key();
    let mut stream = http::open(shop.server.address(), &plain(&key)).unwrap();
    let mut text = stream.next_chunk().unwrap();
    rotate(&shop, &key);
    while let Some(more) = stream.next_chunk() {
        text.extend(more);
    }
    assert!(stream.complete, "all of it was there");
    assert!(String::from_utf8_lossy(&text).contains("hello"));
    gone.recv_timeout(Duration::from_secs(20)).expect("the upstream is let go");
    shop.wait_charged(1);
    shop.close(&[20 * 3 + 7 * 15]);
}

#[test]
fn a_flat_price_is_paid_also_by_who_revokes_the_key_in_the_middle() {
    let (provider, _gone) = counting(3, true);
    let payments = vec!["payg_remainder = \"keep\"".into()];
    let mut shop = Shop::with(8453, Settings { payments, ..settings(&provider) });
    shop.server.reconfigure(|text| text.replace("\nprice = {", "\nceiling = \"0.25\"\nprice = {"));
    shop.server.restart();
    let key = shop.buyer_with_key();
    let mut stream = http::open(shop.server.address(), &long(&key)).unwrap();
    wait_words(&mut stream, 3);
    shop.account(BUYER).revoke(&key);
    let (events, complete) = read(stream);
    assert!(!complete);
    assert_eq!(events.last().unwrap()["error"]["code"], "key_revoked", "{events:?}");
    shop.wait_charged(1);
    assert_eq!(shop.account(BUYER).available(), i64::try_from(FIVE).unwrap() - 250_000);
    shop.close(&[250_000]);
}

/// A shop whose upstream sends one event of nineteen, and the others when it is let `go`; each says a thousand tokens more.
fn of_two_days() -> (Shop, mpsc::Sender<()>, Provider) {
    let (go, gate) = mpsc::channel::<()>();
    let gate = Mutex::new(gate);
    let provider = Provider::start(move |_, stream| {
        let chunk = |data: &str| format!("{:x}\r\ndata: {data}\n\n\r\n", data.len() + 8);
        let event = |number: u64| {
            let usage = json!({ "prompt_tokens": 20, "completion_tokens": 1000 * number });
            chunk(&json!({ "choices": [{ "delta": { "content": "w " } }], "usage": usage }).to_string())
        };
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        stream.write_all(format!("{head}{}", event(1)).as_bytes()).expect("the caller is there");
        let _ = gate.lock().expect("one call only").recv();
        let rest: String = (2..20).map(event).collect();
        let _ = stream.write_all(format!("{rest}{}0\r\n\r\n", chunk("[DONE]")).as_bytes());
        wait_gone(stream);
        After::Close
    });
    (Shop::with(8453, settings(&provider)), go, provider)
}

/// Grants the buyer so many dollars a day.
fn grant(shop: &Shop, usd: &str) {
    let (code, _, stderr) = run(shop.server.command(&["allowance", "set", BUYER.address, usd]), "");
    assert_eq!(code, 0, "{stderr}");
}

/// What is left of today's allowance, in micros.
fn allowance_left(shop: &Shop) -> i64 {
    let (code, printed, stderr) = run(shop.server.command(&["account", BUYER.address]), "");
    assert_eq!(code, 0, "{stderr}");
    let printed: serde_json::Value = serde_json::from_str(&printed).unwrap();
    (printed["allowance"]["left_usd"].as_f64().unwrap() * 1e6).round() as i64
}

#[test]
fn a_stream_that_outlives_the_day_of_its_allowance_goes_on_with_the_new_days() {
    let (mut shop, go, _provider) = of_two_days();
    wait_out_midnight();
    grant(&shop, "1");
    let key = shop.mint(BUYER, &json!({ "name": "k" }));
    let mut stream = http::open(shop.server.address(), &long(&key)).unwrap();
    wait_words(&mut stream, 1);
    assert!(allowance_left(&shop) < 1_000_000, "the first day's stands for it");
    shop.server.move_clock(24 * 3600);
    assert_eq!(allowance_left(&shop), 1_000_000, "and not the second one's, until it wants more");
    go.send(()).unwrap();
    let (events, complete) = read(stream);
    assert!(complete, "{events:?}");
    shop.wait_charged(1);
    assert_eq!(allowance_left(&shop), 1_000_000 - 20 * 3 - 19_000 * 15, "the day on which it wanted more pays for all of it");
    shop.server.move_clock(0);
    assert_eq!(allowance_left(&shop), 1_000_000, "and the day on which it began for nothing");
    shop.close(&[]);
}

#[test]
fn a_stream_for_which_the_new_day_has_no_more_than_it_holds_is_told_to_come_again_and_not_to_top_up() {
    let (mut shop, go, _provider) = of_two_days();
    wait_out_midnight();
    grant(&shop, "1");
    let key = shop.mint(BUYER, &json!({ "name": "k" }));
    let mut stream = http::open(shop.server.address(), &long(&key)).unwrap();
    wait_words(&mut stream, 1);
    grant(&shop, "0.02");
    shop.server.move_clock(24 * 3600);
    go.send(()).unwrap();
    let (events, complete) = read(stream);
    assert!(!complete);
    let error = &events.last().unwrap()["error"];
    let message = error["message"].as_str().unwrap();
    assert_eq!(error["code"], "insufficient_balance", "{error}");
    assert!(message.contains("send the request again") && !message.contains("top up"), "{message}");
    shop.wait_charged(1);
    assert_eq!(allowance_left(&shop), 20_000, "nothing of the new day was taken");
    shop.server.move_clock(0);
    shop.close(&[]);
}
