//! A Solana chain as a witness for payments that somebody else submits: did this transaction carry it, and what became of it?

use std::cell::RefCell;
use std::collections::{HashMap, HashSet, hash_map};

use tokio::time::{Duration, Instant, sleep};

use super::address::Pubkey;
use super::check;
use super::evidence;
use super::node::{self, Entry, Landed, Level, Node, PAGE, Shown};
use super::reason;
use super::token::Token;
use super::verified::Verified;
use crate::chain::client::JsonClient;
use crate::chain::handle::Closed;
use crate::chain::rpc::{Rpc, RpcError, Whom};
use crate::chain::witness::{Stands, Trace};
use crate::chain::{Confirmation, Settlement};
use crate::clock::Timestamp;
use crate::ids::PaymentId;
use crate::money::Micros;

/// A transaction is over for good so many seconds after it was verified, by the chain's own clock: 150 blocks take about one
/// minute, and a chain that stands still keeps its clock.
const OVER_AFTER: u64 = 600;
/// Between two searches for a payment that is over.
const AGAIN: Duration = Duration::from_secs(2);
/// How far apart the clocks of the chain and ours may be, in seconds.
const APART: u64 = 300;
/// Pages of an account's history that are read for one payment, or for what came in.
pub(super) const PAGES: usize = 50;
/// So many seconds after something happened a node may have forgotten it.
pub(super) const REMEMBERED: u64 = 7200;

/// Between two searches for a payment that is not over: the first, and the longest.
const FIRST_GAP: Duration = Duration::from_millis(500);
const LONGEST_GAP: Duration = Duration::from_secs(60);
/// A page of which no answer can be read is asked for by halves, down to so many lines: fewer are not too long for an answer.
const SHORTEST_PAGE: u32 = 250;
/// Searches that are remembered before old ones are forgotten.
const SEARCHES: usize = 1000;

/// A network's nodes, only ever asked.
pub struct Ledger {
    pub(super) node: Node,
    pub(super) token: Token,
    searches: RefCell<HashMap<PaymentId, Search>>,
}

/// What looking for a payment among its payer's transactions has led to.
struct Search {
    last: Instant,
    /// Until the next, while the payment is not over.
    gap: Duration,
    /// Transactions that are not the payment's.
    others: HashSet<String>,
}

impl Ledger {
    pub fn new(client: JsonClient, urls: Vec<String>, token: Token) -> Ledger {
        Ledger { node: Node::new(Rpc::new(client, urls), &token.network), token, searches: RefCell::default() }
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

    /// What the chain has of this payout: in the transaction that we know, or in another one that says the same. Books that were put
    /// back may be of before it was signed, or asked for again.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn trace(&self, payment: &Verified, tx: &str) -> Result<Trace, String> {
        if !tx.is_empty()
            && let Some((tx, place)) = self.carried(payment, tx).await?
        {
            return Ok(Trace::Moved(tx, place));
        }
        if !self.remembers(payment).await {
            return Ok(Trace::Forgotten);
        }
        let alike = |landed: &Landed, tx: &str| evidence::pays_alike(landed, payment).then(|| (tx.to_owned(), true, landed.slot));
        let found = async { self.search(payment, &self.end(payment).await?, alike).await };
        let found = found.await.map_err(|error| error.to_string())?;
        Ok(found.map_or(Trace::Nothing, |(tx, ..)| Trace::Moved(tx, 0)))
    }

    /// Whether every node shows that it keeps what was on the chain when this payment was brought, and since.
    async fn remembers(&self, payment: &Verified) -> bool {
        let since = payment.presented.verified_at.secs().saturating_sub(APART);
        // Whichever answers.
        for source in self.node.sources() {
            if !self.node.remembers(source, since).await {
                return false;
            }
        }
        true
    }

    /// Whether the nodes are those of the chain, the token is the one we quote, and our account takes it.
    ///
    /// # Errors
    /// What is wrong, for the operator.
    pub async fn check(&self, now: Timestamp) -> Result<(), Closed> {
        self.node.any(|| check::check_token(&self.node, &self.token, None, now)).await.map(|_| ())
    }

    /// What the token account of `pay_to` has now.
    ///
    /// # Errors
    /// Why no node could say.
    pub async fn held(&self) -> Result<Micros, String> {
        let text = |error: RpcError| error.to_string();
        let answer = self.node.call(node::accounts(&[self.token.account])).await.map_err(text)?;
        let accounts = node::read_accounts(&answer, 1).map_err(text)?;
        let account = accounts[0].as_ref().and_then(check::TokenAccount::read);
        let account = account.ok_or_else(|| format!("{} is no token account", self.token.account))?;
        Ok(Micros::new(account.amount))
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
        let verdict = self.look(payment, tx, safe_above).await;
        if let Ok(Some(_)) = verdict {
            self.searches.borrow_mut().remove(&payment.id());
        }
        verdict.map_err(|error| error.to_string())
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
        if !end.over && !self.is_due(payment) {
            return Ok(None);
        }
        self.search(payment, end, |landed, tx| carries(landed, payment, tx)).await
    }

    /// Whether it is time to search for a payment that is not over, ever more seldom.
    fn is_due(&self, payment: &Verified) -> bool {
        let (mut searches, now) = (self.searches.borrow_mut(), Instant::now());
        if searches.len() >= SEARCHES {
            searches.retain(|_, search| search.last.elapsed() < 2 * LONGEST_GAP);
        }
        match searches.entry(payment.id()) {
            hash_map::Entry::Vacant(place) => {
                place.insert(Search { last: now, gap: FIRST_GAP, others: HashSet::new() });
                true
            }
            hash_map::Entry::Occupied(mut known) if known.get().last.elapsed() >= known.get().gap => {
                let search = known.get_mut();
                (search.last, search.gap) = (now, (search.gap * 2).min(LONGEST_GAP));
                true
            }
            hash_map::Entry::Occupied(_) => false,
        }
    }

    /// Reads the history of the payer's account back to before the payment, for the newest that `carries` it. Only then it is not
    /// there.
    async fn search(
        &self,
        payment: &Verified,
        end: &End,
        carries: impl Fn(&Landed, &str) -> Option<Found>,
    ) -> Result<Option<Found>, RpcError> {
        let window = Window::of(payment);
        let (mut before, mut limit) = (None, PAGE);
        for _ in 0..PAGES {
            let page = self.page(payment.source(), before.as_deref(), end.slot, &mut limit).await?;
            for tx in window.candidates(&page).filter(|tx| !self.is_ruled_out(payment, tx)) {
                match self.node.shown(tx).await? {
                    Shown::Landed(landed) => {
                        if let Some(found) = carries(&landed, tx) {
                            return Ok(Some(found));
                        }
                    }
                    Shown::Foreign => {}
                    Shown::Nothing => {
                        self.node.pass_over(self.node.asking());
                        return Err(RpcError::Unreachable("the node names a transaction that it does not show".into()));
                    }
                }
                if let Some(search) = self.searches.borrow_mut().get_mut(&payment.id()) {
                    search.others.insert(tx.to_owned());
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

    fn is_ruled_out(&self, payment: &Verified, tx: &str) -> bool {
        self.searches.borrow().get(&payment.id()).is_some_and(|search| search.others.contains(tx))
    }

    /// One page of an account's history, a shorter one if that cannot be read.
    pub(super) async fn page(
        &self,
        account: Pubkey,
        before: Option<&str>,
        slot: u64,
        limit: &mut u32,
    ) -> Result<Vec<Entry>, RpcError> {
        loop {
            let asking = self.node.asking();
            let asked = async {
                let [page] = self.node.batch_here([node::history(account, before, slot, *limit)]).await?;
                node::read_history(&page?)
            };
            match self.node.heed(asking, asked.await) {
                Err(_) if *limit > SHORTEST_PAGE => *limit /= 2,
                page => return page,
            }
        }
    }

    /// Whether the transaction can land no more, wherever it is.
    async fn end(&self, payment: &Verified) -> Result<End, RpcError> {
        let asking = self.node.asking();
        let calls = [node::is_valid(&payment.recent_blockhash()), node::accounts(&[node::clock_key()])];
        let asked = async {
            let [alive, clock] = self.node.batch_here(calls).await?;
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

/// Which transactions of a history may be the payment's.
struct Window {
    /// UNIX seconds, by our clock.
    verified_at: u64,
    /// What it says, if it says anything: our offers never say the same twice.
    memo: Option<String>,
}

impl Window {
    fn of(payment: &Verified) -> Window {
        Window { verified_at: payment.presented.verified_at.secs(), memo: payment.memo().map(str::to_owned) }
    }

    /// A chain that stood still lands what it was given long after by its clock, so there is no end.
    fn candidates<'a>(&self, page: &'a [Entry]) -> impl Iterator<Item = &'a str> {
        let first = self.verified_at.saturating_sub(APART);
        let says = |said: &String| self.memo.as_ref().is_some_and(|memo| said.contains(memo));
        let may_be = move |entry: &&Entry| entry.time.is_none_or(|time| time >= first) && entry.memo.as_ref().is_none_or(says);
        page.iter().filter(may_be).map(|entry| entry.tx.as_str())
    }

    /// Whether a page, and so every page behind it, reaches back to before the payment.
    fn is_behind(&self, page: &[Entry]) -> bool {
        page.iter().filter_map(|entry| entry.time).any(|time| time < self.verified_at.saturating_sub(APART))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(tx: &str, time: impl Into<Option<u64>>, memo: Option<&str>) -> Entry {
        Entry { tx: tx.into(), slot: 1, time: time.into(), memo: memo.map(str::to_owned) }
    }

    fn window() -> Window {
        Window { verified_at: 10_000, memo: Some("ours".into()) }
    }

    #[test]
    fn only_what_happened_since_a_payment_and_may_say_what_it_says_is_looked_at() {
        let (ours, window) = (Some("[4] ours"), window());
        let page = [
            entry("by a chain that stood still", 90_000, ours),
            entry("at once", 10_000, ours),
            entry("for another offer", 10_000, Some("[5] other")),
            entry("nobody knows what", 10_000, None),
            entry("nobody knows when", None, Some("[5] other; [4] ours")),
            entry("by a clock that is behind", 9_700, ours),
            entry("before", 9_699, ours),
        ];
        let candidates: Vec<_> = window.candidates(&page).collect();
        let expected =
            ["by a chain that stood still", "at once", "nobody knows what", "nobody knows when", "by a clock that is behind"];
        assert_eq!(candidates, expected);
        let silent = Window { memo: None, ..window };
        assert_eq!(silent.candidates(&page).collect::<Vec<_>>(), ["nobody knows what"]);
    }

    #[test]
    fn a_history_that_does_not_reach_back_to_before_a_payment_says_nothing_against_it() {
        let window = window();
        assert!(!window.is_behind(&[]));
        assert!(!window.is_behind(&[entry("a", 10_500, None), entry("b", 9_700, None), entry("c", None, None)]));
        assert!(window.is_behind(&[entry("a", 10_500, None), entry("b", 9_699, None)]));
    }
}
