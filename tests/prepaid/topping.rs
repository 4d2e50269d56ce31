//! Top-ups as tests make them: signed for whatever they want, sent under any name, and the last look at who holds the money.

use farebox_rig::anvil::{BUYER, PAY_TO, SETTLER, Wallet};
use farebox_rig::buyer::sign_entries;
use farebox_rig::http::{self, Answer, Request};
use farebox_rig::process::eventually;
use serde_json::{Value, json};

use crate::shop::Shop;

pub const TOP_UP: &str = "/api/v1/x402/top-up";

/// A signed payment: a line of `sign.mjs`.
#[derive(Clone, Debug)]
pub struct Payment {
    pub signed: Value,
}

impl Payment {
    pub fn v2(&self) -> &str {
        self.signed["v2"].as_str().unwrap()
    }

    pub fn v1(&self) -> &str {
        self.signed["v1"].as_str().unwrap()
    }

    /// The same with its envelope changed after signing; `version` 1 or 2.
    pub fn changed(&self, version: &str, change: impl FnOnce(&mut Value)) -> String {
        let mut envelope = decode(self.signed[version].as_str().unwrap());
        change(&mut envelope);
        encode(&envelope)
    }
}

impl Shop {
    /// The first entry of the offer: how to pay the least that is taken.
    pub fn asked(&self) -> Value {
        self.account(BUYER).top_up_offer()["accepts"][0].clone()
    }

    /// The same for another amount.
    pub fn asked_for(&self, amount: u64) -> Value {
        with(&self.asked(), "amount", json!(amount.to_string()))
    }

    /// Signs a top-up of `amount` token units, as the honest buyer.
    pub fn signed(&self, amount: u64) -> Payment {
        sign(BUYER, &self.asked_for(amount))
    }

    pub fn pay_in(&self, payment: &Payment) -> Answer {
        self.server.send(&paying(payment))
    }

    /// Pays in, and does `trouble` as soon as our transaction waits for a block.
    pub fn pay_in_amid(&self, payment: &Payment, trouble: impl FnOnce()) -> Answer {
        let (address, request) = (self.server.address().to_owned(), paying(payment));
        std::thread::scope(|scope| {
            let call = scope.spawn(|| http::send(&address, &request).unwrap());
            eventually("the payment is submitted", || self.chain.pending_transactions() == 1);
            trouble();
            call.join().unwrap()
        })
    }

    /// Sends a payment again until it has become balance, and returns that answer.
    pub fn insist(&self, payment: &Payment) -> Answer {
        let mut last = self.pay_in(payment);
        eventually("the payment is credited", || {
            if last.status == 409 {
                assert_eq!(error(&last), "PAYMENT_IN_PROGRESS", "{}", last.text());
                last = self.pay_in(payment);
            }
            last.status != 409
        });
        assert_eq!(last.status, 200, "{}", last.text());
        last
    }

    /// Token units that the operator received.
    pub fn earned(&self) -> u64 {
        self.chain.usdc_balance(PAY_TO.address)
    }

    /// Closes the shop: the books are clean and agree with the chain, `transactions` of ours were mined, the operator has
    /// `credited` units and not one more, all of them are the buyer's balance, and the upstream was never asked.
    pub fn close_with(mut self, credited: u64, transactions: u64) {
        let books = self.server.audit();
        assert!(books.clean, "the books are not clean: {:#}", books.json);
        assert_eq!(self.earned(), credited, "what the operator holds");
        assert_eq!(books.balance(BUYER.address), credited, "is the buyer's: {:#}", books.json);
        assert_eq!(self.chain.transactions_of(SETTLER.address), transactions, "transactions of ours");
        assert_eq!(self.upstream.calls().len(), 0, "a top-up asks no upstream");
    }
}

pub fn sign(wallet: Wallet, requirements: &Value) -> Payment {
    sign_with(json!({ "key": wallet.key, "requirements": requirements, "validBefore": now() + 300 }))
}

/// Signs an entry that says more; see the head of `sign.mjs`.
pub fn sign_with(entry: Value) -> Payment {
    Payment { signed: sign_entries(&[entry]).remove(0) }
}

/// A value with one field of it changed.
pub fn with(value: &Value, name: &str, field: Value) -> Value {
    let mut changed = value.clone();
    changed[name] = field;
    changed
}

pub fn paying(payment: &Payment) -> Request {
    Request::post(TOP_UP, "").header("payment-signature", payment.v2())
}

/// The code of a refusal as top-ups have it: the text in `error`.
pub fn error(answer: &Answer) -> String {
    answer.json()["error"].as_str().unwrap_or_default().to_owned()
}

pub fn decode(header: &str) -> Value {
    use base64::Engine as _;
    serde_json::from_slice(&base64::engine::general_purpose::STANDARD.decode(header).unwrap()).unwrap()
}

pub fn encode(value: &Value) -> String {
    use base64::Engine as _;
    base64::engine::general_purpose::STANDARD.encode(value.to_string())
}

/// Seconds since 1970.
pub fn now() -> u64 {
    std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs()
}
