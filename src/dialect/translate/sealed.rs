//! Thinking that a caller of responses keeps for its upstream, sealed into a reasoning item.

/// Thinking of a messages upstream as the `encrypted_content` of a reasoning item: callers of responses hand it back as it
/// was, and the upstream wants it back with the tool calls that it led to. What another maker sealed is none of these.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sealed<'a> {
    /// The signature of the thinking that the item's summary says.
    Thinking(&'a str),
    /// The data of thinking that only its maker can read.
    Redacted(&'a str),
}

const THINKING: &str = "thinking:";
const REDACTED: &str = "redacted_thinking:";

impl<'a> Sealed<'a> {
    pub fn read(encrypted_content: &'a str) -> Option<Sealed<'a>> {
        let thinking = encrypted_content.strip_prefix(THINKING).map(Sealed::Thinking);
        thinking.or_else(|| encrypted_content.strip_prefix(REDACTED).map(Sealed::Redacted))
    }

    pub fn write(self) -> String {
        match self {
            Sealed::Thinking(signature) => format!("{THINKING}{signature}"),
            Sealed::Redacted(data) => format!("{REDACTED}{data}"),
        }
    }
}
