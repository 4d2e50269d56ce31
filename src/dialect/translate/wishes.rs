//! How a caller wants its answer written, as far as its request says: whether thinking is shown or sealed, and the names of tools.

use serde::Deserialize;
use serde_json::Value;

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
struct Fields {
    #[serde(default)]
    thinking: Value,
    #[serde(default)]
    include: Value,
    #[serde(default)]
    tools: Value,
}

impl Wishes {
    /// Reads the caller's body. What is not as it should be wishes nothing.
    pub fn read(caller: Dialect, body: &[u8]) -> Wishes {
        let Ok(Fields { thinking, include, tools }) = serde_json::from_slice(body) else { return Wishes::default() };
        match caller {
            Dialect::Chat => Wishes::default(),
            Dialect::Messages => {
                let thinking = matches!(thinking["type"].as_str(), Some("enabled" | "adaptive"));
                Wishes { thinking, ..Wishes::default() }
            }
            Dialect::Responses => {
                let asks = |name: &Value| name == "reasoning.encrypted_content";
                let sealed_reasoning = include.as_array().is_some_and(|list| list.iter().any(asks));
                Wishes { sealed_reasoning, tools: renamed(&tools, None), ..Wishes::default() }
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
