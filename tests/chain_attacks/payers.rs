//! Wallets that promise the same money many times: they cost us no gas, and wallets that have the money wait for nobody.

use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use farebox::chain::{Settlement, VerifiedPayment, reason};
use farebox_rig::anvil::{BUYER, POOR_BUYER};
use serde_json::json;

use super::shop::{self, PRICE, Shop, confirmed, wait};

/// Seconds until the end of a payment that fails.
const LASTS: u64 = 50;
/// By how much a pause may be shorter, so that those who pause look together.
const NOTICED: Duration = Duration::from_millis(300);

/// Payments of a wallet that owns what `calls` of them cost.
fn payments(shop: &Shop, count: usize, calls: u64) -> Vec<VerifiedPayment> {
    shop.node.wait_receipt(&shop.node.pay(BUYER, POOR_BUYER, calls * PRICE));
    let payments: Vec<_> = (0..count).map(|_| shop::pay_as(POOR_BUYER, &shop.offer(300), shop::fresh_nonce())).collect();
    payments.iter().for_each(|payment| assert_eq!(shop.simulate(payment), Ok(()), "by itself it is good"));
    payments
}

#[test]
fn a_wallet_with_money_for_one_of_many_payments_costs_us_one_transaction() {
    let shop = shop::open();
    let payments = payments(&shop, 12, 1);
    shop.node.set_automine(false);
    let outcomes: Vec<_> = payments.into_iter().map(|payment| shop.chains.settle(payment)).collect();
    shop::eventually("one is sent", || shop.node.pending_transactions() == 1);
    // A wallet beside it is not held up.
    let rich = shop.chains.settle(shop.pay(300));
    shop::eventually("so is the other wallet's", || shop.node.pending_transactions() == 2);
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(shop.node.pending_transactions(), 2, "and no second one");
    shop.node.mine(1);
    confirmed(wait(rich));
    let (paid, refused): (Vec<_>, Vec<_>) =
        outcomes.into_iter().map(wait).partition(|outcome| matches!(outcome, Settlement::Confirmed(_)));
    assert_eq!((paid.len(), refused.len()), (1, 11));
    refused.into_iter().for_each(|outcome| assert_eq!(shop::failed(outcome), reason::BALANCE));
    assert_eq!(shop.journal.books().attempts.len(), 2, "nothing was signed for those without money");
    shop.node.mine(8);
    assert_eq!((shop.received(), shop.sent(), shop.node.usdc_balance(POOR_BUYER.address)), (2 * PRICE, 2, 0));
}

#[test]
fn a_wallet_with_money_for_all_its_payments_has_them_all_under_way_at_once() {
    let shop = shop::open();
    let payments = payments(&shop, 12, 12);
    shop.node.set_automine(false);
    let outcomes: Vec<_> = payments.into_iter().map(|payment| shop.chains.settle(payment)).collect();
    shop::eventually("all are sent", || shop.node.pending_transactions() == 12);
    shop.node.mine(1);
    outcomes.into_iter().for_each(|outcome| drop(confirmed(wait(outcome))));
    assert_eq!((shop.received(), shop.sent(), shop.node.usdc_balance(POOR_BUYER.address)), (12 * PRICE, 12, 0));
}

#[test]
fn a_wallet_that_can_just_pay_is_not_refused_while_its_transfers_get_into_blocks() {
    let shop = shop::open();
    let payments = payments(&shop, 12, 12);
    let outcomes: Vec<_> = payments.into_iter().map(|payment| shop.chains.settle(payment)).collect();
    outcomes.into_iter().for_each(|outcome| drop(confirmed(wait(outcome))));
    assert_eq!((shop.received(), shop.sent(), shop.node.usdc_balance(POOR_BUYER.address)), (12 * PRICE, 12, 0));
}

#[test]
fn a_payment_that_failed_is_looked_at_ever_more_seldom_until_its_end() {
    let looks = Arc::new(Mutex::new(Vec::new()));
    let seen = looks.clone();
    let shop = shop::open_behind(move |call, ask| {
        if call["method"] == "eth_getTransactionReceipt" {
            seen.lock().unwrap().push(Instant::now());
        }
        ask(call)
    });
    shop.node.wait_receipt(&shop.node.pay(BUYER, POOR_BUYER, PRICE));
    let payment = shop::pay_as(POOR_BUYER, &shop.offer(LASTS), shop::fresh_nonce());
    shop.node.set_automine(false);
    let outcome = shop.chains.settle(payment);
    shop::eventually("ours waits for a block", || shop.node.pending_transactions() == 1);
    shop.node.pay(POOR_BUYER, BUYER, PRICE);
    shop.node.rpc("evm_setIntervalMining", json!([1]));
    assert_eq!(shop::failed(wait(outcome)), reason::BALANCE);
    let told = Instant::now();
    assert!(shop.journal.books().settled.is_empty(), "anybody may still submit it");
    let end = told + Duration::from_secs(LASTS) * 2;
    while shop.journal.books().settled.is_empty() {
        assert!(Instant::now() < end, "its end is noticed");
        std::thread::sleep(Duration::from_millis(100));
    }
    let looks = looks.lock().unwrap();
    // A pause begins with a look, whenever this thread hears what came of it.
    let (before, after): (Vec<_>, Vec<_>) = looks.iter().copied().partition(|look| *look <= told);
    let first = before.last().copied().unwrap_or(told);
    // A look may ask twice; the next one is seconds away. What is left of the payment's time may cut a pause short, but
    // nothing makes one before that shorter: the machine can only be late.
    let pauses = after.iter().scan(first, |last, look| Some(look.duration_since(std::mem::replace(last, *look))));
    let pauses: Vec<_> = pauses.filter(|pause| *pause > Duration::from_secs(4)).collect();
    let least = [5, 10, 20, 40].map(Duration::from_secs);
    let before_the_end = pauses.iter().zip(least).take_while(|(pause, least)| **pause + NOTICED >= *least).count();
    assert!(before_the_end >= 1 && pauses.len() <= before_the_end + 2, "{pauses:?}");
    assert_eq!((shop.received(), shop.sent()), (0, 1));
}
