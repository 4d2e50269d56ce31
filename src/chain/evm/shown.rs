//! What an EVM payment says, for a person who reads a verdict on it. The signature is not repeated.

use serde_json::{Map, Value, json};

use super::payload;
use super::token;
use super::verified::identity;
use crate::x402::Payment;

/// The fields of a payment, and its payer if it names one. Empty for what cannot be read.
pub fn show(payment: &Payment) -> (Map<String, Value>, Value) {
    let mut shown = Map::new();
    let Ok((authorization, signature)) = payload::parse(&payment.payload) else { return (shown, Value::Null) };
    let raw: Value = serde_json::from_str(payment.payload.get()).unwrap_or_default();
    let payer = Value::from(authorization.from.to_string());
    let mut fields = raw["authorization"].clone();
    fields["from"] = payer.clone();
    fields["to"] = authorization.to.to_string().into();
    shown.insert("authorization".into(), fields);
    shown.insert("signature_bytes".into(), json!(signature.len()));
    if let (Some(chain_id), Some(token)) = (token::chain_id(&payment.network), token::known(&payment.network)) {
        let id = identity(chain_id, token.asset, &authorization);
        shown.insert("payment_id".into(), id.to_string().into());
    }
    (shown, payer)
}
