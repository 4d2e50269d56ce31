//! The connection to an upstream below the HTTP library: what the library would misread is put into words that it knows.
//!
//! * An answer without a length ends with the connection (RFC 9112, section 6.3). The library takes it for empty, except
//!   from a server of HTTP/1.0, so it is told that this is one.
//! * Interim answers (1xx) are left out: the library takes the first one for the answer.
//! * A transfer encoding other than `chunked`, or any in HTTP/1.0, is an error (RFC 9112, section 6.1). The library takes
//!   the first for an empty body and passes the framing of the second on as if it were the answer.
//! * An answer that offers WebSockets (`Upgrade: websocket`, RFC 9110, section 7.8) has a body like any other. The library
//!   takes it for one without, so the offer is put under a name that nobody knows.
//! * A connection that ends within a head is told apart from one that ends before it: the request may have been carried
//!   out, so that it must not be sent again.
//! * A refusal that arrives while the request is still going out is heard, and the rest of the request is not sent. The
//!   library reads nothing before it has written everything, and would report a broken connection.

use std::io;
use std::mem::MaybeUninit;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use actix_tls::connect::rustls_0_23::reexports::AsyncTlsStream;
use actix_web::rt::net::TcpStream;
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
}

/// One connection, used for one call after the other.
#[derive(Debug)]
pub(super) struct Wire {
    io: Io,
    answer: Answering,
    /// The upstream has answered a request that it had not read to its end; the rest of it goes nowhere.
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
        match &self.io {
            Io::Plain(tcp) => tcp,
            Io::Tls(tls) => tls.get_ref().0,
        }
    }

    /// Reads until the head of the answer is known; false when the connection ended before that.
    fn listen(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let Answering::Head(head) = &mut self.answer else { return Poll::Ready(Ok(true)) };
        loop {
            if let Some(known) = head.known()? {
                self.answer = Answering::Known(known);
                return Poll::Ready(Ok(true));
            }
            let mut buffer = [MaybeUninit::uninit(); 8 * 1024];
            let mut buffer = ReadBuf::uninit(&mut buffer);
            let read = ready!(self.io.pin().poll_read(cx, &mut buffer));
            if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(if head.has_begun() { Err(cut_short()) } else { read.map(|()| false) });
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
            Poll::Ready(Ok(true)) if self.is_final(gone) => Poll::Ready(Ok(instead)),
            Poll::Ready(Err(error)) if error.kind() == io::ErrorKind::InvalidData => Poll::Ready(Err(error)),
            // The end of a connection that is gone is about to be read, and what was said before it.
            Poll::Pending if gone => Poll::Pending,
            _ => step,
        }
    }

    /// Whether the head, read while the request is still going out, is all that will come of it: it does not say yes, or
    /// nobody is there any more who could read the rest of the request.
    fn is_final(&mut self, gone: bool) -> bool {
        let Answering::Known(head) = &mut self.answer else { return false };
        let is_final = gone || status(head).is_some_and(|status| status >= 300);
        if is_final && !self.refused {
            // What was not read stands between this answer and the next: the connection is not used again.
            *head = [&head[..line(head)], b"connection: close\r\n", &head[line(head)..]].concat().into();
            self.refused = true;
        }
        is_final
    }
}

impl Head {
    /// Whether anything was said, interim answers included.
    fn has_begun(&self) -> bool {
        self.skipped + self.bytes.len() > 0
    }

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
                    if status != Some(101) {
                        hide(&mut self.bytes[..end], b"upgrade");
                    }
                    let head = &self.bytes[..end];
                    let is_chunked = is_chunked(head)?;
                    if lasts && !is_chunked && values(head, b"content-length").next().is_none() {
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

/// The values that a head has for the header of this name.
fn values<'a>(head: &'a [u8], name: &'a [u8]) -> impl Iterator<Item = &'a [u8]> {
    head.split(|byte| *byte == b'\n').skip(1).filter_map(move |line| {
        let (found, value) = line.split_at(memchr::memchr(b':', line)?);
        found.trim_ascii().eq_ignore_ascii_case(name).then(|| value[1..].trim_ascii())
    })
}

/// Puts another letter at the start of every header of this name.
fn hide(head: &mut [u8], name: &[u8]) {
    for line in head.split_mut(|byte| *byte == b'\n').skip(1) {
        let end = memchr::memchr(b':', line).unwrap_or_default();
        if line[..end].trim_ascii().eq_ignore_ascii_case(name) {
            line[..end].fill(b'x');
        }
    }
}

/// Whether the body comes in chunks. An error where it is encoded in a way that would be misread.
fn is_chunked(head: &[u8]) -> io::Result<bool> {
    let mut encodings = values(head, b"transfer-encoding");
    match (encodings.next(), encodings.next()) {
        (None, _) => Ok(false),
        (Some(one), None) if one.eq_ignore_ascii_case(b"chunked") && head.starts_with(b"HTTP/1.1") => Ok(true),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "its answer has a transfer encoding that cannot be read")),
    }
}

/// The connection ended, or broke, within a head or behind an interim one.
fn cut_short() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the connection ended within the head of its answer")
}

/// The other side has closed or reset the connection.
fn is_gone(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset | io::ErrorKind::ConnectionAborted)
}

impl AsyncRead for Wire {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, out: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if !ready!(self.listen(cx))? {
            // Nothing was said, and that is what the library hears.
            return Poll::Ready(Ok(()));
        }
        let this = &mut *self;
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
    fn an_answer_that_offers_another_protocol_has_its_body_all_the_same() {
        let offer =
            "HTTP/1.1 200 OK\r\nUpgrade: websocket\r\nupgrade-insecure: 1\nContent-Length: 4\r\nUPGRADE : h2c\r\n\r\nbody";
        let hidden =
            "HTTP/1.1 200 OK\r\nxxxxxxx: websocket\r\nupgrade-insecure: 1\nContent-Length: 4\r\nxxxxxxxx: h2c\r\n\r\nbody";
        assert_eq!(heard_in_any_pieces(offer).as_deref(), Some(hidden));
    }

    #[test]
    fn a_body_in_an_encoding_that_would_be_misread_is_an_error() {
        for head in [
            "HTTP/1.1 200 OK\r\nTransfer-Encoding: identity\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: gzip, chunked\r\n\r\n",
            "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\ntransfer-encoding: chunked\r\n\r\n",
            "HTTP/1.1 200 OK\ntransfer-encoding:\n\n",
            "HTTP/1.0 200 OK\r\ntransfer-encoding: chunked\r\n\r\n",
        ] {
            let mut heard = Head { bytes: head.as_bytes().into(), ..Head::default() };
            assert_eq!(heard.known().unwrap_err().kind(), io::ErrorKind::InvalidData, "{head}");
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
