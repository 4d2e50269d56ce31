//! Every call times every identity: what came from the upstream arrives, its charge is right to the micro, and failures cost nothing.

use std::io::Write as _;
use std::net::TcpStream;

use farebox_rig::http::{Answer, Request};
use farebox_rig::process::eventually;
use serde_json::{Value, json};

use crate::calls::{Call, all};
use crate::shop::{Shop, by_key, plain_key};

/// What the upstream does to a call, and what its buyers see then.
struct Trouble {
    behaviour: Value,
    /// The statuses that a buyer may get.
    statuses: &'static [u16],
}

/// Sends a call once by each identity; `check` gets every answer. With `charge`, each costs what it should.
fn by_everybody(shop: &mut Shop, behaviour: &Value, check: impl Fn(&Call, &Answer)) -> u64 {
    let (key, calls) = (shop.key(&plain_key()), all());
    let unpaid: Vec<_> = calls.iter().map(|call| call.request("/v1")).collect();
    let payments = shop.payments(&unpaid);
    let mut charged = 0;
    for (call, (payment, quote)) in calls.iter().zip(payments) {
        let v1 = call.request("/v1");
        let sign_in = shop.account().sign_in();
        let ways = [
            (by_key(&v1, &key), 0),
            (call.request("/api/v1").header("x-sign-in-with-x", &sign_in), 0),
            (v1.header("payment-signature", &payment), quote),
        ];
        for (request, amount) in ways {
            shop.upstream.reset();
            shop.upstream.configure(behaviour);
            let answer = shop.server.send(&request);
            check(call, &answer);
            let charge = if answer.status == 200 && answer.complete { call.charge } else { 0 };
            assert!(charge <= quote, "{}: {charge} of a quote of {quote}", call.name);
            // A payment that has settled says so, also where nothing came of it and all of it is balance.
            shop.came_in(if answer.header("payment-response").is_some() { amount } else { 0 });
            shop.wait_charged(charge);
            charged += charge;
        }
    }
    charged
}

#[test]
fn every_call_is_sold_by_key_by_sign_in_and_by_payment_at_its_price() {
    let mut shop = Shop::open();
    let asked = Shop::open();
    let charged = by_everybody(&mut shop, &json!({}), |call, answer| {
        assert!(answer.status == 200 && answer.complete, "{}: {} {}", call.name, answer.status, answer.text());
        asked.upstream.reset();
        let straight = asked.straight(&call.request("/v1"));
        assert_eq!(answer.body, straight.body, "{}: the answer is as the upstream sent it", call.name);
        assert_eq!(answer.header("content-type").unwrap(), call.content_type, "{}", call.name);
    });
    assert_eq!(charged, 3 * all().iter().map(|call| call.charge).sum::<u64>());
    shop.close(charged);
}

#[test]
fn whatever_an_upstream_refuses_fails_or_cuts_costs_nobody_anything() {
    let mut shop = Shop::open();
    for trouble in [
        Trouble { behaviour: json!({ "status": 400 }), statuses: &[400, 502] },
        Trouble { behaviour: json!({ "status": 500 }), statuses: &[502, 503] },
        Trouble { behaviour: json!({ "cut": 1 }), statuses: &[200, 502] },
        Trouble { behaviour: json!({ "cut": 1, "cut_mode": "rst" }), statuses: &[200, 502] },
    ] {
        let charged = by_everybody(&mut shop, &trouble.behaviour, |call, answer| {
            let (status, behaviour) = (answer.status, &trouble.behaviour);
            assert!(trouble.statuses.contains(&status), "{} {behaviour}: {status} {}", call.name, answer.text());
            assert!(status != 200 || !answer.complete, "{} {behaviour}: half an answer never looks whole", call.name);
            assert!(status != 200 || call.content_type != "application/json", "{}: nothing of it was sold", call.name);
        });
        assert_eq!(charged, 0);
    }
    shop.close(0);
}

#[test]
fn a_key_with_too_small_a_limit_or_for_other_models_buys_nothing() {
    let mut shop = Shop::open();
    let calls = all();
    let least = json!({ "name": "poor", "spend_limit_usd": "0.000001" });
    let other = json!({ "name": "other", "models": ["flat-image"] });
    for (wanted, code) in [(least, "spend_limit_exceeded"), (other, "model_not_allowed")] {
        let key = shop.key(&wanted);
        for call in &calls {
            let answer = shop.server.send(&by_key(&call.request("/v1"), &key));
            assert_eq!((answer.status, answer.code().as_str()), (403, code), "{}: {}", call.name, answer.text());
        }
    }
    assert_eq!(shop.upstream.calls().len(), 0, "the upstream was not asked");
    shop.close(0);
}

#[test]
fn a_caller_that_leaves_before_the_answer_pays_nothing_and_the_upstream_is_let_go() {
    let mut shop = Shop::open();
    let key = shop.key(&plain_key());
    for call in all() {
        shop.upstream.reset();
        shop.upstream.configure(&json!({ "ttfb": 60_000 }));
        let mut caller = TcpStream::connect(shop.server.address()).unwrap();
        caller.write_all(&by_key(&call.request("/v1"), &key).bytes("shop")).unwrap();
        eventually("the upstream has the call", || shop.upstream.calls().len() == 1);
        drop(caller);
        eventually("the upstream is let go", || shop.upstream.calls()[0]["outcome"] == "client_gone");
        shop.wait_charged(0);
    }
    shop.close(0);
}

/// Takes the first piece of an answer that is held up behind it, and leaves.
fn take_a_piece(shop: &Shop, request: &Request) {
    let mut stream = farebox_rig::http::open(shop.server.address(), request).unwrap();
    assert_eq!(stream.status, 200);
    assert!(stream.next_chunk().is_some_and(|chunk| !chunk.is_empty()));
}

#[test]
fn a_caller_that_leaves_in_the_middle_pays_for_what_it_took() {
    let mut shop = Shop::open();
    let key = shop.key(&plain_key());
    let drafts = json!({ "model": "gpt-image-by-piece", "prompt": "a cat", "stream": true, "partial_images": 2 });
    let spoken = json!({ "model": "tts-1", "input": "twelve chars", "voice": "alloy" });
    shop.upstream.configure(&json!({ "hang": 1 }));
    for (path, body, charge) in [("/v1/images/generations", drafts, 50_000), ("/v1/audio/speech", spoken, 12 * 15)] {
        take_a_piece(&shop, &by_key(&Request::post(path, body.to_string()), &key));
        shop.wait_charged(charge);
    }
    shop.close(50_000 + 12 * 15);
}
