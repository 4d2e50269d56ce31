//! Judging a Solana payment without asking the chain: does it pay what we asked for, and did its payer sign it?

use std::ops::RangeInclusive;

use serde_json::{Map, Value};

use super::address::{Pubkey, associated_token_account};
use super::order::Order;
use super::payload;
use super::reason;
use super::transaction::Transaction;
use super::verified::Verified;
use crate::chain::payment::Presented;
use crate::chain::terms::{self, Amounts};
use crate::chain::{Refused, reason as common};
use crate::clock::Timestamp;
use crate::x402::{Payment, Requirements, Version};

#[cfg(test)]
mod tests;

/// Digits of USDC behind the point.
const DECIMALS: u8 = 6;

/// What an offer says that is another with every block: it is not held against what the buyer says it accepted.
const MOVING: [&str; 2] = ["recentBlockhash", "lastValidBlockHeight"];

fn invalid(reason: &'static str, message: impl Into<String>) -> Refused {
    Refused::Invalid { reason, message: message.into() }
}

/// Checks a payment against our own requirement, in the order and with the reasons of x402 2.27 facilitators: scheme, network,
/// fee payer, signatures, instructions, token, recipient, amount, memo. What the payment says it accepted is compared, never
/// believed.
///
/// Pure: one signature check, no chain. Whether the payer has the money and the transaction is still in time is for the chain.
///
/// # Errors
/// [`Refused::Malformed`] and [`Refused::Invalid`]; never [`Refused::Unavailable`].
pub fn verify(payment: &Payment, wanted: &Requirements, amounts: Amounts, now: Timestamp) -> Result<Verified, Refused> {
    terms::scheme(payment, wanted, reason::SCHEME)?;
    let transaction = payload::parse(&payment.payload)?;
    terms::network(payment, wanted, reason::NETWORK)?;
    let requirement = |what: &str| invalid(common::REQUIREMENTS, format!("our requirement has no usable {what}"));
    let mint: Pubkey = wanted.asset.parse().map_err(|_| requirement("asset"))?;
    let pay_to: Pubkey = wanted.pay_to.parse().map_err(|_| requirement("payTo"))?;
    let amounts = amounts.range(&wanted.amount).ok_or_else(|| requirement("amount"))?;
    if let Some(accepted) = &payment.accepted {
        compare(accepted, wanted)?;
    }
    signers(&transaction, wanted)?;
    let order = Order::read(&transaction.message)?;
    order.check_fee(&transaction.message)?;
    order.check_guards(&transaction.message)?;
    ends(&order, &transaction, mint, pay_to)?;
    within(&order, &amounts)?;
    if let Some(accepted) = &payment.accepted {
        terms::same_amount(accepted, &amounts, order.amount, reason::AMOUNT)?;
    }
    let extra = bound(&order, wanted, payment.version)?;
    let requirements = Requirements { amount: order.amount.to_string(), extra, ..wanted.clone() };
    Verified::assemble(Presented::new(payment.version, requirements, payment.payload.clone(), now)?)
}

/// Compares what the buyer says it accepted with what we ask now, string by string.
fn compare(accepted: &Requirements, wanted: &Requirements) -> Result<(), Refused> {
    for (reason, field, theirs, ours) in [
        (reason::RECIPIENT, "payTo", &accepted.pay_to, &wanted.pay_to),
        (common::REQUIREMENTS, "asset", &accepted.asset, &wanted.asset),
    ] {
        if theirs != ours {
            return Err(terms::differs(reason, field, theirs, ours));
        }
    }
    terms::same_timeout(accepted, wanted)?;
    // The memo counts as it was signed.
    terms::same_extra(accepted, wanted, |key| MOVING.contains(&key) || key == MEMO)
}

/// The key of the memo in the `extra` of an offer.
const MEMO: &str = "memo";

fn extra<'a>(wanted: &'a Requirements, key: &str) -> Option<&'a str> {
    wanted.extra.as_ref()?.get(key)?.as_str()
}

/// The fee payer is the one that we offered, the payer is the only other signer, and has signed.
fn signers(transaction: &Transaction, wanted: &Requirements) -> Result<(), Refused> {
    let message = &transaction.message;
    let fee_payer = extra(wanted, "feePayer").and_then(|text| text.parse::<Pubkey>().ok());
    let fee_payer = fee_payer.ok_or_else(|| invalid(reason::NO_FEE_PAYER, "our requirement does not name a fee payer"))?;
    let [_, payer] = message.signers() else {
        let say = format!(
            "{} signatures are asked for, and a payment has two, the fee payer's and the payer's; sign with one wallet",
            message.signers().len()
        );
        return Err(invalid(reason::SIGNERS, say));
    };
    if message.fee_payer() != fee_payer {
        let say = format!("the fee payer is {}, and {fee_payer} is offered; sign the offer as it is", message.fee_payer());
        return Err(invalid(reason::FEE_PAYER, say));
    }
    if !payer.signed(message.bytes(), &transaction.signatures[1]) {
        let say = format!("the signature is not by {payer} over this message; sign with that wallet");
        return Err(invalid(reason::SIGNATURE, say));
    }
    if message.looked_up() > 0 {
        let say = "the transaction names accounts through look-up tables, which hide who takes part; name them all";
        return Err(invalid(reason::LOOK_UP_TABLE, say));
    }
    Ok(())
}

/// From the payer's own token account to ours.
fn ends(order: &Order, transaction: &Transaction, mint: Pubkey, pay_to: Pubkey) -> Result<(), Refused> {
    if transaction.message.signers().get(1) != Some(&order.authority) {
        let say = format!("the transfer is ordered by {}, who does not sign", order.authority);
        return Err(invalid(reason::SIGNATURE, say));
    }
    if order.mint != mint {
        return Err(invalid(
            reason::MINT,
            format!("the token {} is paid, and {mint} is asked; sign the offer in PAYMENT-REQUIRED", order.mint),
        ));
    }
    if order.decimals != DECIMALS {
        let say = format!("the transfer says that the token has {} decimals, and it has {DECIMALS}; write that", order.decimals);
        return Err(invalid(reason::MINT, say));
    }
    if associated_token_account(&pay_to, &mint, &Pubkey::TOKEN) != Some(order.destination) {
        let say = format!("{} is not the associated token account of {pay_to}; pay that", order.destination);
        return Err(invalid(reason::RECIPIENT, say));
    }
    if order.authority == pay_to || order.source == order.destination {
        return Err(invalid(reason::PAYER, format!("the payer is the recipient, {pay_to}; pay from another wallet")));
    }
    if associated_token_account(&order.authority, &mint, &Pubkey::TOKEN) != Some(order.source) {
        let say = format!("{} is not the associated token account of {}; pay from that", order.source, order.authority);
        return Err(invalid(reason::SOURCE, say));
    }
    Ok(())
}

fn within(order: &Order, amounts: &RangeInclusive<u64>) -> Result<(), Refused> {
    let (least, most) = (*amounts.start(), *amounts.end());
    if least == most && (order.amount != least || least == 0) {
        let say = format!(
            "{} units of the token are transferred, and this costs exactly {least}; sign the offer in PAYMENT-REQUIRED",
            order.amount
        );
        return Err(invalid(reason::AMOUNT, say));
    }
    terms::within(amounts, order.amount)
}

/// The memo binds a payment to what was offered. Buyers of version 1 know no memos, so theirs may be missing. Returns the
/// `extra` that the payment answers to.
fn bound(order: &Order, wanted: &Requirements, version: Version) -> Result<Option<Map<String, Value>>, Refused> {
    let Some(offered) = extra(wanted, MEMO) else { return Ok(wanted.extra.clone()) };
    match (&order.memo, version) {
        (Some(memo), _) if memo == offered => Ok(wanted.extra.clone()),
        (Some(_), _) => {
            let say = "the memo is not the one of an offer for this; ask without a payment, and sign the offer that comes";
            Err(invalid(reason::MEMO, say))
        }
        (None, Version::V2) => {
            Err(invalid(reason::MEMO_COUNT, "the transaction has no memo; sign the offer with the memo of its `extra`"))
        }
        (None, Version::V1) => {
            let mut extra = wanted.extra.clone();
            extra.iter_mut().for_each(|extra| drop(extra.remove(MEMO)));
            Ok(extra)
        }
    }
}
