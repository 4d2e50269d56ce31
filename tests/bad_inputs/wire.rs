//! Requests as bytes, bodies that nobody would write by hand, and everything that came back on a connection.

use std::io::{self, Read, Write};
use std::net::TcpStream;
use std::time::Duration;

use base64::Engine as _;
use serde_json::{Map, Value, json};

use crate::case::{Names, count, text};

/// Longer than the server waits for anything in these tests.
const PATIENCE: Duration = Duration::from_secs(40);

/// One answer as it came.
#[derive(Clone, Debug)]
pub struct Answer {
    pub status: u16,
    /// In the order they came, names in lower case.
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Whether the body ended the way HTTP says.
    pub complete: bool,
}

impl Answer {
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(other, _)| other == name).map(|(_, value)| value.as_str())
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The code of an error in any shape.
    pub fn code(&self) -> Option<String> {
        let body = self.json();
        let code = body.pointer("/error/code").or(body.get("code")).or(body.pointer("/details/code"));
        code.and_then(Value::as_str).map(str::to_owned)
    }

    /// The offer of a 402.
    pub fn offer(&self) -> Option<Value> {
        let bytes = base64::engine::general_purpose::STANDARD.decode(self.header("payment-required")?).ok()?;
        serde_json::from_slice(&bytes).ok()
    }
}

/// A request line, headers and a body. With `Transfer-Encoding` among the headers the body goes out in chunks.
pub fn request(method: &str, route: &str, headers: &[(String, String)], body: Option<&[u8]>, host: &str) -> Vec<u8> {
    let chunked = headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("transfer-encoding"));
    let mut bytes = format!("{method} {route} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    match body {
        Some(body) if chunked => {
            bytes.extend_from_slice(b"\r\n");
            for chunk in body.chunks(1 << 20) {
                bytes.extend_from_slice(format!("{:x}\r\n", chunk.len()).as_bytes());
                bytes.extend_from_slice(chunk);
                bytes.extend_from_slice(b"\r\n");
            }
            bytes.extend_from_slice(b"0\r\n\r\n");
        }
        Some(body) => {
            bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            bytes.extend_from_slice(body);
        }
        None => bytes.extend_from_slice(b"\r\n"),
    }
    bytes
}

/// One character a byte, so that a case can say any byte.
pub fn bytes_of(wire: &str) -> Vec<u8> {
    wire.chars().map(|c| u8::try_from(u32::from(c)).expect("characters of `wire` stand for bytes")).collect()
}

/// Sends bytes on a connection of their own and reads until the server closes it.
///
/// # Errors
/// When the server neither answers nor closes in time.
pub fn exchange(address: &str, bytes: Vec<u8>, head_only: bool) -> io::Result<Vec<Answer>> {
    let mut stream = TcpStream::connect(address)?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    let mut writer = stream.try_clone()?;
    // The answer may come, and the connection be closed, before everything is written.
    let writing = std::thread::spawn(move || drop(writer.write_all(&bytes)));
    let mut came = Vec::new();
    let read = stream.read_to_end(&mut came);
    // A reset after the answer is a way to close; silence is not.
    let silent = read.as_ref().is_err_and(|error| matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut));
    drop(stream.shutdown(std::net::Shutdown::Both));
    writing.join().expect("the writer does not panic");
    if silent {
        return Err(io::Error::new(io::ErrorKind::TimedOut, format!("{} bytes came, and the end did not", came.len())));
    }
    Ok(parse(&came, head_only))
}

/// Reads one answer to its end; the request is on its way.
pub fn read(stream: &mut TcpStream) -> Option<Answer> {
    stream.set_read_timeout(Some(PATIENCE)).ok()?;
    let mut came = Vec::new();
    // A reset after the answer is a way to close.
    let _ = stream.read_to_end(&mut came);
    parse(&came, false).pop()
}

fn parse(mut rest: &[u8], head_only: bool) -> Vec<Answer> {
    let mut answers = Vec::new();
    while let Some(end) = find(rest, b"\r\n\r\n") {
        let head = String::from_utf8_lossy(&rest[..end]).into_owned();
        rest = &rest[end + 4..];
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1)?.parse().ok()).unwrap_or(0);
        let split = |line: &str| line.split_once(':').map(|(name, value)| (name.to_ascii_lowercase(), value.trim().to_owned()));
        let mut answer = Answer { status, headers: lines.filter_map(split).collect(), body: Vec::new(), complete: true };
        if !head_only && !(100..200).contains(&status) && status != 204 {
            rest = take_body(&mut answer, rest);
        }
        answers.push(answer);
    }
    answers
}

fn take_body<'a>(answer: &mut Answer, rest: &'a [u8]) -> &'a [u8] {
    if answer.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
        return take_chunks(answer, rest);
    }
    let length = answer.header("content-length").and_then(|text| text.parse().ok()).unwrap_or(rest.len());
    let taken = length.min(rest.len());
    answer.complete = taken == length;
    answer.body = rest[..taken].to_vec();
    &rest[taken..]
}

fn take_chunks<'a>(answer: &mut Answer, mut rest: &'a [u8]) -> &'a [u8] {
    answer.complete = false;
    while let Some(end) = find(rest, b"\r\n") {
        let size = usize::from_str_radix(String::from_utf8_lossy(&rest[..end]).trim(), 16).unwrap_or(usize::MAX);
        rest = &rest[end + 2..];
        if size.saturating_add(2) > rest.len() {
            break;
        }
        answer.body.extend_from_slice(&rest[..size]);
        rest = &rest[size + 2..];
        if size == 0 {
            answer.complete = true;
            break;
        }
    }
    rest
}

fn find(haystack: &[u8], needle: &[u8]) -> Option<usize> {
    haystack.windows(needle.len()).position(|window| window == needle)
}

/// The bytes of a body as a case describes it.
pub fn body(described: &Value, names: &Names) -> Option<Vec<u8>> {
    let Value::Object(fields) = described else {
        return (!described.is_null()).then(|| panic!("a body is an object or null, not {described}"));
    };
    let only = |name: &str| fields.get(name).filter(|_| fields.len() == 1);
    if let Some(raw) = only("raw") {
        return Some(names.fill(raw.as_str().expect("raw is text")).into_bytes());
    }
    if let Some(raw) = only("raw_b64") {
        let text = raw.as_str().expect("raw_b64 is text");
        return Some(base64::engine::general_purpose::STANDARD.decode(text).expect("raw_b64 is base64"));
    }
    if let Some(json) = only("json") {
        return Some(names.fill_value(json).to_string().into_bytes());
    }
    match fields.get("gen") {
        Some(Value::String(generator)) => Some(generated(generator, fields, names)),
        _ => Some(names.fill_value(described).to_string().into_bytes()),
    }
}

fn generated(generator: &str, fields: &Map<String, Value>, names: &Names) -> Vec<u8> {
    let ok_chat = || names.fill("{{OKCHAT}}");
    match generator {
        "nest" => format!("{}{}", text(fields, "open").repeat(count(fields)), text(fields, "close").repeat(count(fields))).into(),
        // A body of at least so many bytes.
        "repeat_content" | "chunked_repeat" => chat(names, &"a".repeat(count(fields))).into_bytes(),
        "many_keys" => {
            let more: String = (0..count(fields)).map(|n| format!(",\"key{n}\":{n}")).collect();
            format!("{}{more}}}", ok_chat().strip_suffix('}').expect("an object")).into_bytes()
        }
        "many_messages" => {
            let message = json!({ "role": "user", "content": "hi" });
            names.fill_value(&json!({ "model": "{{MODEL}}", "messages": vec![message; count(fields)] })).to_string().into_bytes()
        }
        "deep_content" => {
            let deep = format!("{}{}", "[".repeat(count(fields)), "]".repeat(count(fields)));
            format!("{},\"response_format\":{deep}}}", ok_chat().strip_suffix('}').expect("an object")).into_bytes()
        }
        "multipart_parts" => {
            let part = "--x\r\nContent-Disposition: form-data; name=\"language\"\r\n\r\nde\r\n";
            format!("{}--x--\r\n", part.repeat(count(fields))).into_bytes()
        }
        "emb_many" => {
            names.fill_value(&json!({ "model": "{{EMB}}", "input": vec!["x"; count(fields)] })).to_string().into_bytes()
        }
        "utf16" => ok_chat().encode_utf16().flat_map(u16::to_le_bytes).collect(),
        "gzip" => {
            let times = fields["times"].as_u64().expect("times is a number");
            (0..times).fold(ok_chat().into_bytes(), |bytes, _| gzip(&bytes))
        }
        other => panic!("no generator {other:?}"),
    }
}

/// A sellable request that says `content`.
pub fn chat(names: &Names, content: &str) -> String {
    let body = json!({ "model": "{{MODEL}}", "messages": [{ "role": "user", "content": content }], "max_tokens": 16 });
    names.fill_value(&body).to_string()
}

/// gzip (RFC 1952) of one stored block, which is the simplest there is.
fn gzip(bytes: &[u8]) -> Vec<u8> {
    let length = u16::try_from(bytes.len()).expect("one stored block");
    let mut out = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255, 1];
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(bytes);
    let crc = bytes.iter().fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| (crc >> 1) ^ (0xedb8_8320 & (crc & 1).wrapping_neg()))
    });
    out.extend_from_slice(&(!crc).to_le_bytes());
    out.extend_from_slice(&u32::from(length).to_le_bytes());
    out
}
