//! What a call asks to buy, words or media: how much it can use at most, how it is forwarded, and how its answer is measured.

use std::borrow::Cow;

use bytes::{Bytes, BytesMut};

use super::Dialect;
use super::media::{self, Task};
use super::meter::{Meter, Pass};
use super::sse::Event;
use super::translate::{self, Asked};
use super::usage::Metered;
use super::words::{Asking, Forward, Words};
use crate::catalogue::{Catalogue, Kind, Model};
use crate::clock::Timestamp;
use crate::error::{Code, Error};
use crate::ids::RequestId;
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

    /// Whether a model of this kind is sold on its route.
    pub fn sells(self, kind: Kind) -> bool {
        match self {
            Goods::Words(_) => kind == Kind::Chat,
            Goods::Media(task) => task.row().kinds.contains(&kind),
        }
    }

    /// The first route on which models of this kind are sold, for those who ask on another.
    pub fn usual(kind: Kind) -> Goods {
        Task::ALL.into_iter().map(Goods::Media).find(|goods| goods.sells(kind)).unwrap_or(Goods::Words(Dialect::Chat))
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
    Words(Words<'a>),
    Media(media::Request<'a>),
}

impl<'a> Purchase<'a> {
    /// Reads a body.
    ///
    /// # Errors
    /// As [`Words::read`] and [`media::Request::read`].
    pub fn read(goods: Goods, content_type: &str, body: &'a Bytes) -> Result<Purchase<'a>, Error> {
        match goods {
            Goods::Words(dialect) => Words::read(dialect, body).map(Purchase::Words),
            Goods::Media(task) => media::Request::read(task, content_type, body).map(Purchase::Media),
        }
    }

    /// Reads a body of which only the price is asked for.
    ///
    /// # Errors
    /// As [`media::Request::read_to_quote`].
    pub fn read_to_quote(task: Task, body: &'a [u8]) -> Result<Purchase<'a>, Error> {
        media::Request::read_to_quote(task, body).map(Purchase::Media)
    }

    /// The model of the catalogue that is meant, with its prices for this request. One that the request does not name is
    /// one that is `served`.
    ///
    /// # Errors
    /// [`Code::ModelNotFound`]; [`Code::InvalidRequest`] for a model that is sold on another route, or not in this size.
    pub fn find<'c>(&self, catalogue: &'c Catalogue, served: impl Fn(&Model) -> bool) -> Result<Cow<'c, Model>, Error> {
        match self {
            Purchase::Words(words) => {
                let model = catalogue.sold(words.request().model())?;
                match model.kind {
                    Kind::Chat => Ok(Cow::Borrowed(model)),
                    kind => {
                        let (id, name, path) = (&model.id, kind.name(), Goods::usual(kind).path());
                        let message = format!("{id} is a model of kind {name}, which does not chat; call it on /v1{path}");
                        Err(Error::new(Code::InvalidRequest, message).param("model"))
                    }
                }
            }
            Purchase::Media(request) => self.priced(request.find(catalogue, served)?),
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
            Purchase::Words(words) => words.request().stream(),
            Purchase::Media(request) => request.stream(),
        }
    }

    /// The most it can use.
    pub fn bound(&self, model: &Model) -> Bound {
        match self {
            Purchase::Words(words) => words.bound(model),
            Purchase::Media(request) => request.bound(model),
        }
    }

    /// Whether its hold may be smaller than its quote at first, because its output passes in steps.
    pub fn grows(&self) -> bool {
        matches!(self, Purchase::Words(words) if words.request().stream())
    }

    /// Of the output that it is bound by, the tokens that may be used before anybody sees any.
    pub fn hidden_output(&self, model: &Model) -> u64 {
        match self {
            Purchase::Words(words) => words.request().hidden_output(model),
            Purchase::Media(request) => request.bound(model).output,
        }
    }

    /// Tokens each answer may have.
    pub fn output_limit(&self, model: &Model) -> u32 {
        match self {
            Purchase::Words(words) => words.request().output_limit(model),
            Purchase::Media(_) => model.max_output,
        }
    }

    /// How many answers it asks for.
    pub fn choices(&self) -> u32 {
        match self {
            Purchase::Words(words) => words.request().choices(),
            Purchase::Media(_) => 1,
        }
    }

    /// The body for an upstream, as it was asked for or in another dialect ([`Words::forward`]).
    pub fn forward(&self, asking: &Asking, output_limit: u32) -> Forward {
        match self {
            Purchase::Words(words) => words.forward(asking, output_limit),
            Purchase::Media(request) => Forward::Here(request.forward(&asking.model)),
        }
    }

    /// The `Content-Type` of what is forwarded.
    pub fn content_type(&self) -> Cow<'static, str> {
        match self {
            Purchase::Words(_) => Cow::Borrowed("application/json"),
            Purchase::Media(request) => request.content_type(),
        }
    }

    /// Measures the answer in the form and of the `Content-Type` that it has.
    pub fn gauge(&self, model: &Model, form: Goods, content_type: &str) -> Gauge {
        match self {
            Purchase::Words(words) => {
                let (request, dialect) = (words.request(), form.dialect());
                // What translates an answer has to see its usage.
                let wants_usage = request.wants_usage() || dialect != request.dialect();
                Gauge::Words(Meter::new(dialect, request.stream(), wants_usage, request.estimate(model)))
            }
            Purchase::Media(request) => Gauge::Media(media::Gauge::new(request, model, content_type)),
        }
    }
}

impl Purchase<'_> {
    /// Puts the answer into the dialect of the caller, if it has another form.
    pub fn translation(&self, model: &Model, form: Goods, id: RequestId, created: Timestamp) -> Option<Translation> {
        let (Purchase::Words(words), Goods::Words(upstream)) = (self, form) else { return None };
        let request = words.request();
        let caller = request.dialect();
        if upstream == caller {
            return None;
        }
        let asked = Asked {
            model: model.id.clone(),
            wants_usage: request.wants_usage(),
            input_estimate: request.estimate(model),
            created,
            id,
            wishes: words.wishes().clone(),
        };
        if request.stream() {
            return translate::Answer::new(upstream, caller, asked).map(|answer| Translation::Events(Box::new(answer)));
        }
        Some(Translation::Whole { upstream, caller, asked: Box::new(asked), body: BytesMut::new() })
    }
}

/// Bytes of a plain answer that is translated, at most.
const MAX_WHOLE: usize = 32 * 1024 * 1024;

/// An answer on its way into another dialect.
#[derive(Debug)]
pub enum Translation {
    /// Event by event.
    Events(Box<translate::Answer>),
    /// When all of it is there.
    Whole { upstream: Dialect, caller: Dialect, asked: Box<Asked>, body: BytesMut },
}

impl Translation {
    /// What goes to the caller for one event.
    pub fn event(&mut self, event: &Event) -> Bytes {
        match self {
            Translation::Events(answer) => answer.event(event),
            Translation::Whole { .. } => Bytes::new(),
        }
    }

    /// What completes a stream; `None` where its upstream never said how it ended.
    pub fn end(&mut self) -> Option<Bytes> {
        match self {
            Translation::Events(answer) => answer.end().ok(),
            Translation::Whole { .. } => Some(Bytes::new()),
        }
    }

    /// Whether anything has gone to the caller of a stream that it can use.
    pub fn has_output(&self) -> bool {
        matches!(self, Translation::Events(answer) if answer.has_output())
    }

    /// Keeps a part of a plain answer; `false` when it is too long.
    pub fn chunk(&mut self, chunk: &[u8]) -> bool {
        let Translation::Whole { body, .. } = self else { return true };
        let fits = body.len() + chunk.len() <= MAX_WHOLE;
        body.extend_from_slice(if fits { chunk } else { &[] });
        fits
    }

    /// The whole of a plain answer; `None` if it is no answer.
    pub fn whole(&self) -> Option<Bytes> {
        let Translation::Whole { upstream, caller, asked, body } = self else { return None };
        translate::Answer::plain(*upstream, *caller, body, asked).ok()
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

    /// Whoever asked for it has left and takes no more of it.
    pub fn abandoned(&mut self) {
        if let Gauge::Media(gauge) = self {
            gauge.abandoned();
        }
    }

    /// Whether what has passed of a stream is of use, and owed, without the rest.
    pub fn has_parts(&self) -> bool {
        match self {
            Gauge::Words(_) => self.has_output(),
            Gauge::Media(gauge) => gauge.has_parts(),
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
