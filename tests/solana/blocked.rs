//! A wallet of Solana that the operator has barred: its payments are refused in every form before anything is asked or sent.

use farebox_rig::facilitator::Facilitator;
use farebox_rig::http::{Answer, Request};
use farebox_rig::process::run;
use farebox_rig::server::Settings;
use farebox_rig::solana::{BUYER, Solana};

use crate::shop::{CHARGE, CHAT, Shop, USAGE, body};

const TOP_UP: &str = "/api/v1/x402/top-up";

fn by_hand(shop: &Shop, arguments: &[&str]) {
    let (code, _, said) = run(shop.server.command(arguments), "");
    assert_eq!(code, 0, "{said}");
}

fn assert_barred(answer: &Answer) {
    assert_eq!((answer.status, answer.code().to_lowercase().as_str()), (403, "account_blocked"), "{}", answer.text());
    assert_eq!(answer.header("payment-required"), None, "it is not invited to pay");
}

#[test]
fn a_barred_wallet_of_solana_pays_for_nothing_whoever_would_settle_it() {
    for by_a_facilitator in [false, true] {
        let chain = Solana::start();
        let facilitator = by_a_facilitator.then(|| Facilitator::start(&chain));
        let settings = Settings { facilitator_url: facilitator.as_ref().map(Facilitator::url), ..Settings::default() };
        let mut shop = Shop::on(chain, &settings);
        let body = body(USAGE, true);
        let payment = shop.pay(CHAT, &body);
        by_hand(&shop, &["block", BUYER.address, "--reason", "spam"]);
        assert_barred(&shop.buy(CHAT, &body, &payment));
        let v1 = payment.signed["v1"].as_str().unwrap();
        assert_barred(&shop.server.send(&Request::post(CHAT, body.as_str()).header("x-payment", v1)));
        assert_barred(&shop.server.account(BUYER).top_up_on(&shop.chain, 2_000_000));
        // Of a call, and too little: a better one is not asked for.
        assert_barred(&shop.server.send(&Request::post(TOP_UP, "").header("payment-signature", payment.v2())));
        shop.assert_untouched();
        by_hand(&shop, &["unblock", BUYER.address]);
        let payment = shop.pay(CHAT, &body);
        let answer = shop.buy(CHAT, &body, &payment);
        assert_eq!((answer.status, answer.complete), (200, true), "{}", answer.text());
        shop.close(CHARGE);
    }
}
