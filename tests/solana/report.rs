//! What the operator is told of settlements on Solana: fees to the lamport, and what lies in the token account of `pay_to`.

use farebox_rig::process::run;
use farebox_rig::solana::SETTLER;
use serde_json::{Value, json};

use crate::shop::{CHARGE, CHAT, Shop, USAGE, body};

#[test]
fn fees_are_reported_to_the_lamport_and_the_treasury_as_the_chain_has_it() {
    let mut shop = Shop::open();
    let before = shop.chain.lamports(SETTLER);
    let body = body(USAGE, false);
    for _ in 0..2 {
        let payment = shop.pay(CHAT, &body);
        assert_eq!(shop.buy(CHAT, &body, &payment).status, 200);
    }
    let spent = before - shop.chain.lamports(SETTLER);
    assert!(spent > 0);
    let (code, printed, said) = run(shop.server.command(&["report", "--json", "--chain"]), "");
    assert_eq!(code, 0, "{said}");
    let report: Value = serde_json::from_str(&printed).unwrap();
    let network = &report["networks"][shop.chain.network()];
    let told = ["payments", "received_micros", "transactions", "fees", "fees_micros"].map(|name| network[name].clone());
    assert_eq!(json!(told), json!([2, shop.earned(), 2, spent.to_string(), null]), "nobody said what a SOL costs");
    assert_eq!(report["now"]["on_chain"][0]["held_micros"], shop.earned());
    shop.close(2 * CHARGE);
}
