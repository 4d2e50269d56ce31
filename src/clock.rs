//! Timestamp, and the clock that is passed in from the edge so that every rule about time can be tested.

mod rfc3339;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// Milliseconds since 1970-01-01 UTC.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timestamp(u64);

impl Timestamp {
    pub const fn from_millis(millis: u64) -> Self {
        Timestamp(millis)
    }

    pub const fn from_secs(secs: u64) -> Self {
        Timestamp(secs.saturating_mul(1000))
    }

    pub const fn millis(self) -> u64 {
        self.0
    }

    pub const fn secs(self) -> u64 {
        self.0 / 1000
    }

    /// The UTC day it falls on.
    pub fn day(self) -> Day {
        Day(u32::try_from(self.secs() / SECONDS_A_DAY).unwrap_or(u32::MAX))
    }

    pub fn plus(self, span: Duration) -> Timestamp {
        Timestamp(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

const SECONDS_A_DAY: u64 = 24 * 60 * 60;

/// A UTC day, counted from 1970-01-01. Allowances renew with it, by themselves and without rolling over.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub u32);

impl Day {
    /// Its first instant.
    pub const fn began(self) -> Timestamp {
        Timestamp::from_secs(self.0 as u64 * SECONDS_A_DAY)
    }
}

impl fmt::Display for Day {
    /// As a date, such as `2026-11-21`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.began().to_rfc3339();
        f.write_str(at.split('T').next().unwrap_or(&at))
    }
}

/// How often a spending limit starts again at nothing: with the calendar in UTC, never counted from the first call.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Period {
    /// It never does.
    #[default]
    #[serde(rename = "none")]
    Ever,
    Day,
    /// As ISO 8601 counts them, from Monday.
    Week,
    Month,
}

impl Period {
    /// When the period that `at` falls into began: a midnight in UTC; 1970 for [`Period::Ever`].
    pub fn began(self, at: Timestamp) -> Timestamp {
        let day = at.day();
        match self {
            Period::Ever => Timestamp::default(),
            Period::Day => day.began(),
            Period::Week => Day(day.0.saturating_sub(since_monday(day))).began(),
            Period::Month => Day(day.0.saturating_sub(since_the_first(day))).began(),
        }
    }

    /// When the next period begins; never for [`Period::Ever`].
    pub fn renews(self, at: Timestamp) -> Option<Timestamp> {
        let began = self.began(at);
        match self {
            Period::Ever => None,
            Period::Day => Some(began.plus(Duration::from_secs(SECONDS_A_DAY))),
            Period::Week => Some(Day(at.day().0.saturating_add(7).saturating_sub(since_monday(at.day()))).began()),
            Period::Month => Some(Period::Month.began(began.plus(A_MONTH_AND_MORE))),
        }
    }
}

/// Longer than any month, and shorter than two.
const A_MONTH_AND_MORE: Duration = Duration::from_secs(31 * SECONDS_A_DAY);

/// Days since the last Monday. The first day of 1970 was a Thursday; its week began before there were timestamps.
const fn since_monday(day: Day) -> u32 {
    (day.0 % 7 + 3) % 7
}

/// Days since the first of the month. Days that no calendar has, after the year 9999, are a month each.
fn since_the_first(day: Day) -> u32 {
    let at = i64::try_from(day.began().secs()).ok().and_then(|secs| jiff::Timestamp::from_second(secs).ok());
    let date = at.map(|at| at.to_zoned(jiff::tz::TimeZone::UTC).day());
    date.and_then(|day| u32::try_from(day).ok()).map_or(0, |day| day.saturating_sub(1))
}

/// Where a module that runs for long gets its timestamps from. Only the edge makes one that reads the machine's clock.
#[derive(Clone)]
pub struct Clock(Arc<dyn Fn() -> Timestamp + Send + Sync>);

impl Clock {
    pub fn new(read: impl Fn() -> Timestamp + Send + Sync + 'static) -> Self {
        Clock(Arc::new(read))
    }

    pub fn now(&self) -> Timestamp {
        (self.0)()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(text: &str) -> Timestamp {
        let read: jiff::Timestamp = text.parse().unwrap();
        Timestamp::from_millis(read.as_millisecond().try_into().unwrap())
    }

    #[test]
    fn a_period_begins_at_a_midnight_of_the_calendar() {
        for (now, day, week, month) in [
            ("2026-11-21T06:12:20.5Z", "2026-11-21", "2026-11-16", "2026-11-01"),
            // Its own first and last millisecond belong to a period.
            ("2026-11-16T00:00:00Z", "2026-11-16", "2026-11-16", "2026-11-01"),
            ("2026-11-15T23:59:59.999Z", "2026-11-15", "2026-11-09", "2026-11-01"),
            ("2026-03-01T00:00:00Z", "2026-03-01", "2026-02-23", "2026-03-01"),
            ("2026-02-28T23:59:59.999Z", "2026-02-28", "2026-02-23", "2026-02-01"),
            // Leap days, also the one that a century does not have.
            ("2028-02-29T12:00:00Z", "2028-02-29", "2028-02-28", "2028-02-01"),
            ("2100-03-01T12:00:00Z", "2100-03-01", "2100-03-01", "2100-03-01"),
            // A week begins in one year and ends in the next.
            ("2027-01-01T00:00:00Z", "2027-01-01", "2026-12-28", "2027-01-01"),
        ] {
            let midnight = |date: &str| at(&format!("{date}T00:00:00Z"));
            assert_eq!(Period::Ever.began(at(now)), Timestamp::default());
            assert_eq!(Period::Day.began(at(now)), midnight(day), "the day of {now}");
            assert_eq!(Period::Week.began(at(now)), midnight(week), "the week of {now}");
            assert_eq!(Period::Month.began(at(now)), midnight(month), "the month of {now}");
        }
    }

    #[test]
    fn a_period_renews_when_the_next_one_begins() {
        for (now, day, week, month) in [
            ("2026-11-21T06:12:20.5Z", "2026-11-22", "2026-11-23", "2026-12-01"),
            ("2026-11-16T00:00:00Z", "2026-11-17", "2026-11-23", "2026-12-01"),
            ("2026-12-31T23:59:59.999Z", "2027-01-01", "2027-01-04", "2027-01-01"),
            ("2027-02-28T12:00:00Z", "2027-03-01", "2027-03-01", "2027-03-01"),
            ("2028-02-01T00:00:00Z", "2028-02-02", "2028-02-07", "2028-03-01"),
        ] {
            let midnight = |date: &str| Some(at(&format!("{date}T00:00:00Z")));
            assert_eq!(Period::Ever.renews(at(now)), None);
            assert_eq!(Period::Day.renews(at(now)), midnight(day), "the day of {now}");
            assert_eq!(Period::Week.renews(at(now)), midnight(week), "the week of {now}");
            assert_eq!(Period::Month.renews(at(now)), midnight(month), "the month of {now}");
        }
    }

    #[test]
    fn no_instant_is_before_the_period_it_is_in() {
        let odd = [0, 1, 3 * 86_400_000, 4 * 86_400_000, 253_402_207_200_000, u64::MAX / 1000, u64::MAX];
        for millis in odd.into_iter().chain((0..40_000).map(|day| day * 86_400_000 + 1)) {
            let now = Timestamp::from_millis(millis);
            for period in [Period::Ever, Period::Day, Period::Week, Period::Month] {
                let began = period.began(now);
                assert!(began <= now, "{period:?} at {millis}");
                assert_eq!(period.began(began), began, "{period:?} at {millis}");
            }
        }
    }

    #[test]
    fn a_period_is_written_as_callers_write_it() {
        for (period, text) in [(Period::Ever, "none"), (Period::Day, "day"), (Period::Week, "week"), (Period::Month, "month")] {
            assert_eq!(serde_json::to_value(period).unwrap(), text);
            assert_eq!(serde_json::from_value::<Period>(text.into()).unwrap(), period);
        }
        assert!(serde_json::from_value::<Period>("year".into()).is_err());
    }
}
