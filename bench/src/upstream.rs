//! A fast upstream for the benchmark, steered from inside the prompt, so that every peer carries the instruction through.
//!
//! `bench:events=200,ms=20,size=600` asks for 200 events, one every 20 ms (0: as fast as they go), or, unstreamed, for an
//! answer of 600 characters. Each event carries the moment at which it was written: `[t=NANOSECONDS]`.

use std::cell::Cell;
use std::fmt::Write as _;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use bytes::{Buf as _, BytesMut};
use memchr::memmem;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::{Instant, interval_at};

use crate::measure::{now_ns, runtime};

/// Tokens of every prompt, as the upstream reports it.
pub const PROMPT_TOKENS: u64 = 12;
/// Tokens of every unstreamed answer; a stream has one per event.
pub const ANSWER_TOKENS: u64 = 20;

/// Asks how many calls are being answered right now.
pub const OPEN_CALLS: &str = "/__open";

/// What a prompt asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Plan {
    pub events: u64,
    /// Between events; 0 for none.
    pub ms: u64,
    /// Characters of an unstreamed answer.
    pub size: usize,
}

impl Plan {
    /// The directive that stands in a prompt.
    pub fn directive(&self) -> String {
        format!("bench:events={},ms={},size={}", self.events, self.ms, self.size)
    }

    fn read(body: &[u8]) -> Plan {
        let mut plan = Plan { events: 20, ms: 0, size: 600 };
        let Some(start) = memmem::find(body, b"bench:") else { return plan };
        let directive = body[start + 6..].iter().take_while(|byte| byte.is_ascii_alphanumeric() || b"=,".contains(byte));
        let directive: String = directive.map(|byte| char::from(*byte)).collect();
        for (name, value) in directive.split(',').filter_map(|part| part.split_once('=')) {
            let value = value.parse().unwrap_or(0);
            match name {
                "events" => plan.events = value,
                "ms" => plan.ms = value,
                "size" => plan.size = usize::try_from(value).unwrap_or(0),
                _ => {}
            }
        }
        plan
    }
}

/// Serves until it is killed; prints where it listens.
pub fn run() -> io::Result<()> {
    let runtime = runtime()?;
    LocalSet::new().block_on(&runtime, async {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        println!("listening on http://{}", listener.local_addr()?);
        let open = Rc::new(Cell::new(0));
        loop {
            let (tcp, _) = listener.accept().await?;
            let open = Rc::clone(&open);
            spawn_local(async move {
                // A caller that hangs up is what some figures are about.
                let _ = serve(tcp, open).await;
            });
        }
    })
}

/// A call that is being answered.
struct Answering(Rc<Cell<u64>>);

impl Answering {
    fn begin(open: &Rc<Cell<u64>>) -> Answering {
        open.set(open.get() + 1);
        Answering(Rc::clone(open))
    }
}

impl Drop for Answering {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

async fn serve(mut tcp: TcpStream, open: Rc<Cell<u64>>) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    let mut buffer = BytesMut::with_capacity(4 * 1024);
    loop {
        let end = loop {
            match memmem::find(&buffer, b"\r\n\r\n") {
                Some(end) => break end,
                None if tcp.read_buf(&mut buffer).await? == 0 => return Ok(()),
                None => {}
            }
        };
        let head = String::from_utf8_lossy(&buffer[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:")?.trim().parse::<usize>().ok());
        let (end, length) = (end + 4, length.unwrap_or(0));
        while buffer.len() < end + length {
            if tcp.read_buf(&mut buffer).await? == 0 {
                return Ok(());
            }
        }
        if head.contains(OPEN_CALLS) {
            answer(&mut tcp, "application/json", &open.get().to_string()).await?;
        } else {
            let body = &buffer[end..end + length];
            let (plan, streamed) = (Plan::read(body), memmem::find(body, b"\"stream\":true").is_some());
            let _answering = Answering::begin(&open);
            match streamed {
                true => stream(&mut tcp, plan).await?,
                false => answer(&mut tcp, "application/json", &completion(plan)).await?,
            }
        }
        buffer.advance(end + length);
        if buffer.is_empty() {
            // A long prompt must not stay in memory while connections idle.
            buffer = BytesMut::with_capacity(4 * 1024);
        }
    }
}

async fn answer(tcp: &mut TcpStream, media_type: &str, body: &str) -> io::Result<()> {
    let length = body.len();
    let answer = format!("HTTP/1.1 200 OK\r\ncontent-type: {media_type}\r\ncontent-length: {length}\r\n\r\n{body}");
    tcp.write_all(answer.as_bytes()).await
}

fn completion(plan: Plan) -> String {
    let text = "x".repeat(plan.size);
    let total = PROMPT_TOKENS + ANSWER_TOKENS;
    format!(
        r#"{{"id":"c-1","object":"chat.completion","created":1700000000,"model":"bench","choices":[{{"index":0,"message":{{"role":"assistant","content":"{text}"}},"finish_reason":"stop"}}],"usage":{{"prompt_tokens":{PROMPT_TOKENS},"completion_tokens":{ANSWER_TOKENS},"total_tokens":{total}}}}}"#
    )
}

/// Every event is one write and one chunk, as providers send them.
async fn stream(tcp: &mut TcpStream, plan: Plan) -> io::Result<()> {
    let head =
        "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncache-control: no-cache\r\ntransfer-encoding: chunked\r\n\r\n";
    tcp.write_all(head.as_bytes()).await?;
    event(tcp, r#"{"delta":{"role":"assistant","content":""},"index":0,"finish_reason":null}"#, "").await?;
    let period = Duration::from_millis(plan.ms.max(1));
    let mut ticks = interval_at(Instant::now() + period, period);
    for _ in 0..plan.events {
        if plan.ms > 0 && wait_or_notice(tcp, &mut ticks).await? {
            return Err(io::ErrorKind::ConnectionAborted.into());
        }
        let choice = format!(r#"{{"index":0,"delta":{{"content":"[t={}] word "}},"finish_reason":null}}"#, now_ns());
        event(tcp, &choice, "").await?;
    }
    event(tcp, r#"{"index":0,"delta":{},"finish_reason":"stop"}"#, "").await?;
    let (answered, total) = (plan.events, PROMPT_TOKENS + plan.events);
    let usage = format!(r#","usage":{{"prompt_tokens":{PROMPT_TOKENS},"completion_tokens":{answered},"total_tokens":{total}}}"#);
    event(tcp, "", &usage).await?;
    tcp.write_all(b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n").await
}

/// Waits for the next event's time; true when the caller hung up before.
async fn wait_or_notice(tcp: &TcpStream, ticks: &mut tokio::time::Interval) -> io::Result<bool> {
    loop {
        tokio::select! {
            biased;
            _ = ticks.tick() => return Ok(false),
            ready = tcp.readable() => ready?,
        }
        // Nobody sends while it is being answered: what can be read is the end.
        match tcp.try_read(&mut [0; 1]) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            _ => return Ok(true),
        }
    }
}

async fn event(tcp: &mut TcpStream, choice: &str, usage: &str) -> io::Result<()> {
    let data = format!(
        "data: {{\"id\":\"c-1\",\"object\":\"chat.completion.chunk\",\"created\":1700000000,\"model\":\"bench\",\"choices\":[{choice}]{usage}}}\n\n"
    );
    let mut chunk = String::with_capacity(data.len() + 16);
    // Writing to a String cannot fail.
    let _ = write!(chunk, "{:x}\r\n{data}\r\n", data.len());
    tcp.write_all(chunk.as_bytes()).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prompt_carries_its_instruction_through_json() {
        let plan = Plan { events: 200, ms: 20, size: 1 };
        let body = format!(r#"{{"messages":[{{"content":"{} and more"}}]}}"#, plan.directive());
        assert_eq!(Plan::read(body.as_bytes()), plan);
    }
}
