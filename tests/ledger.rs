//! The ledger keeps its promises through random work, restarts, power cuts and failing disks.

#[path = "ledger/agreement.rs"]
mod agreement;
#[path = "ledger/damage.rs"]
mod damage;
#[path = "ledger/disk.rs"]
mod disk;
#[path = "ledger/faults.rs"]
mod faults;
#[path = "ledger/life.rs"]
mod life;
#[path = "ledger/model.rs"]
mod model;
#[path = "ledger/power.rs"]
mod power;
#[path = "ledger/promises.rs"]
mod promises;
#[path = "ledger/steps.rs"]
mod steps;

use farebox::account::AccountId;
use farebox::clock::{Clock, Timestamp};
use farebox::ids::{PaymentId, RequestId};
use farebox::ledger::{Attempt, Claim};
use farebox::money::Micros;
use tokio::runtime::{Builder, Runtime};

fn clock() -> Clock {
    Clock::new(|| Timestamp::from_secs(1_763_640_000))
}

fn wallet(n: u8) -> AccountId {
    AccountId::Evm([n; 20])
}

fn payment(n: u8) -> PaymentId {
    PaymentId([n; 32])
}

fn attempt() -> Attempt {
    Attempt { tx: "0xaa".into(), raw: vec![2, 1], gas_nonce: 0 }
}

fn claim(id: PaymentId, payer: AccountId, amount: u64, request: u128) -> Claim {
    Claim {
        id,
        network: "eip155:84532".into(),
        asset: "0x036cbd53842c5426634e7929541ec2318f3dcf7e".into(),
        payer,
        amount: Micros::new(amount),
        request: RequestId(request),
        route: "/v1/chat/completions".into(),
        model: "echo".into(),
        detail: vec![1, 2, 3],
    }
}

fn wait<T>(future: impl Future<Output = T>) -> T {
    thread_local! {
        static RUNTIME: Runtime = Builder::new_current_thread().build().expect("a runtime without drivers");
    }
    RUNTIME.with(|runtime| runtime.block_on(future))
}
