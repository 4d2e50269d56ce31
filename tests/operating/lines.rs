//! The log has exactly one line for each sale, with everything that an operator asks about it, and none for what was refused.

use farebox_rig::anvil::BUYER;
use farebox_rig::http;
use farebox_rig::process::eventually;
use farebox_rig::server::micros;
use serde_json::json;

use crate::shop::{CHARGE, Shop, USAGE, with_key};

/// The lines of sales.
fn sales(shop: &Shop) -> Vec<String> {
    shop.server.output().lines().filter(|line| line.contains(" outcome=")).map(str::to_owned).collect()
}

fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("{name} is missing in: {line}"));
    rest.split(' ').next().unwrap().trim_matches('"')
}

#[test]
fn every_sale_has_one_line_that_says_who_what_how_much_and_how_it_ended() {
    let mut shop = Shop::open();
    let key = shop.key();
    let by_key = shop.call(&key, USAGE, true, CHARGE);
    let by_payment = shop.pay(USAGE, CHARGE);
    let cut = shop.call(&key, "<<fake in=20 words=40 cut=3>>", true, 0);
    assert!(cut.status == 200 && !cut.complete);
    assert_eq!(shop.call(&key, "<<fake status=400>>", false, 0).status, 400);
    let mut stream = http::open(shop.server.address(), &with_key(&key, "<<fake in=20 words=400 gap=50>>", true)).unwrap();
    assert!(stream.next_chunk().is_some());
    drop(stream);
    eventually("every sale has ended", || sales(&shop).len() >= 4);
    let lines = sales(&shop);
    let of = |request: &str| {
        let lines: Vec<_> = lines.iter().filter(|line| field(line, "request.id") == request).collect();
        assert_eq!(lines.len(), 1, "one line for {request}: {lines:?}");
        lines[0].clone()
    };
    let account = format!("evm:{}", BUYER.address.to_lowercase());
    for (answer, how, outcome) in
        [(&by_key, "balance", "complete"), (&by_payment, "payment", "complete"), (&cut, "balance", "broken")]
    {
        let line = of(answer.header("x-request-id").unwrap());
        assert_eq!((field(&line, "paid_by"), field(&line, "outcome")), (how, outcome), "{line}");
        assert_eq!((field(&line, "model"), field(&line, "upstream")), ("test-model", "fake"), "{line}");
        assert_eq!(field(&line, "account"), account);
        assert!(field(&line, "ms").parse::<u64>().is_ok());
        let amount = |name: &str| micros(&json!(field(&line, name)));
        assert!(amount("charge") <= amount("quote") && amount("quote") > 0, "{line}");
        if outcome == "complete" {
            assert_eq!((amount("charge"), field(&line, "input"), field(&line, "output")), (CHARGE, "20", "7"), "{line}");
        } else {
            assert_eq!(field(&line, "code"), "upstream_error", "{line}");
        }
        assert_eq!(line.contains(" key=key_"), how == "balance", "{line}");
    }
    assert_eq!(lines.iter().filter(|line| field(line, "outcome") == "client_left").count(), 1);
    assert_eq!(lines.len(), 4, "what was refused is no sale: {lines:#?}");
    assert!(!shop.server.output().contains(&key.text) && !shop.server.output().contains("<<fake"), "no key, no prompt");
    let charged: u64 = lines.iter().map(|line| micros(&json!(field(line, "charge")))).sum();
    let (paid, books) = (shop.chain.transfers().iter().map(|it| it.value).sum::<u64>(), shop.server.audit());
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(books.balance(BUYER.address), paid - charged, "the lines say what the books say");
}
