//! A caller's connection. Of a long request no more is read at once than is soon used: the server keeps the buffer it read into.

use std::io::{self, IoSlice};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use actix_web::rt::net::TcpStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// Bytes that are read before the server looks at them. The server library reads on while anything is there, and keeps a
/// buffer that has grown to 256 kB by that for as long as the connection lives.
const AT_ONCE: usize = 16 * 1024;

/// An accepted connection.
#[derive(Debug)]
pub struct Caller {
    tcp: TcpStream,
    /// Bytes that were read since the server last looked.
    read: usize,
}

impl Caller {
    /// Takes a connection and says where it comes from. Small answers do not wait for an acknowledgement, and the system cuts
    /// it when the other side takes nothing of what was sent to it for so long.
    pub fn accept(tcp: TcpStream, unread: Duration) -> (Caller, Option<SocketAddr>) {
        let peer = tcp.peer_addr().ok();
        if let Err(error) = tcp.set_nodelay(true) {
            tracing::debug!(%error, "small answers on a connection may wait for an acknowledgement");
        }
        if let Err(error) = cut_unread(&tcp, unread) {
            tracing::warn!(%error, "a connection could not be given a time limit for its answers");
        }
        (Caller { tcp, read: 0 }, peer)
    }
}

/// Has the system cut a connection when the other side takes nothing of what was sent to it for this long. The server
/// library does not: it waits for ever for a client that asks and does not read.
#[cfg(target_os = "linux")]
fn cut_unread(tcp: &TcpStream, after: Duration) -> io::Result<()> {
    socket2::SockRef::from(tcp).set_tcp_user_timeout(Some(after))
}

/// Other systems have no such option: there, who reads no answers stays until its side of the connection ends.
#[cfg(not(target_os = "linux"))]
fn cut_unread(_tcp: &TcpStream, _after: Duration) -> io::Result<()> {
    Ok(())
}

impl AsyncRead for Caller {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read >= AT_ONCE {
            // The rest in the next turn, which is asked for at once.
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        // Never as much as there is room for either: the server makes more room whenever what there was is full.
        let mut part = [MaybeUninit::uninit(); AT_ONCE];
        let most = out.remaining().min(AT_ONCE - self.read);
        let mut part = ReadBuf::uninit(&mut part[..most]);
        let read = Pin::new(&mut self.tcp).poll_read(cx, &mut part);
        self.read = if read.is_pending() { 0 } else { self.read + part.filled().len() };
        ready!(read)?;
        out.put_slice(part.filled());
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Caller {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write(cx, bytes)
    }

    fn poll_write_vectored(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.tcp).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.tcp.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::poll_fn;
    use std::io::Write as _;

    use bytes::BytesMut;
    use tokio::io::AsyncReadExt as _;

    /// Reads as the server does: on and on into one buffer, until there is nothing at the moment.
    async fn turn(caller: &mut Caller, buffer: &mut BytesMut) -> bool {
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
        let (mut caller, peer) = Caller::accept(TcpStream::from_std(tcp).unwrap(), Duration::from_secs(5));
        assert_eq!(peer, sender.local_addr().ok());
        assert!(caller.tcp.nodelay().unwrap(), "TCP_NODELAY is set");
        let sent: Vec<u8> = (0..1_000_000u32).map(|n| (n % 251) as u8).collect();
        let expected = sent.clone();
        let sending = std::thread::spawn(move || sender.write_all(&sent).unwrap());
        let mut heard = Vec::new();
        let mut buffer = BytesMut::with_capacity(8 * 1024);
        loop {
            let goes_on = turn(&mut caller, &mut buffer).await;
            assert!(buffer.capacity() <= 2 * AT_ONCE, "a buffer of {} bytes", buffer.capacity());
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
