//! A Solana chain as a witness for payments that somebody else submits: did this transaction carry it, and what became of it?

use tokio::time::{Duration, sleep};

use super::check;
use super::evidence;
use super::node::{self, Entry, Landed, Level, Node, Shown};
use super::reason;
use super::token::Token;
use super::verified::Verified;
use crate::chain::client::JsonClient;
use crate::chain::handle::Closed;
use crate::chain::rpc::{Rpc, RpcError, Whom};
use crate::chain::witness::Stands;
use crate::chain::{Confirmation, Settlement};
use crate::clock::Timestamp;
use crate::money::Micros;

/// A transaction is over for good so many seconds after it was verified, by the chain's own clock: 150 blocks take about one
/// minute, and a chain that stands still keeps its clock.
const OVER_AFTER: u64 = 600;
/// Between two searches for a payment that is over.
const AGAIN: Duration = Duration::from_secs(2);
/// How far apart the clocks of the chain and ours may be, in seconds.
const APART: u64 = 300;
/// Pages of an account's history that are read for one payment.
const PAGES: usize = 50;
/// So many seconds after it was verified a node may have forgotten a payment.
const REMEMBERED: u64 = 7200;

/// A network's nodes, only ever asked.
pub struct Ledger {
    node: Node,
    token: Token,
}

impl Ledger {
    pub fn new(client: JsonClient, urls: Vec<String>, token: Token) -> Ledger {
        Ledger { node: Node::new(Rpc::new(client, urls), &token.network), token }
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
        Ok(self.node.look(signature, Whom::Any).await?.status.map(|status| status.level))
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
        let end = self.end(payment).await?;
        let mut found = self.find(payment, tx, &end).await?;
        if found.is_none() && end.over {
            // Nodes may be apart for a moment.
            self.node.pass_over(self.node.asking());
            sleep(AGAIN).await;
            found = self.find(payment, tx, &end).await?;
        }
        let Some((tx, succeeded, block)) = found else {
            return Ok(end.over.then(evidence::expired));
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

    /// The transaction that carries this message: the one that is named, else one of those that name the payer's account.
    async fn find(&self, payment: &Verified, tx: Option<&str>, end: &End) -> Result<Option<Found>, RpcError> {
        if let Some(tx) = tx {
            if let Shown::Landed(landed) = self.node.shown(tx).await?
                && let Some(found) = carries(&landed, payment, tx)
            {
                return Ok(Some(found));
            }
            if !end.over {
                return Ok(None);
            }
        }
        self.search(payment, end).await
    }

    /// Reads the history of the payer's account back to before the payment. Only then it is not there.
    async fn search(&self, payment: &Verified, end: &End) -> Result<Option<Found>, RpcError> {
        let window = Window::of(payment);
        let mut before: Option<String> = None;
        for _ in 0..PAGES {
            let page = self.node.call(node::history(payment.source(), before.as_deref(), end.slot)).await?;
            let page = node::read_history(&page)?;
            for tx in window.candidates(&page) {
                match self.node.shown(tx).await? {
                    Shown::Landed(landed) => {
                        if let Some(found) = carries(&landed, payment, tx) {
                            return Ok(Some(found));
                        }
                    }
                    Shown::Foreign => {}
                    Shown::Nothing => {
                        self.node.pass_over(self.node.asking());
                        return Err(RpcError::Unreachable("the node names a transaction that it does not show".into()));
                    }
                }
            }
            if window.is_behind(&page) {
                return Ok(None);
            }
            match page.last() {
                Some(last) => before = Some(last.tx.clone()),
                // All of a young account's history, or all that is left of it.
                None if end.seconds < window.verified_at.saturating_add(REMEMBERED) => return Ok(None),
                None => return Err(RpcError::Unreachable(FORGETFUL.into())),
            }
        }
        Err(RpcError::Unreachable("the payer's account has too much of a history since to be read".into()))
    }

    /// Whether the transaction can land no more, wherever it is.
    async fn end(&self, payment: &Verified) -> Result<End, RpcError> {
        let asking = self.node.asking();
        let calls = [node::is_valid(&payment.recent_blockhash()), node::accounts(&[node::clock_key()])];
        let asked = async {
            let [alive, clock] = self.node.batch(calls).await?;
            let (alive, clock) = (node::read_flag(&alive?, "isBlockhashValid")?, clock?);
            let slot = node::read_number(&clock["context"]["slot"], "getMultipleAccounts")?;
            let seconds = node::read_clock(node::read_accounts(&clock, 1)?.pop().flatten().as_ref())?;
            let over = !alive && seconds >= payment.presented.verified_at.secs().saturating_add(OVER_AFTER);
            Ok(End { over, slot, seconds })
        };
        self.node.heed(asking, asked.await)
    }
}

/// Said of a payment that no node may remember.
const FORGETFUL: &str = "the node's history does not reach back to this payment, which stays open: look it up, and name in \
                         rpc_urls a node that keeps all of the past";

/// How far the chain was when it was asked whether a payment's time is over.
struct End {
    over: bool,
    slot: u64,
    /// UNIX seconds.
    seconds: u64,
}

/// A transaction's name, whether it moved the money, and its slot.
type Found = (String, bool, u64);

/// `None` for a transaction that carries another message, and for a success that moved nothing, which makes no sense.
fn carries(landed: &Landed, payment: &Verified, tx: &str) -> Option<Found> {
    let pays = evidence::pays(landed, payment);
    let carries = landed.transaction.message == payment.transaction().message;
    (carries && (pays || !landed.succeeded)).then(|| (tx.to_owned(), pays, landed.slot))
}

/// When a payment can have landed, by the chain's clock.
struct Window {
    /// UNIX seconds, by our clock.
    verified_at: u64,
}

impl Window {
    fn of(payment: &Verified) -> Window {
        Window { verified_at: payment.presented.verified_at.secs() }
    }

    /// Which transactions of a page may be the payment's.
    fn candidates<'a>(&self, page: &'a [Entry]) -> impl Iterator<Item = &'a str> + use<'a> {
        let (first, last) = (self.verified_at.saturating_sub(APART), self.verified_at.saturating_add(OVER_AFTER + APART));
        let inside = move |entry: &&Entry| entry.time.is_none_or(|time| (first..=last).contains(&time));
        page.iter().filter(inside).map(|entry| entry.tx.as_str())
    }

    /// Whether a page, and so every page behind it, reaches back to before the payment.
    fn is_behind(&self, page: &[Entry]) -> bool {
        page.iter().filter_map(|entry| entry.time).any(|time| time < self.verified_at.saturating_sub(APART))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tx: &str, time: impl Into<Option<u64>>) -> Entry {
        Entry { tx: tx.into(), time: time.into() }
    }

    #[test]
    fn only_what_happened_at_the_time_of_a_payment_is_looked_at() {
        let window = Window { verified_at: 10_000 };
        let page = [
            entry("later", 10_901),
            entry("late", 10_900),
            entry("at once", 10_000),
            entry("nobody knows when", None),
            entry("by a clock that is behind", 9_700),
            entry("before", 9_699),
        ];
        let candidates: Vec<_> = window.candidates(&page).collect();
        assert_eq!(candidates, ["late", "at once", "nobody knows when", "by a clock that is behind"]);
    }

    #[test]
    fn a_history_that_does_not_reach_back_to_before_a_payment_says_nothing_against_it() {
        let window = Window { verified_at: 10_000 };
        assert!(!window.is_behind(&[]));
        assert!(!window.is_behind(&[entry("a", 10_500), entry("b", 9_700), entry("c", None)]));
        assert!(window.is_behind(&[entry("a", 10_500), entry("b", 9_699)]));
    }
}
