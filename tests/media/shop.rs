//! A shop that sells media: models of every kind at prices of every kind, and money that is simulated.

use std::fmt::Write as _;
use std::time::{SystemTime, UNIX_EPOCH};

use farebox_rig::account::{Account, Key};
use farebox_rig::anvil::{BUYER, PAY_TO};
use farebox_rig::buyer::{Intent, sign};
use farebox_rig::http::{Answer, Request};
use farebox_rig::server::Server;
use farebox_rig::upstream::{UPSTREAM_KEY, Upstream};
use serde_json::{Value, json};

/// Five dollars in micros.
pub const FIVE: u64 = 5_000_000;

/// Models as config.toml has them: name, kind and prices. Each is called the same at the upstream.
const MODELS: [(&str, &str, &str); 11] = [
    ("text-embedding-3-small", "embedding", r#"price = { input = "2" }"#),
    (
        "dall-e-3",
        "image",
        r#"price = { image = { "1024x1024" = "0.04", "1024x1024/hd" = "0.08", "1024x1792" = "0.08", default = "0.05" } }"#,
    ),
    ("gpt-image-1", "image", "price = { input = \"5\", output = \"40\" }\nmax_output = 8192"),
    ("gpt-image-by-piece", "image", r#"price = { image = "0.05" }"#),
    ("flat-image", "image", "price = { image = \"0.04\" }\nceiling = \"0.10\""),
    ("retoucher", "edit", r#"price = { image = "0.06" }"#),
    ("upscaler", "upscale", r#"price = { image = { "2x" = "0.02", "4x" = "0.08" } }"#),
    ("tts-1", "speech", r#"price = { character = "0.000015" }"#),
    ("whisper-1", "transcription", r#"price = { second = "0.0001" }"#),
    ("gpt-4o-transcribe", "transcription", "price = { input = \"6\", output = \"10\" }\nmax_output = 2000"),
    ("watcher", "transcription", r#"price = { call = "0.05" }"#),
];

pub struct Shop {
    pub upstream: Upstream,
    pub server: Server,
    /// Micros that came in and that calls have cost.
    paid: u64,
    charged: u64,
}

impl Shop {
    pub fn open() -> Shop {
        Shop::with(&[])
    }

    /// With an upstream of the test's own, at this address.
    pub fn before(url: &str) -> Shop {
        let server = Server::configured(env!("CARGO_BIN_EXE_farebox"), &config(url, &[]));
        Shop { upstream: Upstream::start(), server, paid: 0, charged: 0 }
    }

    /// With lines for `[payments]`.
    pub fn with(payments: &[&str]) -> Shop {
        let upstream = Upstream::start();
        let server = Server::configured(env!("CARGO_BIN_EXE_farebox"), &config(&upstream.url(), payments));
        Shop { upstream, server, paid: 0, charged: 0 }
    }

    pub fn account(&self) -> Account<'_> {
        self.server.account(BUYER)
    }

    /// A buyer with five dollars and a key that is as `wanted` says.
    pub fn key(&mut self, wanted: &Value) -> Key {
        if self.paid == 0 {
            let answer = self.account().top_up(FIVE);
            assert_eq!(answer.status, 200, "{}", answer.text());
            self.paid += FIVE;
        }
        self.account().mint(wanted)
    }

    /// What the buyer can spend, in micros.
    pub fn available(&self) -> u64 {
        u64::try_from(self.account().available()).unwrap()
    }

    /// The one way to pay for a request, and what it comes to.
    pub fn offer(&self, request: &Request) -> (Value, u64) {
        let answer = self.server.send(request);
        assert_eq!(answer.status, 402, "an unpaid request gets an offer: {}", answer.text());
        let offer = answer.decoded("payment-required").unwrap()["accepts"][0].clone();
        let amount = offer["amount"].as_str().unwrap().parse().unwrap();
        (offer, amount)
    }

    /// A payment for each of these requests, and what it brings.
    pub fn payments(&self, requests: &[Request]) -> Vec<(String, u64)> {
        let offers: Vec<_> = requests.iter().map(|request| self.offer(request)).collect();
        let valid_before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 300;
        let intents = offers.iter().map(|(offer, _)| Intent { wallet: BUYER, requirements: offer.clone(), valid_before });
        let signed = sign(&intents.collect::<Vec<_>>());
        signed.iter().zip(offers).map(|(it, (_, amount))| (it["v2"].as_str().unwrap().to_owned(), amount)).collect()
    }

    /// What the upstream says to the same request, asked by itself.
    pub fn straight(&self, request: &Request) -> Answer {
        let request = request.clone().header("authorization", &format!("Bearer {UPSTREAM_KEY}"));
        let url = self.upstream.url();
        let answer = farebox_rig::http::send(url.trim_start_matches("http://"), &request);
        answer.expect("the upstream answers")
    }

    /// A settled payment came in beside the balance.
    pub fn came_in(&mut self, amount: u64) {
        self.paid += amount;
    }

    /// Waits until a call is over and the buyer has what is left of everything after one that costs `micros`.
    pub fn wait_charged(&mut self, micros: u64) {
        self.charged += micros;
        let expected = self.paid - self.charged;
        let mut last = 0;
        let over = std::cell::Cell::new(false);
        for _ in 0..2_000 {
            last = self.available();
            over.set(last == expected);
            if over.get() {
                return;
            }
            std::thread::sleep(std::time::Duration::from_millis(20));
        }
        panic!("the buyer has {last} and should have {expected}:\n{}", self.server.output());
    }

    /// Closes the shop and audits it: nothing is held any more, and the buyer has all that was paid and not charged.
    pub fn close(mut self, charged: u64) {
        assert_eq!(self.charged, charged, "what all calls together have cost");
        self.account().statement().assert_sums();
        assert_eq!(self.available(), self.paid - self.charged);
        let books = self.server.audit();
        assert!(books.clean, "the books are not clean: {:#}", books.json);
        assert_eq!(books.balance(BUYER.address), self.paid - self.charged, "{:#}", books.json);
        assert!(!self.server.output().contains(UPSTREAM_KEY));
    }
}

fn config(upstream: &str, payments: &[&str]) -> String {
    let mut text = format!(
        r#"
[server]
bind = "127.0.0.1:0"
data_dir = "data"

[[network]]
id = "base-sepolia"
pay_to = "{pay_to}"
settlement = "simulated"

[[upstream]]
name = "fake"
base_url = "{upstream}"
api_key = "env:TEST_UPSTREAM_KEY"
speaks = ["embeddings", "images", "image", "audio", "video"]

[failover]
failures = 0

[limits]
per_ip_per_second = 100000
per_ip_burst = 100000
payments_per_ip_per_minute = 100000
top_ups_per_ip_per_minute = 100000
balance_reads_per_minute = 100000
statement_reads_per_minute = 100000
key_changes_per_ip_per_minute = 100000

[payments]
settle_after_ms = 20000
{payments}
"#,
        pay_to = PAY_TO.address,
        payments = payments.join("\n"),
    );
    for (id, kind, prices) in MODELS {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[model]]\nid = \"{id}\"\nkind = \"{kind}\"\nupstreams = [{{ name = \"fake\", model = \"{id}\" }}]\n{prices}\n"
        );
    }
    text
}

/// An ordinary key.
pub fn plain_key() -> Value {
    json!({ "name": "studio" })
}

/// A request that carries a key.
pub fn by_key(request: &Request, key: &Key) -> Request {
    request.clone().header("authorization", &format!("Bearer {}", key.text))
}
