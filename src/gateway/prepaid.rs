//! A call that a wallet's balance pays for: who may make it, what is held for it, and what helps when there is too little.
//!
//! A hold is owned by the call it is for, first as a `Reservation` in the future that serves it, then as `Paid` in the task
//! that relays its answer. Whatever ends these (an answer, an error, a client that leaves, a revoked key, the time limit)
//! drops them, and dropping gives the rest back: no hold outlives its call, and none expires under one.

use std::future::{Future, pending};
use std::sync::Arc;

use super::payer::{key_ended, nonce_used};
use super::quote::Quote;
use super::relay::{Ended, Growth, Sale, Tab, relay};
use super::settle::ledger_unavailable;
use super::told::{PaidBy, Told};
use super::{Call, Gateway, Payer, Refusal, Remedy, Served, Shortage, Worker, jobs, serve};
use crate::account::AccountId;
use crate::catalogue::Model;
use crate::clock::{Period, Timestamp};
use crate::config::Remainder;
use crate::dialect::Purchase;
use crate::error::{Code, Error};
use crate::keys::{self, Key, Record};
use crate::ledger::{Denied, Draw, Expected, KeyDraw, Refused};
use crate::money::Micros;
use crate::tariff::{Bound, Ceiling};

/// What a call holds: at once, and at most.
struct Price {
    first: Micros,
    /// Tokens of output, of all answers together, that the first part pays for.
    first_output: u64,
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
    request: &Purchase<'_>,
    model: &Model,
    payer: Payer,
) -> Result<Served, Refusal> {
    let gateway = &worker.gateway;
    let (account, key) = (payer.account(), payer.key().cloned());
    gateway.check_blocked(account)?;
    key.iter().try_for_each(|key| check_allowed(&key.record, model))?;
    gateway.pace.call(account)?;
    // Before a sign-in is used up for nothing.
    worker.upstreams.ready(&model.upstreams, call.goods, Some(account))?;
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
        Err(denied) => return Err(refused(gateway, (call, account), model, &price, key.as_deref(), denied)),
    };
    let limit = match &price.growth {
        Some(_) => payable_output(gateway, request, model, &price, (account, key.as_deref()))?,
        None => request.output_limit(model),
    };
    // What an upstream has begun to make is charged, whatever becomes of the key or its wallet.
    let mut ended: Ended = match call.job {
        Some(_) => Box::pin(pending()),
        None => until_ended(key.clone(), gateway.until_blocked(account)),
    };
    let mut answer = tokio::select! {
        biased;
        error = &mut ended => return Err(error.into()),
        answer = serve::open(worker, call, request, (model, limit), (account, &reservation)) => answer?,
    };
    let accepted = jobs::accepted(call, &mut answer).await?;
    let Ok(paid) = reservation.paid() else { return Err(ledger_unavailable("a hold is gone").into()) };
    let standing = || gateway.ledger.standing(account).map_err(|denied| ledger_unavailable(&denied.to_string()));
    let key = key.map(|key| key.record.id);
    let told = Told::of(gateway, call, model, (account, key), (PaidBy::Balance, price.quote));
    if let Some(accepted) = accepted {
        let order = jobs::Order { request, model, tariff: model.tariff, told, flat: price.flat };
        let told = jobs::book(gateway, order, accepted, paid).await?;
        return Ok(Served::whole(told, None, Some(standing()?)));
    }
    let standing = standing()?;
    let stream = request.stream();
    let (content_type, content_length) = (answer.content_type, answer.content_length.filter(|_| !stream));
    let (gauge, heard) = (request.gauge(model, answer.form, content_type), answer.form.dialect());
    let translation = request.translation(model, answer.form, call.request, gateway.clock.now());
    let content_length = content_length.filter(|_| translation.is_none());
    tracing::debug!(request.id = %call.request, "serving a prepaid call");
    let (cost, upstream) = (model.cost_at(&answer.upstream, &answer.model).cloned(), answer.upstream);
    let tab = Tab { paid, tariff: model.tariff, growth: price.growth, flat: price.flat, upstream, cost, told: Some(told) };
    let (length, deadline) = (content_length, call.deadline);
    let sale = Sale { tab, gauge, translation, heard, dialect: call.goods.dialect(), stream, length, deadline, ended };
    let body = relay(answer.body, sale, &worker.shelf, place).await;
    Ok(Served { stream, content_type, content_length, receipt: None, standing: Some(standing), body })
}

/// Resolves with what the caller is told once its wallet is barred or its key has ended, if it has one; never by the clock.
fn until_ended(key: Option<Arc<Key>>, blocked: impl Future<Output = Error> + 'static) -> Ended {
    let Some(key) = key else { return Box::pin(blocked) };
    Box::pin(async move {
        tokio::select! {
            biased;
            error = blocked => error,
            () = key.until_revoked() => {
                key_ended(key.ended(Timestamp::default()).unwrap_or(keys::Ended::Revoked), None)
            }
        }
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
    fn of(gateway: &Gateway, request: &Purchase<'_>, model: &Model) -> Price {
        let bound = request.bound(model);
        let quote = model.quote(&bound);
        let flat = matches!(model.ceiling, Ceiling::Flat(_)) && gateway.payments.remainder == Remainder::Keep;
        let whole = Price { first: quote, first_output: bound.output, quote, growth: None, flat: flat.then_some(quote) };
        // What nobody sees while it is made cannot be held for as it passes.
        let least = gateway.prepaid.hold_output.saturating_add(request.hidden_output(model));
        if !request.grows() || bound.output <= least || matches!(model.ceiling, Ceiling::Flat(_)) {
            return whole;
        }
        let first = model.quote(&Bound { output: least, ..bound });
        let step = model.tariff.output_cost(&bound, gateway.prepaid.hold_output).max(Micros::new(1));
        Price { first, first_output: least, growth: Some(Growth { most: quote, step }), ..whole }
    }
}

/// The tokens that each answer to a call may have whose hold is to grow: what the caller asked, but no more than can be paid
/// as things stand, so that no upstream works for what is not there. What is held already pays for the least.
fn payable_output(
    gateway: &Gateway,
    request: &Purchase<'_>,
    model: &Model,
    price: &Price,
    (account, key): (AccountId, Option<&Key>),
) -> Result<u32, Error> {
    let denied = |denied: Denied| ledger_unavailable(&denied.to_string());
    let standing = gateway.ledger.standing(account).map_err(denied)?;
    let mut more = standing.allowance.get().saturating_add(standing.available.get());
    if let Some((key, limit)) = key.and_then(|key| Some((&key.record, key.record.limit?))) {
        more = more.min(gateway.ledger.key_spending(key.id, key.reset).map_err(denied)?.left(limit.get()));
    }
    let money = Micros::new(price.first.get().saturating_add(more));
    let (asked, choices) = (request.output_limit(model), u64::from(request.choices()).max(1));
    let Some(output) = model.tariff.output_for(&request.bound(model), money) else { return Ok(asked) };
    let each = output.max(price.first_output) / choices;
    Ok(u32::try_from(each).map_or(asked, |each| each.clamp(1, asked)))
}

/// Why a call is not held for. Nothing was changed by it.
fn refused(
    gateway: &Gateway,
    (call, account): (&Call, AccountId),
    model: &Model,
    price: &Price,
    key: Option<&Key>,
    denied: Denied,
) -> Refusal {
    let refused = match denied {
        Denied::Refused(refused) => refused,
        Denied::Stopped(stopped) => return ledger_unavailable(&stopped.to_string()).into(),
    };
    match (refused, key) {
        (Refused::Insufficient { needed, .. }, _) => too_little(gateway, (call, account), model, price, needed),
        (Refused::KeyLimit { left }, Some(key)) => limit_reached(&key.record, left, price.first, gateway.clock.now()).into(),
        (Refused::NonceUsed, _) => nonce_used().into(),
        (Refused::Blocked, _) => gateway.blocked(account).into(),
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

/// The refusal of a wallet that has too little: nothing but time helps while its own money is on its way, else a top-up or a
/// payment for this call alone, if one of those can be large enough.
fn too_little(gateway: &Gateway, (call, account): (&Call, AccountId), model: &Model, price: &Price, needed: Micros) -> Refusal {
    // What is there and what arrives, from one moment: money that has arrived since is not missed.
    let Expected { available, arriving } = match gateway.ledger.expected(account) {
        Ok(expected) => expected,
        Err(denied) => return ledger_unavailable(&denied.to_string()).into(),
    };
    let soon = Micros::new(available.get().saturating_add(arriving.get()));
    if soon >= needed {
        return arriving_soon(arriving, needed).into();
    }
    let most = gateway.prepaid.top_up_maximum;
    if needed.saturating_sub(soon) > most {
        let message = format!(
            "this call needs {needed} USDC to begin, your balance is {available}, and one top-up brings {most} at most; ask for \
             fewer max_tokens, or send a shorter prompt"
        );
        let error = Error::new(Code::InvalidRequest, message).param("max_tokens").requiring(needed);
        return error.detail("available_micro", available.get()).into();
    }
    // What an allowance paid of the first part, it pays of the whole.
    let by_allowance = price.first.saturating_sub(needed);
    let missing = price.quote.saturating_sub(by_allowance).saturating_sub(available);
    let missing = Micros::new(missing.get().div_ceil(CENT).saturating_mul(CENT));
    let suggested = missing.max(gateway.prepaid.top_up_suggested).min(most);
    let message = format!(
        "your balance is {available} USDC and this call needs {needed} to begin; top up with POST {}/api/v1/x402/top-up, ask for \
         fewer max_tokens, or pay for this call alone with PAYMENT-SIGNATURE",
        gateway.public_url
    );
    let error = Error::new(Code::InsufficientBalance, message).requiring(needed).detail("available_micro", available.get());
    let refusal = Quote::new(gateway, &call.path, model, price.quote).refuse(error);
    Refusal { remedy: Some(Remedy::TopUp(Shortage { available, needed, suggested })), ..refusal }
}

/// Seconds after which a call that waits for money is worth sending again.
const SETTLES_IN: u32 = 3;

/// A wallet that has paid is never asked to pay again: a client that does so by itself would pay twice.
fn arriving_soon(arriving: Micros, needed: Micros) -> Error {
    let message = match arriving.is_zero() {
        true => "your balance has just become enough for this call; send it again".to_owned(),
        false => format!(
            "a payment of yours over {arriving} USDC is settling and will pay for this call; pay nothing more, and send this one \
             again in a few seconds"
        ),
    };
    let error = Error::new(Code::PaymentInProgress, message).requiring(needed).retry_after(SETTLES_IN);
    error.detail("arriving_micro", arriving.get())
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
