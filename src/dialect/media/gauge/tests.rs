//! What an answer used, whichever way it comes.

use super::*;
use crate::dialect::media::Request;
use crate::dialect::media::request::tests::model;
use crate::dialect::sse::Splitter;
use crate::tariff::{Tariff, TokenPrices};

const PICTURES: &[u8] = br#"{"model":"m","prompt":"a cat","n":3}"#;

fn gauge(task: Task, body: &'static [u8], content_type: &str) -> Gauge {
    let request = Request::read(task, "application/json", body).unwrap();
    Gauge::new(&request, &model(), content_type)
}

#[test]
fn pictures_are_counted_wherever_the_answer_is_split() {
    let answer = br#"{"created":1,"data":[{"b64_json":"ab\"]}"},{"b64_json":"c","x":{"data":[1]}}],"usage":{"input_tokens":9,"output_tokens":40}}"#;
    for at in 0..answer.len() {
        let mut gauge = gauge(Task::ImageGenerations, PICTURES, "application/json");
        gauge.chunk(&answer[..at]);
        assert!(!gauge.complete(), "{at}");
        gauge.chunk(&answer[at..]);
        gauge.ended();
        assert!(gauge.complete());
        let usage = Usage { input: 9, output: 40, units: 2, ..Usage::default() };
        assert_eq!(gauge.usage(), Metered { usage, estimated: false }, "two of three came");
    }
}

#[test]
fn more_pictures_than_were_asked_for_cost_nothing_more() {
    let mut gauge = gauge(Task::ImageGenerate, br#"{"model":"m","prompt":"p","variants":2}"#, "application/json");
    gauge.chunk(br#"{"id":"x","images":["a","b","c"]}"#);
    assert_eq!(gauge.usage().usage.units, 2);
}

#[test]
fn an_answer_without_pictures_has_no_output() {
    let mut gauge = gauge(Task::ImageGenerations, PICTURES, "application/json");
    gauge.chunk(br#"{"data":[],"note":"refused"}"#);
    assert!(gauge.complete() && gauge.answer_bytes() == 0);
    assert_eq!((gauge.usage().usage.units, gauge.usage().estimated), (0, true));
}

#[test]
fn a_file_is_whole_only_when_its_framing_says_so() {
    let mut gauge = gauge(Task::Speech, br#"{"model":"m","input":"hello"}"#, "audio/mpeg");
    gauge.chunk(b"\xff\xfb");
    assert!(!gauge.complete());
    gauge.ended();
    assert!(gauge.complete());
    assert_eq!(gauge.usage().usage.units, 5);
}

#[test]
fn a_stream_of_pictures_ends_with_the_last_of_them() {
    let mut gauge = gauge(Task::ImageGenerations, br#"{"model":"m","prompt":"p","n":2,"stream":true}"#, "text/event-stream");
    let one =
        "event: image_generation.completed\ndata: {\"type\":\"image_generation.completed\",\"usage\":{\"output_tokens\":7}}\n\n";
    let partial = "event: image_generation.partial_image\ndata: {\"type\":\"image_generation.partial_image\"}\n\n";
    let mut splitter = Splitter::new();
    let text = format!("{partial}{one}{one}{partial}");
    let events: Vec<_> = splitter.push(text.into()).map(|event| event.unwrap()).collect();
    let passes: Vec<_> = events.iter().map(|event| gauge.event(event)).collect();
    assert!(matches!(passes[..], [Pass::Forward, Pass::Forward, Pass::Done, Pass::Drop]), "{passes:?}");
    assert_eq!((gauge.usage().usage.units, gauge.usage().usage.output), (2, 7));
}

#[test]
fn a_picture_of_which_a_caller_took_drafts_is_paid_for_and_one_that_broke_off_is_not() {
    let mut gauge = gauge(Task::ImageGenerations, br#"{"model":"m","prompt":"p","n":2,"stream":true}"#, "text/event-stream");
    let text = "data: {\"type\":\"image_generation.partial_image\",\"b64_json\":\"aGk=\"}\n\n";
    let event = Splitter::new().push(text.into()).next().unwrap().unwrap();
    assert!(matches!(gauge.event(&event), Pass::Forward));
    assert_eq!((gauge.usage().usage.units, gauge.has_parts()), (0, false));
    gauge.abandoned();
    gauge.abandoned();
    assert_eq!(gauge.usage().usage.units, 1);
}

#[test]
fn what_the_upstream_does_not_report_is_estimated_where_it_costs_something() {
    let by_tokens = |price: &str| {
        let tokens = TokenPrices { output: UnitPrice::per_million(price).unwrap(), ..TokenPrices::default() };
        Model { tariff: Tariff { tokens, ..Tariff::default() }, ..model() }
    };
    for (price, output) in [("40", 200), ("0", 0)] {
        let request = Request::read(Task::ImageGenerations, "", PICTURES).unwrap();
        let mut gauge = Gauge::new(&request, &by_tokens(price), "application/json");
        gauge.chunk(br#"{"data":[{"b64_json":"a"},{"b64_json":"b"}],"usage":{"prompt_tokens":9,"input_tokens":9}}"#);
        let metered = gauge.usage();
        assert_eq!((metered.usage.input, metered.usage.output, metered.estimated), (9, output, false), "two pictures");
    }
}

#[test]
fn a_transcription_costs_the_seconds_that_are_reported_and_begun_ones_count() {
    let form = b"--x\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\n\r\n0123456789\r\n--x--\r\n";
    let body = form.to_vec();
    let request = Request::read(Task::Transcriptions, "multipart/form-data; boundary=x", &body).unwrap();
    for (answer, seconds) in [
        (r#"{"text":"hi","usage":{"type":"duration","seconds":1}}"#, 1),
        (r#"{"text":"hi","duration":0.3}"#, 1),
        (r#"{"text":"hi"}"#, 1),
    ] {
        let mut gauge = Gauge::new(&request, &model(), "application/json");
        gauge.chunk(answer.as_bytes());
        assert_eq!(gauge.usage().usage.units, seconds, "{answer}");
    }
    assert_eq!(
        (seconds("12"), seconds("12.0"), seconds("12.01"), seconds("\"3.5\""), seconds("-1")),
        (Some(12), Some(12), Some(13), Some(4), None)
    );
}
