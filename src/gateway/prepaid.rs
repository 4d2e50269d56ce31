//! A call that a wallet's balance pays for: who may make it, what is held for it, and what helps when there is too little.
//!
//! A hold is owned by the call it is for, first as a `Reservation` in the future that serves it, then as `Paid` in the task
//! that relays its answer. Whatever ends these (an answer, an error, a client that leaves, a revoked key, the time limit)
//! drops them, and dropping gives the rest back: no hold outlives its call, and none expires under one.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::payer::{key_ended, nonce_used};
use super::quote::Quote;
use super::relay::{Growth, Sale, Told, relay};
use super::settle::ledger_unavailable;
use super::{Call, Gateway, Payer, Refusal, Remedy, Served, Shortage, Worker, serve};
use crate::catalogue::Model;
use crate::clock::{Period, Timestamp};
use crate::config::Remainder;
use crate::dialect::{Meter, Request};
use crate::error::{Code, Error};
use crate::keys::{Ended, Key, Record};
use crate::ledger::{Denied, Draw, KeyDraw, Refused};
use crate::money::{Bill, Micros};
use crate::tariff::{Bound, Ceiling};

/// What a call holds: at once, and at most.
struct Price {
    first: Micros,
    quote: Micros,
    /// Of a streamed call, whose output limit is often absurd: it holds a part of its output at first.
    growth: Option<Growth>,
    /// What a whole answer costs whatever it used, where the operator sells it for one price.
    flat: Option<Micros>,
}

/// Sells one call to a wallet for its balance.
pub(super) async fn sell(
    worker: &Worker,
    call: &Call,
    request: &Request<'_>,
    model: &Model,
    payer: Payer,
) -> Result<Served, Refusal> {
    let gateway = &worker.gateway;
    let (account, key) = (payer.account(), payer.key().cloned());
    key.iter().try_for_each(|key| check_allowed(&key.record, model))?;
    let place = gateway.admit()?;
    let price = Price::of(gateway, request, model);
    let draw = Draw {
        wallet: account,
        amount: price.first,
        request: call.request,
        model: model.id.clone(),
        path: call.path.clone(),
        key: key.as_ref().map(|key| draw_of(&key.record)),
        nonce: gateway.nonce_for_call(&payer)?,
        most_calls: gateway.limits.streams_per_account,
    };
    let reservation = match gateway.ledger.reserve(draw).await {
        Ok(reservation) => reservation,
        Err(denied) => return Err(refused(gateway, call, model, &price, key.as_deref(), denied)),
    };
    let mut ended = until_ended(key.clone());
    let answer = tokio::select! {
        biased;
        error = &mut ended => return Err(error.into()),
        answer = serve::open(worker, call, request, model, &reservation) => answer?,
    };
    let Ok(paid) = reservation.paid() else { return Err(ledger_unavailable("a hold is gone").into()) };
    let standing = gateway.ledger.standing(account).map_err(|denied| ledger_unavailable(&denied.to_string()))?;
    let stream = request.stream();
    let (content_type, content_length) = (answer.content_type, answer.content_length.filter(|_| !stream));
    let meter = Meter::new(call.dialect, stream, request.wants_usage(), request.estimate(model));
    tracing::debug!(request.id = %call.request, "serving a prepaid call");
    let key = key.map(|key| key.record.id);
    let sale = Sale {
        paid,
        meter,
        tariff: model.tariff,
        dialect: call.dialect,
        stream,
        length: content_length,
        deadline: call.deadline,
        growth: price.growth,
        flat: price.flat,
        ended,
        // One line a call: a log of many calls costs as much as their holds and charges.
        told: Some(Told { account, key, model: model.id.clone(), upstream: answer.upstream }),
    };
    let body = relay(answer.body, sale, place).await;
    Ok(Served { stream, content_type, content_length, receipt: None, standing: Some(standing), body })
}

/// Resolves with what the caller is told once a key has ended; never without a key, nor by the clock.
fn until_ended(key: Option<Arc<Key>>) -> Pin<Box<dyn Future<Output = Error>>> {
    let Some(key) = key else { return Box::pin(std::future::pending()) };
    Box::pin(async move {
        key.until_revoked().await;
        key_ended(key.ended(Timestamp::default()).unwrap_or(Ended::Revoked), None)
    })
}

fn draw_of(key: &Record) -> KeyDraw {
    KeyDraw { id: key.id, limit: key.limit, period: key.reset }
}

/// Models that a refusal names.
const NAMED: usize = 20;

fn check_allowed(key: &Record, model: &Model) -> Result<(), Error> {
    if key.models.is_empty() || key.models.contains(&model.id) {
        return Ok(());
    }
    let named: Vec<_> = key.models.iter().take(NAMED).map(String::as_str).collect();
    let more = if key.models.len() > NAMED { " and others" } else { "" };
    let message =
        format!("this API key is not for {}; it is for {}{more}, use one of them or another key", model.id, named.join(", "));
    Err(Error::new(Code::ModelNotAllowed, message).param("model"))
}

impl Price {
    fn of(gateway: &Gateway, request: &Request<'_>, model: &Model) -> Price {
        let bound = request.bound(model);
        let quote = model.quote(&bound);
        let flat = matches!(model.ceiling, Ceiling::Flat(_)) && gateway.payments.remainder == Remainder::Keep;
        let whole = Price { first: quote, quote, growth: None, flat: flat.then_some(quote) };
        let step = gateway.prepaid.hold_output;
        if !request.stream() || bound.output <= step || matches!(model.ceiling, Ceiling::Flat(_)) {
            return whole;
        }
        let first = model.quote(&Bound { output: step, ..bound });
        let mut bill = Bill::default();
        bill.add(step, model.tariff.output);
        let step = bill.total().max(Micros::new(1));
        Price { first, growth: Some(Growth { most: quote, step }), ..whole }
    }
}

/// Why a call is not held for. Nothing was changed by it.
fn refused(gateway: &Gateway, call: &Call, model: &Model, price: &Price, key: Option<&Key>, denied: Denied) -> Refusal {
    let refused = match denied {
        Denied::Refused(refused) => refused,
        Denied::Stopped(stopped) => return ledger_unavailable(&stopped.to_string()).into(),
    };
    match (refused, key) {
        (Refused::Insufficient { available, needed }, _) => too_little(gateway, call, model, price, (available, needed)),
        (Refused::KeyLimit { left }, Some(key)) => limit_reached(&key.record, left, price.first, gateway.clock.now()).into(),
        (Refused::NonceUsed, _) => nonce_used().into(),
        (Refused::TooManyCalls, _) => {
            let most = gateway.limits.streams_per_account;
            let message = format!(
                "this wallet has {most} calls running, as many as it may have at once; send this one again when one of them has ended"
            );
            Error::new(Code::TooManyCalls, message).retry_after(1).into()
        }
        (other, _) => {
            Error::new(Code::Internal, "the call could not be paid for; nothing was charged").because(format!("{other:?}")).into()
        }
    }
}

/// A cent, to which suggestions are rounded up.
const CENT: u64 = 10_000;

/// The 402 of a wallet that has too little. It can top up, or pay for this call alone.
fn too_little(gateway: &Gateway, call: &Call, model: &Model, price: &Price, (available, needed): (Micros, Micros)) -> Refusal {
    // What an allowance paid of the first part, it pays of the whole.
    let by_allowance = price.first.saturating_sub(needed);
    let missing = price.quote.saturating_sub(by_allowance).saturating_sub(available);
    let missing = Micros::new(missing.get().div_ceil(CENT).saturating_mul(CENT));
    let suggested = missing.max(gateway.prepaid.top_up_suggested).min(gateway.prepaid.top_up_maximum);
    let message = format!(
        "your balance is {available} USDC and this call needs {needed} to begin; top up with POST {}/api/v1/x402/top-up, ask for \
         fewer max_tokens, or pay for this call alone with PAYMENT-SIGNATURE",
        gateway.public_url
    );
    let error = Error::new(Code::InsufficientBalance, message).requiring(needed).detail("available_micro", available.get());
    let refusal = Quote::new(gateway, &call.path, model, price.quote).refuse(error);
    Refusal { remedy: Some(Remedy::TopUp(Shortage { available, needed, suggested })), ..refusal }
}

fn limit_reached(key: &Record, left: Micros, needed: Micros, now: Timestamp) -> Error {
    let limit = key.limit.unwrap_or_default();
    let period = match key.reset {
        Period::Ever => "in all",
        Period::Day => "a day",
        Period::Week => "a week",
        Period::Month => "a month",
    };
    let renews_at = key.reset.renews(now).map(Timestamp::to_rfc3339);
    let advice = match &renews_at {
        Some(at) => format!("wait until it starts again at {at}, ask for fewer max_tokens, or use another key"),
        None => "ask for fewer max_tokens, or use another key".to_owned(),
    };
    let message = format!(
        "the spending limit of this API key is {limit} USDC {period}, of which {left} is left, and this call needs {needed} to begin; {advice}"
    );
    let error = Error::new(Code::SpendLimitExceeded, message).requiring(needed).detail("left_micro", left.get());
    match renews_at {
        Some(at) => error.detail("renews_at", at),
        None => error,
    }
}
