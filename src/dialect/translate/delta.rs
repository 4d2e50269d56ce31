//! The neutral middle of an answer: parts that come one after the other, however the upstream mixed their pieces.

use std::collections::VecDeque;

use super::super::unstreamed::Unstreamed;
use super::tally::Tally;

/// What one part of an answer is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Part {
    Text,
    /// The model's own words on why it does not answer.
    Refusal,
    Thinking,
    /// Thinking that only its maker can read.
    Redacted(String),
    /// A call of a tool; its pieces are the JSON text of its arguments.
    Tool {
        id: String,
        name: String,
    },
}

/// One step of an answer. Between [`Step::Open`] and [`Step::Close`] everything belongs to that part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Step {
    Open(Part),
    /// Never empty.
    Piece(String),
    /// Proof of the thinking that is open.
    Signature(String),
    Close,
}

/// Why the model stopped.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Reason {
    End,
    /// It wrote one of the caller's stop sequences.
    StopSequence(String),
    Length,
    ContextFull,
    Tools,
    /// It would not, or may not, go on.
    Filtered,
    Paused,
}

/// What a reader makes of an upstream's words.
#[derive(Debug)]
pub(super) struct Heard {
    pub parts: Sequence,
    pub reason: Option<Reason>,
    /// It stopped, and the upstream has left the place for the reason empty.
    pub stopped_silently: bool,
    /// The upstream has said that the answer broke off.
    pub broke_off: bool,
    pub tally: Tally,
}

impl Heard {
    pub fn new(tally: Tally) -> Heard {
        Heard { parts: Sequence::default(), reason: None, stopped_silently: false, broke_off: false, tally }
    }

    /// Whether the upstream has said why it stopped. An answer that it broke off must not look like one that has ended.
    pub fn has_ended(&self) -> bool {
        !self.broke_off && (self.reason.is_some() || self.stopped_silently)
    }

    /// Why it stopped, once it did. A model that calls tools stops for them, whatever the upstream says: some say "stop"
    /// when the caller had named the tool.
    pub fn reason(&self) -> Reason {
        match (&self.reason, self.parts.has_tools) {
            (None | Some(Reason::End), true) => Reason::Tools,
            (None | Some(Reason::Tools), false) => Reason::End,
            (Some(reason), _) => reason.clone(),
        }
    }
}

/// The name of a part among those of its answer, given by its reader.
pub(super) type Key = u64;

/// The key of what only goes on with what was said last.
const SAID: Key = Key::MAX;

/// Brings parts in order. The first part that is not over is written as its pieces come; what comes of later ones waits.
/// A tool call is over when its arguments are a whole JSON value and another part has begun, so that upstreams that
/// mix the arguments of several calls lose none, and those that do not are not slowed.
#[derive(Debug, Default)]
pub(super) struct Sequence {
    held: VecDeque<Held>,
    steps: Vec<Step>,
    has_tools: bool,
}

#[derive(Debug)]
struct Held {
    key: Key,
    part: Part,
    waiting: Vec<Step>,
    opened: bool,
    /// Nothing more belongs to it.
    over: bool,
    arguments: Arguments,
}

/// How far the arguments of a tool call have come.
#[derive(Debug, Default)]
struct Arguments {
    begun: bool,
    scanner: Unstreamed,
}

impl Sequence {
    /// A part begins. Text that follows text goes on with it: only where another part stands between is there a new one.
    pub fn open(&mut self, key: Key, part: Part) {
        self.has_tools |= matches!(part, Part::Tool { .. });
        if let Some(last) = self.held.back_mut() {
            if last.part == part && matches!(part, Part::Text | Part::Refusal) {
                last.key = key;
                return;
            }
            last.over |= !matches!(last.part, Part::Tool { .. });
        }
        let (waiting, arguments) = (Vec::new(), Arguments::default());
        self.held.push_back(Held { key, part, waiting, opened: false, over: false, arguments });
        self.advance();
    }

    /// A piece of what is being said; it begins a part where the last one is another.
    pub fn say(&mut self, part: Part, piece: &str) {
        if piece.is_empty() {
            return;
        }
        if self.held.back().is_none_or(|last| last.part != part || last.over) {
            self.open(SAID, part);
        }
        if let Some(last) = self.held.back_mut() {
            last.take(piece);
        }
        self.advance();
    }

    /// A piece of the part `key`; `false` when that is not there, or no more.
    pub fn piece(&mut self, key: Key, piece: &str) -> bool {
        let held = self.find(key).map(|held| held.take(piece)).is_some();
        self.advance();
        held
    }

    /// The proof of the thinking `key`.
    pub fn sign(&mut self, key: Key, signature: &str) {
        if let Some(held) = self.find(key).filter(|held| held.part == Part::Thinking && !signature.is_empty()) {
            held.waiting.push(Step::Signature(signature.to_owned()));
        }
        self.advance();
    }

    /// The part `key` is over. Text may go on.
    pub fn close(&mut self, key: Key) {
        if let Some(held) = self.find(key) {
            held.over |= !matches!(held.part, Part::Text | Part::Refusal);
        }
        self.advance();
    }

    /// Whether any of the arguments of the call `key` have come. One that is written and gone had all of them.
    pub fn has_arguments(&self, key: Key) -> bool {
        self.held.iter().rev().find(|held| held.key == key).is_none_or(|held| held.arguments.begun)
    }

    /// Whether the arguments of the call `key` could be all there are: none, or a whole JSON value.
    pub fn could_be_whole(&self, key: Key) -> bool {
        self.held.iter().rev().find(|held| held.key == key).is_none_or(|held| !held.arguments.begun || held.is_whole())
    }

    /// Nothing more comes.
    pub fn finish(&mut self) {
        self.held.iter_mut().for_each(|held| held.over = true);
        self.advance();
    }

    /// The steps that were made since this was asked last.
    pub fn steps(&mut self) -> Vec<Step> {
        std::mem::take(&mut self.steps)
    }

    fn find(&mut self, key: Key) -> Option<&mut Held> {
        self.held.iter_mut().rev().find(|held| held.key == key)
    }

    fn advance(&mut self) {
        loop {
            let another = self.held.len() > 1;
            let Some(first) = self.held.front_mut() else { return };
            first.write(&mut self.steps);
            if !(first.over || another && first.is_whole()) {
                return;
            }
            first.end(&mut self.steps);
            self.held.pop_front();
        }
    }
}

impl Held {
    fn is_tool(&self) -> bool {
        matches!(self.part, Part::Tool { .. })
    }

    fn is_whole(&self) -> bool {
        self.is_tool() && self.arguments.scanner.complete()
    }

    fn take(&mut self, mut piece: &str) {
        if self.is_tool() {
            if !self.arguments.begun {
                piece = piece.trim_ascii_start();
            }
            self.arguments.begun |= !piece.is_empty();
            self.arguments.scanner.chunk(piece.as_bytes());
        }
        if !piece.is_empty() {
            self.waiting.push(Step::Piece(piece.to_owned()));
        }
    }

    /// Writes what is there. Text without a word and thinking without a trace are no parts: other upstreams refuse them
    /// when the caller sends them back.
    fn write(&mut self, steps: &mut Vec<Step>) {
        let stands = self.is_tool() || matches!(self.part, Part::Redacted(_)) || !self.waiting.is_empty();
        if stands && !self.opened {
            self.opened = true;
            steps.push(Step::Open(self.part.clone()));
        }
        steps.append(&mut self.waiting);
    }

    /// A call without arguments still has the empty object for them.
    fn end(&mut self, steps: &mut Vec<Step>) {
        if self.is_tool() && !self.arguments.begun {
            steps.push(Step::Piece("{}".to_owned()));
        }
        if self.opened {
            steps.push(Step::Close);
        }
    }
}

/// One part with all that belongs to it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Written {
    pub part: Part,
    pub text: String,
    pub signature: Option<String>,
}

impl Written {
    pub fn new(part: Part) -> Written {
        Written { part, text: String::new(), signature: None }
    }

    pub fn take(&mut self, step: &Step) {
        match step {
            Step::Piece(piece) => self.text.push_str(piece),
            Step::Signature(signature) => self.signature = Some(signature.clone()),
            Step::Open(_) | Step::Close => {}
        }
    }
}

/// The parts that steps make.
pub(super) fn gather(steps: Vec<Step>) -> Vec<Written> {
    let mut parts: Vec<Written> = Vec::new();
    for step in steps {
        match step {
            Step::Open(part) => parts.push(Written::new(part)),
            step => parts.iter_mut().last().into_iter().for_each(|last| last.take(&step)),
        }
    }
    parts
}
