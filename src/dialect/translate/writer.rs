//! Writes one JSON text from front to back.

use std::fmt::{Display, Formatter};

use bytes::Bytes;
use serde::{Serialize, Serializer};

/// JSON that is being written. Whoever opens an object or an array closes it.
#[derive(Debug, Default)]
pub(super) struct Writer {
    out: Vec<u8>,
}

impl Writer {
    pub fn with_capacity(bytes: usize) -> Writer {
        Writer { out: Vec::with_capacity(bytes) }
    }

    /// The comma between this value or member and the one before. A string ends with its quote, so that no text is taken
    /// for a bracket.
    fn separate(&mut self) {
        if !matches!(self.out.last(), None | Some(b'{' | b'[' | b':')) {
            self.out.push(b',');
        }
    }

    pub fn object(&mut self, members: impl FnOnce(&mut Writer)) {
        self.separate();
        self.out.push(b'{');
        members(self);
        self.out.push(b'}');
    }

    pub fn array(&mut self, items: impl FnOnce(&mut Writer)) {
        self.separate();
        self.out.push(b'[');
        items(self);
        self.out.push(b']');
    }

    /// The name of the member whose value comes next.
    pub fn key(&mut self, name: &str) -> &mut Writer {
        self.text(name);
        self.out.push(b':');
        self
    }

    pub fn text(&mut self, text: &str) {
        self.json(text);
    }

    /// One string from several, without putting them together first.
    pub fn joined(&mut self, pieces: &[&str], separator: &str) {
        self.json(&Joined { pieces, separator });
    }

    pub fn json<T: Serialize + ?Sized>(&mut self, value: &T) {
        self.separate();
        serde_json::to_writer(&mut self.out, value).expect("texts and numbers are always JSON, and the buffer grows");
    }

    /// A value that is JSON already.
    pub fn raw(&mut self, json: &str) {
        self.separate();
        self.out.extend_from_slice(json.as_bytes());
    }

    pub fn finish(self) -> Bytes {
        self.out.into()
    }
}

struct Joined<'a> {
    pieces: &'a [&'a str],
    separator: &'a str,
}

impl Display for Joined<'_> {
    fn fmt(&self, f: &mut Formatter<'_>) -> std::fmt::Result {
        for (n, piece) in self.pieces.iter().enumerate() {
            f.write_str(if n == 0 { "" } else { self.separator })?;
            f.write_str(piece)?;
        }
        Ok(())
    }
}

impl Serialize for Joined<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn commas_stand_between_and_nowhere_else() {
        let mut writer = Writer::default();
        writer.object(|object| {
            object.key("a{").text("x[");
            object.key("b").array(|list| {
                list.object(|_| {});
                list.joined(&["1\"", "2"], "\n");
                list.raw("{ }");
            });
            object.key("c").json(&7);
        });
        assert_eq!(&writer.finish()[..], br#"{"a{":"x[","b":[{},"1\"\n2",{ }],"c":7}"#);
    }
}
