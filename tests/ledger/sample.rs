//! Wallets, payments, claims and a clock by number, as the tests of the ledger use them.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use farebox::account::AccountId;
use farebox::clock::{Clock, Timestamp};
use farebox::ids::{KeyId, PaymentId, RequestId};
use farebox::ledger::{Attempt, Claim, Draw};
use farebox::money::Micros;
use tokio::runtime::{Builder, Runtime};

/// Noon of a Thursday, the 20th of a month, in milliseconds since 1970.
pub const NOON: u64 = 1_763_640_000_000;

pub fn clock() -> Clock {
    Clock::new(|| Timestamp::from_millis(NOON))
}

/// The hands of a clock that a test moves; clones share them.
#[derive(Clone)]
pub struct Hands(Arc<AtomicU64>);

impl Hands {
    pub fn at(millis: u64) -> Hands {
        Hands(Arc::new(AtomicU64::new(millis)))
    }

    pub fn set(&self, millis: u64) {
        self.0.store(millis, Ordering::SeqCst);
    }

    pub fn now(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub fn clock(&self) -> Clock {
        let hands = self.clone();
        Clock::new(move || Timestamp::from_millis(hands.now()))
    }
}

pub fn wallet(n: u8) -> AccountId {
    AccountId::Evm([n; 20])
}

pub fn payment(n: u8) -> PaymentId {
    PaymentId([n; 32])
}

pub fn key(n: u8) -> KeyId {
    KeyId(u128::from(n) + 1)
}

pub fn attempt() -> Attempt {
    Attempt { tx: "0xaa".into(), raw: vec![2, 1], bound_to: 0 }
}

pub fn claim(id: PaymentId, payer: AccountId, amount: u64, request: u128) -> Claim {
    Claim {
        id,
        network: "eip155:84532".into(),
        asset: "0x036cbd53842c5426634e7929541ec2318f3dcf7e".into(),
        payer,
        amount: Micros::new(amount),
        request: RequestId(request),
        route: "/v1/chat/completions".into(),
        model: Some("echo".into()),
        detail: vec![1, 2, 3],
    }
}

/// A call that asks for so much of its wallet's balance, with no key and no sign-in.
pub fn draw(wallet: AccountId, amount: u64, request: u128) -> Draw {
    Draw {
        wallet,
        amount: Micros::new(amount),
        request: RequestId(request),
        model: "echo".into(),
        path: "/v1/chat/completions".into(),
        key: None,
        nonce: None,
        most_calls: usize::MAX,
    }
}

pub fn wait<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().build().expect("a runtime without drivers");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}
