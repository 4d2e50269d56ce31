//! Promises for any conversation: nothing is lost, said twice or brought out of order, and no bytes make it panic.

use proptest::prelude::*;

use super::*;
use crate::catalogue::Model;
use crate::dialect::{Asking, Forward, Goods, Words};

/// What happened, step by step.
#[derive(Clone, Debug)]
enum Step {
    System(String),
    User(Vec<String>),
    Assistant { text: Option<String>, calls: Vec<Made>, meanwhile: Option<String> },
}

#[derive(Clone, Debug)]
struct Made {
    name: String,
    arguments: String,
    result: String,
    /// The results of a turn come in the order of these.
    comes: u8,
}

fn word() -> impl Strategy<Value = String> {
    "[a-z\"\\\\{},:\u{e9}\u{1f600} ]{0,8}"
}

fn step() -> impl Strategy<Value = Step> {
    let made = (word(), word(), any::<u8>()).prop_map(|(argument, result, comes)| Made {
        name: "f".into(),
        arguments: argument,
        result,
        comes,
    });
    let calls = proptest::collection::vec(made, 0..4);
    prop_oneof![
        word().prop_map(Step::System),
        proptest::collection::vec(word(), 1..3).prop_map(Step::User),
        (proptest::option::of(word()), calls, proptest::option::of(word()))
            .prop_map(|(text, calls, meanwhile)| { Step::Assistant { text, calls, meanwhile } }),
    ]
}

/// A conversation in which no two texts are the same.
fn script() -> impl Strategy<Value = Vec<Step>> {
    proptest::collection::vec(step(), 0..8).prop_map(|mut steps| {
        steps.insert(0, Step::User(vec![String::new()]));
        let mut number = 0;
        let mut tell_apart = |text: &mut String| {
            number += 1;
            *text = format!("{number}{text}.");
        };
        for step in &mut steps {
            match step {
                Step::System(text) => tell_apart(text),
                Step::User(texts) => texts.iter_mut().for_each(&mut tell_apart),
                Step::Assistant { text, calls, meanwhile } => {
                    text.iter_mut().chain(meanwhile).for_each(&mut tell_apart);
                    for made in calls {
                        [&mut made.name, &mut made.arguments, &mut made.result].into_iter().for_each(&mut tell_apart);
                        made.name = format!("f{}", made.name.trim_matches(|c: char| !c.is_ascii_digit()));
                        made.arguments = json!({"a": made.arguments}).to_string();
                    }
                }
            }
        }
        steps
    })
}

/// The ids of a turn's calls: the same in every turn, and not as every upstream spells them.
fn id(n: usize) -> String {
    format!("functions.f:{n}")
}

/// The results of a turn in the order in which they come.
fn results(calls: &[Made]) -> Vec<(String, &str)> {
    let mut order: Vec<usize> = (0..calls.len()).collect();
    order.sort_by_key(|n| calls[*n].comes);
    order.into_iter().map(|n| (id(n), calls[n].result.as_str())).collect()
}

fn as_chat(script: &[Step]) -> Value {
    let mut messages = Vec::new();
    for step in script {
        match step {
            Step::System(text) => messages.push(json!({"role": "developer", "content": text})),
            Step::User(texts) => {
                let parts: Vec<_> = texts.iter().map(|text| json!({"type": "text", "text": text})).collect();
                messages.push(json!({"role": "user", "content": parts}));
            }
            Step::Assistant { text, calls, meanwhile } => {
                let made = calls.iter().enumerate().map(|(n, made)| {
                    json!({"id": id(n), "type": "function", "function": {"name": made.name, "arguments": made.arguments}})
                });
                messages.push(json!({"role": "assistant", "content": text, "tool_calls": made.collect::<Vec<_>>()}));
                messages.extend(meanwhile.iter().map(|text| json!({"role": "user", "content": text})));
                let results = results(calls).into_iter();
                messages.extend(results.map(|(id, text)| json!({"role": "tool", "tool_call_id": id, "content": text})));
            }
        }
    }
    json!({"model": "m", "messages": messages})
}

/// Each result is in a message of its own.
fn as_messages(script: &[Step]) -> Value {
    let mut messages = Vec::new();
    for step in script {
        match step {
            Step::System(text) => messages.push(json!({"role": "system", "content": text})),
            Step::User(texts) => messages.extend(texts.iter().map(|text| json!({"role": "user", "content": text}))),
            Step::Assistant { text, calls, meanwhile } => {
                let mut content: Vec<_> = text.iter().map(|text| json!({"type": "text", "text": text})).collect();
                content.extend(calls.iter().enumerate().map(|(n, made)| {
                    let input: Value = serde_json::from_str(&made.arguments).unwrap();
                    json!({"type": "tool_use", "id": id(n), "name": made.name, "input": input})
                }));
                messages.push(json!({"role": "assistant", "content": content}));
                messages.extend(meanwhile.iter().map(|text| json!({"role": "user", "content": text})));
                messages.extend(results(calls).into_iter().map(|(id, text)| {
                    json!({"role": "user", "content": [{"type": "tool_result", "tool_use_id": id, "content": text}]})
                }));
            }
        }
    }
    json!({"model": "m", "max_tokens": 9, "messages": messages})
}

fn as_responses(script: &[Step]) -> Value {
    let mut input = Vec::new();
    for step in script {
        match step {
            Step::System(text) => input.push(json!({"role": "developer", "content": text})),
            Step::User(texts) => {
                let parts: Vec<_> = texts.iter().map(|text| json!({"type": "input_text", "text": text})).collect();
                input.push(json!({"type": "message", "role": "user", "content": parts}));
            }
            Step::Assistant { text, calls, meanwhile } => {
                input.push(json!({"type": "reasoning", "summary": [], "encrypted_content": "of another maker"}));
                input.extend(
                    text.iter().map(|text| json!({"role": "assistant", "content": [{"type": "output_text", "text": text}]})),
                );
                input.extend(calls.iter().enumerate().map(|(n, made)| {
                    json!({"type": "function_call", "call_id": id(n), "name": made.name, "arguments": made.arguments})
                }));
                input.extend(meanwhile.iter().map(|text| json!({"role": "user", "content": text})));
                input.extend(
                    results(calls)
                        .into_iter()
                        .map(|(id, text)| json!({"type": "function_call_output", "call_id": id, "output": text})),
                );
            }
        }
    }
    json!({"model": "m", "input": input})
}

fn model() -> Model {
    Model::plain("m")
}

/// Fields that are said with more words elsewhere.
fn extras() -> impl Strategy<Value = Value> {
    let custom = json!({ "tools": [{ "type": "custom", "name": "patch" }, { "type": "custom", "custom": { "name": "p" } }] });
    let picture = json!({ "tools": [{ "name": "f", "input_schema": {} }], "tool_choice": { "type": "any" } });
    prop_oneof![
        Just(json!({ "max_tokens": 2000 })),
        Just(json!({ "max_tokens": 2000, "response_format": { "type": "json_object" } })),
        Just(json!({ "max_tokens": 2000, "reasoning_effort": "high" })),
        Just(json!({ "max_tokens": 2000, "functions": [{ "name": "f" }] })),
        Just(custom),
        Just(picture),
        Just(json!({ "max_tokens": 2000, "stop": ["a", "b"], "user": "u" })),
    ]
}

/// The other way round, what a quote that only knew the caller's words would have missed.
#[test]
fn there_are_requests_that_weigh_more_in_other_words() {
    let body = json!({ "model": "m", "messages": [{ "role": "user", "content": "x" }, { "role": "assistant", "content": "y" }],
        "tools": [{ "type": "custom", "custom": { "name": "p" } }] });
    let (model, body) = (model(), Bytes::from(body.to_string()));
    let words = Words::read(Dialect::Chat, &body).unwrap();
    let own = words.bound(&model).input;
    let asking = Asking { form: Goods::Words(Dialect::Messages), model: "claude".into(), field: LimitField::MaxTokens };
    let words = words.say(&[asking], &model).unwrap_or_else(|error| panic!("{error}"));
    assert!(words.bound(&model).input > own, "{} and {own}", words.bound(&model).input);
}

/// What was said apart from instructions, in order; a call is told with its result.
fn expected(script: &[Step]) -> (Vec<String>, Vec<String>) {
    let (mut system, mut said) = (Vec::new(), Vec::new());
    for step in script {
        match step {
            Step::System(text) => system.push(text.clone()),
            Step::User(texts) => said.extend(texts.iter().map(|text| format!("user {text}"))),
            Step::Assistant { text, calls, meanwhile } => {
                said.extend(text.iter().map(|text| format!("assistant {text}")));
                said.extend(calls.iter().map(|made| format!("{} {} {}", made.name, made.arguments, made.result)));
                said.extend(meanwhile.iter().map(|text| format!("user {text}")));
            }
        }
    }
    (system, said)
}

fn texts(content: &Value) -> Vec<String> {
    match content {
        Value::Null => Vec::new(),
        Value::String(text) => text.split("\n\n").map(str::to_owned).collect(),
        parts => parts.as_array().unwrap().iter().filter_map(|part| part["text"].as_str()).map(str::to_owned).collect(),
    }
}

/// What a chat upstream reads. Each call is followed by its result, in order.
fn told_chat(body: &Value) -> (Vec<String>, Vec<String>) {
    let (mut system, mut said) = (Vec::new(), Vec::new());
    let mut messages = body["messages"].as_array().unwrap().iter();
    while let Some(message) = messages.next() {
        let role = message["role"].as_str().unwrap();
        match role {
            "system" => system.extend(texts(&message["content"])),
            "user" => said.extend(texts(&message["content"]).iter().map(|text| format!("user {text}"))),
            "assistant" => said.extend(texts(&message["content"]).iter().map(|text| format!("assistant {text}"))),
            role => panic!("a message of {role} without its call"),
        }
        for call in message["tool_calls"].as_array().into_iter().flatten() {
            let result = messages.next().expect("a result follows its call");
            assert_eq!((&result["role"], &result["tool_call_id"]), (&json!("tool"), &call["id"]));
            let function = &call["function"];
            let (name, arguments) = (function["name"].as_str().unwrap(), function["arguments"].as_str().unwrap());
            said.push(format!("{name} {arguments} {}", result["content"].as_str().unwrap()));
        }
    }
    (system, said)
}

/// What a messages upstream reads. Sides alternate, and results stand first in the message after their calls.
fn told_messages(body: &Value) -> (Vec<String>, Vec<String>) {
    let system = body["system"].as_array().into_iter().flatten().flat_map(|block| texts(&block["text"])).collect();
    let mut said = Vec::new();
    let mut open: Vec<(Value, String)> = Vec::new();
    for (n, message) in body["messages"].as_array().unwrap().iter().enumerate() {
        let role = if n % 2 == 0 { "user" } else { "assistant" };
        assert_eq!(message["role"], role, "sides alternate and the user begins");
        let mut answered = std::mem::take(&mut open).into_iter();
        for part in message["content"].as_array().unwrap() {
            match part["type"].as_str().unwrap() {
                "tool_use" => {
                    open.push((part["id"].clone(), format!("{} {}", part["name"].as_str().unwrap(), part["input"])));
                }
                "tool_result" => {
                    let (id, call) = answered.next().expect("a result has its call");
                    assert_eq!(id, part["tool_use_id"]);
                    said.push(format!("{call} {}", texts(&part["content"]).join("")));
                }
                _ => {
                    assert_eq!(answered.len(), 0, "results stand first");
                    said.push(format!("{role} {}", part["text"].as_str().unwrap()));
                }
            }
        }
        assert_eq!(answered.len(), 0, "each call has its result");
    }
    assert!(open.is_empty());
    (system, said)
}

proptest! {
    #[test]
    fn nothing_is_lost_said_twice_or_brought_out_of_order(script in script()) {
        let callers = [
            (Dialect::Chat, as_chat(&script)), (Dialect::Messages, as_messages(&script)), (Dialect::Responses, as_responses(&script)),
        ];
        for (from, body) in &callers {
            if translates(*from, Dialect::Chat) {
                prop_assert_eq!(told_chat(&translated(*from, Dialect::Chat, body)), expected(&script), "{:?} to chat", from);
            }
            if translates(*from, Dialect::Messages) {
                let sent = translated(*from, Dialect::Messages, body);
                prop_assert_eq!(told_messages(&sent), expected(&script), "{:?} to messages", from);
            }
        }
    }

    #[test]
    fn there_and_back_again_says_the_same(script in script()) {
        let there = translated(Dialect::Chat, Dialect::Messages, &as_chat(&script));
        let back = translated(Dialect::Messages, Dialect::Chat, &there);
        prop_assert_eq!(told_chat(&back), expected(&script));
    }

    #[test]
    fn a_damaged_body_is_refused_or_translated_to_what_is_sold(script in script(), at: usize, byte: u8, cut: usize) {
        for body in [as_chat(&script), as_messages(&script), as_responses(&script)] {
            let mut bytes = body.to_string().into_bytes();
            let length = bytes.len();
            bytes[at % length] = byte;
            for damaged in [&bytes[..], &bytes[..cut % length]] {
                for (from, to) in Dialect::ALL.into_iter().flat_map(|from| Dialect::ALL.map(|to| (from, to))) {
                    let Ok(sent) = request(from, to, damaged, &terms(true)) else { continue };
                    prop_assert!(Request::read(to, &sent).is_ok());
                }
            }
        }
    }

    #[test]
    fn a_quote_covers_the_request_in_every_dialect_in_which_it_may_be_sent(script in script(), extra in extras(), stream: bool) {
        let model = model();
        for (from, mut body) in [(Dialect::Chat, as_chat(&script)), (Dialect::Messages, as_messages(&script)), (Dialect::Responses, as_responses(&script))] {
            let fields = body.as_object_mut().unwrap();
            fields.extend(extra.as_object().unwrap().clone());
            fields.insert("stream".into(), stream.into());
            let body = Bytes::from(body.to_string());
            let askings: Vec<Asking> = Dialect::ALL.into_iter().filter(|to| *to == from || translates(from, *to)).map(|to| {
                let model = if to == Dialect::Messages { "claude-sonnet-4-5" } else { "up/m" };
                Asking { form: Goods::Words(to), model: model.into(), field: LimitField::MaxCompletionTokens }
            }).collect();
            let Ok(words) = Words::read(from, &body) else { continue };
            let own = words.bound(&model);
            let Ok(words) = words.say(&askings, &model) else { continue };
            let quoted = words.bound(&model);
            prop_assert!(quoted.input >= own.input && quoted.output == own.output);
            for asking in askings.iter().filter(|asking| asking.form != Goods::Words(from)) {
                let Forward::Here(sent) = words.forward(asking, words.request().output_limit(&model)) else { continue };
                let there = Request::read(asking.form.dialect(), &sent).unwrap().bound(&model);
                prop_assert!(quoted.input >= there.input && quoted.output >= there.output && quoted.cache >= there.cache, "{:?}", asking.form);
            }
        }
    }

    #[test]
    fn no_bytes_make_it_panic(text in r#"[\[\]{}:,"\\a-z0-9 u]{0,60}"#, name in "messages|input|tools|system|tool_choice|text") {
        let whole = format!(r#"{{"messages":[{{"role":"user","content":"x"}}],"input":"x","max_tokens":5,"{name}":{text}}}"#);
        for body in [text, whole] {
            for (from, to) in Dialect::ALL.into_iter().flat_map(|from| Dialect::ALL.map(|to| (from, to))) {
                _ = request(from, to, body.as_bytes(), &terms(false));
            }
        }
    }
}
