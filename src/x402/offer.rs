//! What we ask for: the offer of a 402, in both versions.

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::{Malformed, names};

/// What is being sold (x402 v2 `ResourceInfo`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// Absolute URL under the operator's `public_url`.
    pub url: String,
    /// ASCII, because old clients encode the offer with `btoa`.
    pub description: String,
    pub mime_type: String,
}

/// One way to pay (x402 v2 `PaymentRequirements`).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Requirements {
    pub scheme: String,
    /// CAIP-2.
    pub network: String,
    /// Token units, decimal digits.
    pub amount: String,
    pub asset: String,
    pub pay_to: String,
    pub max_timeout_seconds: u64,
    /// EVM: the token's EIP-712 `name` and `version`. Solana: `feePayer`, `memo`, `recentBlockhash` and
    /// `lastValidBlockHeight`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

impl Requirements {
    /// Reads requirements as either version writes them.
    pub fn from_json(value: &Value) -> Result<Requirements, Malformed> {
        let Some(v1_amount) = value.get("maxAmountRequired") else {
            return Requirements::deserialize(value).map_err(|error| Malformed(format!("requirements: {error}")));
        };
        let mut fields = value.as_object().cloned().unwrap_or_default();
        let network = fields.get("network").and_then(Value::as_str).unwrap_or_default();
        let caip2 = names::caip2(network).ok_or_else(|| Malformed(format!("requirements: unknown network {network:?}")))?;
        let caip2 = Value::from(caip2);
        fields.insert("network".into(), caip2);
        fields.insert("amount".into(), v1_amount.clone());
        Requirements::deserialize(Value::Object(fields)).map_err(|error| Malformed(format!("requirements: {error}")))
    }

    /// The version 1 form, for networks that version 1 clients know. Nulls are omitted: those clients reject them.
    fn to_v1(&self, resource: &Resource) -> Option<Value> {
        let mut entry = json!({
            "scheme": self.scheme,
            "network": names::v1(&self.network)?,
            "maxAmountRequired": self.amount,
            "resource": resource.url,
            "description": resource.description,
            "mimeType": resource.mime_type,
            "payTo": self.pay_to,
            "maxTimeoutSeconds": self.max_timeout_seconds,
            "asset": self.asset,
        });
        if let Some(extra) = &self.extra {
            entry["extra"] = Value::Object(extra.clone());
        }
        Some(entry)
    }
}

/// Everything a 402 asks for: one resource, several ways to pay, the preferred one first.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Offer {
    pub resource: Resource,
    pub accepts: Vec<Requirements>,
}

/// An offer as version 2 writes it (x402 v2 `PaymentRequired`).
#[derive(Debug, Clone, Copy, Serialize)]
pub struct OfferV2<'a> {
    pub accepts: &'a [Requirements],
    pub error: &'a str,
    /// By name, such as `sign-in-with-x`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub extensions: Option<&'a Value>,
    pub resource: &'a Resource,
    #[serde(rename = "x402Version")]
    pub version: u8,
}

impl Offer {
    /// The version 2 object, which goes base64 into `PAYMENT-REQUIRED`. `error` is the machine's or human's reason.
    pub fn v2<'a>(&'a self, error: &'a str, extensions: Option<&'a Value>) -> OfferV2<'a> {
        OfferV2 { accepts: &self.accepts, error, extensions, resource: &self.resource, version: 2 }
    }

    /// The `accepts` array of version 1, which stands in the body.
    pub fn v1_accepts(&self) -> Vec<Value> {
        self.accepts.iter().filter_map(|entry| entry.to_v1(&self.resource)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn offer() -> Offer {
        let entry = |network: &str| Requirements {
            scheme: "exact".into(),
            network: network.into(),
            amount: "10000".into(),
            asset: "0x036CbD53842c5426634e7929541eC2318f3dCF7e".into(),
            pay_to: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC".into(),
            max_timeout_seconds: 300,
            extra: None,
        };
        let resource =
            Resource { url: "http://x/v1/messages".into(), description: "call".into(), mime_type: "application/json".into() };
        Offer { resource, accepts: vec![entry("eip155:84532"), entry("eip155:42161")] }
    }

    #[test]
    fn version_1_sees_only_what_it_can_parse() {
        let accepts = offer().v1_accepts();
        assert_eq!(accepts.len(), 1, "arbitrum is not in the version 1 list and would break the whole offer");
        assert_eq!(accepts[0]["network"], "base-sepolia");
        assert_eq!(accepts[0]["maxAmountRequired"], "10000");
        assert!(accepts[0].get("extra").is_none(), "no nulls");
    }

    #[test]
    fn requirements_of_both_versions_read_the_same() {
        let offer = offer();
        let mut v1 = Requirements::from_json(&offer.v1_accepts()[0]).unwrap();
        let v2 = Requirements::from_json(&serde_json::to_value(offer.v2("", None)).unwrap()["accepts"][0]).unwrap();
        v1.extra = None;
        assert_eq!(v1, v2);
    }
}
