//! What a start does with calls that an earlier run left open: nobody serves them any more.

use super::Broken;
use super::book::{Book, Close, Refused};
use super::rows::{Hold, Service};
use super::store::{Commit, Store};
use super::{reconcile, verify};
use crate::clock::Timestamp;
use crate::fault;
use crate::ids::RequestId;
use crate::money::Micros;

/// What a start found and resolved.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Recovered {
    /// Calls that had relayed nothing: given back.
    pub voided: usize,
    /// Calls that had relayed something: charged at their last checkpoint.
    pub charged: usize,
    /// Payments the chain may still change; the watcher goes on with them.
    pub open_payments: usize,
}

/// Postings up to which a start checks all of the books; beyond them the check while running has to do.
const CHECKED_AT_START: u64 = 1_000_000;

/// Refuses to go on with books that are broken: selling on them would make it worse.
pub(super) fn check(store: &Store, book: &Book) -> Result<(), Broken> {
    // Every transfer is two postings.
    if book.next_seq.saturating_mul(2) > CHECKED_AT_START {
        return Ok(());
    }
    let report = verify::check(&store.read()?, reconcile::PAYMENTS_IN_A_PASS)?;
    match report.problems.first() {
        None => Ok(()),
        Some(problem) => {
            let more = report.problems.len() - 1;
            Err(Broken::examine("check", format!("the books are broken: {problem} (and {more} more); run farebox verify")))
        }
    }
}

/// Ends every hold of an older run. A call that had not started is void; one that had is charged what its last durable
/// checkpoint says, in the payer's favour.
pub(super) fn resolve(store: &Store, book: &mut Book, now: Timestamp) -> Result<Recovered, Broken> {
    let mut recovered = Recovered::default();
    let mut left: Vec<(RequestId, Hold)> = book.holds.iter().map(|(request, hold)| (*request, hold.clone())).collect();
    left.sort_by_key(|(request, _)| *request);
    let mut writes = Vec::new();
    for (request, hold) in left {
        let close = match hold.started {
            true => Close::Partly(Micros::new(hold.checkpoint)),
            false => Close::Void,
        };
        match book.close(request, close, Service::default(), now) {
            Ok((rows, _)) => writes.extend(rows),
            Err(Refused::WrongState) => continue,
            Err(refused) => return Err(Broken::examine("recover", format!("{request}: {refused:?}"))),
        }
        match hold.started {
            true => recovered.charged += 1,
            false => recovered.voided += 1,
        }
    }
    for id in book.unsigned_top_ups() {
        if let Ok(rows) = book.give_back(id) {
            writes.extend(rows);
        }
    }
    if !writes.is_empty() {
        fault::point("recover.before");
        store.write(writes.iter(), Commit::Usual)?;
        fault::point("recover.after");
    }
    // All rows so far are durable, closed payments need not be remembered.
    book.forget_closed(book.ticket);
    recovered.open_payments = book.payments.len();
    Ok(recovered)
}
