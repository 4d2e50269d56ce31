//! Witness, the chain as it is asked about payments that somebody else submits, whatever its family.

use super::client::JsonClient;
use super::evm::{self, Depth};
use super::handle::Closed;
use super::payment::{Transfer, VerifiedPayment};
use super::token::Token;
use super::treasury::Arrival;
use super::{Confirmation, Settlement, solana};
use crate::clock::Timestamp;
use crate::money::Micros;

/// A network's nodes, only ever asked. A further family is one more arm.
pub(super) enum Witness {
    Evm(Box<evm::Ledger>),
    Solana(Box<solana::Ledger>),
}

/// Whether a transfer that was confirmed is still on the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Stands {
    Final,
    /// Its block can still be replaced.
    Yet,
    Not,
}

/// What a chain has of a payment that the books say never arrived.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Trace {
    Nothing,
    /// Its transfer, in this transaction and at this place there.
    Moved(String, usize),
    /// It was so long ago that some node may not know any more.
    Forgotten,
}

/// Said of a payment that was settled on another kind of chain than is asked.
const ANOTHER_FAMILY: &str = "the payment is of another chain family";

impl Witness {
    /// `None` where no nodes are named.
    pub fn new(client: JsonClient, urls: Vec<String>, token: Token) -> Option<Witness> {
        match token {
            _ if urls.is_empty() => None,
            Token::Evm(token) => Some(Witness::Evm(Box::new(evm::Ledger::new(client, urls, token)))),
            Token::Solana(token) => Some(Witness::Solana(Box::new(solana::Ledger::new(client, urls, token)))),
        }
    }

    /// Where the transfer of exactly this payment stands, as its transaction and its position there; `None` when the
    /// transaction is not on the chain or does not carry it.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn carried(&self, payment: &VerifiedPayment, tx: &str) -> Result<Option<(String, usize)>, String> {
        match (self, payment.transfer()) {
            (Witness::Evm(ledger), Transfer::Evm(payment)) => ledger.carried(payment, tx).await,
            (Witness::Solana(ledger), Transfer::Solana(payment)) => ledger.carried(payment, tx).await,
            (Witness::Evm(_), Transfer::Solana(_)) | (Witness::Solana(_), Transfer::Evm(_)) => Err(ANOTHER_FAMILY.into()),
        }
    }

    /// What there is of a payment that the books say never arrived, whose last transaction, if there was one, was `tx`.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn trace(&self, payment: &VerifiedPayment, tx: &str) -> Result<Trace, String> {
        match (self, payment.transfer()) {
            (Witness::Evm(ledger), Transfer::Evm(payment)) => ledger.trace(payment, tx).await,
            (Witness::Solana(ledger), Transfer::Solana(payment)) => ledger.trace(payment, tx).await,
            (Witness::Evm(_), Transfer::Solana(_)) | (Witness::Solana(_), Transfer::Evm(_)) => Err(ANOTHER_FAMILY.into()),
        }
    }

    /// What `pay_to` has of the token now.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn held(&self) -> Result<Micros, String> {
        match self {
            Witness::Evm(ledger) => ledger.held().await,
            Witness::Solana(ledger) => ledger.held().await,
        }
    }

    /// What came in at `pay_to` since a moment, the oldest first. What `is_known`, by its transaction, may be left out.
    ///
    /// # Errors
    /// Why nobody could say.
    pub async fn arrivals(&self, since: Timestamp, is_known: &dyn Fn(&str) -> bool) -> Result<Vec<Arrival>, String> {
        match self {
            Witness::Evm(ledger) => ledger.arrivals(since).await,
            Witness::Solana(ledger) => ledger.arrivals(since, is_known).await,
        }
    }

    /// What left `pay_to` since a moment, the oldest first.
    ///
    /// # Errors
    /// As [`Witness::arrivals`].
    pub async fn departures(&self, since: Timestamp, is_known: &dyn Fn(&str) -> bool) -> Result<Vec<Arrival>, String> {
        match self {
            Witness::Evm(ledger) => ledger.departures(since).await,
            Witness::Solana(ledger) => ledger.departures(since, is_known).await,
        }
    }

    /// Whether the nodes are those of the chain, and the token is the one we quote.
    ///
    /// # Errors
    /// What is wrong, for the operator.
    pub async fn check(&self, now: Timestamp) -> Result<(), Closed> {
        match self {
            Witness::Evm(ledger) => ledger.check(now).await,
            Witness::Solana(ledger) => ledger.check(now).await,
        }
    }

    /// Whether the chain's clock and ours agree.
    ///
    /// # Errors
    /// Which way they disagree and by how much, or why no node could say.
    pub async fn agree_on_time(&self, now: Timestamp) -> Result<(), Closed> {
        match self {
            Witness::Evm(ledger) => ledger.agree_on_time(now).await,
            Witness::Solana(ledger) => ledger.agree_on_time(now).await,
        }
    }

    /// The blockhash that offers may name, on chains that have such.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn blockhash(&self) -> Result<Option<solana::Blockhash>, String> {
        match self {
            Witness::Evm(_) => Ok(None),
            Witness::Solana(ledger) => ledger.blockhash().await.map(Some),
        }
    }

    /// Whether the transfer that was found is still there.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn stands(&self, payment: &VerifiedPayment, found: &Confirmation) -> Result<Stands, String> {
        match (self, payment.transfer()) {
            (Witness::Evm(ledger), Transfer::Evm(payment)) => ledger.stands(payment, found).await,
            (Witness::Solana(ledger), Transfer::Solana(payment)) => ledger.stands(payment, found).await,
            (Witness::Evm(_), Transfer::Solana(_)) | (Witness::Solana(_), Transfer::Evm(_)) => Err(ANOTHER_FAMILY.into()),
        }
    }

    /// What the chain proves about a payment that somebody else submits, perhaps in transaction `tx`; `None` while nothing is
    /// proven.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn verdict(&self, payment: &VerifiedPayment, tx: Option<&str>, depth: Depth) -> Result<Option<Settlement>, String> {
        match (self, payment.transfer()) {
            (Witness::Evm(ledger), Transfer::Evm(payment)) => ledger.verdict(payment, tx, depth).await,
            (Witness::Solana(ledger), Transfer::Solana(payment)) => ledger.verdict(payment, tx, depth.safe_above).await,
            (Witness::Evm(_), Transfer::Solana(_)) | (Witness::Solana(_), Transfer::Evm(_)) => Err(ANOTHER_FAMILY.into()),
        }
    }
}
