//! Words that a call asks to buy: read once, said once in the dialect of the upstream that is to serve them, and kept for that.

use bytes::Bytes;

use super::request::Size;
use super::translate::{self, Terms, Wishes};
use super::{Dialect, Goods, LimitField, Request};
use crate::catalogue::Model;
use crate::error::Error;
use crate::tariff::Bound;

/// How an upstream wants to be asked.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Asking {
    /// What it serves: what was asked for, or the same in another dialect.
    pub form: Goods,
    /// What it calls the model.
    pub model: String,
    /// Where it takes the output limit.
    pub field: LimitField,
}

impl Asking {
    /// Whether what is written for the one weighs as much as what is written for the other.
    fn is_written_as(&self, other: &Asking) -> bool {
        self.form == other.form && translate::writes_alike(self.form.dialect(), &self.model, &other.model)
    }
}

/// A request for words.
pub struct Words<'a> {
    request: Request<'a>,
    body: Bytes,
    said: Vec<Said>,
    wishes: Wishes,
}

/// The same request in another dialect.
struct Said {
    asking: Asking,
    output_limit: u32,
    /// How much goes into it there.
    size: Size,
    /// Only of the first in each dialect, for it may be large.
    body: Option<Bytes>,
}

impl<'a> Words<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// As [`Request::read`].
    pub fn read(dialect: Dialect, body: &'a Bytes) -> Result<Words<'a>, Error> {
        let request = Request::read(dialect, body)?;
        Ok(Words { request, body: body.clone(), said: Vec::new(), wishes: Wishes::default() })
    }

    /// The same, which may go to another thread.
    pub fn detached(self) -> Words<'static> {
        let Words { request, body, said, wishes } = self;
        Words { request: request.detached(&body), body, said, wishes }
    }

    pub fn request(&self) -> &Request<'a> {
        &self.request
    }

    /// Says it in the dialects of those who do not speak its own; to be asked before a price is named. Who cannot be told is
    /// left out.
    ///
    /// # Errors
    /// [`crate::error::Code::InvalidRequest`], naming the field, where nobody can be told.
    pub fn say(mut self, askings: &[Asking], model: &Model) -> Result<Words<'a>, Error> {
        let own = Goods::Words(self.request.dialect());
        let (mut refused, mut is_told) = (None, false);
        for asking in askings {
            if asking.form == own {
                is_told = true;
                continue;
            }
            if self.said.iter().any(|said| said.asking.is_written_as(asking)) {
                continue;
            }
            let output_limit = self.request.output_limit(model);
            match self.unsaid(asking, output_limit).weighed() {
                Ok((body, size)) => {
                    is_told = true;
                    let is_first = self.said.iter().all(|said| said.asking.form != asking.form);
                    let body = is_first.then_some(body);
                    self.said.push(Said { asking: asking.clone(), output_limit, size, body });
                }
                Err(error) => _ = refused.get_or_insert(error),
            }
        }
        if !self.said.is_empty() {
            self.wishes = Wishes::read(self.request.dialect(), &self.body);
        }
        match refused {
            Some(error) if !is_told => Err(error),
            _ => Ok(self),
        }
    }

    /// The most it can use, in whichever of its dialects that is most.
    pub fn bound(&self, model: &Model) -> Bound {
        let bound = self.request.bound(model);
        self.said.iter().fold(bound, |bound, said| Bound {
            input: bound.input.max(said.size.input(model)),
            cache: bound.cache.max(said.size.cache()),
            ..bound
        })
    }

    /// How its caller wants an answer written that comes in another dialect.
    pub fn wishes(&self) -> &Wishes {
        &self.wishes
    }

    /// The body for an upstream. What was said before is not said again, and what has to be said is left for the caller of this
    /// to say where it keeps nobody waiting.
    pub fn forward(&self, asking: &Asking, output_limit: u32) -> Forward {
        if asking.form == Goods::Words(self.request.dialect()) {
            return Forward::Here(self.request.forward(&asking.model, output_limit, asking.field));
        }
        let fitting = self.said.iter().find(|said| said.asking == *asking && said.output_limit == output_limit);
        match fitting.and_then(|said| said.body.clone()) {
            Some(body) => Forward::Here(body),
            None => Forward::Unsaid(self.unsaid(asking, output_limit)),
        }
    }

    fn unsaid(&self, asking: &Asking, output_limit: u32) -> Unsaid {
        let (from, stream) = (self.request.dialect(), self.request.stream());
        Unsaid { from, body: self.body.clone(), asking: asking.clone(), output_limit, stream }
    }
}

/// The body for an upstream.
pub enum Forward {
    /// As it is sent.
    Here(Bytes),
    /// It has yet to be said.
    Unsaid(Unsaid),
}

/// A body that has yet to be said in an upstream's dialect, which takes as long as it is large. It can go to another thread.
pub struct Unsaid {
    from: Dialect,
    body: Bytes,
    asking: Asking,
    output_limit: u32,
    stream: bool,
}

impl Unsaid {
    /// Bytes that are to be said.
    pub fn length(&self) -> usize {
        self.body.len()
    }

    /// Says it.
    ///
    /// # Errors
    /// [`crate::error::Code::InvalidRequest`], naming the field, for what cannot be said in that dialect.
    pub fn say(&self) -> Result<Bytes, Error> {
        self.weighed().map(|(body, _)| body)
    }

    fn weighed(&self) -> Result<(Bytes, Size), Error> {
        let Asking { form, model, field } = &self.asking;
        let terms = Terms { model, output_limit: self.output_limit, limit_field: *field, stream: self.stream };
        translate::weighed(self.from, form.dialect(), &self.body, &terms)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn model() -> Model {
        Model::plain("m")
    }

    fn read(body: &Bytes) -> Words<'_> {
        Words::read(Dialect::Chat, body).unwrap_or_else(|error| panic!("{error}"))
    }

    fn asking(model: &str) -> Asking {
        Asking { form: Goods::Words(Dialect::Messages), model: model.into(), field: LimitField::MaxTokens }
    }

    #[test]
    fn what_nobody_has_said_yet_is_not_said_on_the_way_to_the_upstream() {
        let body = json!({ "model": "m", "max_tokens": 300, "messages": [{ "role": "user", "content": "hello" }] });
        let body = Bytes::from(body.to_string());
        let words = read(&body).say(&[asking("claude")], &model()).unwrap_or_else(|error| panic!("{error}"));
        assert!(matches!(words.forward(&asking("claude"), 300), Forward::Here(_)));
        for (model, limit) in [("claude", 200), ("other/claude", 300)] {
            let Forward::Unsaid(unsaid) = words.forward(&asking(model), limit) else { panic!("{model} {limit} was said") };
            let said: Value = serde_json::from_slice(&unsaid.say().unwrap_or_else(|error| panic!("{error}"))).unwrap();
            assert_eq!((&said["model"], &said["max_tokens"]), (&json!(model), &json!(limit)));
        }
    }

    #[test]
    fn the_bound_is_the_same_in_whichever_order_its_upstreams_stand() {
        let body = json!({ "model": "m", "max_tokens": 4000, "temperature": 0.7, "reasoning_effort": "high",
            "messages": [{ "role": "user", "content": "hello" }] });
        let body = Bytes::from(body.to_string());
        let bound =
            |askings: &[Asking]| read(&body).say(askings, &model()).unwrap_or_else(|error| panic!("{error}")).bound(&model());
        let alone = ["claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-5"].map(|model| bound(&[asking(model)]));
        assert!(alone.iter().any(|other| *other != alone[0]), "generations are asked in words of other lengths");
        let mut askings = ["claude-sonnet-4-5", "claude-opus-4-6", "claude-opus-5"].map(asking);
        let all = bound(&askings);
        assert_eq!(Some(all.input), alone.iter().map(|bound| bound.input).max());
        for _ in 0..3 {
            askings.rotate_left(1);
            assert_eq!(bound(&askings), all);
        }
    }
}
