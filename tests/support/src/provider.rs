//! An upstream made of bare bytes: a test writes on the socket itself, so that it can misbehave as no HTTP library allows.

use std::io::Read;
use std::net::{TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

/// A running provider; its threads end with the process.
pub struct Provider {
    address: String,
    seen: Arc<Seen>,
}

#[derive(Default)]
struct Seen {
    connections: AtomicUsize,
    requests: Mutex<Vec<String>>,
}

/// One request that has arrived whole.
pub struct Received {
    /// Counted over all connections, from 0.
    pub number: usize,
    /// Which connection it came on, from 0.
    pub connection: usize,
    /// Which request of its connection it is, from 0.
    pub on_connection: usize,
    /// Head and body as they came.
    pub text: String,
}

impl Received {
    pub fn head(&self) -> &str {
        self.text.split("\r\n\r\n").next().unwrap_or_default()
    }

    pub fn body(&self) -> &str {
        self.text.split_once("\r\n\r\n").map_or("", |(_, body)| body)
    }
}

/// What becomes of a connection after an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum After {
    Keep,
    Close,
}

impl Provider {
    /// `answer` is called for every request, on a thread of its connection.
    pub fn start(answer: impl Fn(&Received, &mut TcpStream) -> After + Send + Sync + 'static) -> Provider {
        Provider::raw(move |mut stream, connection, seen| {
            let mut left = Vec::new();
            for on_connection in 0.. {
                let Some(text) = request(&mut stream, &mut left) else { return };
                let mut requests = seen.requests.lock().expect("nobody panics with the requests in hand");
                let number = requests.len();
                requests.push(text.clone());
                drop(requests);
                if answer(&Received { number, connection, on_connection, text }, &mut stream) == After::Close {
                    return;
                }
            }
        })
    }

    /// `serve` gets every connection before anything was read from it, and its number.
    pub fn connections(serve: impl Fn(TcpStream, usize) + Send + Sync + 'static) -> Provider {
        Provider::raw(move |stream, number, _| serve(stream, number))
    }

    fn raw(serve: impl Fn(TcpStream, usize, &Seen) + Send + Sync + 'static) -> Provider {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let address = listener.local_addr().expect("a bound socket has an address").to_string();
        let (serve, seen) = (Arc::new(serve), Arc::<Seen>::default());
        let counted = seen.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (serve, seen) = (serve.clone(), counted.clone());
                let number = seen.connections.fetch_add(1, Ordering::SeqCst);
                thread::spawn(move || serve(stream, number, &seen));
            }
        });
        Provider { address, seen }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Connections that were ever made to it.
    pub fn connected(&self) -> usize {
        self.seen.connections.load(Ordering::SeqCst)
    }

    /// The requests that arrived whole, oldest first: head and body.
    pub fn requests(&self) -> Vec<String> {
        self.seen.requests.lock().expect("nobody panics with the requests in hand").clone()
    }
}

/// The next request with its body; `None` when the connection ends first. What follows it stays in `left`.
fn request(stream: &mut impl Read, left: &mut Vec<u8>) -> Option<String> {
    let mut chunk = vec![0; 64 * 1024];
    loop {
        if let Some(end) = left.windows(4).position(|window| window == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&left[..end]).to_lowercase();
            let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse().ok());
            let whole = end + 4 + length.unwrap_or(0);
            while left.len() < whole {
                let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
                left.extend_from_slice(&chunk[..read]);
            }
            let rest = left.split_off(whole);
            return Some(String::from_utf8_lossy(&std::mem::replace(left, rest)).into_owned());
        }
        let read = stream.read(&mut chunk).ok().filter(|read| *read > 0)?;
        left.extend_from_slice(&chunk[..read]);
    }
}

/// Blocks until the other side is gone, whatever it still sends.
pub fn wait_gone(stream: &mut TcpStream) {
    let mut buffer = [0; 4096];
    while let Ok(1..) = stream.read(&mut buffer) {}
}
