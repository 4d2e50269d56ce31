//! An HTTP server that a test scripts: it answers, answers nonsense, or hangs up.

use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;

use serde_json::Value;

use crate::http::{self, Request};

/// A running stub; its thread ends with the process.
pub struct Stub(String);

impl Stub {
    /// `answer` gets the whole request, head and body. `None` closes the connection without a word.
    pub fn start(answer: impl Fn(&str) -> Option<(u16, String)> + Send + Sync + 'static) -> Stub {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address").to_string();
        let answer = Arc::new(answer);
        std::thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                let answer = answer.clone();
                std::thread::spawn(move || {
                    let request = read(&mut stream);
                    if let Some((status, body)) = answer(&request) {
                        let length = body.len();
                        let head = format!("HTTP/1.1 {status} OK\r\nContent-Type: application/json\r\nConnection: close");
                        let _ = write!(stream, "{head}\r\nContent-Length: {length}\r\n\r\n{body}");
                    }
                });
            }
        });
        Stub(address)
    }

    /// Stands before a chain's node at `address`: `answer` gets each JSON-RPC call and a way to ask the real node.
    pub fn before_node(
        address: &str,
        answer: impl Fn(&Value, &dyn Fn(&Value) -> Value) -> Value + Send + Sync + 'static,
    ) -> Stub {
        let behind = address.to_owned();
        Stub::start(move |request| {
            let body: Value = serde_json::from_str(request.split("\r\n\r\n").nth(1)?).ok()?;
            let ask = |call: &Value| {
                let answer = forward(&behind, &format!("\r\n\r\n{call}"));
                serde_json::from_str(&answer).unwrap_or_default()
            };
            let replies = match &body {
                Value::Array(calls) => calls.iter().map(|call| answer(call, &ask)).collect(),
                call => answer(call, &ask),
            };
            Some((200, replies.to_string()))
        })
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.0)
    }
}

/// Passes a request on and returns the body of the answer.
pub fn forward(address: &str, request: &str) -> String {
    let body = request.split("\r\n\r\n").nth(1).unwrap_or_default();
    http::send(address, &Request::post("/", body)).expect("the node behind the stub answers").text()
}

fn read(stream: &mut TcpStream) -> String {
    let (mut request, mut chunk) = (Vec::new(), [0; 4096]);
    loop {
        let text = String::from_utf8_lossy(&request).into_owned();
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| {
                let (name, value) = line.split_once(':')?;
                name.eq_ignore_ascii_case("content-length").then(|| value.trim().parse::<usize>().ok())?
            });
            if body.len() >= length.unwrap_or(0) {
                return text;
            }
        }
        match stream.read(&mut chunk) {
            Ok(0) | Err(_) => return text,
            Ok(count) => request.extend_from_slice(&chunk[..count]),
        }
    }
}
