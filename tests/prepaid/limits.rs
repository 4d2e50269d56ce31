//! What a balance, a key's limit and a sign-in are good for, also when a thousand calls ask at the same moment.

use farebox_rig::account::Key;
use farebox_rig::anvil::{BUYER, Wallet};
use farebox_rig::buyer::send_copies;
use farebox_rig::http::Request;
use farebox_rig::process::{eventually, free_port, wait_out_midnight};
use farebox_rig::server::Settings;
use serde_json::{Value, json};

use crate::shop::{CHARGE, CHAT, FIVE, Shop, USAGE, params, params_with};

/// Tokens of an answer in the races: so many that a few calls cost a dollar, the least that can be paid in.
const LONG: u64 = 8000;
/// Micros per token of the answer and of the prompt.
const OUTPUT: u64 = 15;
const INPUT: u64 = 3;

/// A body whose call uses every token that it may, and what it costs.
fn dear_call(shop: &Shop) -> (String, u64) {
    let body = |input: u64| {
        let directive = format!("<<fake in={input:05} out={LONG} text=hello+wallet>>");
        params_with(&directive, json!({ "max_tokens": LONG })).to_string()
    };
    let quote = quote(shop, &body(0));
    (body((quote - OUTPUT * LONG) / INPUT), quote)
}

fn quote(shop: &Shop, body: &str) -> u64 {
    let answer = shop.server.send(&Request::post(CHAT, body));
    assert_eq!(answer.status, 402, "{}", answer.text());
    answer.json()["required_micro"].as_u64().unwrap()
}

/// How often each status and code came.
fn tally(answers: &[(u16, String)], code: &str) -> (usize, usize) {
    let served = answers.iter().filter(|(status, _)| *status == 200).count();
    let refused = answers.iter().filter(|(_, answer)| answer.contains(&format!("\"{code}\""))).count();
    assert_eq!(served + refused, answers.len(), "something else came: {:?}", answers.iter().find(|(_, it)| !it.contains(code)));
    (served, refused)
}

fn wide(more: &[&str]) -> Settings {
    let limits = ["per_ip_per_second = 100000", "per_ip_burst = 100000", "payments_per_ip_per_minute = 100000"];
    Settings { limits: limits.iter().chain(more).map(|line| (*line).to_owned()).collect(), ..Settings::default() }
}

fn with_key(body: &str, key: &Key) -> Request {
    Request::post(CHAT, body).header("authorization", &format!("Bearer {}", key.text))
}

#[test]
fn however_many_calls_ask_at_once_a_balance_for_so_many_serves_so_many() {
    for (copies, enough) in [(64, 10), (1024, 37)] {
        let mut shop = Shop::with(8453, wide(&["streams_per_account = 2000"]));
        let (body, quote) = dear_call(&shop);
        shop.top_up(BUYER, quote * enough);
        let key = shop.mint(BUYER, &json!({ "name": "crowd" }));
        let answers = send_copies(shop.server.address(), &with_key(&body, &key), copies);
        let served = usize::try_from(enough).unwrap();
        assert_eq!(tally(&answers, "insufficient_balance"), (served, copies - served), "{copies} copies");
        assert_eq!(shop.upstream.calls().len(), served, "who is refused costs no call upstream");
        shop.wait_charged(served);
        assert_eq!(shop.account(BUYER).available(), 0);
        shop.close(&[]);
    }
}

#[test]
fn however_many_calls_ask_at_once_a_key_spends_no_more_than_its_limit() {
    let mut shop = Shop::with(8453, wide(&["streams_per_account = 2000"]));
    let (body, quote) = dear_call(&shop);
    shop.top_up(BUYER, quote * 20);
    let limit = quote * 5;
    let limit = format!("{}.{:06}", limit / 1_000_000, limit % 1_000_000);
    let key = shop.mint(BUYER, &json!({ "name": "five", "spend_limit_usd": limit, "reset": "month" }));
    let answers = send_copies(shop.server.address(), &with_key(&body, &key), 256);
    assert_eq!(tally(&answers, "spend_limit_exceeded"), (5, 251));
    let refused = &answers.iter().find(|(status, _)| *status == 403).expect("most are").1;
    assert!(refused.contains("renews_at") && refused.contains("\"left_micro\""), "{refused}");
    assert!(!refused.contains("\"accepts\""), "no payment mends that: {refused}");
    shop.wait_charged(5);
    assert_eq!(shop.account(BUYER).available(), i64::try_from(quote * 15).unwrap(), "the rest of the balance is untouched");
    // Another key of the same wallet goes on.
    let other = shop.mint(BUYER, &json!({ "name": "other" }));
    assert_eq!(shop.server.send(&with_key(&body, &other)).status, 200);
    assert_eq!(shop.upstream.calls().len(), 6);
    shop.close(&[]);
}

#[test]
fn one_sign_in_pays_for_one_call_however_often_and_wherever_it_is_shown() {
    let mut shop = Shop::open();
    // Sign-ins are for the address at which it is found again.
    shop.server.reconfigure(|text| text.replace("127.0.0.1:0", &format!("127.0.0.1:{}", free_port())));
    shop.server.restart();
    shop.top_up(BUYER, FIVE);
    let sign_in = shop.account(BUYER).sign_in();
    let request = Request::post(CHAT, params(USAGE).to_string()).header("x-sign-in-with-x", &sign_in);
    let answers = send_copies(shop.server.address(), &request, 64);
    assert_eq!(tally(&answers, "X402_SIGN_IN_NONCE_REUSED"), (1, 63));
    shop.wait_charged(1);
    shop.server.restart();
    for route in [CHAT, "/v1/messages", "/api/v1/chat/completions"] {
        for name in ["x-sign-in-with-x", "sign-in-with-x"] {
            let answer = shop.server.send(&Request::post(route, params(USAGE).to_string()).header(name, &sign_in));
            assert_eq!(answer.status, 401, "{route}, also after a restart: {}", answer.text());
            assert!(answer.text().contains("X402_SIGN_IN_NONCE_REUSED"), "{}", answer.text());
        }
    }
    let read = Request::get(&format!("/api/v1/x402/balance/{}", BUYER.address)).header("x-sign-in-with-x", &sign_in);
    assert_eq!(shop.server.send(&read).status, 200, "reading with it is free");
    assert_eq!(shop.upstream.calls().len(), 1);
    shop.close(&[]);
}

fn call_with(shop: &Shop, sign_in: &str) -> (u16, String) {
    let request = Request::post(CHAT, params(USAGE).to_string()).header("x-sign-in-with-x", sign_in);
    let answer = shop.server.send(&request);
    (answer.status, answer.text())
}

#[test]
fn a_strict_gateway_takes_a_sign_in_once_for_anything_and_a_lenient_one_until_it_expires() {
    let read = |shop: &Shop, sign_in: &str| {
        let balance = Request::get(&format!("/api/v1/x402/balance/{}", BUYER.address)).header("x-sign-in-with-x", sign_in);
        shop.server.send(&balance).status
    };
    let policy = |name: &str| Settings { prepaid: vec![format!("sign_in_nonces = {name:?}")], ..Settings::default() };
    let shop = Shop::with(8453, policy("strict"));
    shop.top_up(BUYER, FIVE);
    let sign_in = shop.account(BUYER).sign_in();
    assert_eq!((read(&shop, &sign_in), read(&shop, &sign_in), call_with(&shop, &sign_in).0), (200, 401, 401));
    let sign_in = shop.account(BUYER).sign_in();
    assert_eq!((call_with(&shop, &sign_in).0, call_with(&shop, &sign_in).0, read(&shop, &sign_in)), (200, 401, 401));
    shop.wait_charged(1);
    assert_eq!(shop.account(BUYER).available(), i64::try_from(FIVE).unwrap() - CHARGE);
    let books = shop_books(shop);
    assert!(books.clean, "{:#}", books.json);

    let shop = Shop::with(8453, policy("session"));
    shop.top_up(BUYER, FIVE);
    let sign_in = shop.account(BUYER).sign_in();
    for _ in 0..3 {
        assert_eq!((call_with(&shop, &sign_in).0, read(&shop, &sign_in)), (200, 200));
    }
    shop.close(&[]);
}

fn shop_books(mut shop: Shop) -> farebox_rig::server::Books {
    shop.server.audit()
}

#[test]
fn a_refusal_does_not_use_a_sign_in_up() {
    let shop = Shop::open();
    let sign_in = shop.account(BUYER).sign_in();
    assert_eq!(call_with(&shop, &sign_in).0, 402, "there is nothing to pay with");
    let bad = Request::post(CHAT, "{").header("x-sign-in-with-x", &sign_in);
    assert_eq!(shop.server.send(&bad).status, 400);
    shop.top_up(BUYER, FIVE);
    let (status, text) = call_with(&shop, &sign_in);
    assert_eq!(status, 200, "the same header, topped up: {text}");
    assert_eq!(call_with(&shop, &sign_in).0, 401, "and no second time");
    shop.close(&[]);
}

#[test]
fn a_key_of_a_day_is_good_for_its_limit_again_on_the_next_day_and_not_before() {
    wait_out_midnight();
    let mut shop = Shop::open();
    shop.top_up(BUYER, FIVE);
    // One call, which holds its quote and costs less.
    let body = params(USAGE).to_string();
    let quote = quote(&shop, &body);
    let limit = format!("0.{quote:06}");
    let key = shop.mint(BUYER, &json!({ "name": "daily", "spend_limit_usd": limit, "reset": "day" }));
    assert_eq!(shop.server.send(&with_key(&body, &key)).status, 200);
    shop.wait_charged(1);
    let answer = shop.server.send(&with_key(&body, &key));
    assert_eq!((answer.status, answer.code().as_str()), (403, "spend_limit_exceeded"), "{}", answer.text());
    let error = &answer.json()["error"];
    assert_eq!((&error["left_micro"], &error["required_micro"]), (&(quote - 165).into(), &quote.into()), "{error}");
    assert!(error["renews_at"].as_str().is_some_and(|at| at.ends_with("T00:00:00.000Z")), "{error}");
    assert_eq!(answer.header("x-should-retry"), Some("false"));
    let flat = Request::post("/api/v1/chat/completions", body.as_str()).header("x-api-key", &key.text);
    assert_eq!(shop.server.send(&flat).code(), "SPEND_LIMIT_EXCEEDED");
    assert_eq!(shop.upstream.calls().len(), 1);
    shop.close(&[]);
}

#[test]
fn a_wallet_calls_so_often_whichever_its_keys_and_another_wallet_is_not_punished() {
    let mut shop = Shop::with(8453, wide(&["per_account_per_second = 1", "per_account_burst = 3"]));
    let first = shop.buyer_with_key();
    let second = shop.mint_by_hand(BUYER);
    let other = shop.mint_by_hand(farebox_rig::anvil::OTHER_BUYER);
    let body = params(USAGE).to_string();
    let requests: Vec<_> = [&first, &second].into_iter().cycle().take(12).map(|key| with_key(&body, key)).collect();
    let answers = farebox_rig::buyer::send_at_once(shop.server.address(), &requests.iter().collect::<Vec<_>>());
    let served = answers.iter().filter(|(status, _)| *status == 200).count();
    let refused = answers.iter().filter(|(status, answer)| *status == 429 && answer.contains("rate_limited"));
    assert!(refused.clone().all(|(_, answer)| answer.to_ascii_lowercase().contains("retry-after: 1")), "{answers:?}");
    assert!((3..12).contains(&served) && served + refused.count() == 12, "{answers:?}");
    assert_eq!(shop.upstream.calls().len(), served, "what is refused is asked of nobody");
    let poor = shop.server.send(&with_key(&body, &other));
    assert_eq!(poor.status, 402, "another wallet is only told that it has nothing: {}", poor.text());
    shop.close(&[]);
}

#[test]
fn a_wallet_has_so_many_calls_at_once_and_its_place_is_free_when_one_ends() {
    let mut shop = Shop::with(8453, wide(&["streams_per_account = 3"]));
    let key = shop.buyer_with_key();
    let held = params_with("<<fake words=5 in=20 hang=2 flush=1>>", json!({ "stream": true })).to_string();
    let mut open: Vec<_> =
        (0..3).map(|_| farebox_rig::http::open(shop.server.address(), &with_key(&held, &key)).unwrap()).collect();
    assert!(open.iter_mut().all(|stream| stream.status == 200 && stream.next_chunk().is_some()));
    let answers = send_copies(shop.server.address(), &with_key(&params(USAGE).to_string(), &key), 16);
    assert_eq!(tally(&answers, "concurrency_limit"), (0, 16));
    assert!(answers.iter().all(|(status, answer)| *status == 429 && answer.to_ascii_lowercase().contains("retry-after: 1")));
    let flat = Request::post("/api/v1/chat/completions", params(USAGE).to_string()).header("x-api-key", &key.text);
    assert_eq!(shop.server.send(&flat).code(), "X402_CONCURRENCY_LIMIT");
    let id = open[0].header("x-request-id").unwrap().to_owned();
    drop(open.remove(0));
    shop.server.has_said("the client left; charged");
    assert_eq!(shop.server.send(&with_key(&params(USAGE).to_string(), &key)).status, 200);
    let first = shop.account(BUYER).statement().charge(&id);
    drop(open);
    eventually("all have left", || shop.server.output().matches("the client left; charged").count() == 3);
    let all = shop.account(BUYER).statement().of("CHARGE");
    let left: Vec<i64> = all.iter().map(|amount| -amount).filter(|amount| *amount != CHARGE).collect();
    assert!(left.len() == 3 && left.contains(&first), "{all:?}");
    shop.close(&left);
}

/// What a wallet is shown of its account.
fn shown(wallet: Wallet, shop: &Shop, name: &str) -> Value {
    shop.account(wallet).get(&format!("/api/v1/x402/balance/{}", wallet.address)).json()["data"][name].clone()
}

#[test]
fn an_allowance_is_spent_before_the_balance_within_one_call_and_ends_with_its_day() {
    let mut shop = Shop::open();
    shop.top_up(BUYER, FIVE);
    let grant = |shop: &Shop, usd: &str| {
        let command = shop.server.command(&["allowance", "set", BUYER.address, usd]);
        let (code, stdout, stderr) = farebox_rig::process::run(command, "");
        assert_eq!(code, 0, "{stdout}{stderr}");
    };
    let key = shop.mint(BUYER, &json!({ "name": "k" }));
    wait_out_midnight();
    // A hundred micros: less than one call costs.
    grant(&shop, "0.0001");
    assert_eq!(shown(BUYER, &shop, "diemBalanceUsd").as_f64(), Some(0.0001));
    let answer = shop.server.send(&with_key(&params(USAGE).to_string(), &key));
    assert_eq!((answer.status, answer.header("x-allowance-remaining")), (200, Some("0.000000")), "{}", answer.text());
    shop.wait_charged(1);
    let rows = shop.account(BUYER).statement();
    assert_eq!(rows.of("CHARGE"), [100 - CHARGE], "the row is what the balance paid");
    assert_eq!(shop.account(BUYER).available(), i64::try_from(FIVE).unwrap() - CHARGE + 100);
    assert_eq!(shown(BUYER, &shop, "diemBalanceUsd").as_f64(), Some(0.0));
    // Today's is used up, so the next call is paid whole.
    assert_eq!(shop.server.send(&with_key(&params(USAGE).to_string(), &key)).status, 200);
    shop.wait_charged(2);
    assert_eq!(shop.account(BUYER).statement().of("CHARGE"), [100 - CHARGE, -CHARGE]);
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(books.balance(BUYER.address), FIVE - 2 * u64::try_from(CHARGE).unwrap() + 100);
}
