//! A shop that is open: chain, upstream and server together, and the questions every test asks about them.

use std::fs;
use std::time::{SystemTime, UNIX_EPOCH};

use farebox_rig::anvil::{Anvil, BUYER, PAY_TO, SETTLER, Wallet};
use farebox_rig::buyer::{Intent, sign, sign_entries};
use farebox_rig::http::{Answer, Request};
use farebox_rig::server::{Books, INPUT_PRICE, MODEL, OUTPUT_PRICE, Server, Settings};
use farebox_rig::upstream::{UPSTREAM_KEY, Upstream};
use serde_json::{Value, json};

pub const CHAT: &str = "/v1/chat/completions";
pub const MESSAGES: &str = "/v1/messages";
pub const RESPONSES: &str = "/v1/responses";
/// Stands in every prompt, and must never be found in a log or on the disk.
pub const CANARY: &str = "canary-prompt-77c1";
/// What [`USAGE`] costs.
pub const CHARGE: u64 = 20 * INPUT_PRICE + 7 * OUTPUT_PRICE;
/// Makes the upstream say two words and report 20 tokens in and 7 out.
pub const USAGE: &str = "<<fake in=20 out=7 text=hello+wallet>>";
pub const ANSWER: &str = "hello wallet";

pub struct Shop {
    pub chain: Anvil,
    pub upstream: Upstream,
    pub server: Server,
    /// Token units that a test moved between wallets that are not the operator's.
    pub elsewhere: u64,
    /// Header values and signatures that went over the wire; none may be found in the log.
    secrets: Vec<String>,
}

/// A payment that was signed for one request.
#[derive(Clone, Debug)]
pub struct Payment {
    /// `{v2, v1, authorization, signature}`.
    pub signed: Value,
    /// Token units.
    pub amount: u64,
}

impl Payment {
    pub fn v2(&self) -> &str {
        self.signed["v2"].as_str().unwrap()
    }

    pub fn v1(&self) -> &str {
        self.signed["v1"].as_str().unwrap()
    }
}

impl Shop {
    pub fn open() -> Shop {
        Shop::with(84532, &Settings::default())
    }

    pub fn with(chain_id: u64, settings: &Settings) -> Shop {
        Shop::on(Anvil::start(chain_id), settings)
    }

    /// On a chain that something else stands before.
    pub fn on(chain: Anvil, settings: &Settings) -> Shop {
        let upstream = Upstream::start();
        let server = Server::with(env!("CARGO_BIN_EXE_farebox"), &chain, &upstream, settings);
        Shop { chain, upstream, server, elsewhere: 0, secrets: Vec::new() }
    }

    /// What one call costs: the first entry of the offer that an unpaid request gets.
    pub fn requirements(&self, route: &str, body: &str) -> Value {
        let answer = self.server.send(&Request::post(route, body));
        assert_eq!(answer.status, 402, "an unpaid request gets an offer: {}", answer.text());
        answer.decoded("payment-required").expect("a 402 carries PAYMENT-REQUIRED")["accepts"][0].clone()
    }

    /// The same, as soon as there is a network to pay on.
    #[cfg(feature = "fault-points")]
    pub fn requirements_when_sold(&self, route: &str, body: &str) -> Value {
        farebox_rig::process::eventually("payments are taken", || self.server.send(&Request::post(route, body)).status == 402);
        self.requirements(route, body)
    }

    /// Signs, as the honest buyer, for what the server asks.
    pub fn pay(&mut self, route: &str, body: &str) -> Payment {
        let requirements = self.requirements(route, body);
        self.sign(BUYER, requirements)
    }

    /// Signs for `requirements`, whatever they say, until five minutes from now.
    pub fn sign(&mut self, wallet: Wallet, requirements: Value) -> Payment {
        self.sign_until(wallet, requirements, now() + 300)
    }

    /// Signs each of `requirements` as [`Shop::sign`] does, all at once.
    pub fn sign_all(&mut self, wallet: Wallet, requirements: Vec<Value>) -> Vec<Payment> {
        // They are shown one after the other.
        let valid_before = now() + 3000;
        let intents: Vec<_> =
            requirements.into_iter().map(|requirements| Intent { wallet, requirements, valid_before }).collect();
        let amounts = intents.iter().map(|intent| intent.requirements["amount"].as_str().unwrap().parse().unwrap());
        let payments: Vec<_> =
            sign(&intents).into_iter().zip(amounts).map(|(signed, amount)| Payment { signed, amount }).collect();
        let secrets = payments.iter().flat_map(|payment| ["v2", "v1", "signature"].map(|name| &payment.signed[name]));
        self.secrets.extend(secrets.map(|secret| secret.as_str().unwrap().to_owned()));
        payments
    }

    pub fn sign_until(&mut self, wallet: Wallet, requirements: Value, valid_before: u64) -> Payment {
        let amount = requirements["amount"].as_str().unwrap().parse().unwrap();
        let signed = sign(&[Intent { wallet, requirements, valid_before }]).remove(0);
        self.keep(signed, amount)
    }

    /// Signs for `requirements` a payment that is valid from the second after `valid_after` on.
    pub fn sign_after(&mut self, wallet: Wallet, requirements: Value, valid_after: u64) -> Payment {
        let amount = requirements["amount"].as_str().unwrap().parse().unwrap();
        let entry = json!({
            "key": wallet.key, "requirements": requirements, "validAfter": valid_after, "validBefore": now() + 300,
        });
        let signed = sign_entries(&[entry]).remove(0);
        self.keep(signed, amount)
    }

    fn keep(&mut self, signed: Value, amount: u64) -> Payment {
        for name in ["v2", "v1", "signature"] {
            self.secrets.push(signed[name].as_str().unwrap().to_owned());
        }
        Payment { signed, amount }
    }

    pub fn buy(&self, route: &str, body: &str, payment: &Payment) -> Answer {
        self.server.send(&paid(route, body, payment))
    }

    /// Token units that the operator received.
    pub fn earned(&self) -> u64 {
        self.chain.usdc_balance(PAY_TO.address)
    }

    /// Inference calls that reached the upstream.
    pub fn served(&self) -> usize {
        self.upstream.calls().len()
    }

    /// Nothing happened that costs anybody anything.
    pub fn assert_untouched(&self) {
        assert_eq!(self.earned(), 0, "nobody paid");
        assert_eq!(self.chain.transactions_of(SETTLER.address), 0, "no gas was spent");
        assert_eq!(self.served(), 0, "the upstream was not asked");
    }

    /// Closes the shop and audits it: the books are clean and agree with the chain, every unit that was earned is either
    /// a charge of `charges` or the buyer's balance, and nothing secret was logged or kept.
    pub fn close(mut self, charges: u64) -> Books {
        let books = self.server.audit();
        assert!(books.clean, "the books are not clean: {:#}", books.json);
        let earned = self.earned();
        let transfers: u64 = self.chain.transfers().iter().map(|transfer| transfer.value).sum();
        assert_eq!(transfers, earned + self.elsewhere, "all other transfers on the chain went to the operator");
        assert_eq!(
            books.balance(BUYER.address),
            earned - charges,
            "what was paid and not charged is the buyer's: {:#}",
            books.json
        );
        self.assert_discreet();
        books
    }

    fn assert_discreet(&self) {
        let log = self.server.output();
        let keys = [UPSTREAM_KEY, SETTLER.key, SETTLER.key.trim_start_matches("0x"), CANARY];
        for secret in keys.into_iter().chain(self.secrets.iter().map(String::as_str)) {
            assert!(!log.contains(secret), "the log contains {secret}:\n{log}");
        }
        for entry in fs::read_dir(self.server.data_dir()).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap_or_default();
            for secret in [UPSTREAM_KEY, CANARY] {
                assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} was written to disk");
            }
        }
    }
}

/// A request that carries a payment of version 2.
pub fn paid(route: &str, body: &str, payment: &Payment) -> Request {
    Request::post(route, body).header("payment-signature", payment.v2())
}

/// A body that chat and messages understand; `directive` steers the fake upstream.
pub fn body(directive: &str, stream: bool) -> String {
    let content = format!("{CANARY} say it {directive}");
    json!({ "model": MODEL, "max_tokens": 256, "stream": stream, "messages": [{ "role": "user", "content": content }] })
        .to_string()
}

/// What [`body`] says, as it is asked for on `route`.
pub fn body_for(route: &str, directive: &str, stream: bool) -> String {
    if !route.ends_with("/responses") {
        return body(directive, stream);
    }
    let input = format!("{CANARY} say it {directive}");
    json!({ "model": MODEL, "max_output_tokens": 256, "stream": stream, "input": input }).to_string()
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}
