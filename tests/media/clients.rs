//! The libraries people have, unmodified: what they get from each route, at which price.

use farebox_rig::sdk::Sdk;
use serde_json::{Value, json};

use crate::calls::TOKENS;
use crate::shop::{Shop, plain_key};

/// 20 tokens in and 300 out, at 5 and 40 dollars per million.
const BY_TOKENS: u64 = 12_100;
/// The sound that the upstream makes.
const SPOKEN_BYTES: u64 = 1644;
const HEARD: &str = "hello from the fake transcriber";

/// What each step returned; panics with what it threw instead.
fn values(outcomes: Vec<Value>) -> Vec<Value> {
    let value = |outcome: Value| {
        assert!(outcome.get("error").is_none(), "{outcome:#}");
        outcome["value"].clone()
    };
    outcomes.into_iter().map(value).collect()
}

fn hears(model: &str, format: &str) -> Value {
    json!({ "do": "hear", "params": { "model": model, "response_format": format }, "bytes": 32_000 })
}

fn with(params: &Value, more: Value) -> Value {
    let mut params = params.clone();
    params.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    params
}

/// Word by word; the step throws if the words do not make the whole.
fn hears_live(model: &str) -> Value {
    json!({ "do": "hear", "params": { "model": model, "response_format": "json", "stream": true }, "bytes": 32_000 })
}

fn steps() -> Vec<(Value, u64)> {
    let embed = json!({ "model": "text-embedding-3-small", "input": ["<<fake in=20>> hello", "you"] });
    let dalle = json!({ "model": "dall-e-3", "prompt": "a cat", "n": 2, "size": "1024x1024" });
    let tokens = json!({ "model": "gpt-image-1", "prompt": TOKENS });
    let stream = json!({ "model": "gpt-image-1", "prompt": TOKENS, "stream": true, "partial_images": 1 });
    let speech = json!({ "model": "tts-1", "voice": "alloy", "input": "twelve chars", "response_format": "wav" });
    vec![
        (json!({ "do": "embed", "params": embed }), 40),
        (json!({ "do": "draw", "params": dalle }), 80_000),
        (json!({ "do": "draw", "params": tokens }), BY_TOKENS),
        (json!({ "do": "draw", "params": stream }), BY_TOKENS),
        (json!({ "do": "edit", "params": tokens, "images": ["cat.png"] }), BY_TOKENS),
        (json!({ "do": "edit", "params": tokens, "images": ["cat.png", "hat.png"] }), BY_TOKENS),
        (json!({ "do": "speak", "params": speech }), 12 * 15),
        (hears("whisper-1", "json"), 300),
        (hears("whisper-1", "verbose_json"), 300),
        (hears("whisper-1", "text"), 3200),
        (hears("whisper-1", "srt"), 3200),
        (hears("gpt-4o-transcribe", "json"), 14 * 6 + 7 * 10),
        (json!({ "do": "edit", "params": stream, "images": ["cat.png"] }), BY_TOKENS),
        (json!({ "do": "speak_on", "params": speech }), 12 * 15),
        (json!({ "do": "speak_on", "params": with(&speech, json!({ "stream_format": "sse" })) }), 12 * 15),
        (hears_live("gpt-4o-transcribe"), 14 * 6 + 7 * 10),
        (hears_live("whisper-1"), 300),
    ]
}

fn buys_everything(sdk: Sdk) {
    let mut shop = Shop::open();
    let key = shop.key(&plain_key());
    let (steps, charges): (Vec<_>, Vec<_>) = steps().into_iter().unzip();
    let url = shop.server.url();
    let seen = values(sdk.perform(&[("BASE_URL", &url), ("API_KEY", &key.text)], &steps));
    let vectors = seen[0]["vectors"].as_array().unwrap();
    assert_eq!(vectors.iter().map(|vector| vector.as_array().unwrap().len()).collect::<Vec<_>>(), [8, 8], "{}", seen[0]);
    assert!(vectors[0][0].is_number(), "the SDK asked for base64 and read it: {}", seen[0]);
    assert_eq!(seen[1]["data"].as_array().unwrap().len(), 2);
    assert_eq!(seen[1]["data"][0][0], json!(["url"]), "an address passes as it is");
    assert_eq!(seen[2]["data"][0][0], json!(["b64_json"]));
    assert_eq!(seen[3]["events"], json!(["image_generation.partial_image", "image_generation.completed"]));
    assert!(seen[2..=5].iter().all(|it| it["events"].is_array() || it["usage"]["output_tokens"] == 300), "{seen:?}");
    assert_eq!(seen[6], json!({ "type": "audio/wav", "bytes": SPOKEN_BYTES }));
    for heard in &seen[7..12] {
        assert!(heard.as_str().unwrap().contains(HEARD), "{heard}");
    }
    assert_streams(&seen[12..]);
    let forms: Vec<_> = shop.upstream.calls().iter().filter(|call| call["path"] == "/v1/images/edits").cloned().collect();
    let two = forms[1]["body"]["_text"].as_str().unwrap();
    assert!(two.contains("cat.png") && two.contains("hat.png"), "both pictures were passed on: {two}");
    let charged = charges.iter().sum();
    shop.wait_charged(charged);
    let rows: Vec<u64> = shop.account().statement().of("CHARGE").iter().map(|charge| charge.unsigned_abs()).collect();
    assert_eq!(rows, charges, "call by call");
    shop.close(charged);
}

/// A changed picture, speech as sound and as events, and a transcription, each as it comes.
fn assert_streams(seen: &[Value]) {
    assert_eq!(seen[0]["events"], json!(["image_edit.partial_image", "image_edit.completed"]));
    assert_eq!((&seen[1]["type"], &seen[1]["bytes"]), (&"audio/wav".into(), &SPOKEN_BYTES.into()), "{}", seen[1]);
    assert_eq!(seen[2]["type"], "text/event-stream", "{}", seen[2]);
    assert!(seen[2]["end"].as_str().is_some_and(|end| end.contains("speech.audio.done")), "to its end: {}", seen[2]);
    assert_eq!((&seen[3]["text"], &seen[3]["last"]["type"]), (&HEARD.into(), &"transcript.text.done".into()), "{}", seen[3]);
    assert_eq!(seen[3]["last"]["usage"]["output_tokens"], 7, "{}", seen[3]);
}

#[test]
fn the_typescript_sdk_buys_media_with_a_key() {
    buys_everything(Sdk::OpenAiNode);
}

#[test]
fn the_python_sdk_buys_media_with_a_key() {
    buys_everything(Sdk::OpenAiPython);
}

#[test]
fn the_wallet_client_buys_media_by_signing_in() {
    let mut shop = Shop::open();
    shop.key(&plain_key());
    let images = |method: &str, params: Value| json!({ "do": "images", "method": method, "params": params });
    let generate = json!({ "model": "dall-e-3", "prompt": "a cat", "width": 1024, "height": 1024, "n": 1 });
    let binary = json!({ "model": "dall-e-3", "prompt": "a cat", "width": 1024, "height": 1024, "return_binary": true });
    let combined = json!({ "modelId": "retoucher", "prompt": "p", "images": ["aGk=", "aG8="] });
    let steps = [
        (json!({ "do": "embeddings", "params": { "model": "text-embedding-3-small", "input": "<<fake in=20>>" } }), 40),
        (images("generate", generate), 40_000),
        (images("generate", binary), 40_000),
        (images("generations", json!({ "model": "dall-e-3", "prompt": "a cat", "size": "1024x1024" })), 40_000),
        (images("upscale", json!({ "image": "aGk=", "scale": 2 })), 20_000),
        (json!({ "do": "images", "method": "upscale", "params": { "scale": 4 }, "file": "image" }), 80_000),
        (images("edit", json!({ "model": "retoucher", "prompt": "p", "image": "aGk=" })), 60_000),
        (images("multiEdit", combined), 60_000),
        (json!({ "do": "images", "method": "backgroundRemove", "params": {}, "file": "image" }), 60_000),
        (json!({ "do": "speech", "params": { "model": "tts-1", "input": "twelve chars", "voice": "alloy" } }), 180),
        (json!({ "do": "transcribe", "params": { "model": "whisper-1" } }), 300),
        (json!({ "do": "transcribe", "params": { "model": "whisper-1", "response_format": "text" } }), 3200),
        (json!({ "do": "videoTranscribe", "params": { "model": "watcher", "url": "https://x.example/v" } }), 50_000),
    ];
    let (steps, charges): (Vec<_>, Vec<u64>) = steps.into_iter().unzip();
    let (url, key) = (shop.server.url(), farebox_rig::anvil::BUYER.key);
    let seen = values(Sdk::Venice.perform(&[("BASE_URL", &url), ("PRIVATE_KEY", key)], &steps));
    assert_eq!(seen[1]["images"].as_array().unwrap().len(), 1, "{}", seen[1]);
    for at in [2, 4, 5, 6, 7, 8] {
        assert!(seen[at]["type"] == "image/png" && seen[at]["bytes"].as_u64() > Some(0), "{at}: {}", seen[at]);
    }
    assert_eq!(seen[9], json!({ "type": "audio/mpeg", "bytes": SPOKEN_BYTES }));
    assert_eq!((&seen[10]["text"], seen[11].as_str().unwrap().trim()), (&HEARD.into(), HEARD));
    assert_eq!(seen[12]["text"], HEARD);
    let charged = charges.iter().sum();
    shop.wait_charged(charged);
    let rows: Vec<u64> = shop.account().statement().of("CHARGE").iter().map(|charge| charge.unsigned_abs()).collect();
    assert_eq!(rows, charges, "call by call");
    shop.close(charged);
}
