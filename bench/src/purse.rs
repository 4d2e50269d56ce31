//! A balance and a key that spends it, got as any wallet gets them: topped up by a payment, minted by a signed message.

use farebox::chain::evm::buyer;
use farebox::clock::Timestamp;
use serde_json::{Value, json};

use crate::buyer::{Offer, wallet};
use crate::http::{ask, request};
use crate::measure::now_ns;
use crate::peers::MODEL;

const TOP_UP: &str = "/v1/x402/top-up";
const KEYS: &str = "/api/keys";
/// Token units; the most that is taken at once, and more than the benchmark can spend.
const AMOUNT: u64 = 10_000_000_000;
/// Far from the wallets that pay call by call.
const WALLET: usize = 900_000;
/// Seconds for which a sign-in is good.
const GOOD_FOR: u64 = 60;

/// A wallet's key.
pub struct Purse {
    key: String,
}

impl Purse {
    /// Tops a wallet up at the farebox at `address` and mints a key for it that has all the limits a key can have.
    pub async fn fill(address: &str) -> Result<Purse, String> {
        let key = wallet(WALLET)?;
        let offer = Offer::ask(address, TOP_UP, "").await?.of(AMOUNT);
        let payment = format!("payment-signature: {}\r\n", offer.sign(&key)?);
        let paid = answer(address, &request("POST", TOP_UP, &payment, "")).await?;
        if paid["data"]["amountCredited"].as_u64() != Some(AMOUNT / 1_000_000) {
            return Err(format!("a top-up of {AMOUNT} units was not credited: {paid}"));
        }
        let now = now_ns() / 1_000_000;
        let (issued, expires) = (Timestamp::from_millis(now), Timestamp::from_millis(now + GOOD_FOR * 1_000));
        let uri = format!("http://{address}{KEYS}");
        let nonce = format!("bench{}", now_ns());
        let sign_in = buyer::sign_in(&key, address, &uri, 8453, &nonce, issued, expires);
        let wanted = json!({ "name": "bench", "spend_limit_usd": "9000", "reset": "month", "models": [MODEL] }).to_string();
        let minted = answer(address, &request("POST", KEYS, &format!("x-sign-in-with-x: {sign_in}\r\n"), &wanted)).await?;
        let key = minted["key"].as_str().ok_or_else(|| format!("no key was minted: {minted}"))?;
        Ok(Purse { key: key.to_owned() })
    }

    /// The line with which a request is paid.
    pub fn header(&self) -> String {
        format!("authorization: Bearer {}\r\n", self.key)
    }
}

async fn answer(address: &str, request: &[u8]) -> Result<Value, String> {
    let (head, body) = ask(address, request).await.map_err(|error| error.to_string())?;
    match head.status {
        200..300 => serde_json::from_slice(&body).map_err(|error| error.to_string()),
        status => Err(format!("{status}: {}", String::from_utf8_lossy(&body))),
    }
}
