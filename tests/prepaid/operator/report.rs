//! What the operator is told of what was earned: the same from a gateway that runs and from one that does not.

use farebox_rig::process::run;
use serde_json::{Value, json};

use crate::owner::{CHARGE, DOLLAR, MODEL, OTHER_MODEL, Owner, Shop};

/// What the upstream asks for a call, at 2 and 10 dollars per million.
const COST: i64 = 20 * 2 + 7 * 10;

/// A shop that knows what one of its two models costs.
fn shop() -> Shop {
    let mut shop = Shop::open();
    shop.server.signal();
    shop.server.wait_exit();
    let price = "price = { input = \"3\", output = \"15\" }\n";
    let cost = "cost = { input = \"2\", output = \"10\" }\n";
    shop.server.reconfigure(|text| text.replacen(price, &format!("{price}{cost}"), 1));
    shop.server.restart();
    shop
}

fn report(shop: &Shop, more: &[&str]) -> Value {
    let (code, printed, said) = shop.operator(&[&["report", "--json"], more].concat());
    assert_eq!(code, 0, "{said}");
    printed
}

fn text(shop: &Shop, more: &[&str]) -> String {
    let (code, printed, said) = run(shop.server.command(&[&["report"], more].concat()), "");
    assert_eq!(code, 0, "{said}");
    printed
}

/// What a group says but for calls of unknown cost.
fn sold(group: &Value) -> [Value; 6] {
    ["calls", "revenue_micros", "refunded_micros", "allowance_micros", "cost_micros", "margin_micros"]
        .map(|field| group[field].clone())
}

#[test]
fn what_was_earned_is_shown_by_model_and_upstream_and_an_unknown_cost_is_never_nothing() {
    let (mut shop, owner, friend) = (shop(), Owner::new(1), Owner::new(2));
    shop.top_up(&owner, DOLLAR);
    let (_, key) = shop.mint(&owner, &json!({ "name": "k" }));
    let first = shop.call(&key, MODEL).header("x-request-id").unwrap().to_owned();
    assert_eq!([shop.call(&key, MODEL).status, shop.call(&key, OTHER_MODEL).status], [200, 200]);
    assert_eq!(shop.operator(&["allowance", "set", &friend.address(), "1"]).0, 0);
    let gift = shop.mint_by_hand(&friend);
    assert_eq!(shop.call(&gift, MODEL).status, 200);
    shop.wait_settled(&owner);
    shop.wait_settled(&friend);
    assert_eq!(shop.operator(&["refund", &first, "0.000065"]).0, 0);

    let mut running = report(&shop, &[]);
    let all = json!([4, 3 * CHARGE, 65, CHARGE, 3 * COST, null]);
    assert_eq!(json!(sold(&running["total"])), all);
    assert_eq!(running["total"]["calls_of_unknown_cost"], 1);
    assert_eq!(running["total"]["revenue_of_unknown_cost_micros"], CHARGE);
    let known = json!([3, 2 * CHARGE, 65, CHARGE, 3 * COST, 2 * CHARGE - 65 - 3 * COST]);
    assert_eq!(json!(sold(&running["models"][MODEL])), known, "a gift costs as much as a sale");
    assert_eq!(json!(sold(&running["models"][OTHER_MODEL])), json!([1, CHARGE, 0, 0, null, null]));
    assert_eq!(json!(sold(&running["upstreams"]["fake"])), all);
    let network = &running["networks"]["eip155:84532"];
    let came = ["payments", "received_micros", "credited_micros", "reversed_micros", "transactions"].map(|name| &network[name]);
    assert_eq!(json!(came), json!([1, DOLLAR, DOLLAR, 0, 0]));
    assert_eq!(network["fees_micros"], 0, "no chain took a fee");
    let earned = 3 * CHARGE - 65;
    let now = ["liabilities_micros", "wallets", "earned_micros", "open_payments", "open_calls"].map(|name| &running["now"][name]);
    assert_eq!(json!(now), json!([DOLLAR as i64 - earned, 1, earned, 0, 0]));
    assert_eq!(running["now"]["treasury_micros"], json!({ "eip155:84532": DOLLAR }), "owed and earned are what came in");

    shop.server.signal();
    shop.server.wait_exit();
    let mut stopped = report(&shop, &[]);
    (running["made_at"], stopped["made_at"]) = (Value::Null, Value::Null);
    assert_eq!(running, stopped);
    let past = report(&shop, &["--from", "2020-01-01", "--until", "2020-12-31"]);
    assert_eq!((&past["total"]["calls"], &past["total"]["margin_micros"], &past["now"]), (&json!(0), &json!(0), &stopped["now"]));
    assert_eq!((&past["days"], &past["networks"]), (&json!({}), &json!({})));
    shop.server.restart();
    shop.close(&[(&owner, DOLLAR - earned as u64), (&friend, 0)]);
}

#[test]
fn a_report_is_a_table_for_people_and_csv_for_a_spreadsheet() {
    let (shop, owner) = (shop(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let (_, key) = shop.mint(&owner, &json!({ "name": "k" }));
    assert_eq!([shop.call(&key, MODEL).status, shop.call(&key, OTHER_MODEL).status], [200, 200]);
    shop.wait_settled(&owner);
    let table = text(&shop, &["--days", "2"]);
    for line in ["all days", "test-model", "other-model", "fake", "eip155:84532", "owed to 1 wallets", "unknown"] {
        assert!(table.contains(line), "{line}:\n{table}");
    }
    assert!(table.contains("the cost of 1 calls, which brought 0.000165, is not known"), "{table}");
    let csv = text(&shop, &["--csv"]);
    let rows: Vec<Vec<&str>> = csv.lines().map(|line| line.split(',').collect()).collect();
    assert!(rows.iter().all(|row| row.len() == rows[0].len()), "{csv}");
    let cell = |section: &str, name: &str, column: &str| {
        let at = rows[0].iter().position(|cell| *cell == column).unwrap();
        rows.iter().find(|row| row[..2] == [section, name]).unwrap_or_else(|| panic!("{section} {name}:\n{csv}"))[at]
    };
    assert_eq!(cell("model", MODEL, "margin_usd"), "0.000055");
    assert_eq!(cell("model", OTHER_MODEL, "cost_usd"), "unknown");
    assert_eq!(cell("total", "", "revenue_usd"), "0.000330");
    assert_eq!(cell("network", "eip155:84532", "received_usd"), "1.000000");
    assert_eq!(cell("now", "owed to 1 wallets", "amount_usd"), "0.999670");
    for (arguments, words) in [
        (["report", "--from", "yesterday"], "is not a day such as"),
        (["report", "--until", "2019-02-30"], "is not a day such as"),
        (["report", "--from", "2999-01-01"], "end before it begins"),
        (["report", "--days", "0"], "0 is not in"),
    ] {
        let (code, printed, said) = shop.operator(&arguments);
        assert!((code, &printed) == (2, &Value::Null) && said.contains(words), "{arguments:?}: {code} {said}");
    }
    shop.close(&[(&owner, DOLLAR - 2 * CHARGE as u64)]);
}
