//! Topping up: any amount within the limits becomes balance of who paid it, once, and whatever else comes is refused in its own words.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use farebox_rig::account::usd;
use farebox_rig::anvil::{Anvil, BUYER, OTHER_BUYER, PAY_TO, POOR_BUYER, SETTLER};
use farebox_rig::buyer::send_copies;
use farebox_rig::http::{Answer, Request};
use farebox_rig::server::{Server, Settings};
use farebox_rig::upstream::Upstream;
use serde_json::json;

use crate::shop::{CHARGE, CHAT, FIVE, Shop, USAGE, params};
use crate::topping::{Payment, TOP_UP, encode, error, now, paying, sign, sign_with, with};

const DOLLAR: u64 = 1_000_000;

#[test]
fn a_top_up_begins_with_one_offer_in_header_and_body_whatever_was_sent_along() {
    let shop = Shop::open();
    for route in [TOP_UP, "/v1/x402/top-up"] {
        for body in ["", "{}", "not json", r#"{"amountUsd":-5}"#, r#"{"amountUsd":1e308}"#, r#"{"wallet":"0x00"}"#] {
            let answer = shop.server.send(&Request::post(route, body));
            assert_eq!(answer.status, 402, "{route} {body}: {}", answer.text());
            let offer = answer.json();
            assert_eq!(answer.decoded("payment-required").unwrap(), offer, "header and body are the same object");
            assert_eq!((&offer["x402Version"], &offer["error"]), (&json!(2), &json!("Payment required")));
            assert_eq!(offer["resource"]["url"], format!("{}{route}", shop.server.url()));
            let accepts = offer["accepts"].as_array().unwrap();
            assert_eq!(accepts.len(), 1);
            assert_eq!((&accepts[0]["network"], &accepts[0]["amount"]), (&json!("eip155:8453"), &json!("1000000")));
            assert_eq!(accepts[0]["payTo"], PAY_TO.address);
        }
    }
    let old = shop.server.send(&Request::post(&format!("{TOP_UP}?x402Version=1"), ""));
    assert_eq!((old.status, &old.json()["x402Version"]), (402, &json!(1)), "{}", old.text());
    assert_eq!(
        (&old.json()["accepts"][0]["network"], &old.json()["accepts"][0]["maxAmountRequired"]),
        (&json!("base"), &json!("1000000"))
    );
    assert_eq!(shop.server.send(&Request::get(TOP_UP)).status, 405);
    let huge = shop.server.send(&Request::post(TOP_UP, vec![b'x'; 70_000]));
    assert_eq!((huge.status, error(&huge).as_str()), (413, "PAYLOAD_TOO_LARGE"));
    shop.assert_untouched();
    shop.close_with(0, 0);
}

/// One way to write the same kind of payment: what it is, its header name, and its value.
type Way = (&'static str, &'static str, fn(&Payment) -> String);

const WAYS: [Way; 7] = [
    ("version 2", "payment-signature", |payment| payment.v2().to_owned()),
    ("version 2 under the second name", "x-402-payment", |payment| payment.v2().to_owned()),
    ("version 1", "x-payment", |payment| payment.v1().to_owned()),
    ("version 1 that says 2", "x-402-payment", |payment| payment.changed("v1", |it| it["x402Version"] = json!(2))),
    ("version 1 by CAIP-2", "x-payment", |payment| payment.changed("v1", |it| it["network"] = json!("eip155:8453"))),
    ("what the offer said was accepted, and more was signed", "payment-signature", |payment| {
        payment.changed("v2", |it| it["accepted"]["amount"] = json!("1000000"))
    }),
    ("without padding", "payment-signature", |payment| URL_SAFE_NO_PAD.encode(STANDARD.decode(payment.v2()).unwrap())),
];

#[test]
fn any_amount_within_the_limits_is_the_payers_balance_before_the_answer_however_it_is_written() {
    let (prepaid, network) = (vec!["top_up_maximum = \"20.00\"".into()], vec!["safe_above = \"20.00\"".into()]);
    let shop = Shop::with(8453, Settings { prepaid, network, ..Settings::default() });
    let amounts = [DOLLAR, DOLLAR + 1, 2_500_000, FIVE, 7 * DOLLAR, 19_999_999, 20 * DOLLAR];
    let mut sum = 0;
    for ((what, name, value), amount) in WAYS.into_iter().zip(amounts) {
        let payment = shop.signed(amount);
        let header = value(&payment);
        let answer = shop.server.send(&Request::post(TOP_UP, r#"{"wallet":"0x00"}"#).header(name, &header));
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        sum += i64::try_from(amount).unwrap();
        let body = answer.json();
        let keys: Vec<_> = body["data"].as_object().unwrap().keys().map(String::as_str).collect();
        assert_eq!((&body["success"], keys), (&json!(true), vec!["amountCredited", "newBalance", "paymentId", "walletAddress"]));
        let data = &body["data"];
        assert_eq!(usd(&data["amountCredited"]), i64::try_from(amount).unwrap(), "{what}");
        assert_eq!(usd(&data["newBalance"]), sum, "{what}");
        assert_eq!(data["walletAddress"], BUYER.address.to_lowercase(), "it is the payer's, whatever the body says");
        for receipt in ["payment-response", "x-payment-response"] {
            let receipt = answer.decoded(receipt).unwrap();
            assert_eq!((&receipt["success"], &receipt["payer"]), (&json!(true), &json!(BUYER.address)));
            assert!(shop.chain.receipt(receipt["transaction"].as_str().unwrap()).is_some());
        }
        assert_eq!(shop.account(BUYER).available(), sum, "{what}: spendable before the answer");
    }
    let statement = shop.account(BUYER).statement();
    statement.assert_sums();
    assert_eq!(statement.of("TOP_UP"), amounts.map(|amount| i64::try_from(amount).unwrap()));
    assert!(statement.rows.iter().all(|row| row.request.is_none() && row.model.is_none()), "{statement:?}");
    shop.close_with(amounts.iter().sum(), 7);
}

#[test]
fn a_payment_that_is_not_what_was_asked_is_refused_with_a_code_of_its_own_and_never_settled() {
    let shop = Shop::open();
    let asked = shop.asked_for(FIVE);
    let amount = |units: &str| sign(BUYER, &with(&asked, "amount", json!(units)));
    let good = sign(BUYER, &asked);
    let until = |seconds| sign_with(json!({ "key": BUYER.key, "requirements": asked, "validBefore": seconds }));
    let other_token = "0x0000000000000000000000000000000000000001";
    let v1 = |payment: &Payment| payment.v1().to_owned();
    let cases = [
        ("AMOUNT_TOO_LOW", "a unit too little", v1(&amount("999999"))),
        ("AMOUNT_TOO_LOW", "nothing", v1(&amount("0"))),
        ("AMOUNT_TOO_LOW", "too little, and says so", amount("999999").v2().to_owned()),
        ("AMOUNT_TOO_HIGH", "a unit too much", v1(&amount("10000000001"))),
        ("AMOUNT_TOO_HIGH", "more than a number holds", v1(&amount("36893488147419103233"))),
        ("AMOUNT_TOO_HIGH", "too much, and says so", amount("10000000001").v2().to_owned()),
        ("INVALID_AMOUNT", "less than it says", good.changed("v2", |it| it["accepted"]["amount"] = json!("5000001"))),
        ("INVALID_AMOUNT", "says no number", good.changed("v2", |it| it["accepted"]["amount"] = json!("5.0"))),
        ("UNSUPPORTED_NETWORK", "a network that is not sold on", good.changed("v1", |it| it["network"] = json!("polygon"))),
        ("UNSUPPORTED_NETWORK", "a network that is none", good.changed("v1", |it| it["network"] = json!("nowhere"))),
        ("UNSUPPORTED_SCHEME", "another scheme", good.changed("v1", |it| it["scheme"] = json!("upto"))),
        ("UNSUPPORTED_SCHEME", "no scheme that exists", good.changed("v2", |it| it["accepted"]["scheme"] = json!("Exact"))),
        ("UNSUPPORTED_TOKEN", "another token", sign(BUYER, &with(&asked, "asset", json!(other_token))).v2().to_owned()),
        ("INVALID_PAYMENT_RECIPIENT", "to somebody else", v1(&sign(BUYER, &with(&asked, "payTo", json!(OTHER_BUYER.address))))),
        (
            "INVALID_PAYMENT_RECIPIENT",
            "says somebody else",
            good.changed("v2", |it| it["accepted"]["payTo"] = json!(OTHER_BUYER.address)),
        ),
        ("INVALID_PAYMENT_PAYER", "by the operator itself", v1(&sign(PAY_TO, &asked))),
        ("PAYMENT_VERIFICATION_FAILED", "over", v1(&until(now() - 1))),
        ("PAYMENT_VERIFICATION_FAILED", "over too soon", v1(&until(now() + 15))),
        ("PAYMENT_VERIFICATION_FAILED", "for a year", v1(&until(now() + 31_536_000))),
        ("PAYMENT_VERIFICATION_FAILED", "by a wallet without money", v1(&sign(POOR_BUYER, &asked))),
        (
            "PAYMENT_VERIFICATION_FAILED",
            "in another domain",
            v1(&sign(BUYER, &with(&asked, "extra", json!({ "name": "USD", "version": "2" })))),
        ),
        (
            "PAYMENT_VERIFICATION_FAILED",
            "by somebody else",
            good.changed("v1", |it| it["payload"]["authorization"]["from"] = json!(OTHER_BUYER.address)),
        ),
        (
            "INVALID_PAYMENT",
            "without a signature",
            good.changed("v1", |it| _ = it["payload"].as_object_mut().unwrap().remove("signature")),
        ),
        (
            "INVALID_PAYMENT",
            "over a value that is no number",
            good.changed("v1", |it| it["payload"]["authorization"]["value"] = json!("1e6")),
        ),
        ("INVALID_PAYMENT_FORMAT", "no base64", "garbage!".to_owned()),
        ("INVALID_PAYMENT_FORMAT", "no JSON", STANDARD.encode("[]")),
        ("INVALID_PAYMENT_FORMAT", "no payment", encode(&json!({ "x402Version": 3 }))),
    ];
    for (code, what, header) in &cases {
        let answer = shop.server.send(&Request::post(TOP_UP, "").header("x-402-payment", header));
        assert_refused(&answer, code, what);
    }
    let two = Request::post(TOP_UP, "").header("x-402-payment", good.v1()).header("payment-signature", good.v2());
    assert_refused(&shop.server.send(&two), "INVALID_PAYMENT_FORMAT", "two different payments");
    shop.assert_untouched();
    assert_eq!(shop.pay_in(&good).status, 200, "no refusal has used the good one up");
    shop.close_with(FIVE, 1);
}

fn assert_refused(answer: &Answer, code: &str, what: &str) {
    assert_eq!((answer.status, error(answer).as_str()), (400, code), "{what}: {}", answer.text());
    let body = answer.json();
    assert!(body["message"].as_str().is_some_and(|message| !message.is_empty()), "{what}: {body}");
    assert!(body["details"]["code"].is_string(), "{what}: {body}");
    let offer = answer.decoded("payment-required").expect("how to do it right");
    assert_eq!(offer["accepts"][0]["amount"], "1000000", "{what}");
    assert_eq!((answer.header("payment-response"), answer.header("x-should-retry")), (None, Some("false")), "{what}");
}

#[test]
fn a_signature_under_the_name_that_libraries_give_every_usdc_is_told_what_the_token_is_called() {
    let shop = Shop::with(84532, Settings::default());
    let asked = shop.asked();
    assert_eq!(asked["extra"]["name"], "USDC");
    let payment = sign(BUYER, &with(&asked, "extra", json!({ "name": "USD Coin", "version": "2" })));
    let answer = shop.server.send(&Request::post(TOP_UP, "").header("x-402-payment", payment.v1()));
    assert_refused(&answer, "PAYMENT_VERIFICATION_FAILED", "the wrong name");
    let body = answer.json();
    assert_eq!(body["details"]["reason"], "sdk_hardcoded_token_name", "{body}");
    assert!(body["message"].as_str().unwrap().contains("\"USDC\""), "{body}");
    shop.assert_untouched();
    shop.close_with(0, 0);
}

#[test]
fn copies_in_the_same_moment_are_one_credit() {
    let shop = Shop::open();
    for (copies, paid_before) in [(20, 0), (64, FIVE)] {
        let payment = shop.signed(FIVE);
        let answers = send_copies(shop.server.address(), &paying(&payment), copies);
        let count = |status: u16| answers.iter().filter(|(other, _)| *other == status).count();
        assert_eq!((answers.len(), count(200) + count(409)), (copies, copies), "{answers:?}");
        assert!(count(200) >= 1, "one of them is the top-up: {answers:?}");
        let told = |(_, answer): &(u16, String)| answer.contains("newBalance");
        assert_eq!(answers.iter().filter(|answer| told(answer)).count(), 1, "one was the first");
        assert!(answers.iter().filter(|(status, _)| *status == 409).all(|(_, answer)| answer.contains("PAYMENT_IN_PROGRESS")));
        assert_eq!(shop.earned(), paid_before + FIVE);
        assert_eq!(shop.account(BUYER).available(), i64::try_from(paid_before + FIVE).unwrap(), "one credit for {copies} copies");
    }
    shop.close_with(2 * FIVE, 2);
}

#[test]
fn a_top_up_that_is_sent_again_gets_the_same_answer_and_no_second_credit_also_after_a_restart() {
    let mut shop = Shop::open();
    let payment = shop.signed(FIVE);
    let first = shop.pay_in(&payment);
    assert_eq!(first.status, 200, "{}", first.text());
    let mut public = first.json()["data"].clone();
    public.as_object_mut().unwrap().remove("newBalance");
    for restarted in [false, true] {
        if restarted {
            shop.server.restart();
        }
        for (what, name, value) in WAYS {
            let header = value(&payment);
            let again = shop.server.send(&Request::post("/v1/x402/top-up", "").header(name, &header));
            assert_eq!((again.status, &again.json()["success"]), (200, &json!(true)), "{what}: {}", again.text());
            // A settled payment is on its chain for everybody to copy: it tells nobody what its payer has.
            assert_eq!(again.json()["data"], public, "{what}, restarted: {restarted}");
            let receipts = [&again, &first].map(|answer| answer.decoded("payment-response").unwrap()["transaction"].clone());
            assert_eq!(receipts[0], receipts[1], "{what}");
        }
        let told = |account: &str| shop.server.send(&paying(&payment).header("x-sign-in-with-x", account)).json()["data"].clone();
        assert_eq!(told(&shop.account(BUYER).sign_in()), first.json()["data"], "who shows to be the payer hears all of it");
        assert_eq!(told(&shop.account(OTHER_BUYER).sign_in()), public, "and nobody else");
        let forged = payment.changed("v2", |it| it["payload"]["authorization"]["value"] = json!("6000000"));
        let taken = shop.server.send(&Request::post(TOP_UP, "").header("payment-signature", &forged));
        assert_eq!((taken.status, error(&taken).as_str()), (409, "PAYMENT_ALREADY_USED"), "{}", taken.text());
    }
    assert_eq!(shop.account(BUYER).statement().of("TOP_UP"), [i64::try_from(FIVE).unwrap()]);
    shop.close_with(FIVE, 1);
}

#[test]
fn what_bought_a_call_tops_nothing_up_and_a_top_up_buys_no_call() {
    let shop = Shop::with(8453, Settings { prepaid: vec!["top_up_minimum = \"0.0001\"".into()], ..Settings::default() });
    let body = params(USAGE).to_string();
    let offer = shop.server.send(&Request::post(CHAT, body.as_str())).decoded("payment-required").unwrap();
    let call = sign(BUYER, &offer["accepts"][0]);
    let price: u64 = offer["accepts"][0]["amount"].as_str().unwrap().parse().unwrap();
    let bought = shop.server.send(&Request::post(CHAT, body.as_str()).header("payment-signature", call.v2()));
    assert_eq!(bought.status, 200, "{}", bought.text());
    let again = shop.server.send_again(&paying(&call));
    assert_eq!((again.status, error(&again).as_str()), (409, "PAYMENT_ALREADY_USED"), "{}", again.text());
    assert_eq!((&again.json()["details"]["outcome"], again.header("payment-required")), (&json!("served"), None));

    // Signed for what the call costs, and paid in.
    let balance = sign(BUYER, &offer["accepts"][0]);
    assert_eq!(shop.pay_in(&balance).status, 200);
    let call = shop.server.send(&Request::post(CHAT, body.as_str()).header("payment-signature", balance.v2()));
    assert_eq!((call.status, call.code().as_str()), (409, "payment_already_used"), "{}", call.text());
    assert_eq!((&call.json()["error"]["outcome"], call.header("payment-required")), (&json!("credited"), None));
    assert_eq!((shop.upstream.calls().len(), shop.earned()), (1, 2 * price), "one call, one top-up");
    assert_eq!(shop.chain.transactions_of(SETTLER.address), 2);
    let mut server = shop.server;
    let books = server.audit();
    assert!(books.clean, "{:#}", books.json);
    let left = 2 * price - u64::try_from(CHARGE).unwrap();
    assert_eq!(books.balance(BUYER.address), left, "all but what the call cost is the buyer's: {:#}", books.json);
}

#[test]
fn too_many_top_ups_of_one_address_are_slowed_down_and_calls_are_not() {
    let limits = vec!["per_ip_per_second = 1000".into(), "per_ip_burst = 1000".into(), "top_ups_per_ip_per_minute = 3".into()];
    let shop = Shop::with(8453, Settings { limits, ..Settings::default() });
    for _ in 0..20 {
        assert_eq!(shop.server.send(&Request::post(TOP_UP, "")).status, 402, "asking is free");
    }
    let bad = Request::post(TOP_UP, "").header("x-payment", "garbage!");
    for _ in 0..3 {
        assert_eq!(shop.server.send(&bad).status, 400);
    }
    let payment = shop.signed(FIVE);
    let slowed = shop.pay_in(&payment);
    assert_eq!((slowed.status, error(&slowed).as_str()), (429, "RATE_LIMITED"), "{}", slowed.text());
    assert_eq!((slowed.header("retry-after"), slowed.header("x-should-retry")), (Some("20"), Some("true")));
    let call = shop.server.send(&Request::post(CHAT, params(USAGE).to_string()).header("x-payment", "garbage!"));
    assert_eq!(call.status, 400, "a call is judged: {}", call.text());
    shop.assert_untouched();
    shop.close_with(0, 0);
}

#[test]
fn where_no_network_is_configured_nothing_can_be_paid_in() {
    let upstream = Upstream::start();
    let config = format!(
        "[server]\nbind = \"127.0.0.1:0\"\n[[upstream]]\nname = \"fake\"\nbase_url = {:?}\nspeaks = [\"chat\"]\n[[model]]\nid = \"m\"\n\
         upstreams = [{{ name = \"fake\", model = \"m\" }}]\nprice = {{ input = \"3\", output = \"15\" }}\n",
        upstream.url()
    );
    let server = Server::configured(env!("CARGO_BIN_EXE_farebox"), &config);
    let answer = server.send(&Request::post(TOP_UP, ""));
    assert_eq!((answer.status, error(&answer).as_str()), (503, "X402_NOT_CONFIGURED"), "{}", answer.text());
    assert_eq!(answer.header("payment-required"), None);
}

#[test]
fn simulated_money_tops_up_as_real_money_does() {
    // Only to sign for: nobody asks this chain anything.
    let chain = Anvil::start(84532);
    let upstream = Upstream::start();
    let config = format!(
        "[server]\nbind = \"127.0.0.1:0\"\n[[network]]\nid = \"base-sepolia\"\npay_to = {:?}\nsettlement = \"simulated\"\n\
         [[upstream]]\nname = \"fake\"\nbase_url = {:?}\nspeaks = [\"chat\"]\n[[model]]\nid = \"m\"\n\
         upstreams = [{{ name = \"fake\", model = \"m\" }}]\nprice = {{ input = \"3\", output = \"15\" }}\n",
        PAY_TO.address,
        upstream.url()
    );
    let mut server = Server::configured(env!("CARGO_BIN_EXE_farebox"), &config);
    let payment = server.account(POOR_BUYER).top_up_payment(FIVE);
    for restarted in [false, true] {
        if restarted {
            server.restart();
        }
        let answer = server.send(&Request::post(TOP_UP, "").header("x-payment", &payment));
        assert_eq!((answer.status, usd(&answer.json()["data"]["amountCredited"])), (200, 5_000_000), "{}", answer.text());
    }
    assert_eq!(server.account(POOR_BUYER).available(), 5_000_000);
    assert_eq!(chain.transfers(), []);
    let books = server.audit();
    assert_eq!((books.clean, books.balance(POOR_BUYER.address)), (true, FIVE), "{:#}", books.json);
}

#[test]
fn the_reference_buyer_pays_in_what_it_is_told() {
    let shop = Shop::open();
    let pay = |arguments: &[&str]| {
        let mut command = shop.server.command(&["pay", "--url", &shop.server.url()]);
        command.args(arguments).env("FAREBOX_PAYER_KEY", BUYER.key);
        farebox_rig::process::run(command, "")
    };
    let (code, stdout, stderr) = pay(&["--top-up", "2.50"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("credited  2.5 USDC") && stdout.contains("balance   2.5 USDC"), "{stdout}");
    for (usd, why) in [("0.5", "less than"), ("10000.01", "AMOUNT_TOO_HIGH"), ("nine", "not an amount")] {
        let (code, _, stderr) = pay(&["--top-up", usd]);
        assert!(code == 1 && stderr.contains(why), "{usd}: {code} {stderr}");
    }
    assert_eq!(pay(&["--top-up", "2", "--model", "m"]).0, 2, "a top-up buys no call");
    assert_eq!(shop.account(BUYER).available(), 2_500_000);
    assert!(!shop.server.output().contains(BUYER.key.trim_start_matches("0x")));
    shop.close_with(2_500_000, 1);
}
