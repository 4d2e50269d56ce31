//! Prepaid sales over the real binary, a real chain and the clients people already have: what they see, and who holds the money.

mod anthropic;
mod balance;
mod credentials;
mod curl;
mod framing;
mod leaving;
mod limits;
mod openai;
mod refusal;
mod shop;
mod streams;
mod venice;
