//! Judging an EVM payment without asking the chain: does it pay what we asked for, and did its payer sign it?

use std::ops::RangeInclusive;

use serde_json::Value;

use super::address::Address;
use super::eip712;
use super::payload::{self, Authorization};
use super::signature::{self, Kind, Unusable};
use super::word::Word;
use crate::chain::networks;
use crate::chain::payment::{Proof, VerifiedPayment};
use crate::chain::{Refused, reason};
use crate::clock::Timestamp;
use crate::money::Micros;
use crate::x402::{Payment, Requirements, Version};

/// An authorization that ends sooner than this cannot be settled any more (x402 facilitators use the same margin).
const SHORTEST_LIFE_SECONDS: u64 = 6;

/// Schemes of x402 that we know and do not take.
const OTHER_SCHEMES: [&str; 4] = ["upto", "batch-settlement", "auth-capture", "deferred"];

fn invalid(reason: &'static str, message: impl Into<String>) -> Refused {
    Refused::Invalid { reason, message: message.into() }
}

/// How much a payment may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amounts {
    /// The amount of our requirement, to the unit: the price of a call (x402 scheme `exact`).
    Exact,
    /// Any amount from that of our requirement up to this one: a top-up, of which the payer decides how much.
    UpTo(Micros),
}

/// Checks a payment against our own requirement, in the order and with the reasons of x402 2.27 facilitators: scheme,
/// domain, network, signature, recipient, times, value. What the payment says it accepted is compared, never believed.
///
/// Pure: one signature recovery, no chain. A signature that does not recover to the payer is left to
/// [`crate::chain::Chains::simulate`], because the payer may be a wallet with code. From then on the amount of its
/// requirement is what was authorized.
///
/// # Errors
/// [`Refused::Malformed`] and [`Refused::Invalid`]; never [`Refused::Unavailable`].
pub fn verify(payment: &Payment, wanted: &Requirements, amounts: Amounts, now: Timestamp) -> Result<VerifiedPayment, Refused> {
    schemes(payment, wanted)?;
    let (authorization, bytes) = payload::parse(&payment.payload)?;
    let (name, version) = domain(wanted)?;
    if payment.network != wanted.network {
        let message = format!("the payment is for {:?}; this costs {} on {}", payment.network, wanted.amount, wanted.network);
        return Err(invalid(reason::NETWORK, message));
    }
    let requirement = |what: &str| invalid(reason::REQUIREMENTS, format!("our requirement has no usable {what}"));
    let chain_id = networks::chain_id(&wanted.network).ok_or_else(|| requirement("network"))?;
    let asset = Address::parse(&wanted.asset).ok_or_else(|| requirement("asset"))?;
    let pay_to = Address::parse(&wanted.pay_to).ok_or_else(|| requirement("payTo"))?;
    let least = Word::from_decimal(&wanted.amount).ok_or_else(|| requirement("amount"))?;
    let amounts = match amounts {
        Amounts::Exact => least..=least,
        Amounts::UpTo(most) => least..=Word::from(most.get()),
    };
    if let Some(accepted) = &payment.accepted {
        compare_amount(accepted, &amounts, &authorization)?;
        compare(accepted, wanted)?;
    }
    let digest = eip712::digest(&eip712::domain_separator(name, version, chain_id, asset), &authorization);
    let proof = prove(&authorization, &bytes, &digest)?;
    let terms = terms(&authorization, pay_to, &amounts, payment.version, now);
    let extra = payment.accepted.as_ref().map_or(Ok(()), |accepted| compare_extra(accepted, wanted));
    if let Err(other) = terms.and(extra) {
        return Err(match proof {
            Proof::Recovered => other,
            // A smart wallet's bytes cannot be judged here; then what else is wrong is all there is to say.
            Proof::NeedsCode if bytes.len() != 65 => other,
            Proof::NeedsCode => not_signed(&authorization, wanted),
        });
    }
    let requirements = Requirements { amount: authorization.value.to_string(), ..wanted.clone() };
    VerifiedPayment::assemble(payment.version, requirements, payment.payload.clone(), proof, now)
}

/// Whether a payment that its payer did not sign for our token was signed for one of this EIP-712 name, and is right in
/// every other way: some buyers' libraries know one name for USDC on all networks.
pub fn is_signed_for(name: &str, payment: &Payment, wanted: &Requirements) -> bool {
    let signed = || {
        let (authorization, bytes) = payload::parse(&payment.payload).ok()?;
        let (ours, version) = domain(wanted).ok()?;
        let (chain_id, asset) = (networks::chain_id(&wanted.network)?, Address::parse(&wanted.asset)?);
        let digest = eip712::digest(&eip712::domain_separator(name, version, chain_id, asset), &authorization);
        Some(ours != name && prove(&authorization, &bytes, &digest).ok()? == Proof::Recovered)
    };
    signed().unwrap_or(false)
}

/// What a payer without code is told whose signature recovers to somebody else.
pub(in crate::chain) fn not_signed(authorization: &Authorization, wanted: &Requirements) -> Refused {
    let (name, version) = domain(wanted).unwrap_or_default();
    let message = format!(
        "the signature is not by {} over this authorization; sign with that wallet, in the EIP-712 domain name {name:?}, \
         version {version:?}, chain {}, verifying contract {}",
        authorization.from, wanted.network, wanted.asset
    );
    invalid(reason::SIGNATURE, message)
}

fn schemes(payment: &Payment, wanted: &Requirements) -> Result<(), Refused> {
    for scheme in [&payment.scheme, &wanted.scheme] {
        if OTHER_SCHEMES.contains(&scheme.as_str()) {
            return Err(invalid(reason::UNSUPPORTED_SCHEME, format!("scheme {scheme:?} is not taken here; pay with \"exact\"")));
        }
    }
    if payment.scheme != "exact" || wanted.scheme != "exact" {
        return Err(invalid(
            reason::SCHEME,
            format!("the payment says scheme {:?}, and \"exact\" is taken; sign the offer in PAYMENT-REQUIRED", payment.scheme),
        ));
    }
    Ok(())
}

fn domain(wanted: &Requirements) -> Result<(&str, &str), Refused> {
    let field = |key: &str| wanted.extra.as_ref().and_then(|extra| extra.get(key)).and_then(Value::as_str);
    match (field("name"), field("version")) {
        (Some(name), Some(version)) => Ok((name, version)),
        _ => Err(invalid(reason::MISSING_DOMAIN, "the requirement does not name the token's EIP-712 domain")),
    }
}

/// Compares what the buyer says it accepted with what we ask now, string by string; only hex case is forgiven.
/// `network`, `scheme` and the amount are compared by the caller.
fn compare(accepted: &Requirements, wanted: &Requirements) -> Result<(), Refused> {
    let differs = |reason, field: &str, theirs: &str, ours: &str| {
        Err(invalid(reason, format!("accepted.{field} is {theirs:?}, and {ours:?} is asked; sign the offer in PAYMENT-REQUIRED")))
    };
    if !accepted.pay_to.eq_ignore_ascii_case(&wanted.pay_to) {
        return differs(reason::RECIPIENT, "payTo", &accepted.pay_to, &wanted.pay_to);
    }
    if !accepted.asset.eq_ignore_ascii_case(&wanted.asset) {
        return differs(reason::REQUIREMENTS, "asset", &accepted.asset, &wanted.asset);
    }
    if accepted.max_timeout_seconds != wanted.max_timeout_seconds {
        let (theirs, ours) = (accepted.max_timeout_seconds.to_string(), wanted.max_timeout_seconds.to_string());
        return differs(reason::REQUIREMENTS, "maxTimeoutSeconds", &theirs, &ours);
    }
    Ok(())
}

/// What the buyer says it accepted must be an amount that we ask, and of a range no more than it then authorized.
fn compare_amount(accepted: &Requirements, amounts: &RangeInclusive<Word>, authorization: &Authorization) -> Result<(), Refused> {
    let said: String = accepted.amount.chars().take(80).collect();
    let differs = |what: String| Err(invalid(reason::VALUE_V2, format!("accepted.amount is {said:?}, {what}")));
    if amounts.start() == amounts.end() {
        let asked = amounts.start().to_string();
        return match accepted.amount == asked {
            true => Ok(()),
            false => differs(format!("and {asked:?} is asked; sign the offer in PAYMENT-REQUIRED")),
        };
    }
    let Some(amount) = Word::from_decimal(&accepted.amount) else {
        return differs("not a number of the token's units; sign the offer in PAYMENT-REQUIRED".into());
    };
    within(amounts, amount)?;
    within(amounts, authorization.value)?;
    if amount > authorization.value {
        return differs(format!("and {} units are authorized; sign as much as you say", authorization.value));
    }
    Ok(())
}

/// Whether an amount is one that we ask.
fn within(amounts: &RangeInclusive<Word>, amount: Word) -> Result<(), Refused> {
    let (least, most) = (amounts.start(), amounts.end());
    let usdc = |units: &Word| Micros::new(units.as_u64().unwrap_or(u64::MAX));
    if amount < *least {
        let message = format!(
            "the payment is over {amount} units of the token, and at least {least} ({} USDC) are taken; sign more",
            usdc(least)
        );
        return Err(invalid(reason::TOO_LOW, message));
    }
    if amount > *most {
        let message = format!(
            "the payment is over {amount} units of the token, and at most {most} ({} USDC) are taken; sign less",
            usdc(most)
        );
        return Err(invalid(reason::TOO_HIGH, message));
    }
    Ok(())
}

/// Every key of our `extra` that the buyer echoes must be equal. Missing keys are forgiven, since the signature covers
/// the domain; further keys are the buyer's business.
fn compare_extra(accepted: &Requirements, wanted: &Requirements) -> Result<(), Refused> {
    let (Some(theirs), Some(ours)) = (&accepted.extra, &wanted.extra) else { return Ok(()) };
    match ours.iter().find(|(key, value)| theirs.get(*key).is_some_and(|echoed| echoed != *value)) {
        Some((key, value)) => {
            let message = format!("accepted.extra.{key} is not {value}, as was offered; sign the offer in PAYMENT-REQUIRED");
            Err(invalid(reason::REQUIREMENTS, message))
        }
        None => Ok(()),
    }
}

fn prove(authorization: &Authorization, bytes: &[u8], digest: &[u8; 32]) -> Result<Proof, Refused> {
    let why = match signature::classify(bytes) {
        Ok(Kind::Plain { r, s, v }) => {
            let signed = signature::recover(digest, &r, &s, v) == Some(authorization.from);
            return Ok(if signed { Proof::Recovered } else { Proof::NeedsCode });
        }
        Ok(Kind::Wallet) => return Ok(Proof::NeedsCode),
        Err(Unusable::Undeployed) => {
            let message = "this wallet is not deployed yet (ERC-6492): send any transaction from it once, then pay again";
            return Err(invalid(reason::UNDEPLOYED_WALLET, message));
        }
        Err(Unusable::Empty) => "is empty",
        Err(Unusable::Compact) => "has 64 bytes, and the token reads 65 (r, s, v)",
        Err(Unusable::HighS) => "has a high s, which the token does not take (EIP-2)",
        Err(Unusable::Parity) => "has a v that is none of 0, 1, 27, 28",
        Err(Unusable::OutOfRange) => "has an r or s that no signature has",
    };
    Err(invalid(reason::SIGNATURE, format!("the signature {why}; sign the offer in PAYMENT-REQUIRED again")))
}

fn terms(
    authorization: &Authorization,
    pay_to: Address,
    amounts: &RangeInclusive<Word>,
    version: Version,
    now: Timestamp,
) -> Result<(), Refused> {
    if authorization.to != pay_to {
        return Err(invalid(
            reason::RECIPIENT,
            format!("the authorization pays {}, and this is sold by {pay_to}; sign one that pays it", authorization.to),
        ));
    }
    if authorization.from == pay_to {
        return Err(invalid(reason::PAYER, format!("the payer is the recipient, {pay_to}; pay from another wallet")));
    }
    if authorization.valid_before < Word::from(now.secs().saturating_add(SHORTEST_LIFE_SECONDS)) {
        return Err(invalid(
            reason::VALID_BEFORE,
            format!(
                "the authorization ends at {} (validBefore) and it is {} now; sign a new one",
                authorization.valid_before,
                now.secs()
            ),
        ));
    }
    // The token wants `block time > validAfter`, strictly, where facilitators accept equality.
    if authorization.valid_after >= Word::from(now.secs()) {
        return Err(invalid(
            reason::VALID_AFTER,
            format!(
                "the authorization starts at {} (validAfter) and it is {} now; sign one that starts at 0",
                authorization.valid_after,
                now.secs()
            ),
        ));
    }
    let amount = amounts.start();
    if amount != amounts.end() {
        return within(amounts, authorization.value);
    }
    if authorization.value != *amount || amount.is_zero() {
        let reason = match version {
            Version::V1 => reason::VALUE_V1,
            Version::V2 => reason::VALUE_V2,
        };
        return Err(invalid(
            reason,
            format!(
                "the authorization is over {} units of the token, and this costs exactly {amount}; sign the offer in PAYMENT-REQUIRED",
                authorization.value
            ),
        ));
    }
    Ok(())
}
