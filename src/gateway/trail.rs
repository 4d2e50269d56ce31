//! One sale as a sequence of steps, as the books remember it: for an operator who is asked what became of somebody's money.

use serde_json::{Value, json};

use super::failures::Failure;
use super::settle::ledger_unavailable;
use crate::clock::Timestamp;
use crate::error::{Code, Error};
use crate::ids::{PaymentId, RequestId};
use crate::ledger::{Denied, Ledger, Outcome, Payment, Receipt, State};
use crate::money::Micros;

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sought {
    Call(RequestId),
    Payment(PaymentId),
}

impl Sought {
    /// Reads `req_…` or `pay_…`, as answers name them.
    pub fn parse(text: &str) -> Option<Sought> {
        RequestId::parse(text).map(Sought::Call).or_else(|| PaymentId::parse(text).map(Sought::Payment))
    }
}

/// How far one step has come.
#[derive(Clone, Copy)]
enum Step {
    Done,
    Waiting,
    Failed,
    /// It never came to that.
    Skipped,
}

impl Step {
    fn name(self) -> &'static str {
        match self {
            Step::Done => "done",
            Step::Waiting => "waiting",
            Step::Failed => "failed",
            Step::Skipped => "skipped",
        }
    }
}

/// What the books have of one sale.
struct Sale {
    request: RequestId,
    payment: Option<(PaymentId, Payment)>,
    receipt: Option<Receipt>,
    is_running: bool,
}

/// The steps of one sale: quote, signature, claim, signed, sent, confirmed, upstream, charge, remainder. `failed` is what is
/// remembered of its failures. It blocks, and for a call that was paid for and never served it reads through all payments.
///
/// # Errors
/// `not_found`; `ledger_unavailable`.
pub fn trail(ledger: &Ledger, sought: Sought, failed: impl Fn(RequestId) -> Vec<Failure>) -> Result<Value, Error> {
    let sale = find(ledger, sought)?;
    let failures = sale.as_ref().map(|sale| sale.request).or(match sought {
        Sought::Call(request) => Some(request),
        Sought::Payment(_) => None,
    });
    let failures = failures.map(failed).unwrap_or_default();
    let unknown = "the books have no sale of this name: a call that was refused before it was paid for leaves nothing in them";
    if sale.is_none() && failures.is_empty() {
        return Err(Error::new(Code::NotFound, unknown));
    }
    let steps = sale.as_ref().map(|sale| steps(sale, &failures)).unwrap_or_default();
    let payment = sale.as_ref().and_then(|sale| sale.payment.as_ref());
    Ok(json!({
        "request_id": sale.as_ref().map(|sale| sale.request).or(failures.first().map(|failure| failure.request)).map(text),
        "payment_id": payment.map(|(id, _)| id.to_string()),
        "account": sale.as_ref().and_then(Sale::account),
        "network": payment.map(|(_, row)| row.network.clone()),
        "state": payment.map(|(_, row)| row.state),
        "top_up": payment.is_some_and(|(_, row)| row.top_up),
        "payout": payment.and_then(|(_, row)| row.payout.clone()),
        "steps": steps,
        "failures": failures.iter().map(shown).collect::<Vec<_>>(),
    }))
}

fn text(request: RequestId) -> String {
    request.to_string()
}

/// One failure for the operator.
pub fn shown(failure: &Failure) -> Value {
    let row = failure.code.row();
    json!({
        "at": failure.at.to_rfc3339(),
        "request_id": failure.request.to_string(),
        "status": row.status,
        "code": row.code,
        "reason": failure.reason,
        "cause": failure.cause,
        "path": failure.path,
        "model": failure.model,
        "upstream": failure.upstream,
        "broke_off": failure.broke_off,
    })
}

fn find(ledger: &Ledger, sought: Sought) -> Result<Option<Sale>, Error> {
    let stopped = |denied: Denied| ledger_unavailable(&denied.to_string());
    // A call that has just ended is on disk then.
    ledger.flush().map_err(stopped)?.wait_blocking().map_err(|why| ledger_unavailable(&why.to_string()))?;
    let (request, payment) = match sought {
        Sought::Payment(id) => match ledger.payment(id).map_err(stopped)? {
            Some(row) => (RequestId(row.request), Some((id, row))),
            None => return Ok(None),
        },
        Sought::Call(request) => (request, None),
    };
    let receipt = ledger.receipt(request).map_err(stopped)?;
    let is_running = ledger.is_running(request).map_err(stopped)?;
    let payment = match (payment, receipt.as_ref().and_then(|receipt| receipt.payment)) {
        (Some(payment), _) => Some(payment),
        (None, Some(id)) => ledger.payment(id).map_err(stopped)?.map(|row| (id, row)),
        // What a wallet's balance has paid for, or still does, brought no payment.
        (None, None) if receipt.is_some() => None,
        (None, None) => ledger.payment_of(request).map_err(stopped)?,
    };
    let is_known = payment.is_some() || receipt.is_some() || is_running;
    Ok(is_known.then_some(Sale { request, payment, receipt, is_running }))
}

impl Sale {
    fn account(&self) -> Option<String> {
        let payer = self.payment.as_ref().map(|(_, row)| row.payer);
        payer.or(self.receipt.as_ref().map(|receipt| receipt.account)).map(|account| account.to_string())
    }
}

fn step(name: &str, step: Step, at: Option<Timestamp>, facts: Value) -> Value {
    json!({ "name": name, "state": step.name(), "at": at.map(Timestamp::to_rfc3339), "facts": facts })
}

fn usd(micros: u64) -> String {
    Micros::new(micros).to_string()
}

fn steps(sale: &Sale, failures: &[Failure]) -> Vec<Value> {
    let mut steps = vec![quoted(sale)];
    let payment = sale.payment.as_ref().map(|(_, row)| row);
    let (is_top_up, is_payout) = (payment.is_some_and(|row| row.top_up), payment.is_some_and(|row| row.payout.is_some()));
    match &sale.payment {
        Some((id, row)) => steps.extend(settled(*id, row)),
        None => steps.push(held(sale)),
    }
    if is_payout {
        return steps;
    }
    if !is_top_up {
        steps.push(served(sale, failures));
        steps.push(charged(sale));
    }
    steps.push(left(sale));
    steps
}

fn quoted(sale: &Sale) -> Value {
    let most = sale.receipt.as_ref().map(|receipt| receipt.ceiling).or(sale.payment.as_ref().map(|(_, row)| row.amount));
    let route = sale.receipt.as_ref().map(|receipt| receipt.path.clone());
    let route = route.or(sale.payment.as_ref().map(|(_, row)| row.route.clone()));
    step("quote", Step::Done, Some(sale.request.arrived()), json!({ "at_most_usd": most.map(usd), "route": route }))
}

/// What stands for a call that brought no payment.
fn held(sale: &Sale) -> Value {
    let receipt = sale.receipt.as_ref();
    let facts = json!({
        "account": receipt.map(|receipt| receipt.account.to_string()),
        "key": receipt.and_then(|receipt| receipt.key),
        "paid_by": "balance",
    });
    step("hold", Step::Done, Some(sale.request.arrived()), facts)
}

/// From a signature to money that is here.
fn settled(id: PaymentId, row: &Payment) -> [Value; 5] {
    let claimed_at = Some(Timestamp::from_millis(row.claimed_at));
    let signature =
        json!({ "payer": row.payer.to_string(), "network": row.network, "asset": row.asset, "amount_usd": usd(row.amount) });
    let (claim, signed, sent, confirmed) = match row.state {
        State::Claimed => (Step::Done, Step::Waiting, Step::Waiting, Step::Waiting),
        State::Signed => (Step::Done, Step::Done, Step::Waiting, Step::Waiting),
        State::Sent => (Step::Done, Step::Done, Step::Done, Step::Waiting),
        State::Confirmed | State::Final => (Step::Done, Step::Done, Step::Done, Step::Done),
        State::Voided => (Step::Skipped, Step::Skipped, Step::Skipped, Step::Skipped),
        State::Failed if row.attempts.is_empty() => (Step::Done, Step::Skipped, Step::Skipped, Step::Failed),
        State::Failed => (Step::Done, Step::Done, Step::Done, Step::Failed),
    };
    let given_back =
        (row.state == State::Voided).then_some("given back before anything was signed: the payment may be sent again");
    let ours: Vec<_> = row.attempts.iter().map(|attempt| attempt.tx.as_str()).collect();
    let arrived = json!({
        "transaction": row.confirmed.as_ref().map(|(tx, _)| tx),
        "block": row.confirmed.as_ref().map(|(_, block)| block),
        "final": row.confirmed.is_some() && (row.irreversible || row.state == State::Final),
        "vanished_once": row.reorged.then_some(true),
        "reason": row.reason,
    });
    [
        step("signature", Step::Done, claimed_at, signature),
        step("claim", claim, claimed_at, json!({ "payment_id": id.to_string(), "note": given_back })),
        step("signed", signed, None, json!({ "transactions": ours })),
        step("sent", sent, None, json!({})),
        step("confirmed", confirmed, None, arrived),
    ]
}

fn served(sale: &Sale, failures: &[Failure]) -> Value {
    if let Some(receipt) = &sale.receipt {
        let facts = json!({
            "model": receipt.model,
            // Of calls that a crash ended it is not known.
            "upstream": Some(&receipt.upstream).filter(|name| !name.is_empty()),
            "cost_usd": receipt.cost.map(usd),
            "answer": if receipt.whole { "complete" } else { "broken off" },
            "tokens_in": receipt.input,
            "tokens_out": receipt.output,
            "cache_read": receipt.cache_read,
            "cache_write": receipt.cache_write,
            "units": receipt.units,
        });
        let done = if receipt.whole { Step::Done } else { Step::Failed };
        return step("upstream", done, Some(Timestamp::from_millis(receipt.at)), facts);
    }
    match failures.last() {
        _ if sale.is_running => step("upstream", Step::Waiting, None, json!({})),
        Some(failure) => {
            let facts = json!({ "model": failure.model, "upstream": failure.upstream, "code": failure.code.row().code, "cause": failure.cause });
            step("upstream", Step::Failed, Some(failure.at), facts)
        }
        None => step("upstream", Step::Skipped, None, json!({ "note": "no answer was delivered" })),
    }
}

fn charged(sale: &Sale) -> Value {
    match &sale.receipt {
        Some(receipt) => {
            let facts = json!({ "charge_usd": usd(receipt.charge), "of_the_allowance_usd": usd(receipt.allowance) });
            step("charge", Step::Done, Some(Timestamp::from_millis(receipt.at)), facts)
        }
        None if sale.is_running => step("charge", Step::Waiting, None, json!({})),
        None => step("charge", Step::Skipped, None, json!({ "charge_usd": usd(0) })),
    }
}

/// What was not needed, and to whom it went.
fn left(sale: &Sale) -> Value {
    let outcome = sale.payment.as_ref().and_then(|(_, row)| row.outcome);
    let refunded = sale.receipt.as_ref().map(|receipt| receipt.refunded).filter(|refunded| *refunded > 0).map(usd);
    match (outcome, &sale.receipt) {
        (Some(Outcome::Served { credited, .. }), _) => {
            step("remainder", Step::Done, None, json!({ "became_balance_usd": usd(credited), "refunded_usd": refunded }))
        }
        (Some(Outcome::Credited { amount }), _) => {
            step("remainder", Step::Done, None, json!({ "became_balance_usd": usd(amount) }))
        }
        (None, Some(receipt)) => {
            let given_back = receipt.ceiling.saturating_sub(receipt.charge);
            step("remainder", Step::Done, None, json!({ "released_usd": usd(given_back), "refunded_usd": refunded }))
        }
        (None, None) => {
            let is_open = sale.is_running || sale.payment.as_ref().is_some_and(|(_, row)| row.is_open());
            step("remainder", if is_open { Step::Waiting } else { Step::Skipped }, None, json!({}))
        }
    }
}
