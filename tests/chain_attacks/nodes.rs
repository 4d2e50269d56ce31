//! Nodes as providers run them: they do not know a word, are behind in one thing and not in another, or refuse long lists.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering::SeqCst};

use farebox::chain::reason;
use farebox::money::Micros;
use farebox_rig::anvil::MINTER;
use farebox_rig::stub::{self, Stub};
use serde_json::{Value, json};

use super::shop::{self, PRICE, Shop, confirmed, failed, still_open, wait};

/// A shop that believes a payment only in a safe block, and whose node is asked what is safe through `answer`.
fn open_cautious(answer: impl Fn(&Value, &dyn Fn(&Value) -> Value) -> Value + Send + Sync + 'static) -> Shop {
    shop::open_with(|node, network| {
        let proxy = Stub::before_node(node.address(), move |call, ask| match call["params"][0] == "safe" {
            true => answer(call, ask),
            false => ask(call),
        });
        network.safe_above = Micros::new(PRICE - 1);
        shop::lead_to(network, &[proxy.url()]);
    })
}

#[test]
fn a_large_payment_counts_once_it_is_final_where_the_node_does_not_say_what_is_safe() {
    type Answer = fn(&Value, &dyn Fn(&Value) -> Value) -> Value;
    let answers: [Answer; 4] = [
        // Polygon's node, and Ethereum's without a beacon.
        |call, _| shop::node_error(call, -32000, "safe block not found"),
        |call, _| shop::node_error(call, -39001, "Unknown block"),
        |call, _| json!({"jsonrpc": "2.0", "id": call["id"], "result": null}),
        // The latest is called safe.
        |call, ask| {
            let mut latest = call.clone();
            latest["params"][0] = "latest".into();
            ask(&latest)
        },
    ];
    for answer in answers {
        let shop = open_cautious(answer);
        let mut outcome = shop.chains.settle(shop.pay(300));
        shop::eventually("it is mined", || shop.received() == PRICE);
        // Two blocks back is safe there, and four are final.
        shop.node.mine(3);
        still_open(&mut outcome, 6);
        shop.node.mine(1);
        confirmed(wait(outcome));
        assert_eq!((shop.received(), shop.sent(), shop.journal.books().settled.len()), (PRICE, 1, 1));
    }
}

#[test]
fn our_own_transfer_is_not_called_a_strangers_while_receipts_and_events_are_missing() {
    let blind = Arc::new(AtomicBool::new(true));
    let hidden = blind.clone();
    // It knows what accounts sent and what the token keeps.
    let shop = shop::open_behind(move |call, ask| {
        let mut answer = ask(call);
        match call["method"].as_str() {
            Some("eth_getTransactionReceipt") if hidden.load(SeqCst) => answer["result"] = Value::Null,
            Some("eth_getLogs") if hidden.load(SeqCst) => answer["result"] = json!([]),
            _ => {}
        }
        answer
    });
    let mut outcome = shop.chains.settle(shop.pay(300));
    shop::eventually("it is mined", || shop.received() == PRICE);
    // Everything that shows is deep and final, and stays as it is for far longer than a node is behind.
    shop.node.rpc("evm_setIntervalMining", json!([1]));
    still_open(&mut outcome, 32);
    blind.store(false, SeqCst);
    let tx = confirmed(wait(outcome)).tx;
    let books = shop.journal.books();
    assert_eq!((books.attempts.len(), &books.attempts[0].tx, books.settled.len()), (1, &tx, 1));
    assert_eq!((shop.received(), shop.sent()), (PRICE, 1));
}

#[test]
fn a_payers_own_use_is_proven_without_its_event_by_the_receipt_of_our_reverted_transfer() {
    let shop = shop::open_behind(|call, ask| {
        let mut answer = ask(call);
        if call["method"] == "eth_getLogs" {
            answer["result"] = json!([]);
        }
        answer
    });
    shop.node.set_automine(false);
    let payment = shop.pay(300);
    let outcome = shop.chains.settle(payment.clone());
    shop::eventually("ours waits for a block", || shop.node.pending_transactions() == 1);
    let mut to_himself = shop.offer(300);
    to_himself.pay_to = MINTER.address.into();
    shop.overtake(&shop::pay(&to_himself, shop::nonce(&payment)));
    shop.node.rpc("evm_setIntervalMining", json!([1]));
    assert_eq!(failed(wait(outcome)), reason::NONCE_USED);
    assert_eq!((shop.received(), shop.sent(), shop.journal.books().settled.len()), (0, 1, 1));
}

/// A shop with two nodes, of which the first is wrong, in the way of `wrong`, while that is switched on.
fn open_with_two(switched: &Arc<AtomicBool>, wrong: fn(&Value, &mut Value)) -> Shop {
    let switched = switched.clone();
    shop::open_with(|node, network| {
        let first = Stub::before_node(node.address(), move |call, ask| {
            let mut answer = ask(call);
            if switched.load(SeqCst) {
                wrong(call, &mut answer);
            }
            answer
        });
        shop::lead_to(network, &[first.url(), node.url()]);
    })
}

/// Its newest block is an hour old, and so is all it knows of transactions.
fn stale(call: &Value, answer: &mut Value) {
    match call["method"].as_str() {
        Some("eth_getBlockByNumber") if call["params"][0] == "latest" || call["params"][0] == "pending" => {
            let time = answer["result"]["timestamp"].as_str().and_then(|time| u64::from_str_radix(&time[2..], 16).ok()).unwrap();
            answer["result"]["timestamp"] = format!("{:#x}", time - 3600).into();
        }
        Some("eth_getTransactionReceipt") => answer["result"] = Value::Null,
        _ => {}
    }
}

/// It is one of Base.
fn of_another_chain(call: &Value, answer: &mut Value) {
    if call["method"] == "eth_chainId" {
        answer["result"] = "0x2105".into();
    }
}

#[test]
fn a_first_node_that_is_behind_or_of_another_chain_does_not_stop_sales_on_the_second() {
    for wrong in [stale, of_another_chain] {
        for from_the_start in [true, false] {
            let switched = Arc::new(AtomicBool::new(from_the_start));
            let shop = open_with_two(&switched, wrong);
            assert_eq!(shop.chains.networks()[0].sellable, Ok(()));
            switched.store(true, SeqCst);
            let payments: Vec<_> = (0..6).map(|_| shop.pay(300)).collect();
            // All find it out at once.
            assert_eq!(shop.simulate_all(&payments), vec![Ok(()); payments.len()]);
            assert_eq!(shop.chains.networks()[0].sellable, Ok(()), "it is not even closed for a while");
            payments.into_iter().for_each(|payment| drop(confirmed(wait(shop.chains.settle(payment)))));
            assert_eq!((shop.received(), shop.sent()), (6 * PRICE, 6));
        }
    }
}

#[test]
fn a_settlement_under_way_is_followed_on_the_second_node_when_the_first_falls_behind() {
    let switched = Arc::new(AtomicBool::new(false));
    let shop = open_with_two(&switched, stale);
    shop.node.set_automine(false);
    let outcome = shop.chains.settle(shop.pay(300));
    shop::eventually("it is sent", || shop.node.pending_transactions() == 1);
    switched.store(true, SeqCst);
    shop.node.mine(1);
    let tx = confirmed(wait(outcome)).tx;
    assert_eq!((shop.received(), shop.sent(), &shop.journal.books().attempts[0].tx), (PRICE, 1, &tx));
}

#[test]
fn a_settlement_starts_on_the_second_node_when_the_first_is_of_another_chain() {
    let switched = Arc::new(AtomicBool::new(false));
    let shop = open_with_two(&switched, of_another_chain);
    let payment = shop.pay(300);
    switched.store(true, SeqCst);
    confirmed(wait(shop.chains.settle(payment)));
    assert_eq!((shop.received(), shop.sent(), shop.journal.books().attempts.len()), (PRICE, 1, 1));
}

/// How a provider answers a list of calls that it does not take.
type Refusal = fn() -> Value;

const REFUSALS: [Refusal; 3] = [
    || json!({"jsonrpc": "2.0", "id": null, "error": {"code": -32005, "message": "batch limit exceeded"}}),
    || json!([{"jsonrpc": "2.0", "id": null, "error": {"code": -32600, "message": "too many calls"}}]),
    || json!([{"jsonrpc": "2.0", "id": 0, "error": {"code": -32600, "message": "too many calls"}}]),
];

/// How often a provider was asked.
#[derive(Default)]
struct Asked {
    lists_refused: AtomicU64,
    lists_answered: AtomicU64,
    singles: AtomicU64,
}

/// A shop behind a provider that takes lists of at most so many calls, and one single call in three only.
fn open_behind_provider(most: usize, refusal: Refusal, asked: &Arc<Asked>) -> Shop {
    let asked = asked.clone();
    shop::open_with(|node, network| {
        let behind = node.address().to_owned();
        let proxy = Stub::start(move |request| {
            let body: Value = serde_json::from_str(request.split("\r\n\r\n").nth(1)?).ok()?;
            match body.as_array().map(Vec::len) {
                Some(calls) if calls > most => {
                    asked.lists_refused.fetch_add(1, SeqCst);
                    return Some((200, refusal().to_string()));
                }
                Some(_) => drop(asked.lists_answered.fetch_add(1, SeqCst)),
                None if !asked.singles.fetch_add(1, SeqCst).is_multiple_of(3)
                    && body["method"] == "eth_getTransactionReceipt" =>
                {
                    return Some((429, "{}".into()));
                }
                None => {}
            }
            Some((200, stub::forward(&behind, request)))
        });
        shop::lead_to(network, &[proxy.url()]);
    })
}

fn settle_many(shop: &Shop) {
    shop.node.set_automine(false);
    let outcomes: Vec<_> = (0..24).map(|_| shop.chains.settle(shop.pay(300))).collect();
    shop::eventually("all are sent", || shop.node.pending_transactions() == 24);
    shop.node.mine(1);
    outcomes.into_iter().for_each(|outcome| drop(confirmed(wait(outcome))));
    assert_eq!((shop.received(), shop.sent()), (24 * PRICE, 24));
}

#[test]
fn a_provider_that_takes_ten_calls_at_once_is_never_asked_for_more() {
    let asked = Arc::<Asked>::default();
    let shop = open_behind_provider(10, REFUSALS[0], &asked);
    settle_many(&shop);
    assert_eq!(asked.lists_refused.load(SeqCst), 0);
    assert!(asked.lists_answered.load(SeqCst) > 24);
}

#[test]
fn a_provider_that_takes_no_lists_and_limits_the_rate_of_single_calls_is_sold_on() {
    for refusal in REFUSALS {
        let asked = Arc::<Asked>::default();
        let shop = open_behind_provider(1, refusal, &asked);
        assert_eq!(shop.chains.networks()[0].sellable, Ok(()));
        settle_many(&shop);
        assert!(asked.lists_refused.load(SeqCst) <= 2, "the only node is asked twice at most until that is known");
    }
}
