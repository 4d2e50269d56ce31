//! VerifiedPayment, which only this module can make: a payment that was checked against what we asked for.

use std::fmt;

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Amounts, Refused, evm, solana};
use crate::account::AccountId;
use crate::clock::Timestamp;
use crate::ids::PaymentId;
use crate::money::Micros;
use crate::x402::names::Family;
use crate::x402::{Payment, Requirements, Version};

/// A payment whose scheme, network, token, recipient, amount and times are what we asked for, signed by its payer, or
/// (smart wallets) to be judged by its chain in [`super::Chains::simulate`].
#[derive(Clone)]
pub struct VerifiedPayment(Transfer);

/// What was signed, by chain family. A further family is one more arm wherever the compiler asks for it.
#[derive(Clone)]
pub(super) enum Transfer {
    Evm(evm::Verified),
    Solana(solana::Verified),
}

/// What payments of all families have in common.
#[derive(Clone)]
pub(in crate::chain) struct Presented {
    pub version: Version,
    /// Ours, with the amount that was authorized.
    pub requirements: Requirements,
    pub payload: Box<RawValue>,
    pub verified_at: Timestamp,
    pub amount: Micros,
}

impl Presented {
    /// Fails only where the amount of the requirement is none.
    pub fn new(
        version: Version,
        requirements: Requirements,
        payload: Box<RawValue>,
        verified_at: Timestamp,
    ) -> Result<Presented, Refused> {
        let unusable = || Refused::Malformed("requirements: amount is not a number of units".into());
        let amount = Micros::parse_units(&requirements.amount).ok_or_else(unusable)?;
        Ok(Presented { version, requirements, payload, verified_at, amount })
    }
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
    /// Of EVM payments.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    proof: Option<evm::Proof>,
    verified_at_ms: u64,
}

impl VerifiedPayment {
    pub(super) fn transfer(&self) -> &Transfer {
        &self.0
    }

    pub(super) fn presented(&self) -> &Presented {
        match &self.0 {
            Transfer::Evm(payment) => &payment.presented,
            Transfer::Solana(payment) => &payment.presented,
        }
    }

    /// What was authorized, however it was encoded or signed. EVM: keccak256 of chain id, token, payer and nonce. Solana:
    /// SHA-256 of the message.
    pub fn id(&self) -> PaymentId {
        match &self.0 {
            Transfer::Evm(payment) => payment.id(),
            Transfer::Solana(payment) => payment.id(),
        }
    }

    /// CAIP-2.
    pub fn network(&self) -> &str {
        &self.presented().requirements.network
    }

    /// The token's address, on EVM with its EIP-55 checksum.
    pub fn asset(&self) -> String {
        match &self.0 {
            Transfer::Evm(payment) => payment.asset().to_string(),
            Transfer::Solana(payment) => payment.mint().to_string(),
        }
    }

    pub fn payer(&self) -> AccountId {
        match &self.0 {
            Transfer::Evm(payment) => AccountId::Evm(payment.payer().0),
            Transfer::Solana(payment) => AccountId::Solana(payment.payer().0),
        }
    }

    /// The payer as receipts name it, on EVM with its EIP-55 checksum.
    pub fn payer_address(&self) -> String {
        match &self.0 {
            Transfer::Evm(payment) => payment.payer().to_string(),
            Transfer::Solana(payment) => payment.payer().to_string(),
        }
    }

    pub fn amount(&self) -> Micros {
        self.presented().amount
    }

    /// The second from which the transfer can no longer land, if the payment names one: on Solana the chain counts blocks.
    pub fn valid_before(&self) -> Option<Timestamp> {
        match &self.0 {
            Transfer::Evm(payment) => Some(payment.valid_before()),
            Transfer::Solana(_) => None,
        }
    }

    pub fn version(&self) -> Version {
        self.presented().version
    }

    /// Whether a payment, as it was presented, carries this very authorization. Who signed it is not looked at.
    pub fn is_authorized_by(&self, payment: &Payment) -> bool {
        let same_network = payment.network == self.network();
        same_network
            && match &self.0 {
                Transfer::Evm(known) => known.is_authorized_by(payment),
                Transfer::Solana(known) => known.is_authorized_by(payment),
            }
    }

    /// Whether the money goes to this wallet, in the way in which addresses are written here.
    pub(super) fn is_paid_to(&self, account: AccountId) -> bool {
        let to = match account {
            AccountId::Evm(bytes) => evm::address::Address(bytes).to_string(),
            AccountId::Solana(bytes) => solana::address::Pubkey(bytes).to_string(),
        };
        self.presented().requirements.pay_to == to
    }

    /// Whether both authorize the same transfer: on EVM one nonce may be signed for two.
    pub(super) fn is_same_transfer(&self, other: &VerifiedPayment) -> bool {
        match (&self.0, &other.0) {
            (Transfer::Evm(one), Transfer::Evm(other)) => one.is_same_transfer(other),
            (Transfer::Solana(one), Transfer::Solana(other)) => one.id() == other.id(),
            (Transfer::Evm(_), Transfer::Solana(_)) | (Transfer::Solana(_), Transfer::Evm(_)) => false,
        }
    }

    /// Why it is not good where no wallet has code: its signature is not its payer's.
    pub(super) fn unproven(&self) -> Option<Refused> {
        match &self.0 {
            Transfer::Evm(payment) => payment.unproven(),
            Transfer::Solana(_) => None,
        }
    }

    /// What only its chain can tell.
    pub(super) fn questions(&self) -> &'static [&'static str] {
        match &self.0 {
            Transfer::Evm(_) => &["asset_code", "payer_code", "authorization_state", "balance"],
            Transfer::Solana(_) => &["token_accounts", "balance", "recent_blockhash", "fee_payer_is_ours"],
        }
    }

    /// For the ledger: everything that a restart needs to go on with. Contains the payer's signature.
    pub fn to_bytes(&self) -> Vec<u8> {
        let presented = self.presented();
        let stored = Stored {
            version: match presented.version {
                Version::V1 => 1,
                Version::V2 => 2,
            },
            requirements: presented.requirements.clone(),
            payload: presented.payload.clone(),
            proof: match &self.0 {
                Transfer::Evm(payment) => Some(payment.proof),
                Transfer::Solana(_) => None,
            },
            verified_at_ms: presented.verified_at.millis(),
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
        let refused = |refused: Refused| Unreadable(format!("{refused:?}"));
        let at = Timestamp::from_millis(stored.verified_at_ms);
        let family = Family::of_network(&stored.requirements.network);
        let presented = Presented::new(version, stored.requirements, stored.payload, at).map_err(refused)?;
        match (family, stored.proof) {
            (Some(Family::Evm), Some(proof)) => evm::Verified::assemble(presented, proof).map(Transfer::Evm),
            (Some(Family::Solana), None) => solana::Verified::assemble(presented).map(Transfer::Solana),
            (Some(_), _) => return Err(Unreadable("its proof is not one of its family".into())),
            (None, _) => return Err(Unreadable("its network is of no known family".into())),
        }
        .map(VerifiedPayment)
        .map_err(refused)
    }
}

impl fmt::Debug for VerifiedPayment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VerifiedPayment")
            .field("id", &self.id())
            .field("network", &self.network())
            .field("payer", &self.payer_address())
            .field("amount", &self.amount())
            .finish_non_exhaustive()
    }
}

/// Checks a payment against our own requirement, in the order and with the reasons of x402 2.27 facilitators. What the payment
/// says it accepted is compared, never believed. From then on the amount of its requirement is what was authorized.
///
/// Pure: no chain is asked. What only the chain can tell is for [`super::Chains::simulate`].
///
/// # Errors
/// [`Refused::Malformed`] and [`Refused::Invalid`]; never [`Refused::Unavailable`].
pub fn verify(payment: &Payment, wanted: &Requirements, amounts: Amounts, now: Timestamp) -> Result<VerifiedPayment, Refused> {
    let transfer = match family(wanted)? {
        Family::Evm => Transfer::Evm(evm::verify::verify(payment, wanted, amounts, now)?),
        Family::Solana => Transfer::Solana(solana::verify::verify(payment, wanted, amounts, now)?),
    };
    Ok(VerifiedPayment(transfer))
}

/// What a payment is identified by, read before anything about it is believed: a copy must be known as a copy whatever it
/// is held against.
///
/// # Errors
/// [`Refused::Malformed`] and [`Refused::Invalid`] for what is not a payment of this family at all.
pub fn identify(payment: &Payment, wanted: &Requirements) -> Result<PaymentId, Refused> {
    match family(wanted)? {
        Family::Evm => evm::identify(payment, wanted),
        Family::Solana => solana::identify(payment),
    }
}

/// Whom a payment says that it is of, whatever it is held against and before anything about it is believed: nobody has shown
/// to be that wallet. `None` for what no wallet could have signed.
pub fn claimed_payer(payment: &Payment) -> Option<AccountId> {
    let evm = || evm::payload::parse(&payment.payload).ok().map(|(authorization, _)| AccountId::Evm(authorization.from.0));
    let solana = || {
        let transaction = solana::payload::parse(&payment.payload).ok()?;
        // The first signer pays the fee.
        transaction.message.signers().get(1).map(|payer| AccountId::Solana(payer.0))
    };
    // What the other family would have read is decoration.
    match Family::of_network(&payment.network) {
        Some(Family::Solana) => solana().or_else(evm),
        _ => evm().or_else(solana),
    }
}

fn family(wanted: &Requirements) -> Result<Family, Refused> {
    let unusable = || Refused::Malformed("requirements: network is of no known family".into());
    Family::of_network(&wanted.network).ok_or_else(unusable)
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
