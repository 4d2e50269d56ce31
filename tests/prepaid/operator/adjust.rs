//! What the operator gives and takes by hand: once for each id, with a reason, in the statement, never more than there is.

use serde_json::{Value, json};

use crate::owner::{DOLLAR, Owner, Shop};

fn adjust(shop: &Shop, owner: &Owner, usd: &str, id: &str) -> (i32, Value, String) {
    shop.operator(&["adjust", &owner.address(), usd, "--reason", "an outage", "--id", id])
}

#[test]
fn an_adjustment_is_made_once_however_often_it_is_asked_for_and_takes_no_more_than_there_is() {
    let (mut shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let (code, given, said) = adjust(&shop, &owner, "+0.25", "ticket-1");
    assert_eq!(code, 0, "{said}");
    let told = ["amount_usd", "reason", "new", "balance_usd"].map(|name| given[name].clone());
    assert_eq!(json!(told), json!([0.25, "an outage", true, 1.25]));
    assert_eq!(adjust(&shop, &owner, "0.25", "ticket-1").1["new"], false, "the same id is the same adjustment");
    for (usd, id, code, words) in [
        ("0.26", "ticket-1", 2, "was used for another"),
        ("-1.250001", "ticket-2", 2, "1.250000"),
        ("0", "ticket-2", 2, "an amount"),
        ("-1e3", "ticket-2", 2, "is not an amount"),
        ("1", "", 2, "--id"),
    ] {
        let (got, printed, said) = adjust(&shop, &owner, usd, id);
        assert!((got, &printed) == (code, &Value::Null) && said.contains(words), "{usd} {id}: {got} {said}");
    }
    let (code, _, said) = shop.operator(&["adjust", &owner.address(), "1", "--reason", " ", "--id", "x"]);
    assert!(code == 2 && said.contains("why"), "{code} {said}");
    shop.server.signal();
    shop.server.wait_exit();
    assert_eq!(adjust(&shop, &owner, "0.25", "ticket-1").1["new"], false, "nor is it forgotten");
    let (code, taken, said) = adjust(&shop, &owner, "-1.25", "ticket-2");
    assert_eq!((code, &taken["balance_usd"]), (0, &json!(0)), "{said}");
    assert_eq!(adjust(&shop, &owner, "0.5", "ticket-3").0, 0);
    let (code, report, said) = shop.operator(&["report", "--json"]);
    assert_eq!(code, 0, "{said}");
    let now = ["liabilities_micros", "adjusted_micros", "earned_micros"].map(|name| report["now"][name].clone());
    assert_eq!(json!(now), json!([500_000, 500_000, 0]), "a dollar came in; what is taken or given by hand is no revenue");
    shop.server.restart();
    let lines = shop.get("/api/transactions", &shop.session(&owner))["transactions"].take();
    let lines: Vec<_> = lines.as_array().unwrap().iter().map(|line| (line["type"].clone(), line["amount_usd"].clone())).collect();
    let by_hand = |usd: f64| (json!("ADJUSTMENT"), if usd.fract() == 0.0 { json!(usd as i64) } else { json!(usd) });
    assert_eq!(lines, [by_hand(0.5), by_hand(-1.25), by_hand(0.25), (json!("TOP_UP"), json!(1))]);
    shop.close(&[(&owner, 500_000)]);
}
