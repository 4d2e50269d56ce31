//! The chain as a witness for payments that somebody else submits: did this transaction carry it, and what became of it?

use super::check;
use super::evidence::{self, Elsewhere};
use super::hex;
use super::node::{self, Asked, Node};
use super::rpc::Rpc;
use crate::chain::client::JsonClient;
use crate::chain::networks::Token;
use crate::chain::payment::VerifiedPayment;
use crate::chain::{Confirmation, Settlement};
use crate::clock::Timestamp;

/// A network's nodes, only ever asked.
pub struct Ledger(Node);

impl Ledger {
    pub fn new(client: JsonClient, urls: Vec<String>) -> Ledger {
        Ledger(Node::new(Rpc::new(client, urls)))
    }

    /// Where the transfer of exactly this payment stands, as its transaction and its position among the events of that;
    /// `None` when the transaction is not on the chain or does not carry it.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn carried(&self, payment: &VerifiedPayment, tx: &str) -> Result<Option<([u8; 32], usize)>, String> {
        let Some(hash) = hex::fixed::<32>(tx) else { return Ok(None) };
        let answer = self.0.call(node::receipt(&hash)).await.map_err(|error| error.to_string())?;
        let receipt = node::read_receipt(&answer, &hash).map_err(|error| error.to_string())?;
        Ok(receipt.and_then(|receipt| Some((receipt.tx, evidence::transfer(&receipt, payment)?))))
    }

    /// Whether the nodes are those of the chain, and the token is the one we quote.
    ///
    /// # Errors
    /// What is wrong, for the operator.
    pub async fn check(&self, token: &Token, now: Timestamp) -> Result<(), String> {
        check::check_token(&self.0, token, now).await.map(|_| ())
    }

    /// What the chain proves about a payment that somebody else submits, perhaps in transaction `tx`; `None` while nothing is
    /// proven. `confirmations` is how many blocks must confirm it.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn verdict(
        &self,
        payment: &VerifiedPayment,
        tx: Option<&str>,
        confirmations: u64,
    ) -> Result<Option<Settlement>, String> {
        self.look(payment, tx, confirmations).await.map_err(|error| error.to_string())
    }

    async fn look(&self, payment: &VerifiedPayment, tx: Option<&str>, confirmations: u64) -> Asked<Option<Settlement>> {
        let hashes: Vec<_> = tx.and_then(hex::fixed).into_iter().collect();
        let (receipts, latest) = self.0.receipts(&hashes).await?;
        let deep = |block: u64| (latest.number + 1).saturating_sub(block) >= confirmations;
        if let Some(receipt) = receipts.into_iter().flatten().find(|receipt| evidence::pays(receipt, payment)) {
            let found = Confirmation { tx: hex::encode(&receipt.tx), block: receipt.block };
            return Ok(deep(receipt.block).then_some(Settlement::Confirmed(found)));
        }
        Ok(match evidence::elsewhere(&self.0, payment, &latest).await? {
            Elsewhere::Paid(found) if deep(found.block) => Some(Settlement::Confirmed(found)),
            Elsewhere::Spent { block, .. } if deep(block) => Some(evidence::spent()),
            Elsewhere::Unused if evidence::is_over(&self.0, payment, &latest).await? => Some(evidence::expired()),
            Elsewhere::Paid(_) | Elsewhere::Spent { .. } | Elsewhere::Unexplained | Elsewhere::Unused => None,
        })
    }
}
