//! The payments that no honest client sends, presented as top-ups: each is refused with a code of its own, and nothing moves.

use farebox_rig::anvil::BUYER;
use serde_json::Value;

use crate::case::Case;
use crate::messages::Messages;
use crate::run::{is_payment, plain_headers};
use crate::shop::{Moved, Shop};
use crate::wire::{self, Answer};
use crate::{PATIENT, WIDE, payments};

pub const TOP_UP: &str = "/api/v1/x402/top-up";

/// Cases that are wrong about the price of a call, and fine where the payer decides how much to pay.
pub const FINE: [&str; 2] = ["pay-evm-value-plus1", "pay-svm-amount-over"];

/// Cases about payments that can be presented anywhere.
fn cases() -> Vec<Case> {
    let about_payments = |case: &Case| case.group.starts_with("payment") && case.is_common() && case.wire.is_none();
    let presents = |case: &Case| {
        let is_replay = |value: &Value| value.get("gen").is_some_and(|name| name == "replay");
        // Made for the price of another call, or for a call before.
        let is_for_a_call = |value: &Value| value.get("quoted_for").is_some() || is_replay(value);
        case.headers.values().any(is_payment) && !case.headers.values().any(is_for_a_call)
    };
    Case::all().into_iter().filter(|case| about_payments(case) && presents(case)).collect()
}

#[test]
fn payments_that_no_honest_client_sends_top_nothing_up() {
    let mut shop = Shop::open(&WIDE, &[PATIENT]);
    shop.blacklist();
    let (mut complaints, mut told, mut credited) = (Vec::new(), Messages::default(), 0);
    let cases = cases();
    for case in &cases {
        let before = shop.moved();
        let (answer, amount) = present(&shop, case);
        told.note(&answer);
        let fine = case.expect_status == [200] || FINE.contains(&case.id.as_str());
        let complaint = match fine {
            true => taken(&answer, amount, before, shop.moved()),
            false => refused(case, &answer, before, shop.moved()),
        };
        credited += if answer.status == 200 { amount } else { 0 };
        complaints.extend(complaint.map(|what| format!("{}: {what}", case.about())));
    }
    assert!(complaints.is_empty(), "{} complaints:\n{}", complaints.len(), complaints.join("\n"));
    assert!(cases.len() > 90 && credited > 0, "{} cases", cases.len());
    told.assert_are_those_of("topups.txt");
    let earned = shop.moved().earned;
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!((earned, books.balance(BUYER.address)), (credited, credited), "what came in is the buyer's: {:#}", books.json);
}

/// Sends the payment of a case, made for the offer of a top-up; the answer, and token units that an honest one would bring.
fn present(shop: &Shop, case: &Case) -> (Answer, u64) {
    let names = shop.names();
    let address = shop.server.address();
    let ask = wire::request("POST", TOP_UP, &[], None, address);
    let offer = wire::exchange(address, ask, false).expect("an answer").remove(0).offer().expect("an offer");
    let offer = &offer["accepts"][0];
    let mut headers = plain_headers(&case.headers, &names);
    for (name, spec) in case.headers.iter().filter(|(_, value)| is_payment(value)) {
        let spec = spec.as_object().expect("a generator");
        let header = match spec.get("b64").and_then(Value::as_str) {
            Some(text) => payments::encode(text),
            None => {
                let mut names = shop.names();
                names.set("ONCHAIN_USED_NONCE", "unused");
                if spec.get("set").is_some_and(|set| set.to_string().contains("ONCHAIN_USED_NONCE")) {
                    names.set("ONCHAIN_USED_NONCE", shop.used_nonce(offer));
                }
                payments::make(spec, offer, &names).header
            }
        };
        headers.push((name.clone(), header));
    }
    let bytes = wire::request("POST", TOP_UP, &headers, Some(b"{}"), address);
    let answer = wire::exchange(address, bytes, false).expect("an answer").remove(0);
    let amount: u64 = offer["amount"].as_str().and_then(|text| text.parse().ok()).expect("an amount");
    (answer, amount + u64::from(FINE.contains(&case.id.as_str())))
}

/// What is wrong with the answer to a payment that must be refused.
pub fn refused(case: &Case, answer: &Answer, before: Moved, after: Moved) -> Option<String> {
    let body = answer.json();
    let text = |value: &Value| value.as_str().is_some_and(|text| !text.is_empty());
    let reason = case.reason.as_deref().is_none_or(|reason| {
        let said = body["details"]["reason"].as_str().unwrap_or_default();
        // About the amount this route has words of its own.
        said == reason || (reason.contains("value") || reason.contains("amount")) && said.starts_with("amount_too_")
    });
    let empty = case.id == "pay-empty" && answer.status == 402;
    let shaped = text(&body["error"]) && text(&body["message"]) && text(&body["details"]["code"]);
    let fine = empty || (answer.status == 400 && shaped && reason && answer.offer().is_some());
    (!fine || after != before).then(|| format!("{} {}, moved {before:?} -> {after:?}", answer.status, answer.text()))
}

/// What is wrong with the answer to a payment that must be taken.
pub fn taken(answer: &Answer, amount: u64, before: Moved, after: Moved) -> Option<String> {
    let expected = Moved { earned: before.earned + amount, transactions: before.transactions + 1, calls: before.calls };
    (answer.status != 200 || after != expected)
        .then(|| format!("{} {}, moved {before:?} -> {after:?}", answer.status, answer.text()))
}
