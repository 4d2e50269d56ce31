//! Brings a conversation into the order that every upstream takes: turns that alternate, and each tool's result right
//! after the turn that called it.

use std::borrow::Cow;
use std::collections::{HashMap, HashSet, VecDeque};

use super::conversation::{Content, Conversation, Part, Speaker, ToolResult, Turn};
use super::value::{Wrong, quoted};

/// The longest id that every upstream takes; OpenAI's refuse longer ones.
const MAX_ID_BYTES: usize = 40;

/// Drops what says nothing (upstreams refuse empty texts), joins turns of the same speaker, moves each result behind the
/// call it answers, in the order of the calls, and gives calls ids that are unique and spelt as all upstreams want them.
///
/// # Errors
/// A result without its call, a call without its result, a conversation that says nothing: an upstream refuses them.
pub(super) fn arrange(conversation: &mut Conversation<'_>) -> Result<(), Wrong> {
    let mut order = Order::default();
    for turn in std::mem::take(&mut conversation.turns) {
        order.take(turn)?;
    }
    conversation.turns = order.finish()?;
    Ok(())
}

/// Turns in their new order.
#[derive(Default)]
struct Order<'a> {
    turns: Vec<Answered<'a>>,
    /// Calls without a result yet, oldest first, by the id that the caller knows.
    open: HashMap<Cow<'a, str>, VecDeque<Open<'a>>>,
    /// The ids that were given, and how many were made up.
    ids: HashSet<Cow<'a, str>>,
    made_up: usize,
}

/// A turn, and the results of the tools that it calls, one place for each.
struct Answered<'a> {
    turn: Turn<'a>,
    results: Vec<Option<Part<'a>>>,
    /// One of them has come.
    is_answered: bool,
}

/// A call whose result has not come yet.
struct Open<'a> {
    renamed: Cow<'a, str>,
    turn: usize,
    place: usize,
}

impl<'a> Order<'a> {
    fn take(&mut self, turn: Turn<'a>) -> Result<(), Wrong> {
        let mut said = Vec::with_capacity(turn.parts.len());
        for part in turn.parts {
            match part.content {
                Content::Result(result) => self.answer(result, part.cache)?,
                Content::Text(text) if text.trim().is_empty() => {}
                content => said.push(Part { content, cache: part.cache }),
            }
        }
        if said.is_empty() {
            return Ok(());
        }
        let joins = self.turns.last().is_some_and(|last| last.turn.speaker == turn.speaker && !last.is_answered);
        if !joins {
            self.turns.push(Answered {
                turn: Turn { speaker: turn.speaker, parts: Vec::new() },
                results: Vec::new(),
                is_answered: false,
            });
        }
        let at = self.turns.len() - 1;
        for mut part in said {
            if let Content::Call(call) = &mut part.content {
                let renamed = self.unique(&call.id);
                let id = std::mem::replace(&mut call.id, renamed.clone());
                let results = &mut self.turns[at].results;
                self.open.entry(id).or_default().push_back(Open { renamed, turn: at, place: results.len() });
                results.push(None);
            }
            self.turns[at].turn.parts.push(part);
        }
        Ok(())
    }

    /// Puts a result to its call: the first that is open under that id, for some models use an id again.
    fn answer(&mut self, mut result: ToolResult<'a>, cache: Option<&'a str>) -> Result<(), Wrong> {
        let Some(open) = self.open.get_mut(&result.id).and_then(VecDeque::pop_front) else {
            return Err(Wrong(format!(
                " has a tool's result for the call {}, which nothing before it made or which has its result already; send \
                 each result once, after its call",
                quoted(&result.id)
            )));
        };
        result.id = open.renamed;
        result.content.retain(|part| part.text().is_none_or(|text| !text.trim().is_empty()));
        let turn = &mut self.turns[open.turn];
        turn.results[open.place] = Some(Part { content: Content::Result(result), cache });
        turn.is_answered = true;
        Ok(())
    }

    fn unique(&mut self, id: &Cow<'a, str>) -> Cow<'a, str> {
        let spelt = |id: &str| id.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'_' | b'-'));
        let mut chosen = id.clone();
        while chosen.is_empty() || chosen.len() > MAX_ID_BYTES || !spelt(&chosen) || self.ids.contains(&chosen) {
            chosen = format!("call_{}", self.made_up).into();
            self.made_up += 1;
        }
        self.ids.insert(chosen.clone());
        chosen
    }

    fn finish(self) -> Result<Vec<Turn<'a>>, Wrong> {
        let open = self.open.iter().filter_map(|(id, calls)| calls.front().map(|first| (first.turn, first.place, id)));
        if let Some((_, _, id)) = open.min() {
            return Err(Wrong(format!(
                " calls a tool with the id {} and never says what it gave back; send the result as well",
                quoted(id)
            )));
        }
        let mut turns: Vec<Turn<'a>> = Vec::with_capacity(self.turns.len());
        for Answered { turn, results, .. } in self.turns {
            // Thinking alone is the remains of a turn that was cut off.
            if turn.parts.iter().all(|part| matches!(part.content, Content::Thinking(_))) {
                continue;
            }
            append(&mut turns, turn);
            let results: Vec<_> = results.into_iter().flatten().collect();
            if !results.is_empty() {
                append(&mut turns, Turn { speaker: Speaker::User, parts: results });
            }
        }
        if turns.is_empty() {
            return Err(Wrong(" says nothing; send at least one text".into()));
        }
        Ok(turns)
    }
}

fn append<'a>(turns: &mut Vec<Turn<'a>>, mut turn: Turn<'a>) {
    match turns.last_mut() {
        Some(last) if last.speaker == turn.speaker => last.parts.append(&mut turn.parts),
        _ => turns.push(turn),
    }
}
