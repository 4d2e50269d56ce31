//! The chain as a witness for payments that somebody else submits: did this transaction carry it, and what became of it?

use tokio::time::{Duration, sleep};

use super::abi;
use super::check;
use super::evidence::{self, Depth, Elsewhere};
use super::hex;
use super::node::{self, Asked, Block, Node};
use super::token::Token;
use super::verified::Verified;
use crate::chain::client::JsonClient;
use crate::chain::handle::Closed;
use crate::chain::rpc::{Rpc, RpcError};
use crate::chain::witness::{Stands, Trace};
use crate::chain::{Confirmation, Settlement};
use crate::clock::Timestamp;
use crate::money::Micros;

/// How often a question about the past is asked that only one machine of several can answer yet, and what lies between.
const LOOKS: u32 = 4;
const AGAIN: Duration = Duration::from_secs(1);

/// A network's nodes, only ever asked.
pub struct Ledger {
    pub(super) node: Node,
    pub(super) token: Token,
}

impl Ledger {
    pub fn new(client: JsonClient, urls: Vec<String>, token: Token) -> Ledger {
        Ledger { node: Node::new(Rpc::new(client, urls)), token }
    }

    /// Where the transfer of exactly this payment stands, as its transaction and its position among the events of that;
    /// `None` when the transaction is not on the chain or does not carry it.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn carried(&self, payment: &Verified, tx: &str) -> Result<Option<(String, usize)>, String> {
        let Some(hash) = hex::fixed::<32>(tx) else { return Ok(None) };
        let answer = self.node.call(node::receipt(&hash)).await.map_err(|error| error.to_string())?;
        let receipt = node::read_receipt(&answer, &hash).map_err(|error| error.to_string())?;
        Ok(receipt.and_then(|receipt| Some((hex::encode(&receipt.tx), evidence::transfer(&receipt, payment)?))))
    }

    /// What the token has moved for this payment, perhaps in transaction `tx`.
    ///
    /// # Errors
    /// Why no node could say, also where the authorization is used up and nothing shows for what.
    pub async fn trace(&self, payment: &Verified, tx: &str) -> Result<Trace, String> {
        if let Some((tx, place)) = self.carried(payment, tx).await? {
            return Ok(Trace::Moved(tx, place));
        }
        let text = |error: RpcError| error.to_string();
        let latest = self.node.block("latest").await.map_err(text)?;
        for _ in 1..LOOKS {
            match self.trace_at(payment, &latest).await {
                // Not every machine behind one address has the newest block at once.
                Err(_) => sleep(AGAIN).await,
                Ok(trace) => return Ok(trace),
            }
        }
        self.trace_at(payment, &latest).await.map_err(text)
    }

    async fn trace_at(&self, payment: &Verified, latest: &Block) -> Asked<Trace> {
        let unreachable = |why: &str| RpcError::Unreachable(why.into());
        let tx = match evidence::elsewhere(&self.node, payment, latest).await? {
            Elsewhere::Unused => return Ok(Trace::Nothing),
            Elsewhere::Unexplained => {
                return Err(unreachable(
                    "its authorization is used up, and no node shows for what; look at the transfers of pay_to, and if it was paid, \
                     take it with farebox adjust by the id of the payout",
                ));
            }
            Elsewhere::Paid(found) => hex::fixed(&found.tx).ok_or_else(|| unreachable("the node named a transaction wrongly"))?,
            // Cancelled, or used before this payment was brought: for what, its transaction says.
            Elsewhere::Spent { tx, .. } => tx,
        };
        let receipt = node::read_receipt(&self.node.call(node::receipt(&tx)).await?, &tx)?;
        let receipt = receipt.ok_or_else(|| unreachable("the node does not have the transaction of an event it told"))?;
        let place = evidence::transfer(&receipt, payment);
        Ok(place.map_or(Trace::Nothing, |place| Trace::Moved(hex::encode(&tx), place)))
    }

    /// Whether the nodes are those of the chain, and the token is the one we quote.
    ///
    /// # Errors
    /// What is wrong, for the operator.
    pub async fn check(&self, now: Timestamp) -> Result<(), Closed> {
        self.node.any(|| check::check_token(&self.node, &self.token, now)).await.map(|_| ())
    }

    /// What `pay_to` has of the token now.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn held(&self) -> Result<Micros, String> {
        let text = |error: RpcError| error.to_string();
        let ask = node::view(self.token.asset, self.token.asset, &abi::balance_of(self.token.pay_to));
        let answer = node::read_bytes(&self.node.call(ask).await.map_err(text)?).map_err(text)?;
        let units = abi::word(&answer).and_then(|word| word.as_u64());
        units.map(Micros::new).ok_or_else(|| "the token's answer is no balance".to_owned())
    }

    /// Whether the chain's clock and ours agree.
    ///
    /// # Errors
    /// Which way they disagree and by how much, or why no node could say.
    pub async fn agree_on_time(&self, now: Timestamp) -> Result<(), Closed> {
        self.node.any(|| check::recent_agrees(&self.node, &self.token, now)).await
    }

    /// Whether the transfer that was found is still there. A node that does not have its block has no say.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn stands(&self, payment: &Verified, found: &Confirmation) -> Result<Stands, String> {
        let text = |error: RpcError| error.to_string();
        let Some(hash) = hex::fixed(&found.tx) else { return Ok(Stands::Not) };
        let horizon = self.node.finalized().await.map_err(text)?;
        let (receipts, latest) = self.node.receipts(&[hash]).await.map_err(text)?;
        Ok(match receipts.into_iter().flatten().find(|receipt| evidence::pays(receipt, payment)) {
            Some(receipt) if receipt.block <= horizon.number => Stands::Final,
            Some(_) => Stands::Yet,
            None if latest.number < found.block => Stands::Yet,
            None => Stands::Not,
        })
    }

    /// What the chain proves about a payment that somebody else submits, perhaps in transaction `tx`; `None` while nothing is
    /// proven. A failure is final, because somebody else may submit the payment at any time.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn verdict(&self, payment: &Verified, tx: Option<&str>, depth: Depth) -> Result<Option<Settlement>, String> {
        self.look(payment, tx, depth).await.map_err(|error| error.to_string())
    }

    async fn look(&self, payment: &Verified, tx: Option<&str>, depth: Depth) -> Asked<Option<Settlement>> {
        let hashes: Vec<_> = tx.and_then(hex::fixed).into_iter().collect();
        let (receipts, latest) = self.node.receipts(&hashes).await?;
        if let Some(receipt) = receipts.into_iter().flatten().find(|receipt| evidence::pays(receipt, payment)) {
            let found = Confirmation { tx: hex::encode(&receipt.tx), block: receipt.block };
            let deep = depth.reached(&self.node, payment, receipt.block, &latest).await?;
            return Ok(deep.then_some(Settlement::Confirmed(found)));
        }
        Ok(match evidence::elsewhere(&self.node, payment, &latest).await? {
            Elsewhere::Paid(found) => {
                let deep = depth.reached(&self.node, payment, found.block, &latest).await?;
                deep.then_some(Settlement::Confirmed(found))
            }
            Elsewhere::Spent { block, .. } => (self.node.finalized().await?.number >= block).then(evidence::spent),
            Elsewhere::Unused => evidence::is_over(&self.node, payment, &latest).await?.then(evidence::expired),
            Elsewhere::Unexplained => None,
        })
    }
}
