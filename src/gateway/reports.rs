//! Reports of the last days for who looks at them again and again: one is made at a time, and the larger the books, the longer it is shown again.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Mutex;

use super::report::{Report, report};
use super::settle::ledger_unavailable;
use crate::clock::{Clock, Day, Timestamp};
use crate::config;
use crate::error::{Code, Error};
use crate::ledger::{Ledger, Span};
use crate::money::Micros;

/// A report is shown again for so many times as long as it took to make it, so that reading them is a small part of what the
/// disk does, however often somebody looks. Of small books that is no time at all.
const REST: u32 = 20;

/// What was made, by the first and the last day.
type Shelf = BTreeMap<(Day, Day), Made>;

struct Made {
    /// Books that cannot be read take as long to read.
    report: Result<Arc<Report>, Error>,
    until: Timestamp,
}

pub struct Reports {
    ledger: Ledger,
    /// Says which day it is.
    clock: Clock,
    /// Says how long something took.
    steady: Clock,
    /// What the coins of the networks cost, where the configuration says so.
    coins: BTreeMap<String, Micros>,
    shelf: Arc<Mutex<Shelf>>,
}

impl Reports {
    pub(super) fn new(ledger: Ledger, networks: &[config::Network], clock: Clock, steady: Clock) -> Reports {
        let coins = networks.iter().filter_map(|network| Some((network.id.clone(), network.coin_usd?))).collect();
        Reports { ledger, clock, steady, coins, shelf: Arc::default() }
    }

    /// The report of the last so many days (UTC), today among them, with what gas cost in USD. It may be one of a moment ago:
    /// see its `made_at`.
    ///
    /// # Errors
    /// `ledger_unavailable`: the books cannot be read.
    pub async fn of_last_days(self: &Arc<Self>, days: usize) -> Result<Arc<Report>, Error> {
        let mut shelf = Arc::clone(&self.shelf).lock_owned().await;
        let reports = Arc::clone(self);
        // It is made to its end also when who asked has left, and nobody begins another one before.
        let done = tokio::task::spawn_blocking(move || reports.again_or_anew(&mut shelf, days)).await;
        done.unwrap_or_else(|error| Err(Error::new(Code::Internal, "the report broke off").because(error.to_string())))
    }

    fn again_or_anew(&self, shelf: &mut Shelf, days: usize) -> Result<Arc<Report>, Error> {
        let begun = self.steady.now();
        shelf.retain(|_, made| begun < made.until);
        let until = self.clock.now().day();
        let before = u32::try_from(days).unwrap_or(u32::MAX).saturating_sub(1);
        let span = Span { from: Day(until.0.saturating_sub(before)), until };
        if let Some(made) = shelf.get(&(span.from, span.until)) {
            return made.report.clone();
        }
        let report = self.make(span).map(Arc::new);
        let ended = self.steady.now();
        let took = Duration::from_millis(ended.millis().saturating_sub(begun.millis()));
        let made = Made { report: report.clone(), until: ended.plus(took.saturating_mul(REST)) };
        shelf.insert((span.from, span.until), made);
        report
    }

    fn make(&self, span: Span) -> Result<Report, Error> {
        // Calls that have just ended have their receipts on disk then.
        let durable = self.ledger.flush().map_err(|denied| ledger_unavailable(&denied.to_string()))?;
        durable.wait_blocking().map_err(|why| ledger_unavailable(&why.to_string()))?;
        let mut report = report(&self.ledger, &self.clock, span)?;
        report.price_fees(|network| self.coins.get(network).copied());
        Ok(report)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;
    use crate::ledger::Options;

    /// What the steady clock goes on whenever somebody looks at it: so long a report takes here.
    const TOOK: u64 = 100;

    fn reports(folder: &std::path::Path) -> (Reports, Arc<AtomicU64>) {
        let passed = Arc::new(AtomicU64::new(0));
        let looked_at = Arc::clone(&passed);
        let clock = Clock::new(|| Timestamp::from_rfc3339("2027-01-31T12:00:00Z").unwrap());
        let steady = Clock::new(move || Timestamp::from_millis(looked_at.fetch_add(TOOK, Ordering::Relaxed)));
        let (ledger, _) = Ledger::open(&folder.join("ledger.redb"), clock.clone(), Options::default()).unwrap();
        (Reports::new(ledger, &[], clock, steady), passed)
    }

    #[test]
    fn a_report_is_shown_again_for_twenty_times_as_long_as_it_took_and_made_anew_then() {
        let folder = tempfile::tempdir().unwrap();
        let (reports, passed) = reports(folder.path());
        let mut shelf = Shelf::new();
        let mut look = |days| reports.again_or_anew(&mut shelf, days).unwrap();
        let first = look(30);
        assert_eq!((first.from.as_str(), first.until.as_str()), ("2027-01-02", "2027-01-31"));
        assert!((0..19).all(|_| Arc::ptr_eq(&first, &look(30))), "the books are not read again");
        assert!(!Arc::ptr_eq(&first, &look(30)), "it is made anew");
        passed.fetch_add(1_000 * TOOK, Ordering::Relaxed);
        assert_eq!(look(1).from, "2027-01-31");
        assert_eq!(shelf.len(), 1, "what is not shown again is not kept");
    }
}
