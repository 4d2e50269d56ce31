//! Payments on a real Solana virtual machine: who holds the money when a settlement is lost, late, expired, drained, undone or
//! interrupted?

#[path = "../chain_evm/journal.rs"]
mod journal;
mod lies;
mod over;
mod shop;
mod trouble;

use std::sync::atomic::Ordering::SeqCst;

use farebox::chain::solana::reason;
use farebox::chain::{Counted, Refused, Settlement, VerifiedPayment, audit};
use farebox::clock::Clock;
use farebox_rig::process::eventually;
use farebox_rig::solana::{BUYER, POOR_BUYER, RICHES, SETTLER};
use journal::{AFTER_SIGNED, NEVER, Told, VOIDED};
use shop::{FEE, PRICE, confirmed, failed, open, wait};

#[test]
fn a_payment_arrives_once_and_the_journal_hears_of_every_step_first() {
    let shop = open();
    let payment = shop.pay(BUYER, PRICE);
    assert_eq!(shop.simulate(&payment), Ok(()));
    shop.assert_untouched();
    let confirmation = confirmed(shop.settle(&payment));
    assert_eq!((shop.received(), shop.node.usdc_balance(BUYER)), (PRICE, RICHES - PRICE));
    assert_eq!(shop.node.lamports(SETTLER), 1_000_000_000 - FEE);
    let (id, attempts) = (payment.id(), shop.journal.attempts());
    assert_eq!(attempts.len(), 1);
    assert_eq!(attempts[0].tx, confirmation.tx);
    let settled = Told::Settled(id, Settlement::Confirmed(confirmation.clone()));
    assert_eq!(shop.journal.told(), [Told::Signed(id, attempts[0].clone()), Told::Sent(id), settled]);
    let landed = shop.node.landed();
    assert_eq!((landed.len(), &landed[0].signature, landed[0].received), (1, &confirmation.tx, PRICE));

    // The same payment again: the chain knows it, and nothing is sent.
    assert!(matches!(shop.simulate(&payment), Err(Refused::Invalid { reason: reason::DUPLICATE, .. })));
    shop.node.finalize();
    eventually("it is final", || shop.journal.told().contains(&Told::Finalized(id)));
    assert!(!shop.journal.told().contains(&Told::Unconfirmed(id)));
    assert_eq!((shop.received(), shop.node.landed().len()), (PRICE, 1));
}

#[test]
fn many_payments_at_once_all_arrive_in_transactions_of_their_own() {
    let shop = open();
    let payments = shop.pay_each(BUYER, &[PRICE; 40]);
    let outcomes: Vec<_> = payments.iter().map(|payment| shop.chains.settle(payment.clone())).collect();
    outcomes.into_iter().for_each(|outcome| drop(confirmed(wait(outcome))));
    assert_eq!(shop.received(), 40 * PRICE);
    assert_eq!(shop.node.landed().iter().filter(|landed| landed.succeeded).count(), 40);
    assert_eq!(shop.node.lamports(SETTLER), 1_000_000_000 - 40 * FEE, "no fee was paid twice");
}

#[test]
fn a_receiver_that_went_away_changes_nothing() {
    let shop = open();
    drop(shop.chains.settle(shop.pay(BUYER, PRICE)));
    eventually("the money arrives", || shop.received() == PRICE);
    eventually("the journal hears of it", || shop.journal.told().iter().any(|told| matches!(told, Told::Settled(..))));
}

#[test]
fn what_the_chain_would_refuse_is_refused_and_nothing_is_signed() {
    let shop = open();
    let poor = shop.pay(POOR_BUYER, PRICE);
    let Err(Refused::Invalid { reason: reason::SIMULATION, message }) = shop.simulate(&poor) else { panic!("it is poor") };
    assert_eq!(message, "the payer's token account holds 0.000000 USDC, and 0.250000 are needed");
    assert_eq!(failed(shop.settle(&poor)), reason::SIMULATION);
    shop.node.close_token_account(POOR_BUYER);
    let none = shop.simulate(&poor);
    assert!(matches!(none, Err(Refused::Invalid { reason: reason::SIMULATION, .. })), "{none:?}");
    shop.assert_untouched();
    assert!(shop.journal.attempts().is_empty(), "nothing was signed");
}

#[test]
fn a_claim_that_was_given_back_is_never_sent() {
    let shop = open();
    let payment = shop.pay(BUYER, PRICE);
    shop.journal.crash.store(VOIDED, SeqCst);
    let mut outcome = shop.chains.settle(payment.clone());
    eventually("it stops", || matches!(outcome.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Closed)));
    shop.assert_untouched();
    // Claimed anew, the same payment settles.
    shop.journal.crash.store(NEVER, SeqCst);
    confirmed(shop.settle(&payment));
    assert_eq!((shop.received(), shop.node.landed().len()), (PRICE, 1));
}

#[test]
fn a_program_that_dies_after_signing_sends_the_same_bytes_when_it_is_back() {
    let shop = open();
    let payment = shop.pay(BUYER, PRICE);
    shop.journal.crash.store(AFTER_SIGNED, SeqCst);
    let mut outcome = shop.chains.settle(payment.clone());
    eventually("it dies", || matches!(outcome.try_recv(), Err(tokio::sync::oneshot::error::TryRecvError::Closed)));
    shop.assert_untouched();
    let signed = shop.journal.attempts().remove(0).tx;
    let (shop, outcome) = shop.restart(&payment);
    assert_eq!(confirmed(wait(outcome)).tx, signed);
    assert_eq!((shop.received(), shop.node.landed().len()), (PRICE, 1));
    assert!(shop.journal.attempts().is_empty(), "nothing was signed anew");
}

#[test]
fn a_payout_that_became_balance_again_is_looked_for_by_its_name_or_in_the_history_and_never_where_nobody_remembers() {
    let shop = open();
    let (sent, other) = (shop.pay(BUYER, PRICE), shop.pay(BUYER, PRICE));
    let tx = confirmed(shop.settle(&sent)).tx;
    let failed = |payment: &VerifiedPayment, tx: &str| Counted {
        id: payment.id(),
        payment: payment.to_bytes(),
        tx: tx.to_owned(),
        payout: None,
        failed: true,
        taken: false,
    };
    let look = |claims: &[Counted]| audit(&[shop::network(&shop.node)], claims, &Clock::new(shop::now));
    let claims = [failed(&sent, &tx), failed(&other, ""), failed(&other, &tx)];
    let forgetful = look(&claims);
    assert_eq!((forgetful.problems.len(), forgetful.unasked), (1, 2), "its name is known: {forgetful:?}");
    shop.node.keeps_since(shop::now().secs() - 3600);
    for claims in [&claims[..], &[failed(&sent, ""), failed(&other, "")]] {
        let found = look(claims);
        let [said] = &found.problems[..] else { panic!("{found:?}") };
        assert!(said.contains(&tx) && found.unasked == 0, "{found:?}");
    }
    assert_eq!(shop.received(), PRICE);
}
