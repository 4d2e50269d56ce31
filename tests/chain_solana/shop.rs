//! A Solana chain, a journal in memory and the settlement between them, with the questions every test asks.

use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use farebox::chain::{Amounts, Chains, Confirmation, Refused, Settlement, VerifiedPayment, verify};
use farebox::clock::{Clock, Timestamp};
use farebox::config::{self, Network};
use farebox::money::Micros;
use farebox::x402::{Payment, Requirements};
use farebox_rig::anvil::Wallet;
use farebox_rig::buyer::sign_on;
use farebox_rig::process::eventually;
use farebox_rig::solana::{PAY_TO, SETTLER, Solana};
use tokio::sync::oneshot::Receiver;

use crate::journal::Memory;

pub const PRICE: u64 = 250_000;
/// What is bought in these tests.
pub const SUBJECT: &str = "one call";
/// Lamports that a settlement costs: two signatures and the client's priority of one lamport.
pub const FEE: u64 = 10_001;

pub struct Shop {
    pub node: Solana,
    pub journal: Arc<Memory>,
    pub chains: Chains,
}

pub fn now() -> Timestamp {
    Timestamp::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs())
}

pub fn network(node: &Solana) -> Network {
    Network {
        id: node.network().into(),
        pay_to: PAY_TO.address.into(),
        settlement: config::Settlement::Rpc { urls: vec![node.url()], key: SETTLER.key.to_owned().into() },
        asset: None,
        asset_name: None,
        asset_version: None,
        confirmations: 1,
        safe_above: Micros::new(5_000_000),
        coin_usd: None,
        surcharge: Micros::ZERO,
        max_fee_per_gas: 1,
        ca_file: None,
    }
}

pub fn open_with(node: Solana, journal: Arc<Memory>, change: impl Fn(&mut Network)) -> Shop {
    let mut network = network(&node);
    change(&mut network);
    let chains = Chains::start(&[network], journal.clone(), Clock::new(now)).unwrap();
    Shop { node, journal, chains }
}

pub fn open() -> Shop {
    let shop = open_with(Solana::start(), Arc::default(), |_| {});
    assert_eq!(shop.chains.networks()[0].sellable, Ok(()));
    shop
}

pub fn wait_for<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap().block_on(future)
}

impl Shop {
    pub fn offer(&self, amount: u64) -> Requirements {
        wait_for(self.chains.freshen());
        self.chains.offer(Micros::new(amount), 300, SUBJECT).remove(0)
    }

    /// Payments of these amounts, each for an offer of its own, as the official library signs them.
    pub fn pay_each(&self, wallet: Wallet, amounts: &[u64]) -> Vec<VerifiedPayment> {
        let offers: Vec<_> = amounts.iter().map(|amount| self.offer(*amount)).collect();
        let wanted: Vec<_> = offers.iter().map(|offer| serde_json::to_value(offer).unwrap()).collect();
        let signed = sign_on(&self.node, wallet, &wanted);
        let headers = signed.iter().map(|signed| signed["v2"].as_str().unwrap());
        headers.zip(amounts).map(|(header, amount)| self.read(header, *amount).unwrap()).collect()
    }

    pub fn pay(&self, wallet: Wallet, amount: u64) -> VerifiedPayment {
        self.pay_each(wallet, &[amount]).remove(0)
    }

    /// Holds a header against what we ask.
    pub fn read(&self, header: &str, amount: u64) -> Result<VerifiedPayment, Refused> {
        let payment = Payment::from_header(header).unwrap();
        let wanted = self.chains.requirement(&payment, Micros::new(amount), 300, SUBJECT).unwrap();
        verify(&payment, &wanted, Amounts::Exact, now())
    }

    pub fn simulate(&self, payment: &VerifiedPayment) -> Result<(), Refused> {
        wait_for(self.chains.simulate(payment))
    }

    pub fn settle(&self, payment: &VerifiedPayment) -> Settlement {
        wait(self.chains.settle(payment.clone()))
    }

    pub fn received(&self) -> u64 {
        self.node.usdc_balance(PAY_TO)
    }

    /// Nothing happened on the chain.
    pub fn assert_untouched(&self) {
        assert_eq!((self.received(), self.node.landed().len(), self.node.sends()), (0, 0, 0));
        assert_eq!(self.node.lamports(SETTLER), 1_000_000_000, "no fee was paid");
    }

    /// The program ends and starts again on what its journal holds.
    pub fn restart(self, payment: &VerifiedPayment) -> (Shop, Receiver<Settlement>) {
        let attempts = self.journal.attempts();
        drop(self.chains);
        let shop = open_with(self.node, Arc::default(), |_| {});
        let payment = VerifiedPayment::from_bytes(&payment.to_bytes()).unwrap();
        let outcome = shop.chains.resume(payment, attempts, None);
        (shop, outcome)
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
