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
    body: Bytes,
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
            let output_limit = self.request.output_limit(model);
            match self.translate(&asking.model, asking.form.dialect(), output_limit, asking.field) {
                Ok((body, size)) => {
                    is_told = true;
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

    /// The body for an upstream. What was said before is not said again.
    ///
    /// # Errors
    /// [`crate::error::Code::InvalidRequest`], naming the field, for what cannot be said in that dialect.
    pub fn forward(&self, form: Goods, model: &str, output_limit: u32, field: LimitField) -> Result<Bytes, Error> {
        if form == Goods::Words(self.request.dialect()) {
            return Ok(self.request.forward(model, output_limit, field));
        }
        let fits = |said: &&Said| {
            let Asking { form: told, model: named, field: taken } = &said.asking;
            (told, named.as_str(), *taken, said.output_limit) == (&form, model, field, output_limit)
        };
        match self.said.iter().find(fits) {
            Some(said) => Ok(said.body.clone()),
            None => self.translate(model, form.dialect(), output_limit, field).map(|(body, _)| body),
        }
    }

    fn translate(&self, model: &str, to: Dialect, output_limit: u32, field: LimitField) -> Result<(Bytes, Size), Error> {
        let terms = Terms { model, output_limit, limit_field: field, stream: self.request.stream() };
        translate::weighed(self.request.dialect(), to, &self.body, &terms)
    }
}
