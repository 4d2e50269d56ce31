//! The way to an authority: requests of the ACME library, which may be made on any thread, carried by our own client on this one.

use std::future::{Future, poll_fn};
use std::path::Path;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body::Body as _;
use instant_acme::{BodyWrapper, BytesResponse, Error, HttpClient};
use tokio::sync::{mpsc, oneshot};

use crate::tls;

/// From the first byte sent to the last of the answer, connection included.
const DEADLINE: Duration = Duration::from_secs(30);
/// A chain of certificates has some kilobytes.
const LONGEST_ANSWER: usize = 1024 * 1024;

type Asked = Request<BodyWrapper<Bytes>>;
type Told = Result<BytesResponse, Error>;

/// Hands requests over to the thread that it was opened on.
pub(super) struct Wire(mpsc::UnboundedSender<(Asked, oneshot::Sender<Told>)>);

/// Carries what is asked for as long as the wire is held. One by one: so the library asks.
///
/// # Errors
/// A `ca_file` that cannot be used.
pub(super) fn open(ca_file: Option<&Path>) -> Result<Wire, String> {
    within(DEADLINE, ca_file)
}

fn within(deadline: Duration, ca_file: Option<&Path>) -> Result<Wire, String> {
    let tls = tls::client(ca_file)?;
    let connector = awc::Connector::new().rustls_0_23(Arc::new(tls)).timeout(deadline).limit(1);
    // The library's own timeout leaves out the body.
    let client = awc::Client::builder().connector(connector).disable_redirects().disable_timeout().finish();
    let (ask, mut asked) = mpsc::unbounded_channel::<(Asked, oneshot::Sender<Told>)>();
    actix_web::rt::spawn(async move {
        while let Some((request, tell)) = asked.recv().await {
            let url = request.uri().clone();
            let late = |_| Err(Error::Other(format!("{url}: no whole answer within {} s", deadline.as_secs()).into()));
            let answer = tokio::time::timeout(deadline, carry(&client, request)).await.unwrap_or_else(late);
            // Whoever does not wait any more needs no answer.
            let _ = tell.send(answer);
        }
    });
    Ok(Wire(ask))
}

impl HttpClient for Wire {
    fn request(&self, request: Asked) -> Pin<Box<dyn Future<Output = Told> + Send>> {
        let (tell, told) = oneshot::channel();
        let sent = self.0.send((request, tell)).is_ok();
        Box::pin(async move {
            match told.await {
                Ok(answer) if sent => answer,
                _ => Err(Error::Str("the program stops")),
            }
        })
    }
}

/// Reads the directory of an authority (RFC 8555 section 7.1.1).
pub(super) async fn directory(wire: &Wire, url: &str) -> Result<(), Error> {
    let request = Request::get(url).body(BodyWrapper::default())?;
    let mut answer = wire.request(request).await?;
    let body = answer.body.into_bytes().await.map_err(Error::Other)?;
    let is_one = serde_json::from_slice::<serde_json::Value>(&body).is_ok_and(|directory| directory["newOrder"].is_string());
    match answer.parts.status.is_success() && is_one {
        true => Ok(()),
        false => Err(Error::Other(format!("{url} answers, and is no directory of an ACME authority").into())),
    }
}

async fn carry(client: &awc::Client, request: Asked) -> Told {
    let (head, mut body) = request.into_parts();
    // What it sends is in one piece.
    let frame = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await;
    let body = frame.and_then(|Ok(frame)| frame.into_data().ok()).unwrap_or_default();
    let method = awc::http::Method::from_bytes(head.method.as_str().as_bytes()).map_err(other)?;
    let mut request = client.request(method, head.uri.to_string());
    for (name, value) in &head.headers {
        request = request.insert_header((name.as_str(), value.as_bytes()));
    }
    let failed = |error: &dyn std::fmt::Display| Error::Other(format!("{}: {error}", head.uri).into());
    let mut answer = request.send_body(body).await.map_err(|error| failed(&error))?;
    let mut response = Response::builder().status(answer.status().as_u16());
    for (name, value) in answer.headers() {
        response = response.header(name.as_str(), value.as_bytes());
    }
    let body = answer.body().limit(LONGEST_ANSWER).await.map_err(|error| failed(&error))?;
    let (parts, ()) = response.body(())?.into_parts();
    Ok(BytesResponse { parts, body: Box::new(body) })
}

fn other(error: impl std::error::Error + Send + Sync + 'static) -> Error {
    Error::Other(Box::new(error))
}

#[cfg(test)]
mod tests {
    use std::io::{Read as _, Write as _};

    use super::*;

    /// An authority that falls silent in the middle of its first answer, and gives every other one whole.
    fn authority() -> String {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let url = format!("http://{}/directory", listener.local_addr().unwrap());
        std::thread::spawn(move || {
            let mut silent = Vec::new();
            for stream in listener.incoming() {
                let (mut stream, mut request) = (stream.unwrap(), [0; 4096]);
                assert!(stream.read(&mut request).unwrap() > 0);
                let body = "{\"newOrder\": \"https://authority.example.test/order\"}";
                let sent = if silent.is_empty() { &body[..body.len() / 2] } else { body };
                write!(stream, "HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{sent}", body.len()).unwrap();
                silent.push(stream);
            }
        });
        url
    }

    #[test]
    fn an_answer_that_never_ends_is_given_up_and_the_next_request_is_answered() {
        actix_web::rt::System::new().block_on(async {
            let (wire, url) = (within(Duration::from_secs(10), None).unwrap(), authority());
            let asked = tokio::time::timeout(Duration::from_secs(60), directory(&wire, &url)).await;
            let why = asked.expect("it does not wait for ever").unwrap_err().to_string();
            assert!(why.contains("no whole answer within 10 s") && why.contains(&url), "{why}");
            directory(&wire, &url).await.unwrap();
        });
    }
}
