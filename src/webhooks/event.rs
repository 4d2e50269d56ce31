//! What an operator is told of, and its JSON.

use serde_json::{Value, json};

use crate::account::AccountId;
use crate::clock::Timestamp;
use crate::config::Occasion;
use crate::ids::PaymentId;
use crate::money::Micros;

/// Something that has happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    TopUp {
        account: AccountId,
        amount: Micros,
        /// CAIP-2.
        network: String,
        payment: PaymentId,
        tx: String,
    },
    LowBalance {
        account: AccountId,
        balance: Micros,
        below: Micros,
    },
    LowGas {
        /// CAIP-2.
        network: String,
        /// Whose purse it is.
        address: String,
        /// Coins, as decimals.
        has: String,
        /// With less nothing is sold.
        needs: String,
    },
    SettlementStuck {
        payment: PaymentId,
        account: AccountId,
        amount: Micros,
        network: String,
        since: Timestamp,
    },
    UpstreamDown {
        upstream: String,
    },
    UpstreamUp {
        upstream: String,
    },
    LedgerFailed {
        cause: String,
    },
}

impl Event {
    pub fn occasion(&self) -> Occasion {
        match self {
            Event::TopUp { .. } => Occasion::TopUp,
            Event::LowBalance { .. } => Occasion::LowBalance,
            Event::LowGas { .. } => Occasion::LowGas,
            Event::SettlementStuck { .. } => Occasion::SettlementStuck,
            Event::UpstreamDown { .. } => Occasion::UpstreamDown,
            Event::UpstreamUp { .. } => Occasion::UpstreamUp,
            Event::LedgerFailed { .. } => Occasion::LedgerFailed,
        }
    }

    /// `{"type", "timestamp", "data"}`. Amounts are USD with six decimals, as text.
    pub fn to_json(&self, at: Timestamp) -> Value {
        let data = match self {
            Event::TopUp { account, amount, network, payment, tx } => json!({
                "account": account.to_string(), "amount_usd": amount.to_string(), "network": network,
                "payment_id": payment.to_string(), "transaction": tx,
            }),
            Event::LowBalance { account, balance, below } => json!({
                "account": account.to_string(), "balance_usd": balance.to_string(), "below_usd": below.to_string(),
            }),
            Event::LowGas { network, address, has, needs } => {
                json!({ "network": network, "settler": address, "has": has, "needs": needs })
            }
            Event::SettlementStuck { payment, account, amount, network, since } => json!({
                "payment_id": payment.to_string(), "account": account.to_string(), "amount_usd": amount.to_string(),
                "network": network, "since": since.to_rfc3339(),
            }),
            Event::UpstreamDown { upstream } | Event::UpstreamUp { upstream } => json!({ "upstream": upstream }),
            Event::LedgerFailed { cause } => json!({ "cause": cause }),
        };
        json!({ "type": self.occasion().name(), "timestamp": at.to_rfc3339(), "data": data })
    }
}
