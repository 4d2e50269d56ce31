//! Between two dialects: what a caller asks in one and an upstream answers in another.

mod answer;
mod delta;
mod from_chat;
mod from_messages;
mod sealed;
mod tally;
mod to_chat;
mod to_messages;
mod to_responses;
mod wishes;

pub use answer::{Answer, Asked, Unreadable};
pub use sealed::Sealed;
pub use wishes::{Renamed, Wishes};
