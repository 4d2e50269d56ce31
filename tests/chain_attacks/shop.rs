//! A shop on a real EVM node for the tests of attacks and trouble: its journal, its payments, and nodes that lag or lie.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use farebox::chain::evm::key::PrivateKey;
use farebox::chain::evm::{abi, buyer, hex, payload};
use farebox::chain::{
    Amounts, Attempt, Chains, Confirmation, Journal, JournalClosed, JournalFuture, Refused, Settlement, VerifiedPayment, verify,
};
use farebox::clock::{Clock, Timestamp};
use farebox::config::{self, Network};
use farebox::ids::PaymentId;
use farebox::money::Micros;
use farebox::x402::{Payment, Requirements};
use farebox_rig::anvil::{Anvil, BUYER, MINTER, PAY_TO, SETTLER, Wallet};
use serde_json::{Value, json};
use tokio::sync::oneshot::Receiver;

use farebox_rig::stub::Stub;

pub const PRICE: u64 = 250_000;

/// What the journal of a test was told, and whether it refuses to take more.
#[derive(Default)]
pub struct Books {
    pub attempts: Vec<Attempt>,
    pub settled: Vec<(PaymentId, Settlement)>,
    pub finalized: Vec<PaymentId>,
    /// Payments whose failure cost gas.
    pub wasted: Vec<PaymentId>,
    /// So many claims were given back: as many times nothing is signed.
    pub voids: u32,
}

#[derive(Default)]
pub struct Memory(Mutex<Books>);

impl Memory {
    pub fn books(&self) -> MutexGuard<'_, Books> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Journal for Memory {
    fn signed(&self, _: PaymentId, attempt: Attempt) -> JournalFuture {
        let mut books = self.books();
        if books.voids > 0 {
            books.voids -= 1;
            return Box::pin(async { Err(JournalClosed) });
        }
        books.attempts.push(attempt);
        Box::pin(async { Ok(()) })
    }

    fn sent(&self, _: PaymentId) {}

    fn wasted(&self, id: PaymentId) {
        self.books().wasted.push(id);
    }

    fn settled(&self, id: PaymentId, outcome: Settlement) -> JournalFuture {
        self.books().settled.push((id, outcome));
        Box::pin(async { Ok(()) })
    }

    fn forgotten(&self, _: PaymentId) {}

    fn unconfirmed(&self, _: PaymentId) {}

    fn finalized(&self, id: PaymentId) {
        self.books().finalized.push(id);
    }
}

pub struct Shop {
    pub node: Anvil,
    pub journal: Arc<Memory>,
    pub chains: Chains,
}

pub fn now() -> Timestamp {
    Timestamp::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

/// A shop on a fresh Base Sepolia whose configuration `change` has the last word on.
pub fn open_with(change: impl FnOnce(&Anvil, &mut Network)) -> Shop {
    open_at(Clock::new(now), change)
}

/// The same under another clock.
pub fn open_at(clock: Clock, change: impl FnOnce(&Anvil, &mut Network)) -> Shop {
    let node = Anvil::start(84532);
    let mut network = Network {
        id: node.network(),
        pay_to: PAY_TO.address.into(),
        settlement: config::Settlement::Rpc { urls: vec![node.url()], key: SETTLER.key.to_owned().into() },
        asset: None,
        asset_name: None,
        asset_version: None,
        confirmations: 1,
        safe_above: Micros::new(5_000_000),
        coin_usd: None,
        surcharge: Micros::ZERO,
        max_fee_per_gas: 500_000_000_000,
        ca_file: None,
    };
    change(&node, &mut network);
    let journal = Arc::<Memory>::default();
    let chains = Chains::start(&[network], journal.clone(), clock).unwrap();
    Shop { node, journal, chains }
}

pub fn open() -> Shop {
    let shop = open_with(|_, _| {});
    assert_eq!(shop.chains.networks()[0].sellable, Ok(()));
    shop
}

/// A shop whose only node is a proxy: `answer` gets each call and a way to ask the real node.
pub fn open_behind(answer: impl Fn(&Value, &dyn Fn(&Value) -> Value) -> Value + Send + Sync + 'static) -> Shop {
    open_with(|node, network| {
        let proxy = Stub::before_node(node.address(), answer);
        lead_to(network, &[proxy.url()]);
    })
}

/// Makes the network ask these nodes, in this order.
pub fn lead_to(network: &mut Network, nodes: &[String]) {
    let config::Settlement::Rpc { urls, .. } = &mut network.settlement else { unreachable!() };
    *urls = nodes.to_vec();
}

/// What a node answers to `call` with an error of its own.
pub fn node_error(call: &Value, code: i64, message: &str) -> Value {
    json!({"jsonrpc": "2.0", "id": call["id"], "error": {"code": code, "message": message}})
}

/// A call to the token is answered as a node does whose newest block is `head`.
pub fn from_old_block(call: &Value, head: u64, ask: &dyn Fn(&Value) -> Value) -> Value {
    let block = call["params"][1].as_str().unwrap_or("latest");
    let number = u64::from_str_radix(block.trim_start_matches("0x"), 16).ok();
    if number.is_some_and(|number| number > head) {
        return node_error(call, -32000, "header not found");
    }
    let mut old = call.clone();
    if number.is_none() {
        old["params"][1] = format!("{head:#x}").into();
    }
    ask(&old)
}

pub fn fresh_nonce() -> [u8; 32] {
    let mut nonce = [0; 32];
    getrandom::fill(&mut nonce).unwrap();
    nonce
}

/// A payment by the buyer as `offer` wants it.
pub fn pay(offer: &Requirements, nonce: [u8; 32]) -> VerifiedPayment {
    pay_as(BUYER, offer, nonce)
}

/// A payment by this wallet as `offer` wants it.
pub fn pay_as(wallet: Wallet, offer: &Requirements, nonce: [u8; 32]) -> VerifiedPayment {
    let key = PrivateKey::parse(wallet.key).unwrap();
    let header = buyer::pay(offer, None, &key, nonce, now()).unwrap();
    verify(&Payment::from_header(&header).unwrap(), offer, Amounts::Exact, now()).unwrap()
}

pub fn nonce(payment: &VerifiedPayment) -> [u8; 32] {
    let stored: Value = serde_json::from_slice(&payment.to_bytes()).unwrap();
    hex::fixed(stored["payload"]["authorization"]["nonce"].as_str().unwrap()).unwrap()
}

/// What a stranger, or we, would send for this payment.
pub fn transfer_data(payment: &VerifiedPayment) -> String {
    let stored: Value = serde_json::from_slice(&payment.to_bytes()).unwrap();
    let raw = serde_json::value::to_raw_value(&stored["payload"]).unwrap();
    let (authorization, signature) = payload::parse(&raw).unwrap();
    hex::encode(&abi::transfer_plain(&authorization, &signature).unwrap())
}

impl Shop {
    pub fn offer(&self, seconds: u64) -> Requirements {
        self.chains.offer(Micros::new(PRICE), seconds, "a call").remove(0)
    }

    pub fn pay(&self, seconds: u64) -> VerifiedPayment {
        pay(&self.offer(seconds), fresh_nonce())
    }

    pub fn simulate(&self, payment: &VerifiedPayment) -> Result<(), Refused> {
        self.simulate_all(std::slice::from_ref(payment)).remove(0)
    }

    /// All at once.
    pub fn simulate_all(&self, payments: &[VerifiedPayment]) -> Vec<Result<(), Refused>> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let asked = payments.iter().map(|payment| self.chains.simulate(payment));
        runtime.block_on(futures_util::future::join_all(asked))
    }

    pub fn received(&self) -> u64 {
        self.node.usdc_balance(PAY_TO.address)
    }

    pub fn sent(&self) -> u64 {
        self.node.transactions_of(SETTLER.address)
    }

    /// Somebody sends a transaction at a fee above every settlement; returns its hash.
    pub fn act(&self, from: &str, mut transaction: Value) -> String {
        self.node.rpc("anvil_impersonateAccount", json!([from]));
        self.node.rpc("anvil_setBalance", json!([from, "0xde0b6b3a7640000"]));
        let fee = "0x2e90edd000";
        transaction["from"] = from.into();
        transaction["maxFeePerGas"] = fee.into();
        transaction["maxPriorityFeePerGas"] = fee.into();
        self.node.rpc("eth_sendTransaction", json!([transaction])).as_str().unwrap().to_owned()
    }

    /// A stranger submits the payment before we do.
    pub fn overtake(&self, payment: &VerifiedPayment) -> String {
        self.act(MINTER.address, json!({"to": self.node.usdc(), "data": transfer_data(payment), "gas": "0x493e0"}))
    }
}

pub fn wait(mut outcome: Receiver<Settlement>) -> Settlement {
    let mut found = None;
    eventually("a settlement ends", || {
        found = outcome.try_recv().ok();
        found.is_some()
    });
    found.unwrap()
}

/// Asserts that `outcome` is still unknown after a while.
pub fn still_open(outcome: &mut Receiver<Settlement>, seconds: u64) {
    std::thread::sleep(Duration::from_secs(seconds));
    assert_eq!(outcome.try_recv().ok(), None, "nothing is proven yet");
}

pub fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(90), "in vain: {what}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

pub fn confirmed(outcome: Settlement) -> Confirmation {
    match outcome {
        Settlement::Confirmed(confirmation) => confirmation,
        Settlement::Failed { reason, message } => panic!("failed: {reason}: {message}"),
    }
}

pub fn failed(outcome: Settlement) -> &'static str {
    match outcome {
        Settlement::Failed { reason, .. } => reason,
        Settlement::Confirmed(confirmation) => panic!("confirmed: {confirmation:?}"),
    }
}
