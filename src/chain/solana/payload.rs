//! The payload of an `exact` Solana payment: one transaction in base64.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::transaction::Transaction;
use crate::chain::Refused;
use crate::ids::PaymentId;
use crate::x402::{self, Payment};

#[derive(Deserialize)]
struct Wire {
    transaction: Option<String>,
}

/// Reads the transaction.
///
/// # Errors
/// [`Refused::Malformed`] for what is none.
pub fn parse(payload: &RawValue) -> Result<Transaction, Refused> {
    let wire: Wire = x402::object(payload.get(), "payload").map_err(|malformed| Refused::Malformed(malformed.0))?;
    let text = wire.transaction.ok_or_else(|| Refused::Malformed("payload.transaction is missing".into()))?;
    let bytes = x402::decode_base64(&text).map_err(|what| Refused::Malformed(format!("payload.transaction is {what}")))?;
    Transaction::parse(&bytes).map_err(|why| Refused::Malformed(format!("payload.transaction is no Solana transaction: {why}")))
}

/// What a Solana payment is identified by, read before anything about it is believed: its message. Who signed it is not a part
/// of it, because whoever copies a payment can put any bytes where the fee payer is still to sign.
///
/// # Errors
/// [`Refused::Malformed`] for what is no transaction.
pub fn identify(payment: &Payment) -> Result<PaymentId, Refused> {
    Ok(PaymentId(parse(&payment.payload)?.message.hash()))
}
