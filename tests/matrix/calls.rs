//! One call of everything that is sold, with its price to the micro, as an upstream answers it that always reports 20 tokens in
//! and 7 out.

use farebox::dialect::{Dialect, Goods, Task};
use farebox_rig::http::Request;
use serde_json::{Value, json};

/// What the upstream of these calls always does.
pub fn upstream_behaviour() -> Value {
    json!({ "in": 20, "out": 7, "text": "hello wallet" })
}

/// Models as config.toml has them: name, kind and prices. Each is called the same at the upstream.
pub const MODELS: [(&str, &str, &str); 11] = [
    // The one that nobody buys.
    ("bystander", "chat", r#"{ call = "0.01" }"#),
    ("talker", "chat", r#"{ input = "3", output = "15" }"#),
    ("embedder", "embedding", r#"{ input = "2" }"#),
    ("painter", "image", r#"{ image = "0.05" }"#),
    ("retoucher", "edit", r#"{ image = "0.06" }"#),
    ("upscaler", "upscale", r#"{ image = { "2x" = "0.02", "4x" = "0.08" } }"#),
    ("tts-1", "speech", r#"{ character = "0.000015" }"#),
    ("whisper-1", "transcription", r#"{ second = "0.0001" }"#),
    ("watcher", "transcription", r#"{ call = "0.05" }"#),
    ("song", "music", r#"{ second = "0.01" }"#),
    ("film", "video", r#"{ second = "0.10" }"#),
];

/// One call at one address.
#[derive(Clone, Debug)]
pub struct Call {
    /// The whole path.
    pub path: String,
    content_type: String,
    pub body: String,
    /// What its answer costs, in micros.
    pub charge: u64,
    /// It orders what is made later.
    pub is_job: bool,
    /// Its answer leaves as it comes. One that is a JSON text is read to its end first, so that none is sold which broke off.
    pub is_passed_on: bool,
}

impl Call {
    pub fn request(&self) -> Request {
        let request = Request::new("POST", &self.path).header("content-type", &self.content_type);
        request.header("anthropic-version", "2023-06-01").with_text(&self.body)
    }
}

/// Everything that is sold, below each prefix, and the words as streams as well.
pub fn all() -> Vec<Call> {
    let words = Dialect::ALL.into_iter().map(Goods::Words);
    let goods = words.chain(Task::ALL.into_iter().map(Goods::Media));
    let forms = goods.flat_map(|goods| match goods {
        Goods::Words(dialect) => vec![spoken(dialect, false), spoken(dialect, true)],
        Goods::Media(task) => vec![made(task)],
    });
    let forms: Vec<_> = forms.collect();
    let below =
        |prefix: &'static str| forms.iter().cloned().map(move |call| Call { path: format!("{prefix}{}", call.path), ..call });
    below("/v1").chain(below("/api/v1")).collect()
}

fn json_call(path: &str, body: &Value, charge: u64) -> Call {
    Call {
        path: path.to_owned(),
        content_type: "application/json".into(),
        body: body.to_string(),
        charge,
        is_job: false,
        is_passed_on: false,
    }
}

fn spoken(dialect: Dialect, stream: bool) -> Call {
    let charge = 20 * 3 + 7 * 15;
    let body = match dialect {
        Dialect::Responses => json!({ "model": "talker", "max_output_tokens": 64, "stream": stream, "input": "hi" }),
        Dialect::Chat | Dialect::Messages => {
            json!({ "model": "talker", "max_tokens": 64, "stream": stream, "messages": [{ "role": "user", "content": "hi" }] })
        }
    };
    Call { is_passed_on: stream, ..json_call(Goods::Words(dialect).path(), &body, charge) }
}

/// A new task does not compile until it has its call here.
fn made(task: Task) -> Call {
    let path = Goods::Media(task).path();
    let call = |body: Value, charge| json_call(path, &body, charge);
    let bytes = |body: Value, charge| Call { is_passed_on: true, ..json_call(path, &body, charge) };
    let job = |body: Value, charge| Call { is_job: true, ..json_call(path, &body, charge) };
    match task {
        Task::Embeddings => {
            call(json!({ "model": "embedder", "input": "twenty tokens are in this, if not more than that" }), 20 * 2)
        }
        Task::ImageGenerations => {
            call(json!({ "model": "painter", "prompt": "a cat", "n": 2, "response_format": "b64_json" }), 100_000)
        }
        Task::ImageEdits => form(path, &[("model", "painter"), ("prompt", "a cat")], ("image", "cat.png", 100), 50_000),
        Task::ImageGenerate => call(json!({ "model": "painter", "prompt": "a cat" }), 50_000),
        Task::ImageUpscale => bytes(json!({ "model": "upscaler", "image": "aGk=", "scale": 4 }), 80_000),
        Task::ImageEdit => bytes(json!({ "model": "retoucher", "prompt": "a cat", "image": "aGk=" }), 60_000),
        Task::ImageMultiEdit => bytes(json!({ "modelId": "retoucher", "prompt": "a cat", "images": ["aGk=", "aG8="] }), 60_000),
        Task::ImageBackgroundRemove => bytes(json!({ "image_url": "https://x.example/a" }), 60_000),
        Task::Speech => bytes(json!({ "model": "tts-1", "input": "twelve chars", "voice": "alloy" }), 12 * 15),
        // Of bytes that nobody can read a length from 32 seconds are quoted, and 20 reported.
        Task::Transcriptions => form(path, &[("model", "whisper-1")], ("file", "memo.mp3", 32_000), 20 * 100),
        Task::VideoTranscriptions => call(json!({ "model": "watcher", "url": "https://x.example/v" }), 50_000),
        Task::AudioQueue => job(json!({ "model": "song", "prompt": "a cat", "duration_seconds": 30 }), 30 * 10_000),
        Task::VideoQueue => job(json!({ "model": "film", "prompt": "a cat", "duration": "5s" }), 5 * 100_000),
        Task::Videos | Task::VideosGenerations => job(json!({ "model": "film", "prompt": "a cat", "seconds": "8" }), 8 * 100_000),
    }
}

fn form(path: &str, texts: &[(&str, &str)], (name, file, bytes): (&str, &str, usize), charge: u64) -> Call {
    const BOUNDARY: &str = "------------------------5d2f";
    let part = |head: &str, value: &str| format!("--{BOUNDARY}\r\nContent-Disposition: form-data; {head}\r\n\r\n{value}\r\n");
    let mut body: String = texts.iter().map(|(name, value)| part(&format!("name=\"{name}\""), value)).collect();
    body.push_str(&part(&format!("name=\"{name}\"; filename=\"{file}\""), &"s".repeat(bytes)));
    body.push_str(&format!("--{BOUNDARY}--\r\n"));
    let content_type = format!("multipart/form-data; boundary={BOUNDARY}");
    Call { path: path.to_owned(), content_type, body, charge, is_job: false, is_passed_on: false }
}
