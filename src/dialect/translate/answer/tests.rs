//! Translated answers as their callers see them: nothing lost, doubled or moved, whatever the upstream's manners.

mod ends;
mod model;
mod quirks;
mod seen;

use proptest::prelude::*;
use serde_json::{Value, json};

use super::super::super::{Dialect, Meter, Pass, Splitter};
use super::super::{Answer, Asked, Wishes};
use crate::clock::Timestamp;
use crate::ids::RequestId;
use model::{Say, anything, expected};
use seen::Seen;

const PAIRS: [(Dialect, Dialect); 4] = [
    (Dialect::Messages, Dialect::Chat),
    (Dialect::Chat, Dialect::Messages),
    (Dialect::Chat, Dialect::Responses),
    (Dialect::Messages, Dialect::Responses),
];

fn asked() -> Asked {
    let wishes = Wishes { thinking: true, sealed_reasoning: true, ..Wishes::default() };
    let (created, id) = (Timestamp::from_secs(1_790_000_000), RequestId(7));
    Asked { model: "alias".into(), wants_usage: true, input_estimate: 41, created, id, wishes }
}

/// What the caller gets, with the upstream's bytes in pieces of `size`, metered on their way as a sale does it.
fn written(upstream: Dialect, caller: Dialect, asked: Asked, stream: &str, size: usize) -> String {
    let mut splitter = Splitter::new();
    let mut meter = Meter::new(upstream, true, true, asked.input_estimate);
    let mut answer = Answer::new(upstream, caller, asked).unwrap();
    let mut out = Vec::new();
    for bytes in stream.as_bytes().chunks(size) {
        for event in splitter.push(bytes.to_vec().into()).map(Result::unwrap) {
            match meter.event(&event) {
                Pass::Drop => continue,
                Pass::Error(error) => panic!("{error:?}"),
                Pass::Forward => out.extend(answer.event(&event)),
                Pass::Done => {
                    out.extend(answer.event(&event));
                    out.extend(answer.end().expect("the upstream has said why it stopped"));
                }
            }
        }
    }
    assert!(answer.end().is_ok_and(|more| more.is_empty()), "an answer ends once, and this one has");
    String::from_utf8(out).unwrap()
}

fn streamed(upstream: Dialect, caller: Dialect, stream: &str) -> Seen {
    seen::streamed(caller, &written(upstream, caller, asked(), stream, usize::MAX))
}

fn plain(upstream: Dialect, caller: Dialect, body: &Value) -> Seen {
    let answer = Answer::plain(upstream, caller, body.to_string().as_bytes(), &asked()).unwrap();
    seen::whole(caller, std::str::from_utf8(&answer).unwrap())
}

/// 100 tokens read, of which 60 came from the cache and 10 went to it; 9 written, of which 4 were thought.
fn usage(dialect: Dialect) -> Value {
    match dialect {
        Dialect::Chat => json!({ "prompt_tokens": 100, "completion_tokens": 9, "total_tokens": 109,
            "prompt_tokens_details": { "cached_tokens": 60, "cache_write_tokens": 10 },
            "completion_tokens_details": { "reasoning_tokens": 4 } }),
        Dialect::Messages => json!({ "input_tokens": 30, "cache_creation_input_tokens": 10, "cache_read_input_tokens": 60,
            "output_tokens": 9, "output_tokens_details": { "thinking_tokens": 4 } }),
        Dialect::Responses => json!({ "input_tokens": 100, "output_tokens": 9, "total_tokens": 109,
            "input_tokens_details": { "cached_tokens": 60, "cache_write_tokens": 10 },
            "output_tokens_details": { "reasoning_tokens": 4 } }),
    }
}

fn stream_of(upstream: Dialect, parts: &[Say], size: usize, mixed: bool) -> String {
    match upstream {
        Dialect::Messages => model::messages_stream(parts, size, "end_turn", &usage(upstream)),
        _ => model::chat_stream(parts, size, mixed, "stop", &usage(upstream)),
    }
}

fn body_of(upstream: Dialect, parts: &[Say]) -> Value {
    match upstream {
        Dialect::Messages => model::messages_plain(parts, "end_turn", &usage(upstream)),
        _ => model::chat_plain(parts, "stop", &usage(upstream)),
    }
}

fn sample() -> Vec<Say> {
    let call = |name: &str, arguments: &str| Say::Call(name.into(), arguments.into());
    vec![
        Say::Thinking("let me \"see\"".into()),
        Say::Text("I look: é中🦀\n\n".into()),
        call("weather", r#"{"city":"Llanfair","days":3}"#),
        call("time", "{}"),
        call("weather", r#"{"city":"Łódź \\ \"quoted\""}"#),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn no_word_and_no_call_is_lost_doubled_or_moved(parts in anything(), size in 1usize..9, cut in 1usize..99, mixed: bool) {
        for (upstream, caller) in PAIRS {
            let stream = stream_of(upstream, &parts, size, mixed);
            let seen = seen::streamed(caller, &written(upstream, caller, asked(), &stream, cut));
            prop_assert_eq!(&seen.parts, &expected(&parts), "{:?} from {:?}", caller, upstream);
            prop_assert_eq!(&seen.usage, &usage(caller));
        }
    }

    #[test]
    fn a_plain_answer_says_what_the_streamed_one_says(parts in anything()) {
        for (upstream, caller) in PAIRS {
            let whole = plain(upstream, caller, &body_of(upstream, &parts));
            let streamed = streamed(upstream, caller, &stream_of(upstream, &parts, 5, false));
            // The dialect of chat has one text, one thinking and then the calls, whatever their order was.
            if upstream == Dialect::Messages && caller == Dialect::Responses {
                prop_assert_eq!(&whole, &streamed);
            }
            let calls = |seen: &Seen| seen.calls().into_iter().cloned().collect::<Vec<_>>();
            prop_assert_eq!(calls(&whole), calls(&streamed));
            for kind in ["text", "thinking", "refusal"] {
                prop_assert_eq!(whole.said(kind), streamed.said(kind));
            }
            prop_assert_eq!((&whole.stop, &whole.usage), (&streamed.stop, &streamed.usage));
        }
    }

    #[test]
    fn no_json_makes_it_panic(text in "[\\[\\]{}:,\"a0]{0,30}", name in "(delta|choices|content|tool_calls|message|usage|index)") {
        for (upstream, caller) in PAIRS {
            for json in [text.clone(), format!("{{\"{name}\":{text}}}"), format!("{{\"choices\":[{{\"delta\":{{\"{name}\":[{text}]}}}}]}}")] {
                let mut answer = Answer::new(upstream, caller, asked()).unwrap();
                let mut splitter = Splitter::new();
                for event in splitter.push(format!("data: {json}\n\n").into()).map(Result::unwrap) {
                    answer.event(&event);
                }
                seen::events(std::str::from_utf8(&answer.end().unwrap_or_default()).unwrap());
                let _ = Answer::plain(upstream, caller, json.as_bytes(), &asked());
            }
        }
    }
}

#[test]
fn it_is_the_same_answer_wherever_the_bytes_are_cut() {
    for (upstream, caller) in PAIRS {
        let stream = stream_of(upstream, &sample(), 16, false);
        let whole = written(upstream, caller, asked(), &stream, usize::MAX);
        assert_eq!(seen::streamed(caller, &whole).parts, expected(&sample()));
        for size in [1, 2, 3, 5, 7, 64] {
            assert_eq!(written(upstream, caller, asked(), &stream, size), whole, "{caller:?} from {upstream:?}, cut by {size}");
        }
        for at in 0..stream.len() {
            let mut splitter = Splitter::new();
            let mut answer = Answer::new(upstream, caller, asked()).unwrap();
            let mut out = Vec::new();
            for half in [&stream.as_bytes()[..at], &stream.as_bytes()[at..]] {
                let events = splitter.push(half.to_vec().into()).map(Result::unwrap);
                events.for_each(|event| out.extend(answer.event(&event)));
            }
            out.extend(answer.end().unwrap());
            assert!(out == whole.as_bytes(), "{caller:?} from {upstream:?}, cut at {at}");
        }
    }
}

#[test]
fn every_event_leaves_as_soon_as_it_came() {
    for (upstream, caller) in PAIRS {
        let mut splitter = Splitter::new();
        let mut answer = Answer::new(upstream, caller, asked()).unwrap();
        let stream = stream_of(upstream, &sample(), 4, false);
        for event in splitter.push(stream.into()).map(Result::unwrap) {
            let brings: Vec<String> = ["Llan", "let ", "I lo"].iter().filter_map(|word| found(event.data(), word)).collect();
            let out = String::from_utf8(answer.event(&event).to_vec()).unwrap();
            brings.iter().for_each(|word| assert!(out.contains(word.as_str()), "{word:?} of {caller:?} from {upstream:?}"));
        }
    }
}

#[test]
fn what_follows_a_call_without_arguments_does_not_wait_for_the_end() {
    let parts = [Say::Call("now".into(), String::new()), Say::Call("here".into(), String::new()), Say::Text("and then".into())];
    for caller in [Dialect::Chat, Dialect::Responses] {
        let mut answer = Answer::new(Dialect::Messages, caller, asked()).unwrap();
        let stream = stream_of(Dialect::Messages, &parts, 99, false);
        let mut out = String::new();
        for event in Splitter::new().push(stream.into()).map(Result::unwrap) {
            out.push_str(std::str::from_utf8(&answer.event(&event)).unwrap());
            let said = found(event.data(), "here").or_else(|| found(event.data(), "and then"));
            assert!(said.is_none_or(|word| out.contains(&word)), "{caller:?} waits: {out}");
        }
    }
}

fn found(data: &[u8], word: &str) -> Option<String> {
    std::str::from_utf8(data).is_ok_and(|data| data.contains(word)).then(|| word.to_owned())
}

#[test]
fn a_broken_stream_has_no_terminator() {
    for (upstream, caller) in PAIRS {
        let mut answer = Answer::new(upstream, caller, asked()).unwrap();
        let mut out = String::new();
        let stream = stream_of(upstream, &sample(), 4, false);
        for event in Splitter::new().push(stream.into()).map(Result::unwrap) {
            out.push_str(std::str::from_utf8(&answer.event(&event)).unwrap());
        }
        for word in ["[DONE]", "message_stop", "message_delta", "response.completed", "finish_reason\":\""] {
            assert!(!out.contains(word), "{word} of {caller:?} from {upstream:?} before the end");
        }
    }
}
