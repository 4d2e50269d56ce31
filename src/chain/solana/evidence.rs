//! What we sign, and what counts as proof that it moved the money, or never will.

use super::address::SettlerKey;
use super::node::Landed;
use super::order::Order;
use super::reason;
use super::status::name;
use super::transaction::Transaction;
use super::verified::Verified;
use crate::chain::{Attempt, Settlement};

/// Blocks after the one it names in which a transaction may still land.
pub const BLOCKHASH_LIFE: u64 = 150;
/// Nodes behind one address may be some blocks apart when they say how many there are.
pub const SLACK: u64 = 16;

/// A payment's transaction with our signature in the fee payer's place. There is never another one for the same payment: the
/// same message always gets the same signature.
#[derive(Clone, PartialEq, Eq)]
pub struct Cosigned {
    pub raw: Vec<u8>,
    /// Ours, which names the transaction.
    pub signature: [u8; 64],
    /// Blocks above this height cannot have it.
    pub last_height: u64,
}

impl Cosigned {
    pub fn sign(payment: &Verified, key: &SettlerKey, last_height: u64) -> Cosigned {
        let signature = key.sign(payment.transaction().message.bytes());
        let mut transaction = payment.transaction().clone();
        if let Some(slot) = transaction.signatures.first_mut() {
            *slot = signature;
        }
        Cosigned { raw: transaction.to_bytes(), signature, last_height }
    }

    /// What the journal keeps.
    pub fn attempt(&self) -> Attempt {
        Attempt { tx: name(&self.signature), raw: self.raw.clone(), bound_to: self.last_height }
    }

    /// Reads back what the journal kept. `None` for bytes that are not this payment's, signed by its fee payer.
    pub fn read(attempt: &Attempt, payment: &Verified) -> Option<Cosigned> {
        let transaction = Transaction::parse(&attempt.raw).ok()?;
        let signature = *transaction.signatures.first()?;
        let message = &transaction.message;
        let ours = *message == payment.transaction().message && message.fee_payer().signed(message.bytes(), &signature);
        ours.then(|| Cosigned { raw: attempt.raw.clone(), signature, last_height: attempt.bound_to })
    }
}

/// Whether this transaction moved exactly this payment: it is the message that the payer signed, it succeeded, and our token
/// account has the amount more than before.
pub fn pays(landed: &Landed, payment: &Verified) -> bool {
    landed.transaction.message == payment.transaction().message && moved(landed, payment)
}

/// Whether this transaction moved as much between the same accounts with the same text beside it. A payout that is asked for again by
/// its id is another message, and its text is the same.
pub fn pays_alike(landed: &Landed, payment: &Verified) -> bool {
    let is_alike = |order: Order| {
        (order.source, order.destination) == (payment.source(), payment.destination())
            && order.memo.is_some_and(|memo| payment.memo() == Some(&*memo))
    };
    Order::read(&landed.transaction.message).is_ok_and(is_alike) && moved(landed, payment)
}

/// Whether it succeeded, and the account that is paid has the amount more than before.
fn moved(landed: &Landed, payment: &Verified) -> bool {
    landed.succeeded && landed.gained(payment.destination(), payment.mint()) == Some(payment.amount().get())
}

/// Said of a transaction that is in a block and failed there.
pub const FAILED: &str = "the transfer failed in its block and moved nothing";

/// What a payment ended with whose blockhash is too old.
pub fn expired() -> Settlement {
    let message = "the blockhash that the transaction names became too old before it got into a block".to_owned();
    Settlement::Failed { reason: reason::EXPIRED, message }
}
