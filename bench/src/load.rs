//! So many callers at a time, each sending its next request when it has its whole answer, or at its time where a pace is set.

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use memchr::memmem;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio::task::{LocalSet, spawn_local};
use tokio::time::timeout;

use crate::http::Connection;
use crate::measure::{now_ns, runtime};

/// Longer than any answer of the benchmark takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// What is to be sent, and what must come back.
pub struct Load {
    pub address: String,
    /// Taken in order, each sent once.
    pub requests: Vec<Vec<u8>>,
    pub callers: usize,
    pub status: u16,
    /// Marks that each answer must have; see [`crate::upstream`].
    pub events: u64,
    /// What a complete answer ends with.
    pub ending: &'static [u8],
    pub start: Start,
}

/// When requests are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Start {
    /// All callers begin at once, and none waits between its requests.
    AtOnce,
    /// So many callers begin in a second.
    Ramp(usize),
    /// So many requests in a second, evenly, by the callers in turn. A caller whose last answer is not whole yet sends its
    /// next request when it is.
    Paced(usize),
}

/// What came back.
#[derive(Default)]
pub struct Outcome {
    /// Answers that were complete, with the status and the events that were asked for.
    pub complete: u64,
    /// Why others were not; a few of them.
    pub failures: Vec<String>,
    pub failed: u64,
    pub elapsed: Duration,
    /// Milliseconds from the request to the end of its answer, with its `X-Request-Id`.
    pub answers: Vec<(Option<String>, f64)>,
    /// Milliseconds from writing an event upstream to its arrival, for events written after the answer's head arrived.
    pub lags_ms: Vec<f64>,
}

impl Outcome {
    pub fn per_second(&self) -> f64 {
        self.complete as f64 / self.elapsed.as_secs_f64()
    }

    pub fn latencies_ms(&self) -> Vec<f64> {
        self.answers.iter().map(|(_, latency)| *latency).collect()
    }
}

struct Shared {
    load: Load,
    address: Rc<str>,
    next: usize,
    outcome: Outcome,
}

/// Sends all requests from one thread and returns when every answer has ended.
pub fn run(load: Load) -> Result<Outcome, String> {
    let runtime = runtime().map_err(|error| error.to_string())?;
    let (callers, expected, start) = (load.callers, load.requests.len() as u64, load.start);
    let address = load.address.as_str().into();
    let shared = Rc::new(RefCell::new(Shared { load, address, next: 0, outcome: Outcome::default() }));
    let begun = Instant::now();
    LocalSet::new().block_on(&runtime, async {
        let mut turns = match start {
            Start::Paced(pace) => pacer(pace, callers, expected),
            Start::AtOnce | Start::Ramp(_) => Vec::new(),
        };
        let call = |number| spawn_local(call_until_done(Rc::clone(&shared), number, turns.pop()));
        let callers: Vec<_> = (0..callers).map(call).collect();
        for caller in callers {
            // A caller that panicked is missed in the count below.
            let _ = caller.await;
        }
    });
    let mut outcome = std::mem::take(&mut shared.borrow_mut().outcome);
    outcome.elapsed = begun.elapsed();
    match outcome.complete + outcome.failed {
        sent if sent == expected => Ok(outcome),
        sent => Err(format!("{sent} of {expected} requests were sent")),
    }
}

/// Tells callers in turn when it is time, `pace` times a second: a thread of its own, because the runtime's timers count
/// whole milliseconds, and four requests at once are no even pace.
fn pacer(pace: usize, callers: usize, count: u64) -> Vec<UnboundedReceiver<()>> {
    let (tell, turns): (Vec<_>, Vec<_>) = (0..callers).map(|_| unbounded_channel()).unzip();
    std::thread::spawn(move || {
        let begun = Instant::now();
        for (number, caller) in (0..count).zip(tell.iter().cycle()) {
            let due = begun + Duration::from_nanos(number * 1_000_000_000 / pace.max(1) as u64);
            std::thread::sleep(due.saturating_duration_since(Instant::now()));
            // A caller that has gone away is missed in the count of answers.
            let _ = caller.send(());
        }
    });
    turns
}

async fn call_until_done(shared: Rc<RefCell<Shared>>, number: usize, mut turn: Option<UnboundedReceiver<()>>) {
    let start = shared.borrow().load.start;
    if let Start::Ramp(ramp) = start {
        tokio::time::sleep(Duration::from_millis((number * 1000 / ramp.max(1)) as u64)).await;
    }
    let mut connection = None;
    loop {
        if let Some(turn) = &mut turn
            && turn.recv().await.is_none()
        {
            return;
        }
        let request = {
            let mut shared = shared.borrow_mut();
            let next = shared.next;
            shared.next += 1;
            match shared.load.requests.get_mut(next) {
                Some(request) => std::mem::take(request),
                None => return,
            }
        };
        let answered = timeout(PATIENCE, call(&shared, &mut connection, &request)).await;
        if let Err(why) = answered.unwrap_or_else(|_| Err("no whole answer in a minute".into())) {
            connection = None;
            let mut shared = shared.borrow_mut();
            shared.outcome.failed += 1;
            if shared.outcome.failures.len() < 3 {
                shared.outcome.failures.push(why);
            }
        }
    }
}

async fn call(shared: &RefCell<Shared>, kept: &mut Option<Connection>, request: &[u8]) -> Result<(), String> {
    let (address, status, events, ending) = {
        let shared = shared.borrow();
        (Rc::clone(&shared.address), shared.load.status, shared.load.events, shared.load.ending)
    };
    let broken = |error: std::io::Error| error.to_string();
    let mut connection = match kept.take() {
        Some(connection) => connection,
        None => Connection::open(&address).await.map_err(broken)?,
    };
    let begun = Instant::now();
    connection.send(request).await.map_err(broken)?;
    let head = connection.head().await.map_err(broken)?;
    let mut reading = Reading::new(ending.len());
    let again = connection.body(&head, |piece| reading.piece(piece)).await.map_err(broken)?;
    let latency = begun.elapsed().as_secs_f64() * 1000.0;
    if head.status != status || reading.events != events || reading.tail != ending {
        let seen = String::from_utf8_lossy(&reading.tail).into_owned();
        return Err(format!("status {}, {} events, ending in {seen:?}", head.status, reading.events));
    }
    let outcome = &mut shared.borrow_mut().outcome;
    outcome.complete += 1;
    outcome.answers.push((head.request_id, latency));
    outcome.lags_ms.append(&mut reading.lags_ms);
    *kept = again.then_some(connection);
    Ok(())
}

/// What is noted of one answer's body.
pub struct Reading {
    pub events: u64,
    /// The last bytes, as many as were asked for.
    pub tail: Vec<u8>,
    pub lags_ms: Vec<f64>,
    keep: usize,
    head_at: u64,
    /// A mark that the last piece cut in two.
    cut: Vec<u8>,
}

/// Longer than any mark.
const MARK: usize = 32;

impl Reading {
    /// Begins when an answer's head has arrived.
    pub fn new(keep: usize) -> Reading {
        Reading { events: 0, tail: Vec::new(), lags_ms: Vec::new(), keep, head_at: now_ns(), cut: Vec::new() }
    }

    pub fn piece(&mut self, piece: &[u8]) {
        let now = now_ns();
        let joined = [std::mem::take(&mut self.cut).as_slice(), piece].concat();
        let mut at = 0;
        while let Some(mark) = memmem::find(&joined[at..], b"[t=").map(|found| at + found) {
            let digits = joined[mark + 3..].iter().take_while(|byte| byte.is_ascii_digit());
            let (count, written) = digits.fold((0, 0u64), |(count, number), digit| {
                (count + 1, number.wrapping_mul(10).wrapping_add(u64::from(digit - b'0')))
            });
            at = mark + 3 + count;
            if at == joined.len() {
                at = mark;
                break;
            }
            self.events += 1;
            if written >= self.head_at {
                self.lags_ms.push(now.saturating_sub(written) as f64 / 1e6);
            }
        }
        // Peers cut answers where their buffers end.
        let rest = &joined[at..];
        if let Some(mark) = rest[rest.len().saturating_sub(MARK)..].iter().rposition(|byte| *byte == b'[') {
            let start = rest.len().saturating_sub(MARK) + mark;
            if b"[t=".starts_with(&rest[start..rest.len().min(start + 3)]) {
                self.cut = rest[start..].to_vec();
            }
        }
        match piece.len() >= self.keep {
            true => self.tail = piece[piece.len() - self.keep..].to_vec(),
            false => {
                self.tail.extend_from_slice(piece);
                self.tail.drain(..self.tail.len().saturating_sub(self.keep));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_is_counted_once_wherever_an_answer_is_cut() {
        let answer = b"data: [\n\ndata: x[t=1700000000000000001] word\n\ndata: [] [t=1700000000000000002] y\n\ndata: [DONE]\n\n";
        for first in 0..answer.len() {
            for second in first..answer.len() {
                let mut reading = Reading::new(4);
                [&answer[..first], &answer[first..second], &answer[second..]].into_iter().for_each(|piece| reading.piece(piece));
                assert_eq!((reading.events, reading.tail.as_slice()), (2, &b"E]\n\n"[..]), "cut at {first} and {second}");
            }
        }
    }
}
