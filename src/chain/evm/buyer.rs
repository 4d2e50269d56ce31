//! The buying side: signing what an offer asks for, as `farebox pay` and the tests do it.

use serde_json::json;

use super::address::Address;
use super::eip712;
use super::hex;
use super::key::PrivateKey;
use super::payload::Authorization;
use super::signature;
use super::token;
use super::word::Word;
use crate::chain::buyer::Unpayable;
use crate::clock::Timestamp;
use crate::x402::sign_in::{Family, Message};
use crate::x402::{Requirements, Resource, encode};

/// Signs `offer` and returns the version 2 payment header (`PAYMENT-SIGNATURE`). `nonce` must be 32 fresh random bytes;
/// the authorization lives from 1970 until `now` plus the offer's timeout, as x402 clients write it.
pub fn pay(
    offer: &Requirements,
    resource: Option<&Resource>,
    key: &PrivateKey,
    nonce: [u8; 32],
    now: Timestamp,
) -> Result<String, Unpayable> {
    let valid_before = now.secs().saturating_add(offer.max_timeout_seconds);
    let value = Word::from_decimal(&offer.amount).ok_or_else(|| Unpayable("amount is not a number".into()))?;
    let to = Address::parse(&offer.pay_to).ok_or_else(|| Unpayable("payTo is not an address".into()))?;
    let authorization = Authorization {
        from: key.address(),
        to,
        value,
        valid_after: Word::default(),
        valid_before: Word::from(valid_before),
        nonce,
    };
    let signature = sign(offer, &authorization, key)?;
    let mut payment = json!({
        "x402Version": 2,
        "accepted": offer,
        "payload": {
            "signature": hex::encode(&signature),
            "authorization": {
                "from": authorization.from.to_string(),
                "to": to.to_string(),
                "value": offer.amount,
                "validAfter": "0",
                "validBefore": valid_before.to_string(),
                "nonce": hex::encode(&nonce),
            },
        },
    });
    if let Some(resource) = resource {
        payment["resource"] = json!(resource);
    }
    Ok(encode(&payment))
}

/// The 65 bytes with which `key` signs `authorization` in the domain that `offer` names.
pub fn sign(offer: &Requirements, authorization: &Authorization, key: &PrivateKey) -> Result<Vec<u8>, Unpayable> {
    if offer.scheme != "exact" {
        return Err(Unpayable(format!("scheme {:?} is not \"exact\"", offer.scheme)));
    }
    let chain_id = token::chain_id(&offer.network).ok_or_else(|| Unpayable("network is not eip155".into()))?;
    let asset = Address::parse(&offer.asset).ok_or_else(|| Unpayable("asset is not an address".into()))?;
    let field = |key: &str| {
        let value = offer.extra.as_ref().and_then(|extra| extra.get(key)).and_then(|value| value.as_str());
        value.ok_or_else(|| Unpayable(format!("extra.{key} is missing")))
    };
    let domain = eip712::domain_separator(field("name")?, field("version")?, chain_id, asset);
    let (r, s, parity) = key.sign(&eip712::digest(&domain, authorization));
    Ok([&r[..], &s[..], &[27 + parity]].concat())
}

/// Signs in as `venice-x402-client` does and returns the header (`X-Sign-In-With-X`): for `domain` and `uri` on EVM chain
/// `chain_id`, from `issued` until `expires`. `nonce` must be 8 or more fresh letters and digits.
pub fn sign_in(
    key: &PrivateKey,
    domain: &str,
    uri: &str,
    chain_id: u64,
    nonce: &str,
    issued: Timestamp,
    expires: Timestamp,
) -> String {
    let message = Message {
        family: Family::Evm,
        scheme: None,
        domain: domain.to_owned(),
        address: key.address().to_string(),
        statement: Some("Sign in to an AI gateway".to_owned()),
        uri: uri.to_owned(),
        chain: chain_id.to_string(),
        nonce: Some(nonce.to_owned()),
        issued_at: issued.into(),
        expiration_time: Some(expires.into()),
        not_before: None,
        request_id: None,
        resources: None,
    };
    let text = message.text();
    encode(&json!({
        "address": message.address,
        "signature": hex::encode(&sign_text(key, &text)),
        "message": text,
        "timestamp": issued.millis(),
        "chainId": chain_id,
    }))
}

/// The 65 bytes with which `key` signs a text for a person to read (EIP-191).
pub fn sign_text(key: &PrivateKey, text: &str) -> Vec<u8> {
    let (r, s, parity) = key.sign(&signature::text_digest(text));
    [&r[..], &s[..], &[27 + parity]].concat()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::{Amounts, VerifiedPayment, verify};
    use crate::money::Micros;
    use crate::x402::Payment;

    #[test]
    fn what_the_buyer_signs_is_what_the_seller_accepts() {
        let key = PrivateKey::parse("59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d").unwrap();
        let offer: Requirements = serde_json::from_value(json!({
            "scheme": "exact", "network": "eip155:84532", "amount": "10000", "maxTimeoutSeconds": 300,
            "asset": "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            "payTo": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC", "extra": {"name": "USDC", "version": "2"}
        }))
        .unwrap();
        let now = Timestamp::from_secs(1_763_640_000);
        let header = pay(&offer, None, &key, [7; 32], now).unwrap();
        let payment = Payment::from_header(&header).unwrap();
        let verified = verify(&payment, &offer, Amounts::Exact, now).unwrap();
        assert_eq!(verified.amount(), Micros::new(10_000));
        assert_eq!(verified.payer_address(), key.address().to_string());
        let stored = VerifiedPayment::from_bytes(&verified.to_bytes()).unwrap();
        assert_eq!((stored.id(), stored.valid_before()), (verified.id(), verified.valid_before()));
        assert!(!format!("{verified:?}").contains("signature"));
        assert!(
            verify(&payment, &offer, Amounts::Exact, now.plus(std::time::Duration::from_secs(295))).is_err(),
            "5 s are too short"
        );
        assert!(
            verify(&payment, &offer, Amounts::Exact, now.plus(std::time::Duration::from_secs(294))).is_ok(),
            "6 s are enough"
        );
    }
}
