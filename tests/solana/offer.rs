//! What an offer says to a Solana wallet, and what a payment that answers another one gets.

use farebox_rig::solana::{BUYER, PAY_TO, SETTLER};

use crate::shop::{CHARGE, CHAT, MESSAGES, Shop, USAGE, body};

#[test]
fn an_offer_names_who_pays_the_fee_a_living_blockhash_and_a_memo_of_its_own() {
    let shop = Shop::open();
    let body = body(USAGE, false);
    let [one, other] = [(); 2].map(|()| shop.requirements(CHAT, &body));
    for offer in [&one, &other] {
        assert_eq!((&offer["network"], &offer["asset"]), (&shop.chain.network().into(), &shop.chain.usdc().into()));
        assert_eq!((&offer["payTo"], &offer["extra"]["feePayer"]), (&PAY_TO.address.into(), &SETTLER.address.into()));
        let blockhash = serde_json::json!([offer["extra"]["recentBlockhash"], { "commitment": "processed" }]);
        assert_eq!(shop.chain.rpc("isBlockhashValid", blockhash)["value"], true);
        let last: u64 = offer["extra"]["lastValidBlockHeight"].as_str().unwrap().parse().unwrap();
        let height = shop.chain.rpc("getBlockHeight", serde_json::json!([{ "commitment": "processed" }])).as_u64().unwrap();
        assert!((height..=height + 150).contains(&last), "{last} at {height}");
    }
    let memos = [&one, &other].map(|offer| offer["extra"]["memo"].as_str().unwrap());
    assert!(memos[0] != memos[1] && memos[0].len() <= 256, "two calls with the same words are two payments: {memos:?}");
    shop.assert_untouched();
    shop.close(0);
}

#[test]
fn a_payment_for_one_offer_does_not_buy_what_another_offered_at_the_same_price() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(MESSAGES, &body);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!((answer.status, answer.code().as_str()), (402, "payment_invalid"), "{}", answer.text());
    assert_eq!(answer.json()["error"]["reason"], "invalid_exact_svm_payload_memo_mismatch");
    shop.assert_untouched();
    let answer = shop.buy(MESSAGES, &body, &payment);
    assert_eq!(answer.status, 200, "for what it was offered it is good: {}", answer.text());
    shop.close(CHARGE);
}

#[test]
fn a_memo_that_a_buyer_made_up_is_not_ours() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let mut requirements = shop.requirements(CHAT, &body);
    requirements["extra"]["memo"] = "mine".into();
    let payment = shop.sign(BUYER, requirements);
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!(answer.json()["error"]["reason"], "invalid_exact_svm_payload_memo_mismatch", "{}", answer.text());
    shop.assert_untouched();
    shop.close(0);
}

#[test]
fn an_offer_of_before_a_restart_can_still_be_paid() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    shop.server.restart();
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(shop.earned(), payment.amount);
    shop.close(CHARGE);
}

#[test]
fn an_offer_after_a_long_silence_names_a_blockhash_that_lives() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    shop.requirements(CHAT, &body);
    shop.chain.expire();
    let requirements = shop.requirements_of_now(CHAT, &body);
    let payment = shop.sign(BUYER, requirements);
    assert_eq!(shop.buy(CHAT, &body, &payment).status, 200);
    shop.close(CHARGE);
}

#[test]
fn an_offer_of_before_a_change_of_price_is_honoured() {
    let mut shop = Shop::open();
    let body = body(USAGE, false);
    let payment = shop.pay(CHAT, &body);
    shop.server.reconfigure(|text| {
        assert!(text.contains("output = \"15\""), "{text}");
        text.replace("output = \"15\"", "output = \"16\"")
    });
    shop.server.restart();
    let now: u64 = shop.requirements(CHAT, &body)["amount"].as_str().unwrap().parse().unwrap();
    assert!(now > payment.amount, "it costs more by now");
    let answer = shop.buy(CHAT, &body, &payment);
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(shop.earned(), payment.amount);
    shop.close(CHARGE);
}
