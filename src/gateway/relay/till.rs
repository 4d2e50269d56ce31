//! The end of a call in the books: what has passed is charged, whatever ended it, and once.

use super::Growth;
use crate::dialect::{Gauge, Metered};
use crate::error::{Code, Error};
use crate::gateway::told::{Outcome, Told};
use crate::ids::RequestId;
use crate::ledger::{Paid, Service};
use crate::money::Micros;
use crate::tariff::{Cost, Tariff};

/// How a call is charged.
pub(in crate::gateway) struct Tab {
    pub paid: Paid,
    pub tariff: Tariff,
    /// How its hold grows, if it does not stand for the whole quote from the start.
    pub growth: Option<Growth>,
    /// What it costs if it is delivered, whatever it used.
    pub flat: Option<Micros>,
    /// Who serves it, and what that one asks the operator, if it is known.
    pub upstream: String,
    pub cost: Option<Cost>,
    /// What is told of it at its end.
    pub told: Option<Told>,
}

/// Why relaying ended.
pub(super) enum End {
    Complete,
    ClientGone,
    /// The client is there and does not read: the time limit struck while a piece waited for it.
    ClientStalled,
    /// Who pays for it may not any more, by its own wallet's or the operator's hand; this error says so in-band.
    PayerEnded(Error),
    /// It broke off; this error says so in-band.
    Broken(Error),
    /// The next piece would have owed more than there is to hold: this error says so in-band, and what had passed is charged.
    Spent {
        error: Error,
        passed: Metered,
    },
    /// It was there, and nobody took any of it: the client left before its turn, or the program stops.
    Untaken,
    /// The program stops and does not wait for this call.
    Stopped,
}

/// What a call owes, until it is ended in the books.
pub(super) struct Till {
    /// What the answer has used.
    pub gauge: Gauge,
    /// Why the answer ended, while its last bytes are on their way.
    pub end: Option<End>,
    /// Nothing that the caller can use has come of the translation of what passed, such as of thinking that it does not see.
    pub unseen: bool,
    request: RequestId,
    /// Until the call is ended in the books.
    paid: Option<Paid>,
    tariff: Tariff,
    stream: bool,
    growth: Option<Growth>,
    flat: Option<Micros>,
    upstream: String,
    cost: Option<Cost>,
    /// What had been used when the last event passed that is paid for, and the bytes of the answer up to there.
    passed: (Metered, u64),
    told: Option<Told>,
}

impl Till {
    pub fn new(tab: Tab, gauge: Gauge, stream: bool) -> Till {
        let Tab { paid, tariff, growth, flat, upstream, cost, told } = tab;
        let (request, passed) = (paid.request(), (Metered::default(), 0));
        Till {
            gauge,
            end: None,
            unseen: false,
            request,
            paid: Some(paid),
            tariff,
            stream,
            growth,
            flat,
            upstream,
            cost,
            passed,
            told,
        }
    }

    pub fn request(&self) -> RequestId {
        self.request
    }

    /// The model that is sold and the upstream that serves it, where the log tells of them at the end.
    pub fn seller(&self) -> (Option<&str>, Option<&str>) {
        let told = self.told.as_ref();
        (told.map(|told| told.model.as_str()), told.map(|_| self.upstream.as_str()))
    }

    /// Whether what has passed of a stream is of use to its caller, and owed, without the rest.
    pub fn has_parts(&self) -> bool {
        self.gauge.has_parts() && !self.unseen
    }

    /// Notes for recovery what is owed so far.
    pub fn checkpoint(&self, owed: Micros) {
        if let Some(paid) = &self.paid {
            paid.checkpoint(owed);
        }
    }

    /// What is owed for what has passed so far; `None` once the call has ended.
    pub fn owed(&self) -> Option<Micros> {
        let paid = self.paid.as_ref()?;
        Some(self.tariff.charge(&self.gauge.usage().usage, paid.ceiling()))
    }

    /// Sees to it that what was metered is held before it passes; `Some` when there is nothing left to hold.
    pub fn cover(&mut self) -> Option<End> {
        let (Some(growth), Some(paid)) = (&self.growth, &mut self.paid) else { return None };
        let (metered, bytes) = (self.gauge.usage(), self.gauge.answer_bytes());
        match growth.cover(paid, self.tariff.charge(&metered.usage, growth.most)) {
            Ok(()) => {
                self.passed = (metered, bytes);
                None
            }
            // What brings nothing of the answer itself says what the rest has cost: all that is held for that is charged.
            Err(error) if bytes == self.passed.1 => Some(End::Spent { error, passed: metered }),
            Err(error) => Some(End::Spent { error, passed: self.passed.0 }),
        }
    }

    /// Ends the call in the books, once. Nothing delivered costs nothing, nor does what nobody could see of it, if it was the
    /// upstream or the program that ended it; half a plain answer that broke off at the upstream is no answer; everything else
    /// costs what passed, above all when it was the client or the owner of its key who ended it. So does what passed before the
    /// money ran out, seen or not: else a small balance could have models think for nothing. A wallet that the operator bars owes
    /// no more than one whose upstream broke off.
    pub fn finish(&mut self) {
        let Some(mut paid) = self.paid.take() else { return };
        let end = self.end.take().unwrap_or(End::Stopped);
        // The operator's hand, and no wish of whoever pays.
        let is_barred = matches!(&end, End::PayerEnded(error) if error.code == Code::AccountBlocked);
        let by_the_buyer = matches!(end, End::ClientGone | End::ClientStalled | End::PayerEnded(_)) && !is_barred;
        if by_the_buyer {
            self.gauge.abandoned();
        }
        let metered = match &end {
            End::Spent { passed, .. } => *passed,
            _ => self.gauge.usage(),
        };
        let (request, usage) = (self.request, metered.usage);
        if let (Some(growth), false) = (&self.growth, is_barred || matches!(end, End::Spent { .. })) {
            // What was used may be known from an event that did not pass: it is owed as far as there is money.
            if let Err(error) = growth.cover(&mut paid, self.tariff.charge(&usage, growth.most)) {
                tracing::debug!(request.id = %request, code = error.code.row().code, "not all that was used can be paid");
            }
        }
        let owed = self.tariff.charge(&usage, paid.ceiling());
        let whole = self.flat.unwrap_or(owed);
        let cost = self.cost.take().and_then(|cost| cost.of(&usage));
        let upstream = std::mem::take(&mut self.upstream);
        let service = Service { usage, upstream: upstream.clone(), cost };
        let charge = match end {
            // An answer that is complete and empty, with no word on usage, is none.
            End::Complete if self.gauge.has_output() || !metered.estimated => paid.post(whole, service),
            // A client that leaves chose to, and a key ends by somebody's hand: a flat price applies to what was taken.
            _ if by_the_buyer && self.gauge.has_output() => paid.post(whole, service),
            _ if by_the_buyer => paid.post_part(owed, service),
            End::Broken(_) | End::PayerEnded(_) | End::Stopped if self.stream && self.has_parts() => {
                paid.post_part(owed, service)
            }
            End::Spent { .. } if self.passed.1 > 0 => paid.post_part(owed, service),
            _ => {
                paid.void();
                Micros::ZERO
            }
        };
        if let Some(told) = self.told.take() {
            told.tell((request, &upstream), &end.outcome(charge, metered));
        }
    }
}

impl End {
    /// The same for those who are told of it.
    fn outcome(self, charge: Micros, metered: Metered) -> Outcome {
        let (word, words) = match &self {
            End::Complete => ("complete", format!("charged {charge}")),
            End::ClientGone | End::ClientStalled => ("client_left", format!("the client left; charged {charge} for what passed")),
            End::PayerEnded(error) if error.code == Code::AccountBlocked => {
                ("blocked", format!("the wallet was blocked; charged {charge} for what passed"))
            }
            End::PayerEnded(_) => ("key_ended", format!("the key has ended; charged {charge} for what passed")),
            End::Broken(_) => ("broken", format!("the answer broke off; charged {charge}")),
            End::Spent { .. } => ("spent", format!("the answer broke off; charged {charge}")),
            End::Untaken => ("untaken", "nobody took the answer; nothing was charged".to_owned()),
            End::Stopped => ("stopped", format!("cut off by the stop of the program; charged {charge}")),
        };
        let is_trouble = matches!(self, End::Broken(_) | End::Spent { .. } | End::Stopped);
        let error = match self {
            End::PayerEnded(error) | End::Broken(error) | End::Spent { error, .. } => Some(error),
            End::Complete | End::ClientGone | End::ClientStalled | End::Untaken | End::Stopped => None,
        };
        Outcome { word, words, error, is_trouble, charge, metered }
    }
}

impl Drop for Till {
    fn drop(&mut self) {
        self.finish();
    }
}
