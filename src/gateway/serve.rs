//! One paid call from start to finish: read, quote, identify, and for one that brings its own money claim, open and settle, relay.

use std::any::Any;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use super::blocked::{blocked_meanwhile, payment_of_blocked};
use super::payer::Via;
use super::quote::Quote;
use super::relay::{RelayBody, Sale, Tab, relay};
use super::settle::{self, Waited};
use super::told::{PaidBy, Told};
use super::trust::Watch;
use super::{Credentials, Gateway, Refusal, Worker, jobs, prepaid};
use crate::account::AccountId;
use crate::catalogue::Model;
use crate::chain::reason::{About, about};
use crate::chain::{Confirmation, VerifiedPayment};
use crate::config::Order;
use crate::dialect::{Asking, Forward, Goods, Purchase, Words};
use crate::error::{Code, Error};
use crate::ids::{JobId, RequestId};
use crate::ledger::{Reservation, Standing};
use crate::money::Micros;
use crate::upstream::{self, Answer};
use crate::x402::{Payment, Receipt, Version};

/// Room in memory that is taken; given back when the last who has it drops it.
pub type Room = Arc<dyn Any + Send + Sync>;

/// One request to a paid route, its body read.
pub struct Call {
    pub request: RequestId,
    pub goods: Goods,
    /// As it was sent, or empty.
    pub content_type: String,
    /// The path as it was asked, such as `/api/v1/messages`: the resource that the quote names.
    pub path: String,
    pub query: Option<String>,
    pub body: Bytes,
    /// The room that the body and its copies take, for as long as anybody has this.
    pub memory: Room,
    pub credentials: Credentials,
    /// Request headers that the upstream may see.
    pub headers: Vec<(String, String)>,
    /// The name of the job that it orders, on a route that sells jobs.
    pub job: Option<JobId>,
    /// When its request arrived.
    pub arrived: Instant,
    /// When the call must have ended.
    pub deadline: Instant,
}

/// An answer whose money has arrived; its body is on its way.
pub struct Served {
    pub stream: bool,
    pub content_type: &'static str,
    /// Bytes of the body, when the upstream said so and they pass unchanged.
    pub content_length: Option<u64>,
    pub receipt: Option<(Receipt, Version)>,
    /// What the wallet has that paid from its balance, this call's hold taken off.
    pub standing: Option<Standing>,
    pub body: RelayBody,
}

impl Served {
    /// An answer in JSON that is here and has been charged.
    pub(super) fn whole(answer: Bytes, receipt: Option<(Receipt, Version)>, standing: Option<Standing>) -> Served {
        let content_length = Some(answer.len() as u64);
        let body = RelayBody::charged(answer);
        Served { stream: false, content_type: "application/json", content_length, receipt, standing, body }
    }
}

/// Serves one call. Bad requests are refused before a price is asked for, and nothing is charged for any refusal.
pub async fn serve(worker: &Worker, call: Call) -> Result<Served, Refusal> {
    let gateway = &worker.gateway;
    let request = read(&call).await?;
    let served = |model: &Model| worker.upstreams.forms(&model.upstreams, call.goods).is_ok();
    let model = &*request.find(&gateway.catalogue, served)?;
    let request = say(worker, &call, request, model).await?;
    let quote = || Quote::new(gateway, &call.path, model, model.quote(&request.bound(model)));
    let served = match call.credentials.payer(gateway) {
        // What cannot be served now is not offered either.
        Ok(Via::Nobody) => match worker.upstreams.ready(&model.upstreams, call.goods, None) {
            Ok(()) => {
                gateway.chains.freshen().await;
                Err(quote().required())
            }
            Err(error) => Err(error.into()),
        },
        Ok(Via::Payment(payment)) => sell(worker, &call, &request, model, quote(), &payment).await,
        Ok(Via::Balance(payer)) => prepaid::sell(worker, &call, &request, model, payer).await,
        Err(error) if error.code == Code::InvalidPayment => Err(quote().refuse(error)),
        Err(error) => Err(error.into()),
    };
    served.map_err(|refusal| Refusal { model: Some(model.id.clone()), ..refusal })
}

/// Bodies above this size are read and translated on another thread, so that the worker's other calls do not wait for it.
const LARGE: usize = 1024 * 1024;

async fn read(call: &Call) -> Result<Purchase<'_>, Error> {
    match call.goods {
        Goods::Words(dialect) if call.body.len() > LARGE => {
            let body = call.body.clone();
            apart(&call.memory, move || Words::read(dialect, &body).map(Words::detached)).await.map(Purchase::Words)
        }
        _ => Purchase::read(call.goods, &call.content_type, &call.body),
    }
}

/// Puts words into the dialects of the upstreams that may serve them, once and before a price is named.
async fn say<'a>(worker: &Worker, call: &Call, request: Purchase<'a>, model: &Model) -> Result<Purchase<'a>, Error> {
    worker.upstreams.forms(&model.upstreams, call.goods)?;
    let Purchase::Words(words) = request else { return Ok(request) };
    let askings = worker.upstreams.askings(&model.upstreams, call.goods);
    let is_foreign = |asking: &Asking| asking.form != call.goods;
    if call.body.len() <= LARGE || !askings.iter().any(is_foreign) {
        return words.say(&askings, model).map(Purchase::Words);
    }
    let (words, model) = (words.detached(), model.clone());
    apart(&call.memory, move || words.say(&askings, &model)).await.map(Purchase::Words)
}

/// The body for an upstream. What another one of its kind or a smaller balance asks in other words is said only now.
async fn made(room: &Room, forward: Forward) -> Result<Bytes, Error> {
    match forward {
        Forward::Here(body) => Ok(body),
        Forward::Unsaid(unsaid) if unsaid.length() > LARGE => apart(room, move || unsaid.say()).await,
        Forward::Unsaid(unsaid) => unsaid.say(),
    }
}

/// Works on a body on another thread. Its work goes on when its caller leaves, so it keeps the room that the body takes.
async fn apart<T: Send + 'static>(room: &Room, work: impl FnOnce() -> Result<T, Error> + Send + 'static) -> Result<T, Error> {
    let room = Arc::clone(room);
    let done = tokio::task::spawn_blocking(move || (work(), room)).await.map(|(done, _)| done);
    done.unwrap_or_else(|error| {
        let message = "the request could not be read; nothing was charged";
        Err(Error::new(Code::Internal, message).because(error.to_string()))
    })
}

/// A call that brings its own money.
async fn sell(
    worker: &Worker,
    call: &Call,
    request: &Purchase<'_>,
    model: &Model,
    quote: Quote,
    payment: &Payment,
) -> Result<Served, Refusal> {
    let gateway = &worker.gateway;
    let place = gateway.admit()?;
    let _turn = match settle::turn(gateway, &quote, payment) {
        Ok(turn) => turn,
        Err(error) => return Err(quote.refuse_if_payable(error)),
    };
    let head_start = gateway.payments.settle_after;
    let (verified, surcharge, earlier) = match settle::verify(gateway, &quote, payment, head_start) {
        Ok(verified) => {
            let surcharge = quote.surcharge(verified.network());
            (verified, surcharge, None)
        }
        Err(error) if settle::is_about_time(&error) => {
            return Err(quote.refuse_if_payable(settle::unless_our_clock(gateway, payment, error).await));
        }
        Err(error) => match at_the_earlier_price(gateway, call, request, model, payment, &error) {
            Some((verified, surcharge, model)) => (verified, surcharge, Some(model)),
            None => return Err(quote.refuse_if_payable(error)),
        },
    };
    let model = earlier.as_ref().unwrap_or(model);
    worker.upstreams.ready(&model.upstreams, call.goods, Some(verified.payer()))?;
    settle::check_waste(gateway, &verified)?;
    if let Err(refused) = gateway.chains.simulate(&verified).await {
        return Err(quote.refuse_if_payable(settle::refused(refused)));
    }
    let reservation = settle::claim(gateway, &verified, call.request, &call.path, &model.id).await?;
    let opened = open_and_settle(worker, call, request, model, &verified, &reservation).await;
    let Opened { mut answer, confirmation, settled_in } = match opened {
        Ok(opened) => opened,
        Err(unserved) => return Err(unserved.end(gateway, quote, &verified, reservation)),
    };
    let accepted = match jobs::accepted(call, &mut answer).await {
        Ok(accepted) => accepted,
        Err(error) => return Err(Unserved::Late(confirmation, error).end(gateway, quote, &verified, reservation)),
    };
    // The one door through which bytes leave: the money has arrived.
    let Ok(paid) = reservation.paid() else { return Err(settle::not_in_the_books(&verified, &confirmation)) };
    let receipt = Some(settle::receipt(&verified, &confirmation));
    let tariff = model.tariff.and_once(surcharge);
    // Its own line: the sale's comes at its end, which may be minutes away.
    tracing::info!(request.id = %call.request, payment = %verified.id(), tx = confirmation.tx, settled_in_us = settled_in.as_micros(), "serving a paid call");
    let (payer, paid_by) = ((verified.payer(), None), (PaidBy::Payment, verified.amount()));
    let told = Told::of(gateway, call, model, payer, paid_by);
    if let Some(accepted) = accepted {
        let order = jobs::Order { request, model, tariff, told, flat: None };
        let booked = jobs::book(gateway, order, accepted, paid).await;
        let told = booked.map_err(|error| settle::not_in_the_books(&verified, &confirmation).because(error))?;
        return Ok(Served::whole(told, receipt, None));
    }
    let (stream, content_type) = (request.stream(), answer.content_type);
    let content_length = answer.content_length.filter(|_| !stream);
    let (gauge, heard) = (request.gauge(model, answer.form, content_type), answer.form.dialect());
    let translation = request.translation(model, answer.form, call.request, gateway.clock.now());
    let (length, deadline) = (content_length.filter(|_| translation.is_none()), call.deadline);
    let cost = model.cost_at(&answer.upstream, &answer.model).cloned();
    let tab = Tab { paid, tariff, growth: None, flat: None, upstream: answer.upstream, cost, told: Some(told) };
    let (dialect, ended) = (call.goods.dialect(), Box::pin(gateway.until_blocked(verified.payer())));
    let sale = Sale { tab, gauge, translation, heard, dialect, stream, length, deadline, ended };
    let body = relay(answer.body, sale, &worker.shelf, place).await;
    Ok(Served { stream, content_type, content_length: length, receipt, standing: None, body })
}

/// A payment of another amount may answer a quote that was made before a change of price. With it goes what its network added
/// to that.
fn at_the_earlier_price(
    gateway: &Gateway,
    call: &Call,
    request: &Purchase<'_>,
    model: &Model,
    payment: &Payment,
    error: &Error,
) -> Option<(VerifiedPayment, Micros, Model)> {
    error.reason.filter(|reason| about(reason) == About::Amount)?;
    gateway.earlier.find(model, gateway.steady.now()).into_iter().find_map(|(model, surcharges)| {
        let model = request.priced(&model).ok()?.into_owned();
        let quote = Quote::new(gateway, &call.path, &model, model.quote(&request.bound(&model))).when(&surcharges);
        let verified = settle::verify(gateway, &quote, payment, gateway.payments.settle_after).ok()?;
        let surcharge = quote.surcharge(verified.network());
        Some((verified, surcharge, model))
    })
}

/// Why a claimed payment did not get its answer.
enum Unserved {
    /// The upstream refused before settlement had started: nothing was settled.
    Refused(Error),
    /// The settlement failed for good: nothing was taken.
    Unsettled { reason: &'static str, message: String },
    /// The chain did not say in time.
    Unknown,
    /// The upstream failed after the money had moved, or its wallet was barred meanwhile.
    Late(Confirmation, Error),
}

/// Sends a call to the upstreams that serve its model, with a limit of tokens for each of its answers, and waits for the head
/// of a good answer. The account is the one that the reservation is of.
pub(super) async fn open(
    worker: &Worker,
    call: &Call,
    request: &Purchase<'_>,
    (model, limit): (&Model, u32),
    (account, reservation): (AccountId, &Reservation),
) -> Result<Answer, Error> {
    let sending = upstream::Call {
        account,
        servings: &model.upstreams,
        goods: call.goods,
        content_type: request.content_type(),
        body: &|form, upstream_model: &str, field| {
            Box::pin(made(&call.memory, request.forward(&Asking { form, model: upstream_model.to_owned(), field }, limit)))
        },
        headers: &call.headers,
        query: call.query.as_deref(),
        stream: request.stream(),
        deadline: call.deadline,
    };
    worker.upstreams.send(reservation, sending).await
}

/// Both sides of a sale are there: the upstream answers, and the money has arrived.
struct Opened {
    answer: Answer,
    confirmation: Confirmation,
    /// From handing the payment to its chain until it was confirmed and in the books.
    settled_in: Duration,
}

/// Opens the upstream and settles, in the order of the operator's choice.
async fn open_and_settle(
    worker: &Worker,
    call: &Call,
    request: &Purchase<'_>,
    model: &Model,
    payment: &VerifiedPayment,
    reservation: &Reservation,
) -> Result<Opened, Unserved> {
    let gateway = &worker.gateway;
    let mut sending = Box::pin(open(worker, call, request, (model, request.output_limit(model)), (payment.payer(), reservation)));
    let mut answer = None;
    // With a head start the upstream may work for money that never comes, also when this future is dropped.
    let mut watch = match gateway.payments.order {
        // What takes minutes to be believed is waited for before anybody works for it.
        // Nor is a job ordered that cannot be called back.
        Order::Overlap if call.job.is_none() && gateway.chains.is_quick(payment) => {
            gateway.trust.head_start(payment.payer(), &gateway.steady)
        }
        Order::Overlap | Order::SettleFirst => None,
    };
    let settle_first = watch.is_none();
    if !settle_first && let Ok(early) = tokio::time::timeout(gateway.payments.settle_after, &mut sending).await {
        if early.is_err() {
            watch.iter_mut().for_each(Watch::was_fine);
        }
        answer = Some(Ok(early.map_err(Unserved::Refused)?));
    }
    if gateway.ledger.is_blocked(payment.payer()) {
        watch.iter_mut().for_each(Watch::was_fine);
        return Err(Unserved::Refused(payment_of_blocked()));
    }
    watch.iter_mut().for_each(Watch::is_settling);
    let settling = Instant::now();
    let waiting = settle::wait(payment.network(), gateway.payments.settle_wait, gateway.chains.settle(payment.clone()));
    tokio::pin!(waiting);
    // Both go on side by side; neither is given up for the other.
    let waited = loop {
        tokio::select! {
            waited = &mut waiting => break waited,
            opened = &mut sending, if !settle_first && answer.is_none() => answer = Some(opened),
        }
    };
    let settled_in = settling.elapsed();
    let confirmation = match waited {
        Waited::Confirmed(confirmation) => confirmation,
        Waited::Failed { reason, message } => {
            watch.iter_mut().for_each(Watch::was_for_nothing);
            return Err(Unserved::Unsettled { reason, message });
        }
        Waited::Unknown => return Err(Unserved::Unknown),
    };
    watch.iter_mut().for_each(Watch::was_fine);
    let answer = match answer {
        // What has settled meanwhile is its wallet's balance, as when the upstream fails.
        _ if gateway.ledger.is_blocked(payment.payer()) => Err(blocked_meanwhile()),
        Some(answer) => answer,
        None => sending.await,
    };
    match answer {
        Ok(answer) => Ok(Opened { answer, confirmation, settled_in }),
        Err(error) => Err(Unserved::Late(confirmation, error)),
    }
}

impl Unserved {
    /// Ends the call in the books and says in words who has the money now.
    fn end(self, gateway: &Gateway, quote: Quote, payment: &VerifiedPayment, reservation: Reservation) -> Refusal {
        // Gives a claim back, or credits a settled payment to its payer, in one transaction.
        reservation.void();
        match self {
            // Another copy's settlement may have used this very claim in the meantime.
            Unserved::Refused(error) if settle::is_free(gateway, payment.id()) => error.into(),
            Unserved::Refused(_) => settle::unknown(gateway, payment.id()).into(),
            Unserved::Unsettled { reason, message } => {
                Refusal { offer: Some(quote.offer), ..settle::failed(payment, reason, &message) }
            }
            Unserved::Unknown => settle::unknown(gateway, payment.id()).into(),
            Unserved::Late(confirmation, error) => {
                let (amount, wallet) = (payment.amount(), payment.payer_address());
                let message = format!(
                    "{}; your payment of {amount} USDC has settled and is balance of {wallet}, and buys nothing if it is sent again",
                    error.message
                );
                let error = Error { message, ..error }.detail("credited_micro", amount.get()).detail("wallet", wallet);
                Refusal { receipt: Some(settle::receipt(payment, &confirmation)), ..error.into() }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_leaves_does_not_give_the_room_back_that_its_body_still_takes() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let room: Room = Arc::new(());
        let (go, gone) = std::sync::mpsc::channel::<()>();
        let work = apart(&room, move || {
            _ = gone.recv();
            Ok(())
        });
        let left = runtime.block_on(async { tokio::time::timeout(Duration::ZERO, work).await });
        assert!(left.is_err(), "its caller has left");
        assert_eq!(Arc::strong_count(&room), 2, "and the work goes on");
        go.send(()).unwrap();
        // Which waits for what was begun.
        drop(runtime);
        assert_eq!(Arc::strong_count(&room), 1);
    }
}
