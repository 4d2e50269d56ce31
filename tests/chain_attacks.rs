//! Payments under attack and in bad weather: clever strangers, voided claims, nodes that lag, fees and nonces gone wrong.

#[path = "chain_attacks/nodes.rs"]
mod nodes;
#[path = "chain_attacks/payers.rs"]
mod payers;
#[path = "chain_attacks/shop.rs"]
mod shop;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use farebox::chain::evm::hex;
use farebox::chain::{Confirmation, Counted, Refused, Settlement, audit, reason};
use farebox::clock::{Clock, Timestamp};
use farebox::config;
use farebox_rig::anvil::{MINTER, SETTLER};
use farebox_rig::stub::{self, Stub};
use serde_json::json;
use shop::{PRICE, confirmed, eventually, failed, fresh_nonce, open, open_behind, pay, still_open, transfer_data, wait};

/// Code that makes these calls to `to` while its contract is created.
fn calls_at_once(to: &str, calls: &[String]) -> String {
    let calls: Vec<_> = calls.iter().map(|data| hex::decode(data).unwrap()).collect();
    let to = hex::decode(to).unwrap();
    let build = |mut at: usize| {
        let mut code = Vec::new();
        for data in &calls {
            let (length, from) = ((data.len() as u16).to_be_bytes(), (at as u16).to_be_bytes());
            // CODECOPY(0, from, length); CALL(gas, to, 0, 0, length, 0, 0); POP
            code.extend([0x61, length[0], length[1], 0x61, from[0], from[1], 0x60, 0x00, 0x39]);
            code.extend([0x60, 0, 0x60, 0, 0x61, length[0], length[1], 0x60, 0, 0x60, 0, 0x73]);
            code.extend(&to);
            code.extend([0x5a, 0xf1, 0x50]);
            at += data.len();
        }
        code.push(0x00);
        code
    };
    let mut code = build(build(0).len());
    calls.iter().for_each(|data| code.extend(data));
    hex::encode(&code)
}

#[test]
fn one_transfer_pays_for_one_payment_only() {
    let shop = open();
    let offer = shop.offer(300);
    let mut to_himself = offer.clone();
    to_himself.pay_to = MINTER.address.into();
    let nonces: Vec<_> = (0..5).map(|_| fresh_nonce()).collect();
    let payments: Vec<_> = nonces.iter().map(|nonce| pay(&offer, *nonce)).collect();
    payments.iter().for_each(|payment| assert_eq!(shop.simulate(payment), Ok(())));
    // One honest transfer, and four to his other wallet under the nonces of the other payments, in one transaction. The
    // honest one is in the middle, so that it stands next to strange ones on both sides.
    let mut calls: Vec<_> = nonces.iter().map(|nonce| transfer_data(&pay(&to_himself, *nonce))).collect();
    calls[2] = transfer_data(&payments[2]);
    let data = calls_at_once(shop.node.usdc(), &calls);
    let tx = shop.act(MINTER.address, json!({"data": data, "gas": "0x1e8480"}));
    eventually("it is mined, soon after it was sent", || shop.received() == PRICE);
    let outcomes: Vec<_> = payments.iter().map(|payment| shop.chains.settle(payment.clone())).collect();
    for (place, outcome) in outcomes.into_iter().enumerate() {
        match wait(outcome) {
            Settlement::Confirmed(confirmation) => assert_eq!((place, confirmation.tx), (2, tx.clone())),
            Settlement::Failed { reason, .. } => assert!(place != 2 && reason == reason::NONCE_USED),
        }
    }
    assert_eq!((shop.received(), shop.sent()), (PRICE, 0));
}

#[test]
fn neighbours_among_the_events_are_told_by_their_order_and_not_by_their_numbers() {
    let shop = open_behind(|call, ask| {
        let mut answer = ask(call);
        if let Some(logs) = answer.pointer_mut("/result/logs").and_then(|logs| logs.as_array_mut()) {
            logs.iter_mut().for_each(|log| log["logIndex"] = json!("0x0"));
        }
        answer
    });
    confirmed(wait(shop.chains.settle(shop.pay(300))));
    assert_eq!((shop.received(), shop.sent()), (PRICE, 1));
}

#[test]
fn our_own_transfer_that_succeeded_never_counts_as_failed() {
    let hidden = Arc::new(AtomicBool::new(true));
    let hide = hidden.clone();
    let shop = open_behind(move |call, ask| {
        let mut answer = ask(call);
        if let Some(logs) = answer.pointer_mut("/result/logs").and_then(|logs| logs.as_array_mut()).filter(|_| hide.load(SeqCst))
        {
            // The `Transfer` is missing, and the `AuthorizationUsed` is there.
            logs.truncate(1);
        }
        answer
    });
    let mut outcome = shop.chains.settle(shop.pay(20));
    eventually("it is mined", || shop.received() == PRICE);
    shop.node.rpc("evm_increaseTime", json!([60]));
    shop.node.mine(6);
    still_open(&mut outcome, 4);
    hidden.store(false, SeqCst);
    let tx = confirmed(wait(outcome)).tx;
    assert_eq!((shop.sent(), &shop.journal.books().attempts[0].tx), (1, &tx));
    assert_eq!(shop.journal.books().settled.len(), 1);
}

#[test]
fn the_audit_lets_one_transfer_explain_one_payment() {
    let networks = std::cell::RefCell::new(Vec::new());
    let shop = shop::open_with(|_, network| networks.borrow_mut().push(network.clone()));
    let payment = shop.pay(300);
    let tx = confirmed(wait(shop.chains.settle(payment.clone()))).tx;
    let other = shop.pay(300);
    let counted = |payment: &farebox::chain::VerifiedPayment| Counted {
        id: payment.id(),
        payment: payment.to_bytes(),
        tx: tx.clone(),
        payout: None,
        failed: false,
        taken: false,
    };
    let claims = [counted(&payment), counted(&other), counted(&payment)];
    let report = audit(&networks.borrow(), &claims, &Clock::new(shop::now));
    assert_eq!((report.found, report.problems.len()), (1, 2), "{:?}", report.problems);
    // What became balance again must not be there as well.
    let failed = |payment, tx: &str| Counted { tx: tx.to_owned(), failed: true, ..counted(payment) };
    let claims = [failed(&payment, &tx), failed(&payment, ""), failed(&other, ""), failed(&other, &tx)];
    let report = audit(&networks.borrow(), &claims, &Clock::new(shop::now));
    let [shown] = &report.problems[..] else { panic!("{report:?}") };
    assert!(shown.contains(&format!("has its transfer in {tx}")), "once: {report:?}");
    assert_eq!((report.found, report.unasked), (0, 0));
    // A node that stands still says the same of what it has not heard of yet.
    let an_hour_on = Clock::new(|| Timestamp::from_secs(shop::now().secs() + 3600));
    let report = audit(&networks.borrow(), &[failed(&other, "")], &an_hour_on);
    let [said] = &report.problems[..] else { panic!("{report:?}") };
    assert!(said.contains("cannot be said"), "{said}");
    assert_eq!(shop.received(), PRICE);
}

#[test]
fn a_payment_that_is_asked_for_many_times_is_settled_once() {
    let shop = open();
    shop.node.set_automine(false);
    let payment = shop.pay(300);
    let outcomes: Vec<_> = (0..20).map(|_| shop.chains.settle(payment.clone())).collect();
    eventually("it is sent", || shop.node.pending_transactions() == 1);
    // Another transfer under the same nonce cannot take part in it.
    let mut dearer = shop.offer(300);
    dearer.amount = (2 * PRICE).to_string();
    let other = pay(&dearer, shop::nonce(&payment));
    assert_eq!(other.id(), payment.id());
    assert!(matches!(shop.simulate(&other), Err(Refused::Invalid { reason: reason::NONCE_USED, .. })));
    shop.node.mine(1);
    let txs: Vec<_> = outcomes.into_iter().map(|outcome| confirmed(wait(outcome)).tx).collect();
    assert!(txs.iter().all(|tx| *tx == txs[0]), "everybody hears the same");
    assert_eq!((shop.received(), shop.sent(), shop.journal.books().attempts.len()), (PRICE, 1, 1));
    // Who asks while it is only watched hears it at once.
    assert_eq!(confirmed(wait(shop.chains.settle(payment))).tx, txs[0]);
    assert_eq!((shop.sent(), shop.journal.books().settled.len()), (1, 1));
}

#[test]
fn a_claim_that_is_given_back_does_not_take_the_next_one_with_it() {
    let trouble = Arc::new(AtomicBool::new(false));
    let down = trouble.clone();
    let shop = open_behind(move |call, ask| {
        let refused = down.load(SeqCst) && call["method"] == "eth_estimateGas";
        if refused { shop::node_error(call, -32000, "no state yet") } else { ask(call) }
    });
    let payment = shop.pay(300);
    trouble.store(true, SeqCst);
    let first = shop.chains.settle(payment.clone());
    let second = shop.chains.settle(payment.clone());
    shop.journal.books().voids = 1;
    trouble.store(false, SeqCst);
    assert!(first.blocking_recv().is_err(), "nobody knows anything about a claim that was given back");
    confirmed(wait(second));
    assert_eq!((shop.received(), shop.sent(), shop.journal.books().attempts.len()), (PRICE, 1, 1));
}

/// A shop whose node answers calls to the token as of block `head`, while that is not 0.
fn open_lagging(head: Arc<AtomicU64>) -> shop::Shop {
    open_behind(move |call, ask| match head.load(SeqCst) {
        head if head > 0 && call["method"] == "eth_call" => shop::from_old_block(call, head, ask),
        _ => ask(call),
    })
}

#[test]
fn a_node_that_is_behind_does_not_turn_an_overtaken_payment_into_a_failed_one() {
    let head = Arc::new(AtomicU64::new(0));
    let shop = open_lagging(head.clone());
    shop.node.set_automine(false);
    let payment = shop.pay(300);
    let mut outcome = shop.chains.settle(payment.clone());
    eventually("ours waits for a block", || shop.node.pending_transactions() == 1);
    head.store(shop.node.block_number(), SeqCst);
    let theirs = shop.overtake(&payment);
    shop.node.mine(1);
    assert_eq!((shop.received(), shop.sent()), (PRICE, 1), "theirs was first, so ours reverted");
    still_open(&mut outcome, 4);
    head.store(0, SeqCst);
    assert_eq!(confirmed(wait(outcome)).tx, theirs);
    assert_eq!(shop.received(), PRICE);
    assert_eq!(shop.journal.books().wasted, [], "the money is here, so nobody is blamed for our gas");
}

#[test]
fn a_node_that_names_the_wrong_reason_does_not_turn_an_overtaken_payment_into_a_failed_one() {
    let behind = Arc::new(AtomicBool::new(false));
    let lags = behind.clone();
    let shop = open_behind(move |call, ask| {
        let mut answer = ask(call);
        // authorizationState(address,bytes32), asked in the latest block only.
        let asked = call["params"][0]["data"].as_str().is_some_and(|data| data.starts_with("0xe94a0102"));
        if lags.load(SeqCst) && asked && call["params"][1] == "latest" {
            answer["result"] = json!(format!("0x{}", "0".repeat(64)));
        }
        answer
    });
    let payment = shop.pay(300);
    behind.store(true, SeqCst);
    let theirs = shop.overtake(&payment);
    assert_eq!(confirmed(wait(shop.chains.settle(payment))).tx, theirs);
    assert_eq!((shop.received(), shop.sent()), (PRICE, 0));
}

#[test]
fn a_nonce_that_a_node_of_another_chain_counts_is_not_used() {
    let stranger = Arc::new(AtomicBool::new(false));
    let other = stranger.clone();
    let shop = open_behind(move |call, ask| {
        let mut answer = ask(call);
        // What the settler's key has sent on another chain.
        let asked = if call["params"][1] == "pending" { Some("0xf4240") } else { None };
        let id = if call["method"] == "eth_chainId" { Some("0x2105") } else { None };
        if let Some(result) = asked.or(id).filter(|_| other.load(SeqCst)) {
            answer["result"] = json!(result);
        }
        answer
    });
    let payment = shop.pay(300);
    stranger.store(true, SeqCst);
    let mut outcome = shop.chains.settle(payment);
    still_open(&mut outcome, 3);
    assert!(shop.journal.books().attempts.is_empty(), "nothing is signed with it");
    stranger.store(false, SeqCst);
    confirmed(wait(outcome));
    assert_eq!((shop.received(), shop.journal.books().attempts[0].bound_to), (PRICE, 0));
}

#[test]
fn events_that_come_late_are_waited_for() {
    let late = Arc::new(AtomicBool::new(true));
    let hidden = late.clone();
    let last_final = Arc::new(AtomicU64::new(u64::MAX));
    let horizon = last_final.clone();
    let shop = open_behind(move |call, ask| {
        let at = horizon.load(SeqCst);
        match call["method"].as_str() {
            Some("eth_getLogs") if hidden.load(SeqCst) => json!({"jsonrpc": "2.0", "id": call["id"], "result": []}),
            Some("eth_getBlockByNumber") if call["params"][0] == "finalized" && at < u64::MAX => {
                let mut old = call.clone();
                old["params"][0] = format!("{at:#x}").into();
                ask(&old)
            }
            _ => ask(call),
        }
    });
    // A stranger has submitted one, and the payer has used the nonce of the other for himself.
    let (theirs, misused) = (shop.pay(300), shop.pay(300));
    let tx = shop.overtake(&theirs);
    let mut to_himself = shop.offer(300);
    to_himself.pay_to = MINTER.address.into();
    shop.overtake(&pay(&to_himself, shop::nonce(&misused)));
    let mut paid = shop.chains.settle(theirs);
    let mut spent = shop.chains.settle(misused);
    still_open(&mut paid, 4);
    late.store(false, SeqCst);
    assert_eq!(confirmed(wait(paid)).tx, tx);
    assert_eq!(failed(wait(spent)), reason::NONCE_USED);

    // An event that never comes is given up after many blocks of which the first is final, and not before.
    late.store(true, SeqCst);
    last_final.store(shop.node.block_number(), SeqCst);
    let misused = shop.pay(300);
    shop.overtake(&pay(&to_himself, shop::nonce(&misused)));
    spent = shop.chains.settle(misused);
    still_open(&mut spent, 12);
    shop.node.mine(9);
    still_open(&mut spent, 4);
    last_final.store(u64::MAX, SeqCst);
    assert_eq!(failed(wait(spent)), reason::NONCE_USED);
    assert_eq!((shop.received(), shop.sent()), (PRICE, 0));
}

#[test]
fn a_payment_whose_fate_no_node_can_tell_does_not_hold_up_the_line_after_its_end() {
    let (no_events, no_sending) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicBool::new(true)));
    let (blind, refusing) = (no_events.clone(), no_sending.clone());
    let shop = open_behind(move |call, ask| match call["method"].as_str() {
        Some("eth_getLogs") if blind.load(SeqCst) => shop::node_error(call, -32601, "the method does not exist"),
        Some("eth_sendRawTransaction") if refusing.load(SeqCst) => shop::node_error(call, -32000, "transaction underpriced"),
        _ => ask(call),
    });
    let (overtaken, next) = (shop.pay(30), shop.pay(300));
    let mut unknown = shop.chains.settle(overtaken.clone());
    eventually("the first in line is signed", || shop.journal.books().attempts.len() == 1);
    let theirs = shop.overtake(&overtaken);
    let paid = shop.chains.settle(next);
    eventually("the second in line is signed", || shop.journal.books().attempts.len() == 2);
    shop.node.rpc("evm_increaseTime", json!([60]));
    shop.node.mine(1);
    no_sending.store(false, SeqCst);
    confirmed(wait(paid));
    still_open(&mut unknown, 1);
    no_events.store(false, SeqCst);
    assert_eq!(confirmed(wait(unknown)).tx, theirs, "found before its end");
    assert_eq!((shop.received(), shop.sent()), (2 * PRICE, 2));
}

#[test]
fn an_authorization_has_ended_only_when_that_is_final_and_the_node_is_not_behind() {
    let (head, full) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicBool::new(true)));
    let (old, no_estimate) = (head.clone(), full.clone());
    let shop = open_behind(move |call, ask| match old.load(SeqCst) {
        _ if no_estimate.load(SeqCst) && call["method"] == "eth_estimateGas" => shop::node_error(call, -32000, "no state yet"),
        head if head > 0 && call["method"] == "eth_call" => shop::from_old_block(call, head, ask),
        _ => ask(call),
    });
    // Long enough for the stranger on a busy machine.
    let (lost, overtaken) = (shop.pay(30), shop.pay(30));
    let mut ended = shop.chains.settle(lost);
    let mut paid = shop.chains.settle(overtaken.clone());
    head.store(shop.node.block_number(), SeqCst);
    let theirs = shop.overtake(&overtaken);
    shop.node.wait_receipt(&theirs);
    assert_eq!(shop.received(), PRICE, "the stranger was in time");
    shop.node.rpc("evm_increaseTime", json!([120]));
    shop.node.mine(1);
    // Until our own clock is near the end, too.
    still_open(&mut ended, 30);
    head.store(0, SeqCst);
    // Its end is past, but the block that says so can still be replaced.
    still_open(&mut ended, 5);
    assert_eq!(confirmed(wait(paid)).tx, theirs);
    shop.node.mine(6);
    assert_eq!(failed(wait(ended)), reason::VALID_BEFORE);
    assert_eq!((shop.received(), shop.sent()), (PRICE, 0));
    paid = shop.chains.settle(overtaken);
    assert_eq!(confirmed(wait(paid)).tx, theirs);
}

#[test]
fn nothing_is_sold_where_the_fee_cap_leaves_no_room() {
    let shop = shop::open_with(|_, network| network.max_fee_per_gas = 1000);
    let why = shop.chains.networks()[0].sellable.clone().unwrap_err();
    assert!(why.contains("max_fee_gwei"), "{why}");
}

#[test]
fn nothing_is_sold_where_the_purse_cannot_pay_the_fees_that_would_be_offered() {
    for (spare, sells) in [(0, false), (1, true)] {
        let shop = shop::open_with(|node, _| {
            let number = |word: serde_json::Value| u128::from_str_radix(&word.as_str().unwrap()[2..], 16).unwrap();
            let base_fee = number(node.rpc("eth_getBlockByNumber", json!(["latest", false]))["baseFeePerGas"].clone());
            let tip = number(node.rpc("eth_maxPriorityFeePerGas", json!([])));
            assert!(tip > 0, "a node that asks for a tip");
            let balance = 3 * 150_000 * (2 * base_fee + tip) + spare;
            node.rpc("anvil_setBalance", json!([SETTLER.address, format!("{balance:#x}")]));
        });
        let sellable = shop.chains.networks()[0].sellable.clone();
        assert_eq!(sellable.is_ok(), sells, "{sellable:?}");
        assert!(sellable.err().is_none_or(|why| why.contains("gas")));
    }
}

#[test]
fn a_payment_that_nobody_waits_for_and_nothing_is_signed_for_is_looked_at_seldom() {
    let (trouble, looks) = (Arc::new(AtomicBool::new(true)), Arc::new(AtomicU64::new(0)));
    let (down, count) = (trouble.clone(), looks.clone());
    let shop = open_behind(move |call, ask| {
        if call["method"] != "eth_estimateGas" || !down.load(SeqCst) {
            return ask(call);
        }
        count.fetch_add(1, SeqCst);
        shop::node_error(call, -32000, "no state yet")
    });
    let payment = shop.pay(300);
    drop(shop.chains.settle(payment.clone()));
    eventually("it is looked at all the same", || looks.load(SeqCst) > 0);
    // One more look may have begun before nobody waited.
    std::thread::sleep(std::time::Duration::from_secs(3));
    let before = looks.load(SeqCst);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(looks.load(SeqCst), before);
    // Who asks again does not wait for the next seldom look.
    trouble.store(false, SeqCst);
    let asked = std::time::Instant::now();
    confirmed(wait(shop.chains.settle(payment)));
    assert!(asked.elapsed() < std::time::Duration::from_secs(9));
    assert_eq!((shop.received(), shop.sent()), (PRICE, 1));
}

#[test]
fn a_network_that_cannot_settle_any_more_is_not_sold_on_until_it_can() {
    let shop = open();
    let sells = || shop.chains.networks()[0].sellable.is_ok();
    let base_fee = |wei: &str| {
        shop.node.rpc("anvil_setNextBlockBaseFeePerGas", json!([wei]));
        shop.node.mine(1);
    };
    let [one, two, three] = [0, 1, 2].map(|_| shop.pay(300));
    base_fee("0x8bb2c97000");
    let mut outcome = shop.chains.settle(one);
    eventually("the fee closes the network", || !sells());
    assert!(shop.chains.networks()[0].sellable.clone().unwrap_err().contains("max_fee_gwei"));
    assert!(matches!(shop.simulate(&two), Err(Refused::Unavailable(_))));
    assert_eq!((outcome.try_recv().ok(), shop.sent()), (None, 0), "and what was sold before waits");
    base_fee("0x3b9aca00");
    confirmed(wait(outcome));
    eventually("it is sold on again", sells);

    let balance = shop.node.rpc("eth_getBalance", json!([SETTLER.address, "latest"]));
    shop.node.rpc("anvil_setBalance", json!([SETTLER.address, "0x1"]));
    outcome = shop.chains.settle(three);
    eventually("an empty purse closes the network", || !sells());
    assert!(shop.chains.networks()[0].sellable.clone().unwrap_err().contains("gas"));
    shop.node.rpc("anvil_setBalance", json!([SETTLER.address, balance]));
    confirmed(wait(outcome));
    eventually("it is sold on again", sells);
    assert_eq!((shop.received(), shop.sent()), (2 * PRICE, 2));
}

#[test]
fn a_nonce_that_nobody_holds_is_filled_and_the_line_moves_on() {
    let shop = open();
    shop.node.set_automine(false);
    let by_hand = shop.act(SETTLER.address, json!({"to": MINTER.address, "data": "0x", "gas": "0x5208"}));
    let outcome = shop.chains.settle(shop.pay(300));
    eventually("ours waits", || shop.journal.books().attempts.len() == 1);
    assert_eq!(shop.journal.books().attempts[0].bound_to, 1);
    shop.node.rpc("anvil_dropTransaction", json!([by_hand]));
    shop.node.rpc("evm_setIntervalMining", json!([1]));
    let confirmation = confirmed(wait(outcome));
    let attempts = &shop.journal.books().attempts;
    assert_eq!((attempts.len(), &attempts[0].tx), (1, &confirmation.tx), "the first bytes landed, at the first fee");
    assert_eq!((shop.received(), shop.sent()), (PRICE, 2));
}

#[test]
fn only_the_head_of_the_line_bids_more_and_only_after_a_block_left_it_out() {
    let shop = open();
    shop.node.set_automine(false);
    let outcomes: Vec<_> = (0..3).map(|_| shop.chains.settle(shop.pay(300))).collect();
    eventually("all wait", || shop.node.pending_transactions() == 3);
    std::thread::sleep(std::time::Duration::from_secs(13));
    assert_eq!(shop.journal.books().attempts.len(), 3, "without a block there is nothing to outbid");
    shop.node.rpc("anvil_setNextBlockBaseFeePerGas", json!(["0x12a05f200"]));
    shop.node.mine(1);
    eventually("the head bids more", || shop.journal.books().attempts.len() == 4);
    std::thread::sleep(std::time::Duration::from_secs(13));
    let nonces: Vec<_> = shop.journal.books().attempts.iter().map(|attempt| attempt.bound_to).collect();
    let first = shop.journal.books().attempts.iter().map(|attempt| attempt.bound_to).min().unwrap();
    assert_eq!((nonces.len(), nonces[3]), (4, first));
    shop.node.rpc("anvil_setNextBlockBaseFeePerGas", json!(["0x3b9aca00"]));
    shop.node.rpc("evm_setIntervalMining", json!([1]));
    outcomes.into_iter().for_each(|outcome| drop(confirmed(wait(outcome))));
    assert_eq!((shop.received(), shop.sent()), (3 * PRICE, 3));
}

/// A facilitator that answers every settlement with `word`; says how often it was asked.
fn facilitator(word: impl Fn() -> (u16, String) + Send + Sync + 'static) -> (Stub, Arc<AtomicU64>) {
    let asked = Arc::new(AtomicU64::new(0));
    let count = asked.clone();
    let stub = Stub::start(move |request| match request.split(' ').nth(1).unwrap_or_default() {
        "/settle" => {
            count.fetch_add(1, SeqCst);
            Some(word())
        }
        _ => Some((404, "{}".into())),
    });
    (stub, asked)
}

#[test]
fn the_chain_is_believed_and_not_the_facilitator() {
    let success = json!({"success": true, "transaction": format!("0x{}", "ab".repeat(32)), "network": "eip155:84532"});
    for word in [(200, success.to_string()), (500, "{}".to_owned())] {
        let (stub, _) = facilitator(move || word.clone());
        let shop = shop::open_with(|node, network| {
            let rpc_urls = vec![node.url()];
            network.settlement = config::Settlement::Facilitator { url: stub.url(), authorization: None, rpc_urls };
        });
        let (arrives, ends) = (shop.pay(300), shop.pay(20));
        let mut paid = shop.chains.settle(arrives.clone());
        let ended = shop.chains.settle(ends);
        still_open(&mut paid, 2);
        let tx = shop.overtake(&arrives);
        assert_eq!(confirmed(wait(paid)).tx, tx);
        shop.node.rpc("evm_increaseTime", json!([120]));
        shop.node.mine(6);
        assert_eq!(failed(wait(ended)), reason::VALID_BEFORE);
        assert_eq!(shop.received(), PRICE);
    }
}

#[test]
fn a_facilitator_that_never_says_is_given_up_and_the_payment_stays_open() {
    let (stub, asked) = facilitator(|| (500, "{}".into()));
    let (settlement, later) =
        (|| config::Settlement::Facilitator { url: stub.url(), authorization: None, rpc_urls: Vec::new() }, 7200);
    let ahead = Arc::new(AtomicU64::new(0));
    let shown = ahead.clone();
    let clock = Clock::new(move || shop::now().plus(std::time::Duration::from_secs(shown.load(SeqCst))));
    let shop = shop::open_at(clock, |_, network| network.settlement = settlement());
    let mut outcome = shop.chains.settle(shop.pay(300));
    still_open(&mut outcome, 1);
    ahead.store(later, SeqCst);
    assert!(outcome.blocking_recv().is_err(), "nobody knows");
    let before = asked.load(SeqCst);
    std::thread::sleep(std::time::Duration::from_secs(3));
    assert_eq!(asked.load(SeqCst), before, "it is not asked any more");
    assert!(shop.journal.books().settled.is_empty(), "and that is no verdict");
}

#[test]
fn what_was_signed_for_real_is_never_confirmed_by_simulation() {
    let shop = open();
    let payment = shop.pay(300);
    confirmed(wait(shop.chains.settle(payment.clone())));
    let attempts = shop.journal.books().attempts.clone();
    let pretender = shop::open_with(|_, network| network.settlement = config::Settlement::Simulated);
    let outcome = pretender.chains.resume(payment.clone(), attempts.clone(), None);
    assert!(outcome.blocking_recv().is_err(), "nobody knows");
    let known = Confirmation { tx: attempts[0].tx.clone(), block: 1 };
    assert!(pretender.chains.resume(payment, attempts, Some(known)).blocking_recv().is_err());
    let books = pretender.journal.books();
    assert!(books.settled.is_empty() && books.finalized.is_empty(), "it stays open");
}

#[test]
fn a_node_in_trouble_makes_nothing_final() {
    let trouble = Arc::new(AtomicU64::new(1));
    let kind = trouble.clone();
    let shop = open_behind(move |call, ask| match (kind.load(SeqCst), call["params"][0] == "finalized") {
        (1, true) => shop::node_error(call, -32603, "internal error"),
        (2, true) => shop::node_error(call, -32602, "invalid argument 0: hex string without 0x prefix"),
        _ => ask(call),
    });
    let payment = shop.pay(300);
    let id = payment.id();
    confirmed(wait(shop.chains.settle(payment)));
    shop.node.mine(70);
    std::thread::sleep(std::time::Duration::from_secs(12));
    assert!(!shop.journal.books().finalized.contains(&id), "an error says nothing about finality");
    trouble.store(2, SeqCst);
    eventually("many blocks are final where the chain has no word for it", || shop.journal.books().finalized.contains(&id));
}

#[test]
fn settlements_that_wait_together_ask_together() {
    let (trips, receipts) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let (trip, receipt) = (trips.clone(), receipts.clone());
    let shop = shop::open_with(|node, network| {
        let behind = node.address().to_owned();
        let proxy = Stub::start(move |request| {
            let asked = u64::try_from(request.matches("eth_getTransactionReceipt").count()).unwrap_or(0);
            receipt.fetch_add(asked, SeqCst);
            trip.fetch_add(u64::from(asked > 0), SeqCst);
            Some((200, stub::forward(&behind, request)))
        });
        let config::Settlement::Rpc { urls, .. } = &mut network.settlement else { unreachable!() };
        *urls = vec![proxy.url()];
    });
    shop.node.set_automine(false);
    let payments: Vec<_> = (0..24).map(|_| shop.pay(300)).collect();
    let outcomes: Vec<_> = payments.into_iter().map(|payment| shop.chains.settle(payment)).collect();
    eventually("all are sent", || shop.node.pending_transactions() == 24);
    // Their first looks come as they were sent, one by one; from then on they keep step.
    eventually("all are looked for", || receipts.load(SeqCst) > 24 * 4);
    let (first_trips, first_receipts) = (trips.load(SeqCst), receipts.load(SeqCst));
    eventually("all are looked for again and again", || receipts.load(SeqCst) > first_receipts + 24 * 10);
    shop.node.mine(1);
    outcomes.into_iter().for_each(|outcome| drop(confirmed(wait(outcome))));
    shop.node.mine(8);
    eventually("all are final", || shop.journal.books().finalized.len() == 24);
    let (trips, receipts) = (trips.load(SeqCst) - first_trips, receipts.load(SeqCst) - first_receipts);
    assert!(trips * 3 < receipts, "{receipts} receipts were asked for in {trips} round trips");
    assert_eq!((shop.received(), shop.sent()), (24 * PRICE, 24));
}
