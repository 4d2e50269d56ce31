//! The shop that bad inputs are sent to, and what each of them may have moved: on the chain, at the upstream, in the log.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU64, Ordering};

use farebox_rig::anvil::{Anvil, BUYER, MINTER, OTHER_BUYER, PAY_TO, POOR_BUYER, SETTLER, word};
use farebox_rig::http::Request;
use farebox_rig::server::{MODEL, Server, UPSTREAM_MODEL};
use farebox_rig::upstream::{UPSTREAM_KEY, Upstream};
use serde_json::{Value, json};

use crate::case::Names;
use crate::payments::{self, BLACKLISTED};
use crate::wire;

pub const CHAT: &str = "/v1/chat/completions";
/// Ten times as dear as [`MODEL`].
const DEAR_MODEL: &str = "dear-model";
/// Its upstream answers with a header of one MiB.
const HUGE_HEADER_MODEL: &str = "huge-header-model";
/// Its upstream streams 50 MB and reports no usage.
const FAST_MODEL: &str = "fast-model";
const EMBEDDING_MODEL: &str = "embedding-model";
const IMAGE_MODEL: &str = "image-model";
const AUDIO_MODEL: &str = "audio-model";
const VIDEO_MODEL: &str = "video-model";
/// The text of the configuration's `public_url`, which is not the address that is called.
pub const PUBLIC_URL: &str = "https://shop.example";

pub struct Shop {
    pub chain: Anvil,
    pub upstream: Upstream,
    pub server: Server,
    pub names: Names,
    /// One entry of the offer for the ordinary request.
    pub base_offer: Value,
    fresh: AtomicU64,
}

/// What costs somebody something.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moved {
    /// Token units that the operator has.
    pub earned: u64,
    /// Transactions that were sent for settlement, in a block or not.
    pub transactions: u64,
    /// Calls at the upstream.
    pub calls: usize,
}

impl Shop {
    /// On Base, whose token has another EIP-712 name than its test network's. `lines` are for `[limits]` and `[payments]`.
    pub fn open(limits: &[&str], payments: &[&str]) -> Shop {
        let chain = Anvil::start(8453);
        let url = chain.url();
        Shop::behind(chain, &url, limits, payments)
    }

    /// On a chain that is reached at `url`.
    pub fn behind(chain: Anvil, url: &str, limits: &[&str], payments: &[&str]) -> Shop {
        let upstream = Upstream::start();
        let config = config(&chain, url, &upstream, limits, payments);
        let server = Server::configured(env!("CARGO_BIN_EXE_farebox"), &config);
        let mut shop =
            Shop { chain, upstream, server, names: Names::default(), base_offer: Value::Null, fresh: AtomicU64::new(0) };
        shop.set_names();
        shop.well();
        shop.base_offer = shop.offer(&shop.names.fill("{{OKCHAT}}"));
        shop
    }

    fn set_names(&mut self) {
        let mut names = Names::default();
        for (name, value) in [
            ("MODEL", MODEL),
            ("CLAUDE", MODEL),
            ("EXPENSIVE_MODEL", DEAR_MODEL),
            ("MOCK_BIGHDR", HUGE_HEADER_MODEL),
            ("MOCK_FAST", FAST_MODEL),
            ("EMB", EMBEDDING_MODEL),
            ("IMAGE_MODEL", IMAGE_MODEL),
            ("AUDIO", AUDIO_MODEL),
            ("VIDEO", VIDEO_MODEL),
        ] {
            names.set(name, value);
        }
        let ok_chat = wire::chat(&names, "hi");
        let pay_to = PAY_TO.address;
        names.set("OKCHAT_LEN", ok_chat.len());
        names.set("OKCHAT_LEN_HEX", format!("{:x}", ok_chat.len()));
        names.set("OKCHAT", ok_chat);
        names.set("HOST", self.server.address());
        names.set("PAYER", BUYER.address);
        names.set("PAYTO", pay_to);
        names.set("PAYTO_NO0X", &pay_to[2..]);
        names.set("PAYTO_BADSUM", pay_to.replacen('C', "c", 1));
        names.set("USDC", self.chain.usdc());
        names.set("CONTRACT_ADDR", self.chain.usdc());
        names.set("OTHER_WALLET", OTHER_BUYER.address);
        names.set("EMPTY_WALLET", POOR_BUYER.address);
        names.set("BLACKLISTED", BLACKLISTED.address);
        names.set("UPSTREAM_KEY", UPSTREAM_KEY);
        self.names = names;
    }

    /// Names that differ from one payment to the next.
    pub fn names(&self) -> Names {
        let mut names = self.names.clone();
        names.set("FRESH", self.fresh.fetch_add(1, Ordering::Relaxed));
        names
    }

    /// The nonce of an authorization that somebody cancelled or used on the chain before we saw it: here a stranger submitted it.
    pub fn used_nonce(&self, offer: &Value) -> String {
        let names = self.names();
        let to_other = json!({ "set": { "accepted.payTo": OTHER_BUYER.address,
            "payload.authorization.to": OTHER_BUYER.address, "payload.authorization.value": "1" } });
        let payment = payments::decoded(&payments::make(to_other.as_object().expect("an object"), offer, &names).header);
        let hash = self.chain.submit(MINTER, &payment["payload"]);
        assert_eq!(self.chain.wait_receipt(&hash)["status"], "0x1");
        payment["payload"]["authorization"]["nonce"].as_str().expect("hex").to_owned()
    }

    /// The first way to pay for a chat request.
    pub fn offer(&self, body: &str) -> Value {
        let answer = self.server.send(&Request::post(CHAT, body));
        assert_eq!(answer.status, 402, "an unpaid request gets an offer: {}", answer.text());
        answer.decoded("payment-required").expect("a 402 carries PAYMENT-REQUIRED")["accepts"][0].clone()
    }

    /// The upstream forgets what it was asked and answers as it should.
    pub fn well(&self) {
        self.upstream.reset();
        self.upstream.configure(&json!({ "in": 20, "out": 7 }));
    }

    pub fn moved(&self) -> Moved {
        Moved {
            earned: self.chain.usdc_balance(PAY_TO.address),
            transactions: self.chain.transactions_of(SETTLER.address) + self.chain.pending_transactions(),
            calls: self.upstream.calls().len(),
        }
    }

    /// KiB of memory that the server has in RAM.
    pub fn resident(&self) -> u64 {
        let folder = self.server.data_dir().parent().expect("it stands in a folder").to_string_lossy().into_owned();
        let ours = |process: &PathBuf| {
            let arguments = fs::read(process.join("cmdline")).unwrap_or_default();
            String::from_utf8_lossy(&arguments).contains(&folder)
        };
        let processes = fs::read_dir("/proc").expect("a Linux").flatten().map(|entry| entry.path());
        let server = processes.into_iter().find(ours).expect("the server runs");
        let status = fs::read_to_string(server.join("status")).expect("it still runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a size");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Gives [`BLACKLISTED`] money that the token will not let go.
    pub fn blacklist(&self) {
        let wallet = word(BLACKLISTED.address);
        for data in [format!("0x40c10f19{wallet}{}", word("3b9aca00")), format!("0xf9f92be4{wallet}")] {
            let hash = self.chain.act_as(MINTER.address, self.chain.usdc(), &data);
            assert_eq!(self.chain.wait_receipt(&hash)["status"], "0x1", "the token's owner may do that");
        }
    }
}

fn config(chain: &Anvil, rpc: &str, upstream: &Upstream, limits: &[&str], payments: &[&str]) -> String {
    format!(
        r#"
[server]
bind = "127.0.0.1:0"
public_url = "{PUBLIC_URL}"
data_dir = "data"

[[network]]
id = "{network}"
pay_to = "{pay_to}"
settlement = "rpc"
rpc_urls = ["{rpc}"]
settler_key = "env:TEST_SETTLER_KEY"

[[upstream]]
name = "fake"
base_url = "{fake}"
api_key = "env:TEST_UPSTREAM_KEY"
speaks = ["chat", "messages", "responses", "embeddings", "images", "audio", "video", "videos"]

[[upstream]]
name = "huge-header"
base_url = "{huge}"
speaks = ["chat"]

[[upstream]]
name = "fast"
base_url = "{fast}"
speaks = ["chat"]

[[model]]
id = "{FAST_MODEL}"
upstreams = [{{ name = "fast", model = "m" }}]
price = {{ input = "3", output = "15" }}

{media}

[[model]]
id = "{MODEL}"
upstreams = [{{ name = "fake", model = "{UPSTREAM_MODEL}" }}]
price = {{ input = "3", output = "15" }}

[[model]]
id = "{DEAR_MODEL}"
upstreams = [{{ name = "fake", model = "{UPSTREAM_MODEL}" }}]
price = {{ input = "30", output = "150" }}

[[model]]
id = "{HUGE_HEADER_MODEL}"
upstreams = [{{ name = "huge-header", model = "m" }}]
price = {{ input = "3", output = "15" }}

[limits]
{limits}

[payments]
{payments}
"#,
        media = media(),
        network = chain.network(),
        pay_to = PAY_TO.address,
        fake = upstream.url(),
        huge = raw_upstream(huge_header),
        fast = raw_upstream(fifty_megabytes),
        limits = limits.join("\n"),
        payments = payments.join("\n"),
    )
}

/// One model of each kind beside chat that is sold at once.
fn media() -> String {
    format!(
        r#"[[model]]
id = "{EMBEDDING_MODEL}"
kind = "embedding"
upstreams = [{{ name = "fake", model = "{UPSTREAM_MODEL}" }}]
price = {{ input = "3" }}

[[model]]
id = "{IMAGE_MODEL}"
kind = "image"
upstreams = [{{ name = "fake", model = "{UPSTREAM_MODEL}" }}]
price = {{ image = {{ "1024x1024" = "0.04" }} }}

[[model]]
id = "{AUDIO_MODEL}"
kind = "transcription"
upstreams = [{{ name = "fake", model = "{UPSTREAM_MODEL}" }}]
price = {{ second = "0.0001" }}

[[model]]
id = "{VIDEO_MODEL}"
kind = "video"
upstreams = [{{ name = "fake", model = "{UPSTREAM_MODEL}" }}]
price = {{ second = "0.10" }}"#
    )
}

/// An upstream that answers each request as `answer` writes it; its threads end with the process.
fn raw_upstream(answer: fn(&mut TcpStream) -> std::io::Result<()>) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let address = listener.local_addr().expect("a bound socket has an address");
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            std::thread::spawn(move || {
                let mut request = [0; 64 * 1024];
                // Whoever asks does so in one piece, and may hang up before the end of the answer.
                let _ = stream.read(&mut request);
                let _ = answer(&mut stream);
            });
        }
    });
    format!("http://{address}")
}

fn huge_header(stream: &mut TcpStream) -> std::io::Result<()> {
    let huge = "a".repeat(1 << 20);
    let head = format!("HTTP/1.1 200 OK\r\nX-Huge: {huge}\r\nContent-Type: application/json\r\n");
    write!(stream, "{head}Content-Length: 2\r\n\r\n{{}}")
}

fn fifty_megabytes(stream: &mut TcpStream) -> std::io::Result<()> {
    let event =
        r#"data: {"id":"c","object":"chat.completion.chunk","choices":[{"index":0,"delta":{"content":"so many words "}}]}"#;
    let events = format!("{event}\n\n").repeat(500);
    let chunk = format!("{:x}\r\n{events}\r\n", events.len());
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n")?;
    for _ in 0..50_000_000 / events.len() {
        stream.write_all(chunk.as_bytes())?;
    }
    let end = "data: [DONE]\n\n";
    write!(stream, "{:x}\r\n{end}\r\n0\r\n\r\n", end.len())
}
