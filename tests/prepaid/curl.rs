//! The manual flow of the wallet API's documents, with curl: one signed header for several routes, one charge for each header.

use std::process::Command;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox_rig::account::usd;
use farebox_rig::anvil::{BUYER, SETTLER};
use farebox_rig::process::run;
use farebox_rig::{installed, tests_dir};
use serde_json::{Value, json};

use crate::shop::{ANSWER, CHARGE, Shop, USAGE, params};

/// What curl printed.
struct Printed {
    status: u16,
    headers: String,
    body: Value,
}

impl Printed {
    fn header(&self, name: &str) -> Option<&str> {
        let lines = self.headers.lines().filter_map(|line| line.split_once(':'));
        lines.filter(|(other, _)| other.eq_ignore_ascii_case(name)).map(|(_, value)| value.trim()).next()
    }
}

/// Runs curl on a route of the shop.
fn curl(shop: &Shop, route: &str, arguments: &[&str]) -> Printed {
    let mut command = Command::new("curl");
    command.args(["--silent", "--show-error", "--max-time", "50", "--include", "--url"]).arg(shop.server.url() + route);
    command.args(arguments);
    let (code, stdout, stderr) = run(command, "");
    assert_eq!(code, 0, "curl failed: {stderr}");
    let (headers, body) = stdout.split_once("\r\n\r\n").expect("a head and a body");
    let status = headers.split(' ').nth(1).and_then(|text| text.parse().ok()).expect("a status line");
    let body = serde_json::from_str(body).unwrap_or_else(|error| panic!("not JSON ({error}): {stdout}"));
    Printed { status, headers: headers.to_owned(), body }
}

/// The payment header of the documents, made by the library that they name.
fn top_up_header(offer: &str, usd: &str) -> String {
    let clients = tests_dir().join("clients");
    installed(clients.join("node_modules/x402"));
    let mut command = Command::new("node");
    command.arg(clients.join("top_up_header.mjs"));
    command.env("PRIVATE_KEY", BUYER.key).env("OFFER", offer).env("AMOUNT_USD", usd);
    let (code, stdout, stderr) = run(command, "");
    assert_eq!(code, 0, "top_up_header.mjs failed: {stderr}");
    format!("X-402-Payment: {}", stdout.trim())
}

#[test]
fn one_header_opens_the_balance_buys_once_and_reads_the_statement() {
    let shop = Shop::open();
    let auth = format!("X-Sign-In-With-X: {}", shop.account(BUYER).sign_in());
    let balance = format!("/api/v1/x402/balance/{}", BUYER.address);
    let first = curl(&shop, &balance, &["--request", "GET", "--header", &auth]);
    assert_eq!((first.status, usd(&first.body["data"]["balanceUsd"])), (200, 0), "{}", first.body);

    let body = params(USAGE).to_string();
    let chat = ["--request", "POST", "--header", "Content-Type: application/json", "--header", &auth, "--data", &body];
    let poor = curl(&shop, "/api/v1/chat/completions", &chat);
    assert_eq!((poor.status, poor.body["code"].as_str()), (402, Some("PAYMENT_REQUIRED")), "{}", poor.body);
    assert_eq!(shop.upstream.calls().len(), 0);

    let offer = curl(&shop, "/api/v1/x402/top-up", &["--request", "POST"]);
    assert_eq!(offer.status, 402);
    let in_header = STANDARD.decode(offer.header("payment-required").expect("the offer is in a header")).unwrap();
    assert_eq!(serde_json::from_slice::<Value>(&in_header).unwrap(), offer.body, "header and body are the same offer");
    let payment = top_up_header(&offer.body.to_string(), "5");
    let paid = curl(&shop, "/api/v1/x402/top-up", &["--request", "POST", "--header", &payment]);
    assert_eq!(paid.status, 200, "{}", paid.body);
    let data = &paid.body["data"];
    assert_eq!((usd(&data["amountCredited"]), usd(&data["newBalance"])), (5_000_000, 5_000_000), "{}", paid.body);
    assert_eq!(data["walletAddress"], BUYER.address.to_lowercase());
    assert!(paid.header("payment-response").is_some(), "{}", paid.headers);
    let again = curl(&shop, "/api/v1/x402/top-up", &["--request", "POST", "--header", &payment]);
    assert_eq!(
        (again.status, &again.body["data"]["paymentId"]),
        (200, &data["paymentId"]),
        "the same answer, and no second credit"
    );
    assert_eq!(shop.chain.transactions_of(SETTLER.address), 1);

    let bought = curl(&shop, "/api/v1/chat/completions", &chat);
    assert_eq!((bought.status, &bought.body["choices"][0]["message"]["content"]), (200, &ANSWER.into()), "{}", bought.body);
    assert!(bought.header("x-balance-remaining").is_some(), "{}", bought.headers);
    let request = bought.header("x-request-id").expect("every answer has an id").to_owned();
    let twice = curl(&shop, "/api/v1/chat/completions", &chat);
    assert_eq!((twice.status, twice.body["code"].as_str()), (401, Some("X402_SIGN_IN_NONCE_REUSED")), "{}", twice.body);
    assert_eq!(shop.upstream.calls().len(), 1, "one header buys once");

    let statement = format!("/api/v1/x402/transactions/{}?limit=10&offset=0", BUYER.address);
    let read = curl(&shop, &statement, &["--request", "GET", "--header", &auth]);
    assert_eq!(read.status, 200, "a header that has bought still reads: {}", read.body);
    let rows = read.body["data"]["transactions"].as_array().unwrap();
    assert_eq!((&rows[0]["type"], &rows[0]["requestId"]), (&"CHARGE".into(), &request.into()), "{}", read.body);
    assert_eq!((usd(&rows[0]["amount"]), rows.len()), (-CHARGE, 2));
    shop.close(&[]);
}

#[test]
fn a_key_buys_under_both_headers_and_both_prefixes_and_sees_itself() {
    let mut shop = Shop::open();
    let key = shop.buyer_with_key();
    let body = params(USAGE).to_string();
    for header in [format!("Authorization: Bearer {}", key.text), format!("x-api-key: {}", key.text)] {
        for route in ["/v1/chat/completions", "/api/v1/chat/completions", "/v1/messages", "/api/v1/messages"] {
            let bought = curl(&shop, route, &["--header", &header, "--data", &body]);
            assert_eq!(bought.status, 200, "{route} with {header}: {}", bought.body);
            let left = bought.header("x-balance-remaining").expect("the balance is told");
            assert_eq!(left.split_once('.').map(|(_, micros)| micros.len()), Some(6), "plain decimal USD: {left}");
        }
        let itself = curl(&shop, "/v1/key", &["--header", &header]);
        assert_eq!((itself.status, &itself.body["name"]), (200, &json!("laptop")), "{}", itself.body);
        assert!(!itself.body.to_string().contains(&key.text), "its text is shown once, when it is minted");
    }
    assert_eq!(shop.logged(), [CHARGE; 8]);
    shop.close(&[]);
}
