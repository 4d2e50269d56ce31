//! The HTTP client of one upstream: its connections, its key, and one attempt at a call.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_service::{Service as _, fn_service};
use actix_tls::connect::rustls_0_23::{TlsConnector, TlsConnectorService};
use actix_tls::connect::{ConnectError as TcpConnectError, ConnectInfo, Connection, Connector as TcpConnector};
use actix_web::error::ParseError;
use awc::body::SizedStream;
use awc::error::{ConnectError, SendRequestError};
use awc::http::Uri;
use awc::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use futures_util::stream;
use rustls::ClientConfig;
use tokio::time::{Instant, timeout_at};

use super::answer::{Answer, AnswerBody};
use super::refusal::{self, Failure, Scrubber};
use super::wire::{Io, Wire};
use super::{Call, forwardable};
use crate::config::Secret;
use crate::dialect::Dialect;
use crate::error::{Code, Error};
use crate::tls;

/// To connect, the TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than any provider's, so that we seldom use a connection which the other side is closing.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// How long the head of an event stream is waited for while another upstream could still serve it.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);
/// How long the words of a refusal may take to follow its head.
const REASON_PATIENCE: Duration = Duration::from_secs(5);
/// A request goes out in slices of this size, so that the client library keeps no copy of it while the answer streams.
const SLICE_BYTES: usize = 16 * 1024;
/// A request above this size may have been too large for an upstream that hangs up while it is sent.
const LARGE_BYTES: usize = 64 * 1024;
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
    client: awc::Client,
    /// Has no connections that are kept: what is tried again must not meet another one that was closed meanwhile.
    fresh: awc::Client,
    base_url: String,
    /// The operator's key as each dialect sends it.
    bearer: Option<HeaderValue>,
    api_key: Option<HeaderValue>,
    scrubber: Scrubber,
}

impl HttpUpstream {
    /// On failure, the configuration key at fault and what is wrong with it.
    pub fn new(base_url: &str, key: Option<&Secret>, ca_file: Option<&Path>) -> Result<HttpUpstream, (&'static str, String)> {
        let url = base_url.parse::<Uri>().map_err(|error| ("base_url", error.to_string()))?;
        let tls = tls::client(ca_file).map_err(|why| ("ca_file", why))?;
        let tls = (url.scheme_str() == Some("https")).then_some(tls);
        let value = |text: String| {
            let mut value =
                HeaderValue::from_str(&text).map_err(|_| ("api_key", "it has bytes no header can carry".to_owned()))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let key = key.map(Secret::expose);
        Ok(HttpUpstream {
            base_url: without_tls(base_url, &url),
            fresh: client(tls.clone()),
            client: client(tls),
            bearer: key.map(|key| value(format!("Bearer {key}"))).transpose()?,
            api_key: key.map(|key| value(key.to_owned())).transpose()?,
            scrubber: Scrubber::new(base_url, key),
        })
    }

    /// One attempt, up to the head of an answer that fits what was asked; a second one goes over a new connection.
    pub async fn send(&self, name: &str, call: &Call<'_>, body: Bytes, attempt: Attempt) -> Result<Answer, Failure> {
        let length = body.len();
        let mut url = format!("{}{}", self.base_url, call.dialect.path());
        // The one parameter that known clients send; whatever else a caller writes there is no business of the upstream.
        if call.query.is_some_and(|query| query.split('&').any(|pair| pair == "beta=true")) {
            url.push_str("?beta=true");
        }
        let request = if attempt.again { self.fresh.post(url).force_close() } else { self.client.post(url) };
        let mut request = request.no_decompress();
        self.put_headers(request.headers_mut(), call);
        let slices = (0..length).step_by(SLICE_BYTES).map(move |at| {
            let end = (at + SLICE_BYTES).min(body.len());
            Ok::<_, Infallible>(body.slice(at..end))
        });
        let sent = request.send_body(SizedStream::new(length as u64, stream::iter(slices)));
        // An event stream has its head at once; a plain answer only when it is complete.
        let patience =
            if call.stream && !attempt.is_last { call.deadline.min(Instant::now() + HEAD_PATIENCE) } else { call.deadline };
        let response = match timeout_at(patience, sent).await {
            Err(_) if Instant::now() < call.deadline => return Err(Failure::Next(refusal::timed_out())),
            Err(_) => return Err(Failure::Final(refusal::timed_out())),
            Ok(Err(error)) => return Err(unsent(&error, length)),
            Ok(Ok(response)) => response,
        };
        self.judge(name, call, response).await
    }

    fn put_headers(&self, headers: &mut HeaderMap, call: &Call<'_>) {
        let accept = if call.stream { "text/event-stream" } else { "application/json" };
        headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // Usage could not be read from a compressed answer.
        headers.insert(header::ACCEPT_ENCODING, HeaderValue::from_static("identity"));
        headers.insert(header::USER_AGENT, HeaderValue::from_static(concat!("farebox/", env!("CARGO_PKG_VERSION"))));
        for (name, value) in call.headers.iter().filter(|(name, _)| forwardable(name)) {
            let value = if name.eq_ignore_ascii_case("anthropic-beta") { affordable_betas(value) } else { value.clone() };
            if let (Ok(name), Ok(value)) = (HeaderName::try_from(name.as_str()), HeaderValue::try_from(value))
                && !value.is_empty()
            {
                headers.append(name, value);
            }
        }
        match call.dialect {
            Dialect::OpenAi => {
                self.bearer.iter().for_each(|bearer| _ = headers.insert(header::AUTHORIZATION, bearer.clone()));
            }
            Dialect::Anthropic => {
                self.api_key.iter().for_each(|key| _ = headers.insert(HeaderName::from_static("x-api-key"), key.clone()));
                let version = HeaderName::from_static("anthropic-version");
                if !headers.contains_key(&version) {
                    headers.insert(version, HeaderValue::from_static(ANTHROPIC_VERSION));
                }
            }
        }
    }

    /// Accepts a head, or says what is to be done about it.
    async fn judge(&self, name: &str, call: &Call<'_>, mut response: awc::ClientResponse) -> Result<Answer, Failure> {
        let status = response.status().as_u16();
        if refusal::is_about_the_request(status) {
            let patience = call.deadline.min(Instant::now() + REASON_PATIENCE);
            let body = timeout_at(patience, response.body().limit(refusal::MAX_BODY_BYTES)).await;
            let body = body.ok().and_then(Result::ok).unwrap_or_default();
            return Err(refusal::rejected(status, &body, &self.scrubber));
        }
        let header = |name: HeaderName| response.headers().get(name).and_then(|value| value.to_str().ok());
        if !(200..300).contains(&status) {
            return Err(refusal::failed(status, header(header::RETRY_AFTER)));
        }
        let expected = if call.stream { "text/event-stream" } else { "application/json" };
        let content_type = header(header::CONTENT_TYPE).unwrap_or_default();
        let plain = header(header::CONTENT_ENCODING).is_none_or(|encoding| encoding.eq_ignore_ascii_case("identity"));
        let found = content_type.split(';').next().unwrap_or_default().trim();
        if status != 200 || !found.eq_ignore_ascii_case(expected) || !plain {
            return Err(refusal::unusable(status, content_type));
        }
        let content_length = header(header::CONTENT_LENGTH).and_then(|length| length.parse().ok());
        if content_length == Some(0) {
            return Err(refusal::empty(status));
        }
        let body = AnswerBody::http(response, content_length, call.deadline);
        Ok(Answer { content_type: expected, content_length, upstream: name.to_owned(), body })
    }
}

/// An attempt that got no head.
fn unsent(error: &SendRequestError, length: usize) -> Failure {
    let gone = |error: &io::Error| {
        matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted)
    };
    let failed = Error::new(Code::UpstreamError, "the upstream cannot be reached; try again").because(error.to_string());
    match error {
        // A large body that is not read to its end was refused for its size, only that the refusal got lost.
        SendRequestError::Send(cause) if gone(cause) && length > LARGE_BYTES => Failure::Again(
            Error::new(Code::UpstreamRejected, "the upstream stopped reading the request; send a smaller one")
                .because(format!("{cause} while sending {length} bytes")),
        ),
        SendRequestError::Connect(ConnectError::Timeout) => Failure::Next(failed),
        // A certificate that is not believed now will not be believed in a moment.
        SendRequestError::Connect(ConnectError::Io(cause)) if cause.kind() == io::ErrorKind::InvalidData => {
            Failure::Next(failed.because(format!("{cause}; a private authority's certificate goes into ca_file")))
        }
        // Only a request of which nothing was heard at all is sent again: one that was answered in part may have been carried
        // out. Nor will a head that is too large or no HTTP at all be better the second time.
        SendRequestError::Send(cause) | SendRequestError::Response(ParseError::Io(cause))
            if cause.kind() != io::ErrorKind::InvalidData =>
        {
            Failure::Again(failed)
        }
        SendRequestError::Connect(_) => Failure::Again(failed),
        SendRequestError::Send(_) | SendRequestError::Response(_) => {
            Failure::Next(Error { message: refusal::NOT_USABLE.into(), ..failed })
        }
        _ => Failure::Next(failed),
    }
}

/// The caller's betas without those that cost more than the tariff knows.
fn affordable_betas(value: &str) -> String {
    let betas = value.split(',').map(str::trim).filter(|beta| !COSTLY_BETAS.iter().any(|costly| beta.starts_with(costly)));
    betas.filter(|beta| !beta.is_empty()).collect::<Vec<_>>().join(",")
}

/// Own deadlines instead of the library's, no redirects (they would carry the operator's key elsewhere), no limit that
/// lets slow answers of one upstream hold up another's. TLS is ours too: see [`Wire`].
fn client(tls: Option<ClientConfig>) -> awc::Client {
    let tls = tls.map(|config| TlsConnector::service(Arc::new(config)));
    let connector = awc::Connector::new()
        .connector(fn_service(move |to| connect(to, tls.clone())))
        .timeout(CONNECT_TIMEOUT)
        .conn_keep_alive(KEEP_ALIVE)
        .limit(0);
    awc::Client::builder().connector(connector).disable_timeout().disable_redirects().no_default_headers().finish()
}

/// One new connection; inside TLS when there is a configuration of it.
async fn connect(to: ConnectInfo<Uri>, tls: Option<TlsConnectorService>) -> Result<Connection<Uri, Wire>, TcpConnectError> {
    let connection = TcpConnector::default().service().call(to).await?;
    // Small requests must not wait for an acknowledgement. Without it the call is slower, not wrong.
    _ = connection.io_ref().set_nodelay(true);
    let (io, to) = match tls {
        None => {
            let (tcp, to) = connection.into_parts();
            (Io::Plain(tcp), to)
        }
        Some(tls) => {
            let (tls, to) = tls.call(connection).await.map_err(TcpConnectError::Io)?.into_parts();
            (Io::Tls(Box::new(tls)), to)
        }
    };
    Ok(Connection::new(to, Wire::new(io)))
}

/// The address as the library is given it: it must not add TLS of its own to a connection that has it already.
fn without_tls(base_url: &str, url: &Uri) -> String {
    match (url.scheme_str(), url.authority()) {
        (Some("https"), Some(authority)) => {
            let port = if authority.port().is_none() { ":443" } else { "" };
            format!("http://{authority}{port}{}", url.path().trim_end_matches('/'))
        }
        _ => base_url.to_owned(),
    }
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

    #[actix_web::test]
    async fn small_requests_do_not_wait_for_an_acknowledgement() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let connection = connect(ConnectInfo::new(to), None).await.unwrap();
        assert!(connection.io_ref().tcp().nodelay().unwrap(), "TCP_NODELAY is set");
    }

    #[test]
    fn the_library_is_given_the_address_behind_tls_and_no_other() {
        for (base, plain) in [
            ("https://api.example.com", "http://api.example.com:443"),
            ("https://api.example.com:8443/openai", "http://api.example.com:8443/openai"),
            ("http://127.0.0.1:9/x", "http://127.0.0.1:9/x"),
        ] {
            assert_eq!(without_tls(base, &base.parse().unwrap()), plain);
        }
    }
}
