//! `farebox inspect`: every published payment and sign-in gets its verdict, as JSON and as an exit code.

use std::fs;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use farebox_rig::anvil::{BUYER, OTHER_BUYER};
use farebox_rig::process::run;
use farebox_rig::sign_in::{SignIn, Signature, sign_in};
use serde_json::Value;
use tempfile::TempDir;

use crate::FAREBOX;

const EVM: &str = include_str!("../vectors/evm.json");
const LEGACY: &str = include_str!("../vectors/legacy-v1.json");
const SVM: &str = include_str!("../vectors/svm.json");
const SIGN_INS: &str = include_str!("../vectors/siwx.json");
const WALLET_CLIENT: &str = include_str!("../vectors/wallet-client.json");
/// The account of the wallet that buys.
const BUYER_ACCOUNT: &str = "evm:0x90f79bf6eb2c4f870365e785982e1f101e93b906";

/// Where our verdict is not the reference library's: the token would revert, `accepted` is compared and not believed, only
/// the chain knows, we do not sell for it, or it would cost us too much.
const OURS: [(&str, bool); 11] = [
    ("evm-v2-high-s", false),
    ("evm-v2-validafter-equals-now", false),
    ("evm-v2-accepted-amount-lowered", false),
    ("evm-v2-asset-not-contract", true),
    ("evm-v2-permit2-valid", false),
    ("svm-v2-price-max", false),
    ("svm-v2-huge-compute-limit", false),
    ("svm-v2-valid-lighthouse-1", false),
    ("svm-v2-valid-lighthouse-3", false),
    ("svm-v2-fee-payer-not-managed", true),
    ("svm-v2-simulation-fails", true),
];

fn vectors() -> Vec<Value> {
    let vectors = |text| {
        let file: Value = serde_json::from_str(text).unwrap();
        let vectors = file["vectors"].as_array().unwrap().clone();
        vectors.into_iter().filter(|vector| vector["header"].is_string())
    };
    [EVM, LEGACY, SVM].into_iter().flat_map(vectors).collect()
}

fn is_valid(vector: &Value) -> bool {
    let ours = OURS.iter().find(|(id, _)| vector["id"] == *id).map(|(_, valid)| *valid);
    let reference = vector.pointer("/reference/verify/isValid").or(vector.pointer("/expected/valid"));
    ours.unwrap_or_else(|| reference.unwrap().as_bool().unwrap())
}

/// `farebox inspect payment` at the time of the vector; the header comes on stdin when it is not an argument.
fn inspect(requirements: &str, now: u64, header: Option<&str>, stdin: &str) -> (i32, String, String) {
    let mut command = Command::new(FAREBOX);
    command.args(["inspect", "payment", "--requirements", requirements, "--now", &now.to_string()]).args(header);
    run(command, stdin)
}

#[test]
fn every_published_vector_is_judged_and_the_exit_code_says_how() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("requirements.json");
    let vectors = vectors();
    assert!(vectors.len() >= 52, "only {} vectors", vectors.len());
    for (number, vector) in vectors.iter().enumerate() {
        let id = &vector["id"];
        fs::write(&file, vector["requirements"].to_string()).unwrap();
        let (path, now) = (file.to_str().unwrap(), vector["now"].as_u64().unwrap());
        let header = vector["header"].as_str().unwrap();
        let (code, stdout, stderr) = match number % 2 {
            0 => inspect(path, now, Some(header), ""),
            // As `pbpaste | farebox inspect payment …` sends it.
            _ => inspect(path, now, None, &format!("{header}\n")),
        };
        let verdict: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{id}: {error}: {stdout}{stderr}"));
        let valid = is_valid(vector);
        assert_eq!((code, &verdict["valid"]), (i32::from(!valid), &valid.into()), "{id}: {verdict}");
        assert_eq!(verdict["reason"].is_null(), valid, "{id}: a refusal has a reason, and nothing else has: {verdict}");
        assert!(verdict["message"].as_str().is_some_and(|message| !message.is_empty()), "{id}: {verdict}");
        assert!(verdict["needs_chain"].is_array() && verdict["decoded"].is_object(), "{id}: {verdict}");
        let asks = verdict["needs_chain"].as_array().unwrap();
        assert!(!valid || !asks.is_empty(), "{id}: what only the chain knows is said: {verdict}");
        let version = if header_is_v2(vector) { 2 } else { 1 };
        assert_eq!(verdict["decoded"]["version"], version, "{id}: {verdict}");
        let text = |place: &str| vector.pointer(place).and_then(Value::as_str);
        let signature = text("/payload/payload/signature").or(text("/payload/payload/transaction")).unwrap();
        assert!(!format!("{stdout}{stderr}").contains(&signature[2..]), "{id}: the signature is not repeated");
        if let Some(from) = text("/payload/payload/authorization/from") {
            assert!(verdict["payer"].as_str().is_some_and(|payer| payer.eq_ignore_ascii_case(from)), "{id}: {verdict}");
        }
        if valid && id.as_str().unwrap().starts_with("svm") {
            assert_eq!(verdict["payer"], "AKnL4NNf3DGWZJS6cPknBuEGnVsV4A4m5tgebLHaRSZ9", "{id}: {verdict}");
            assert_eq!(
                verdict["decoded"]["transfer"]["amount"],
                vector["requirements"]["amount"].as_str().or(vector["requirements"]["maxAmountRequired"].as_str()).unwrap(),
                "{id}"
            );
        }
    }
}

/// The shape decides, never the number that the header claims.
fn header_is_v2(vector: &Value) -> bool {
    vector["payload"].get("accepted").is_some()
}

#[test]
fn what_is_no_payment_is_a_verdict_and_what_is_no_question_is_wrong_usage() {
    let folder = TempDir::new().unwrap();
    let file = folder.path().join("requirements.json");
    let path = file.to_str().unwrap();
    let vector = &vectors()[0];
    let header = vector["header"].as_str().unwrap();

    let (code, stdout, stderr) = inspect(path, 1, Some(header), "");
    assert_eq!((code, stdout.as_str()), (2, ""), "there is no such file: {stderr}");
    assert!(stderr.contains(path), "{stderr}");
    fs::write(&file, "not JSON").unwrap();
    let (code, stdout, stderr) = inspect(path, 1, Some(header), "");
    assert_eq!((code, stdout.as_str()), (2, ""), "{stderr}");
    assert!(stderr.contains(path), "{stderr}");

    fs::write(&file, vector["requirements"].to_string()).unwrap();
    for junk in ["", "%%%", "e30=", "sk-x402-abcdef"] {
        let (code, stdout, stderr) = inspect(path, 1, Some(junk), "");
        let verdict: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{junk}: {error}: {stderr}"));
        assert_eq!((code, &verdict["valid"]), (1, &false.into()), "{junk:?}: {verdict}");
    }

    // A whole offer instead of one of its entries.
    fs::write(&file, serde_json::json!({ "x402Version": 2, "accepts": [vector["requirements"]] }).to_string()).unwrap();
    let (code, stdout, _) = inspect(path, 1, Some(header), "");
    assert!(code == 1 && stdout.contains("one entry of an offer's `accepts`"), "{stdout}");

    for wrong in [vec!["inspect", "payment"], vec!["inspect", "payment", "--requirements", path], vec!["sell"], vec!["--cheap"]] {
        let mut command = Command::new(FAREBOX);
        command.args(&wrong).current_dir(folder.path());
        let (code, stdout, stderr) = run(command, "");
        assert_eq!((code, stdout.as_str()), (2, ""), "{wrong:?}: {stderr}");
    }
}

/// `farebox inspect sign-in`; the header comes on stdin when it is not an argument.
fn inspect_sign_in(domain: &str, now: u64, header: Option<&str>, stdin: &str) -> (i32, String, String) {
    let mut command = Command::new(FAREBOX);
    command.args(["inspect", "sign-in", "--domain", domain, "--now", &now.to_string()]).args(header);
    run(command, stdin)
}

/// Our verdict on a published sign-in: the account, or the end of the code.
fn sign_in_verdict(vector: &Value) -> Result<&'static str, &'static str> {
    let id = vector["id"].as_str().unwrap();
    let reference = [("validate", "isValid"), ("verify", "isValid")].iter().all(|(step, valid)| {
        vector.pointer(&format!("/reference/{step}/{valid}")).or(vector.pointer("/expected/valid")) == Some(&true.into())
    });
    match id {
        "siwe-issued-in-future" => Ok("evm:0x70997970c51812dc3a010c7d01b50e0d17dc79c8"), // by one second; clocks differ
        "siws-valid" | "siws-valid-no-statement" | "siws-valid-all" | "venice-siws-valid-base58" => {
            Ok("solana:AKnL4NNf3DGWZJS6cPknBuEGnVsV4A4m5tgebLHaRSZ9")
        }
        "siwe-chain-changed" => Err("UNSUPPORTED_CHAIN"),
        "siwe-expired" | "venice-siwe-expired" => Err("EXPIRED"),
        "siwe-not-yet-valid" => Err("NOT_BEFORE"),
        "siwe-wrong-domain" | "siwe-origin-port" | "venice-siwe-domain-tampered" => Err("DOMAIN_MISMATCH"),
        "venice-siwe-other-address" => Err("ADDRESS_MISMATCH"),
        _ if reference => Ok("evm:0x70997970c51812dc3a010c7d01b50e0d17dc79c8"),
        _ => Err("INVALID_SIGNATURE"),
    }
}

#[test]
fn every_published_sign_in_is_judged_and_the_exit_code_says_how() {
    let file: Value = serde_json::from_str(SIGN_INS).unwrap();
    let both = [&file["vectors"], &file["veniceStyle"]].map(|list| list.as_array().unwrap().clone()).concat();
    assert_eq!(both.len(), 22);
    for (number, vector) in both.iter().enumerate() {
        let id = vector["id"].as_str().unwrap();
        let origin = vector["expectedOrigin"].as_str().unwrap_or("https://gw.example.com");
        // A URL, and what a person would type.
        let domain = if number % 2 == 0 { origin } else { origin.strip_prefix("https://").unwrap() };
        let (now, header) = (vector["now"].as_u64().unwrap(), vector["header"].as_str().unwrap());
        let (code, stdout, stderr) = match number % 3 {
            0 => inspect_sign_in(domain, now, None, &format!("{header}\n")),
            _ => inspect_sign_in(domain, now, Some(header), ""),
        };
        let verdict: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{id}: {error}: {stdout}{stderr}"));
        let wanted = sign_in_verdict(vector);
        let said = match verdict["code"].as_str() {
            None => Ok(verdict["account"].as_str().unwrap()),
            Some(code) => Err(code.strip_prefix("X402_SIGN_IN_").unwrap()),
        };
        assert_eq!(said, wanted, "{id}: {verdict}");
        assert_eq!((code, &verdict["valid"]), (i32::from(wanted.is_err()), &wanted.is_ok().into()), "{id}");
        assert_eq!(verdict["account"].is_null(), wanted.is_err(), "{id}: a refusal names nobody: {verdict}");
        assert!(verdict["message"].as_str().is_some_and(|message| !message.is_empty()), "{id}: {verdict}");
        assert!(verdict["fields"]["domain"].is_string() && verdict["fields"]["issuedAt"].is_string(), "{id}: {verdict}");
        let signature = vector.pointer("/payload/signature").or(vector.pointer("/json/signature")).and_then(Value::as_str);
        let digits = signature.unwrap().trim_start_matches("0x");
        assert!(!format!("{stdout}{stderr}").contains(digits), "{id}: the signature is not repeated");
    }
}

#[test]
fn the_sign_in_of_the_real_wallet_client_is_judged_for_one_domain_scheme_and_chain() {
    let file: Value = serde_json::from_str(WALLET_CLIENT).unwrap();
    let header = file["evm"]["header"].as_str().unwrap();
    let now = 1_767_323_100;
    for (domain, code) in [
        ("127.0.0.1:8402", None),
        ("http://127.0.0.1:8402", None),
        ("http://127.0.0.1:8402/v1/models", None),
        ("https://127.0.0.1:8402", Some("X402_SIGN_IN_URI_MISMATCH")),
        ("127.0.0.1", Some("X402_SIGN_IN_DOMAIN_MISMATCH")),
        ("api.venice.ai", Some("X402_SIGN_IN_DOMAIN_MISMATCH")),
    ] {
        let (exit, stdout, stderr) = inspect_sign_in(domain, now, Some(header), "");
        let verdict: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
        assert_eq!((exit, verdict["code"].as_str()), (i32::from(code.is_some()), code), "{domain}: {verdict}");
    }
    let on_chains = |chains: &[&str]| {
        let mut command = Command::new(FAREBOX);
        command.args(["inspect", "sign-in", "--domain", "127.0.0.1:8402", "--now", &now.to_string()]);
        command.args(chains.iter().flat_map(|chain| ["--chain", chain])).arg(header);
        run(command, "").0
    };
    assert_eq!(on_chains(&["eip155:84532", "eip155:8453"]), 0);
    assert_eq!(on_chains(&["eip155:84532"]), 1);
    let solana = file["solana"]["header"].as_str().unwrap();
    let (exit, stdout, _) = inspect_sign_in("127.0.0.1:8402", now, Some(solana), "");
    assert!(exit == 0 && stdout.contains("solana:DnzM9DRdHxTYTJ5vtSPLgDen9CgDA92kg2FRQsbVWvgM"), "{stdout}");
    let mut command = Command::new(FAREBOX);
    command.args([
        "inspect",
        "sign-in",
        "--domain",
        "127.0.0.1:8402",
        "--now",
        &now.to_string(),
        "--chain",
        "eip155:8453",
        solana,
    ]);
    let (exit, stdout, _) = run(command, "");
    assert!(exit == 1 && stdout.contains("X402_SIGN_IN_UNSUPPORTED_CHAIN"), "{stdout}");
}

#[test]
fn what_is_no_sign_in_is_a_verdict_and_what_is_no_question_is_wrong_usage() {
    for junk in ["", "%%%", "e30=", "W10=", "sk-x402-abcdef"] {
        let (code, stdout, stderr) = inspect_sign_in("gw.example.com", 1, Some(junk), "");
        let verdict: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{junk}: {error}: {stderr}"));
        assert_eq!((code, &verdict["valid"], &verdict["account"]), (1, &false.into(), &Value::Null), "{junk:?}: {verdict}");
        assert!(verdict["code"].as_str().is_some_and(|code| code.starts_with("X402_SIGN_IN_")), "{verdict}");
    }
    for domain in ["", "two words", "user@gw.example.com", "https://"] {
        let (code, stdout, stderr) = inspect_sign_in(domain, 1, Some("e30="), "");
        assert_eq!((code, stdout.as_str()), (2, ""), "{domain:?}: {stderr}");
        assert!(stderr.contains("--domain"), "{stderr}");
    }
    for wrong in [vec!["inspect", "sign-in"], vec!["inspect", "sign-in", "--domain", "gw.example.com"]] {
        let mut command = Command::new(FAREBOX);
        command.args(&wrong);
        let (code, stdout, stderr) = run(command, "");
        assert_eq!((code, stdout.as_str()), (2, ""), "{wrong:?}: {stderr}");
    }
}

#[test]
fn a_sign_in_of_now_is_judged_as_its_wallet_meant_it_or_named_for_what_was_done_to_it() {
    let base_url = "http://127.0.0.1:4020";
    let honest = || SignIn::new(BUYER, base_url);
    let earlier = honest().nonce().to_owned();
    let now = |seconds: i64| honest().issued(seconds).json()["timestamp"].as_i64().unwrap();
    let time = |seconds: i64| honest().issued(seconds).text().split_once("Issued At: ").unwrap().1[..24].to_owned();
    let judged = |header: &str| {
        let seconds = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let (_, stdout, stderr) = inspect_sign_in(base_url, seconds, Some(header), "");
        let verdict: Value = serde_json::from_str(&stdout).unwrap_or_else(|error| panic!("{error}: {stdout}{stderr}"));
        let code = verdict["code"].as_str().map(|code| code.trim_start_matches("X402_SIGN_IN_").to_owned());
        assert_eq!(verdict["account"].as_str(), verdict["valid"].as_bool().unwrap().then_some(BUYER_ACCOUNT), "{verdict}");
        code.unwrap_or_default()
    };
    assert_eq!(judged(&sign_in(BUYER, base_url)), "");
    for (what, sign_in, code) in [
        ("nothing", honest(), ""),
        ("the form", honest().as_fields(), ""),
        ("no statement", honest().set("statement", Value::Null), ""),
        ("no end", honest().set("expirationTime", Value::Null).as_fields(), ""),
        ("a minute ago", honest().issued(-60), ""),
        ("a nonce once more", honest().set("nonce", earlier), ""),
        ("lower case beside it", honest().envelope("address", BUYER.address.to_ascii_lowercase()), ""),
        ("domain", honest().set("domain", "evil.example"), "DOMAIN_MISMATCH"),
        ("domain with more", honest().set("domain", "127.0.0.1:4020.evil.example"), "DOMAIN_MISMATCH"),
        ("another port", honest().set("domain", "127.0.0.1:1337"), "DOMAIN_MISMATCH"),
        ("URI", honest().set("uri", "http://127.0.0.1:4020.evil.example/"), "URI_MISMATCH"),
        ("scheme", honest().set("uri", "https://127.0.0.1:4020/"), "URI_MISMATCH"),
        ("no time", honest().set("issuedAt", "yesterday"), "INVALID_MESSAGE"),
        ("no date", honest().set("issuedAt", "2026-02-30T00:00:00Z"), "INVALID_MESSAGE"),
        ("not yet", honest().set("notBefore", time(600)), "NOT_BEFORE"),
        ("six minutes ago", honest().issued(-360), "EXPIRED"),
        ("in two minutes", honest().issued(120), "FUTURE_TIMESTAMP"),
        ("over", honest().set("expirationTime", time(-5)), "EXPIRED"),
        ("clock", honest().envelope("timestamp", now(90)), "TIMESTAMP_MISMATCH"),
        ("short nonce", honest().set("nonce", "abc"), "INVALID_MESSAGE"),
        ("no nonce", honest().set("nonce", Value::Null), "MISSING_NONCE"),
        ("chain", honest().set("chainId", 1), "UNSUPPORTED_CHAIN"),
        ("chain beside it", honest().envelope("chainId", 1), "CHAIN_MISMATCH"),
        ("wallet beside it", honest().envelope("address", OTHER_BUYER.address), "ADDRESS_MISMATCH"),
        ("line", honest().set("statement", "hi\nNonce: 12345678"), "INVALID_MESSAGE"),
        ("line of a field", honest().set("statement", "hi\nNonce: 12345678").as_fields(), "INVALID_MESSAGE"),
        ("line ends", honest().replace("\n", "\r\n"), "INVALID_MESSAGE"),
        ("words", honest().replace("Ethereum", "Solana"), "INVALID_MESSAGE"),
        ("length", honest().set("statement", "x".repeat(10_000)), "PARSE_ERROR"),
        ("text after it was signed", honest().replace_after("Venice", "Vienna"), "INVALID_SIGNATURE"),
        ("field after it was signed", honest().as_fields().envelope("statement", "Send all"), "INVALID_SIGNATURE"),
        ("twin", honest().signature(Signature::HighS), "INVALID_SIGNATURE"),
        ("zeros", honest().signature(Signature::Zero), "INVALID_SIGNATURE"),
        ("another key", honest().signature(Signature::Of(OTHER_BUYER)), "INVALID_SIGNATURE"),
        ("no signature", honest().envelope("signature", Value::Null), "INVALID_PAYLOAD"),
    ] {
        assert_eq!(judged(&sign_in.header()), code, "{what}");
    }
}
