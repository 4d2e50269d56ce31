//! The invitation to sign in: what a 402 says so that a wallet can sign for this gateway (x402 extension `sign-in-with-x`).

use std::time::Duration;

use serde_json::{Value, json};

use super::site::SignInRules;
use crate::clock::Timestamp;

/// How long a message signed for a challenge lives: as long as one is taken after it was issued.
const LIFE: Duration = Duration::from_secs(300);

/// The name under which it stands in the `extensions` of an offer.
pub const EXTENSION: &str = "sign-in-with-x";

/// One invitation. We do not require that a sign-in answers one: any fresh nonce will do.
#[derive(Clone, Debug)]
pub struct Challenge {
    info: Value,
    chains: Vec<Value>,
}

impl Challenge {
    /// `uri` is the absolute URL of the resource under our public URL; `statement` is what the wallet shows a person, plain
    /// characters without quotes; `nonce` must be fresh random bytes.
    pub fn new(rules: &SignInRules, uri: &str, statement: &str, nonce: [u8; 16], now: Timestamp) -> Challenge {
        let info = json!({
            "domain": rules.domain(),
            "uri": uri,
            "version": "1",
            "nonce": format!("{:032x}", u128::from_be_bytes(nonce)),
            "issuedAt": now.to_rfc3339(),
            "expirationTime": now.plus(LIFE).to_rfc3339(),
            "statement": statement,
        });
        let kind = |chain: &String| if chain.starts_with("solana:") { "ed25519" } else { "eip191" };
        let chains = rules.chains().iter().map(|chain| json!({ "chainId": chain, "type": kind(chain) })).collect();
        Challenge { info, chains }
    }

    /// `{info, supportedChains, schema}`: the value under [`EXTENSION`].
    pub fn extension(&self) -> Value {
        json!({ "info": self.info, "supportedChains": self.chains, "schema": schema() })
    }

    /// `{info, supportedChains}`: the `siwxChallenge` of a flat 402.
    pub fn brief(&self) -> Value {
        json!({ "info": self.info, "supportedChains": self.chains })
    }
}

/// JSON Schema of the header's content. Every byte of it stands in a response header, which proxies bound at 4 kB.
fn schema() -> Value {
    let text = json!({ "type": "string" });
    let required = ["domain", "address", "uri", "version", "chainId", "type", "nonce", "issuedAt", "signature"];
    let optional = ["statement", "expirationTime", "notBefore", "requestId"];
    let mut properties: serde_json::Map<_, _> =
        required.iter().chain(&optional).map(|name| ((*name).to_owned(), text.clone())).collect();
    properties.insert("resources".into(), json!({ "type": "array", "items": text }));
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "properties": properties,
        "required": required,
    })
}
