//! What is charged for responses as upstreams really send them: with deltas or without, whole, cut and failed.

use super::*;

pub(super) const STREAM: &str = concat!(
    "event: response.created\n",
    r#"data: {"type":"response.created","sequence_number":0,"response":{"id":"r","status":"in_progress","instructions":"be kind","output":[],"usage":null}}"#,
    "\n\nevent: response.output_item.added\n",
    r#"data: {"type":"response.output_item.added","output_index":0,"item":{"id":"m","type":"message","role":"assistant","content":[]}}"#,
    "\n\nevent: response.output_text.delta\n",
    r#"data: {"type":"response.output_text.delta","item_id":"m","delta":"Hello é","logprobs":[],"obfuscation":"aZ9"}"#,
    "\n\nevent: response.output_text.delta\n",
    r#"data: {"type":"response.output_text.delta","item_id":"m","delta":" \"usage\" \"error\""}"#,
    "\n\nevent: response.output_text.done\n",
    r#"data: {"type":"response.output_text.done","item_id":"m","text":"Hello é \"usage\" \"error\""}"#,
    "\n\nevent: response.output_item.done\n",
    r#"data: {"type":"response.output_item.done","item":{"id":"m","type":"message","role":"assistant","content":[{"type":"output_text","text":"Hello é \"usage\" \"error\"","annotations":[{"title":"no"}]}]}}"#,
    "\n\nevent: response.completed\n",
    r#"data: {"type":"response.completed","response":{"id":"r","status":"completed","output":[{"id":"m","type":"message","content":[{"type":"output_text","text":"Hello é \"usage\" \"error\""}]}],"usage":{"input_tokens":30,"input_tokens_details":{"cached_tokens":12,"cache_write_tokens":8},"output_tokens":4,"output_tokens_details":{"reasoning_tokens":1},"total_tokens":34}}}"#,
    "\n\n",
);

pub(super) fn usage() -> Metered {
    Metered { usage: Usage { input: 10, output: 4, cache_read: 12, cache_write_5m: 8, ..Usage::default() }, estimated: false }
}

fn estimated(output: u64) -> Metered {
    Metered { usage: Usage { input: 100, output, ..Usage::default() }, estimated: true }
}

fn event(body: &str) -> String {
    format!("data: {body}\n\n")
}

fn streamed(stream: &str) -> Run {
    whole(Dialect::Responses, false, stream)
}

#[test]
fn at_every_cut_the_caller_of_a_response_gets_the_same_bytes_and_the_same_bill() {
    for at in 0..=STREAM.len() {
        let (head, tail) = STREAM.as_bytes().split_at(at);
        let run = run(Dialect::Responses, false, [Bytes::copy_from_slice(head), Bytes::copy_from_slice(tail)]);
        assert_eq!(run.passed, STREAM, "cut at {at}");
        assert_eq!(run.meter.usage(), usage(), "cut at {at}");
        assert!(run.meter.complete() && run.meter.has_output());
        assert_eq!(run.meter.answer_bytes(), 8 + 16, "what is said again in later events counts once");
    }
}

#[test]
fn every_terminal_event_brings_the_usage_and_a_failed_one_fails() {
    let ends = STREAM.replace("response.completed", "response.incomplete").replace("\"completed\"", "\"incomplete\"");
    assert_eq!(streamed(&ends).meter.usage(), usage());
    assert!(streamed(&ends).meter.complete());
    let fails = STREAM.replace("response.completed", "response.failed");
    let run = streamed(&fails);
    assert!(run.errors == 1 && !run.meter.complete());
    let expected = Metered { usage: Usage { output: 6, ..usage().usage }, estimated: true };
    assert_eq!(run.meter.usage(), expected, "what was reported, and no less than what passed");
}

#[test]
fn a_stream_ends_with_a_response_and_with_nothing_else() {
    let (begun, _) = STREAM.split_once("event: response.completed").unwrap();
    let run = streamed(&format!("{begun}data: [DONE]\n\n"));
    assert!(!run.meter.complete() && run.passed == begun, "{}", run.passed);
    assert_eq!(run.meter.usage(), estimated(6));
    let run = streamed(&format!("{STREAM}{STREAM}data: [DONE]\n\n"));
    assert_eq!((run.passed.as_str(), run.meter.usage()), (STREAM, usage()));
}

#[test]
fn everything_that_a_model_writes_counts_once_and_nothing_else() {
    let bytes = |events: &[&str]| streamed(&events.iter().map(|it| event(it)).collect::<String>()).meter.answer_bytes();
    for kind in [
        "output_text",
        "refusal",
        "reasoning_text",
        "reasoning_summary_text",
        "function_call_arguments",
        "custom_tool_call_input",
    ] {
        assert_eq!(bytes(&[&format!(r#"{{"type":"response.{kind}.delta","delta":"1234","item_id":"no"}}"#)]), 4, "{kind}");
    }
    let call = r#"{"id":"no","type":"function_call","call_id":"no","status":"completed","name":"ab","arguments":"cd"}"#;
    let begun = format!(r#"{{"type":"response.output_item.added","item":{}}}"#, call.replace("cd", ""));
    let done = format!(r#"{{"type":"response.output_item.done","item":{call}}}"#);
    let delta = r#"{"type":"response.function_call_arguments.delta","delta":"cd"}"#;
    assert_eq!(bytes(&[&begun, delta, &done]), 4);
    assert_eq!(bytes(&[&done]), 4, "of an upstream that sends no deltas");
    assert_eq!(bytes(&[&done, &done]), 8);
    let whole = format!(r#"{{"type":"response.completed","response":{{"output":[{call},{call}]}}}}"#);
    assert_eq!(bytes(&[&whole]), 8, "or nothing but the end");
    assert_eq!(bytes(&[&done, &done, &whole]), 8);
    let thought = r#"{"type":"reasoning","summary":[{"type":"summary_text","text":"1234"}],"encrypted_content":"no"}"#;
    assert_eq!(bytes(&[&format!(r#"{{"type":"response.output_item.done","item":{thought}}}"#)]), 4);
    for silent in [
        r#"{"type":"response.in_progress","response":{"instructions":"no","tools":[{"name":"no"}],"output":[]}}"#,
        r#"{"type":"response.content_part.added","part":{"type":"output_text","text":""}}"#,
        r#"{"type":"response.output_item.done","item":7}"#,
        r#"{"type":"response.output_item.done"}"#,
        r#"{"type":"keepalive"}"#,
    ] {
        assert_eq!(bytes(&[silent]), 0, "{silent}");
    }
}

#[test]
fn an_error_in_a_response_is_replaced_by_our_own_words() {
    for (event, code) in [
        (r#"{"type":"error","code":"server_error","message":"sk-secret","param":null}"#, Code::UpstreamError),
        (r#"{"type":"error","code":"rate_limit_exceeded","message":"sk-secret"}"#, Code::UpstreamUnavailable),
        (r#"{"type":"error","error":{"type":"server_is_overloaded","message":"sk-secret"}}"#, Code::UpstreamOverloaded),
        (r#"{"error":{"message":"sk-secret","code":502}}"#, Code::UpstreamError),
        (
            r#"{"code":7}
event: error"#,
            Code::UpstreamError,
        ),
        ("sk-secret\nevent: error", Code::UpstreamError),
        (r#"{"type":"response.failed"}"#, Code::UpstreamError),
        (r#"{"type":"response.cancelled","response":{"error":null}}"#, Code::UpstreamError),
        (
            r#"{"type":"response.failed","response":{"error":{"code":"slow_down","message":"sk-secret"}}}"#,
            Code::UpstreamOverloaded,
        ),
        (
            r#"{"response":{"error":{"code":"server_error","message":"sk-secret"}}}
event: response.failed"#,
            Code::UpstreamError,
        ),
        (r#"{"type":"response.failed","response":{"error":{"code":"context_length_exceeded"}}}"#, Code::UpstreamRejected),
    ] {
        let event = Splitter::named_by_type().push(Bytes::from(format!("data: {event}\n\n"))).next().unwrap().unwrap();
        let mut meter = Meter::new(Dialect::Responses, true, false, 100);
        let Pass::Error(error) = meter.event(&event) else { panic!("not seen as an error: {event:?}") };
        assert_eq!(error.code, code, "{event:?}");
        assert_eq!(error.reason.is_some(), code == Code::UpstreamRejected);
        assert!(!format!("{error:?}").contains("secret"), "not even in the log");
        assert!(!meter.complete() && !meter.has_output());
    }
}

#[test]
fn a_plain_response_is_metered_by_its_output_and_not_by_what_it_repeats() {
    let body = r#"{"id":"r","object":"response","instructions":"no","text":{"format":{"type":"no"}},"metadata":{"text":"no"},
        "tools":[{"type":"function","parameters":{"properties":{"input":{"text":"no","content":["no"]}}}}],
        "output":[{"type":"reasoning","summary":[{"type":"summary_text","text":"1234"}],"encrypted_content":"no"},
        {"type":"message","content":[{"type":"output_text","text":"5678","annotations":[{"url":"no"}]}]},
        {"type":"function_call","name":"no","arguments":"90"},{"type":"custom_tool_call","input":"ab"}],
        "reasoning":{"text":"no"},"user":"no""#;
    for size in [1, 7, body.len()] {
        let mut meter = Meter::new(Dialect::Responses, false, false, 100);
        body.as_bytes().chunks(size).for_each(|chunk| meter.chunk(chunk));
        assert!(!meter.complete());
        assert_eq!((meter.answer_bytes(), meter.usage()), (12, estimated(3)));
        meter.chunk(br#","usage":{"input_tokens":9,"output_tokens":2}}"#);
        assert!(meter.complete());
        let expected = Metered { usage: Usage { input: 9, output: 2, ..Usage::default() }, estimated: false };
        assert_eq!(meter.usage(), expected);
    }
}
