//! The programs that are measured: the upstream itself, nginx before it, and farebox before it.

use std::fs;
use std::fs::File;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::folder::Folder;
use crate::http;
use crate::measure::runtime;
use crate::upstream::OPEN_CALLS;
use serde_json::Value;

/// The model that is sold, and what its tokens cost in micros.
pub const MODEL: &str = "bench";
pub const INPUT_PRICE: u64 = 3;
pub const OUTPUT_PRICE: u64 = 15;

/// What farebox and our upstream print before their address.
const LISTENING: &str = "listening on http://";

/// A running program; killed when dropped.
pub struct Program {
    child: Child,
    pub address: String,
}

impl Program {
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts `command`, which prints the address it listens on after `announcement`.
    pub fn announced(mut command: Command, announcement: &str) -> Result<Program, String> {
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().map_err(|error| error.to_string())?;
        let stdout = child.stdout.take().ok_or("stdout is not captured")?;
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let address = lines.find_map(|line| line.split_once(announcement).map(|(_, address)| address.trim().to_owned()));
        let program = Program { child, address: address.unwrap_or_default() };
        if program.address.is_empty() { Err("it ended before it listened".into()) } else { Ok(program) }
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        // An error means that it had already ended.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The upstream: this program in another process.
pub fn upstream() -> Result<Program, String> {
    let mut command = Command::new(std::env::current_exe().map_err(|error| error.to_string())?);
    command.arg("upstream");
    Program::announced(command, LISTENING).map_err(|why| format!("the upstream does not start: {why}"))
}

/// How many calls the upstream is answering.
pub fn open_calls(upstream: &Program) -> Result<u64, String> {
    let runtime = runtime().map_err(|error| error.to_string())?;
    let asked = runtime.block_on(http::ask(&upstream.address, &http::request("GET", OPEN_CALLS, "", "")));
    let (_, body) = asked.map_err(|error| error.to_string())?;
    String::from_utf8_lossy(&body).trim().parse().map_err(|_| "the upstream does not count".into())
}

/// nginx with two workers, kept-alive upstream connections and no buffering.
pub struct Nginx {
    pub program: Program,
    _folder: Folder,
}

impl Nginx {
    /// Starts `binary` on a configuration of our own; the system's nginx is not touched.
    pub fn start(binary: &Path, upstream: &str) -> Result<Nginx, String> {
        let why = |error: std::io::Error| format!("nginx does not start: {error}");
        let folder = Folder::new().map_err(why)?;
        let port = TcpListener::bind("127.0.0.1:0").and_then(|listener| listener.local_addr()).map_err(why)?.port();
        let address = format!("127.0.0.1:{port}");
        let text = include_str!("nginx.conf").replace("@DIR@", &folder.path().display().to_string());
        let file = folder.path().join("nginx.conf");
        fs::write(&file, text.replace("@LISTEN@", &address).replace("@UPSTREAM@", upstream)).map_err(why)?;
        let mut command = Command::new(binary);
        command.arg("-p").arg(folder.path()).arg("-c").arg(&file).arg("-e").arg(folder.path().join("error.log"));
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).spawn().map_err(why)?;
        let nginx = Nginx { program: Program { child, address }, _folder: folder };
        listens(&nginx.program.address, Duration::from_secs(10)).map_err(|why| format!("nginx does not start: {why}"))?;
        Ok(nginx)
    }
}

impl Drop for Nginx {
    /// Its workers end only when their master is asked to end, not when it is killed.
    fn drop(&mut self) {
        let asked = Command::new("kill").arg(self.program.pid().to_string()).status();
        if asked.is_ok_and(|asked| asked.success()) {
            // An error means that it had already ended.
            let _ = self.program.child.wait();
        }
    }
}

/// Waits until somebody listens.
fn listens(address: &str, patience: Duration) -> Result<(), String> {
    let begun = Instant::now();
    while std::net::TcpStream::connect(address).is_err() {
        if begun.elapsed() > patience {
            return Err(format!("nobody listens on {address}"));
        }
        std::thread::sleep(Duration::from_millis(2));
    }
    Ok(())
}

/// A release build of farebox with a data folder of its own.
pub struct Farebox {
    program: Option<Program>,
    binary: PathBuf,
    folder: Folder,
    /// From its execution to its first 200 on `/healthz`.
    pub start: Duration,
    setup: Setup,
}

/// What a farebox stands on.
#[derive(Clone)]
pub struct Setup {
    /// Lines of `[[network]]` that say how payments are settled.
    pub settlement: String,
    pub settler_key: String,
    /// How its disk is, where it is a build that can make it worse.
    pub disk: Option<&'static str>,
}

impl Setup {
    pub fn simulated() -> Setup {
        Setup { settlement: "settlement = \"simulated\"".into(), settler_key: String::new(), disk: None }
    }
}

impl Farebox {
    /// Starts it with every limit out of the way, and waits until it is healthy.
    pub fn start(binary: &Path, upstream: &str, setup: Setup) -> Result<Farebox, String> {
        let why = |error: std::io::Error| format!("farebox does not start: {error}");
        let folder = Folder::new().map_err(why)?;
        fs::write(folder.path().join("config.toml"), config(upstream, &setup.settlement)).map_err(why)?;
        let mut farebox = Farebox { program: None, binary: binary.into(), folder, start: Duration::ZERO, setup };
        let log = File::create(farebox.log_file()).map_err(why)?;
        let mut command = farebox.command(&["serve"]);
        command.stderr(log);
        let begun = Instant::now();
        let program =
            Program::announced(command, LISTENING).map_err(|why| format!("farebox does not start: {why}: {}", farebox.log()))?;
        healthy(&program.address)?;
        farebox.start = begun.elapsed();
        farebox.program = Some(program);
        Ok(farebox)
    }

    pub fn address(&self) -> &str {
        self.program.as_ref().map_or("", |program| &program.address)
    }

    pub fn pid(&self) -> u32 {
        self.program.as_ref().map_or(0, Program::pid)
    }

    /// Everything it logged.
    pub fn log(&self) -> String {
        fs::read_to_string(self.log_file()).unwrap_or_default()
    }

    fn log_file(&self) -> PathBuf {
        self.folder.path().join("log")
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.binary);
        command.current_dir(self.folder.path()).arg("--config").arg("config.toml").args(arguments);
        command.env("BENCH_SETTLER_KEY", &self.setup.settler_key);
        if let Some(disk) = self.setup.disk {
            command.env("FAREBOX_DISK_FAULT", disk);
        }
        command
    }

    /// Stops it in good order and checks its books: clean, nothing held, and, where it is known, `charges` micros sold.
    pub fn close(mut self, charges: Option<u64>) -> Result<(), String> {
        let mut program = self.program.take().ok_or("it was closed before")?;
        let asked = Command::new("kill").arg(program.pid().to_string()).status();
        let ended = program.child.wait().map_err(|error| error.to_string())?;
        if !ended.success() || !asked.is_ok_and(|asked| asked.success()) {
            return Err(format!("farebox ended with {ended}: {}", self.log()));
        }
        let output = self.command(&["verify"]).output().map_err(|error| error.to_string())?;
        let report: Value = serde_json::from_slice(&output.stdout).map_err(|error| format!("verify: {error}"))?;
        let sold = report["house"]["sales"].as_i64().unwrap_or(0);
        if !output.status.success() || report["ok"] != true || report["open_holds"] != 0 {
            return Err(format!("the books are not clean: {:#}", report["problems"]));
        }
        match charges {
            Some(charges) if u64::try_from(sold) != Ok(charges) => {
                Err(format!("{sold} micros were charged, {charges} were owed; house: {}", report["house"]))
            }
            _ => Ok(()),
        }
    }
}

fn healthy(address: &str) -> Result<(), String> {
    let runtime = runtime().map_err(|error| error.to_string())?;
    let asked = runtime.block_on(http::ask(address, &http::request("GET", "/healthz", "", "")));
    match asked {
        Ok((head, _)) if head.status == 200 => Ok(()),
        Ok((head, body)) => Err(format!("farebox is not healthy: {} {}", head.status, String::from_utf8_lossy(&body))),
        Err(error) => Err(format!("farebox is not healthy: {error}")),
    }
}

fn config(upstream: &str, settlement: &str) -> String {
    format!(
        r#"
[server]
bind = "127.0.0.1:0"
data_dir = "data"

[[network]]
id = "base-sepolia"
pay_to = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC"
{settlement}

[[upstream]]
name = "bench"
base_url = "http://{upstream}"
speaks = ["chat"]

[[model]]
id = "{MODEL}"
upstreams = [{{ name = "bench", model = "{MODEL}" }}]
price = {{ input = "{INPUT_PRICE}", output = "{OUTPUT_PRICE}" }}

[limits]
per_ip_per_second = 4000000000
per_ip_burst = 4000000000
per_account_per_second = 4000000000
per_account_burst = 4000000000
payments_per_ip_per_minute = 4000000000
streams = 8192
streams_per_account = 8192
max_bodies_mb = 8192
"#
    )
}
