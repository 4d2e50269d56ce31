//! Micros, the only unit of money: whole millionths of a USDC, exact, checked, never a float.

use std::fmt;

/// An amount of USDC in millionths (10^-6), which is also the token's own smallest unit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(u64);

impl Micros {
    pub const ZERO: Micros = Micros(0);
    /// One USDC.
    pub const ONE: Micros = Micros(1_000_000);

    pub const fn new(micros: u64) -> Self {
        Micros(micros)
    }

    pub const fn get(self) -> u64 {
        self.0
    }

    pub const fn is_zero(self) -> bool {
        self.0 == 0
    }

    pub fn checked_add(self, other: Micros) -> Option<Micros> {
        self.0.checked_add(other.0).map(Micros)
    }

    pub fn checked_sub(self, other: Micros) -> Option<Micros> {
        self.0.checked_sub(other.0).map(Micros)
    }

    pub fn saturating_sub(self, other: Micros) -> Micros {
        Micros(self.0.saturating_sub(other.0))
    }

    /// Reads token units as they stand in a payment: decimal digits, no sign, no leading zero.
    pub fn parse_units(text: &str) -> Option<Micros> {
        let digits = text.bytes().all(|b| b.is_ascii_digit());
        if !digits || text.is_empty() || (text.len() > 1 && text.starts_with('0')) {
            return None;
        }
        text.parse().ok().map(Micros)
    }

    /// Reads an amount in USD such as `0.25`, exactly; more than six decimals are refused.
    pub fn parse_usd(text: &str) -> Result<Micros, BadAmount> {
        let micros = decimal(text, 6).ok_or_else(|| BadAmount(text.chars().take(40).collect()))?;
        u64::try_from(micros).map(Micros).map_err(|_| BadAmount(text.to_owned()))
    }

    /// USD as a number in JSON, for clients that expect one: the shortest decimal, `12.5`, exact up to nine billion.
    pub fn as_usd(self) -> serde_json::Number {
        signed_usd(i64::try_from(self.0).unwrap_or(i64::MAX))
    }
}

/// Signed micros as USD in JSON; see [`Micros::as_usd`].
pub fn signed_usd(micros: i64) -> serde_json::Number {
    let (sign, amount) = (if micros < 0 { "-" } else { "" }, Micros(micros.unsigned_abs()));
    let text = format!("{sign}{amount}");
    let text = text.trim_end_matches('0').trim_end_matches('.');
    text.parse().expect("digits with at most one point are a number in JSON")
}

impl fmt::Display for Micros {
    /// USD with six decimals and no sign, as in `0.012000`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{:06}", self.0 / 1_000_000, self.0 % 1_000_000)
    }
}

/// An amount that is not an exact decimal number of USD.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not an amount: write USD as exact decimals, such as \"0.25\"")]
pub struct BadAmount(pub String);

/// The price of one unit (a token, a call) in millionths of a Micro (10^-12 USDC), so that a price per million
/// tokens with six decimals is exact.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UnitPrice(u64);

impl UnitPrice {
    /// USD per million units, such as `3.00`; six decimals at most.
    pub fn per_million(text: &str) -> Result<UnitPrice, BadAmount> {
        Micros::parse_usd(text).map(|price| UnitPrice(price.0))
    }

    /// USD for each unit, such as `0.04` an image; twelve decimals at most.
    pub fn each(text: &str) -> Result<UnitPrice, BadAmount> {
        let price = decimal(text, 12).and_then(|price| u64::try_from(price).ok());
        price.map(UnitPrice).ok_or_else(|| BadAmount(text.chars().take(40).collect()))
    }

    /// The price of something that costs this once.
    pub fn of(price: Micros) -> UnitPrice {
        UnitPrice(price.0.saturating_mul(1_000_000))
    }

    /// Both prices for one unit.
    pub fn plus(self, other: UnitPrice) -> UnitPrice {
        UnitPrice(self.0.saturating_add(other.0))
    }

    /// USD for one unit, exactly, such as `0.000015`.
    pub fn as_each(self) -> String {
        let (whole, decimals) = (self.0 / 1_000_000_000_000, format!("{:012}", self.0 % 1_000_000_000_000));
        // As many as are needed, and six at least, as all amounts have.
        let (six, more) = decimals.split_at(6);
        format!("{whole}.{six}{}", more.trim_end_matches('0'))
    }

    /// USD per million units, for the price list.
    pub fn as_per_million(self) -> Micros {
        Micros(self.0)
    }

    pub fn is_zero(self) -> bool {
        self.0 == 0
    }
}

/// A bill under construction: units times prices, summed exactly and rounded up once at the end.
#[derive(Clone, Copy, Debug, Default)]
pub struct Bill(u128);

impl Bill {
    pub fn add(&mut self, units: u64, price: UnitPrice) {
        // u64 x u64 fits u128; a saturated sum is above every quote and is clamped there.
        self.0 = self.0.saturating_add(u128::from(units) * u128::from(price.0));
    }

    /// Whole units at `price` that `money` pays for beside the sum; `None` for a price of nothing.
    pub fn units_left(self, money: Micros, price: UnitPrice) -> Option<u64> {
        let left = (u128::from(money.0) * 1_000_000).saturating_sub(self.0);
        let units = left.checked_div(u128::from(price.0))?;
        Some(u64::try_from(units).unwrap_or(u64::MAX))
    }

    /// The sum, rounded up: we never sell below the tariff, and saturating, so that no usage can wrap to a small charge.
    pub fn total(self) -> Micros {
        Micros(u64::try_from(self.0.div_ceil(1_000_000)).unwrap_or(u64::MAX))
    }
}

/// Reads `12.5` as a whole number of 10^-`scale`. Digits, at most one point, no sign, no exponent.
fn decimal(text: &str, scale: usize) -> Option<u128> {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let pointless = text.ends_with('.') || whole.is_empty();
    let digits = whole.bytes().chain(fraction.bytes()).all(|b| b.is_ascii_digit());
    if pointless || !digits || fraction.len() > scale || whole.len() > 20 {
        return None;
    }
    format!("{whole}{fraction:0<scale$}").parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_price_of_a_unit_is_shown_as_it_was_written() {
        for text in ["0.000015", "0.0000006", "0.000000000001", "3.500000", "18446744.000000"] {
            assert_eq!(UnitPrice::each(text).unwrap().as_each(), text);
        }
        for bad in ["0.0000000000001", "18446745", ""] {
            assert!(UnitPrice::each(bad).is_err(), "{bad}");
        }
        assert_eq!(UnitPrice::of(Micros(40_000)), UnitPrice::each("0.04").unwrap());
    }

    #[test]
    fn an_amount_in_usd_is_exact_or_refused() {
        assert_eq!(Micros::parse_usd("0.25"), Ok(Micros(250_000)));
        assert_eq!(Micros::parse_usd("10"), Ok(Micros(10_000_000)));
        assert_eq!(Micros::parse_usd("0.000001"), Ok(Micros(1)));
        for bad in ["", ".", ".5", "5.", "+5", "-1", "1e3", "0.0000001", "1,5", "١", " 1", "99999999999999999999999"] {
            assert!(Micros::parse_usd(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn token_units_have_one_spelling() {
        assert_eq!(Micros::parse_units("10000"), Some(Micros(10_000)));
        assert_eq!(Micros::parse_units("0"), Some(Micros(0)));
        for bad in ["", "+5", "05", "00", "1.0", "0x1", " 1", "18446744073709551616", "٣"] {
            assert_eq!(Micros::parse_units(bad), None, "{bad}");
        }
    }

    #[test]
    fn a_bill_rounds_up_once_and_never_wraps() {
        let mut bill = Bill::default();
        bill.add(1, UnitPrice::per_million("0.30").unwrap());
        bill.add(1, UnitPrice::per_million("0.30").unwrap());
        assert_eq!(bill.total(), Micros(1), "two parts of 0.3 micros are one micro, not two");
        bill.add(u64::MAX, UnitPrice(u64::MAX));
        bill.add(u64::MAX, UnitPrice(u64::MAX));
        assert_eq!(bill.total(), Micros(u64::MAX));
    }

    #[test]
    fn an_amount_is_a_short_number_in_json() {
        let text = |micros: u64| Micros(micros).as_usd().to_string();
        // One micro is 0.000001, which JSON's writer puts shorter.
        assert_eq!([text(12_500_000), text(1), text(0), text(10_000_000)], ["12.5", "1e-6", "0", "10"].map(String::from));
        assert_eq!(signed_usd(-150_000).to_string(), "-0.15");
    }

    #[test]
    fn an_amount_prints_as_usd_with_six_decimals() {
        assert_eq!(Micros(12_000).to_string(), "0.012000");
        assert_eq!(Micros(1_000_000).to_string(), "1.000000");
    }
}
