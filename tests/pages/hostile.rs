//! What strangers write is shown as they wrote it, and does nothing: names of keys, models and wallets, memos, and offers.

use farebox_rig::anvil::{BUYER, OTHER_BUYER};
use farebox_rig::http::Request;
use serde_json::{Value, json};

use crate::browser::{Browser, click, open, read, see};
use crate::shop::{DOLLAR, Ledger, Shop, simulated};

/// Would leave a mark if any of it were taken for markup.
const ATTACK: &str = "<img src=x onerror=\"window.hurt=1\">'\"&{{url}}";

fn unhurt() -> Value {
    json!({ "do": "evaluate", "script": "[window.hurt ?? 0, document.querySelectorAll('main img[src=x], header img[src=x]').length]" })
}

#[test]
fn a_name_of_a_key_and_of_a_wallet_stays_text() {
    let shop = Shop::open();
    assert_eq!(shop.server.account(BUYER).top_up(DOLLAR).status, 200);
    shop.server.account(BUYER).mint(&json!({ "name": ATTACK }));
    let mut wallet = shop.wallet(BUYER);
    wallet["name"] = ATTACK.into();
    wallet["icon"] = "https://elsewhere.example/spy.png".into();
    let steps = [
        open("/dashboard"),
        json!({ "do": "click", "css": "#wallets button" }),
        see("Signed in as"),
        read("#keys tbody"),
        unhurt(),
    ];
    let seen = shop.browser().with(wallet).does(&steps);
    assert!(seen.value(3).as_str().unwrap().contains(ATTACK), "{}", seen.value(3));
    assert_eq!(seen.last(), &json!([0, 0]));
    shop.close(&Ledger { paid: vec![(BUYER, DOLLAR)], charged: 0 });
}

#[test]
fn a_name_of_a_model_stays_text_on_every_page() {
    let mut server = simulated(&[ATTACK]);
    let page = server.send(&Request::get("/")).text();
    assert!(!page.contains("<img src=x") && page.contains("&lt;img src=x onerror="), "it is escaped where no script writes it");
    let steps = [
        open("/"),
        read("#tools ~ details >> nth=0"),
        unhurt(),
        open("/models"),
        see("1 of 1 models"),
        read("#list tbody"),
        unhurt(),
        open("/dashboard"),
        click("Practice wallet"),
        click("New key"),
        read("#k-models"),
        unhurt(),
    ];
    let seen = Browser::of(&server).does(&steps);
    for step in [1, 5, 10] {
        assert!(seen.value(step).as_str().unwrap().contains(ATTACK), "{}", seen.value(step));
        assert!([2, 6, 11].iter().all(|step| seen.value(*step) == &json!([0, 0])));
    }
    assert!(server.audit().clean);
}

#[test]
fn a_name_of_a_model_that_failed_stays_text_before_the_operator_who_reads_of_it() {
    let mut server = simulated(&[ATTACK]);
    server.reconfigure(|text| {
        let text = text.replace("kind = \"echo\"", "base_url = \"http://127.0.0.1:9\"");
        text.replace("[server]", &format!("[server]\noperators = [\"{}\"]", BUYER.address))
    });
    server.restart();
    let body = json!({ "model": ATTACK, "messages": [{ "role": "user", "content": ATTACK }] }).to_string();
    let payment = server.account(OTHER_BUYER).top_up(DOLLAR);
    assert_eq!(payment.status, 200, "{}", payment.text());
    let key = server.account(OTHER_BUYER).mint(&json!({ "name": ATTACK })).text;
    let refused = server.send(&Request::post("/v1/chat/completions", body).header("x-api-key", &key));
    assert_eq!(refused.status, 502, "{}", refused.text());
    let wallet = json!({ "family": "evm", "name": "Test Wallet", "key": BUYER.key, "chainId": 84532, "knows": [] });
    let steps = [
        open("/operator"),
        click("Test Wallet"),
        see("Recent failures"),
        json!({ "do": "click", "css": "#failures button >> nth=0" }),
        see("What its caller was told"),
        read("#failures"),
        unhurt(),
        json!({ "do": "fill", "label": "Request or payment", "text": ATTACK }),
        click("Look it up"),
        see("a sale is named req_"),
        unhurt(),
    ];
    let seen = Browser::of(&server).with(wallet).does(&steps);
    assert!(seen.value(5).as_str().unwrap().contains(ATTACK), "{}", seen.value(5));
    assert_eq!((seen.value(6), seen.last()), (&json!([0, 0]), &json!([0, 0])));
    assert!(server.audit().clean);
}

#[test]
fn an_offer_that_somebody_changed_on_its_way_is_shown_as_text_and_a_long_memo_too() {
    let shop = Shop::open_on_solana();
    let memo = ATTACK.repeat(4);
    let steps = [
        json!({ "do": "forge", "path": "/api/v1/x402/top-up", "set": { "memo": memo, "payTo": ATTACK } }),
        open("/topup"),
        see("Memo"),
        read("#facts"),
        unhurt(),
    ];
    let seen = shop.browser().does(&steps);
    let facts = seen.value(3).as_str().unwrap();
    assert!(facts.contains(&memo) && facts.matches(ATTACK).count() == 5, "{facts}");
    assert_eq!(seen.last(), &json!([0, 0]));
    shop.close(&Ledger { paid: vec![], charged: 0 });
}

#[test]
fn an_offer_that_changes_after_it_was_compared_is_not_signed() {
    let shop = Shop::open();
    let steps = [
        open("/topup"),
        click("Test Wallet"),
        see("Connected:"),
        json!({ "do": "forge", "path": "/api/v1/x402/top-up", "set": { "payTo": OTHER_BUYER.address } }),
        click("Sign and top up $10.00"),
        see("Compare the facts once more before you sign."),
        read("#facts"),
        json!({ "do": "asked" }),
    ];
    let seen = shop.browser().with(shop.wallet(BUYER)).does(&steps);
    assert!(seen.value(6).as_str().unwrap().contains(OTHER_BUYER.address), "the new facts are shown: {}", seen.value(6));
    let asked = seen.last().as_array().unwrap();
    assert!(asked.iter().all(|it| it["method"] != "eth_signTypedData_v4"), "{asked:#?}");
    shop.close(&Ledger { paid: vec![], charged: 0 });
}
