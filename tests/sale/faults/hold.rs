//! Death while balance is held, in the ledger alone: it is driven by a process of its own; `prepaid` dies in whole calls.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use farebox::account::AccountId;
use farebox::clock::{Clock, Timestamp};
use farebox::fault;
use farebox::ids::{PaymentId, RequestId};
use farebox::ledger::{Attempt, Claim, Draw, FILE, Ledger, Options, Report};
use farebox::money::Micros;

use super::{TIMES, when_free};

pub const POINTS: [&str; 3] = ["hold.before", "hold.noted", "hold.after"];

const WALLET: AccountId = AccountId::Evm([9; 20]);
const CREDIT: Micros = Micros::new(1_000_000);
/// A test starts itself again with the folder and the fault in here.
const CHILD: &str = "TEST_HOLD_AND_DIE";

fn open(folder: &Path) -> Ledger {
    let clock = Clock::new(|| Timestamp::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()));
    // Holds above this are durable before their call goes on.
    let options = Options { hold_durable_above: Micros::new(10_000), ..Options::default() };
    when_free(|| Ledger::open(&folder.join(FILE), clock.clone(), options)).0
}

#[test]
fn a_death_while_balance_is_held_gives_it_back() {
    if let Ok(order) = std::env::var(CHILD) {
        return hold_and_die(&order);
    }
    for point in POINTS {
        for nth in 1..=TIMES {
            let folder = tempfile::tempdir().unwrap();
            let mut child = Command::new(std::env::current_exe().unwrap());
            child.args(["--exact", "faults::hold::a_death_while_balance_is_held_gives_it_back", "--nocapture"]);
            let output = child.env(CHILD, format!("{point}:{nth} {}", folder.path().display())).output().unwrap();
            let said = String::from_utf8_lossy(&output.stderr).into_owned();
            assert_eq!(output.status.signal(), Some(6), "{point}:{nth} was not reached: {said}");
            for again in 0..2 {
                let ledger = open(folder.path());
                assert_eq!(
                    ledger.available(WALLET),
                    CREDIT,
                    "{point}:{nth}, start {again}: nothing was served, so nothing is gone"
                );
                assert_eq!(ledger.open_holds(), 0);
                ledger.close();
                drop(ledger);
                let report = when_free(|| Report::of_file(&folder.path().join(FILE), |_| {}));
                assert!(report.ok, "{point}:{nth}: {:?}", report.problems);
            }
        }
    }
}

/// The child: a wallet with money, calls that hold some of it, small ones and large ones, until it dies.
fn hold_and_die(order: &str) {
    let (fault, folder) = order.split_once(' ').unwrap();
    let ledger = open(Path::new(folder));
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        let id = PaymentId([1; 32]);
        let claim = Claim {
            id,
            network: "eip155:84532".into(),
            asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e".into(),
            payer: WALLET,
            amount: CREDIT,
            request: RequestId(1),
            route: "/v1/messages".into(),
            model: Some("m".into()),
            detail: Vec::new(),
        };
        let reservation = ledger.claim(claim).await.unwrap_or_else(|denied| panic!("{denied}"));
        let attempt = Attempt { tx: "0x01".into(), raw: Vec::new(), bound_to: 0 };
        ledger.signed(id, attempt).unwrap().wait().await.unwrap();
        ledger.confirmed(id, "0x01", 1).unwrap().wait().await.unwrap();
        reservation.void();
        fault::arm(fault).unwrap();
        let mut held = Vec::new();
        for call in 0..12 {
            let amount = Micros::new(if call % 2 == 0 { 500 } else { 20_000 });
            let draw = Draw {
                wallet: WALLET,
                amount,
                request: RequestId(100 + call),
                model: "m".into(),
                path: "/v1/messages".into(),
                key: None,
                nonce: None,
                most_calls: 100,
            };
            held.push(ledger.reserve(draw).await);
        }
    });
}
