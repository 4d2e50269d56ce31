//! How a caller wants its answer written, as far as its request says: whether thinking is shown or sealed, and the names of tools.

use std::borrow::Cow;
use std::fmt;

use serde::de::{SeqAccess, Visitor};
use serde::{Deserialize, Deserializer};
use serde_json::Value;
use serde_json::value::RawValue;

use super::super::Dialect;

/// What of a request decides how the answer to it is written.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Wishes {
    /// A caller of messages asked to see thinking. Without that it gets none: its program may take the first block for text.
    pub thinking: bool,
    /// A caller of responses asked for `reasoning.encrypted_content`, with which it can send thinking back.
    pub sealed_reasoning: bool,
    /// Tools that the upstream knows in another form than the caller.
    pub tools: Vec<Renamed>,
    /// A caller of chat offers functions, as was done before there were tools: it looks for calls in another place.
    pub functions: bool,
}

/// A tool of the caller that an upstream knows in another form: its calls are to be written back as the caller's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Renamed {
    /// Its name at the upstream.
    pub sent_as: String,
    /// Its name with the caller.
    pub name: String,
    /// The caller's namespace that it belongs to.
    pub namespace: Option<String>,
    /// It takes free text, which the upstream gives as the member `input` of its arguments.
    pub custom: bool,
}

#[derive(Deserialize)]
struct Thinking {
    #[serde(default)]
    thinking: Kind,
}

#[derive(Deserialize, Default)]
struct Kind {
    #[serde(rename = "type")]
    kind: Option<String>,
}

#[derive(Deserialize)]
struct Functions<'a> {
    #[serde(borrow)]
    functions: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Fields {
    #[serde(default)]
    include: Include,
    #[serde(default)]
    tools: Value,
}

/// A list of names, of which only one is of interest: none is kept, however many there are.
#[derive(Default)]
struct Include {
    sealed: bool,
}

impl<'de> Deserialize<'de> for Include {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Names;
        impl<'de> Visitor<'de> for Names {
            type Value = Include;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list of names")
            }

            fn visit_unit<E>(self) -> Result<Include, E> {
                Ok(Include::default())
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut names: A) -> Result<Include, A::Error> {
                let mut include = Include::default();
                while let Some(name) = names.next_element::<Cow<'de, str>>()? {
                    include.sealed |= name == "reasoning.encrypted_content";
                }
                Ok(include)
            }
        }
        deserializer.deserialize_any(Names)
    }
}

impl Wishes {
    /// Reads the caller's body. What is not as it should be wishes nothing.
    pub fn read(caller: Dialect, body: &[u8]) -> Wishes {
        match caller {
            Dialect::Chat => {
                let offers = serde_json::from_slice::<Functions<'_>>(body).is_ok_and(|body| body.functions.is_some());
                Wishes { functions: offers, ..Wishes::default() }
            }
            Dialect::Messages => {
                let kind = serde_json::from_slice::<Thinking>(body).ok().and_then(|body| body.thinking.kind);
                Wishes { thinking: matches!(kind.as_deref(), Some("enabled" | "adaptive")), ..Wishes::default() }
            }
            Dialect::Responses => {
                let Ok(Fields { include, tools }) = serde_json::from_slice(body) else { return Wishes::default() };
                Wishes { sealed_reasoning: include.sealed, tools: renamed(&tools, None), ..Wishes::default() }
            }
        }
    }

    /// The tool that the upstream knows under this name, if it is a special one.
    pub(super) fn tool(&self, sent_as: &str) -> Option<&Renamed> {
        self.tools.iter().find(|tool| tool.sent_as == sent_as)
    }
}

/// The tools with free text, and those of namespaces; the upstream knows these as `mcp__server__tool`.
fn renamed(tools: &Value, namespace: Option<&str>) -> Vec<Renamed> {
    let mut found = Vec::new();
    for tool in tools.as_array().into_iter().flatten() {
        let (kind, Some(name)) = (tool["type"].as_str(), tool["name"].as_str()) else { continue };
        match kind {
            Some("namespace") if namespace.is_none() => found.extend(renamed(&tool["tools"], Some(name))),
            Some("custom" | "function") if kind == Some("custom") || namespace.is_some() => {
                let sent_as = namespace.map(|space| format!("{}__{name}", space.trim_end_matches('_')));
                let (sent_as, name) = (sent_as.unwrap_or_else(|| name.to_owned()), name.to_owned());
                let namespace = namespace.map(str::to_owned);
                found.push(Renamed { sent_as, name, namespace, custom: kind == Some("custom") });
            }
            _ => {}
        }
    }
    found
}

/// The text that a tool with free text was called with.
pub(super) fn free_text(arguments: &str) -> String {
    #[derive(Deserialize)]
    struct Arguments {
        input: String,
    }
    // A model that does not keep to the form has written the text itself.
    serde_json::from_str::<Arguments>(arguments).map_or_else(|_| arguments.to_owned(), |arguments| arguments.input)
}

#[cfg(test)]
mod tests;
