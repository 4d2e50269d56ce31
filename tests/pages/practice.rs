//! Where money is simulated, anybody tries everything with a wallet that the page makes; where it is not, there is no such wallet.

use serde_json::json;

use crate::browser::{Browser, click, fill, open, see};
use crate::shop::{Shop, call, simulated};

fn tries_everything(network: &str, again: &str) {
    let mut server = simulated(&["echo"]);
    let steps = [
        open("/topup"),
        json!({ "do": "click", "css": format!("label:has-text('{network}')") }),
        click("Practice wallet"),
        see("Connected:"),
        fill("US dollars, paid in USDC", "3"),
        click("Sign and top up $3.00"),
        see("New balance"),
        see("(simulated)"),
        json!({ "do": "click", "css": "a:text-is('Make a key')" }),
        click(again),
        see("Signed in as"),
        click("New key"),
        fill("Name", "trial"),
        click("Make key"),
        see("Copy it now."),
        call("echo"),
    ];
    let seen = Browser::of(&server).does(&steps);
    assert_eq!(seen.last(), &json!(200));
    let books = server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(books.payments().len(), 1, "{:#}", books.json);
}

#[test]
fn a_practice_wallet_of_ethereum_tops_up_makes_a_key_and_calls() {
    tries_everything("Base Sepolia", "Practice wallet");
}

#[test]
fn a_practice_wallet_of_solana_tops_up_makes_a_key_and_calls() {
    tries_everything("Solana Devnet", "Practice wallet (Solana)");
}

#[test]
fn where_money_is_real_no_practice_wallet_is_offered() {
    let shop = Shop::open();
    let mut steps = vec![];
    for path in ["/topup", "/dashboard"] {
        steps.extend([open(path), see("wallet was found in this browser"), json!({ "do": "missing", "text": "Practice" })]);
        steps.push(json!({ "do": "missing", "text": "Simulated money" }));
    }
    shop.browser().does(&steps);
    assert_eq!(shop.chain.transfers(), []);
}
