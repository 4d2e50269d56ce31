//! A hold that grows with its answer: never less than what has passed is worth, never more than the quote.

use crate::error::{Code, Error};
use crate::ledger::{Denied, Paid, Refused};
use crate::money::Micros;

/// How far a call's hold may grow, and by how much at once.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Growth {
    /// The quote.
    pub most: Micros,
    /// What is asked for at once, so that the books are not asked about every word. More than nothing.
    pub step: Micros,
}

impl Growth {
    /// Sees to it that `owed`, which is within the quote, is held. What there was of it is held also after a refusal.
    ///
    /// # Errors
    /// Says in the words of a stream's end what is used up: [`Code::InsufficientBalance`], [`Code::SpendLimitExceeded`]; or
    /// that the books take nothing any more.
    pub fn cover(&self, paid: &mut Paid, owed: Micros) -> Result<(), Error> {
        while owed > paid.ceiling() {
            let missing = owed.saturating_sub(paid.ceiling());
            let more = missing.max(self.step).min(self.most.saturating_sub(paid.ceiling()));
            // Less than was asked for may do; otherwise the next question says what is used up.
            let granted = paid.extend(more).map_err(|denied| used_up(paid, denied))?;
            if granted.is_zero() {
                return Err(used_up(paid, Refused::WrongState.into()));
            }
        }
        Ok(())
    }
}

fn used_up(paid: &Paid, denied: Denied) -> Error {
    match denied {
        // A call takes of one day's allowance, and of this one there is not more left than it holds of another.
        Denied::Refused(Refused::Insufficient { .. }) if paid.allowance_left() > Micros::ZERO => Error::new(
            Code::InsufficientBalance,
            "the allowance of the day on which this call began is used up, so the answer ends here; you pay for what was \
             delivered: send the request again, for today there is a new one",
        ),
        Denied::Refused(Refused::Insufficient { .. }) => Error::new(
            Code::InsufficientBalance,
            "your balance is used up, so the answer ends here; you pay for what was delivered: top up and send the request again",
        ),
        Denied::Refused(Refused::KeyLimit { .. }) => Error::new(
            Code::SpendLimitExceeded,
            "the spending limit of this API key is used up, so the answer ends here; you pay for what was delivered",
        ),
        other => Error::new(
            Code::LedgerUnavailable,
            "the gateway cannot write its books any more, so the answer ends here; you pay at most for what was delivered",
        )
        .because(other.to_string()),
    }
}
