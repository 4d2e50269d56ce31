//! What an upstream asks of the operator for a call; never part of what a buyer pays, only of what the operator is told.

use super::{Pieces, Tariff, Usage};
use crate::money::{Micros, UnitPrice};

/// What one upstream asks for the calls of one model.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cost {
    pub tariff: Tariff,
    /// What it asks by the image, second or character.
    pub pieces: Option<Pieces>,
}

impl Cost {
    /// The same for a request that names these sizes and qualities; `None` where it is not known what they cost.
    pub fn priced(&self, named: &[String]) -> Option<Cost> {
        let Some(pieces) = &self.pieces else { return Some(self.clone()) };
        let unit = pieces.price(named)?;
        Some(Cost { tariff: Tariff { unit, ..self.tariff }, pieces: self.pieces.clone() })
    }

    /// What a call cost that used this, rounded up. `None` when it costs by something that nobody counted: that is no cost of
    /// nothing.
    pub fn of(&self, usage: &Usage) -> Option<Micros> {
        let by_token = [Some(self.tariff.tokens), self.tariff.long.map(|long| long.tokens)].into_iter().flatten().any(|tokens| {
            let prices = [tokens.input, tokens.output, tokens.cache_read, tokens.cache_write_5m, tokens.cache_write_1h];
            prices.into_iter().any(|price| price > UnitPrice::default())
        });
        let Usage { input, output, cache_read, cache_write_5m, cache_write_1h, units } = *usage;
        let tokens = [input, output, cache_read, cache_write_5m, cache_write_1h].into_iter().any(|tokens| tokens > 0);
        let by_piece = self.pieces.is_some() && !self.tariff.unit.is_zero();
        let counted = (tokens || !by_token) && (units > 0 || !by_piece);
        counted.then(|| self.tariff.charge(usage, Micros::new(u64::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tariff::{TokenPrices, Unit};

    fn each(text: &str) -> UnitPrice {
        UnitPrice::each(text).unwrap()
    }

    #[test]
    fn a_cost_by_what_nobody_counted_is_unknown_and_not_nothing() {
        let price = |text| UnitPrice::per_million(text).unwrap();
        let tokens = TokenPrices { input: price("2.70"), output: price("13.50"), ..TokenPrices::default() };
        let words = Cost { tariff: Tariff { tokens, ..Tariff::default() }, pieces: None };
        assert_eq!(words.of(&Usage { input: 1000, output: 100, ..Usage::default() }), Some(Micros::new(4050)));
        assert_eq!(words.of(&Usage { units: 3, ..Usage::default() }), None, "nobody counted tokens");
        let free = Cost { tariff: Tariff::default(), pieces: None };
        assert_eq!(free.of(&Usage::default()), Some(Micros::ZERO), "what is said to cost nothing does");
        let flat = Cost { tariff: Tariff { call: each("0.01"), ..Tariff::default() }, pieces: None };
        assert_eq!(flat.of(&Usage::default()), Some(Micros::new(10_000)));
    }

    #[test]
    fn pictures_cost_by_their_size_and_one_of_no_known_size_is_unknown() {
        let classes = vec![("1024x1024".to_owned(), each("0.02")), ("high".to_owned(), each("0.1"))];
        let pieces = Pieces { unit: Unit::Image, classes, default: None };
        let cost = Cost { tariff: Tariff::default(), pieces: Some(pieces) };
        let of = |named: &str, units| cost.priced(&[named.to_owned()])?.of(&Usage { units, ..Usage::default() });
        assert_eq!(of("1024x1024", 2), Some(Micros::new(40_000)));
        assert_eq!(of("high", 1), Some(Micros::new(100_000)));
        assert_eq!(of("512x512", 1), None, "its upstream may ask anything for it");
        assert_eq!(of("high", 0), None);
    }
}
