//! What a call may cost, or a top-up bring, and how it can be paid: the offer of a 402, and our own requirement to hold a
//! payment against.

use std::sync::Arc;

use super::prices::Surcharges;
use super::{Gateway, Refusal, Remedy};
use crate::catalogue::Model;
use crate::chain::{Amounts, reason};
use crate::error::{Code, Error};
use crate::money::Micros;
use crate::x402::{Offer, Payment, Requirements, Resource};

/// The ceiling promised for one request, or the least that a top-up brings, with every way to pay it.
pub(super) struct Quote {
    /// Without what a network adds to it.
    pub amount: Micros,
    /// Whether a payment may bring more.
    pub amounts: Amounts,
    pub offer: Offer,
    /// What a payment buys, in the same words for the same quote.
    subject: String,
    /// What the networks add to it.
    surcharges: Arc<Surcharges>,
}

impl Quote {
    /// A pure function of route, model and bound on a given set of networks: the paid retry of the same body gets the
    /// same quote.
    pub fn new(gateway: &Gateway, path: &str, model: &Model, amount: Micros) -> Quote {
        let description = format!("One call of {}, {amount} USDC at most", model.id);
        Quote::of(gateway, path, &description, (amount, Amounts::Exact))
    }

    /// What a top-up may be: the payer decides how much, within the operator's limits.
    pub fn top_up(gateway: &Gateway, path: &str) -> Quote {
        let (least, most) = (gateway.prepaid.top_up_minimum, gateway.prepaid.top_up_maximum);
        let description = format!("Balance of the wallet that pays: any amount from {least} to {most} USDC");
        Quote::of(gateway, path, &description, (least, Amounts::UpTo(most)))
    }

    fn of(gateway: &Gateway, path: &str, description: &str, (amount, amounts): (Micros, Amounts)) -> Quote {
        let subject = format!("{path} {description}");
        let url = format!("{}{path}", gateway.public_url);
        let resource = Resource { url, description: ascii(description), mime_type: "application/json".into() };
        let mut accepts = gateway.chains.offer(amount, gateway.payments.max_timeout_seconds, &subject);
        for entry in &mut accepts {
            entry.amount = asked(&gateway.surcharges, (amount, amounts), &entry.network).unwrap_or(amount).get().to_string();
        }
        let surcharges = Arc::clone(&gateway.surcharges);
        Quote { amount, amounts, offer: Offer { resource, accepts }, subject, surcharges }
    }

    /// The same as it was made when the networks added something else. It is a payment's measure, and offered no more.
    pub fn when(self, surcharges: &Arc<Surcharges>) -> Quote {
        Quote { surcharges: Arc::clone(surcharges), ..self }
    }

    /// What the network of a payment adds to it.
    pub fn surcharge(&self, network: &str) -> Micros {
        self.surcharges.of(network).unwrap_or_default()
    }

    /// Our requirement on a payment's network, which may have trouble just now: a copy of a known payment is known all
    /// the same.
    pub fn wanted(&self, gateway: &Gateway, payment: &Payment) -> Result<Requirements, Error> {
        let (network, timeout) = (&payment.network, gateway.payments.max_timeout_seconds);
        let amount = asked(&self.surcharges, (self.amount, self.amounts), network);
        let wanted = amount.and_then(|amount| gateway.chains.requirement(payment, amount, timeout, &self.subject));
        wanted.ok_or_else(|| {
            let offered: Vec<_> = self.offer.accepts.iter().map(|entry| entry.network.as_str()).collect();
            let message = format!("payments on {network:?} are not taken here; pay on {}", offered.join(" or "));
            Error::new(Code::PaymentInvalid, message).reason(reason::network(network))
        })
    }

    /// The 402 for a caller that brought nothing.
    pub fn required(self) -> Refusal {
        let amount = self.amount;
        let asked = amount.get().to_string();
        let more = match self.offer.accepts.iter().any(|entry| entry.amount != asked) {
            true => ", and paid for by itself what the offer adds to that for the gas of its network",
            false => "",
        };
        let message = format!(
            "Payment required: this call costs at most {amount} USDC{more}. Sign the offer in PAYMENT-REQUIRED and send the same \
             request again with PAYMENT-SIGNATURE, or send it with an API key, as Authorization: Bearer sk-x402-…, of a wallet that \
             has a balance."
        );
        let error = Error::new(Code::PaymentRequired, message).requiring(amount);
        Refusal { remedy: Some(Remedy::Identify), ..self.refuse(error) }
    }

    /// A refusal that another payment would fix: it carries the offer. Without a network to pay on nothing would.
    pub fn refuse(self, error: Error) -> Refusal {
        if self.offer.accepts.is_empty() {
            let error = Error::new(Code::NetworkUnavailable, "no payment network can settle at the moment; nothing was charged");
            return error.retry_after(30).into();
        }
        Refusal { offer: Some(self.offer), ..error.into() }
    }

    /// A refusal with the offer when a better payment would help, without it when the trouble is ours.
    pub fn refuse_if_payable(self, error: Error) -> Refusal {
        match error.status() {
            400 | 402 => self.refuse(error),
            _ => error.into(),
        }
    }
}

/// What is to be paid on a network: the price of a call with the network's surcharge, or a top-up, which has none.
fn asked(surcharges: &Surcharges, (amount, amounts): (Micros, Amounts), network: &str) -> Option<Micros> {
    match amounts {
        Amounts::Exact => Some(Micros::new(amount.get().saturating_add(surcharges.of(network)?.get()))),
        Amounts::UpTo(_) => Some(amount),
    }
}

/// Version 1 clients encode offers with `btoa`, which throws on anything else.
fn ascii(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_graphic() || c == ' ' { c } else { '?' }).collect()
}
