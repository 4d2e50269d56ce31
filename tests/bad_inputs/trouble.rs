//! Refusals that are nobody's fault in the request: what a buyer is told when the shop, its chain or its upstream has trouble.

use std::io::Write as _;
use std::net::{Shutdown, TcpStream};

use farebox_rig::anvil::{Anvil, BUYER, OTHER_BUYER, word};
use farebox_rig::http::Request;
use farebox_rig::line::Line;
use farebox_rig::process::eventually;
use serde_json::json;

use crate::WIDE;
use crate::messages::Messages;
use crate::payments;
use crate::shop::{CHAT, Shop};
use crate::wire::{self, Answer};

/// Buyers of one shop, and what they were told.
struct Trouble<'a> {
    shop: Shop,
    told: &'a mut Messages,
}

impl Trouble<'_> {
    fn pay(&self) -> Vec<u8> {
        let spec = json!({ "gen": "evm_payment" });
        let made = payments::make(spec.as_object().unwrap(), &self.shop.base_offer, &self.shop.names());
        let request = Request::post(CHAT, self.shop.names.fill("{{OKCHAT}}")).header("payment-signature", &made.header);
        request.bytes(self.shop.server.address())
    }

    fn send(&mut self, bytes: &[u8], expected: &str) -> Answer {
        let answers = wire::exchange(self.shop.server.address(), bytes.to_vec(), false).expect("an answer");
        self.hear(answers.into_iter().next_back().expect("an answer"), expected)
    }

    fn hear(&mut self, answer: Answer, expected: &str) -> Answer {
        assert_eq!(answer.code().as_deref(), Some(expected), "{}", answer.text());
        self.told.note(&answer);
        answer
    }

    /// Sends without waiting for the answer.
    fn leave(&self, bytes: &[u8]) -> TcpStream {
        let mut stream = TcpStream::connect(self.shop.server.address()).unwrap();
        stream.write_all(bytes).unwrap();
        stream
    }

    fn earned_and_left(mut self) -> (u64, u64) {
        let books = self.shop.server.audit();
        assert!(books.clean, "{:#}", books.json);
        (self.shop.moved().earned, books.balance(BUYER.address))
    }
}

fn open<'a>(told: &'a mut Messages, limits: &[&str], payments: &[&str]) -> Trouble<'a> {
    Trouble { shop: Shop::open(limits, payments), told }
}

fn too_many(told: &mut Messages) {
    let mut busy = open(told, &[&WIDE[..], &["streams = 2"]].concat(), &["settle_after_ms = 60000"]);
    busy.shop.upstream.configure(&json!({ "ttfb": 55000 }));
    let first = busy.pay();
    let mut held = vec![busy.leave(&first)];
    eventually("the first call runs", || busy.shop.moved().calls == 1);
    busy.send(&first, "payment_in_progress");
    held.push(busy.leave(&busy.pay()));
    eventually("so does the second", || busy.shop.moved().calls == 2);
    let third = busy.pay();
    busy.send(&third, "busy");
    drop(held);
    eventually("both are let go", || busy.shop.server.send(&Request::get("/healthz")).json()["calls_in_flight"] == 0);
    busy.shop.well();
    assert_eq!(wire::exchange(busy.shop.server.address(), third, false).unwrap()[0].status, 200, "it was not used");
    let (earned, left) = busy.earned_and_left();
    assert_eq!(earned - left, crate::case::CHARGE);

    let mut narrow = open(told, &["per_ip_per_second = 1", "per_ip_burst = 1000", "payments_per_ip_per_minute = 2"], &[]);
    let junk = Request::post(CHAT, narrow.shop.names.fill("{{OKCHAT}}")).header("payment-signature", "%%%");
    let junk = junk.bytes(narrow.shop.server.address());
    let try_to_pay = |_| wire::exchange(narrow.shop.server.address(), junk.clone(), false).unwrap().remove(0);
    let limited = (0..4).map(try_to_pay).find(|answer| answer.status == 429).expect("the third payment is too many");
    narrow.hear(limited, "rate_limited");
    let unpaid =
        wire::bytes_of(&narrow.shop.names.fill("GET /v1/models HTTP/1.1\r\nHost: {{HOST}}\r\nConnection: close\r\n\r\n"));
    let ask = |_| wire::exchange(narrow.shop.server.address(), unpaid.clone(), false).unwrap().remove(0);
    let limited = (0..3000).map(ask).find(|answer| answer.status == 429).expect("so many requests are too many");
    narrow.hear(limited, "rate_limited");
    assert_eq!(narrow.earned_and_left(), (0, 0));
}

fn bad_upstreams(told: &mut Messages) {
    // A shop for each: one that was asked to wait does not ask again.
    for (behaviour, code) in [
        (json!({ "status": 429, "retry_after": 2 }), "upstream_unavailable"),
        (json!({ "status": 529, "retry_after": 3 }), "upstream_overloaded"),
        (json!({ "status": 500 }), "upstream_error"),
        (json!({ "status": 401 }), "upstream_auth"),
        (json!({ "status": 400, "emsg": "temperature is too high" }), "upstream_rejected"),
    ] {
        let mut shop = open(told, &WIDE, &["settle_after_ms = 20000"]);
        shop.shop.upstream.configure(&behaviour);
        let payment = shop.pay();
        shop.send(&payment, code);
        assert_eq!(shop.earned_and_left(), (0, 0));
    }
    let mut shop = open(told, &WIDE, &["settle_after_ms = 20000"]);
    // A body that ends before it should: whoever sent it hung up, or only its sending side.
    let short = shop.shop.names.fill("POST /v1/chat/completions HTTP/1.1\r\nHost: {{HOST}}\r\nContent-Length: 100\r\n\r\n{\"mod");
    let mut stream = shop.leave(short.as_bytes());
    stream.shutdown(Shutdown::Write).unwrap();
    let answer = wire::read(&mut stream).expect("an answer");
    shop.hear(answer, "request_timeout");
    assert_eq!(shop.earned_and_left(), (0, 0));

    let mut slow = open(told, &[&WIDE[..], &["wall_clock_seconds = 8"]].concat(), &[]);
    slow.shop.upstream.configure(&json!({ "ttfb": 60000 }));
    let payment = slow.pay();
    let answer = slow.send(&payment, "upstream_timeout");
    assert_eq!(answer.header("x-should-retry"), Some("false"), "the payment has settled");
    slow.send(&payment, "payment_already_used");
    let (earned, left) = slow.earned_and_left();
    assert!(earned > 0 && earned == left, "what was paid is the buyer's balance");
}

fn bad_chains(told: &mut Messages) {
    let chain = Anvil::start(8453);
    let line = Line::to(chain.address());
    let url = line.url();
    let shop = Shop::behind(chain, &url, &WIDE, &["settle_after_ms = 20000", "settle_wait_ms = 4000"]);
    let mut trouble = Trouble { shop, told };
    let (first, second) = (trouble.pay(), trouble.pay());
    line.cut();
    trouble.send(&first, "network_unavailable");
    line.mend();
    eventually("the network is sold on again", || {
        trouble.shop.server.send(&Request::get("/healthz")).json()["networks"][0]["sellable"] == true
    });
    // The money is gone when the upstream has answered and the settlement starts.
    trouble.shop.upstream.configure(&json!({ "ttfb": 60000 }));
    let running = trouble.leave(&second);
    eventually("the upstream is asked", || trouble.shop.moved().calls == 1);
    let everything = format!("0xa9059cbb{}{:064x}", word(OTHER_BUYER.address), trouble.shop.chain.usdc_balance(BUYER.address));
    let drained = trouble.shop.chain.act_as(BUYER.address, trouble.shop.chain.usdc(), &everything);
    trouble.shop.chain.wait_receipt(&drained);
    trouble.shop.upstream.hurry();
    let mut running = running;
    let answer = wire::read(&mut running).expect("an answer");
    let answer = trouble.hear(answer, "settlement_failed");
    assert_eq!(answer.status, 402);
    let failed = trouble.send(&second, "payment_already_used");
    assert_eq!(failed.json()["error"]["outcome"], "failed");
    let third = trouble.pay();
    trouble.shop.chain.rpc("evm_increaseTime", json!([1000]));
    trouble.shop.chain.mine(1);
    trouble.send(&third, "clock_skew");
    assert_eq!(trouble.earned_and_left(), (0, 0));

    let mut stuck = open(told, &WIDE, &["settle_after_ms = 20000", "settle_wait_ms = 4000"]);
    stuck.shop.chain.set_automine(false);
    let payment = stuck.pay();
    let answer = stuck.send(&payment, "settlement_pending");
    assert!(answer.json()["error"]["payment_id"].is_string(), "it says which payment: {}", answer.text());
    stuck.send(&payment, "payment_already_used");
    stuck.shop.chain.mine(1);
    stuck.shop.chain.set_automine(true);
    eventually("it arrives", || stuck.shop.moved().earned > 0);
    stuck.shop.chain.mine(2);
    let copy = || wire::exchange(stuck.shop.server.address(), payment.clone(), false).unwrap().remove(0);
    eventually("and is credited", || copy().json()["error"]["outcome"] == "credited");
    stuck.send(&payment, "payment_already_used");
    let (earned, left) = stuck.earned_and_left();
    assert_eq!(earned, left, "the payer has what was not served");
}

/// What a buyer is told in every trouble that can be made here.
pub fn all() -> Messages {
    let mut told = Messages::default();
    too_many(&mut told);
    bad_upstreams(&mut told);
    bad_chains(&mut told);
    told
}
