//! When a payment is really over: silence of a node that is behind, alone, forgetful or of another chain ends nothing.

use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;
use std::sync::atomic::{AtomicBool, AtomicUsize};

use farebox::chain::solana::reason;
use farebox::chain::{Refused, Settlement};
use farebox::config;
use farebox_rig::process::eventually;
use farebox_rig::solana::{BUYER, SETTLER, Solana};
use farebox_rig::stub::Stub;
use serde_json::{Value, json};
use tokio::sync::oneshot::Receiver;
use tokio::sync::oneshot::error::TryRecvError;

use crate::journal::Told;
use crate::shop::{PRICE, Shop, confirmed, failed, now, open_with, wait};

/// A node that says `lie` to some calls while it is not `honest`, and how often it was asked what became of transactions.
struct Liar {
    stub: Stub,
    honest: Arc<AtomicBool>,
    looks: Arc<AtomicUsize>,
}

impl Liar {
    fn before(node: &Solana, lie: impl Fn(&Value, &Value) -> Option<Value> + Send + Sync + 'static) -> Liar {
        let (honest, looks) = (Arc::<AtomicBool>::default(), Arc::<AtomicUsize>::default());
        let (is_honest, count) = (honest.clone(), looks.clone());
        let stub = Stub::before_node(node.address(), move |call, ask| {
            let told = ask(call);
            if call["method"] == "getSignatureStatuses" {
                count.fetch_add(1, SeqCst);
            }
            match lie(call, &told).filter(|_| !is_honest.load(SeqCst)) {
                Some(part) => {
                    let mut lied = json!({ "jsonrpc": "2.0", "id": call["id"] });
                    let field = if part.get("code").is_some() { "error" } else { "result" };
                    lied[field] = part;
                    lied
                }
                None => told,
            }
        });
        Liar { stub, honest, looks }
    }

    /// It is asked so often that everything it says has been weighed, and nothing came of it.
    fn assert_unheeded(&self, outcome: &mut Receiver<Settlement>) {
        let asked = self.looks.load(SeqCst);
        eventually("it is asked again and again", || self.looks.load(SeqCst) >= asked + 4);
        assert_eq!(outcome.try_recv(), Err(TryRecvError::Empty));
    }
}

fn shop(node: Solana, urls: &[String]) -> Shop {
    let shop = open_with(node, Arc::default(), |network| {
        network.settlement = config::Settlement::Rpc { urls: urls.to_vec(), key: SETTLER.key.to_owned().into() };
    });
    assert_eq!(shop.chains.networks()[0].sellable, Ok(()));
    shop
}

/// As a node says it that never saw a transaction, at this slot.
fn never_seen(told: &Value, slot: u64) -> Value {
    let none: Vec<_> = told["result"]["value"].as_array().into_iter().flatten().map(|_| Value::Null).collect();
    json!({ "context": { "slot": slot }, "value": none })
}

/// Sends a payment of which `liar` denies everything, waits until it has landed, and lets its blockhash end.
fn land_and_expire(shop: &Shop) -> Receiver<Settlement> {
    let outcome = shop.chains.settle(shop.pay(BUYER, PRICE));
    eventually("the money arrives", || shop.received() == PRICE);
    // With room for all that nodes are allowed to be apart.
    shop.node.advance(300);
    outcome
}

fn assert_paid_once(shop: &Shop, outcome: Receiver<Settlement>) {
    let confirmation = confirmed(wait(outcome));
    assert_eq!((shop.received(), shop.node.landed().len(), shop.journal.attempts().len()), (PRICE, 1, 1));
    assert_eq!(shop.node.landed()[0].signature, confirmation.tx);
}

#[test]
fn silence_of_a_machine_that_is_behind_is_not_the_end_of_a_payment() {
    let node = Solana::start();
    // Behind its address one machine counts blocks, and another, far behind, is asked about transactions.
    let liar = Liar::before(&node, |call, told| (call["method"] == "getSignatureStatuses").then(|| never_seen(told, 1000)));
    let shop = shop(node, &[liar.stub.url()]);
    let mut outcome = land_and_expire(&shop);
    liar.assert_unheeded(&mut outcome);
    liar.honest.store(true, SeqCst);
    assert_paid_once(&shop, outcome);
}

#[test]
fn one_node_alone_does_not_end_a_payment_where_two_are_named() {
    let node = Solana::start();
    let denies = |call: &Value, told: &Value| {
        (call["method"] == "getSignatureStatuses").then(|| never_seen(told, told["result"]["context"]["slot"].as_u64().unwrap()))
    };
    let liar = Liar::before(&node, denies);
    let down = Stub::start(|_| None);
    let first = shop(node, &[liar.stub.url(), down.url()]);
    let mut outcome = land_and_expire(&first);
    liar.assert_unheeded(&mut outcome);
    liar.honest.store(true, SeqCst);
    assert_paid_once(&first, outcome);

    // Two that agree do, as does one where there is one: here it is the truth.
    for two in [false, true] {
        let node = Solana::start();
        let urls = if two { vec![node.url(), node.url()] } else { vec![node.url()] };
        let shop = shop(node, &urls);
        shop.node.drop_sends(1000);
        let outcome = shop.chains.settle(shop.pay(BUYER, PRICE));
        eventually("it is sent", || shop.node.sends() > 0);
        shop.node.expire();
        assert_eq!(failed(wait(outcome)), reason::EXPIRED);
        assert_eq!((shop.received(), shop.node.landed().len()), (0, 0));
    }
}

#[test]
fn a_payment_that_its_node_may_have_forgotten_stays_open() {
    let node = Solana::start();
    let liar = Liar::before(&node, |call, told| {
        let slot = told["result"]["context"]["slot"].as_u64();
        (call["method"] == "getSignatureStatuses").then(|| never_seen(told, slot.unwrap()))
    });
    let shop = shop(node, &[liar.stub.url()]);
    let mut outcome = shop.chains.settle(shop.pay(BUYER, PRICE));
    eventually("the money arrives", || shop.received() == PRICE);
    // Some hours.
    shop.node.advance(20_000);
    liar.assert_unheeded(&mut outcome);
    liar.honest.store(true, SeqCst);
    assert_paid_once(&shop, outcome);
}

#[test]
fn a_payment_that_never_arrived_has_failed_at_any_age_where_its_node_keeps_what_is_older() {
    for (keeps, of_another_chain) in [(true, false), (false, false), (true, true)] {
        let node = Solana::start();
        let old = now().secs() - if keeps { 3600 } else { 60 };
        let (asked, wrong) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicBool::default()));
        let (count, turned) = (asked.clone(), wrong.clone());
        let keeper = Liar::before(&node, move |call, _| match call["method"].as_str() {
            Some("getBlockTime") => {
                // Whoever looks at transactions is of the chain; what keeps the past may be another machine.
                turned.store(of_another_chain, SeqCst);
                count.fetch_add(1, SeqCst);
                Some(json!(old))
            }
            Some("getGenesisHash") if turned.load(SeqCst) => Some("5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d".into()),
            _ => None,
        });
        let shop = shop(node, &[keeper.stub.url()]);
        shop.node.drop_sends(1000);
        let mut outcome = shop.chains.settle(shop.pay(BUYER, PRICE));
        eventually("it is sent", || shop.node.sends() > 0);
        wrong.store(of_another_chain, SeqCst);
        shop.node.advance(20_000);
        if keeps && !of_another_chain {
            assert_eq!(failed(wait(outcome)), reason::EXPIRED);
        } else {
            keeper.assert_unheeded(&mut outcome);
        }
        assert_eq!((shop.received(), shop.node.landed().len()), (0, 0));
    }
}

#[test]
fn a_payment_that_nobody_remembers_keeps_no_money_of_its_wallet() {
    let node = Solana::start();
    let url = node.url();
    let shop = shop(node, &[url]);
    shop.node.set_balance(BUYER, PRICE);
    let payment = shop.pay(BUYER, PRICE);
    shop.node.drop_sends(1000);
    let mut outcome = shop.chains.settle(payment.clone());
    eventually("it is sent", || shop.node.sends() > 0);
    shop.node.advance(20_000);
    eventually("nobody waits for it", || shop.journal.told().contains(&Told::Forgotten(payment.id())));
    shop.node.drop_sends(0);
    eventually("offers name a blockhash that lives", || {
        let offered = shop.offer(PRICE).extra.map(|extra| extra["recentBlockhash"].clone());
        shop.node.rpc("isBlockhashValid", json!([offered, { "commitment": "processed" }]))["value"] == true
    });
    let next = confirmed(shop.settle(&shop.pay(BUYER, PRICE)));
    assert_eq!((shop.received(), shop.node.usdc_balance(BUYER)), (PRICE, 0));
    assert_eq!((outcome.try_recv(), &shop.node.landed()[0].signature), (Err(TryRecvError::Empty), &next.tx), "and stays open");
}

#[test]
fn a_machine_that_counts_too_few_blocks_does_not_end_a_payment_early() {
    let node = Solana::start();
    node.advance(200);
    let liar = Liar::before(&node, |call, told| {
        let few = json!({ "absoluteSlot": told["result"]["absoluteSlot"], "blockHeight": 1000 });
        (call["method"] == "getEpochInfo" && call["params"][0]["commitment"] == "processed").then_some(few)
    });
    let shop = shop(node, &[liar.stub.url()]);
    let outcome = shop.chains.settle(shop.pay(BUYER, PRICE));
    assert_paid_once(&shop, outcome);
    let last = shop.journal.attempts()[0].bound_to;
    assert!(last >= 1200 + 150, "it can land until then, whoever counts: {last}");
}

#[test]
fn a_machine_that_once_told_an_absurd_height_does_not_keep_later_payments_from_being_over() {
    let node = Solana::start();
    let absurd = Arc::new(AtomicBool::new(true));
    let still = absurd.clone();
    let liar =
        Liar::before(&node, move |call, _| (call["method"] == "getBlockHeight" && still.load(SeqCst)).then(|| json!(1_000_000)));
    let first = shop(node, &[liar.stub.url()]);
    confirmed(first.settle(&first.pay(BUYER, PRICE)));
    absurd.store(false, SeqCst);
    let payment = first.pay(BUYER, PRICE);
    first.node.drop_sends(1000);
    let outcome = first.chains.settle(payment);
    eventually("it is sent", || first.node.sends() > 1);
    first.node.expire();
    assert_eq!(failed(wait(outcome)), reason::EXPIRED);
    assert_eq!((first.received(), first.node.landed().len()), (PRICE, 1));
}

#[test]
fn a_machine_that_counts_blocks_and_is_behind_the_one_that_tries_is_no_witness() {
    for second in [true, false] {
        let node = Solana::start();
        let liar = Liar::before(&node, |call, _| {
            let behind = json!({ "absoluteSlot": 900, "blockHeight": 900 });
            (call["method"] == "getEpochInfo" && call["params"][0]["commitment"] == "processed").then_some(behind)
        });
        let urls: Vec<_> = [liar.stub.url()].into_iter().chain(second.then(|| node.url())).collect();
        let shop = shop(node, &urls);
        let payment = shop.pay(BUYER, PRICE);
        match second {
            true => assert_paid_once(&shop, shop.chains.settle(payment)),
            false => {
                let refused = shop.simulate(&payment);
                assert!(matches!(refused, Err(Refused::Unavailable(_))), "{refused:?}");
                shop.assert_untouched();
            }
        }
    }
}

#[test]
fn a_node_that_turns_into_one_of_another_chain_ends_no_payment() {
    let node = Solana::start();
    let wrong = Arc::new(AtomicBool::default());
    let turned = wrong.clone();
    let liar = Liar::before(&node, move |call, told| match call["method"].as_str() {
        _ if !turned.load(SeqCst) => None,
        Some("getGenesisHash") => Some("5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d".into()),
        Some("getSignatureStatuses") => Some(never_seen(told, 9_000)),
        Some("getBlockHeight") => Some(json!(9_000)),
        Some("getEpochInfo") => Some(json!({ "absoluteSlot": 9_000, "blockHeight": 9_000 })),
        _ => None,
    });
    let shop = shop(node, &[liar.stub.url()]);
    let payment = shop.pay(BUYER, PRICE);
    shop.node.pause(true);
    let mut outcome = shop.chains.settle(payment);
    eventually("it is sent", || shop.node.sends() > 0);
    wrong.store(true, SeqCst);
    liar.assert_unheeded(&mut outcome);
    shop.node.pause(false);
    eventually("the money arrives", || shop.received() == PRICE);
    liar.honest.store(true, SeqCst);
    assert_paid_once(&shop, outcome);
}

#[test]
fn every_node_must_be_of_the_chain_and_remember_transactions_before_anything_is_sold() {
    let node = Solana::start();
    let other = Liar::before(&node, |call, _| {
        (call["method"] == "getGenesisHash").then(|| "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdpKuc147dw2N9d".into())
    });
    let forgetful = ["getTransaction", "getSignatureStatuses", "getBlockHeight", "getEpochInfo"].map(|method| {
        Liar::before(&node, move |call, _| {
            let error = json!({ "code": -32011, "message": "Transaction history is not available from this node" });
            (call["method"] == method).then_some(error)
        })
    });
    let urls = forgetful.each_ref().map(|liar| liar.stub.url());
    let (honest, other) = (node.url(), other.stub.url());
    let sellable = |urls: &[&String], node: Solana| {
        let urls: Vec<_> = urls.iter().map(|url| (*url).clone()).collect();
        let shop = open_with(node, Arc::default(), |network| {
            network.settlement = config::Settlement::Rpc { urls: urls.clone(), key: SETTLER.key.to_owned().into() };
        });
        (shop.chains.networks()[0].sellable.clone(), shop.node)
    };
    let (why, node) = sellable(&[&honest, &other], node);
    assert!(why.unwrap_err().starts_with("node 2 of rpc_urls is of the chain solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"));
    let (why, mut node) = sellable(&[&urls[0]], node);
    assert!(why.unwrap_err().contains("node 1 of rpc_urls cannot tell what became of a payment"));
    for url in &urls {
        let (why, back) = sellable(&[&honest, url], node);
        node = back;
        assert!(why.unwrap_err().contains("node 2 of rpc_urls cannot tell what became of a payment"));
    }
    let down = Stub::start(|_| None).url();
    let (sold, _node) = sellable(&[&honest, &down], node);
    assert_eq!(sold, Ok(()), "who says nothing says nothing false");
}

#[test]
fn where_a_facilitator_settles_every_node_must_tell_an_accounts_history() {
    let node = Solana::start();
    let forgetful = Liar::before(&node, |call, _| {
        let error = json!({ "code": -32601, "message": "Method not found" });
        (call["method"] == "getSignaturesForAddress").then_some(error)
    });
    let urls = [node.url(), forgetful.stub.url()];
    let shop = open_with(node, Arc::default(), |network| {
        let facilitator = Stub::start(|_| None).url();
        network.settlement = config::Settlement::Facilitator { url: facilitator, authorization: None, rpc_urls: urls.to_vec() };
    });
    let why = shop.chains.networks()[0].sellable.clone().unwrap_err();
    assert!(why.contains("node 2 of rpc_urls cannot tell what became of a payment"), "{why}");
}

#[test]
fn what_no_block_takes_any_more_is_not_sent_again_and_again() {
    let node = Solana::start();
    let asked = Arc::new(AtomicUsize::new(0));
    let count = asked.clone();
    // By its heights nothing ever ends.
    let liar = Liar::before(&node, move |call, told| match call["method"].as_str() {
        Some("isBlockhashValid") if told["result"]["value"] == false => {
            count.fetch_add(1, SeqCst);
            None
        }
        Some("getBlockHeight") => Some(json!(1000)),
        Some("getEpochInfo") => Some(json!({ "absoluteSlot": told["result"]["absoluteSlot"], "blockHeight": 1000 })),
        _ => None,
    });
    let shop = shop(node, &[liar.stub.url()]);
    shop.node.drop_sends(1000);
    let mut outcome = shop.chains.settle(shop.pay(BUYER, PRICE));
    eventually("it is sent again", || shop.node.sends() > 1);
    shop.node.expire();
    eventually("its end is seen", || asked.load(SeqCst) >= 2);
    let sends = shop.node.sends();
    eventually("its end is seen again", || asked.load(SeqCst) >= 5);
    assert_eq!((shop.node.sends(), outcome.try_recv()), (sends, Err(TryRecvError::Empty)), "and that is no verdict");
    assert_eq!((shop.received(), shop.node.landed().len()), (0, 0));
}

#[test]
fn a_node_that_answers_trouble_is_passed_over_for_one_that_knows() {
    for method in ["simulateTransaction", "getSignatureStatuses", "getTransaction", "nothing"] {
        let node = Solana::start();
        let troubled = Arc::new(AtomicBool::default());
        let now = troubled.clone();
        let liar = Liar::before(&node, move |call, _| {
            let error = json!({ "code": -32603, "message": "Internal error" });
            match call["method"].as_str() {
                _ if !now.load(SeqCst) => None,
                Some(asked) if asked == method => Some(error),
                // It is confirmed there, and its bytes are nowhere.
                Some("getTransaction") if method == "nothing" => Some(Value::Null),
                _ => None,
            }
        });
        let urls = [liar.stub.url(), node.url()];
        let shop = shop(node, &urls);
        let payment = shop.pay(BUYER, PRICE);
        troubled.store(true, SeqCst);
        assert_eq!(shop.simulate(&payment), Ok(()), "{method}");
        assert_paid_once(&shop, shop.chains.settle(payment));
    }
}
