//! A Solana payment that was checked against what we asked for, as it is settled and kept.

use std::fmt;

use super::address::{Pubkey, associated_token_account};
use super::order::Order;
use super::payload;
use super::transaction::Transaction;
use crate::chain::Refused;
use crate::chain::payment::Presented;
use crate::ids::PaymentId;
use crate::money::Micros;
use crate::x402::Payment;

/// A transfer of our token to us that its payer signed; only the fee payer's signature is missing.
#[derive(Clone)]
pub struct Verified {
    pub(in crate::chain) presented: Presented,
    transaction: Transaction,
    order: Order,
}

impl Verified {
    /// Puts together what was checked. Fails only where the requirement itself is unusable, or is another one than it was
    /// checked against.
    pub(in crate::chain) fn assemble(presented: Presented) -> Result<Verified, Refused> {
        let mut transaction = payload::parse(&presented.payload)?;
        // Whatever stood in the fee payer's place is nobody's signature.
        if let Some(first) = transaction.signatures.first_mut() {
            *first = [0; 64];
        }
        let order = Order::read(&transaction.message)?;
        let unusable = |what: &str| Refused::Malformed(format!("requirements: {what}"));
        if order.amount != presented.amount.get() {
            return Err(unusable("amount is not the transferred amount"));
        }
        if presented.requirements.asset.parse() != Ok(order.mint) {
            return Err(unusable("asset is not the transferred token"));
        }
        // Not held against today's configuration, which may pay to another address by now.
        let pay_to: Pubkey = presented.requirements.pay_to.parse().map_err(|_| unusable("payTo is not an address"))?;
        if associated_token_account(&pay_to, &order.mint, &Pubkey::TOKEN) != Some(order.destination) {
            return Err(unusable("payTo is not the recipient"));
        }
        Ok(Verified { presented, transaction, order })
    }

    /// What was authorized, whoever signed it: the SHA-256 of the message.
    pub fn id(&self) -> PaymentId {
        PaymentId(self.transaction.message.hash())
    }

    pub fn amount(&self) -> Micros {
        self.presented.amount
    }

    /// Whose money it is.
    pub fn payer(&self) -> Pubkey {
        self.order.authority
    }

    /// The token.
    pub fn mint(&self) -> Pubkey {
        self.order.mint
    }

    /// The token account that the money comes out of.
    pub fn source(&self) -> Pubkey {
        self.order.source
    }

    /// The token account that it goes into.
    pub fn destination(&self) -> Pubkey {
        self.order.destination
    }

    /// The text beside the transfer, by which it is bound to an offer.
    pub fn memo(&self) -> Option<&str> {
        self.order.memo.as_deref()
    }

    /// Who pays the fee, and must sign first.
    pub fn fee_payer(&self) -> Pubkey {
        self.transaction.message.fee_payer()
    }

    /// By the hash of which block it holds.
    pub fn recent_blockhash(&self) -> [u8; 32] {
        self.transaction.message.recent_blockhash()
    }

    /// The transaction as the payer signed it. The fee payer's place is 64 zeros, whatever was sent there.
    pub fn transaction(&self) -> &Transaction {
        &self.transaction
    }

    /// Whether a payment, as it was presented, is this very message.
    pub fn is_authorized_by(&self, payment: &Payment) -> bool {
        payload::identify(payment).is_ok_and(|id| id == self.id())
    }
}

impl fmt::Debug for Verified {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Verified").field("id", &self.id()).field("payer", &self.payer()).finish_non_exhaustive()
    }
}
