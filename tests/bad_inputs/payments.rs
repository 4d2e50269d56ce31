//! Payments that no honest client sends: a valid one for the quote of a request, changed as a case says, signed again or not.

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use farebox::chain::evm::address::Address;
use farebox::chain::evm::key::PrivateKey;
use farebox::chain::evm::payload::Authorization;
use farebox::chain::evm::token;
use farebox::chain::evm::word::Word;
use farebox::chain::evm::{buyer, eip712, hex, keccak};
use farebox::x402::Requirements;
use farebox_rig::anvil::{BUYER, POOR_BUYER, Wallet};
use k256::ecdsa::{RecoveryId, Signature, SigningKey, VerifyingKey};
use k256::elliptic_curve::ops::Reduce;
use k256::elliptic_curve::point::AffineCoordinates;
use k256::{FieldBytes, ProjectivePoint, Scalar};
use serde_json::{Map, Value, json};

use crate::case::{Names, count, text};

/// A wallet that the token's owner has put on its black list.
pub const BLACKLISTED: Wallet = Wallet {
    address: "0x976EA74026E726554dB657fA54763abd0C3a0aa9",
    key: "0x92db14e403b83dfe3df233f83dfa3a0d7096f21ca9b0d6d6b8d88b2b4ec1564e",
};

/// A payment header and what of it must be found in no log.
#[derive(Clone, Debug)]
pub struct Made {
    pub header: String,
    pub signature: String,
}

/// Makes the payment that `spec` describes, for one entry of a version 2 offer.
pub fn make(spec: &Map<String, Value>, offer: &Value, names: &Names) -> Made {
    let mut names = names.clone();
    let amount: u64 = offer["amount"].as_str().and_then(|text| text.parse().ok()).expect("an amount in units");
    names.set("AMOUNT", amount);
    names.set("AMOUNT_PLUS_1", amount + 1);
    if spec.get("gen").is_some_and(|name| name == "concat") {
        let [a, b] = ["a", "b"].map(|part| make(spec[part].as_object().expect("a payment"), offer, &names));
        return Made { header: a.header + &b.header, signature: a.signature };
    }
    let mut payment = honest(offer, &names);
    for (path, value) in spec.get("set").and_then(Value::as_object).into_iter().flatten() {
        set(&mut payment, path, filled(value, &names));
    }
    let chosen = spec.get("set").is_some_and(|set| set.get("payload.signature").is_some());
    if spec.get("resign") != Some(&json!(false)) && !chosen {
        let signature = signed(&payment, offer, spec);
        set(&mut payment, "payload.signature", hex::encode(&signature).into());
    }
    let signature = payment["payload"]["signature"].as_str().unwrap_or_default().to_owned();
    Made { header: encoded(&payment.to_string(), spec, &names), signature }
}

/// A nonce that no other payment has.
pub fn nonce(names: &Names) -> String {
    hex::encode(&keccak(names.fill("{{FRESH}} {{NOW_MS}}").as_bytes()))
}

pub fn encode(json: &str) -> String {
    STANDARD.encode(json)
}

/// The payment in a header.
pub fn decoded(header: &str) -> Value {
    serde_json::from_slice(&STANDARD.decode(header).expect("base64")).expect("JSON")
}

/// What an honest buyer sends.
fn honest(offer: &Value, names: &Names) -> Value {
    let authorization = json!({
        "from": BUYER.address, "to": offer["payTo"], "value": offer["amount"], "validAfter": "0",
        "validBefore": names.fill("{{NOW+300}}"), "nonce": nonce(names),
    });
    let mut payment =
        json!({ "x402Version": 2, "accepted": offer, "payload": { "signature": "", "authorization": authorization } });
    // What is not signed again was signed honestly.
    let signature = signed(&payment, offer, &Map::new());
    set(&mut payment, "payload.signature", hex::encode(&signature).into());
    payment
}

fn filled(value: &Value, names: &Names) -> Value {
    let Some(fields) = value.as_object().filter(|fields| fields.get("gen").is_some_and(|name| name == "erc6492_wrap")) else {
        return names.fill_value(value);
    };
    let text = |name: &str, default: &str| names.fill(fields.get(name).and_then(Value::as_str).unwrap_or(default));
    let factory = hex::decode(&text("factory", "0x4444444444444444444444444444444444444444")).expect("an address");
    let inner = hex::decode(&text("inner", &format!("0x{}", "11".repeat(65)))).expect("hex");
    hex::encode(&erc6492(&factory, &inner)).into()
}

/// `abi.encode(factory, calldata, inner)` and the suffix of ERC-6492; the calldata moves the factory's tokens.
fn erc6492(factory: &[u8], inner: &[u8]) -> Vec<u8> {
    let calldata = hex::decode(&format!("0xa9059cbb{:0>64}{:0>64}", "33".repeat(20), "f4240")).expect("hex");
    let word = |number: usize| Word::from(u64::try_from(number).expect("small")).0.to_vec();
    let padded =
        |bytes: &[u8]| [word(bytes.len()), bytes.to_vec(), vec![0; bytes.len().next_multiple_of(32) - bytes.len()]].concat();
    let (first, second) = (padded(&calldata), padded(inner));
    let head = [vec![0; 12], factory.to_vec(), word(96), word(96 + first.len())].concat();
    [head, first, second, hex::decode(&format!("0x{}", "6492".repeat(16))).expect("hex")].concat()
}

/// Puts `value` at a dotted path.
fn set(payment: &mut Value, path: &str, value: Value) {
    let place = path.split('.').fold(payment, |at, name| &mut at[name]);
    *place = value;
}

/// The key of whoever pays; the buyer's where nobody has one.
fn key_of(from: &str) -> PrivateKey {
    let wallets = [POOR_BUYER, BLACKLISTED];
    let wallet = wallets.into_iter().find(|wallet| wallet.address.eq_ignore_ascii_case(from)).unwrap_or(BUYER);
    PrivateKey::parse(wallet.key).expect("a key of the test mnemonic")
}

/// What the payment authorizes; a field that is no such thing counts as the offer has it, so that the rest can be signed.
fn authorization(payment: &Value, offer: &Value) -> Authorization {
    let field = |name: &str| payment["payload"]["authorization"][name].as_str().unwrap_or_default();
    let number = |name: &str, default: &str| Word::from_decimal(field(name)).or(Word::from_decimal(default)).expect("digits");
    let offered = |name: &str| offer[name].as_str().expect("offers are text");
    Authorization {
        from: Address::parse(field("from")).unwrap_or_else(|| Address::parse(BUYER.address).expect("an address")),
        to: Address::parse(field("to")).unwrap_or_else(|| Address::parse(offered("payTo")).expect("an address")),
        value: number("value", offered("amount")),
        valid_after: number("validAfter", "0"),
        valid_before: number("validBefore", "0"),
        nonce: hex::fixed(field("nonce")).unwrap_or([0xaa; 32]),
    }
}

/// Signs what the payment says, in the domain that it says, with the oddities of `spec`.
fn signed(payment: &Value, offer: &Value, spec: &Map<String, Value>) -> Vec<u8> {
    let mut accepted = payment["accepted"].clone();
    for (name, value) in spec.get("domain").and_then(Value::as_object).into_iter().flatten() {
        accepted["extra"][name] = value.clone();
    }
    let requirements = Requirements::from_json(&accepted).expect("requirements that can be signed");
    let authorization = authorization(payment, offer);
    let key = key_of(&authorization.from.to_string());
    let plain = buyer::sign(&requirements, &authorization, &key).expect("an offer that can be signed");
    match (spec.get("sig").and_then(Value::as_str), spec.get("resign").and_then(Value::as_str)) {
        (Some("high_s"), _) => twin(plain),
        (Some("v29"), _) => [&plain[..64], &[29]].concat(),
        (Some("v37"), _) => [&plain[..64], &[37]].concat(),
        (Some("compact"), _) => plain[..64].to_vec(),
        (Some("personal_sign"), _) => {
            let digest = digest(&requirements, &authorization);
            let wrapped = keccak(&[&b"\x19Ethereum Signed Message:\n32"[..], &digest].concat());
            sign(BUYER, &wrapped, b"")
        }
        (Some(other), _) => panic!("no such signature: {other}"),
        (None, Some("fresh ECDSA k")) => sign(BUYER, &digest(&requirements, &authorization), b"another k"),
        (None, _) => plain,
    }
}

fn digest(requirements: &Requirements, authorization: &Authorization) -> [u8; 32] {
    let extra = requirements.extra.as_ref().expect("EVM offers name the domain");
    let chain_id = token::chain_id(&requirements.network).expect("an EVM network");
    let asset = Address::parse(&requirements.asset).expect("an address");
    eip712::digest(&eip712::domain_separator(text(extra, "name"), text(extra, "version"), chain_id, asset), authorization)
}

/// Signs with an ephemeral scalar that depends on `salt`: another salt, another signature of the same.
fn sign(wallet: Wallet, digest: &[u8; 32], salt: &[u8]) -> Vec<u8> {
    let key = SigningKey::from_slice(&hex::fixed::<32>(wallet.key).expect("a key")).expect("a key");
    let scalar = |bytes: [u8; 32]| <Scalar as Reduce<FieldBytes>>::reduce(&bytes.into());
    let k = scalar(keccak(&[&digest[..], salt].concat()));
    let r = <Scalar as Reduce<FieldBytes>>::reduce(&(ProjectivePoint::GENERATOR * k).to_affine().x());
    let s = k.invert().expect("not zero") * (scalar(*digest) + r * *key.as_nonzero_scalar().as_ref());
    let signature = Signature::from_scalars(r.to_bytes(), s.to_bytes()).expect("a signature").normalize_s();
    let parity = (0..2).find(|parity| {
        let recovery = RecoveryId::from_byte(*parity).expect("0 or 1");
        VerifyingKey::recover_from_prehash(digest, &signature, recovery).is_ok_and(|found| found == *key.verifying_key())
    });
    [signature.to_bytes().to_vec(), vec![27 + parity.expect("one of the two")]].concat()
}

/// The other signature that recovers to the same key: `n - s`, and the other parity.
fn twin(mut signature: Vec<u8>) -> Vec<u8> {
    let half = Signature::from_slice(&signature[..64]).expect("a signature");
    let (r, s) = half.split_scalars();
    let high = Signature::from_scalars(r.to_bytes(), (-*s).to_bytes()).expect("a signature");
    signature[..64].copy_from_slice(&high.to_bytes());
    signature[64] = 55 - signature[64];
    signature
}

fn encoded(json: &str, spec: &Map<String, Value>, names: &Names) -> String {
    let mut json = json.to_owned();
    if let Some(replaced) = spec.get("raw_replace") {
        let [from, to] = [0, 1].map(|n| names.fill(replaced[n].as_str().expect("two texts")));
        assert!(json.contains(&from), "{from} does not stand in the payment");
        json = json.replacen(&from, &to, 1);
    }
    if let Some(pad) = spec.get("pad") {
        json.push_str(&" ".repeat(count(pad.as_object().expect("a count"))));
    }
    match spec.get("encode").and_then(Value::as_str) {
        None => STANDARD.encode(json),
        Some("base64url_nopad") => URL_SAFE_NO_PAD.encode(json),
        Some("base64_noncanonical_tail") => noncanonical(json),
        Some("json") => json,
        Some("envelope_in_array") => {
            let payment: Value = serde_json::from_str(&json).expect("JSON");
            let fields = ["x402Version", "accepted", "scheme", "network", "payload", "resource", "extensions"];
            encode(&Value::from(fields.map(|name| payment[name].clone()).to_vec()).to_string())
        }
        Some("accepted_in_array") => {
            let mut payment: Value = serde_json::from_str(&json).expect("JSON");
            let fields = ["scheme", "network", "amount", "asset", "payTo", "maxTimeoutSeconds", "extra"];
            payment["accepted"] = fields.map(|name| payment["accepted"][name].clone()).to_vec().into();
            encode(&payment.to_string())
        }
        Some("base64_twice") => STANDARD.encode(STANDARD.encode(json)),
        Some(other) => panic!("no such encoding: {other}"),
    }
}

/// The same bytes with another last symbol, whose four low bits no decoder should take.
fn noncanonical(mut json: String) -> String {
    while json.len() % 3 != 1 {
        json.push(' ');
    }
    let header = STANDARD.encode(&json);
    let (body, tail) = header.split_at(header.len() - 3);
    // One byte is left over: its last symbol is one of AQgw, whose neighbour has a low bit set.
    let next = char::from(tail.as_bytes()[0] + 1);
    assert!("AQgw".contains(&tail[..1]), "{tail}");
    format!("{body}{next}==")
}
