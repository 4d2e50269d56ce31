//! Translated answers in the hands of the unmodified SDKs: what a fake upstream said in one dialect arrives whole in another.

use std::collections::HashMap;
use std::io::Write as _;
use std::process::Command;

use farebox::clock::Timestamp;
use farebox::dialect::translate::{Answer, Asked, Wishes};
use farebox::dialect::{Dialect, Meter, Pass, Splitter};
use farebox::ids::RequestId;
use farebox_rig::http::{self, Request};
use farebox_rig::process::run;
use farebox_rig::provider::{After, Provider};
use farebox_rig::upstream::{UPSTREAM_KEY, Upstream};
use farebox_rig::{installed, tests_dir};
use serde_json::{Value, json};

const CITY: &str = r#"{"city":"Llanfairpwllgwyngyll"}"#;

/// To callers of responses this is a tool with free text.
const PATCH: &str = r#"{"input":"*** Begin \"Patch\""}"#;

/// What the upstream is told to say, and what of it must arrive: text, thinking, calls, and why it stopped.
struct Case {
    name: &'static str,
    prompt: String,
    text: &'static str,
    thinking: &'static str,
    calls: Vec<(&'static str, &'static str)>,
    cut_off: bool,
}

fn cases() -> Vec<Case> {
    let usage = "in=100 out=9 cached=60 cw=10 reasoning=4";
    // OpenAI counts what was cached as part of the input, Anthropic beside it: the upstream says both of one and the same.
    let case = |name, more: &str, text| Case {
        name,
        prompt: format!("<<fake {usage} {more}>>"),
        text,
        thinking: "",
        calls: Vec::new(),
        cut_off: false,
    };
    let said = "hello there, \"wallet\"";
    let text = case("text", "text=hello+there,+\"wallet\"", said);
    let thought = Case { thinking: "thinking about it", ..case("thought", "think=1 text=hello+there,+\"wallet\"", said) };
    let cut_off = Case { cut_off: true, ..case("cut_off", "finish=length text=hello", "hello") };
    let mut called = case("called", "think=1 ntools=3", "");
    called.prompt.push_str(&format!(" CALL:weather {CITY}"));
    (called.thinking, called.calls) = ("thinking about it", vec![("weather", CITY); 3]);
    let mut bare = case("bare", "", "");
    bare.prompt.push_str(" CALL:now {}");
    bare.calls = vec![("now", "{}")];
    let mut patch = case("patch", "", "");
    patch.prompt.push_str(&format!(" CALL:apply_patch {PATCH}"));
    patch.calls = vec![("apply_patch", PATCH)];
    vec![text, thought, cut_off, called, bare, patch]
}

/// A request that says the same in each dialect.
fn params(dialect: Dialect, prompt: &str) -> Value {
    let turns = json!([{ "role": "user", "content": prompt }]);
    match dialect {
        Dialect::Chat => json!({ "model": "m", "messages": turns }),
        Dialect::Messages => {
            json!({ "model": "m", "messages": turns, "max_tokens": 4096, "thinking": { "type": "adaptive" } })
        }
        Dialect::Responses => {
            let tools = json!([{ "type": "custom", "name": "apply_patch" }]);
            let include = json!(["reasoning.encrypted_content"]);
            json!({ "model": "m", "input": prompt, "include": include, "store": false, "tools": tools })
        }
    }
}

/// What the upstream really writes.
fn said(upstream: &Upstream, dialect: Dialect, prompt: &str, stream: bool) -> Vec<u8> {
    let mut body = params(dialect, prompt);
    if stream {
        body["stream"] = true.into();
    }
    if stream && dialect == Dialect::Chat {
        body["stream_options"] = json!({ "include_usage": true });
    }
    let request = Request::post(dialect.path(), body.to_string()).header("Content-Type", "application/json");
    let request = request.header("Authorization", &format!("Bearer {UPSTREAM_KEY}")).header("x-api-key", UPSTREAM_KEY);
    let request = request.header("anthropic-version", "2023-06-01");
    let answer = http::send(upstream.url().trim_start_matches("http://"), &request).unwrap();
    assert_eq!(answer.status, 200, "{}", answer.text());
    answer.body
}

/// What a caller of another dialect gets of it.
fn translated(from: Dialect, to: Dialect, case: &Case, answer: &[u8], stream: bool) -> Vec<u8> {
    let wishes = Wishes::read(to, params(to, &case.prompt).to_string().as_bytes());
    let (created, id) = (Timestamp::from_secs(1_790_000_000), RequestId(0xfee1));
    let asked = Asked { model: "alias".into(), wants_usage: true, input_estimate: 5, created, id, wishes };
    if !stream {
        return Answer::plain(from, to, answer, &asked).unwrap().to_vec();
    }
    let mut meter = Meter::new(from, true, true, 5);
    let mut translation = Answer::new(from, to, asked).unwrap();
    let mut splitter = Splitter::new();
    let mut out = Vec::new();
    for bytes in answer.chunks(7) {
        for event in splitter.push(bytes.to_vec().into()).map(Result::unwrap) {
            match meter.event(&event) {
                Pass::Drop => {}
                Pass::Error(error) => panic!("{error:?}"),
                Pass::Forward => out.extend(translation.event(&event)),
                Pass::Done => out.extend(translation.end().unwrap()),
            }
        }
    }
    assert!(meter.complete());
    out
}

const PAIRS: [(Dialect, Dialect); 4] = [
    (Dialect::Messages, Dialect::Chat),
    (Dialect::Chat, Dialect::Messages),
    (Dialect::Chat, Dialect::Responses),
    (Dialect::Messages, Dialect::Responses),
];

/// What the stub has under each path: whether it is a stream, and its bytes.
type Served = HashMap<String, (bool, Vec<u8>)>;

/// All translations, by the path under which a client asks for them, and the step that asks.
fn answers(upstream: &Upstream) -> (Served, Vec<(Value, Case)>) {
    let (mut served, mut steps) = (HashMap::new(), Vec::new());
    for (from, to) in PAIRS {
        for stream in [false, true] {
            for case in cases() {
                let answer = said(upstream, from, &case.prompt, stream);
                let at = format!("{from:?}/{to:?}/{}/{stream}", case.name);
                served.insert(format!("/{at}{}", to.path()), (stream, translated(from, to, &case, &answer, stream)));
                let action = to.path().rsplit('/').find(|part| *part != "completions").unwrap();
                let action = if stream { format!("{action}_stream") } else { action.to_owned() };
                steps.push((json!({ "do": action, "at": at, "params": params(to, &case.prompt) }), case));
            }
        }
    }
    (served, steps)
}

fn serve(answers: Served) -> Provider {
    Provider::start(move |request, socket| {
        let path = request.head().split(' ').nth(1).unwrap_or_default();
        let (stream, body) = &answers[path];
        let kind = if *stream { "text/event-stream" } else { "application/json" };
        let head = format!("HTTP/1.1 200 OK\r\nContent-Type: {kind}\r\nContent-Length: {}\r\n\r\n", body.len());
        // Small pieces, as a network may make them.
        let _ = socket.write_all(head.as_bytes());
        body.chunks(97).for_each(|piece| _ = socket.write_all(piece));
        After::Keep
    })
}

/// What the client has, in the words of [`Case`].
fn check(step: &Value, case: &Case, outcome: &Value) {
    let answer = &outcome["value"];
    let context = || format!("{} got {outcome}", step["at"]);
    assert!(answer.is_object(), "{}", context());
    let (text, thinking, calls, stop, usage) = match step["do"].as_str().unwrap().split('_').next().unwrap() {
        "chat" => of_chat(answer),
        "messages" => of_messages(answer),
        _ => of_responses(answer),
    };
    assert_eq!(text, case.text, "{}", context());
    // The types of the SDKs have no place for it in a chat.
    assert!(thinking.is_none_or(|thinking| thinking == case.thinking), "{}", context());
    let expected: Vec<(String, String)> = case.calls.iter().map(|(name, it)| ((*name).to_owned(), (*it).to_owned())).collect();
    assert_eq!(calls, expected, "{}", context());
    let kind = if case.cut_off { 1 } else { 2 * usize::from(!case.calls.is_empty()) };
    let stops = [
        ["stop", "end_turn", "completed"],
        ["length", "max_tokens", "max_output_tokens"],
        ["tool_calls", "tool_use", "completed"],
    ];
    assert!(stops[kind].contains(&stop.as_str()), "{stop}: {}", context());
    let from_chat = step["at"].as_str().unwrap().starts_with("Chat");
    // Read from no cache, from one, and into one; written. The fake says "in=100" of all of it, or of the first alone.
    let read = if from_chat { 30 } else { 100 };
    assert_eq!(usage, [read, 60, 10, 9], "{}", context());
}

type Had = (String, Option<String>, Vec<(String, String)>, String, [u64; 4]);

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

fn texts<'a>(list: &'a Value, kind: &str, words: impl Fn(&'a Value) -> &'a Value) -> String {
    list.as_array().unwrap().iter().filter(|part| part["type"] == kind).map(|part| text(words(part))).collect()
}

fn of_chat(answer: &Value) -> Had {
    let (choice, usage) = (&answer["choices"][0], &answer["usage"]);
    let calls = choice["message"]["tool_calls"].as_array().into_iter().flatten();
    let calls = calls.map(|call| (text(&call["function"]["name"]), text(&call["function"]["arguments"]))).collect();
    let details = &usage["prompt_tokens_details"];
    let used = openai_usage(&usage["prompt_tokens"], details, &usage["completion_tokens"]);
    (text(&choice["message"]["content"]), None, calls, text(&choice["finish_reason"]), used)
}

fn of_messages(answer: &Value) -> Had {
    let (content, usage) = (&answer["content"], &answer["usage"]);
    let calls = content.as_array().unwrap().iter().filter(|block| block["type"] == "tool_use");
    let calls = calls.map(|call| (text(&call["name"]), call["input"].to_string())).collect();
    let used = ["input_tokens", "cache_read_input_tokens", "cache_creation_input_tokens", "output_tokens"];
    let used = used.map(|name| usage[name].as_u64().unwrap());
    let said = [("text", "text"), ("thinking", "thinking")].map(|(kind, name)| texts(content, kind, |block| &block[name]));
    let [words, thinking] = said;
    (words, Some(thinking), calls, text(&answer["stop_reason"]), used)
}

fn of_responses(answer: &Value) -> Had {
    let (output, usage) = (&answer["output"], &answer["usage"]);
    let calls = output.as_array().unwrap().iter().filter(|item| item.get("call_id").is_some());
    let calls = calls.map(|call| match text(&call["type"]).as_str() {
        "custom_tool_call" => (text(&call["name"]), json!({ "input": call["input"] }).to_string()),
        _ => (text(&call["name"]), text(&call["arguments"])),
    });
    let calls: Vec<(String, String)> = calls.collect();
    let free = output.as_array().unwrap().iter().filter(|item| item["type"] == "custom_tool_call").count();
    assert_eq!(free, calls.iter().filter(|(name, _)| name == "apply_patch").count(), "{output}");
    let used = openai_usage(&usage["input_tokens"], &usage["input_tokens_details"], &usage["output_tokens"]);
    let words = texts(output, "message", |item| &item["content"][0]["text"]);
    let thinking = texts(output, "reasoning", |item| &item["summary"][0]["text"]);
    let incomplete = &answer["incomplete_details"]["reason"];
    let stop = if incomplete.is_null() { &answer["status"] } else { incomplete };
    (words, Some(thinking), calls, text(stop), used)
}

fn openai_usage(prompt: &Value, details: &Value, output: &Value) -> [u64; 4] {
    let [cached, written] = ["cached_tokens", "cache_write_tokens"].map(|name| details[name].as_u64().unwrap());
    [prompt.as_u64().unwrap() - cached - written, cached, written, output.as_u64().unwrap()]
}

fn assembles(mut command: Command) {
    let upstream = Upstream::start();
    let (served, steps) = answers(&upstream);
    let provider = serve(served);
    let order: Vec<&Value> = steps.iter().map(|(step, _)| step).collect();
    command.env("BASE_URL", provider.url()).env("ORDER", json!(order).to_string());
    let (code, stdout, stderr) = run(command, "");
    let outcomes: Vec<Value> = serde_json::from_str(stdout.lines().last().unwrap_or_default()).unwrap_or_default();
    assert_eq!((code, outcomes.len()), (0, 48), "every step has an outcome:\n{stdout}\n{stderr}");
    for ((step, case), outcome) in steps.iter().zip(&outcomes) {
        check(step, case, outcome);
    }
}

#[test]
fn the_typescript_sdks_put_translated_answers_together() {
    let clients = tests_dir().join("clients");
    installed(clients.join("node_modules/openai"));
    let mut command = Command::new("node");
    command.arg(clients.join("assemble.mjs"));
    assembles(command);
}

#[test]
fn the_python_sdks_put_translated_answers_together() {
    let clients = tests_dir().join("clients");
    let mut command = Command::new(installed(clients.join(".venv/bin/python")));
    command.arg(clients.join("assemble.py"));
    assembles(command);
}
