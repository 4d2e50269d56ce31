//! Connections to one upstream: made when needed, used for one call at a time, and kept for the next.
//!
//! The codec is the server library's, as its own client uses it. That client starts a clock of its own for every request,
//! which costs more than all the rest of sending one; here one clock serves all requests.

use std::cell::{OnceCell, RefCell};
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_codec::Framed;
use actix_http::body::BodySize;
use actix_http::error::{ParseError, PayloadError};
use actix_http::h1::{ClientCodec, ClientPayloadCodec, Message, MessageType};
use actix_http::{RequestHeadType, ResponseHead, ServiceConfig};
use actix_service::Service as _;
use actix_tls::connect::rustls_0_23::{TlsConnector, TlsConnectorService};
use actix_tls::connect::{ConnectError, ConnectInfo, Connector as TcpConnector};
use awc::http::Uri;
use bytes::{Bytes, BytesMut};
use futures_core::Stream;
use rustls::ClientConfig;
use tokio::io::{AsyncRead as _, ReadBuf};
use tokio::time::{Instant, timeout};

use super::wire::{Io, Wire};

/// To connect, the TLS handshake included.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Shorter than any provider's, so that we seldom use a connection which the other side is closing.
const KEEP_ALIVE: Duration = Duration::from_secs(10);
/// A request goes out in slices of this size, so that no copy of it is kept while the answer streams.
const SLICE_BYTES: usize = 16 * 1024;

/// Why a request got no head of an answer.
#[derive(Debug, thiserror::Error)]
pub(super) enum Unheard {
    /// No connection: nothing was sent.
    #[error("{0}")]
    Unconnected(ConnectError),
    #[error("no connection within {} s", CONNECT_TIMEOUT.as_secs())]
    ConnectTimeout,
    #[error("{0}")]
    Send(io::Error),
    /// The connection was closed before anything was said.
    #[error("the connection was closed without an answer")]
    Closed,
    #[error("{0}")]
    Answer(ParseError),
}

/// The connections of one worker thread to one upstream.
pub(super) struct Connections(Rc<Kept>);

struct Kept {
    to: Uri,
    tls: Option<TlsConnectorService>,
    /// Made on the worker's own thread, with its first request: it starts the clock of what is sent.
    config: OnceCell<ServiceConfig>,
    /// The one that was used last stands last.
    idle: RefCell<VecDeque<(Wire, Instant)>>,
}

impl Connections {
    /// To the host and port of `to`; inside TLS when there is a configuration of it.
    pub fn new(to: Uri, tls: Option<ClientConfig>) -> Connections {
        let tls = tls.map(|config| TlsConnector::service(Arc::new(config)));
        Connections(Rc::new(Kept { to, tls, config: OnceCell::new(), idle: RefCell::default() }))
    }

    /// Sends one request and waits for the head of its answer. A `fresh` one goes over a new connection, because what is
    /// tried again must not meet another one that was closed meanwhile.
    pub async fn exchange(&self, head: RequestHeadType, body: Bytes, fresh: bool) -> Result<(ResponseHead, Body), Unheard> {
        let kept = if fresh { None } else { self.0.take().await };
        let wire = match kept {
            Some(wire) => wire,
            None => match timeout(CONNECT_TIMEOUT, self.0.connect()).await {
                Ok(connected) => connected.map_err(Unheard::Unconnected)?,
                Err(_) => return Err(Unheard::ConnectTimeout),
            },
        };
        let config = self.0.config.get_or_init(ServiceConfig::default).clone();
        let mut framed = Framed::new(wire, ClientCodec::new(config));
        send(&mut framed, head, body).await.map_err(Unheard::Send)?;
        let answer = poll_fn(|cx| Pin::new(&mut framed).next_item(cx)).await;
        let head = answer.ok_or(Unheard::Closed)?.map_err(Unheard::Answer)?;
        let mut body = Body { framed: None, home: Rc::clone(&self.0), ended_well: false };
        let has_body = !matches!(framed.codec_ref().message_type(), MessageType::None);
        let mut parts = framed.into_map_codec(ClientCodec::into_payload_codec).into_parts();
        // Nothing more is written: what the request went out of is not kept while its answer streams.
        parts.write_buf = BytesMut::new();
        let framed = Framed::from_parts(parts);
        if has_body {
            body.framed = Some(framed)
        } else {
            self.0.keep(framed)
        }
        Ok((head, body))
    }
}

/// Sends the head and then the body, of which never much more than one slice waits to be written.
async fn send(framed: &mut Framed<Wire, ClientCodec>, head: RequestHeadType, mut body: Bytes) -> io::Result<()> {
    let mut framed = Pin::new(framed);
    let size = BodySize::Sized(body.len() as u64);
    framed.as_mut().write(Message::Item((head, size)))?;
    while !body.is_empty() {
        if framed.is_write_buf_full() {
            poll_fn(|cx| framed.as_mut().flush::<Message<(RequestHeadType, BodySize)>>(cx)).await?;
        }
        let slice = body.split_to(body.len().min(SLICE_BYTES));
        framed.as_mut().write(Message::Chunk(Some(slice)))?;
    }
    framed.as_mut().write(Message::Chunk(None))?;
    poll_fn(|cx| framed.as_mut().flush::<Message<(RequestHeadType, BodySize)>>(cx)).await
}

impl Kept {
    /// The connection that was used last, unless the other side has closed it.
    async fn take(&self) -> Option<Wire> {
        loop {
            let (mut wire, since) = self.idle.borrow_mut().pop_back()?;
            if since.elapsed() < KEEP_ALIVE && poll_fn(|cx| Poll::Ready(is_silent(&mut wire, cx))).await {
                return Some(wire);
            }
        }
    }

    /// Keeps a connection whose answer was read to its end, if the other side keeps it too and has said nothing more.
    fn keep(&self, framed: Framed<Wire, ClientPayloadCodec>) {
        if !framed.codec_ref().keep_alive() || !framed.is_read_buf_empty() {
            return;
        }
        let (mut idle, now) = (self.idle.borrow_mut(), Instant::now());
        while idle.front().is_some_and(|(_, since)| now - *since >= KEEP_ALIVE) {
            idle.pop_front();
        }
        idle.push_back((framed.into_parts().io, now));
    }

    async fn connect(&self) -> Result<Wire, ConnectError> {
        let connection = TcpConnector::default().service().call(ConnectInfo::new(self.to.clone())).await?;
        // Small requests must not wait for an acknowledgement. Without it the call is slower, not wrong.
        _ = connection.io_ref().set_nodelay(true);
        Ok(Wire::new(match &self.tls {
            None => Io::Plain(connection.into_parts().0),
            Some(tls) => Io::Tls(Box::new(tls.call(connection).await.map_err(ConnectError::Io)?.into_parts().0)),
        }))
    }
}

/// Whether nothing came on a connection that waits for its next request, not even its end.
fn is_silent(wire: &mut Wire, cx: &mut Context<'_>) -> bool {
    let mut byte = [0; 1];
    Pin::new(wire).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
}

/// The body of an answer. Dropped before its end, it closes the connection; read to its end, it leaves it for the next call.
pub(super) struct Body {
    framed: Option<Framed<Wire, ClientPayloadCodec>>,
    home: Rc<Kept>,
    ended_well: bool,
}

impl Body {
    /// Whether it was read to an end that its framing had said.
    pub fn ended_well(&self) -> bool {
        self.ended_well
    }
}

impl Stream for Body {
    type Item = Result<Bytes, PayloadError>;

    /// The end of a connection within a body looks like the end of the body.
    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let Some(framed) = &mut self.framed else { return Poll::Ready(None) };
        match ready!(Pin::new(framed).next_item(cx)) {
            Some(Ok(Some(piece))) => return Poll::Ready(Some(Ok(piece))),
            Some(Ok(None)) => {
                self.ended_well = true;
                if let Some(framed) = self.framed.take() {
                    self.home.keep(framed);
                }
            }
            Some(Err(error)) => {
                self.framed = None;
                return Poll::Ready(Some(Err(error)));
            }
            None => self.framed = None,
        }
        Poll::Ready(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[actix_web::test]
    async fn small_requests_do_not_wait_for_an_acknowledgement() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let to: Uri = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
        let wire = Connections::new(to, None).0.connect().await.unwrap();
        assert!(wire.tcp().nodelay().unwrap(), "TCP_NODELAY is set");
    }
}
