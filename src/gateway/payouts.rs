//! Payouts: on the operator's word, part of a wallet's balance goes back to it on a chain, once for each id that it is given.
//!
//! The key of `pay_to` is not here. What is to be signed is said, what was signed is judged, the balance gives the money, durably,
//! and only then the chain is handed the transfer. From there it is settled and followed as any payment, also after a restart.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use tokio::time::Instant;

use super::operator::{note, wallet, wrong};
use super::settle::{self, ledger_unavailable};
use super::{Fresh, Gateway};
use crate::chain::{self, Payable, Refused, Settlement, VerifiedPayment};
use crate::clock::Timestamp;
use crate::error::{Code, Error};
use crate::ids::RequestId;
use crate::ledger::{Claim, Denied, Payment, Payout, Refused as Denial, State};
use crate::money::Micros;
use crate::x402;
use crate::x402::names;

/// How long who asks waits for the chain; the payout goes on without them.
const PATIENCE: Duration = Duration::from_secs(60);
/// Before a settlement is asked for again that could not be joined, because the one before it is just ending.
const AGAIN: Duration = Duration::from_millis(500);
/// What stands for a route in the books.
const ROUTE: &str = "payout";

/// What the operator wants, as it was typed.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Terms {
    pub account: String,
    pub usd: String,
    /// A built-in name or CAIP-2.
    pub network: String,
    pub id: String,
    pub reason: String,
}

impl Terms {
    /// What is to be paid to whom.
    ///
    /// # Errors
    /// `invalid_request`: what is wrong with it.
    pub fn payable(&self) -> Result<Payable, Error> {
        let to = wallet(&self.account)?;
        let amount = Micros::parse_usd(&self.usd).map_err(|why| wrong(why.to_string()))?;
        if amount.is_zero() {
            return Err(wrong("say an amount in USD, such as 0.25"));
        }
        let id = note(&self.id)?.trim();
        if id.is_empty() || note(&self.reason)?.trim().is_empty() {
            return Err(wrong(
                "say why with --reason, and give it a name of its own with --id, such as a ticket's: asked for again by the same id \
                 it is not paid again",
            ));
        }
        let network = names::caip2(&self.network).unwrap_or(&self.network).to_owned();
        Ok(Payable { network, to, amount, id: id.to_owned() })
    }
}

/// Makes a payout, or goes on with one. Without a `payment` the answer is the `offer` that must be signed with the key of `pay_to`,
/// unless its id is known: then it says what became of it.
///
/// # Errors
/// `invalid_request`, `invalid_payment`, `payment_invalid`, `network_unavailable`, `clock_skew`: nothing was moved then.
/// `ledger_unavailable`: look what came of it.
pub async fn pay_out(gateway: &Gateway, terms: &Terms, payment: Option<&str>, fresh: &Fresh) -> Result<Value, Error> {
    let payable = terms.payable()?;
    if is_begun(gateway, &payable)? {
        return follow(gateway, &payable).await;
    }
    let Some(header) = payment else { return offer(gateway, &payable).await };
    let payment = x402::Payment::from_header(header).map_err(|error| Error::new(Code::InvalidPayment, error.to_string()))?;
    // What was noted with it as its time is what its transfer is looked for by.
    gateway.chains.agree_on_time(&payable.network).await.map_err(refused)?;
    let verified = gateway.chains.verify_payout(&payable, &payment, gateway.clock.now()).map_err(refused)?;
    // What its chain refuses leaves no balance: above all an id that it knows and these books, put back from a copy, do not.
    if let Err(why) = gateway.chains.simulate(&verified).await {
        // Somebody else may have asked at the same moment, and been paid.
        return if is_begun(gateway, &payable)? { follow(gateway, &payable).await } else { Err(refused(why)) };
    }
    let mut random = [0; 10];
    random.copy_from_slice(&fresh.id[..10]);
    let claim =
        Claim { payer: payable.to, ..settle::claim_of(&verified, RequestId::new(gateway.clock.now(), random), ROUTE, None) };
    match gateway.ledger.pay_out(&payable.id, terms.reason.trim(), claim).await {
        Ok(()) => {
            let (id, to, amount, network) = (&payable.id, payable.to, payable.amount, &payable.network);
            tracing::info!(payout = id, account = %to, micros = amount.get(), network, payment = %verified.id(), "a payout left a balance");
        }
        // Somebody else asked at the same moment.
        Err(Denied::Refused(Denial::Known(row))) if row.payout.as_deref() == Some(&payable.id) => {}
        Err(denied) => return Err(unclaimed(gateway, &payable, &denied)),
    }
    follow(gateway, &payable).await
}

/// Whether this very payout is on its way or was paid.
fn is_begun(gateway: &Gateway, payable: &Payable) -> Result<bool, Error> {
    let Some((before, row)) = known(gateway, &payable.id)? else { return Ok(false) };
    if !before.is_same(payable.to, payable.amount, &payable.network) {
        let (usd, to) = (Micros::new(before.micros), before.account);
        return Err(wrong(format!(
            "{:?} was used for {usd} USD to {to} on {}; nothing was changed, take another id for another payout",
            payable.id, before.network
        )));
    }
    Ok(row.state != State::Failed)
}

/// What must be signed. What the balance cannot give is not signed for.
async fn offer(gateway: &Gateway, payable: &Payable) -> Result<Value, Error> {
    let available = gateway.ledger.payable(payable.to).map_err(|denied| ledger_unavailable(&denied.to_string()))?;
    if available < payable.amount {
        let needed = payable.amount;
        return Err(unclaimed(gateway, payable, &Denied::Refused(Denial::Insufficient { available, needed })));
    }
    gateway.chains.freshen().await;
    let offer = gateway.chains.payout(payable).map_err(refused)?;
    Ok(json!({ "offer": offer }))
}

fn known(gateway: &Gateway, id: &str) -> Result<Option<(Payout, Payment)>, Error> {
    gateway.ledger.payout(id).map_err(|denied| ledger_unavailable(&denied.to_string()))
}

/// Waits a while for what becomes of a payout that was claimed, and says how far it is.
async fn follow(gateway: &Gateway, payable: &Payable) -> Result<Value, Error> {
    let until = Instant::now() + PATIENCE;
    let mut why = None;
    loop {
        let gone = || Error::new(Code::Internal, "this payout is not in the books any more");
        let (payout, row) = known(gateway, &payable.id)?.ok_or_else(gone)?;
        if !is_on_its_way(&row) || why.is_some() || Instant::now() >= until {
            return shown(gateway, &payable.id, &payout, &row, why);
        }
        let unreadable = |error: chain::Unreadable| Error::new(Code::Internal, error.to_string());
        let verified = VerifiedPayment::from_bytes(&row.detail).map_err(unreadable)?;
        let attempts = row.attempts.into_iter().map(|a| chain::Attempt { tx: a.tx, raw: a.raw, bound_to: a.bound_to }).collect();
        // One that is under way is joined.
        match tokio::time::timeout_at(until, gateway.chains.resume(verified, attempts, None)).await {
            Ok(Ok(Settlement::Failed { message, .. })) => why = Some(message),
            // The books may be behind with what the chain says, or the chain is not asked at all.
            Ok(Ok(Settlement::Confirmed(_)) | Err(_)) => tokio::time::sleep(AGAIN).await,
            Err(_) => {}
        }
    }
}

/// Whether its chain has yet to say, or to say again, that it was paid.
fn is_on_its_way(row: &Payment) -> bool {
    match row.state {
        State::Claimed | State::Signed | State::Sent => true,
        State::Confirmed => row.reorged,
        State::Final | State::Failed | State::Voided => false,
    }
}

/// Why its chain refuses it, for who knows the id and not the nonce that is made of it.
fn told(reason: &str, message: String) -> String {
    match reason {
        chain::reason::NONCE_USED => "the chain says that this id was paid or cancelled before, and these books do not count it: look \
                                      at the transfers of pay_to. What was paid and not taken from the balance is taken with farebox \
                                      adjust, by the same --id; another payout needs another id"
            .to_owned(),
        _ => message,
    }
}

fn shown(gateway: &Gateway, id: &str, payout: &Payout, row: &Payment, why: Option<String>) -> Result<Value, Error> {
    let standing = gateway.ledger.standing(payout.account).map_err(|denied| ledger_unavailable(&denied.to_string()))?;
    let (state, know) = match row.state {
        _ if is_on_its_way(row) => (
            "on_its_way",
            Some("it may still be paid, so the balance does not have the money; ask again by the same id in a while"),
        ),
        State::Failed => ("failed", Some("the balance has the money again; the same id may be asked for again")),
        _ => ("paid", None),
    };
    let reason = why.or_else(|| row.reason.clone()).filter(|_| state != "paid");
    let sent = row.attempts.last().map(|attempt| &attempt.tx).filter(|tx| !tx.is_empty());
    Ok(json!({
        "payout": id, "state": state, "account": payout.account.to_string(), "amount_usd": Micros::new(payout.micros).as_usd(),
        "network": payout.network, "payment": payout.payment.to_string(),
        "tx": row.confirmed.as_ref().map(|(tx, _)| tx).or(sent),
        "final": row.state == State::Final,
        "reason": payout.reason, "at": Timestamp::from_millis(payout.at).to_rfc3339(),
        "why": reason, "know": know, "balance_usd": standing.posted.as_usd(),
    }))
}

fn unclaimed(gateway: &Gateway, payable: &Payable, denied: &Denied) -> Error {
    match denied {
        Denied::Refused(Denial::Insufficient { available, .. }) => match gateway.ledger.available(payable.to) {
            can_spend if can_spend > *available => wrong(format!(
                "{} can spend {can_spend} USD, of which {available} can be paid out now and the rest once the payments that it came by \
                 are final on their chain; nothing was changed, ask again in a while",
                payable.to
            )),
            _ => wrong(format!(
                "{} can spend {available} USD, and no more than that can be paid out; nothing was changed",
                payable.to
            )),
        },
        Denied::Refused(Denial::WrongState) => {
            wrong(format!("the books have lost the transfer of {:?}; nothing was changed, see farebox verify", payable.id))
        }
        Denied::Refused(Denial::Duplicate) => wrong(format!("{:?} was used for something else; nothing was changed", payable.id)),
        Denied::Refused(Denial::Known(_)) => wrong("this transfer was claimed under another id; nothing was changed"),
        Denied::Refused(other) => wrong(format!("the books cannot take it: {other:?}; nothing was changed")),
        Denied::Stopped(_) => ledger_unavailable(&denied.to_string()),
    }
}

/// A refusal in words for the operator; nothing was moved.
fn refused(refused: Refused) -> Error {
    match refused {
        Refused::Malformed(what) => Error::new(Code::InvalidPayment, what),
        Refused::Invalid { reason, message } => wrong(format!("{}; nothing was moved", told(reason, message))).reason(reason),
        Refused::Unavailable(why) => Error::new(Code::NetworkUnavailable, format!("nothing was moved: {why}")),
        Refused::ClockSkew(why) => Error::new(Code::ClockSkew, format!("nothing was moved: {why}")),
    }
}
