//! A chain that fails under a payout: the balance has the money again once it can never be paid, and not a moment before.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};

use farebox_rig::anvil::{Anvil, BUYER, MINTER, OTHER_BUYER, PAY_TO, SETTLER};
use farebox_rig::process::eventually;
use farebox_rig::server::Settings;
use farebox_rig::stub::Stub;
use serde_json::{Value, json};

use crate::shop::{FIVE, Shop, operate, said};

/// Past the end of what was signed, in a block that is final.
fn let_it_end(shop: &Shop) {
    shop.chain.rpc("evm_increaseTime", json!([400]));
    shop.server.move_clock(400);
    shop.chain.mine(8);
}

/// The payload of a header, as the rig submits it.
fn payload(header: &str) -> Value {
    serde_json::from_slice::<Value>(&farebox::x402::decode_base64(header).unwrap()).unwrap()["payload"].take()
}

/// A payout of a dollar whose gateway dies as soon as the balance gave for it, and what happens before the next starts.
fn claimed_and_no_more(shop: &mut Shop, header: &str, meanwhile: impl FnOnce(&Shop)) {
    shop.restart_armed("payout.after");
    shop.asked("1", "ticket").left(header);
    shop.server.wait_death("payout.after");
    meanwhile(shop);
    shop.server.restart();
}

#[test]
fn what_its_chain_refuses_leaves_no_balance_and_no_node_sees_its_signature() {
    let chain = Anvil::start(84532);
    let heard = Arc::new(Mutex::new(String::new()));
    let hearing = heard.clone();
    let node = Stub::before_node(chain.address(), move |call, ask| {
        hearing.lock().unwrap().push_str(&call.to_string());
        ask(call)
    });
    let shop = Shop::on(chain, &Settings { rpc_urls: vec![node.url()], ..Settings::default() });
    let asked = shop.asked("1", "ticket");
    let signed = asked.signed(&asked.offer());
    let signature = payload(&signed)["signature"].as_str().unwrap()[2..66].to_owned();
    shop.chain.wait_receipt(&shop.chain.pay(PAY_TO, OTHER_BUYER, FIVE));
    let refused = asked.send(Some(&signed)).unwrap_err();
    assert!(refused.contains("has 0.000000 USDC") && refused.contains("nothing was moved"), "{refused}");
    assert_eq!(shop.balance(), FIVE);
    assert!(!heard.lock().unwrap().contains(&signature), "whoever sees it can submit it, for what nothing was taken");
    shop.chain.wait_receipt(&shop.chain.pay(OTHER_BUYER, PAY_TO, FIVE));
    assert_eq!(asked.send(Some(&signed)).unwrap()["state"], "paid", "the same signature is as good as before");
    assert!(heard.lock().unwrap().contains(&signature));
    assert_eq!((shop.balance(), shop.chain.usdc_balance(PAY_TO.address)), (FIVE - 1_000_000, FIVE - 1_000_000));
    let mut server = shop.server;
    let books = server.audit();
    assert!(books.clean && books.json["house"]["outgoing"].as_i64().unwrap_or(0) == 0, "{:#}", books.json);
}

#[test]
fn a_token_that_moves_nothing_is_heard_before_the_balance_gives_anything() {
    let chain = Anvil::start(84532);
    let paused = Arc::new(AtomicBool::new(true));
    let is_paused = paused.clone();
    // Asked for a transfer without a signature, it is paused; nothing else of it is different.
    let node = Stub::before_node(chain.address(), move |call, ask| {
        let moves = call["params"][0].to_string().contains("0xa9059cbb");
        let refusal = json!({ "code": 3, "message": "execution reverted: Pausable: paused" });
        match moves && is_paused.load(Ordering::SeqCst) {
            true => json!({ "jsonrpc": "2.0", "id": call["id"], "error": refusal }),
            false => ask(call),
        }
    });
    let shop = Shop::on(chain, &Settings { rpc_urls: vec![node.url()], ..Settings::default() });
    shop.pay_out("1", "ticket").refused(2, "the token refuses the transfer (execution reverted: pausable: paused)");
    assert_eq!((shop.balance(), shop.sent()), (FIVE, vec![]));
    paused.store(false, Ordering::SeqCst);
    shop.pay_out("1", "ticket").paid();
    shop.close(FIVE, &[1_000_000]);
}

#[test]
fn a_treasury_that_is_emptied_meanwhile_gives_the_balance_back_when_nobody_can_be_paid_any_more() {
    let mut shop = Shop::open();
    let offer = shop.asked("1", "ticket").offer();
    let old = shop.asked("1", "ticket").signed(&offer);
    let before = shop.chain.transactions_of(SETTLER.address);
    claimed_and_no_more(&mut shop, &old, |shop| {
        shop.chain.drain(PAY_TO, OTHER_BUYER);
        eventually("it is empty", || shop.chain.usdc_balance(PAY_TO.address) == 0);
    });
    let told = shop.asked("1", "ticket").send(None).unwrap();
    assert_eq!(told["state"], "on_its_way", "{told:#}");
    assert!(told["why"].as_str().unwrap().contains("USDC"), "{told:#}");
    assert_eq!(shop.balance(), FIVE - 1_000_000, "it may still be paid, so it cannot be spent");
    shop.pay_out("5", "another").refused(2, "can spend 4.000000");
    let_it_end(&shop);
    eventually("the balance has the money again", || shop.balance() == FIVE);
    assert_eq!(shop.chain.transactions_of(SETTLER.address), before, "nothing of ours was sent");

    let all = shop.chain.drain(OTHER_BUYER, PAY_TO);
    eventually("it is back", || shop.chain.usdc_balance(PAY_TO.address) == all);
    shop.chain.wait_receipt(&shop.chain.pay(PAY_TO, OTHER_BUYER, all - FIVE));
    // The clock of the machine that signs goes with those of the others.
    let paid = shop.pay_out("1", "ticket").paid();
    // The authorization of before is over, and its nonce is used up.
    let late = shop.chain.wait_receipt(&shop.chain.submit(MINTER, &payload(&old)));
    assert_eq!(late["status"], "0x0", "{late:#}");
    assert_eq!(shop.pay_out("1", "ticket").paid(), paid);
    assert_eq!((shop.balance(), shop.chain.usdc_balance(PAY_TO.address)), (FIVE - 1_000_000, FIVE - 1_000_000));
    let mut server = shop.server;
    let books = server.audit();
    assert!(books.clean && books.json["house"]["outgoing"] == 0, "{:#}", books.json);
}

#[test]
fn whoever_submits_what_was_refused_pays_for_it_once_and_the_books_count_it_once() {
    let mut shop = Shop::open();
    let offer = shop.asked("1", "ticket").offer();
    let signed = shop.asked("1", "ticket").signed(&offer);
    claimed_and_no_more(&mut shop, &signed, |shop| drop(shop.chain.wait_receipt(&shop.chain.pay(PAY_TO, OTHER_BUYER, FIVE))));
    let asked = shop.asked("1", "ticket");
    assert_eq!(asked.send(None).unwrap()["state"], "on_its_way");
    shop.chain.wait_receipt(&shop.chain.pay(OTHER_BUYER, PAY_TO, FIVE));
    shop.chain.wait_receipt(&shop.chain.submit(MINTER, &payload(&signed)));
    eventually("the books know of it", || asked.send(None).is_ok_and(|told| told["state"] == "paid"));
    assert_eq!(shop.balance(), FIVE - 1_000_000);
    assert_eq!(shop.chain.usdc_balance(PAY_TO.address), FIVE - 1_000_000);
    let mut server = shop.server;
    let books = server.audit();
    assert!(books.clean && books.json["house"]["outgoing"] == 0, "{:#}", books.json);
}

#[test]
fn a_payout_whose_block_is_replaced_is_sent_again_and_paid_once() {
    let shop = Shop::open();
    shop.pay_out("1", "ticket").paid();
    shop.chain.reorg(1);
    eventually("it is on the chain again", || {
        shop.chain.mine(1);
        shop.sent() == [1_000_000]
    });
    eventually("its block is final", || {
        shop.chain.mine(1);
        shop.pay_out("1", "ticket").told["final"] == true
    });
    shop.close(FIVE, &[1_000_000]);
}

#[test]
fn a_payout_that_vanished_for_good_is_balance_again() {
    let shop = Shop::open();
    shop.pay_out("1", "ticket").paid();
    shop.chain.set_automine(false);
    shop.chain.reorg(1);
    shop.chain.drain(PAY_TO, OTHER_BUYER);
    eventually("it is sent again, behind what empties the treasury", || shop.chain.pending_transactions() == 2);
    shop.chain.mine(1);
    shop.chain.set_automine(true);
    let told = shop.pay_out("1", "ticket");
    assert_eq!((told.code, told.told["state"].as_str()), (1, Some("on_its_way")), "{told:?}");
    assert_eq!(shop.balance(), FIVE - 1_000_000);
    let_it_end(&shop);
    eventually("the balance has the money again", || shop.balance() == FIVE);
    assert_eq!(shop.pay_out("1", "ticket").code, 1, "the treasury is empty");
    assert_eq!(shop.chain.usdc_balance(PAY_TO.address), 0, "nobody was paid: its owner has emptied it");
    let mut server = shop.server;
    let books = server.audit();
    assert!(books.clean && books.balance(BUYER.address) == FIVE, "{:#}", books.json);
}

#[test]
fn a_block_that_takes_long_is_waited_for_by_nobody_and_nobody_can_spend_the_money_meanwhile() {
    let shop = Shop::with(&Settings::default());
    shop.chain.set_automine(false);
    std::thread::scope(|scope| {
        let asking = scope.spawn(|| shop.pay_out("4", "ticket"));
        eventually("it is submitted", || shop.chain.pending_transactions() == 1);
        assert_eq!(shop.balance(), 1_000_000);
        shop.pay_out("4", "another").refused(2, "can spend 1.000000");
        shop.chain.set_automine(true);
        shop.chain.mine(1);
        asking.join().unwrap().paid();
    });
    shop.close(FIVE, &[4_000_000]);
}

#[test]
fn an_id_that_was_paid_long_before_the_books_that_know_it_were_lost_is_not_paid_again() {
    let (mut shop, place) = (Shop::open(), tempfile::TempDir::new().unwrap());
    let folder = place.path().join("backup");
    operate(&shop.server, &["backup", folder.to_str().unwrap()]);
    let paid = shop.pay_out("1", "ticket").paid();
    shop.server.signal();
    shop.server.wait_exit();
    std::fs::rename(shop.server.data_dir(), place.path().join("lost")).unwrap();
    operate(&shop.server, &["restore", folder.to_str().unwrap()]);
    let_it_end(&shop);
    shop.server.restart();
    assert_eq!(shop.balance(), FIVE, "the books do not know of it");
    shop.pay_out("1", "ticket").refused(2, "this id was paid or cancelled before");
    assert_eq!((shop.sent(), shop.balance()), (vec![1_000_000], FIVE), "the chain has paid it once, and nothing more was moved");
    operate(&shop.server, &["adjust", BUYER.address, "-1", "--reason", &paid, "--id", "ticket"]);
    assert_eq!(shop.chain.usdc_balance(PAY_TO.address), FIVE - 1_000_000);
    let mut server = shop.server;
    let books = server.audit();
    assert!(books.clean && books.balance(BUYER.address) == FIVE - 1_000_000, "{:#}", books.json);
}

#[test]
fn a_payout_that_failed_and_was_paid_after_the_backup_is_a_problem_until_it_is_taken_by_hand() {
    let (mut shop, place) = (Shop::open(), tempfile::TempDir::new().unwrap());
    let folder = place.path().join("backup");
    let asked = shop.asked("1", "ticket");
    let signed = asked.signed(&asked.offer());
    claimed_and_no_more(&mut shop, &signed, |shop| drop(shop.chain.wait_receipt(&shop.chain.pay(PAY_TO, OTHER_BUYER, FIVE))));
    let_it_end(&shop);
    eventually("it has failed", || shop.balance() == FIVE);
    operate(&shop.server, &["backup", folder.to_str().unwrap()]);
    shop.chain.wait_receipt(&shop.chain.pay(OTHER_BUYER, PAY_TO, FIVE));
    let paid = shop.pay_out("1", "ticket").paid();
    shop.server.signal();
    shop.server.wait_exit();
    std::fs::rename(shop.server.data_dir(), place.path().join("lost")).unwrap();
    let restored = operate(&shop.server, &["restore", folder.to_str().unwrap()]);
    assert_eq!(restored["sent_and_not_in_the_books"][1]["tx"], *paid, "after what emptied the treasury: {restored:#}");

    let verify = || said(shop.server.command(&["verify", "--chain"]));
    let (before, by_hand) = (verify(), ["adjust", BUYER.address, "-1.000000", "--id", "ticket"]);
    let problem = before.told["problems"][0].as_str().unwrap_or_default();
    assert!(before.code == 1 && problem.contains(&paid) && problem.contains("farebox adjust"), "{before:?}");
    assert!(
        by_hand.iter().all(|word| problem.to_lowercase().contains(&word.to_lowercase())),
        "it can be typed as it stands there: {problem}"
    );
    operate(&shop.server, &[&by_hand[..], &["--reason", &paid]].concat());
    let after = verify();
    assert_eq!((after.code, &after.told["problems"]), (0, &json!([])), "{after:?}");
    assert_eq!((shop.balance(), shop.chain.usdc_balance(PAY_TO.address)), (FIVE - 1_000_000, FIVE - 1_000_000));
}
