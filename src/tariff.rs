//! What a call may cost before it is made, and what it did cost after.

use crate::money::{Bill, Micros, UnitPrice};

/// Tokens of one call, each counted once: `input` holds only what was neither read from nor written to a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write_5m: u64,
    pub cache_write_1h: u64,
}

/// The price rule of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tariff {
    pub input: UnitPrice,
    pub output: UnitPrice,
    pub cache_read: UnitPrice,
    pub cache_write_5m: UnitPrice,
    pub cache_write_1h: UnitPrice,
    /// Added once per call.
    pub call: UnitPrice,
}

/// How long a request asks the upstream to keep its prompt, which decides the dearest price its input can have.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum CacheUse {
    #[default]
    None,
    FiveMinutes,
    OneHour,
}

/// The most a request can use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Bound {
    /// Tokens that go in: an upper bound read from the body.
    pub input: u64,
    /// Tokens that can come out, over all choices.
    pub output: u64,
    pub cache: CacheUse,
}

/// How a model's quote is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ceiling {
    /// The tariff times the request's bound.
    Computed,
    /// One amount for every call.
    Flat(Micros),
}

impl Tariff {
    /// The ceiling promised for a request; a pure function, so that the paid retry of the same body gets the same quote.
    /// At least one micro: a payment of nothing is no payment.
    pub fn quote(&self, ceiling: Ceiling, bound: &Bound) -> Micros {
        let amount = match ceiling {
            Ceiling::Flat(amount) => amount,
            Ceiling::Computed => {
                let mut bill = Bill::default();
                bill.add(bound.input, self.dearest_input(bound.cache));
                bill.add(bound.output, self.output);
                bill.add(1, self.call);
                bill.total()
            }
        };
        amount.max(Micros::new(1))
    }

    /// Tokens of output that `money` pays for beside the input of `bound`, rounded down; `None` where output is free.
    pub fn output_for(&self, bound: &Bound, money: Micros) -> Option<u64> {
        let mut bill = Bill::default();
        bill.add(bound.input, self.dearest_input(bound.cache));
        bill.add(1, self.call);
        bill.units_left(money, self.output)
    }

    /// What is owed for what was used, never above `quote`.
    pub fn charge(&self, usage: &Usage, quote: Micros) -> Micros {
        let mut bill = Bill::default();
        bill.add(usage.input, self.input);
        bill.add(usage.output, self.output);
        bill.add(usage.cache_read, self.cache_read);
        bill.add(usage.cache_write_5m, self.cache_write_5m);
        bill.add(usage.cache_write_1h, self.cache_write_1h);
        bill.add(1, self.call);
        bill.total().min(quote)
    }

    fn dearest_input(&self, cache: CacheUse) -> UnitPrice {
        let plain = self.input.max(self.cache_read);
        match cache {
            CacheUse::None => plain,
            CacheUse::FiveMinutes => plain.max(self.cache_write_5m),
            CacheUse::OneHour => plain.max(self.cache_write_5m).max(self.cache_write_1h),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn sonnet() -> Tariff {
        let price = |text| UnitPrice::per_million(text).unwrap();
        Tariff {
            input: price("3.00"),
            output: price("15.00"),
            cache_read: price("0.30"),
            cache_write_5m: price("3.75"),
            cache_write_1h: price("6.00"),
            call: UnitPrice::default(),
        }
    }

    #[test]
    fn caches_are_priced_apart() {
        let usage = Usage { input: 1000, output: 100, cache_read: 10_000, cache_write_5m: 1000, cache_write_1h: 1000 };
        // 3000 + 1500 + 3000 + 3750 + 6000 micros
        assert_eq!(sonnet().charge(&usage, Micros::ONE), Micros::new(17_250));
    }

    #[test]
    fn a_quote_covers_a_prompt_that_is_written_to_the_cache() {
        let bound = |cache| Bound { input: 1_000_000, output: 0, cache };
        assert_eq!(sonnet().quote(Ceiling::Computed, &bound(CacheUse::None)), Micros::new(3_000_000));
        assert_eq!(sonnet().quote(Ceiling::Computed, &bound(CacheUse::OneHour)), Micros::new(6_000_000));
    }

    #[test]
    fn a_free_model_still_asks_for_one_micro() {
        assert_eq!(Tariff::default().quote(Ceiling::Computed, &Bound::default()), Micros::new(1));
    }

    proptest! {
        #[test]
        fn no_usage_can_cost_more_than_the_quote(
            input: u64, output: u64, cache_read: u64, cache_write_5m: u64, cache_write_1h: u64, quote: u64,
        ) {
            let usage = Usage { input, output, cache_read, cache_write_5m, cache_write_1h };
            prop_assert!(sonnet().charge(&usage, Micros::new(quote)) <= Micros::new(quote));
        }

        #[test]
        fn money_pays_for_the_output_it_is_said_to_pay_for_and_not_for_a_token_more(
            input in 0u64..1 << 40, money in 1u64..1 << 50,
        ) {
            let (tariff, money) = (sonnet(), Micros::new(money));
            let bound = |output| Bound { input, output, cache: CacheUse::FiveMinutes };
            let output = tariff.output_for(&bound(0), money).unwrap();
            prop_assert!(tariff.quote(Ceiling::Computed, &bound(output + 1)) > money);
            prop_assert!(output == 0 || tariff.quote(Ceiling::Computed, &bound(output)) <= money);
        }

        #[test]
        fn usage_within_the_bound_is_paid_in_full(input in 0u64..1 << 40, output in 0u64..1 << 40) {
            let tariff = sonnet();
            let quote = tariff.quote(Ceiling::Computed, &Bound { input, output, cache: CacheUse::None });
            let usage = Usage { input, output, ..Usage::default() };
            prop_assert_eq!(tariff.charge(&usage, Micros::new(u64::MAX)).max(Micros::new(1)), quote);
        }
    }
}
