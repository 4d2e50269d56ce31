//! A bare HTTP/1.1 client: one connection, requests as prepared bytes, answers handed on as they arrive.

use std::io;

use bytes::{Buf as _, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;

/// A kept-alive connection.
pub struct Connection {
    tcp: TcpStream,
    buffer: BytesMut,
}

/// What is needed of an answer's head.
#[derive(Debug, Default)]
pub struct Head {
    pub status: u16,
    pub request_id: Option<String>,
    pub offer: Option<String>,
    length: Option<usize>,
    chunked: bool,
    closes: bool,
}

impl Connection {
    pub async fn open(address: &str) -> io::Result<Connection> {
        let tcp = TcpStream::connect(address).await?;
        tcp.set_nodelay(true)?;
        Ok(Connection { tcp, buffer: BytesMut::with_capacity(16 * 1024) })
    }

    pub async fn send(&mut self, request: &[u8]) -> io::Result<()> {
        self.tcp.write_all(request).await
    }

    /// Reads up to the end of the answer's head.
    pub async fn head(&mut self) -> io::Result<Head> {
        loop {
            if let Some(end) = memmem::find(&self.buffer, b"\r\n\r\n") {
                let head = Head::read(&self.buffer[..end]);
                self.buffer.advance(end + 4);
                return head;
            }
            self.fill().await?;
        }
    }

    /// Reads the body to the end that HTTP gives it and hands each piece on as it arrives. Returns whether the connection
    /// may be used again.
    pub async fn body(&mut self, head: &Head, mut each: impl FnMut(&[u8])) -> io::Result<bool> {
        if head.chunked {
            while self.chunk(&mut each).await? {}
        } else {
            let mut left = head.length.ok_or_else(|| broken("an answer without a length"))?;
            while left > 0 {
                if self.buffer.is_empty() {
                    self.fill().await?;
                }
                let piece = left.min(self.buffer.len());
                each(&self.buffer[..piece]);
                self.buffer.advance(piece);
                left -= piece;
            }
        }
        Ok(!head.closes)
    }

    /// One chunk; false after the last.
    async fn chunk(&mut self, each: &mut impl FnMut(&[u8])) -> io::Result<bool> {
        let end = loop {
            match memmem::find(&self.buffer, b"\r\n") {
                Some(end) => break end,
                None => self.fill().await?,
            }
        };
        let size = std::str::from_utf8(&self.buffer[..end]).ok().and_then(|size| usize::from_str_radix(size.trim(), 16).ok());
        let size = size.ok_or_else(|| broken("a chunk without a size"))?;
        self.buffer.advance(end + 2);
        while self.buffer.len() < size + 2 {
            self.fill().await?;
        }
        each(&self.buffer[..size]);
        self.buffer.advance(size + 2);
        Ok(size > 0)
    }

    async fn fill(&mut self) -> io::Result<()> {
        self.buffer.reserve(4 * 1024);
        match self.tcp.read_buf(&mut self.buffer).await? {
            0 => Err(broken("the connection was closed in the middle of an answer")),
            _ => Ok(()),
        }
    }
}

impl Head {
    fn read(bytes: &[u8]) -> io::Result<Head> {
        let text = std::str::from_utf8(bytes).map_err(|_| broken("a head that is not text"))?;
        let mut lines = text.split("\r\n");
        let status = lines.next().and_then(|line| line.split(' ').nth(1)).and_then(|status| status.parse().ok());
        let mut head = Head { status: status.ok_or_else(|| broken("no status line"))?, ..Head::default() };
        for (name, value) in lines.filter_map(|line| line.split_once(':')) {
            let value = value.trim();
            let is = |wanted: &str| name.eq_ignore_ascii_case(wanted);
            // Peers whose answers have more headers must not be slower for what this costs.
            match name.len() {
                14 if is("content-length") => head.length = value.parse().ok(),
                17 if is("transfer-encoding") => head.chunked = value.eq_ignore_ascii_case("chunked"),
                10 if is("connection") => head.closes = value.eq_ignore_ascii_case("close"),
                12 if is("x-request-id") => head.request_id = Some(value.to_owned()),
                16 if is("payment-required") => head.offer = Some(value.to_owned()),
                _ => {}
            }
        }
        Ok(head)
    }
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.to_owned())
}

/// A request as bytes. `headers` end with a line break each.
pub fn request(method: &str, path: &str, headers: &str, body: &str) -> Vec<u8> {
    let length = body.len();
    format!(
        "{method} {path} HTTP/1.1\r\nhost: bench\r\ncontent-type: application/json\r\n{headers}content-length: {length}\r\n\r\n{body}"
    )
    .into_bytes()
}

/// Asks once on a connection of its own: the head and the whole body.
pub async fn ask(address: &str, request: &[u8]) -> io::Result<(Head, Vec<u8>)> {
    let mut connection = Connection::open(address).await?;
    connection.send(request).await?;
    let head = connection.head().await?;
    let mut body = Vec::new();
    connection.body(&head, |piece| body.extend_from_slice(piece)).await?;
    Ok((head, body))
}
