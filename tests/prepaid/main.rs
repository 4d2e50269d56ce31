//! Prepaid sales over the real binary, a real chain and the clients people already have: what they see, and who holds the money.

mod anthropic;
mod curl;
mod framing;
mod leaving;
mod openai;
mod refusal;
mod shop;
mod venice;
