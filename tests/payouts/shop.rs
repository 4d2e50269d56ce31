//! A shop with a buyer's balance on a real EVM chain, the command that pays out of it, and the last look at who holds what.

use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use farebox::chain::{buyer, payout_nonce};
use farebox::clock::Timestamp;
use farebox::x402::Requirements;
use farebox_rig::anvil::{Anvil, BUYER, PAY_TO, SETTLER, Wallet};
use farebox_rig::process::{eventually, run};
use farebox_rig::server::{Server, Settings};
use farebox_rig::upstream::{UPSTREAM_KEY, Upstream};
use serde_json::{Value, json};

/// Five dollars in token units, which are micros.
pub const FIVE: u64 = 5_000_000;
/// What a buyer of the test chain starts with.
const RICHES: u64 = 1_000_000_000;

pub struct Shop {
    pub chain: Anvil,
    pub upstream: Upstream,
    pub server: Server,
}

/// What the command said: its exit code, what it printed as JSON, and its words.
#[derive(Debug)]
pub struct Said {
    pub code: i32,
    pub told: Value,
    pub words: String,
}

impl Said {
    /// It was paid; the transaction.
    pub fn paid(&self) -> String {
        assert_eq!((self.code, self.told["state"].as_str()), (0, Some("paid")), "{self:?}");
        self.told["tx"].as_str().unwrap().to_owned()
    }

    /// It was refused with these words, and nothing is claimed of it.
    pub fn refused(&self, code: i32, words: &str) {
        assert!((self.code, &self.told) == (code, &Value::Null) && self.words.contains(words), "{words:?}: {self:?}");
    }
}

impl Shop {
    /// Its buyer has five dollars here.
    pub fn open() -> Shop {
        Shop::with(&Settings::default())
    }

    pub fn with(settings: &Settings) -> Shop {
        Shop::on(Anvil::start(84532), settings)
    }

    pub fn on(chain: Anvil, settings: &Settings) -> Shop {
        let upstream = Upstream::start();
        let server = Server::with(env!("CARGO_BIN_EXE_farebox"), &chain, &upstream, settings);
        let shop = Shop { chain, upstream, server };
        let answer = shop.server.account(BUYER).top_up(FIVE);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let early = shop.asked("5", "early").send(None).unwrap_err();
        assert!(early.contains("of which 0.000000 can be paid out now"), "what a chain can take back is not paid out: {early}");
        shop.chain.mine(8);
        shop.wait_payable();
        shop
    }

    /// Until what was paid in is known to be final, which a sudden end may forget.
    pub fn wait_payable(&self) {
        eventually("it can be paid out", || self.asked("0.5", "early").send(None).is_ok());
    }

    /// Dies at a point, with a balance that can be paid out until then.
    #[cfg(feature = "fault-points")]
    pub fn restart_armed(&mut self, point: &str) {
        self.server.restart_armed(point);
        self.wait_payable();
    }

    /// `farebox payout`, with the key of somebody who says to be the treasury.
    pub fn command(&self, wallet: &str, usd: &str, id: &str, treasury: Wallet) -> Command {
        let network = self.chain.network();
        let arguments = ["payout", wallet, usd, "--network", &network, "--id", id, "--reason", "asked for"];
        let mut command = self.server.command(&arguments);
        command.env("FAREBOX_TREASURY_KEY", treasury.key);
        command
    }

    pub fn pay_out(&self, usd: &str, id: &str) -> Said {
        said(self.command(BUYER.address, usd, id, PAY_TO))
    }

    /// The same past the command.
    pub fn asked<'a>(&'a self, usd: &'a str, id: &'a str) -> Asked<'a> {
        Asked { server: &self.server, network: self.chain.network(), account: BUYER.address, usd, id }
    }

    /// Transfers out of the treasury, as the chain has them.
    pub fn sent(&self) -> Vec<u64> {
        let from_us = |from: &str| from.eq_ignore_ascii_case(PAY_TO.address);
        let sent = self.chain.transfers().into_iter().filter(|transfer| from_us(&transfer.from));
        sent.map(|transfer| {
            assert!(transfer.to.eq_ignore_ascii_case(BUYER.address), "{transfer:?}");
            transfer.value
        })
        .collect()
    }

    /// What the wallet can spend, as the operator is told, whatever the clock says.
    pub fn balance(&self) -> u64 {
        let (code, printed, words) = run(self.server.command(&["account", BUYER.address]), "");
        assert_eq!(code, 0, "{words}");
        let account: Value = serde_json::from_str(&printed).unwrap();
        (account["available_usd"].as_f64().unwrap() * 1e6).round() as u64
    }

    /// Closes the shop: the chain has paid exactly these, the treasury has what came in less that, the wallet's balance is what it
    /// paid in less that, the books are clean and agree with the chain, and no key was told to anybody.
    pub fn close(mut self, paid_in: u64, sent: &[u64]) -> Value {
        let statement = self.server.account(BUYER).statement();
        statement.assert_sums();
        let gone: u64 = sent.iter().sum();
        assert_eq!(statement.balance, i64::try_from(paid_in - gone).unwrap(), "{statement:?}");
        assert_eq!(self.sent(), sent, "what left the treasury");
        assert_eq!(self.chain.usdc_balance(PAY_TO.address), paid_in - gone, "what the treasury has");
        assert_eq!(self.chain.usdc_balance(BUYER.address), RICHES - paid_in + gone, "what the wallet has");
        assert_eq!(self.upstream.calls().len(), 0, "no upstream was asked");
        let books = self.server.audit();
        assert!(books.clean, "{:#}", books.json);
        assert_eq!(books.balance(BUYER.address), paid_in - gone, "{:#}", books.json);
        assert_eq!(books.json["house"]["outgoing"].as_i64().unwrap_or(0), 0, "nothing is on its way: {:#}", books.json);
        assert_eq!(books.json["chain"]["unasked"], 0, "{:#}", books.json);
        let log = self.server.output();
        for secret in [PAY_TO.key, SETTLER.key, BUYER.key, UPSTREAM_KEY] {
            assert!(!log.contains(secret.trim_start_matches("0x")), "a key was logged");
        }
        books.json
    }
}

/// What is asked of the gateway without the command, as somebody who can write into its socket may.
#[derive(Clone)]
pub struct Asked<'a> {
    pub server: &'a Server,
    pub network: String,
    pub account: &'a str,
    pub usd: &'a str,
    pub id: &'a str,
}

impl Asked<'_> {
    /// The gateway's answer: what came of it, or the message of its refusal.
    pub fn send(&self, payment: Option<&str>) -> Result<Value, String> {
        let mut answer: Value = serde_json::from_str(&self.line(payment)).unwrap();
        match answer["done"].take() {
            Value::Null => Err(answer["refused"]["message"].as_str().unwrap().to_owned()),
            done => Ok(done),
        }
    }

    /// The answer as it comes; nothing of a gateway that dies.
    fn line(&self, payment: Option<&str>) -> String {
        let terms = json!({
            "account": self.account, "usd": self.usd, "network": self.network, "id": self.id, "reason": "asked for",
        });
        let mut line = json!({ "pay_out": { "terms": terms, "payment": payment } }).to_string();
        line.push('\n');
        let stream = UnixStream::connect(self.server.data_dir().join("operator.sock")).unwrap();
        (&stream).write_all(line.as_bytes()).unwrap();
        let mut answer = String::new();
        // A connection that is reset has brought nothing either.
        let _ = BufReader::new(&stream).read_line(&mut answer);
        answer
    }

    /// Hands in a header to a gateway that dies of it.
    #[cfg(feature = "fault-points")]
    pub fn left(&self, header: &str) {
        assert_eq!(self.line(Some(header)), "", "it has died");
    }

    /// What must be signed.
    pub fn offer(&self) -> Requirements {
        serde_json::from_value(self.send(None).unwrap()["offer"].take()).unwrap()
    }

    pub fn nonce(&self) -> [u8; 32] {
        payout_nonce(&self.network, self.id)
    }

    /// The header that the treasury signs for an offer.
    pub fn signed(&self, offer: &Requirements) -> String {
        signed_by(PAY_TO, offer, self.nonce(), now())
    }
}

pub fn signed_by(wallet: Wallet, offer: &Requirements, nonce: [u8; 32], at: u64) -> String {
    buyer::Wallet::parse(wallet.key).unwrap().pay(offer, None, nonce, Timestamp::from_secs(at)).unwrap()
}

/// Seconds since 1970.
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()
}

/// A command of the operator that succeeds, and what it prints.
pub fn operate(server: &Server, arguments: &[&str]) -> Value {
    let (code, printed, words) = run(server.command(arguments), "");
    assert_eq!(code, 0, "{arguments:?}: {words}");
    serde_json::from_str(&printed).unwrap()
}

pub fn said(command: Command) -> Said {
    let (code, printed, words) = run(command, "");
    Said { code, told: serde_json::from_str(&printed).unwrap_or_default(), words }
}
