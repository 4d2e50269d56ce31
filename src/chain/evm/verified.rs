//! An EIP-3009 payment that was checked against what we asked for, as it is settled and kept.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::address::Address;
use super::keccak;
use super::payload::{self, Authorization};
use super::token;
use super::verify;
use super::word::Word;
use crate::chain::Refused;
use crate::chain::payment::Presented;
use crate::clock::Timestamp;
use crate::ids::PaymentId;
use crate::money::Micros;
use crate::x402::{Payment, Requirements};

/// Who vouches for the payer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Proof {
    /// The signature recovers to the payer.
    Recovered,
    /// It does not, so it is good only if the payer is a wallet with code that accepts it (EIP-1271): the chain decides.
    NeedsCode,
}

/// A transfer of our token to us that its payer authorized, or (smart wallets) that its chain is to judge.
#[derive(Clone)]
pub struct Verified {
    pub(in crate::chain) presented: Presented,
    pub(in crate::chain) proof: Proof,
    pub(super) chain_id: u64,
    pub(super) asset: Address,
    pub(super) authorization: Authorization,
    pub(super) signature: Vec<u8>,
}

impl Verified {
    /// Puts together what was checked. Fails only where the requirement itself is unusable.
    pub(in crate::chain) fn assemble(presented: Presented, proof: Proof) -> Result<Verified, Refused> {
        let (authorization, signature) = payload::parse(&presented.payload)?;
        let unusable = |what: &str| Refused::Malformed(format!("requirements: {what}"));
        let requirements = &presented.requirements;
        let chain_id = token::chain_id(&requirements.network).ok_or_else(|| unusable("network is not eip155"))?;
        let asset = Address::parse(&requirements.asset).ok_or_else(|| unusable("asset is not an address"))?;
        if authorization.value != Word::from(presented.amount.get()) {
            return Err(unusable("amount is not the authorized value"));
        }
        // Not held against today's configuration, which may pay to another address by now.
        if Address::parse(&requirements.pay_to) != Some(authorization.to) {
            return Err(unusable("payTo is not the authorized recipient"));
        }
        Ok(Verified { presented, proof, chain_id, asset, authorization, signature })
    }

    /// What was authorized, however it was signed or encoded: keccak256 of chain id, token, payer and nonce.
    pub fn id(&self) -> PaymentId {
        identity(self.chain_id, self.asset, &self.authorization)
    }

    pub fn amount(&self) -> Micros {
        self.presented.amount
    }

    pub fn payer(&self) -> Address {
        self.authorization.from
    }

    /// What the token marks as used.
    pub fn nonce(&self) -> [u8; 32] {
        self.authorization.nonce
    }

    /// The token.
    pub fn asset(&self) -> Address {
        self.asset
    }

    /// The second from which the transfer can no longer land.
    pub fn valid_before(&self) -> Timestamp {
        Timestamp::from_secs(self.authorization.valid_before.as_u64().unwrap_or(u64::MAX))
    }

    /// Whether both authorize the same transfer. The same id does not say so: a nonce may be signed for two.
    pub fn is_same_transfer(&self, other: &Verified) -> bool {
        self.authorization == other.authorization
    }

    /// Whether a payment, as it was presented, carries this very authorization. Who signed it is not looked at.
    pub fn is_authorized_by(&self, payment: &Payment) -> bool {
        payload::parse(&payment.payload).is_ok_and(|(authorization, _)| authorization == self.authorization)
    }

    /// Why it is not good where no wallet has code.
    pub fn unproven(&self) -> Option<Refused> {
        match self.proof {
            Proof::Recovered => None,
            Proof::NeedsCode => Some(verify::not_signed(&self.authorization, &self.presented.requirements)),
        }
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("id", &self.id()).field("payer", &self.payer()).finish_non_exhaustive()
    }
}

/// What an EIP-3009 payment is identified by, read before anything about it is believed.
///
/// # Errors
/// [`Refused::Malformed`] and [`Refused::Invalid`] for what is not an EIP-3009 payment at all.
pub fn identify(payment: &Payment, wanted: &Requirements) -> Result<PaymentId, Refused> {
    let (authorization, _) = payload::parse(&payment.payload)?;
    let unusable = |what: &str| Refused::Malformed(format!("requirements: {what}"));
    let chain_id = token::chain_id(&wanted.network).ok_or_else(|| unusable("network is not eip155"))?;
    let asset = Address::parse(&wanted.asset).ok_or_else(|| unusable("asset is not an address"))?;
    Ok(identity(chain_id, asset, &authorization))
}

/// The semantic identity of an EVM payment, fixed width, so that no two payments can be spelled into one.
pub(super) fn identity(chain_id: u64, asset: Address, authorization: &Authorization) -> PaymentId {
    let parts = [&Word::from(chain_id).0[..], &asset.0, &authorization.from.0, &authorization.nonce];
    PaymentId(keccak(&parts.concat()))
}
