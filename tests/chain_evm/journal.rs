//! A journal in memory, which can behave as if the program was killed or the claim was voided.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU8, Ordering::SeqCst};

use farebox::chain::{Attempt, Journal, JournalClosed, JournalFuture, Settlement};
use farebox::ids::PaymentId;

/// What a journal was told, in order.
#[derive(Clone, Debug, PartialEq)]
pub enum Told {
    Signed(PaymentId, Attempt),
    Sent(PaymentId),
    Settled(PaymentId, Settlement),
    Forgotten(PaymentId),
    Unconfirmed(PaymentId),
    Finalized(PaymentId),
}

/// A journal in memory. With `crash` it keeps what it is told and then answers as a program does that was killed.
#[derive(Default)]
pub struct Memory {
    told: Mutex<Vec<Told>>,
    /// Payments whose failure cost a fee.
    pub wasted: Mutex<Vec<PaymentId>>,
    pub crash: AtomicU8,
}

pub const NEVER: u8 = 0;
pub const AFTER_SIGNED: u8 = 1;
pub const AFTER_SETTLED: u8 = 2;
/// The ledger refuses: the claim was voided.
pub const VOIDED: u8 = 3;

impl Memory {
    fn tell(&self, told: Told) {
        self.told.lock().unwrap().push(told);
    }

    pub fn told(&self) -> Vec<Told> {
        self.told.lock().unwrap().clone()
    }

    pub fn attempts(&self) -> Vec<Attempt> {
        let attempt = |told| if let Told::Signed(_, attempt) = told { Some(attempt) } else { None };
        self.told().into_iter().filter_map(attempt).collect()
    }

    fn answer(&self, crash: &[u8]) -> JournalFuture {
        let closed = crash.contains(&self.crash.load(SeqCst));
        Box::pin(async move { if closed { Err(JournalClosed) } else { Ok(()) } })
    }
}

impl Journal for Memory {
    fn signed(&self, id: PaymentId, attempt: Attempt) -> JournalFuture {
        if self.crash.load(SeqCst) != VOIDED {
            self.tell(Told::Signed(id, attempt));
        }
        self.answer(&[AFTER_SIGNED, VOIDED])
    }

    fn wasted(&self, id: PaymentId) {
        self.wasted.lock().unwrap().push(id);
    }

    fn sent(&self, id: PaymentId) {
        self.tell(Told::Sent(id));
    }

    fn settled(&self, id: PaymentId, outcome: Settlement) -> JournalFuture {
        if self.crash.load(SeqCst) != AFTER_SETTLED {
            self.tell(Told::Settled(id, outcome));
        }
        self.answer(&[AFTER_SETTLED])
    }

    fn forgotten(&self, id: PaymentId) {
        self.tell(Told::Forgotten(id));
    }

    fn unconfirmed(&self, id: PaymentId) {
        self.tell(Told::Unconfirmed(id));
    }

    fn finalized(&self, id: PaymentId) {
        self.tell(Told::Finalized(id));
    }
}
