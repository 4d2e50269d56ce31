//! How much goes into a call of responses: its items, and its tools without those that run at the upstream.

use std::borrow::Cow;

use super::{Weight, refused, server_tool};
use crate::dialect::cursor::{Cursor, Text};
use crate::error::Error;

/// Items that are text to the model, or hold content. What is not here is kept at the upstream, runs there, or has a size that
/// its bytes do not show, and is refused.
const ITEMS: [&str; 14] = [
    "message",
    "function_call",
    "function_call_output",
    "custom_tool_call",
    "custom_tool_call_output",
    "reasoning",
    "tool_search_call",
    "tool_search_output",
    "additional_tools",
    "local_shell_call",
    "local_shell_call_output",
    "apply_patch_call",
    "apply_patch_call_output",
    "web_search_call",
];
/// Tools that the caller runs, lists of those, and the search among them.
const CALLER_RUN_TOOLS: [&str; 6] = ["function", "custom", "namespace", "tool_search", "local_shell", "apply_patch"];
/// A tool that runs at the upstream and costs extra, and that Codex and others put into every request, wanted or not. Who
/// sends it is served without it: refusing it would keep those clients out altogether.
const UNASKED_TOOLS: &str = "web_search";

/// What is known of an item once all of it was read.
#[derive(Default)]
struct Item<'a> {
    kind: Option<Cow<'a, str>>,
    role: bool,
    content: bool,
    id: bool,
}

/// Whether the caller runs tools of this type itself.
pub(in crate::dialect) fn is_caller_run(kind: &str) -> bool {
    CALLER_RUN_TOOLS.contains(&kind)
}

impl Weight {
    /// Adds `input`, a text or the items of a conversation, and refuses what cannot be weighed.
    pub fn add_input(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        self.in_input = true;
        match cursor.peek()? {
            b'"' => {
                self.messages = 1;
                self.add(cursor)
            }
            b'[' => {
                cursor.array(|cursor| self.add_item(cursor))?;
                match self.messages {
                    0 => Err(refused("input", "input is empty; send a text or at least one item")),
                    _ => Ok(()),
                }
            }
            _ => Err(refused("input", "input must be a text or an array of items")),
        }
    }

    fn add_item(&mut self, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        self.messages += 1;
        if cursor.peek()? != b'{' {
            return Err(self.wrong("must be an object with a role and content, or with a type"));
        }
        let mut item = Item::default();
        cursor.object(|key, cursor| self.add_to_item(&mut item, key, cursor))?;
        match &item.kind {
            Some(kind) if kind == "item_reference" => Err(self.stored()),
            Some(kind) if !ITEMS.contains(&&**kind) => {
                let kind: String = kind.chars().take(40).collect();
                Err(self.wrong(&format!("is an item of type {kind:?}, which is not sold here; leave it out")))
            }
            Some(kind) if kind != "message" => Ok(()),
            None if item.id && !item.role => Err(self.stored()),
            _ if !item.role => Err(self.wrong("has no role; give it one, such as \"user\"")),
            _ if !item.content => Err(self.wrong("has no content; give it a text")),
            _ => Ok(()),
        }
    }

    fn add_to_item<'a>(&mut self, item: &mut Item<'a>, key: Text<'a>, cursor: &mut Cursor<'a>) -> Result<(), Error> {
        let name = key.decode()?;
        let is_null = cursor.peek()? == b'n';
        match &*name {
            "type" if is_null && item.kind.is_none() => self.member(key, &name, cursor),
            "type" if item.kind.is_none() && cursor.peek()? == b'"' => {
                self.key(key);
                item.kind = Some(self.add_name(cursor)?);
                Ok(())
            }
            "type" => Err(self.wrong("must have one type, a string")),
            "role" if !is_null && cursor.peek()? != b'"' => Err(self.wrong("must have one role, a string")),
            "role" => {
                item.role |= !is_null;
                self.member(key, &name, cursor)
            }
            // What was said, and what a tool has answered.
            "content" | "output" => {
                item.content |= name == "content" && !is_null;
                self.key(key);
                self.add_content(cursor)
            }
            "tools" => {
                self.key(key);
                self.add_given_tools("input", cursor)
            }
            "id" => {
                item.id |= !is_null;
                self.member(key, &name, cursor)
            }
            _ => self.member(key, &name, cursor),
        }
    }

    fn stored(&self) -> Error {
        self.wrong("refers to a stored item, and nothing is stored here; send the item itself, and tell your SDK store: false")
    }

    /// Adds a string and gives what it says.
    fn add_name<'a>(&mut self, cursor: &mut Cursor<'a>) -> Result<Cow<'a, str>, Error> {
        let text = cursor.string()?;
        self.bytes += text.weight + 3;
        text.decode()
    }

    /// Adds `tools` and refuses those that run at the upstream. Gives the list anew where some that nobody asked for were left
    /// out; these weigh nothing.
    pub fn add_offered_tools(&mut self, cursor: &mut Cursor<'_>) -> Result<Option<String>, Error> {
        match cursor.peek()? {
            b'n' => return self.add(cursor).map(|()| None),
            b'[' => {}
            _ => return Err(refused("tools", "tools must be an array of tools")),
        }
        let (mut kept, mut all) = (Vec::new(), true);
        cursor.array(|cursor| {
            let before = *self;
            let (raw, kind) = cursor.slice(|cursor| self.add_tool("tools", cursor))?;
            match kind.starts_with(UNASKED_TOOLS) {
                true => (*self, all) = (before, false),
                false => {
                    check_tool("tools", &kind)?;
                    kept.push(raw);
                }
            }
            Ok(())
        })?;
        Ok((!all).then(|| format!("[{}]", kept.join(","))))
    }

    /// Adds tools that stand within an item or a namespace. None of them is left out.
    fn add_given_tools(&mut self, field: &'static str, cursor: &mut Cursor<'_>) -> Result<(), Error> {
        match cursor.peek()? {
            b'n' => self.add(cursor),
            b'[' => cursor.array(|cursor| check_tool(field, &self.add_tool(field, cursor)?)),
            _ => Err(refused(field, "tools must be an array of tools")),
        }
    }

    /// Adds one tool and gives its type.
    fn add_tool<'a>(&mut self, field: &'static str, cursor: &mut Cursor<'a>) -> Result<Cow<'a, str>, Error> {
        if cursor.peek()? != b'{' {
            return Err(refused(field, "each of the tools must be an object"));
        }
        self.bytes += 2;
        let mut kind: Option<Cow<'a, str>> = None;
        cursor.object(|key, cursor| match &*key.decode()? {
            "type" if kind.is_none() && cursor.peek()? == b'"' => {
                self.key(key);
                kind = Some(self.add_name(cursor)?);
                Ok(())
            }
            "type" => Err(refused(field, "the type of a tool must be one string")),
            // Of a namespace.
            "tools" => {
                self.key(key);
                self.add_given_tools(field, cursor)
            }
            name => self.member(key, name, cursor),
        })?;
        kind.ok_or_else(|| refused(field, "each of the tools must have a type, such as \"function\""))
    }
}

fn check_tool(field: &'static str, kind: &str) -> Result<(), Error> {
    match is_caller_run(kind) {
        true => Ok(()),
        false => Err(server_tool(field, &kind.chars().take(40).collect::<String>())),
    }
}
