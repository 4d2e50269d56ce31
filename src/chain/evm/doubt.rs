//! What is concluded when a payment's authorization is used up or over, and no receipt of ours shows that it paid.

use tracing::error;

use super::attempt::Progress;
use super::evidence::{self, Elsewhere, expired, spent};
use super::hex;
use super::node::{Block, Receipt};
use super::settle::{Ended, Halt, Settler};
use super::transaction::Signed;
use super::verified::Verified;
use crate::chain::Settlement;

impl Settler {
    /// The authorization is past its end or too close to it, or its buyer was told that it failed. It has failed once a block
    /// that is final is past the end, nobody had used it by the latest block, and nothing of ours blocks the line.
    pub(super) async fn after_expiry(
        &self,
        payment: &Verified,
        tries: &mut Vec<Signed>,
        latest: &Block,
        progress: &mut Progress,
    ) -> Result<Option<Ended>, Halt> {
        let over = progress.told || latest.timestamp >= evidence::end(payment);
        // Ours cannot land any more, or shall not. The line comes first, because the question below may never be answered,
        // and others wait behind this nonce.
        let clear = if over { self.clear_line(payment, tries, latest, progress).await } else { Ok(false) };
        if let Err(Halt::Closed) = clear {
            return Err(Halt::Closed);
        }
        progress.clear = matches!(clear, Ok(true));
        match self.elsewhere(payment, latest, progress).await? {
            Elsewhere::Paid(confirmation) => self.deep(payment, confirmation, latest).await,
            Elsewhere::Spent { tx, block } => self.after_spent(payment, tries, (tx, block), latest, progress).await,
            Elsewhere::Unexplained => self.after_unexplained(payment, tries, latest, progress).await,
            Elsewhere::Unused => {
                Ok((clear? && evidence::is_over(&self.node, payment, latest).await?).then(|| Ended::Proven(expired())))
            }
        }
    }

    /// What a step led to for which nothing of ours was signed: of a payout a failure is none yet, because its authorization was
    /// shown to a node and can be submitted until its end, or until what used it up is final.
    pub(super) fn while_it_may_land(&self, payment: &Verified, ended: Option<Ended>) -> Option<Ended> {
        match ended {
            Some(Ended::Proven(failed @ Settlement::Failed { .. })) if self.journal.is_outgoing(payment.id()) => {
                Some(Ended::SoFar(failed))
            }
            ended => ended,
        }
    }

    /// The authorization is used up for something else. Nothing of ours may block the line when that is told.
    pub(super) async fn after_spent(
        &self,
        payment: &Verified,
        tries: &mut Vec<Signed>,
        (tx, block): ([u8; 32], u64),
        latest: &Block,
        progress: &mut Progress,
    ) -> Result<Option<Ended>, Halt> {
        if carries(tries, &tx) {
            return Ok(contradiction(payment, &tx, progress));
        }
        let clear = self.clear_line(payment, tries, latest, progress).await?;
        if clear { self.spent(payment, block, latest).await } else { Ok(None) }
    }

    /// The authorization was used up in `block` for something else, while a transaction of ours may be under way.
    pub(super) async fn spent(&self, payment: &Verified, block: u64, latest: &Block) -> Result<Option<Ended>, Halt> {
        if !self.is_deep(payment, block, latest).await? {
            return Ok(None);
        }
        let is_final = self.node.finalized().await?.number >= block;
        Ok(Some(if is_final { Ended::Proven(spent()) } else { Ended::SoFar(spent()) }))
    }

    /// The authorization is used up, and no node shows for what.
    pub(super) async fn after_unexplained(
        &self,
        payment: &Verified,
        tries: &mut Vec<Signed>,
        latest: &Block,
        progress: &mut Progress,
    ) -> Result<Option<Ended>, Halt> {
        // Finality takes long; the line is freed before, as soon as a node behind with its events is unlikely.
        let likely = progress.unexplained_since(latest).is_some();
        let clear = likely && self.clear_line(payment, tries, latest, progress).await?;
        if !clear || !self.stays_unexplained(latest, progress).await? {
            return Ok(None);
        }
        self.unless_ours(payment, tries, progress).await
    }

    /// An inexplicable "used up" that stays is somebody else's doing only if all of ours are accounted for: every nonce that we
    /// signed with has a receipt, of a transfer that reverted or of a transaction that moves nothing, in a block that is
    /// final. A node that knows what an account sent and what a token keeps may still be behind with receipts and events;
    /// then the transfer that used the authorization up is most likely ours.
    async fn unless_ours(&self, payment: &Verified, tries: &[Signed], progress: &mut Progress) -> Result<Option<Ended>, Halt> {
        let hashes: Vec<_> = tries.iter().map(|signed| signed.hash).collect();
        let horizon = self.node.finalized().await?.number;
        let (receipts, _) = self.node.our_receipts(&hashes).await?;
        let harmless = |signed: &Signed, receipt: &Receipt| {
            receipt.block <= horizon && (!receipt.succeeded || signed.transaction.data.is_empty())
        };
        let done: Vec<_> = tries
            .iter()
            .zip(&receipts)
            .filter(|(signed, receipt)| receipt.as_ref().is_some_and(|receipt| harmless(signed, receipt)))
            .map(|(signed, _)| (signed.from, signed.transaction.nonce))
            .collect();
        // Only `pay_to` signs for the name of a payout: one that is used up was paid, or taken back, and one of both is shown one day.
        if self.journal.is_outgoing(payment.id()) {
            return Ok(match tries.last() {
                Some(last) => contradiction(payment, &last.hash, progress),
                None => Some(Ended::SoFar(spent())),
            });
        }
        Ok(match tries.iter().find(|signed| !done.contains(&(signed.from, signed.transaction.nonce))) {
            Some(missing) => contradiction(payment, &missing.hash, progress),
            None => Some(Ended::Proven(spent())),
        })
    }

    /// Where the authorization went. An answer that explains it, or calls it unused, starts the wait for an explanation anew.
    pub(super) async fn elsewhere(&self, payment: &Verified, latest: &Block, progress: &mut Progress) -> Result<Elsewhere, Halt> {
        let elsewhere = evidence::elsewhere(&self.node, payment, latest).await?;
        if elsewhere == Elsewhere::Unexplained {
            progress.unexplained(latest);
        } else {
            progress.explained();
        }
        Ok(elsewhere)
    }

    /// Whether an inexplicable "used up" is to be believed: it was told for a while and for several blocks, and since before
    /// a block that is final now, so that neither a node behind with its events nor a reorganisation explains it.
    pub(super) async fn stays_unexplained(&self, latest: &Block, progress: &Progress) -> Result<bool, Halt> {
        Ok(match progress.unexplained_since(latest) {
            Some(first) => self.node.finalized().await?.number >= first,
            None => false,
        })
    }
}

/// Whether this is a transfer of ours, as opposed to a transaction that only frees a nonce.
pub fn carries(tries: &[Signed], tx: &[u8; 32]) -> bool {
    tries.iter().any(|signed| signed.hash == *tx && !signed.transaction.data.is_empty())
}

/// Our transfer succeeded and the events of the token do not show it, or the authorization is used up and a transaction of
/// ours that may have done it has no receipt: what the nodes say is incomplete, or the token is not what we take it for. The
/// money may have moved, so the payment has not failed; it stays open until the events appear or somebody looks.
pub fn contradiction(payment: &Verified, tx: &[u8; 32], progress: &mut Progress) -> Option<Ended> {
    if !std::mem::replace(&mut progress.contradicted, true) {
        let (id, tx) = (payment.id(), hex::encode(tx));
        error!(payment = %id, %tx, "our transfer has very likely moved the money, but no node shows it; this payment stays open");
    }
    None
}
