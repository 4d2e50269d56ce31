//! The published attacks on x402 sellers, each under its name: what the attacker got, and who holds the money at the end.

use std::collections::HashMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox_rig::anvil::{Anvil, BUYER, MINTER, OTHER_BUYER, SETTLER};
use farebox_rig::buyer::send_copies;
use farebox_rig::http::{self, Answer, Request};
use farebox_rig::process::eventually;
use farebox_rig::server::{INPUT_PRICE, OUTPUT_PRICE, Server, Settings};
use farebox_rig::upstream::Upstream;
use serde_json::{Value, json};

use crate::shop::{ANSWER, CHARGE, CHAT, MESSAGES, Payment, Shop, USAGE, body, paid};

#[test]
fn replay_race_of_64_copies_buys_one_call() {
    replay_race(64);
}

#[test]
fn replay_race_of_1024_copies_buys_one_call() {
    replay_race(1024);
}

fn replay_race(count: usize) {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    let answers = send_copies(shop.server.address(), &paid(CHAT, &body, &payment), count);
    let mut statuses = HashMap::new();
    for (status, answer) in &answers {
        *statuses.entry(*status).or_insert(0) += 1;
        let refused = answer.contains("payment_in_progress") || answer.contains("payment_already_used");
        assert_eq!(*status == 409, refused, "{answer}");
    }
    assert_eq!(statuses, HashMap::from([(200, 1), (409, count - 1)]));
    assert_eq!((shop.served(), shop.chain.transactions_of(SETTLER.address)), (1, 1), "one call upstream, one transaction");
    assert_eq!(shop.earned(), payment.amount, "paid once");
    shop.close(CHARGE);
}

#[test]
fn serve_before_settle_shows_nobody_a_byte_of_an_unpaid_answer() {
    let mut shop = Shop::open();
    let body = body(USAGE, true);
    let payment = shop.pay(CHAT, &body);
    shop.chain.set_automine(false);
    let address = shop.server.address().to_owned();
    std::thread::scope(|scope| {
        let call = scope.spawn(|| http::open(&address, &paid(CHAT, &body, &payment)).unwrap());
        eventually("the payment is submitted", || shop.chain.pending_transactions() == 1);
        eventually("the upstream answers", || shop.upstream.calls().iter().any(|call| call["outcome"] == "done"));
        assert!(!call.is_finished(), "not even the head of the answer is there");
        shop.chain.mine(1);
        let mut stream = call.join().unwrap();
        assert_eq!(stream.status, 200);
        let mut text = Vec::new();
        while let Some(chunk) = stream.next_chunk() {
            text.extend(chunk);
        }
        assert!(String::from_utf8(text).unwrap().ends_with("data: [DONE]\n\n"));
    });
    shop.chain.set_automine(true);
    shop.close(CHARGE);
}

/// Buys with the chain standing still, and lets `attack` happen while our transaction waits for its block.
fn buy_under(shop: &Shop, payment: &Payment, attack: impl FnOnce()) -> Answer {
    let (address, request) = (shop.server.address().to_owned(), paid(CHAT, &body(USAGE, true), payment));
    shop.chain.set_automine(false);
    let answer = std::thread::scope(|scope| {
        let call = scope.spawn(|| http::send(&address, &request).unwrap());
        eventually("our transaction waits for a block", || shop.chain.pending_transactions() == 1);
        attack();
        shop.chain.mine(1);
        call.join().unwrap()
    });
    shop.chain.set_automine(true);
    answer
}

fn assert_got_nothing(answer: &Answer) {
    assert_eq!((answer.status, answer.code().as_str()), (402, "settlement_failed"), "{}", answer.text());
    assert!(!answer.text().contains(ANSWER), "{}", answer.text());
}

#[test]
fn authorization_cancelled_again_and_again_costs_the_operator_one_upstream_call() {
    let mut shop = Shop::open();
    for _ in 0..3 {
        let payment = shop.pay(CHAT, &body(USAGE, true));
        assert_got_nothing(&buy_under(&shop, &payment, || drop(shop.chain.cancel(MINTER, &payment.signed))));
        assert_eq!(shop.served(), 1, "a wallet that did it once settles first from then on");
    }
    assert_eq!(shop.earned(), 0);
    shop.close(0);
}

#[test]
fn authorization_drained_by_the_wallets_other_payments_serves_only_what_was_paid() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payments: Vec<_> = (0..4).map(|_| shop.pay(CHAT, &body)).collect();
    // Enough for any one of them.
    let too_much = shop.chain.usdc_balance(BUYER.address) - payments[0].amount;
    shop.chain.pay(BUYER, MINTER, too_much);
    shop.elsewhere = too_much;
    let address = shop.server.address().to_owned();
    let answers: Vec<_> = std::thread::scope(|scope| {
        let send = |payment| {
            let (address, request) = (&address, paid(CHAT, &body, payment));
            scope.spawn(move || http::send(address, &request).unwrap())
        };
        let calls: Vec<_> = payments.iter().map(send).collect();
        calls.into_iter().map(|call| call.join().unwrap()).collect()
    });
    let (served, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!(served.len(), 1, "{:?}", answers.iter().map(|answer| answer.status).collect::<Vec<_>>());
    assert!(refused.iter().all(|answer| answer.status == 402 && !answer.text().contains(ANSWER)));
    assert_eq!(shop.earned(), payments[0].amount, "one was paid");
    assert!(shop.served() <= 2, "of the unpaid ones at most the one with the head start reached the upstream");
    shop.close(CHARGE);
}

#[test]
fn front_run_by_a_stranger_does_not_spoil_the_sale() {
    let mut shop = Shop::open();
    let payment = shop.pay(CHAT, &body(USAGE, true));
    let mut strangers = String::new();
    let answer = buy_under(&shop, &payment, || strangers = shop.chain.submit(MINTER, &payment.signed));
    assert_eq!(shop.chain.wait_receipt(&strangers)["status"], "0x1", "the stranger was first");
    assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
    assert_eq!(answer.decoded("payment-response").unwrap()["transaction"], strangers, "the receipt names what really paid");
    assert_eq!((shop.served(), shop.earned()), (1, payment.amount), "paid once, served once");
    shop.close(CHARGE);
}

#[test]
fn shared_pay_to_an_authorization_that_was_spent_elsewhere_buys_nothing() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    let hash = shop.chain.submit(MINTER, &payment.signed);
    shop.chain.wait_receipt(&hash);
    let paid_to_operator = shop.earned();
    assert_eq!(paid_to_operator, payment.amount);

    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.code().as_str()), (402, "payment_invalid"), "{}", answer.text());
    assert_eq!(answer.json()["error"]["reason"], "invalid_exact_evm_nonce_already_used");
    assert_eq!(shop.served(), 0);
    assert_eq!(shop.chain.transactions_of(SETTLER.address), 0, "no gas is spent on a lost cause");
    assert_eq!(shop.earned(), paid_to_operator, "nothing moved twice");
}

#[test]
fn shared_pay_to_a_payment_that_bought_at_the_operators_other_gateway_buys_nothing_here() {
    let chain = Anvil::start(84532);
    let other_upstream = Upstream::start();
    let mut other = Server::with(env!("CARGO_BIN_EXE_farebox"), &chain, &other_upstream, &Settings::default());
    let mut shop = Shop::on(chain, &Settings::default());
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    assert_eq!(other.send(&paid(CHAT, &body, &payment)).status, 200);
    let here = shop.buy(CHAT, &body, &payment);
    assert_eq!((here.status, here.code().as_str()), (402, "payment_invalid"), "{}", here.text());
    assert_eq!((shop.served(), other_upstream.calls().len()), (0, 1));
    assert_eq!((shop.earned(), shop.chain.transactions_of(SETTLER.address)), (payment.amount, 1), "paid once");
    let (there, here) = (other.audit(), shop.server.audit());
    assert!(there.clean && here.clean);
    let balances = (there.balance(BUYER.address), here.balance(BUYER.address));
    assert_eq!(balances, (payment.amount - CHARGE, 0), "what was not used is balance where it was paid, and nowhere else");
}

#[test]
fn cached_paid_answer_is_in_no_cache_and_no_copy_is_answered_from_one() {
    let mut shop = Shop::open();
    for stream in [false, true] {
        let body = body(USAGE, stream);
        let payment = shop.pay(CHAT, &body);
        let unpaid = shop.server.send(&Request::post(CHAT, body.as_str()));
        let first = shop.buy(CHAT, &body, &payment);
        let copy = shop.buy(CHAT, &body, &payment);
        assert_eq!((unpaid.status, first.status, copy.status), (402, 200, 409));
        for answer in [&unpaid, &first, &copy] {
            let cache = answer.header("cache-control").unwrap_or_default().to_owned();
            assert!(cache.contains("no-store") && cache.contains("private"), "{}: {cache:?}", answer.status);
            let vary = answer.header("vary").unwrap_or_default().to_ascii_lowercase();
            assert!(["payment-signature", "x-payment", "authorization"].iter().all(|name| vary.contains(name)), "{vary:?}");
        }
        assert!(first.text().contains("wallet") && !copy.text().contains("wallet\""), "{}", copy.text());
        for method in ["GET", "HEAD"] {
            let by_name = shop.server.send(&Request::new(method, CHAT).header("payment-signature", payment.v2()));
            assert_ne!(by_name.status, 200, "a shared cache keeps only what {method} gets");
        }
    }
    assert_eq!(shop.served(), 2);
    shop.close(2 * CHARGE);
}

#[test]
fn cheap_quote_used_on_a_dear_call_is_refused_and_still_buys_the_cheap_one() {
    let mut shop = Shop::open();
    let dear = body(USAGE, false);
    let cheap = dear.replace("\"max_tokens\":256", "\"max_tokens\":16");
    let payment = shop.pay(CHAT, &cheap);
    for (route, header) in [(CHAT, "payment-signature"), (MESSAGES, "payment-signature"), (CHAT, "x-payment")] {
        let value = if header == "x-payment" { payment.v1() } else { payment.v2() };
        let answer = shop.server.send(&Request::post(route, dear.as_str()).header(header, value));
        assert_eq!((answer.status, answer.code().as_str()), (402, "payment_invalid"), "{}", answer.text());
        let asked: u64 = answer.json()["accepts"][0]["maxAmountRequired"].as_str().unwrap().parse().unwrap();
        assert!(asked > payment.amount, "the refusal names the price of what was asked");
    }
    shop.assert_untouched();
    let answer = shop.buy(CHAT, &cheap, &payment);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((shop.served(), shop.earned()), (1, payment.amount));
    shop.close(CHARGE);
}

fn decode(header: &str) -> Value {
    serde_json::from_slice(&STANDARD.decode(header).unwrap()).unwrap()
}

fn encode(value: &Value) -> String {
    STANDARD.encode(value.to_string())
}

#[test]
fn unsigned_fields_trusted_nowhere() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    let lie = |path: &str, value: Value| {
        let mut envelope = decode(payment.v2());
        *envelope.pointer_mut(path).unwrap_or_else(|| panic!("{path} is there")) = value;
        (path.to_owned(), "payment-signature", encode(&envelope))
    };
    let (other, token) = (OTHER_BUYER.address, "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913");
    let mut lies = vec![
        lie("/accepted/amount", json!("1")),
        lie("/accepted/amount", json!((payment.amount * 2).to_string())),
        lie("/accepted/payTo", json!(other)),
        lie("/accepted/network", json!("eip155:8453")),
        lie("/accepted/asset", json!(token)),
        lie("/accepted/scheme", json!("upto")),
        lie("/accepted/maxTimeoutSeconds", json!(1_000_000)),
        lie("/accepted/extra/name", json!("USD Coin")),
        lie("/accepted/extra/version", json!("1")),
        lie("/payload/authorization/value", json!("1")),
        lie("/payload/authorization/to", json!(other)),
        lie("/payload/authorization/from", json!(other)),
        lie("/payload/authorization/validBefore", json!("99999999999")),
        lie("/payload/authorization/nonce", json!(format!("0x{}", "ab".repeat(32)))),
    ];
    for (field, value) in [("network", "base"), ("network", "eip155:8453"), ("scheme", "upto")] {
        let mut envelope = decode(payment.v1());
        envelope[field] = json!(value);
        lies.push((format!("{field} of version 1"), "x-payment", encode(&envelope)));
    }
    for (what, header, value) in lies {
        let answer = shop.server.send(&Request::post(CHAT, body.as_str()).header(header, &value));
        assert_eq!((answer.status, answer.code().as_str()), (402, "payment_invalid"), "{what}: {}", answer.text());
    }
    // Signed for less, or for somebody else, with an `accepted` that is all in order.
    let asked = shop.requirements(CHAT, &body);
    for (field, value) in [("amount", json!("1")), ("payTo", json!(other))] {
        let mut cheaper = asked.clone();
        cheaper[field] = value;
        let mut envelope = decode(shop.sign(BUYER, cheaper).v2());
        envelope["accepted"] = asked.clone();
        let answer = shop.server.send(&Request::post(CHAT, body.as_str()).header("payment-signature", &encode(&envelope)));
        assert_eq!((answer.status, answer.code().as_str()), (402, "payment_invalid"), "{field}: {}", answer.text());
    }
    shop.assert_untouched();
    assert_eq!(shop.chain.usdc_balance(other), shop.chain.usdc_balance(BUYER.address), "nobody was paid instead of us");

    // What nobody compares decides nothing: the price, the recipient and the call stay ours.
    let mut envelope = decode(payment.v2());
    envelope["resource"] = json!({ "url": "https://elsewhere.example/v1/cheap", "description": "free" });
    envelope["extensions"] = json!({ "discount": { "amount": "0" } });
    envelope["accepted"]["extra"]["discount"] = json!("100%");
    envelope["x402Version"] = json!(1);
    let answer = shop.server.send(&Request::post(CHAT, body.as_str()).header("payment-signature", &encode(&envelope)));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!((shop.served(), shop.earned()), (1, payment.amount));
    shop.close(CHARGE);
}

/// The payment header that anybody can make of a settlement that stands on the chain or waits for it.
fn rebuilt(call: &Value, requirements: &Value) -> String {
    let input = call["input"].as_str().unwrap().trim_start_matches("0x");
    let words: Vec<_> = (8..input.len()).step_by(64).map(|at| &input[at..at + 64]).collect();
    let (address, number) =
        (|word: &str| format!("0x{}", &word[24..]), |word: &str| u128::from_str_radix(word, 16).unwrap().to_string());
    let authorization = json!({
        "from": address(words[0]), "to": address(words[1]), "value": number(words[2]),
        "validAfter": number(words[3]), "validBefore": number(words[4]), "nonce": format!("0x{}", words[5]),
    });
    let signature = format!("0x{}{}{}", words[7], words[8], &words[6][62..]);
    encode(&json!({
        "x402Version": 2, "accepted": requirements, "payload": { "signature": signature, "authorization": authorization },
    }))
}

#[test]
fn settled_calldata_replayed_as_a_credential_buys_nothing_and_shows_nothing() {
    let mut shop = Shop::open();
    let body = body(USAGE, true);
    let requirements = shop.requirements(CHAT, &body);
    let payment = shop.sign(BUYER, requirements.clone());
    let mut waiting = None;
    let answer = buy_under(&shop, &payment, || {
        let pool = shop.chain.rpc("txpool_content", json!([]));
        let ours = pool["pending"].as_object().unwrap().values().next().unwrap().clone();
        let header = rebuilt(ours.as_object().unwrap().values().next().unwrap(), &requirements);
        waiting = Some(shop.server.send(&Request::post(CHAT, body.as_str()).header("payment-signature", &header)));
    });
    assert_eq!(answer.status, 200, "{}", answer.text());
    let waiting = waiting.unwrap();
    assert_eq!((waiting.status, waiting.code().as_str()), (409, "payment_in_progress"), "{}", waiting.text());

    let tx = answer.decoded("payment-response").unwrap()["transaction"].clone();
    let mined = shop.chain.rpc("eth_getTransactionByHash", json!([tx]));
    let header = rebuilt(&mined, &requirements);
    for route in [CHAT, MESSAGES] {
        for name in ["payment-signature", "x-payment"] {
            let copy = shop.server.send(&Request::post(route, body.as_str()).header(name, &header));
            assert_eq!((copy.status, copy.code().as_str()), (409, "payment_already_used"), "{}", copy.text());
            let (text, account) = (copy.text().to_lowercase(), BUYER.address.to_lowercase());
            for private in [ANSWER, &account, "balance_remaining", "credited_micro"] {
                assert!(!text.contains(private), "{private}: {text}");
            }
            assert_eq!((copy.header("x-balance-remaining"), copy.header("payment-response")), (None, None));
        }
    }
    assert_eq!((shop.served(), shop.chain.transactions_of(SETTLER.address), shop.earned()), (1, 1, payment.amount));
    let books = shop.close(CHARGE);
    assert_eq!(books.balance(BUYER.address), payment.amount - CHARGE, "what was left over was not spent by the copies");
}

#[test]
fn revert_grant_a_transaction_that_was_mined_and_reverted_is_not_a_payment() {
    for order in ["overlap", "settle-first"] {
        let settings = Settings { payments: vec![format!("payg_order = {order:?}")], ..Settings::default() };
        let mut shop = Shop::with(84532, &settings);
        let payment = shop.pay(CHAT, &body(USAGE, true));
        let answer = buy_under(&shop, &payment, || {
            shop.chain.drain(BUYER, MINTER);
        });
        assert_got_nothing(&answer);
        let receipt = answer.decoded("payment-response").expect("a receipt says that it failed");
        assert_eq!((&receipt["success"], &receipt["transaction"]), (&false.into(), &"".into()));
        assert_eq!(shop.chain.transactions_of(SETTLER.address), 1, "ours is in a block, with status 0");
        assert_eq!((shop.earned(), shop.served()), (0, usize::from(order == "overlap")));
        shop.elsewhere = shop.chain.transfers().iter().map(|transfer| transfer.value).sum();
        shop.close(0);
    }
}

#[test]
fn refund_abuse_by_disconnect_pays_for_what_passed() {
    let mut shop = Shop::open();
    let body = body("<<fake words=200 gap=50>>", true);
    let mut charged = Vec::new();
    for words in [3, 40] {
        let payment = shop.pay(CHAT, &body);
        let mut stream = http::open(shop.server.address(), &paid(CHAT, &body, &payment)).unwrap();
        assert_eq!(stream.status, 200);
        let (mut text, last) = (String::new(), format!("w{words}"));
        while !text.contains(&last) {
            text.push_str(&String::from_utf8(stream.next_chunk().expect("the stream goes on")).unwrap());
        }
        let before = shop.server.output().matches("the client left").count();
        drop(stream);
        eventually("the call is ended", || shop.server.output().matches("the client left").count() > before);
        charged.push((words, payment.amount));
    }
    let (earned, calls) = (shop.earned(), shop.upstream.calls());
    assert!(calls.iter().all(|call| call["outcome"] == "client_gone"), "the upstream was not paid to talk to nobody");
    assert_eq!(earned, charged.iter().map(|(_, amount)| amount).sum::<u64>());
    let mut server = shop.server;
    let books = server.audit();
    assert!(books.clean, "{:#}", books.json);
    let kept = earned - books.balance(BUYER.address);
    let passed = charged.iter().map(|(words, _)| words).sum::<u64>();
    assert!(kept >= passed * OUTPUT_PRICE / 2 + 2 * INPUT_PRICE, "{kept} micros for {passed} words is a refund of what was read");
    assert!(kept < earned, "and what was not used is the buyer's");
}
