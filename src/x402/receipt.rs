//! What a buyer gets back: the settlement receipt that travels in both response headers.

use serde::{Deserialize, Serialize};

use super::{Version, encode, names};

/// The outcome of a settlement (x402 `SettleResponse`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Receipt {
    pub success: bool,
    /// The transaction hash or signature; empty when there is none.
    pub transaction: String,
    /// CAIP-2 for version 2 buyers, the short name for version 1.
    pub network: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub amount: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
}

impl Receipt {
    /// Base64 for the response headers, with the network named as `version` names it.
    pub fn header(&self, version: Version) -> String {
        let mut receipt = self.clone();
        if let (Version::V1, Some(short)) = (version, names::short(&self.network)) {
            receipt.network = short.to_owned();
        }
        encode(&receipt)
    }
}
