//! What a call asks to buy, words or media: how much it can use at most, how it is forwarded, and how its answer is measured.

use std::borrow::Cow;

use bytes::Bytes;

use super::media::{self, Task};
use super::meter::{Meter, Pass};
use super::sse::Event;
use super::usage::Metered;
use super::{Dialect, LimitField, Request};
use crate::catalogue::{Catalogue, Kind, Model};
use crate::error::{Code, Error};
use crate::tariff::Bound;

/// What a paid route sells.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Goods {
    Words(Dialect),
    Media(Task),
}

impl Goods {
    /// Below the prefix under which it is sold, and below `/v1` at an upstream.
    pub fn path(self) -> &'static str {
        match self {
            Goods::Words(dialect) => dialect.path().trim_start_matches("/v1"),
            Goods::Media(task) => task.row().path,
        }
    }

    /// The language of its events.
    pub fn dialect(self) -> Dialect {
        match self {
            Goods::Words(dialect) => dialect,
            Goods::Media(_) => Dialect::Chat,
        }
    }

    /// Whether its answer only names a job.
    pub fn is_job(self) -> bool {
        matches!(self, Goods::Media(task) if task.is_job())
    }

    /// Whether a body may come as a form.
    pub fn takes_forms(self) -> bool {
        matches!(self, Goods::Media(task) if task.row().form != media::Form::Json)
    }
}

/// A request that was read and found sellable. It borrows the body.
pub enum Purchase<'a> {
    Words(Request<'a>),
    Media(media::Request<'a>),
}

impl<'a> Purchase<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// As [`Request::read`] and [`media::Request::read`].
    pub fn read(goods: Goods, content_type: &str, body: &'a [u8]) -> Result<Purchase<'a>, Error> {
        match goods {
            Goods::Words(dialect) => Request::read(dialect, body).map(Purchase::Words),
            Goods::Media(task) => media::Request::read(task, content_type, body).map(Purchase::Media),
        }
    }

    /// The model of the catalogue that is meant, with its prices for this request.
    ///
    /// # Errors
    /// [`Code::ModelNotFound`]; [`Code::InvalidRequest`] for a model that is sold on another route, or not in this size.
    pub fn find<'c>(&self, catalogue: &'c Catalogue) -> Result<Cow<'c, Model>, Error> {
        match self {
            Purchase::Words(request) => {
                let model = catalogue.sold(request.model())?;
                match model.kind {
                    Kind::Chat => Ok(Cow::Borrowed(model)),
                    kind => {
                        let message = format!("{} is a model of kind {}, which does not chat", model.id, kind.name());
                        Err(Error::new(Code::InvalidRequest, message).param("model"))
                    }
                }
            }
            Purchase::Media(request) => self.priced(request.find(catalogue)?),
        }
    }

    /// A model with its prices for this request.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] where it is not sold in the size or quality that is asked for.
    pub fn priced<'c>(&self, model: &'c Model) -> Result<Cow<'c, Model>, Error> {
        let Purchase::Media(request) = self else { return Ok(Cow::Borrowed(model)) };
        if request.lacks_length(model) {
            let message = format!("{} is sold by the second; say how long it shall be", model.id);
            return Err(Error::new(Code::InvalidRequest, message).param("duration_seconds"));
        }
        model.priced(request.named()).map_err(|sold| {
            let message = format!("{} is not sold in {}; it is sold in {sold}", model.id, request.named().join(" "));
            Error::new(Code::InvalidRequest, message).param("size")
        })
    }

    /// Whether the answer is asked for as an event stream.
    pub fn stream(&self) -> bool {
        match self {
            Purchase::Words(request) => request.stream(),
            Purchase::Media(request) => request.stream(),
        }
    }

    /// The most it can use.
    pub fn bound(&self, model: &Model) -> Bound {
        match self {
            Purchase::Words(request) => request.bound(model),
            Purchase::Media(request) => request.bound(model),
        }
    }

    /// Whether its hold may be smaller than its quote at first, because its output passes in steps.
    pub fn grows(&self) -> bool {
        matches!(self, Purchase::Words(request) if request.stream())
    }

    /// Of the output that it is bound by, the tokens that may be used before anybody sees any.
    pub fn hidden_output(&self, model: &Model) -> u64 {
        match self {
            Purchase::Words(request) => request.hidden_output(model),
            Purchase::Media(request) => request.bound(model).output,
        }
    }

    /// Tokens each answer may have.
    pub fn output_limit(&self, model: &Model) -> u32 {
        match self {
            Purchase::Words(request) => request.output_limit(model),
            Purchase::Media(_) => model.max_output,
        }
    }

    /// How many answers it asks for.
    pub fn choices(&self) -> u32 {
        match self {
            Purchase::Words(request) => request.choices(),
            Purchase::Media(_) => 1,
        }
    }

    /// The body for an upstream.
    pub fn forward(&self, upstream_model: &str, output_limit: u32, field: LimitField) -> Bytes {
        match self {
            Purchase::Words(request) => request.forward(upstream_model, output_limit, field),
            Purchase::Media(request) => request.forward(upstream_model),
        }
    }

    /// The `Content-Type` of what is forwarded.
    pub fn content_type(&self) -> Cow<'static, str> {
        match self {
            Purchase::Words(_) => Cow::Borrowed("application/json"),
            Purchase::Media(request) => request.content_type(),
        }
    }

    /// Measures the answer, of this `Content-Type`.
    pub fn gauge(&self, model: &Model, content_type: &str) -> Gauge {
        match self {
            Purchase::Words(request) => {
                let (stream, wants_usage) = (request.stream(), request.wants_usage());
                Gauge::Words(Meter::new(request.dialect(), stream, wants_usage, request.estimate(model)))
            }
            Purchase::Media(request) => Gauge::Media(media::Gauge::new(request, model, content_type)),
        }
    }
}

/// Measures one answer. Streamed answers are shown to it event by event, others chunk by chunk.
#[derive(Debug)]
pub enum Gauge {
    Words(Meter),
    Media(media::Gauge),
}

impl Gauge {
    /// Reads one event of a streamed answer.
    pub fn event(&mut self, event: &Event) -> Pass {
        match self {
            Gauge::Words(meter) => meter.event(event),
            Gauge::Media(gauge) => gauge.event(event),
        }
    }

    /// Reads the next bytes of an answer that is not streamed.
    pub fn chunk(&mut self, bytes: &[u8]) {
        match self {
            Gauge::Words(meter) => meter.chunk(bytes),
            Gauge::Media(gauge) => gauge.chunk(bytes),
        }
    }

    /// The body has come to its end as its framing has it, which says that a file is whole.
    pub fn ended(&mut self) {
        if let Gauge::Media(gauge) = self {
            gauge.ended();
        }
    }

    /// The usage chunk that the caller of a chat stream asked for, if the upstream never sent one.
    pub fn owed_usage(&self) -> Option<Bytes> {
        match self {
            Gauge::Words(meter) => meter.owed_usage(),
            Gauge::Media(_) => None,
        }
    }

    /// What was used so far.
    pub fn usage(&self) -> Metered {
        match self {
            Gauge::Words(meter) => meter.usage(),
            Gauge::Media(gauge) => gauge.usage(),
        }
    }

    /// Whether the whole answer has passed.
    pub fn complete(&self) -> bool {
        match self {
            Gauge::Words(meter) => meter.complete(),
            Gauge::Media(gauge) => gauge.complete(),
        }
    }

    /// Whether any of the answer itself has passed.
    pub fn has_output(&self) -> bool {
        self.answer_bytes() > 0
    }

    /// Bytes of the answer itself that have passed.
    pub fn answer_bytes(&self) -> u64 {
        match self {
            Gauge::Words(meter) => meter.answer_bytes(),
            Gauge::Media(gauge) => gauge.answer_bytes(),
        }
    }
}
