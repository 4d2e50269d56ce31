//! The HTTP client of one upstream: its connections, its key, and one attempt at a call.

use std::io;
use std::path::Path;
use std::pin::Pin;
use std::rc::Rc;
use std::time::Duration;

use actix_http::error::ParseError;
use actix_http::{ConnectionType, Method, RequestHead, RequestHeadType, ResponseHead};
use actix_tls::connect::ConnectError;
use awc::http::Uri;
use awc::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::{Instant, timeout_at};

use super::answer::{Ahead, Answer, AnswerBody};
use super::connection::{Body, Connections, Unheard};
use super::gate::Word;
use super::refusal::{self, Failure, Scrubber, Then};
use super::{Call, forwardable, is_order};
use crate::config::Secret;
use crate::dialect::{Answers, Dialect, Goods, JsonEnd, failed_answer};
use crate::error::{Code, Error};
use crate::tls;

/// How long the head of an event stream is waited for while another upstream could still serve it.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);
/// A stream that has not begun after so long says that its upstream hangs.
const HANGING: Duration = Duration::from_secs(10);
/// How long the words of a refusal may take to follow its head.
const REASON_PATIENCE: Duration = Duration::from_secs(5);
/// A request above this size may have been too large for an upstream that hangs up while it is sent.
const LARGE_BYTES: usize = 64 * 1024;
/// The longest plain answers that are read to their end before any of them is sold, so that none is sold which says that it is a
/// failure: no failure has more to say, even where it repeats what was asked. Of media, what is longer is what was made.
const MOST_WORDS: usize = 1024 * 1024;
const MOST_MEDIA: usize = 64 * 1024;
/// Sent to upstreams that ask for a version when the caller names none.
const ANTHROPIC_VERSION: &str = "2023-06-01";
/// Betas that change what a call costs, or that let it reach what is stored under the operator's account.
const COSTLY_BETAS: [&str; 8] =
    ["context-1m", "fast-mode", "code-execution", "mcp-client", "files-api", "skills", "web-fetch", "compact"];

/// Which attempt at a call it is.
#[derive(Clone, Copy)]
pub(super) struct Attempt {
    /// No other upstream could serve the call.
    pub is_last: bool,
    /// The first one failed.
    pub again: bool,
}

pub(super) struct HttpUpstream {
    pub(super) connections: Connections,
    pub(super) base_url: String,
    /// Where it may put what jobs make, beside its own address.
    pub(super) media_hosts: Vec<(String, Connections)>,
    /// The operator's key as each dialect sends it.
    bearer: Option<HeaderValue>,
    api_key: Option<HeaderValue>,
    /// The heads of the requests that most callers make, ready to be sent, by dialect and whether a stream is asked for.
    heads: [[Rc<RequestHead>; 2]; Dialect::ALL.len()],
    pub(super) scrubber: Scrubber,
}

impl HttpUpstream {
    /// On failure, the configuration key at fault and what is wrong with it.
    pub fn new(
        base_url: &str,
        key: Option<&Secret>,
        ca_file: Option<&Path>,
        media_hosts: &[String],
    ) -> Result<HttpUpstream, (&'static str, String)> {
        let url = base_url.parse::<Uri>().map_err(|error| ("base_url", error.to_string()))?;
        let tls = tls::client(ca_file).map_err(|why| ("ca_file", why))?;
        let media_host = |host: &String| {
            let url = host.parse::<Uri>().map_err(|error| ("media_hosts", error.to_string()))?;
            Ok((host.clone(), Connections::new(url, Some(tls.clone()))))
        };
        let media_hosts = media_hosts.iter().map(media_host).collect::<Result<_, _>>()?;
        let tls = (url.scheme_str() == Some("https")).then_some(tls);
        let value = |text: String| {
            let mut value =
                HeaderValue::from_str(&text).map_err(|_| ("api_key", "it has bytes no header can carry".to_owned()))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let key = key.map(Secret::expose);
        let mut upstream = HttpUpstream {
            base_url: base_url.trim_end_matches('/').to_owned(),
            connections: Connections::new(url, tls),
            media_hosts,
            bearer: key.map(|key| value(format!("Bearer {key}"))).transpose()?,
            api_key: key.map(|key| value(key.to_owned())).transpose()?,
            heads: Default::default(),
            scrubber: Scrubber::new(base_url, key),
        };
        for dialect in Dialect::ALL {
            for stream in [false, true] {
                let head = upstream
                    .head(Goods::Words(dialect), stream, "application/json", (&[], None))
                    .map_err(|why| ("base_url", why))?;
                upstream.heads[place(dialect)][usize::from(stream)] = Rc::new(head);
            }
        }
        Ok(upstream)
    }

    /// One attempt, up to the head of an answer that fits what was asked; a second one goes over a new connection.
    pub async fn send(
        &self,
        name: &str,
        call: &Call<'_>,
        (form, body): (Goods, Bytes),
        attempt: Attempt,
    ) -> Result<Answer, Failure> {
        let length = body.len();
        let head = self.request(call, form, attempt).map_err(|why| {
            let error = Error::new(Code::Internal, "the request could not be sent on; nothing was charged").because(why);
            Failure::new(Then::Final, error)
        })?;
        let begun = Instant::now();
        let sent = self.connections.exchange(head, body, attempt.again);
        // An event stream has its head at once; a plain answer only when it is complete.
        let patience =
            if call.stream && !attempt.is_last { call.deadline.min(Instant::now() + HEAD_PATIENCE) } else { call.deadline };
        let (head, body) = match timeout_at(patience, sent).await {
            Err(_) => {
                let then = if Instant::now() < call.deadline { Then::Next } else { Then::Final };
                let hangs = call.stream && begun.elapsed() >= HANGING;
                return Err(Failure::new(then, refusal::timed_out()).failing_if(hangs));
            }
            Ok(Err(error)) => return Err(unsent(&error, length)),
            Ok(Ok(answer)) => answer,
        };
        let mut answer = self.judge(name, call, form, (&head, body)).await?;
        if !call.stream && answer.content_type == "application/json" && !is_order(form) {
            examine(&mut answer, form != call.goods).await?;
        }
        Ok(answer)
    }

    fn request(&self, call: &Call<'_>, form: Goods, attempt: Attempt) -> Result<RequestHeadType, String> {
        // The one parameter that known clients send; whatever else a caller writes there is no business of the upstream.
        let query = call.query.filter(|query| form == call.goods && query.split('&').any(|pair| pair == "beta=true"));
        let query = query.map(|_| "?beta=true");
        if let Goods::Words(dialect) = form
            && (call.headers.is_empty() || form != call.goods)
            && query.is_none()
            && !attempt.again
        {
            return Ok(RequestHeadType::Rc(Rc::clone(&self.heads[place(dialect)][usize::from(call.stream)]), None));
        }
        // What a caller says of one dialect means nothing in another.
        let headers = if form == call.goods { call.headers } else { &[] };
        let mut head = self.head(form, call.stream, &call.content_type, (headers, query))?;
        if attempt.again {
            head.set_connection_type(ConnectionType::Close);
        }
        Ok(head.into())
    }

    /// The head of a request with a caller's headers. The error says why there can be none.
    fn head(
        &self,
        goods: Goods,
        stream: bool,
        content_type: &str,
        (forwarded, query): (&[(String, String)], Option<&str>),
    ) -> Result<RequestHead, String> {
        let url = format!("{}/v1{}{}", self.base_url, goods.path(), query.unwrap_or_default());
        let uri = url.parse::<Uri>().map_err(|error| error.to_string())?;
        let host = uri.authority().map(|authority| authority.as_str().rsplit('@').next().unwrap_or_default());
        let host = HeaderValue::from_str(host.unwrap_or_default()).map_err(|error| error.to_string())?;
        let mut head = RequestHead::default();
        (head.method, head.uri) = (Method::POST, uri);
        let headers = &mut head.headers;
        headers.insert(header::HOST, host);
        let accept = if stream { "text/event-stream" } else { accepted(goods) };
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        let content_type = HeaderValue::from_str(content_type).map_err(|error| error.to_string())?;
        headers.insert(header::CONTENT_TYPE, content_type);
        // Usage could not be read from a compressed answer.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("farebox/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in forwarded.iter().filter(|(name, _)| forwardable(name)) {
            let value = if name.eq_ignore_ascii_case("anthropic-beta") { affordable_betas(value) } else { value.clone() };
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value))
                && !value.is_empty()
            {
                headers.append(name, value);
            }
        }
        self.identify(headers, goods.dialect());
        Ok(head)
    }

    /// Puts the operator's key where the dialect has it.
    pub(super) fn identify(&self, headers: &mut HeaderMap, dialect: Dialect) {
        match dialect {
            Dialect::Chat | Dialect::Responses => {
                self.bearer.iter().for_each(|bearer| _ = headers.insert(header::AUTHORIZATION, bearer.clone()));
            }
            Dialect::Messages => {
                self.api_key.iter().for_each(|key| _ = headers.insert(HeaderName::from_static("x-api-key"), key.clone()));
                let version = HeaderName::from_static("anthropic-version");
                if !headers.contains_key(&version) {
                    headers.insert(version, HeaderValue::from_static(ANTHROPIC_VERSION));
                }
            }
        }
    }

    /// Accepts a head, or says what is to be done about it.
    async fn judge(
        &self,
        name: &str,
        call: &Call<'_>,
        form: Goods,
        (head, body): (&ResponseHead, Body),
    ) -> Result<Answer, Failure> {
        let status = head.status.as_u16();
        if refusal::is_about_the_request(status) {
            let patience = call.deadline.min(Instant::now() + REASON_PATIENCE);
            let body = timeout_at(patience, words(body)).await.unwrap_or_default();
            return Err(refusal::rejected(status, &body, &self.scrubber));
        }
        let header = |name: HeaderName| head.headers.get(name).and_then(|value| value.to_str().ok());
        if !(200..300).contains(&status) {
            let again = refusal::retry_after(header(header::RETRY_AFTER), header(header::DATE));
            return Err(refusal::failed(status, again, call.stream));
        }
        let content_type = header(header::CONTENT_TYPE).unwrap_or_default();
        let plain = header(header::CONTENT_ENCODING).is_none_or(|encoding| encoding.eq_ignore_ascii_case("identity"));
        let found = content_type.split(';').next().unwrap_or_default().trim();
        let expected = if call.stream { Some("text/event-stream") } else { answered(form, found) };
        let Some(expected) =
            expected.filter(|expected| status == 200 && plain && (!call.stream || found.eq_ignore_ascii_case(expected)))
        else {
            return Err(refusal::unusable(status, content_type));
        };
        let content_length = header(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
        if content_length == Some(0) {
            return Err(refusal::empty(status));
        }
        let is_chunked = head.headers.get(header::TRANSFER_ENCODING).is_some();
        if !call.stream && content_length.is_none() && !is_chunked && expected != "application/json" {
            return Err(refusal::endless(status));
        }
        let body = AnswerBody::http(body, content_length, call.deadline);
        Ok(Answer { form, content_type: expected, content_length, upstream: name.to_owned(), model: String::new(), body })
    }
}

/// Reads a plain answer ahead, and refuses one that says it is none. Nothing has gone to anybody yet.
async fn examine(answer: &mut Answer, is_translated: bool) -> Result<(), Failure> {
    let most = match answer.form {
        Goods::Words(_) => MOST_WORDS,
        Goods::Media(_) => MOST_MEDIA,
    };
    let mut end = JsonEnd::default();
    let whole = match answer.body.read_ahead(most, |piece| end.has_come(piece)).await {
        Ok(Ahead::Whole(whole)) => whole,
        // Too much of it for a failure: what it says is measured as it passes.
        Ok(Ahead::Part) => return Ok(()),
        Err(broken) => return Err(refusal::broke_off(&broken)),
    };
    match failed_answer(answer.form, is_translated, &whole) {
        Some(none) => Err(refusal::within(none)),
        None => Ok(()),
    }
}

/// What an answer that is no stream may be.
fn answers(goods: Goods) -> Answers {
    match goods {
        Goods::Words(_) => Answers::Json,
        Goods::Media(task) => task.row().answers,
    }
}

fn accepted(goods: Goods) -> &'static str {
    match answers(goods) {
        Answers::Json => "application/json",
        Answers::JsonOrBytes => "application/json, image/*",
        Answers::Bytes => "audio/*, application/octet-stream",
        Answers::JsonOrText => "application/json, text/plain, text/vtt",
    }
}

/// Files and texts that are passed on. None of them is run by a browser.
const FILES: [&str; 20] = [
    "audio/mp3",
    "audio/x-flac",
    "audio/l16",
    "image/png",
    "image/jpeg",
    "image/webp",
    "image/gif",
    "image/avif",
    "audio/mpeg",
    "audio/wav",
    "audio/x-wav",
    "audio/wave",
    "audio/ogg",
    "audio/opus",
    "audio/aac",
    "audio/flac",
    "audio/mp4",
    "audio/pcm",
    "audio/webm",
    "application/octet-stream",
];
const TEXTS: [&str; 4] = ["text/plain", "text/vtt", "application/x-subrip", "text/srt"];

/// The `Content-Type` under which an answer is passed on, if it is one that was asked for.
fn answered(goods: Goods, found: &str) -> Option<&'static str> {
    let known = |list: &[&'static str]| list.iter().copied().find(|known| found.eq_ignore_ascii_case(known));
    match answers(goods) {
        Answers::Json => known(&["application/json"]),
        Answers::JsonOrBytes => known(&["application/json"]).or_else(|| known(&FILES)),
        Answers::Bytes => known(&FILES),
        Answers::JsonOrText => known(&["application/json"]).or_else(|| known(&TEXTS)),
    }
}

/// Which of the prepared heads belongs to a dialect.
fn place(dialect: Dialect) -> usize {
    match dialect {
        Dialect::Chat => 0,
        Dialect::Messages => 1,
        Dialect::Responses => 2,
    }
}

/// The words of a refusal; nothing, where they are too many or do not come whole.
pub(super) async fn words(body: Body) -> Bytes {
    let mut body = Pin::new(Box::new(body));
    let mut words = Vec::new();
    while let Some(Ok(piece)) = body.next().await {
        words.extend_from_slice(&piece);
        if words.len() > refusal::MAX_BODY_BYTES {
            return Bytes::new();
        }
    }
    words.into()
}

/// An attempt that got no head.
pub(super) fn unsent(error: &Unheard, length: usize) -> Failure {
    let gone = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted)
    };
    let failed = Error::new(Code::UpstreamError, "the upstream cannot be reached; try again").because(error.to_string());
    let unreachable = |then: Then, error: Error| Failure { word: Word::Unreachable, ..Failure::new(then, error) };
    let fails = |then: Then, error: Error| Failure::new(then, error).failing_if(true);
    match error {
        // A large body that is not read to its end was refused for its size, only that the refusal got lost.
        Unheard::Send(cause) if gone(cause) && length > LARGE_BYTES => Failure::new(
            Then::Again,
            Error::new(Code::UpstreamRejected, "the upstream stopped reading the request; send a smaller one")
                .because(format!("{cause} while sending {length} bytes")),
        ),
        Unheard::ConnectTimeout => unreachable(Then::Next, failed),
        // A certificate that is not believed now will not be believed in a moment.
        Unheard::Unconnected(ConnectError::Io(cause)) if cause.kind() == io::ErrorKind::InvalidData => {
            unreachable(Then::Next, failed.because(format!("{cause}; a private authority's certificate goes into ca_file")))
        }
        Unheard::Unconnected(_) => unreachable(Then::Again, failed),
        // It took the connection, and what it makes of this request may be another matter with the next.
        Unheard::Closed => fails(Then::Again, failed),
        // Only a request of which nothing was heard at all is sent again: one that was answered in part may have been carried
        // out. Nor will a head that is too large or no HTTP at all be better the second time.
        Unheard::Send(cause) | Unheard::Answer(ParseError::Io(cause)) if cause.kind() != io::ErrorKind::InvalidData => {
            fails(Then::Again, failed)
        }
        Unheard::Send(_) | Unheard::Answer(_) => fails(Then::Next, Error { message: refusal::NOT_USABLE.into(), ..failed }),
    }
}

/// The caller's betas without those that cost more than the tariff knows.
fn affordable_betas(value: &str) -> String {
    let betas = value.split(',').map(str::trim).filter(|beta| !COSTLY_BETAS.iter().any(|costly| beta.starts_with(costly)));
    betas.filter(|beta| !beta.is_empty()).collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn betas_that_cost_extra_are_left_out() {
        let sent = "claude-code-20250219, context-1m-2025-08-07,interleaved-thinking-2025-05-14,fast-mode-2026-02-01";
        assert_eq!(affordable_betas(sent), "claude-code-20250219,interleaved-thinking-2025-05-14");
        assert_eq!(affordable_betas("context-1m-2025-08-07"), "");
    }
}
