//! Sends each case and collects everything that is wrong, so that one look shows all of it.

use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::time::{Duration, Instant};

use farebox_rig::anvil::{BUYER, SETTLER};
use farebox_rig::http::Request;
use farebox_rig::process::eventually;
use farebox_rig::upstream::UPSTREAM_KEY;
use serde_json::{Map, Value, json};

use crate::case::{Case, Names, count, text};
use crate::judge;
use crate::messages::Messages;
use crate::payments::{self, Made};
use crate::shop::{CHAT, Shop};
use crate::wire::{self, Answer};

/// A call that has been answered is out of the books within this: two seconds, and patience for a machine that does much else.
const CLOSED_WITHIN: Duration = Duration::from_secs(10);

pub struct Runner {
    pub shop: Shop,
    complaints: Vec<String>,
    done: usize,
    /// Calls that were served, and the least and the most that all of them may have cost.
    served: usize,
    charges: (u64, u64),
    messages: Messages,
    /// The last request that was sent.
    last: Vec<u8>,
    /// Headers and signatures that went over the wire; none may be found in the log.
    secrets: Vec<String>,
}

/// One request of a case, ready to be sent, and what its payment is worth.
struct Prepared {
    bytes: Vec<u8>,
    amount: Option<u64>,
}

impl Runner {
    pub fn new(shop: Shop) -> Runner {
        Runner {
            shop,
            complaints: Vec::new(),
            done: 0,
            served: 0,
            charges: (0, 0),
            messages: Messages::default(),
            last: Vec::new(),
            secrets: Vec::new(),
        }
    }

    /// Sends a case: first without its payment, when it has one, because what is wrong is said before a price is; then with it.
    pub fn run(&mut self, case: &Case) {
        let prepared = self.prepare(case);
        self.shop.well();
        if let Some(behaviour) = &case.upstream {
            self.shop.upstream.configure(&self.shop.names.fill_value(behaviour));
        }
        let before = self.shop.moved();
        self.last.clone_from(&prepared.bytes);
        match wire::exchange(self.shop.server.address(), prepared.bytes, case.method == "HEAD") {
            Ok(answers) => self.judge(case, &answers, prepared.amount, before),
            Err(error) => self.complain(case, format!("no end: {error}")),
        }
        if !self.shop.server.is_running() {
            let log = self.shop.server.output();
            panic!("{} ended the server:\n{}\n{log}", case.id, self.complaints.join("\n"));
        }
        self.done += 1;
    }

    /// Sends a case that has no payment, and returns the status; nothing may move.
    pub fn quote_only(&mut self, case: &Case) -> u16 {
        let names = self.shop.names();
        let headers = plain_headers(&case.headers, &names);
        let body = wire::body(&case.body, &names);
        let answers = wire::exchange(self.shop.server.address(), self.bytes(case, &headers, body.as_deref()), false);
        let answer = answers.expect("an answer").remove(0);
        if answer.status == 429 {
            assert_eq!((judge::answer(case, &answer), self.shop.upstream.calls().len()), (Vec::new(), 0));
        }
        answer.status
    }

    /// Buys as a case says, and stops reading behind the head of the answer.
    pub fn open(&mut self, case: &Case) -> TcpStream {
        let prepared = self.prepare(case);
        let mut stream = TcpStream::connect(self.shop.server.address()).expect("the server listens");
        stream.write_all(&prepared.bytes).expect("it reads");
        let mut status = [0; 12];
        stream.read_exact(&mut status).expect("it answers");
        assert_eq!(String::from_utf8_lossy(&status), "HTTP/1.1 200");
        stream
    }

    /// Waits until the books say that the last payment is balance of its payer, as a copy of it is told.
    pub fn wait_until_credited(&self) {
        let credited = || {
            let answers = wire::exchange(self.shop.server.address(), self.last.clone(), false).unwrap_or_default();
            answers.first().is_some_and(|copy| copy.status == 409 && copy.json()["error"]["outcome"] == "credited")
        };
        eventually("the payment is credited", credited);
    }

    pub fn wait_until_idle(&self) {
        eventually("all calls have ended", || self.is_closed());
    }

    fn judge(&mut self, case: &Case, answers: &[Answer], amount: Option<u64>, before: crate::shop::Moved) {
        let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
        let expected = case.answers.clone().unwrap_or_else(|| statuses[..statuses.len().min(1)].to_vec());
        if statuses != expected || answers.is_empty() {
            self.complain(case, format!("answers {statuses:?}, expected {expected:?}"));
        }
        let Some(last) = answers.last() else { return };
        self.messages.note(last);
        for complaint in judge::answer(case, last) {
            self.complain(case, complaint);
        }
        let closed = self.is_closed();
        if !closed {
            self.complain(case, "its call is still open after the answer".into());
        }
        let after = self.shop.moved();
        let served = statuses.contains(&200);
        if let Some(moved) = judge::moves(case, served, amount, before, after) {
            self.complain(case, moved);
        }
        let forwarded = Value::from(self.shop.upstream.calls()).to_string();
        for text in case.not_forwarded.iter().filter(|text| forwarded.contains(text.as_str())) {
            self.complain(case, format!("{text:?} reached the upstream"));
        }
        if served && amount.is_some() {
            self.served += 1;
            let (least, most) = case.charge();
            self.charges = (self.charges.0 + least, self.charges.1 + most);
        }
    }

    fn complain(&mut self, case: &Case, what: String) {
        self.complaints.push(format!("{}: {what}", case.about()));
    }

    /// Whether no call is open any more, soon.
    fn is_closed(&self) -> bool {
        let deadline = Instant::now() + CLOSED_WITHIN;
        loop {
            let health = self.shop.server.send(&Request::get("/healthz"));
            if health.status == 200 && health.json()["calls_in_flight"] == 0 {
                return true;
            }
            if Instant::now() > deadline {
                return false;
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn prepare(&mut self, case: &Case) -> Prepared {
        if let Some(wire) = &case.wire {
            return self.prepare_wire(wire);
        }
        let body = wire::body(&case.body, &self.shop.names);
        let unpaid = plain_headers(&case.headers, &self.shop.names);
        let specs: Vec<_> = case.headers.iter().filter(|(_, value)| is_payment(value)).collect();
        if specs.is_empty() {
            return Prepared { bytes: self.bytes(case, &unpaid, body.as_deref()), amount: None };
        }
        let offer = self.quote(case, &unpaid, body.as_deref());
        let amount = offer["amount"].as_str().and_then(|amount| amount.parse().ok());
        let mut headers = unpaid;
        for (name, spec) in specs {
            let made = self.pay(spec.as_object().expect("a generator"), &offer, body.as_deref());
            headers.push((name.clone(), made.header));
        }
        Prepared { bytes: self.bytes(case, &headers, body.as_deref()), amount }
    }

    fn bytes(&self, case: &Case, headers: &[(String, String)], body: Option<&[u8]>) -> Vec<u8> {
        wire::request(&case.method, &case.route, headers, body, self.shop.server.address())
    }

    /// What the case costs. What cannot be bought is refused in the same way without a payment, and is then sent with one
    /// that is good for the ordinary request.
    fn quote(&mut self, case: &Case, unpaid: &[(String, String)], body: Option<&[u8]>) -> Value {
        let elsewhere = case.headers.values().any(|value| value.get("quoted_for").is_some());
        if case.not_http || elsewhere {
            return self.shop.base_offer.clone();
        }
        let answers = wire::exchange(self.shop.server.address(), self.bytes(case, unpaid, body), case.method == "HEAD");
        let answers = answers.unwrap_or_default();
        let offer = answers.last().filter(|answer| answer.status == 402).and_then(Answer::offer);
        if let Some(offer) = offer {
            return offer["accepts"][0].clone();
        }
        match answers.last() {
            Some(refusal) => {
                judge::answer(case, refusal).into_iter().for_each(|what| self.complain(case, format!("unpaid: {what}")))
            }
            None => self.complain(case, "unpaid: no answer".into()),
        }
        self.shop.base_offer.clone()
    }

    fn pay(&mut self, spec: &Map<String, Value>, offer: &Value, body: Option<&[u8]>) -> Made {
        let mut names = self.shop.names();
        let made = match spec.get("gen").and_then(Value::as_str) {
            Some("replay") => self.replay(spec, offer, body.expect("a replay has a body"), &names),
            Some("evm_payment" | "concat") => {
                names.set("ONCHAIN_USED_NONCE", "unused");
                if spec.get("set").is_some_and(|set| set.to_string().contains("ONCHAIN_USED_NONCE")) {
                    names.set("ONCHAIN_USED_NONCE", self.shop.used_nonce(offer));
                }
                payments::make(spec, offer, &names)
            }
            _ => Made { header: payments::encode(text(spec, "b64")), signature: String::new() },
        };
        if made.signature.len() >= 130 && made.signature.len() < 1000 {
            self.secrets.push(made.signature.clone());
        }
        made
    }

    /// Buys with a payment, and returns the payment: as it was, or signed once more.
    fn replay(&mut self, spec: &Map<String, Value>, offer: &Value, body: &[u8], names: &Names) -> Made {
        let mut names = names.clone();
        // One nonce for both signatures, at whatever time they are made.
        names.set("NONCE", payments::nonce(&names));
        let first = json!({ "set": { "payload.authorization.nonce": "{{NONCE}}", "payload.authorization.validBefore": names.fill("{{NOW+200}}") } });
        let mut again = first.clone();
        again["resign"] = spec.get("resign").cloned().unwrap_or(Value::Bool(true));
        let [first, again] = [first, again].map(|spec| payments::make(spec.as_object().expect("an object"), offer, &names));
        let route = spec.get("from_route").and_then(Value::as_str).unwrap_or(CHAT);
        let bought = self.shop.server.send(&Request::post(route, body).header("payment-signature", &first.header));
        assert_eq!(bought.status, 200, "the first copy buys: {}", bought.text());
        assert_eq!(first.signature != again.signature, spec.get("resign").is_some(), "signed once more, or the same");
        self.served += 1;
        self.charges = (self.charges.0 + crate::case::CHARGE, self.charges.1 + crate::case::CHARGE);
        self.secrets.push(first.signature);
        again
    }

    fn prepare_wire(&mut self, wire: &str) -> Prepared {
        let mut names = self.shop.names();
        let offer = self.shop.base_offer.clone();
        let mut amount = None;
        for name in ["PAYMENT", "OTHER_PAYMENT"] {
            if wire.contains(&format!("{{{{{name}}}}}")) {
                let made = self.pay(json!({ "gen": "evm_payment" }).as_object().expect("an object"), &offer, None);
                names.set(name, made.header);
                amount = offer["amount"].as_str().and_then(|amount| amount.parse().ok());
            }
        }
        Prepared { bytes: wire::bytes_of(&names.fill(wire)), amount }
    }

    /// Closes the shop and says all that was wrong. Returns how many cases were run, and what their buyers were told.
    pub fn finish(mut self) -> (usize, Messages) {
        let shop = &mut self.shop;
        let books = shop.server.audit();
        let earned = shop.moved().earned;
        let left = books.balance(BUYER.address);
        let charged = earned.saturating_sub(left);
        if !books.clean || books.json["open_holds"] != 0 {
            self.complaints.push(format!("the books are not clean: {:#}", books.json));
        }
        if left > earned || charged < self.charges.0 || charged > self.charges.1 {
            self.complaints.push(format!("{charged} of {earned} was charged, expected {:?}: {:#}", self.charges, books.json));
        }
        let served = self.served;
        let log = shop.server.output();
        for secret in [UPSTREAM_KEY, &SETTLER.key[2..]].into_iter().chain(self.secrets.iter().map(String::as_str)) {
            if log.contains(secret) {
                self.complaints.push(format!("the log contains {secret}"));
            }
        }
        eprintln!("{} cases, {served} of them served, {earned} micros earned, {charged} charged", self.done);
        assert!(self.complaints.is_empty(), "{} complaints:\n{}", self.complaints.len(), self.complaints.join("\n"));
        (self.done, self.messages)
    }
}

/// A header whose value is a payment that must be made first.
pub fn is_payment(value: &Value) -> bool {
    let generator = value.get("gen").and_then(Value::as_str);
    value.get("b64").is_some() || generator.is_some_and(|name| matches!(name, "evm_payment" | "concat" | "replay"))
}

pub fn plain_headers(headers: &Map<String, Value>, names: &Names) -> Vec<(String, String)> {
    if headers.get("gen").is_some_and(|name| name == "many_headers") {
        return (0..count(headers)).map(|n| (format!("X-Header-{n}"), "1".to_owned())).collect();
    }
    let plain = headers.iter().filter(|(_, value)| !is_payment(value));
    let value = |value: &Value| match value.get("gen").and_then(Value::as_str) {
        Some("random_ip") => names.fill("203.0.{{FRESH}}.1"),
        _ => names.fill_value(value).as_str().expect("headers are text").to_owned(),
    };
    plain.map(|(name, described)| (name.clone(), value(described))).collect()
}
