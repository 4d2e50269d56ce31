//! What can happen between a signature and a block: lost, late, too late, drained, undone, unpaid; and where the money is then.

use std::sync::Arc;
use std::time::Duration;

use farebox::chain::solana::reason;
use farebox::chain::{Refused, Settlement};
use farebox_rig::process::eventually;
use farebox_rig::solana::{BLOCKHASH_LIFE, BUYER, Cluster, FINAL_DEPTH, OTHER_BUYER, PAY_TO, RICHES, SETTLER, Solana};
use tokio::sync::oneshot::error::TryRecvError;

use crate::journal::Told;
use crate::shop::{FEE, PRICE, confirmed, failed, open, open_with, wait};

#[test]
fn a_transaction_that_the_node_loses_is_sent_again_and_pays_once() {
    let shop = open();
    let payment = shop.pay(BUYER, PRICE);
    shop.node.drop_sends(2);
    let confirmation = confirmed(shop.settle(&payment));
    assert_eq!((shop.node.sends(), shop.received()), (3, PRICE));
    assert_eq!(shop.journal.attempts().len(), 1, "the same bytes each time");
    assert_eq!(shop.node.landed()[0].signature, confirmation.tx);
    assert_eq!(shop.node.lamports(SETTLER), 1_000_000_000 - FEE);
}

#[test]
fn a_transaction_that_is_late_is_waited_for() {
    let shop = open();
    let payment = shop.pay(BUYER, PRICE);
    shop.node.delay(20);
    confirmed(shop.settle(&payment));
    assert_eq!((shop.received(), shop.node.landed().len()), (PRICE, 1));
}

#[test]
fn a_blockhash_that_ends_while_its_transaction_is_lost_fails_by_block_height_and_moves_nothing() {
    // With slots so long that no block becomes final by itself meanwhile.
    let node = Solana::start_as(Cluster::Devnet, Duration::from_secs(5));
    let shop = open_with(node, Arc::default(), |_| {});
    let payment = shop.pay(BUYER, PRICE);
    shop.node.drop_sends(1000);
    let mut outcome = shop.chains.settle(payment.clone());
    eventually("it is sent", || shop.node.sends() > 0);
    // Past its last block, also for good, but not by so much that nodes which are some blocks apart all have passed it.
    let height = || shop.node.rpc("getBlockHeight", serde_json::json!([])).as_u64().unwrap();
    shop.node.advance(FINAL_DEPTH + BLOCKHASH_LIFE / 2);
    shop.node.advance(1161 - height());
    let sent = shop.node.sends();
    assert!(height() > 1160, "its last block has passed");
    // It looks once a second.
    std::thread::sleep(Duration::from_secs(3));
    assert_eq!(outcome.try_recv(), Err(TryRecvError::Empty), "nothing is concluded from silence alone");
    shop.node.advance(60);
    assert_eq!(failed(wait(outcome)), reason::EXPIRED);
    assert!(shop.node.sends() <= sent + 1, "what can land no more is not sent any more");
    assert_eq!((shop.received(), shop.node.landed().len()), (0, 0));
    let failed = |told: &Told| matches!(told, Told::Settled(_, Settlement::Failed { .. }));
    assert!(shop.journal.told().last().is_some_and(failed));
    // Nor is the same payment taken again.
    assert!(matches!(shop.simulate(&payment), Err(Refused::Invalid { reason: reason::EXPIRED, .. })));
}

#[test]
fn a_payment_that_is_brought_too_late_is_refused_before_anything_is_signed() {
    let shop = open();
    let payment = shop.pay(BUYER, PRICE);
    shop.node.expire();
    let refused = shop.simulate(&payment);
    assert!(matches!(refused, Err(Refused::Invalid { reason: reason::EXPIRED, .. })), "{refused:?}");
    assert_eq!(failed(shop.settle(&payment)), reason::EXPIRED);
    shop.assert_untouched();
    assert!(shop.journal.attempts().is_empty());
}

#[test]
fn a_payment_whose_blockhash_is_about_to_end_is_refused_as_one_whose_blockhash_has_ended() {
    let shop = open();
    let payment = shop.pay(BUYER, PRICE);
    assert_eq!(shop.simulate(&payment), Ok(()));
    // An offer of now ends no sooner. Some blocks pass while this is asked.
    let end: u64 = shop.offer(PRICE).extra.unwrap()["lastValidBlockHeight"].as_str().unwrap().parse().unwrap();
    let height = shop.node.rpc("getBlockHeight", serde_json::json!([{ "commitment": "processed" }])).as_u64().unwrap();
    shop.node.advance((end - 36).saturating_sub(height));
    let refused = shop.simulate(&payment);
    assert!(matches!(&refused, Err(Refused::Invalid { reason: reason::EXPIRED, .. })), "{refused:?}");
    shop.assert_untouched();
    assert!(shop.journal.attempts().is_empty(), "nothing was signed");
}

#[test]
fn a_wallet_that_is_emptied_while_we_settle_has_failed_and_its_buyer_is_told_before_that_is_final() {
    let shop = open();
    let payment = shop.pay(BUYER, PRICE);
    shop.node.pause(true);
    let outcome = shop.chains.settle(payment.clone());
    eventually("it is sent", || shop.node.sends() > 0);
    shop.node.set_balance(BUYER, 0);
    shop.node.pause(false);
    assert_eq!(failed(wait(outcome)), reason::TRANSACTION);
    let settled = |told: &Told| matches!(told, Told::Settled(..));
    assert!(!shop.journal.told().iter().any(settled), "the books wait until it is final");
    assert_eq!(*shop.journal.wasted.lock().unwrap(), [payment.id()], "and our fee counts at once");
    shop.node.finalize();
    eventually("it is final", || shop.journal.told().iter().any(settled));
    assert_eq!(*shop.journal.wasted.lock().unwrap(), [payment.id()], "once");
    assert_eq!(shop.received(), 0);
    assert!(!shop.node.landed()[0].succeeded);
}

#[test]
fn two_payments_that_spend_the_same_money_cost_one_fee() {
    let shop = open();
    shop.node.set_balance(BUYER, PRICE * 3 / 2);
    let payments = shop.pay_each(BUYER, &[PRICE, PRICE]);
    shop.node.delay(5);
    for payment in &payments {
        assert_eq!(shop.simulate(payment), Ok(()), "each alone would succeed");
    }
    let outcomes = [0, 1].map(|place: usize| shop.chains.settle(payments[place].clone()));
    let outcomes = outcomes.map(wait);
    let paid = outcomes.iter().filter(|outcome| matches!(outcome, Settlement::Confirmed(_))).count();
    assert_eq!((paid, shop.received(), shop.journal.attempts().len()), (1, PRICE, 1));
    assert_eq!(shop.node.lamports(SETTLER), 1_000_000_000 - FEE, "the second was never signed");
}

#[test]
fn a_confirmed_transfer_that_a_fork_takes_away_is_sent_again() {
    let shop = open();
    let payment = shop.pay(BUYER, PRICE);
    let confirmation = confirmed(shop.settle(&payment));
    shop.node.pause(true);
    shop.node.undo(&confirmation.tx);
    assert_eq!((shop.received(), shop.node.usdc_balance(BUYER)), (0, RICHES), "the block is gone, and the money with it");
    eventually("we notice", || shop.journal.told().contains(&Told::Unconfirmed(payment.id())));
    shop.node.pause(false);
    eventually("the money is back", || shop.received() == PRICE);
    let confirmations = |shop: &crate::shop::Shop| {
        let settled =
            |told: &&Told| matches!(told, Told::Settled(_, Settlement::Confirmed(found)) if *found.tx == confirmation.tx);
        shop.journal.told().iter().filter(settled).count()
    };
    eventually("it is confirmed again", || confirmations(&shop) == 2);
    assert_eq!((shop.journal.attempts().len(), shop.node.landed().len()), (1, 1));
}

#[test]
fn a_large_amount_is_believed_when_it_is_final() {
    let shop = open();
    let payment = shop.pay(BUYER, 5_000_001);
    let mut outcome = shop.chains.settle(payment);
    eventually("the money arrives", || shop.received() == 5_000_001);
    shop.node.advance(5);
    std::thread::sleep(std::time::Duration::from_millis(500));
    assert_eq!(outcome.try_recv(), Err(TryRecvError::Empty), "confirmed is not enough for so much");
    shop.node.finalize();
    confirmed(wait(outcome));
    assert_eq!((shop.received(), shop.node.landed().len()), (5_000_001, 1));
}

#[test]
fn a_network_without_a_token_account_of_ours_or_without_fees_is_not_offered_and_says_what_to_do() {
    let missing = Solana::start();
    missing.close_token_account(PAY_TO);
    let poor = Solana::start();
    poor.set_lamports(SETTLER, 1_000_000);
    let strange = Solana::start();
    for (node, change, words) in [
        (
            missing,
            None,
            &[
                "spl-token create-account 4zMMC9srt5Ri5X14GAgXhaHii3GnPAEERYPJgZJDncDU --owner 2gGZhPPrPq96D8m3nLGnr2CE5rfymjwbihY6cmRhnGFy",
            ][..],
        ),
        (poor, None, &["has 1000000 lamports", "send it some SOL"]),
        (
            strange,
            Some("solana:5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp"),
            &["node 1 of rpc_urls is of the chain solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1"],
        ),
    ] {
        let shop = open_with(node, Arc::default(), |network| {
            change.into_iter().for_each(|id: &str| network.id = id.to_owned());
        });
        let why = shop.chains.networks()[0].sellable.clone().unwrap_err();
        assert!(words.iter().all(|word| why.contains(word)), "{why}");
        let offered = shop.chains.offer(farebox::money::Micros::new(PRICE), 300, "one call");
        assert!(offered.is_empty(), "nothing is offered that could not be settled");
    }
}

#[test]
fn what_is_lost_after_start_closes_the_network_and_no_payment_is_called_bad_for_it() {
    for lose in [|node: &Solana| node.close_token_account(PAY_TO), |node: &Solana| node.set_lamports(SETTLER, 0)] {
        let shop = open();
        let payment = shop.pay(OTHER_BUYER, PRICE);
        lose(&shop.node);
        let refused = shop.simulate(&payment);
        assert!(matches!(refused, Err(Refused::Unavailable(_))), "our trouble, never a 402: {refused:?}");
        assert!(shop.chains.networks()[0].sellable.is_err());
        assert!(shop.chains.offer(farebox::money::Micros::new(PRICE), 300, "one call").is_empty());
        assert_eq!((shop.node.sends(), shop.node.usdc_balance(OTHER_BUYER)), (0, RICHES));
    }
}

#[test]
fn a_vanished_transfer_that_can_land_no_more_is_a_loss_that_the_journal_hears_of() {
    let shop = open();
    let payment = shop.pay(BUYER, PRICE);
    let confirmation = confirmed(shop.settle(&payment));
    shop.node.drop_sends(10_000);
    shop.node.undo(&confirmation.tx);
    eventually("we notice", || shop.journal.told().contains(&Told::Unconfirmed(payment.id())));
    shop.node.expire();
    let failed = |told: &Told| matches!(told, Told::Settled(_, Settlement::Failed { reason: reason::EXPIRED, .. }));
    eventually("it is proven", || shop.journal.told().last().is_some_and(failed));
    assert_eq!((shop.received(), shop.node.usdc_balance(BUYER), shop.node.landed().len()), (0, RICHES, 0));
}

#[test]
fn a_start_on_what_was_confirmed_only_watches_it() {
    let shop = open();
    let payment = shop.pay(BUYER, PRICE);
    let confirmation = confirmed(shop.settle(&payment));
    let (attempts, sends) = (shop.journal.attempts(), shop.node.sends());
    drop(shop.chains);
    let shop = open_with(shop.node, Arc::default(), |_| {});
    drop(shop.chains.resume(payment.clone(), attempts, Some(confirmation)));
    shop.node.finalize();
    eventually("it is final", || shop.journal.told() == [Told::Finalized(payment.id())]);
    assert_eq!((shop.node.sends(), shop.received()), (sends, PRICE), "nothing was sent, and nothing said twice");
}
