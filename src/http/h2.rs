//! HTTP/2 on a connection that agreed on it: a caller who resets a stream has left it, and an answer that breaks off ends in a
//! reset and never looks complete.
//!
//! The server library has a dispatcher of its own, which does not notice who has left: a call would go on at its upstream until
//! its end. And its release of h2 drops the streams of a client that says it will ask for nothing more.

use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_http::{Payload, Request, Response};
use actix_service::Service as _;
use actix_web::body::{BodySize, BoxBody, MessageBody as _};
use actix_web::error::PayloadError;
use actix_web::http::header::{self, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode, Version};
use bytes::Bytes;
use futures_core::Stream;
use futures_util::StreamExt as _;
use futures_util::stream::FuturesUnordered;
use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use std::future::poll_fn;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};

use super::HEAD;
use super::watched::{Pages, Patience};
use crate::clock::{Clock, Timestamp};

/// Requests at the same time on one connection.
const STREAMS: u32 = 32;
/// Bytes of the headers of one request, as HTTP/2 counts them.
const HEADERS: u32 = 64 * 1024;
/// Bytes of an answer that wait in here for a client that reads slowly.
const UNSENT: usize = 32 * 1024;
/// Bytes of a request that may come before they are asked for, of one and of all on a connection.
const WINDOW: u32 = 256 * 1024;
const WINDOWS: u32 = 1024 * 1024;
/// Bytes of an answer that are put into one frame at most.
const FRAME: usize = 16 * 1024;
/// How long the last words of an answer that breaks off may take to leave.
const FAREWELL: Duration = Duration::from_secs(1);
/// What says how HTTP/1.1 frames its messages, and is forbidden here.
const HOP_BY_HOP: [&str; 5] = ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade"];

/// What answers on a connection, and for whom.
#[derive(Clone)]
pub struct Host {
    pub pages: Pages,
    pub peer: SocketAddr,
    pub patience: Patience,
    pub clock: Clock,
}

/// How an answer ends early.
enum Early {
    /// Nobody is there any more.
    Gone,
    /// What makes it broke off.
    Broken,
    /// The client took nothing of it for too long.
    Unread,
}

/// Serves a connection until it ends; once `closing` resolves, until its last answer has.
pub async fn serve<T>(bytes: T, host: Host, closing: impl Future<Output = ()>)
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let mut builder = Builder::new();
    builder
        .max_concurrent_streams(STREAMS)
        .max_header_list_size(HEADERS)
        .max_send_buffer_size(UNSENT)
        .initial_window_size(WINDOW)
        .initial_connection_window_size(WINDOWS);
    let Ok(Ok(mut connection)) = timeout(HEAD, builder.handshake(bytes)).await else { return };
    let mut closing = pin!(closing);
    let mut exchanges = FuturesUnordered::new();
    let patience = host.patience;
    let (mut is_closing, mut idle) = (false, Instant::now() + patience.idle);
    loop {
        tokio::select! {
            accepted = accept(&mut connection) => match accepted {
                Some((request, respond)) => exchanges.push(exchange(host.clone(), request, respond)),
                // What is still being answered has nobody left to hear it.
                None => return,
            },
            Some(()) = exchanges.next(), if !exchanges.is_empty() => {
                idle = Instant::now() + if is_closing { patience.unread } else { patience.idle };
            }
            () = &mut closing, if !is_closing => {
                is_closing = true;
                connection.graceful_shutdown();
                idle = Instant::now() + patience.unread;
            }
            () = sleep_until(idle), if exchanges.is_empty() => {
                // What was asked for before the farewell was heard is answered. Whoever does not take it, and what may
                // still wait before it, is cut; who has taken all ends the connection.
                if is_closing {
                    return;
                }
                is_closing = true;
                connection.graceful_shutdown();
                idle = Instant::now() + patience.unread;
            }
        }
    }
}

/// The next request; nothing when the connection has ended.
async fn accept<T>(connection: &mut Connection<T, Bytes>) -> Option<(http::Request<RecvStream>, SendResponse<Bytes>)>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    connection.accept().await?.ok()
}

/// One request and its answer.
async fn exchange(host: Host, request: http::Request<RecvStream>, mut respond: SendResponse<Bytes>) {
    let is_head = *request.method() == http::Method::HEAD;
    let Some(request) = asked(request, host.peer) else { return respond.send_reset(Reason::PROTOCOL_ERROR) };
    let answering = host.pages.call(request);
    let answer = tokio::select! {
        biased;
        _ = poll_fn(|context| respond.poll_reset(context)) => return,
        answer = answering => answer.unwrap_or_else(Response::from),
    };
    let Some((head, size)) = answered(&answer, &host.clock) else { return respond.send_reset(Reason::INTERNAL_ERROR) };
    let ends = is_head || matches!(size, BodySize::None | BodySize::Sized(0));
    // An error means that nobody is there any more, as below.
    let Ok(mut stream) = respond.send_response(head, ends) else { return };
    if ends {
        return;
    }
    match send(&mut stream, answer.into_body(), size, host.patience.unread).await {
        Ok(()) => _ = stream.send_data(Bytes::new(), true),
        Err(Early::Gone) => {}
        Err(Early::Broken) => {
            sent(&mut stream).await;
            stream.send_reset(Reason::INTERNAL_ERROR);
        }
        Err(Early::Unread) => stream.send_reset(Reason::CANCEL),
    }
}

/// A request as the pages know it, whose types are of an older release; nothing if those do not know it.
fn asked(request: http::Request<RecvStream>, peer: SocketAddr) -> Option<Request> {
    let (parts, body) = request.into_parts();
    let mut request =
        Request::with_payload(Payload::Stream { payload: Box::pin(Upload(body)) as Pin<Box<dyn Stream<Item = _>>> });
    let head = request.head_mut();
    head.uri = parts.uri.to_string().parse().ok()?;
    head.method = Method::from_bytes(parts.method.as_str().as_bytes()).ok()?;
    head.version = Version::HTTP_2;
    head.peer_addr = Some(peer);
    for (name, value) in &parts.headers {
        let name = HeaderName::from_bytes(name.as_str().as_bytes()).ok()?;
        head.headers.append(name, HeaderValue::from_bytes(value.as_bytes()).ok()?);
    }
    Some(request)
}

/// The head of an answer, and how long its body is.
fn answered(answer: &Response<BoxBody>, clock: &Clock) -> Option<(http::Response<()>, BodySize)> {
    let mut head = http::Response::builder().status(answer.status().as_u16());
    for (name, value) in answer.headers() {
        if !HOP_BY_HOP.contains(&name.as_str()) && *name != header::CONTENT_LENGTH {
            head = head.header(name.as_str(), value.as_bytes());
        }
    }
    let size = match answer.status() {
        StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED => BodySize::None,
        _ => answer.body().size(),
    };
    if let BodySize::Sized(length) = size {
        head = head.header("content-length", length);
    }
    if let Some(date) = date(clock.now()) {
        head = head.header("date", date);
    }
    Some((head.body(()).ok()?, size))
}

/// A time as headers write it.
fn date(now: Timestamp) -> Option<String> {
    let now = jiff::Timestamp::from_millisecond(i64::try_from(now.millis()).ok()?).ok()?;
    jiff::fmt::rfc2822::DateTimePrinter::new().timestamp_to_rfc9110_string(&now).ok()
}

/// Waits until what was sent is on its way, for a moment: a reset overtakes what is not.
async fn sent(stream: &mut SendStream<Bytes>) {
    stream.reserve_capacity(UNSENT);
    let all = async {
        while stream.capacity() < UNSENT {
            let Some(Ok(_)) = poll_fn(|context| stream.poll_capacity(context)).await else { return };
        }
    };
    // Whoever has no room for it hears of the reset alone.
    let _ = timeout(FAREWELL, all).await;
}

/// Sends a body as fast as the client takes it.
async fn send(stream: &mut SendStream<Bytes>, mut body: BoxBody, size: BodySize, unread: Duration) -> Result<(), Early> {
    let mut sent = 0u64;
    loop {
        let piece = tokio::select! {
            biased;
            _ = poll_fn(|context| stream.poll_reset(context)) => return Err(Early::Gone),
            piece = poll_fn(|context| Pin::new(&mut body).poll_next(context)) => piece,
        };
        let Some(piece) = piece else { break };
        let mut piece = piece.map_err(|_| Early::Broken)?;
        sent += piece.len() as u64;
        while !piece.is_empty() {
            let part = piece.split_to(piece.len().min(FRAME));
            // All of it, not a byte now and then.
            timeout(unread, put(stream, part)).await.map_err(|_| Early::Unread)??;
        }
    }
    match size {
        BodySize::Sized(length) if length != sent => Err(Early::Broken),
        _ => Ok(()),
    }
}

/// Sends some bytes as the client has room for them.
async fn put(stream: &mut SendStream<Bytes>, mut part: Bytes) -> Result<(), Early> {
    while !part.is_empty() {
        stream.reserve_capacity(part.len());
        let room = poll_fn(|context| stream.poll_capacity(context)).await;
        let room = room.and_then(Result::ok).ok_or(Early::Gone)?;
        stream.send_data(part.split_to(room.min(part.len())), false).map_err(|_| Early::Gone)?;
    }
    Ok(())
}

/// A request's body; room for more of it is given as it is read.
struct Upload(RecvStream);

impl Stream for Upload {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let failed = |error: h2::Error| PayloadError::Io(std::io::Error::other(error));
        let piece = ready!(self.0.poll_data(context));
        Poll::Ready(piece.map(|piece| {
            let piece = piece.map_err(failed)?;
            self.0.flow_control().release_capacity(piece.len()).map_err(failed)?;
            Ok(piece)
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::super::LINGER;
    use super::super::watched::tests::pages;
    use super::*;
    use actix_web::rt::spawn;
    use actix_web::rt::time::sleep;
    use tokio::io::{copy, duplex, split};

    async fn host(page: usize, patience: Patience) -> Host {
        let clock = Clock::new(|| Timestamp::from_millis(0));
        Host { pages: pages(page).await, peer: ([192, 0, 2, 1], 1).into(), patience, clock }
    }

    #[actix_web::test]
    async fn a_silent_connection_is_ended_after_its_time_and_not_before() {
        let patience = Patience { idle: Duration::from_secs(2), unread: Duration::from_secs(60) };
        let (ours, theirs) = duplex(1024);
        let begun = Instant::now();
        spawn(serve(ours, host(10, patience).await, std::future::pending()));
        let (_client, connection) = h2::client::handshake(theirs).await.unwrap();
        let connection: h2::client::Connection<_, Bytes> = connection;
        timeout(Duration::from_secs(40), connection).await.expect("it ends").unwrap();
        assert!(begun.elapsed() >= patience.idle, "after {:?}", begun.elapsed());
    }

    /// Asks for a page that is so long; the client begins to read `late`, and has room for `window` bytes at a time.
    async fn ask(page: usize, late: Duration, patience: Patience, window: u32) -> RecvStream {
        let host = host(page, patience).await;
        let ((ours, far), (near, theirs)) = (duplex(1024), duplex(1024));
        let ((mut from_us, mut to_us), (mut from_them, mut to_them)) = (split(far), split(near));
        spawn(serve(ours, host, std::future::pending()));
        spawn(async move { copy(&mut from_them, &mut to_us).await });
        spawn(async move {
            sleep(late).await;
            copy(&mut from_us, &mut to_them).await
        });
        let (mut client, connection) =
            h2::client::Builder::new().initial_window_size(window).handshake::<_, Bytes>(theirs).await.unwrap();
        spawn(connection);
        let asked = http::Request::get("https://shop.example/").body(()).unwrap();
        let (answer, _) = client.send_request(asked, true).unwrap();
        answer.await.expect("the connection lives").into_body()
    }

    #[actix_web::test]
    async fn who_reads_slowly_has_the_end_of_an_answer_too() {
        let patience = Patience { idle: Duration::from_secs(2), unread: Duration::from_secs(60) };
        let late = patience.idle + LINGER + Duration::from_secs(1);
        let mut answer = ask(UNSENT / 2, late, patience, 64 * 1024).await;
        let mut heard = 0;
        while let Some(piece) = answer.data().await {
            heard += piece.expect("it is whole").len();
        }
        assert_eq!(heard, UNSENT / 2);
    }

    #[actix_web::test]
    async fn who_takes_an_answer_byte_by_byte_is_cut() {
        let patience = Patience { idle: Duration::from_secs(60), unread: Duration::from_secs(2) };
        let mut answer = ask(UNSENT, Duration::ZERO, patience, 2).await;
        let reading = async {
            while let Some(piece) = answer.data().await {
                let bytes = piece?.len();
                sleep(Duration::from_millis(200)).await;
                answer.flow_control().release_capacity(bytes)?;
            }
            Ok::<_, h2::Error>(())
        };
        let ended = timeout(Duration::from_secs(60), reading).await.expect("it does not last");
        assert_eq!(ended.expect_err("it is cut").reason(), Some(Reason::CANCEL));
    }
}
