//! Reloads, stops and deaths while dozens call: a reload drops nobody, a stop serves whom it let in, and whatever happens each
//! call is charged once and exactly, or not at all.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use farebox_rig::account::Key;
use farebox_rig::anvil::{Anvil, BUYER};
use farebox_rig::http::{self, Request};
use farebox_rig::process::{eventually, run};
use farebox_rig::server::Settings;
use serde_json::Value;

use crate::shop::{CHARGE, FIVE, Shop, USAGE, paid, with_key};

/// Three seconds of a stream.
const SLOW: &str = "<<fake in=20 out=7 words=30 gap=100>>";
/// A minute, streamed and plain.
const LONG: [&str; 2] = ["<<fake in=20 out=7 words=200 gap=300>>", "<<fake in=20 out=7 ttfb=60000>>"];
/// A plain answer that is long in coming.
const LATE: &str = "<<fake in=20 out=7 ttfb=2500>>";

/// What became of a call.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// The whole answer came, under this request id.
    Whole(String),
    /// It began and broke off.
    Broken(String),
    /// An answer that says why not.
    Refused(u16),
    /// Nobody answered.
    Nothing,
}

fn call(address: &str, request: &Request) -> Outcome {
    let Ok(answer) = http::send(address, request) else { return Outcome::Nothing };
    let id = || answer.header("x-request-id").expect("every answer has an id").to_owned();
    let stream = answer.header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream"));
    match (answer.status, answer.complete && (!stream || answer.text().ends_with("data: [DONE]\n\n"))) {
        (200, true) => Outcome::Whole(id()),
        (200, false) => Outcome::Broken(id()),
        (status, _) => Outcome::Refused(status),
    }
}

/// Sends all at once; each is waited for by whoever joins it.
fn send_all(address: &str, requests: impl IntoIterator<Item = Request>) -> Vec<JoinHandle<Outcome>> {
    let caller = |request: Request| {
        let address = address.to_owned();
        thread::spawn(move || call(&address, &request))
    };
    requests.into_iter().map(caller).collect()
}

fn join<T>(callers: Vec<JoinHandle<T>>) -> Vec<T> {
    callers.into_iter().map(|caller| caller.join().unwrap()).collect()
}

/// The ids of calls that were all served.
fn ids(outcomes: &[Outcome]) -> Vec<&str> {
    let id = |outcome: &Outcome| match outcome {
        Outcome::Whole(_) => (),
        other => panic!("not served: {other:?}"),
    };
    outcomes.iter().for_each(id);
    outcomes.iter().filter_map(served).collect()
}

fn served(outcome: &Outcome) -> Option<&str> {
    match outcome {
        Outcome::Whole(id) => Some(id),
        _ => None,
    }
}

/// A shop for which dozens of calls of one wallet are nothing, and a key with money behind it.
fn busy_shop() -> (Shop, Key) {
    let wide = ["per_ip_per_second", "per_ip_burst", "per_account_per_second", "per_account_burst", "streams_per_account"];
    let wide = wide.into_iter().chain(["payments_per_ip_per_minute", "top_ups_per_ip_per_minute", "statement_reads_per_minute"]);
    let limits = wide.map(|limit| format!("{limit} = 4000")).collect();
    let mut shop = Shop::on(Anvil::start(8453), Settings { limits, ..Settings::default() });
    let key = shop.key();
    (shop, key)
}

/// What each call has cost so far, as the books on the disk say it, and its ceiling; panics when one was charged twice.
fn receipts(shop: &Shop) -> BTreeMap<String, (u64, u64)> {
    let (code, rows, said) = run(shop.server.command(&["export", "--what", "receipts", "--format", "jsonl"]), "");
    assert_eq!(code, 0, "{said}");
    let mut receipts = BTreeMap::new();
    for row in rows.lines() {
        let row: Value = serde_json::from_str(row).unwrap();
        let number = |name: &str| row[name].as_u64().unwrap_or_else(|| panic!("{name}: {row}"));
        let id = row["request"].as_str().unwrap().to_owned();
        let before = receipts.insert(id, (number("charge_micros"), number("ceiling_micros")));
        assert_eq!(before, None, "charged twice: {row}");
    }
    receipts
}

/// What was charged in all.
fn charged(receipts: &BTreeMap<String, (u64, u64)>) -> u64 {
    receipts.values().map(|(charge, _)| charge).sum()
}

/// Calls that the upstream served to their end.
fn done_upstream(shop: &Shop) -> usize {
    shop.upstream.calls().iter().filter(|call| call["outcome"] == "done").count()
}

#[test]
fn ten_reloads_under_load_drop_no_stream_and_each_call_costs_one_of_the_prices() {
    let (mut shop, key) = busy_shop();
    let bought = paid(|request| shop.server.send(request), &[SLOW; 10], true);
    shop.came_in(bought.iter().map(|(_, amount)| amount).sum(), 0);
    let slow = bought.into_iter().map(|(request, _)| request).chain((0..20).map(|_| with_key(&key, SLOW, true)));
    let slow = send_all(shop.server.address(), slow);
    eventually("all streams run", || shop.upstream.calls().len() == 30);
    let over = Arc::new(AtomicBool::new(false));
    let callers = (0..6).map(|number| {
        let (address, request) = (shop.server.address().to_owned(), with_key(&key, USAGE, number % 2 == 0));
        let over = Arc::clone(&over);
        thread::spawn(move || {
            let mut outcomes = Vec::new();
            while !over.load(Ordering::Relaxed) {
                outcomes.push(call(&address, &request));
                // The upstream remembers its last 5,000 calls.
                thread::sleep(Duration::from_millis(10));
            }
            outcomes
        })
    });
    let callers: Vec<_> = callers.collect();
    let (cheap, dear) = ("input = \"3\", output = \"15\"", "input = \"12\", output = \"60\"");
    for number in 0..10 {
        let (from, to) = if number % 2 == 0 { (cheap, dear) } else { (dear, cheap) };
        shop.server.reconfigure(|text| text.replace(from, to));
        let (code, said) = shop.server.reload();
        assert!(code == 0 && said.contains("price.input"), "{said}");
        let before = shop.upstream.calls().len();
        eventually("calls are served at the new price", || shop.upstream.calls().len() > before + 6);
    }
    over.store(true, Ordering::Relaxed);
    let short: Vec<_> = join(callers).concat();
    let slow = join(slow);
    let (short, slow) = (ids(&short), ids(&slow));
    assert_eq!(done_upstream(&shop), short.len() + slow.len(), "each was served once");
    let mut receipts = receipts(&shop);
    eventually("all are in the books", || {
        receipts = self::receipts(&shop);
        receipts.len() == short.len() + slow.len()
    });
    assert!(slow.iter().all(|id| receipts[*id].0 == CHARGE), "who began at a price pays it: {receipts:?}");
    let at = |price: u64| short.iter().filter(|id| receipts[**id].0 == price).count();
    assert!(at(CHARGE) > 0 && at(4 * CHARGE) > 0 && at(CHARGE) + at(4 * CHARGE) == short.len(), "{receipts:?}");
    shop.came_in(0, charged(&receipts));
    shop.close();
}

#[test]
fn stops_under_load_serve_whom_they_let_in_and_nobody_else_pays() {
    let (mut shop, key) = busy_shop();
    for round in 0..3 {
        shop.upstream.reset();
        let bought = paid(|request| shop.server.send(request), &[SLOW; 8], true);
        let brought: u64 = bought.iter().map(|(_, amount)| amount).sum();
        let requests = bought.into_iter().map(|(request, _)| request);
        let requests = requests.chain((0..12).map(|_| with_key(&key, SLOW, true)));
        let requests = requests.chain((0..6).map(|_| with_key(&key, LATE, false)));
        let running = send_all(shop.server.address(), requests);
        eventually("all are at work", || shop.upstream.calls().len() == 26);
        // These come and go until nobody answers any more.
        let coming = (0..6).map(|number| {
            let (address, request) = (shop.server.address().to_owned(), with_key(&key, USAGE, number % 2 == 0));
            thread::spawn(move || {
                let mut outcomes = vec![call(&address, &request)];
                while outcomes.last() != Some(&Outcome::Nothing) {
                    outcomes.push(call(&address, &request));
                }
                outcomes
            })
        });
        let coming: Vec<_> = coming.collect();
        eventually("the house is full", || shop.upstream.calls().len() > 26 + 20);
        shop.server.signal();
        let running = join(running);
        let coming = join(coming).concat();
        shop.server.wait_exit();
        assert_eq!(ids(&running).len(), 26, "round {round}");
        let refused = |outcome: &&Outcome| !matches!(outcome, Outcome::Whole(_) | Outcome::Refused(503) | Outcome::Nothing);
        assert_eq!(coming.iter().find(refused), None, "round {round}: served whole, or told that it stops, or not let in");
        let whole = 26 + coming.iter().filter_map(served).count();
        assert_eq!((done_upstream(&shop), shop.upstream.calls().len()), (whole, whole), "the upstream worked for nobody else");
        shop.came_in(brought, whole as u64 * CHARGE);
        let books = shop.server.verify(&["--chain"]);
        assert!(books.clean, "round {round}: {:#}", books.json);
        assert_eq!(books.balance(BUYER.address), shop.left(), "round {round}: {:#}", books.json);
        shop.server.restart();
    }
    shop.close();
}

#[test]
fn deaths_under_load_cost_no_buyer_anything_and_what_was_over_stays_charged() {
    let (mut shop, key) = busy_shop();
    let (mut over, mut running) = (Vec::new(), Vec::new());
    for _ in 0..3 {
        // Over before the others begin, which then run for seconds.
        let bought = paid(|request| shop.server.send(request), &[USAGE; 4], false);
        let requests = bought.into_iter().map(|(request, _)| request).chain((0..8).map(|_| with_key(&key, USAGE, true)));
        over.extend(join(send_all(shop.server.address(), requests)));
        eventually("what is over is on the disk", || {
            let receipts = receipts(&shop);
            ids(&over).iter().all(|id| receipts.contains_key(*id))
        });
        let before = shop.upstream.calls().len();
        let bought = paid(|request| shop.server.send(request), &[LONG[0]; 6], true);
        let requests = bought.into_iter().map(|(request, _)| request);
        let requests = requests.chain((0..12).map(|_| with_key(&key, LONG[0], true)));
        let requests = requests.chain((0..6).map(|_| with_key(&key, LONG[1], false)));
        let callers = send_all(shop.server.address(), requests);
        eventually("all are at the upstream", || shop.upstream.calls().len() == before + 24);
        shop.server.kill();
        running.extend(join(callers));
        shop.server.restart();
    }
    assert!(running.iter().all(|outcome| !matches!(outcome, Outcome::Whole(_) | Outcome::Refused(_))), "{running:?}");
    assert!(running.iter().any(|outcome| matches!(outcome, Outcome::Broken(_))), "{running:?}");
    // What a death left open is ended by the next start; what was on its way to the chain, by its watcher.
    let mut receipts = BTreeMap::new();
    eventually("no call and no payment is open", || {
        receipts = self::receipts(&shop);
        let numbers = shop.numbers();
        let mut payments = numbers.text.lines().filter(|line| line.starts_with("farebox_payments_open{"));
        numbers.get("farebox_holds") == "0" && payments.all(|line| line.contains("confirmed") || line.ends_with(" 0"))
    });
    assert!(ids(&over).iter().all(|id| receipts[*id].0 == CHARGE), "what was over is charged once and exactly: {receipts:?}");
    for outcome in &running {
        let Outcome::Broken(id) = outcome else { continue };
        // In the buyer's favour, of which the last checkpoint is the limit.
        let (charge, ceiling) = receipts.get(id).copied().unwrap_or_default();
        assert!(charge <= ceiling, "{id}: {charge} of {ceiling}");
    }
    let came_in: u64 = shop.chain.transfers().iter().map(|it| it.value).sum();
    shop.came_in(came_in - FIVE, charged(&receipts));
    shop.close();
}
