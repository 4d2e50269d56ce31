//! What a Solana payment says, for a person who reads a verdict on it. The signatures are not repeated.

use serde_json::{Map, Value, json};

use super::address::Pubkey;
use super::order::Order;
use super::payload;
use super::transaction::{Instruction, Message, Version};
use crate::ids::PaymentId;
use crate::x402::Payment;

/// The fields of a payment, and its payer if it is an order at all. Empty for what cannot be read.
pub fn show(payment: &Payment) -> (Map<String, Value>, Value) {
    let mut shown = Map::new();
    let Ok(transaction) = payload::parse(&payment.payload) else { return (shown, Value::Null) };
    let message = &transaction.message;
    shown.insert("transaction".into(), laid_out(message));
    shown.insert("payment_id".into(), PaymentId(message.hash()).to_string().into());
    let Ok(order) = Order::read(message) else { return (shown, Value::Null) };
    let fields = json!({
        "source": order.source.to_string(),
        "mint": order.mint.to_string(),
        "destination": order.destination.to_string(),
        "authority": order.authority.to_string(),
        "amount": order.amount.to_string(),
        "memo": order.memo,
    });
    shown.insert("transfer".into(), fields);
    (shown, order.authority.to_string().into())
}

fn laid_out(message: &Message) -> Value {
    let names = |keys: &[Pubkey]| keys.iter().map(Pubkey::to_string).collect::<Vec<_>>();
    let name = |position: &u8| message.key(*position).map(|key| key.to_string());
    let instruction = |instruction: &Instruction| {
        json!({
            "program": name(&instruction.program),
            "accounts": instruction.accounts.iter().map(name).collect::<Vec<_>>(),
            "data": instruction.data.iter().map(|byte| format!("{byte:02x}")).collect::<String>(),
        })
    };
    json!({
        "version": match message.version() { Version::Legacy => json!("legacy"), Version::V0 => json!(0) },
        "fee_payer": message.fee_payer().to_string(),
        "signers": names(message.signers()),
        "recent_blockhash": Pubkey(message.recent_blockhash()).to_string(),
        "looked_up": message.looked_up(),
        "instructions": message.instructions().iter().map(instruction).collect::<Vec<_>>(),
    })
}
