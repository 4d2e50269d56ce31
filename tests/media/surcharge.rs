//! What a network adds to the price of a call for its gas: asked on that network alone, charged with the call, given back with it.

use farebox_rig::anvil::{self, Anvil};
use farebox_rig::buyer::{Client, Intent, Order, sign};
use farebox_rig::http::Request;
use farebox_rig::process::eventually;
use farebox_rig::server::{INPUT_PRICE, MODEL, OUTPUT_PRICE, Server, Settings};
use farebox_rig::solana::{self, Solana};
use farebox_rig::upstream::Upstream;
use serde_json::{Value, json};

const CHAT: &str = "/v1/chat/completions";
/// Micros that each network adds.
const EVM: u64 = 2000;
const SVM: u64 = 300;
const CHARGE: u64 = 20 * INPUT_PRICE + 7 * OUTPUT_PRICE;
const TOP_UP: u64 = 1_000_000;

/// A shop on both chains, each with a surcharge of its own.
fn open(evm: &Anvil, svm: &Solana, upstream: &Upstream) -> Server {
    let network = vec!["surcharge = \"0.002\"".into()];
    let payments = vec!["settle_after_ms = 0".into()];
    let settings = Settings { network, payments, ..Settings::default() };
    let mut server = Server::on(env!("CARGO_BIN_EXE_farebox"), &[evm, svm], upstream, &settings);
    // What settings say of the network they say of each: the second one is cheaper.
    server.reconfigure(|text| {
        let at = text.rfind("0.002").unwrap();
        format!("{}0.0003{}", &text[..at], &text[at + 5..])
    });
    server.restart();
    server
}

fn body(directive: &str) -> String {
    json!({ "model": MODEL, "max_tokens": 64, "messages": [{ "role": "user", "content": format!("hi {directive}") }] })
        .to_string()
}

fn amounts(offer: &Value) -> Vec<u64> {
    offer["accepts"].as_array().unwrap().iter().map(|entry| entry["amount"].as_str().unwrap().parse().unwrap()).collect()
}

#[test]
fn each_network_asks_its_own_surcharge_charges_it_with_a_call_and_gives_it_back_with_one_that_fails() {
    let (evm, svm, upstream) = (Anvil::start(84532), Solana::start(), Upstream::start());
    let mut server = open(&evm, &svm, &upstream);
    let words = body("<<fake in=20 out=7>>");
    let unpaid = server.send(&Request::post(CHAT, words.clone()));
    let quote = unpaid.json()["required_micro"].as_u64().unwrap();
    assert_eq!(amounts(&unpaid.decoded("payment-required").unwrap()), [quote + EVM, quote + SVM]);

    assert!(unpaid.text().contains("for the gas of its network"), "{}", unpaid.text());

    let url = server.url();
    let fails = body("<<fake status=500 ttfb=1500>>");
    let order = |body, wallet| Order { base_url: &url, route: CHAT, body, wallet, max_value_usd: "0.5" };
    for (words, status) in [(&words, 200), (&fails, 502)] {
        let bought =
            [Client::FetchV2.buy(&order(words, anvil::BUYER)), Client::FetchV2.buy_on(&svm, &order(words, solana::BUYER))];
        bought.iter().for_each(|bought| assert_eq!(bought["status"], status, "{bought}"));
    }
    let earned = [evm.usdc_balance(anvil::PAY_TO.address), svm.usdc_balance(solana::PAY_TO)];
    assert_eq!(evm.transfers().len() + svm.landed().len(), 4, "failed calls had settled, too");

    // A balance pays no surcharge, nor does what it is made of.
    let account = server.account(anvil::BUYER);
    assert_eq!(amounts(&account.top_up_offer()), [TOP_UP, TOP_UP]);
    assert_eq!(account.top_up(TOP_UP).status, 200);
    let key = account.mint(&json!({ "name": "laptop" }));
    let before = account.available();
    let answer = server.send(&Request::post(CHAT, words).header("authorization", &format!("Bearer {}", key.text)));
    assert_eq!(answer.status, 200, "{}", answer.text());
    eventually("no more than the charge is gone", || u64::try_from(before - account.available()).unwrap() == CHARGE);

    let books = server.audit();
    assert!(books.clean, "{:#}", books.json);
    let left = [anvil::BUYER, solana::BUYER].map(|wallet| books.balance(wallet.address));
    let evm_left = earned[0] + TOP_UP - (CHARGE + EVM) - CHARGE;
    assert_eq!(left, [evm_left, earned[1] - (CHARGE + SVM)], "the surcharge of the call that was served, and of no other");
}

#[test]
fn a_quote_from_before_a_change_of_the_surcharge_buys_what_it_promised_and_is_charged_what_it_said() {
    let (evm, upstream) = (Anvil::start(84532), Upstream::start());
    let network = vec!["surcharge = \"0.002\"".into()];
    let settings = Settings { network, ..Settings::default() };
    let mut server = Server::with(env!("CARGO_BIN_EXE_farebox"), &evm, &upstream, &settings);
    let words = body("<<fake in=20 out=7>>");
    let offered = |server: &Server| {
        let unpaid = server.send(&Request::post(CHAT, words.clone()));
        unpaid.decoded("payment-required").expect("an offer")["accepts"][0].clone()
    };
    let sign = |requirements: Value| {
        let intent = Intent { wallet: anvil::BUYER, requirements, valid_before: now() + 250 };
        sign(&[intent]).remove(0)["v2"].as_str().unwrap().to_owned()
    };
    let earlier = offered(&server);
    let of_before = sign(earlier.clone());
    let invented = sign(with_amount(&earlier, amount(&earlier) - 1));
    server.reconfigure(|text| text.replace("\"0.002\"", "\"0.007\""));
    server.restart();
    assert_eq!(amount(&offered(&server)), amount(&earlier) + 5000, "it is asked from now on");
    let buy = |payment: &str| server.send(&Request::post(CHAT, words.clone()).header("payment-signature", payment));
    let refused = buy(&invented);
    assert_eq!((refused.status, upstream.calls().len()), (402, 0), "what was never asked buys nothing: {}", refused.text());
    let bought = buy(&of_before);
    assert_eq!((bought.status, upstream.calls().len()), (200, 1), "{}", bought.text());
    let earned = evm.usdc_balance(anvil::PAY_TO.address);
    assert_eq!(earned, amount(&earlier));
    let books = server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(books.balance(anvil::BUYER.address), earned - (CHARGE + EVM), "charged the surcharge of its quote");
}

fn amount(entry: &Value) -> u64 {
    entry["amount"].as_str().unwrap().parse().unwrap()
}

fn with_amount(entry: &Value, amount: u64) -> Value {
    let mut entry = entry.clone();
    entry["amount"] = amount.to_string().into();
    entry
}

/// Seconds since 1970.
fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("the clock is past 1970").as_secs()
}
