//! The languages that callers and upstreams speak: what a request says, what an answer used, how an error reads.

mod cursor;
mod failure;
mod fields;
mod media;
mod meter;
mod purchase;
mod render;
mod request;
mod sse;
pub mod translate;
mod unstreamed;
mod usage;
mod weigh;
mod words;

pub use failure::{Blame, JsonEnd, NoAnswer, failed_answer};
pub use media::{Answers, Form, Task};
pub use meter::{Meter, Pass};
pub use purchase::{Gauge, Goods, Purchase, Translation};
pub use render::{ErrorShape, broken_stream, error_body};
pub use request::Request;
pub use sse::{Event, EventTooLong, Events, MAX_EVENT_BYTES, MAX_RESPONSES_EVENT_BYTES, Splitter};
pub use translate::translates;
pub use usage::Metered;
pub use words::{Asking, Forward, Unsaid, Words};

/// A language of requests, answers, events and errors.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// OpenAI's chat completions.
    Chat,
    /// Anthropic's messages.
    Messages,
    /// OpenAI's responses.
    Responses,
}

impl Dialect {
    pub const ALL: [Dialect; 3] = [Dialect::Chat, Dialect::Messages, Dialect::Responses];

    /// The route under which this dialect is sold, and under an upstream's base URL bought.
    pub const fn path(self) -> &'static str {
        match self {
            Dialect::Chat => "/v1/chat/completions",
            Dialect::Messages => "/v1/messages",
            Dialect::Responses => "/v1/responses",
        }
    }

    /// The field of a request in which the conversation stands.
    pub(crate) const fn conversation(self) -> &'static str {
        match self {
            Dialect::Chat | Dialect::Messages => "messages",
            Dialect::Responses => "input",
        }
    }
}

/// The field in which a chat upstream takes the output limit. Newer OpenAI models refuse the old name, many others do not
/// know the new one; exactly one is written, so that no call can outgrow its quote.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LimitField {
    #[default]
    MaxTokens,
    MaxCompletionTokens,
}

impl LimitField {
    const fn name(self) -> &'static str {
        match self {
            LimitField::MaxTokens => "max_tokens",
            LimitField::MaxCompletionTokens => "max_completion_tokens",
        }
    }
}

/// Tokens that a text of this many UTF-8 bytes is taken for when nobody counted them: four bytes a token, which is about
/// right for English and code, and for Chinese, Japanese and Korean (three bytes a character) 1.3 characters a token.
pub(crate) const fn estimate_tokens(bytes: u64) -> u64 {
    bytes.div_ceil(4)
}
