//! `farebox inspect payment`: every published vector gets its verdict, as JSON and as an exit code.

use std::fs;
use std::process::Command;

use farebox_rig::process::run;
use serde_json::Value;
use tempfile::TempDir;

use crate::FAREBOX;

const EVM: &str = include_str!("../vectors/evm.json");
const LEGACY: &str = include_str!("../vectors/legacy-v1.json");

/// Where our verdict is not the reference library's: the token would revert, `accepted` is compared and not believed, only
/// the chain knows, or we do not sell for it.
const OURS: [(&str, bool); 5] = [
    ("evm-v2-high-s", false),
    ("evm-v2-validafter-equals-now", false),
    ("evm-v2-accepted-amount-lowered", false),
    ("evm-v2-asset-not-contract", true),
    ("evm-v2-permit2-valid", false),
];

fn vectors() -> Vec<Value> {
    let vectors = |text| {
        let file: Value = serde_json::from_str(text).unwrap();
        file["vectors"].as_array().unwrap().clone()
    };
    [EVM, LEGACY].into_iter().flat_map(vectors).collect()
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
    assert!(vectors.len() >= 27, "only {} vectors", vectors.len());
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
        let signature = vector.pointer("/payload/payload/signature").and_then(Value::as_str).unwrap();
        assert!(!format!("{stdout}{stderr}").contains(&signature[2..]), "{id}: the signature is not repeated");
        if let Some(from) = vector.pointer("/payload/payload/authorization/from").and_then(Value::as_str) {
            assert!(verdict["payer"].as_str().is_some_and(|payer| payer.eq_ignore_ascii_case(from)), "{id}: {verdict}");
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
