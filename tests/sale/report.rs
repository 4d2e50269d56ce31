//! What the operator is told of settlements on a real chain: what came in, what the gas cost, what lies at its address.

use farebox_rig::anvil::{PAY_TO, SETTLER};
use farebox_rig::process::run;
use farebox_rig::server::Settings;
use serde_json::{Value, json};

use crate::shop::{CHARGE, CHAT, Shop, USAGE, body};

#[test]
fn gas_is_reported_to_the_wei_and_the_treasury_as_the_chain_has_it() {
    let settings = Settings { network: vec!["coin_usd = \"2500\"".into()], ..Settings::default() };
    let mut shop = Shop::with(84532, &settings);
    let wei = |shop: &Shop, block: &str| {
        let answer = shop.chain.rpc("eth_getBalance", json!([SETTLER.address, block]));
        u128::from_str_radix(answer.as_str().unwrap().trim_start_matches("0x"), 16).unwrap()
    };
    let before = wei(&shop, "latest");
    for _ in 0..2 {
        let body = body(USAGE, false);
        let payment = shop.pay(CHAT, &body);
        assert_eq!(shop.buy(CHAT, &body, &payment).status, 200);
    }
    let spent = before - wei(&shop, "latest");
    assert!(spent > 0);
    let (code, printed, said) = run(shop.server.command(&["report", "--json", "--chain"]), "");
    assert_eq!(code, 0, "{said}");
    let report: Value = serde_json::from_str(&printed).unwrap();
    let network = &report["networks"][shop.chain.network()];
    let told = ["payments", "received_micros", "credited_micros", "transactions", "fees"].map(|name| network[name].clone());
    assert_eq!(json!(told), json!([2, shop.earned(), 0, 2, spent.to_string()]));
    assert_eq!(network["fees_micros"], json!((spent * 2_500_000_000).div_ceil(10_u128.pow(18))));
    let on_chain =
        json!([{ "network": shop.chain.network(), "pay_to": PAY_TO.address, "held_micros": shop.earned(), "problem": null }]);
    assert_eq!(report["now"]["on_chain"], on_chain);
    let now = ["liabilities_micros", "earned_micros"].map(|name| report["now"][name].as_u64().unwrap());
    assert_eq!(now, [shop.earned() - 2 * CHARGE, 2 * CHARGE]);
    assert_eq!(report["total"]["margin_micros"], Value::Null, "nobody said what the upstream asks");
    shop.close(2 * CHARGE);
}
