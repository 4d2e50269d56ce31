//! A tiny blocking HTTP/1.1 client that shows what really came over the wire: every header, every chunk, and whether the end came.

use std::io::{self, BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::time::Duration;

use base64::Engine as _;
use serde_json::Value;

/// One request, sent on a connection of its own.
#[derive(Clone, Debug)]
pub struct Request {
    method: String,
    path: String,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Request {
    pub fn get(path: &str) -> Request {
        Request::new("GET", path)
    }

    /// A POST of JSON, with the version header that the messages route expects.
    pub fn post(path: &str, body: impl Into<Vec<u8>>) -> Request {
        let mut request = Request::new("POST", path);
        request.body = body.into();
        request.header("content-type", "application/json").header("anthropic-version", "2023-06-01")
    }

    /// Any method, with a body of JSON; empty for none.
    pub fn with_body(method: &str, path: &str, body: impl Into<Vec<u8>>) -> Request {
        Request { body: body.into(), ..Request::new(method, path) }.header("content-type", "application/json")
    }

    pub fn new(method: &str, path: &str) -> Request {
        Request { method: method.into(), path: path.into(), headers: Vec::new(), body: Vec::new() }
    }

    pub fn header(mut self, name: &str, value: &str) -> Request {
        self.headers.push((name.into(), value.into()));
        self
    }

    /// The same with another body, which need not be what its headers say.
    pub fn with_text(mut self, body: &str) -> Request {
        self.body = body.into();
        self
    }

    /// As it goes over the wire.
    pub fn bytes(&self, host: &str) -> Vec<u8> {
        let mut head = format!("{} {} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n", self.method, self.path);
        for (name, value) in &self.headers {
            head.push_str(&format!("{name}: {value}\r\n"));
        }
        if !self.body.is_empty() || self.method == "POST" {
            head.push_str(&format!("content-length: {}\r\n", self.body.len()));
        }
        head.push_str("\r\n");
        let mut bytes = head.into_bytes();
        bytes.extend_from_slice(&self.body);
        bytes
    }
}

/// An answer that was read to its end.
#[derive(Debug)]
pub struct Answer {
    pub status: u16,
    /// In the order they came, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body ended the way HTTP says, and not by a dropped connection.
    pub complete: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON; panics with the body when it is something else.
    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("not JSON ({error}): {} {}", self.status, self.text()))
    }

    /// A header that carries base64 of JSON, such as an offer or a receipt.
    pub fn decoded(&self, name: &str) -> Option<Value> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(self.header(name)?).expect("standard base64 with padding");
        Some(serde_json::from_slice(&bytes).expect("JSON in the header"))
    }

    /// The `code` of an error answer, in any of its shapes.
    pub fn code(&self) -> String {
        let body = self.json();
        let code = body.pointer("/error/code").or_else(|| body.get("code")).or_else(|| body.pointer("/details/code"));
        code.and_then(Value::as_str).unwrap_or_default().to_owned()
    }
}

/// An answer whose head has arrived; dropping it hangs up.
pub struct Stream {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    reader: BufReader<TcpStream>,
    body: Body,
    /// Whether the body was read to an end that the other side said.
    pub complete: bool,
}

enum Body {
    Sized(usize),
    Chunked,
    UntilClose,
    Done,
}

/// Sends a request to `address` (`127.0.0.1:4020`) and reads the whole answer.
pub fn send(address: &str, request: &Request) -> io::Result<Answer> {
    let mut stream = open(address, request)?;
    let mut body = Vec::new();
    while let Some(chunk) = stream.next_chunk() {
        body.extend_from_slice(&chunk);
    }
    Ok(Answer { status: stream.status, headers: stream.headers, body, complete: stream.complete })
}

/// Sends a request and returns as soon as the answer's head is there.
pub fn open(address: &str, request: &Request) -> io::Result<Stream> {
    let mut tcp = connect(address)?;
    tcp.write_all(&request.bytes(address))?;
    let mut reader = BufReader::new(tcp);
    let (status, headers) = read_head(&mut reader)?;
    let length = find(&headers, "content-length").and_then(|text| text.parse().ok());
    let chunked = find(&headers, "transfer-encoding").is_some_and(|value| value.contains("chunked"));
    let body = match (chunked, length) {
        (true, _) => Body::Chunked,
        (false, Some(length)) => Body::Sized(length),
        (false, None) => Body::UntilClose,
    };
    Ok(Stream { status, headers, reader, body, complete: false })
}

/// Sends bytes as they are, hangs up its own side, and returns all that came back.
pub fn raw(address: &str, bytes: &[u8]) -> io::Result<Vec<u8>> {
    let mut tcp = connect(address)?;
    tcp.write_all(bytes)?;
    tcp.shutdown(Shutdown::Write)?;
    let mut answer = Vec::new();
    tcp.read_to_end(&mut answer)?;
    Ok(answer)
}

impl Stream {
    pub fn header(&self, name: &str) -> Option<&str> {
        find(&self.headers, name)
    }

    /// The next piece of the body as it was sent; `None` at the end, or when the connection broke.
    pub fn next_chunk(&mut self) -> Option<Vec<u8>> {
        match self.body {
            Body::Done => None,
            Body::Sized(0) => self.end(),
            Body::Sized(left) => {
                let mut buffer = vec![0; left.min(64 * 1024)];
                let read = self.reader.read(&mut buffer).ok().filter(|read| *read > 0)?;
                buffer.truncate(read);
                self.body = Body::Sized(left - read);
                Some(buffer)
            }
            Body::Chunked => match self.chunk() {
                Ok(chunk) if chunk.is_empty() => self.end(),
                Ok(chunk) => Some(chunk),
                Err(_) => {
                    self.body = Body::Done;
                    None
                }
            },
            Body::UntilClose => {
                let mut rest = Vec::new();
                let clean = self.reader.read_to_end(&mut rest).is_ok();
                self.body = Body::Done;
                self.complete = clean;
                Some(rest)
            }
        }
    }

    fn end(&mut self) -> Option<Vec<u8>> {
        self.body = Body::Done;
        self.complete = true;
        None
    }

    fn chunk(&mut self) -> io::Result<Vec<u8>> {
        let mut line = String::new();
        self.reader.read_line(&mut line)?;
        let size = usize::from_str_radix(line.trim(), 16).map_err(|_| io::ErrorKind::InvalidData)?;
        let mut chunk = vec![0; size + 2];
        self.reader.read_exact(&mut chunk)?;
        chunk.truncate(size);
        Ok(chunk)
    }
}

fn connect(address: &str) -> io::Result<TcpStream> {
    let tcp = TcpStream::connect(address)?;
    tcp.set_nodelay(true)?;
    tcp.set_read_timeout(Some(Duration::from_secs(90)))?;
    Ok(tcp)
}

fn find<'a>(headers: &'a [(String, String)], name: &str) -> Option<&'a str> {
    headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
}

fn read_head(reader: &mut impl BufRead) -> io::Result<(u16, Vec<(String, String)>)> {
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let status = line.split(' ').nth(1).and_then(|text| text.parse().ok());
    let status = status.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, format!("no status line: {line:?}")))?;
    let mut headers = Vec::new();
    loop {
        line.clear();
        reader.read_line(&mut line)?;
        let Some((name, value)) = line.trim_end().split_once(':') else { return Ok((status, headers)) };
        headers.push((name.to_ascii_lowercase(), value.trim().to_owned()));
    }
}
