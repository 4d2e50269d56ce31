//! Who signed in is who signed, for us, just now; everybody else is told what is wrong.

use std::collections::BTreeMap;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use proptest::prelude::*;
use serde_json::{Value, json};

use super::*;
use crate::chain::evm::buyer;
use crate::chain::evm::key::PrivateKey;
use crate::x402::encode;
use crate::x402::sign_in::fault::*;

mod solana;

const SIWX: &str = include_str!("../../../tests/vectors/siwx.json");
const WALLET: &str = include_str!("../../../tests/vectors/wallet-client.json");
const KEY: &str = "59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const ADDRESS: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const ACCOUNT: &str = "evm:0x70997970c51812dc3a010c7d01b50e0d17dc79c8";
const SOLANA_ACCOUNT: &str = "solana:AKnL4NNf3DGWZJS6cPknBuEGnVsV4A4m5tgebLHaRSZ9";
/// 2026-01-02T03:05:00Z, when the vectors of the wallet client are valid.
const NOW: Timestamp = Timestamp::from_secs(1_767_323_100);

fn rules(domain: &str) -> SignInRules {
    let chains = ["eip155:8453", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"];
    SignInRules::for_domain(domain, chains.map(str::to_owned).to_vec()).unwrap()
}

fn here() -> SignInRules {
    rules("http://127.0.0.1:8402")
}

/// The account, or the code of the refusal without its prefix.
fn outcome(header: &str, rules: &SignInRules, now: Timestamp) -> Result<String, &'static str> {
    let verified = verify_sign_in(header, rules, now);
    let judged = judge_sign_in(header, rules, now);
    assert_eq!(judged["valid"], verified.is_ok(), "{judged}");
    assert_eq!(judged["code"].as_str(), verified.as_ref().err().map(|fault| fault.code), "{judged}");
    assert!(judged["message"].as_str().is_some_and(|message| !message.is_empty()), "{judged}");
    verified.map(|signed_in| signed_in.account().to_string()).map_err(short)
}

fn short(fault: SignInFault) -> &'static str {
    fault.code.strip_prefix("X402_SIGN_IN_").unwrap()
}

fn file(text: &str) -> Value {
    serde_json::from_str(text).unwrap()
}

/// Our verdict on each published vector.
fn expected(id: &str) -> Result<&'static str, &'static str> {
    match id {
        // A minute of skew is the reference's advice; half of it is ours.
        "siwe-valid" | "siwe-valid-minimal" | "siwe-lowercase-address" | "siwe-issued-in-future" | "venice-siwe-valid" => {
            Ok(ACCOUNT)
        }
        "siwe-tampered-nonce" | "siwe-wrong-address" => Err("INVALID_SIGNATURE"),
        "siwe-chain-changed" => Err("UNSUPPORTED_CHAIN"),
        "siwe-expired" | "venice-siwe-expired" => Err("EXPIRED"),
        "siwe-not-yet-valid" => Err("NOT_BEFORE"),
        "siwe-wrong-domain" | "siwe-origin-port" | "venice-siwe-domain-tampered" => Err("DOMAIN_MISMATCH"),
        "venice-siwe-other-address" => Err("ADDRESS_MISMATCH"),
        "siws-valid" | "siws-valid-no-statement" | "siws-valid-all" | "venice-siws-valid-base58" => Ok(SOLANA_ACCOUNT),
        "siws-tampered-nonce" | "siws-small-order-key" | "venice-siws-bad-signature" => Err("INVALID_SIGNATURE"),
        other => panic!("no verdict on {other}"),
    }
}

#[test]
fn every_published_vector_gets_its_verdict() {
    let file = file(SIWX);
    let mut judged = 0;
    for vector in file["vectors"].as_array().unwrap().iter().chain(file["veniceStyle"].as_array().unwrap()) {
        let (id, header) = (vector["id"].as_str().unwrap(), vector["header"].as_str().unwrap());
        let now = Timestamp::from_secs(vector["now"].as_u64().unwrap());
        let rules = rules(vector["expectedOrigin"].as_str().unwrap_or("https://gw.example.com"));
        assert_eq!(outcome(header, &rules, now), expected(id).map(str::to_owned), "{id}");
        let signature = vector.pointer("/payload/signature").or(vector.pointer("/json/signature")).unwrap().as_str().unwrap();
        let said = format!("{} {:?}", judge_sign_in(header, &rules, now), SignIn::from_header(header).unwrap());
        assert!(!said.contains(signature.trim_start_matches("0x")), "{id}: the signature is not repeated");
        judged += 1;
    }
    assert_eq!(judged, 22);
}

#[test]
fn fields_are_put_together_as_the_reference_puts_them() {
    for vector in file(SIWX)["vectors"].as_array().unwrap() {
        let sign_in = SignIn::from_header(vector["header"].as_str().unwrap()).unwrap();
        // The vector shows what was signed before it was changed.
        let changed = ["tampered", "wrong-address", "chain-changed", "small-order", "wrong-domain"];
        if changed.iter().any(|change| vector["id"].as_str().unwrap().contains(change)) {
            continue;
        }
        let address = sign_in.address();
        let checked = Address::parse(address).map_or_else(|| address.to_owned(), |address| address.to_string());
        assert_eq!(sign_in.text(&checked), vector["message"].as_str().unwrap(), "{}", vector["id"]);
    }
}

#[test]
fn the_real_clients_text_is_digested_and_recovered_as_the_client_does() {
    let evm = &file(WALLET)["evm"];
    let text = |name: &str| evm[name].as_str().unwrap();
    assert_eq!(outcome(text("header"), &here(), NOW), Ok(ACCOUNT.to_owned()));
    assert_eq!(hex::encode(&signature::text_digest(text("message"))), text("eip191Digest"));
    let minimal = json!({
        "address": ADDRESS, "message": text("messageWithoutStatementOrExpiry"),
        "signature": text("signatureWithoutStatementOrExpiry"),
    });
    assert_eq!(outcome(&encode(&minimal), &here(), NOW), Ok(ACCOUNT.to_owned()));
}

fn key() -> PrivateKey {
    PrivateKey::parse(KEY).unwrap()
}

/// A message for [`here`] as of [`NOW`], with `change` made to its text before it is signed.
fn signed(change: impl Fn(String) -> String) -> Value {
    let expires = NOW.plus(Duration::from_secs(300));
    let uri = "http://127.0.0.1:8402/v1/models";
    let header = buyer::sign_in(&key(), "127.0.0.1:8402", uri, 8453, "0123456789abcdef", NOW, expires);
    let mut json: Value = serde_json::from_slice(&STANDARD.decode(header).unwrap()).unwrap();
    let text = change(json["message"].as_str().unwrap().to_owned());
    json["signature"] = hex::encode(&buyer::sign_text(&key(), &text)).into();
    json["message"] = text.into();
    json
}

/// The same, with one text in it replaced.
fn with(from: &str, to: &str) -> Value {
    signed(|text| {
        assert!(text.contains(from), "{from} in {text}");
        text.replacen(from, to, 1)
    })
}

fn plus(seconds: i64) -> String {
    Timestamp::from_secs(NOW.secs().checked_add_signed(seconds).unwrap()).to_rfc3339()
}

fn issued_at() -> String {
    format!("Issued At: {}", NOW.to_rfc3339())
}

#[test]
fn what_the_buyer_signs_is_taken() {
    let signed_in = verify_sign_in(&encode(&signed(|text| text)), &here(), NOW).unwrap();
    assert_eq!((signed_in.account().to_string().as_str(), signed_in.nonce()), (ACCOUNT, "0123456789abcdef"));
    assert_eq!(signed_in.forget_at(), NOW.plus(Duration::from_secs(330)));
}

#[test]
fn every_refusal_has_its_code() {
    let with_field = |field: &str, value: Value| {
        let mut json = signed(|text| text);
        json[field] = value;
        json
    };
    let cases = [
        (json!([]), "PARSE_ERROR"),
        (with_field("signature", Value::Null), "INVALID_PAYLOAD"),
        (with("Version: 1", "Version: 2"), "INVALID_MESSAGE"),
        (with_field("chainId", json!("mars")), "INVALID_CHAIN_ID"),
        (with_field("chainId", json!(1)), "CHAIN_MISMATCH"),
        (with("Chain ID: 8453", "Chain ID: 1"), "CHAIN_MISMATCH"),
        (with_field("address", json!("0x90F79bf6EB2c4f870365E785982E1f101E93b906")), "ADDRESS_MISMATCH"),
        (with("127.0.0.1:8402 wants", "evil.example wants"), "DOMAIN_MISMATCH"),
        (with("http://127.0.0.1:8402/", "http://127.0.0.1:8402.evil.example/"), "URI_MISMATCH"),
        (with("http://127.0.0.1:8402/", "https://127.0.0.1:8402/"), "URI_MISMATCH"),
        (with("Nonce: 0123456789abcdef\n", ""), "MISSING_NONCE"),
        (with(&issued_at(), &format!("Issued At: {}", plus(-301))), "EXPIRED"),
        (with(&plus(300), &plus(0)), "EXPIRED"),
        (with(&issued_at(), &format!("Issued At: {}", plus(31))), "FUTURE_TIMESTAMP"),
        (with(&plus(300), &format!("{}\nNot Before: {}", plus(300), plus(31))), "NOT_BEFORE"),
        (with_field("timestamp", json!(NOW.millis() + 30_001)), "TIMESTAMP_MISMATCH"),
        (with_field("timestamp", json!(NOW.millis() - 30_001)), "TIMESTAMP_MISMATCH"),
        (with_field("timestamp", json!(u64::MAX)), "TIMESTAMP_MISMATCH"),
        (with_field("signature", json!("0x")), "INVALID_SIGNATURE"),
        (with_field("signature", json!("no hex")), "INVALID_SIGNATURE"),
    ];
    for (json, code) in cases {
        assert_eq!(outcome(&encode(&json), &here(), NOW), Err(code), "{json}");
    }
    let mut chain = with("Chain ID: 8453", "Chain ID: 1");
    chain["chainId"] = json!(1);
    assert_eq!(outcome(&encode(&chain), &here(), NOW), Err("UNSUPPORTED_CHAIN"));
    let slip = ADDRESS.replace("79C8", "79c8");
    for (wallet, code) in [(slip.as_str(), "INVALID_WALLET"), ("0x1234", "INVALID_WALLET"), ("7099", "INVALID_WALLET")] {
        let mut json = with(ADDRESS, wallet);
        json["address"] = json!(wallet);
        assert_eq!(outcome(&encode(&json), &here(), NOW), Err(code), "{wallet}");
    }
}

#[test]
fn an_address_counts_by_its_bytes() {
    let shout = format!("0x{}", ADDRESS[2..].to_ascii_uppercase());
    for written in [ADDRESS, &ADDRESS.to_ascii_lowercase(), &shout] {
        for named in [ADDRESS, &ADDRESS.to_ascii_lowercase()] {
            let mut json = with(ADDRESS, written);
            json["address"] = json!(named);
            assert_eq!(outcome(&encode(&json), &here(), NOW), Ok(ACCOUNT.to_owned()), "{written} {named}");
        }
    }
}

#[test]
fn a_slip_in_the_address_is_noticed_in_both_forms() {
    let file = file(SIWX);
    let valid = file["vectors"].as_array().unwrap().iter().find(|vector| vector["id"] == "siwe-valid").unwrap();
    let mut fields = valid["payload"].clone();
    let now = Timestamp::from_secs(valid["now"].as_u64().unwrap());
    assert_eq!(outcome(&encode(&fields), &rules("gw.example.com"), now), Ok(ACCOUNT.to_owned()));
    fields["address"] = json!(ADDRESS.replace("79C8", "79c8"));
    assert_eq!(outcome(&encode(&fields), &rules("gw.example.com"), now), Err("INVALID_WALLET"));
}

#[test]
fn the_cheap_refusal_comes_first() {
    let slip = ADDRESS.replace("79C8", "79c8");
    // Everything is wrong with this one; each mend shows the next refusal.
    let mut json = signed(|text| {
        let text = text.replace("Chain ID: 8453", "Chain ID: 1").replace(ADDRESS, &slip);
        let text = text.replace("127.0.0.1:8402 wants", "evil.example wants").replace("http://", "https://");
        let text = text.replace("Nonce: 0123456789abcdef\n", "").replace(&issued_at(), &format!("Issued At: {}", plus(-301)));
        text.replace(&plus(300), &format!("{}\nNot Before: {}", plus(300), plus(31)))
    });
    json["address"] = json!("0x1234");
    json["chainId"] = json!(8453);
    json["timestamp"] = json!(0);
    json["signature"] = json!("0x");
    let issued = |seconds: i64| format!("Issued At: {}", plus(seconds));
    let steps = [
        ("CHAIN_MISMATCH", "chainId", json!(8453), json!(1)),
        ("UNSUPPORTED_CHAIN", "message", json!("Chain ID: 1\n"), json!("Chain ID: 8453\n")),
        ("CHAIN_MISMATCH", "chainId", json!(1), json!(8453)),
        ("ADDRESS_MISMATCH", "address", json!("0x1234"), json!(slip)),
        ("INVALID_WALLET", "message", json!(slip), json!(ADDRESS)),
        ("DOMAIN_MISMATCH", "message", json!("evil.example wants"), json!("127.0.0.1:8402 wants")),
        ("URI_MISMATCH", "message", json!("https://"), json!("http://")),
        ("MISSING_NONCE", "message", json!("Issued At"), json!("Nonce: 0123456789abcdef\nIssued At")),
        ("EXPIRED", "message", json!(issued(-301)), json!(issued(31))),
        ("FUTURE_TIMESTAMP", "message", json!(issued(31)), json!(issued(0))),
        ("NOT_BEFORE", "message", json!(plus(31)), json!(plus(30))),
        ("TIMESTAMP_MISMATCH", "timestamp", json!(0), json!(NOW.millis())),
        ("INVALID_SIGNATURE", "signature", json!("0x"), json!("0x00")),
    ];
    for (code, field, wrong, right) in steps {
        assert_eq!(outcome(&encode(&json), &here(), NOW), Err(code));
        let mended = match (field, json[field].as_str()) {
            ("message", Some(text)) => json!(text.replace(wrong.as_str().unwrap(), right.as_str().unwrap())),
            _ => right,
        };
        assert_ne!(json[field], mended, "{code} was mended");
        json[field] = mended;
    }
}

#[test]
fn a_sign_in_lives_from_its_time_until_its_end_to_the_millisecond() {
    let short = with(&plus(300), &plus(60));
    let open = with(&format!("\nExpiration Time: {}", plus(300)), "");
    let long = with(&plus(300), "9999-12-31T23:59:59Z");
    let early = with(&plus(300), &format!("{}\nNot Before: {}", plus(300), plus(10)));
    let at = |json: &Value, millis: i64| {
        let now = Timestamp::from_millis(NOW.millis().checked_add_signed(millis).unwrap());
        outcome(&encode(json), &here(), now).map(|_| ())
    };
    for (json, millis, wanted) in [
        (&short, -30_001, Err("FUTURE_TIMESTAMP")),
        (&short, -30_000, Ok(())),
        (&short, 59_999, Ok(())),
        (&short, 60_000, Err("EXPIRED")),
        (&open, 300_000, Ok(())),
        (&open, 300_001, Err("EXPIRED")),
        (&long, 300_000, Ok(())),
        (&long, 300_001, Err("EXPIRED")),
        (&early, -20_001, Err("NOT_BEFORE")),
        (&early, -20_000, Ok(())),
    ] {
        assert_eq!(at(json, millis), wanted, "{millis}");
    }
    for (json, seconds) in [(&short, 90), (&open, 330), (&long, 330)] {
        let signed_in = verify_sign_in(&encode(json), &here(), NOW).unwrap();
        assert_eq!(signed_in.forget_at(), NOW.plus(Duration::from_secs(seconds)));
        assert!(outcome(&encode(json), &here(), signed_in.forget_at()).is_err(), "no copy is taken once the nonce is forgotten");
    }
}

#[test]
fn the_times_of_a_message_may_be_far_from_ours() {
    for now in [Timestamp::default(), Timestamp::from_millis(u64::MAX)] {
        assert!(outcome(&encode(&signed(|text| text)), &here(), now).is_err());
    }
    let old = with(&issued_at(), "Issued At: 0000-01-01T00:00:00Z");
    assert_eq!(outcome(&encode(&old), &here(), NOW), Err("EXPIRED"));
    let late = with(&issued_at(), "Issued At: 9999-12-31T23:59:59Z");
    assert_eq!(outcome(&encode(&late), &here(), NOW), Err("FUTURE_TIMESTAMP"));
}

/// The signature with `s` replaced by its twin: both recover to the same wallet.
fn high_s(signature: &[u8]) -> Vec<u8> {
    let twin = signature::tests::high_s_twin(signature[..64].try_into().unwrap());
    [&twin[..], &[55 - signature[64]]].concat()
}

#[test]
fn one_wallet_has_one_signature_of_one_message() {
    let json = signed(|text| text);
    let signature = hex::decode(json["signature"].as_str().unwrap()).unwrap();
    let (head, v) = (&signature[..64], signature[64]);
    let low = [head, &[v - 27]].concat();
    let zero_s = [&signature[..32], &[0; 32], &[v]].concat();
    let cases: BTreeMap<_, _> = [
        ("as it is", (signature.clone(), Ok(()))),
        ("v of 0 or 1", (low, Ok(()))),
        ("high s", (high_s(&signature), Err("INVALID_SIGNATURE"))),
        ("the other v", ([head, &[55 - v]].concat(), Err("INVALID_SIGNATURE"))),
        ("v of 29", ([head, &[29]].concat(), Err("INVALID_SIGNATURE"))),
        ("64 bytes", (head.to_vec(), Err("INVALID_SIGNATURE"))),
        ("66 bytes", ([&signature[..], &[0]].concat(), Err("INVALID_SIGNATURE"))),
        ("nothing but zeros", (vec![0; 65], Err("INVALID_SIGNATURE"))),
        ("s of zero", (zero_s, Err("INVALID_SIGNATURE"))),
        ("ERC-6492", ([&signature[..], &[0x64, 0x92].repeat(16)].concat(), Err("INVALID_SIGNATURE"))),
    ]
    .into();
    for (what, (bytes, wanted)) in cases {
        let mut changed = json.clone();
        changed["signature"] = hex::encode(&bytes).into();
        assert_eq!(outcome(&encode(&changed), &here(), NOW).map(|_| ()), wanted, "{what}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn a_changed_byte_of_the_message_is_never_the_same_wallet(at in 0usize..10_000, to in 0u8..128) {
        let json = signed(|text| text);
        let mut bytes = json["message"].as_str().unwrap().as_bytes().to_vec();
        let at = at % bytes.len();
        prop_assume!(bytes[at] != to);
        bytes[at] = to;
        let text = String::from_utf8(bytes).unwrap();
        let mut changed = json.clone();
        changed["message"] = text.clone().into();
        prop_assert_ne!(outcome(&encode(&changed), &here(), NOW), Ok(ACCOUNT.to_owned()));
        let signature = hex::decode(json["signature"].as_str().unwrap()).unwrap();
        prop_assert_ne!(signature::signer_of_text(&text, &signature).ok(), Some(key().address()), "whatever the grammar says");
    }

    #[test]
    fn a_changed_byte_of_the_signature_is_never_the_same_wallet(at in 0usize..65, to in any::<u8>()) {
        let json = signed(|text| text);
        let mut bytes = hex::decode(json["signature"].as_str().unwrap()).unwrap();
        // A parity may be written in two ways.
        prop_assume!(bytes[at] != to && (at < 64 || bytes[at] != to.wrapping_add(27)));
        bytes[at] = to;
        let mut changed = json.clone();
        changed["signature"] = hex::encode(&bytes).into();
        prop_assert_eq!(outcome(&encode(&changed), &here(), NOW), Err("INVALID_SIGNATURE"));
    }

    #[test]
    fn nobody_signs_in_as_somebody_else(seed in 1u8..) {
        let other = PrivateKey::parse(&format!("{seed:064x}")).unwrap();
        let mut json = signed(|text| text);
        let text = json["message"].as_str().unwrap().to_owned();
        json["signature"] = hex::encode(&buyer::sign_text(&other, &text)).into();
        prop_assert_eq!(outcome(&encode(&json), &here(), NOW), Err("INVALID_SIGNATURE"));
    }
}
