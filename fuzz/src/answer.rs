//! Answers of upstreams: however their bytes are cut, the same events pass and the same usage is read.

use bytes::Bytes;
use farebox::dialect::{Dialect, Event, MAX_EVENT_BYTES, Meter, Pass, Splitter};

/// A streamed answer. The first byte says how it is cut.
pub fn check_stream(data: &[u8]) {
    let Some((seed, answer)) = data.split_first() else { return };
    if answer.len() > MAX_EVENT_BYTES {
        return;
    }
    for dialect in Dialect::ALL {
        let whole = events(dialect, std::iter::once(answer));
        let cut = events(dialect, pieces(answer, *seed).into_iter());
        assert_eq!(whole, cut, "the events depend on how the bytes are cut");
        let mut meter = Meter::new(dialect, true, seed & 1 == 1, 10);
        let mut used = meter.usage().usage.output;
        for event in &whole {
            let is_done = matches!(meter.event(event), Pass::Done);
            assert!(!is_done || meter.complete(), "an answer that is done is complete");
            let _ = meter.owed_usage();
            used = used.max(meter.usage().usage.output);
        }
        // What passes is normal: it is read again as what it is.
        for event in &whole {
            let again = events(dialect, std::iter::once(&event.bytes[..]));
            assert_eq!(again, std::slice::from_ref(event), "an event that passed is not read as itself");
        }
    }
}

fn events<'a>(dialect: Dialect, pieces: impl Iterator<Item = &'a [u8]>) -> Vec<Event> {
    let mut splitter = Splitter::of(dialect);
    let mut events = Vec::new();
    for piece in pieces {
        events.extend(splitter.push(Bytes::copy_from_slice(piece)).map(|event| event.expect("shorter than the longest event")));
    }
    events.extend(splitter.finish());
    events
}

/// An answer that is one JSON text. The first byte says how it is cut.
pub fn check_unstreamed(data: &[u8]) {
    let Some((seed, answer)) = data.split_first() else { return };
    for dialect in Dialect::ALL {
        let read = |pieces: &[&[u8]]| {
            let mut meter = Meter::new(dialect, false, false, 10);
            pieces.iter().for_each(|piece| meter.chunk(piece));
            (meter.usage(), meter.complete(), meter.has_output())
        };
        let whole = read(&[answer]);
        assert_eq!(whole, read(&pieces(answer, *seed)), "the usage depends on how the bytes are cut");
        let is_object = answer.iter().find(|b| !b.is_ascii_whitespace()).is_some_and(|b| *b == b'{');
        if is_object && serde_json::from_slice::<&serde_json::value::RawValue>(answer).is_ok() {
            assert!(whole.1, "a whole JSON object has an end");
        }
    }
}

/// Cuts `bytes` into pieces of small lengths that follow from `seed`; now and then one is empty.
fn pieces(bytes: &[u8], seed: u8) -> Vec<&[u8]> {
    let mut rest = bytes;
    let mut state = u32::from(seed) | 0x100;
    let mut pieces = Vec::new();
    while !rest.is_empty() {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        let length = match seed {
            0 => 1,
            _ => (state >> 24) as usize % 17,
        };
        let (piece, after) = rest.split_at(length.min(rest.len()));
        pieces.push(piece);
        rest = after;
    }
    pieces
}
