//! The payments that are being settled now, so that a payment has one settlement however often it is asked for.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use tokio::sync::oneshot;

use super::{Settlement, VerifiedPayment};
use crate::ids::PaymentId;

/// Everybody who wants to hear how a payment ends.
type Tell = oneshot::Sender<Settlement>;

/// All settlements that are under way. A clone is the same list.
#[derive(Clone, Default)]
pub(super) struct Open(Rc<RefCell<HashMap<PaymentId, Entry>>>);

struct Entry {
    payment: VerifiedPayment,
    /// In the order in which they asked.
    waiting: Vec<Tell>,
    /// What was said last, for those who ask while the transfer is only watched.
    outcome: Option<Settlement>,
}

/// What asking for a settlement led to.
pub(super) enum Asked {
    /// Nobody is at it: whoever asked has to.
    Start(Hearing),
    /// One is under way, and whoever asked hears how it ends.
    Joined,
    /// One is under way under the same nonce for another transfer; nothing was noted.
    Taken,
}

/// How a settlement speaks to those who wait for it. When it is dropped, the settlement is over, and whoever was not told
/// learns that nobody knows.
pub(super) struct Hearing {
    open: Open,
    id: PaymentId,
}

impl Open {
    /// Notes that somebody waits for this payment.
    pub fn ask(&self, payment: &VerifiedPayment, tell: Tell) -> Asked {
        let id = payment.id();
        let mut open = self.0.borrow_mut();
        match open.get_mut(&id) {
            None => {
                open.insert(id, Entry { payment: payment.clone(), waiting: vec![tell], outcome: None });
                Asked::Start(Hearing { open: self.clone(), id })
            }
            Some(entry) if !entry.payment.is_same_transfer(payment) => Asked::Taken,
            Some(entry) => {
                match &entry.outcome {
                    // Nobody listening is fine: the journal knows.
                    Some(outcome) => drop(tell.send(outcome.clone())),
                    None => entry.waiting.push(tell),
                }
                Asked::Joined
            }
        }
    }

    /// Whether its nonce is being settled for another transfer, so that this one must not be sold on.
    pub fn is_taken(&self, payment: &VerifiedPayment) -> bool {
        self.0.borrow().get(&payment.id()).is_some_and(|entry| !entry.payment.is_same_transfer(payment))
    }
}

impl Hearing {
    /// Tells everybody, and everybody who asks later.
    pub fn tell(&self, outcome: &Settlement) {
        if let Some(entry) = self.open.0.borrow_mut().get_mut(&self.id) {
            entry.outcome = Some(outcome.clone());
            // Nobody listening is fine: the journal knows.
            entry.waiting.drain(..).for_each(|tell| drop(tell.send(outcome.clone())));
        }
    }

    /// Whether anybody still wants to hear it.
    pub fn is_waited(&self) -> bool {
        self.open.0.borrow().get(&self.id).is_some_and(|entry| entry.waiting.iter().any(|tell| !tell.is_closed()))
    }

    /// What was told does not hold any more.
    pub fn take_back(&self) {
        if let Some(entry) = self.open.0.borrow_mut().get_mut(&self.id) {
            entry.outcome = None;
        }
    }

    /// The journal refused. Who asked first is the one whose claim is gone; if somebody asked after that one, the payment
    /// was claimed anew and is returned to be settled once more for the rest.
    pub fn refused(&self) -> Option<VerifiedPayment> {
        let mut open = self.open.0.borrow_mut();
        let entry = open.get_mut(&self.id)?;
        if !entry.waiting.is_empty() {
            drop(entry.waiting.remove(0));
        }
        (!entry.waiting.is_empty()).then(|| entry.payment.clone())
    }
}

impl Drop for Hearing {
    fn drop(&mut self) {
        self.open.0.borrow_mut().remove(&self.id);
    }
}
