//! How a large ledger behaves: opening, opening after a kill, checking, rewriting, in seconds and bytes, as a list of figures in JSON.
//!
//! `cargo run --release --example ledger_size -- 1000000` builds a ledger of a million postings in a temporary folder. Every
//! figure is taken in a process of its own, so that its memory is its own.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use farebox::account::AccountId;
use farebox::clock::{Clock, Timestamp};
use farebox::ids::{PaymentId, RequestId};
use farebox::ledger::{Attempt, Claim, Draw, FILE, Ledger, Options, Report};
use farebox::money::Micros;
use farebox::tariff::Usage;
use serde_json::{Value, json};

/// Buyers at the same time while the ledger is built.
const AT_ONCE: u64 = 512;
const WALLETS: u64 = 10_000;
/// A paid call leaves three transfers, and a call from the balance one; each is two postings.
const POSTINGS_OF_A_PAIR: u64 = 8;

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["build", path, first, pairs] => build(Path::new(path), number(first), number(pairs)),
        ["build-and-die", path, first, pairs] => {
            build(Path::new(path), number(first), number(pairs));
            std::process::abort();
        }
        ["open", path] => measured(|| drop(open(Path::new(path)))),
        ["verify", path] => measured(|| {
            let mut payments = 0;
            let report = Report::of_file(Path::new(path), |_| payments += 1).expect("the ledger can be read");
            assert!(report.ok && payments > 0, "{:?}", report.problems);
        }),
        [postings] => everything(number(postings)),
        [] => everything(1_000_000),
        _ => panic!("one number of postings"),
    }
}

fn number(text: &str) -> u64 {
    text.parse().expect("a number")
}

fn everything(postings: u64) {
    let folder = tempfile::TempDir::new().expect("a temporary folder");
    let path = folder.path().join(FILE);
    let text = path.to_str().expect("a path in UTF-8");
    let pairs = postings.div_ceil(POSTINGS_OF_A_PAIR);
    let began = Instant::now();
    again(&["build", text, "0", &pairs.to_string()]);
    let build = began.elapsed().as_secs_f64();
    let clean = again(&["open", text]);
    again(&["build-and-die", text, &pairs.to_string(), "100"]);
    let killed = again(&["open", text]);
    let verify = again(&["verify", text]);
    std::fs::write(path.with_extension("suspect"), "a write had failed").expect("the folder is writable");
    let rewrite = again(&["open", text]);
    let bytes = std::fs::metadata(&path).expect("the ledger is there").len();
    let figure = |what: &str, value: f64, unit: &str, note: &str| json!({ "figure": format!("ledger of {postings} postings: {what}"), "value": value, "unit": unit, "note": note });
    let mut figures = vec![
        figure("file", bytes as f64 / 1e6, "MB", &format!("{pairs} payments of {WALLETS} wallets")),
        figure("building it", build, "s", "512 buyers at once, every commit durable"),
    ];
    for (what, taken, note) in [
        ("opening", &clean, "after a stop in good order"),
        ("opening after a kill", &killed, "the library's repair is in it"),
        ("farebox verify", &verify, "every rule of the books"),
        ("opening after a failed write", &rewrite, "all of it is read into a new file"),
    ] {
        let number = |name: &str| taken[name].as_f64().expect("every step prints its figures");
        figures.push(figure(what, number("seconds"), "s", note));
        figures.push(figure(&format!("memory of {what}"), number("most_resident_bytes") / 1e6, "MB", "the most, resident"));
    }
    let figures = Value::from(figures);
    println!("{figures}");
}

/// This program once more, with these arguments; what it prints.
fn again(arguments: &[&str]) -> Value {
    let program = std::env::current_exe().expect("this program has a path");
    let output = Command::new(program).args(arguments).stderr(Stdio::inherit()).output().expect("this program starts");
    assert!(output.status.success() || arguments[0].ends_with("die"), "{arguments:?} ended with {}", output.status);
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}

/// Prints the seconds and the most memory that `work` took.
fn measured(work: impl FnOnce()) {
    let began = Instant::now();
    work();
    let seconds = began.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status").expect("Linux tells about memory");
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("Linux tells about memory");
    let kilobytes = number(line.trim().trim_end_matches(" kB"));
    println!("{}", json!({ "seconds": seconds, "most_resident_bytes": kilobytes * 1024 }));
}

fn open(path: &Path) -> Ledger {
    let clock = Clock::new(|| Timestamp::from_secs(1_763_640_000));
    let (ledger, _) = Ledger::open(path, clock, Options::default()).expect("the ledger opens");
    ledger
}

/// Sells `pairs` pairs of a paid call and a call from what it left as balance, numbered from `first`, many at once.
fn build(path: &Path, first: u64, pairs: u64) {
    let ledger = open(path);
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime without drivers");
    let buyers = tokio::task::LocalSet::new();
    for buyer in 0..AT_ONCE {
        let ledger = ledger.clone();
        buyers.spawn_local(async move {
            for n in (first + buyer..first + pairs).step_by(AT_ONCE as usize) {
                sell(&ledger, n).await;
            }
        });
    }
    runtime.block_on(buyers);
    if first == 0 {
        ledger.close();
    }
}

async fn sell(ledger: &Ledger, n: u64) {
    let mut bytes = [0; 32];
    bytes[24..].copy_from_slice(&n.to_be_bytes());
    let id = PaymentId(bytes);
    let mut address = [0; 20];
    address[12..].copy_from_slice(&(n % WALLETS).to_be_bytes());
    let payer = AccountId::Evm(address);
    let claim = Claim {
        id,
        network: "eip155:8453".into(),
        asset: "0x833589fcd6edb6e08f4c7c32d4f71b54bda02913".into(),
        payer,
        amount: Micros::new(10_000),
        request: RequestId(u128::from(n)),
        route: "/v1/chat/completions".into(),
        model: Some("echo".into()),
        detail: vec![7; 400],
    };
    let usage = Usage { input: 900, output: 300, ..Usage::default() };
    let reservation = ledger.claim(claim).await.expect("a new payment");
    let attempt = Attempt { tx: format!("0x{n:064x}"), raw: vec![7; 420], bound_to: n };
    ledger.signed(id, attempt).expect("claimed").wait().await.expect("durable");
    ledger.confirmed(id, &format!("0x{n:064x}"), n).expect("signed").wait().await.expect("durable");
    let paid = reservation.paid().unwrap_or_else(|_| panic!("the money is there"));
    assert_eq!(paid.post(Micros::new(4_000), usage), Micros::new(4_000));
    ledger.finalized(id).expect("confirmed");
    let request = RequestId(u128::from(n) | 1 << 100);
    let draw = Draw {
        wallet: payer,
        amount: Micros::new(5_000),
        request,
        model: "echo".into(),
        path: "/v1/chat/completions".into(),
        key: None,
        nonce: None,
        most_calls: 16,
    };
    let reservation = ledger.reserve(draw).await.expect("there is balance");
    let paid = reservation.paid().unwrap_or_else(|_| panic!("the money is there"));
    assert_eq!(paid.post(Micros::new(3_000), usage), Micros::new(3_000));
}
