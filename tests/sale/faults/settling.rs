//! Death where the chain is slow or takes back what it gave: a stuck transaction, a lost block, finality; and at a facilitator.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};

use farebox_rig::anvil::Anvil;
use farebox_rig::facilitator::Facilitator;
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use farebox_rig::stub::Stub;
use serde_json::json;

use super::stand::{Route, Sale, Seen, Stand, Terms};
use super::{TIMES, for_each};

const STUCK: [&str; 3] = ["bump.before", "bump.signed", "bump.after"];
const TAKEN_BACK: [&str; 2] = ["reorg.before", "reorg.after"];
const FINAL: [&str; 2] = ["final.before", "final.after"];
const AT_A_FACILITATOR: [&str; 3] = ["facilitator.before", "facilitator.after", "facilitator.settled"];

pub fn points() -> Vec<&'static str> {
    [&STUCK[..], &TAKEN_BACK, &FINAL, &AT_A_FACILITATOR].concat()
}

fn orders(stand: &mut Stand, count: usize) -> Vec<Sale> {
    let route = |place| if place % 2 == 0 { Route::Chat } else { Route::Messages };
    let terms = |place| Terms { stream: place % 3 != 0, route: route(place), ..Terms::default() };
    (0..count).map(|place| stand.order(terms(place))).collect()
}

#[test]
fn a_death_while_a_stuck_transaction_is_replaced_pays_once() {
    for_each(&STUCK, |point| {
        let chain = Anvil::start(84532);
        let refusals = Arc::new(AtomicUsize::new(0));
        let node = refusing_node(&chain, refusals.clone());
        let mut stand = Stand::on(chain, &Settings { rpc_urls: vec![node.url()], ..Settings::default() });
        for nth in 1..=TIMES {
            stand.what = format!("{point}:{nth}");
            stand.server.restart_armed(&stand.what.clone());
            let sales = orders(&mut stand, 1);
            // The last of them is taken by the node, and then it is the program that dies.
            refusals.store(nth, SeqCst);
            let seen = stand.buy_at_once(sales, |stand| wait_and_mine(stand, point));
            refusals.store(0, SeqCst);
            stand.recover(seen);
            stand.audit();
        }
    });
}

/// A node that refuses so many transactions as underpriced, which is what a stuck one is told sooner or later. It always suggests
/// the same small tip: the real one goes by its latest blocks, and a sale that begins high has no room for so many higher ones.
fn refusing_node(chain: &Anvil, refusals: Arc<AtomicUsize>) -> Stub {
    const ONE_GWEI: &str = "0x3b9aca00";
    Stub::before_node(chain.address(), move |call, ask| match call["method"].as_str() {
        Some("eth_sendRawTransaction") if refusals.fetch_update(SeqCst, SeqCst, |left| left.checked_sub(1)).is_ok() => {
            let error = json!({ "code": -32000, "message": "transaction underpriced" });
            json!({ "jsonrpc": "2.0", "id": call["id"], "error": error })
        }
        Some("eth_maxPriorityFeePerGas") => json!({ "jsonrpc": "2.0", "id": call["id"], "result": ONE_GWEI }),
        _ => ask(call),
    })
}

/// Blocks come and go without the transaction, until the program has died.
fn wait_and_mine(stand: &mut Stand, point: &str) {
    eventually("it dies while blocks pass", || {
        stand.chain.mine(1);
        !stand.server.is_running()
    });
    stand.server.wait_death(point);
}

#[test]
fn a_death_while_a_vanished_transfer_is_noticed_pays_once() {
    for_each(&TAKEN_BACK, |point| {
        let mut stand = Stand::open(&Settings::default());
        for nth in 1..=TIMES {
            stand.what = format!("{point}:{nth}, at once");
            stand.server.restart_armed(&format!("{point}:{nth}"));
            let seen = buy_in_one_block(&mut stand, nth);
            stand.chain.reorg(1);
            stand.server.wait_death(point);
            stand.server.restart();
            let vanished = stand.logged(VANISHED) + nth;
            eventually("it is noticed again", || stand.logged(VANISHED) == vanished);
            eventually("the transfers are submitted again", || stand.chain.pending_transactions() == nth as u64);
            let confirmed = stand.logged("settlement confirmed") + nth;
            stand.chain.set_automine(true);
            stand.chain.mine(1);
            eventually("the books know", || stand.logged("settlement confirmed") == confirmed);
            stand.conclude(seen);
            stand.audit();
        }
    });
}

const VANISHED: &str = "a confirmed transfer vanished";

/// All transfers are in the one newest block, and the answers were given.
fn buy_in_one_block(stand: &mut Stand, count: usize) -> Vec<(Sale, Seen)> {
    let sales = orders(stand, count);
    stand.chain.set_automine(false);
    let seen = stand.buy_at_once(sales, |stand| {
        eventually("all are submitted", || stand.chain.pending_transactions() == count as u64);
        stand.chain.mine(1);
    });
    assert!(seen.iter().all(|(_, seen)| *seen == Seen::Whole), "{}: {seen:?}", stand.what);
    seen
}

#[test]
fn a_death_while_a_transfer_becomes_final_changes_nothing() {
    for_each(&FINAL, |point| {
        for nth in 1..=TIMES {
            // One for each round: what became final just before a death becomes so again after it.
            let mut stand = Stand::open(&Settings::default());
            stand.what = format!("{point}:{nth}, at once");
            stand.server.restart_armed(&format!("{point}:{nth}"));
            let sales = orders(&mut stand, nth);
            let seen = stand.buy_at_once(sales, |_| ());
            assert!(seen.iter().all(|(_, seen)| *seen == Seen::Whole), "{}: {seen:?}", stand.what);
            stand.chain.mine(10);
            stand.server.wait_death(point);
            stand.recover(seen);
            stand.audit();
        }
    });
}

#[test]
fn a_death_while_a_facilitator_settles_pays_once() {
    for_each(&AT_A_FACILITATOR, |point| {
        let chain = Anvil::start(84532);
        let facilitator = Facilitator::start(&chain);
        let mut stand = {
            // Without a node of its own the operator could never know what became of a payment.
            let network = vec![format!("rpc_urls = [{:?}]", chain.url())];
            Stand::on(chain, &Settings { facilitator_url: Some(facilitator.url()), network, ..Settings::default() })
        };
        for nth in 1..=TIMES {
            stand.what = format!("{point}:{nth}, in turn");
            stand.server.restart_armed(&format!("{point}:{nth}"));
            let sales = orders(&mut stand, nth);
            let seen = stand.buy_in_turn(sales);
            stand.server.wait_death(point);
            stand.recover(seen);
            stand.audit();
        }
    });
}

#[test]
fn money_that_a_facilitator_moved_unseen_is_the_payers_once_the_operator_names_a_node() {
    let chain = Anvil::start(84532);
    let facilitator = Facilitator::start(&chain);
    let named = format!("rpc_urls = [{:?}]", chain.url());
    let mut stand = Stand::on(chain, &Settings { facilitator_url: Some(facilitator.url()), ..Settings::default() });
    stand.what = "facilitator.after without a node of ours".into();
    stand.server.restart_armed("facilitator.after");
    let sales = orders(&mut stand, 1);
    let seen = stand.buy_in_turn(sales);
    stand.server.wait_death("facilitator.after");
    stand.server.restart();
    assert_eq!(
        stand.present(&seen[0].0),
        (409, "pending".to_owned()),
        "nobody can know, so it is neither lost nor asked for again"
    );
    stand.server.reconfigure(|text| text.replace("facilitator_url", &format!("{named}\nfacilitator_url")));
    stand.recover(seen);
    stand.audit();
}
