//! A Solana chain as a witness for payments that somebody else submits: did this transaction carry it, and what became of it?

use super::check;
use super::evidence;
use super::node::{self, Level, Node};
use super::reason;
use super::token::Token;
use super::verified::Verified;
use crate::chain::client::JsonClient;
use crate::chain::handle::Closed;
use crate::chain::rpc::{Rpc, RpcError};
use crate::chain::witness::Stands;
use crate::chain::{Confirmation, Settlement};
use crate::clock::Timestamp;
use crate::money::Micros;

/// A transaction is over for good so many seconds after it was verified, by the chain's own clock: 150 blocks take about one
/// minute, and a chain that stands still keeps its clock.
const OVER_AFTER: u64 = 600;
/// The latest transactions of a payer's account among which a payment is looked for.
const LATEST: u32 = 100;

/// A network's nodes, only ever asked.
pub struct Ledger {
    node: Node,
    token: Token,
}

impl Ledger {
    pub fn new(client: JsonClient, urls: Vec<String>, token: Token) -> Ledger {
        Ledger { node: Node::new(Rpc::new(client, urls)), token }
    }

    /// Where the transfer of exactly this payment stands: its transaction, of which it is the only transfer. `None` when the
    /// transaction is not on the chain or does not carry it.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn carried(&self, payment: &Verified, tx: &str) -> Result<Option<(String, usize)>, String> {
        let landed = self.node.transaction(tx).await.map_err(|error| error.to_string())?;
        Ok(landed.filter(|landed| evidence::pays(landed, payment)).map(|_| (tx.to_owned(), 0)))
    }

    /// Whether the nodes are those of the chain, the token is the one we quote, and our account takes it.
    ///
    /// # Errors
    /// What is wrong, for the operator.
    pub async fn check(&self, now: Timestamp) -> Result<(), Closed> {
        self.node.any(|| check::check_token(&self.node, &self.token, None, now)).await.map(|_| ())
    }

    /// Whether the chain's clock and ours agree.
    ///
    /// # Errors
    /// Which way they disagree and by how much, or why no node could say.
    pub async fn agree_on_time(&self, now: Timestamp) -> Result<(), Closed> {
        self.node.any(|| check::agree_on_time(&self.node, &self.token, now)).await
    }

    /// The blockhash for offers.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn blockhash(&self) -> Result<node::Blockhash, String> {
        self.node.blockhash().await.map_err(|error| error.to_string())
    }

    /// Whether the transfer that was found is still there.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn stands(&self, payment: &Verified, found: &Confirmation) -> Result<Stands, String> {
        self.standing(payment, &found.tx).await.map_err(|error| error.to_string())
    }

    async fn standing(&self, payment: &Verified, tx: &str) -> Result<Stands, RpcError> {
        let landed = self.node.transaction(tx).await?;
        if !landed.is_some_and(|landed| evidence::pays(&landed, payment)) {
            return Ok(Stands::Not);
        }
        Ok(match self.level(tx).await? {
            Some(Level::Finalized) => Stands::Final,
            _ => Stands::Yet,
        })
    }

    /// How sure the chain is of a transaction; `None` where it is not on the chain, or is not named as transactions are.
    async fn level(&self, tx: &str) -> Result<Option<Level>, RpcError> {
        let Some(signature) = super::signature(tx) else { return Ok(None) };
        Ok(self.node.look(signature).await?.status.map(|status| status.level))
    }

    /// What the chain proves about a payment that somebody else submits, perhaps in transaction `tx`; `None` while nothing is
    /// proven. Above `safe_above` a transfer is believed when it is final, and a failure always.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn verdict(&self, payment: &Verified, tx: Option<&str>, safe_above: Micros) -> Result<Option<Settlement>, String> {
        self.look(payment, tx, safe_above).await.map_err(|error| error.to_string())
    }

    async fn look(&self, payment: &Verified, tx: Option<&str>, safe_above: Micros) -> Result<Option<Settlement>, RpcError> {
        // In this order: what is not found was looked for after the chain had been past the end.
        let over = self.is_over(payment).await?;
        let Some((tx, succeeded, block)) = self.find(payment, tx).await? else {
            return Ok(over.then(evidence::expired));
        };
        let level = self.level(&tx).await?;
        let wanted = if succeeded && payment.amount() <= safe_above { Level::Confirmed } else { Level::Finalized };
        if level.is_none_or(|level| level < wanted) {
            return Ok(None);
        }
        Ok(Some(match succeeded {
            true => Settlement::Confirmed(Confirmation { tx, block }),
            false => Settlement::Failed { reason: reason::TRANSACTION, message: evidence::FAILED.into() },
        }))
    }

    /// The transaction that carries this message: the one that is named, else one of the latest that name the payer's account.
    /// Its name, whether it moved the money, and its slot.
    async fn find(&self, payment: &Verified, tx: Option<&str>) -> Result<Option<(String, bool, u64)>, RpcError> {
        let mut names: Vec<_> = tx.map(str::to_owned).into_iter().collect();
        if names.is_empty() {
            let latest = self.node.call(node::signatures_for(payment.source(), LATEST)).await?;
            names = node::read_signatures(&latest)?;
        }
        for name in names {
            let Some(landed) = self.node.transaction(&name).await? else { continue };
            if landed.transaction.message == payment.transaction().message {
                let pays = evidence::pays(&landed, payment);
                // A success that moved nothing is no answer that makes sense.
                return Ok((pays || !landed.succeeded).then_some((name, pays, landed.slot)));
            }
        }
        Ok(None)
    }

    /// Whether the transaction can land no more, wherever it is.
    async fn is_over(&self, payment: &Verified) -> Result<bool, RpcError> {
        let calls = [node::is_valid(&payment.recent_blockhash()), node::accounts(&[node::clock_key()])];
        let [alive, clock] = self.node.batch(calls).await?;
        let alive = node::read_flag(&alive?, "isBlockhashValid")?;
        let clock = node::read_accounts(&clock?, 1)?.pop().flatten();
        let theirs = node::read_clock(clock.as_ref())?;
        Ok(!alive && theirs >= payment.presented.verified_at.secs().saturating_add(OVER_AFTER))
    }
}
