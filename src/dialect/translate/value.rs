//! A JSON value where it lies in a body: looked at one level at a time, and copied only where it has escapes.

use std::borrow::Cow;

use serde_json::value::RawValue;

use super::super::cursor::Cursor;
use super::super::fields::refused;
use super::super::weigh::Weight;
use crate::error::{Code, Error};

/// Levels above a value that is moved into another body: more than either dialect has above the input of a tool.
const LEVELS_ABOVE: u8 = 16;
/// Objects and arrays of one body, and items of one of them. A part of a conversation takes some hundred bytes of memory while
/// it is translated, however few it has in the body.
const MAX_ITEMS: usize = 250_000;

/// What is wrong with a part of a request. It goes on where the name of the place ends: `.role must be …` or ` has no …`.
#[derive(Debug)]
pub(super) struct Wrong(pub String);

impl Wrong {
    /// The refusal, with the place that is at fault and the top-level field it stands in.
    pub fn at(self, param: &'static str, place: impl std::fmt::Display) -> Error {
        refused(param, format!("{place}{}", self.0))
    }
}

/// A value in JSON text that was checked.
#[derive(Clone, Copy, Debug)]
pub(super) struct Value<'a>(&'a str);

impl<'a> Value<'a> {
    /// The value that a whole body is.
    ///
    /// # Errors
    /// [`Code::InvalidJson`] when it is not one, or is nested too deeply, or has half a surrogate pair;
    /// [`Code::InvalidRequest`] when it has more parts than anybody says.
    pub fn read(body: &'a [u8]) -> Result<Value<'a>, Error> {
        let broken = || Error::new(Code::InvalidJson, "the body is not JSON; send one JSON object in UTF-8");
        let text = std::str::from_utf8(body).map_err(|_| broken())?;
        serde_json::from_str::<&RawValue>(text).map_err(|_| broken())?;
        let mut cursor = Cursor::new(text);
        let (raw, ()) = cursor.slice(|cursor| Weight::default().add(cursor))?;
        if cursor.entered() > MAX_ITEMS {
            return Err(Error::new(
                Code::InvalidRequest,
                format!(
                    "the body has more than {MAX_ITEMS} objects and arrays, too many for this model; shorten the conversation"
                ),
            ));
        }
        Ok(Value(raw))
    }

    /// An object in JSON that stands in a string, if it can be moved into another body as it is.
    pub fn embedded_object(text: &'a str) -> Option<Value<'a>> {
        let text = text.trim_ascii();
        serde_json::from_str::<&RawValue>(text).ok().filter(|_| text.starts_with('{'))?;
        Weight::default().add(&mut Cursor::inside(text, LEVELS_ABOVE)).ok()?;
        Some(Value(text))
    }

    /// The value as it is written.
    pub fn raw(self) -> &'a str {
        self.0
    }

    pub fn is_true(self) -> bool {
        self.0 == "true"
    }

    pub fn is_object(self) -> bool {
        self.0.starts_with('{')
    }

    pub fn is_number(self) -> bool {
        self.0.starts_with(|first: char| first == '-' || first.is_ascii_digit())
    }

    pub fn text(self) -> Option<Cow<'a, str>> {
        Cursor::new(self.0).string().and_then(super::super::cursor::Text::decode).ok()
    }

    pub fn object(self) -> Option<Object<'a>> {
        let mut members = Vec::new();
        Cursor::new(self.0)
            .object(|key, cursor| {
                let name = key.decode()?;
                let (raw, ()) = cursor.slice(|cursor| Weight::default().add(cursor))?;
                members.push((name, Value(raw)));
                few(members.len())
            })
            .ok()?;
        Some(Object { members })
    }

    pub fn list(self) -> Option<Vec<Value<'a>>> {
        let mut items = Vec::new();
        Cursor::new(self.0)
            .array(|cursor| {
                let (raw, ()) = cursor.slice(|cursor| Weight::default().add(cursor))?;
                items.push(Value(raw));
                few(items.len())
            })
            .ok()?;
        Some(items)
    }
}

fn few(items: usize) -> Result<(), Error> {
    if items > MAX_ITEMS { Err(Error::new(Code::InvalidRequest, "too many items")) } else { Ok(()) }
}

/// An object. A member that is null is one that is not there.
#[derive(Debug, Default)]
pub(super) struct Object<'a> {
    members: Vec<(Cow<'a, str>, Value<'a>)>,
}

impl<'a> Object<'a> {
    /// A member; of two with the same name the last, as other readers of JSON have it.
    pub fn get(&self, name: &str) -> Option<Value<'a>> {
        let last = self.members.iter().rev().find(|(known, _)| known == name);
        last.map(|(_, value)| *value).filter(|value| value.0 != "null")
    }

    /// All that are there, in order.
    pub fn members(&self) -> impl Iterator<Item = (&str, Value<'a>)> {
        self.members.iter().map(|(name, value)| (&**name, *value)).filter(|(_, value)| value.0 != "null")
    }

    pub fn text(&self, name: &str) -> Result<Option<Cow<'a, str>>, Wrong> {
        let text = |value: Value<'a>| value.text().ok_or_else(|| Wrong(format!(".{name} must be a string")));
        self.get(name).map(text).transpose()
    }

    pub fn needs_text(&self, name: &str) -> Result<Cow<'a, str>, Wrong> {
        self.text(name)?.ok_or_else(|| Wrong(format!(" has no {name}; give it one, a string")))
    }

    pub fn object(&self, name: &str) -> Result<Option<Object<'a>>, Wrong> {
        let object = |value: Value<'a>| value.object().ok_or_else(|| Wrong(format!(".{name} must be an object")));
        self.get(name).map(object).transpose()
    }

    /// The items of a list that may be missing.
    pub fn list(&self, name: &str) -> Result<Vec<Value<'a>>, Wrong> {
        let list = |value: Value<'a>| value.list().ok_or_else(|| Wrong(format!(".{name} must be an array")));
        self.get(name).map_or(Ok(Vec::new()), list)
    }

    /// A number as it is written, so that it keeps all its digits.
    pub fn number(&self, name: &str) -> Result<Option<&'a str>, Wrong> {
        let number = |value: Value<'a>| value.is_number().then_some(value.0);
        self.get(name).map(|value| number(value).ok_or_else(|| Wrong(format!(".{name} must be a number")))).transpose()
    }
}

/// What a caller wrote, as far as it is short, to be said back.
pub(super) fn quoted(text: &str) -> String {
    format!("{:?}", text.chars().take(40).collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_read_where_it_lies_and_the_last_of_two_members_counts() {
        let value = Value::read(br#" {"a":"x","\u0061":"y\n","b":null,"c":[1, {"d":2.50}]} "#).unwrap().object().unwrap();
        assert_eq!(value.text("a").unwrap().unwrap(), "y\n");
        assert!(value.get("b").is_none() && value.text("b").unwrap().is_none());
        let list = value.list("c").unwrap();
        assert_eq!(list[1].object().unwrap().number("d").unwrap(), Some("2.50"));
        assert_eq!(value.text("c").unwrap_err().0, ".c must be a string");
    }

    #[test]
    fn nobody_says_so_much_that_memory_runs_out() {
        let list = |item: &str, times| format!("[{}]", vec![item; times].join(","));
        assert!(Value::read(list("{}", MAX_ITEMS - 1).as_bytes()).is_ok());
        let error = Value::read(list("{}", MAX_ITEMS).as_bytes()).unwrap_err();
        assert_eq!(error.code, Code::InvalidRequest);
        assert!(Value::read(list("1", MAX_ITEMS + 1).as_bytes()).unwrap().list().is_none());
        let object = list("\"a\":1", MAX_ITEMS + 1).replace('[', "{").replace(']', "}");
        assert!(Value::read(object.as_bytes()).unwrap().object().is_none());
    }

    #[test]
    fn only_an_object_that_fits_is_moved_into_another_body() {
        let deep = |depth| format!("{}1{}", "{\"a\":".repeat(depth), "}".repeat(depth));
        for (text, fits) in [
            (" {\"a\":1}\n".to_owned(), true),
            ("[1]".into(), false),
            ("{\"a\":".into(), false),
            ("{} {}".into(), false),
            (r#"{"a":"\ud800"}"#.into(), false),
            (deep(112), true),
            (deep(113), false),
        ] {
            assert_eq!(Value::embedded_object(&text).is_some(), fits, "{text}");
        }
    }
}
