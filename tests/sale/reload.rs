//! A new configuration under a running gateway: streams go on, quotes that are out are honoured, and a bad one changes nothing.

use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use farebox_rig::anvil::BUYER;
use farebox_rig::http::{self, Request};
use farebox_rig::process::eventually;
use farebox_rig::server::{MODEL, UPSTREAM_MODEL};
use serde_json::json;

use crate::shop::{CHARGE, CHAT, Shop, USAGE, body, paid};

/// [`CHARGE`] at four times the price.
const DEARER: u64 = 4 * CHARGE;

/// Multiplies the shop's prices by four, or puts them back.
fn price(shop: &Shop, dear: bool) {
    let (cheap_text, dear_text) = ("input = \"3\", output = \"15\"", "input = \"12\", output = \"60\"");
    let (from, to) = if dear { (cheap_text, dear_text) } else { (dear_text, cheap_text) };
    shop.server.reconfigure(|text| text.replace(from, to));
}

/// A call to the shop with a key, and whether its whole answer came.
fn chat(shop: &Shop, key: &str, model: &str) -> http::Answer {
    let body = json!({ "model": model, "max_tokens": 64, "messages": [{ "role": "user", "content": USAGE }] }).to_string();
    shop.server.send(&Request::post(CHAT, body).header("authorization", &format!("Bearer {key}")))
}

#[test]
fn a_reload_drops_no_stream_and_a_quote_that_is_out_keeps_its_price() {
    let mut shop = Shop::open();
    let long = body("<<fake in=20 out=7 words=30 gap=100>>", true);
    let payment = shop.pay(CHAT, &long);
    let mut stream = http::open(shop.server.address(), &paid(CHAT, &long, &payment)).unwrap();
    assert!(stream.next_chunk().is_some(), "it has begun");
    let body = body(USAGE, false);
    let quoted = shop.pay(CHAT, &body);

    price(&shop, true);
    let (code, said) = shop.server.reload();
    assert_eq!(code, 0, "{said}");
    for change in ["price.input: \"3\" -> \"12\"", "price.output: \"15\" -> \"60\""] {
        assert!(said.contains(&format!("changed   model {MODEL:?}, {change}")), "{said}");
    }
    let dearer = shop.pay(CHAT, &body);
    assert!(dearer.amount > 3 * quoted.amount, "{} after {}", dearer.amount, quoted.amount);
    let answer = shop.buy(CHAT, &body, &quoted);
    assert_eq!((answer.status, answer.complete), (200, true), "the quote is honoured: {}", answer.text());
    let answer = shop.buy(CHAT, &body, &dearer);
    assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());

    let mut last = Vec::new();
    while let Some(chunk) = stream.next_chunk() {
        last = chunk;
    }
    assert!(stream.complete && String::from_utf8_lossy(&last).contains("[DONE]"), "the stream went on to its end");
    assert_eq!(shop.earned(), payment.amount + quoted.amount + dearer.amount);
    shop.close(CHARGE + CHARGE + DEARER);
}

#[test]
fn a_bad_configuration_is_refused_in_one_line_and_the_old_one_stays() {
    let mut shop = Shop::open();
    let good = std::fs::read_to_string(shop.server.data_dir().with_file_name("config.toml")).unwrap();
    let body = body(USAGE, false);
    let before = shop.requirements(CHAT, &body);
    let bad = [
        ("[limits]", "[limits]\nstraems = 5", "straems"),
        ("input = \"3\"", "input = \"three\"", "price.input"),
        ("env:TEST_UPSTREAM_KEY", "env:NO_SUCH_KEY", "NO_SUCH_KEY is not set"),
        ("speaks =", "ca_file = \"missing.pem\"\nspeaks =", "ca_file"),
        ("[[model]]", "[[model]]\nid = \"\"\nupstreams = []\nprice = {}\n[[model]]", "id: empty"),
        ("[server]", "[server]\noperators = [\"0x12\"]", "operators"),
    ];
    let noted = std::fs::read(shop.server.data_dir().join("prices.json")).unwrap();
    for (from, to, why) in bad {
        // Something good beside it does not count either.
        shop.server.reconfigure(|_| good.replacen(from, to, 1).replace("output = \"15\"", "output = \"60\""));
        let refusals = shop.server.output().matches("is refused and the old one stays").count();
        shop.server.hang_up();
        eventually("the operator is told", || {
            let log = shop.server.output();
            let mut refused = log.lines().filter(|line| line.contains("is refused and the old one stays"));
            refused.nth(refusals).is_some_and(|line| line.contains(why))
        });
        let (code, said) = shop.server.reload();
        assert!(code != 0 && said.contains(why), "{code}: {said}");
        assert_eq!(shop.requirements(CHAT, &body), before);
        assert_eq!(std::fs::read(shop.server.data_dir().join("prices.json")).unwrap(), noted, "prices that nobody was asked");
    }
    shop.server.reconfigure(|_| good);
    let payment = shop.sign(BUYER, before);
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 200);
    assert_eq!(shop.served(), 1);
    shop.close(CHARGE);
}

#[test]
fn what_cannot_change_is_named_and_stays_until_the_next_start() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    shop.server.reconfigure(|text| {
        let text = text.replace("data_dir = \"data\"", "data_dir = \"data\"\npublic_url = \"https://elsewhere.example\"");
        let text = text.replace("[payments]", "[payments]\nmax_timeout_seconds = 600");
        text.replace("[[network]]", "[[network]]\nsurcharge = \"0.5\"")
    });
    let (code, said) = shop.server.reload();
    assert_eq!(code, 0, "{said}");
    for stays in ["server.public_url", "payments.max_timeout_seconds", "surcharge"] {
        assert!(said.lines().any(|line| line.starts_with("stays ") && line.contains(stays)), "{said}");
    }
    assert!(!said.contains("changed "), "{said}");
    assert_eq!(shop.requirements(CHAT, &body)["maxTimeoutSeconds"], 300);
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 200);
    shop.close(CHARGE);
}

#[test]
fn a_new_key_of_an_upstream_and_a_new_model_count_without_a_restart() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let mut paid_so_far = 0;
    shop.server.put("upstream.key", "sk-expired");
    shop.server.reconfigure(|text| text.replace("env:TEST_UPSTREAM_KEY", "file:upstream.key"));
    assert_eq!(shop.server.reload().0, 0);
    let payment = shop.pay(CHAT, &body);
    let refused = shop.buy(CHAT, &body, &payment);
    assert_eq!(refused.status, 502, "the old key is not used any more: {}", refused.text());
    assert_eq!(shop.earned(), 0, "nothing was settled for it");

    shop.server.put("upstream.key", farebox_rig::upstream::UPSTREAM_KEY);
    let serving = format!("upstreams = [{{ name = \"fake\", model = \"{UPSTREAM_MODEL}\" }}]");
    let model = format!("[[model]]\nid = \"second\"\n{serving}\nprice = {{ input = \"3\", output = \"15\" }}\n");
    shop.server.reconfigure(|text| text.replacen("[[model]]", &format!("{model}[[model]]"), 1));
    let (_, said) = shop.server.reload();
    assert!(said.contains("model \"second\": new") && said.contains("upstream \"fake\", api_key: another key"), "{said}");
    for body in [body.clone(), body.replace(MODEL, "second")] {
        let payment = shop.pay(CHAT, &body);
        assert_eq!(shop.buy(CHAT, &body, &payment).status, 200);
        paid_so_far += payment.amount;
    }
    assert!(shop.server.send(&Request::get("/v1/models")).text().contains("second"));
    assert_eq!(shop.earned(), paid_so_far);

    shop.server.reconfigure(|text| text.replacen(&model, "", 1));
    assert!(shop.server.reload().1.contains("model \"second\": gone"));
    let answer = shop.server.send(&Request::post(CHAT, body.replace(MODEL, "second")));
    assert_eq!((answer.status, answer.code().as_str()), (404, "model_not_found"));
    shop.close(2 * CHARGE);
}

#[test]
fn reloads_under_load_break_no_call_and_every_call_costs_one_price_or_the_other() {
    let shop = Shop::open();
    let account = shop.server.account(BUYER);
    assert_eq!(account.top_up(5_000_000).status, 200);
    let key = account.mint_by_hand();
    let done = AtomicBool::new(false);
    let calls: usize = thread::scope(|scope| {
        let buyers: Vec<_> = (0..4)
            .map(|_| {
                scope.spawn(|| {
                    let mut calls = 0;
                    while !done.load(Ordering::Relaxed) {
                        let answer = chat(&shop, &key.text, MODEL);
                        assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
                        calls += 1;
                    }
                    calls
                })
            })
            .collect();
        for round in 0..12 {
            price(&shop, round % 2 == 0);
            shop.server.hang_up();
            let reloads = round + 1;
            eventually("it was read", || shop.server.output().matches("was read again and counts").count() == reloads);
        }
        done.store(true, Ordering::Relaxed);
        buyers.into_iter().map(|buyer| buyer.join().unwrap()).sum()
    });
    let charges = || account.statement().of("CHARGE").into_iter().map(i64::unsigned_abs).collect::<Vec<_>>();
    eventually("every call is charged once", || charges().len() == calls);
    let charges = charges();
    assert!(charges.iter().all(|charge| [CHARGE, DEARER].contains(charge)), "{charges:?}");
    assert!(charges.contains(&CHARGE) && charges.contains(&DEARER), "both prices counted: {charges:?}");
    assert_eq!((charges.len(), shop.served()), (calls, calls), "and not twice");
    shop.close(charges.iter().sum());
}
