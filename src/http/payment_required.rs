//! What a 402 says: the offer for this one call, how a wallet signs in, and how much it should top up.

use serde_json::{Map, Value, json};

use super::respond::{Edge, challenge};
use crate::dialect::ErrorShape;
use crate::error::{Code, Error};
use crate::gateway::{Remedy, Shortage};
use crate::x402::sign_in::{Challenge, EXTENSION};
use crate::x402::{self, Offer, names};

/// Both halves of one 402, made together so that they invite to the same sign-in.
pub struct PaymentRequired<'a> {
    edge: &'a Edge,
    offer: &'a Offer,
    remedy: Option<Remedy>,
    challenge: Option<Challenge>,
}

impl<'a> PaymentRequired<'a> {
    /// For what is at `path`.
    pub fn new(edge: &'a Edge, path: &str, offer: &'a Offer, remedy: Option<Remedy>) -> Self {
        PaymentRequired { edge, offer, remedy, challenge: remedy.map(|_| challenge(edge, path)) }
    }

    /// The value of `PAYMENT-REQUIRED`: version 2's offer, in which a caller that is not known is invited to sign in. One that
    /// is needs no invitation, which would take most of the room that proxies have for headers.
    pub fn header(&self, error: &Error) -> String {
        let extensions = self.extensions();
        x402::encode(&self.offer.v2(offer_error(error), extensions.as_ref()))
    }

    /// The offer alone, as the body where a top-up begins: the object that stands in the header, because clients read either,
    /// or version 1's for who asks for that with `?x402Version=1`.
    pub fn offer(&self, error: &Error, query: &str) -> Value {
        match query.split('&').any(|pair| pair == "x402Version=1") {
            true => json!({ "x402Version": 1, "error": offer_error(error), "accepts": self.offer.v1_accepts() }),
            false => json!(self.offer.v2(offer_error(error), self.extensions().as_ref())),
        }
    }

    /// Adds to the body of an error. Under `/v1` it is at once version 1's offer and the dialect's error; under `/api/v1`
    /// version 2's offer and what wallet clients know.
    pub fn add_to(&self, body: &mut Map<String, Value>, shape: ErrorShape) {
        match shape {
            ErrorShape::OpenAi | ErrorShape::Anthropic => {
                body.insert("x402Version".into(), 1.into());
                body.insert("accepts".into(), self.offer.v1_accepts().into());
                if let (Some(Remedy::TopUp(shortage)), Some(error)) = (self.remedy, body.get_mut("error")) {
                    error["suggested_top_up_usd"] = shortage.suggested.as_usd().into();
                }
            }
            ErrorShape::Flat | ErrorShape::TopUp => {
                body.insert("x402Version".into(), 2.into());
                body.insert("resource".into(), json!(self.offer.resource));
                body.insert("accepts".into(), json!(self.offer.accepts));
                if let Some(extensions) = self.extensions() {
                    body.insert("extensions".into(), extensions);
                }
                match self.remedy {
                    Some(Remedy::Identify) => self.say_how_to_identify(body),
                    Some(Remedy::TopUp(shortage)) => self.say_how_to_top_up(body, &shortage),
                    None => {}
                }
            }
        }
    }

    fn extensions(&self) -> Option<Value> {
        let challenge = self.challenge.as_ref().filter(|_| self.remedy == Some(Remedy::Identify))?;
        Some(json!({ EXTENSION: challenge.extension() }))
    }

    fn say_how_to_identify(&self, body: &mut Map<String, Value>) {
        let url = &self.edge.gateway.public_url;
        headline(body, "Authentication required");
        let options = json!({
            "apiKey": {
                "header": "Authorization: Bearer sk-x402-…",
                "getKey": format!("POST {url}/api/keys"),
                "docs": format!("{url}/"),
            },
            "x402Wallet": {
                "header": "SIGN-IN-WITH-X",
                "legacyHeader": "X-Sign-In-With-X",
                "topUp": format!("POST {url}/api/v1/x402/top-up"),
                "docs": format!("{url}/"),
            },
        });
        body.insert("authOptions".into(), options);
    }

    fn say_how_to_top_up(&self, body: &mut Map<String, Value>, shortage: &Shortage) {
        let (gateway, accepts) = (&self.edge.gateway, &self.offer.accepts);
        let minimum = gateway.prepaid.top_up_minimum.as_usd();
        let chains: Vec<_> = accepts.iter().map(|entry| names::short(&entry.network).unwrap_or(&entry.network)).collect();
        headline(body, "Payment required");
        let more = json!({
            "reason": Code::InsufficientBalance.row().code,
            "description": "The balance of this wallet is too little for this call.",
            "currentBalanceUsd": shortage.available.as_usd(),
            "minimumBalanceUsd": shortage.needed.as_usd(),
            "suggestedTopUpUsd": shortage.suggested.as_usd(),
            "minimumTopUpUsd": minimum,
            "supportedTokens": ["USDC"],
            "supportedChains": chains,
            "siwxChallenge": self.challenge.as_ref().map(Challenge::brief),
        });
        body.extend(more.as_object().cloned().unwrap_or_default());
        if let Some(first) = accepts.first() {
            let url = format!("{}/api/v1/x402/top-up", gateway.public_url);
            let instructions = json!({
                "step1": format!("POST {url} without a payment; its 402 says in PAYMENT-REQUIRED how to pay"),
                "step2": format!("sign a payment of {} USD or more to receiverWallet", shortage.suggested.as_usd()),
                "step3": format!("POST {url} again with it as X-402-Payment or PAYMENT-SIGNATURE, then send this request again"),
                "receiverWallet": first.pay_to,
                "tokenAddress": first.asset,
                "tokenDecimals": 6,
                "network": first.network,
                "minimumAmountUsd": minimum,
            });
            body.insert("topUpInstructions".into(), instructions);
        }
    }
}

/// Puts words that clients know into `error`; what it said before is the `message`.
fn headline(body: &mut Map<String, Value>, words: &str) {
    if let Some(message) = body.insert("error".into(), words.into()) {
        body.insert("message".into(), message);
    }
}

/// The `error` of a version 2 offer: the reason code of a refused payment, or the words clients know.
fn offer_error(error: &Error) -> &str {
    match error.reason {
        Some(reason) => reason,
        None if error.code == Code::PaymentRequired => "Payment required",
        None => error.code.row().code,
    }
}
