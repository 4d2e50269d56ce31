//! A Solana wallet signs in as an EVM one does, in each of the forms that wallets write; nobody signs in for it.

use super::*;
use crate::chain::solana::address::SettlerKey;

const MAINNET: &str = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp";
const DEVNET: &str = "EtWTRABZaYq6iMfeYKouRu166VU2xqa1";

/// The wallet of the recorded client.
fn wallet() -> SettlerKey {
    let hex = file(WALLET)["solana"]["seedHex"].as_str().unwrap().to_owned();
    let seed: Vec<u8> = (0..64).step_by(2).map(|at| u8::from_str_radix(&hex[at..at + 2], 16).unwrap()).collect();
    SettlerKey::from_seed(&seed.try_into().unwrap())
}

/// A sign-in with this text, signed.
fn signs(text: &str) -> Value {
    signs_for(MAINNET, text)
}

fn signs_for(chain: &str, text: &str) -> Value {
    let signature = bs58::encode(wallet().sign(text.as_bytes())).into_string();
    let (address, chain) = (wallet().address().to_string(), format!("solana:{chain}"));
    json!({ "address": address, "message": text, "signature": signature, "chainId": chain, "type": "ed25519" })
}

/// What the recorded client signed.
fn text() -> String {
    file(WALLET)["solana"]["message"].as_str().unwrap().to_owned()
}

fn account() -> Result<String, &'static str> {
    Ok(format!("solana:{}", wallet().address()))
}

fn at_home(json: &Value) -> Result<String, &'static str> {
    outcome(&encode(json), &here(), NOW)
}

#[test]
fn the_real_clients_wallet_signs_in_in_both_alphabets() {
    let recorded = file(WALLET)["solana"].clone();
    assert_eq!(outcome(recorded["header"].as_str().unwrap(), &here(), NOW), account());
    assert_eq!(signs(&text())["signature"], recorded["signatureBase58"], "the same text has the same signature");
    for signature in ["signatureBase58", "signatureBase64"] {
        let mut json = signs(&text());
        json["signature"] = recorded[signature].clone();
        assert_eq!(at_home(&json), account(), "{signature}");
    }
    let url_safe = recorded["signatureBase64"].as_str().unwrap().replace('+', "-").replace('/', "_");
    let mut json = signs(&text());
    json["signature"] = url_safe.trim_end_matches('=').into();
    assert_eq!(at_home(&json), account());
}

#[test]
fn the_chain_and_the_empty_lines_may_be_written_in_each_known_way() {
    let statement = "\n\nSign in to Venice AI\n\nURI";
    assert!(text().contains(statement));
    for lines in [statement, "\n\nURI", "\n\n\nURI"] {
        for chain in [MAINNET, &format!("solana:{MAINNET}"), "mainnet"] {
            let text = text().replace(statement, lines).replace(MAINNET, chain);
            assert_eq!(at_home(&signs(&text)), account(), "{text}");
        }
    }
    for lines in ["\nURI", "\n\n\n\nURI"] {
        assert_eq!(at_home(&signs(&text().replace(statement, lines))), Err("INVALID_MESSAGE"));
    }
}

#[test]
fn a_test_network_is_signed_for_only_where_it_is_sold() {
    let text = text().replace(MAINNET, DEVNET);
    assert_eq!(at_home(&signs_for(DEVNET, &text)), Err("UNSUPPORTED_CHAIN"));
    let sold = SignInRules::new("http://127.0.0.1:8402", None, [&*format!("solana:{DEVNET}")]).unwrap();
    assert_eq!(outcome(&encode(&signs_for(DEVNET, &text)), &sold, NOW), account());
    assert_eq!(outcome(&encode(&signs(&super::solana::text())), &sold, NOW), account(), "the main network always");
    assert_eq!(at_home(&signs_for(DEVNET, &super::solana::text())), Err("CHAIN_MISMATCH"));
}

#[test]
fn every_refusal_has_its_code() {
    let with = |field: &str, value: Value| {
        let mut json = signs(&text());
        json[field] = value;
        json
    };
    let other = SettlerKey::from_seed(&[7; 32]);
    let others = bs58::encode(other.sign(text().as_bytes())).into_string();
    let address = wallet().address().to_string();
    let short = bs58::encode([7; 31]).into_string();
    let mut named_short = signs(&text().replace(&address, &short));
    named_short["address"] = short.into();
    let mut untyped = signs(&text());
    untyped.as_object_mut().unwrap().retain(|key, _| key != "type" && key != "chainId");
    for (json, code) in [
        (untyped, "INVALID_MESSAGE"),
        (with("type", json!("eip191")), "CHAIN_MISMATCH"),
        (signs(&text().replace("Solana account", "Ethereum account")), "INVALID_MESSAGE"),
        (with("address", json!(other.address().to_string())), "ADDRESS_MISMATCH"),
        (with("address", json!(address.to_lowercase())), "ADDRESS_MISMATCH"),
        (named_short, "INVALID_WALLET"),
        (signs(&text().replace("127.0.0.1:8402 wants", "evil.example wants")), "DOMAIN_MISMATCH"),
        (signs(&text().replace("URI: http:", "URI: https:")), "URI_MISMATCH"),
        (signs(&text().replace("Nonce: 0123456789abcdef\n", "")), "MISSING_NONCE"),
        (with("message", json!(text().replace("Venice", "Vienna"))), "INVALID_SIGNATURE"),
        (with("signature", json!(others)), "INVALID_SIGNATURE"),
        (with("signature", json!(format!("0x{}", "11".repeat(64)))), "INVALID_SIGNATURE"),
        (with("signature", json!("0OIl")), "INVALID_SIGNATURE"),
        (with("signature", json!("1".repeat(64))), "INVALID_SIGNATURE"),
    ] {
        assert_eq!(at_home(&json), Err(code), "{json}");
    }
}

/// The lax rule of ed25519 takes a made-up signature for a key of small order on one message in eight or more.
#[test]
fn nobody_signs_in_for_a_key_without_an_owner() {
    let neutral = "4vJ9JU1bJJE96FWSJKvHsmmFADCg4gpZQff4P3bkLKi";
    for address in ["11111111111111111111111111111111", neutral] {
        for nonce in 0..64 {
            let text = text().replace(&wallet().address().to_string(), address);
            let text = text.replace("0123456789abcdef", &format!("{nonce:016}"));
            for made_up in [[0; 64], std::array::from_fn(|at| u8::from(at == 0))] {
                let mut json = signs(&text);
                json["address"] = address.into();
                json["signature"] = bs58::encode(made_up).into_string().into();
                assert_eq!(at_home(&json), Err("INVALID_SIGNATURE"));
            }
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_changed_byte_of_text_or_signature_is_never_the_same_wallet(at in 0usize..10_000, to in 0u8..128, place in 0usize..64) {
        let mut json = signs(&text());
        let mut bytes = text().into_bytes();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        json["message"] = String::from_utf8(bytes).unwrap().into();
        prop_assert_ne!(at_home(&json), account());
        let mut signature = wallet().sign(text().as_bytes());
        signature[place] ^= to | 1;
        let mut json = signs(&text());
        json["signature"] = bs58::encode(signature).into_string().into();
        prop_assert_eq!(at_home(&json), Err("INVALID_SIGNATURE"));
    }
}
