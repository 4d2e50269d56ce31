//! Paid once, however often it is asked for; the statement, the report and a restored copy of the books say so.

use std::fs;
use std::thread;

use farebox_rig::anvil::{BUYER, OTHER_BUYER, PAY_TO, SETTLER, word};
use farebox_rig::process::run;
use serde_json::{Value, json};
use tempfile::TempDir;

use crate::shop::{FIVE, Shop, operate, said};

#[test]
fn a_payout_is_paid_once_however_often_it_is_asked_for_and_stands_in_every_account_of_it() {
    let mut shop = Shop::open();
    let first = shop.pay_out("1.25", "ticket-1");
    let tx = first.paid();
    let told = ["amount_usd", "balance_usd", "reason", "payout"].map(|name| first.told[name].clone());
    assert_eq!(json!(told), json!([1.25, 3.75, "asked for", "ticket-1"]));
    for _ in 0..2 {
        // Without any key: nothing is signed for what is paid.
        let mut again = shop.command(BUYER.address, "1.250000", "ticket-1", PAY_TO);
        again.env_remove("FAREBOX_TREASURY_KEY");
        assert_eq!(said(again).paid(), tx, "the same id is the same payout");
    }
    shop.pay_out("1.26", "ticket-1").refused(2, "was used for 1.250000");
    shop.server.restart();
    assert_eq!(shop.pay_out("1.25", "ticket-1").paid(), tx, "nor is it forgotten");
    assert_eq!((shop.sent(), shop.balance()), (vec![1_250_000], FIVE - 1_250_000));
    assert_ne!(shop.pay_out("0.75", "ticket-2").paid(), tx);

    let lines: Vec<_> = shop.server.account(BUYER).statement().rows.iter().map(|row| (row.kind.clone(), row.amount)).collect();
    let line = |kind: &str, amount: i64| (kind.to_owned(), amount);
    assert_eq!(lines, [line("TOP_UP", 5_000_000), line("REFUND", -1_250_000), line("REFUND", -750_000)]);
    let (code, printed, words) = run(shop.server.command(&["report", "--json", "--chain"]), "");
    assert_eq!(code, 0, "{words}");
    let report: Value = serde_json::from_str(&printed).unwrap();
    let network = shop.chain.network();
    let of = |place: &Value, names: &[&str]| names.iter().map(|name| place[name].clone()).collect::<Value>();
    let received = of(&report["networks"][&network], &["payments", "received_micros", "payouts", "paid_out_micros"]);
    assert_eq!(received, json!([1, 5_000_000, 2, 2_000_000]));
    assert_eq!(of(&report["now"], &["liabilities_micros", "outgoing_micros", "earned_micros"]), json!([3_000_000, 0, 0]));
    let by_the_books = report["now"]["treasury_micros"][&network].clone();
    assert_eq!(
        by_the_books, report["now"]["on_chain"][0]["held_micros"],
        "what came in and did not go out lies there: {report:#}"
    );
    assert_eq!(report["networks"][&network]["transactions"], 3, "the fees of payouts are fees");
    assert_eq!(shop.chain.transactions_of(SETTLER.address), 3);
    shop.close(FIVE, &[1_250_000, 750_000]);
}

#[test]
fn two_shells_that_ask_at_the_same_moment_pay_once_and_many_ids_never_pay_more_than_there_is() {
    let shop = Shop::open();
    let both: Vec<_> = thread::scope(|scope| {
        let asking: Vec<_> = (0..2).map(|_| scope.spawn(|| shop.pay_out("1", "the same"))).collect();
        asking.into_iter().map(|asking| asking.join().unwrap().paid()).collect()
    });
    assert_eq!(both[0], both[1]);
    assert_eq!(shop.sent(), [1_000_000]);
    // Four dollars are left, for six that are asked for.
    let many: Vec<_> = thread::scope(|scope| {
        let (shop, ids) = (&shop, ["a", "b", "c"]);
        let asking: Vec<_> = ids.map(|id| scope.spawn(move || shop.pay_out("2", id))).into();
        asking.into_iter().map(|asking| asking.join().unwrap()).collect()
    });
    let paid = many.iter().filter(|said| said.code == 0).count();
    assert_eq!(paid, 2, "{many:?}");
    for said in many.iter().filter(|said| said.code != 0) {
        // Who comes a moment later finds the treasury empty instead.
        let why = ["can spend", "too little", "and this costs"];
        assert!(said.told.is_null() && why.iter().any(|why| said.words.contains(why)), "{said:?}");
    }
    assert_eq!(shop.balance(), 0);
    shop.close(FIVE, &[1_000_000, 2_000_000, 2_000_000]);
}

#[test]
fn what_was_paid_out_after_a_backup_is_told_by_the_restore_and_the_token_does_not_pay_it_again() {
    let (mut shop, place) = (Shop::open(), TempDir::new().unwrap());
    let before = shop.pay_out("0.5", "before").paid();
    let folder = place.path().join("backup");
    operate(&shop.server, &["backup", folder.to_str().unwrap()]);
    let after = shop.pay_out("1", "after").paid();
    // transferFrom of nothing, which anybody may do in anybody's name.
    let nothing = format!("0x23b872dd{}{}{}", word(PAY_TO.address), word(BUYER.address), word("0"));
    let poison = shop.chain.wait_receipt(&shop.chain.act_as(OTHER_BUYER.address, shop.chain.usdc(), &nothing));
    assert_eq!((&poison["status"], poison["logs"].as_array().map(Vec::len)), (&json!("0x1"), Some(1)));
    shop.server.signal();
    shop.server.wait_exit();
    fs::rename(shop.server.data_dir(), place.path().join("lost")).unwrap();

    let restored = operate(&shop.server, &["restore", folder.to_str().unwrap()]);
    let [told] = &restored["sent_and_not_in_the_books"].as_array().unwrap()[..] else { panic!("{restored:#}") };
    assert_eq!(told["tx"].as_str().unwrap().to_lowercase(), after.to_lowercase(), "{before} is in the books");
    assert_eq!((&told["amount_usd"], told["to"].as_str()), (&json!(1), Some(BUYER.address)));
    shop.server.restart();
    assert_eq!(shop.balance(), FIVE - 500_000, "the books do not know of it");
    let sent = shop.sent();
    // The nonce is made of the id, which the chain knows whatever the books do.
    shop.pay_out("1", "after").refused(2, "this id was paid or cancelled before");
    assert_eq!((shop.sent(), shop.balance()), (sent, FIVE - 500_000), "nothing more was moved");
    operate(&shop.server, &["adjust", BUYER.address, "-1", "--reason", &after, "--id", "after"]);
    assert_eq!(shop.balance(), FIVE - 1_500_000);
    assert_eq!(shop.chain.usdc_balance(PAY_TO.address), FIVE - 1_500_000);
    let books = shop.server.audit();
    assert!(books.clean && books.balance(BUYER.address) == FIVE - 1_500_000, "{:#}", books.json);
}

#[test]
fn a_wallet_that_is_barred_is_paid_what_it_has_and_buys_nothing_with_it() {
    let shop = Shop::open();
    let (code, _, words) = run(shop.server.command(&["block", BUYER.address, "--reason", "enough"]), "");
    assert_eq!(code, 0, "{words}");
    let refused = shop.server.account(BUYER).top_up(FIVE);
    assert_eq!((refused.status, refused.code().to_lowercase().as_str()), (403, "account_blocked"), "{}", refused.text());
    shop.pay_out("5", "farewell").paid();
    assert_eq!((shop.sent(), shop.balance()), (vec![FIVE], 0));
    shop.close(FIVE, &[FIVE]);
}
