//! An answer on its way from one dialect to another: the upstream's events come in, the caller's events go out.

use bytes::Bytes;
use serde_json::Value;

use super::super::{Dialect, Event};
use super::delta::{Heard, Part, Step, gather};
use super::from_chat::FromChat;
use super::from_messages::FromMessages;
use super::tally::Tally;
use super::to_chat::{self, ToChat};
use super::to_messages::{self, ToMessages};
use super::to_responses::{self, ToResponses};
use super::wishes::Wishes;
use crate::clock::Timestamp;
use crate::ids::RequestId;

/// What the caller asked, as far as its answer shows it.
#[derive(Clone, Debug)]
pub struct Asked {
    /// The model as the caller named it.
    pub model: String,
    /// The caller of a chat stream asked for the usage chunk.
    pub wants_usage: bool,
    /// Tokens that the request is taken for until the upstream reports.
    pub input_estimate: u64,
    /// When it was asked.
    pub created: Timestamp,
    /// The ids of the answer and of its parts are made of this one.
    pub id: RequestId,
    pub wishes: Wishes,
}

impl Asked {
    /// An id of the answer itself, or of its part `n`, in the caller's style.
    pub(super) fn id(&self, prefix: &str, n: Option<usize>) -> String {
        let number = self.id.0;
        n.map_or_else(|| format!("{prefix}_{number:032x}"), |n| format!("{prefix}_{number:032x}_{n}"))
    }
}

/// What came of the upstream is no whole answer of its dialect.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("what came is no whole answer of the upstream's dialect")]
pub struct Unreadable;

/// A streamed answer that is being translated.
///
/// Give it every event of the upstream that its [`Meter`](crate::dialect::Meter) passes, which must be made to want usage
/// (`Meter::new(upstream, true, true, …)`): the report stands in an event that callers need not have asked for. When the
/// meter has seen the upstream's terminator, and only then, [`Answer::end`] completes the answer.
#[derive(Debug)]
pub struct Answer {
    reader: Reader,
    heard: Heard,
    calls: Calls,
    writer: Writer,
    asked: Asked,
    started: bool,
    ended: bool,
    /// Something of the answer itself was written that its caller can use.
    said: bool,
}

impl Answer {
    /// `None` where `upstream` is a dialect that answers are not translated from.
    pub fn new(upstream: Dialect, caller: Dialect, asked: Asked) -> Option<Answer> {
        let reader = Reader::new(upstream)?;
        let heard = Heard::new(Tally::new(upstream, asked.input_estimate));
        let writer = match caller {
            Dialect::Chat => Writer::Chat(ToChat::new(&asked)),
            Dialect::Messages => Writer::Messages(ToMessages::default()),
            Dialect::Responses => Writer::Responses(ToResponses::default()),
        };
        Some(Answer { reader, heard, calls: Calls::default(), writer, asked, started: false, ended: false, said: false })
    }

    /// All that goes to the caller for one event: whole framed events, or nothing.
    pub fn event(&mut self, event: &Event) -> Bytes {
        let mut out = String::new();
        if !self.ended && event.data() != b"[DONE]" {
            self.reader.event(event.data(), &mut self.heard);
            self.start(&mut out);
            self.write(&mut out);
        }
        out.into()
    }

    /// Whether anything was written that its caller can use: thinking that it does not get to see is nothing.
    pub fn has_output(&self) -> bool {
        self.said
    }

    /// What completes the answer, its terminator included. To be asked for once, and only after the upstream's own
    /// terminator: a broken answer must not look complete.
    ///
    /// # Errors
    /// [`Unreadable`] when a chat upstream never said why it stopped, or that it broke off: `[DONE]` alone is what proxies
    /// end a stream with that they have lost.
    pub fn end(&mut self) -> Result<Bytes, Unreadable> {
        let mut out = String::new();
        if std::mem::replace(&mut self.ended, true) {
            return Ok(Bytes::new());
        }
        self.start(&mut out);
        self.reader.finish(&mut self.heard);
        self.write(&mut out);
        if matches!(self.reader, Reader::Chat(_)) && !self.heard.has_ended() {
            return Err(Unreadable);
        }
        let (reason, used) = (self.heard.reason(), self.heard.tally.used(true));
        match &mut self.writer {
            Writer::Chat(chat) => chat.end(&self.asked, &reason, &used, &mut out),
            Writer::Messages(_) => to_messages::end(&reason, &used, &mut out),
            Writer::Responses(responses) => responses.end(&self.asked, &reason, &used, &mut out),
        }
        Ok(out.into())
    }

    /// Translates an answer that is not streamed.
    ///
    /// # Errors
    /// [`Unreadable`] when `body` is no answer in the dialect of the upstream.
    pub fn plain(upstream: Dialect, caller: Dialect, body: &[u8], asked: &Asked) -> Result<Bytes, Unreadable> {
        let mut reader = Reader::new(upstream).ok_or(Unreadable)?;
        let mut heard = Heard::new(Tally::new(upstream, asked.input_estimate));
        reader.plain(body, &mut heard).ok_or(Unreadable)?;
        reader.finish(&mut heard);
        let mut steps = heard.parts.steps();
        Calls::default().name(&mut steps, asked);
        let (parts, reason, used) = (gather(steps), heard.reason(), heard.tally.used(true));
        let answer = match caller {
            Dialect::Chat => to_chat::whole(asked, &parts, &reason, &used),
            Dialect::Messages => to_messages::whole(asked, &parts, &reason, &used),
            Dialect::Responses => to_responses::whole(asked, &parts, &reason, &used),
        };
        Ok(answer.into())
    }

    fn start(&mut self, out: &mut String) {
        if std::mem::replace(&mut self.started, true) {
            return;
        }
        match &mut self.writer {
            Writer::Chat(chat) => chat.start(out),
            Writer::Messages(_) => to_messages::start(&self.asked, &self.heard.tally.used(false), out),
            Writer::Responses(responses) => responses.start(&self.asked, out),
        }
    }

    fn write(&mut self, out: &mut String) {
        let mut steps = self.heard.parts.steps();
        self.calls.name(&mut steps, &self.asked);
        for step in steps {
            // That a part begins is of no use yet, but that a tool is called is.
            let announces = matches!(&step, Step::Open(part) if !matches!(part, Part::Tool { .. }));
            let before = out.len();
            match &mut self.writer {
                Writer::Chat(chat) => chat.step(step, out),
                Writer::Messages(messages) => messages.step(step, &self.asked, out),
                Writer::Responses(responses) => responses.step(step, &self.asked, out),
            }
            self.said |= !announces && out.len() > before;
        }
    }
}

#[derive(Debug)]
enum Reader {
    Chat(FromChat),
    Messages(FromMessages),
}

impl Reader {
    fn new(upstream: Dialect) -> Option<Reader> {
        match upstream {
            Dialect::Chat => Some(Reader::Chat(FromChat::default())),
            Dialect::Messages => Some(Reader::Messages(FromMessages::default())),
            Dialect::Responses => None,
        }
    }

    fn event(&mut self, data: &[u8], heard: &mut Heard) {
        match self {
            Reader::Chat(chat) => chat.event(data, heard),
            Reader::Messages(messages) => messages.event(data, heard),
        }
    }

    fn plain(&mut self, body: &[u8], heard: &mut Heard) -> Option<()> {
        let text = std::str::from_utf8(body).ok()?;
        let body: Value = serde_json::from_str(text).ok()?;
        match self {
            Reader::Chat(chat) => chat.plain(&body, heard),
            Reader::Messages(messages) => messages.plain(text, &body, heard),
        }
    }

    fn finish(&mut self, heard: &mut Heard) {
        if let Reader::Chat(chat) = self {
            chat.finish(heard);
        }
        heard.parts.finish();
    }
}

#[derive(Debug)]
enum Writer {
    Chat(ToChat),
    Messages(ToMessages),
    Responses(ToResponses),
}

/// The ids of the tool calls of one answer.
#[derive(Debug, Default)]
struct Calls(Vec<String>);

impl Calls {
    /// Ids stay what they are, since the upstream wants them back; a call without one, or with that of another call, gets its own.
    fn name(&mut self, steps: &mut [Step], asked: &Asked) {
        for step in steps {
            let Step::Open(Part::Tool { id, .. }) = step else { continue };
            if id.is_empty() || self.0.contains(id) {
                *id = asked.id("call", Some(self.0.len()));
            }
            self.0.push(id.clone());
        }
    }
}

#[cfg(test)]
mod tests;
