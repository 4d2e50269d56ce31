//! Amounts as text: read exactly, or not at all; what was read is written and read again as the same.

use farebox::money::{Micros, UnitPrice};

/// The text is read by an integer of 128 bits as a reference, and by nothing that rounds.
pub fn check(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let units = Micros::parse_units(text);
    let canonical = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) && (text == "0" || !text.starts_with('0'));
    let expected = text.parse::<u64>().ok().filter(|_| canonical);
    assert_eq!(units.map(Micros::get), expected, "{text:?}");
    if let Some(units) = units {
        assert_eq!(units.get().to_string(), text);
    }
    let usd = Micros::parse_usd(text);
    assert_eq!(usd.as_ref().ok().map(|usd| usd.get()), reference(text), "{text:?}");
    if let Ok(usd) = usd {
        assert_eq!(Micros::parse_usd(&usd.to_string()), Ok(usd), "what is shown is what was meant");
        let price = UnitPrice::per_million(text).expect("a price is an amount");
        assert_eq!(price.as_per_million(), usd);
    }
    // Never a panic, whatever it says.
    let _ = UnitPrice::each(text);
}

/// At most twenty digits, at most one point with one to six digits behind it, nothing else; below 2^64 micros.
fn reference(text: &str) -> Option<u64> {
    let (whole, fraction) = match text.split_once('.') {
        Some((whole, fraction)) if (1..=6).contains(&fraction.len()) => (whole, fraction),
        Some(_) => return None,
        None => (text, ""),
    };
    let digits = |text: &str| text.bytes().all(|b| b.is_ascii_digit());
    if whole.is_empty() || whole.len() > 20 || !digits(whole) || !digits(fraction) {
        return None;
    }
    format!("{whole}{fraction:0<6}").parse().ok()
}
