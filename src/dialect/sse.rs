//! Server-sent events: splits passing bytes into events, normalised so that every client's parser takes them, without copying.

use std::borrow::Cow;
use std::ops::Range;

use bytes::{Bytes, BytesMut};
use serde::Deserialize;

use super::Dialect;

/// An event longer than this is an error: nothing is held without bound.
pub const MAX_EVENT_BYTES: usize = 1024 * 1024;
/// The same of responses, whose last event repeats the whole answer, with all that was thought in a form that only the upstream
/// can read. Nobody makes one long without paying for its tokens.
pub const MAX_RESPONSES_EVENT_BYTES: usize = 32 * 1024 * 1024;

const BOM: &[u8] = b"\xef\xbb\xbf";

/// One event, written as `event: NAME\ndata: DATA\n\n` (or without its first line).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// What a caller gets.
    pub bytes: Bytes,
    data: Range<usize>,
    name: Range<usize>,
}

impl Event {
    /// The payload.
    pub fn data(&self) -> &[u8] {
        &self.bytes[self.data.clone()]
    }

    /// What the `event:` line says; empty when there is none.
    pub fn name(&self) -> &[u8] {
        &self.bytes[self.name.clone()]
    }

    fn written(name: &[u8], data: &[u8]) -> Event {
        let mut bytes = Vec::with_capacity(name.len() + data.len() + 17);
        let mut named = 0..0;
        if !name.is_empty() {
            bytes.extend_from_slice(b"event: ");
            named = 7..7 + name.len();
            bytes.extend_from_slice(name);
            bytes.push(b'\n');
        }
        bytes.extend_from_slice(b"data: ");
        let start = bytes.len();
        bytes.extend_from_slice(data);
        bytes.extend_from_slice(b"\n\n");
        Event { data: start..start + data.len(), name: named, bytes: bytes.into() }
    }

    /// The same event with the name that its data say it has, if they do.
    fn named_by_type(self) -> Event {
        #[derive(Deserialize)]
        struct Typed<'a> {
            #[serde(borrow, rename = "type")]
            kind: Cow<'a, str>,
        }
        // As it is usually written, where no other `type` can stand before.
        let usual = self.data().strip_prefix(b"{\"type\":\"").and_then(|rest| rest.strip_prefix(self.name()));
        if !self.name.is_empty() && usual.is_some_and(|rest| rest.starts_with(b"\"")) {
            return self;
        }
        let Ok(Typed { kind }) = serde_json::from_slice::<Typed<'_>>(self.data()) else { return self };
        let is_name = !kind.is_empty() && kind.bytes().all(|byte| byte.is_ascii_graphic());
        if !is_name || kind.as_bytes() == self.name() {
            return self;
        }
        Event::written(kind.as_bytes(), self.data())
    }
}

/// The upstream sent more than so many bytes without ending an event: [`MAX_EVENT_BYTES`], or [`MAX_RESPONSES_EVENT_BYTES`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("an event of the upstream is longer than {0} bytes")]
pub struct EventTooLong(pub usize);

/// Cuts a stream of bytes into events (WHATWG HTML, section 9.2.6), however the bytes are chunked. Lines may end in
/// LF, CR or CRLF; a byte order mark, comments, `id:` and `retry:` are left out.
#[derive(Debug, Default)]
pub struct Splitter {
    /// Bytes that hold at least one whole event.
    ready: Bytes,
    /// The start of an event whose end has not come.
    carry: BytesMut,
    scan: Scan,
    started: bool,
    /// Every event gets the name that its data say it has.
    by_type: bool,
}

/// How far the end of the next event was looked for.
#[derive(Debug, Default, Clone, Copy)]
struct Scan {
    at: usize,
    line: usize,
}

impl Scan {
    /// Where the next event ends, if its blank line is there.
    fn end(&mut self, bytes: &[u8]) -> Option<usize> {
        while let Some(run) = memchr::memchr2(b'\n', b'\r', &bytes[self.at..]) {
            let end = self.at + run;
            self.at = end;
            let next = match (bytes[end], bytes.get(end + 1)) {
                // Whether a line feed follows is not known yet.
                (b'\r', None) => return None,
                (b'\r', Some(b'\n')) => end + 2,
                _ => end + 1,
            };
            let blank = end == self.line;
            *self = Scan { at: next, line: next };
            if blank {
                return Some(next);
            }
        }
        self.at = bytes.len();
        None
    }
}

impl Splitter {
    pub fn new() -> Self {
        Splitter::default()
    }

    /// For streams in which every event is named after the `type` of its data, which some upstreams leave out and some clients
    /// go by.
    pub fn named_by_type() -> Self {
        Splitter { by_type: true, ..Splitter::default() }
    }

    /// As events of this dialect are written.
    pub fn of(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Chat | Dialect::Messages => Splitter::new(),
            Dialect::Responses => Splitter::named_by_type(),
        }
    }

    fn longest(&self) -> usize {
        if self.by_type { MAX_RESPONSES_EVENT_BYTES } else { MAX_EVENT_BYTES }
    }

    /// Takes the next bytes; the iterator gives the events that they complete. What is not taken from it now comes
    /// first from the next.
    pub fn push(&mut self, chunk: Bytes) -> Events<'_> {
        if self.ready.is_empty() && self.carry.is_empty() {
            self.ready = chunk;
        } else {
            self.carry.extend_from_slice(&self.ready.split_off(0));
            self.carry.extend_from_slice(&chunk);
        }
        Events { splitter: self }
    }

    /// The stream has ended. An upstream that leaves out the last line ends has its last event taken, unless it was cut.
    pub fn finish(&mut self) -> Option<Event> {
        let rest = self.rest();
        let event = self.normalise(&rest)?;
        let whole = event.data() == b"[DONE]" || serde_json::from_slice::<serde::de::IgnoredAny>(event.data()).is_ok();
        whole.then_some(event)
    }

    /// Everything that was taken and not given yet.
    fn rest(&mut self) -> Bytes {
        self.scan = Scan::default();
        if self.carry.is_empty() { self.ready.split_off(0) } else { self.carry.split().freeze() }
    }

    fn next_event(&mut self) -> Option<Result<Event, EventTooLong>> {
        loop {
            let held: &[u8] = if self.carry.is_empty() { &self.ready } else { &self.carry };
            if !self.started {
                if held.len() < BOM.len() && BOM.starts_with(held) {
                    return self.keep();
                }
                self.started = true;
                if held.starts_with(BOM) {
                    self.ready = self.rest().split_off(BOM.len());
                    continue;
                }
            }
            let Some(end) = self.scan.end(held) else { return self.keep() };
            if end > self.longest() {
                return Some(Err(EventTooLong(self.longest())));
            }
            self.ready = self.rest();
            let block = self.ready.split_to(end);
            if let Some(event) = self.normalise(&block) {
                return Some(Ok(event));
            }
        }
    }

    /// A block of lines as one event; `None` when it carries no data.
    fn normalise(&self, block: &Bytes) -> Option<Event> {
        let event = as_it_is(block).or_else(|| rewritten(block))?;
        Some(if self.by_type { event.named_by_type() } else { event })
    }

    /// Keeps the start of an event until more comes, in a buffer of its own so that the chunk is not held for it.
    fn keep(&mut self) -> Option<Result<Event, EventTooLong>> {
        let ready = self.ready.split_off(0);
        self.carry.extend_from_slice(&ready);
        (self.carry.len() > self.longest()).then_some(Err(EventTooLong(self.longest())))
    }
}

/// The events that the bytes so far complete.
pub struct Events<'a> {
    splitter: &'a mut Splitter,
}

impl Iterator for Events<'_> {
    type Item = Result<Event, EventTooLong>;

    fn next(&mut self) -> Option<Self::Item> {
        self.splitter.next_event()
    }
}

/// The fast path: the block is already written as we would write it.
fn as_it_is(block: &Bytes) -> Option<Event> {
    let mut name = 0..0;
    if block.starts_with(b"event: ") {
        name = 7..7 + memchr::memchr(b'\n', &block[7..])?;
    }
    let start = if name.is_empty() { 0 } else { name.end + 1 };
    let data = start + 6..start + 6 + block[start..].strip_prefix(b"data: ")?.len().checked_sub(2)?;
    let plain = block.ends_with(b"\n\n") && memchr::memchr2(b'\n', b'\r', &block[data.clone()]).is_none();
    let clean = memchr::memchr(b'\r', &block[name.clone()]).is_none();
    (plain && clean).then(|| Event { bytes: block.clone(), data, name })
}

/// The slow path: reads the fields line by line. Lines of data are joined by a space: inside JSON they can only break
/// between two tokens.
fn rewritten(block: &[u8]) -> Option<Event> {
    let (mut name, mut data): (&[u8], Option<Vec<u8>>) = (b"", None);
    for line in block.split(|byte| matches!(byte, b'\n' | b'\r')) {
        let (field, value) = match memchr::memchr(b':', line) {
            Some(colon) => (&line[..colon], &line[colon + 1..]),
            None => (line, &line[line.len()..]),
        };
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match (field, &mut data) {
            (b"event", _) => name = value,
            (b"data", None) => data = Some(value.to_vec()),
            (b"data", Some(data)) => {
                data.push(b' ');
                data.extend_from_slice(value);
            }
            _ => {}
        }
    }
    Some(Event::written(name, &data?))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn split(chunks: impl IntoIterator<Item = Bytes>) -> Vec<Event> {
        let mut splitter = Splitter::new();
        let mut events = Vec::new();
        for chunk in chunks {
            events.extend(splitter.push(chunk).map(Result::unwrap));
        }
        events.extend(splitter.finish());
        events
    }

    fn text(events: &[Event]) -> String {
        events.iter().map(|event| String::from_utf8_lossy(&event.bytes).into_owned()).collect()
    }

    const NORMAL: &str = "event: message_start\ndata: {\"a\":\"é中\"}\n\ndata: {}\n\ndata: [DONE]\n\n";

    #[test]
    fn every_way_of_writing_events_comes_out_the_same() {
        for written in [
            NORMAL.to_owned(),
            NORMAL.replace('\n', "\r\n"),
            NORMAL.replace('\n', "\r"),
            NORMAL.replace(": ", ":"),
            format!("\u{feff}{NORMAL}"),
            NORMAL.trim_end().to_owned(),
            format!(": hello\n\n{}", NORMAL.replace("\n\n", "\n\n: keep-alive\n\nid: 1\nretry: 5\n\n\n")),
        ] {
            for at in 0..written.len() {
                let (head, tail) = written.as_bytes().split_at(at);
                let events = split([Bytes::copy_from_slice(head), Bytes::copy_from_slice(tail)]);
                assert_eq!(text(&events), NORMAL, "cut at {at} of {written:?}");
            }
        }
    }

    #[test]
    fn the_fast_path_hands_out_the_upstreams_own_bytes() {
        let chunk = Bytes::from_static(NORMAL.as_bytes());
        let events = split([chunk.clone()]);
        assert!(chunk.as_ptr_range().contains(&events[1].bytes.as_ptr()), "not copied");
        assert_eq!((events[0].name(), events[0].data()), (&b"message_start"[..], "{\"a\":\"é中\"}".as_bytes()));
        assert_eq!((events[2].name(), events[2].data()), (&b""[..], &b"[DONE]"[..]));
    }

    #[test]
    fn an_event_that_was_cut_is_not_passed_on_as_a_whole_one() {
        assert_eq!(text(&split([Bytes::from_static(b"data: {\"a\":1}\n\ndata: {\"b\":")])), "data: {\"a\":1}\n\n");
    }

    #[test]
    fn several_data_lines_are_one_event() {
        assert_eq!(text(&split([Bytes::from_static(b"data: {\"a\":\ndata: 1}\n\n")])), "data: {\"a\": 1}\n\n");
    }

    #[test]
    fn an_event_gets_the_name_that_its_data_say_where_events_are_named_so() {
        let named = |written: &str, by_type: bool| {
            let mut splitter = if by_type { Splitter::named_by_type() } else { Splitter::new() };
            let mut events: Vec<_> = splitter.push(Bytes::copy_from_slice(written.as_bytes())).map(Result::unwrap).collect();
            events.extend(splitter.finish());
            for event in &events {
                assert_eq!(event.bytes.starts_with(b"event: "), !event.name().is_empty());
            }
            text(&events)
        };
        for (written, normal) in [
            ("data: {\"type\":\"a.b\"}\n\n", "event: a.b\ndata: {\"type\":\"a.b\"}\n\n"),
            ("data:{\"n\": 1, \"type\" : \"a.b\"}", "event: a.b\ndata: {\"n\": 1, \"type\" : \"a.b\"}\n\n"),
            ("event: message\ndata: {\"type\":\"a.b\"}\n\n", "event: a.b\ndata: {\"type\":\"a.b\"}\n\n"),
            ("event: a\ndata: {\"type\":\"a.b\"}\n\n", "event: a.b\ndata: {\"type\":\"a.b\"}\n\n"),
            ("event: a.b\ndata: {\"type\":\"a.b\"}\n\n", "event: a.b\ndata: {\"type\":\"a.b\"}\n\n"),
            ("data: {\"type\":\"a\\nb\"}\n\n", "data: {\"type\":\"a\\nb\"}\n\n"),
            ("data: {\"type\":\"\"}\n\n", "data: {\"type\":\"\"}\n\n"),
            ("data: {\"type\":7}\n\n", "data: {\"type\":7}\n\n"),
            ("data: [DONE]\n\n", "data: [DONE]\n\n"),
            ("event: error\ndata: no\n\n", "event: error\ndata: no\n\n"),
        ] {
            assert_eq!(named(written, true), normal);
            assert_eq!(
                named(&normal.replace("event: a.b\n", ""), false),
                normal.replace("event: a.b\n", ""),
                "elsewhere as it came"
            );
        }
    }

    #[test]
    fn an_endless_event_is_an_error_before_it_is_a_memory_leak() {
        let mut splitter = Splitter::new();
        let chunk = Bytes::from(vec![b'x'; 64 * 1024]);
        let failed = (0..17).find(|_| splitter.push(chunk.clone()).any(|event| event.is_err()));
        assert_eq!(failed, Some(16));
    }

    #[test]
    fn the_last_event_of_a_response_may_repeat_a_long_answer_and_not_go_on_for_ever() {
        let mut splitter = Splitter::named_by_type();
        let text = "x".repeat(8 << 20);
        let written = format!("data: {{\"type\":\"a\",\"text\":\"{text}\"}}\n\n");
        let events: Vec<_> = written
            .as_bytes()
            .chunks(65_536)
            .flat_map(|part| splitter.push(Bytes::copy_from_slice(part)).collect::<Vec<_>>())
            .collect();
        assert!(events.len() == 1 && events[0].as_ref().is_ok_and(|event| event.data().len() > 8 << 20));
        let chunk = Bytes::from(vec![b'x'; 1 << 20]);
        let failed = (0..40).find(|_| splitter.push(chunk.clone()).any(|event| event.is_err()));
        assert_eq!(failed, Some(32));
    }

    proptest! {
        #[test]
        fn chunking_changes_nothing(stream in "(data: ?[a-c]{0,3}|event: x|: c|\r\n|\n|\r|\u{feff}){0,12}", size in 1usize..9) {
            let whole = split([Bytes::from(stream.clone().into_bytes())]);
            let parts = split(stream.as_bytes().chunks(size).map(Bytes::copy_from_slice));
            prop_assert_eq!(text(&whole), text(&parts));
            for event in &parts {
                prop_assert!(event.bytes.ends_with(b"\n\n") && !event.data().contains(&b'\r'));
            }
        }

        #[test]
        fn no_bytes_make_it_panic(chunks in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..20), 0..8)) {
            let _ = split(chunks.into_iter().map(Bytes::from));
        }
    }
}
