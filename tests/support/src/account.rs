//! A wallet's account at a server, over HTTP as its owner has it: sign in, top up, mint keys, read the balance and the statement.

use serde_json::{Value, json};

use crate::anvil::Wallet;
use crate::buyer::{Intent, sign, sign_on};
use crate::http::{Answer, Request};
use crate::process::run;
use crate::server::Server;
use crate::sign_in::sign_in;
use crate::solana::Solana;

const TOP_UP: &str = "/api/v1/x402/top-up";
/// Rows that are asked for at once.
const PAGE: usize = 100;

/// One wallet at one server. Everything it asks carries a sign-in header of its own.
pub struct Account<'a> {
    server: &'a Server,
    wallet: Wallet,
}

/// One row of a statement, amounts in micros.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// What came in, or went out if it is negative.
    pub amount: i64,
    pub balance_after: i64,
    /// `TOP_UP`, `CHARGE` or `REFUND`.
    pub kind: String,
    pub request: Option<String>,
    pub model: Option<String>,
}

/// All rows, oldest first.
#[derive(Clone, Debug)]
pub struct Statement {
    pub rows: Vec<Row>,
    /// What the server says beside the rows.
    pub balance: i64,
}

/// A key that was just minted, which is the only time its text is shown.
#[derive(Clone, Debug)]
pub struct Key {
    pub id: String,
    pub text: String,
}

impl Server {
    pub fn account(&self, wallet: Wallet) -> Account<'_> {
        Account { server: self, wallet }
    }
}

impl Account<'_> {
    /// A fresh sign-in header for this server, as `X-Sign-In-With-X` carries it.
    pub fn sign_in(&self) -> String {
        sign_in(self.wallet, &self.server.public_url())
    }

    pub fn get(&self, path: &str) -> Answer {
        self.server.send(&Request::get(path).header("x-sign-in-with-x", &self.sign_in()))
    }

    pub fn post(&self, path: &str, body: &Value) -> Answer {
        self.server.send(&Request::post(path, body.to_string()).header("x-sign-in-with-x", &self.sign_in()))
    }

    /// Pays `amount` token units into the balance.
    pub fn top_up(&self, amount: u64) -> Answer {
        self.server.send(&Request::post(TOP_UP, "").header("payment-signature", &self.top_up_payment(amount)))
    }

    /// The same for a wallet of Solana.
    pub fn top_up_on(&self, chain: &Solana, amount: u64) -> Answer {
        let offer = self.top_up_offer();
        let accepts = offer["accepts"].as_array().expect("an offer is a list");
        let entry = accepts.iter().find(|entry| entry["network"] == chain.network()).expect("this chain is offered");
        let mut requirements = entry.clone();
        requirements["amount"] = amount.to_string().into();
        let signed = sign_on(chain, self.wallet, &[requirements]).remove(0);
        let header = signed["v2"].as_str().expect("signed payments are text");
        self.server.send(&Request::post(TOP_UP, "").header("payment-signature", header))
    }

    /// A signed top-up that was not sent: a header value of version 2.
    pub fn top_up_payment(&self, amount: u64) -> String {
        let mut requirements = self.top_up_offer()["accepts"][0].clone();
        requirements["amount"] = amount.to_string().into();
        let intent = Intent { wallet: self.wallet, requirements, valid_before: now() + 300 };
        sign(&[intent]).remove(0)["v2"].as_str().expect("signed payments are text").to_owned()
    }

    /// What can be paid in, and how.
    pub fn top_up_offer(&self) -> Value {
        let answer = self.server.send(&Request::post(TOP_UP, ""));
        assert_eq!(answer.status, 402, "a top-up begins with an offer: {}", answer.text());
        answer.decoded("payment-required").expect("an offer is in PAYMENT-REQUIRED")
    }

    /// Mints a key as `wanted` says (`{name, spend_limit_usd, reset, models, expires_at}`).
    pub fn mint(&self, wanted: &Value) -> Key {
        let answer = self.post("/api/keys", wanted);
        assert!((200..300).contains(&answer.status), "no key was minted: {} {}", answer.status, answer.text());
        let minted = answer.json();
        let text = |name: &str| minted[name].as_str().unwrap_or_else(|| panic!("{name} is missing: {minted}")).to_owned();
        Key { id: text("id"), text: text("key") }
    }

    /// Mints a key without limits by the operator's hand, as the wallet itself could not before it had money here.
    pub fn mint_by_hand(&self) -> Key {
        let command = self.server.command(&["keys", "mint", "--account", self.wallet.address, "--name", "by hand"]);
        let (code, printed, said) = run(command, "");
        assert_eq!(code, 0, "{said}");
        let minted: Value = serde_json::from_str(&printed).expect("the operator's commands print JSON");
        let text = |name: &str| minted[name].as_str().unwrap_or_else(|| panic!("{name} is missing: {minted}")).to_owned();
        Key { id: text("id"), text: text("key") }
    }

    pub fn revoke(&self, key: &Key) {
        let answer = self.post(&format!("/api/keys/{}/revoke", key.id), &json!({}));
        assert!((200..300).contains(&answer.status), "{} {}", answer.status, answer.text());
    }

    /// What can be spent now, in micros: the balance without what is held.
    pub fn available(&self) -> i64 {
        let answer = self.get(&format!("/api/v1/x402/balance/{}", self.wallet.address));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let available = usd(&answer.json()["data"]["balanceUsd"]);
        let header = answer.header("x-balance-remaining").map(|text| decimal(text, 6));
        assert_eq!(header, Some(available), "the header says what the body says");
        available
    }

    /// The whole statement, read page by page.
    pub fn statement(&self) -> Statement {
        let header = self.sign_in();
        let mut rows = Vec::new();
        loop {
            let path = format!("/api/v1/x402/transactions/{}?limit={PAGE}&offset={}", self.wallet.address, rows.len());
            let answer = self.server.send(&Request::get(&path).header("x-sign-in-with-x", &header));
            assert_eq!(answer.status, 200, "{}", answer.text());
            let data = answer.json()["data"].take();
            rows.extend(data["transactions"].as_array().expect("transactions are a list").iter().map(row));
            if data["pagination"]["hasMore"] == false {
                rows.reverse();
                return Statement { rows, balance: usd(&data["currentBalance"]) };
            }
        }
    }
}

impl Statement {
    /// The amounts of the rows of one kind, oldest first.
    pub fn of(&self, kind: &str) -> Vec<i64> {
        self.rows.iter().filter(|row| row.kind == kind).map(|row| row.amount).collect()
    }

    /// The charge for one request, in micros; panics unless there is exactly one.
    pub fn charge(&self, request: &str) -> i64 {
        let charges: Vec<_> =
            self.rows.iter().filter(|row| row.kind == "CHARGE" && row.request.as_deref() == Some(request)).collect();
        assert_eq!(charges.len(), 1, "one charge for {request}: {:#?}", self.rows);
        -charges[0].amount
    }

    /// Each row continues from the one before, and the last says the balance.
    pub fn assert_sums(&self) {
        let mut balance = 0;
        for row in &self.rows {
            balance += row.amount;
            assert_eq!(row.balance_after, balance, "the rows do not add up at {row:?}: {:#?}", self.rows);
            assert!(balance >= 0, "nobody owes us anything: {:#?}", self.rows);
        }
        assert_eq!(self.balance, balance, "the balance is what the rows say");
    }
}

fn row(row: &Value) -> Row {
    let text = |name: &str| row[name].as_str().map(str::to_owned);
    for name in ["id", "amount", "balanceAfter", "type", "createdAt", "requestId", "modelId"] {
        assert!(row.get(name).is_some(), "every row has {name}: {row}");
    }
    Row {
        amount: usd(&row["amount"]),
        balance_after: usd(&row["balanceAfter"]),
        kind: text("type").expect("a row has a kind"),
        request: text("requestId"),
        model: text("modelId"),
    }
}

/// USD as a JSON number, in micros, exactly: panics on more than six decimals.
pub fn usd(number: &Value) -> i64 {
    assert!(number.is_number(), "not a number: {number}");
    let text = number.to_string();
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    decimal(digits, 6 + exponent.parse::<i32>().expect("an exponent"))
}

/// A decimal text times ten to the `scale`, which must be a whole number.
fn decimal(text: &str, scale: i32) -> i64 {
    let (whole, fraction) = text.split_once('.').unwrap_or((text, ""));
    let fraction = fraction.trim_end_matches('0');
    let zeros = usize::try_from(scale).ok().and_then(|scale| scale.checked_sub(fraction.len()));
    let zeros = zeros.unwrap_or_else(|| panic!("{text} is finer than a micro"));
    format!("{whole}{fraction}{}", "0".repeat(zeros)).parse().unwrap_or_else(|_| panic!("not an amount: {text}"))
}

fn now() -> u64 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    since.expect("the clock is past 1970").as_secs()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_read_exactly_however_json_writes_them() {
        let read = |text: &str| usd(&serde_json::from_str(text).unwrap());
        for (text, micros) in [("0", 0), ("0.0", 0), ("5", 5_000_000), ("12.35", 12_350_000), ("-0.000165", -165), ("1e-6", 1)] {
            assert_eq!(read(text), micros, "{text}");
        }
        assert!(std::panic::catch_unwind(|| read("0.0000001")).is_err(), "nothing is rounded away");
    }
}
