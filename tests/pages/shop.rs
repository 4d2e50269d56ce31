//! A shop with pages: chain, upstream and server together, the wallets that people bring to it, and everybody's books at the end.

use farebox_rig::anvil::{self, Anvil, Wallet};
use farebox_rig::chain::Chain;
use farebox_rig::server::{Server, Settings};
use farebox_rig::solana::{self, Solana};
use farebox_rig::upstream::Upstream;
use serde_json::{Value, json};

use crate::browser::Browser;

pub const DOLLAR: u64 = 1_000_000;
/// Makes the upstream say two words and report 20 tokens in and 7 out.
pub const USAGE: &str = "<<fake in=20 out=7 text=hello+wallet>>";
/// What [`USAGE`] costs, in micros.
pub const CHARGE: u64 = 20 * 3 + 7 * 15;

pub struct Shop<C> {
    pub chain: C,
    pub upstream: Upstream,
    pub server: Server,
}

/// What the books of a shop must say at the end.
pub struct Ledger {
    /// Micros that reached us on the chain, each for its payer.
    pub paid: Vec<(Wallet, u64)>,
    /// Micros that the calls of the first of them cost.
    pub charged: u64,
}

impl<C: Chain> Shop<C> {
    pub fn on(chain: C, settings: &Settings) -> Shop<C> {
        let upstream = Upstream::start();
        let server = Server::with(env!("CARGO_BIN_EXE_farebox"), &chain, &upstream, settings);
        Shop { chain, upstream, server }
    }

    /// A browser without a wallet.
    pub fn browser(&self) -> Browser<'_> {
        Browser::of(&self.server)
    }

    /// Micros that a wallet can spend here.
    pub fn available(&self, wallet: Wallet) -> u64 {
        u64::try_from(self.server.account(wallet).available()).expect("no balance is below zero")
    }

    /// Who holds the money: what was paid less what was charged is balance, the books are clean and sum up.
    fn audit(mut self, ledger: &Ledger) {
        for (wallet, paid) in &ledger.paid {
            self.server.account(*wallet).statement().assert_sums();
            let charged = if *wallet == ledger.paid[0].0 { ledger.charged } else { 0 };
            assert_eq!(self.available(*wallet), paid - charged, "what was paid and not charged is balance");
        }
        let log = self.server.output();
        let books = self.server.audit();
        assert!(books.clean, "the books are not clean: {:#}", books.json);
        for (wallet, _) in &ledger.paid {
            assert!(!log.contains(wallet.key.trim_start_matches("0x")), "the log has a private key");
        }
        assert!(!log.contains("sk-x402-"), "the log has an API key");
    }
}

impl Shop<Anvil> {
    pub fn open() -> Shop<Anvil> {
        Shop::on(Anvil::start(84532), &Settings::default())
    }

    /// Somebody's wallet on this chain.
    pub fn wallet(&self, wallet: Wallet) -> Value {
        let chain = self.chain.chain_id;
        json!({ "family": "evm", "name": "Test Wallet", "key": wallet.key, "chainId": chain, "rpc": self.chain.url(), "knows": [1, chain] })
    }

    pub fn close(self, ledger: &Ledger) {
        let mut arrived: Vec<_> = self.chain.transfers().iter().map(|transfer| (transfer.from.clone(), transfer.value)).collect();
        let mut paid: Vec<_> = ledger.paid.iter().map(|(wallet, paid)| (wallet.address.to_lowercase(), *paid)).collect();
        arrived.sort();
        paid.sort();
        assert_eq!(arrived, paid, "what arrived is what was signed, once each");
        let total: u64 = ledger.paid.iter().map(|(_, paid)| paid).sum();
        assert_eq!(self.chain.usdc_balance(anvil::PAY_TO.address), total);
        self.audit(ledger);
    }
}

impl Shop<Solana> {
    pub fn open_on_solana() -> Shop<Solana> {
        Shop::on(Solana::start(), &Settings::default())
    }

    pub fn wallet(&self, wallet: Wallet) -> Value {
        json!({ "family": "solana", "name": "Test Wallet", "key": wallet.key })
    }

    pub fn close(self, ledger: &Ledger) {
        let total: u64 = ledger.paid.iter().map(|(_, paid)| paid).sum();
        assert_eq!(self.chain.usdc_balance(solana::PAY_TO), total, "what arrived is what was signed, once each");
        self.audit(ledger);
    }
}

/// A gateway whose money is simulated, on both families, with the built-in upstream and models called `ids`.
pub fn simulated(ids: &[&str]) -> Server {
    let models = ids.iter().map(|id| {
        let id = json!(id);
        format!(
            "[[model]]\nid = {id}\nupstreams = [{{ name = \"echo\", model = \"echo\" }}]\nprice = {{ input = \"3\", output = \"15\" }}\n"
        )
    });
    let config = format!(
        "[server]\nbind = \"127.0.0.1:0\"\ndata_dir = \"data\"\n\
         [[network]]\nid = \"base-sepolia\"\npay_to = \"{}\"\nsettlement = \"simulated\"\n\
         [[network]]\nid = \"solana-devnet\"\npay_to = \"{}\"\nsettlement = \"simulated\"\n\
         [[upstream]]\nname = \"echo\"\nkind = \"echo\"\nspeaks = [\"chat\", \"messages\", \"responses\"]\n{}",
        anvil::PAY_TO.address,
        solana::PAY_TO.address,
        models.collect::<String>()
    );
    Server::configured(env!("CARGO_BIN_EXE_farebox"), &config)
}

/// Calls `model` from within the page with the key that it shows, or showed a moment ago; the outcome is the status.
pub fn call(model: &str) -> Value {
    let body = json!({ "model": model, "max_tokens": 256, "messages": [{ "role": "user", "content": USAGE }] });
    let script = format!(
        "(async () => {{ window.key = document.querySelector('#secret')?.textContent ?? window.key; \
         const answer = await fetch('/v1/chat/completions', {{ method: 'POST', headers: {{ 'x-api-key': window.key, \
         'content-type': 'application/json' }}, body: JSON.stringify({body}) }}); await answer.text(); return answer.status }})()"
    );
    json!({ "do": "evaluate", "script": script })
}
