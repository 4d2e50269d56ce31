//! Fees that buy nothing: transfers that fail in their blocks are few, whoever signs them and however many at once.

use farebox_rig::anvil::Wallet;
use farebox_rig::buyer::{send_at_once, sign_on};
use farebox_rig::http::{self, Answer, Request};
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use farebox_rig::solana::{BUYER, Cluster, OTHER_BUYER, RICHES, SETTLER, Solana};

use crate::shop::{CHARGE, CHAT, Shop, USAGE, body};
use crate::trouble::{buy_emptied, open};

/// What makes a wallet one that is known here.
const DOLLAR: u64 = 1_000_000;
/// Lamports that a settlement costs: two signatures and the client's priority of one lamport.
const FEE: u64 = 10_001;

/// We do not pay for it, and no other payment is asked for.
fn assert_not_paid_for(shop: &Shop, answer: &Answer, before: (u64, u64)) {
    assert_eq!((answer.status, answer.header("payment-required")), (429, None), "{}", answer.text());
    let wait: u64 = answer.header("retry-after").expect("it says when").parse().unwrap();
    assert!((80_000..=86_400).contains(&wait), "{wait}");
    assert_eq!((shop.chain.sends(), shop.chain.lamports(SETTLER)), before, "nothing was signed for it");
}

#[test]
fn a_wallet_whose_transfers_fail_in_their_blocks_at_our_expense_is_soon_settled_for_no_more() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    for _ in 0..3 {
        shop.chain.set_balance(BUYER, RICHES);
        let payment = shop.pay(CHAT, &body);
        let answer = buy_emptied(&shop, &body, &payment);
        assert_eq!((answer.status, answer.code().as_str()), (402, "settlement_failed"), "{}", answer.text());
    }
    shop.chain.set_balance(BUYER, RICHES);
    let before = (shop.chain.sends(), shop.chain.lamports(SETTLER));
    assert!(before.1 <= 1_000_000_000 - 30_000, "each has cost us a fee");
    let payment = shop.pay(CHAT, &body);
    assert_not_paid_for(&shop, &shop.buy(CHAT, &body, &payment), before);
    assert_not_paid_for(&shop, &shop.server.account(BUYER).top_up_on(&shop.chain, 1_000_000), before);
    assert_eq!((shop.earned(), shop.chain.usdc_balance(BUYER)), (0, RICHES));
    // Others buy as ever.
    let offer = shop.requirements(CHAT, &body);
    let payment = shop.sign(OTHER_BUYER, offer);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!((books.balance(BUYER.address), books.balance(OTHER_BUYER.address)), (0, payment.amount - CHARGE));
    assert_eq!(shop.earned(), payment.amount);
}

#[test]
fn on_a_day_with_too_many_failures_at_our_expense_only_wallets_with_a_balance_are_settled_for() {
    let mut shop = open(&["failed_transfers_per_day = 1"]);
    let body = body(USAGE, false);
    assert_eq!(shop.server.account(OTHER_BUYER).top_up_on(&shop.chain, DOLLAR).status, 200);
    let payment = shop.pay(CHAT, &body);
    assert_eq!(buy_emptied(&shop, &body, &payment).status, 402);
    shop.chain.set_balance(BUYER, RICHES);
    let before = (shop.chain.sends(), shop.chain.lamports(SETTLER));
    let payment = shop.pay(CHAT, &body);
    assert_not_paid_for(&shop, &shop.buy(CHAT, &body, &payment), before);
    let offer = shop.requirements(CHAT, &body);
    let again = shop.sign(OTHER_BUYER, offer);
    let answer = shop.buy(CHAT, &body, &again);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    let paid = DOLLAR + again.amount;
    assert_eq!((books.balance(BUYER.address), books.balance(OTHER_BUYER.address)), (0, paid - CHARGE));
    assert_eq!(shop.earned(), paid);
}

/// Requests that bring so many payments of a wallet, each of its own.
fn orders(shop: &Shop, wallet: Wallet, count: usize, body: &str) -> Vec<Request> {
    let offers: Vec<_> = (0..count).map(|_| shop.requirements(CHAT, body)).collect();
    let signed = sign_on(&shop.chain, wallet, &offers);
    signed.iter().map(|one| Request::post(CHAT, body).header("payment-signature", one["v2"].as_str().unwrap())).collect()
}

#[test]
fn who_signs_many_payments_and_empties_the_wallet_costs_us_four_fees() {
    let shop = open(&["settle_wait_ms = 4000"]);
    let body = body(USAGE, false);
    let orders = orders(&shop, BUYER, 24, &body);
    shop.chain.pause(true);
    let address = shop.server.address();
    std::thread::scope(|scope| {
        let calls: Vec<_> = orders.iter().map(|order| scope.spawn(|| http::send(address, order).unwrap())).collect();
        eventually("some are sent", || shop.chain.waiting() >= 4);
        shop.chain.set_balance(BUYER, 0);
        shop.chain.pause(false);
        let answers: Vec<_> = calls.into_iter().map(|call| call.join().unwrap()).collect();
        assert!(answers.iter().all(|answer| answer.status != 200), "nobody is served");
    });
    let failed = shop.chain.landed().iter().filter(|landed| !landed.succeeded).count();
    assert_eq!((failed, shop.earned()), (4, 0));
    assert_eq!(shop.chain.lamports(SETTLER), 1_000_000_000 - 4 * FEE);
    shop.close(0);
}

#[test]
fn two_new_wallets_that_pay_for_64_calls_each_at_once_are_sold_all_of_them() {
    let chain = Solana::start_as(Cluster::Devnet, std::time::Duration::from_millis(600));
    let mut shop = Shop::on(chain, &Settings::default());
    let body = body(USAGE, false);
    let orders = [BUYER, OTHER_BUYER].map(|wallet| orders(&shop, wallet, 64, &body));
    let answers = send_at_once(shop.server.address(), &orders.iter().flatten().collect::<Vec<_>>());
    let odd = answers.iter().find(|(status, _)| *status != 200);
    assert_eq!((answers.len(), odd), (128, None));
    assert_eq!((shop.served(), shop.chain.landed().len()), (128, 128));
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    let each = shop.earned() / 2 - 64 * CHARGE;
    assert_eq!((books.balance(BUYER.address), books.balance(OTHER_BUYER.address)), (each, each));
}
