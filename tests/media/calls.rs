//! One call of every kind, with its price to the micro.

use farebox_rig::http::Request;
use serde_json::{Value, json};

/// One call.
pub struct Call {
    pub name: &'static str,
    /// Below the prefix.
    pub path: &'static str,
    pub body: Body,
    /// What its answer costs, in micros.
    pub charge: u64,
    pub content_type: &'static str,
}

pub enum Body {
    Json(Value),
    /// Texts, and the name and contents of files.
    Form(Vec<(&'static str, String)>, Vec<(&'static str, &'static str, String)>),
}

const BOUNDARY: &str = "------------------------d74496d66958873e";

impl Call {
    /// The request under a prefix such as `/v1`.
    pub fn request(&self, prefix: &str) -> Request {
        let path = format!("{prefix}{}", self.path);
        let (content_type, body) = match &self.body {
            Body::Json(body) => ("application/json".to_owned(), body.to_string()),
            Body::Form(texts, files) => (format!("multipart/form-data; boundary={BOUNDARY}"), form(texts, files)),
        };
        Request::new("POST", &path).header("content-type", &content_type).with_text(&body)
    }
}

fn form(texts: &[(&str, String)], files: &[(&str, &str, String)]) -> String {
    let disposition = "Content-Disposition: form-data";
    let text = |(name, value): &(&str, String)| format!("--{BOUNDARY}\r\n{disposition}; name=\"{name}\"\r\n\r\n{value}\r\n");
    let file = |(name, file, value): &(&str, &str, String)| {
        let head = format!("{disposition}; name=\"{name}\"; filename=\"{file}\"\r\nContent-Type: application/octet-stream");
        format!("--{BOUNDARY}\r\n{head}\r\n\r\n{value}\r\n")
    };
    let parts = texts.iter().map(text).chain(files.iter().map(file));
    parts.collect::<String>() + &format!("--{BOUNDARY}--\r\n")
}

const JSON: &str = "application/json";
/// Makes the upstream report 20 tokens in and 300 out.
pub const TOKENS: &str = "<<fake in=20 out=300>> a cat";
/// What these cost at 5 and 40 dollars per million.
const BY_TOKENS: u64 = 20 * 5 + 300 * 40;
/// Bytes that nobody can read a length from: 32 seconds at most.
const SOUND: usize = 32_000;

fn call(name: &'static str, path: &'static str, body: Value, charge: u64, content_type: &'static str) -> Call {
    Call { name, path, body: Body::Json(body), charge, content_type }
}

fn png() -> Vec<(&'static str, &'static str, String)> {
    vec![("image", "cat.png", "not really a picture".to_owned())]
}

fn texts(texts: &[(&'static str, &str)]) -> Vec<(&'static str, String)> {
    texts.iter().map(|(name, value)| (*name, (*value).to_owned())).collect()
}

/// A call of every task in each form that it has.
pub fn all() -> Vec<Call> {
    let mut all = pictures();
    all.extend(wallet_pictures());
    all.extend(sounds());
    all.push(call(
        "embeddings",
        "/embeddings",
        json!({ "model": "text-embedding-3-small", "input": "<<fake in=20>> hello" }),
        40,
        JSON,
    ));
    all
}

fn pictures() -> Vec<Call> {
    let generations = "/images/generations";
    let dalle = json!({ "model": "dall-e-3", "prompt": "a cat", "n": 2, "size": "1024x1024", "response_format": "b64_json" });
    let hd =
        json!({ "model": "dall-e-3", "prompt": "a cat", "size": "1024x1024", "quality": "hd", "response_format": "b64_json" });
    let other = json!({ "model": "dall-e-3", "prompt": "a cat", "size": "256x256", "response_format": "b64_json" });
    let tokens = json!({ "model": "gpt-image-1", "prompt": TOKENS });
    let stream = json!({ "model": "gpt-image-1", "prompt": TOKENS, "stream": true, "partial_images": 2 });
    let edit = Body::Form(texts(&[("model", "gpt-image-1"), ("prompt", TOKENS)]), png());
    vec![
        call("two of a size", generations, dalle, 80_000, JSON),
        call("of a size and a quality", generations, hd, 80_000, JSON),
        call("of no size that has a price", generations, other, 50_000, JSON),
        call("by its tokens", generations, tokens, BY_TOKENS, JSON),
        call("as a stream", generations, stream, BY_TOKENS, "text/event-stream"),
        Call { name: "an edit", path: "/images/edits", body: edit, charge: BY_TOKENS, content_type: JSON },
    ]
}

fn wallet_pictures() -> Vec<Call> {
    let generate = json!({ "model": "dall-e-3", "prompt": "a cat", "width": 1024, "height": 1792 });
    let bytes = json!({ "model": "dall-e-3", "prompt": "a cat", "width": 1024, "height": 1024, "return_binary": true });
    let upscaled = Body::Form(texts(&[("scale", "4")]), png());
    let combined = json!({ "modelId": "retoucher", "prompt": "a cat", "images": ["aGk=", "aG8="] });
    let edit = json!({ "model": "retoucher", "prompt": "a cat", "image": "aGk=" });
    vec![
        call("a picture", "/image/generate", generate, 80_000, JSON),
        call("a picture as a file", "/image/generate", bytes, 40_000, "image/png"),
        call("twice as large", "/image/upscale", json!({ "image": "aGk=" }), 20_000, "image/png"),
        Call { name: "four times", path: "/image/upscale", body: upscaled, charge: 80_000, content_type: "image/png" },
        call("a picture changed", "/image/edit", edit, 60_000, "image/png"),
        call("of two pictures one", "/image/multi-edit", combined, 60_000, "image/png"),
        call("no background", "/image/background-remove", json!({ "image_url": "https://x.example/a" }), 60_000, "image/png"),
    ]
}

fn sounds() -> Vec<Call> {
    let file = || vec![("file", "memo.mp3", "s".repeat(SOUND))];
    let heard = |name, model: &str, format: &str, charge, content_type| {
        let body = Body::Form(texts(&[("model", model), ("response_format", format)]), file());
        Call { name, path: "/audio/transcriptions", body, charge, content_type }
    };
    let spoken = json!({ "model": "tts-1", "input": "H\u{e9}llo, w\u{f6}rld! \u{1f600}", "voice": "alloy" });
    let events = json!({ "model": "tts-1", "input": "twelve chars", "voice": "alloy", "stream_format": "sse" });
    vec![
        call("speech", "/audio/speech", spoken, 15 * 15, "audio/mpeg"),
        call("speech as a stream", "/audio/speech", events, 12 * 15, "text/event-stream"),
        heard("the seconds that are reported", "whisper-1", "json", 300, JSON),
        heard("the same with more words", "whisper-1", "verbose_json", 300, JSON),
        heard("what was quoted for the file, where nobody says how long it was", "whisper-1", "text", 3200, "text/plain"),
        heard("tokens that are reported", "gpt-4o-transcribe", "json", 14 * 6 + 7 * 10, JSON),
        call(
            "a video by the call",
            "/video/transcriptions",
            json!({ "model": "watcher", "url": "https://x.example/v" }),
            50_000,
            JSON,
        ),
    ]
}
