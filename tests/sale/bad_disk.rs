//! The disk fails under a sale, or is full: buyers are told, the program ends, and the next start finds who holds the money.

use std::fs;
use std::process::Command;

use farebox_rig::anvil::BUYER;
use farebox_rig::buyer::{Intent, sign};
use farebox_rig::http::{self, Answer};
use farebox_rig::process::{Process, eventually};
use serde_json::Value;

use crate::shop::{CHARGE, CHAT, Payment, Shop, USAGE, body, now, paid};

/// What the program ends with when its ledger has failed.
const FAIL_STOP: i32 = 70;
/// More payments than one start and one sale have operations on the disk.
const PAYMENTS: usize = 160;

#[test]
fn an_input_output_error_at_any_operation_of_a_start_and_a_sale_costs_nobody_anything() {
    let rounds = fail_at_every_operation("any:EIO", "");
    assert!(rounds > 20, "a start and a sale have only {rounds} operations on the disk?");
}

#[test]
fn a_disk_that_fails_to_sync_costs_nobody_anything() {
    let rounds = fail_at_every_operation("sync:EIO", "");
    assert!(rounds > 5, "a start and a sale have only {rounds} syncs?");
}

#[test]
fn a_disk_that_is_full_from_any_sync_on_costs_nobody_anything() {
    let rounds = fail_at_every_operation("sync:ENOSPC", ":sticky");
    assert!(rounds > 5, "a start and a sale have only {rounds} syncs?");
}

/// A shop with many signed payments for the same call.
fn shop_with_payments(count: usize) -> (Shop, String, Vec<Payment>) {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let requirements = shop.requirements(CHAT, &body);
    let amount: u64 = requirements["amount"].as_str().unwrap().parse().unwrap();
    let intent = Intent { wallet: BUYER, requirements, valid_before: now() + 3600 };
    let signed: Vec<Value> = sign(&vec![intent; count]);
    shop.server.kill();
    (shop, body, signed.into_iter().map(|signed| Payment { signed, amount }).collect())
}

/// Lives through a start and a sale once for each operation; returns how many rounds the fault struck.
fn fail_at_every_operation(what: &str, how: &str) -> usize {
    let (mut shop, body, payments) = shop_with_payments(PAYMENTS);
    let mut struck = 0;
    for (index, payment) in payments.iter().enumerate() {
        // New books each time, so that every round has the same operations, the making of the file among them.
        fs::remove_dir_all(shop.server.data_dir()).unwrap();
        let fault = format!("{what}:{}{how}", index + 1);
        let (answer, log) = sell_on_a_bad_disk(&shop, &body, payment, &fault);
        struck = index;
        if let Some(answer) = &answer {
            is_honest(answer, &fault);
        }
        if !log.contains("fault of the disk strikes") {
            assert_eq!(answer.map(|answer| answer.status), Some(200), "a healthy disk sells");
            break;
        }
        shop.server.restart();
        let second = insist(&shop, &body, payment);
        let books = shop.server.audit();
        assert!(books.clean, "{fault}: {:#}", books.json);
        let whole = |answer: &Answer| answer.status == 200 && answer.complete;
        let first = answer.is_some_and(|answer| whole(&answer));
        assert!(!(first && whole(&second)), "{fault}: one payment bought two answers");
        assert_eq!(shop.earned(), payment.amount * (index as u64 + 1), "{fault}: every payment arrives exactly once");
        let charged = payment.amount - books.balance(BUYER.address);
        let most = if first || whole(&second) { CHARGE } else { 0 };
        assert!(charged <= most, "{fault}: charged {charged} for what is worth at most {most}: {:#}", books.json);
    }
    assert!(struck + 1 < payments.len(), "more payments are needed to reach the last operation");
    struck
}

/// Starts on a disk with this fault and buys once, if it comes to that; stops a program that the fault did not reach.
fn sell_on_a_bad_disk(shop: &Shop, body: &str, payment: &Payment, fault: &str) -> (Option<Answer>, String) {
    let mut command = shop.server.command(&["serve"]);
    command.env("FAREBOX_DISK_FAULT", fault);
    let mut process = Process::spawn(command);
    let address = process.wait_for_or_end("listening on http://");
    let listened = address.is_some();
    // A connection that breaks is no answer; the program may be ending already.
    let answer = address.and_then(|address| http::send(&address, &paid(CHAT, body, payment)).ok());
    // What nobody waits for is written a few milliseconds after the answer; a stop in good order writes it, too.
    if process.is_running() {
        process.signal();
    }
    let status = process.wait_exit();
    let log = process.output();
    // What a database writes on its way out, when all commits are done, only spares the next start some work.
    let failed = !listened || log.contains("the ledger has stopped");
    assert_eq!(status.code(), Some(if failed { FAIL_STOP } else { 0 }), "{fault}: the program ended otherwise:\n{log}");
    (answer, log)
}

/// While money may move, nobody is told to pay again.
fn is_honest(answer: &Answer, fault: &str) {
    match answer.status {
        200 => {}
        503 => assert_eq!(answer.code(), "ledger_unavailable", "{fault}: {}", answer.text()),
        504 => assert_eq!(answer.code(), "settlement_pending", "{fault}: {}", answer.text()),
        409 => assert_ne!(answer.json()["error"]["outcome"], "failed", "{fault}: {}", answer.text()),
        other => panic!("{fault}: {other} {}", answer.text()),
    }
}

/// Presents the payment again until it is decided: served now, or used before.
fn insist(shop: &Shop, body: &str, payment: &Payment) -> Answer {
    let mut last = None;
    eventually("the payment is decided", || {
        let answer = shop.buy(CHAT, body, payment);
        let used = answer.status == 409 && answer.code() == "payment_already_used";
        let decided = answer.status == 200 || (used && answer.json()["error"]["outcome"] != "pending");
        last = Some(answer);
        decided
    });
    last.unwrap()
}

/// The size of a file in 512-byte blocks is what the shell limits; the ledger starts with about 1 MB.
#[test]
fn a_full_disk_refuses_sales_ends_the_program_and_sells_again_once_there_is_room() {
    let (mut shop, body, payments) = shop_with_payments(2 * PAYMENTS);
    let size = fs::metadata(shop.server.data_dir().join("ledger.redb")).unwrap().len();
    // No room beyond what the file has already: some sales fit into that, more or fewer as their commits come together.
    let mut process = Process::spawn(limited(&shop, size));
    let address = process.wait_for("listening on http://");
    let mut sold = Vec::new();
    let mut refused = None;
    for payment in &payments {
        let Ok(answer) = http::send(&address, &paid(CHAT, &body, payment)) else { break };
        if answer.status != 200 {
            is_honest(&answer, "a full disk");
            refused = Some(answer);
            break;
        }
        sold.push(payment);
    }
    let refused = refused.unwrap_or_else(|| panic!("{} sales fitted, the disk was never full", sold.len()));
    assert!(matches!(refused.status, 503 | 504), "{}", refused.text());
    assert!(!sold.is_empty(), "some sales fit");
    assert_eq!(process.wait_exit().code(), Some(FAIL_STOP), "{}", process.output());

    // Still full: it does not start, and says why.
    let mut process = Process::spawn(limited(&shop, size / 2));
    assert_eq!(process.wait_for_or_end("listening on http://"), None);
    assert_eq!(process.wait_exit().code(), Some(FAIL_STOP), "{}", process.output());

    shop.server.restart();
    for payment in &sold {
        let again = shop.buy(CHAT, &body, payment);
        assert_eq!((again.status, again.code().as_str()), (409, "payment_already_used"), "what was sold is not forgotten");
    }
    let half = &payments[sold.len()];
    let last = insist(&shop, &body, half);
    let fresh = shop.buy(CHAT, &body, &payments[sold.len() + 1]);
    assert_eq!(fresh.status, 200, "it sells again: {}", fresh.text());
    let served = sold.len() as u64 + 1 + u64::from(last.status == 200);
    assert_eq!(shop.earned(), half.amount * (sold.len() as u64 + 2), "each payment arrived once");
    let charged = shop.earned() - shop.server.audit().balance(BUYER.address);
    // The charge of an answer that had ended in the last milliseconds may be the operator's loss, never the buyer's.
    assert!((CHARGE * (served - 2)..=CHARGE * served).contains(&charged), "{charged} charged for {served} answers");
    shop.server.restart();
    shop.close(charged);
}

/// The server with files of at most this many bytes: as on a full disk, writing more is an error. The signal that comes
/// with this limit is not part of a full disk, so it is ignored.
fn limited(shop: &Shop, bytes: u64) -> Command {
    let serve = shop.server.command(&["serve"]);
    let mut command = Command::new("bash");
    command.arg("-c").arg(format!("trap '' XFSZ; ulimit -f {}; exec \"$@\"", bytes / 1024)).arg("bash");
    command.arg(serve.get_program()).args(serve.get_args());
    command.current_dir(serve.get_current_dir().expect("it runs in its folder"));
    command.envs(serve.get_envs().filter_map(|(name, value)| Some((name, value?))));
    command
}
