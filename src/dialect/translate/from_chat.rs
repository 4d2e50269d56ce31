//! Reads the answer of a chat upstream, streamed or plain, as steps. It takes what OpenAI sends and what its many imitators do.

use serde_json::Value;

use super::super::failure::is_no_end;
use super::delta::{Heard, Key, Part, Reason};

/// What is known of an answer that is being read.
#[derive(Debug, Default)]
pub(super) struct FromChat {
    calls: Vec<Call>,
    /// Something of the answer has come.
    spoke: bool,
}

/// A tool call that has begun.
#[derive(Debug)]
struct Call {
    index: Option<u64>,
    id: String,
    name: String,
    /// Arguments that came before the name.
    early: String,
    /// Its part, once it has a name.
    key: Option<Key>,
}

impl FromChat {
    /// Reads one chunk of a stream.
    pub fn event(&mut self, data: &[u8], heard: &mut Heard) {
        let Ok(chunk) = serde_json::from_slice::<Value>(data) else { return };
        heard.tally.report(&chunk["usage"]);
        heard.tally.report(&chunk["x_groq"]["usage"]);
        for choice in first(&chunk["choices"]) {
            match (&choice["delta"], &choice["message"]) {
                (delta @ Value::Object(_), _) => self.message(delta, false, heard),
                // Some send a whole message in one chunk.
                (_, message @ Value::Object(_)) if !self.spoke => self.message(message, true, heard),
                _ => {}
            }
            stopped(choice, heard);
        }
        heard.tally.passed();
    }

    /// Reads a plain answer; `None` when it is none, or does not say how it ended.
    pub fn plain(&mut self, body: &Value, heard: &mut Heard) -> Option<()> {
        let choice = first(&body["choices"]).next().filter(|choice| choice["message"].is_object())?;
        heard.tally.report(&body["usage"]);
        self.message(&choice["message"], true, heard);
        stopped(choice, heard);
        heard.tally.passed();
        heard.has_ended().then_some(())
    }

    /// The upstream has said all.
    pub fn finish(&mut self, heard: &mut Heard) {
        for (key, call) in (0..).zip(&mut self.calls) {
            if call.key.is_none() && !call.early.is_empty() {
                call.begin(key, heard);
            }
        }
    }

    /// Reads a message, or a piece of one. In a whole one the calls stand in their order.
    fn message(&mut self, message: &Value, whole: bool, heard: &mut Heard) {
        // Some send the same thinking under two names.
        let thinking = ["reasoning_content", "reasoning"].iter().find_map(|name| message[*name].as_str());
        say(Part::Thinking, thinking.unwrap_or_default(), heard);
        match &message["content"] {
            Value::String(text) => say(Part::Text, text, heard),
            Value::Array(parts) => parts.iter().for_each(|part| said(part, heard)),
            _ => {}
        }
        say(Part::Refusal, message["refusal"].as_str().unwrap_or_default(), heard);
        for (place, call) in (0..).zip(message["tool_calls"].as_array().into_iter().flatten()) {
            let index = call["index"].as_u64().or(whole.then_some(place));
            self.piece(index, call["id"].as_str().unwrap_or_default(), &call["function"], heard);
        }
        if message["function_call"].is_object() {
            self.piece(Some(0), "", &message["function_call"], heard);
        }
        self.spoke |= ["content", "tool_calls"].iter().any(|name| !message[*name].is_null());
    }

    /// Reads a piece of a call: some of its name and arguments.
    fn piece(&mut self, index: Option<u64>, id: &str, function: &Value, heard: &mut Heard) {
        let name = function["name"].as_str().unwrap_or_default();
        let arguments = match &function["arguments"] {
            Value::String(text) => text.clone(),
            Value::Null => String::new(),
            // Not a text, as it should be, but what the text would say.
            value => value.to_string(),
        };
        let at = self.find(index, id, (name, &arguments), heard).unwrap_or_else(|| {
            self.calls.push(Call { index, id: id.to_owned(), name: String::new(), early: String::new(), key: None });
            self.calls.len() - 1
        });
        let call = &mut self.calls[at];
        if call.id.is_empty() {
            id.clone_into(&mut call.id);
        }
        if call.name.is_empty() && !name.is_empty() {
            heard.tally.count(name);
            name.clone_into(&mut call.name);
        }
        heard.tally.count(&arguments);
        match call.key {
            Some(key) => _ = heard.parts.piece(key, &arguments),
            None => {
                call.early.push_str(&arguments);
                if !call.name.is_empty() {
                    call.begin(at as Key, heard);
                }
            }
        }
    }

    /// The call that a piece belongs to; `None` for the first piece of one. The index decides. Where there is none the id
    /// does, and a piece with neither goes on with the last call, unless it brings a name again. Some say 0 for every call:
    /// another id and a name begin another call when the one before could be over. Others make up an id for every piece and
    /// repeat the name: that is another call only if it brings arguments after the whole ones of that before.
    fn find(&self, index: Option<u64>, id: &str, (name, arguments): (&str, &str), heard: &Heard) -> Option<usize> {
        let over = |call: &Call| call.key.is_none_or(|key| heard.parts.could_be_whole(key));
        let last = |fits: &dyn Fn(&Call) -> bool| self.calls.iter().rposition(fits);
        match index {
            Some(_) => {
                let at = last(&|call| call.index == index)?;
                let call = &self.calls[at];
                let renamed = !id.is_empty() && !call.id.is_empty() && id != call.id && !name.is_empty();
                let begun = call.key.is_some_and(|key| heard.parts.has_arguments(key));
                let another = name != call.name || begun && !arguments.trim_ascii().is_empty();
                if renamed && another && over(call) {
                    return last(&|call| call.index == index && call.id == id);
                }
                Some(at)
            }
            None if !id.is_empty() => last(&|call| call.id == id),
            None if name.is_empty() => self.calls.len().checked_sub(1),
            None => self.calls.len().checked_sub(1).filter(|at| !over(&self.calls[*at]) || self.calls[*at].name.is_empty()),
        }
    }
}

impl Call {
    fn begin(&mut self, key: Key, heard: &mut Heard) {
        self.key = Some(key);
        heard.parts.open(key, Part::Tool { id: self.id.clone(), name: self.name.clone() });
        heard.parts.piece(key, &std::mem::take(&mut self.early));
    }
}

/// The one answer that was asked for, of those in `choices`.
fn first(choices: &Value) -> impl Iterator<Item = &Value> {
    let choices = choices.as_array().into_iter().flatten();
    choices.filter(|choice| choice["index"].as_u64().unwrap_or(0) == 0)
}

fn say(part: Part, words: &str, heard: &mut Heard) {
    heard.tally.count(words);
    heard.parts.say(part, words);
}

/// A part of content that is a list, which some models think in.
fn said(part: &Value, heard: &mut Heard) {
    match (part["type"].as_str(), &part["thinking"]) {
        (Some("thinking"), Value::String(words)) => say(Part::Thinking, words, heard),
        (Some("thinking"), Value::Array(parts)) => {
            parts.iter().filter_map(|part| part["text"].as_str()).for_each(|words| say(Part::Thinking, words, heard));
        }
        (Some("refusal"), _) => say(Part::Refusal, part["refusal"].as_str().unwrap_or_default(), heard),
        _ => say(Part::Text, part["text"].as_str().unwrap_or_default(), heard),
    }
}

fn stopped(choice: &Value, heard: &mut Heard) {
    heard.reason = match choice["finish_reason"].as_str() {
        None => return,
        Some("") => {
            heard.stopped_silently = true;
            return;
        }
        Some(reason) if is_no_end(reason) => {
            heard.broke_off = true;
            return;
        }
        Some("length" | "max_tokens") => Some(Reason::Length),
        Some("tool_calls" | "function_call") => Some(Reason::Tools),
        Some("content_filter") => Some(Reason::Filtered),
        // vLLM says which stop sequence it was.
        Some("stop") => choice["stop_reason"].as_str().map(|stop| Reason::StopSequence(stop.to_owned())).or(Some(Reason::End)),
        Some(_) => Some(Reason::End),
    };
}
