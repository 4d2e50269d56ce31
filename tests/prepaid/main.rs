//! Prepaid sales over the real binary, a real chain and the clients people already have: what they see, and who holds the money.

mod anthropic;
mod arriving;
mod at_once;
mod balance;
#[cfg(feature = "fault-points")]
mod broken_index;
mod counting;
mod credentials;
mod curl;
mod dashboard;
mod ended;
mod framing;
mod hidden;
mod keyring;
mod leaving;
mod limits;
mod openai;
mod operator;
mod owner;
mod refusal;
mod responses;
mod sdks;
mod sessions;
mod shop;
mod streams;
mod topping;
mod topup;
mod topup_trouble;
mod translated;
mod venice;
mod wallet_routes;
