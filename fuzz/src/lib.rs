//! What must hold for any bytes whatsoever: one function for each way in which strangers' bytes reach the program.
//!
//! Each function panics when its promise is broken. The tests of this crate run them on the committed corpora and on
//! mutations of these; `scripts/fuzz` lets libFuzzer look for more.

pub mod amount;
pub mod answer;
pub mod chain;
pub mod ledger;
pub mod payment;
pub mod request;
pub mod sign_in;
pub mod solana;
pub mod translate;

/// A promise about any bytes.
pub type Check = fn(&[u8]);

/// Every target by its name, which is also the name of its folder in `corpus/`.
pub const TARGETS: [(&str, Check); 11] = [
    ("payment", payment::check),
    ("sign_in", sign_in::check),
    ("amount", amount::check),
    ("stream", answer::check_stream),
    ("unstreamed", answer::check_unstreamed),
    ("request", request::check),
    ("translate", translate::check),
    ("transaction", chain::check_transaction),
    ("solana", solana::check),
    ("node", chain::check_answers),
    ("ledger", ledger::check),
];
