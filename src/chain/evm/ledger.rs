//! The chain as a ledger to compare ours with: did this transaction carry this payment?

use super::evidence;
use super::hex;
use super::node::{self, Node};
use super::rpc::Rpc;
use crate::chain::client::JsonClient;
use crate::chain::payment::VerifiedPayment;

/// A network's nodes, asked only for receipts.
pub struct Ledger(Node);

impl Ledger {
    pub fn new(client: JsonClient, urls: Vec<String>) -> Ledger {
        Ledger(Node::new(Rpc::new(client, urls)))
    }

    /// Where the transfer of exactly this payment stands, as its block and its place among the events of that block;
    /// `None` when the transaction is not on the chain or does not carry it.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn carried(&self, payment: &VerifiedPayment, tx: &str) -> Result<Option<(u64, u64)>, String> {
        let Some(hash) = hex::fixed::<32>(tx) else { return Ok(None) };
        let answer = self.0.call(node::receipt(&hash)).await.map_err(|error| error.to_string())?;
        let receipt = node::read_receipt(&answer, &hash).map_err(|error| error.to_string())?;
        Ok(receipt.and_then(|receipt| Some((receipt.block, evidence::transfer(&receipt, payment)?))))
    }
}
