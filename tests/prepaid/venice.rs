//! The unmodified `venice-x402-client`: only its address is ours.

use farebox_rig::account::usd;
use farebox_rig::anvil::{BUYER, OTHER_BUYER, SETTLER, Wallet};
use farebox_rig::http::Request;
use farebox_rig::proxy::hides_breaks;
use farebox_rig::sdk::Sdk;
use farebox_rig::server::{MODEL, Settings};
use serde_json::{Value, json};

use crate::shop::{ANSWER, CHARGE, FIVE, Shop, USAGE, asked, params, params_with, step, value, values};

/// Does `steps` as `wallet`.
fn venice(shop: &Shop, wallet: Wallet, steps: &[Value]) -> Vec<Value> {
    Sdk::Venice.perform(&[("BASE_URL", &shop.server.url()), ("PRIVATE_KEY", wallet.key)], steps)
}

/// The same with a client that pays by itself when the balance is too small.
fn venice_that_pays(shop: &Shop, wallet: Wallet, usd: &str, steps: &[Value]) -> Vec<Value> {
    let url = shop.server.url();
    Sdk::Venice.perform(&[("BASE_URL", &url), ("PRIVATE_KEY", wallet.key), ("AUTO_TOP_UP_USD", usd)], steps)
}

fn do_(word: &str) -> Value {
    json!({ "do": word })
}

#[test]
fn it_buys_responses_and_hears_a_failed_one_as_broken() {
    let shop = Shop::open();
    let failing = asked("<<fake words=40 errev=8>>");
    let steps = [
        json!({ "do": "topUp", "usd": 5 }),
        step("respond", asked(USAGE)),
        step("respondStream", asked(USAGE)),
        step("respondStream", failing),
    ];
    let bought = venice(&shop, BUYER, &steps);
    let whole = value(&bought[1]);
    assert_eq!((&whole["output"][0]["content"][0]["text"], &whole["usage"]["output_tokens"]), (&ANSWER.into(), &7.into()));
    assert_eq!(value(&bought[2]), &json!(["hello", " wallet"]), "each piece once");
    assert!(bought[3]["error"].is_object() || hides_breaks(), "a part never looks like the whole: {}", bought[3]);
    shop.wait_charged(3);
    let charges = shop.account(BUYER).statement().of("CHARGE");
    assert_eq!(&charges[..2], [-CHARGE, -CHARGE]);
    shop.close(&[-charges[2]]);
}

#[test]
fn it_tops_up_chats_streams_and_reads_its_balance_and_its_statement() {
    let shop = Shop::open();
    let bought = [
        do_("models"),
        do_("getBalance"),
        json!({ "do": "topUp", "usd": 5 }),
        step("chat", params(USAGE)),
        step("chatStream", params(USAGE)),
    ];
    let bought = venice(&shop, BUYER, &bought);
    let values = values(&bought);
    let ids: Vec<_> = values[0]["data"].as_array().unwrap().iter().map(|model| &model["id"]).collect();
    assert_eq!(ids, [MODEL]);
    let lower = BUYER.address.to_lowercase();
    let empty = json!({
        "walletAddress": lower, "balanceUsd": 0, "canConsume": false,
        "minimumTopUpUsd": 1, "suggestedTopUpUsd": 10, "diemBalanceUsd": 0,
    });
    assert_eq!(same_numbers(values[1]), same_numbers(&empty));
    assert_eq!(usd(&bought[2]["balance"]), 5_000_000, "the client believes in what it paid in: {}", bought[2]);
    assert_eq!(values[3]["choices"][0]["message"]["content"], ANSWER);
    assert_eq!(values[3]["usage"]["prompt_tokens"], 20);
    let pieces: Vec<_> = values[4].as_array().unwrap().iter().map(|piece| piece.as_str().unwrap()).collect();
    assert_eq!((pieces.concat().as_str(), pieces.len()), (ANSWER, 2), "piece by piece");
    assert!(usd(&bought[4]["balance"]) < 5_000_000, "the balance is tracked from the headers: {}", bought[4]);

    shop.wait_charged(2);
    let page = |limit: u64, offset: u64| json!({ "do": "getTransactions", "options": { "limit": limit, "offset": offset } });
    let read = venice(&shop, BUYER, &[do_("getBalance"), page(2, 0), page(2, 2), do_("getTransactions")]);
    let left = i64::try_from(FIVE).unwrap() - 2 * CHARGE;
    assert_eq!(usd(&value(&read[0])["balanceUsd"]), left);
    assert_eq!((&value(&read[0])["canConsume"], usd(&read[0]["balance"])), (&true.into(), left));
    let rows = |outcome: &Value| value(outcome)["transactions"].as_array().unwrap().clone();
    let all = rows(&read[3]);
    assert_eq!([rows(&read[1]), rows(&read[2])].concat(), all, "pages are parts of the whole");
    let kinds: Vec<_> =
        all.iter().map(|row| (row["type"].as_str().unwrap(), usd(&row["amount"]), row["modelId"].as_str())).collect();
    let charge = ("CHARGE", -CHARGE, Some(MODEL));
    assert_eq!(kinds, [charge, charge, ("TOP_UP", 5_000_000, None)], "newest first");
    assert_eq!(value(&read[1])["pagination"], json!({ "limit": 2, "offset": 0, "hasMore": true }));
    assert_eq!(usd(&value(&read[3])["currentBalance"]), left);
    assert_eq!(shop.chain.transactions_of(SETTLER.address), 1, "one top-up is one transaction");
    shop.close(&[]);
}

#[test]
fn an_address_with_a_slash_at_its_end_is_the_same_address() {
    let shop = Shop::open();
    let url = format!("{}/", shop.server.url());
    let steps = [do_("models"), json!({ "do": "topUp", "usd": 5 }), step("chat", params(USAGE)), do_("getBalance")];
    let done = Sdk::Venice.perform(&[("BASE_URL", &url), ("PRIVATE_KEY", BUYER.key)], &steps);
    assert_eq!(values(&done)[2]["choices"][0]["message"]["content"], ANSWER, "it asks for //api/v1/…");
    // Errors have the shape of the path that was meant, and nothing else of a path is changed.
    let get = |path: &str| shop.server.send(&Request::get(path));
    let unknown = get("///api/v1/models/nope?x=//y");
    assert_eq!((unknown.status, &unknown.json()["code"]), (404, &json!("MODEL_NOT_FOUND")), "{}", unknown.text());
    assert_eq!(get("//v1/models").status, 200);
    assert_eq!(get("/v1//models").code(), "not_found");
    assert_eq!(get("//evil.example/v1/models").code(), "not_found", "no host is read out of it");
    shop.wait_charged(1);
    shop.close(&[]);
}

/// JSON has no integers: `0` and `0.0` say the same.
fn same_numbers(object: &Value) -> Vec<(String, Value)> {
    let plain = |value: &Value| if value.is_number() { json!({ "micros": usd(value) }) } else { value.clone() };
    let mut fields: Vec<_> = object.as_object().unwrap().iter().map(|(name, value)| (name.clone(), plain(value))).collect();
    fields.sort_by(|a, b| a.0.cmp(&b.0));
    fields
}

#[test]
fn a_client_that_tops_up_by_itself_pays_exactly_once_for_an_empty_wallet() {
    let shop = Shop::open();
    for (number, (wallet, word)) in [(BUYER, "chat"), (OTHER_BUYER, "chatStream")].into_iter().enumerate() {
        let calls = [step(word, params(USAGE)), step(word, params(USAGE))];
        let bought = venice_that_pays(&shop, wallet, "2", &calls);
        values(&bought);
        assert_eq!(shop.chain.transactions_of(SETTLER.address), number as u64 + 1, "one transaction for each wallet");
        let statement = shop.account(wallet).statement();
        assert_eq!(statement.of("TOP_UP"), [2_000_000], "two calls, one payment");
        assert_eq!(shop.upstream.calls().len(), 2 * (number + 1), "a call that has to be paid for first is not served twice");
    }
    assert_eq!(shop.logged(), [CHARGE; 4]);
    shop.close(&[]);
}

#[test]
fn an_empty_wallet_is_told_what_it_has_and_what_to_pay_and_nothing_moves() {
    let shop = Shop::open();
    let bought = venice(&shop, BUYER, &[step("chat", params(USAGE)), step("chatStream", params(USAGE))]);
    for outcome in &bought {
        let error = &outcome["error"];
        assert_eq!((&error["class"], &error["code"]), (&"VeniceError".into(), &"INSUFFICIENT_BALANCE".into()), "{outcome}");
        assert_eq!(usd(&error["details"]["currentBalance"]), 0, "{outcome}");
        assert_eq!(usd(&error["details"]["suggestedAmount"]), 10_000_000, "{outcome}");
    }
    shop.assert_untouched();
    shop.close(&[]);
}

#[test]
fn what_is_suggested_to_be_paid_suffices_also_for_a_call_that_costs_more_than_the_usual_top_up() {
    let prepaid = ["top_up_minimum = \"0.0001\"", "top_up_suggested = \"0.0002\""].map(str::to_owned).to_vec();
    let shop = Shop::with(8453, Settings { prepaid, ..Settings::default() });
    let refused = venice(&shop, BUYER, &[step("chat", params(USAGE))]);
    let suggested = usd(&refused[0]["error"]["details"]["suggestedAmount"]);
    assert!(suggested > 256 * 15, "at least the 256 tokens of output are held: {refused:?}");
    shop.assert_untouched();
    let amount = format!("0.{suggested:06}");
    let bought = venice_that_pays(&shop, BUYER, &amount, &[step("chat", params(USAGE))]);
    values(&bought);
    assert_eq!(shop.account(BUYER).statement().of("TOP_UP"), [suggested], "one payment was enough");
    shop.close(&[]);
}

#[test]
fn an_amount_outside_the_limits_is_refused_and_any_amount_within_is_credited_whole() {
    let prepaid = vec!["top_up_maximum = \"20.00\"".to_owned()];
    let shop = Shop::with(8453, Settings { prepaid, ..Settings::default() });
    let pay = |usd: Value| json!({ "do": "topUp", "usd": usd });
    let outcomes = venice(&shop, BUYER, &[pay(json!(0.5)), pay(json!(20.25))]);
    assert_eq!(outcomes[0]["error"]["code"], "INVALID_AMOUNT", "the client knows the minimum from the offer: {outcomes:?}");
    let too_much = &outcomes[1]["error"];
    assert_eq!((&too_much["code"], &too_much["message"]), (&"TOP_UP_FAILED".into(), &"AMOUNT_TOO_HIGH".into()), "{outcomes:?}");
    shop.assert_untouched();
    let outcomes = venice(&shop, BUYER, &[pay(json!(1)), pay(json!(2.75))]);
    values(&outcomes);
    assert_eq!(shop.account(BUYER).statement().of("TOP_UP"), [1_000_000, 2_750_000]);
    shop.close(&[]);
}

#[test]
fn its_signing_fetch_works_alone_under_the_openai_sdk_and_with_a_request_whose_headers_it_loses() {
    let shop = Shop::open();
    shop.top_up(BUYER, FIVE);
    let streamed = params_with(USAGE, json!({ "stream": true }));
    let calls = [
        step("authFetch", params(USAGE)),
        step("authFetchOfRequest", params(USAGE)),
        step("openai", params(USAGE)),
        step("openai", streamed),
    ];
    let bought = venice(&shop, BUYER, &calls);
    let values = values(&bought);
    for plain in &values[..2] {
        assert_eq!(plain["status"], 200, "{plain}");
        assert_eq!(plain["body"]["choices"][0]["message"]["content"], ANSWER, "{plain}");
    }
    assert_eq!(values[2..], [ANSWER, ANSWER], "a signed header counts for more than a key nobody knows");

    let misled = json!({ "do": "authFetch", "told": false, "params": params(USAGE) });
    let misled = &venice(&shop, BUYER, &[misled])[0];
    assert_eq!((&value(misled)["status"], &value(misled)["body"]["code"]), (&401.into(), &"X402_SIGN_IN_DOMAIN_MISMATCH".into()));
    let told = value(misled)["body"]["error"].as_str().unwrap();
    assert!(told.contains("apiUrl") && told.contains(&shop.server.url()), "the fix is named: {told}");
    assert_eq!(shop.upstream.calls().len(), 4, "the misled call was not served");
    shop.close(&[]);
}

#[test]
fn twelve_calls_of_one_client_at_once_are_twelve_sign_ins_and_twelve_charges() {
    let shop = Shop::open();
    shop.top_up(BUYER, FIVE);
    let bought = venice(&shop, BUYER, &[json!({ "do": "chatsAtOnce", "count": 12, "params": params(USAGE) })]);
    let answers = value(&bought[0]).as_array().unwrap();
    assert!(answers.iter().all(|answer| answer["choices"][0]["message"]["content"] == ANSWER), "{bought:?}");
    assert_eq!(shop.logged(), [CHARGE; 12]);
    shop.close(&[]);
}

#[test]
fn on_base_sepolia_its_top_up_is_refused_with_the_reason_and_the_rest_works() {
    let shop = Shop::with(84532, Settings::default());
    let refused = &venice(&shop, BUYER, &[json!({ "do": "topUp", "usd": 5 })])[0]["error"];
    assert_eq!((&refused["code"], &refused["message"]), (&"TOP_UP_FAILED".into(), &"PAYMENT_VERIFICATION_FAILED".into()));
    shop.assert_untouched();
    shop.top_up(BUYER, FIVE);
    let bought = venice(&shop, BUYER, &[step("chat", params(USAGE)), do_("getBalance")]);
    values(&bought);
    shop.close(&[]);
}

#[test]
fn a_stream_that_breaks_off_is_an_exception_costs_what_passed_and_is_not_paid_for_again() {
    let shop = Shop::open();
    let fault = params("<<fake words=6 in=20 errev=4 gap=20>>");
    let bought = venice_that_pays(&shop, BUYER, "2", &[step("chatStream", fault)]);
    assert!(bought[0]["error"]["class"] == "TypeError" || hides_breaks(), "never taken for a whole answer: {bought:?}");
    shop.wait_charged(1);
    let statement = shop.account(BUYER).statement();
    assert_eq!(statement.of("TOP_UP"), [2_000_000], "one payment");
    let charge = -statement.of("CHARGE")[0];
    assert!(charge > 0 && charge < 256 * 15, "what passed is a few words: {charge}");
    assert_eq!(shop.upstream.calls().len(), 1, "nobody asked again");
    shop.close(&[charge]);
}

#[test]
fn nobody_reads_the_balance_or_the_statement_of_somebody_else() {
    let shop = Shop::open();
    for route in ["balance", "transactions"] {
        let path = format!("/api/v1/x402/{route}/{}", OTHER_BUYER.address);
        let answer = shop.account(BUYER).get(&path);
        assert_eq!((answer.status, answer.code().as_str()), (403, "X402_WALLET_MISMATCH"), "{}", answer.text());
        let unsigned = shop.server.send(&Request::get(&path));
        assert_eq!(unsigned.status, 402, "{}", unsigned.text());
        assert_eq!(unsigned.header("x-balance-remaining"), None);
    }
    shop.assert_untouched();
    shop.close(&[]);
}
