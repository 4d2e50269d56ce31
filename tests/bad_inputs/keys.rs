//! Keys that are none, or not good for what is asked: refused in words of their own, and no wallet pays for it.

use farebox_rig::account::Key;
use farebox_rig::anvil::{BUYER, OTHER_BUYER, POOR_BUYER, Wallet};
use farebox_rig::buyer::send_copies;
use farebox_rig::http::Request;
use farebox_rig::process::eventually;
use serde_json::{Value, json};

use crate::case::{CHARGE, Case};
use crate::messages::Messages;
use crate::shop::{CHAT, Shop};
use crate::{judge, payments, wire};

/// Micros that wallets with money begin with.
const FUNDS: u64 = 1_000_000;

struct Desk {
    shop: Shop,
    keys: Vec<String>,
    complaints: Vec<String>,
    messages: Messages,
    /// Calls that were served, of which so many were paid for by their own payment.
    served: usize,
    paid: usize,
}

impl Desk {
    /// Each wallet with its keys, and `{{NAMES}}` for all of them.
    fn open(limits: &[&str]) -> Desk {
        let shop = Shop::open(limits, &["[prepaid]", "top_up_minimum = \"0.0001\""]);
        let mut desk = Desk { shop, keys: Vec::new(), complaints: Vec::new(), messages: Messages::default(), served: 0, paid: 0 };
        desk.top_up(BUYER, FUNDS);
        let quote = desk.shop.offer(&desk.shop.names.fill("{{OKCHAT}}"))["amount"].as_str().unwrap().parse().unwrap();
        desk.top_up(OTHER_BUYER, quote);
        desk.mint("KEY", BUYER, &json!({ "name": "good" }));
        desk.mint("ALLOWLIST_KEY", BUYER, &json!({ "name": "for another model", "models": ["dear-model"] }));
        desk.mint("SPENT_KEY", BUYER, &json!({ "name": "small", "spend_limit_usd": "0.0001" }));
        let revoked = desk.mint("REVOKED_KEY", BUYER, &json!({ "name": "revoked" }));
        desk.shop.server.account(BUYER).revoke(&revoked);
        desk.mint("KEY_B", OTHER_BUYER, &json!({ "name": "another wallet's" }));
        desk.mint("ONE_CALL_KEY", OTHER_BUYER, &json!({ "name": "for one call" }));
        let poor = desk.shop.server.account(POOR_BUYER).mint_by_hand();
        desk.keep("POOR_KEY", poor);
        desk
    }

    fn top_up(&self, wallet: Wallet, amount: u64) {
        let answer = self.shop.server.account(wallet).top_up(amount);
        assert_eq!(answer.status, 200, "{}", answer.text());
    }

    fn mint(&mut self, name: &str, wallet: Wallet, wanted: &Value) -> Key {
        let key = self.shop.server.account(wallet).mint(wanted);
        self.keep(name, key)
    }

    fn keep(&mut self, name: &str, key: Key) -> Key {
        self.shop.names.set(name, &key.text);
        self.keys.push(key.text.clone());
        key
    }

    fn balances(&self) -> [i64; 3] {
        [BUYER, OTHER_BUYER, POOR_BUYER].map(|wallet| self.shop.server.account(wallet).available())
    }

    fn run(&mut self, case: &Case) {
        self.shop.well();
        let (before, moved) = (self.balances(), self.shop.moved());
        let body = wire::body(&case.body, &self.shop.names).expect("these cases have a body");
        let mut amount = 0;
        let headers: Vec<_> = case.headers.iter().map(|(name, value)| (name.clone(), self.header(value, &mut amount))).collect();
        let bytes = wire::request(&case.method, &case.route, &headers, Some(&body), self.shop.server.address());
        let statuses = match case.repeat {
            Some(copies) => self.copies(case, &body, &headers, copies),
            None => {
                let answers = wire::exchange(self.shop.server.address(), bytes, false).expect("an answer");
                let answer = answers.first().expect("one answer");
                self.messages.note(answer);
                let complaints = judge::answer(case, answer);
                self.complaints.extend(complaints.into_iter().map(|what| format!("{}: {what}", case.about())));
                vec![answer.status]
            }
        };
        let served = statuses.iter().filter(|status| **status == 200).count();
        let idle = || self.shop.server.send(&Request::get("/healthz")).json()["calls_in_flight"] == 0;
        eventually("the calls are over", idle);
        let (after, now) = (self.balances(), self.shop.moved());
        self.served += served;
        self.paid += usize::from(amount > 0);
        let charged = i64::try_from(CHARGE * u64::try_from(served).unwrap()).unwrap();
        let (gone, came): (i64, i64) = (before.iter().sum::<i64>() - after.iter().sum::<i64>(), amount);
        if gone != charged - came || now.calls != moved.calls + served {
            self.complaints.push(format!("{}: {before:?} became {after:?}, {moved:?} became {now:?}", case.about()));
        }
    }

    /// The value of a header; a payment in it is for the ordinary request, and `amount` is what it pays.
    fn header(&self, value: &Value, amount: &mut i64) -> String {
        let names = &self.shop.names;
        let bearer = |key: &str| format!("Bearer {key}");
        match value.get("gen").and_then(Value::as_str) {
            Some("key_flip_last") => bearer(&flip_last(&names.fill("{{KEY}}"))),
            Some("key_upper") => bearer(&names.fill("{{KEY}}").to_uppercase()),
            Some("evm_payment") => {
                let offer = self.shop.offer(&names.fill("{{OKCHAT}}"));
                *amount = offer["amount"].as_str().unwrap().parse().unwrap();
                payments::make(value.as_object().unwrap(), &offer, &self.shop.names()).header
            }
            _ => names.fill_value(value).as_str().expect("headers are text").to_owned(),
        }
    }

    /// Sends copies in the same moment, of which exactly one is served.
    fn copies(&mut self, case: &Case, body: &[u8], headers: &[(String, String)], copies: usize) -> Vec<u16> {
        let request = headers.iter().fold(Request::post(CHAT, body), |request, (name, value)| request.header(name, value));
        let answers = send_copies(self.shop.server.address(), &request, copies);
        let code = format!("\"{}\"", case.expect_code.as_str().unwrap());
        let refused = answers.iter().filter(|(status, text)| Some(*status) == case.expect_some_status && text.contains(&code));
        let (refused, served) = (refused.count(), answers.iter().filter(|(status, _)| *status == 200).count());
        if (served, refused) != (1, copies - 1) {
            self.complaints.push(format!("{}: {served} served, {refused} refused of {copies}", case.about()));
        }
        answers.into_iter().map(|(status, _)| status).collect()
    }
}

/// Another letter at the end, which base64 reads as other bits of the last byte.
fn flip_last(key: &str) -> String {
    let (rest, last) = key.split_at(key.len() - 1);
    format!("{rest}{}", if last == "A" { "E" } else { "A" })
}

/// Runs the cases; returns how many, and what the owners of the keys were told.
pub fn run(cases: &[Case], limits: &[&str]) -> (usize, Messages) {
    let mut desk = Desk::open(limits);
    cases.iter().for_each(|case| desk.run(case));
    let (charged, balances) = (CHARGE * u64::try_from(desk.served).unwrap(), desk.balances());
    let books = desk.shop.server.audit();
    assert!(books.clean && books.json["open_holds"] == 0, "{:#}", books.json);
    for (wallet, balance) in [BUYER, OTHER_BUYER, POOR_BUYER].iter().zip(balances) {
        assert_eq!(i64::try_from(books.balance(wallet.address)).unwrap(), balance);
    }
    let earned = desk.shop.moved().earned;
    assert_eq!(u64::try_from(balances.iter().sum::<i64>()).unwrap(), earned - charged, "what was paid and not charged is theirs");
    assert!(desk.paid > 0 && desk.served > desk.paid, "some are served from their balance, some by their payment");
    let log = desk.shop.server.output();
    assert!(desk.keys.iter().all(|key| !log.contains(key.as_str())), "a key was logged");
    assert!(desk.complaints.is_empty(), "{} complaints:\n{}", desk.complaints.len(), desk.complaints.join("\n"));
    (cases.len(), desk.messages)
}
