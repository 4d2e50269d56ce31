//! The neutral middle of a request: who said what, which tools there are, and how the answer should be.

use std::borrow::Cow;

use super::tools::{Choice, Tool};

/// What a caller asks for, in no dialect. It borrows the body wherever it can.
#[derive(Debug, Default)]
pub(super) struct Conversation<'a> {
    pub turns: Vec<Turn<'a>>,
    pub tools: Vec<Tool<'a>>,
    pub choice: Option<Choice<'a>>,
    /// Whether several tools may be called at once.
    pub parallel: Option<bool>,
    pub stops: Vec<Cow<'a, str>>,
    pub sampling: Sampling<'a>,
    pub format: Option<Format<'a>>,
    pub effort: Option<Effort>,
    /// How to think, in the words of messages: some callers of chat send that.
    pub thinking: Option<&'a str>,
    /// How long an answer should be, in OpenAI's words.
    pub verbosity: Option<Cow<'a, str>>,
    /// Whom the caller serves: a name that means nothing here.
    pub user: Option<Cow<'a, str>>,
    /// Calls with the same key share their prompt's beginning.
    pub cache_key: Option<Cow<'a, str>>,
}

impl Conversation<'_> {
    /// Forgets which parts a cache should keep.
    pub fn unmark(&mut self) {
        self.tools.iter_mut().for_each(|tool| tool.cache = None);
        for part in self.turns.iter_mut().flat_map(|turn| &mut turn.parts) {
            part.cache = None;
            if let Content::Result(result) = &mut part.content {
                result.content.iter_mut().for_each(|part| part.cache = None);
            }
        }
    }
}

/// Numbers as the caller wrote them.
#[derive(Debug, Default)]
pub(super) struct Sampling<'a> {
    pub temperature: Option<&'a str>,
    pub top_p: Option<&'a str>,
    pub top_k: Option<&'a str>,
}

/// What the answer must be, when it is not free text.
#[derive(Debug)]
pub(super) enum Format<'a> {
    /// Any JSON object.
    Json,
    Schema {
        name: Option<Cow<'a, str>>,
        description: Option<Cow<'a, str>>,
        /// A JSON object.
        schema: &'a str,
        strict: Option<bool>,
    },
}

/// How hard to think.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effort {
    None,
    Minimal,
    Low,
    Medium,
    High,
    ExtraHigh,
    Max,
}

impl Effort {
    const NAMES: [(&'static str, Effort); 7] = [
        ("none", Effort::None),
        ("minimal", Effort::Minimal),
        ("low", Effort::Low),
        ("medium", Effort::Medium),
        ("high", Effort::High),
        ("xhigh", Effort::ExtraHigh),
        ("max", Effort::Max),
    ];

    pub fn named(name: &str) -> Option<Effort> {
        Effort::NAMES.iter().find(|(known, _)| *known == name).map(|(_, effort)| *effort)
    }

    pub fn name(self) -> &'static str {
        Effort::NAMES.iter().find(|(_, effort)| *effort == self).map_or("medium", |(name, _)| name)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Speaker {
    /// Whoever instructs the model: system and developer messages.
    System,
    User,
    Assistant,
}

/// What one side says before another does.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    pub speaker: Speaker,
    pub parts: Vec<Part<'a>>,
}

#[derive(Debug)]
pub(super) struct Part<'a> {
    pub content: Content<'a>,
    /// The caller's `cache_control`, as it is written. Reading a request priced it.
    pub cache: Option<&'a str>,
}

impl<'a> Part<'a> {
    pub fn new(content: Content<'a>) -> Part<'a> {
        Part { content, cache: None }
    }

    pub fn said(text: impl Into<Cow<'a, str>>) -> Part<'a> {
        Part::new(Content::Text(text.into()))
    }

    pub fn text(&self) -> Option<&str> {
        match &self.content {
            Content::Text(text) => Some(text),
            _ => None,
        }
    }
}

#[derive(Debug)]
pub(super) enum Content<'a> {
    Text(Cow<'a, str>),
    Picture(Picture<'a>),
    Call(Call<'a>),
    Result(ToolResult<'a>),
    Thinking(Thinking<'a>),
}

#[derive(Debug)]
pub(super) struct Picture<'a> {
    pub source: Source<'a>,
    /// How closely OpenAI's models should look.
    pub detail: Option<Cow<'a, str>>,
}

#[derive(Debug)]
pub(super) enum Source<'a> {
    Url(Cow<'a, str>),
    /// In base64.
    Data {
        media_type: Cow<'a, str>,
        data: Cow<'a, str>,
    },
}

/// A tool was called.
#[derive(Debug)]
pub(super) struct Call<'a> {
    pub id: Cow<'a, str>,
    pub name: Cow<'a, str>,
    pub arguments: Arguments<'a>,
}

#[derive(Debug)]
pub(super) enum Arguments<'a> {
    /// A JSON object.
    Object(&'a str),
    /// What a model wrote, which should be a JSON object.
    Text(Cow<'a, str>),
    /// The input of a tool that takes free text.
    Free(Cow<'a, str>),
}

/// What a tool gave back: texts and pictures.
#[derive(Debug)]
pub(super) struct ToolResult<'a> {
    pub id: Cow<'a, str>,
    pub content: Vec<Part<'a>>,
    pub error: bool,
}

/// Thinking of a messages upstream, which takes it back only as it was.
#[derive(Debug)]
pub(super) enum Thinking<'a> {
    Signed { text: Cow<'a, str>, signature: Cow<'a, str> },
    Redacted(Cow<'a, str>),
}
