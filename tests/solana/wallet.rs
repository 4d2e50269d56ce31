//! A Solana wallet's own account over HTTP: it signs in, in each form that clients send; nobody else does, and nothing moves.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox_rig::anvil;
use farebox_rig::http::{Answer, Request};
use farebox_rig::process::eventually;
use farebox_rig::process::run;
use farebox_rig::sign_in::{SignIn, sign_in};
use farebox_rig::solana::{BUYER, OTHER_BUYER, POOR_BUYER};
use serde_json::{Value, json};

use crate::shop::{ANSWER, CHARGE, CHAT, Shop, USAGE, body};

const TOP_UP: u64 = 2_000_000;

fn balance_of(address: &str) -> String {
    format!("/api/v1/x402/balance/{address}")
}

fn ask(shop: &Shop, address: &str, header: &str) -> Answer {
    shop.server.send(&Request::get(&balance_of(address)).header("x-sign-in-with-x", header))
}

fn base64_of_base58(signature: &str) -> String {
    STANDARD.encode(bs58::decode(signature).into_vec().unwrap())
}

#[test]
fn a_wallet_reads_its_balance_and_statement_by_its_address_in_each_form_of_sign_in() {
    let shop = Shop::open();
    assert_eq!(shop.server.account(BUYER).top_up_on(&shop.chain, TOP_UP).status, 200);
    let url = shop.server.public_url();
    let honest = || SignIn::new(BUYER, &url);
    let with_base64 = honest();
    let signed = base64_of_base58(&with_base64.signed());
    for (what, sign_in) in [
        ("a text", honest()),
        ("fields", honest().as_fields()),
        ("fields without a statement", honest().as_fields().set("statement", Value::Null)),
        ("a text without a statement", honest().set("statement", Value::Null)),
        ("the chain as CAIP-2", honest().set("chainId", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp")),
        ("the test network that is sold on", honest().set("chainId", "EtWTRABZaYq6iMfeYKouRu166VU2xqa1")),
        ("base64", with_base64.envelope("signature", signed)),
    ] {
        let answer = ask(&shop, BUYER.address, &sign_in.header());
        assert_eq!(answer.status, 200, "{what}: {}", answer.text());
        let data = &answer.json()["data"];
        assert_eq!((&data["walletAddress"], &data["balanceUsd"]), (&BUYER.address.into(), &json!(2)), "{what}: {data}");
    }
    let account = shop.server.account(BUYER);
    let answer = account.get(&format!("/api/v1/x402/transactions/{}", BUYER.address));
    assert_eq!((answer.status, &answer.json()["data"]["walletAddress"]), (200, &BUYER.address.into()), "{}", answer.text());
    account.statement().assert_sums();

    // One header, one charge: the sign-in that paid for a call does not pay for another one.
    let header = sign_in(BUYER, &url);
    let call = Request::post(CHAT, body(USAGE, false)).header("x-sign-in-with-x", &header);
    assert_eq!(shop.server.send(&call).status, 200);
    let again = shop.server.send(&call);
    assert_eq!((again.status, again.code().as_str()), (401, "invalid_sign_in"), "{}", again.text());
    eventually("it is charged", || account.available() == 2_000_000 - i64::try_from(CHARGE).unwrap());
    assert_eq!((shop.served(), shop.earned()), (1, TOP_UP));
    shop.close(CHARGE);
}

#[test]
fn nobody_but_the_wallet_itself_signs_in_for_it() {
    let shop = Shop::open();
    assert_eq!(shop.server.account(BUYER).top_up_on(&shop.chain, TOP_UP).status, 200);
    let url = shop.server.public_url();
    let honest = || SignIn::new(BUYER, &url);
    let others = SignIn::new(OTHER_BUYER, &url).signed();
    for (sign_in, code) in [
        (honest().envelope("signature", others), "INVALID_SIGNATURE"),
        (honest().envelope("signature", "0OIl"), "INVALID_SIGNATURE"),
        (honest().replace_after("Venice", "Vienna"), "INVALID_SIGNATURE"),
        (honest().replace("Solana account", "Ethereum account"), "INVALID_MESSAGE"),
        (honest().envelope("chainId", Value::Null), "INVALID_MESSAGE"),
        (honest().envelope("chainId", "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1"), "CHAIN_MISMATCH"),
        (honest().envelope("type", "eip191"), "CHAIN_MISMATCH"),
        (honest().set("domain", "evil.example"), "DOMAIN_MISMATCH"),
        (honest().issued(-400), "EXPIRED"),
        (honest().issued(120), "FUTURE_TIMESTAMP"),
        (honest().envelope("address", OTHER_BUYER.address), "ADDRESS_MISMATCH"),
        (honest().set("address", "1111111111111111111111111111111"), "INVALID_WALLET"),
        (honest().set("address", "11111111111111111111111111111111"), "INVALID_SIGNATURE"),
    ] {
        let answer = ask(&shop, BUYER.address, &sign_in.header());
        let told = answer.json()["code"].as_str().unwrap_or_default().to_owned();
        assert_eq!((answer.status, told), (401, format!("X402_SIGN_IN_{code}")), "{}", answer.text());
    }
    for (who, address, status) in [
        (OTHER_BUYER, BUYER.address.to_owned(), 403),
        (anvil::BUYER, BUYER.address.to_owned(), 403),
        (BUYER, anvil::BUYER.address.to_owned(), 403),
        (BUYER, format!("1{}", BUYER.address), 400),
        (BUYER, BUYER.address[..40].to_owned(), 400),
        (BUYER, BUYER.address.replace('G', "0"), 400),
    ] {
        let answer = ask(&shop, &address, &sign_in(who, &url));
        assert_eq!(answer.status, status, "{} for {address}: {}", who.address, answer.text());
        assert!(!answer.text().contains("balanceUsd"));
    }
    assert_eq!(shop.earned(), TOP_UP);
    shop.close(0);
}

/// `farebox pay` with the key of this wallet.
fn pay(shop: &Shop, key: &str, arguments: &[&str]) -> (i32, String, String) {
    let mut command = shop.server.command(&["pay", "--url", &shop.server.url()]);
    command.args(arguments).env("FAREBOX_PAYER_KEY", key);
    run(command, "")
}

#[test]
fn the_reference_buyer_buys_a_call_and_a_balance_with_a_solana_key() {
    let shop = Shop::open();
    let (code, stdout, stderr) = pay(&shop, BUYER.key, &[USAGE]);
    assert_eq!((code, stdout.trim_end()), (0, ANSWER), "{stderr}");
    let (bought, name) = (&shop.chain.landed()[0], "transaction ");
    assert!(stderr.contains(&format!("{name}{}", bought.signature)) && stderr.contains(BUYER.address), "{stderr}");
    let (code, stdout, stderr) = pay(&shop, BUYER.key, &["--top-up", "1.50"]);
    assert_eq!(code, 0, "{stderr}");
    assert!(stdout.contains("credited  1.5 USDC") && stdout.contains(BUYER.address), "{stdout}");
    assert_eq!(shop.earned(), bought.received + 1_500_000);
    assert!(!format!("{stdout}{stderr}").contains(BUYER.key));

    let (code, stdout, stderr) = pay(&shop, anvil::BUYER.key, &[USAGE]);
    assert_eq!((code, stdout.as_str()), (1, ""), "{stderr}");
    assert!(stderr.contains("EVM networks") && stderr.contains("no such entry"), "a key of another family: {stderr}");
    let (code, _, stderr) = pay(&shop, POOR_BUYER.key, &[USAGE]);
    assert!(code == 1 && stderr.contains("payment_invalid") && stderr.contains("USDC"), "{stderr}");
    assert_eq!((shop.chain.landed().len(), shop.served()), (2, 1), "nothing else was bought");
    shop.close(CHARGE);
}

#[test]
fn the_invitation_names_solanas_chains_and_passes_a_default_proxy_with_its_offer() {
    let shop = Shop::open();
    let answer = shop.server.send(&Request::post(CHAT, body(USAGE, false)));
    let offer = answer.decoded("payment-required").unwrap();
    let chains = offer["extensions"]["sign-in-with-x"]["supportedChains"].as_array().unwrap();
    let solana = |id: &str| chains.contains(&json!({ "chainId": format!("solana:{id}"), "type": "ed25519" }));
    assert!(solana("5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp") && solana("EtWTRABZaYq6iMfeYKouRu166VU2xqa1"), "{chains:?}");
    let size: usize = answer.headers.iter().map(|(name, value)| name.len() + value.len() + 4).sum();
    assert!(size < 3500, "{size} bytes of headers do not pass a default reverse proxy");
    shop.assert_untouched();
    shop.close(0);
}
