//! One bad input: what is sent, what must come back, and the values that its placeholders stand for.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use serde::Deserialize;
use serde_json::{Map, Value};

/// One row of `cases.json`, whose head says what each field means.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Case {
    pub id: String,
    pub group: String,
    #[serde(default)]
    pub route: String,
    #[serde(default)]
    pub method: String,
    #[serde(default)]
    pub headers: Map<String, Value>,
    #[serde(default)]
    pub body: Value,
    pub expect_status: Vec<u16>,
    #[serde(default)]
    pub expect_code: Value,
    pub shape: Shape,
    pub why: String,
    /// The x402 reason of a payment that is refused.
    pub reason: Option<String>,
    changed: Option<String>,
    #[serde(default)]
    added: bool,
    pub wire: Option<String>,
    #[serde(default)]
    pub not_http: bool,
    pub upstream: Option<Value>,
    charge: Option<Value>,
    #[serde(default)]
    pub settled: bool,
    #[serde(default)]
    pub broken: bool,
    #[serde(default)]
    pub absent: Vec<String>,
    #[serde(default)]
    pub not_forwarded: Vec<String>,
    pub answers: Option<Vec<u16>>,
    pub server: Option<String>,
    pub later: Option<String>,
    pub held_by: Option<String>,
    /// So many requests, of which some are answered with `expect_some_status`.
    pub repeat: Option<usize>,
    pub expect_some_status: Option<u16>,
}

#[derive(Clone, Copy, Debug, Deserialize, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
pub enum Shape {
    OpenAi,
    Anthropic,
    Plain,
    TopUp,
    None,
}

/// What a served call costs when its upstream reports 20 tokens in and 7 out.
pub const CHARGE: u64 = 165;

impl Case {
    /// All cases, in the order of the file.
    pub fn all() -> Vec<Case> {
        #[derive(Deserialize)]
        struct File {
            cases: Vec<Case>,
        }
        serde_json::from_str::<File>(include_str!("cases.json")).expect("cases.json is a list of cases").cases
    }

    /// Whether it runs on a server of the usual kind.
    pub fn is_common(&self) -> bool {
        self.later.is_none() && self.held_by.is_none() && self.server.is_none()
    }

    pub fn expects(&self, status: u16, code: Option<&str>) -> bool {
        let fits = |expected: &Value| expected.as_str() == code || (status == 200 && expected.is_null());
        let code_fits = match &self.expect_code {
            Value::Null => true,
            Value::Array(any) => any.iter().any(fits),
            one => fits(one),
        };
        self.expect_status.contains(&status) && code_fits
    }

    /// What it is for and where it comes from.
    pub fn about(&self) -> String {
        let origin = self.changed.as_deref().unwrap_or(if self.added { "our own" } else { "as in the original" });
        format!("{} [{}] ({}; {origin})", self.id, self.group, self.why)
    }

    /// The least and the most that serving it may cost, in micros.
    pub fn charge(&self) -> (u64, u64) {
        let number = |value: &Value| value.as_u64().expect("charges are whole micros");
        match &self.charge {
            None => (CHARGE, CHARGE),
            Some(Value::Array(range)) => (number(&range[0]), number(&range[1])),
            Some(exact) => (number(exact), number(exact)),
        }
    }
}

/// What `{{NAMES}}` stand for.
#[derive(Clone, Debug, Default)]
pub struct Names(HashMap<String, String>);

impl Names {
    pub fn set(&mut self, name: &str, value: impl ToString) {
        self.0.insert(name.to_owned(), value.to_string());
    }

    /// Panics on a name that nobody set: a case that sends `{{TYPO}}` tests nothing.
    fn value(&self, name: &str) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970");
        if name == "NOW_MS" {
            return now.as_millis().to_string();
        }
        if let Some(offset) = name.strip_prefix("NOW") {
            let offset: i64 = if offset.is_empty() { 0 } else { offset.parse().expect("NOW, NOW+n or NOW-n") };
            return now.as_secs().checked_add_signed(offset).expect("near now").to_string();
        }
        self.0.get(name).unwrap_or_else(|| panic!("no value for {{{{{name}}}}}")).clone()
    }

    pub fn fill(&self, text: &str) -> String {
        let mut filled = String::with_capacity(text.len());
        let mut rest = text;
        while let Some((before, after)) = rest.split_once("{{") {
            let Some((name, tail)) = after.split_once("}}") else { break };
            filled.push_str(before);
            filled.push_str(&self.value(name));
            rest = tail;
        }
        filled.push_str(rest);
        filled
    }

    /// Fills every text of a value, and puts what its generators make in their places.
    pub fn fill_value(&self, value: &Value) -> Value {
        match value {
            Value::String(text) => self.fill(text).into(),
            Value::Array(items) => items.iter().map(|item| self.fill_value(item)).collect(),
            Value::Object(fields) => match fields.get("gen").and_then(Value::as_str) {
                Some("repeat") => self.fill(text(fields, "unit")).repeat(count(fields)).into(),
                Some("repeat_list") => vec![self.fill_value(&fields["item"]); count(fields)].into(),
                _ => fields.iter().map(|(name, value)| (name.clone(), self.fill_value(value))).collect::<Map<_, _>>().into(),
            },
            other => other.clone(),
        }
    }
}

pub fn text<'a>(fields: &'a Map<String, Value>, name: &str) -> &'a str {
    fields.get(name).and_then(Value::as_str).unwrap_or_else(|| panic!("{name} is missing in {fields:?}"))
}

pub fn count(fields: &Map<String, Value>) -> usize {
    let count = fields.get("count").or(fields.get("bytes")).or(fields.get("depth")).and_then(Value::as_u64);
    usize::try_from(count.unwrap_or_else(|| panic!("no count in {fields:?}"))).expect("it fits")
}
