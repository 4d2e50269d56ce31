//! The payload of an `exact` EVM payment: an EIP-3009 authorization and its signature, read strictly.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::address::Address;
use super::hex;
use super::word::Word;
use crate::chain::{Refused, reason};
use crate::x402;

/// What the payer authorizes (EIP-3009), in token units and UNIX seconds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Authorization {
    pub from: Address,
    pub to: Address,
    pub value: Word,
    /// The transfer may happen strictly after this second.
    pub valid_after: Word,
    /// And strictly before this one.
    pub valid_before: Word,
    pub nonce: [u8; 32],
}

#[derive(Deserialize)]
struct Wire {
    signature: Option<String>,
    authorization: Option<Box<RawValue>>,
    #[serde(rename = "permit2Authorization")]
    permit2: Option<IgnoredAny>,
}

/// Two readers must never see two different authorizations: unknown, missing and repeated fields are refused.
#[derive(Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct WireAuthorization {
    from: String,
    to: String,
    value: String,
    valid_after: String,
    valid_before: String,
    nonce: String,
}

/// Reads authorization and signature bytes. What is not one is [`Refused::Malformed`]; a Permit2 payload is refused as
/// `unsupported_scheme`.
pub fn parse(payload: &RawValue) -> Result<(Authorization, Vec<u8>), Refused> {
    let wire: Wire = object(payload, "payload")?;
    if wire.permit2.is_some() {
        let message = "Permit2 payments are not taken; sign an EIP-3009 transferWithAuthorization".to_owned();
        return Err(Refused::Invalid { reason: reason::UNSUPPORTED_SCHEME, message });
    }
    let missing = |field: &str| Refused::Malformed(format!("payload.{field} is missing"));
    let inner = wire.authorization.ok_or_else(|| missing("authorization"))?;
    let signature = wire.signature.ok_or_else(|| missing("signature"))?;
    let fields: WireAuthorization = object(&inner, "payload.authorization")?;
    let authorization = Authorization {
        from: address("from", &fields.from)?,
        to: address("to", &fields.to)?,
        value: number("value", &fields.value)?,
        valid_after: number("validAfter", &fields.valid_after)?,
        valid_before: number("validBefore", &fields.valid_before)?,
        nonce: hex::fixed(&fields.nonce).ok_or_else(|| misspelt("nonce", &fields.nonce, "0x and 64 hex digits"))?,
    };
    let signature = hex::decode(&signature)
        .ok_or_else(|| Refused::Malformed("payload.signature is not 0x and an even number of hex digits".into()))?;
    Ok((authorization, signature))
}

fn object<'a, T: Deserialize<'a>>(json: &'a RawValue, what: &str) -> Result<T, Refused> {
    x402::object(json.get(), what).map_err(|malformed| Refused::Malformed(malformed.0))
}

fn address(field: &str, text: &str) -> Result<Address, Refused> {
    Address::parse(text).ok_or_else(|| misspelt(field, text, "0x and 40 hex digits"))
}

fn number(field: &str, text: &str) -> Result<Word, Refused> {
    Word::from_decimal(text).ok_or_else(|| misspelt(field, text, "a decimal number below 2^256"))
}

fn misspelt(field: &str, text: &str, what: &str) -> Refused {
    let said: String = text.chars().take(80).collect();
    Refused::Malformed(format!("payload.authorization.{field} is {said:?}, not {what}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn payload() -> Value {
        json!({"signature": "0x11", "authorization": {
            "from": "0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "to": "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
            "value": "10000", "validAfter": "0", "validBefore": "1763640300",
            "nonce": "0xdab1bf44047a9f1592d285e40a7e88a8b9d58fd0d63451534d1800f2dac445e2"}})
    }

    fn read(text: String) -> Result<(Authorization, Vec<u8>), Refused> {
        parse(&RawValue::from_string(text).unwrap())
    }

    #[test]
    fn one_authorization_has_one_reading() {
        assert!(read(payload().to_string()).is_ok());
        let text = payload().to_string();
        for (from, to) in [
            (r#""value":"10000""#, r#""value":"1","value":"10000""#),
            (r#""value":"#, r#""Value":"#),
            (r#""value":"10000""#, r#""value":10000"#),
            (r#""value":"10000""#, r#""value":"10000","extra":1"#),
            (r#""signature":"0x11""#, r#""signature":"0x11","signature":"0x11""#),
            (r#""signature":"0x11""#, r#""signature":"0x1""#),
            (r#""signature":"0x11""#, r#""signature":null"#),
        ] {
            let changed = text.replacen(from, to, 1);
            assert_ne!(changed, text);
            assert!(matches!(read(changed), Err(Refused::Malformed(_))), "{to}");
        }
        for not_an_object in ["[]", "null", "\"0x\"", "{}"] {
            assert!(matches!(read(not_an_object.into()), Err(Refused::Malformed(_))), "{not_an_object}");
        }
    }

    #[test]
    fn every_field_has_one_spelling() {
        for (field, bad) in [
            ("from", "0x1234"),
            ("to", "3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"),
            ("value", "-1"),
            ("value", "1e4"),
            ("value", "0x2710"),
            ("value", "10_000"),
            ("value", "١٠٠٠٠"),
            ("value", ""),
            ("validAfter", "-1"),
            ("validBefore", "01"),
            ("nonce", "0xaa"),
            ("nonce", "0XDAB1BF44047A9F1592D285E40A7E88A8B9D58FD0D63451534D1800F2DAC445E2"),
        ] {
            let mut changed = payload();
            changed["authorization"][field] = json!(bad);
            assert!(matches!(read(changed.to_string()), Err(Refused::Malformed(_))), "{field} {bad}");
        }
    }
}
