//! Finds the usage and the end of an answer that comes as one JSON text, in passing and however it is chunked.

use super::Dialect;

/// The longest `usage` object that is read.
const MAX_USAGE_BYTES: usize = 64 * 1024;
/// What one of the usual length takes.
const USUAL_USAGE_BYTES: usize = 512;
/// Kinds of brackets are remembered down to here; deeper ones are only counted.
const MAX_KINDS: u32 = 128;
/// Keys whose string values are the answer.
const TEXT_KEYS: [&[u8]; 7] = [b"content", b"reasoning_content", b"reasoning", b"refusal", b"arguments", b"text", b"thinking"];
/// The longest key that is compared.
const MAX_KEY_BYTES: usize = 24;

/// A scanner that holds a few bytes, whatever passes.
#[derive(Debug, Default)]
pub(super) struct Unstreamed {
    depth: u32,
    /// One bit for each open bracket, the innermost lowest: set for an object.
    kinds: u128,
    begun: bool,
    closed: bool,
    in_string: bool,
    /// Just after a backslash.
    escaped: bool,
    /// The string that is being read, or comes next, is a key.
    at_key: bool,
    key: Vec<u8>,
    /// The value of the top-level `usage` as far as it was read, and whether its end has come.
    usage: Option<Vec<u8>>,
    usage_done: bool,
    /// Depth of the innermost `input` of a tool call, all of whose strings are the answer.
    input_from: Option<u32>,
    is_text: bool,
    text_bytes: u64,
    /// Inside a top-level list of what was made, and how many are in it so far.
    in_list: bool,
    listed: u64,
    /// The top-level member that alone holds the answer: a response repeats what it was asked beside it.
    answer: Option<&'static [u8]>,
    /// The top-level member that is being read is that one.
    in_answer: bool,
}

impl Unstreamed {
    pub fn new(dialect: Dialect) -> Unstreamed {
        let answer: Option<&[u8]> = (dialect == Dialect::Responses).then_some(b"output");
        Unstreamed { answer, ..Unstreamed::default() }
    }

    /// Takes the next bytes of the body.
    pub fn chunk(&mut self, mut bytes: &[u8]) {
        while let Some(&byte) = bytes.first() {
            let taken = if self.in_string && !self.escaped { self.string_run(bytes) } else { 0 };
            if taken > 0 {
                self.record(&bytes[..taken]);
                bytes = &bytes[taken..];
                continue;
            }
            bytes = &bytes[1..];
            if self.in_string {
                self.string_byte(byte);
            } else {
                self.structure(byte);
            }
        }
    }

    /// Whether the whole JSON value has passed.
    pub fn complete(&self) -> bool {
        self.closed
    }

    /// The top-level `usage`, once all of it has passed.
    pub fn usage(&self) -> Option<&str> {
        let whole = self.usage.as_ref().filter(|_| self.usage_done)?;
        std::str::from_utf8(whole).ok()
    }

    /// Bytes of the answer's text.
    pub fn text_bytes(&self) -> u64 {
        self.text_bytes
    }

    /// Things in a top-level list of `data` or `images`.
    pub fn listed(&self) -> u64 {
        self.listed
    }

    /// Passes the plain part of a string at once; gives how many bytes that were.
    fn string_run(&mut self, bytes: &[u8]) -> usize {
        let run = memchr::memchr2(b'"', b'\\', bytes).unwrap_or(bytes.len());
        if self.at_key {
            let room = MAX_KEY_BYTES.saturating_sub(self.key.len());
            self.key.reserve_exact(room);
            self.key.extend_from_slice(&bytes[..run.min(room)]);
        } else if self.is_text {
            self.text_bytes += run as u64;
        }
        run
    }

    fn string_byte(&mut self, byte: u8) {
        self.record(&[byte]);
        if std::mem::take(&mut self.escaped) {
            // An escaped key is none of those that we look for.
            self.key.extend_from_slice(if self.at_key { b"\\" } else { b"" });
            self.text_bytes += u64::from(self.is_text && !self.at_key);
        } else if byte == b'\\' {
            self.escaped = true;
        } else {
            self.in_string = false;
        }
    }

    fn structure(&mut self, byte: u8) {
        let top = self.depth == 1;
        if top && matches!(byte, b',' | b'}') && self.usage.is_some() {
            self.usage_done = true;
        }
        self.record(&[byte]);
        match byte {
            b'"' => {
                self.in_string = true;
                self.listed += u64::from(self.in_list && self.depth == 2);
                if self.at_key {
                    self.key.clear();
                } else {
                    self.is_text = self.input_from.is_some() || self.is_answer();
                }
            }
            b':' => {
                self.at_key = false;
                if top {
                    self.in_answer = self.answer.is_some_and(|name| self.key == name);
                }
                if top && self.key == b"usage" && self.is_object() {
                    // A second one replaces the first, as every JSON parser has it.
                    (self.usage, self.usage_done) = (Some(Vec::with_capacity(USUAL_USAGE_BYTES)), false);
                }
            }
            b',' => self.at_key = self.is_object(),
            b'{' | b'[' => self.open(byte == b'{'),
            b'}' | b']' => self.close(),
            _ => {}
        }
    }

    /// Whether a string that begins here is of the answer.
    fn is_answer(&self) -> bool {
        let key = self.key.as_slice();
        match self.answer {
            None => self.depth > 1 && TEXT_KEYS.contains(&key),
            // The input of a tool that takes text.
            Some(_) => self.depth > 1 && self.in_answer && (TEXT_KEYS.contains(&key) || key == b"input"),
        }
    }

    fn is_object(&self) -> bool {
        self.depth <= MAX_KINDS && self.kinds & 1 == 1
    }

    fn open(&mut self, object: bool) {
        if self.closed {
            return;
        }
        self.begun = true;
        if self.depth == 1 {
            self.in_list = !object && matches!(self.key.as_slice(), b"data" | b"images");
        } else if self.depth == 2 && self.in_list {
            self.listed += 1;
        }
        self.depth = self.depth.saturating_add(1);
        if self.depth <= MAX_KINDS {
            self.kinds = self.kinds << 1 | u128::from(object);
        }
        let is_answer = self.answer.is_none() || self.in_answer;
        if object && is_answer && self.key == b"input" && self.depth > 2 && self.input_from.is_none() {
            self.input_from = Some(self.depth);
        }
        // The strings of an array belong to the key before it; a new object brings its own keys.
        if object {
            self.key.clear();
        }
        self.at_key = object;
    }

    fn close(&mut self) {
        if self.depth <= MAX_KINDS {
            self.kinds >>= 1;
        }
        self.depth = self.depth.saturating_sub(1);
        if self.input_from.is_some_and(|from| self.depth < from) {
            self.input_from = None;
        }
        self.key.clear();
        self.at_key = false;
        self.closed |= self.begun && self.depth == 0;
    }

    fn record(&mut self, bytes: &[u8]) {
        if let Some(usage) = self.usage.as_mut().filter(|_| !self.usage_done)
            && usage.len() + bytes.len() <= MAX_USAGE_BYTES
        {
            usage.extend_from_slice(bytes);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ANSWER: &str = r#" {"id":"x\"usage\":{}","choices":[{"message":{"role":"assistant","content":"h\u00e9 \"usage\":1 }",
        "tool_calls":[{"function":{"name":"f","arguments":"{\"usage\":2}"}}],"usage":3}}],
        "usage":{"prompt_tokens":5,"completion_tokens":6,"d":{"usage":[1,{"}":2}]}},"z":"usage"} "#;

    #[test]
    fn usage_and_end_are_found_at_every_cut() {
        for at in 0..ANSWER.len() {
            let mut scanner = Unstreamed::default();
            scanner.chunk(&ANSWER.as_bytes()[..at]);
            assert_eq!(scanner.complete(), ANSWER[..at].trim_end().ends_with("\"usage\"}"), "cut at {at}");
            scanner.chunk(&ANSWER.as_bytes()[at..]);
            assert!(scanner.complete());
            let expected = r#"{"prompt_tokens":5,"completion_tokens":6,"d":{"usage":[1,{"}":2}]}}"#;
            assert_eq!(scanner.usage(), Some(expected), "cut at {at}");
        }
    }

    #[test]
    fn only_the_text_of_the_answer_is_counted() {
        let mut scanner = Unstreamed::default();
        scanner.chunk(
            br#"{"id":"not me","content":[{"type":"text","text":"four"},{"type":"tool_use","id":"no","name":"no",
            "input":{"a":"12","b":["34",{"c":"56"}]}},{"type":"thinking","thinking":"78"}],"stop_reason":"not me"}"#,
        );
        assert_eq!(scanner.text_bytes(), 12);
        assert_eq!(scanner.usage(), None);
    }

    #[test]
    fn the_last_of_two_usages_counts_and_none_is_held_without_bound() {
        let mut scanner = Unstreamed::default();
        scanner.chunk(br#"{"usage":{"a":1},"usage": null}"#);
        assert_eq!(scanner.usage(), Some(" null"));
        let mut scanner = Unstreamed::default();
        scanner.chunk(br#"{"usage":{"a":""#);
        (0..100).for_each(|_| scanner.chunk(&[b'x'; 4096]));
        assert!(scanner.usage.as_ref().is_some_and(|usage| usage.len() <= MAX_USAGE_BYTES));
    }

    #[test]
    fn what_is_no_object_or_too_deep_is_no_report_and_no_panic() {
        for junk in ["", "null", "]]]]", "}}{{", "\"usage\":{}", "[{\"usage\":{}}]", "\\\"", "{\"usage\"", ":::,,,"] {
            let mut scanner = Unstreamed::default();
            scanner.chunk(junk.as_bytes());
            assert_eq!(scanner.usage(), None, "{junk}");
        }
        let mut scanner = Unstreamed::default();
        scanner.chunk("[{".repeat(5000).as_bytes());
        scanner.chunk("}]".repeat(5000).as_bytes());
        assert!(scanner.complete());
        let deep = format!("{{\"a\":{}1{},\"usage\":{{\"b\":1}}}}", "[".repeat(400), "]".repeat(400));
        let mut scanner = Unstreamed::default();
        scanner.chunk(deep.as_bytes());
        assert_eq!(scanner.usage(), Some("{\"b\":1}"), "found again above what was too deep");
    }
}
