//! What is told of a call that has ended: one line of the log, the numbers, and the word that a balance has become low.

use std::sync::Arc;

use tokio::time::Instant;
use tracing::field::display;

use super::{Call, Gateway};
use crate::account::AccountId;
use crate::catalogue::Model;
use crate::config::Occasion;
use crate::dialect::Metered;
use crate::error::Error;
use crate::ids::{KeyId, RequestId};
use crate::metrics;
use crate::money::Micros;

/// Who bought what.
pub(in crate::gateway) struct Told {
    pub gateway: Arc<Gateway>,
    pub account: AccountId,
    pub key: Option<KeyId>,
    pub model: String,
    pub paid_by: PaidBy,
    /// The most that it may cost.
    pub quote: Micros,
    /// When its request arrived.
    pub arrived: Instant,
}

/// Whose money it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(in crate::gateway) enum PaidBy {
    /// That of the wallet's balance or allowance.
    Balance,
    /// That which the call brought.
    Payment,
}

impl PaidBy {
    fn word(self) -> &'static str {
        match self {
            PaidBy::Balance => "balance",
            PaidBy::Payment => "payment",
        }
    }
}

/// How it ended.
pub(in crate::gateway) struct Outcome {
    /// In a word, for who counts them.
    pub word: &'static str,
    /// In plain words, for who reads them.
    pub words: String,
    /// What went wrong, if anything did.
    pub error: Option<Error>,
    /// Whether the operator should look.
    pub is_trouble: bool,
    pub charge: Micros,
    pub metered: Metered,
}

impl Told {
    /// A call for a model, which may cost its payer the quote.
    pub fn of(
        gateway: &Arc<Gateway>,
        call: &Call,
        model: &Model,
        (account, key): (AccountId, Option<KeyId>),
        (paid_by, quote): (PaidBy, Micros),
    ) -> Told {
        let (gateway, arrived) = (Arc::clone(gateway), call.arrived);
        Told { gateway, account, key, model: model.id.clone(), paid_by, quote, arrived }
    }

    /// What its wallet has, if anybody wants to know of that.
    fn balance(&self) -> Option<Micros> {
        let gateway = &self.gateway;
        let matters = self.paid_by == PaidBy::Balance && gateway.notices.wants(Occasion::LowBalance);
        if matters { Some(gateway.ledger.standing(self.account).ok()?.posted) } else { None }
    }

    /// Tells all who should know how it ended, and who had served it.
    pub fn tell(self, (request, upstream): (RequestId, &str), outcome: &Outcome) {
        let Outcome { word, charge, metered, .. } = outcome;
        let (model, paid_by) = (self.model.as_str(), self.paid_by.word());
        metrics::SALES.of(&[model, upstream, paid_by, word]).count();
        if !charge.is_zero() {
            metrics::CHARGES.of(&[model, upstream, paid_by]).add(*charge);
            metrics::TOKENS.of(&[model, "input"]).add(metered.usage.input);
            metrics::TOKENS.of(&[model, "output"]).add(metered.usage.output);
        }
        self.log((request, upstream), outcome);
        if let Some(balance) = self.balance() {
            self.gateway.notices.tell_of_balance(self.account, balance);
        }
    }

    /// One line a call: a log of many calls costs as much as their holds and charges.
    fn log(&self, (request, upstream): (RequestId, &str), outcome: &Outcome) {
        let Outcome { word: outcome, words, error, is_trouble, charge, metered } = outcome;
        let (account, key, paid_by) = (self.account, self.key.map(display), self.paid_by.word());
        let (model, quote) = (self.model.as_str(), self.quote);
        let (input, output, estimated) = (metered.usage.input, metered.usage.output, metered.estimated);
        let ms = self.arrived.elapsed().as_millis();
        let code = error.as_ref().map(|error| error.code.row().code);
        let cause = error.as_ref().and_then(|error| error.cause.as_deref());
        match is_trouble {
            false => {
                tracing::info!(request.id = %request, %account, key, model, upstream, paid_by, %quote, %charge, input, output, estimated, ms, outcome, code, "{words}");
            }
            true => {
                tracing::warn!(request.id = %request, %account, key, model, upstream, paid_by, %quote, %charge, input, output, estimated, ms, outcome, code, cause, "{words}");
            }
        }
    }
}
