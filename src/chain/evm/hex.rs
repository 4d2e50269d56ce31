//! Hex as Ethereum writes it: `0x`, then two digits per byte.

/// `0x` and lower-case digits.
pub fn encode(bytes: &[u8]) -> String {
    let digit = |nibble: u8| char::from(b"0123456789abcdef"[usize::from(nibble)]);
    let mut text = String::with_capacity(2 + 2 * bytes.len());
    text.push_str("0x");
    text.extend(bytes.iter().flat_map(|byte| [digit(byte >> 4), digit(byte & 0xf)]));
    text
}

/// Reads whole bytes after a lower-case `0x`; digits of either case. `None` for anything else.
pub fn decode(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    if !digits.len().is_multiple_of(2) {
        return None;
    }
    digits.chunks_exact(2).map(|pair| Some(nibble(pair[0])? << 4 | nibble(pair[1])?)).collect()
}

/// Reads exactly `N` bytes.
pub fn fixed<const N: usize>(text: &str) -> Option<[u8; N]> {
    let digits = text.strip_prefix("0x")?.as_bytes();
    if digits.len() != 2 * N {
        return None;
    }
    let mut bytes = [0; N];
    for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
        *byte = nibble(pair[0])? << 4 | nibble(pair[1])?;
    }
    Some(bytes)
}

/// Reads a JSON-RPC quantity such as `0x1a`; `None` when it does not fit.
pub fn quantity(text: &str) -> Option<u128> {
    let digits = text.strip_prefix("0x")?;
    let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
    if !plain {
        return None;
    }
    u128::from_str_radix(digits, 16).ok()
}

fn nibble(digit: u8) -> Option<u8> {
    match digit {
        b'0'..=b'9' => Some(digit - b'0'),
        b'a'..=b'f' => Some(digit - b'a' + 10),
        b'A'..=b'F' => Some(digit - b'A' + 10),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_survive_hex_and_nothing_else_is_read() {
        assert_eq!(encode(&[0, 0xab]), "0x00ab");
        assert_eq!(decode("0x00Ab"), Some(vec![0, 0xab]));
        for bad in ["", "00", "0X00", "0x0", "0xg0", "0x+1", "0x é"] {
            assert_eq!(decode(bad), None, "{bad}");
        }
        assert_eq!(fixed::<1>("0xff"), Some([255]));
        assert_eq!(fixed::<1>("0xffff"), None);
    }

    #[test]
    fn a_quantity_is_digits_only() {
        assert_eq!(quantity("0x1a"), Some(26));
        for bad in ["0x", "1a", "0x+1", "0x-1", "0x100000000000000000000000000000000"] {
            assert_eq!(quantity(bad), None, "{bad}");
        }
    }
}
