//! A shop whose operator watches it: the numbers as Prometheus reads them, and who holds the money at the end.

use std::collections::BTreeMap;
use std::time::{SystemTime, UNIX_EPOCH};

use farebox_rig::account::{Account, Key};
use farebox_rig::anvil::{Anvil, BUYER, OTHER_BUYER, Wallet};
use farebox_rig::buyer::{Intent, sign};
use farebox_rig::http::{self, Answer, Request};
use farebox_rig::server::{MODEL, Server, Settings};
use farebox_rig::upstream::{UPSTREAM_KEY, Upstream};
use serde_json::{Value, json};

pub const CHAT: &str = "/v1/chat/completions";
/// Makes the upstream say two words and report 20 tokens in and 7 out.
pub const USAGE: &str = "<<fake in=20 out=7 text=hello+wallet>>";
/// What [`USAGE`] costs, in micros.
pub const CHARGE: u64 = 20 * 3 + 7 * 15;
/// Five dollars in micros.
pub const FIVE: u64 = 5_000_000;

pub struct Shop {
    pub chain: Anvil,
    pub upstream: Upstream,
    pub server: Server,
    /// Micros that payments brought, and what calls have cost.
    paid: u64,
    charged: u64,
}

impl Shop {
    pub fn open() -> Shop {
        Shop::with(Settings::default())
    }

    pub fn with(settings: Settings) -> Shop {
        Shop::on(Anvil::start(8453), settings)
    }

    pub fn on(chain: Anvil, mut settings: Settings) -> Shop {
        settings.server.push("metrics = \"127.0.0.1:0\"".into());
        let upstream = Upstream::start();
        let server = Server::with(env!("CARGO_BIN_EXE_farebox"), &chain, &upstream, &settings);
        Shop { chain, upstream, server, paid: 0, charged: 0 }
    }

    pub fn buyer(&self) -> Account<'_> {
        self.server.account(BUYER)
    }

    /// Micros that the buyer can spend.
    pub fn buyer_has(&self) -> u64 {
        u64::try_from(self.buyer().available()).unwrap()
    }

    /// A buyer with five dollars and a key.
    pub fn key(&mut self) -> Key {
        self.top_up(FIVE);
        self.buyer().mint(&json!({ "name": "laptop" }))
    }

    pub fn top_up(&mut self, amount: u64) {
        let answer = self.buyer().top_up(amount);
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.paid += amount;
    }

    /// Calls with a key; what it costs is noted for the end.
    pub fn call(&mut self, key: &Key, prompt: &str, stream: bool, cost: u64) -> Answer {
        let answer = self.server.send(&with_key(key, prompt, stream));
        self.charged += cost;
        answer
    }

    /// Pays for one call by itself.
    pub fn pay(&mut self, prompt: &str, cost: u64) -> Answer {
        let (answer, amount) = self.bring_money(BUYER, prompt);
        assert_eq!(answer.status, 200, "{}", answer.text());
        self.paid += amount;
        self.charged += cost;
        answer
    }

    /// A call that fails for another wallet, whose payment is not settled: what fails for one alone may be that one's doing.
    pub fn fails_for_another(&self) {
        let (answer, _) = self.bring_money(OTHER_BUYER, USAGE);
        assert_eq!(answer.status, 502, "{}", answer.text());
    }

    fn bring_money(&self, wallet: Wallet, prompt: &str) -> (Answer, u64) {
        let request = Request::post(CHAT, body(prompt, false));
        let offer = self.server.send(&request).decoded("payment-required").expect("a 402 has an offer")["accepts"][0].clone();
        let amount: u64 = offer["amount"].as_str().unwrap().parse().unwrap();
        let valid_before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 300;
        let signed = sign(&[Intent { wallet, requirements: offer, valid_before }]);
        (self.server.send(&request.header("payment-signature", signed[0]["v2"].as_str().unwrap())), amount)
    }

    /// Payments of a test's own came in, and calls have cost so much.
    pub fn came_in(&mut self, paid: u64, charged: u64) {
        self.paid += paid;
        self.charged += charged;
    }

    /// Asks the operator's own listener.
    pub fn ask(&self, path: &str) -> Answer {
        let output = self.server.output();
        let (_, rest) = output.rsplit_once("metrics   on http://").expect("it says where its numbers are");
        let address = rest.split('/').next().unwrap();
        http::send(address, &Request::get(path)).expect("the operator's listener answers")
    }

    pub fn numbers(&self) -> Numbers {
        let answer = self.ask("/metrics");
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(answer.header("content-type"), Some("text/plain; version=0.0.4; charset=utf-8"));
        Numbers::read(&answer.text())
    }

    /// Closes the shop and audits it: the buyer has all that came in and was not charged.
    pub fn close(mut self) {
        let books = self.server.audit();
        assert!(books.clean, "{:#}", books.json);
        assert_eq!(books.balance(BUYER.address), self.paid - self.charged, "{:#}", books.json);
        assert_eq!(self.chain.transfers().iter().map(|it| it.value).sum::<u64>(), self.paid, "what came in is what was paid");
        assert!(!self.server.output().contains(UPSTREAM_KEY));
    }

    /// What is left of what came in, in micros.
    pub fn left(&self) -> u64 {
        self.paid - self.charged
    }
}

pub fn body(prompt: &str, stream: bool) -> String {
    let options = if stream { json!({ "include_usage": true }) } else { json!(null) };
    let mut body = json!({ "model": MODEL, "stream": stream, "messages": [{ "role": "user", "content": prompt }] });
    if stream {
        body["stream_options"] = options;
    }
    body.to_string()
}

/// A call by nobody, who is told what it costs where anything is sold.
pub fn unpaid(prompt: &str) -> Request {
    Request::post(CHAT, body(prompt, false))
}

pub fn with_key(key: &Key, prompt: &str, stream: bool) -> Request {
    Request::post(CHAT, body(prompt, stream)).header("authorization", &format!("Bearer {}", key.text))
}

/// All samples of one look, by their text, such as `x_total{a="b"}`.
#[derive(Debug)]
pub struct Numbers {
    pub text: String,
    samples: BTreeMap<String, String>,
}

impl Numbers {
    /// Reads the text and holds it against the rules of the format.
    pub fn read(text: &str) -> Numbers {
        let mut samples = BTreeMap::new();
        let mut types: BTreeMap<&str, &str> = BTreeMap::new();
        let mut current = "";
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                let (name, kind) = rest.split_once(' ').unwrap();
                assert!(types.insert(name, kind).is_none(), "{name} comes twice");
                current = name;
            } else if !line.starts_with("# HELP ") {
                let (sample, value) = line.rsplit_once(' ').unwrap();
                let name = sample.split('{').next().unwrap();
                let of_family = name == current || (types[current] == "histogram" && is_part(name, current));
                assert!(of_family, "{line:?} stands below {current}");
                assert!(value.parse::<f64>().is_ok(), "{line:?}");
                assert!(samples.insert(sample.to_owned(), value.to_owned()).is_none(), "{sample} comes twice");
            }
        }
        assert!(text.ends_with('\n') && !samples.is_empty());
        Numbers { text: text.to_owned(), samples }
    }

    /// The number as it is written; panics with all of them when it is not there.
    pub fn get(&self, sample: &str) -> &str {
        self.samples.get(sample).unwrap_or_else(|| panic!("{sample} is missing in:\n{}", self.text))
    }

    /// Whether it is there and is this; some are not before the first thing that they count.
    pub fn is(&self, sample: &str, value: &str) -> bool {
        self.samples.get(sample).is_some_and(|it| it == value)
    }

    pub fn has(&self, sample: &str) -> bool {
        self.samples.contains_key(sample)
    }

    /// Money in micros.
    pub fn micros(&self, sample: &str) -> u64 {
        farebox_rig::server::micros(&self.get(sample).into())
    }
}

/// Requests that each carry a payment of the buyer's own for one of `prompts`, and how many micros each brings. `ask` sends what
/// is not paid for and gets the offer.
pub fn paid(ask: impl Fn(&Request) -> Answer, prompts: &[&str], stream: bool) -> Vec<(Request, u64)> {
    let requests: Vec<_> = prompts.iter().map(|prompt| Request::post(CHAT, body(prompt, stream))).collect();
    let offer = |request| ask(request).decoded("payment-required").expect("a 402 has an offer")["accepts"][0].clone();
    let offers: Vec<_> = requests.iter().map(offer).collect();
    let amounts: Vec<u64> = offers.iter().map(|offer| offer["amount"].as_str().unwrap().parse().unwrap()).collect();
    let payments = payments(offers);
    let paid = requests.into_iter().zip(&payments).map(|(request, payment)| request.header("payment-signature", payment));
    paid.zip(amounts).collect()
}

/// Signs, as the buyer, what each of the offers asks for: header values of version 2.
pub fn payments(offers: Vec<Value>) -> Vec<String> {
    let valid_before = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() + 300;
    let intents: Vec<_> = offers.into_iter().map(|requirements| Intent { wallet: BUYER, requirements, valid_before }).collect();
    sign(&intents).into_iter().map(|signed| signed["v2"].as_str().unwrap().to_owned()).collect()
}

fn is_part(name: &str, family: &str) -> bool {
    name.strip_prefix(family).is_some_and(|end| ["_bucket", "_sum", "_count"].contains(&end))
}
