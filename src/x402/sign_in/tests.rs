//! One text has one reading, one header has one meaning, and what is signed for somebody else is not for us.

mod place;

use base64::Engine as _;
use base64::engine::general_purpose::{STANDARD, STANDARD_NO_PAD, URL_SAFE_NO_PAD};
use proptest::prelude::*;
use serde_json::{Value, json};

use super::fault::*;
use super::*;

const ADDRESS: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";
const SOLANA: &str = "DnzM9DRdHxTYTJ5vtSPLgDen9CgDA92kg2FRQsbVWvgM";
const MAINNET: &str = "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp";

/// What `venice-x402-client` signs, with every field that EIP-4361 has.
fn full() -> String {
    format!(
        "https://127.0.0.1:8402 wants you to sign in with your Ethereum account:\n{ADDRESS}\n\nSign in to Venice AI\n\n\
         URI: http://127.0.0.1:8402/api/v1/chat/completions?a=%20b\nVersion: 1\nChain ID: 8453\nNonce: 0123456789abcdef\n\
         Issued At: 2026-01-02T03:04:05.678Z\nExpiration Time: 2026-01-02T04:09:05+01:00\nNot Before: 2026-01-02T03:04:05Z\n\
         Request ID: req-1\nResources:\n- http://127.0.0.1:8402/\n- ipfs://bafy"
    )
}

fn minimal() -> String {
    format!(
        "your.name wants you to sign in with your Ethereum account:\n{ADDRESS}\n\n\nURI: https://your.name\nVersion: 1\n\
         Chain ID: 8453\nNonce: 01234567\nIssued At: 2026-01-02T03:04:05Z"
    )
}

fn solana(blank: &str, chain: &str) -> String {
    format!(
        "your.name wants you to sign in with your Solana account:\n{SOLANA}\n{blank}URI: https://your.name\nVersion: 1\n\
         Chain ID: {chain}\nNonce: 01234567\nIssued At: 2026-01-02T03:04:05Z"
    )
}

fn code<T: fmt::Debug>(read: Result<T, SignInFault>) -> &'static str {
    read.unwrap_err().code
}

fn header(json: &Value) -> String {
    STANDARD.encode(json.to_string())
}

/// The code with which a header is refused; empty when it is read.
fn refusal(json: &Value) -> &'static str {
    SignIn::from_header(&header(json)).err().map_or("", |fault| fault.code)
}

fn signed() -> Value {
    json!({ "address": ADDRESS, "message": minimal(), "signature": "0x11", "timestamp": 1, "chainId": 8453 })
}

fn structured() -> Value {
    json!({
        "domain": "your.name", "address": ADDRESS, "statement": "Sign in", "uri": "https://your.name/v1", "version": "1",
        "chainId": "eip155:8453", "type": "eip191", "nonce": "01234567", "issuedAt": "2026-01-02T03:04:05Z",
        "expirationTime": "2026-01-02T03:09:05Z", "notBefore": "2026-01-02T03:04:05Z", "requestId": "req-1",
        "resources": ["https://your.name/v1"], "signatureScheme": "eip191", "signature": "0x11",
    })
}

#[test]
fn a_message_has_one_reading_and_is_written_as_it_was_read() {
    let statement_like_a_field = minimal().replacen("\n\n\n", "\n\nURI: https://evil.example\n\n", 1);
    let no_resources = format!("{}\nResources:", minimal());
    let empty_request = format!("{}\nRequest ID: ", minimal());
    for text in [full(), minimal(), statement_like_a_field.clone(), no_resources, empty_request] {
        let message = Message::parse(&text, Family::Evm).unwrap();
        assert_eq!(message.text(), text);
    }
    let message = Message::parse(&statement_like_a_field, Family::Evm).unwrap();
    assert_eq!(message.statement.as_deref(), Some("URI: https://evil.example"));
    assert_eq!(message.uri, "https://your.name", "a statement is no field, whatever it looks like");
    let message = Message::parse(&full(), Family::Evm).unwrap();
    assert_eq!((message.scheme.as_deref(), message.domain.as_str()), (Some("https"), "127.0.0.1:8402"));
    assert_eq!(message.expiration_time.unwrap().at(), Timestamp::from_secs(1_767_323_345));
    assert_eq!(message.resources.unwrap().len(), 2);
}

/// What stands in [`full`], and what must not stand there instead.
const NOT_TO_THE_LETTER: [(&str, &str); 51] = [
    ("\n", "\r\n"),
    ("https://127.0.0.1:8402 wants", " wants"),
    ("https://127.0.0.1:8402 wants", "127.0.0.1:8402/path wants"),
    ("https://127.0.0.1:8402 wants", "127.0.0.1:8402  wants"),
    ("https://127.0.0.1:8402 wants", "1https://127.0.0.1:8402 wants"),
    ("https://127.0.0.1:8402 wants", "https://https://127.0.0.1:8402 wants"),
    ("https://127.0.0.1:8402 wants", "ex\u{430}mple.com wants"),
    ("Ethereum account:", "Ethereum account: "),
    ("Ethereum account", "ethereum account"),
    ("Ethereum account", "Solana account"),
    ("account:\n0x", "account:\n 0x"),
    ("79C8\n\nSign", "79C8\nSign"),
    ("Sign in to Venice AI\n\n", "Sign in to Venice AI\n"),
    ("Sign in to Venice AI\n\n", "\n\n"),
    ("Sign in to Venice AI", "hi\nNonce: 12345678"),
    ("Sign in to Venice AI", "\"quoted\""),
    ("Sign in to Venice AI", "tab\tbed"),
    ("Sign in to Venice AI", "Grüße"),
    ("Sign in to Venice AI", "zero\u{0}"),
    ("URI: http", "Uri: http"),
    ("URI: http", "URI:http"),
    ("URI: http", "URI:  http"),
    ("?a=%20b", "?a= b"),
    ("?a=%20b", "?a=%2"),
    ("?a=%20b", "?a=\\b"),
    ("URI: http://127.0.0.1:8402/api", "URI: /api"),
    ("Version: 1", "Version: 2"),
    ("Version: 1", "Version: 01"),
    ("Version: 1", "Version: 1.0"),
    ("Version: 1\n", ""),
    ("Chain ID: 8453", "Chain ID: eip155:8453"),
    ("Chain ID: 8453", "Chain ID: 0x2105"),
    ("Chain ID: 8453", "Chain ID: +8453"),
    ("Chain ID: 8453", "Chain ID: "),
    ("Chain ID: 8453\n", ""),
    ("Version: 1\nChain ID: 8453", "Chain ID: 8453\nVersion: 1"),
    ("0123456789abcdef", "0123456"),
    ("0123456789abcdef", "01234567-9abcdef"),
    ("Nonce: 0123456789abcdef", "Nonce: 0123456789abcdef\nNonce: 0123456789abcdef"),
    ("2026-01-02T03:04:05.678Z", "2026-02-30T00:00:00Z"),
    ("2026-01-02T03:04:05.678Z", "yesterday"),
    ("Issued At: 2026-01-02T03:04:05.678Z\n", ""),
    ("2026-01-02T04:09:05+01:00", ""),
    ("Request ID: req-1", "Request ID: req 1"),
    ("Request ID: req-1\n", "Request ID: req-1\nRequest ID: req-2\n"),
    ("Resources:\n", "Resources: \n"),
    ("- ipfs://bafy", "ipfs://bafy"),
    ("- ipfs://bafy", "-  ipfs://bafy"),
    ("- ipfs://bafy", "- "),
    ("- ipfs://bafy", "- ipfs://bafy\n"),
    ("- ipfs://bafy", "- ipfs://bafy\nChain ID: 8453"),
];

#[test]
fn what_is_not_the_text_to_the_letter_is_refused() {
    let full = full();
    for (from, to) in NOT_TO_THE_LETTER {
        let changed = full.replacen(from, to, if from == "\n" { usize::MAX } else { 1 });
        assert_ne!(changed, full, "{from:?}");
        assert_eq!(code(Message::parse(&changed, Family::Evm)), INVALID_MESSAGE, "{to:?} for {from:?}");
    }
    let long_nonce = full.replacen("0123456789abcdef", &"a".repeat(129), 1);
    assert_eq!(code(Message::parse(&long_nonce, Family::Evm)), INVALID_MESSAGE);
    for text in ["", "\n", &minimal().replacen("\n\n\n", "\n\n", 1), &format!("\n{full}"), &format!("{}\n", minimal())] {
        assert_eq!(code(Message::parse(text, Family::Evm)), INVALID_MESSAGE, "{text:?}");
    }
    let lines: Vec<_> = full.split('\n').collect();
    for end in 0..lines.len() {
        // The last lines are a list, of which any beginning is a list.
        let read = Message::parse(&lines[..end].join("\n"), Family::Evm);
        assert_eq!(read.is_ok(), end >= 10, "the first {end} lines");
    }
}

#[test]
fn the_refusal_names_the_line() {
    for (from, to, said) in [
        ("\n", "\r\n", "carriage returns"),
        ("Ethereum", "Etherum", "line 1 "),
        ("Version: 1", "Version: 2", "line 7 "),
        ("Nonce: ", "Nonce ", "line 9 "),
        ("Issued At: 2026-01-02T03:04:05.678Z", "Issued At: yesterday", "line 10 "),
        ("2026-01-02T04:09:05+01:00", "soon", "line 11 "),
    ] {
        let fault = Message::parse(&full().replacen(from, to, 1), Family::Evm).unwrap_err();
        assert!(fault.message.contains(said), "{fault}");
    }
    let fault = Message::parse(&format!("{}\nShout: x", minimal()), Family::Evm).unwrap_err();
    assert!(fault.message.starts_with("line 10 ") && fault.message.contains("nothing follows"), "{fault}");
    let fault = Message::parse(&solana("\n", MAINNET), Family::Evm).unwrap_err();
    assert!(fault.message.contains("another family"), "{fault}");
}

#[test]
fn solana_texts_have_one_empty_line_or_two_and_three_ways_to_name_the_chain() {
    for blank in ["\n", "\n\n"] {
        for chain in [MAINNET, &format!("solana:{MAINNET}"), "mainnet"] {
            let message = Message::parse(&solana(blank, chain), Family::Solana).unwrap();
            assert_eq!(message.statement, None);
            assert_eq!(Family::Solana.caip2(&message.chain), Some(format!("solana:{MAINNET}")));
        }
    }
    let stated = Message::parse(&solana("\nURI: not this one\n\n", MAINNET), Family::Solana).unwrap();
    assert_eq!(stated.statement.as_deref(), Some("URI: not this one"));
    assert_eq!(stated.text(), solana("\nURI: not this one\n\n", MAINNET));
    for blank in ["", "\n\n\n", "\nhi\n", "\n\nhi\n\n"] {
        assert_eq!(code(Message::parse(&solana(blank, MAINNET), Family::Solana)), INVALID_MESSAGE, "{blank:?}");
    }
}

#[test]
fn a_chain_has_one_name() {
    for (family, chain, caip2) in [
        (Family::Evm, "8453", Some("eip155:8453")),
        (Family::Evm, "eip155:31337", Some("eip155:31337")),
        (Family::Solana, "devnet", Some("solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1")),
        (Family::Solana, "solana:testnet", Some("solana:4uhcVJyU9pJkvQyS88uRDiswHXSCkY3z")),
        (Family::Evm, "", None),
        (Family::Evm, "08453", None),
        (Family::Evm, "base", None),
        (Family::Evm, "eip155:eip155:1", None),
        (Family::Evm, "solana:mainnet", None),
        (Family::Evm, "1000000000000000000000000000000000000000000", None),
        (Family::Solana, "8453", None),
        (Family::Solana, "eip155:8453", None),
        (Family::Solana, "solana:", None),
        (Family::Solana, "0OIl0OIl0OIl0OIl0OIl0OIl0OIl0OIl", None),
    ] {
        assert_eq!(family.caip2(chain).as_deref(), caip2, "{chain:?}");
    }
}

#[test]
fn a_header_is_base64_in_any_of_its_forms() {
    let json = signed().to_string();
    let read = SignIn::from_header(&STANDARD.encode(&json)).unwrap();
    assert_eq!((read.address(), read.chain(), read.text(ADDRESS).as_ref()), (ADDRESS, "eip155:8453", minimal().as_str()));
    for header in [STANDARD_NO_PAD.encode(&json), URL_SAFE_NO_PAD.encode(&json), format!(" {}\n", STANDARD.encode(&json))] {
        assert_eq!(SignIn::from_header(&header).unwrap().fields(), read.fields(), "{header}");
    }
    let of_size = |size: usize| {
        let room = size / 4 * 3 - json.len() - r#","pad":"""#.len();
        let padded = STANDARD.encode(json.replacen('}', &format!(r#","pad":"{}"}}"#, "x".repeat(room)), 1));
        assert_eq!(padded.len(), size);
        padded
    };
    assert!(SignIn::from_header(&of_size(MAX_SIGN_IN_BYTES)).is_ok());
    assert_eq!(code(SignIn::from_header(&of_size(MAX_SIGN_IN_BYTES + 4))), PARSE_ERROR);
    for bad in ["", "%%%", "sk-x402-abcdef", &STANDARD.encode("[]"), &STANDARD.encode("null"), &STANDARD.encode("{")] {
        assert_eq!(code(SignIn::from_header(bad)), PARSE_ERROR, "{bad:.40}");
    }
    assert_eq!(code(SignIn::from_header(&STANDARD.encode([0xff, 0xfe]))), PARSE_ERROR);
    for field in ["chainId", "resources", "other"] {
        let deep = format!("{{\"{field}\":{}1{}}}", "[".repeat(2500), "]".repeat(2500));
        assert_eq!(code(SignIn::from_header(&STANDARD.encode(deep))), INVALID_PAYLOAD, "{field}");
    }
}

#[test]
fn a_header_has_every_field_once_and_of_its_type() {
    for field in ["address", "signature", "message"] {
        for empty in [None, Some(Value::Null), Some(json!(7)), Some(json!(["x"]))] {
            let mut changed = signed();
            match empty {
                None => drop(changed.as_object_mut().unwrap().remove(field)),
                Some(value) => changed[field] = value,
            }
            assert_eq!(refusal(&changed), INVALID_PAYLOAD, "{changed}");
        }
    }
    for (field, value) in
        [("timestamp", json!("1")), ("timestamp", json!(-1)), ("timestamp", json!(1.5)), ("type", json!("eip712"))]
    {
        let mut changed = signed();
        changed[field] = value;
        assert_eq!(refusal(&changed), INVALID_PAYLOAD, "{changed}");
    }
    let json = signed().to_string();
    for twice in ["\"address\":\"0x00\"", "\"message\":\"\"", "\"timestamp\":1", "\"chainId\":1", "\"signature\":\"\""] {
        let doubled = json.replacen('{', &format!("{{{twice},"), 1);
        assert_eq!(code(SignIn::from_header(&STANDARD.encode(doubled))), INVALID_PAYLOAD, "{twice}");
    }
    let mut extra = signed();
    extra["walletName"] = json!("MetaMask");
    assert_eq!(refusal(&extra), "", "what nobody signs and we do not read may be there");
    let read = SignIn::from_header(&header(&json!({})));
    assert_eq!(code(read), INVALID_PAYLOAD);
}

#[test]
fn the_chain_is_named_in_four_ways_and_must_be_the_signed_one() {
    for named in [json!(8453), json!("8453"), json!("eip155:8453"), Value::Null] {
        let mut changed = signed();
        changed["chainId"] = named;
        assert_eq!(refusal(&changed), "", "{changed}");
    }
    for (named, code) in [
        (json!(1), CHAIN_MISMATCH),
        (json!("eip155:84532"), CHAIN_MISMATCH),
        (json!("base"), INVALID_CHAIN_ID),
        (json!("08453"), INVALID_CHAIN_ID),
        (json!(8453.0), INVALID_CHAIN_ID),
        (json!(-1), INVALID_CHAIN_ID),
        (json!([8453]), INVALID_CHAIN_ID),
        (json!({}), INVALID_CHAIN_ID),
        (json!(true), INVALID_CHAIN_ID),
        (json!(""), INVALID_CHAIN_ID),
        // The family is Solana's then, and the text is not.
        (json!(format!("solana:{MAINNET}")), INVALID_MESSAGE),
    ] {
        let mut changed = signed();
        changed["chainId"] = named;
        assert_eq!(refusal(&changed), code, "{changed}");
    }
    let on_solana = |chain: Value, kind: Value, text: &str| {
        refusal(&json!({ "address": SOLANA, "message": text, "signature": "x", "chainId": chain, "type": kind }))
    };
    let caip2 = json!(format!("solana:{MAINNET}"));
    let text = solana("\n", MAINNET);
    assert_eq!(on_solana(caip2.clone(), Value::Null, &text), "");
    assert_eq!(on_solana(Value::Null, json!("ed25519"), &text), "");
    assert_eq!(on_solana(json!("mainnet"), json!("ed25519"), &text), "");
    assert_eq!(on_solana(caip2.clone(), json!("eip191"), &text), CHAIN_MISMATCH);
    assert_eq!(on_solana(json!(8453), json!("ed25519"), &text), INVALID_CHAIN_ID);
    assert_eq!(on_solana(caip2.clone(), json!("ed25519"), &solana("\n", "devnet")), CHAIN_MISMATCH);
    assert_eq!(on_solana(caip2, json!("ed25519"), &text.replace("Solana account", "Ethereum account")), INVALID_MESSAGE);
    assert_eq!(on_solana(Value::Null, Value::Null, &text), INVALID_MESSAGE, "nothing says that it is Solana's");
    let zero = minimal().replace("Chain ID: 8453", "Chain ID: 08453");
    let mut changed = signed();
    changed["message"] = json!(zero);
    assert_eq!(refusal(&changed), INVALID_CHAIN_ID);
}

#[test]
fn fields_become_the_text_that_wallets_show() {
    let read = SignIn::from_header(&header(&structured())).unwrap();
    let text = "your.name wants you to sign in with your Ethereum account:\nADDRESS\n\nSign in\n\nURI: https://your.name/v1\n\
                Version: 1\nChain ID: 8453\nNonce: 01234567\nIssued At: 2026-01-02T03:04:05Z\n\
                Expiration Time: 2026-01-02T03:09:05Z\nNot Before: 2026-01-02T03:04:05Z\nRequest ID: req-1\nResources:\n\
                - https://your.name/v1";
    assert_eq!(read.text("ADDRESS"), text, "in the spelling of the address that the caller gives");
    let mut bare = structured();
    for (field, empty) in [
        ("statement", json!("")),
        ("expirationTime", Value::Null),
        ("notBefore", json!("")),
        ("requestId", json!("")),
        ("resources", json!([])),
    ] {
        bare[field] = empty;
    }
    let read = SignIn::from_header(&header(&bare)).unwrap();
    let text = "your.name wants you to sign in with your Ethereum account:\nADDRESS\n\n\nURI: https://your.name/v1\nVersion: 1\n\
                Chain ID: 8453\nNonce: 01234567\nIssued At: 2026-01-02T03:04:05Z\nResources:";
    assert_eq!(read.text("ADDRESS"), text);
    bare["chainId"] = json!(format!("solana:{MAINNET}"));
    bare["type"] = json!("ed25519");
    bare["address"] = json!(SOLANA);
    let text = SignIn::from_header(&header(&bare)).unwrap().text(SOLANA).into_owned();
    assert!(text.contains(&format!("{SOLANA}\n\nURI: ")) && text.contains(&format!("Chain ID: {MAINNET}\n")), "{text}");
    assert!(!text.contains("Resources"), "{text}");
}

#[test]
fn no_field_brings_a_line_of_its_own() {
    for field in ["domain", "address", "statement", "uri", "nonce", "issuedAt", "expirationTime", "notBefore", "requestId"] {
        for addition in ["\n", "\nNonce: 12345678", "\n\nURI: https://evil.example", "\r", " wants you to", "\u{0}"] {
            let mut changed = structured();
            let value = changed[field].as_str().unwrap().to_owned();
            changed[field] = json!(value + addition);
            let plain_words = field == "statement" && addition == " wants you to";
            assert_eq!(refusal(&changed), if plain_words { "" } else { INVALID_MESSAGE }, "{field} and {addition:?}");
        }
    }
    for (field, value, code) in [
        ("domain", json!("https://your.name"), INVALID_MESSAGE),
        ("version", json!("2"), INVALID_MESSAGE),
        ("issuedAt", json!("2026-02-30T00:00:00Z"), INVALID_MESSAGE),
        ("resources", json!(["https://your.name", "x\n- https://y"]), INVALID_MESSAGE),
        ("resources", json!("https://your.name"), INVALID_PAYLOAD),
        ("chainId", json!("eip155:0"), INVALID_CHAIN_ID),
        ("chainId", json!("eip155:8453\nNonce: 12345678"), INVALID_CHAIN_ID),
        ("type", json!("EIP191"), INVALID_PAYLOAD),
    ] {
        let mut changed = structured();
        changed[field] = value;
        assert_eq!(refusal(&changed), code, "{changed}");
    }
    for field in ["domain", "uri", "version", "chainId", "issuedAt", "address", "signature"] {
        let mut changed = structured();
        changed.as_object_mut().unwrap().remove(field);
        assert_eq!(refusal(&changed), INVALID_PAYLOAD, "{field}");
    }
}

#[test]
fn main_networks_are_signed_for_wherever_a_gateway_sells() {
    let chains = |networks: &[&'static str]| {
        let rules = SignInRules::new("https://your.name", None, networks.iter().copied()).unwrap();
        rules.chains().join(" ")
    };
    let both = "eip155:8453 solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp";
    assert_eq!(chains(&[]), both);
    assert_eq!(chains(&["eip155:84532"]), format!("{both} eip155:84532"));
    assert_eq!(chains(&["eip155:137", "eip155:8453"]), format!("{both} eip155:137"));
    assert_eq!(chains(&["solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"]), both);
    let devnet = "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1";
    assert_eq!(chains(&[devnet]), format!("{both} {devnet}"));
}

#[test]
fn two_headers_that_differ_are_no_sign_in() {
    assert_eq!(only_sign_in([]), Ok(None));
    assert_eq!(only_sign_in(["", " "]), Ok(None));
    assert_eq!(only_sign_in(["", "a"]), Ok(Some("a")));
    assert_eq!(only_sign_in(["a", "", " a "]), Ok(Some("a")));
    assert_eq!(code(only_sign_in(["a", "b"])), PARSE_ERROR);
    assert_eq!(code(only_sign_in(["a", "a", "b"])), PARSE_ERROR);
}

#[test]
fn a_statement_is_what_every_wallet_takes() {
    assert!(is_statement("Sign in to Farebox: https://your.name?x=[1]&y='2' (it is free)!"));
    for none in ["", "two\nlines", "\"quoted\"", "100 %", "café", "a\\b", "{}", "tab\t"] {
        assert!(!is_statement(none), "{none:?}");
    }
}

#[test]
fn a_challenge_is_one_that_a_wallet_can_sign_as_it_stands() {
    let chains = ["eip155:8453", "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"].map(str::to_owned).to_vec();
    let rules = SignInRules::for_domain("https://your.name", chains).unwrap();
    let now = Timestamp::from_millis(1_767_323_045_678);
    let uri = "https://your.name/v1/chat/completions";
    let challenge = Challenge::new(&rules, uri, "Sign in to Farebox", [0xab; 16], now);
    let (extension, brief) = (challenge.extension(), challenge.brief());
    let info = &extension["info"];
    assert_eq!(
        *info,
        json!({
            "domain": "your.name", "uri": uri, "version": "1", "nonce": "ab".repeat(16), "statement": "Sign in to Farebox",
            "issuedAt": "2026-01-02T03:04:05.678Z", "expirationTime": "2026-01-02T03:09:05.678Z",
        })
    );
    assert_eq!(extension["supportedChains"][0], json!({ "chainId": "eip155:8453", "type": "eip191" }));
    assert_eq!(extension["supportedChains"][1]["type"], "ed25519");
    assert_eq!(brief, json!({ "info": info, "supportedChains": extension["supportedChains"] }));
    assert!(header(&extension).len() < 1900, "{} bytes leave room for the offer in 4 kB", header(&extension).len());
    // What an x402 client answers: the info, its wallet, the chain it chose.
    let mut answer = info.clone();
    for (field, value) in [("address", ADDRESS), ("chainId", "eip155:8453"), ("type", "eip191"), ("signature", "0x11")] {
        answer[field] = json!(value);
    }
    for field in extension["schema"]["required"].as_array().unwrap() {
        assert!(answer[field.as_str().unwrap()].is_string(), "{field}");
    }
    assert_eq!(extension["schema"]["properties"].as_object().unwrap().len(), 14);
    let read = SignIn::from_header(&header(&answer)).unwrap();
    assert_eq!(rules.check_place(read.message()), Ok(()));
    assert_eq!(read.message().nonce.as_deref(), Some("ab".repeat(16).as_str()));
}

#[test]
fn the_signature_is_not_shown() {
    let mut json = signed();
    json["signature"] = json!("0xdeadbeefdeadbeef");
    let read = SignIn::from_header(&header(&json)).unwrap();
    assert_eq!(read.signature(), "0xdeadbeefdeadbeef");
    assert!(!format!("{read:?} {}", read.fields()).contains("deadbeef"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn whatever_is_read_as_a_message_is_written_the_same(at in 0usize..500, byte in any::<u8>(), cut in 0usize..8) {
        let mut bytes = full().into_bytes();
        let at = at % bytes.len();
        let end = (at + cut).min(bytes.len());
        bytes.splice(at..end, [byte]);
        if let Ok(text) = String::from_utf8(bytes)
            && let Ok(message) = Message::parse(&text, Family::Evm)
        {
            prop_assert_eq!(message.text(), text);
        }
    }

    #[test]
    fn no_bytes_make_the_reader_stumble(bytes in proptest::collection::vec(any::<u8>(), 0..400)) {
        let _ = SignIn::from_header(&STANDARD.encode(&bytes));
        let _ = SignIn::from_header(&String::from_utf8_lossy(&bytes));
        for family in [Family::Evm, Family::Solana] {
            let _ = Message::parse(&String::from_utf8_lossy(&bytes), family);
        }
    }

    #[test]
    fn no_text_in_a_field_moves_another_field(text in "(\\n|[ -~]|URI: |Nonce: ){0,12}", field in 0usize..3) {
        let field = ["statement", "requestId", "uri"][field];
        let mut changed = structured();
        changed[field] = json!(text);
        if let Ok(read) = SignIn::from_header(&header(&changed)) {
            let message = read.message();
            prop_assert_eq!(message.domain.as_str(), "your.name");
            prop_assert_eq!(message.nonce.as_deref(), Some("01234567"));
            prop_assert!(!text.contains('\n'));
            prop_assert_eq!(&Message::parse(&read.text(ADDRESS), Family::Evm).unwrap(), message);
        }
    }
}
