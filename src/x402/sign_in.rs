//! Sign-In-With-X: a wallet proves who it is by signing a text that names this gateway; here its header is read, not believed.
//!
//! A header is base64 of a JSON object in one of two forms: with the `message` that was signed (as `venice-x402-client` sends
//! it), or with the fields it is made of (as x402 version 2 clients do), from which it is written again.

mod challenge;
pub mod fault;
mod message;
mod site;
mod text;

#[cfg(test)]
mod tests;

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_json::{Value, json};

pub use super::names::Family;
pub use challenge::{Challenge, EXTENSION};
pub use fault::SignInFault;
use fault::shown;
pub use message::{Message, Time};
pub use site::{Origin, SignInRules};
pub use text::is_statement;

use super::{decode_base64, object};
use crate::clock::Timestamp;

/// Request headers that may carry a sign-in. Two that differ are refused.
pub const SIGN_IN_HEADERS: [&str; 2] = ["x-sign-in-with-x", "sign-in-with-x"];
/// The one sign-in among the values of [`SIGN_IN_HEADERS`]; empty ones are none.
///
/// # Errors
/// `X402_SIGN_IN_PARSE_ERROR` when two of them differ: nobody should have to guess which one counts.
pub fn only_sign_in<'a>(values: impl IntoIterator<Item = &'a str>) -> Result<Option<&'a str>, SignInFault> {
    let mut values = values.into_iter().map(str::trim).filter(|value| !value.is_empty());
    let first = values.next();
    match values.find(|value| Some(*value) != first) {
        None => Ok(first),
        Some(_) => {
            Err(SignInFault::new(fault::PARSE_ERROR, "two sign-in headers differ; send one, or the same under both names"))
        }
    }
}

/// A sign-in header longer than this is refused before it is decoded.
pub const MAX_SIGN_IN_BYTES: usize = 8 * 1024;

/// A decoded sign-in header whose parts agree with each other. Nothing in it is verified.
#[derive(Clone)]
pub struct SignIn {
    message: Message,
    /// The signed text, where it came along; else it is written from the fields.
    text: Option<String>,
    address: String,
    chain: String,
    timestamp: Option<Timestamp>,
    signature: String,
}

/// All fields of both forms. Each is named here so that a second copy of it is refused.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Wire {
    address: Option<String>,
    signature: Option<String>,
    chain_id: Option<Value>,
    r#type: Option<String>,
    message: Option<String>,
    timestamp: Option<u64>,
    domain: Option<String>,
    statement: Option<String>,
    uri: Option<String>,
    version: Option<String>,
    nonce: Option<String>,
    issued_at: Option<String>,
    expiration_time: Option<String>,
    not_before: Option<String>,
    request_id: Option<String>,
    resources: Option<Vec<String>>,
    // Says what the signature is, which we see.
    #[serde(rename = "signatureScheme")]
    _signature_scheme: Option<IgnoredAny>,
}

impl SignIn {
    /// Decodes a header value and reads the text that was signed.
    ///
    /// # Errors
    /// In this order `X402_SIGN_IN_` `PARSE_ERROR`, `INVALID_PAYLOAD`, `INVALID_MESSAGE`, `INVALID_CHAIN_ID` and
    /// `CHAIN_MISMATCH`; a text that must be written from fields needs their chain first.
    pub fn from_header(header: &str) -> Result<SignIn, SignInFault> {
        let wire = Wire::read(header)?;
        let address = required(&wire.address, "address")?;
        let signature = required(&wire.signature, "signature")?;
        let timestamp = wire.timestamp.map(Timestamp::from_millis);
        let named = wire.named_chain();
        let family = wire.family(named.as_deref())?;
        let (message, text) = match &wire.message {
            Some(text) => (Message::parse(text, family)?, Some(text.clone())),
            None => (wire.rebuilt(family, named.as_deref())?, None),
        };
        let chain = caip2(family, &message.chain)?;
        if let Some(named) = named.map(|named| caip2(family, &named)).transpose()?
            && named != chain
        {
            let say = format!("`chainId` is {named} and the signed message says {chain}; name the chain that was signed");
            return Err(SignInFault::new(fault::CHAIN_MISMATCH, say));
        }
        Ok(SignIn { message, text, address, chain, timestamp, signature })
    }

    /// What was signed, field by field.
    pub fn message(&self) -> &Message {
        &self.message
    }

    /// The text that was signed: as it was received, else written from the fields with `address` in the spelling in which
    /// wallets sign it (EIP-55).
    pub fn text(&self, address: &str) -> Cow<'_, str> {
        match &self.text {
            Some(text) => Cow::Borrowed(text),
            None => Cow::Owned(Message { address: address.to_owned(), ..self.message.clone() }.text()),
        }
    }

    /// The wallet that the header names beside the text.
    pub fn address(&self) -> &str {
        &self.address
    }

    /// The signed chain, CAIP-2.
    pub fn chain(&self) -> &str {
        &self.chain
    }

    /// What the client's clock showed, which nobody signed.
    pub fn timestamp(&self) -> Option<Timestamp> {
        self.timestamp
    }

    /// As it was sent. A secret: until the sign-in expires it speaks for the wallet.
    pub fn signature(&self) -> &str {
        &self.signature
    }

    /// Everything but the signature, for a person.
    pub fn fields(&self) -> Value {
        let message = &self.message;
        let time = |time: &Option<Time>| time.as_ref().map(|time| time.as_str().to_owned());
        json!({
            "form": if self.text.is_some() { "message" } else { "fields" },
            "scheme": message.scheme,
            "domain": message.domain,
            "address": message.address,
            "statement": message.statement,
            "uri": message.uri,
            "chain": self.chain,
            "nonce": message.nonce,
            "issuedAt": message.issued_at.as_str(),
            "expirationTime": time(&message.expiration_time),
            "notBefore": time(&message.not_before),
            "requestId": message.request_id,
            "resources": message.resources,
            "timestamp": self.timestamp.map(Timestamp::millis),
        })
    }
}

impl fmt::Debug for SignIn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SignIn").field("address", &self.address).field("chain", &self.chain).finish_non_exhaustive()
    }
}

impl Wire {
    fn read(header: &str) -> Result<Wire, SignInFault> {
        let unreadable = |what: String| SignInFault::new(fault::PARSE_ERROR, what);
        if header.len() > MAX_SIGN_IN_BYTES {
            return Err(unreadable(format!("the sign-in has {} bytes, more than {MAX_SIGN_IN_BYTES}", header.len())));
        }
        let bytes = decode_base64(header).map_err(|what| unreadable(format!("the sign-in is {what}; send base64 of JSON")))?;
        let text = std::str::from_utf8(&bytes).map_err(|_| unreadable("the sign-in is base64 of what is not text".into()))?;
        let is_json = serde_json::from_str::<IgnoredAny>(text).is_ok();
        if !is_json || !text.trim_start().starts_with('{') {
            return Err(unreadable("the sign-in is base64 of what is no JSON object".into()));
        }
        object(text, "the sign-in").map_err(|malformed| SignInFault::new(fault::INVALID_PAYLOAD, malformed.0))
    }

    /// The chain as it is named, a number as its digits; what is neither stays what no chain is called.
    fn named_chain(&self) -> Option<String> {
        self.chain_id.as_ref().map(|chain| chain.as_str().map_or_else(|| chain.to_string(), str::to_owned))
    }

    /// Solana, if the type or the chain says so, else EVM.
    fn family(&self, chain: Option<&str>) -> Result<Family, SignInFault> {
        let solana = chain.is_some_and(|chain| chain.starts_with("solana:"));
        match (self.r#type.as_deref(), solana) {
            (Some("eip191"), true) => Err(SignInFault::new(
                fault::CHAIN_MISMATCH,
                "`type` is eip191 and `chainId` is a chain of Solana, which has ed25519",
            )),
            (Some("ed25519"), _) | (None, true) => Ok(Family::Solana),
            (None | Some("eip191"), false) => Ok(Family::Evm),
            (Some(_), _) => {
                Err(SignInFault::new(fault::INVALID_PAYLOAD, "`type` is eip191 for EVM wallets or ed25519 for Solana's"))
            }
        }
    }

    /// The message that the fields make. No field can bring in a line of its own: what is written must read as the same.
    fn rebuilt(&self, family: Family, chain: Option<&str>) -> Result<Message, SignInFault> {
        if self.domain.is_none() && self.uri.is_none() && self.issued_at.is_none() {
            return Err(missing("message"));
        }
        let domain = required(&self.domain, "domain")?;
        let uri = required(&self.uri, "uri")?;
        let version = required(&self.version, "version")?;
        let chain = caip2(family, chain.ok_or_else(|| missing("chainId"))?)?;
        let issued_at = time("issuedAt", &required(&self.issued_at, "issuedAt")?)?;
        // Clients leave an empty text out of what they sign.
        let given = |text: &Option<String>| text.clone().filter(|text| !text.is_empty());
        let optional_time = |name, text| given(text).map(|text| time(name, &text)).transpose();
        let message = Message {
            family,
            scheme: None,
            domain,
            address: required(&self.address, "address")?,
            statement: given(&self.statement),
            uri,
            chain: Family::reference(&chain).to_owned(),
            nonce: given(&self.nonce),
            issued_at,
            expiration_time: optional_time("expirationTime", &self.expiration_time)?,
            not_before: optional_time("notBefore", &self.not_before)?,
            request_id: given(&self.request_id),
            // An empty list is written by Ethereum's libraries and left out by Solana's.
            resources: self.resources.clone().filter(|list| family == Family::Evm || !list.is_empty()),
        };
        if version != "1" || Message::parse(&message.text(), family)? != message {
            let say = "the fields do not make one message: `version` is \"1\", and no field has line ends or parts of another";
            return Err(SignInFault::new(fault::INVALID_MESSAGE, say));
        }
        Ok(message)
    }
}

fn required(field: &Option<String>, name: &str) -> Result<String, SignInFault> {
    field.clone().filter(|text| !text.is_empty()).ok_or_else(|| missing(name))
}

fn missing(name: &str) -> SignInFault {
    SignInFault::new(fault::INVALID_PAYLOAD, format!("the sign-in has no `{name}`"))
}

fn time(name: &str, text: &str) -> Result<Time, SignInFault> {
    let wrong = || format!("`{name}` is {}, not a time such as 2026-01-02T03:04:05Z", shown(text));
    Time::read(text).ok_or_else(|| SignInFault::new(fault::INVALID_MESSAGE, wrong()))
}

fn caip2(family: Family, chain: &str) -> Result<String, SignInFault> {
    let wrong = || format!("{} is no chain of this kind of wallet; Base is 8453 or eip155:8453", shown(chain));
    family.caip2(chain).ok_or_else(|| SignInFault::new(fault::INVALID_CHAIN_ID, wrong()))
}
