//! The buyers: throw-away wallets that sign what an offer asks for, before the clock runs.

use farebox::chain::evm::buyer;
use farebox::chain::evm::key::PrivateKey;
use farebox::clock::Timestamp;
use farebox::x402::{self, Requirements, Resource};
use serde_json::Value;

use crate::http::{self, Head};
use crate::measure::now_ns;

/// An offer that was made for one route and body.
pub struct Offer {
    pub requirements: Requirements,
    resource: Option<Resource>,
}

impl Offer {
    /// What an unpaid request is answered.
    pub async fn ask(address: &str, path: &str, body: &str) -> Result<Offer, String> {
        let asked = http::ask(address, &http::request("POST", path, "", body)).await;
        let (head, text) = asked.map_err(|error| format!("no offer from {address}: {error}"))?;
        Offer::read(&head).ok_or_else(|| format!("no offer but {}: {}", head.status, String::from_utf8_lossy(&text)))
    }

    fn read(head: &Head) -> Option<Offer> {
        let bytes = x402::decode_base64(head.offer.as_deref()?).ok()?;
        let offer: Value = serde_json::from_slice(&bytes).ok()?;
        let requirements = Requirements::from_json(offer.get("accepts")?.get(0)?).ok()?;
        Some(Offer { requirements, resource: serde_json::from_value(offer.get("resource")?.clone()).ok() })
    }

    /// The same for another amount, in token units, where the buyer may choose.
    pub fn of(self, amount: u64) -> Offer {
        let requirements = Requirements { amount: amount.to_string(), ..self.requirements };
        Offer { requirements, ..self }
    }

    /// A payment header, signed by `key` now; never the same twice.
    pub fn sign(&self, key: &PrivateKey) -> Result<String, String> {
        let now = now_ns();
        let mut nonce = [0; 32];
        nonce[..8].copy_from_slice(&now.to_be_bytes());
        nonce[8..16].copy_from_slice(&fresh().to_be_bytes());
        let signed = buyer::pay(&self.requirements, self.resource.as_ref(), key, nonce, Timestamp::from_millis(now / 1_000_000));
        signed.map_err(|error| error.to_string())
    }
}

/// A number that was not given out before.
fn fresh() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static NEXT: AtomicU64 = AtomicU64::new(0);
    NEXT.fetch_add(1, Ordering::Relaxed)
}

/// The key of wallet `number`; everybody can work it out, so nothing of worth is ever on it.
pub fn wallet(number: usize) -> Result<PrivateKey, String> {
    PrivateKey::parse(&format!("{:064x}", number + 1_000_000)).map_err(|error| error.to_string())
}

/// `count` paid requests of one body; each wallet buys again only after `wallets` others.
pub async fn presign(address: &str, path: &str, body: &str, count: usize, wallets: usize) -> Result<Vec<Vec<u8>>, String> {
    let offer = Offer::ask(address, path, body).await?;
    let keys = (0..wallets.min(count)).map(wallet).collect::<Result<Vec<_>, _>>()?;
    let paid = |number: usize| {
        let payment = offer.sign(&keys[number % keys.len()])?;
        Ok(http::request("POST", path, &format!("payment-signature: {payment}\r\n"), body))
    };
    (0..count).map(paid).collect()
}
