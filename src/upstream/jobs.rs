//! Jobs at an upstream: what became of one, the bytes of what it made, and that it is needed no more. Never paid for again.
//!
//! A result that the upstream names by a URL is fetched from the upstream's own configured scheme, host and port, or from a host
//! that the operator named for it, over connections to those: of the URL only the path is used, so that there is no way to
//! anywhere else. A result that is elsewhere cannot be delivered, so its job has failed.

use std::time::Duration;

use actix_http::{Method, RequestHead, ResponseHead};
use awc::http::Uri;
use awc::http::header::{self, HeaderName, HeaderValue};
use bytes::Bytes;
use serde_json::{Value, json};
use tokio::time::{Instant, timeout_at};

use super::answer::{Answer, AnswerBody};
use super::client::{HttpUpstream, unsent, words};
use super::connection::Body;
use super::refusal::{self, Failure, Then};
use super::{Kind, Upstreams};
use crate::dialect::{Dialect, Goods, Task};
use crate::error::{Code, Error};
use crate::ids::Bought;

/// Characters of an upstream's name for a job.
const MAX_NAME_CHARS: usize = 256;

/// A body that is still silent so long after its head had to be there is over.
const LONGEST_FETCH: Duration = Duration::from_secs(6 * 60 * 60);

/// What an upstream says of a job.
#[derive(Debug)]
pub enum Report {
    /// It is at work, for so many milliseconds, of so many that it takes on average, where it says so; in percent.
    Working { average: Option<u64>, running: Option<u64>, progress: Option<u64> },
    /// It has made what was ordered.
    Done(Found),
    /// Nothing comes of it, in the upstream's words as far as they may be seen.
    Failed { code: Option<String>, error: String },
    /// It knows no such job, or has what it made no more.
    Unknown,
}

/// Where what a job made is.
#[derive(Debug)]
pub enum Found {
    /// It is on its way already.
    Here(Answer),
    /// At a URL that the upstream names.
    At(String),
    /// Where the upstream has all such things.
    InItsPlace,
}

/// Media that are passed on. None of them is run by a browser.
const MEDIA: [&str; 19] = [
    "video/mp4",
    "video/webm",
    "video/quicktime",
    "video/x-matroska",
    "video/mpeg",
    "video/ogg",
    "audio/mpeg",
    "audio/mp3",
    "audio/wav",
    "audio/x-wav",
    "audio/wave",
    "audio/ogg",
    "audio/opus",
    "audio/aac",
    "audio/flac",
    "audio/mp4",
    "audio/webm",
    "image/gif",
    "application/octet-stream",
];

/// Fields in which upstreams name the URL of a result.
const URLS: [&str; 7] = ["/url", "/download_url", "/video/url", "/audio/url", "/result/url", "/output/url", "/data/0/url"];
/// Fields that callers may send, too, and that an upstream may only repeat: they count where no other one names anything.
const URLS_OF_CALLERS: [&str; 2] = ["/video_url", "/audio_url"];

/// Fields in which upstreams name a job.
const NAMES: [&str; 4] = ["queue_id", "task_id", "id", "request_id"];

/// The upstream's name for the job that its answer accepts.
pub fn named(answer: &[u8]) -> Option<String> {
    let answer: Value = serde_json::from_slice(answer).ok()?;
    let name = NAMES.iter().find_map(|name| match answer.get(*name)? {
        Value::String(text) => Some(text.clone()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    })?;
    let plain = !name.is_empty() && name.chars().count() <= MAX_NAME_CHARS && !name.chars().any(char::is_control);
    plain.then_some(name)
}

impl Upstreams {
    /// Asks what became of a job.
    ///
    /// # Errors
    /// * [`Code::UpstreamUnavailable`]: the upstream stands in the configuration no more, or is at its limit;
    /// * [`Code::UpstreamError`], [`Code::UpstreamAuth`], [`Code::UpstreamTimeout`]: it did not say. The job goes on.
    pub async fn ask(&self, job: &impl Bought, task: Task, deadline: Instant) -> Result<Report, Error> {
        let http = self.that_has(job)?;
        let question = match family(task) {
            Some(family) => Question::about(job, &format!("{family}/retrieve")),
            None => Question::of(Method::GET, place(job.upstream_job())),
        };
        let (head, body) = http.exchange(question, deadline).await?;
        let status = head.status.as_u16();
        if matches!(status, 404 | 410) {
            return Ok(Report::Unknown);
        }
        if let (200, Some(content_type)) = (status, media_type(&head)) {
            // Of what is empty nothing is made yet.
            let working = Report::Working { average: None, running: None, progress: None };
            let found = passing((job, task), &head, body, (content_type, deadline));
            return Ok(found.map_or(working, |answer| Report::Done(Found::Here(answer))));
        }
        let text = timeout_at(deadline, words(body)).await.unwrap_or_default();
        let said = serde_json::from_slice::<Value>(&text).unwrap_or_default();
        if (200..300).contains(&status)
            && let Some(answer) = http.in_its_place((job, task), &said, deadline).await?
        {
            return Ok(Report::Done(Found::Here(answer)));
        }
        match status {
            200..300 if said.is_object() => Ok(http.fetchable(job, http.read(task, &said))),
            // So do some say that what they were asked to make is against their rules.
            422 if said.is_object() => Ok(http.failure(&said)),
            200..300 => Err(unusable(&head)),
            _ => Err(http.refused(&head)),
        }
    }

    /// Opens what a job made; `None` where there is nothing any more.
    ///
    /// # Errors
    /// As [`Upstreams::ask`]; [`Code::UpstreamError`] also for a URL at an address that is not fetched from, for a redirect, and
    /// for what is no media.
    pub async fn open(
        &self,
        (job, task): (&impl Bought, Task),
        found: Found,
        deadline: Instant,
    ) -> Result<Option<Answer>, Error> {
        let http = self.that_has(job)?;
        let question = match found {
            Found::Here(answer) => return Ok(Some(answer)),
            Found::At(url) => {
                let (at, path) = http.located(&url).ok_or_else(|| elsewhere(&url))?;
                Question { at, ..Question::of(Method::GET, path) }
            }
            Found::InItsPlace => Question::of(Method::GET, format!("{}/content", place(job.upstream_job()))),
        };
        let (head, body) = http.exchange(question, deadline).await?;
        match (head.status.as_u16(), media_type(&head)) {
            (404 | 410, _) => Ok(None),
            (200, Some(content_type)) => {
                let found = passing((job, task), &head, body, (content_type, deadline));
                found.map(Some).ok_or_else(|| unusable(&head))
            }
            (200, None) => Err(unusable(&head)),
            _ => Err(http.refused(&head)),
        }
    }

    /// Tells the upstream that what a job made is needed no more.
    ///
    /// # Errors
    /// As [`Upstreams::ask`]; nothing follows from them.
    pub async fn forget(&self, job: &impl Bought, task: Task, deadline: Instant) -> Result<(), Error> {
        let http = self.that_has(job)?;
        let question = match family(task) {
            Some(family) => Question::about(job, &format!("{family}/complete")),
            None => Question::of(Method::DELETE, place(job.upstream_job())),
        };
        let (head, body) = http.exchange(question, deadline).await?;
        // Read to its end, so that the connection can be used again.
        _ = timeout_at(deadline, words(body)).await;
        match head.status.as_u16() {
            200..300 | 404 | 410 => Ok(()),
            _ => Err(http.refused(&head)),
        }
    }

    /// The upstream that has a job.
    fn that_has(&self, job: &impl Bought) -> Result<&HttpUpstream, Error> {
        match self.find(job.upstream()).map(|upstream| &upstream.kind) {
            Some(Kind::Http(http)) => Ok(http),
            Some(Kind::Echo) | None => {
                let message = "the upstream that has this job is not in use at the moment, which only the operator can change; ask again later";
                let error = Error::new(Code::UpstreamUnavailable, message).retry_after(60);
                Err(error.because(format!("no upstream {:?}", job.upstream())))
            }
        }
    }
}

/// The family of routes on which a job is asked for by its name in the body; none where it has an address of its own.
fn family(task: Task) -> Option<&'static str> {
    match task {
        Task::AudioQueue => Some("/audio"),
        Task::VideoQueue => Some("/video"),
        _ => None,
    }
}

/// The address of the job of this name, below `/v1`.
fn place(name: &str) -> String {
    let mut place = "/videos/".to_owned();
    for byte in name.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' | b'~' => place.push(char::from(byte)),
            // Also a dot: two of them would lead to another place.
            other => place.push_str(&format!("%{other:02X}")),
        }
    }
    place
}

/// One request about a job.
pub(super) struct Question {
    method: Method,
    path: String,
    at: At,
    pub body: Bytes,
}

/// What a path is below.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum At {
    /// Where the upstream is asked everything: its base URL and `/v1`.
    Api,
    /// Its own scheme, host and port.
    Origin,
    /// The media host of this place in the upstream's list.
    MediaHost(usize),
}

impl Question {
    pub fn of(method: Method, path: String) -> Question {
        Question { method, path, at: At::Api, body: Bytes::new() }
    }

    /// By the job's name in the body.
    fn about(job: &impl Bought, path: &str) -> Question {
        let body = json!({ "model": job.upstream_model(), "queue_id": job.upstream_job() });
        Question { method: Method::POST, path: path.to_owned(), at: At::Api, body: body.to_string().into() }
    }
}

impl HttpUpstream {
    /// Sends one request about a job and waits for the head of its answer. Asking twice changes nothing, so it is asked once more
    /// over a new connection if the first one broke.
    async fn exchange(&self, question: Question, deadline: Instant) -> Result<(ResponseHead, Body), Error> {
        let connections = match question.at {
            At::MediaHost(place) => self.media_hosts.get(place).map_or(&self.connections, |(_, connections)| connections),
            At::Api | At::Origin => &self.connections,
        };
        let mut again = false;
        loop {
            let head = self.question(&question).map_err(|why| {
                Error::new(Code::UpstreamError, "the upstream cannot be asked about this job; ask again later").because(why)
            })?;
            match timeout_at(deadline, connections.exchange(head.into(), question.body.clone(), again)).await {
                Err(_) => return Err(refusal::timed_out()),
                Ok(Ok(answer)) => return Ok(answer),
                Ok(Err(error)) => match unsent(&error, question.body.len()) {
                    Failure { then: Then::Again, .. } if !again => again = true,
                    Failure { error, .. } => return Err(error),
                },
            }
        }
    }

    /// The head of a request. The error says why there can be none.
    pub(super) fn question(&self, question: &Question) -> Result<RequestHead, String> {
        let base = match question.at {
            At::Api => format!("{}/v1", self.base_url),
            At::Origin => self.origin().to_owned(),
            At::MediaHost(place) => self.media_hosts.get(place).map(|(origin, _)| origin.clone()).unwrap_or_default(),
        };
        let uri = format!("{base}{}", question.path).parse::<Uri>().map_err(|error| error.to_string())?;
        let host = uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        let host = HeaderValue::from_str(host).map_err(|error| error.to_string())?;
        let mut head = RequestHead::default();
        (head.method, head.uri) = (question.method.clone(), uri);
        let headers = &mut head.headers;
        headers.insert(header::HOST, host);
        headers.insert(header::ACCEPT, HeaderValue::from_static("application/json, video/*, audio/*"));
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("farebox/", env!("CARGO_PKG_VERSION"))));
        if !question.body.is_empty() {
            headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        }
        // The operator's key is the upstream's, and nobody else's.
        if !matches!(question.at, At::MediaHost(_)) {
            self.identify(headers, Dialect::Chat);
        }
        Ok(head)
    }

    /// Scheme, host and port, as they are configured.
    fn origin(&self) -> &str {
        let host = self.base_url.find("://").map_or(0, |at| at + 3);
        let end = self.base_url.get(host..).and_then(|rest| rest.find('/')).map_or(self.base_url.len(), |at| host + at);
        self.base_url.get(..end).unwrap_or_default()
    }

    /// Where a URL leads, if it is at the upstream's own address or at one of its media hosts: the same scheme, host and port,
    /// nobody's name before the host. A URL without an address is at the upstream's own.
    fn located(&self, url: &str) -> Option<(At, String)> {
        if !url.bytes().all(|byte| byte.is_ascii_graphic()) || url.contains('\\') {
            return None;
        }
        if url.starts_with('/') && !url.starts_with("//") {
            let path = url.split('#').next().unwrap_or_default();
            return path.parse::<Uri>().ok().map(|_| (At::Origin, path.to_owned()));
        }
        let theirs = url.parse::<Uri>().ok()?;
        let address = address(&theirs)?;
        let is_at =
            |origin: &str| origin.parse().ok().and_then(|origin| self::address(&origin)).is_some_and(|own| own == address);
        let at = match is_at(self.origin()) {
            true => At::Origin,
            false => At::MediaHost(self.media_hosts.iter().position(|(origin, _)| is_at(origin))?),
        };
        Some((at, theirs.path_and_query().map_or("/".to_owned(), |path| path.as_str().to_owned())))
    }

    /// The URL of the result: the first that can be fetched from, else the first of all.
    fn url<'a>(&self, said: &'a Value) -> Option<&'a str> {
        let first = |places: &[&str]| {
            let named = || places.iter().filter_map(|place| said.pointer(place)?.as_str()).filter(|url| !url.is_empty());
            named().find(|url| self.located(url).is_some()).or_else(|| named().next())
        };
        first(&URLS).or_else(|| first(&URLS_OF_CALLERS))
    }

    /// What a job made whose only URL leads where nothing is fetched from, if its upstream has it as well where it has all such
    /// things; `None` also where it does not have it there.
    async fn in_its_place(
        &self,
        (job, task): (&impl Bought, Task),
        said: &Value,
        deadline: Instant,
    ) -> Result<Option<Answer>, Error> {
        let is_elsewhere = |report| matches!(report, Report::Done(Found::At(url)) if self.located(&url).is_none());
        if family(task).is_some() || !is_elsewhere(self.read(task, said)) {
            return Ok(None);
        }
        let question = Question::of(Method::GET, format!("{}/content", place(job.upstream_job())));
        let (head, body) = self.exchange(question, deadline).await?;
        match (head.status.as_u16(), media_type(&head)) {
            (200, Some(content_type)) => Ok(passing((job, task), &head, body, (content_type, deadline))),
            // It may be there in a moment.
            (408 | 429 | 500 | 502..=599, _) => Err(self.refused(&head)),
            _ => Ok(None),
        }
    }

    /// A report of a result that is not fetched from where it is says that the job has failed: nobody can have what it made.
    fn fetchable(&self, job: &impl Bought, report: Report) -> Report {
        match report {
            Report::Done(Found::At(url)) if self.located(&url).is_none() => {
                let (upstream, host) = (job.upstream(), shown(&url));
                tracing::error!(
                    upstream,
                    host,
                    "upstream {upstream} puts results at {host}, where they are not fetched from; jobs that were not delivered fail and are refunded until media_hosts names it"
                );
                let error =
                    "the upstream has put what this job made where it is not fetched from, which only the operator can change";
                Report::Failed { code: Some("result_not_fetchable".into()), error: error.into() }
            }
            other => other,
        }
    }

    /// What an upstream says of a job in JSON.
    fn read(&self, task: Task, said: &Value) -> Report {
        let status = said.get("status").or_else(|| said.get("state")).and_then(Value::as_str).unwrap_or_default();
        match status.to_ascii_lowercase().as_str() {
            "failed" | "failure" | "error" | "cancelled" | "canceled" | "rejected" => self.failure(said),
            "completed" | "complete" | "succeeded" | "success" | "done" | "finished" => {
                match (self.url(said), family(task)) {
                    (Some(url), _) => Report::Done(Found::At(url.to_owned())),
                    (None, None) => Report::Done(Found::InItsPlace),
                    // A queue hands its results out itself: one that is complete and not in the answer is there no more.
                    (None, Some(_)) => Report::Unknown,
                }
            }
            _ => {
                let number = |name: &str| said.get(name).and_then(whole);
                Report::Working {
                    average: number("average_execution_time"),
                    running: number("execution_duration"),
                    progress: number("progress").map(|percent| percent.min(100)),
                }
            }
        }
    }

    fn failure(&self, said: &Value) -> Report {
        let error = said.get("error").unwrap_or(&Value::Null);
        let text = error.as_str().or_else(|| error.get("message")?.as_str()).or_else(|| said.get("message")?.as_str());
        let code = error.get("code").or_else(|| said.get("code")).and_then(Value::as_str);
        let plain = |code: &&str| code.len() <= 64 && code.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        let text = text.map(|text| self.scrubber.scrub(text)).filter(|text| !text.is_empty());
        let error = text.unwrap_or_else(|| "the upstream says no more than that it failed".to_owned());
        Report::Failed { code: code.filter(plain).map(str::to_owned), error }
    }

    /// A status with which an upstream says neither yes nor no.
    fn refused(&self, head: &ResponseHead) -> Error {
        let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
        let again = refusal::retry_after(text(header::RETRY_AFTER), text(header::DATE));
        refusal::failed(head.status.as_u16(), again, false).error
    }
}

/// A whole number, also one that is written as a fraction.
fn whole(number: &Value) -> Option<u64> {
    let text = number.to_string();
    text.split(['.', 'e', 'E']).next()?.parse().ok()
}

/// The media type of an answer that may be passed on.
fn media_type(head: &ResponseHead) -> Option<&'static str> {
    let text = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
    let plain = text(header::CONTENT_ENCODING).is_none_or(|encoding| encoding.eq_ignore_ascii_case("identity"));
    let found = text(header::CONTENT_TYPE)?.split(';').next().unwrap_or_default().trim().to_owned();
    MEDIA.iter().copied().find(|known| plain && found.eq_ignore_ascii_case(known))
}

fn passing(
    (job, task): (&impl Bought, Task),
    head: &ResponseHead,
    body: Body,
    (content_type, deadline): (&'static str, Instant),
) -> Option<Answer> {
    let length = head.headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse().ok());
    if length == Some(0) {
        return None;
    }
    // Who passes it on sees to its pace; a film may take longer than to be told where it is.
    let body = AnswerBody::http(body, length, deadline + LONGEST_FETCH);
    Some(Answer {
        form: Goods::Media(task),
        content_type,
        content_length: length,
        upstream: job.upstream().to_owned(),
        model: job.upstream_model().to_owned(),
        body,
    })
}

fn unusable(head: &ResponseHead) -> Error {
    let content_type = head.headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let failure = refusal::unusable(head.status.as_u16(), content_type);
    Error { message: "the upstream of this job gave no usable answer; ask again later".into(), ..failure.error }
}

/// Scheme, host and port of a URL that leads somewhere over HTTP, and says nothing of who asks.
fn address(uri: &Uri) -> Option<(String, String, u16)> {
    let (scheme, authority) = (uri.scheme_str()?.to_ascii_lowercase(), uri.authority()?);
    let usual = match scheme.as_str() {
        "http" => 80,
        "https" => 443,
        _ => return None,
    };
    let port = match authority.port() {
        Some(_) => authority.port_u16()?,
        None => usual,
    };
    (!authority.as_str().contains('@')).then(|| (scheme, authority.host().to_ascii_lowercase(), port))
}

/// What the operator may see of a URL: its path and query may be all that is needed to have what is there.
fn shown(url: &str) -> String {
    let end = url.find("://").map_or(0, |at| at + 3);
    let end = url.get(end..).and_then(|rest| rest.find(['/', '?', '#', '\\'])).map_or(url.len(), |at| end + at);
    let address = url.get(..end).unwrap_or_default().rsplit('@').next().unwrap_or_default();
    address.chars().filter(char::is_ascii_graphic).take(120).collect()
}

/// A result that is at none of the upstream's addresses is not fetched: such a URL could lead into the operator's network.
fn elsewhere(url: &str) -> Error {
    let message = "the upstream has put what this job made where it is not fetched from, which only the operator can change";
    Error::new(Code::UpstreamError, message).because(format!("a result at {:?}, which is none of its addresses", shown(url)))
}

#[cfg(test)]
mod tests;
