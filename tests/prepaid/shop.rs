//! A shop that sells from balances: chain, upstream and server together, and the last look at everybody's books.

use std::fs;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use farebox_rig::account::{Account, Key};
use farebox_rig::anvil::{Anvil, BUYER, OTHER_BUYER, SETTLER, Wallet};
use farebox_rig::process::eventually;
use farebox_rig::server::{MODEL, Server, Settings};
use farebox_rig::upstream::{UPSTREAM_KEY, Upstream};
use serde_json::{Value, json};

pub const CHAT: &str = "/v1/chat/completions";
pub const RESPONSES: &str = "/v1/responses";
/// Stands in every prompt, and must never be found in a log or on the disk.
pub const CANARY: &str = "canary-prompt-91d4";
/// Makes the upstream say two words and report 20 tokens in and 7 out.
pub const USAGE: &str = "<<fake in=20 out=7 text=hello+wallet>>";
pub const ANSWER: &str = "hello wallet";
/// What [`USAGE`] costs, in micros.
pub const CHARGE: i64 = 20 * 3 + 7 * 15;
/// Five dollars in token units, which are micros.
pub const FIVE: u64 = 5_000_000;
/// Hundredths of a micro per token, as the shop's price list has them beside 3 and 15 dollars per million.
const PRICES: [(&str, u64); 5] =
    [("input", 300), ("output", 1500), ("cached", 30), ("cache_write_5m", 375), ("cache_write_1h", 600)];

pub struct Shop {
    pub chain: Anvil,
    pub upstream: Upstream,
    pub server: Server,
    /// Texts of the keys that were minted.
    keys: Vec<String>,
}

impl Shop {
    /// On Base, where the token is called what `venice-x402-client` believes every USDC to be called.
    pub fn open() -> Shop {
        Shop::with(8453, Settings::default())
    }

    pub fn with(chain_id: u64, settings: Settings) -> Shop {
        Shop::on(Anvil::start(chain_id), settings)
    }

    /// On a chain that something else may stand before.
    pub fn on(chain: Anvil, settings: Settings) -> Shop {
        let cache = ["cache_read = \"0.30\"", "cache_write_5m = \"3.75\"", "cache_write_1h = \"6\""];
        let settings = Settings { prices: cache.map(str::to_owned).to_vec(), ..settings };
        let upstream = Upstream::start();
        let server = Server::with(env!("CARGO_BIN_EXE_farebox"), &chain, &upstream, &settings);
        Shop { chain, upstream, server, keys: Vec::new() }
    }

    pub fn account(&self, wallet: Wallet) -> Account<'_> {
        self.server.account(wallet)
    }

    /// Pays in for `wallet`, as a buyer with a version 2 client does.
    pub fn top_up(&self, wallet: Wallet, amount: u64) {
        let before = self.account(wallet).available();
        let answer = self.account(wallet).top_up(amount);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_eq!(self.account(wallet).available() - before, i64::try_from(amount).unwrap(), "all of it is spendable at once");
    }

    /// A key of `wallet`: `{name, spend_limit_usd, reset, models, expires_at}`.
    pub fn mint(&mut self, wallet: Wallet, wanted: &Value) -> Key {
        let key = self.account(wallet).mint(wanted);
        self.keys.push(key.text.clone());
        key
    }

    /// A key without limits that the operator mints, for a wallet that may never have had money here.
    pub fn mint_by_hand(&mut self, wallet: Wallet) -> Key {
        let key = self.account(wallet).mint_by_hand();
        self.keys.push(key.text.clone());
        key
    }

    /// A buyer with five dollars and a key without limits.
    pub fn buyer_with_key(&mut self) -> Key {
        self.top_up(BUYER, FIVE);
        self.mint(BUYER, &json!({ "name": "laptop" }))
    }

    /// Nobody paid, nobody was served, no gas was spent.
    pub fn assert_untouched(&self) {
        assert_eq!(self.chain.transfers(), [], "nobody paid");
        assert_eq!(self.chain.transactions_of(SETTLER.address), 0, "no gas was spent");
        assert_eq!(self.upstream.calls().len(), 0, "the upstream was not asked");
    }

    /// What the calls that the upstream answered whole cost by its own log, each rounded up to a micro; sorted.
    pub fn logged(&self) -> Vec<i64> {
        let calls = self.upstream.calls();
        let whole = calls.iter().filter(|call| call["status"] == 200 && call["outcome"] == "done" && !call["usage"].is_null());
        let mut owed: Vec<_> = whole.map(|call| owed(&call["usage"])).collect();
        owed.sort_unstable();
        owed
    }

    /// Waits until so many calls have ended: one is charged when its last byte has passed, or its caller is gone.
    pub fn wait_charged(&self, calls: usize) {
        eventually("every call is charged", || self.server.output().matches("charged 0.").count() >= calls);
    }

    /// Closes the shop and audits it. What the upstream logged for whole answers, and `broken` for those that were not, is
    /// what was charged, to the micro and call by call; the rows of each statement sum to its balance; what came in over the
    /// chain is either charged or somebody's balance; the books say the same, and nothing secret was logged or kept.
    pub fn close(mut self, broken: &[i64]) {
        let mut owed = self.logged();
        owed.extend(broken);
        owed.sort_unstable();
        self.wait_charged(owed.len());
        let statements = [BUYER, OTHER_BUYER].map(|wallet| (wallet, self.account(wallet).statement()));
        let mut charges: Vec<i64> = statements.iter().flat_map(|(_, statement)| statement.of("CHARGE")).map(|it| -it).collect();
        charges.sort_unstable();
        assert_eq!(charges, owed, "what was charged is what the upstream counted");
        for (wallet, statement) in &statements {
            statement.assert_sums();
            let paid: u64 =
                self.chain.transfers().iter().filter(|it| it.from.eq_ignore_ascii_case(wallet.address)).map(|it| it.value).sum();
            assert_eq!(statement.of("TOP_UP").iter().sum::<i64>(), i64::try_from(paid).unwrap(), "what was paid was credited");
            assert_eq!(self.account(*wallet).available(), statement.balance, "nothing is held any more");
        }
        let books = self.server.audit();
        assert!(books.clean, "the books are not clean: {:#}", books.json);
        for (wallet, statement) in &statements {
            assert_eq!(i64::try_from(books.balance(wallet.address)).unwrap(), statement.balance, "{:#}", books.json);
        }
        self.assert_discreet();
    }

    fn assert_discreet(&self) {
        let log = self.server.output();
        let wallets = [BUYER.key, OTHER_BUYER.key, SETTLER.key];
        let secrets = wallets.iter().map(|key| key.trim_start_matches("0x")).chain([UPSTREAM_KEY, CANARY]);
        let secrets: Vec<_> = secrets.chain(self.keys.iter().map(String::as_str)).collect();
        for secret in &secrets {
            assert!(!log.contains(secret), "the log contains {secret}:\n{log}");
        }
        assert_absent(&self.server.data_dir(), &secrets);
    }
}

/// None of `secrets` is in any file below `folder`.
fn assert_absent(folder: &Path, secrets: &[&str]) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            assert_absent(&path, secrets);
            continue;
        }
        let bytes = fs::read(&path).unwrap();
        for secret in secrets {
            let found = bytes.windows(secret.len()).any(|window| window == secret.as_bytes());
            assert!(!found, "{secret} was written to {}", path.display());
        }
    }
}

/// What `usage` of the upstream's log costs: micros, rounded up once.
pub fn owed(usage: &Value) -> i64 {
    let known = usage.as_object().unwrap().keys().all(|name| PRICES.iter().any(|(priced, _)| priced == name));
    assert!(known, "the upstream counts what has no price here: {usage}");
    let hundredths: u64 = PRICES.iter().map(|(name, price)| usage[name].as_u64().unwrap_or(0) * price).sum();
    i64::try_from(hundredths.div_ceil(100)).unwrap()
}

/// What both dialects take; `directive` steers the fake upstream.
pub fn params(directive: &str) -> Value {
    let content = format!("{CANARY} say it {directive}");
    json!({ "model": MODEL, "max_tokens": 256, "messages": [{ "role": "user", "content": content }] })
}

/// The same with more or other fields.
pub fn params_with(directive: &str, fields: Value) -> Value {
    let mut params = params(directive);
    for (name, value) in fields.as_object().unwrap() {
        params[name] = value.clone();
    }
    params
}

/// What [`params`] say, as responses are asked for.
pub fn asked(directive: &str) -> Value {
    json!({ "model": MODEL, "max_output_tokens": 256, "input": format!("{CANARY} say it {directive}") })
}

/// The same with more or other fields.
pub fn asked_with(directive: &str, fields: Value) -> Value {
    let mut params = asked(directive);
    params.as_object_mut().unwrap().extend(fields.as_object().unwrap().clone());
    params
}

/// What is asked for on `route`, whatever its dialect.
pub fn params_on(route: &str, directive: &str) -> Value {
    if route.ends_with("/responses") { asked(directive) } else { params(directive) }
}

/// A step for [`farebox_rig::sdk::Sdk::perform`].
pub fn step(word: &str, params: Value) -> Value {
    json!({ "do": word, "params": params })
}

/// What the step returned; panics with what it threw instead.
pub fn value(outcome: &Value) -> &Value {
    assert!(outcome.get("error").is_none(), "{outcome:#}");
    &outcome["value"]
}

/// The outcomes of all steps, none of which threw.
pub fn values(outcomes: &[Value]) -> Vec<&Value> {
    outcomes.iter().map(value).collect()
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
