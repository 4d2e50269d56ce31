//! Signatures that are not what was asked for, handed in past the command: none moves anything, here or on the chain.

use farebox::x402::Requirements;
use farebox_rig::anvil::{OTHER_BUYER, PAY_TO, SETTLER};
use serde_json::Value;

use crate::shop::{Asked, FIVE, Shop, now, signed_by};

/// The same header with other words in one place of its payload.
fn changed(header: &str, change: impl FnOnce(&mut Value)) -> String {
    let mut payment: Value = serde_json::from_slice(&farebox::x402::decode_base64(header).unwrap()).unwrap();
    change(&mut payment);
    farebox::x402::encode(&payment)
}

#[test]
fn nothing_but_the_transfer_that_was_asked_for_signed_by_the_treasury_moves_anything() {
    let shop = Shop::open();
    let before = shop.chain.transactions_of(SETTLER.address);
    let asked = shop.asked("1", "ticket");
    let (offer, nonce) = (asked.offer(), asked.nonce());
    let good = asked.signed(&offer);
    let other = |change: fn(&mut Requirements)| {
        let mut offer = offer.clone();
        change(&mut offer);
        asked.signed(&offer)
    };
    let stranger = OTHER_BUYER.address.to_owned();
    for (what, header, words) in [
        ("another key", signed_by(OTHER_BUYER, &offer, nonce, now()), "comes from pay_to"),
        ("a settler's key", signed_by(SETTLER, &offer, nonce, now()), "comes from pay_to"),
        (
            "another key in the name of pay_to",
            changed(&signed_by(OTHER_BUYER, &offer, nonce, now()), |it| {
                it["payload"]["authorization"]["from"] = PAY_TO.address.into();
            }),
            "signature is not by",
        ),
        ("more", other(|it| it.amount = "1000001".into()), "1000000"),
        ("less", other(|it| it.amount = "999999".into()), "1000000"),
        ("somebody else", other(|it| it.pay_to = OTHER_BUYER.address.into()), "payTo"),
        (
            "somebody else, and says otherwise",
            changed(&good, |it| it["payload"]["authorization"]["to"] = stranger.into()),
            "signature is not by",
        ),
        ("another chain", other(|it| it.network = "eip155:8453".into()), "eip155:8453"),
        ("another nonce", signed_by(PAY_TO, &offer, [7; 32], now()), "not made of this id"),
        ("a day", signed_by(PAY_TO, &offer, nonce, now() + 86_400), "longer than"),
        ("long ago", signed_by(PAY_TO, &offer, nonce, now() - 86_400), "validBefore"),
        ("nothing", String::new(), ""),
        ("no payment", "e30=".into(), ""),
    ] {
        let refused = asked.send(Some(&header)).unwrap_err();
        assert!(refused.contains(words), "{what}: {refused}");
        assert_eq!(shop.balance(), FIVE, "{what}");
    }
    let elsewhere = Asked { id: "another ticket", ..asked.clone() };
    let refused = elsewhere.send(Some(&good)).unwrap_err();
    assert!(refused.contains("not made of this id"), "{refused}");
    assert_eq!(shop.chain.transactions_of(SETTLER.address), before, "nothing was sent");
    assert_eq!(asked.send(Some(&good)).unwrap()["state"], "paid");
    assert_eq!(asked.send(Some(&good)).unwrap()["state"], "paid", "the same again pays nothing");
    // What was signed stands on the chain for everybody to copy: it buys nothing, and is nobody's top-up.
    let request = farebox_rig::http::Request::post("/api/v1/x402/top-up", "").header("payment-signature", &good);
    let answer = shop.server.send(&request);
    assert_eq!(answer.status, 409, "{}", answer.text());
    assert_eq!(shop.balance(), FIVE - 1_000_000);
    shop.close(FIVE, &[1_000_000]);
}
