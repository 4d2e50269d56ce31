//! What moved, and when: the books of one moment, read row by row for reports and exports, with memory for one row at a time.

use std::ops::ControlFlow;
use std::time::Duration;

use redb::{Database, ReadTransaction, ReadableTable as _};

use super::book::Write;
use super::jobs::Job;
use super::rows::{Account, Payment, Receipt, Transfer};
use super::snapshot::{Snapshot, for_each, json};
use super::tables::{FEES, JOBS, RECEIPTS, TRANSFERS};
use super::{Broken, Denied, Ledger, Refused};
use crate::clock::{Day, Timestamp};
use crate::ids::{JobId, PaymentId, RequestId};

/// How far the clock of this machine may have been set back or forth without a report missing a row: rows stand in the order
/// in which they were decided, and calls by when they came.
const UNORDERED: Duration = Duration::from_secs(2 * 24 * 60 * 60);

/// Days of UTC, both among them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Span {
    pub from: Day,
    pub until: Day,
}

impl Span {
    /// Its first instant, and the first one after it.
    pub fn instants(self) -> (Timestamp, Timestamp) {
        (self.from.began(), Day(self.until.0.saturating_add(1)).began())
    }

    pub fn has(self, at: Timestamp) -> bool {
        (self.from..=self.until).contains(&at.day())
    }
}

/// The books as they were at one moment. While it is there the file keeps what it shows: do not hold it for hours.
pub struct History {
    // Before the file: it ends first.
    tx: ReadTransaction,
    /// The file, if it is one of its own.
    _copy: Option<Database>,
}

impl Ledger {
    /// The durable books of this moment.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn history(&self) -> Result<History, Broken> {
        self.inner.store.read().map(|tx| History::new(tx, None))
    }

    /// Writes down what a chain took from us for a transaction that was to settle a payment, in the smallest unit of its coin.
    /// Told twice of one transaction, it counts once.
    ///
    /// # Errors
    /// [`Refused::WrongState`] for a payment that is not known.
    pub fn paid_fee(&self, id: PaymentId, tx: &str, amount: u64) -> Result<(), Denied> {
        self.note(|ledger, book| {
            let row = ledger.known_or_remembered(book, id)?.ok_or(Refused::WrongState)?;
            Ok(vec![Write::Fee(ledger.clock.now().day(), row.network, tx.to_owned(), amount)])
        })
    }
}

impl History {
    pub(super) fn new(tx: ReadTransaction, copy: Option<Database>) -> History {
        History { tx, _copy: copy }
    }

    pub(super) fn tx(&self) -> &ReadTransaction {
        &self.tx
    }

    /// The transfers of a span, the latest first, each with its number, until `visit` breaks off.
    ///
    /// # Errors
    /// The file cannot be read, or a row of it.
    pub fn transfers_back(
        &self,
        span: Span,
        mut visit: impl FnMut(u64, Transfer) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Broken> {
        let failed = |error: redb::Error| Broken::new("read transfers", error);
        let table = self.tx.open_table(TRANSFERS).map_err(|error| failed(error.into()))?;
        for row in table.iter().map_err(|error| failed(error.into()))?.rev() {
            let (number, row) = row.map_err(|error| failed(error.into()))?;
            let transfer = Transfer::from_bytes(row.value()).ok_or_else(|| Broken::row("transfers"))?;
            if transfer.at.plus(UNORDERED) < span.from.began() {
                break;
            }
            if span.has(transfer.at) && visit(number.value(), transfer).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The receipts of the calls that ended in a span, in the order in which the calls came, until `visit` breaks off.
    ///
    /// # Errors
    /// The file cannot be read, or a row of it.
    pub fn receipts(
        &self,
        span: Span,
        mut visit: impl FnMut(RequestId, Receipt) -> ControlFlow<()>,
    ) -> Result<ControlFlow<()>, Broken> {
        let failed = |error: redb::Error| Broken::new("read receipts", error);
        let table = self.tx.open_table(RECEIPTS).map_err(|error| failed(error.into()))?;
        let (from, until) = span.instants();
        let slack = u64::try_from(UNORDERED.as_millis()).unwrap_or(u64::MAX);
        let slack_before = |at: Timestamp| RequestId::new(Timestamp::from_millis(at.millis().saturating_sub(slack)), [0; 10]);
        // A call that the gateway died with ended when it started again, however much later: it is among the last that came
        // before a time in which none did.
        let before = table.range(..slack_before(from).0).map_err(|error| failed(error.into()))?.next_back();
        let before = before.transpose().map_err(|error| failed(error.into()))?;
        let first = slack_before(before.map_or(from, |(request, _)| RequestId(request.value()).arrived()));
        // Names have 48 bits of time.
        let last = Timestamp::from_millis(until.plus(UNORDERED).millis().min((1 << 48) - 1));
        for row in table.range(first.0..=RequestId::new(last, [u8::MAX; 10]).0).map_err(|error| failed(error.into()))? {
            let (request, row) = row.map_err(|error| failed(error.into()))?;
            let receipt = Receipt::from_bytes(row.value()).ok_or_else(|| Broken::row("receipts"))?;
            let is_in = span.has(Timestamp::from_millis(receipt.at));
            if is_in && visit(RequestId(request.value()), receipt).is_break() {
                return Ok(ControlFlow::Break(()));
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// The receipt of one call.
    ///
    /// # Errors
    /// The file cannot be read, or a row of it.
    pub fn receipt(&self, request: RequestId) -> Result<Option<Receipt>, Broken> {
        Snapshot(&self.tx).receipt(request)
    }

    /// What chains took for transactions of ours on the days of a span: day, network, transaction, amount in the smallest unit
    /// of the coin.
    ///
    /// # Errors
    /// The file cannot be read.
    pub fn fees(&self, span: Span, mut visit: impl FnMut(Day, &str, &str, u64)) -> Result<(), Broken> {
        let failed = |error: redb::Error| Broken::new("read fees", error);
        let table = match self.tx.open_table(FEES) {
            Ok(table) => table,
            // Books of before there were fees, of which no start has made newer ones yet.
            Err(redb::TableError::TableDoesNotExist(_)) => return Ok(()),
            Err(error) => return Err(failed(error.into())),
        };
        let after = span.until.0.saturating_add(1);
        for row in table.range((span.from.0, "", "")..(after, "", "")).map_err(|error| failed(error.into()))? {
            let (name, amount) = row.map_err(|error| failed(error.into()))?;
            let (day, network, tx) = name.value();
            visit(Day(day), network, tx, amount.value());
        }
        Ok(())
    }

    /// What every account has, in micros.
    ///
    /// # Errors
    /// The file cannot be read, or a row of it.
    pub fn balances(&self, mut visit: impl FnMut(Account, i64)) -> Result<(), Broken> {
        Snapshot(&self.tx).balances(|account, balance| visit(account, balance.amount))
    }

    /// The transfers of a span in their order, each with its number.
    ///
    /// # Errors
    /// The file cannot be read, or a row of it.
    pub fn transfers(&self, span: Span, mut visit: impl FnMut(u64, Transfer) -> ControlFlow<()>) -> Result<(), Broken> {
        let _ = Snapshot(&self.tx).transfers(|number, transfer| match span.has(transfer.at) {
            true => visit(number, transfer),
            false => ControlFlow::Continue(()),
        })?;
        Ok(())
    }

    /// The jobs that were ordered in a span, in their order.
    ///
    /// # Errors
    /// The file cannot be read, or a row of it.
    pub fn jobs(&self, span: Span, mut visit: impl FnMut(JobId, Job)) -> Result<(), Broken> {
        for_each(&self.tx, JOBS, |id, row| {
            let job: Job = json(row)?;
            if span.has(Timestamp::from_millis(job.created)) {
                visit(JobId(id), job);
            }
            Ok(())
        })
    }

    /// Every payment, in the order of their ids.
    ///
    /// # Errors
    /// The file cannot be read, or a row of it.
    pub fn payments(&self, mut visit: impl FnMut(PaymentId, Payment)) -> Result<(), Broken> {
        Snapshot(&self.tx).payments(|id, payment, _| visit(id, payment))
    }
}
