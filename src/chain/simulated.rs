//! An in-process chain that moves nothing, so that everything around payments works with no account anywhere.

use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::sync::Arc;

use tokio::time::{Duration, sleep};
use tracing::{error, info};

use super::evm::{hex, keccak};
use super::handle::Entry;
use super::open::Hearing;
use super::payment::{Transfer, VerifiedPayment};
use super::solana::Blockhash;
use super::solana::address::Pubkey;
use super::{Attempt, Confirmation, Journal, JournalClosed, Refused, Settlement, reason};
use crate::ids::PaymentId;

/// How long a block takes here.
const BLOCK_TIME: Duration = Duration::from_millis(20);

/// Every wallet has unlimited money here, and none has code. What was used is forgotten when the program ends; the ledger
/// remembers.
pub(super) struct Simulated {
    used: RefCell<HashSet<PaymentId>>,
    height: Cell<u64>,
    entry: Arc<Entry>,
    journal: Arc<dyn Journal>,
}

/// Who pays fees here, where fees are paid by somebody: nobody has its key.
pub(super) const FEE_PAYER: Pubkey = Pubkey([b'f'; 32]);

impl Simulated {
    pub fn new(entry: Arc<Entry>, journal: Arc<dyn Journal>) -> Simulated {
        Simulated { used: RefCell::default(), height: Cell::new(0), entry, journal }
    }

    /// A blockhash for offers; none is ever too old here.
    pub fn freshen(&self) {
        let hash = keccak(&[&b"simulated"[..], &self.height.get().to_be_bytes()].concat());
        self.entry.note_blockhash(Blockhash { hash, last_valid: u64::MAX });
    }

    pub fn simulate(&self, payment: &VerifiedPayment) -> Result<(), Refused> {
        if let Some(refused) = payment.unproven() {
            return Err(refused);
        }
        if self.used.borrow().contains(&payment.id()) {
            return Err(Refused::Invalid { reason: reason::NONCE_USED, message: "this authorization was used already".into() });
        }
        Ok(())
    }

    /// Journals the same steps in the same order as a real chain.
    pub async fn run(
        &self,
        payment: &VerifiedPayment,
        attempts: &[Attempt],
        confirmed: Option<Confirmation>,
        hearing: &Hearing,
    ) -> Result<(), JournalClosed> {
        if attempts.iter().any(|attempt| !attempt.raw.is_empty()) {
            error!(
                payment = %payment.id(),
                "this payment was signed on the real chain and stays open: set the network's settlement back to what it was"
            );
            return Ok(());
        }
        let outcome = match confirmed {
            Some(confirmation) => Settlement::Confirmed(confirmation),
            None => self.settle(payment, !attempts.is_empty()).await?,
        };
        hearing.tell(&outcome);
        if matches!(outcome, Settlement::Confirmed(_)) {
            self.journal.finalized(payment.id());
        }
        Ok(())
    }

    async fn settle(&self, payment: &VerifiedPayment, resumed: bool) -> Result<Settlement, JournalClosed> {
        let id = payment.id();
        if let Err(Refused::Invalid { reason, message }) = self.simulate(payment) {
            let outcome = Settlement::Failed { reason, message };
            self.journal.settled(id, outcome.clone()).await?;
            return Ok(outcome);
        }
        let hash = keccak(&[&b"simulated"[..], &id.0].concat());
        let tx = match payment.transfer() {
            Transfer::Evm(_) => hex::encode(&hash),
            // As long as a signature.
            Transfer::Solana(_) => bs58::encode([hash, id.0].concat()).into_string(),
        };
        if !resumed {
            self.journal.signed(id, Attempt { tx: tx.clone(), raw: Vec::new(), bound_to: 0 }).await?;
        }
        self.used.borrow_mut().insert(id);
        self.journal.sent(id);
        sleep(BLOCK_TIME).await;
        self.height.set(self.height.get() + 1);
        let outcome = Settlement::Confirmed(Confirmation { tx, block: self.height.get() });
        self.journal.settled(id, outcome.clone()).await?;
        info!(payment = %id, "SIMULATED settlement: no money was moved");
        Ok(outcome)
    }
}
