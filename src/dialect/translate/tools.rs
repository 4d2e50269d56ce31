//! The tools of a request, read in the words of all three dialects, and by which names an upstream knows them.

use std::borrow::Cow;
use std::collections::HashSet;

use super::value::{Object, Value, Wrong, quoted};

/// A tool that the caller runs.
#[derive(Debug)]
pub(super) struct Tool<'a> {
    /// As the upstream knows it.
    pub sent_as: Cow<'a, str>,
    pub description: Option<Cow<'a, str>>,
    pub takes: Takes<'a>,
    pub strict: Option<bool>,
    /// The caller's `cache_control`, as it is written.
    pub cache: Option<&'a str>,
}

/// What a tool is called with.
#[derive(Debug)]
pub(super) enum Takes<'a> {
    /// An object of this JSON schema, or nothing.
    Object(Option<Value<'a>>),
    /// Free text. Upstreams are told of an object with the text as its one member, `input`.
    Text,
}

/// Which tools the model has to call.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Choice<'a> {
    Auto,
    None,
    Required,
    /// This one, as the upstream knows it.
    Tool(Cow<'a, str>),
}

/// The name under which an upstream knows a tool of a namespace, as `mcp__server__tool`.
pub(super) fn sent_as<'a>(namespace: Option<&str>, name: Cow<'a, str>) -> Cow<'a, str> {
    match namespace {
        None | Some("") => name,
        Some(namespace) => format!("{}__{name}", namespace.trim_end_matches('_')).into(),
    }
}

/// Reads tools in whatever dialect.
pub(super) fn read<'a>(tools: &[Value<'a>]) -> Result<Vec<Tool<'a>>, Wrong> {
    let mut found: Vec<Tool<'a>> = Vec::new();
    for (n, tool) in tools.iter().enumerate() {
        let within = |wrong: Wrong| Wrong(format!("[{n}]{}", wrong.0));
        let tool = tool.object().ok_or_else(|| within(Wrong(" must be an object".into())))?;
        one(&tool, None, &mut found).map_err(within)?;
    }
    let mut names: Vec<&str> = found.iter().map(|tool| &*tool.sent_as).collect();
    names.sort_unstable();
    match names.windows(2).find(|pair| pair[0] == pair[1]) {
        Some(pair) => Err(Wrong(format!(" has two tools that this model would know as {}; rename one", quoted(pair[0])))),
        None => Ok(found),
    }
}

fn one<'a>(tool: &Object<'a>, namespace: Option<&Cow<'a, str>>, found: &mut Vec<Tool<'a>>) -> Result<(), Wrong> {
    let kind = tool.text("type")?.unwrap_or_else(|| "function".into());
    match &*kind {
        "namespace" if namespace.is_none() => {
            let name = tool.needs_text("name")?;
            for inner in tool.list("tools")? {
                let inner = inner.object().ok_or_else(|| Wrong(".tools must be objects".into()))?;
                one(&inner, Some(&name), found)?;
            }
        }
        "function" => {
            let inner = tool.object("function")?;
            let parameters = if inner.is_some() { "parameters" } else { parameters_name(tool) };
            found.push(function(tool, inner.as_ref().unwrap_or(tool), parameters, namespace)?);
        }
        "custom" if tool.get("input_schema").is_some() => found.push(function(tool, tool, "input_schema", namespace)?),
        "custom" => {
            let inner = tool.object("custom")?;
            found.push(free(inner.as_ref().unwrap_or(tool), namespace)?);
        }
        // Codex offers the first always and the second with some models; both can do without. Neither reaches an upstream.
        "tool_search" => {}
        kind if kind.starts_with("web_search") => {}
        kind => {
            return Err(Wrong(format!(
                " is of type {}, which this model does not know; send functions with a name and a schema",
                quoted(kind)
            )));
        }
    }
    Ok(())
}

/// Anthropic's tools have no type, and their own name for the schema.
fn parameters_name(tool: &Object<'_>) -> &'static str {
    if tool.get("input_schema").is_some() { "input_schema" } else { "parameters" }
}

fn function<'a>(
    tool: &Object<'a>,
    inner: &Object<'a>,
    parameters: &'static str,
    namespace: Option<&Cow<'a, str>>,
) -> Result<Tool<'a>, Wrong> {
    let schema = inner.get(parameters);
    if let Some(schema) = schema {
        let typed = schema.object().ok_or_else(|| Wrong(format!(".{parameters} must be an object")))?.get("type");
        if typed.is_some_and(|typed| typed.text().as_deref() != Some("object")) {
            return Err(Wrong(format!(".{parameters} must be a schema of type \"object\"")));
        }
    }
    Ok(Tool {
        sent_as: sent_as(namespace.map(|space| &**space), inner.needs_text("name")?),
        description: inner.text("description")?,
        takes: Takes::Object(schema),
        strict: inner.get("strict").map(Value::is_true),
        cache: tool.get("cache_control").or_else(|| inner.get("cache_control")).map(Value::raw),
    })
}

/// A tool that takes free text; the grammar of that text is told in the description.
fn free<'a>(tool: &Object<'a>, namespace: Option<&Cow<'a, str>>) -> Result<Tool<'a>, Wrong> {
    let mut description = tool.text("description")?;
    let format = tool.object("format")?.unwrap_or_default();
    // Chat has the grammar one level deeper than responses.
    let grammar = format.object("grammar")?.unwrap_or(format);
    if let Some(definition) = grammar.text("definition")? {
        let syntax = grammar.text("syntax")?.unwrap_or_default();
        let before = description.map(|text| text.into_owned() + "\n\n").unwrap_or_default();
        description = Some(format!("{before}Its input follows this {syntax} grammar:\n{definition}").into());
    }
    Ok(Tool {
        sent_as: sent_as(namespace.map(|space| &**space), tool.needs_text("name")?),
        description,
        takes: Takes::Text,
        strict: None,
        cache: None,
    })
}

/// Reads `tool_choice` in whatever dialect. A choice among some tools leaves only those in `tools`.
pub(super) fn choice<'a>(value: Option<Value<'a>>, tools: &mut Vec<Tool<'a>>) -> Result<Option<Choice<'a>>, Wrong> {
    let Some(value) = value else { return Ok(None) };
    let Some(object) = value.object() else {
        let word = value.text().ok_or_else(|| Wrong(" must be a word or an object".into()))?;
        return mode(&word).map(Some);
    };
    match &*object.needs_text("type")? {
        "function" | "tool" | "custom" => Ok(Some(Choice::Tool(chosen(&object)?))),
        "allowed_tools" => {
            let allowed = object.object("allowed_tools")?.unwrap_or(object);
            let mut names = HashSet::new();
            for tool in allowed.list("tools")? {
                let tool = tool.object().ok_or_else(|| Wrong(".tools must be objects".into()))?;
                names.insert(chosen(&tool)?);
            }
            tools.retain(|tool| names.contains(&tool.sent_as));
            mode(&allowed.text("mode")?.unwrap_or_else(|| "auto".into())).map(Some)
        }
        word => mode(word).map(Some),
    }
}

fn mode<'a>(word: &str) -> Result<Choice<'a>, Wrong> {
    match word {
        "auto" => Ok(Choice::Auto),
        "none" => Ok(Choice::None),
        "required" | "any" => Ok(Choice::Required),
        word => {
            let word = quoted(word);
            Err(Wrong(format!(" is {word}, which this model does not know; send auto, none, required or one of the tools")))
        }
    }
}

fn chosen<'a>(object: &Object<'a>) -> Result<Cow<'a, str>, Wrong> {
    let inner = ["function", "custom"].iter().find_map(|name| object.get(name)).and_then(Value::object);
    let object = inner.as_ref().unwrap_or(object);
    Ok(sent_as(object.text("namespace")?.as_deref(), object.needs_text("name")?))
}
