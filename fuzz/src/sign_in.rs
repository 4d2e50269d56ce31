//! Sign-in headers: judged without a panic, every text read in one way only, and never a wallet that did not sign.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox::chain::{judge_sign_in, verify_sign_in};
use farebox::clock::Timestamp;
use farebox::x402::sign_in::{Family, Message};
use farebox::x402::{SignIn, SignInRules};
use serde_json::json;

/// Where and when the published vectors were valid.
const PLACES: [(&str, Timestamp); 2] = [
    ("https://gw.example.com", Timestamp::from_secs(1_763_640_000)),
    ("http://127.0.0.1:8402", Timestamp::from_secs(1_767_323_100)),
];
/// The chains of the published vectors.
const CHAINS: [&str; 2] = ["eip155:8453", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"];
/// The wallets that signed the seeds; nobody can sign for another one by changing bytes.
const SIGNERS: [&str; 3] = [
    "evm:0x70997970c51812dc3a010c7d01b50e0d17dc79c8",
    "solana:AKnL4NNf3DGWZJS6cPknBuEGnVsV4A4m5tgebLHaRSZ9",
    "solana:DnzM9DRdHxTYTJ5vtSPLgDen9CgDA92kg2FRQsbVWvgM",
];
/// A signature of another text.
const SIGNATURE: &str = "0x7e077c78390986f119b834e5feefb8e53c7e46ddff07b98d593043dddb4f69e74fe1cc48f0adb7185708c5390b203fa8859afd32ed51d6594361ebdffb6e61e01c";

/// The bytes are a header, and also the JSON inside one, and also the text that is signed.
pub fn check(data: &[u8]) {
    if let Ok(text) = std::str::from_utf8(data) {
        judged(text);
        read(text);
        let address = text.lines().nth(1).unwrap_or_default();
        judged(&STANDARD.encode(json!({ "address": address, "message": text, "signature": SIGNATURE }).to_string()));
    }
    judged(&STANDARD.encode(data));
}

fn judged(header: &str) {
    let sign_in = SignIn::from_header(header);
    for (place, now) in PLACES {
        let rules = SignInRules::for_domain(place, CHAINS.map(str::to_owned).to_vec()).expect("a URL");
        let verdict = judge_sign_in(header, &rules, now);
        let verified = verify_sign_in(header, &rules, now);
        assert_eq!(verdict["valid"], verified.is_ok(), "{verdict}");
        assert_eq!(verdict["code"].as_str(), verified.as_ref().err().map(|fault| fault.code), "{verdict}");
        let Ok(signed_in) = verified else { continue };
        let sign_in = sign_in.as_ref().expect("what is valid can be read");
        let account = signed_in.account().to_string();
        assert!(SIGNERS.contains(&account.as_str()), "{account} never signed this");
        assert_eq!(sign_in.message().nonce.as_deref(), Some(signed_in.nonce()));
        assert!(place.ends_with(&sign_in.message().domain.to_ascii_lowercase()), "signed for another place");
        let forgotten = verify_sign_in(header, &rules, signed_in.forget_at());
        assert!(forgotten.is_err(), "taken again once its nonce is forgotten");
    }
}

fn read(text: &str) {
    if let Ok(message) = Message::parse(text, Family::Evm) {
        assert_eq!(message.text(), text, "another text is the same message");
        assert!(Message::parse(text, Family::Solana).is_err(), "a text of two families");
    }
    if let Ok(message) = Message::parse(text, Family::Solana) {
        assert_eq!(Message::parse(&message.text(), Family::Solana).as_ref(), Ok(&message));
    }
}
