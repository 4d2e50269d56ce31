//! A shop whose money is simulated, and a wallet's owner who signs in, keeps keys and pays in without any client's library.

use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use farebox::chain::evm::buyer;
use farebox::chain::evm::key::PrivateKey;
use farebox::clock::Timestamp;
use farebox::x402::Requirements;
use farebox_rig::http::{Answer, Request};
use farebox_rig::process::{eventually, run};
use farebox_rig::server::{Books, Server};
use farebox_rig::upstream::{UPSTREAM_KEY, Upstream};
use serde_json::{Value, json};

pub const CHAT: &str = "/v1/chat/completions";
pub const MODEL: &str = "test-model";
pub const OTHER_MODEL: &str = "other-model";
/// Makes the upstream report 20 tokens in and 7 out, and what that costs in micros at 3 and 15 dollars per million.
const USAGE: &str = "<<fake in=20 out=7 text=hello+wallet>>";
pub const CHARGE: i64 = 20 * 3 + 7 * 15;

/// The least that can be paid in, in micros.
pub const DOLLAR: u64 = 1_000_000;

/// Chain, upstream and server of one test; the chain is inside the server and moves nothing.
pub struct Shop {
    pub upstream: Upstream,
    pub server: Server,
    /// Seconds that the server's clock is ahead of ours.
    ahead: AtomicU64,
    secrets: Mutex<Vec<String>>,
    /// What the operator's commands logged.
    said: Mutex<String>,
}

/// A wallet's owner.
pub struct Owner {
    key: PrivateKey,
}

/// Every nonce of this process.
static NONCES: AtomicU64 = AtomicU64::new(0);

impl Owner {
    pub fn new(number: u8) -> Owner {
        Owner { key: PrivateKey::parse(&format!("{:064x}", 0x0a11_ce00_u64 + u64::from(number))).unwrap() }
    }

    /// As wallets write it, with its checksum.
    pub fn address(&self) -> String {
        self.key.address().to_string()
    }

    /// As the books write it.
    pub fn account(&self) -> String {
        format!("evm:{}", self.address().to_lowercase())
    }
}

/// How an owner says who it is.
#[derive(Clone, Debug)]
pub struct Proof {
    header: &'static str,
    value: String,
}

impl Proof {
    pub fn bearer(token: &str) -> Proof {
        Proof { header: "authorization", value: format!("Bearer {token}") }
    }

    /// Of a session.
    pub fn token(&self) -> &str {
        self.value.trim_start_matches("Bearer ")
    }
}

impl Shop {
    pub fn open() -> Shop {
        Shop::with("", "")
    }

    /// With further lines for `[prepaid]` and `[limits]`.
    pub fn with(prepaid: &str, limits: &str) -> Shop {
        let upstream = Upstream::start();
        let server = Server::configured(env!("CARGO_BIN_EXE_farebox"), &configuration(&upstream, prepaid, limits));
        Shop { upstream, server, ahead: AtomicU64::new(0), secrets: Mutex::default(), said: Mutex::default() }
    }

    /// Moves the server's clock.
    #[cfg(feature = "fault-points")]
    pub fn move_clock(&self, ahead: u64) {
        self.server.move_clock(i64::try_from(ahead).unwrap());
        self.ahead.store(ahead, Ordering::Relaxed);
    }

    /// What the server's clock shows.
    pub fn now(&self) -> Timestamp {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        Timestamp::from_secs(since.as_secs() + self.ahead.load(Ordering::Relaxed))
    }

    /// Remembers what must be found nowhere when the shop closes.
    pub fn keep(&self, secret: &str) -> String {
        self.secrets.lock().unwrap().push(secret.to_owned());
        secret.to_owned()
    }

    /// A fresh sign-in.
    pub fn sign_in(&self, owner: &Owner) -> Proof {
        let nonce = format!("nonce{:016}", NONCES.fetch_add(1, Ordering::Relaxed));
        let (now, uri) = (self.now(), format!("{}/api/session", self.server.url()));
        let end = now.plus(Duration::from_secs(300));
        let value = buyer::sign_in(&owner.key, self.server.address(), &uri, 8453, &nonce, now, end);
        self.keep(&value);
        let decoded: Value = serde_json::from_slice(&STANDARD.decode(&value).unwrap()).unwrap();
        self.keep(decoded["signature"].as_str().unwrap());
        Proof { header: "x-sign-in-with-x", value }
    }

    /// Opens a session and returns what proves it.
    pub fn session(&self, owner: &Owner) -> Proof {
        let opened = self.ask("POST", "/api/session", &self.sign_in(owner), None);
        assert_eq!(opened.status, 200, "{}", opened.text());
        Proof::bearer(&self.keep(opened.json()["token"].as_str().unwrap()))
    }

    pub fn request(&self, method: &str, path: &str, proof: &Proof, body: Option<&Value>) -> Request {
        let text = body.map(Value::to_string).unwrap_or_default();
        Request::with_body(method, path, text).header(proof.header, &proof.value)
    }

    pub fn ask(&self, method: &str, path: &str, proof: &Proof, body: Option<&Value>) -> Answer {
        self.server.send(&self.request(method, path, proof, body))
    }

    pub fn get(&self, path: &str, proof: &Proof) -> Value {
        let answer = self.ask("GET", path, proof, None);
        assert_eq!(answer.status, 200, "{path}: {}", answer.text());
        answer.json()
    }

    /// Mints a key and returns its id and its text.
    pub fn mint(&self, owner: &Owner, wish: &Value) -> (String, String) {
        let minted = self.ask("POST", "/api/keys", &self.sign_in(owner), Some(wish));
        assert_eq!(minted.status, 200, "{}", minted.text());
        self.minted(&minted)
    }

    /// The operator mints one, for a wallet that may never have had money here. Returns its text.
    pub fn mint_by_hand(&self, owner: &Owner) -> String {
        let (code, printed, said) = self.operator(&["keys", "mint", "--account", &owner.address(), "--name", "by hand"]);
        assert_eq!(code, 0, "{said}");
        self.keep(printed["key"].as_str().unwrap())
    }

    /// The key that an answer shows.
    pub fn minted(&self, answer: &Answer) -> (String, String) {
        let minted = answer.json();
        let text = |name: &str| minted[name].as_str().unwrap_or_else(|| panic!("no {name}: {minted}")).to_owned();
        self.keep(&text("key"));
        (text("id"), text("key"))
    }

    /// Ids, states and last four characters of all keys that the owner's list shows.
    pub fn listed(&self, owner: &Owner) -> Vec<(String, String, String)> {
        let keys = self.get("/api/keys", &self.sign_in(owner))["keys"].take();
        let text = |key: &Value, name: &str| key[name].as_str().unwrap().to_owned();
        keys.as_array().unwrap().iter().map(|key| (text(key, "id"), text(key, "state"), text(key, "last4"))).collect()
    }

    /// Status and code with which a key is answered when it asks about itself.
    pub fn knocks(&self, key: &str) -> (u16, String) {
        let answer = self.server.send(&Request::get("/v1/key").header("authorization", &format!("Bearer {key}")));
        (answer.status, if answer.status == 200 { String::new() } else { answer.code() })
    }

    /// Pays into the owner's balance; nothing moves, the books count it.
    pub fn top_up(&self, owner: &Owner, micros: u64) {
        let offer = self.server.send(&Request::post("/v1/x402/top-up", ""));
        let offer = offer.decoded("payment-required").expect("a top-up begins with an offer")["accepts"][0].take();
        let mut offer: Requirements = serde_json::from_value(offer).unwrap();
        offer.amount = micros.to_string();
        let payment = self.pay(owner, &offer);
        let paid = self.server.send(&Request::post("/v1/x402/top-up", "").header("payment-signature", &payment));
        assert_eq!(paid.status, 200, "{}", paid.text());
    }

    /// A call that its own payment pays for; what is left of that becomes the owner's balance. Returns how much was paid, too.
    pub fn buy(&self, owner: &Owner) -> (Answer, u64) {
        let request = || without_a_key(MODEL, USAGE, false);
        let offer = self.server.send(&request()).decoded("payment-required").expect("a 402 has an offer")["accepts"][0].take();
        let offer: Requirements = serde_json::from_value(offer).unwrap();
        let amount = offer.amount.parse().unwrap();
        (self.server.send(&request().header("payment-signature", &self.pay(owner, &offer))), amount)
    }

    fn pay(&self, owner: &Owner, offer: &Requirements) -> String {
        let mut nonce = [7; 32];
        nonce[..8].copy_from_slice(&NONCES.fetch_add(1, Ordering::Relaxed).to_be_bytes());
        buyer::pay(offer, None, &owner.key, nonce, self.now()).unwrap()
    }

    /// One call for [`CHARGE`], paid by a key.
    pub fn call(&self, key: &str, model: &str) -> Answer {
        self.server.send(&call(key, model, USAGE, false))
    }

    /// `farebox` with `arguments` on this shop's folder: exit code, what it printed as JSON, what it said.
    pub fn operator(&self, arguments: &[&str]) -> (i32, Value, String) {
        let (code, stdout, stderr) = run(self.server.command(arguments), "");
        self.said.lock().unwrap().push_str(&stderr);
        let printed = serde_json::from_str(&stdout).unwrap_or(Value::Null);
        assert_eq!(printed.is_null(), stdout.is_empty(), "it prints JSON or nothing: {stdout}");
        (code, printed, stderr)
    }

    /// What a command prints that prints no JSON.
    pub fn operator_prints(&self, arguments: &[&str]) -> String {
        let (code, stdout, stderr) = run(self.server.command(arguments), "");
        self.said.lock().unwrap().push_str(&stderr);
        assert_eq!(code, 0, "{arguments:?}: {stderr}");
        stdout
    }

    /// Waits until nothing is held of the owner's money.
    pub fn wait_settled(&self, owner: &Owner) -> Value {
        let session = self.session(owner);
        let mut account = Value::Null;
        eventually("every call has ended in the books", || {
            account = self.get("/api/account", &session);
            account["open_calls"] == 0
        });
        assert_eq!(account["held_usd"], 0, "{account}");
        account
    }

    /// Stops in good order: the books are clean, what each of `owners` has is what is said here, and no secret was logged or
    /// written.
    pub fn close(mut self, owners: &[(&Owner, u64)]) -> Books {
        let books = self.server.audit();
        assert!(books.clean, "the books are not clean: {:#}", books.json);
        assert_eq!(books.json["open_holds"], 0, "{:#}", books.json);
        for (owner, micros) in owners {
            assert_eq!(books.balance(&owner.address()), *micros, "{}: {:#}", owner.address(), books.json);
        }
        let secrets = self.secrets.lock().unwrap();
        let secrets: Vec<_> = secrets.iter().map(String::as_str).chain([UPSTREAM_KEY]).collect();
        let log = format!("{}{}", self.server.output(), self.said.lock().unwrap());
        for secret in &secrets {
            assert!(!log.contains(secret), "the log contains {secret}:\n{log}");
        }
        assert_absent(&self.server.data_dir(), &secrets);
        books
    }
}

/// A call that a key pays for; `directive` steers the upstream.
pub fn call(key: &str, model: &str, directive: &str, stream: bool) -> Request {
    without_a_key(model, directive, stream).header("authorization", &format!("Bearer {key}"))
}

fn without_a_key(model: &str, directive: &str, stream: bool) -> Request {
    let messages = json!([{ "role": "user", "content": format!("say it {directive}") }]);
    let body = json!({ "model": model, "max_tokens": 100, "stream": stream, "messages": messages });
    Request::post(CHAT, body.to_string())
}

/// None of `secrets` is in any file below `folder`, not even without what all secrets of its kind begin with.
fn assert_absent(folder: &Path, secrets: &[&str]) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_absent(&path, secrets);
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        for secret in secrets {
            let core = secret
                .strip_prefix("sk-x402-")
                .or(secret.strip_prefix("session-"))
                .or(secret.strip_prefix("0x"))
                .unwrap_or(secret)
                .as_bytes();
            let found = memchr::memmem::find(&bytes, core).is_some();
            assert!(!found, "{secret} was written to {}", path.display());
        }
    }
}

fn configuration(upstream: &Upstream, prepaid: &str, limits: &str) -> String {
    let model = |id: &str| {
        format!(
            "[[model]]\nid = \"{id}\"\nupstreams = [{{ name = \"fake\", model = \"upstream-model\" }}]\n\
             price = {{ input = \"3\", output = \"15\" }}\n"
        )
    };
    let wide = ["per_ip_per_second", "per_ip_burst", "payments_per_ip_per_minute", "top_ups_per_ip_per_minute"];
    let wide: String = wide.iter().map(|limit| format!("{limit} = 100000\n")).collect();
    let changes = if limits.contains("key_changes") { "" } else { "key_changes_per_ip_per_minute = 100000\n" };
    format!(
        "[server]\nbind = \"127.0.0.1:0\"\ndata_dir = \"data\"\n\
         [[network]]\nid = \"base-sepolia\"\npay_to = \"0x209693Bc6afc0C5328bA36FaF03C514EF312287C\"\nsettlement = \"simulated\"\n\
         [[upstream]]\nname = \"fake\"\nbase_url = \"{}\"\napi_key = \"env:TEST_UPSTREAM_KEY\"\nspeaks = [\"chat\", \"messages\"]\n\
         {}{}[limits]\n{wide}{changes}{limits}\n[prepaid]\n{prepaid}\n",
        upstream.url(),
        model(MODEL),
        model(OTHER_MODEL),
    )
}
