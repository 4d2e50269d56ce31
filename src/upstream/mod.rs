//! One paid call to the operator's inference accounts: sent, retried once, passed on to the next, cancelled on drop.

mod answer;
mod client;
mod connection;
mod echo;
mod jobs;
mod refusal;
mod wire;

use std::borrow::Cow;

use bytes::Bytes;
use tokio::time::Instant;

use crate::catalogue::Serving;
use crate::config::{self, Speaks, UpstreamKind};
use crate::dialect::{Dialect, Goods, LimitField, Task};
use crate::error::{Code, Error};
use crate::fault;
use crate::ids::{Funds, RequestId};

pub use answer::{Answer, AnswerBody, Broken};
use client::{Attempt, HttpUpstream};
pub use jobs::{Found, Report, named};
use refusal::Failure;

/// The configuration of an upstream that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("upstream {name:?}, {key}: {why}")]
pub struct UpstreamConfigError {
    pub name: String,
    /// The configuration key at fault.
    pub key: &'static str,
    pub why: String,
}

/// The operator's upstreams as one worker thread uses them: each has its own connections, and none is shared.
pub struct Upstreams {
    upstreams: Vec<Upstream>,
}

struct Upstream {
    name: String,
    speaks: Vec<Speaks>,
    kind: Kind,
    field: LimitField,
}

enum Kind {
    Echo,
    Http(Box<HttpUpstream>),
}

/// What is sent, and to whom.
pub struct Call<'a> {
    /// Who may serve it, in order of preference.
    pub servings: &'a [Serving],
    pub goods: Goods,
    /// What the body is.
    pub content_type: Cow<'static, str>,
    /// Makes the body for an upstream that knows the model by the given name and takes the output limit in the given field.
    pub body: &'a dyn Fn(&str, LimitField) -> Bytes,
    /// The caller's headers. Only those that are [`forwardable`] are sent on.
    pub headers: &'a [(String, String)],
    /// The query string of the request, without its question mark.
    pub query: Option<&'a str>,
    pub stream: bool,
    /// When the call ends, whatever happens.
    pub deadline: Instant,
}

/// Whether a caller's header goes to the upstream. Everything else stays here: credentials, payments, addresses.
pub fn forwardable(name: &str) -> bool {
    const EXACT: [&str; 5] = ["anthropic-version", "anthropic-beta", "openai-beta", "session-id", "x-claude-code-session-id"];
    const FAMILY: &str = "x-session-";
    EXACT.iter().any(|exact| name.eq_ignore_ascii_case(exact))
        || name.get(..FAMILY.len()).is_some_and(|start| start.eq_ignore_ascii_case(FAMILY))
}

impl Upstreams {
    /// Prepares the connections of one worker thread; call it once on each.
    ///
    /// # Errors
    /// Names the upstream and the key at fault: a base URL or key that cannot be sent, a CA file that cannot be read.
    pub fn new(upstreams: &[config::Upstream]) -> Result<Upstreams, UpstreamConfigError> {
        let prepare = |upstream: &config::Upstream| {
            let mut field = LimitField::default();
            let kind = match &upstream.kind {
                UpstreamKind::Echo => Kind::Echo,
                UpstreamKind::Http { base_url, api_key, ca_file, limit_field } => {
                    let http = HttpUpstream::new(base_url, api_key.as_ref(), ca_file.as_deref());
                    let named = |(key, why)| UpstreamConfigError { name: upstream.name.clone(), key, why };
                    field = *limit_field;
                    Kind::Http(Box::new(http.map_err(named)?))
                }
            };
            Ok(Upstream { name: upstream.name.clone(), speaks: upstream.speaks.clone(), kind, field })
        };
        Ok(Upstreams { upstreams: upstreams.iter().map(prepare).collect::<Result<_, _>>()? })
    }

    fn find(&self, name: &str) -> Option<&Upstream> {
        self.upstreams.iter().find(|upstream| upstream.name == name)
    }

    /// Whether anybody serves this model on this route; to be asked before a price is named.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] naming the route on which the model is sold.
    pub fn check(&self, servings: &[Serving], goods: Goods) -> Result<(), Error> {
        match servings.iter().any(|serving| self.speaks(&serving.upstream, goods)) {
            true => Ok(()),
            false => Err(self.nobody_speaks(servings)),
        }
    }

    fn speaks(&self, upstream: &str, goods: Goods) -> bool {
        self.find(upstream).is_some_and(|upstream| upstream.speaks(goods))
    }

    /// Sends a call that `funds` stand for, and waits for the head of a good answer (200, of the right type).
    ///
    /// Each upstream that speaks the dialect is tried in order, and once more if the connection failed before it said
    /// anything, or if it answered 408 or 5xx (but neither 504 nor 524); never after a head was accepted. Dropping the future or the answer closes the connection to the upstream.
    ///
    /// # Errors
    /// * [`Code::InvalidRequest`]: nobody who serves this model speaks this dialect;
    /// * [`Code::UpstreamRejected`], [`Code::RequestTooLarge`]: an upstream found fault with the request itself;
    /// * [`Code::UpstreamAuth`], [`Code::UpstreamUnavailable`], [`Code::UpstreamOverloaded`], [`Code::UpstreamError`]:
    ///   all have failed, and this is the most hopeful of their failures;
    /// * [`Code::UpstreamTimeout`]: the deadline came first.
    ///
    /// None of them has cost the caller anything.
    pub async fn send(&self, funds: &impl Funds, call: Call<'_>) -> Result<Answer, Error> {
        let mut failed: Option<Error> = None;
        let named = |serving: &Serving| Some((self.find(&serving.upstream)?, serving.model.clone()));
        let able = call.servings.iter().filter_map(named).filter(|(upstream, _)| upstream.speaks(call.goods));
        let able: Vec<_> = able.collect();
        for (place, (upstream, model)) in able.iter().enumerate() {
            let is_last = place + 1 == able.len();
            match upstream.serve(funds.request(), model, &call, is_last).await {
                Ok(answer) => {
                    fault::point("upstream.headers");
                    return Ok(answer);
                }
                Err(Failure::Final(error)) => return Err(error),
                Err(Failure::Next(error) | Failure::Again(error)) => failed = Some(refusal::more_hopeful(failed, error)),
            }
        }
        Err(failed.unwrap_or_else(|| self.nobody_speaks(call.servings)))
    }

    fn nobody_speaks(&self, servings: &[Serving]) -> Error {
        let spoken = |other: &Goods| servings.iter().any(|serving| self.speaks(&serving.upstream, *other));
        let all = Dialect::ALL.into_iter().map(Goods::Words).chain(Task::ALL.into_iter().map(Goods::Media));
        if let Some(other) = all.into_iter().find(spoken) {
            let message = format!("this model is not sold on this route; call it on /v1{}", other.path());
            return Error::new(Code::InvalidRequest, message).param("model");
        }
        Error::new(Code::UpstreamUnavailable, "nobody serves this model at the moment; try another one")
            .because("no upstream of this model speaks any dialect that is sold")
    }
}

impl Upstream {
    fn speaks(&self, goods: Goods) -> bool {
        self.speaks.contains(&match goods {
            Goods::Words(Dialect::Chat) => Speaks::Chat,
            Goods::Words(Dialect::Messages) => Speaks::Messages,
            Goods::Words(Dialect::Responses) => Speaks::Responses,
            Goods::Media(task) => match task {
                Task::Embeddings => Speaks::Embeddings,
                Task::ImageGenerations | Task::ImageEdits => Speaks::Images,
                Task::ImageGenerate | Task::ImageUpscale | Task::ImageEdit => Speaks::Image,
                Task::ImageMultiEdit | Task::ImageBackgroundRemove => Speaks::Image,
                Task::Speech | Task::Transcriptions => Speaks::Audio,
                Task::AudioQueue => Speaks::Music,
                Task::VideoQueue | Task::VideoTranscriptions => Speaks::Video,
                Task::VideosGenerations => Speaks::Videos,
            },
        })
    }

    /// One call to this upstream, and a second one if the first failed in a way that may pass.
    async fn serve(&self, request: RequestId, model: &str, call: &Call<'_>, is_last: bool) -> Result<Answer, Failure> {
        let body = (call.body)(model, self.field);
        let http = match &self.kind {
            Kind::Echo => return Ok(echo::answer(&self.name, call.goods.dialect(), &body)),
            Kind::Http(http) => http,
        };
        let mut outcome = http.send(&self.name, call, body.clone(), Attempt { is_last, again: false }).await;
        if let Err(Failure::Again(error)) = &outcome {
            self.log(request, error);
            outcome = http.send(&self.name, call, body, Attempt { is_last, again: true }).await;
        }
        if let Err(Failure::Again(error) | Failure::Next(error) | Failure::Final(error)) = &outcome {
            self.log(request, error);
        }
        outcome
    }

    /// The operator sees every failure, also those that the caller does not notice.
    fn log(&self, request: RequestId, error: &Error) {
        let (code, cause) = (error.code.row().code, error.cause.as_deref().unwrap_or_default());
        tracing::warn!(%request, upstream = %self.name, code, "upstream {} failed: {cause}", self.name);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_credential_of_the_caller_goes_to_an_upstream() {
        for name in [
            "authorization",
            "x-api-key",
            "payment-signature",
            "x-payment",
            "x-402-payment",
            "x-sign-in-with-x",
            "sign-in-with-x",
            "cookie",
            "x-forwarded-for",
            "host",
            "content-length",
            "transfer-encoding",
            "accept-encoding",
            "user-agent",
        ] {
            assert!(!forwardable(name), "{name}");
        }
        for name in ["Anthropic-Version", "anthropic-beta", "x-session-affinity", "session-id"] {
            assert!(forwardable(name), "{name}");
        }
    }

    #[test]
    fn a_model_of_another_dialect_is_refused_with_the_route_to_use() {
        let echo = config::Upstream { name: "e".into(), kind: UpstreamKind::Echo, speaks: vec![Speaks::Messages] };
        let upstreams = Upstreams::new(&[echo]).unwrap();
        let servings = [Serving { upstream: "e".into(), model: "m".into() }];
        let error = upstreams.check(&servings, Goods::Words(Dialect::Chat)).unwrap_err();
        assert!(upstreams.check(&servings, Goods::Words(Dialect::Messages)).is_ok());
        assert_eq!(error.code, Code::InvalidRequest);
        assert!(error.message.contains("/v1/messages"));
    }
}
