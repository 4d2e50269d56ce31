//! JSON over HTTP to chain nodes and facilitators: no redirects, bounded answers, one deadline for the whole exchange.

use std::sync::Arc;
use std::time::Duration;

use awc::http::StatusCode;
use awc::http::header::{CONTENT_LENGTH, TRANSFER_ENCODING};
use bytes::Bytes;
use rustls::ClientConfig;

/// From the first byte sent to the last byte read.
const DEADLINE: Duration = Duration::from_secs(10);
const CONNECT: Duration = Duration::from_secs(5);
/// Receipts and logs of one transaction fit many times over.
const LARGEST_ANSWER: usize = 2 * 1024 * 1024;

/// One client per network; connections are kept and reused.
#[derive(Clone)]
pub(super) struct JsonClient(awc::Client);

/// What came back, whatever its status.
pub(super) struct Answer {
    pub status: StatusCode,
    pub body: Bytes,
}

impl JsonClient {
    pub fn new(tls: ClientConfig) -> JsonClient {
        let connector = awc::Connector::new().rustls_0_23(Arc::new(tls)).timeout(CONNECT).limit(0);
        // The deadline below covers what awc's own timeout leaves out: the body.
        JsonClient(awc::Client::builder().connector(connector).disable_redirects().disable_timeout().finish())
    }

    /// Posts JSON. `Err` means that nobody knows whether the other side acted. Never names the URL, which may hold a key.
    pub async fn post(&self, url: &str, authorization: Option<&str>, body: Vec<u8>) -> Result<Answer, String> {
        exchange(self.0.post(url), authorization, body).await
    }

    /// Gets JSON; the same rules.
    pub async fn get(&self, url: &str, authorization: Option<&str>) -> Result<Answer, String> {
        exchange(self.0.get(url), authorization, Vec::new()).await
    }
}

async fn exchange(request: awc::ClientRequest, authorization: Option<&str>, body: Vec<u8>) -> Result<Answer, String> {
    let mut request = request.insert_header(("content-type", "application/json"));
    if let Some(value) = authorization {
        request = request.insert_header(("authorization", value));
    }
    let exchange = async {
        let mut response = request.send_body(body).await.map_err(|error| error.to_string())?;
        let body = response.body().limit(LARGEST_ANSWER).await.map_err(|error| error.to_string())?;
        let has_length = response.headers().contains_key(CONTENT_LENGTH) || response.headers().contains_key(TRANSFER_ENCODING);
        if body.is_empty() && !has_length {
            // The library takes a body that ends with its connection for none. What it says is not known.
            return Err("its answer names no length; put a proxy before it that adds one".into());
        }
        Ok(Answer { status: response.status(), body })
    };
    match tokio::time::timeout(DEADLINE, exchange).await {
        Ok(answer) => answer,
        Err(_) => Err(format!("no answer within {} s", DEADLINE.as_secs())),
    }
}
