//! `farebox pay --top-up USD`: the reference buyer of a balance. It asks, signs, sends, and prints what came of it.

use awc::http::StatusCode;
use serde_json::Value;

use super::{Buyer, machine_clock, print_receipt, random, refusal, say};
use crate::money::Micros;
use crate::x402::{PAYMENT_HEADERS, RECEIPT_HEADERS, Requirements};

const PATH: &str = "/v1/x402/top-up";

impl Buyer<'_> {
    /// Pays `usd` into the balance of the wallet whose key is at hand.
    pub(super) async fn top_up(&self, usd: &str) -> Result<(), String> {
        let amount = Micros::parse_usd(usd).map_err(|error| format!("--top-up: {error}"))?;
        let (offer, resource, wallet) = self.payable(&self.offer(self.post(PATH).send().await).await?)?;
        let least = Micros::parse_units(&offer.amount).ok_or("the offer's amount is not a number")?;
        say::err(format_args!("offer     {least} USDC or more on {} to {}", offer.network, offer.pay_to));
        if amount < least {
            return Err(format!("{amount} USDC is less than the {least} that a top-up must be, so nothing was signed"));
        }
        let wallet = self.wallet(wallet, &offer).await?;
        say::err(format_args!("signing   {amount} USDC as {}", wallet.address()));
        let offer = Requirements { amount: amount.get().to_string(), ..offer };
        let header = wallet.pay(&offer, resource.as_ref(), random::<32>()?, machine_clock().now());
        self.pay_in(&header.map_err(|error| error.to_string())?).await
    }

    async fn pay_in(&self, header: &str) -> Result<(), String> {
        let sent = self.post(PATH).insert_header((PAYMENT_HEADERS[0], header)).send().await;
        let mut response = sent.map_err(|error| self.unreachable(&error.to_string()))?;
        let read = |name: &str| response.headers().get(name).and_then(|value| value.to_str().ok()).map(str::to_owned);
        let (receipt, request_id) = (read(RECEIPT_HEADERS[0]), read("x-request-id"));
        let body = response.body().await.unwrap_or_default();
        let result = match response.status() {
            StatusCode::OK => {
                let body: Value = serde_json::from_slice(&body).unwrap_or_default();
                let (wallet, payment) = (text(&body["data"]["walletAddress"]), text(&body["data"]["paymentId"]));
                let credited = format!("credited  {} USDC to {wallet}", body["data"]["amountCredited"]);
                say::out(format_args!("{credited}\nbalance   {} USDC\npayment   {payment}", body["data"]["newBalance"]))
            }
            status => Err(refusal(status, &body)),
        };
        print_receipt(receipt.as_deref(), request_id.as_deref());
        result
    }
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap_or("-")
}
