//! Hostile input: whatever a buyer sends gets a clear refusal, and nothing moves: no money, no transaction, no upstream call.

mod case;
mod judge;
mod keys;
mod messages;
mod payments;
mod run;
mod shop;
mod solana;
mod topup;
mod trouble;
mod wire;

use std::collections::HashSet;
use std::fs;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use case::Case;
use farebox::error::Code;
use farebox_rig::anvil::{Anvil, BUYER};
use farebox_rig::stub::{Stub, forward};
use messages::Messages;
use run::Runner;
use serde_json::Value;
use shop::Shop;

const WIDE: [&str; 4] = [
    "per_ip_per_second = 100000",
    "per_ip_burst = 100000",
    "payments_per_ip_per_minute = 100000",
    "top_ups_per_ip_per_minute = 100000",
];
/// An upstream that refuses does so before anything is settled, however slow the machine is.
const PATIENT: &str = "settle_after_ms = 20000";

/// Cases that run on the common server, on one of their own, later, and in another test. A change here is one of the table.
const COUNTS: [usize; 4] = [397, 67, 0, 13];

#[test]
fn every_bad_input_is_refused_in_its_own_words_and_moves_nothing() {
    let shop = Shop::open(&WIDE, &[PATIENT]);
    shop.blacklist();
    let mut runner = Runner::new(shop);
    for case in Case::all().iter().filter(|case| case.is_common()) {
        runner.run(case);
    }
    let (done, messages) = runner.finish();
    messages.assert_are_those_of("refusals.txt");
    assert_eq!(done, COUNTS[0], "every common case was run");
}

#[test]
fn an_upstream_that_never_answers_leaves_the_payment_as_the_payers_balance() {
    let server = |case: &Case| case.server.as_deref() == Some("impatient");
    let limits = [&WIDE[..], &["wall_clock_seconds = 8"]].concat();
    let mut runner = Runner::new(Shop::open(&limits, &[]));
    let cases: Vec<_> = Case::all().into_iter().filter(server).collect();
    assert!(!cases.is_empty());
    for case in &cases {
        runner.run(case);
    }
    assert_eq!(runner.finish().0, cases.len());
}

#[test]
fn a_transfer_of_another_token_serves_nobody_and_is_not_taken_for_a_failure() {
    let case = Case::all().into_iter().find(|case| case.server.as_deref() == Some("lying node")).expect("there is one");
    let chain = Anvil::start(8453);
    let (lies, node) = (Arc::new(AtomicBool::new(true)), chain.address().to_owned());
    let lying = lies.clone();
    let proxy = Stub::start(move |request| {
        let mut answer: Value = serde_json::from_str(&forward(&node, request)).ok()?;
        if lying.load(Ordering::Relaxed) {
            rename_emitters(&mut answer);
        }
        Some((200, answer.to_string()))
    });
    let mut runner = Runner::new(Shop::behind(chain, &proxy.url(), &WIDE, &[PATIENT, "settle_wait_ms = 4000"]));
    runner.run(&case);
    lies.store(false, Ordering::Relaxed);
    runner.wait_until_credited();
    assert_eq!(runner.finish().0, 1);
}

/// Every event in an answer comes from another contract than it did.
fn rename_emitters(answer: &mut Value) {
    match answer {
        Value::Array(items) => items.iter_mut().for_each(rename_emitters),
        Value::Object(fields) => {
            if fields.contains_key("topics") {
                fields.insert("address".into(), "0x00000000000000000000000000000000deadbeef".into());
            }
            fields.values_mut().for_each(rename_emitters);
        }
        _ => {}
    }
}

/// KiB that a client may take which does not read; its answer has 50 MB.
const STALLED_KIB: u64 = 256;

#[test]
fn buyers_who_do_not_read_hold_up_their_upstreams_and_do_not_fill_our_memory() {
    let case = Case::all().into_iter().find(|case| case.server.as_deref() == Some("slow readers")).expect("there is one");
    let mut runner = Runner::new(Shop::open(&WIDE, &[]));
    // The first calls make the rooms that all later ones use.
    drop((0..8).map(|_| runner.open(&case)).collect::<Vec<_>>());
    runner.wait_until_idle();
    let before = runner.shop.resident();
    let clients = case.repeat.expect("many");
    let stalled: Vec<_> = (0..clients).map(|_| runner.open(&case)).collect();
    let each = runner.shop.resident().saturating_sub(before) / clients as u64;
    assert!(each < STALLED_KIB, "{each} KiB for each of {clients} stalled clients");
    drop(stalled);
    runner.wait_until_idle();
    let moved = runner.shop.moved();
    let books = runner.shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(moved.transactions, clients as u64 + 8, "each was settled once");
    let left = books.balance(BUYER.address);
    assert!(left < moved.earned, "each is charged for what passed, at most its quote: {left} of {} is left", moved.earned);
}

#[test]
fn another_forwarded_address_with_every_request_is_still_one_caller() {
    let case = Case::all().into_iter().find(|case| case.server.as_deref() == Some("narrow")).expect("there is one");
    let mut runner = Runner::new(Shop::open(&["per_ip_per_second = 1", "per_ip_burst = 20"], &[]));
    let statuses: Vec<_> = (0..case.repeat.expect("many")).map(|_| runner.quote_only(&case)).collect();
    let (some, limited) = (case.expect_some_status.expect("a status"), statuses.iter().filter(|status| **status == 429).count());
    assert!(some == 429 && limited > statuses.len() / 2, "{statuses:?}");
    assert!(statuses.iter().all(|status| [402, 429].contains(status)), "{statuses:?}");
    assert_eq!(statuses[0], 402, "the first ones are served");
}

#[test]
fn every_key_that_is_none_or_may_not_is_refused_in_its_own_words_and_no_wallet_pays_for_it() {
    let of_keys = |case: &Case| case.server.as_deref() == Some("keys");
    let cases: Vec<_> = Case::all().into_iter().filter(of_keys).collect();
    let limits = [&WIDE[..], &["balance_reads_per_minute = 100000", "key_changes_per_ip_per_minute = 100000"]].concat();
    let (done, messages) = keys::run(&cases, &limits);
    messages.assert_are_those_of("keys.txt");
    assert_eq!(done, 21, "every one of them");
}

#[test]
fn a_buyer_in_trouble_that_is_not_its_own_is_told_what_to_do() {
    trouble::all().assert_are_those_of("troubles.txt");
}

/// Codes that no buyer can bring about here, and why.
const NOT_HEARD: &[(Code, &str)] = &[
    (Code::NotConfigured, "takes a shop without a network, which the tests of top-ups have"),
    (Code::InvalidSession, "the routes of owners are held in tests/prepaid"),
    (Code::TopUpFirst, "the routes of owners are held in tests/prepaid"),
    (Code::KeyNotEnough, "the routes of wallets are held in tests/prepaid"),
    (Code::NotAnOperator, "the routes of operators are held in tests/pages"),
    (Code::AccountBlocked, "takes an operator who bars a wallet, which tests/prepaid and tests/sale have"),
    (Code::RotationPending, "the routes of owners are held in tests/prepaid"),
    (Code::TooManyKeys, "the routes of owners are held in tests/prepaid"),
    (Code::MediaNotFound, "takes jobs, which tests/media_jobs has"),
    (Code::TooManyCalls, "takes calls that run, which tests/prepaid has"),
    (Code::InvalidSignIn, "the words of sign-ins are held by their reasons, in tests/prepaid"),
    (Code::WalletMismatch, "the routes of wallets are held in tests/prepaid"),
    (Code::LedgerUnavailable, "takes a failing disk, which the tests of the ledger have"),
    (Code::Internal, "a server that is not set up does not start"),
];

#[test]
fn every_code_that_a_buyer_can_meet_has_its_words_in_a_table() {
    let heard =
        Messages::codes(&["refusals.txt", "topups.txt", "troubles.txt", "keys.txt", "solana.txt"].map(messages::read).concat());
    for code in Code::ALL {
        let excused = NOT_HEARD.iter().any(|(other, _)| *other == code);
        assert_eq!(heard.contains(code.row().code), !excused, "{code:?}: in a table, or excused, and not both");
    }
}

#[test]
fn every_case_is_run_or_says_why_not() {
    let cases = Case::all();
    let ids: HashSet<_> = cases.iter().map(|case| &case.id).collect();
    assert_eq!(ids.len(), cases.len(), "a case has a name of its own");
    let count = |which: &dyn Fn(&Case) -> bool| cases.iter().filter(|case| which(case)).count();
    let counts = [
        count(&Case::is_common),
        count(&|case| case.server.is_some()),
        count(&|case| case.later.is_some()),
        count(&|case| case.held_by.is_some()),
    ];
    assert_eq!(counts, COUNTS, "cases on the common server, on their own, later, held by another test");
    assert_eq!(counts.iter().sum::<usize>(), cases.len(), "and none is two of these");
    for case in &cases {
        let id = &case.id;
        assert!(!case.why.is_empty() && case.later.as_ref().is_none_or(|why| why.starts_with("needs ")), "{id}");
        if let Some(held_by) = &case.held_by {
            let (file, name) = held_by.split_once(' ').expect("a file and a test");
            let path = format!("{}/{file}", env!("CARGO_MANIFEST_DIR"));
            let source = fs::read_to_string(&path).unwrap_or_else(|error| panic!("{id}: {path}: {error}"));
            assert!(source.contains(&format!("fn {name}(")), "{id}: {file} has no test {name}");
        }
    }
}
