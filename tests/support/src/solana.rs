//! A real Solana virtual machine behind JSON-RPC, with USDC at its real address, and what a test asks it: who holds the money?

use std::process::Command;
use std::time::Duration;

use serde_json::{Value, json};

use crate::anvil::Wallet;
use crate::http::{self, Request};
use crate::process::{Process, eventually};
use crate::{installed, tests_dir};

/// Pays fees for settlements: one SOL when a chain starts. Everybody knows these keys.
pub const SETTLER: Wallet = Wallet {
    address: "GcNUCj5zKCi8sF6pcdrk95uwzk7ebk3jcrMocCogSPwK",
    key: "5Lq64VfmKRzdVhAGjebuYbpD5xEihgKanqYiUYpZLmreGgxQxZ4ELQUnQrfZ7N3cKzSMqNfhogNfJ1MHLqjBS4mK",
};
/// Is paid; has an empty token account when a chain starts.
pub const PAY_TO: Wallet = Wallet {
    address: "2gGZhPPrPq96D8m3nLGnr2CE5rfymjwbihY6cmRhnGFy",
    key: "4wxFpcghLLDezVpqUgbaUGKzat7bAjaJ3nFT5dJ9yDyZ9w5QrA7Xa9NScp8eYoD1juGukyq5LS3YpuKaEYNinFCT",
};
/// Buys: 1,000 USDC and no SOL.
pub const BUYER: Wallet = Wallet {
    address: "GtYsm93zTjwNeXuLC87GQLc3ELFzZATgfpFmPcFuked5",
    key: "2vX8djAQudMckvLvomm63Svu2ZimoqiC8dsC3sVET5wnJXL4adUEWXhDRD3M9QdzUj2H4QmqyWXJEFR4aTbmXGqm",
};
/// Buys as well: 1,000 USDC and no SOL.
pub const OTHER_BUYER: Wallet = Wallet {
    address: "71NAa2QnqVqDvw75EqcoUWzNj5riDkq7GpPPGcUhpJVa",
    key: "md7YfFPGcMLDmeTbRbAYRnDnGXXzNtBqj9wzyqsY8KqZ36fvwWNEKGquUbfMPf6zZJamJ5SRViwBcVShQagjQFE",
};
/// Owns nothing but an empty token account.
pub const POOR_BUYER: Wallet = Wallet {
    address: "CizfQVB9ZC6fgvTtN96N5nHvXwmJdo3ao28maGRZ2uke",
    key: "MBUwVhLQpnfoYjSSwFEtRcGDmQwh2YBDHLdRgQbHJPLekXNDQFpnGZJmXs2hxCwt7sKdCtzxDKyxYMezBffanux",
};

/// Micros that a rich buyer starts with.
pub const RICHES: u64 = 1_000_000_000;
/// Slots until nothing can change any more.
pub const FINAL_DEPTH: u64 = 32;
/// Blocks that a blockhash stays usable.
pub const BLOCKHASH_LIFE: u64 = 150;
/// So long is a slot unless a test says otherwise: short, so that nobody waits, and long enough for a busy machine to keep
/// a blockhash alive from an offer to its payment.
pub const SLOT: Duration = Duration::from_millis(300);

/// Which public chain it stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cluster {
    Devnet,
    Mainnet,
}

/// A running chain.
pub struct Solana {
    cluster: Cluster,
    address: String,
    _process: Process,
}

/// One transaction that is on the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Landed {
    pub signature: String,
    pub succeeded: bool,
    /// Lamports.
    pub fee: u64,
    /// Micros that came to [`PAY_TO`].
    pub received: u64,
}

impl Solana {
    /// Starts Solana's devnet as of now.
    pub fn start() -> Solana {
        Solana::start_as(Cluster::Devnet, SLOT)
    }

    /// Starts a chain with slots of this length.
    pub fn start_as(cluster: Cluster, slot: Duration) -> Solana {
        let folder = tests_dir().join("chain/solana");
        let mut command = Command::new(installed(folder.join(".venv/bin/python")));
        command.arg(folder).args(["--cluster", cluster.name(), "--slot-ms"]).arg(slot.as_millis().to_string());
        let mut process = Process::spawn(command);
        let address = process.wait_for("listening on http://");
        let chain = Solana { cluster, address, _process: process };
        chain.set_lamports(SETTLER, 1_000_000_000);
        for (wallet, micros) in [(BUYER, RICHES), (OTHER_BUYER, RICHES), (POOR_BUYER, 0), (PAY_TO, 0)] {
            chain.set_balance(wallet, micros);
        }
        chain
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// CAIP-2.
    pub fn network(&self) -> &'static str {
        match self.cluster {
            Cluster::Devnet => "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1",
            Cluster::Mainnet => "solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp",
        }
    }

    /// What version 1 of x402 calls the network.
    pub fn short_name(&self) -> &'static str {
        match self.cluster {
            Cluster::Devnet => "solana-devnet",
            Cluster::Mainnet => "solana",
        }
    }

    /// The mint.
    pub fn usdc(&self) -> &'static str {
        match self.cluster {
            Cluster::Devnet => "4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU",
            Cluster::Mainnet => "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v",
        }
    }

    /// One JSON-RPC call; panics when the node answers with an error.
    pub fn rpc(&self, method: &str, params: Value) -> Value {
        self.try_rpc(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// One JSON-RPC call; `Err` is the node's error object.
    pub fn try_rpc(&self, method: &str, params: Value) -> Result<Value, Value> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = http::send(&self.address, &Request::post("/", call.to_string())).expect("the node answers");
        let mut answer = answer.json();
        match answer.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(answer["result"].take()),
        }
    }

    /// Micros that a wallet holds, zero for one without a token account.
    pub fn usdc_balance(&self, owner: Wallet) -> u64 {
        let wanted = json!([owner.address, { "mint": self.usdc() }, { "encoding": "jsonParsed", "commitment": "processed" }]);
        let accounts = self.rpc("getTokenAccountsByOwner", wanted);
        let amount = &accounts["value"][0]["account"]["data"]["parsed"]["info"]["tokenAmount"]["amount"];
        amount.as_str().map_or(0, |digits| digits.parse().expect("token units are digits"))
    }

    /// Lamports that a wallet holds.
    pub fn lamports(&self, owner: Wallet) -> u64 {
        self.rpc("getBalance", json!([owner.address]))["value"].as_u64().expect("lamports are a number")
    }

    /// Gives a wallet a token account that holds exactly so many micros.
    pub fn set_balance(&self, owner: Wallet, micros: u64) {
        self.rpc("dev_setTokenBalance", json!([owner.address, micros]));
    }

    /// Takes a wallet's token account away.
    pub fn close_token_account(&self, owner: Wallet) {
        self.rpc("dev_closeTokenAccount", json!([owner.address]));
    }

    pub fn set_lamports(&self, owner: Wallet, lamports: u64) {
        self.rpc("dev_setLamports", json!([owner.address, lamports]));
    }

    /// Everything that ever landed, in order.
    pub fn landed(&self) -> Vec<Landed> {
        let told = self.rpc("dev_landed", json!([]));
        let at = |side: &Value| side[PAY_TO.address].as_u64().unwrap_or(0);
        let landed = |one: &Value| Landed {
            signature: one["signature"].as_str().unwrap_or_default().to_owned(),
            succeeded: one["err"].is_null(),
            fee: one["fee"].as_u64().unwrap_or_default(),
            received: at(&one["after"]).saturating_sub(at(&one["before"])),
        };
        told["transactions"].as_array().expect("a list").iter().map(landed).collect()
    }

    /// How many times a transaction was handed to the node.
    pub fn sends(&self) -> u64 {
        self.rpc("dev_landed", json!([]))["sends"].as_u64().expect("sends are counted")
    }

    /// How many transactions were taken and have not landed, each counted once however often it was sent.
    pub fn waiting(&self) -> u64 {
        self.rpc("dev_landed", json!([]))["waiting"].as_u64().expect("they are counted")
    }

    /// Lets so many slots pass at once.
    pub fn advance(&self, slots: u64) {
        self.rpc("dev_advanceSlots", json!([slots]));
    }

    /// Lets pass what makes everything on the chain final.
    pub fn finalize(&self) {
        self.advance(FINAL_DEPTH + 1);
    }

    /// Lets pass what ends every blockhash that anybody was given.
    pub fn expire(&self) {
        self.advance(BLOCKHASH_LIFE + FINAL_DEPTH + 2);
    }

    /// It keeps what was on the chain since a moment (UNIX seconds), or says so.
    pub fn keeps_since(&self, moment: u64) {
        self.rpc("dev_keepSince", json!([moment]));
    }

    /// The next transactions are taken and lost.
    pub fn drop_sends(&self, count: u64) {
        self.rpc("dev_setFaults", json!([{ "dropSends": count }]));
    }

    /// Transactions wait for so many slots before they land.
    pub fn delay(&self, slots: u64) {
        self.rpc("dev_setFaults", json!([{ "delaySlots": slots }]));
    }

    /// With `true`, transactions are taken and wait.
    pub fn pause(&self, on: bool) {
        self.rpc("dev_setFaults", json!([{ "paused": u8::from(on) }]));
    }

    /// The next requests are answered with this status.
    pub fn fail_requests(&self, count: u64, status: u16) {
        self.rpc("dev_setFaults", json!([{ "failRequests": count, "httpStatus": status }]));
    }

    /// A fork without this transaction wins.
    pub fn undo(&self, signature: &str) {
        self.rpc("dev_undo", json!([signature]));
    }

    /// Waits until a transaction is on the chain.
    pub fn wait_landed(&self, signature: &str) -> Landed {
        let find = || self.landed().into_iter().find(|landed| landed.signature == signature);
        eventually("a transaction lands", || find().is_some());
        find().expect("it has landed")
    }
}

impl Cluster {
    fn name(self) -> &'static str {
        match self {
            Cluster::Devnet => "devnet",
            Cluster::Mainnet => "mainnet",
        }
    }
}
