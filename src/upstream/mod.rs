//! One paid call to the operator's inference accounts: sent, retried once, passed on to the next, cancelled on drop.

mod answer;
mod client;
mod connection;
mod echo;
mod gate;
mod health;
mod jobs;
mod order;
mod probe;
mod refusal;
mod wire;

use std::borrow::Cow;

use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use tokio::time::Instant;

use crate::account::AccountId;
use crate::catalogue::Serving;
use crate::config::{self, Failover, Speaks, UpstreamKind};
use crate::dialect::{Asking, Dialect, Goods, LimitField, Task, translates};
use crate::error::{Code, Error};
use crate::ids::{Funds, RequestId};
use crate::{fault, metrics};

pub use answer::{Answer, AnswerBody, Broken};
use client::{Attempt, HttpUpstream};
use gate::{Caller, Word};
use health::Door;
pub use health::{Health, Manner, Mood, Resting, Trouble};
pub use jobs::{Found, Report, named};
pub use probe::Probe;
use refusal::{Failure, Then};

/// The configuration of an upstream that cannot work.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("upstream {name:?}, {key}: {why}")]
pub struct UpstreamConfigError {
    pub name: String,
    /// The configuration key at fault.
    pub key: &'static str,
    pub why: String,
}

/// The operator's upstreams as one worker thread uses them: each has its own connections, and none is shared. What is known
/// of their health is.
pub struct Upstreams {
    upstreams: Vec<Upstream>,
    health: Health,
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

/// An upstream that serves a call, the form in which it does, its door, and what it calls the model.
type Able<'a> = (&'a Upstream, Goods, &'a Door, &'a str);

/// A body that is made.
pub type Made<'a> = LocalBoxFuture<'a, Result<Bytes, Error>>;

/// What is sent, and to whom.
pub struct Call<'a> {
    /// Who pays for it: what fails for one account alone is not taken for the upstream's fault.
    pub account: AccountId,
    /// Who may serve it, in order of preference; those with a weight share their place.
    pub servings: &'a [Serving],
    pub goods: Goods,
    /// What the body is.
    pub content_type: Cow<'static, str>,
    /// Makes the body in one of its [forms](Upstreams::forms), for an upstream that knows the model by the given name and takes
    /// the output limit in the given field. An error says why it cannot be said so.
    /// It may take its time, for it is not made where that would keep other calls waiting.
    pub body: &'a dyn Fn(Goods, &str, LimitField) -> Made<'a>,
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
    /// Prepares the connections of a single thread that shares what it finds out with nobody; see [`Upstreams::sharing`].
    ///
    /// # Errors
    /// Names the upstream and the key at fault: a base URL or key that cannot be sent, a CA file that cannot be read.
    pub fn new(upstreams: &[config::Upstream]) -> Result<Upstreams, UpstreamConfigError> {
        Upstreams::sharing(upstreams, Health::new(upstreams, Failover::default()))
    }

    /// Prepares the connections of one worker thread; call it once on each, with the same `health` of the same list.
    ///
    /// # Errors
    /// As [`Upstreams::new`].
    pub fn sharing(upstreams: &[config::Upstream], health: Health) -> Result<Upstreams, UpstreamConfigError> {
        let prepare = |upstream: &config::Upstream| {
            let mut field = LimitField::default();
            let kind = match &upstream.kind {
                UpstreamKind::Echo => Kind::Echo,
                UpstreamKind::Http { base_url, api_key, ca_file, limit_field, media_hosts } => {
                    let http = HttpUpstream::new(base_url, api_key.as_ref(), ca_file.as_deref(), media_hosts);
                    let named = |(key, why)| UpstreamConfigError { name: upstream.name.clone(), key, why };
                    field = *limit_field;
                    Kind::Http(Box::new(http.map_err(named)?))
                }
            };
            Ok(Upstream { name: upstream.name.clone(), speaks: upstream.speaks.clone(), kind, field })
        };
        Ok(Upstreams { upstreams: upstreams.iter().map(prepare).collect::<Result<_, _>>()?, health })
    }

    fn find(&self, name: &str) -> Option<&Upstream> {
        self.upstreams.iter().find(|upstream| upstream.name == name)
    }

    /// The forms in which somebody serves this model on this route: as it is asked for, or in a dialect that it can be put
    /// into; to be asked before a price is named.
    ///
    /// # Errors
    /// [`Code::InvalidRequest`] naming the route on which the model is sold.
    pub fn forms(&self, servings: &[Serving], goods: Goods) -> Result<Vec<Goods>, Error> {
        let mut forms: Vec<Goods> = Vec::new();
        for form in servings.iter().filter_map(|serving| self.find(&serving.upstream)?.form(goods)) {
            if !forms.contains(&form) {
                forms.push(form);
            }
        }
        if forms.is_empty() { Err(self.nobody_speaks(servings, goods)) } else { Ok(forms) }
    }

    /// How often a body of these goods may be in memory at once: as it came, in each dialect into which it is put beforehand, and
    /// as it is sent.
    pub fn copies(&self, goods: Goods) -> usize {
        let is_put = |form: &Goods| matches!(form, Goods::Words(_)) && *form != goods;
        let mut put: Vec<Goods> = Vec::new();
        for form in self.upstreams.iter().filter_map(|upstream| upstream.form(goods)).filter(is_put) {
            if !put.contains(&form) {
                put.push(form);
            }
        }
        2 + put.len()
    }

    /// How those who may serve this call want to be asked, in the operator's order and not in that in which this one call asks
    /// them: nothing that is said of a price may depend on a lot. Empty where nobody serves it.
    pub fn askings(&self, servings: &[Serving], goods: Goods) -> Vec<Asking> {
        let mut askings: Vec<Asking> = Vec::new();
        for Serving { upstream, model, .. } in servings {
            let Some(upstream) = self.find(upstream) else { continue };
            let Some(form) = upstream.form(goods) else { continue };
            let asking = Asking { form, model: model.clone(), field: upstream.field };
            if !askings.contains(&asking) {
                askings.push(asking);
            }
        }
        askings
    }

    /// Whether anybody who serves this model on this route would be asked now, by this account if it is known; to be asked before
    /// money moves.
    ///
    /// # Errors
    /// [`Code::UpstreamUnavailable`] with the shortest time after which somebody may be asked again.
    pub fn ready(&self, servings: &[Serving], goods: Goods, account: Option<AccountId>) -> Result<(), Error> {
        let speaks = |serving: &&Serving| self.find(&serving.upstream).is_some_and(|upstream| upstream.form(goods).is_some());
        let able = servings.iter().filter(speaks);
        let waits = able.map(|serving| self.health.door(&serving.upstream)?.wait(Caller { model: &serving.model, account }));
        let shortest = waits.min().flatten();
        shortest.map_or(Ok(()), |wait| Err(refusal::paused(wait)))
    }

    /// Sends a call that `funds` stand for, and waits for the head of a good answer (200, of the right type).
    ///
    /// Each upstream that speaks the dialect is tried in order (of those with weights, one by weight before the others), and
    /// once more if the connection failed before it said anything, or if it answered 408 or 5xx (but neither 504 nor 524, nor
    /// 503 with a time to wait); never after a head was accepted. A plain answer in JSON is then read to its end, if it is not too
    /// long: one that breaks off or says that it failed is none, and the next upstream is tried. One that is down, or has said when it wants to be asked again,
    /// is passed over. Dropping the future or the answer closes the connection to the upstream.
    ///
    /// # Errors
    /// * [`Code::InvalidRequest`]: nobody who serves this model speaks this dialect;
    /// * [`Code::UpstreamRejected`], [`Code::RequestTooLarge`]: an upstream found fault with the request itself;
    /// * [`Code::UpstreamAuth`], [`Code::UpstreamUnavailable`], [`Code::UpstreamOverloaded`], [`Code::UpstreamError`]:
    ///   all have failed or were not to be asked, and this is the most hopeful of their failures;
    /// * [`Code::UpstreamTimeout`]: the deadline came first.
    ///
    /// None of them has cost the caller anything.
    pub async fn send(&self, funds: &impl Funds, call: Call<'_>) -> Result<Answer, Error> {
        let mut failed: Option<Error> = None;
        let able = self.able(call.servings, call.goods, funds.request());
        let caller = |model| Caller { model, account: Some(call.account) };
        for (place, (upstream, form, door, model)) in able.iter().enumerate() {
            let visit = match door.enter(caller(model)) {
                Ok(visit) => visit,
                Err(wait) => {
                    failed = Some(refusal::more_hopeful(failed, refusal::paused(wait)));
                    continue;
                }
            };
            let is_last = able[place + 1..].iter().all(|(_, _, door, model)| door.wait(caller(model)).is_some());
            let begun = Instant::now();
            let outcome = upstream.serve(funds.request(), (*form, model), &call, is_last).await;
            count(&upstream.name, &outcome, begun);
            match outcome {
                Ok(answer) => {
                    visit.went(Word::Well, None);
                    fault::point("upstream.headers");
                    return Ok(Answer { model: (*model).to_owned(), ..answer });
                }
                Err(Failure { error, then, word, rest }) => {
                    visit.note(funds.request(), &error);
                    visit.went(word, rest);
                    if then == Then::Final || (is_order(call.goods) && !has_refused(&error)) {
                        return Err(error);
                    }
                    failed = Some(refusal::more_hopeful(failed, error));
                }
            }
        }
        Err(failed.unwrap_or_else(|| self.nobody_speaks(call.servings, call.goods)))
    }

    /// Who serves a model on this route, in the order in which this call asks them, and what it is called there.
    fn able<'a>(&'a self, servings: &'a [Serving], goods: Goods, request: RequestId) -> Vec<Able<'a>> {
        let mut able = Vec::with_capacity(servings.len());
        for Serving { upstream, model, .. } in order::arranged(servings, request.lot()) {
            if let (Some(upstream), Some(door)) = (self.find(upstream), self.health.door(upstream))
                && let Some(form) = upstream.form(goods)
            {
                able.push((upstream, form, door, model.as_str()));
            }
        }
        able
    }

    /// Names a route that sells such models and that somebody who serves this one speaks.
    fn nobody_speaks(&self, servings: &[Serving], goods: Goods) -> Error {
        let speaks = |name: &str, goods| self.find(name).is_some_and(|upstream| upstream.speaks(goods));
        let alike = |other: &Goods| match goods {
            Goods::Words(_) => matches!(other, Goods::Words(_)),
            Goods::Media(task) => task.row().kinds.iter().any(|kind| other.sells(*kind)),
        };
        let spoken = |other: &Goods| alike(other) && servings.iter().any(|serving| speaks(&serving.upstream, *other));
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
        if matches!((&self.kind, goods), (Kind::Echo, Goods::Media(task)) if !echo::makes(task)) {
            return false;
        }
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
                Task::Videos => Speaks::Videos,
                Task::VideosGenerations => Speaks::VideosGenerations,
            },
        })
    }

    /// The form in which it serves these goods, if it does: as they are, in a dialect that they can be put into, or on another
    /// path where that is all that differs.
    fn form(&self, goods: Goods) -> Option<Goods> {
        if self.speaks(goods) {
            return Some(goods);
        }
        match goods {
            Goods::Words(asked) => {
                let other = |other: &Dialect| translates(asked, *other) && self.speaks(Goods::Words(*other));
                Dialect::ALL.into_iter().find(other).map(Goods::Words)
            }
            Goods::Media(task) if task.has_address() => {
                let others = Task::ALL.into_iter().filter(|task| task.has_address()).map(Goods::Media);
                others.into_iter().find(|other| self.speaks(*other))
            }
            Goods::Media(_) => None,
        }
    }

    /// One call to this upstream, and a second one if the first failed in a way that may pass.
    async fn serve(
        &self,
        request: RequestId,
        (form, model): (Goods, &str),
        call: &Call<'_>,
        is_last: bool,
    ) -> Result<Answer, Failure> {
        let body = (call.body)(form, model, self.field).await.map_err(|error| Failure::new(Then::Next, error))?;
        let http = match &self.kind {
            Kind::Echo => {
                return Ok(match form {
                    Goods::Words(_) => echo::answer(&self.name, form, &body),
                    Goods::Media(task) => echo::made(&self.name, task, &body),
                });
            }
            Kind::Http(http) => http,
        };
        let mut outcome = http.send(&self.name, call, (form, body.clone()), Attempt { is_last, again: false }).await;
        if let Err(Failure { error, then: Then::Again, .. }) = &outcome
            && !is_order(form)
        {
            self.log(request, error);
            outcome = http.send(&self.name, call, (form, body), Attempt { is_last, again: true }).await;
        }
        if let Err(Failure { error, .. }) = &outcome {
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

/// Counts a call to an upstream.
fn count(upstream: &str, outcome: &Result<Answer, Failure>, begun: Instant) {
    let word = outcome.as_ref().map_or_else(|failure| failure.error.code.row().code, |_| "ok");
    metrics::UPSTREAM_CALLS.of(&[upstream, word]).count();
    if outcome.is_ok() {
        metrics::UPSTREAM_HEADS.of(&[upstream]).took(begun.elapsed());
    }
}

/// An order cannot be called back: one whose answer was lost may be at work already.
fn is_order(goods: Goods) -> bool {
    matches!(goods, Goods::Media(task) if task.is_job())
}

/// Whether an upstream has said that it does not do it.
fn has_refused(error: &Error) -> bool {
    matches!(error.code, Code::UpstreamAuth | Code::UpstreamUnavailable | Code::UpstreamOverloaded)
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
    fn all_who_may_serve_a_call_are_told_of_in_the_operators_order() {
        let echo = |name: &str, speaks| config::Upstream { name: name.into(), kind: UpstreamKind::Echo, speaks: vec![speaks] };
        let upstreams = [echo("a", Speaks::Chat), echo("b", Speaks::Messages), echo("c", Speaks::Messages)];
        let upstreams = Upstreams::new(&upstreams).unwrap();
        let serving = |name: &str, model: &str| Serving {
            upstream: name.into(),
            model: model.into(),
            weight: std::num::NonZeroU32::new(1),
            cost: None,
        };
        let servings = [serving("c", "claude-3"), serving("a", "m"), serving("b", "claude-3"), serving("b", "claude-4-6")];
        let askings = upstreams.askings(&servings, Goods::Words(Dialect::Chat));
        let told: Vec<_> = askings.iter().map(|asking| (asking.form.dialect(), asking.model.as_str())).collect();
        assert_eq!(
            told,
            [(Dialect::Messages, "claude-3"), (Dialect::Chat, "m"), (Dialect::Messages, "claude-4-6")],
            "each way once"
        );
        let copies =
            [Dialect::Chat, Dialect::Messages, Dialect::Responses].map(|dialect| upstreams.copies(Goods::Words(dialect)));
        assert_eq!(copies, [3, 3, 4], "a response is put into both");
    }

    #[test]
    fn a_model_of_another_dialect_is_refused_with_the_route_to_use() {
        let echo = config::Upstream { name: "e".into(), kind: UpstreamKind::Echo, speaks: vec![Speaks::Messages] };
        let upstreams = Upstreams::new(&[echo]).unwrap();
        let servings = [Serving { upstream: "e".into(), model: "m".into(), weight: None, cost: None }];
        assert!(upstreams.forms(&servings, Goods::Words(Dialect::Messages)).is_ok());
        let error = upstreams.forms(&servings, Goods::Words(Dialect::Responses)).map(drop);
        assert!(error.is_ok_and(|()| translates(Dialect::Responses, Dialect::Messages)));
        // No route of words is named to who wants pictures.
        let both = [Speaks::Chat, Speaks::Images].to_vec();
        let echo = config::Upstream { name: "e".into(), kind: UpstreamKind::Echo, speaks: both };
        let upstreams = Upstreams::new(&[echo]).unwrap();
        let error = upstreams.forms(&servings, Goods::Media(Task::ImageGenerate)).unwrap_err();
        assert_eq!(error.code, Code::InvalidRequest);
        assert!(error.message.contains("/v1/images/generations"), "{}", error.message);
        let error = upstreams.forms(&servings, Goods::Media(Task::Speech)).unwrap_err();
        assert_eq!(error.code, Code::UpstreamUnavailable, "{}", error.message);
    }
}
