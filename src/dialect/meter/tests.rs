//! What is charged for answers as upstreams really send them, whole, cut and hostile.

mod responses;

use bytes::Bytes;
use proptest::prelude::*;

use super::*;
use crate::dialect::Splitter;
use crate::error::Code;
use crate::money::{Micros, UnitPrice};
use crate::tariff::{Tariff, TokenPrices, Usage};

const CHAT: &str = concat!(
    r#"data: {"id":"c","choices":[{"index":0,"delta":{"role":"assistant","content":""},"finish_reason":null}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[{"index":0,"delta":{"content":"Hello é"},"finish_reason":null}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[{"index":0,"delta":{"content":" \"usage\" \"error\""},"finish_reason":null}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[{"index":0,"delta":{},"finish_reason":"stop"}],"usage":null}"#,
    "\n\n",
    r#"data: {"id":"c","choices":[],"usage":{"prompt_tokens":30,"completion_tokens":4,"prompt_tokens_details":{"cached_tokens":20}}}"#,
    "\n\n",
    "data: [DONE]\n\n",
);

const MESSAGES: &str = concat!(
    "event: message_start\n",
    r#"data: {"type":"message_start","message":{"id":"m","usage":{"input_tokens":11,"cache_read_input_tokens":5,"cache_creation_input_tokens":9,"cache_creation":{"ephemeral_5m_input_tokens":2,"ephemeral_1h_input_tokens":7},"output_tokens":1}}}"#,
    "\n\nevent: content_block_start\n",
    r#"data: {"type":"content_block_start","index":0,"content_block":{"type":"text","text":""}}"#,
    "\n\nevent: ping\ndata: {\"type\": \"ping\"}\n\nevent: content_block_delta\n",
    r#"data: {"type":"content_block_delta","index":0,"delta":{"type":"text_delta","text":"Hello there, you"}}"#,
    "\n\nevent: content_block_stop\n",
    r#"data: {"type":"content_block_stop","index":0}"#,
    "\n\nevent: message_delta\n",
    r#"data: {"type":"message_delta","delta":{"stop_reason":"end_turn"},"usage":{"input_tokens":0,"output_tokens":6}}"#,
    "\n\nevent: message_stop\ndata: {\"type\":\"message_stop\"}\n\n",
);

struct Run {
    passed: String,
    meter: Meter,
    errors: usize,
}

fn run(dialect: Dialect, wants_usage: bool, chunks: impl IntoIterator<Item = Bytes>) -> Run {
    let mut splitter = Splitter::of(dialect);
    let mut run = Run { passed: String::new(), meter: Meter::new(dialect, true, wants_usage, 100), errors: 0 };
    for chunk in chunks {
        for event in splitter.push(chunk) {
            let event = event.unwrap();
            match run.meter.event(&event) {
                Pass::Forward | Pass::Done => run.passed += std::str::from_utf8(&event.bytes).unwrap(),
                Pass::Drop => {}
                Pass::Error(_) => run.errors += 1,
            }
        }
    }
    run
}

fn whole(dialect: Dialect, wants_usage: bool, stream: &str) -> Run {
    run(dialect, wants_usage, [Bytes::copy_from_slice(stream.as_bytes())])
}

fn chat_usage() -> Metered {
    Metered { usage: Usage { input: 10, output: 4, cache_read: 20, ..Usage::default() }, estimated: false }
}

fn messages_usage() -> Metered {
    let usage = Usage { input: 11, output: 6, cache_read: 5, cache_write_5m: 2, cache_write_1h: 7, units: 0 };
    Metered { usage, estimated: false }
}

#[test]
fn at_every_cut_the_caller_gets_the_same_bytes_and_the_same_bill() {
    for (dialect, stream, usage) in [(Dialect::Chat, CHAT, chat_usage()), (Dialect::Messages, MESSAGES, messages_usage())] {
        for at in 0..=stream.len() {
            let (head, tail) = stream.as_bytes().split_at(at);
            let run = run(dialect, true, [Bytes::copy_from_slice(head), Bytes::copy_from_slice(tail)]);
            assert_eq!(run.passed, stream, "cut at {at}");
            assert_eq!(run.meter.usage(), usage, "cut at {at}");
            assert!(run.meter.complete() && run.meter.has_output());
        }
    }
}

#[test]
fn the_usage_chunk_reaches_only_a_caller_who_asked_for_it() {
    let asked = whole(Dialect::Chat, true, CHAT);
    let not_asked = whole(Dialect::Chat, false, CHAT);
    assert!(asked.passed.contains("prompt_tokens"));
    assert!(!not_asked.passed.contains("prompt_tokens") && not_asked.passed.ends_with("data: [DONE]\n\n"));
    assert_eq!(asked.meter.usage(), not_asked.meter.usage(), "and changes nothing in the bill");
}

#[test]
fn usage_is_found_wherever_clones_put_it() {
    let usage = r#"{"prompt_tokens":7,"completion_tokens":3}"#;
    let finish = r#"{"choices":[{"delta":{},"finish_reason":"stop"}]"#;
    for event in [
        format!("data: {finish},\"usage\":{usage}}}\n\n"),
        format!("data: {finish},\"x_groq\":{{\"id\":\"g\",\"usage\":{usage}}}}}\n\n"),
        format!(
            "data: {{\"choices\":[],\"usage\":{{\"prompt_tokens\":7,\"completion_tokens\":1}}}}\n\ndata: {finish},\"usage\":{usage}}}\n\n"
        ),
        format!("data: {finish},\"usage\":{usage}}}\n\ndata: {finish},\"usage\":null}}\n\n"),
    ] {
        let run = whole(Dialect::Chat, false, &format!("{event}data: [DONE]\n\n"));
        let expected = Metered { usage: Usage { input: 7, output: 3, ..Usage::default() }, estimated: false };
        assert_eq!(run.meter.usage(), expected, "{event}");
        assert!(run.passed.contains("finish_reason"), "a chunk with choices always passes");
    }
}

#[test]
fn a_cut_stream_is_not_complete_and_costs_what_passed() {
    let cut = whole(Dialect::Chat, false, CHAT.split_once("data: {\"id\":\"c\",\"choices\":[],").unwrap().0);
    // 8 + 16 bytes of text.
    let expected = Usage { input: 100, output: 6, ..Usage::default() };
    assert!(!cut.meter.complete());
    assert_eq!(cut.meter.usage(), Metered { usage: expected, estimated: true });

    let cut = whole(Dialect::Messages, false, MESSAGES.split_once("event: content_block_stop").unwrap().0);
    assert!(!cut.meter.complete());
    let expected = Usage { output: 4, ..messages_usage().usage };
    assert_eq!(cut.meter.usage(), Metered { usage: expected, estimated: true }, "input is exact, output is counted");
}

#[test]
fn everything_a_model_writes_is_counted_and_nothing_else() {
    let count = |delta: &str| {
        let stream = format!("data: {{\"choices\":[{{\"index\":0,\"delta\":{delta}}}]}}\n\n");
        whole(Dialect::Chat, false, &stream).meter.text_bytes
    };
    assert_eq!(count(r#"{"content":"1234"}"#), 4);
    assert_eq!(count(r#"{"content":[{"type":"text","text":"1234"}]}"#), 8, "an unknown shape counts as a whole");
    assert_eq!(count(r#"{"reasoning_content":"1234","reasoning":"1234"}"#), 4, "the same reasoning under two names");
    assert_eq!(count(r#"{"refusal":"1234","content":null}"#), 4);
    assert_eq!(count(r#"{"tool_calls":[{"index":0,"id":"x","type":"function","function":{"name":"ab","arguments":"cd"}}]}"#), 4);
    assert_eq!(count(r#"{"role":"assistant","content":""}"#), 0);

    let block = |event: &str| whole(Dialect::Messages, false, &format!("data: {event}\n\n")).meter.text_bytes;
    assert_eq!(block(r#"{"type":"content_block_start","content_block":{"type":"tool_use","id":"x","name":"ab","input":{}}}"#), 2);
    assert_eq!(block(r#"{"type":"content_block_delta","delta":{"type":"input_json_delta","partial_json":"{\"a\":1}"}}"#), 7);
    assert_eq!(block(r#"{"type":"content_block_delta","delta":{"type":"thinking_delta","thinking":"ab"}}"#), 2);
    assert_eq!(block(r#"{"type":"content_block_delta","delta":{"type":"signature_delta","signature":"ab"}}"#), 0);
    assert_eq!(block(r#"{"type":"ping"}"#), 0);
}

#[test]
fn an_error_in_the_stream_is_replaced_by_our_own_words() {
    for (dialect, event, code) in [
        (Dialect::Chat, r#"{"error":{"message":"key sk-secret","type":"server_error"}}"#, Code::UpstreamError),
        (Dialect::Chat, r#"{"id":"c","choices":[{"delta":{}}],"error":{"code":502,"message":"sk-secret"}}"#, Code::UpstreamError),
        (Dialect::Chat, r#"{"error":"sk-secret"}"#, Code::UpstreamError),
        (
            Dialect::Messages,
            r#"{"type":"error","error":{"type":"overloaded_error","message":"sk-secret"}}"#,
            Code::UpstreamOverloaded,
        ),
        (Dialect::Chat, r#"{"object":"error","message":"sk-secret","code":400}"#, Code::UpstreamError),
        (Dialect::Chat, "{}\nevent: error", Code::UpstreamError),
        (Dialect::Messages, "sk-secret\nevent: error", Code::UpstreamError),
        (Dialect::Messages, r#"{"type":"error"}"#, Code::UpstreamError),
    ] {
        let event = Splitter::new().push(Bytes::from(format!("data: {event}\n\n"))).next().unwrap().unwrap();
        let mut meter = Meter::new(dialect, true, false, 100);
        let Pass::Error(error) = meter.event(&event) else { panic!("not seen as an error") };
        assert_eq!(error.code, code);
        assert!(!format!("{error:?}").contains("secret"), "not even in the log");
        assert!(!meter.complete());
    }
}

#[test]
fn an_error_in_the_stream_that_is_none_ends_no_answer() {
    for none in ["null", "{}", "\"\"", "false", "[]", "0"] {
        for (dialect, event) in [
            (Dialect::Chat, format!(r#"{{"choices":[{{"delta":{{"content":"x"}},"error":{none}}}]}}"#)),
            (Dialect::Chat, format!(r#"{{"choices":[{{"delta":{{"content":"x"}}}}],"error":{none}}}"#)),
            (Dialect::Messages, format!(r#"{{"type":"content_block_delta","delta":{{"text":"x"}},"error":{none}}}"#)),
            (Dialect::Responses, format!(r#"{{"type":"response.output_text.delta","delta":"x","error":{none}}}"#)),
        ] {
            let split = Splitter::new().push(Bytes::from(format!("data: {event}\n\n"))).next().unwrap().unwrap();
            let mut meter = Meter::new(dialect, true, false, 100);
            assert!(matches!(meter.event(&split), Pass::Forward), "{event}");
            assert_eq!(meter.answer_bytes(), 1, "{event}");
        }
    }
}

#[test]
fn a_caller_who_asked_for_usage_gets_it_even_from_us() {
    let silent = CHAT.replace("\"usage\":{\"prompt", "\"_\":{\"prompt");
    let owed = whole(Dialect::Chat, true, &silent).meter.owed_usage().unwrap();
    let event = Splitter::new().push(owed).next().unwrap().unwrap();
    let chunk: serde_json::Value = serde_json::from_slice(event.data()).unwrap();
    assert_eq!((&chunk["usage"]["prompt_tokens"], &chunk["usage"]["completion_tokens"]), (&100.into(), &6.into()));
    assert!(whole(Dialect::Chat, true, CHAT).meter.owed_usage().is_none(), "not twice");
    assert!(whole(Dialect::Chat, false, &silent).meter.owed_usage().is_none(), "not unasked");
    assert!(whole(Dialect::Messages, true, MESSAGES).meter.owed_usage().is_none());
}

#[test]
fn nothing_passes_after_the_end() {
    let run = whole(Dialect::Chat, true, &format!("{CHAT}{CHAT}"));
    assert_eq!(run.passed, CHAT);
    assert_eq!(run.meter.usage(), chat_usage());
}

#[test]
fn what_no_client_can_parse_is_left_out_and_what_we_cannot_is_charged() {
    let run = whole(Dialect::Chat, true, "data: hello\n\ndata: {\"choices\":7}\n\n");
    assert_eq!(run.passed, "data: {\"choices\":7}\n\n");
    assert!(run.meter.has_output() && run.errors == 0);
}

#[test]
fn hostile_usage_in_a_stream_falls_back_to_the_estimate() {
    for number in ["-5", "9223372036854775808.0", "\"1\"", "[]", "-9223372036854775808", "1e999"] {
        let stream = CHAT.replace("\"completion_tokens\":4", &format!("\"completion_tokens\":{number}"));
        let metered = whole(Dialect::Chat, false, &stream).meter.usage();
        let expected = Usage { input: 100, output: 6, ..Usage::default() };
        assert_eq!(metered, Metered { usage: expected, estimated: true }, "{number}");
    }
}

#[test]
fn an_unstreamed_answer_is_metered_in_passing() {
    let body = r#"{"choices":[{"message":{"role":"assistant","content":"12345678"}}],"usage":{"prompt_tokens":9,"completion_tokens":2}}"#;
    for size in [1, 7, body.len()] {
        let mut meter = Meter::new(Dialect::Chat, false, false, 100);
        body.as_bytes().chunks(size).for_each(|chunk| {
            assert!(!meter.complete());
            meter.chunk(chunk);
        });
        let expected = Metered { usage: Usage { input: 9, output: 2, ..Usage::default() }, estimated: false };
        assert!(meter.complete() && meter.has_output());
        assert_eq!(meter.usage(), expected);
    }
    let mut meter = Meter::new(Dialect::Chat, false, false, 100);
    meter.chunk(body.split_once(",\"usage\"").unwrap().0.as_bytes());
    let expected = Metered { usage: Usage { input: 100, output: 2, ..Usage::default() }, estimated: true };
    assert!(!meter.complete());
    assert_eq!(meter.usage(), expected, "a cut body costs the estimate");
}

proptest! {
    #[test]
    fn no_event_makes_it_panic_or_forget(events in prop::collection::vec(r#"[\[\]{}:,"a-z0-9 -]{0,40}"#, 0..6)) {
        for dialect in Dialect::ALL {
            let junk: String = events.iter().map(|event| format!("data: {event}\n\n")).collect();
            let (stream, usage) = match dialect {
                Dialect::Chat => (CHAT, chat_usage()),
                Dialect::Messages => (MESSAGES, messages_usage()),
                Dialect::Responses => (responses::STREAM, responses::usage()),
            };
            let run = whole(dialect, true, &format!("{junk}{stream}"));
            prop_assert_eq!(run.meter.usage(), usage);
        }
    }
}

/// An event of a stream that is made of anything an upstream may send, good or bad.
fn any_event() -> impl Strategy<Value = String> {
    let number = prop_oneof![
        any::<i64>().prop_map(|number| number.to_string()),
        any::<u64>().prop_map(|number| number.to_string()),
        prop::sample::select(vec!["1e400", "1.5", "\"7\"", "null", "[]", "{}", "18446744073709551616", "-0"])
            .prop_map(str::to_owned),
    ];
    let counts = ["prompt_tokens", "completion_tokens", "input_tokens", "output_tokens", "cache_read_input_tokens"];
    let count = (prop::sample::select(counts.to_vec()), number).prop_map(|(name, number)| format!("\"{name}\":{number}"));
    let usage = prop::collection::vec(count, 0..5).prop_map(|counts| format!("{{{}}}", counts.join(",")));
    let text = "[a-z é]{0,30}";
    prop_oneof![
        text.prop_map(|text| format!(r#"{{"choices":[{{"delta":{{"content":"{text}"}}}}]}}"#)),
        text.prop_map(|text| format!(r#"{{"type":"response.output_text.delta","delta":"{text}"}}"#)),
        text.prop_map(|text| format!(
            r#"{{"type":"response.output_item.done","item":{{"name":"{text}","arguments":"{text}"}}}}"#
        )),
        usage.clone().prop_map(|usage| format!(r#"{{"type":"response.failed","response":{{"usage":{usage}}}}}"#)),
        usage.clone().prop_map(|usage| format!(r#"{{"type":"response.completed","response":{{"usage":{usage}}}}}"#)),
        text.prop_map(|text| format!(r#"{{"type":"content_block_delta","delta":{{"type":"text_delta","text":"{text}"}}}}"#)),
        usage.clone().prop_map(|usage| format!(r#"{{"choices":[],"usage":{usage}}}"#)),
        usage.clone().prop_map(|usage| format!(r#"{{"type":"message_start","message":{{"usage":{usage}}}}}"#)),
        usage.prop_map(|usage| format!(r#"{{"type":"message_delta","usage":{usage}}}"#)),
        prop::sample::select(vec!["[DONE]", r#"{"type":"message_stop"}"#, r#"{"error":{"message":"no"}}"#, "junk", "{}"])
            .prop_map(str::to_owned),
    ]
}

proptest! {
    #[test]
    fn no_stream_of_events_costs_more_than_its_quote_at_any_moment(
        events in prop::collection::vec(any_event(), 0..20), quote in 0u64..1 << 40, estimate in 0u64..1 << 32,
    ) {
        let price = |text| UnitPrice::per_million(text).unwrap();
        let tariff = Tariff {
            tokens: TokenPrices {
                input: price("3.00"),
                output: price("15.00"),
                cache_read: price("9999.99"),
                ..TokenPrices::default()
            },
            ..Tariff::default()
        };
        for dialect in Dialect::ALL {
            let mut meter = Meter::new(dialect, true, true, estimate);
            let mut splitter = Splitter::new();
            for event in &events {
                for event in splitter.push(format!("data: {event}\n\n").into()) {
                    meter.event(&event.unwrap());
                }
                let charge = tariff.charge(&meter.usage().usage, Micros::new(quote));
                prop_assert!(charge <= Micros::new(quote));
            }
        }
    }
}
