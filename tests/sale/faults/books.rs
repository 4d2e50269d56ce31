//! Death at each step of a top-up, a longer hold, a refund and a key's event: what was acknowledged is there, nothing is there twice.
//!
//! The test starts itself once more: the child works on the books until it dies, and says on a line of its own what it was
//! promised; the parent opens them and looks.

use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use farebox::account::AccountId;
use farebox::clock::{Clock, Timestamp};
use farebox::fault;
use farebox::ids::{PaymentId, RequestId};
use farebox::ledger::{Attempt, Claim, Draw, FILE, Ledger, Options, Report, State};
use farebox::money::Micros;
use farebox::tariff::Usage;

use super::{TIMES, when_free};

pub const POINTS: [&str; 8] = [
    "deposit.before",
    "deposit.after",
    "deposit.back",
    "extend.before",
    "extend.after",
    "refund.before",
    "refund.after",
    "key.before",
];

const WALLET: AccountId = AccountId::Evm([9; 20]);
/// What each round brings in, what its call costs, and what of that is given back. Micros.
const BROUGHT: u64 = 1_000;
const COST: u64 = 700;
const GIVEN_BACK: u64 = 200;
/// A test starts itself again with the folder and the fault in here.
const CHILD: &str = "TEST_WORK_AND_DIE";

fn open(folder: &Path) -> Ledger {
    let clock = Clock::new(|| Timestamp::from_secs(SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs()));
    when_free(|| Ledger::open(&folder.join(FILE), clock.clone(), Options::default())).0
}

fn payment(n: u8) -> PaymentId {
    PaymentId([n; 32])
}

#[test]
fn a_death_while_the_books_are_kept_loses_nothing_acknowledged_and_does_nothing_twice() {
    if let Ok(order) = std::env::var(CHILD) {
        return work_and_die(&order);
    }
    for point in POINTS {
        for nth in 1..=TIMES {
            let folder = tempfile::tempdir().unwrap();
            let mut child = Command::new(std::env::current_exe().unwrap());
            let name = "faults::books::a_death_while_the_books_are_kept_loses_nothing_acknowledged_and_does_nothing_twice";
            child.args(["--exact", name, "--nocapture"]);
            let output = child.env(CHILD, format!("{point}:{nth} {}", folder.path().display())).output().unwrap();
            let said = String::from_utf8_lossy(&output.stdout).into_owned();
            assert_eq!(output.status.signal(), Some(6), "{point}:{nth} was not reached: {said}");
            let promised = |what: &str| said.lines().filter(|line| *line == what).count() as u64;
            let promises = ["topped up", "given back", "journalled"].map(promised);
            for again in 0..2 {
                judge(folder.path(), promises, &format!("{point}:{nth}, start {again}"));
            }
        }
    }
}

/// What was promised is there; of what was not, at most the one step that the death fell into.
fn judge(folder: &Path, [topped_up, given_back, journalled]: [u64; 3], what: &str) {
    let ledger = open(folder);
    let lines = ledger.statement(WALLET, 1_000, 0).unwrap().0;
    let sum_of = |amount: u64| lines.iter().filter(|line| line.amount == amount as i64).count() as u64;
    let one_more = |promised: u64, found: u64| found == promised || found == promised + 1;
    assert!(one_more(topped_up, sum_of(BROUGHT)), "{what}: {topped_up} top-ups were acknowledged: {lines:?}");
    assert!(one_more(given_back, sum_of(GIVEN_BACK)), "{what}: {given_back} refunds were acknowledged: {lines:?}");
    let events = ledger.key_events_after(0).unwrap().len() as u64;
    assert!(one_more(journalled, events), "{what}: {journalled} events were acknowledged, {events} are there");
    assert_eq!(ledger.open_holds(), 0, "{what}");
    // Nothing was signed for a top-up that nobody waits for: the same payment may be brought again.
    for row in (0..200).filter_map(|n| ledger.payment(payment(n)).unwrap()) {
        assert!(matches!(row.state, State::Confirmed | State::Voided | State::Signed), "{what}: {:?}", row.state);
        assert_eq!(row.state == State::Signed, !row.attempts.is_empty() && row.confirmed.is_none(), "{what}");
    }
    let (posted, sum) = (ledger.standing(WALLET).unwrap(), lines.iter().map(|line| line.amount).sum::<i64>());
    assert_eq!((posted.posted.get() as i64, posted.held), (sum, Micros::ZERO), "{what}");
    ledger.close();
    drop(ledger);
    let report = when_free(|| Report::of_file(&folder.join(FILE), |_| {}));
    assert!(report.ok, "{what}: {:?}", report.problems);
}

/// The child: brings money, has calls that grow, gets some of their cost back, and changes keys, until it dies.
fn work_and_die(order: &str) {
    let (fault, folder) = order.split_once(' ').unwrap();
    let ledger = open(Path::new(folder));
    fault::arm(fault).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    runtime.block_on(async {
        for n in 0..50 {
            one_round(&ledger, n).await;
        }
    });
}

async fn one_round(ledger: &Ledger, n: u8) {
    drop(ledger.deposit(claim(100 + n, n)).await.unwrap_or_else(|denied| panic!("{denied}")));
    let deposit = ledger.deposit(claim(n, n)).await.unwrap_or_else(|denied| panic!("{denied}"));
    let attempt = Attempt { tx: "0x01".into(), raw: Vec::new(), bound_to: 0 };
    ledger.signed(payment(n), attempt).unwrap().wait().await.unwrap();
    ledger.confirmed(payment(n), "0x01", 1).unwrap().wait().await.unwrap();
    println!("\ntopped up");
    drop(deposit);
    let request = RequestId(1 << 64 | u128::from(n));
    let draw = Draw { amount: Micros::new(COST / 2), request, ..draw_of(WALLET) };
    let reservation = ledger.reserve(draw).await.unwrap_or_else(|denied| panic!("{denied}"));
    let mut paid = reservation.paid().unwrap_or_else(|_| panic!("the balance is there"));
    assert_eq!(paid.extend(Micros::new(BROUGHT)), Ok(Micros::new(BROUGHT - COST / 2)), "as much as there is");
    assert_eq!(paid.post(Micros::new(COST), Usage::default()), Micros::new(COST));
    ledger.flush().unwrap().wait().await.unwrap();
    ledger.refund(request, Some(Micros::new(GIVEN_BACK))).await.unwrap();
    println!("\ngiven back");
    ledger.journal_key(vec![n]).unwrap().1.wait().await.unwrap();
    println!("\njournalled");
    // What is left goes to the operator, so that each round is alike.
    let rest = Draw { amount: ledger.available(WALLET), request: RequestId(2 << 64 | u128::from(n)), ..draw_of(WALLET) };
    let paid = ledger.reserve(rest).await.ok().and_then(|reservation| reservation.paid().ok()).expect("there is balance");
    let _ = paid.post(Micros::new(BROUGHT - COST + GIVEN_BACK), Usage::default());
}

fn draw_of(wallet: AccountId) -> Draw {
    Draw {
        wallet,
        amount: Micros::ZERO,
        request: RequestId(0),
        model: "m".into(),
        path: "/v1/messages".into(),
        key: None,
        nonce: None,
        most_calls: 1,
    }
}

fn claim(id: u8, n: u8) -> Claim {
    Claim {
        id: payment(id),
        network: "eip155:84532".into(),
        asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e".into(),
        payer: WALLET,
        amount: Micros::new(BROUGHT),
        request: RequestId(3 << 64 | u128::from(id) << 8 | u128::from(n)),
        route: "/v1/x402/top-up".into(),
        model: None,
        detail: Vec::new(),
    }
}
