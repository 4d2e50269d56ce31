//! A shop that takes Solana payments: chain, upstream and server together, and the questions every test asks about them.

use std::fs;

use farebox_rig::anvil::Wallet;
use farebox_rig::buyer::sign_on;
use farebox_rig::http::{Answer, Request};
use farebox_rig::process::eventually;
use farebox_rig::server::{Books, INPUT_PRICE, MODEL, OUTPUT_PRICE, Server, Settings};
use farebox_rig::solana::{BUYER, PAY_TO, SETTLER, Solana};
use farebox_rig::upstream::{UPSTREAM_KEY, Upstream};
use serde_json::{Value, json};

pub const CHAT: &str = "/v1/chat/completions";
pub const MESSAGES: &str = "/v1/messages";
/// Stands in every prompt, and must never be found in a log or on the disk.
const CANARY: &str = "canary-prompt-77c1";
/// Makes the upstream say two words and report 20 tokens in and 7 out.
pub const USAGE: &str = "<<fake in=20 out=7 text=hello+wallet>>";
/// What [`USAGE`] costs.
pub const CHARGE: u64 = 20 * INPUT_PRICE + 7 * OUTPUT_PRICE;
pub const ANSWER: &str = "hello wallet";

pub struct Shop {
    pub chain: Solana,
    pub upstream: Upstream,
    pub server: Server,
    /// Header values that went over the wire; none may be found in the log.
    secrets: Vec<String>,
}

/// A payment that was signed for one request.
#[derive(Clone, Debug)]
pub struct Payment {
    /// `{v2, v1, transaction}`.
    pub signed: Value,
    /// Micros.
    pub amount: u64,
}

impl Payment {
    pub fn v2(&self) -> &str {
        self.signed["v2"].as_str().unwrap()
    }
}

impl Shop {
    pub fn open() -> Shop {
        Shop::on(Solana::start(), &Settings::default())
    }

    pub fn on(chain: Solana, settings: &Settings) -> Shop {
        let upstream = Upstream::start();
        let server = Server::with(env!("CARGO_BIN_EXE_farebox"), &chain, &upstream, settings);
        Shop { chain, upstream, server, secrets: Vec::new() }
    }

    /// What one call costs: the only entry of the offer that an unpaid request gets.
    pub fn requirements(&self, route: &str, body: &str) -> Value {
        let answer = self.server.send(&Request::post(route, body));
        assert_eq!(answer.status, 402, "an unpaid request gets an offer: {}", answer.text());
        answer.decoded("payment-required").expect("a 402 carries PAYMENT-REQUIRED")["accepts"][0].clone()
    }

    /// The same, after a test has moved the chain's time: what was offered before is young by the clock only.
    pub fn requirements_of_now(&self, route: &str, body: &str) -> Value {
        let mut offer = Value::Null;
        eventually("offers name a blockhash that lives", || {
            offer = self.requirements(route, body);
            let asked = json!([offer["extra"]["recentBlockhash"], { "commitment": "processed" }]);
            self.chain.rpc("isBlockhashValid", asked)["value"] == true
        });
        offer
    }

    /// Signs, as the honest buyer, for what the server asks.
    pub fn pay(&mut self, route: &str, body: &str) -> Payment {
        let requirements = self.requirements(route, body);
        self.sign(BUYER, requirements)
    }

    pub fn sign(&mut self, wallet: Wallet, requirements: Value) -> Payment {
        let amount = requirements["amount"].as_str().unwrap().parse().unwrap();
        let signed = sign_on(&self.chain, wallet, &[requirements]).remove(0);
        self.secrets.extend(["v2", "v1", "transaction"].map(|name| signed[name].as_str().unwrap().to_owned()));
        Payment { signed, amount }
    }

    pub fn buy(&self, route: &str, body: &str, payment: &Payment) -> Answer {
        self.server.send(&paid(route, body, payment))
    }

    /// Micros that the operator received.
    pub fn earned(&self) -> u64 {
        self.chain.usdc_balance(PAY_TO)
    }

    /// Inference calls that reached the upstream.
    pub fn served(&self) -> usize {
        self.upstream.calls().len()
    }

    /// Nothing happened that costs anybody anything.
    pub fn assert_untouched(&self) {
        assert_eq!((self.earned(), self.chain.landed().len(), self.chain.sends()), (0, 0, 0), "nobody paid, nothing was sent");
        assert_eq!(self.chain.lamports(SETTLER), 1_000_000_000, "no fee was paid");
        assert_eq!(self.served(), 0, "the upstream was not asked");
    }

    /// Closes the shop and audits it: the books are clean and agree with the chain, every unit that was earned is either
    /// a charge of `charges` or the buyer's balance, and nothing secret was logged or kept.
    pub fn close(mut self, charges: u64) -> Books {
        let books = self.server.audit();
        assert!(books.clean, "the books are not clean: {:#}", books.json);
        let earned = self.earned();
        let transferred: u64 = self.chain.landed().iter().map(|landed| landed.received).sum();
        assert_eq!(transferred, earned, "every unit came in a transaction that the chain shows");
        let left = earned - charges;
        assert_eq!(books.balance(BUYER.address), left, "what was paid and not charged is the buyer's: {:#}", books.json);
        self.assert_discreet();
        books
    }

    fn assert_discreet(&self) {
        let log = self.server.output();
        for secret in [UPSTREAM_KEY, SETTLER.key, CANARY].into_iter().chain(self.secrets.iter().map(String::as_str)) {
            assert!(!log.contains(secret), "the log contains {secret}:\n{log}");
        }
        for entry in fs::read_dir(self.server.data_dir()).unwrap() {
            let bytes = fs::read(entry.unwrap().path()).unwrap_or_default();
            for secret in [UPSTREAM_KEY, CANARY, SETTLER.key] {
                assert!(!bytes.windows(secret.len()).any(|window| window == secret.as_bytes()), "{secret} was written to disk");
            }
        }
    }
}

/// A request that carries a payment of version 2.
pub fn paid(route: &str, body: &str, payment: &Payment) -> Request {
    Request::post(route, body).header("payment-signature", payment.v2())
}

/// A body that both dialects understand; `directive` steers the fake upstream.
pub fn body(directive: &str, stream: bool) -> String {
    let content = format!("{CANARY} say it {directive}");
    json!({ "model": MODEL, "max_tokens": 256, "stream": stream, "messages": [{ "role": "user", "content": content }] })
        .to_string()
}
