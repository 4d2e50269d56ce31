//! The numbers on `/metrics`: each is what the books, the chain and the upstream say, and strangers neither see nor make any.

use farebox_rig::http::Request;
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use serde_json::json;

use crate::shop::{CHARGE, CHAT, FIVE, Shop, USAGE, body};

/// Waits until so many calls are counted as ended.
fn wait_ended(shop: &Shop, sample: &str, calls: &str) {
    eventually(sample, || {
        let numbers = shop.numbers();
        numbers.has(sample) && numbers.get(sample) == calls
    });
}

#[test]
fn money_in_the_numbers_is_the_money_in_the_books() {
    let mut shop = Shop::open();
    let key = shop.key();
    assert_eq!(shop.call(&key, USAGE, false, CHARGE).status, 200);
    assert_eq!(shop.call(&key, USAGE, true, CHARGE).status, 200);
    shop.pay(USAGE, CHARGE);
    let by = |how: &str| format!("model=\"test-model\",upstream=\"fake\",paid_by=\"{how}\"");
    wait_ended(&shop, &format!("farebox_sales_total{{{},outcome=\"complete\"}}", by("balance")), "2");
    wait_ended(&shop, &format!("farebox_sales_total{{{},outcome=\"complete\"}}", by("payment")), "1");
    eventually("all places are free", || shop.numbers().get("farebox_calls_in_flight") == "0");
    let numbers = shop.numbers();
    assert_eq!(numbers.micros(&format!("farebox_charges_usdc_total{{{}}}", by("balance"))), 2 * CHARGE);
    assert_eq!(numbers.micros(&format!("farebox_charges_usdc_total{{{}}}", by("payment"))), CHARGE);
    assert_eq!(numbers.get("farebox_tokens_total{model=\"test-model\",kind=\"input\"}"), "60");
    assert_eq!(numbers.get("farebox_tokens_total{model=\"test-model\",kind=\"output\"}"), "21");
    assert_eq!(numbers.micros("farebox_moved_usdc_total{kind=\"charge\"}"), 3 * CHARGE);
    assert_eq!(numbers.micros("farebox_revenue_usdc"), 3 * CHARGE);
    assert_eq!(numbers.micros("farebox_liabilities_usdc"), shop.left());
    assert_eq!(numbers.micros("farebox_top_ups_usdc_total{network=\"eip155:8453\"}"), FIVE);
    let came_in: u64 = shop.chain.transfers().iter().map(|it| it.value).sum();
    assert_eq!(numbers.micros("farebox_moved_usdc_total{kind=\"payment\"}"), came_in);
    for nothing in
        ["farebox_held_usdc", "farebox_holds", "farebox_transit_usdc", "farebox_bad_debt_usdc", "farebox_calls_in_flight"]
    {
        assert_eq!(numbers.get(nothing), "0", "{nothing}");
    }
    assert_eq!(numbers.get("farebox_settlements_total{network=\"eip155:8453\",outcome=\"confirmed\"}"), "2");
    assert_eq!(numbers.get("farebox_settlement_seconds_count{network=\"eip155:8453\"}"), "2");
    assert_eq!(numbers.get("farebox_upstream_calls_total{upstream=\"fake\",outcome=\"ok\"}"), "3");
    assert_eq!(numbers.get("farebox_upstream_first_byte_seconds_count{upstream=\"fake\"}"), "3");
    assert_eq!(numbers.get("farebox_network_ready{network=\"eip155:8453\"}"), "1");
    assert_eq!(numbers.get("farebox_upstream_up{upstream=\"fake\"}"), "1");
    let number = |sample: &str| numbers.get(sample).parse::<f64>().unwrap();
    assert!(number("farebox_commit_seconds_count") >= 3.0 && number("process_resident_memory_bytes") > 1e6);
    assert!(number("farebox_gas_coins{network=\"eip155:8453\"}") > number("farebox_gas_needed_coins{network=\"eip155:8453\"}"));
    eventually("all of it is on disk", || shop.numbers().get("farebox_ledger_backlog") == "0");
    shop.server.restart();
    let numbers = shop.numbers();
    assert_eq!(numbers.micros("farebox_liabilities_usdc"), shop.left(), "what is owed is known from the start");
    assert_eq!(numbers.micros("farebox_revenue_usdc"), 3 * CHARGE);
    shop.close();
}

#[test]
fn a_call_in_flight_shows_as_held_money_and_what_is_given_back_is_counted() {
    let mut shop = Shop::open();
    let key = shop.key();
    let stream =
        farebox_rig::http::open(shop.server.address(), &crate::shop::with_key(&key, "<<fake in=20 words=400 gap=50>>", true));
    let mut stream = stream.unwrap();
    assert!(stream.status == 200 && stream.next_chunk().is_some());
    let numbers = shop.numbers();
    assert_eq!((numbers.get("farebox_holds"), numbers.get("farebox_calls_in_flight")), ("1", "1"));
    assert!(numbers.micros("farebox_held_usdc") > 0);
    assert_eq!(numbers.micros("farebox_liabilities_usdc"), FIVE, "held money is the wallet's");
    drop(stream);
    let left = "farebox_sales_total{model=\"test-model\",upstream=\"fake\",paid_by=\"balance\",outcome=\"client_left\"}";
    wait_ended(&shop, left, "1");
    let charged = shop.numbers().micros("farebox_moved_usdc_total{kind=\"charge\"}");
    assert_eq!(shop.numbers().micros("farebox_held_usdc"), 0);
    let answer = shop.call(&key, USAGE, false, CHARGE + charged);
    let whole = "farebox_sales_total{model=\"test-model\",upstream=\"fake\",paid_by=\"balance\",outcome=\"complete\"}";
    wait_ended(&shop, whole, "1");
    let (code, _, error) =
        farebox_rig::process::run(shop.server.command(&["refund", answer.header("x-request-id").unwrap()]), "");
    assert_eq!(code, 0, "{error}");
    assert_eq!(shop.numbers().micros("farebox_moved_usdc_total{kind=\"refund\"}"), CHARGE);
    assert_eq!(shop.numbers().micros("farebox_revenue_usdc"), charged);
    shop.call(&key, "<<fake status=400>>", false, 0);
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(books.balance(farebox_rig::anvil::BUYER.address), FIVE - charged);
}

#[test]
fn strangers_neither_see_the_numbers_nor_make_any() {
    let shop = Shop::open();
    assert_eq!(shop.server.send(&Request::get("/metrics")).status, 404, "callers are not told");
    let told = shop.ask("/metrics").text();
    let made_up = json!({ "model": "made-up-model", "messages": [{ "role": "user", "content": "hi" }] }).to_string();
    for number in 0..40 {
        shop.server.send(&Request::post(CHAT, made_up.clone()));
        shop.server.send(&Request::get(&format!("/v1/models/made-up-{number}")));
        shop.server.send(&Request::get(&format!("/made-up/{number}")));
        shop.server.send(&Request::new("MADEUP", "/v1/models"));
        shop.server.send(&Request::post(CHAT, body(USAGE, false)).header("authorization", &format!("Bearer made-up-{number}")));
    }
    let after = shop.numbers();
    assert!(!after.text.to_lowercase().contains("made"), "{}", after.text);
    let routes = |text: &str| text.lines().filter(|line| line.starts_with("farebox_response_seconds_count")).count();
    assert!(routes(&after.text) <= routes(&told) + 4, "a row for each route of the table, and one for none:\n{}", after.text);
    assert_eq!(after.get("farebox_refusals_total{code=\"model_not_found\"}"), "80");
    assert_eq!(shop.ask("/v1/models").status, 404, "nobody is served where the operator looks");
    assert_eq!(shop.upstream.calls().len(), 0);
    shop.close();
}

#[test]
fn an_upstream_that_fails_is_seen_by_its_code_and_as_down() {
    let failover = ["failures = 2", "pause_ms = 600000", "longest_pause_ms = 600000"].map(str::to_owned).to_vec();
    let payments = vec!["settle_after_ms = 8000".to_owned()];
    let mut shop = Shop::with(Settings { failover, payments, ..Settings::default() });
    let key = shop.key();
    shop.upstream.configure(&json!({ "status": 500 }));
    for _ in 0..2 {
        assert!(shop.call(&key, USAGE, false, 0).status >= 500);
    }
    assert_eq!(shop.numbers().get("farebox_upstream_up{upstream=\"fake\"}"), "1", "it failed for one wallet alone");
    shop.fails_for_another();
    let numbers = shop.numbers();
    let failed: u64 = numbers.get("farebox_upstream_calls_total{upstream=\"fake\",outcome=\"upstream_error\"}").parse().unwrap();
    assert_eq!(failed, 3);
    assert_eq!(numbers.get("farebox_upstream_up{upstream=\"fake\"}"), "0");
    assert_eq!(numbers.get("farebox_revenue_usdc"), "0", "nothing was charged");
    assert!(!numbers.has("farebox_upstream_first_byte_seconds_count{upstream=\"fake\"}"));
    shop.close();
}
