//! A shop that sells everything for money that is simulated, and buyers of whom each has a wallet of its own.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use farebox::chain::evm::key::PrivateKey;
use farebox_rig::account::{Account, Key, Row};
use farebox_rig::anvil::{PAY_TO, Wallet};
use farebox_rig::buyer::{Intent, sign};
use farebox_rig::http::{Answer, Request};
use farebox_rig::process::eventually;
use farebox_rig::server::Server;
use farebox_rig::upstream::{UPSTREAM_KEY, Upstream};
use serde_json::{Value, json};

use crate::calls::{Call, MODELS, upstream_behaviour};

/// A hundred dollars, in micros.
pub const FUNDS: u64 = 100_000_000;
/// The header of a call by which it is found in the upstream's log.
const MARK: &str = "session-id";

pub struct Shop {
    pub upstream: Upstream,
    pub server: Server,
}

impl Shop {
    /// Whose upstream does this beside what it always does; with lines for `[limits]`.
    pub fn open(behaviour: &Value, limits: &str) -> Shop {
        let upstream = Upstream::start();
        let mut all = upstream_behaviour();
        let more = behaviour.as_object().expect("a behaviour is an object").clone();
        all.as_object_mut().expect("a behaviour is an object").extend(more);
        upstream.configure(&all);
        let server = Server::configured(env!("CARGO_BIN_EXE_farebox"), &config(&upstream.url(), limits));
        Shop { upstream, server }
    }

    pub fn account(&self, wallet: Wallet) -> Account<'_> {
        self.server.account(wallet)
    }

    /// The one way to pay for each of these calls.
    pub fn offers(&self, calls: &[Call]) -> Vec<Value> {
        let offer = |call: &Call| {
            let answer = self.server.send(&call.request());
            assert_eq!(answer.status, 402, "{}: an unpaid request gets an offer: {}", call.path, answer.text());
            answer.decoded("payment-required").expect("an offer")["accepts"][0].clone()
        };
        calls.iter().map(offer).collect()
    }

    /// Marks of the calls that reached the upstream, with the path of each and how it ended there.
    pub fn asked(&self) -> BTreeMap<String, Vec<(String, String)>> {
        let mut asked: BTreeMap<_, Vec<_>> = BTreeMap::new();
        for call in self.upstream.calls() {
            let headers = call["headers"].as_array().expect("headers are a list").iter();
            let mark = headers.filter(|header| header[0].as_str().is_some_and(|name| name.eq_ignore_ascii_case(MARK)));
            let mark: String = mark.filter_map(|header| header[1].as_str()).collect();
            let text = |name: &str| call[name].as_str().unwrap_or_default().to_owned();
            asked.entry(mark).or_default().push((text("path"), text("outcome")));
        }
        asked
    }

    /// Stops the shop and audits it: the books are clean, and each of these wallets has so much.
    pub fn close(mut self, wallets: &[(Wallet, u64)]) {
        let books = self.server.audit();
        assert!(books.clean, "the books are not clean: {:#}", books.json);
        for (wallet, micros) in wallets {
            assert_eq!(books.balance(wallet.address), *micros, "{}", wallet.address);
        }
        let theirs: u64 = wallets.iter().map(|(_, micros)| micros).sum();
        let accounts = books.json["accounts"].as_object().expect("accounts by name");
        let evm: u64 = accounts.keys().filter_map(|name| name.strip_prefix("evm:")).map(|at| books.balance(at)).sum();
        assert_eq!(evm, theirs, "nobody else has anything");
        assert!(!self.server.output().contains(UPSTREAM_KEY));
    }
}

/// Marks a call, so that the upstream's log tells it from all others.
pub fn marked(request: Request, mark: &str) -> Request {
    request.header(MARK, mark)
}

/// A wallet of its own for each number.
pub fn wallet(number: usize) -> Wallet {
    let key = format!("0x{:064x}", 0xfa4e_b0c5_u64 + number as u64);
    let address = PrivateKey::parse(&key).expect("a small number is a key").address().to_string();
    Wallet { address: Box::leak(address.into_boxed_str()), key: Box::leak(key.into_boxed_str()) }
}

/// Somebody with a hundred dollars and three keys.
pub struct Buyer<'a> {
    pub shop: &'a Shop,
    pub wallet: Wallet,
    /// An ordinary key.
    pub key: Key,
    /// One that may spend a micro.
    pub poor: Key,
    /// One that may buy a single model, which nobody wants.
    pub picky: Key,
    /// Micros that came in and that calls have cost.
    paid: u64,
    charged: u64,
    /// Rows of its statement that were looked at.
    rows: usize,
    /// It has left a call that its payment had not settled for: from then on its payments settle before anybody works.
    pub is_distrusted: bool,
}

impl<'a> Buyer<'a> {
    pub fn new(shop: &'a Shop, number: usize) -> Buyer<'a> {
        let wallet = wallet(number);
        let account = shop.account(wallet);
        let answer = account.top_up(FUNDS);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let key = account.mint(&json!({ "name": "plain" }));
        let poor = account.mint(&json!({ "name": "poor", "spend_limit_usd": "0.000001" }));
        let picky = account.mint(&json!({ "name": "picky", "models": ["bystander"] }));
        Buyer { shop, wallet, key, poor, picky, paid: FUNDS, charged: 0, rows: 1, is_distrusted: false }
    }

    /// Waits until the statement has gone on with exactly these rows, and all that is left can be spent.
    pub fn expect(&mut self, what: &str, rows: &[(&str, i64)]) {
        for (kind, amount) in rows {
            match *kind {
                "CHARGE" => self.charged += amount.unsigned_abs(),
                _ => self.paid += amount.unsigned_abs(),
            }
        }
        let account = self.shop.account(self.wallet);
        let left = i64::try_from(self.left()).expect("a few dollars");
        let over = || {
            let statement = account.statement();
            let new = &statement.rows[self.rows..];
            assert!(new.len() <= rows.len(), "{what}: {new:?} instead of {rows:?}");
            let same = |(row, (kind, amount)): (&Row, &(&str, i64))| row.kind == *kind && row.amount == *amount;
            assert!(new.iter().zip(rows).all(same), "{what}: {new:?} instead of {rows:?}");
            new.len() == rows.len() && statement.balance == left && account.available() == left
        };
        eventually(what, over);
        account.statement().assert_sums();
        self.rows += rows.len();
    }

    /// What it has, in micros.
    pub fn left(&self) -> u64 {
        self.paid - self.charged
    }
}

/// Signs, for each of these offers, what it asks; `less` micros too little.
pub fn sign_all(wallet: Wallet, offers: &[Value], less: u64) -> Vec<(String, u64)> {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let valid_before = since.expect("the clock is past 1970").as_secs() + 300;
    let wanted = offers.iter().map(|offer| {
        let amount = offer["amount"].as_str().and_then(|text| text.parse::<u64>().ok()).expect("an amount") - less;
        let mut requirements = offer.clone();
        requirements["amount"] = amount.to_string().into();
        (Intent { wallet, requirements, valid_before }, amount)
    });
    let (intents, amounts): (Vec<_>, Vec<_>) = wanted.unzip();
    let signed = sign(&intents);
    let header = |signed: &Value| signed["v2"].as_str().expect("signed payments are text").to_owned();
    signed.iter().map(header).zip(amounts).collect()
}

/// Whether an answer that was begun shows that it is not all.
pub fn is_broken(answer: &Answer) -> bool {
    answer.status == 200 && (!answer.complete || answer.text().contains("response.failed"))
}

fn config(upstream: &str, limits: &str) -> String {
    let mut wide: Vec<_> = [
        "per_ip_per_second",
        "per_ip_burst",
        "payments_per_ip_per_minute",
        "top_ups_per_ip_per_minute",
        "balance_reads_per_minute",
        "statement_reads_per_minute",
        "key_changes_per_ip_per_minute",
    ]
    .into_iter()
    .filter(|name| !limits.contains(name))
    .map(|name| format!("{name} = 100000"))
    .collect();
    wide.push(limits.to_owned());
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
speaks = ["chat", "messages", "responses", "embeddings", "images", "image", "audio", "music", "video", "videos", "videos/generations"]

[failover]
failures = 0

[payments]
settle_after_ms = 20000

[limits]
{limits}
"#,
        pay_to = PAY_TO.address,
        limits = wide.join("\n"),
    );
    for (id, kind, price) in MODELS {
        // Writing to a String cannot fail.
        let _ = write!(
            text,
            "\n[[model]]\nid = \"{id}\"\nkind = \"{kind}\"\nupstreams = [{{ name = \"fake\", model = \"{id}\" }}]\nprice = {price}\n"
        );
    }
    text
}
