//! What every family holds a payment to: the scheme, the network, the amount, and what the buyer says it accepted.

use std::fmt::Display;
use std::ops::RangeInclusive;

use super::{Refused, reason};
use crate::money::Micros;
use crate::x402::{Payment, Requirements};

/// Schemes of x402 that we know and do not take.
const OTHER_SCHEMES: [&str; 4] = ["upto", "batch-settlement", "auth-capture", "deferred"];

/// How much a payment may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Amounts {
    /// The amount of our requirement, to the unit: the price of a call (x402 scheme `exact`).
    Exact,
    /// Any amount from that of our requirement up to this one: a top-up, of which the payer decides how much.
    UpTo(Micros),
}

/// An amount as a chain counts it, in units of the token. One unit is one micro-USDC.
pub(super) trait Units: Copy + PartialOrd + Display {
    fn of(amount: Micros) -> Self;
    /// Saturates.
    fn micros(self) -> Micros;
    /// Reads decimal digits, the shortest form alone.
    fn read(text: &str) -> Option<Self>;
}

impl Units for u64 {
    fn of(amount: Micros) -> u64 {
        amount.get()
    }

    fn micros(self) -> Micros {
        Micros::new(self)
    }

    fn read(text: &str) -> Option<u64> {
        Micros::parse_units(text).map(Micros::get)
    }
}

impl Amounts {
    /// What may be brought where our requirement names this amount; `None` when that is no number.
    pub(super) fn range<N: Units>(self, amount: &str) -> Option<RangeInclusive<N>> {
        let least = N::read(amount)?;
        Some(match self {
            Amounts::Exact => least..=least,
            Amounts::UpTo(most) => least..=N::of(most),
        })
    }
}

fn invalid(reason: &'static str, message: impl Into<String>) -> Refused {
    Refused::Invalid { reason, message: message.into() }
}

/// Whether both say `exact`; `reason` is the family's word for what they otherwise say.
pub(super) fn scheme(payment: &Payment, wanted: &Requirements, reason: &'static str) -> Result<(), Refused> {
    for scheme in [&payment.scheme, &wanted.scheme] {
        if OTHER_SCHEMES.contains(&scheme.as_str()) {
            let message = format!("scheme {scheme:?} is not taken here; pay with \"exact\"");
            return Err(invalid(reason::UNSUPPORTED_SCHEME, message));
        }
    }
    if payment.scheme != "exact" || wanted.scheme != "exact" {
        let say = "and \"exact\" is taken; sign the offer in PAYMENT-REQUIRED";
        return Err(invalid(reason, format!("the payment says scheme {:?}, {say}", payment.scheme)));
    }
    Ok(())
}

/// Whether the payment is for the network on which we ask for it.
pub(super) fn network(payment: &Payment, wanted: &Requirements, reason: &'static str) -> Result<(), Refused> {
    if payment.network == wanted.network {
        return Ok(());
    }
    let message = format!("the payment is for {:?}; this costs {} on {}", payment.network, wanted.amount, wanted.network);
    Err(invalid(reason, message))
}

/// The refusal of a buyer who says that it accepted something else than we ask.
pub(super) fn differs(reason: &'static str, field: &str, theirs: &str, ours: &str) -> Refused {
    invalid(reason, format!("accepted.{field} is {theirs:?}, and {ours:?} is asked; sign the offer in PAYMENT-REQUIRED"))
}

/// Whether the buyer accepted as long a time as we gave.
pub(super) fn same_timeout(accepted: &Requirements, wanted: &Requirements) -> Result<(), Refused> {
    let (theirs, ours) = (accepted.max_timeout_seconds, wanted.max_timeout_seconds);
    match theirs == ours {
        true => Ok(()),
        false => Err(differs(reason::REQUIREMENTS, "maxTimeoutSeconds", &theirs.to_string(), &ours.to_string())),
    }
}

/// Every key of our `extra` that the buyer echoes must be equal, but those that are `free`. Missing keys are forgiven, since
/// what counts in them is signed; further keys are the buyer's business.
pub(super) fn same_extra(accepted: &Requirements, wanted: &Requirements, free: impl Fn(&str) -> bool) -> Result<(), Refused> {
    let (Some(theirs), Some(ours)) = (&accepted.extra, &wanted.extra) else { return Ok(()) };
    let mut held = ours.iter().filter(|(key, _)| !free(key));
    match held.find(|(key, value)| theirs.get(*key).is_some_and(|echoed| echoed != *value)) {
        Some((key, value)) => {
            let message = format!("accepted.extra.{key} is not {value}, as was offered; sign the offer in PAYMENT-REQUIRED");
            Err(invalid(reason::REQUIREMENTS, message))
        }
        None => Ok(()),
    }
}

/// What the buyer says it accepted must be an amount that we ask, and of a range no more than it then authorized. `reason` is
/// the family's word for another amount.
pub(super) fn same_amount<N: Units>(
    accepted: &Requirements,
    amounts: &RangeInclusive<N>,
    authorized: N,
    reason: &'static str,
) -> Result<(), Refused> {
    let said: String = accepted.amount.chars().take(80).collect();
    let differs = |what: String| Err(invalid(reason, format!("accepted.amount is {said:?}, {what}")));
    if amounts.start() == amounts.end() {
        let asked = amounts.start().to_string();
        return match accepted.amount == asked {
            true => Ok(()),
            false => differs(format!("and {asked:?} is asked; sign the offer in PAYMENT-REQUIRED")),
        };
    }
    let Some(amount) = N::read(&accepted.amount) else {
        return differs("not a number of the token's units; sign the offer in PAYMENT-REQUIRED".into());
    };
    within(amounts, amount)?;
    within(amounts, authorized)?;
    if amount > authorized {
        return differs(format!("and {authorized} units are authorized; sign as much as you say"));
    }
    Ok(())
}

/// Whether an amount is one that we ask.
pub(super) fn within<N: Units>(amounts: &RangeInclusive<N>, amount: N) -> Result<(), Refused> {
    let (least, most) = (*amounts.start(), *amounts.end());
    let refuse = |reason, bound: &str, limit: N, advice: &str| {
        let message = format!(
            "the payment is over {amount} units of the token, and {bound} {limit} ({} USDC) are taken; sign {advice}",
            limit.micros()
        );
        Err(invalid(reason, message))
    };
    if amount < least {
        return refuse(reason::TOO_LOW, "at least", least, "more");
    }
    if amount > most {
        return refuse(reason::TOO_HIGH, "at most", most, "less");
    }
    Ok(())
}
