//! Times as people and JSON write them: RFC 3339, such as `2026-01-02T03:04:05.678Z`.

use std::ops::Range;

use jiff::civil::DateTime;
use jiff::tz::TimeZone;

use super::Timestamp;

/// The last millisecond that has a four-digit year everywhere on earth.
const LAST_MILLIS: u64 = 253_402_207_200_000 - 1;

impl Timestamp {
    /// Reads a date and time of RFC 3339 with any offset; what is finer than a millisecond is cut off, and times before
    /// 1970 count as 1970. `None` for every other spelling, for days that no calendar has and for leap seconds.
    pub fn from_rfc3339(text: &str) -> Option<Timestamp> {
        let whole = text.get(..19).filter(|whole| whole.is_ascii())?;
        let marks = [(4, "-"), (7, "-"), (10, "Tt"), (13, ":"), (16, ":")];
        if !marks.iter().all(|(at, allowed)| allowed.contains(char::from(whole.as_bytes()[*at]))) {
            return None;
        }
        let (millis, offset) = fraction(&text[19..])?;
        let date = |range| i8::try_from(number(whole, range)?).ok();
        let (year, month, day) = (number(whole, 0..4)?, date(5..7)?, date(8..10)?);
        let (hour, minute, second) = (date(11..13)?, date(14..16)?, date(17..19)?);
        let local = DateTime::new(year, month, day, hour, minute, second, 0).ok()?;
        let minutes = offset_minutes(offset)?;
        let since_1970 = local.duration_since(DateTime::constant(1970, 1, 1, 0, 0, 0, 0)).as_secs() - minutes * 60;
        let millis = since_1970.checked_mul(1000)?.checked_add(millis)?;
        Some(Timestamp(u64::try_from(millis).unwrap_or(0)))
    }

    /// Milliseconds and `Z`, as JavaScript's `toISOString` writes it. What is after the year 9999 is written as its end.
    pub fn to_rfc3339(self) -> String {
        let millis = i64::try_from(self.0.min(LAST_MILLIS)).unwrap_or_default();
        let at = jiff::Timestamp::from_millisecond(millis).unwrap_or_default().to_zoned(TimeZone::UTC).datetime();
        let (date, time) = (at.date(), at.time());
        format!(
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            date.year(),
            date.month(),
            date.day(),
            time.hour(),
            time.minute(),
            time.second(),
            time.millisecond()
        )
    }
}

/// Digits and nothing else: the standard library would take a sign.
fn number(text: &str, range: Range<usize>) -> Option<i16> {
    let digits = text.get(range)?;
    digits.bytes().all(|b| b.is_ascii_digit()).then(|| digits.parse().ok())?
}

/// The milliseconds of `.678…`, if it is there, and what follows.
fn fraction(text: &str) -> Option<(i64, &str)> {
    let Some(rest) = text.strip_prefix('.') else { return Some((0, text)) };
    let length = rest.bytes().take_while(u8::is_ascii_digit).count();
    let (digits, offset) = rest.split_at(length);
    let millis = format!("{digits:0<3}");
    (length > 0).then(|| number(&millis, 0..3))?.map(|millis| (i64::from(millis), offset))
}

/// `Z` or `+hh:mm`, in minutes east of Greenwich.
fn offset_minutes(text: &str) -> Option<i64> {
    if matches!(text, "Z" | "z") {
        return Some(0);
    }
    let east = match text.bytes().next()? {
        b'+' => 1,
        b'-' => -1,
        _ => return None,
    };
    let colon = text.len() == 6 && text.as_bytes()[3] == b':';
    let (hours, minutes) = (number(text, 1..3)?, number(text, 4..6)?);
    (colon && hours < 24 && minutes < 60).then(|| east * (i64::from(hours) * 60 + i64::from(minutes)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn one_instant_has_many_spellings() {
        let instant = Timestamp::from_millis(1_767_323_045_678);
        for text in [
            "2026-01-02T03:04:05.678Z",
            "2026-01-02t03:04:05.678z",
            "2026-01-02T03:04:05.678999999999999Z",
            "2026-01-02T03:04:05.678+00:00",
            "2026-01-02T03:04:05.678-00:00",
            "2026-01-02T04:34:05.678+01:30",
            "2026-01-01T22:04:05.678-05:00",
        ] {
            assert_eq!(Timestamp::from_rfc3339(text), Some(instant), "{text}");
        }
        assert_eq!(instant.to_rfc3339(), "2026-01-02T03:04:05.678Z");
        assert_eq!(Timestamp::from_rfc3339("2026-01-02T03:04:05.6Z").map(Timestamp::millis), Some(1_767_323_045_600));
        assert_eq!(Timestamp::from_rfc3339("2026-01-02T03:04:05Z").map(Timestamp::millis), Some(1_767_323_045_000));
        assert_eq!(Timestamp::from_rfc3339("2028-02-29T00:00:00Z").map(Timestamp::millis), Some(1_835_395_200_000));
    }

    #[test]
    fn the_ends_of_the_calendar_are_times_too() {
        assert_eq!(Timestamp::from_rfc3339("0000-01-01T00:00:00Z"), Some(Timestamp::default()));
        assert_eq!(Timestamp::from_rfc3339("1969-12-31T23:59:59.999Z"), Some(Timestamp::default()));
        assert_eq!(Timestamp::from_rfc3339("9999-12-31T23:59:59.999Z").map(Timestamp::millis), Some(253_402_300_799_999));
        assert_eq!(Timestamp::from_millis(u64::MAX).to_rfc3339(), "9999-12-30T21:59:59.999Z");
        assert_eq!(Timestamp::default().to_rfc3339(), "1970-01-01T00:00:00.000Z");
    }

    #[test]
    fn what_no_calendar_and_no_rfc_has_is_no_time() {
        for text in [
            "",
            "yesterday",
            "2026-02-30T00:00:00Z",
            "2026-02-29T00:00:00Z",
            "2026-13-01T00:00:00Z",
            "2026-00-01T00:00:00Z",
            "2026-01-02T24:00:00Z",
            "2026-01-02T23:60:00Z",
            "2026-12-31T23:59:60Z",
            "2026-01-02T03:04:05",
            "2026-01-02T03:04:05.Z",
            "2026-01-02T03:04:05,5Z",
            "2026-01-02T03:04Z",
            "2026-01-02 03:04:05Z",
            "20260102T030405Z",
            "2026-1-2T3:4:5Z",
            "+026-01-02T03:04:05Z",
            "2026-01-02T03:04:05Z ",
            " 2026-01-02T03:04:05Z",
            "2026-01-02T03:04:05Z[UTC]",
            "2026-01-02T03:04:05+01",
            "2026-01-02T03:04:05+0100",
            "2026-01-02T03:04:05+01-00",
            "2026-01-02T03:04:05+24:00",
            "2026-01-02T03:04:05+01:60",
            "2026-01-02T03:04:05++1:00",
            "2026-01-02T03:04:05−01:00",
            "٢٠٢٦-01-02T03:04:05Z",
            "1767323045678",
        ] {
            assert_eq!(Timestamp::from_rfc3339(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(millis in 0..=LAST_MILLIS) {
            let at = Timestamp::from_millis(millis);
            prop_assert_eq!(Timestamp::from_rfc3339(&at.to_rfc3339()), Some(at));
        }

        #[test]
        fn no_text_makes_it_stumble(text in "[0-9TZ:.+-]{0,30}|\\PC{0,30}") {
            let _ = Timestamp::from_rfc3339(&text);
        }
    }
}
