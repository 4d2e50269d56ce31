//! Which characters may stand where in the text of a sign-in: the rules of RFC 3986 that EIP-4361 refers to.

/// `unreserved` of RFC 3986.
const fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

/// `sub-delims` of RFC 3986.
const fn is_sub_delim(byte: u8) -> bool {
    matches!(byte, b'!' | b'$' | b'&' | b'\'' | b'(' | b')' | b'*' | b'+' | b',' | b';' | b'=')
}

/// `gen-delims` of RFC 3986.
const fn is_gen_delim(byte: u8) -> bool {
    matches!(byte, b':' | b'/' | b'?' | b'#' | b'[' | b']' | b'@')
}

/// Whether every byte is `plain`, or begins two hex digits behind a `%`.
fn is_encoded(text: &str, plain: impl Fn(u8) -> bool) -> bool {
    let mut bytes = text.bytes();
    while let Some(byte) = bytes.next() {
        let hex = |digit: Option<u8>| digit.is_some_and(|digit| digit.is_ascii_hexdigit());
        let good = if byte == b'%' { hex(bytes.next()) && hex(bytes.next()) } else { plain(byte) };
        if !good {
            return false;
        }
    }
    true
}

pub fn is_scheme(text: &str) -> bool {
    let inner = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'+' | b'-' | b'.');
    text.starts_with(|first: char| first.is_ascii_alphabetic()) && text.bytes().all(inner)
}

/// An authority as far as its characters go; empty ones are none.
pub fn is_authority(text: &str) -> bool {
    let plain = |byte: u8| is_unreserved(byte) || is_sub_delim(byte) || matches!(byte, b':' | b'@' | b'[' | b']');
    !text.is_empty() && is_encoded(text, plain)
}

/// A scheme, a colon and the characters of a URI.
pub fn is_uri(text: &str) -> bool {
    let Some((scheme, rest)) = text.split_once(':') else { return false };
    is_scheme(scheme) && is_encoded(rest, |byte| is_unreserved(byte) || is_sub_delim(byte) || is_gen_delim(byte))
}

/// `reserved`, `unreserved` and spaces, at least one: no quotes, no line ends, nothing beyond ASCII.
pub fn is_statement(text: &str) -> bool {
    let plain = |byte: u8| is_unreserved(byte) || is_sub_delim(byte) || is_gen_delim(byte) || byte == b' ';
    !text.is_empty() && text.bytes().all(plain)
}

/// `*pchar`.
pub fn is_pchars(text: &str) -> bool {
    is_encoded(text, |byte| is_unreserved(byte) || is_sub_delim(byte) || matches!(byte, b':' | b'@'))
}

/// At least eight letters and digits, as EIP-4361 says; at most as many as are remembered.
pub fn is_nonce(text: &str) -> bool {
    (8..=128).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

pub fn is_word(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
}

pub fn is_digits(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// A CAIP-2 chain or its reference.
pub fn is_chain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b':' | b'-' | b'_'))
}
