//! How many calls a second the ledger takes by itself: each held, charged and durable before its caller goes on.

use std::path::Path;
use std::process;
use std::rc::Rc;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use farebox::account::AccountId;
use farebox::clock::{Clock, Period, Timestamp};
use farebox::ids::{KeyId, PaymentId, RequestId};
use farebox::ledger::{Attempt, Claim, Draw, FILE, KeyDraw, Ledger, Options as Books, Report as Checked};
use farebox::money::Micros;
use farebox::tariff::Usage;
use tokio::task::LocalSet;

use crate::folder::Folder;
use crate::measure::{cpu_ns, median, runtime};
use crate::report::{Report, Target};
use crate::stage::Options;

const WALLETS: u64 = 1_000;
const CREDIT: u64 = 1_000_000_000_000;
/// Micros that each call holds, and costs.
const HELD: u64 = 9_000;
const COST: u64 = 1_234;
/// Callers at the same time; the target is about the middle.
const CALLERS: [usize; 3] = [1, 64, 512];

/// Calls of wallets by their keys, with a daily limit: a hold, a charge, a receipt, sums of usage and of spending. A caller
/// goes on once the disk has its charge, so there are as many charges in a commit as there are callers.
pub fn postings(report: &mut Report, options: &Options) -> Result<(), String> {
    let folder = Folder::new().map_err(|error| error.to_string())?;
    let path = folder.path().join(FILE);
    let ledger = open(&path)?;
    let runtime = runtime().map_err(|error| error.to_string())?;
    let mut calls = 0;
    runtime.block_on(at_once(64, WALLETS as usize, |n| credit(ledger.clone(), n)));
    for callers in CALLERS {
        let count = options.count(callers * 600);
        let (mut rates, mut cpu) = (Vec::new(), Vec::new());
        for _ in 0..options.rounds {
            let (began, spent) = (Instant::now(), cpu_ns(process::id()));
            let first = calls;
            runtime.block_on(at_once(callers, count, |n| call(ledger.clone(), first + n)));
            calls += count as u64;
            rates.push(count as f64 / began.elapsed().as_secs_f64());
            cpu.push((cpu_ns(process::id()) - spent) as f64 / 1e3 / count as f64);
        }
        let target = if callers == 64 { Target::AtLeast(30_000.0) } else { Target::Shown };
        let name = format!("durable charges by {callers} callers");
        report.add(&name, median(&rates), "1/s", target, "held, charged with a receipt, and durable before the caller goes on");
        let note = "of the callers and of the writer together";
        report.add(&format!("{name}, CPU each"), median(&cpu), "us", Target::Shown, note);
    }
    ledger.close();
    drop(ledger);
    judge(&path, calls)
}

/// What was charged is what the books say, to the micro.
fn judge(path: &Path, calls: u64) -> Result<(), String> {
    let checked = Checked::of_file(path, |_| {}).map_err(|error| error.to_string())?;
    let sales = checked.house.get("sales").copied().unwrap_or(0);
    let is_right = checked.ok && checked.receipts as u64 == calls && u64::try_from(sales) == Ok(calls * COST);
    let said = || format!("{calls} calls were charged {sales} micros: {}", checked.problems.join("; "));
    if is_right { Ok(()) } else { Err(said()) }
}

fn open(path: &Path) -> Result<Ledger, String> {
    let now = || SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
    let clock = Clock::new(move || Timestamp::from_secs(now()));
    let books = Books { hold_durable_above: Micros::new(250_000), ..Books::default() };
    Ledger::open(path, clock, books).map(|(ledger, _)| ledger).map_err(|error| error.to_string())
}

/// Does `count` pieces of work, so many at a time.
async fn at_once<F: Future<Output = ()> + 'static>(callers: usize, count: usize, work: impl Fn(u64) -> F) {
    let tasks = LocalSet::new();
    let pieces: Vec<F> = (0..count as u64).map(work).collect();
    let pieces = Rc::new(std::cell::RefCell::new(pieces));
    for _ in 0..callers {
        let pieces = Rc::clone(&pieces);
        tasks.spawn_local(async move {
            loop {
                let Some(piece) = pieces.borrow_mut().pop() else { break };
                piece.await;
            }
        });
    }
    tasks.await;
}

fn wallet(n: u64) -> AccountId {
    let mut address = [7; 20];
    address[12..].copy_from_slice(&n.to_be_bytes());
    AccountId::Evm(address)
}

async fn credit(ledger: Ledger, n: u64) {
    let mut id = [1; 32];
    id[24..].copy_from_slice(&n.to_be_bytes());
    let claim = Claim {
        id: PaymentId(id),
        network: "eip155:8453".into(),
        asset: "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913".into(),
        payer: wallet(n),
        amount: Micros::new(CREDIT),
        request: RequestId(u128::from(n) | 1 << 120),
        route: "/v1/x402/top-up".into(),
        model: None,
        detail: vec![7; 400],
    };
    let deposit = ledger.deposit(claim).await.expect("a new payment");
    let attempt = Attempt { tx: "0xaa".into(), raw: vec![7; 420], bound_to: n };
    ledger.signed(PaymentId(id), attempt).expect("claimed").wait().await.expect("durable");
    ledger.confirmed(PaymentId(id), "0xaa", n).expect("signed").wait().await.expect("durable");
    drop(deposit);
}

async fn call(ledger: Ledger, n: u64) {
    // As real ones: they begin with the time, and the rest is random.
    let request = RequestId(u128::from(1_763_640_000_000 + n / 30) << 80 | u128::from(n.wrapping_mul(0x9E37_79B9_7F4A_7C15)));
    let payer = n.wrapping_mul(0x2545_F491_4F6C_DD1D) % WALLETS;
    let key = KeyDraw { id: KeyId(u128::from(payer) + 1), limit: Some(Micros::new(CREDIT)), period: Period::Day };
    let draw = Draw {
        wallet: wallet(payer),
        amount: Micros::new(HELD),
        request,
        model: "claude-sonnet-4-6".into(),
        path: "/v1/chat/completions".into(),
        key: Some(key),
        nonce: None,
        most_calls: 1_000,
    };
    let reservation = ledger.reserve(draw).await.expect("there is balance");
    let paid = reservation.paid().unwrap_or_else(|_| panic!("the money is there"));
    let usage = Usage { input: 800, output: 200, ..Usage::default() };
    assert_eq!(paid.post(Micros::new(COST), usage), Micros::new(COST));
    ledger.flush().expect("it goes on").wait().await.expect("durable");
}
