//! What was spent of a limit, day by day: every period of a limit is a sum of days, so that no clock and no change of the limit loses any of it.

use std::collections::BTreeMap;

use crate::clock::{Day, Period, Timestamp};

/// What was spent of a limit in one of its periods, and what open calls may still spend of it. In micros.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Spending {
    /// When the period began, in milliseconds since 1970.
    pub began: u64,
    pub spent: u64,
    pub held: u64,
}

impl Spending {
    /// What is left of `limit`.
    pub fn left(self, limit: u64) -> u64 {
        limit.saturating_sub(self.spent).saturating_sub(self.held)
    }
}

/// Days that are remembered one by one: the longest period, and the one before it for a clock that is set back. The sum of
/// all days knows the others, too.
const REMEMBERED: usize = 70;

/// What one limit has counted on each day. Each call counts for one day, whatever period the limit had then, and a clock that
/// was wrong has counted for days that nobody is in: they take nothing from the others.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Days {
    days: BTreeMap<Day, Counted>,
    all: Counted,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Counted {
    spent: u64,
    held: u64,
}

impl Days {
    /// What was counted in the period in which `at` falls.
    pub fn sum(&self, period: Period, at: Timestamp) -> Spending {
        let began = period.began(at);
        let Counted { spent, held } = match period.renews(at) {
            None => self.all,
            Some(end) => {
                let days = self.days.range(began.day()..end.day().max(began.day()));
                days.fold(Counted::default(), |sum, (_, day)| Counted {
                    spent: sum.spent.saturating_add(day.spent),
                    held: sum.held.saturating_add(day.held),
                })
            }
        };
        Spending { began: began.millis(), spent, held }
    }

    pub fn hold(&mut self, day: Day, amount: u64) {
        self.change(day, |counted| counted.held = counted.held.saturating_add(amount));
    }

    /// An open call holds this no more.
    pub fn release(&mut self, day: Day, amount: u64) {
        self.change(day, |counted| counted.held = counted.held.saturating_sub(amount));
    }

    pub fn spend(&mut self, day: Day, amount: u64) {
        self.change(day, |counted| counted.spent = counted.spent.saturating_add(amount));
    }

    pub fn give_back(&mut self, day: Day, amount: u64) {
        self.change(day, |counted| counted.spent = counted.spent.saturating_sub(amount));
    }

    fn change(&mut self, day: Day, change: impl Fn(&mut Counted)) {
        change(&mut self.all);
        let counted = self.days.entry(day).or_default();
        change(counted);
        if *counted == Counted::default() {
            self.days.remove(&day);
        }
        if self.days.len() > REMEMBERED {
            let oldest = self.days.iter().find(|(other, counted)| **other != day && counted.held == 0);
            if let Some(oldest) = oldest.map(|(day, _)| *day) {
                self.days.remove(&oldest);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOON: Timestamp = Timestamp::from_secs(1_763_640_000);

    fn spent(days: &Days, period: Period, at: Timestamp) -> u64 {
        days.sum(period, at).spent
    }

    #[test]
    fn old_days_are_forgotten_one_by_one_and_never_the_present_one_nor_the_sum() {
        let (mut days, first) = (Days::default(), NOON.day());
        for number in 0..1_000 {
            days.spend(Day(first.0 + number), 1);
        }
        assert_eq!(days.days.len(), REMEMBERED);
        let last = Day(first.0 + 999).began();
        let now = [Period::Day, Period::Week, Period::Month, Period::Ever].map(|period| spent(&days, period, last));
        // The 999th day after the 20th of November 2025 is a Tuesday, the 15th of August 2028.
        assert_eq!(now, [1, 2, 15, 1_000]);
        // A clock that is years behind counts for its own days, and they are remembered while it is in them.
        for _ in 0..3 {
            days.spend(first, 5);
        }
        assert_eq!((spent(&days, Period::Day, NOON), spent(&days, Period::Ever, last)), (15, 1_015));
    }

    #[test]
    fn the_end_of_time_has_a_period_too() {
        let mut days = Days::default();
        let end = Timestamp::from_millis(u64::MAX);
        days.hold(end.day(), 1);
        for period in [Period::Day, Period::Week, Period::Month, Period::Ever] {
            let _ = days.sum(period, end);
        }
        days.release(end.day(), 1);
        assert_eq!(days, Days::default());
    }
}
