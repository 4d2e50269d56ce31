//! `kill -9` at each step of a payout: asked for again it is paid once, and the balance gave for it once.

use std::thread;

use farebox_rig::anvil::{MINTER, PAY_TO};
use farebox_rig::process::eventually;

use crate::shop::{FIVE, Shop};

/// What one payout is about.
const HALF: u64 = 500_000;
/// Times that the gateway dies at each point.
const DEATHS: usize = 5;

#[test]
fn a_death_at_any_step_of_a_payout_pays_it_once() {
    let points = [
        ("payout.before", false),
        ("payout.after", true),
        ("sign.before", true),
        ("sign.after", true),
        ("broadcast.before", true),
        ("broadcast.after", true),
        ("confirm.before", true),
        ("confirm.after", true),
    ];
    thread::scope(|scope| {
        for half in points.chunks(points.len().div_ceil(2)) {
            scope.spawn(move || half.iter().for_each(|(point, is_claimed)| die_at(point, *is_claimed)));
        }
    });
}

fn die_at(point: &str, is_claimed: bool) {
    let mut shop = Shop::open();
    for nth in 1..=DEATHS {
        let (id, paid) = (format!("ticket-{nth}"), vec![HALF; nth]);
        shop.restart_armed(point);
        let said = shop.pay_out("0.5", &id);
        assert!(said.code == 1 && said.words.contains("look what came of it"), "{point}: {said:?}");
        shop.server.wait_death(point);
        shop.server.restart();
        if is_claimed {
            // Nobody asks again: what the books had taken of the balance, they pay.
            eventually("it is paid by itself", || shop.sent() == paid);
        } else {
            assert_eq!((shop.sent().len(), shop.balance()), (nth - 1, FIVE - HALF * (nth as u64 - 1)), "{point}");
        }
        let tx = shop.pay_out("0.5", &id).paid();
        assert_eq!(shop.pay_out("0.5", &id).paid(), tx, "{point}");
        assert_eq!((shop.sent(), shop.balance()), (paid, FIVE - HALF * nth as u64), "{point}");
    }
    shop.close(FIVE, &[HALF; DEATHS]);
}

#[test]
fn a_death_while_it_becomes_final_or_is_taken_up_again_changes_nothing() {
    for point in ["final.before", "final.after", "resume.before", "resume.after"] {
        let mut shop = Shop::open();
        shop.pay_out("0.5", "ticket").paid();
        if point.starts_with("final") {
            // What came before the payout is durable as it is, so this is the payout's own end.
            shop.server.restart_armed(point);
            shop.chain.mine(8);
            shop.server.wait_death(point);
        } else {
            shop.server.restart_into_death(point);
        }
        shop.server.restart();
        shop.pay_out("0.5", "ticket").paid();
        shop.close(FIVE, &[HALF]);
    }
}

#[test]
fn a_payout_that_was_begun_is_handed_to_no_facilitator_and_paid_by_whoever_was_pay_to_then() {
    let mut shop = Shop::open();
    shop.restart_armed("sign.before");
    shop.pay_out("0.5", "ticket").refused(1, "look what came of it");
    shop.server.wait_death("sign.before");
    let lines = |text: String, drop: &str| text.lines().filter(|line| !line.starts_with(drop)).collect::<Vec<_>>().join("\n");
    let mut ours = String::new();
    shop.server.reconfigure(|text| {
        ours = text.clone();
        let text = text.replace("settlement = \"rpc\"", "settlement = \"facilitator\"\nfacilitator_url = \"http://127.0.0.1:9\"");
        lines(text, "settler_key")
    });
    shop.server.restart();
    shop.server.has_said("this payout was begun with a key of our own and stays open");
    assert_eq!((shop.sent(), shop.balance()), (vec![], FIVE - HALF), "nobody can spend it, and nobody was handed it");
    shop.server.reconfigure(|_| ours.replace(PAY_TO.address, MINTER.address));
    shop.server.restart();
    eventually("it is paid", || shop.sent() == [HALF]);
    assert_eq!(shop.pay_out("0.5", "ticket").told["state"], "paid");
    shop.server.reconfigure(|_| ours);
    shop.server.restart();
    shop.close(FIVE, &[HALF]);
}
