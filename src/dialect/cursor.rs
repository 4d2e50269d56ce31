//! Walks once over JSON text whose grammar was already checked, without copying it.

use std::borrow::Cow;

use crate::error::{Code, Error};

/// Deeper nesting is refused: what reads the body after us recurses.
const MAX_DEPTH: u8 = 128;

/// A place in JSON text. The grammar was checked before; what it still finds is deep nesting and half surrogates.
pub(super) struct Cursor<'a> {
    text: &'a str,
    at: usize,
    depth: u8,
    entered: usize,
}

/// A JSON string as it stands in the text.
#[derive(Clone, Copy)]
pub(super) struct Text<'a> {
    /// With its quotes.
    quoted: &'a str,
    escaped: bool,
    /// Bytes of UTF-8 that the text has at most after its escapes are resolved and written again by somebody else.
    pub weight: u64,
}

impl<'a> Text<'a> {
    /// What the string says.
    pub fn decode(self) -> Result<Cow<'a, str>, Error> {
        if !self.escaped {
            return Ok(Cow::Borrowed(self.raw()));
        }
        serde_json::from_str(self.quoted).map(Cow::Owned).map_err(|_| malformed())
    }

    /// What stands between the quotes, escapes and all.
    pub fn raw(self) -> &'a str {
        &self.quoted[1..self.quoted.len() - 1]
    }
}

fn malformed() -> Error {
    Error::new(Code::InvalidJson, "the body is not well-formed JSON; send one JSON object in UTF-8")
}

fn too_deep() -> Error {
    Error::new(Code::InvalidJson, format!("the body is nested deeper than {MAX_DEPTH} levels; flatten it"))
}

fn lone_surrogate() -> Error {
    Error::new(Code::InvalidJson, "a \\u escape in the body is half of a surrogate pair; send the character itself in UTF-8")
}

impl<'a> Cursor<'a> {
    pub fn new(text: &'a str) -> Self {
        Cursor { text, at: 0, depth: 0, entered: 0 }
    }

    /// Over text that will stand this many levels deep in another.
    pub fn inside(text: &'a str, levels: u8) -> Self {
        Cursor { text, at: 0, depth: levels, entered: 0 }
    }

    /// How many objects and arrays it has been in.
    pub fn entered(&self) -> usize {
        self.entered
    }

    /// The first byte of what comes next, without white space.
    pub fn peek(&mut self) -> Result<u8, Error> {
        let rest = self.text.as_bytes().get(self.at..).ok_or_else(malformed)?;
        let blank = rest.iter().take_while(|byte| matches!(byte, b' ' | b'\t' | b'\n' | b'\r')).count();
        self.at += blank;
        rest.get(blank).copied().ok_or_else(malformed)
    }

    fn take(&mut self, expected: u8) -> Result<(), Error> {
        if self.peek()? != expected {
            return Err(malformed());
        }
        self.at += 1;
        Ok(())
    }

    /// Runs `read` over the next value and also gives the text of that value.
    pub fn slice<T>(&mut self, read: impl FnOnce(&mut Self) -> Result<T, Error>) -> Result<(&'a str, T), Error> {
        self.peek()?;
        let start = self.at;
        let found = read(self)?;
        Ok((&self.text[start..self.at], found))
    }

    /// Reads an object; `member` gets each key and must read exactly its value.
    pub fn object(&mut self, mut member: impl FnMut(Text<'a>, &mut Self) -> Result<(), Error>) -> Result<(), Error> {
        self.enter(b'{')?;
        if self.peek()? != b'}' {
            loop {
                let key = self.string()?;
                self.take(b':')?;
                member(key, self)?;
                if self.peek()? != b',' {
                    break;
                }
                self.at += 1;
            }
        }
        self.leave(b'}')
    }

    /// Reads an array; `item` must read exactly one value.
    pub fn array(&mut self, mut item: impl FnMut(&mut Self) -> Result<(), Error>) -> Result<(), Error> {
        self.enter(b'[')?;
        if self.peek()? != b']' {
            loop {
                item(self)?;
                if self.peek()? != b',' {
                    break;
                }
                self.at += 1;
            }
        }
        self.leave(b']')
    }

    /// Reads a number, `true`, `false` or `null`.
    pub fn scalar(&mut self) -> Result<&'a str, Error> {
        self.peek()?;
        let rest = &self.text[self.at..];
        let end = rest.bytes().position(|byte| matches!(byte, b',' | b']' | b'}' | b' ' | b'\t' | b'\n' | b'\r'));
        let found = &rest[..end.unwrap_or(rest.len())];
        if found.is_empty() {
            return Err(malformed());
        }
        self.at += found.len();
        Ok(found)
    }

    /// Reads a string.
    pub fn string(&mut self) -> Result<Text<'a>, Error> {
        self.take(b'"')?;
        let bytes = self.text.as_bytes();
        let start = self.at - 1;
        let (mut weight, mut escaped) = (0, false);
        loop {
            let run = bytes.get(self.at..).and_then(|rest| memchr::memchr2(b'"', b'\\', rest)).ok_or_else(malformed)?;
            weight += run as u64;
            self.at += run;
            if bytes[self.at] == b'"' {
                self.at += 1;
                return Ok(Text { quoted: &self.text[start..self.at], escaped, weight });
            }
            escaped = true;
            weight += self.escape()?;
        }
    }

    /// Passes one escape sequence (two when they are a surrogate pair) and gives its weight.
    fn escape(&mut self) -> Result<u64, Error> {
        if self.text.as_bytes().get(self.at + 1) != Some(&b'u') {
            self.at += 2;
            return Ok(2);
        }
        match self.unicode_escape()? {
            0xD800..=0xDBFF => match self.unicode_escape() {
                Ok(0xDC00..=0xDFFF) => Ok(4),
                _ => Err(lone_surrogate()),
            },
            0xDC00..=0xDFFF => Err(lone_surrogate()),
            _ => Ok(3),
        }
    }

    fn unicode_escape(&mut self) -> Result<u16, Error> {
        let digits = self.text.get(self.at..self.at + 6).and_then(|escape| escape.strip_prefix("\\u"));
        self.at += 6;
        digits.and_then(|digits| u16::from_str_radix(digits, 16).ok()).ok_or_else(malformed)
    }

    fn enter(&mut self, bracket: u8) -> Result<(), Error> {
        self.take(bracket)?;
        self.depth += 1;
        self.entered += 1;
        if self.depth > MAX_DEPTH {
            return Err(too_deep());
        }
        Ok(())
    }

    fn leave(&mut self, bracket: u8) -> Result<(), Error> {
        self.take(bracket)?;
        self.depth -= 1;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_string_weighs_what_it_says_and_not_how_it_is_escaped() {
        let weight = |json: &'static str| Cursor::new(json).string().map(|text| text.weight);
        assert_eq!(weight(r#""hello""#).unwrap(), 5);
        assert_eq!(weight(r#""\u4e2d""#).unwrap(), 3);
        assert_eq!(weight(r#""\ud83d\ude00""#).unwrap(), 4);
        assert_eq!(weight(r#""a\nb""#).unwrap(), 4);
    }

    #[test]
    fn half_a_surrogate_pair_is_refused_wherever_it_stands() {
        for json in [r#""\ud800""#, r#""\ud800x""#, r#""\udc00""#, r#""\ud800\n""#, r#""\ud800\u0041""#] {
            assert_eq!(Cursor::new(json).string().map(|_| ()).unwrap_err().code, Code::InvalidJson, "{json}");
        }
    }

    #[test]
    fn text_that_is_not_json_is_an_error_and_no_panic() {
        for junk in ["", "\"", "\"\\", "\"\\u", "\"\\u12é", "{", "[", "{\"a\"", "{\"a\":", "[1", "[1,"] {
            let mut cursor = Cursor::new(junk);
            let _ = cursor.string();
            let mut cursor = Cursor::new(junk);
            assert!(cursor.array(|cursor| cursor.scalar().map(|_| ())).is_err());
            let mut cursor = Cursor::new(junk);
            assert!(cursor.object(|_, cursor| cursor.scalar().map(|_| ())).is_err());
        }
    }
}
