//! The door: connections are taken, as many as one address may have, shown our certificate where there is one, and served.

use std::future::poll_fn;
use std::net::{SocketAddr, TcpListener};
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use actix_http::HttpService;
use actix_http::error::DispatchError;
use actix_service::boxed::{self, BoxService};
use actix_service::{IntoServiceFactory, Service as _, ServiceFactory, fn_factory, fn_service, map_config};
use actix_web::body::BoxBody;
use actix_web::dev::{AppConfig, Extensions, Server, ServiceResponse};
use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep_until, timeout};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::crowd::Crowd;
use super::orders::Orders;
use super::watched::{Activity, Pages, Patience, Watched};
use super::{CONNECTIONS, HEAD, IDLE, UNWRITTEN, h2};
use crate::clock::Clock;
use crate::tls::PROOF;

/// How connections are taken.
#[derive(Clone)]
pub struct Door {
    /// Where we have a certificate.
    pub tls: Option<Arc<rustls::ServerConfig>>,
    pub crowd: Arc<Crowd>,
    pub clock: Clock,
}

/// Seconds that a stop may take at most: as long as a call may. Whoever stops the server has less patience.
const STOPPING: u64 = 3600;

/// Connections that wait to be taken, as far as the system allows so many (`net.core.somaxconn`). The 128 of the standard library
/// are fewer than come at once; who finds no place tries again after a second.
const WAITING: i32 = 4096;

/// One of the two ways to serve HTTP/1.1.
type Plain<T> = BoxService<(Watched<T>, Option<SocketAddr>), (), DispatchError>;

/// What one thread serves connections with.
struct Hall {
    door: Door,
    pages: Pages,
    orders: Rc<Orders>,
    bare: Plain<TcpStream>,
    secure: Plain<TlsStream<TcpStream>>,
}

/// Begins to take connections, on as many threads as there are processors; each has an `app` of its own, which
/// counts its orders.
pub fn open<A, F, S>(door: Door, listener: TcpListener, app: A) -> std::io::Result<Server>
where
    A: Fn(Rc<Orders>) -> F + Send + Clone + 'static,
    F: IntoServiceFactory<S, actix_http::Request>,
    S: ServiceFactory<actix_http::Request, Config = AppConfig, Response = ServiceResponse<BoxBody>, Error = actix_web::Error>,
    S: 'static,
    S::Service: 'static,
    S::InitError: std::fmt::Debug,
{
    // A socket that listens may be told anew how many may wait.
    socket2::SockRef::from(&listener).listen(WAITING)?;
    let builder = Server::build().max_concurrent_connections(CONNECTIONS).shutdown_timeout(STOPPING).disable_signals();
    let stopping = builder.graceful_shutdown_signal();
    let hall = move || {
        let (door, app, stopping) = (door.clone(), app.clone(), stopping.clone());
        fn_factory(move || {
            let orders = Rc::<Orders>::default();
            let (door, app, stopping) = (door.clone(), app(Rc::clone(&orders)), stopping.clone());
            async move {
                let app = map_config(app.into_factory(), |()| AppConfig::default()).new_service(()).await;
                let app = app.map_err(|error| tracing::error!(?error, "a thread could not begin to serve"))?;
                let pages = Pages(Rc::new(boxed::service(app)));
                let unread = door.crowd.unread();
                let closed = stopping.clone();
                let closed = move || {
                    let stopping = closed.clone();
                    async move { stopping.notified().await }
                };
                let patience = Patience { idle: IDLE, unread };
                let (bare, secure) = (plain(&pages, closed.clone(), patience).await?, plain(&pages, closed, patience).await?);
                let hall = Rc::new(Hall { door, pages, orders, bare, secure });
                Ok::<_, ()>(fn_service(move |stream: TcpStream| {
                    let (hall, stopping) = (Rc::clone(&hall), stopping.clone());
                    async move {
                        hall.serve(stream, async move { stopping.notified().await }).await;
                        hall.orders.ended().await;
                        Ok::<(), ()>(())
                    }
                }))
            }
        })
    };
    Ok(builder.listen("farebox", listener, hall)?.run())
}

/// HTTP/1.1, whatever it travels in. A connection that closes has what is left of an answer taken for as long as `unread`.
async fn plain<T, C, W>(pages: &Pages, closed: C, Patience { idle, unread }: Patience) -> Result<Plain<T>, ()>
where
    T: AsyncRead + AsyncWrite + Unpin + 'static,
    C: Fn() -> W + 'static,
    W: Future<Output = ()> + 'static,
{
    let builder = HttpService::<Watched<T>, Pages, BoxBody>::build()
        .graceful_shutdown_signal(closed)
        .keep_alive(idle)
        .client_request_timeout(HEAD)
        .client_disconnect_timeout(unread)
        // A client that closes its side has left: without this it would go unnoticed while the upstream is silent.
        .h1_allow_half_closed(false)
        .h1_write_buffer_size(UNWRITTEN)
        .on_connect_ext(|connection: &Watched<T>, extensions: &mut Extensions| _ = extensions.insert(connection.activity()));
    Ok(boxed::service(builder.h1(pages.clone()).new_service(()).await?))
}

impl Hall {
    /// One connection from its first byte to its last.
    async fn serve(&self, stream: TcpStream, closing: impl Future<Output = ()>) {
        let Ok(peer) = stream.peer_addr() else { return };
        let Some((_place, patience)) = self.door.crowd.enter(peer.ip()) else {
            tracing::debug!(%peer, "an address, or all together, have as many connections as they may have");
            return;
        };
        if let Err(error) = stream.set_nodelay(true) {
            tracing::debug!(%error, "a connection is gone already");
        }
        cut_unread(&stream, patience.unread);
        let Some(tls) = self.door.tls.clone() else {
            let watched = Watched::new(stream);
            let activity = watched.activity();
            return in_time(&activity, patience, self.bare.call((watched, Some(peer)))).await;
        };
        // Apart, so that a connection without TLS takes no memory for what it does not need.
        Box::pin(self.serve_over(tls, stream, (peer, patience), closing)).await;
    }

    async fn serve_over(
        &self,
        tls: Arc<rustls::ServerConfig>,
        stream: TcpStream,
        (peer, patience): (SocketAddr, Patience),
        closing: impl Future<Output = ()>,
    ) {
        let shaken = timeout(HEAD, TlsAcceptor::from(tls).accept(stream)).await;
        let Ok(Ok(stream)) = shaken else {
            tracing::debug!(%peer, "a caller and we could not agree on TLS");
            return;
        };
        let protocol = stream.get_ref().1.alpn_protocol();
        // Whoever asked for a proof has seen it.
        if protocol == Some(PROOF) {
            return;
        }
        if protocol == Some(b"h2") {
            let (pages, clock) = (self.pages.clone(), self.door.clock.clone());
            return h2::serve(stream, h2::Host { pages, peer, patience, clock }, closing).await;
        }
        let watched = Watched::new(stream);
        let activity = watched.activity();
        in_time(&activity, patience, self.secure.call((watched, Some(peer)))).await;
    }
}

/// Serves a connection, and cuts it when it takes too long over a request after its first. The server library gives only the
/// first one a time, and whoever dribbles the next would stay for ever. Who still has something to take has the time for that.
async fn in_time(activity: &Activity, patience: Patience, serving: impl Future<Output = Result<(), DispatchError>>) {
    let (mut serving, mut cut) = (pin!(serving), pin!(sleep_until(Instant::now() + patience.idle)));
    poll_fn(|context| {
        // It has told the client what was wrong, if anything was.
        if serving.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        // Whatever changes this happens in there. It is never woken in vain: the library's own time would begin anew.
        let Some(end) = activity.end(patience) else { return Poll::Pending };
        if cut.deadline() != end {
            cut.as_mut().reset(end);
        }
        cut.as_mut().poll(context)
    })
    .await;
}

/// Has the system cut a connection when the other side takes nothing of what was sent to it for this long. The server
/// library does not: it waits for ever for a client that asks and does not read.
#[cfg(target_os = "linux")]
fn cut_unread(stream: &TcpStream, after: Duration) {
    if let Err(error) = socket2::SockRef::from(stream).set_tcp_user_timeout(Some(after)) {
        tracing::warn!(%error, "a connection could not be given a time limit for its answers");
    }
}

/// Other systems have no such option: there, who reads no answers stays until its side of the connection ends.
#[cfg(not(target_os = "linux"))]
fn cut_unread(_stream: &TcpStream, _after: Duration) {}

#[cfg(test)]
mod tests {
    use super::super::LINGER;
    use super::super::watched::tests::pages;
    use super::*;
    use actix_web::rt::spawn;
    use actix_web::rt::time::sleep;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};

    const ASKED: &[u8] = b"GET / HTTP/1.1\r\nhost: x\r\n\r\n";

    /// Longer than a head may take, so that nothing but silence ends an idle connection here.
    const PATIENCE: Patience = Patience { idle: Duration::from_secs(12), unread: Duration::from_secs(60) };

    /// A connection through which so many bytes fit at once, to pages that are so long.
    async fn connect(bytes: usize, page: usize) -> (DuplexStream, actix_web::rt::task::JoinHandle<()>) {
        let serving = plain(&pages(page).await, std::future::pending::<()>, PATIENCE).await.unwrap();
        let (ours, theirs) = duplex(bytes);
        let watched = Watched::new(ours);
        let activity = watched.activity();
        (theirs, spawn(async move { in_time(&activity, PATIENCE, serving.call((watched, None))).await }))
    }

    #[actix_web::test]
    async fn a_silent_connection_is_ended_after_its_time_and_not_before() {
        let (mut client, _) = connect(1024, 10).await;
        client.write_all(ASKED).await.unwrap();
        let (begun, mut answer) = (Instant::now(), Vec::new());
        timeout(Duration::from_secs(40), client.read_to_end(&mut answer)).await.expect("it ends").unwrap();
        assert!(answer.ends_with(b"xxxxxxxxxx"));
        let ended = begun.elapsed();
        assert!(ended >= PATIENCE.idle, "after {ended:?}");
        assert!(ended < PATIENCE.idle + LINGER, "after {ended:?}: by the server library, which says goodbye, and not cut");
    }

    /// What was sent back to `bytes`, and how long after them the connection ended.
    async fn ended(bytes: &[u8]) -> (String, Duration) {
        let (mut client, _) = connect(64 * 1024, 10).await;
        client.write_all(bytes).await.unwrap();
        let (begun, mut answer) = (Instant::now(), Vec::new());
        timeout(Duration::from_secs(80), client.read_to_end(&mut answer)).await.expect("it ends").unwrap();
        (String::from_utf8(answer).unwrap(), begun.elapsed())
    }

    #[actix_web::test]
    async fn a_connection_whose_body_was_not_wanted_ends_soon_only_if_it_cannot_go_on() {
        let post = |head: &str| format!("POST / HTTP/1.1\r\nhost: x\r\n{head}");
        let half = post("content-length: 20\r\n\r\nhalf of it");
        let pieces = post("transfer-encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        let (half, pieces) = tokio::join!(ended(half.as_bytes()), ended(pieces.as_bytes()));
        assert!(half.0.contains("connection: close") && half.1 < HEAD + LINGER * 2, "{half:?}");
        assert!(!pieces.0.contains("connection: close") && pieces.1 >= PATIENCE.idle, "{pieces:?}");
    }

    #[actix_web::test]
    async fn who_reads_slowly_has_the_end_of_an_answer_too() {
        let (mut client, _) = connect(1024, UNWRITTEN / 2).await;
        client.write_all(ASKED).await.unwrap();
        sleep(PATIENCE.idle + LINGER + Duration::from_secs(1)).await;
        let mut answer = Vec::new();
        client.read_to_end(&mut answer).await.unwrap();
        assert_eq!(answer.iter().filter(|byte| **byte == b'x').count(), UNWRITTEN / 2);
    }

    #[actix_web::test]
    async fn who_reads_nothing_and_asks_on_and_on_is_cut() {
        let (mut client, serving) = connect(512 * 1024, 100 * 1024).await;
        client.write_all(&ASKED.repeat(20)).await.unwrap();
        // As much as the server library keeps, and some more: from then on it would look at it for ever.
        let flood = ASKED.repeat(10_000);
        let asked = timeout(Duration::from_secs(20), client.write_all(&flood)).await.expect("nobody waits for it");
        timeout(Duration::from_secs(20), serving).await.expect("the connection ends").unwrap();
        assert!(asked.is_ok() || client.write_all(ASKED).await.is_err());
    }
}
