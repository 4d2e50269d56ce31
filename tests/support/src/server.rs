//! The farebox binary as an operator runs it: a configuration in a folder, a process, its log, its books.

use std::fmt::Write as _;
use std::iter;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;
use tempfile::TempDir;

use crate::chain::{Chain, SETTLERS};
use crate::http::{self, Answer, Request};
use crate::process::{Process, eventually, free_port, run};
use crate::proxy::{Kind, Proxy};
use crate::upstream::{UPSTREAM_KEY, Upstream};

/// The model that every test server sells.
pub const MODEL: &str = "test-model";
/// What the upstream calls it.
pub const UPSTREAM_MODEL: &str = "upstream-model";
/// Micros per token: USD per million tokens is the same number.
pub const INPUT_PRICE: u64 = 3;
pub const OUTPUT_PRICE: u64 = 15;

/// The signal by which a program ends that dies at a fault point: SIGABRT.
const ABORTED: i32 = 6;

/// What differs between the servers of two tests; the rest is the same for all.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// Further lines for `[server]`, such as `operators = ["0x…"]`.
    pub server: Vec<String>,
    /// Lines for `[payments]`, such as `payg_order = "settle-first"`.
    pub payments: Vec<String>,
    /// Lines for `[limits]` that stand instead of the test's wide ones.
    pub limits: Vec<String>,
    /// Lines for each `[[network]]`.
    pub network: Vec<String>,
    /// Further prices of the model, such as `cache_read = "0.30"`.
    pub prices: Vec<String>,
    /// The one dialect that the upstream speaks, instead of all.
    pub speaks: Option<String>,
    /// Instead of the chain's own address, for a node that is behind something else.
    pub rpc_urls: Vec<String>,
    /// Settle through this facilitator instead of the node.
    pub facilitator_url: Option<String>,
    /// Instead of the upstream's own address, for one that something else stands before.
    pub upstream_url: Option<String>,
    /// Lines for the first `[[upstream]]`.
    pub upstream: Vec<String>,
    /// Where further upstreams are that serve each model; they are asked after the first, in this order.
    pub others: Vec<String>,
    /// Lines for `[failover]`.
    pub failover: Vec<String>,
    /// Lines for `[prepaid]`.
    pub prepaid: Vec<String>,
    /// Whole sections that stand at the end.
    pub sections: Vec<String>,
    /// Models sold beside [`MODEL`], at its prices and from the same upstream.
    pub models: Vec<String>,
}

/// The file in a server's folder that moves its clock.
const CLOCK: &str = "clock";

/// A farebox with a data folder of its own.
pub struct Server {
    binary: PathBuf,
    folder: TempDir,
    process: Process,
    address: String,
    /// `https` once it has a certificate.
    scheme: &'static str,
    /// What earlier processes on the same data folder printed.
    past_output: String,
    /// What callers come through, in a test run that wants it.
    proxy: Option<Proxy>,
    /// What starts its commands, such as `nsenter`, with its arguments; nothing if they are started as they are.
    through: Vec<String>,
}

impl Server {
    /// Starts `binary` (`env!("CARGO_BIN_EXE_farebox")`) on `chain` and `upstream`, and waits until it listens.
    pub fn start(binary: &str, chain: &impl Chain, upstream: &Upstream) -> Server {
        Server::with(binary, chain, upstream, &Settings::default())
    }

    pub fn with(binary: &str, chain: &impl Chain, upstream: &Upstream, settings: &Settings) -> Server {
        Server::on(binary, &[chain], upstream, settings)
    }

    /// Starts `binary` on several chains; what `settings` say of the network is said of each.
    pub fn on(binary: &str, chains: &[&dyn Chain], upstream: &Upstream, settings: &Settings) -> Server {
        Server::configured(binary, &configuration(chains, upstream, settings))
    }

    /// Starts `binary` on a configuration of the test's own, behind the proxy that the test run wants.
    pub fn configured(binary: &str, config: &str) -> Server {
        let wanted = Kind::wanted().map(|kind| (kind, free_port(), free_port()));
        let config = wanted.map_or(config.to_owned(), |(_, front, back)| behind_a_proxy(config, front, back));
        let folder = TempDir::new().expect("a temporary folder");
        std::fs::write(folder.path().join("config.toml"), config).expect("the folder is writable");
        let (process, scheme, address) = listening(farebox(Path::new(binary), folder.path(), &["serve"], &[]));
        let proxy = wanted.map(|(kind, front, _)| Proxy::start(kind, front, &address));
        let address = proxy.as_ref().map_or(address, |proxy| proxy.address.clone());
        let (past_output, through) = (String::new(), Vec::new());
        Server { binary: binary.into(), folder, process, address, scheme, past_output, proxy, through }
    }

    /// A further process of it listens.
    fn runs_as(&mut self, (process, scheme, address): (Process, &'static str, String)) {
        (self.process, self.scheme) = (process, scheme);
        if self.proxy.is_none() {
            self.address = address;
        }
    }

    /// `127.0.0.1:PORT`, where callers find it.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn url(&self) -> String {
        format!("{}://{}", self.scheme, self.address)
    }

    /// Where callers see it, as its configuration says: at its own address, if it says nothing.
    pub fn public_url(&self) -> String {
        let text = std::fs::read_to_string(self.folder.path().join("config.toml")).expect("the configuration is readable");
        let told = text.lines().find_map(|line| line.strip_prefix("public_url = \"")?.strip_suffix('"').map(str::to_owned));
        told.unwrap_or_else(|| self.url())
    }

    /// Presents a payment once more. Its first copy is over for the books a moment after its last byte was written: until
    /// then the answer is that it is still being served.
    pub fn send_again(&self, request: &Request) -> Answer {
        let mut answer = self.send(request);
        eventually("the first copy is over", || {
            let over = answer.code() != "payment_in_progress";
            if !over {
                answer = self.send(request);
            }
            over
        });
        answer
    }

    /// Sends one request and reads the whole answer.
    pub fn send(&self, request: &Request) -> Answer {
        let answer = http::send(&self.address, request);
        answer.unwrap_or_else(|error| panic!("no answer ({error}); the server printed:\n{}", self.output()))
    }

    /// Waits until a call of a wallet is over on disk. A `kill -9` in the moments before takes its charge back, in the buyer's
    /// favour.
    pub fn wait_posted(&self, address: &str) {
        let posted = || run(self.command(&["account", address]), "").1.contains("\"request_id\": \"req_");
        eventually("a call is in the statement", posted);
    }

    /// `kill -9`.
    pub fn kill(&mut self) {
        self.process.kill();
    }

    /// Starts again on the same configuration and data, after a `kill -9` if it still runs.
    pub fn restart(&mut self) {
        self.process.kill();
        self.past_output.push_str(&self.process.output());
        self.runs_as(listening(self.command(&["serve"])));
    }

    /// Has every command from now on started by another program, whose arguments come first.
    pub fn start_through(&mut self, program: Vec<String>) {
        self.through = program;
    }

    /// Starts again with a fault point armed, such as `claim.after:2`; it listens, and dies when it comes by.
    pub fn restart_armed(&mut self, fault: &str) {
        self.process.kill();
        self.past_output.push_str(&self.process.output());
        self.runs_as(listening(self.armed(fault)));
    }

    /// Starts again with a fault point armed that it passes before it listens, and waits until it has died of it.
    pub fn restart_into_death(&mut self, fault: &str) {
        self.process.kill();
        self.past_output.push_str(&self.process.output());
        self.process = Process::spawn(self.armed(fault));
        self.wait_death(fault);
    }

    /// Waits until an armed server has died of its fault point, as opposed to any other end.
    pub fn wait_death(&mut self, fault: &str) {
        use std::os::unix::process::ExitStatusExt as _;
        let status = self.process.wait_exit();
        assert_eq!(status.signal(), Some(ABORTED), "it did not die at {fault} but ended with {status}:\n{}", self.output());
    }

    fn armed(&self, fault: &str) -> Command {
        let mut command = self.command(&["serve"]);
        command.env("FAREBOX_FAULT", fault);
        command
    }

    /// Changes the text of its configuration, which counts from the next start on.
    pub fn reconfigure(&self, change: impl FnOnce(String) -> String) {
        let path = self.folder.path().join("config.toml");
        let text = std::fs::read_to_string(&path).expect("the configuration is readable");
        std::fs::write(path, change(text)).expect("the folder is writable");
    }

    /// Has it read its configuration again, as an operator by `farebox reload`; returns the exit code and what that printed.
    pub fn reload(&self) -> (i32, String) {
        let (code, stdout, stderr) = run(self.command(&["reload"]), "");
        (code, stdout + &stderr)
    }

    /// Has it read its configuration again, as a service manager by SIGHUP, and waits for nothing.
    pub fn hang_up(&self) {
        self.process.hang_up();
    }

    /// A file beside its configuration, readable for nobody else.
    pub fn put(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt as _;
        let path = self.folder.path().join(name);
        std::fs::write(&path, text).expect("the folder is writable");
        std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600)).expect("the file is ours");
    }

    /// Asks it to end, and waits for nothing.
    pub fn signal(&self) {
        self.process.signal();
    }

    /// Sets its clock so many seconds ahead of the machine's (behind it, if negative), now and for its next start. Only a
    /// binary with the feature `fault-points` looks.
    pub fn move_clock(&self, seconds: i64) {
        let (fresh, file) = (self.folder.path().join("clock.new"), self.folder.path().join(CLOCK));
        // Renamed into place, so that it is never read half written.
        std::fs::write(&fresh, seconds.to_string()).and_then(|()| std::fs::rename(&fresh, file)).expect("the folder is writable");
    }

    /// Bytes of memory that it holds now (its resident set).
    pub fn memory(&self) -> u64 {
        let kilobytes =
            self.status_of("status", "VmRSS:").and_then(|rest| rest.trim_end_matches("kB").trim().parse::<u64>().ok());
        kilobytes.expect("a running process has a resident set") * 1024
    }

    /// What follows `name` in a file of the process's own folder under `/proc`.
    pub fn status_of(&self, file: &str, name: &str) -> Option<String> {
        let text = std::fs::read_to_string(format!("/proc/{}/{file}", self.process.id())).expect("the process runs");
        text.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()))
    }

    /// Waits until it ends by itself, in good order.
    pub fn wait_exit(&mut self) {
        let status = self.process.wait_exit();
        assert!(status.success(), "the server ended with {status}:\n{}", self.output());
    }

    /// Waits until it ends by itself, with whatever exit code.
    pub fn wait_code(&mut self) -> Option<i32> {
        self.process.wait_exit().code()
    }

    pub fn is_running(&mut self) -> bool {
        self.process.is_running()
    }

    /// Everything that all its processes printed.
    pub fn output(&self) -> String {
        format!("{}{}", self.past_output, self.process.output())
    }

    /// Waits until one of its processes has printed `text`: what is printed is read by a thread of the test's own.
    pub fn has_said(&self, text: &str) {
        eventually(text, || self.output().contains(text));
    }

    pub fn data_dir(&self) -> PathBuf {
        self.folder.path().join("data")
    }

    /// `farebox` with `arguments`, on this server's configuration and data folder.
    pub fn command(&self, arguments: &[&str]) -> Command {
        farebox(&self.binary, self.folder.path(), arguments, &self.through)
    }

    /// Stops the server in good order and audits what it left behind: `farebox verify --chain`.
    pub fn audit(&mut self) -> Books {
        let status = self.process.terminate();
        assert!(status.success(), "the server ended with {status}:\n{}", self.output());
        self.verify(&["--chain"])
    }

    /// `farebox verify` on the data folder, which must be free.
    pub fn verify(&self, flags: &[&str]) -> Books {
        let mut command = self.command(&["verify"]);
        command.args(flags);
        let (code, stdout, stderr) = run(command, "");
        let json = serde_json::from_str(&stdout);
        let json = json.unwrap_or_else(|error| panic!("verify printed no JSON ({error}):\n{stdout}\n{stderr}"));
        Books { clean: code == 0, json }
    }
}

/// What `farebox verify` found.
#[derive(Debug)]
pub struct Books {
    /// Exit code 0.
    pub clean: bool,
    pub json: Value,
}

impl Books {
    /// Micros that a wallet can spend; zero for a wallet the books do not know.
    pub fn balance(&self, address: &str) -> u64 {
        let account = match address.starts_with("0x") {
            true => format!("evm:{}", address.to_ascii_lowercase()),
            false => format!("solana:{address}"),
        };
        match &self.json["accounts"][&account] {
            Value::Null => 0,
            entry @ Value::Object(_) => micros(&entry["available"]),
            value => micros(value),
        }
    }

    /// The states of all payments, by id.
    pub fn payments(&self) -> Vec<(String, String)> {
        let state = |value: &Value| value.as_str().or_else(|| value["state"].as_str()).unwrap_or_default().to_owned();
        let payments = self.json["payments"].as_object().into_iter().flatten();
        payments.map(|(id, value)| (id.clone(), state(value))).collect()
    }
}

/// An amount as a whole number of micros, or as text in USD.
pub fn micros(value: &Value) -> u64 {
    let usd = |text: &str| {
        let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
        format!("{whole}{fraction:0<6}").parse().ok()
    };
    let amount = value.as_u64().or_else(|| value.as_str().and_then(usd));
    amount.unwrap_or_else(|| panic!("not an amount: {value}"))
}

/// The configuration of a server on port `back` whom callers find at a proxy on port `front`.
fn behind_a_proxy(config: &str, front: u16, back: u16) -> String {
    let bind = "bind = \"127.0.0.1:0\"";
    assert!(config.contains(bind) && !config.contains("public_url"), "it is where the system puts it:\n{config}");
    let lines =
        format!("bind = \"127.0.0.1:{back}\"\npublic_url = \"http://127.0.0.1:{front}\"\ntrusted_proxies = [\"127.0.0.1/32\"]");
    config.replacen(bind, &lines, 1)
}

fn farebox(binary: &Path, folder: &Path, arguments: &[&str], through: &[String]) -> Command {
    let mut command = match through {
        [] => Command::new(binary),
        [program, first @ ..] => {
            let mut command = Command::new(program);
            command.args(first).arg(binary);
            command
        }
    };
    command.current_dir(folder).arg("--config").arg(folder.join("config.toml")).args(arguments);
    command.env("FAREBOX_CLOCK", folder.join(CLOCK));
    command.envs(SETTLERS.map(|(wallet, name)| (name, wallet.key))).env("TEST_UPSTREAM_KEY", UPSTREAM_KEY);
    command
}

fn listening(command: Command) -> (Process, &'static str, String) {
    let mut process = Process::spawn(command);
    let place = process.wait_for("listening on http");
    let (secure, address) = place.split_once("://").expect("it says where it listens");
    let (scheme, address) = (if secure == "s" { "https" } else { "http" }, address.to_owned());
    (process, scheme, address)
}

/// What a server on `chains` and `upstream` is told; it listens on a port that the system chooses.
pub fn configuration(chains: &[&dyn Chain], upstream: &Upstream, settings: &Settings) -> String {
    let prices = settings.prices.iter().map(|price| format!(", {price}")).collect::<String>();
    let speaks = settings.speaks.as_ref().map_or(vec!["chat", "messages", "responses"], |dialect| vec![dialect.as_str()]);
    let mut text = format!(
        r#"
[server]
bind = "127.0.0.1:0"
data_dir = "data"
{server_lines}

{networks}

[[upstream]]
name = "fake"
base_url = "{upstream}"
api_key = "env:TEST_UPSTREAM_KEY"
speaks = {speaks:?}
{upstream_lines}
"#,
        server_lines = settings.server.join("\n"),
        networks = chains.iter().map(|chain| network(*chain, settings)).collect::<String>(),
        upstream = settings.upstream_url.clone().unwrap_or_else(|| upstream.url()),
        upstream_lines = settings.upstream.join("\n"),
        speaks = speaks,
    );
    let mut servings = format!(r#"{{ name = "fake", model = "{UPSTREAM_MODEL}" }}"#);
    for (number, url) in (2..).zip(&settings.others) {
        let name = format!("fake{number}");
        // Writing to a String cannot fail.
        let _ = write!(servings, r#", {{ name = "{name}", model = "{UPSTREAM_MODEL}" }}"#);
        let _ = write!(
            text,
            "\n[[upstream]]\nname = \"{name}\"\nbase_url = \"{url}\"\napi_key = \"env:TEST_UPSTREAM_KEY\"\nspeaks = {speaks:?}\n"
        );
    }
    for id in iter::once(MODEL).chain(settings.models.iter().map(String::as_str)) {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            r#"
[[model]]
id = "{id}"
upstreams = [{servings}]
price = {{ input = "{INPUT_PRICE}", output = "{OUTPUT_PRICE}"{prices} }}
"#
        );
    }
    let wide = [
        "per_ip_per_second",
        "per_ip_burst",
        "per_account_per_second",
        "per_account_burst",
        "payments_per_ip_per_minute",
        "top_ups_per_ip_per_minute",
        "balance_reads_per_minute",
        "statement_reads_per_minute",
        "key_changes_per_ip_per_minute",
    ];
    let wide = wide.map(|limit| format!("{limit} = 100000")).to_vec();
    let limits = if settings.limits.is_empty() { &wide } else { &settings.limits };
    // Writing to a String cannot fail.
    let _ = write!(text, "\n[limits]\n{}\n\n[payments]\n{}\n", limits.join("\n"), settings.payments.join("\n"));
    if !settings.failover.is_empty() {
        let _ = write!(text, "\n[failover]\n{}\n", settings.failover.join("\n"));
    }
    if !settings.prepaid.is_empty() {
        let _ = write!(text, "\n[prepaid]\n{}\n", settings.prepaid.join("\n"));
    }
    text + &settings.sections.join("\n")
}

fn network(chain: &dyn Chain, settings: &Settings) -> String {
    let (id, pay_to) = (chain.network_id(), chain.pay_to().address);
    let (settlement, lines) = (settlement(chain, settings), settings.network.join("\n"));
    format!("\n[[network]]\nid = \"{id}\"\npay_to = \"{pay_to}\"\n{settlement}\n{lines}\n")
}

fn settlement(chain: &dyn Chain, settings: &Settings) -> String {
    if let Some(url) = &settings.facilitator_url {
        return format!("settlement = \"facilitator\"\nfacilitator_url = {url:?}");
    }
    let rpc_urls = if settings.rpc_urls.is_empty() { vec![chain.node_url()] } else { settings.rpc_urls.clone() };
    format!("settlement = \"rpc\"\nrpc_urls = {rpc_urls:?}\nsettler_key = \"env:{}\"", chain.settler().1)
}
