//! A shop that sells jobs, and the last look at who has the money.

use farebox_rig::account::{Account, Key};
use farebox_rig::anvil::{Anvil, BUYER, OTHER_BUYER, Wallet};
use farebox_rig::buyer::{Intent, sign};
use farebox_rig::chain::Chain;
use farebox_rig::http::{Answer, Request};
use farebox_rig::server::Server;
use farebox_rig::upstream::{UPSTREAM_KEY, Upstream};
use serde_json::{Value, json};

/// Stands in every prompt, and must never be found in a log.
pub const CANARY: &str = "canary-prompt-5e07";
/// Five dollars in micros.
pub const FIVE: u64 = 5_000_000;
/// What a second of each costs, in micros.
pub const VIDEO_SECOND: u64 = 100_000;
pub const MUSIC_SECOND: u64 = 10_000;

/// One kind of job: where it is ordered, for how many seconds, and what that costs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Music,
    Video,
    /// Where videos have addresses.
    Videos,
}

pub const KINDS: [Kind; 3] = [Kind::Music, Kind::Video, Kind::Videos];

impl Kind {
    pub fn route(self) -> &'static str {
        match self {
            Kind::Music => "/v1/audio/queue",
            Kind::Video => "/v1/video/queue",
            Kind::Videos => "/v1/videos/generations",
        }
    }

    pub fn charge(self) -> u64 {
        match self {
            Kind::Music => 30 * MUSIC_SECOND,
            Kind::Video => 5 * VIDEO_SECOND,
            Kind::Videos => 8 * VIDEO_SECOND,
        }
    }

    /// A body; `directive` steers the fake upstream.
    pub fn body(self, directive: &str) -> String {
        let prompt = format!("{CANARY} a cat {directive}");
        match self {
            Kind::Music => json!({ "model": "song", "prompt": prompt, "duration_seconds": 30 }),
            Kind::Video => json!({ "model": "film", "prompt": prompt, "duration": "5s" }),
            Kind::Videos => json!({ "model": "film", "prompt": prompt, "seconds": "8" }),
        }
        .to_string()
    }

    /// The id that an order was answered with.
    pub fn id(self, answer: &Answer) -> String {
        assert_eq!(answer.status, 200, "{}", answer.text());
        let told = answer.json();
        let id = match self {
            Kind::Videos => &told["task_id"],
            Kind::Music | Kind::Video => &told["queue_id"],
        };
        let id = id.as_str().unwrap_or_else(|| panic!("no id: {told}")).to_owned();
        assert!(id.starts_with("job_") && id.len() == 36, "an id of ours: {told}");
        assert!(!answer.text().contains("video_fake"), "and not the upstream's: {told}");
        id
    }

    /// Asks how far a job is, or for what it made where that is the same question.
    pub fn poll(self, id: &str) -> Request {
        let named = json!({ "queue_id": id }).to_string();
        match self {
            Kind::Music => Request::post("/v1/audio/retrieve", named),
            Kind::Video => Request::post("/v1/video/retrieve", named),
            Kind::Videos => Request::get(&format!("/v1/videos/{id}")),
        }
    }

    /// Asks for what it made.
    pub fn fetch(self, id: &str) -> Request {
        match self {
            Kind::Videos => Request::get(&format!("/v1/videos/{id}/content")),
            Kind::Music | Kind::Video => self.poll(id),
        }
    }

    pub fn complete(self, id: &str) -> Option<Request> {
        let named = json!({ "queue_id": id }).to_string();
        match self {
            Kind::Music => Some(Request::post("/v1/audio/complete", named)),
            Kind::Video => Some(Request::post("/v1/video/complete", named)),
            Kind::Videos => None,
        }
    }

    pub fn media_type(self) -> &'static str {
        match self {
            Kind::Music => "audio/wav",
            Kind::Video | Kind::Videos => "video/mp4",
        }
    }
}

/// How a buyer says who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    Key,
    SignIn,
    Payment,
}

pub const WAYS: [By; 3] = [By::Key, By::SignIn, By::Payment];

pub struct Shop {
    pub chain: Anvil,
    pub upstream: Upstream,
    pub server: Server,
    pub key: Key,
}

impl Shop {
    /// With a buyer who has five dollars and a key.
    pub fn open() -> Shop {
        Shop::with("")
    }

    /// The same with an upstream that takes orders of videos in this way.
    pub fn that_speaks(videos: &str) -> Shop {
        Shop::configured(|config| config.replace("videos/generations", videos), |upstream| upstream.url())
    }

    /// The same with lines for `[limits]`.
    pub fn with(limits: &str) -> Shop {
        Shop::before(limits, |upstream| upstream.url())
    }

    /// The same with something else in the upstream's place.
    pub fn before(limits: &str, url: impl FnOnce(&Upstream) -> String) -> Shop {
        Shop::configured(|config| format!("{config}{limits}\n"), url)
    }

    fn configured(change: impl FnOnce(String) -> String, url: impl FnOnce(&Upstream) -> String) -> Shop {
        let (chain, upstream) = (Anvil::start(8453), Upstream::start());
        let server = Server::configured(env!("CARGO_BIN_EXE_farebox"), &change(config(&chain, &url(&upstream))));
        assert_eq!(server.account(BUYER).top_up(FIVE).status, 200);
        let key = server.account(BUYER).mint(&json!({ "name": "jobs" }));
        Shop { chain, upstream, server, key }
    }

    pub fn account(&self, wallet: Wallet) -> Account<'_> {
        self.server.account(wallet)
    }

    /// Says in a request that it is the buyer's, by its key.
    pub fn keyed(&self, request: Request) -> Request {
        request.header("authorization", &format!("Bearer {}", self.key.text))
    }

    pub fn send_keyed(&self, request: Request) -> Answer {
        self.server.send(&self.keyed(request))
    }

    /// The same by a sign-in of a wallet.
    pub fn signed(&self, wallet: Wallet, request: Request) -> Request {
        request.header("x-sign-in-with-x", &self.account(wallet).sign_in())
    }

    /// Orders a job with the buyer's key.
    pub fn order(&self, kind: Kind, directive: &str) -> String {
        kind.id(&self.send_keyed(Request::post(kind.route(), kind.body(directive))))
    }

    /// Orders a job; a payment is the buyer's own, of exactly what is asked.
    pub fn order_by(&self, by: By, kind: Kind, directive: &str) -> Answer {
        let request = Request::post(kind.route(), kind.body(directive));
        match by {
            By::Key => self.send_keyed(request),
            By::SignIn => self.server.send(&self.signed(BUYER, request)),
            By::Payment => self.server.send(&self.paid(BUYER, request)),
        }
    }

    /// Signs for what the server asks for this very request.
    pub fn paid(&self, wallet: Wallet, request: Request) -> Request {
        let offer = self.server.send(&request);
        assert_eq!(offer.status, 402, "{}", offer.text());
        let requirements = offer.decoded("payment-required").expect("an offer")["accepts"][0].clone();
        let signed = sign(&[Intent { wallet, requirements, valid_before: now() + 300 }]).remove(0);
        request.header("payment-signature", signed["v2"].as_str().expect("signed payments are text"))
    }

    /// What the buyer has, in micros.
    pub fn balance(&self) -> i64 {
        self.account(BUYER).available()
    }

    /// Requests to the upstream on this path, below `/v1`.
    pub fn asked(&self, path: &str) -> usize {
        let on = |call: &&Value| call["path"].as_str().is_some_and(|at| at.split('?').next() == Some(&format!("/v1{path}")));
        self.upstream.calls().iter().filter(on).count()
    }

    /// Orders that reached the upstream.
    pub fn ordered(&self) -> usize {
        KINDS.iter().map(|kind| self.asked(kind.route().trim_start_matches("/v1"))).sum()
    }

    /// Closes the shop and audits it: the buyer has what it paid in less `charges`, nobody else has anything, the books are
    /// clean and agree with the chain, and nothing secret was logged.
    pub fn close(mut self, charges: u64) {
        let paid_in: u64 = self.chain.transfers().iter().map(|transfer| transfer.value).sum();
        let statement = self.account(BUYER).statement();
        statement.assert_sums();
        assert_eq!(statement.balance, i64::try_from(paid_in - charges).unwrap(), "{:#?}", statement.rows);
        assert_eq!(self.balance(), statement.balance, "nothing is held any more");
        let books = self.server.audit();
        assert!(books.clean, "the books are not clean: {:#}", books.json);
        assert_eq!(books.balance(BUYER.address), paid_in - charges, "{:#}", books.json);
        assert_eq!(books.balance(OTHER_BUYER.address), 0, "{:#}", books.json);
        let log = self.server.output();
        for secret in [UPSTREAM_KEY, CANARY, &self.key.text] {
            assert!(!log.contains(secret), "the log contains {secret}:\n{log}");
        }
    }
}

fn config(chain: &Anvil, upstream: &str) -> String {
    let (id, pay_to, node, settler) = (chain.network_id(), chain.pay_to().address, chain.node_url(), chain.settler().1);
    format!(
        r#"
[server]
bind = "127.0.0.1:0"
data_dir = "data"

[[network]]
id = "{id}"
pay_to = "{pay_to}"
settlement = "rpc"
rpc_urls = ["{node}"]
settler_key = "env:{settler}"

[[upstream]]
name = "fake"
base_url = "{upstream}"
api_key = "env:TEST_UPSTREAM_KEY"
speaks = ["chat", "music", "video", "videos/generations"]

[[model]]
id = "film"
kind = "video"
upstreams = [{{ name = "fake", model = "upstream-film" }}]
price = {{ second = "0.10" }}

[[model]]
id = "song"
kind = "music"
upstreams = [{{ name = "fake", model = "upstream-song" }}]
price = {{ second = "0.01" }}

[limits]
per_ip_per_second = 100000
per_ip_burst = 100000
payments_per_ip_per_minute = 100000
top_ups_per_ip_per_minute = 100000
balance_reads_per_minute = 100000
statement_reads_per_minute = 100000
key_changes_per_ip_per_minute = 100000
"#
    )
}

/// Seconds since 1970.
pub fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("the clock is past 1970").as_secs()
}
