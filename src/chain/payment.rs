//! VerifiedPayment, which only this module can make: a payment that was checked against what we asked for.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::Refused;
use super::evm::address::Address;
use super::evm::keccak;
use super::evm::payload::{self, Authorization};
use super::evm::word::Word;
use super::networks;
use crate::account::AccountId;
use crate::clock::Timestamp;
use crate::ids::PaymentId;
use crate::money::Micros;
use crate::x402::{Payment, Requirements, Version};

/// Who vouches for the payer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Proof {
    /// The signature recovers to the payer.
    Recovered,
    /// It does not, so it is good only if the payer is a wallet with code that accepts it (EIP-1271): the chain decides.
    NeedsCode,
}

/// A payment whose scheme, network, token, recipient, amount and times are what we asked for, signed by its payer, or
/// (smart wallets) to be judged by its chain in [`super::Chains::simulate`].
#[derive(Clone)]
pub struct VerifiedPayment {
    pub(super) version: Version,
    pub(super) requirements: Requirements,
    pub(super) payload: Box<RawValue>,
    pub(super) proof: Proof,
    pub(super) verified_at: Timestamp,
    pub(super) chain_id: u64,
    pub(super) asset: Address,
    pub(super) authorization: Authorization,
    pub(super) signature: Vec<u8>,
    amount: Micros,
}

/// Stored bytes that are not a payment.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("a stored payment cannot be read: {0}")]
pub struct Unreadable(String);

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u8,
    requirements: Requirements,
    payload: Box<RawValue>,
    proof: Proof,
    verified_at_ms: u64,
}

impl VerifiedPayment {
    /// Puts together what [`super::verify`] has checked. Fails only where the requirement itself is unusable.
    pub(super) fn assemble(
        version: Version,
        requirements: Requirements,
        payload: Box<RawValue>,
        proof: Proof,
        verified_at: Timestamp,
    ) -> Result<VerifiedPayment, Refused> {
        let (authorization, signature) = payload::parse(&payload)?;
        let unusable = |what: &str| Refused::Malformed(format!("requirements: {what}"));
        let chain_id = networks::chain_id(&requirements.network).ok_or_else(|| unusable("network is not eip155"))?;
        let asset = Address::parse(&requirements.asset).ok_or_else(|| unusable("asset is not an address"))?;
        let amount = Micros::parse_units(&requirements.amount).ok_or_else(|| unusable("amount is not a number of units"))?;
        if authorization.value != Word::from(amount.get()) {
            return Err(unusable("amount is not the authorized value"));
        }
        // Not held against today's configuration, which may pay to another address by now.
        if Address::parse(&requirements.pay_to) != Some(authorization.to) {
            return Err(unusable("payTo is not the authorized recipient"));
        }
        Ok(VerifiedPayment {
            version,
            requirements,
            payload,
            proof,
            verified_at,
            chain_id,
            asset,
            authorization,
            signature,
            amount,
        })
    }

    /// What was authorized, however it was signed or encoded: keccak256 of chain id, token, payer and nonce.
    pub fn id(&self) -> PaymentId {
        identity(self.chain_id, self.asset, &self.authorization)
    }

    /// CAIP-2.
    pub fn network(&self) -> &str {
        &self.requirements.network
    }

    /// The token's address with its EIP-55 checksum.
    pub fn asset(&self) -> String {
        self.asset.to_string()
    }

    pub fn payer(&self) -> AccountId {
        AccountId::Evm(self.authorization.from.0)
    }

    /// The payer with its EIP-55 checksum, as receipts name it.
    pub fn payer_address(&self) -> String {
        self.authorization.from.to_string()
    }

    pub fn amount(&self) -> Micros {
        self.amount
    }

    /// The second from which the transfer can no longer land.
    pub fn valid_before(&self) -> Timestamp {
        Timestamp::from_secs(self.authorization.valid_before.as_u64().unwrap_or(u64::MAX))
    }

    pub fn version(&self) -> Version {
        self.version
    }

    /// Whether a payment, as it was presented, carries this very authorization. Who signed it is not looked at.
    pub fn is_authorized_by(&self, payment: &Payment) -> bool {
        let same_network = payment.network == self.requirements.network;
        same_network && payload::parse(&payment.payload).is_ok_and(|(authorization, _)| authorization == self.authorization)
    }

    /// For the ledger: everything that a restart needs to go on with. Contains the payer's signature.
    pub fn to_bytes(&self) -> Vec<u8> {
        let stored = Stored {
            version: match self.version {
                Version::V1 => 1,
                Version::V2 => 2,
            },
            requirements: self.requirements.clone(),
            payload: self.payload.clone(),
            proof: self.proof,
            verified_at_ms: self.verified_at.millis(),
        };
        serde_json::to_vec(&stored).expect("string keys and no failing serializers")
    }

    /// The inverse of [`VerifiedPayment::to_bytes`]. The bytes are ours, so times and signature are not judged again.
    pub fn from_bytes(bytes: &[u8]) -> Result<VerifiedPayment, Unreadable> {
        let stored: Stored = serde_json::from_slice(bytes).map_err(|error| Unreadable(error.to_string()))?;
        let version = match stored.version {
            1 => Version::V1,
            2 => Version::V2,
            other => return Err(Unreadable(format!("version {other}"))),
        };
        let at = Timestamp::from_millis(stored.verified_at_ms);
        VerifiedPayment::assemble(version, stored.requirements, stored.payload, stored.proof, at)
            .map_err(|refused| Unreadable(format!("{refused:?}")))
    }
}

impl fmt::Debug for VerifiedPayment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedPayment")
            .field("id", &self.id())
            .field("network", &self.network())
            .field("payer", &self.authorization.from)
            .field("amount", &self.amount)
            .finish_non_exhaustive()
    }
}

/// What a payment is identified by, read before anything about it is believed: a copy must be known as a copy whatever it
/// is held against.
///
/// # Errors
/// [`Refused::Malformed`] and [`Refused::Invalid`] for what is not an EIP-3009 payment at all.
pub fn identify(payment: &Payment, wanted: &Requirements) -> Result<PaymentId, Refused> {
    let (authorization, _) = payload::parse(&payment.payload)?;
    let unusable = |what: &str| Refused::Malformed(format!("requirements: {what}"));
    let chain_id = networks::chain_id(&wanted.network).ok_or_else(|| unusable("network is not eip155"))?;
    let asset = Address::parse(&wanted.asset).ok_or_else(|| unusable("asset is not an address"))?;
    Ok(identity(chain_id, asset, &authorization))
}

/// The semantic identity of an EVM payment, fixed width, so that no two payments can be spelled into one.
pub(super) fn identity(chain_id: u64, asset: Address, authorization: &Authorization) -> PaymentId {
    let parts = [&Word::from(chain_id).0[..], &asset.0, &authorization.from.0, &authorization.nonce];
    PaymentId(keccak(&parts.concat()))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chain::Amounts;
    use crate::chain::evm::{buyer, key::PrivateKey};

    const PAY_TO: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";

    fn stored() -> serde_json::Value {
        let extra = serde_json::json!({"name": "USDC", "version": "2"});
        let offer = Requirements {
            scheme: "exact".into(),
            network: "eip155:84532".into(),
            amount: "250000".into(),
            asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e".into(),
            pay_to: PAY_TO.into(),
            max_timeout_seconds: 60,
            extra: extra.as_object().cloned(),
        };
        let (key, now) = (PrivateKey::parse(&format!("0x{}", "11".repeat(32))).unwrap(), Timestamp::from_secs(1_763_640_000));
        let header = buyer::pay(&offer, None, &key, [7; 32], now).unwrap();
        let payment = crate::chain::verify(&Payment::from_header(&header).unwrap(), &offer, Amounts::Exact, now).unwrap();
        serde_json::from_slice(&payment.to_bytes()).unwrap()
    }

    #[test]
    fn a_stored_payment_that_pays_somebody_else_or_something_else_is_not_read() {
        let read = |stored: &serde_json::Value| VerifiedPayment::from_bytes(stored.to_string().as_bytes());
        assert!(read(&stored()).is_ok());
        let mut lower = stored();
        lower["requirements"]["payTo"] = PAY_TO.to_ascii_lowercase().into();
        assert!(read(&lower).is_ok(), "the same address");
        for (field, other) in [
            ("payTo", "0x70997970C51812dc3A010C7d01b50e0d17dc79C8"),
            ("payTo", "nobody"),
            ("amount", "250001"),
            ("asset", "USDC"),
            ("network", "solana:mainnet"),
        ] {
            let mut changed = stored();
            changed["requirements"][field] = other.into();
            assert!(read(&changed).is_err(), "{field}: {other}");
        }
    }
}
