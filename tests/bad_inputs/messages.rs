//! What buyers are told, as one readable table per file, so that a changed word is a visible change.

use std::collections::BTreeSet;
use std::fs;
use std::path::PathBuf;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::wire::Answer;

/// Refusals as they were said: status, code, advice to retry, message.
#[derive(Clone, Debug, Default)]
pub struct Messages(BTreeSet<String>);

impl Messages {
    /// Notes a refusal; what differs from run to run is masked.
    pub fn note(&mut self, answer: &Answer) {
        let body = if answer.status < 400 { last_event(&answer.text()) } else { answer.json() };
        // Where top-ups are paid the code that all shapes share is among the details, and the message stands by itself.
        let code = body.pointer("/error/code").or(body.get("code")).or(body.pointer("/details/code"));
        let Some(code) = code.and_then(Value::as_str) else { return };
        let message = body.pointer("/error/message").or(body.get("message")).unwrap_or(&body["error"]);
        let message = message.as_str().unwrap_or("no message").to_owned();
        let retry = match (answer.status, answer.header("x-should-retry"), answer.header("retry-after")) {
            (200, _, _) => "in the stream".to_owned(),
            (_, Some("true"), Some(seconds)) => format!("retry in {seconds} s"),
            (_, Some("false"), None) => "do not retry".to_owned(),
            (_, None, None) => "-".to_owned(),
            other => format!("contradicts itself: {other:?}"),
        };
        self.0.insert(format!("{} | {code} | {retry} | {}", answer.status, masked(&message)));
    }

    /// The codes that were said.
    pub fn codes(text: &str) -> BTreeSet<String> {
        text.lines().filter_map(|line| line.split(" | ").nth(1)).map(str::to_owned).collect()
    }

    /// Compares with the file of that name beside this one; with `UPDATE_MESSAGES=1` in the environment it is written anew.
    pub fn assert_are_those_of(&self, name: &str) {
        let path = path(name);
        let now = self.0.iter().map(|line| format!("{line}\n")).collect::<String>();
        if std::env::var_os("UPDATE_MESSAGES").is_some() {
            fs::write(&path, &now).expect("the table can be written");
        }
        let before = read(name);
        let [gone, new] = [(&before, &now), (&now, &before)].map(|(these, those)| {
            let those: BTreeSet<_> = those.lines().collect();
            these.lines().filter(|line| !those.contains(line)).collect::<Vec<_>>().join("\n")
        });
        assert!(
            gone.is_empty() && new.is_empty(),
            "buyers are told something else than {name} says; UPDATE_MESSAGES=1 writes it anew.\nno longer:\n{gone}\nnow:\n{new}"
        );
    }
}

pub fn read(name: &str) -> String {
    fs::read_to_string(path(name)).unwrap_or_default()
}

fn path(name: &str) -> PathBuf {
    [env!("CARGO_MANIFEST_DIR"), "tests/bad_inputs", name].iter().collect()
}

/// What the last event of a stream says; a stream that breaks ends with an error.
fn last_event(stream: &str) -> Value {
    let data = stream.lines().rev().find_map(|line| line.strip_prefix("data: "));
    data.and_then(|data| serde_json::from_str(data).ok()).unwrap_or_default()
}

/// Replaces times around now, hashes, and how far away a time is.
fn masked(message: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    let is_time = |digits: &str| digits.len() >= 10 && digits[..10].parse().is_ok_and(|time: u64| time.abs_diff(now) < 200_000);
    let mut words = Vec::new();
    for word in message.split(' ') {
        let digits = word.trim_end_matches([',', ';', '.']);
        let rest = &word[digits.len()..];
        let is_number = !digits.is_empty() && digits.bytes().all(|byte| byte.is_ascii_digit());
        words.push(if is_number && is_time(digits) { format!("<time>{rest}") } else { word.to_owned() });
    }
    let text = words.join(" ");
    match text.split_once(" s from now") {
        Some((before, after)) => {
            let kept = before.trim_end_matches(|c: char| c.is_ascii_digit());
            format!("{kept}<n> s from now{after}")
        }
        None => text,
    }
}
