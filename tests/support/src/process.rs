//! A program under test: its output is collected, its lines can be waited for, and it never outlives its handle.

use std::io::{BufRead, BufReader, Read};
use std::net::TcpListener;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Longer than anything healthy takes on a busy machine.
const PATIENCE: Duration = Duration::from_secs(60);

/// A running program. Dropping it kills it.
pub struct Process {
    name: String,
    child: Child,
    /// In a lock, so that threads of a test may share what has a process.
    lines: Mutex<Receiver<String>>,
    output: Arc<Mutex<String>>,
    collectors: Vec<JoinHandle<()>>,
}

impl Process {
    /// Starts `command` with both outputs captured; panics when it cannot be started.
    pub fn spawn(mut command: Command) -> Process {
        let name = command.get_program().to_string_lossy().into_owned();
        command.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
        let output = Arc::new(Mutex::new(String::new()));
        let (sender, lines) = channel();
        let stdout = child.stdout.take().expect("stdout is piped");
        let stderr = child.stderr.take().expect("stderr is piped");
        let collectors =
            vec![collect(stdout, output.clone(), move |line| drop(sender.send(line))), collect(stderr, output.clone(), drop)];
        Process { name, child, lines: Mutex::new(lines), output, collectors }
    }

    /// Waits for a line on stdout that contains `text` and returns what follows it.
    pub fn wait_for(&mut self, text: &str) -> String {
        let found = self.wait_for_or_end(text);
        found.unwrap_or_else(|| panic!("{} never printed {text:?}; it printed:\n{}", self.name, self.output()))
    }

    /// The same, or `None` when the program ends before.
    pub fn wait_for_or_end(&mut self, text: &str) -> Option<String> {
        let deadline = Instant::now() + PATIENCE;
        let lines = self.lines.get_mut().expect("nobody panics with the lock");
        while let Ok(line) = lines.recv_timeout(deadline.saturating_duration_since(Instant::now())) {
            if let Some((_, rest)) = line.split_once(text) {
                return Some(rest.trim().to_owned());
            }
        }
        assert!(Instant::now() < deadline, "{} neither printed {text:?} nor ended; it printed:\n{}", self.name, self.output());
        None
    }

    /// Waits until the program ends by itself and all that it printed is collected.
    pub fn wait_exit(&mut self) -> ExitStatus {
        let deadline = Instant::now() + PATIENCE;
        loop {
            if let Some(status) = self.child.try_wait().expect("a child of ours can be waited for") {
                for collector in self.collectors.drain(..) {
                    collector.join().expect("a collector does not panic");
                }
                return status;
            }
            assert!(Instant::now() < deadline, "{} does not end; it printed:\n{}", self.name, self.output());
            thread::sleep(Duration::from_millis(5));
        }
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// `kill -9`, and waits until it is gone.
    pub fn kill(&mut self) {
        // An error means that it had already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Asks it to end in good order, unless it has, and waits for it.
    pub fn terminate(&mut self) -> ExitStatus {
        if self.is_running() {
            self.signal();
        }
        self.wait_exit()
    }

    /// Asks it to end in good order.
    pub fn signal(&self) {
        self.send("-TERM");
    }

    /// Tells it that its configuration is another one (SIGHUP).
    pub fn hang_up(&self) {
        self.send("-HUP");
    }

    fn send(&self, signal: &str) {
        let sent = Command::new("kill").args([signal, &self.child.id().to_string()]).status();
        assert!(sent.is_ok_and(|status| status.success()), "{} had already ended; it printed:\n{}", self.name, self.output());
    }

    /// Everything it printed so far on stdout and stderr.
    pub fn output(&self) -> String {
        self.output.lock().expect("a collector does not panic").clone()
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
        if thread::panicking() {
            eprintln!("---- output of {}\n{}", self.name, self.output());
        }
    }
}

fn collect(from: impl Read + Send + 'static, into: Arc<Mutex<String>>, each: impl Fn(String) + Send + 'static) -> JoinHandle<()> {
    thread::spawn(move || {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut text = into.lock().expect("a collector does not panic");
            text.push_str(&line);
            text.push('\n');
            drop(text);
            each(line);
        }
    })
}

/// Runs a program to its end and returns (exit code, stdout, stderr); kills it and panics when it does not end.
pub fn run(command: Command, input: &str) -> (i32, String, String) {
    run_within(PATIENCE, command, input)
}

/// The same for what has more to do than others.
pub fn run_within(patience: Duration, mut command: Command, input: &str) -> (i32, String, String) {
    use std::io::Write as _;
    let name = command.get_program().to_string_lossy().into_owned();
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap_or_else(|error| panic!("{name} does not start: {error}"));
    let mut stdin = child.stdin.take().expect("stdin is piped");
    // A program that does not read its input may close it first.
    let _ = stdin.write_all(input.as_bytes());
    drop(stdin);
    let (stdout, stderr) = (child.stdout.take().expect("stdout is piped"), child.stderr.take().expect("stderr is piped"));
    let (stdout, stderr) = (thread::spawn(move || read(stdout)), thread::spawn(move || read(stderr)));
    let deadline = Instant::now() + patience;
    let status = loop {
        match child.try_wait().expect("a child of ours can be waited for") {
            Some(status) => break Some(status),
            None if Instant::now() < deadline => thread::sleep(Duration::from_millis(5)),
            None => {
                let _ = child.kill();
                let _ = child.wait();
                break None;
            }
        }
    };
    let text = |reader: JoinHandle<String>| reader.join().expect("a reader does not panic");
    let (stdout, stderr) = (text(stdout), text(stderr));
    let status = status.unwrap_or_else(|| panic!("{name} does not end; it printed:\n{stdout}\n{stderr}"));
    (status.code().unwrap_or(-1), stdout, stderr)
}

fn read(mut from: impl Read) -> String {
    let mut bytes = Vec::new();
    // What a program printed before its pipe broke is still worth showing.
    let _ = from.read_to_end(&mut bytes);
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Asks again until `ready` says yes; for things that no line announces.
pub fn eventually(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < deadline, "never happened: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Waits out a midnight in UTC that is less than two minutes away: for a test whose calls have to fall on one day.
pub fn wait_out_midnight() {
    const DAY: u64 = 24 * 60 * 60;
    let since = SystemTime::now().duration_since(UNIX_EPOCH).expect("it is after 1970");
    let left = DAY - since.as_secs() % DAY;
    if left < 120 {
        thread::sleep(Duration::from_secs(left));
    }
}

/// A port that is free, and that no outgoing connection is given while a server is away from it.
pub fn free_port() -> u16 {
    static ASKED: AtomicU32 = AtomicU32::new(0);
    // Below those that systems give out by themselves, and different ones for tests that ask in the same moment.
    let first = std::process::id().wrapping_mul(97);
    let port = |asked: u32| u16::try_from(12_000 + first.wrapping_add(asked) % 18_000).expect("less than 30,000");
    let mut ports = std::iter::repeat_with(|| port(ASKED.fetch_add(1, Ordering::Relaxed))).take(18_000);
    ports.find(|port| TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("some port is free")
}
