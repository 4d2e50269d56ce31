//! The ledger as the chain sees it: a journal that makes each step of a settlement durable before the next.

use std::sync::Arc;

use super::trust::Trust;
use crate::chain::{Attempt, Journal, JournalClosed, JournalFuture, Settlement};
use crate::clock::Clock;
use crate::ids::PaymentId;
use crate::ledger::{self, Denied, Durable, Ledger};

pub(super) struct LedgerJournal {
    ledger: Ledger,
    trust: Arc<Trust>,
    clock: Clock,
}

impl LedgerJournal {
    /// `clock` must not jump.
    pub fn new(ledger: Ledger, trust: Arc<Trust>, clock: Clock) -> Self {
        LedgerJournal { ledger, trust, clock }
    }
}

impl Journal for LedgerJournal {
    fn signed(&self, id: PaymentId, attempt: Attempt) -> JournalFuture {
        let attempt = ledger::Attempt { tx: attempt.tx, raw: attempt.raw, bound_to: attempt.bound_to };
        durable(self.ledger.signed(id, attempt))
    }

    fn sent(&self, id: PaymentId) {
        note(id, "sent", self.ledger.sent(id));
    }

    fn wasted(&self, id: PaymentId) {
        // Without its row the ledger has stopped, and nothing is sold.
        if let Ok(Some(row)) = self.ledger.payment(id) {
            self.trust.note_waste(row.payer, self.clock.now());
        }
    }

    fn settled(&self, id: PaymentId, outcome: Settlement) -> JournalFuture {
        match outcome {
            Settlement::Confirmed(at) => durable(self.ledger.confirmed(id, &at.tx, at.block)),
            Settlement::Failed { reason, .. } => durable(self.ledger.failed(id, reason)),
        }
    }

    fn forgotten(&self, id: PaymentId) {
        note(id, "forgotten", self.ledger.forgotten(id));
    }

    fn unconfirmed(&self, id: PaymentId) {
        note(id, "reorged", self.ledger.reorged(id));
    }

    fn finalized(&self, id: PaymentId) {
        note(id, "finalized", self.ledger.finalized(id));
    }
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
