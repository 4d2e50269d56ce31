//! Payment headers: judged without a panic, the same however they are wrapped, and never a payer who did not sign.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox::chain::judge;
use farebox::clock::Timestamp;
use farebox::x402::Payment;
use serde_json::{Value, json};

/// When the published vectors were valid.
const NOW: Timestamp = Timestamp::from_secs(1_763_640_000);
/// The wallets that signed the seeds; nobody can sign for another one by changing bytes.
const SIGNERS: [&str; 3] = [
    "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
    "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
];

/// The bytes are a header, and also the JSON inside one.
pub fn check(data: &[u8]) {
    if let Ok(header) = std::str::from_utf8(data) {
        judged(header);
    }
    judged(&STANDARD.encode(data));
}

fn judged(header: &str) {
    let read = Payment::from_header(header);
    for wanted in wanted() {
        let verdict = judge(header, &wanted, NOW);
        let valid = verdict["valid"] == true;
        assert_eq!(valid, verdict["reason"].is_null() && !verdict["message"].is_null() && valid, "{verdict}");
        if !valid {
            continue;
        }
        let payment = read.as_ref().expect("what is valid can be read");
        let authorization = &verdict["decoded"]["authorization"];
        assert_eq!(payment.scheme, "exact");
        let amount = wanted.get("amount").or(wanted.get("maxAmountRequired"));
        assert_eq!(Some(&authorization["value"]), amount, "another amount was signed");
        let to = authorization["to"].as_str().unwrap_or_default();
        assert!(to.eq_ignore_ascii_case(wanted["payTo"].as_str().unwrap_or_default()), "another wallet is paid");
        let payer = verdict["payer"].as_str().unwrap_or_default();
        assert_eq!(authorization["from"], payer);
        let chain_decides = verdict["needs_chain"].as_array().is_some_and(|all| all.iter().any(|what| what == "wallet_code"));
        assert!(chain_decides || SIGNERS.contains(&payer), "{payer} never signed this");
    }
}

/// What the two kinds of seeds pay for.
fn wanted() -> [Value; 2] {
    let pay_to = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
    [
        json!({
            "scheme": "exact", "network": "eip155:84532", "amount": "10000", "payTo": pay_to, "maxTimeoutSeconds": 300,
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e", "extra": { "name": "USDC", "version": "2" },
        }),
        json!({
            "scheme": "exact", "network": "base", "maxAmountRequired": "5000000", "payTo": pay_to, "maxTimeoutSeconds": 300,
            "asset": "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913", "extra": { "name": "USD Coin", "version": "2" },
            "resource": "https://gw.example.com/api/v1/x402/top-up", "description": "top-up", "mimeType": "application/json",
        }),
    ]
}
