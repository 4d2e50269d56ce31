//! The verdict on a payment header as JSON, for a person who wants to know why it was refused.

use serde_json::{Value, json};

use super::payment::verify;
use super::{Amounts, Refused, evm, reason, solana};
use crate::clock::Timestamp;
use crate::x402::names::Family;
use crate::x402::{Payment, Requirements, Version};

/// Judges a header against one requirement (of either version) without asking any chain:
/// `{"valid","reason","message","payer","needs_chain","decoded"}`. `needs_chain` lists what only the chain can decide;
/// a payment that is `valid` here settles if the chain agrees. The payer's signature is not repeated.
pub fn judge(header: &str, wanted: &Value, now: Timestamp) -> Value {
    let payment = match Payment::from_header(header) {
        Ok(payment) => payment,
        Err(malformed) => return verdict(Err(Refused::Malformed(malformed.0)), &[], Value::Null, Value::Null),
    };
    let (decoded, payer) = decoded(&payment);
    let requirements = match Requirements::from_json(wanted) {
        Ok(requirements) => requirements,
        Err(malformed) => {
            let message = format!("{malformed}; a requirement is one entry of an offer's `accepts`");
            let refused = Refused::Invalid { reason: reason::REQUIREMENTS, message };
            return verdict(Err(refused), &[], payer, decoded);
        }
    };
    match verify(&payment, &requirements, Amounts::Exact, now) {
        Ok(verified) => {
            let mut decoded = decoded;
            decoded["payment_id"] = verified.id().to_string().into();
            let payer = Value::from(verified.payer_address());
            match verified.unproven() {
                None => verdict(Ok(()), verified.questions(), payer, decoded),
                Some(refused) => verdict(Err(refused), &["payer_code"], payer, decoded),
            }
        }
        Err(refused) => verdict(Err(refused), &[], payer, decoded),
    }
}

fn verdict(outcome: Result<(), Refused>, needs_chain: &[&str], payer: Value, decoded: Value) -> Value {
    let (reason, message) = match outcome {
        Ok(()) => (Value::Null, "this pays, if the chain agrees".to_owned()),
        Err(Refused::Malformed(message)) => (reason::INVALID_PAYLOAD.into(), message),
        Err(Refused::Invalid { reason, message }) => (reason.into(), message),
        Err(Refused::Unavailable(message) | Refused::ClockSkew(message)) => (Value::Null, message),
    };
    let valid = reason.is_null();
    json!({
        "valid": valid, "reason": reason, "message": message, "payer": payer,
        "needs_chain": needs_chain, "decoded": decoded,
    })
}

/// What a payment says, and who pays with it if it names somebody.
fn decoded(payment: &Payment) -> (Value, Value) {
    let mut decoded = json!({
        "version": match payment.version { Version::V1 => 1, Version::V2 => 2 },
        "scheme": payment.scheme,
        "network": payment.network,
        "accepted": payment.accepted,
    });
    let (fields, payer) = match Family::of_network(&payment.network) {
        Some(Family::Evm) => evm::show(payment),
        Some(Family::Solana) => solana::show(payment),
        None => return (decoded, Value::Null),
    };
    fields.into_iter().for_each(|(name, value)| decoded[name] = value);
    (decoded, payer)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::solana::reason as svm;

    const EVM: &str = include_str!("../../tests/vectors/evm.json");
    const LEGACY: &str = include_str!("../../tests/vectors/legacy-v1.json");
    const SVM: &str = include_str!("../../tests/vectors/svm.json");

    /// Where we are stricter or milder than the reference, and why; `Ok` means that we take it.
    fn ours(id: &str) -> Option<Result<(), &'static str>> {
        Some(match id {
            "evm-v2-high-s" => Err(reason::SIGNATURE),                  // the token reverts on it
            "evm-v2-validafter-equals-now" => Err(reason::VALID_AFTER), // the token is strict
            "evm-v2-accepted-amount-lowered" => Err(reason::VALUE_V2),  // never trust `accepted`
            "evm-v2-accepted-extra-missing" => Ok(()),                  // the signature covers the domain
            "evm-v2-asset-not-contract" => Ok(()),                      // only the chain knows; the start-up check asks
            "evm-v2-permit2-valid" | "evm-v2-permit2-bad-spender" => Err(reason::UNSUPPORTED_SCHEME),
            "evm-v2-upto-facilitator-mismatch" => Err(reason::UNSUPPORTED_SCHEME),
            "svm-v2-price-max" => Err(svm::COMPUTE_PRICE_TOO_HIGH), // we pay 20,000 lamports at most
            "svm-v2-huge-compute-limit" => Err(svm::COMPUTE_LIMIT_TOO_HIGH),
            // Guards of no account, which fail when their maker likes.
            "svm-v2-valid-lighthouse-1" | "svm-v2-valid-lighthouse-3" => Err(svm::UNKNOWN[0]),
            // What is no transaction is no payment at all, and is answered with 400.
            "svm-v2-undecodable" | "svm-v2-trailing-bytes" => Err(reason::INVALID_PAYLOAD),
            "svm-v2-fee-payer-not-managed" => Ok(()), // a requirement of ours names our own, which is compared
            "svm-v2-simulation-fails" => Ok(()),      // only the chain knows
            _ => return None,
        })
    }

    fn expected(vector: &Value) -> Result<(), String> {
        if let Some(ours) = ours(vector["id"].as_str().unwrap()) {
            return ours.map_err(str::to_owned);
        }
        let verify = &vector["reference"]["verify"];
        let valid = verify["isValid"].as_bool().or(vector["expected"]["valid"].as_bool()).unwrap();
        if valid { Ok(()) } else { Err(verify["invalidReason"].as_str().unwrap().to_owned()) }
    }

    #[test]
    fn every_published_vector_gets_its_verdict() {
        let mut judged = 0;
        for file in [EVM, LEGACY, SVM] {
            let file: Value = serde_json::from_str(file).unwrap();
            for vector in file["vectors"].as_array().unwrap().iter().filter(|vector| vector["header"].is_string()) {
                let now = Timestamp::from_secs(vector["now"].as_u64().unwrap());
                let verdict = judge(vector["header"].as_str().unwrap(), &vector["requirements"], now);
                let got = match verdict["reason"].as_str() {
                    None => Ok(()),
                    Some(reason) => Err(reason.to_owned()),
                };
                assert_eq!(got, expected(vector), "{}: {}", vector["id"], verdict["message"]);
                assert_eq!(verdict["valid"], got.is_ok());
                let payload = &vector["payload"]["payload"];
                let signed = payload["signature"].as_str().or(payload["transaction"].as_str()).unwrap();
                assert!(!verdict.to_string().contains(&signed[2..]), "the signature is not repeated");
                judged += 1;
            }
        }
        assert!(judged >= 52, "only {judged} vectors were judged");
    }

    fn vector(id: &str) -> Value {
        let file: Value = serde_json::from_str(EVM).unwrap();
        file["vectors"].as_array().unwrap().iter().find(|vector| vector["id"] == id).unwrap().clone()
    }

    fn verdict_on(payload: &Value, requirements: &Value) -> Value {
        judge(&crate::x402::encode(payload), requirements, Timestamp::from_secs(1_763_640_000))
    }

    #[test]
    fn a_valid_payment_still_names_what_only_the_chain_knows() {
        let vector = vector("evm-v2-asset-not-contract");
        let verdict = verdict_on(&vector["payload"], &vector["requirements"]);
        assert_eq!(verdict["valid"], true);
        assert!(verdict["needs_chain"].as_array().unwrap().contains(&"asset_code".into()));
        assert_eq!(verdict["payer"], "0x70997970C51812dc3A010C7d01b50e0d17dc79C8");
    }

    #[test]
    fn identity_is_what_was_authorized_and_not_how_it_was_written() {
        let one = vector("evm-v2-valid-base-sepolia");
        let id = verdict_on(&one["payload"], &one["requirements"])["decoded"]["payment_id"].clone();
        assert!(id.as_str().unwrap().starts_with("pay_"));
        let mut other = one["payload"].clone();
        let from = other["payload"]["authorization"]["from"].as_str().unwrap().to_ascii_lowercase();
        other["payload"]["authorization"]["from"] = from.into();
        let nonce = other["payload"]["authorization"]["nonce"].as_str().unwrap();
        let shouted = format!("0x{}", nonce[2..].to_ascii_uppercase());
        other["payload"]["authorization"]["nonce"] = shouted.into();
        let verdict = verdict_on(&other, &one["requirements"]);
        assert_eq!(verdict["valid"], true, "{verdict}");
        assert_eq!(verdict["decoded"]["payment_id"], id);
        other["payload"]["authorization"]["nonce"] = format!("0x{}", "11".repeat(32)).into();
        assert_ne!(verdict_on(&other, &one["requirements"])["decoded"]["payment_id"], id);
    }

    #[test]
    fn what_the_buyer_says_it_accepted_is_compared_and_not_believed() {
        let one = vector("evm-v2-valid-base-sepolia");
        for (field, value, reason) in [
            ("network", json!("eip155:8453"), reason::NETWORK),
            ("scheme", json!("upto"), reason::UNSUPPORTED_SCHEME),
            ("scheme", json!("Exact"), reason::SCHEME),
            ("payTo", json!("0x70997970C51812dc3A010C7d01b50e0d17dc79C8"), reason::RECIPIENT),
            ("asset", json!("0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913"), reason::REQUIREMENTS),
            ("maxTimeoutSeconds", json!(301), reason::REQUIREMENTS),
            ("extra", json!({"name": "Evil"}), reason::REQUIREMENTS),
        ] {
            let mut payload = one["payload"].clone();
            payload["accepted"][field] = value;
            assert_eq!(verdict_on(&payload, &one["requirements"])["reason"], reason, "{field}");
        }
        for (field, value) in [
            ("payTo", json!("0x3c44cdddb6a900fa2b585dd299e03d12fa4293bc")),
            ("extra", json!({"name": "USDC", "mine": 1})),
            ("extra", Value::Null),
        ] {
            let mut payload = one["payload"].clone();
            payload["accepted"][field] = value;
            assert_eq!(verdict_on(&payload, &one["requirements"])["valid"], true, "{field}");
        }
    }

    #[test]
    fn what_is_no_payment_is_called_malformed() {
        let one = vector("evm-v2-valid-base-sepolia");
        let now = Timestamp::from_secs(1_763_640_000);
        assert_eq!(judge("%%%", &one["requirements"], now)["reason"], reason::INVALID_PAYLOAD);
        assert_eq!(judge("e30=", &one["requirements"], now)["reason"], reason::INVALID_PAYLOAD);
        assert_eq!(judge(one["header"].as_str().unwrap(), &json!({}), now)["reason"], reason::REQUIREMENTS);
    }
}
