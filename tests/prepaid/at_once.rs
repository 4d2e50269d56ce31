//! What an owner reads right after an answer: the call is there, in its receipt, the statement and the usage.

use serde_json::{Value, json};

use crate::owner::{CHARGE, DOLLAR, MODEL, Owner, Shop, call};

const USAGE: &str = "<<fake in=20 out=7 text=hello+wallet>>";
const CALLS: u64 = 24;

#[test]
fn a_call_is_in_receipt_statement_and_usage_as_soon_as_its_answer_has_ended() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let (_, key) = shop.mint(&owner, &json!({ "name": "k" }));
    let session = shop.session(&owner);
    for number in 1..=CALLS {
        let answer = shop.server.send(&call(&key, MODEL, USAGE, true));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let id = json!(answer.header("x-request-id").unwrap());
        // Each in its turn is the first that is asked, and only that one could be too early.
        match number % 3 {
            0 => {
                let receipt = shop.get(&format!("/api/receipts/{}", id.as_str().unwrap()), &session);
                assert_eq!((&receipt["request_id"], &receipt["charge_usd"]), (&id, &json!(0.000_165)));
            }
            1 => {
                let newest = shop.get("/api/transactions?limit=1", &session)["transactions"][0].take();
                assert_eq!((&newest["request_id"], &newest["model"]), (&id, &json!(MODEL)));
            }
            _ => assert_eq!(calls(&shop.get("/api/usage?days=2", &session)), number),
        }
    }
    shop.close(&[(&owner, DOLLAR - CALLS * u64::try_from(CHARGE).unwrap())]);
}

fn calls(usage: &Value) -> u64 {
    usage["total"]["calls"].as_u64().unwrap()
}
