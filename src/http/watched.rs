//! A connection that is watched: whether an answer is on its way, and since when nothing of one has gone out. Of a long request no
//! more is read at once than is soon used: the server keeps the buffer it read into.

use std::cell::Cell;
use std::future::{Ready, ready};
use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use actix_http::{HttpMessage as _, Payload, Request, Response};
use actix_service::boxed::BoxService;
use actix_service::{Service, ServiceFactory};
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::ServiceResponse;
use actix_web::error::PayloadError;
use bytes::Bytes;
use futures_core::Stream;
use futures_util::future::LocalBoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

use super::{HEAD, LINGER};

/// Bytes that are read before the server looks at them. The server library reads on while anything is there, and keeps a
/// buffer that has grown to 256 kB by that for as long as the connection lives.
const AT_ONCE: usize = 16 * 1024;

/// Bytes that may come while an answer is on its way and no upload is. The server library keeps twice as much, and then looks at
/// it again and again, without end, for as long as the answer is not taken.
const AHEAD: usize = 64 * 1024;

/// What answers requests, on one thread.
#[derive(Clone)]
pub struct Pages(pub Rc<BoxService<Request, ServiceResponse<BoxBody>, actix_web::Error>>);

/// How long a connection may keep us waiting.
#[derive(Clone, Copy)]
pub struct Patience {
    /// Between two requests.
    pub idle: Duration,
    /// Taking nothing of its answers.
    pub unread: Duration,
}

/// What one connection is doing.
#[derive(Debug)]
pub struct Activity {
    /// Requests whose answers have not ended.
    serving: Cell<usize>,
    /// Bodies of requests that are still being read.
    uploads: Cell<usize>,
    /// Bytes that came ahead of their time since the latest request was begun.
    ahead: Cell<usize>,
    /// When something last went out, or an answer ended.
    last: Cell<Instant>,
    /// When the first bytes of a next request came, until the server has its head.
    begun: Cell<Option<Instant>>,
    rest: Cell<Rest>,
    /// Whether the client takes nothing at the moment of what is to go out.
    stuck: Cell<bool>,
}

impl Activity {
    fn new() -> Rc<Activity> {
        let last = Cell::new(Instant::now());
        Rc::new(Activity {
            serving: Cell::default(),
            uploads: Cell::default(),
            ahead: Cell::default(),
            last,
            begun: Cell::default(),
            rest: Cell::default(),
            stuck: Cell::default(),
        })
    }

    /// When the connection will have kept us waiting for too long; never, while a request is being served.
    pub fn end(&self, patience: Patience) -> Option<Instant> {
        if self.serving.get() > 0 {
            return None;
        }
        Some(match (self.begun.get(), self.rest.get()) {
            _ if self.stuck.get() => self.last.get() + patience.unread,
            (Some(begun), _) => begun + HEAD + LINGER,
            (None, Rest::Last) => self.last.get() + HEAD + LINGER,
            (None, Rest::Read | Rest::Skipped) => self.last.get() + patience.idle + LINGER,
        })
    }

    /// Counts what came in. False when nobody will want so much before the answer that is on its way has ended.
    fn has_room(&self, bytes: usize) -> bool {
        if self.serving.get() == 0 && bytes > 0 {
            match self.rest.get() {
                Rest::Read => self.begun.set(self.begun.get().or_else(|| Some(Instant::now()))),
                Rest::Skipped => {}
                // Who is cut while it still sends may never hear our answer. The library does not wait for ever either.
                Rest::Last => self.touch(),
            }
        }
        if self.serving.get() == 0 || self.uploads.get() > 0 {
            return true;
        }
        self.ahead.set(self.ahead.get() + bytes);
        self.ahead.get() <= AHEAD
    }

    fn wrote(&self, is_pending: bool) {
        self.stuck.set(is_pending);
        if !is_pending {
            self.touch();
        }
    }

    fn touch(&self) {
        self.last.set(Instant::now());
    }
}

/// What is still to come of the body of a request that was answered before it was whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Rest {
    /// Nothing.
    #[default]
    Read,
    /// Pieces that the server library passes over (`transfer-encoding: chunked`); then the next request may come.
    Skipped,
    /// Something after which nothing more is answered: so the library wants it, and the answer says it.
    Last,
}

/// A request that is being served, until its answer has ended.
struct Serving(Rc<Activity>);

impl Serving {
    fn begin(activity: &Rc<Activity>) -> Serving {
        activity.serving.set(activity.serving.get() + 1);
        activity.ahead.set(0);
        activity.begun.set(None);
        activity.rest.set(Rest::Read);
        Serving(Rc::clone(activity))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving.set(self.0.serving.get().saturating_sub(1));
        self.0.touch();
    }
}

/// The body of a request, until its end or until nobody wants it any more.
struct Upload {
    body: Payload,
    reading: Option<Reading>,
    /// What its end is if nobody reads so far.
    rest: Rest,
}

struct Reading(Rc<Activity>);

impl Upload {
    fn begin(body: Payload, activity: &Rc<Activity>, rest: Rest) -> Upload {
        activity.uploads.set(activity.uploads.get() + 1);
        Upload { body, reading: Some(Reading(Rc::clone(activity))), rest }
    }
}

impl Stream for Upload {
    type Item = Result<Bytes, PayloadError>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let piece = ready!(Pin::new(&mut self.body).poll_next(context));
        if !matches!(piece, Some(Ok(_))) {
            self.reading = None;
        }
        Poll::Ready(piece)
    }
}

impl Drop for Upload {
    fn drop(&mut self) {
        // What is here already is no rest.
        let mut context = Context::from_waker(Waker::noop());
        while let Some(Reading(activity)) = &self.reading {
            let (activity, rest) = (Rc::clone(activity), self.rest);
            match Pin::new(&mut *self).poll_next(&mut context) {
                Poll::Ready(Some(Ok(_))) => {}
                Poll::Ready(None) => return,
                Poll::Ready(Some(Err(_))) | Poll::Pending => return activity.rest.set(rest),
            }
        }
    }
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.0.uploads.set(self.0.uploads.get().saturating_sub(1));
    }
}

/// The bytes of one connection, and what it is doing.
pub struct Watched<T> {
    bytes: T,
    activity: Rc<Activity>,
    /// Bytes that were read since the server last looked.
    read: usize,
}

impl<T> Watched<T> {
    pub fn new(bytes: T) -> Watched<T> {
        Watched { bytes, activity: Activity::new(), read: 0 }
    }

    pub fn activity(&self) -> Rc<Activity> {
        Rc::clone(&self.activity)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read >= AT_ONCE {
            // The rest in the next turn, which is asked for at once.
            self.read = 0;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Never as much as there is room for either: the server makes more room whenever what there was is full.
        let mut part = [MaybeUninit::uninit(); AT_ONCE];
        let most = buffer.remaining().min(AT_ONCE - self.read);
        let mut part = ReadBuf::uninit(&mut part[..most]);
        let read = Pin::new(&mut self.bytes).poll_read(context, &mut part);
        self.read = if read.is_pending() { 0 } else { self.read + part.filled().len() };
        ready!(read)?;
        buffer.put_slice(part.filled());
        if !self.activity.has_room(part.filled().len()) {
            return Poll::Ready(Err(io::Error::other("more is sent than will be wanted")));
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.bytes).poll_write(context, bytes);
        self.activity.wrote(written.is_pending());
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.bytes).poll_write_vectored(context, bytes);
        self.activity.wrote(written.is_pending());
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.bytes.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        let flushed = Pin::new(&mut self.bytes).poll_flush(context);
        // What is flushed at once may have been nothing.
        if flushed.is_pending() || self.activity.stuck.get() {
            self.activity.wrote(flushed.is_pending());
        }
        flushed
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_shutdown(context)
    }
}

/// An answer's body, which ends what its connection is doing when it does.
struct Watching {
    body: BoxBody,
    _serving: Serving,
}

impl MessageBody for Watching {
    type Error = Box<dyn std::error::Error>;

    fn size(&self) -> BodySize {
        self.body.size()
    }

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Bytes, Self::Error>>> {
        Pin::new(&mut self.body).poll_next(context)
    }
}

impl Service<Request> for Pages {
    type Response = Response<BoxBody>;
    type Error = actix_web::Error;
    type Future = LocalBoxFuture<'static, Result<Response<BoxBody>, actix_web::Error>>;

    fn poll_ready(&self, context: &mut Context<'_>) -> Poll<Result<(), actix_web::Error>> {
        self.0.poll_ready(context)
    }

    fn call(&self, mut request: Request) -> Self::Future {
        let activity = request.conn_data::<Rc<Activity>>().cloned();
        let serving = activity.as_ref().map(Serving::begin);
        if let Some(activity) = &activity
            && !matches!(request.payload(), Payload::None)
        {
            let rest = if request.chunked().is_ok_and(|chunked| chunked) { Rest::Skipped } else { Rest::Last };
            let body = Upload::begin(request.take_payload(), activity, rest);
            *request.payload() = Payload::Stream { payload: Box::pin(body) };
        }
        let answer = self.0.call(request);
        Box::pin(async move {
            let answer = Response::from(answer.await?);
            let Some(serving) = serving else { return Ok(answer) };
            Ok(answer.map_body(|_, body| BoxBody::new(Watching { body, _serving: serving })))
        })
    }
}

/// As the server library wants what answers: made anew for each of its own parts, here always the same.
impl ServiceFactory<Request> for Pages {
    type Response = Response<BoxBody>;
    type Error = actix_web::Error;
    type Config = ();
    type Service = Pages;
    type InitError = ();
    type Future = Ready<Result<Pages, ()>>;

    fn new_service(&self, _config: ()) -> Self::Future {
        ready(Ok(self.clone()))
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::Write as _;

    use actix_service::{IntoServiceFactory as _, boxed, map_config};
    use actix_web::dev::AppConfig;
    use actix_web::rt::net::TcpStream;
    use actix_web::{App, HttpResponse, web};
    use bytes::BytesMut;
    use tokio::io::AsyncReadExt as _;

    /// Pages of which every one is so long.
    pub async fn pages(bytes: usize) -> Pages {
        let answer = move || async move { HttpResponse::Ok().body(vec![b'x'; bytes]) };
        let app = App::new().default_service(web::to(answer)).into_factory();
        let app = map_config(app, |()| AppConfig::default()).new_service(()).await;
        Pages(Rc::new(boxed::service(app.expect("there is nothing to prepare"))))
    }

    /// Reads as the server does: on and on into one buffer, until there is nothing at the moment.
    async fn turn(caller: &mut Watched<TcpStream>, buffer: &mut BytesMut) -> bool {
        poll_fn(|cx| {
            loop {
                let room = buffer.capacity() - buffer.len();
                if room < 1024 {
                    buffer.reserve(8 * 1024 - room);
                }
                let mut reading = std::pin::pin!(caller.read_buf(buffer));
                match reading.as_mut().poll(cx) {
                    Poll::Ready(read) if read.as_ref().is_ok_and(|read| *read > 0) => {}
                    Poll::Ready(_) => return Poll::Ready(false),
                    Poll::Pending => return Poll::Ready(true),
                }
            }
        })
        .await
    }

    #[actix_web::test]
    async fn a_long_request_is_read_in_turns_whole_and_in_order() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let mut sender = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let (tcp, _) = listener.accept().unwrap();
        tcp.set_nonblocking(true).unwrap();
        let mut caller = Watched::new(TcpStream::from_std(tcp).unwrap());
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let sending = std::thread::spawn(move || sender.write_all(&sent).unwrap());
        let mut heard = Vec::new();
        let mut buffer = BytesMut::with_capacity(8 * 1024);
        loop {
            let goes_on = turn(&mut caller, &mut buffer).await;
            assert!(buffer.capacity() <= 4 * AT_ONCE, "a buffer of {} bytes", buffer.capacity());
            // As the server does, which hands a part of its buffer on.
            heard.extend_from_slice(&buffer.split().freeze());
            if !goes_on {
                break;
            }
            actix_web::rt::task::yield_now().await;
        }
        sending.join().unwrap();
        assert!(heard == expected, "{} of {} bytes, or others", heard.len(), expected.len());
    }
}
