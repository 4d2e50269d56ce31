//! Answers that are not what was bought: of a wrong type, without an end, with more or less in them than was asked for.

use std::io::Write as _;
use std::net::TcpStream;

use farebox_rig::http::Request;
use farebox_rig::provider::{After, Provider, Received};
use serde_json::json;

use crate::shop::{Shop, by_key, plain_key};

const SPEECH: &str = "/v1/audio/speech";
const DRAW: &str = "/v1/images/generations";

/// An upstream that answers each request with the bytes that stand in its own input or prompt, up to the last quote, and
/// hangs up.
fn parrot() -> Provider {
    Provider::start(|received: &Received, stream: &mut TcpStream| {
        let body: serde_json::Value = serde_json::from_str(received.body()).unwrap();
        let answer = body["input"].as_str().or_else(|| body["prompt"].as_str()).unwrap();
        let _ = stream.write_all(answer.as_bytes());
        After::Close
    })
}

fn said(head: &str, body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\n{head}\r\n\r\n{body}")
}

fn sized(content_type: &str, body: &str) -> String {
    said(&format!("Content-Type: {content_type}\r\nContent-Length: {}", body.len()), body)
}

#[test]
fn an_answer_of_another_type_is_never_passed_on_and_costs_nothing() {
    let provider = parrot();
    let mut shop = Shop::before(&provider.url());
    let key = shop.key(&plain_key());
    let page = "<script>steal()</script>";
    for (path, answer) in [
        (SPEECH, sized("text/html", page)),
        (SPEECH, sized("image/svg+xml", page)),
        (SPEECH, sized("application/json", "{}")),
        (SPEECH, sized("text/event-stream", "data: {}\n\n")),
        (SPEECH, said(&format!("Content-Length: {}", page.len()), page)),
        (SPEECH, said("Content-Type: audio/mpeg\r\nContent-Encoding: gzip\r\nContent-Length: 4", "\x1f\x08\x08\x00")),
        (SPEECH, said("Content-Type: audio/mpeg\r\nContent-Length: 0", "")),
        (SPEECH, said("Content-Type: audio/mpeg\r\nConnection: close", "a file without an end")),
        (SPEECH, sized("audio/mpeg", "half").replace("200 OK", "206 Partial Content")),
        (DRAW, sized("image/png", "png")),
        (DRAW, sized("text/html", page)),
    ] {
        let body = json!({ "prompt": answer, "input": answer });
        let got = shop.server.send(&by_key(&Request::post(path, body.to_string()), &key));
        assert_eq!((got.status, got.code().as_str()), (502, "upstream_error"), "{path} {answer:?}: {}", got.text());
        assert!(!got.text().contains("steal"), "{}", got.text());
    }
    shop.wait_charged(0);
    shop.close(0);
}

#[test]
fn a_file_whose_connection_is_cut_never_looks_whole_however_it_is_framed() {
    let provider = parrot();
    let mut shop = Shop::before(&provider.url());
    let key = shop.key(&plain_key());
    let chunked = "Content-Type: audio/mpeg\r\nTransfer-Encoding: chunked";
    for (answer, whole) in [
        (said(chunked, "5\r\nhello\r\n0\r\n\r\n"), true),
        (said("Content-Type: audio/mpeg\r\nContent-Length: 5", "hello"), true),
        (said(chunked, "5\r\nhello\r\n"), false),
        (said(chunked, "5\r\nhello\r\n0\r\n"), false),
        (said(chunked, "5\r\nhel"), false),
        (said("Content-Type: audio/mpeg\r\nContent-Length: 6", "hello"), false),
    ] {
        let body = json!({ "input": answer });
        let got = shop.server.send(&by_key(&Request::post(SPEECH, body.to_string()), &key));
        assert_eq!((got.status, got.complete), (200, whole), "{answer:?}");
        assert!(b"hello".starts_with(&got.body));
        let characters = u64::try_from(answer.chars().count()).unwrap();
        shop.wait_charged(if whole { characters * 15 } else { 0 });
    }
    let rows: u64 = shop.account().statement().of("CHARGE").iter().map(|charge| charge.unsigned_abs()).sum();
    shop.close(rows);
}

#[test]
fn pictures_are_charged_as_they_came_and_never_more_than_were_asked_for() {
    let provider = parrot();
    let mut shop = Shop::before(&provider.url());
    let key = shop.key(&plain_key());
    let picture = r#"{"b64_json":"aGk="}"#;
    for (count, charge) in [(0, 0), (1, 40_000), (2, 80_000), (3, 80_000), (50, 80_000)] {
        let answer = format!(r#"{{"created":1,"data":[{}]}}"#, vec![picture; count].join(","));
        let body = json!({ "model": "dall-e-3", "n": 2, "size": "1024x1024", "prompt": sized("application/json", &answer) });
        let got = shop.server.send(&by_key(&Request::post(DRAW, body.to_string()), &key));
        assert_eq!((got.status, got.text()), (200, answer), "{count}");
        shop.wait_charged(charge);
    }
    shop.close(280_000);
}
