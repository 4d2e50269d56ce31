//! Output that nobody sees while it is made: it is held for, never more of it is asked for than can be paid, and it is charged in full.

use std::io::Write as _;

use farebox_rig::account::Key;
use farebox_rig::anvil::BUYER;
use farebox_rig::http::{self, Request};
use farebox_rig::provider::{After, Provider};
use serde_json::{Value, json};

use crate::shop::{CHAT, FIVE, Shop, params_with};
use crate::streams::{counting, long, read, shop};

/// Half a dollar, in micros.
const HALF: u64 = 500_000;
/// Micros per token of the answer.
const OUTPUT: u64 = 15;
/// What the model of these shops gives at most, over 128,000 that are asked for.
const MOST: u64 = 64_000;
/// Tokens of output that a stream holds at first.
const STEP: u64 = 1000;

/// An upstream that says two words and then, in an event without words, that it used 20,000 tokens; with a terminator or none.
fn reasoning(terminated: bool) -> Provider {
    Provider::start(move |_, stream| {
        let word = json!({ "choices": [{ "delta": { "content": "w " } }] });
        let report = json!({ "choices": [], "usage": { "prompt_tokens": 20, "completion_tokens": 20_000 } });
        let end = if terminated { "data: [DONE]\n\n" } else { "" };
        let events = format!("data: {word}\n\ndata: {word}\n\ndata: {report}\n\n{end}");
        let head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ntransfer-encoding: chunked\r\n\r\n";
        let said = format!("{head}{:x}\r\n{events}\r\n0\r\n\r\n", events.len());
        if stream.write_all(said.as_bytes()).is_ok() { After::Keep } else { After::Close }
    })
}

const USED: i64 = 20 * 3 + 20_000 * 15;

#[test]
fn what_an_answer_used_is_charged_although_it_breaks_off_before_its_end() {
    for (limit, charge) in [(None, USED), (Some("0.1"), 100_000)] {
        let provider = reasoning(false);
        let mut shop = shop(&provider, 100);
        shop.top_up(BUYER, HALF);
        let key = shop.mint(BUYER, &json!({ "name": "k", "spend_limit_usd": limit }));
        let (events, complete) = read(http::open(shop.server.address(), &long(&key)).unwrap());
        assert!(!complete, "a part never looks like the whole");
        assert_eq!(events.last().unwrap()["error"]["code"], "upstream_error", "{events:?}");
        shop.wait_charged(1);
        assert_eq!(shop.account(BUYER).statement().of("CHARGE"), [-charge], "with a limit of {limit:?}");
        shop.close(&[charge]);
    }
}

#[test]
fn what_was_used_unseen_is_charged_up_to_the_limit_of_the_key_and_no_further() {
    let provider = reasoning(true);
    let mut shop = shop(&provider, 100);
    shop.top_up(BUYER, HALF);
    let key = shop.mint(BUYER, &json!({ "name": "k", "spend_limit_usd": "0.2" }));
    let (events, complete) = read(http::open(shop.server.address(), &long(&key)).unwrap());
    assert!(!complete);
    assert_eq!(events.last().unwrap()["error"]["code"], "spend_limit_exceeded", "{events:?}");
    shop.wait_charged(1);
    assert_eq!(shop.account(BUYER).available(), 300_000, "all that the key may spend, and nothing else");
    shop.close(&[200_000]);
}

/// What a call holds when its stream begins, by what its answer says is left.
fn held(shop: &Shop, request: &Request, before: u64) -> u64 {
    let stream = http::open(shop.server.address(), request).unwrap();
    assert_eq!(stream.status, 200);
    let left: u64 = stream.header("x-balance-remaining").unwrap().replace('.', "").parse().unwrap();
    read(stream);
    before - left
}

/// The output limit that the upstream was sent with its last request.
fn limit_sent(provider: &Provider) -> u64 {
    let last = provider.requests().pop().unwrap();
    let body: Value = serde_json::from_str(last.split_once("\r\n\r\n").unwrap().1).unwrap();
    body["max_tokens"].as_u64().unwrap()
}

#[test]
fn an_upstream_is_asked_for_no_more_output_than_can_be_paid_at_that_moment() {
    // Micros in, the limit of the key, answers to one request, and what is there for all of it.
    for (paid_in, limit, choices, money) in
        [(HALF, None, 1, HALF), (HALF, None, 2, HALF), (HALF, Some("0.2"), 1, 200_000), (FIVE, None, 1, FIVE)]
    {
        let (provider, _gone) = counting(1, false);
        let mut shop = shop(&provider, STEP);
        shop.top_up(BUYER, paid_in);
        let key = shop.mint(BUYER, &json!({ "name": "k", "spend_limit_usd": limit }));
        let body = params_with("", json!({ "stream": true, "max_tokens": 128_000, "n": choices })).to_string();
        let request = Request::post(CHAT, body).header("x-api-key", &key.text);
        let input = held(&shop, &request, paid_in) - STEP * OUTPUT;
        let expected = ((money - input) / OUTPUT / choices).min(MOST);
        assert_eq!(limit_sent(&provider), expected, "{money} micros for {choices} answers");
        assert!(input + expected * choices * OUTPUT <= money);
        shop.wait_charged(1);
        shop.close(&[20 * 3 + 1000 * 15]);
    }
}

fn asking(key: &Key, fields: Value) -> Request {
    let mut body = params_with("", json!({ "stream": true, "max_tokens": MOST }));
    body.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    Request::post(CHAT, body.to_string()).header("x-api-key", &key.text)
}

#[test]
fn a_request_for_hidden_output_holds_all_of_it() {
    let (provider, _gone) = counting(1, false);
    let mut shop = shop(&provider, STEP);
    shop.top_up(BUYER, HALF);
    let key = shop.mint(BUYER, &json!({ "name": "k" }));
    for fields in [
        json!({ "reasoning_effort": "low" }),
        json!({ "reasoning": { "effort": "high" } }),
        json!({ "reasoning": {} }),
        json!({ "include_reasoning": false }),
        json!({ "thinking": { "type": "adaptive" } }),
    ] {
        let answer = shop.server.send(&asking(&key, fields.clone()));
        assert_eq!((answer.status, answer.code().as_str()), (402, "insufficient_balance"), "{fields}: {}", answer.text());
        assert!(answer.json()["required_micro"].as_u64().unwrap() >= MOST * OUTPUT, "{fields}: {}", answer.text());
    }
    assert_eq!(provider.requests().len(), 0, "nobody works for what cannot be paid");
    let (mut calls, mut left) = (0, HALF);
    for (fields, tokens) in [
        (json!({}), STEP),
        (json!({ "reasoning_effort": "none", "reasoning": null, "include_reasoning": null }), STEP),
        (json!({ "reasoning": { "enabled": false } }), STEP),
        (json!({ "thinking": { "type": "disabled" } }), STEP),
        // What is thought comes before the first word, and is no more than this.
        (json!({ "thinking": { "type": "enabled", "budget_tokens": 20_000 } }), 20_000 + STEP),
    ] {
        let held = held(&shop, &asking(&key, fields.clone()), left);
        assert!((tokens * OUTPUT..tokens * OUTPUT + 2000).contains(&held), "{fields} holds {held}");
        calls += 1;
        left -= 20 * 3 + 1000 * 15;
        shop.wait_charged(calls);
    }
    shop.close(&vec![20 * 3 + 1000 * 15; calls]);
}

#[test]
fn a_model_that_is_marked_so_always_holds_for_all_of_its_output() {
    let (provider, _gone) = counting(1, false);
    let mut shop = shop(&provider, STEP);
    shop.server.reconfigure(|text| text.replace("\nprice = {", "\nhidden_output = true\nprice = {"));
    shop.server.restart();
    shop.top_up(BUYER, HALF);
    let key = shop.mint(BUYER, &json!({ "name": "k" }));
    let answer = shop.server.send(&asking(&key, json!({})));
    assert_eq!((answer.status, answer.code().as_str()), (402, "insufficient_balance"), "{}", answer.text());
    assert_eq!(provider.requests().len(), 0);
    let held = held(&shop, &asking(&key, json!({ "max_tokens": 10_000 })), HALF);
    assert!((10_000 * OUTPUT..10_000 * OUTPUT + 2000).contains(&held), "{held}");
    shop.wait_charged(1);
    shop.close(&[20 * 3 + 1000 * 15]);
}
