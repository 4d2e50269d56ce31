//! A reservation: the proof that money stands for one call. Dropping it gives the money back.

use super::{Close, Ledger, Service};
use crate::fault;
use crate::ids::{Funds, PaymentId, RequestId};
use crate::money::Micros;

/// Funds held for one call. Made only by the ledger; ends by [`Reservation::post`], [`Reservation::void`], or by being
/// dropped, which voids it.
#[must_use = "dropping a reservation gives its money back"]
pub struct Reservation {
    ledger: Ledger,
    request: RequestId,
    ceiling: Micros,
    open: bool,
}

impl Reservation {
    pub(super) fn new(ledger: Ledger, request: RequestId, ceiling: Micros) -> Self {
        Reservation { ledger, request, ceiling, open: true }
    }

    /// Gives the money back: nothing was delivered. What a payment brought becomes balance of its payer.
    pub fn void(mut self) {
        self.end(Close::Void, Service::default());
    }

    /// Turns into the right to relay, if the money is really there: held from a balance, or confirmed by the chain.
    pub fn paid(self) -> Result<Paid, Reservation> {
        let there = self.ledger.inner.lock().is_ok_and(|book| book.is_paid(self.request));
        if there { Ok(Paid(self)) } else { Err(self) }
    }

    fn end(&mut self, close: Close, service: Service) -> Micros {
        match std::mem::replace(&mut self.open, false) {
            true => self.ledger.close_call(self.request, close, service),
            false => Micros::ZERO,
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.end(Close::Void, Service::default());
    }
}

impl Funds for Reservation {
    fn request(&self) -> RequestId {
        self.request
    }

    fn ceiling(&self) -> Micros {
        self.ceiling
    }
}

/// A reservation whose money has arrived: the only thing that lets bytes of an answer out.
#[must_use = "dropping it gives the money back"]
pub struct Paid(Reservation);

impl Paid {
    pub fn request(&self) -> RequestId {
        self.0.request
    }

    pub(super) fn ledger(&self) -> Ledger {
        self.0.ledger.clone()
    }

    /// Another command has ended the call in the books.
    pub(super) fn has_ended(&mut self) {
        self.0.open = false;
    }

    pub fn ceiling(&self) -> Micros {
        self.0.ceiling
    }

    /// Notes what the call owes so far; after a crash this much is charged. Nobody waits for it.
    pub fn checkpoint(&self, owed: Micros) {
        fault::point("checkpoint.before");
        let noted = self.0.ledger.note(|_, book| Ok(book.checkpoint(self.0.request, owed)?));
        fault::point("checkpoint.after");
        if let Err(denied) = noted {
            tracing::debug!(request.id = %self.0.request, %denied, "no checkpoint");
        }
    }

    /// Holds more for a call that goes on: up to `more`, as much as allowance, balance and the key's limit have. Returns how
    /// much; an error means that there is nothing, and payments never have more to give.
    ///
    /// It is not durable when this returns, however large it is: [`super::Options::hold_durable_above`] says why.
    pub fn extend(&mut self, more: Micros) -> Result<Micros, super::Denied> {
        let ledger = self.0.ledger.clone();
        let request = self.0.request;
        let mut granted = Micros::ZERO;
        fault::point("extend.before");
        ledger.note(|inner, book| {
            let (rows, amount) = book.extend(request, more, inner.clock.now())?;
            granted = amount;
            Ok(rows)
        })?;
        fault::point("extend.after");
        self.0.ceiling = self.0.ceiling.checked_add(granted).ok_or(super::Refused::Overflow)?;
        Ok(granted)
    }

    /// What is left of today's allowance of the wallet that pays; nothing for a payment.
    pub fn allowance_left(&self) -> Micros {
        let now = self.0.ledger.inner.clock.now();
        self.0.ledger.inner.lock().map_or(Micros::ZERO, |book| book.allowance_for(self.0.request, now))
    }

    /// Charges the call, at most what is held, and gives the rest back; `service` goes into its receipt. Returns the charge.
    pub fn post(mut self, owed: Micros, service: impl Into<Service>) -> Micros {
        self.0.end(Close::Post(owed), service.into())
    }

    /// Charges the part of a call that was delivered before it broke off. Returns the charge.
    pub fn post_part(mut self, owed: Micros, service: impl Into<Service>) -> Micros {
        self.0.end(Close::Partly(owed), service.into())
    }

    /// Gives all of it back: nothing was delivered.
    pub fn void(self) {
        self.0.void();
    }
}

/// The claim of a top-up: a payment that stands for no call. Once the chain has confirmed it, all of it is balance of its
/// payer, in the same transaction. Dropped before anything was signed, it gives the claim back.
#[must_use = "dropping it gives the claim back"]
pub struct Deposit {
    ledger: Ledger,
    id: PaymentId,
}

impl Deposit {
    pub(super) fn new(ledger: Ledger, id: PaymentId) -> Self {
        Deposit { ledger, id }
    }
}

impl Drop for Deposit {
    fn drop(&mut self) {
        fault::point("deposit.back");
        // Refused once something was signed: then the chain decides, and a watcher tells the books.
        let given_back = self.ledger.note(|_, book| Ok(book.give_back(self.id)?));
        if given_back.is_ok() {
            tracing::debug!(payment = %self.id, "a top-up was given back before it was signed");
        }
    }
}
