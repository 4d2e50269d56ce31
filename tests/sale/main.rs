//! Pay-per-call sales over the real binary, a real chain and the real clients: who paid what, what they got, who holds the money.

mod abuse;
mod attacks;
#[cfg(feature = "fault-points")]
mod bad_disk;
mod blocked;
mod cache;
mod certificates;
mod chain_trouble;
mod clients;
#[cfg(feature = "fault-points")]
mod clock;
mod crash;
mod documents;
mod facilitator;
#[cfg(feature = "fault-points")]
mod faults;
mod lists;
mod offer;
mod refusal;
mod reload;
mod replay;
mod report;
mod restore;
mod secure;
mod several_upstreams;
mod shop;
mod stop;
mod upstream_fails;
mod wire;
