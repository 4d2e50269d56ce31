//! The ledger as the chain sees it: a journal that makes each step of a settlement durable before the next.

use std::sync::Arc;

use super::settle;
use super::waste::{Asking, Waste};
use crate::chain::{Attempt, Journal, JournalClosed, JournalFuture, Settlement};
use crate::clock::{Clock, Timestamp};
use crate::ids::PaymentId;
use crate::ledger::{self, Denied, Durable, Ledger, Payment, State};
use crate::metrics;
use crate::webhooks::{Event, Notices};

pub(super) struct LedgerJournal {
    ledger: Ledger,
    waste: Arc<Waste>,
    notices: Notices,
    clock: Clock,
}

impl LedgerJournal {
    /// `clock` must not jump.
    pub fn new(ledger: Ledger, waste: Arc<Waste>, notices: Notices, clock: Clock) -> Self {
        LedgerJournal { ledger, waste, notices, clock }
    }

    /// Does something with what is known of a payment. Without its row the ledger has stopped, and nothing is sold.
    fn with<T>(&self, id: PaymentId, act: impl FnOnce(&Waste, &Payment, Timestamp) -> T) -> Result<T, JournalClosed> {
        let row = self.ledger.payment(id).ok().flatten().ok_or(JournalClosed)?;
        Ok(act(&self.waste, &row, self.clock.now()))
    }

    /// Nothing is asked for a payout, whose fee nobody but the operator causes.
    fn asking<'a>(&self, row: &'a Payment, now: Timestamp) -> Result<Option<Asking<'a>>, JournalClosed> {
        match row.state {
            State::Claimed | State::Signed | State::Sent | State::Confirmed => {
                let is_theirs = row.payout.is_none();
                Ok(is_theirs.then(|| settle::asking(&self.ledger, &row.network, row.payer, now)))
            }
            State::Voided | State::Failed | State::Final => Err(JournalClosed),
        }
    }
}

impl Journal for LedgerJournal {
    fn may_sign(&self, id: PaymentId) -> Result<bool, JournalClosed> {
        self.with(id, |waste, row, now| Ok(self.asking(row, now)?.is_none_or(|asking| waste.has_room(id, asking))))?
    }

    fn risk(&self, id: PaymentId) -> Result<bool, JournalClosed> {
        self.with(id, |waste, row, now| Ok(self.asking(row, now)?.is_none_or(|asking| waste.risk(id, asking))))?
    }

    fn is_outgoing(&self, id: PaymentId) -> bool {
        self.with(id, |_, row, _| row.payout.is_some()).unwrap_or(false)
    }

    fn signed(&self, id: PaymentId, attempt: Attempt) -> JournalFuture {
        let attempt = ledger::Attempt { tx: attempt.tx, raw: attempt.raw, bound_to: attempt.bound_to };
        let signed = self.ledger.signed(id, attempt);
        if signed.is_err() {
            // It is never sent.
            self.landed(id);
        }
        durable(signed)
    }

    fn sent(&self, id: PaymentId) {
        note(id, "sent", self.ledger.sent(id));
    }

    fn landed(&self, id: PaymentId) {
        // Without its row nothing is sold any more, and nothing counts.
        let _ = self.with(id, |waste, row, _| waste.over(&row.network, id));
    }

    fn paid_fee(&self, id: PaymentId, tx: &str, amount: u64) {
        note(id, "fee", self.ledger.paid_fee(id, tx, amount));
    }

    fn wasted(&self, id: PaymentId) {
        let _ = self.with(id, |waste, row, now| {
            if row.payout.is_none() {
                waste.note_failure(&row.network, id, row.payer, now);
            }
        });
    }

    fn settled(&self, id: PaymentId, outcome: Settlement) -> JournalFuture {
        let _ = self.with(id, |waste, row, now| match outcome {
            _ if row.payout.is_some() => {}
            Settlement::Confirmed(_) => waste.note_arrival(&row.network, id, row.payer, row.amount(), now),
            Settlement::Failed { .. } => waste.note_silence(&row.network, id, now),
        });
        match outcome {
            Settlement::Confirmed(at) => {
                let new_top_up = self.ledger.payment(id).ok().flatten().filter(|row| row.top_up && row.outcome.is_none());
                let confirmed = durable(self.ledger.confirmed(id, &at.tx, at.block));
                match new_top_up {
                    Some(row) => topped_up(confirmed, self.notices.clone(), id, row, at.tx),
                    None => confirmed,
                }
            }
            Settlement::Failed { reason, .. } => durable(self.ledger.failed(id, reason)),
        }
    }

    fn forgotten(&self, id: PaymentId) {
        self.landed(id);
        note(id, "forgotten", self.ledger.forgotten(id));
    }

    fn unconfirmed(&self, id: PaymentId) {
        note(id, "reorged", self.ledger.reorged(id));
    }

    fn finalized(&self, id: PaymentId) {
        note(id, "finalized", self.ledger.finalized(id));
    }
}

/// A top-up that arrives for the first time is counted, and told of, once it is in the books.
fn topped_up(confirmed: JournalFuture, notices: Notices, id: PaymentId, row: Payment, tx: String) -> JournalFuture {
    Box::pin(async move {
        confirmed.await?;
        metrics::TOP_UPS.of(&[&row.network]).add(row.amount());
        notices.filled(row.payer);
        let (account, amount, network) = (row.payer, row.amount(), row.network);
        notices.tell(&Event::TopUp { account, amount, network, payment: id, tx });
        Ok(())
    })
}

fn durable(done: Result<Durable, Denied>) -> JournalFuture {
    Box::pin(async move {
        let durable = done.map_err(|_| JournalClosed)?;
        durable.wait().await.map_err(|_| JournalClosed)
    })
}

/// Notes that nobody waits for: the state they describe is found again on the chain.
fn note(id: PaymentId, step: &str, done: Result<(), Denied>) {
    if let Err(denied) = done {
        tracing::debug!(payment = %id, step, %denied, "not noted");
    }
}
