//! `kill -9` at each step of a payout: asked for again it is paid once, and the balance gave for it once.

use std::thread;

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
        shop.server.restart_armed(point);
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
        if point.starts_with("final") {
            shop.server.restart_armed(point);
            shop.pay_out("0.5", "ticket").paid();
            shop.chain.mine(8);
        } else {
            shop.pay_out("0.5", "ticket").paid();
            shop.server.restart_into_death(point);
        }
        if point.starts_with("final") {
            shop.server.wait_death(point);
        }
        shop.server.restart();
        shop.pay_out("0.5", "ticket").paid();
        shop.close(FIVE, &[HALF]);
    }
}
