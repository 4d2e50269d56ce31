//! A connection that is watched: whether an answer is on its way, and since when nothing of one has gone out.

use std::cell::Cell;
use std::future::{Ready, ready};
use std::io::{self, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use actix_http::{Request, Response};
use actix_service::boxed::BoxService;
use actix_service::{Service, ServiceFactory};
use actix_web::body::{BodySize, BoxBody, MessageBody};
use actix_web::dev::ServiceResponse;
use bytes::Bytes;
use futures_util::future::LocalBoxFuture;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Instant;

/// What answers requests, on one thread.
#[derive(Clone)]
pub struct Pages(pub Rc<BoxService<Request, ServiceResponse<BoxBody>, actix_web::Error>>);

/// What one connection is doing.
#[derive(Debug)]
pub struct Activity {
    /// Requests whose answers have not ended.
    serving: Cell<usize>,
    /// When something last went out, or an answer ended.
    last: Cell<Instant>,
}

impl Activity {
    fn new() -> Rc<Activity> {
        Rc::new(Activity { serving: Cell::new(0), last: Cell::new(Instant::now()) })
    }

    /// When a connection has waited for so long for a whole request; later, while one is being served.
    pub fn waited(&self, patience: Duration) -> Instant {
        let since = if self.serving.get() > 0 { Instant::now() } else { self.last.get() };
        since + patience
    }

    fn touch(&self) {
        self.last.set(Instant::now());
    }
}

/// A request that is being served, until its answer has ended.
struct Serving(Rc<Activity>);

impl Serving {
    fn begin(activity: &Rc<Activity>) -> Serving {
        activity.serving.set(activity.serving.get() + 1);
        Serving(Rc::clone(activity))
    }
}

impl Drop for Serving {
    fn drop(&mut self) {
        self.0.serving.set(self.0.serving.get().saturating_sub(1));
        self.0.touch();
    }
}

/// The bytes of one connection, and what it is doing.
pub struct Watched<T> {
    bytes: T,
    activity: Rc<Activity>,
}

impl<T> Watched<T> {
    pub fn new(bytes: T) -> Watched<T> {
        Watched { bytes, activity: Activity::new() }
    }

    pub fn activity(&self) -> Rc<Activity> {
        Rc::clone(&self.activity)
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for Watched<T> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, buffer: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_read(context, buffer)
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for Watched<T> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.bytes).poll_write(context, bytes);
        if written.is_ready() {
            self.activity.touch();
        }
        written
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let written = Pin::new(&mut self.bytes).poll_write_vectored(context, bytes);
        if written.is_ready() {
            self.activity.touch();
        }
        written
    }

    fn is_write_vectored(&self) -> bool {
        self.bytes.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.bytes).poll_flush(context)
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

    fn call(&self, request: Request) -> Self::Future {
        let serving = request.conn_data::<Rc<Activity>>().map(Serving::begin);
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
