//! Between two dialects: what a caller asks in one is written in the other that the upstream speaks, and its answer
//! in the first.

mod answer;
mod arrange;
mod claude;
mod conversation;
mod delta;
mod from_chat;
mod from_messages;
mod functions;
mod parts;
mod read_chat;
mod read_messages;
mod read_responses;
mod sealed;
mod tally;
mod to_chat;
mod to_messages;
mod to_responses;
mod tools;
mod value;
mod wishes;
mod write_chat;
mod write_messages;
mod writer;

use bytes::Bytes;

use super::fields::refused;
use super::request::Size;
use super::{Dialect, LimitField, Request};
use crate::error::Error;

pub use answer::{Answer, Asked, Unreadable};
pub use sealed::Sealed;
pub use wishes::{Renamed, Wishes};

/// What an upstream is asked for beside what the caller says.
#[derive(Clone, Copy, Debug)]
pub struct Terms<'a> {
    /// The model as the upstream names it.
    pub model: &'a str,
    /// Tokens that each answer may have at most ([`Request::output_limit`]).
    pub output_limit: u32,
    /// Where a chat upstream takes that limit.
    pub limit_field: LimitField,
    /// Whether the answer is to come as an event stream. A chat stream is asked for its usage as well.
    pub stream: bool,
}

/// Whether a caller of one dialect can be served by an upstream that speaks only the other.
pub const fn translates(from: Dialect, to: Dialect) -> bool {
    matches!(
        (from, to),
        (Dialect::Chat | Dialect::Responses, Dialect::Messages) | (Dialect::Messages | Dialect::Responses, Dialect::Chat)
    )
}

/// Whether models of these names are written to alike in a dialect, so that what is written weighs the same.
pub(super) fn writes_alike(to: Dialect, one: &str, other: &str) -> bool {
    to != Dialect::Messages || claude::Generation::of(one) == claude::Generation::of(other)
}

/// Writes a caller's body, which [`Request::read`] took, in the dialect of an upstream. Depends on nothing but its arguments,
/// so that what cannot be translated is refused before a price is asked for.
///
/// What is written asks for nothing that a caller of that dialect could not have bought itself: it is read once more as if
/// one had sent it, and only fields that are sold are written at all.
///
/// # Errors
/// [`Code::InvalidRequest`](crate::error::Code::InvalidRequest), naming the field, for what the other dialect cannot say;
/// [`Code::InvalidJson`](crate::error::Code::InvalidJson) for a body that is no JSON.
pub fn request(from: Dialect, to: Dialect, body: &[u8], terms: &Terms<'_>) -> Result<Bytes, Error> {
    weighed(from, to, body, terms).map(|(written, _)| written)
}

/// As [`request`], with how much goes into the call in its new words, which may be more than in the caller's.
pub(super) fn weighed(from: Dialect, to: Dialect, body: &[u8], terms: &Terms<'_>) -> Result<(Bytes, Size), Error> {
    if !translates(from, to) {
        return Err(refused("model", format!("this model is not sold on {}; ask for it on {}", from.path(), to.path())));
    }
    // What is written is about as long as what it says.
    let room = body.len() + 1024;
    let body = value::Value::read(body)?;
    let mut conversation = match from {
        Dialect::Chat => read_chat::read(body)?,
        Dialect::Messages => read_messages::read(body)?,
        Dialect::Responses => read_responses::read(body)?,
    };
    let turns = if from == Dialect::Responses { "input" } else { "messages" };
    arrange::arrange(&mut conversation).map_err(|wrong| wrong.at(turns, "the conversation"))?;
    let written = match to {
        Dialect::Messages => write_messages::write(conversation, terms, room),
        Dialect::Chat | Dialect::Responses => write_chat::write(&conversation, terms, room),
    };
    let size = Request::read(to, &written)?.size();
    Ok((written, size))
}

#[cfg(test)]
mod tests;
