//! Word, the 256-bit number in which the EVM counts and signs.

use super::hex;
use crate::chain::terms::Units;
use crate::money::Micros;

/// An unsigned 256-bit number, big-endian, so that comparing bytes compares numbers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Word(pub [u8; 32]);

impl Word {
    /// Reads decimal digits with one spelling per number: `0`, or no leading zero, at most 78 digits, below 2^256.
    pub fn from_decimal(text: &str) -> Option<Word> {
        let digits = text.as_bytes();
        let one_spelling = !digits.is_empty() && digits.len() <= 78 && (digits[0] != b'0' || digits.len() == 1);
        if !one_spelling || !digits.iter().all(u8::is_ascii_digit) {
            return None;
        }
        let mut word = [0u8; 32];
        for digit in digits {
            let mut carry = u16::from(digit - b'0');
            for byte in word.iter_mut().rev() {
                let sum = u16::from(*byte) * 10 + carry;
                *byte = (sum & 0xff) as u8;
                carry = sum >> 8;
            }
            if carry != 0 {
                return None;
            }
        }
        Some(Word(word))
    }

    /// Reads `0x` and exactly 64 hex digits.
    pub fn from_hex(text: &str) -> Option<Word> {
        hex::fixed(text).map(Word)
    }

    /// The number, if it fits 64 bits. Never truncates.
    pub fn as_u64(&self) -> Option<u64> {
        let (high, low) = self.0.split_at(24);
        let low: [u8; 8] = low.try_into().ok()?;
        high.iter().all(|byte| *byte == 0).then(|| u64::from_be_bytes(low))
    }

    pub fn is_zero(&self) -> bool {
        *self == Word::default()
    }
}

impl std::fmt::Display for Word {
    /// Decimal digits.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let (mut rest, mut digits) = (self.0, Vec::new());
        while rest != [0; 32] || digits.is_empty() {
            let mut carry = 0u16;
            for byte in &mut rest {
                let value = carry << 8 | u16::from(*byte);
                (*byte, carry) = ((value / 10) as u8, value % 10);
            }
            digits.push(b'0' + carry as u8);
        }
        digits.iter().rev().try_for_each(|digit| write!(f, "{}", char::from(*digit)))
    }
}

impl From<u64> for Word {
    fn from(number: u64) -> Word {
        let mut word = [0; 32];
        word[24..].copy_from_slice(&number.to_be_bytes());
        Word(word)
    }
}

impl Units for Word {
    fn of(amount: Micros) -> Word {
        Word::from(amount.get())
    }

    fn micros(self) -> Micros {
        Micros::new(self.as_u64().unwrap_or(u64::MAX))
    }

    fn read(text: &str) -> Option<Word> {
        Word::from_decimal(text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn decimals_are_read_exactly_up_to_the_last_number() {
        assert_eq!(Word::from_decimal("0"), Some(Word::default()));
        assert_eq!(Word::from_decimal("18446744073709551616").unwrap().as_u64(), None, "2^64 does not wrap to 0");
        let last = "115792089237316195423570985008687907853269984665640564039457584007913129639935";
        assert_eq!(Word::from_decimal(last), Some(Word([255; 32])));
        for digits in [last, "0", "10", "18446744073709551616"] {
            assert_eq!(Word::from_decimal(digits).unwrap().to_string(), digits);
        }
        let one_more = "115792089237316195423570985008687907853269984665640564039457584007913129639936";
        for bad in ["", "00", "01", "+1", "-1", "1e4", "0x1", "1_0", " 1", "١", one_more, &"9".repeat(79)] {
            assert_eq!(Word::from_decimal(bad), None, "{bad}");
        }
    }

    #[test]
    fn words_compare_as_numbers() {
        assert!(Word::from(256) > Word::from(255));
        assert_eq!(Word::from(u64::MAX).as_u64(), Some(u64::MAX));
    }
}
