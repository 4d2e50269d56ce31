//! What a buyer sends: a payment header of version 1 or 2, read by its shape and never by the version it claims.

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::value::RawValue;

use super::{Malformed, Requirements, decode_base64, names, object};

/// A payment header longer than this is refused before it is decoded.
pub const MAX_HEADER_BYTES: usize = 16 * 1024;

/// Which shape the payment had; its receipt is written the same way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Version {
    V1,
    V2,
}

/// A decoded payment header. Nothing in it is verified.
#[derive(Debug, Clone)]
pub struct Payment {
    pub version: Version,
    pub scheme: String,
    /// CAIP-2.
    pub network: String,
    /// What a version 2 buyer says it accepted: compared with our own requirement, never trusted.
    pub accepted: Option<Requirements>,
    /// The scheme's own payload, as JSON text.
    pub payload: Box<RawValue>,
}

#[derive(Deserialize)]
struct Envelope {
    #[serde(rename = "x402Version")]
    version: u64,
    accepted: Option<Box<RawValue>>,
    scheme: Option<String>,
    network: Option<String>,
    payload: Box<RawValue>,
    // Unsigned and informational. Named here so that a second copy of them is a duplicate and refused.
    #[serde(rename = "resource")]
    _resource: Option<IgnoredAny>,
    #[serde(rename = "extensions")]
    _extensions: Option<IgnoredAny>,
}

impl Payment {
    /// Decodes a header value. A version 1 payment may claim `x402Version: 2` (as `createPaymentHeader(signer, 2, …)`
    /// of npm `x402` writes it): what counts is whether `accepted` is there.
    pub fn from_header(header: &str) -> Result<Payment, Malformed> {
        if header.len() > MAX_HEADER_BYTES {
            return Err(Malformed(format!("the payment header has {} bytes, more than {MAX_HEADER_BYTES}", header.len())));
        }
        let bytes = decode_base64(header).map_err(|what| Malformed(format!("the payment header is {what}")))?;
        let text =
            std::str::from_utf8(&bytes).map_err(|_| Malformed("the payment header is base64 of what is not text".into()))?;
        let envelope: Envelope = object(text, "the payment")?;
        let accepted = envelope.accepted.map(|accepted| object::<Requirements>(accepted.get(), "`accepted`")).transpose()?;
        if !(1..=2).contains(&envelope.version) {
            return Err(Malformed(format!("the payment says x402Version {}; 1 and 2 are taken", envelope.version)));
        }
        let (version, scheme, network, accepted) = match (accepted, envelope.scheme, envelope.network) {
            (Some(accepted), _, _) => (Version::V2, accepted.scheme.clone(), accepted.network.clone(), Some(accepted)),
            (None, Some(scheme), Some(network)) => (Version::V1, scheme, network, None),
            (None, _, _) => {
                return Err(Malformed(
                    "the payment has neither `accepted` (version 2) nor `scheme` and `network` (version 1)".into(),
                ));
            }
        };
        // An unknown name stays as it is: it will match no offer, and the reason will say so.
        let network = names::caip2(&network).map(str::to_owned).unwrap_or(network);
        Ok(Payment { version, scheme, network, accepted, payload: envelope.payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use base64::Engine as _;

    fn header(json: &str) -> String {
        base64::engine::general_purpose::STANDARD.encode(json)
    }

    #[test]
    fn the_shape_decides_not_the_claimed_version() {
        let hybrid = header(r#"{"x402Version":2,"scheme":"exact","network":"base","payload":{}}"#);
        let payment = Payment::from_header(&hybrid).unwrap();
        assert_eq!((payment.version, payment.network.as_str()), (Version::V1, "eip155:8453"));
    }

    #[test]
    fn a_second_copy_of_a_field_is_refused() {
        for json in [
            r#"{"x402Version":1,"x402Version":1,"scheme":"exact","network":"base","payload":{}}"#,
            r#"{"x402Version":1,"scheme":"exact","network":"base","payload":{},"payload":{}}"#,
            r#"{"x402Version":1,"scheme":"exact","network":"base","payload":{},"resource":1,"resource":2}"#,
        ] {
            assert!(Payment::from_header(&header(json)).is_err(), "{json}");
        }
    }

    #[test]
    fn what_is_not_a_payment_is_malformed() {
        for bad in [
            "",
            "!!!",
            "bm90IGpzb24",
            &header("[]"),
            &header(r#"[1,null,"exact","base",{},null,null]"#),
            &header(r#"{"x402Version":2,"accepted":["exact","base","1","0x","0x",300,null],"payload":{}}"#),
            &header("{}"),
            &header(r#"{"x402Version":3,"scheme":"exact","network":"base","payload":{}}"#),
        ] {
            assert!(Payment::from_header(bad).is_err(), "{bad}");
        }
        assert!(Payment::from_header(&"A".repeat(MAX_HEADER_BYTES + 1)).is_err());
    }

    #[test]
    fn base64_is_read_padded_or_not_in_both_alphabets() {
        let padded = header(r#"{"x402Version":1,"scheme":"exact","network":"base","payload":{"a":"??>>"}}"#);
        let bare = padded.trim_end_matches('=').replace('+', "-").replace('/', "_");
        assert!(Payment::from_header(&padded).is_ok());
        assert!(Payment::from_header(&format!(" {bare} ")).is_ok());
    }
}
