//! Judging an EVM payment without asking the chain: does it pay what we asked for, and did its payer sign it?

use std::ops::RangeInclusive;

use serde_json::Value;

use super::address::Address;
use super::eip712;
use super::payload::{self, Authorization};
use super::signature::{self, Kind, Unusable};
use super::token;
use super::verified::{Proof, Verified};
use super::word::Word;
use crate::chain::payment::Presented;
use crate::chain::terms::{self, Amounts};
use crate::chain::{Refused, reason};
use crate::clock::Timestamp;
use crate::x402::{Payment, Requirements, Version};

/// An authorization that ends sooner than this cannot be settled any more (x402 facilitators use the same margin).
const SHORTEST_LIFE_SECONDS: u64 = 6;

fn invalid(reason: &'static str, message: impl Into<String>) -> Refused {
    Refused::Invalid { reason, message: message.into() }
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
pub fn verify(payment: &Payment, wanted: &Requirements, amounts: Amounts, now: Timestamp) -> Result<Verified, Refused> {
    terms::scheme(payment, wanted, reason::SCHEME)?;
    let (authorization, bytes) = payload::parse(&payment.payload)?;
    let (name, version) = domain(wanted)?;
    terms::network(payment, wanted, reason::NETWORK)?;
    let requirement = |what: &str| invalid(reason::REQUIREMENTS, format!("our requirement has no usable {what}"));
    let chain_id = token::chain_id(&wanted.network).ok_or_else(|| requirement("network"))?;
    let asset = Address::parse(&wanted.asset).ok_or_else(|| requirement("asset"))?;
    let pay_to = Address::parse(&wanted.pay_to).ok_or_else(|| requirement("payTo"))?;
    let amounts = amounts.range(&wanted.amount).ok_or_else(|| requirement("amount"))?;
    if let Some(accepted) = &payment.accepted {
        terms::same_amount(accepted, &amounts, authorization.value, reason::VALUE_V2)?;
        compare(accepted, wanted)?;
    }
    let digest = eip712::digest(&eip712::domain_separator(name, version, chain_id, asset), &authorization);
    let proof = prove(&authorization, &bytes, &digest)?;
    let held = held(&authorization, pay_to, &amounts, payment.version, now);
    let extra = payment.accepted.as_ref().map_or(Ok(()), |accepted| terms::same_extra(accepted, wanted, |_| false));
    if let Err(other) = held.and(extra) {
        return Err(match proof {
            Proof::Recovered => other,
            // A smart wallet's bytes cannot be judged here; then what else is wrong is all there is to say.
            Proof::NeedsCode if bytes.len() != 65 => other,
            Proof::NeedsCode => not_signed(&authorization, wanted),
        });
    }
    let requirements = Requirements { amount: authorization.value.to_string(), ..wanted.clone() };
    Verified::assemble(Presented::new(payment.version, requirements, payment.payload.clone(), now)?, proof)
}

/// Whether a payment that its payer did not sign for our token was signed for one of this EIP-712 name, and is right in
/// every other way: some buyers' libraries know one name for USDC on all networks.
pub fn is_signed_for(name: &str, payment: &Payment, wanted: &Requirements) -> bool {
    let signed = || {
        let (authorization, bytes) = payload::parse(&payment.payload).ok()?;
        let (ours, version) = domain(wanted).ok()?;
        let (chain_id, asset) = (token::chain_id(&wanted.network)?, Address::parse(&wanted.asset)?);
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

fn domain(wanted: &Requirements) -> Result<(&str, &str), Refused> {
    let field = |key: &str| wanted.extra.as_ref().and_then(|extra| extra.get(key)).and_then(Value::as_str);
    match (field("name"), field("version")) {
        (Some(name), Some(version)) => Ok((name, version)),
        _ => Err(invalid(reason::MISSING_DOMAIN, "the requirement does not name the token's EIP-712 domain")),
    }
}

/// Compares what the buyer says it accepted with what we ask now, string by string; only hex case is forgiven.
/// `network`, `scheme`, `extra` and the amount are compared by the caller.
fn compare(accepted: &Requirements, wanted: &Requirements) -> Result<(), Refused> {
    if !accepted.pay_to.eq_ignore_ascii_case(&wanted.pay_to) {
        return Err(terms::differs(reason::RECIPIENT, "payTo", &accepted.pay_to, &wanted.pay_to));
    }
    if !accepted.asset.eq_ignore_ascii_case(&wanted.asset) {
        return Err(terms::differs(reason::REQUIREMENTS, "asset", &accepted.asset, &wanted.asset));
    }
    terms::same_timeout(accepted, wanted)
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

fn held(
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
        return terms::within(amounts, authorization.value);
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
