//! The HTTP client of one upstream: its connections, its key, and one attempt at a call.

use std::convert::Infallible;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use actix_service::ServiceExt as _;
use actix_tls::connect::{Connection, Connector as TcpConnector};
use actix_web::rt::net::TcpStream;
use awc::body::SizedStream;
use awc::error::{ConnectError, SendRequestError};
use awc::http::Uri;
use awc::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use bytes::Bytes;
use futures_util::stream;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use tokio::time::{Instant, timeout_at};

use super::answer::{Answer, AnswerBody};
use super::refusal::{self, Failure, Scrubber};
use super::{Call, forwardable};
use crate::config::Secret;
use crate::dialect::Dialect;
use crate::error::{Code, Error};

/// To connect, and again for the TLS handshake.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than any provider's, so that we seldom use a connection which the other side is closing.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A request goes out in slices of this size, so that the client library keeps no copy of it while the answer streams.
/// How long the head of an event stream is waited for while another upstream could still serve it.
const HEAD_PATIENCE: Duration = Duration::from_secs(60);
const SLICE_BYTES: usize = 64 * 1024;
/// Sent to upstreams that ask for a version when the caller names none.
const ANTHROPIC_VERSION: &str = "2023-06-01";
/// Betas that change what a call costs, or that let it reach what is stored under the operator's account.
const COSTLY_BETAS: [&str; 8] =
    ["context-1m", "fast-mode", "code-execution", "mcp-client", "files-api", "skills", "web-fetch", "compact"];

pub(super) struct HttpUpstream {
    client: awc::Client,
    base_url: String,
    /// The operator's key as each dialect sends it.
    bearer: Option<HeaderValue>,
    api_key: Option<HeaderValue>,
    scrubber: Scrubber,
}

impl HttpUpstream {
    /// On failure, the configuration key at fault and what is wrong with it.
    pub fn new(base_url: &str, key: Option<&Secret>, ca_file: Option<&Path>) -> Result<HttpUpstream, (&'static str, String)> {
        base_url.parse::<Uri>().map_err(|error| ("base_url", error.to_string()))?;
        let value = |text: String| {
            let mut value =
                HeaderValue::from_str(&text).map_err(|_| ("api_key", "it has bytes no header can carry".to_owned()))?;
            value.set_sensitive(true);
            Ok(value)
        };
        let key = key.map(Secret::expose);
        Ok(HttpUpstream {
            client: client(tls(ca_file).map_err(|why| ("ca_file", why))?),
            base_url: base_url.to_owned(),
            bearer: key.map(|key| value(format!("Bearer {key}"))).transpose()?,
            api_key: key.map(|key| value(key.to_owned())).transpose()?,
            scrubber: Scrubber::new(base_url, key),
        })
    }

    /// One attempt, up to the head of an answer that fits what was asked.
    pub async fn send(&self, name: &str, call: &Call<'_>, body: Bytes, is_last: bool) -> Result<Answer, Failure> {
        let length = body.len();
        let mut url = format!("{}{}", self.base_url, call.dialect.path());
        // The one parameter that known clients send; whatever else a caller writes there is no business of the upstream.
        if call.query.is_some_and(|query| query.split('&').any(|pair| pair == "beta=true")) {
            url.push_str("?beta=true");
        }
        let mut request = self.client.post(url).no_decompress();
        self.put_headers(request.headers_mut(), call);
        let slices = (0..length).step_by(SLICE_BYTES).map(move |at| {
            let end = (at + SLICE_BYTES).min(body.len());
            Ok::<_, Infallible>(body.slice(at..end))
        });
        let sent = request.send_body(SizedStream::new(length as u64, stream::iter(slices)));
        // An event stream has its head at once; a plain answer only when it is complete.
        let patience = if call.stream && !is_last { call.deadline.min(Instant::now() + HEAD_PATIENCE) } else { call.deadline };
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
            let body = timeout_at(call.deadline, response.body().limit(refusal::MAX_BODY_BYTES)).await;
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
        SendRequestError::Send(cause) if gone(cause) && length > SLICE_BYTES => Failure::Again(
            Error::new(Code::UpstreamRejected, "the upstream stopped reading the request; send a smaller one")
                .because(format!("{cause} while sending {length} bytes")),
        ),
        SendRequestError::Connect(ConnectError::Timeout) => Failure::Next(failed),
        SendRequestError::Connect(_) | SendRequestError::Send(_) => Failure::Again(failed),
        // A head that is too large or no HTTP at all will not be better the second time.
        SendRequestError::Response(cause) if !matches!(cause, actix_web::error::ParseError::Io(_)) => {
            Failure::Next(Error { message: refusal::NOT_USABLE.into(), ..failed })
        }
        SendRequestError::Response(_) => Failure::Again(failed),
        _ => Failure::Next(failed),
    }
}

/// The caller's betas without those that cost more than the tariff knows.
fn affordable_betas(value: &str) -> String {
    let betas = value.split(',').map(str::trim).filter(|beta| !COSTLY_BETAS.iter().any(|costly| beta.starts_with(costly)));
    betas.filter(|beta| !beta.is_empty()).collect::<Vec<_>>().join(",")
}

/// Own deadlines instead of the library's, no redirects (they would carry the operator's key elsewhere), no limit that
/// lets slow answers of one upstream hold up another's.
fn client(tls: rustls::ClientConfig) -> awc::Client {
    let tcp = TcpConnector::default().service().map(|connection: Connection<Uri, TcpStream>| {
        // Small requests must not wait for an acknowledgement. Without it the call is slower, not wrong.
        _ = connection.io_ref().set_nodelay(true);
        connection
    });
    let connector = awc::Connector::new()
        .connector(tcp)
        .rustls_0_23(Arc::new(tls))
        .timeout(CONNECT_TIMEOUT)
        .handshake_timeout(CONNECT_TIMEOUT)
        .conn_keep_alive(KEEP_ALIVE)
        .limit(0);
    awc::Client::builder().connector(connector).disable_timeout().disable_redirects().no_default_headers().finish()
}

/// The web's root certificates, and the operator's own if there is a file of them.
fn tls(ca_file: Option<&Path>) -> Result<rustls::ClientConfig, String> {
    let mut roots = rustls::RootCertStore { roots: webpki_roots::TLS_SERVER_ROOTS.to_vec() };
    if let Some(path) = ca_file {
        let shown = path.display();
        let certificates = CertificateDer::pem_file_iter(path).map_err(|error| format!("{shown}: {error}"))?;
        let before = roots.len();
        for certificate in certificates {
            let certificate = certificate.map_err(|error| format!("{shown}: {error}"))?;
            roots.add(certificate).map_err(|error| format!("{shown}: {error}"))?;
        }
        if roots.len() == before {
            return Err(format!("{shown}: there is no certificate in it"));
        }
    }
    let mut config = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| error.to_string())?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = vec![b"http/1.1".to_vec()];
    Ok(config)
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

    #[test]
    fn a_ca_file_without_a_certificate_is_refused() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(tls(Some(file.path())).unwrap_err().contains("no certificate"));
        assert!(tls(Some(Path::new("/nowhere/ca.pem"))).is_err());
        assert!(tls(None).is_ok());
    }
}
