//! Who buys: the real x402 clients, each as its users have it, and a signer for payments that no honest client sends.

use std::process::Command;

use base64::Engine as _;
use serde_json::{Value, json};

use crate::anvil::Wallet;
use crate::http::Request;
use crate::process::run;
use crate::solana::Solana;
use crate::{installed, sdk, tests_dir};

/// A published client library, unmodified.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Client {
    /// npm `x402-fetch`, x402 version 1.
    FetchV1,
    /// npm `@x402/fetch`, x402 version 2.
    FetchV2,
    /// PyPI `x402` over httpx.
    Python,
}

/// What a client is told to buy.
#[derive(Clone, Debug)]
pub struct Order<'a> {
    pub base_url: &'a str,
    pub route: &'a str,
    pub body: &'a str,
    pub wallet: Wallet,
    /// The client's own spending limit for this call.
    pub max_value_usd: &'a str,
}

impl Client {
    pub const ALL: [Client; 3] = [Client::FetchV1, Client::FetchV2, Client::Python];

    /// Buys once and returns what the buyer saw: `status`, `text`, `receipt`, `receipt_headers`, `request_id`,
    /// `balance_remaining`, `chunks`, `payment` (the header it sent) and `body`. Panics when the library gave up.
    pub fn buy(self, order: &Order) -> Value {
        self.run(order, self.command())
    }

    /// The same with a wallet of Solana, whose library asks the chain's own node for what it signs.
    pub fn buy_on(self, chain: &Solana, order: &Order) -> Value {
        let mut command = self.command();
        command.env("SOLANA_RPC_URL", chain.url());
        self.run(order, command)
    }

    fn run(self, order: &Order, mut command: Command) -> Value {
        command.env("BASE_URL", order.base_url).env("ROUTE", order.route).env("BODY", order.body);
        command.env("PRIVATE_KEY", order.wallet.key).env("MAX_VALUE_USD", order.max_value_usd);
        let (code, stdout, stderr) = run(command, "");
        let line = stdout.lines().last().unwrap_or_default();
        let outcome = serde_json::from_str(line);
        outcome.unwrap_or_else(|_| panic!("{self:?} did not buy (exit code {code}):\n{stdout}\n{stderr}"))
    }

    fn command(self) -> Command {
        let clients = tests_dir().join("clients");
        match self {
            Client::FetchV1 => node("x402-fetch.mjs"),
            Client::FetchV2 => node("x402-fetch-v2.mjs"),
            Client::Python => {
                let mut command = Command::new(installed(clients.join(".venv/bin/python")));
                command.arg(clients.join("x402_client.py"));
                command
            }
        }
    }
}

/// A payment to be signed. `requirements` is one entry of a version 2 offer; times are seconds since 1970.
#[derive(Clone, Debug)]
pub struct Intent {
    pub wallet: Wallet,
    pub requirements: Value,
    pub valid_before: u64,
}

/// Signs payments; each comes back as `{v2, v1, authorization, signature}` where `v2` and `v1` are header values.
pub fn sign(intents: &[Intent]) -> Vec<Value> {
    let entry = |intent: &Intent| json!({ "key": intent.wallet.key, "requirements": intent.requirements, "validBefore": intent.valid_before });
    sign_entries(&intents.iter().map(entry).collect::<Vec<_>>())
}

/// Signs payments that say more than an [`Intent`] does; the entries are described at the head of `sign.mjs`.
pub fn sign_entries(entries: &[Value]) -> Vec<Value> {
    let input = Value::from(entries).to_string();
    let (code, stdout, stderr) = run(node("sign.mjs"), &input);
    assert_eq!(code, 0, "sign.mjs failed:\n{stderr}");
    stdout.lines().map(|line| serde_json::from_str(line).expect("one JSON object per line")).collect()
}

/// Signs, as npm `@x402/svm` does, what each of `requirements` (entries of a version 2 offer) asks of a wallet of Solana; each
/// comes back as `{v2, v1, transaction}` where `v2` and `v1` are header values and the transaction is base64.
pub fn sign_on(chain: &Solana, wallet: Wallet, requirements: &[Value]) -> Vec<Value> {
    let entries: Vec<_> = requirements.iter().map(|wanted| json!({ "key": wallet.key, "requirements": wanted })).collect();
    let mut command = node("sign-solana.mjs");
    command.env("SOLANA_RPC_URL", chain.url());
    let (code, stdout, stderr) = run(command, &Value::from(entries).to_string());
    assert_eq!(code, 0, "sign-solana.mjs failed:\n{stderr}");
    stdout.lines().map(|line| serde_json::from_str(line).expect("one JSON object per line")).collect()
}

/// Sends `count` copies of a request in the same moment; returns the status and the raw answer of each.
pub fn send_copies(address: &str, request: &Request, count: usize) -> Vec<(u16, String)> {
    send_at_once(address, &vec![request; count])
}

/// Sends all requests in the same moment; returns the status and the raw answer of each.
pub fn send_at_once(address: &str, requests: &[&Request]) -> Vec<(u16, String)> {
    let (host, port) = address.split_once(':').expect("HOST:PORT");
    let port: u16 = port.parse().expect("a port is a number");
    let bytes = |request: &&Request| base64::engine::general_purpose::STANDARD.encode(request.bytes(address));
    let requests: Vec<_> = requests.iter().map(bytes).collect();
    let input = json!({ "host": host, "port": port, "requests": requests }).to_string();
    let (code, stdout, stderr) = run(node("copies.mjs"), &input);
    assert_eq!(code, 0, "copies.mjs failed:\n{stderr}");
    let outcome = |line: &str| {
        let line: Value = serde_json::from_str(line).expect("one JSON object per line");
        let status = line["status"].as_u64().and_then(|status| u16::try_from(status).ok());
        (status.unwrap_or_default(), line["answer"].as_str().unwrap_or_default().to_owned())
    };
    stdout.lines().map(outcome).collect()
}

fn node(script: &str) -> Command {
    sdk::node(script, "x402-fetch")
}
