//! The connection to an upstream below the HTTP library: what the library would misread is put into words that it knows.
//!
//! * An answer without a length ends with the connection (RFC 9112, section 6.3). The library takes it for empty, except
//!   from a server of HTTP/1.0, so it is told that this is one.
//! * Interim answers (1xx) are left out: the library takes the first one for the answer.
//! * A refusal that arrives while the request is still going out is heard, and the rest of the request is not sent. The
//!   library reads nothing before it has written everything, and would report a broken connection.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_tls::connect::rustls_0_23::reexports::AsyncTlsStream;
use actix_web::rt::net::{ActixStream, Ready, TcpStream};
use bytes::{Buf as _, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// The longest head, interim ones included.
const MAX_HEAD_BYTES: usize = 64 * 1024;

/// The bytes below: plain, or inside TLS.
#[derive(Debug)]
pub(super) enum Io {
    Plain(TcpStream),
    Tls(Box<AsyncTlsStream<TcpStream>>),
}

/// What both can do.
trait Bytewise: AsyncRead + AsyncWrite + Unpin {}
impl<T: AsyncRead + AsyncWrite + Unpin> Bytewise for T {}

impl Io {
    fn pin(&mut self) -> Pin<&mut dyn Bytewise> {
        match self {
            Io::Plain(tcp) => Pin::new(tcp),
            Io::Tls(tls) => Pin::new(&mut **tls),
        }
    }

    fn tcp(&self) -> &TcpStream {
        match self {
            Io::Plain(tcp) => tcp,
            Io::Tls(tls) => tls.get_ref().0,
        }
    }
}

/// One connection, used for one call after the other.
#[derive(Debug)]
pub(super) struct Wire {
    io: Io,
    answer: Answering,
    /// The upstream has refused a request that it had not read to its end; the rest of it goes nowhere.
    refused: bool,
}

/// Where the answer to the last request is.
#[derive(Debug)]
enum Answering {
    /// Its head is on its way.
    Head(Head),
    /// Its head, as the library gets it, and what came with it.
    Known(Bytes),
    /// Its body passes as it is.
    Passing,
}

#[derive(Debug, Default)]
struct Head {
    bytes: BytesMut,
    /// No end of a head is before this.
    scanned: usize,
    /// Bytes of interim heads that were left out.
    skipped: usize,
}

impl Wire {
    pub fn new(io: Io) -> Wire {
        Wire { io, answer: Answering::Head(Head::default()), refused: false }
    }

    #[cfg(test)]
    pub fn tcp(&self) -> &TcpStream {
        self.io.tcp()
    }

    /// Reads until the head of the answer is known; false when the connection ended before that.
    fn listen(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Answering::Head(head) = &mut self.answer else { return Poll::Ready(Ok(true)) };
        loop {
            if let Some(known) = head.known()? {
                self.answer = Answering::Known(known);
                return Poll::Ready(Ok(true));
            }
            let mut buffer = [0; 8 * 1024];
            let mut buffer = ReadBuf::new(&mut buffer);
            ready!(self.io.pin().poll_read(cx, &mut buffer))?;
            if buffer.filled().is_empty() {
                return Poll::Ready(Ok(false));
            }
            head.bytes.extend_from_slice(buffer.filled());
        }
    }

    /// A step of sending, unless the upstream has refused the request already: then it is `instead`, and done.
    fn unless_refused<T>(&mut self, cx: &mut Context<'_>, step: Poll<io::Result<T>>, instead: T) -> Poll<io::Result<T>> {
        let gone = match &step {
            Poll::Ready(Ok(_)) => return step,
            Poll::Ready(Err(error)) if !is_gone(error) => return step,
            Poll::Ready(Err(_)) => true,
            Poll::Pending => false,
        };
        match self.listen(cx) {
            Poll::Ready(Ok(true)) if self.is_refusal() => Poll::Ready(Ok(instead)),
            // The end of a connection that is gone is about to be read, and what was said before it.
            Poll::Pending if gone => Poll::Pending,
            _ => step,
        }
    }

    /// Whether the head says no, read while the request is still going out.
    fn is_refusal(&mut self) -> bool {
        let Answering::Known(head) = &mut self.answer else { return false };
        let refused = status(head).is_some_and(|status| status >= 400);
        if refused && !self.refused {
            // What it did not read stands between this answer and the next: the connection is not used again.
            *head = [&head[..line(head)], b"connection: close\r\n", &head[line(head)..]].concat().into();
            self.refused = true;
        }
        refused
    }
}

impl Head {
    /// The head as the library gets it, with what follows, once all of it has arrived.
    fn known(&mut self) -> io::Result<Option<Bytes>> {
        while let Some(end) = self.end() {
            match status(&self.bytes) {
                Some(100 | 102..200) => {
                    self.skipped += end;
                    self.bytes.advance(end);
                    self.scanned = 0;
                }
                status => {
                    let lasts = self.bytes.starts_with(b"HTTP/1.1") && !matches!(status, None | Some(101 | 204 | 304));
                    if lasts && !has_length(&self.bytes[..end]) {
                        self.bytes[VERSION] = b'0';
                    }
                    return Ok(Some(self.bytes.split().freeze()));
                }
            }
        }
        match self.skipped + self.bytes.len() > MAX_HEAD_BYTES {
            true => Err(io::Error::new(io::ErrorKind::InvalidData, "the head of its answer does not end")),
            false => Ok(None),
        }
    }

    /// Behind the first blank line.
    fn end(&mut self) -> Option<usize> {
        while let Some(found) = memchr::memchr(b'\n', &self.bytes[self.scanned..]) {
            let next = self.scanned + found + 1;
            match &self.bytes[next..] {
                [b'\n', ..] => return Some(next + 1),
                [b'\r', b'\n', ..] => return Some(next + 2),
                // Whether this is the blank line is not known yet.
                [] | [b'\r'] => return None,
                _ => self.scanned = next,
            }
        }
        self.scanned = self.bytes.len();
        None
    }
}

/// Where the last digit of `HTTP/1.1` stands.
const VERSION: usize = 7;

/// The status of a head that is one of HTTP/1.
fn status(head: &[u8]) -> Option<u16> {
    let digits = head.strip_prefix(b"HTTP/1.")?.get(2..5)?;
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// The length of the first line, with its end.
fn line(head: &[u8]) -> usize {
    memchr::memchr(b'\n', head).map_or(head.len(), |end| end + 1)
}

/// Whether a head says how its body ends.
fn has_length(head: &[u8]) -> bool {
    let name = |line: &[u8]| line.split(|byte| *byte == b':').next().unwrap_or_default().trim_ascii().to_ascii_lowercase();
    head.split(|byte| *byte == b'\n').skip(1).any(|line| matches!(&*name(line), b"content-length" | b"transfer-encoding"))
}

/// The other side has closed or reset the connection.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted)
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ended = matches!(self.answer, Answering::Head(_)) && !ready!(self.listen(cx))?;
        let this = &mut *self;
        if ended && let Answering::Head(head) = &mut this.answer {
            // Half a head is the library's to refuse.
            this.answer = Answering::Known(head.bytes.split().freeze());
        }
        let Answering::Known(known) = &mut this.answer else { return this.io.pin().poll_read(cx, out) };
        let now = known.split_to(known.len().min(out.remaining()));
        out.put_slice(&now);
        if known.is_empty() {
            this.answer = Answering::Passing;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Wire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        if self.refused {
            return Poll::Ready(Ok(bytes.len()));
        }
        if let Answering::Passing = self.answer {
            // Requests are not sent before the answer to the last one was read: this is a new one.
            self.answer = Answering::Head(Head::default());
        }
        let written = self.io.pin().poll_write(cx, bytes);
        self.unless_refused(cx, written, bytes.len())
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.refused {
            return Poll::Ready(Ok(()));
        }
        let flushed = self.io.pin().poll_flush(cx);
        self.unless_refused(cx, flushed, ())
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io.pin().poll_shutdown(cx)
    }
}

impl ActixStream for Wire {
    fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_read_ready(self.io.tcp(), cx)
    }

    fn poll_write_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<Ready>> {
        ActixStream::poll_write_ready(self.io.tcp(), cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What the library gets of an answer that arrives in pieces of `size` bytes.
    fn heard(answer: &str, size: usize) -> Option<String> {
        let mut head = Head::default();
        let mut pieces = answer.as_bytes().chunks(size);
        let known = pieces.by_ref().find_map(|piece| {
            head.bytes.extend_from_slice(piece);
            head.known().unwrap()
        })?;
        let rest: Vec<u8> = pieces.flatten().copied().collect();
        Some(String::from_utf8([known.to_vec(), rest].concat()).unwrap())
    }

    fn heard_in_any_pieces(answer: &str) -> Option<String> {
        let whole = heard(answer, answer.len());
        assert!((1..answer.len()).all(|size| heard(answer, size) == whole), "{answer:?}");
        whole
    }

    #[test]
    fn an_answer_without_a_length_ends_with_its_connection_and_no_other_does() {
        for ends in ["\r\n\r\n", "\n\n", "\nConnection: close\r\n\r\n", "\nx-content-length: 3\n\n"] {
            let head = format!("HTTP/1.1 200 OK{ends}body");
            assert_eq!(heard_in_any_pieces(&head), Some(head.replace("HTTP/1.1", "HTTP/1.0")), "{ends:?}");
        }
        for same in [
            "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody",
            "HTTP/1.1 200 OK\r\nTRANSFER-ENCODING : chunked\n\n0\r\n\r\n",
            "HTTP/1.1 204 No\r\n\r\n",
            "HTTP/1.1 304 No\r\n\r\n",
            "HTTP/1.1 101 Up\r\n\r\nx",
            "HTTP/1.0 200 OK\r\n\r\nbody",
            "ICY 200 OK\r\n\r\nbody",
        ] {
            assert_eq!(heard_in_any_pieces(same).as_deref(), Some(same));
        }
    }

    #[test]
    fn interim_answers_are_left_out_however_many_there_are() {
        let last = "HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n";
        let interim = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Hints\r\nlink: </x>\r\n\r\n";
        assert_eq!(heard_in_any_pieces(&format!("{interim}{last}")).as_deref(), Some(last));
        assert_eq!(heard_in_any_pieces(interim), None, "the answer itself is still to come");
    }

    #[test]
    fn a_head_without_end_is_an_error_before_it_is_a_memory_leak() {
        for endless in ["x-more: and more\r\n", "HTTP/1.1 100 Continue\r\n\r\n"] {
            let mut head = Head::default();
            let failed = (0..10_000).any(|_| {
                head.bytes.extend_from_slice(endless.as_bytes());
                head.known().is_err()
            });
            assert!(failed && head.bytes.len() <= MAX_HEAD_BYTES + endless.len(), "{endless}");
        }
    }
}
