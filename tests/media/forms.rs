//! Forms and bodies that somebody made to be misread: each has its own refusal, and nothing moves.

use farebox_rig::http::Request;
use serde_json::{Value, json};

use crate::shop::{Shop, by_key, plain_key};

const EDITS: &str = "/v1/images/edits";
const HEARD: &str = "/v1/audio/transcriptions";
const FORM: &str = "multipart/form-data; boundary=b";

fn part(head: &str, value: &str) -> String {
    format!("--b\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n")
}

/// A form that would be sold, with `more` in it.
fn edit(more: &str) -> String {
    let image = part("name=\"image\"; filename=\"a.png\"", "png");
    format!("{}{}{image}{more}--b--\r\n", part("name=\"model\"", "retoucher"), part("name=\"prompt\"", "a hat"))
}

fn misread() -> Vec<(&'static str, &'static str, &'static str, String, u16, &'static str)> {
    let twice = |name: &str| edit(&(part(&format!("name=\"{name}\""), "1") + &part(&format!("name=\"{name}\""), "10")));
    let huge = format!("--b\r\nX-Huge: {}\r\nContent-Disposition: form-data; name=\"n\"\r\n\r\n1\r\n", "h".repeat(5000));
    let many = (0..65).map(|_| part("name=\"user\"", "u")).collect::<String>();
    let whole = edit("");
    let bad = (400, "invalid_request");
    vec![
        ("a field twice", EDITS, FORM, twice("n"), bad.0, bad.1),
        ("a second model", EDITS, FORM, edit(&part("name=\"model\"", "dall-e-3")), bad.0, bad.1),
        ("a model as a file", HEARD, FORM, part("name=\"model\"; filename=\"m\"", "x") + "--b--", bad.0, bad.1),
        ("a number as a file", EDITS, FORM, edit(&part("name=\"n\"; filename=\"n\"", "10")), bad.0, bad.1),
        ("a file as a text", HEARD, FORM, part("name=\"file\"", "sound") + "--b--", bad.0, bad.1),
        ("no file", HEARD, FORM, part("name=\"model\"", "whisper-1") + "--b--", bad.0, bad.1),
        ("no boundary in the header", EDITS, "multipart/form-data", whole.clone(), bad.0, bad.1),
        ("another boundary in the body", EDITS, "multipart/form-data; boundary=c", whole.clone(), bad.0, bad.1),
        ("a boundary that ends nothing", EDITS, FORM, whole[..whole.len() - 6].to_owned(), bad.0, bad.1),
        ("a form within the form", EDITS, FORM, edit(&part("name=\"mask\"", "--b\r\n\r\nx")), bad.0, bad.1),
        ("a head without end", EDITS, FORM, edit(&huge), bad.0, bad.1),
        ("too many parts", EDITS, FORM, edit(&many), bad.0, bad.1),
        ("a part without a name", EDITS, FORM, edit(&part("filename=\"x\"", "1")), bad.0, bad.1),
        ("too many pictures", EDITS, FORM, edit(&part("name=\"n\"", "11")), bad.0, bad.1),
        ("another kind of form", EDITS, "multipart/mixed; boundary=b", whole.clone(), 415, "unsupported_media_type"),
        ("fields of a web page", EDITS, "application/x-www-form-urlencoded", "prompt=p".into(), 415, "unsupported_media_type"),
        ("a form where none is taken", "/v1/audio/speech", FORM, whole, 415, "unsupported_media_type"),
        ("JSON where a file is needed", HEARD, "application/json", "{}".into(), 415, "unsupported_media_type"),
    ]
}

#[test]
fn a_form_that_is_broken_or_could_be_read_in_two_ways_is_refused_and_nothing_moves() {
    let mut shop = Shop::open();
    let key = shop.key(&plain_key());
    for (what, path, content_type, body, status, code) in misread() {
        let request = Request::new("POST", path).header("content-type", content_type).with_text(&body);
        for request in [request.clone(), by_key(&request, &key)] {
            let answer = shop.server.send(&request);
            assert_eq!((answer.status, answer.code().as_str()), (status, code), "{what}: {}", answer.text());
            assert_eq!(answer.header("payment-required"), None, "{what}: paying would not help");
        }
    }
    assert_eq!(shop.upstream.calls().len(), 0, "the upstream was not asked");
    shop.close(0);
}

#[test]
fn a_head_that_says_two_things_is_forwarded_as_the_one_that_was_priced() {
    let mut shop = Shop::open();
    let key = shop.key(&plain_key());
    let body = edit(&part("name=\"user\"; name=\"n\"", "10"));
    let request = Request::new("POST", EDITS).header("content-type", FORM).with_text(&body);
    assert_eq!(shop.server.send(&by_key(&request, &key)).status, 200);
    let calls = shop.upstream.calls();
    let forwarded = calls[0]["body"]["_text"].as_str().unwrap();
    assert!(forwarded.contains("name=\"user\"\r\n\r\n10\r\n") && !forwarded.contains("name=\"n\""), "{forwarded}");
    shop.wait_charged(60_000);
    shop.close(60_000);
}

#[test]
fn what_no_model_is_sold_for_is_refused_in_its_own_words() {
    let mut shop = Shop::open();
    let key = shop.key(&plain_key());
    let draw = |fields: Value| {
        let mut body = json!({ "model": "upscaler", "prompt": "p" });
        fields.as_object().unwrap().iter().for_each(|(name, value)| body[name] = value.clone());
        body
    };
    let (generations, speech) = ("/v1/images/generations", "/v1/audio/speech");
    let chat = json!({ "model": "dall-e-3", "messages": [{ "role": "user", "content": "hi" }] });
    for (path, body, status, code, word) in [
        (generations, draw(json!({})), 400, "invalid_request", "upscale"),
        (generations, draw(json!({ "model": "nope" })), 404, "model_not_found", "nope"),
        (generations, draw(json!({ "model": "dall-e-3", "n": 0 })), 400, "invalid_request", "n must be"),
        (generations, draw(json!({ "model": "dall-e-3", "size": ["x"] })), 400, "invalid_request", "size"),
        ("/v1/image/upscale", json!({ "image": "aGk=", "scale": 3 }), 400, "invalid_request", "2x, 4x"),
        ("/v1/embeddings", json!({ "input": "x", "model": "tts-1" }), 400, "invalid_request", "speech"),
        (speech, json!({ "model": "tts-1" }), 400, "invalid_request", "input"),
        (speech, json!({ "model": "tts-1", "input": ["a"] }), 400, "invalid_request", "input"),
        ("/v1/video/transcriptions", json!({ "model": "whisper-1", "url": "https://x" }), 400, "invalid_request", "per call"),
        ("/v1/chat/completions", chat, 400, "invalid_request", "image"),
    ] {
        let answer = shop.server.send(&by_key(&Request::post(path, body.to_string()), &key));
        assert_eq!((answer.status, answer.code().as_str()), (status, code), "{path} {body}: {}", answer.text());
        assert!(answer.text().contains(word), "{path} {body}: {}", answer.text());
    }
    assert_eq!(shop.upstream.calls().len(), 0, "the upstream was not asked");
    shop.close(0);
}
