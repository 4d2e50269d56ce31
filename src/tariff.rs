//! What a call may cost before it is made, and what it did cost after.

mod cost;
mod pieces;

use crate::money::{Bill, Micros, UnitPrice};
pub use cost::Cost;
pub use pieces::{Pieces, SOUND, Unit};

/// What one call used. Tokens are counted once: `input` holds only what was neither read from nor written to a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    pub input: u64,
    pub output: u64,
    pub cache_read: u64,
    pub cache_write_5m: u64,
    pub cache_write_1h: u64,
    /// Images, seconds or characters, whichever its model is sold by.
    pub units: u64,
}

/// What tokens cost.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenPrices {
    pub input: UnitPrice,
    pub output: UnitPrice,
    pub cache_read: UnitPrice,
    pub cache_write_5m: UnitPrice,
    pub cache_write_1h: UnitPrice,
}

/// What all tokens of a call cost whose prompt, cached or not, is longer than so many tokens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LongPrompt {
    pub above: u64,
    pub tokens: TokenPrices,
}

/// The price rule of one model.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tariff {
    pub tokens: TokenPrices,
    pub long: Option<LongPrompt>,
    /// Of an image, a second or a character, as this request has it.
    pub unit: UnitPrice,
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
    /// Images, seconds or characters.
    pub units: u64,
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
                bill.add(bound.input, self.dearest_input(bound));
                bill.add(bound.output, self.dearest_output(bound));
                bill.add(bound.units, self.unit);
                bill.add(1, self.call);
                bill.total()
            }
        };
        amount.max(Micros::new(1))
    }

    /// The same rule with an amount that is added once per call.
    #[must_use]
    pub fn and_once(self, amount: Micros) -> Tariff {
        Tariff { call: self.call.plus(UnitPrice::of(amount)), ..self }
    }

    /// What `tokens` of output cost at most, beside the input of `bound`.
    pub fn output_cost(&self, bound: &Bound, tokens: u64) -> Micros {
        let mut bill = Bill::default();
        bill.add(tokens, self.dearest_output(bound));
        bill.total()
    }

    /// Tokens of output that `money` pays for beside the input of `bound`, rounded down; `None` where output is free.
    pub fn output_for(&self, bound: &Bound, money: Micros) -> Option<u64> {
        let mut bill = Bill::default();
        bill.add(bound.input, self.dearest_input(bound));
        bill.add(bound.units, self.unit);
        bill.add(1, self.call);
        bill.units_left(money, self.dearest_output(bound))
    }

    /// What is owed for what was used, never above `quote`.
    pub fn charge(&self, usage: &Usage, quote: Micros) -> Micros {
        let written = usage.cache_write_5m.saturating_add(usage.cache_write_1h);
        let prompt = usage.input.saturating_add(usage.cache_read).saturating_add(written);
        let tokens = self.long_prompt(prompt).unwrap_or(&self.tokens);
        let mut bill = Bill::default();
        bill.add(usage.input, tokens.input);
        bill.add(usage.output, tokens.output);
        bill.add(usage.cache_read, tokens.cache_read);
        bill.add(usage.cache_write_5m, tokens.cache_write_5m);
        bill.add(usage.cache_write_1h, tokens.cache_write_1h);
        bill.add(usage.units, self.unit);
        bill.add(1, self.call);
        bill.total().min(quote)
    }

    /// The prices of a prompt of so many tokens, if it is a long one.
    fn long_prompt(&self, prompt: u64) -> Option<&TokenPrices> {
        self.long.as_ref().filter(|long| prompt > long.above).map(|long| &long.tokens)
    }

    /// A bound may turn out to be a short prompt, at the other prices.
    fn dearest_input(&self, bound: &Bound) -> UnitPrice {
        let short = self.tokens.dearest_input(bound.cache);
        self.long_prompt(bound.input).map_or(short, |long| long.dearest_input(bound.cache).max(short))
    }

    fn dearest_output(&self, bound: &Bound) -> UnitPrice {
        self.long_prompt(bound.input).map_or(self.tokens.output, |long| long.output.max(self.tokens.output))
    }
}

impl TokenPrices {
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
        let tokens = TokenPrices {
            input: price("3.00"),
            output: price("15.00"),
            cache_read: price("0.30"),
            cache_write_5m: price("3.75"),
            cache_write_1h: price("6.00"),
        };
        Tariff { tokens, ..Tariff::default() }
    }

    #[test]
    fn caches_are_priced_apart() {
        let usage = Usage { input: 1000, output: 100, cache_read: 10_000, cache_write_5m: 1000, cache_write_1h: 1000, units: 0 };
        // 3000 + 1500 + 3000 + 3750 + 6000 micros
        assert_eq!(sonnet().charge(&usage, Micros::ONE), Micros::new(17_250));
    }

    #[test]
    fn a_quote_covers_a_prompt_that_is_written_to_the_cache() {
        let bound = |cache| Bound { input: 1_000_000, cache, ..Bound::default() };
        assert_eq!(sonnet().quote(Ceiling::Computed, &bound(CacheUse::None)), Micros::new(3_000_000));
        assert_eq!(sonnet().quote(Ceiling::Computed, &bound(CacheUse::OneHour)), Micros::new(6_000_000));
    }

    #[test]
    fn a_long_prompt_has_its_own_prices_for_all_of_its_tokens_and_a_quote_covers_both() {
        let price = |text| UnitPrice::per_million(text).unwrap();
        let tokens = TokenPrices { input: price("6.00"), output: price("22.50"), ..sonnet().tokens };
        let tariff = Tariff { long: Some(LongPrompt { above: 1000, tokens }), ..sonnet() };
        let usage = |input| Usage { input, output: 100, cache_read: 10, ..Usage::default() };
        let all = Micros::new(u64::MAX);
        assert_eq!(tariff.charge(&usage(990), all), sonnet().charge(&usage(990), all), "just not a long one");
        // 991 x 6 + 100 x 22.5 + 10 x 0.3
        assert_eq!(tariff.charge(&usage(991), all), Micros::new(8199));
        let quote = |input| tariff.quote(Ceiling::Computed, &Bound { input, output: 100, ..Bound::default() });
        assert_eq!((quote(1000), quote(1001)), (Micros::new(4500), Micros::new(8256)));
    }

    #[test]
    fn pieces_are_charged_as_they_were_counted() {
        let tariff = Tariff { unit: UnitPrice::each("0.04").unwrap(), ..Tariff::default() };
        let quote = tariff.quote(Ceiling::Computed, &Bound { units: 3, ..Bound::default() });
        assert_eq!(quote, Micros::new(120_000));
        assert_eq!(tariff.charge(&Usage { units: 2, ..Usage::default() }, quote), Micros::new(80_000));
        assert_eq!(tariff.charge(&Usage { units: 9, ..Usage::default() }, quote), quote, "never above the quote");
    }

    #[test]
    fn what_is_added_once_is_charged_whatever_was_used() {
        let (more, all) = (Micros::new(2000), Micros::ONE);
        assert_eq!(sonnet().and_once(more).charge(&Usage::default(), all), more);
        let usage = Usage { output: 100, ..Usage::default() };
        assert_eq!(sonnet().and_once(more).charge(&usage, all), Micros::new(3500));
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
            let usage = Usage { input, output, cache_read, cache_write_5m, cache_write_1h, units: 0 };
            prop_assert!(sonnet().charge(&usage, Micros::new(quote)) <= Micros::new(quote));
        }

        #[test]
        fn money_pays_for_the_output_it_is_said_to_pay_for_and_not_for_a_token_more(
            input in 0u64..1 << 40, money in 1u64..1 << 50,
        ) {
            let (tariff, money) = (sonnet(), Micros::new(money));
            let bound = |output| Bound { input, output, cache: CacheUse::FiveMinutes, units: 0 };
            let output = tariff.output_for(&bound(0), money).unwrap();
            prop_assert!(tariff.quote(Ceiling::Computed, &bound(output + 1)) > money);
            prop_assert!(output == 0 || tariff.quote(Ceiling::Computed, &bound(output)) <= money);
        }

        #[test]
        fn usage_within_the_bound_is_paid_in_full(input in 0u64..1 << 40, output in 0u64..1 << 40) {
            let tariff = sonnet();
            let quote = tariff.quote(Ceiling::Computed, &Bound { input, output, ..Bound::default() });
            let usage = Usage { input, output, ..Usage::default() };
            prop_assert_eq!(tariff.charge(&usage, Micros::new(u64::MAX)).max(Micros::new(1)), quote);
        }
    }
}
