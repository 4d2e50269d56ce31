//! What callers of chat completions said before there were tools: functions, one of which is called at a time, read as tools.

use super::super::fields::refused;
use super::conversation::{Arguments, Call, Content, Conversation, Part, Speaker, ToolResult, Turn};
use super::parts;
use super::tools::{self, Choice};
use super::value::{Object, Value, Wrong, quoted};
use crate::error::Error;

/// Reads `functions` and `function_call` as the tools and the choice among them that they are.
pub(super) fn read<'a>(body: &Object<'a>, conversation: &mut Conversation<'a>) -> Result<(), Error> {
    let Some(old) = ["functions", "function_call"].into_iter().find(|old| body.get(old).is_some()) else { return Ok(()) };
    if let Some(new) = ["tools", "tool_choice"].into_iter().find(|new| body.get(new).is_some()) {
        let message =
            format!("{old} says with other words what {new} says, and only one of them can be meant; send tools and tool_choice");
        return Err(refused(old, message));
    }
    let found = body.list("functions").and_then(|list| tools::read(&list));
    conversation.tools = found.map_err(|wrong| wrong.at("functions", "functions"))?;
    conversation.choice =
        choice(body.get("function_call"), conversation).map_err(|wrong| wrong.at("function_call", "function_call"))?;
    // An answer of this kind has place for one call.
    conversation.parallel = Some(false);
    Ok(())
}

fn choice<'a>(said: Option<Value<'a>>, conversation: &Conversation<'a>) -> Result<Option<Choice<'a>>, Wrong> {
    let Some(said) = said else { return Ok(None) };
    let Some(object) = said.object() else {
        return match said.text().as_deref() {
            Some("auto") => Ok(Some(Choice::Auto)),
            Some("none") => Ok(Some(Choice::None)),
            _ => Err(Wrong(" must be auto, none, or an object with the name of a function".into())),
        };
    };
    let name = object.needs_text("name")?;
    match conversation.tools.iter().any(|tool| tool.sent_as == name) {
        true => Ok(Some(Choice::Tool(name))),
        false => Err(Wrong(format!(" names {}, which is not among functions; send it there as well", quoted(&name)))),
    }
}

/// The calls of functions in a conversation. They have no ids: a result belongs to the oldest call of its function that has none.
#[derive(Debug, Default)]
pub(super) struct Calls<'a> {
    made: usize,
    open: Vec<(std::borrow::Cow<'a, str>, String)>,
}

impl<'a> Calls<'a> {
    /// The call in a message of the assistant, if it makes one.
    pub fn made(&mut self, message: &Object<'a>) -> Result<Option<Part<'a>>, Wrong> {
        let Some(call) = message.object("function_call")? else { return Ok(None) };
        if !message.list("tool_calls")?.is_empty() {
            return Err(Wrong(".function_call stands beside tool_calls; send all calls as tool_calls".into()));
        }
        let name = call.needs_text("name")?;
        let arguments = Arguments::Text(call.text("arguments")?.unwrap_or_default());
        let id = format!("function_{}", self.made);
        self.made += 1;
        self.open.push((name.clone(), id.clone()));
        Ok(Some(Part::new(Content::Call(Call { id: id.into(), name, arguments }))))
    }

    /// What a function gave back.
    pub fn answered(&mut self, message: &Object<'a>) -> Result<Turn<'a>, Wrong> {
        let name = message.needs_text("name")?;
        let Some(place) = self.open.iter().position(|(open, _)| *open == name) else {
            return Err(Wrong(format!(
                " has the result of the function {}, which nothing before it called or which has its result already; send each \
                 result once, after its function_call",
                quoted(&name)
            )));
        };
        let (_, id) = self.open.remove(place);
        let content = parts::result(message.get("content"))?;
        let result = ToolResult { id: id.into(), content, error: false };
        Ok(Turn { speaker: Speaker::User, parts: vec![Part::new(Content::Result(result))] })
    }
}
