//! Settling one payment, for a call or as a top-up: hold it against what we asked, claim it, wait for the chain, and say in
//! words what became of it.

use std::collections::HashSet;
use std::sync::Mutex;
use std::time::Duration;

use tokio::sync::oneshot;
use tokio::time::Instant;

use super::blocked::payment_of_blocked;
use super::payer::malformed;
use super::quote::Quote;
use super::waste::Asking;
use super::{Gateway, LEDGER_STOPPED, Refusal};
use crate::account::AccountId;
use crate::chain::reason::{About, about};
use crate::chain::{self, Chains, Confirmation, Refused, Settlement, VerifiedPayment};
use crate::clock::Timestamp;
use crate::error::{Code, Error};
use crate::fault;
use crate::ids::{PaymentId, RequestId};
use crate::ledger::{Claim, Denied, Deposit, Ledger, Outcome, Payment, Refused as Denial, Reservation, State};
use crate::metrics;
use crate::money::Micros;
use crate::x402::{self, Receipt, Version};

/// Payments whose first copy is being served: other copies are turned away before they cost a question to the chain.
#[derive(Default)]
pub(super) struct Running(Mutex<HashSet<PaymentId>>);

/// One payment's turn; over when dropped.
pub(super) struct Turn<'a> {
    running: &'a Running,
    pub id: PaymentId,
}

impl Running {
    pub fn enter(&self, id: PaymentId) -> Result<Turn<'_>, Error> {
        let first = self.0.lock().is_ok_and(|mut running| running.insert(id));
        if first { Ok(Turn { running: self, id }) } else { Err(in_progress(id)) }
    }
}

impl Drop for Turn<'_> {
    fn drop(&mut self) {
        if let Ok(mut running) = self.running.0.lock() {
            running.remove(&self.id);
        }
    }
}

/// Takes a payment's turn, if nothing is known about it and its wallet is not barred. What it is identified by is read before
/// anything about it is believed or compared, so that a copy is known as a copy on every route and for every body, and before it
/// costs a question to the chain.
pub(super) fn turn<'a>(gateway: &'a Gateway, quote: &Quote, payment: &x402::Payment) -> Result<Turn<'a>, Error> {
    match enter(gateway, quote, payment) {
        Ok((turn, None)) => gateway.check_payer(payment).map(|()| turn),
        Ok((turn, Some(row))) => Err(known(turn.id, &row)),
        Err(error) => Err(or_barred(gateway, payment, error)),
    }
}

/// What is wrong with a payment; where its wallet is barred that is said instead, but for one that may be on its way.
pub(super) fn or_barred(gateway: &Gateway, payment: &x402::Payment, error: Error) -> Error {
    match error.code {
        Code::PaymentInProgress | Code::LedgerUnavailable => error,
        _ => gateway.check_payer(payment).err().unwrap_or(error),
    }
}

/// Takes a payment's turn and finds what is known about it. What was given back is as new.
pub(super) fn enter<'a>(
    gateway: &'a Gateway,
    quote: &Quote,
    payment: &x402::Payment,
) -> Result<(Turn<'a>, Option<Payment>), Error> {
    let id = chain::identify(payment, &quote.wanted(gateway, payment)?).map_err(refused)?;
    let turn = gateway.running.enter(id)?;
    let row = gateway.ledger.payment(id).map_err(|denied| ledger_unavailable(&denied.to_string()))?;
    Ok((turn, row.filter(|row| row.state != State::Voided)))
}

/// An authorization must live at least this long beyond the head start of the upstream, from the moment it is presented.
const SHORTEST_LIFE: Duration = Duration::from_secs(30);
/// And at most this long: until its end it may arrive, and is watched for.
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 60 * 60);

/// Holds a payment against what we asked for. It must live long enough to be settled after the upstream had its
/// `head_start`.
pub(super) fn verify(
    gateway: &Gateway,
    quote: &Quote,
    payment: &x402::Payment,
    head_start: Duration,
) -> Result<VerifiedPayment, Error> {
    let now = gateway.clock.now();
    let wanted = quote.wanted(gateway, payment)?;
    let verified = chain::verify(payment, &wanted, quote.amounts, now).map_err(refused)?;
    // Where a chain counts blocks instead of seconds, it is the chain that says whether there is time left.
    let Some(end) = verified.valid_before() else { return Ok(verified) };
    let what = match end {
        end if end < now.plus(SHORTEST_LIFE).plus(head_start) => "too short to settle it",
        end if end > now.plus(LONGEST_LIFE) => "longer than the day for which a payment is watched",
        _ => return Ok(verified),
    };
    let message = lifetime(gateway, end, now, what);
    Err(Error::new(Code::PaymentInvalid, message).reason(chain::reason::VALID_BEFORE))
}

/// Whether we pay the fee of a transfer of this payer, before anything is signed for it. Never a 402: another payment of the same
/// wallet would fare no better.
pub(super) fn check_waste(gateway: &Gateway, payment: &VerifiedPayment) -> Result<(), Error> {
    let wallet = payment.payer();
    let asking = asking(&gateway.ledger, payment.network(), wallet, gateway.steady.now());
    let Err(wait) = gateway.waste.pays_for(asking) else { return Ok(()) };
    let seconds = u32::try_from(wait.as_secs()).unwrap_or(u32::MAX).max(1);
    let message = format!(
        "too many payments failed in their blocks today, each at the cost of this gateway, so that it settles no other of {} for {seconds} \
         s; your payment was not used, and a balance can be spent as ever",
        payment.payer_address()
    );
    Err(Error::new(Code::RateLimited, message).retry_after(seconds))
}

/// What a wallet is judged by that asks for the fee of a transfer.
pub(super) fn asking<'a>(ledger: &Ledger, network: &'a str, wallet: AccountId, now: Timestamp) -> Asking<'a> {
    let balance = ledger.standing(wallet).map_or(Micros::ZERO, |standing| standing.posted);
    Asking { network, wallet, balance, now }
}

fn lifetime(gateway: &Gateway, end: Timestamp, now: Timestamp, what: &str) -> String {
    let (end, now, offered) = (end.secs(), now.secs(), gateway.payments.max_timeout_seconds);
    format!(
        "the authorization ends at {end} (validBefore), {} s from now, which is {what}; sign one that ends in {offered} s, as the \
         offer says",
        end.saturating_sub(now)
    )
}

pub(super) fn is_about_time(error: &Error) -> bool {
    error.reason.is_some_and(|reason| about(reason) == About::Time)
}

/// A refusal for a payment's times: they may be right, and our clock wrong.
pub(super) async fn unless_our_clock(gateway: &Gateway, payment: &x402::Payment, error: Error) -> Error {
    gateway.chains.agree_on_time(&payment.network).await.map_or_else(refused, |()| error)
}

/// Goes on with every payment that an earlier run left to the chain.
pub(super) fn resume(ledger: &Ledger, chains: &Chains) {
    for (id, row) in ledger.open_payments() {
        let Ok(payment) = VerifiedPayment::from_bytes(&row.detail) else {
            tracing::error!(payment = %id, "the record of an open payment cannot be read; it is left as it is");
            continue;
        };
        let attempts = row.attempts.into_iter().map(|a| chain::Attempt { tx: a.tx, raw: a.raw, bound_to: a.bound_to }).collect();
        let confirmed = row.confirmed.map(|(tx, block)| Confirmation { tx, block });
        tracing::info!(payment = %id, state = ?row.state, "going on with a payment of an earlier run");
        fault::point("resume.before");
        // Nobody waits: the journal applies the outcome.
        drop(chains.resume(payment, attempts, confirmed));
        fault::point("resume.after");
    }
}

/// Claims a payment for one call, durably.
pub(super) async fn claim(
    gateway: &Gateway,
    payment: &VerifiedPayment,
    request: RequestId,
    route: &str,
    model: &str,
) -> Result<Reservation, Error> {
    let claimed = gateway.ledger.claim(claim_of(payment, request, route, Some(model))).await;
    claimed.map_err(|denied| unclaimed(payment.id(), &denied))
}

/// Claims a payment that stands for no call, durably.
pub(super) async fn deposit(
    gateway: &Gateway,
    payment: &VerifiedPayment,
    request: RequestId,
    route: &str,
) -> Result<Deposit, Error> {
    let claimed = gateway.ledger.deposit(claim_of(payment, request, route, None)).await;
    claimed.map_err(|denied| unclaimed(payment.id(), &denied))
}

pub(super) fn claim_of(payment: &VerifiedPayment, request: RequestId, route: &str, model: Option<&str>) -> Claim {
    Claim {
        id: payment.id(),
        network: payment.network().to_owned(),
        asset: payment.asset(),
        payer: payment.payer(),
        amount: payment.amount(),
        request,
        route: route.to_owned(),
        model: model.map(str::to_owned),
        detail: payment.to_bytes(),
    }
}

fn unclaimed(id: PaymentId, denied: &Denied) -> Error {
    match denied {
        Denied::Refused(Denial::Known(row)) => known(id, row),
        Denied::Refused(Denial::Blocked) => payment_of_blocked(),
        other => ledger_unavailable(&other.to_string()),
    }
}

/// The answer to a copy of a payment that is known: never a second sale, never a 402 while it may still settle. A settled
/// payment is public calldata, so nothing about its call or its wallet is told here.
pub(super) fn known(id: PaymentId, row: &Payment) -> Error {
    let (outcome, message) = match (row.state, row.outcome) {
        _ if row.payout.is_some() => ("taken", "this transfer pays a wallet and buys nothing; sign a payment of your own"),
        (State::Claimed, _) | (State::Confirmed | State::Final, None) => return in_progress(id),
        (State::Voided, _) => ("taken", "another authorization with this nonce was presented before; sign one with a new nonce"),
        (State::Signed | State::Sent, _) => (
            "pending",
            "this payment is settling; do not sign another one: if it arrives unused, it becomes balance of its payer",
        ),
        (State::Failed, _) => ("failed", "this payment failed to settle and took nothing; sign a new one"),
        (_, Some(Outcome::Served { .. })) => ("served", "this payment has bought a call; sign a new one for another call"),
        (_, Some(Outcome::Credited { .. })) if row.top_up => {
            ("credited", "this payment was a top-up and is balance of its payer; sign a new one for a call")
        }
        (_, Some(Outcome::Credited { .. })) => (
            "credited",
            "this payment arrived, its call was not served, and it is balance of its payer; sign a new one to call again",
        ),
    };
    Error::new(Code::PaymentAlreadyUsed, message).detail("outcome", outcome).detail("payment_id", id.to_string())
}

pub(super) fn in_progress(id: PaymentId) -> Error {
    let error = Error::new(Code::PaymentInProgress, "the first copy of this payment is being served; wait for its answer");
    error.detail("payment_id", id.to_string())
}

pub(super) fn ledger_unavailable(cause: &str) -> Error {
    let error = Error::new(Code::LedgerUnavailable, LEDGER_STOPPED);
    error.retry_after(5).because(cause)
}

/// A refusal by local verification, the chain's simulation or a facilitator, as an error.
pub(super) fn refused(refused: Refused) -> Error {
    match refused {
        Refused::Malformed(what) => malformed(&what),
        Refused::Invalid { reason, message } => Error::new(Code::PaymentInvalid, message).reason(reason),
        Refused::Unavailable(cause) => {
            let message = "the payment network cannot be asked at the moment; your payment was not used, send it again soon";
            Error::new(Code::NetworkUnavailable, message).retry_after(5).because(cause)
        }
        Refused::ClockSkew(cause) => {
            let message = "the clocks of this gateway and of the payment network disagree, so payments are not taken; your \
                           payment was not used, send it again later";
            Error::new(Code::ClockSkew, message).retry_after(30).because(cause)
        }
    }
}

/// How waiting for a settlement ended.
pub(super) enum Waited {
    Confirmed(Confirmation),
    Failed {
        reason: &'static str,
        message: String,
    },
    /// Not known in time. It goes on without the call.
    Unknown,
}

/// Waits so long for the outcome of a settlement, which goes on without us.
pub(super) async fn wait(network: &str, patience: Duration, settlement: oneshot::Receiver<Settlement>) -> Waited {
    let begun = Instant::now();
    let (word, waited) = match tokio::time::timeout(patience, settlement).await {
        Ok(Ok(Settlement::Confirmed(confirmation))) => ("confirmed", Waited::Confirmed(confirmation)),
        Ok(Ok(Settlement::Failed { reason, message })) => ("failed", Waited::Failed { reason, message }),
        // The settlement thread is gone, or time is up: either way nobody knows.
        Ok(Err(_)) | Err(_) => ("unknown", Waited::Unknown),
    };
    metrics::SETTLEMENTS.of(&[network, word]).count();
    if let Waited::Confirmed(_) = waited {
        metrics::SETTLING.of(&[network]).took(begun.elapsed());
    }
    waited
}

/// The receipt of a settled payment.
pub(super) fn receipt(payment: &VerifiedPayment, confirmation: &Confirmation) -> (Receipt, Version) {
    let receipt = Receipt {
        success: true,
        transaction: confirmation.tx.clone(),
        network: payment.network().to_owned(),
        payer: Some(payment.payer_address()),
        amount: Some(payment.amount().get().to_string()),
        error_reason: None,
    };
    (receipt, payment.version())
}

/// The 402 for a settlement that is proven to have failed; nothing was taken.
pub(super) fn failed(payment: &VerifiedPayment, reason: &'static str, message: &str) -> Refusal {
    let error = Error::new(
        Code::SettlementFailed,
        format!("the payment did not settle and took nothing: {message}; sign the new offer in PAYMENT-REQUIRED"),
    )
    .reason(reason);
    let receipt = Receipt {
        success: false,
        transaction: String::new(),
        network: payment.network().to_owned(),
        payer: Some(payment.payer_address()),
        amount: None,
        error_reason: Some(reason.to_owned()),
    };
    Refusal { receipt: Some((receipt, payment.version())), ..error.into() }
}

/// The answer when the chain has the money and the ledger stopped before it could say so: the next start credits it.
pub(super) fn not_in_the_books(payment: &VerifiedPayment, confirmation: &Confirmation) -> Refusal {
    let message =
        "the payment settled and the ledger stopped at that moment; do not sign another one: it becomes balance of its payer";
    let error = Error::new(Code::SettlementPending, message).detail("payment_id", payment.id().to_string());
    Refusal { receipt: Some(receipt(payment, confirmation)), ..error.into() }
}

/// Whether a claim that was given back left nothing behind that may still settle.
pub(super) fn is_free(gateway: &Gateway, id: PaymentId) -> bool {
    gateway.ledger.payment(id).is_ok_and(|row| row.is_none_or(|row| row.state == State::Voided))
}

/// The answer when the outcome is unknown in time. The reservation was given back before this is called: a claim that
/// was never signed is free again, anything else is pending.
pub(super) fn unknown(gateway: &Gateway, id: PaymentId) -> Error {
    let state = gateway.ledger.payment(id).ok().flatten().map(|row| row.state);
    match state {
        Some(State::Voided) => {
            let message = "the payment network did not answer in time; your payment was not used, send it again soon";
            Error::new(Code::NetworkUnavailable, message).retry_after(5)
        }
        _ => {
            let message = "the payment was sent and its outcome is not known yet; do not sign another one: if it arrives it \
                           becomes balance of its payer";
            Error::new(Code::SettlementPending, message).detail("payment_id", id.to_string())
        }
    }
}
