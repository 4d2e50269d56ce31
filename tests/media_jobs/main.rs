//! Jobs over the real binary: ordered, paid, waited for, fetched, paid back when they fail; and who may see them.

mod buying;
#[cfg(feature = "fault-points")]
mod deaths;
mod failing;
mod fetching;
mod openai;
mod ordering;
mod shop;
mod strangers;
mod venice;
