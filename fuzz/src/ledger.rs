//! The ledger: whatever is asked of it in whatever order, it does what the model says and its books stay clean.

#[path = "../../tests/ledger/agreement.rs"]
pub mod agreement;
#[path = "../../tests/ledger/disk.rs"]
pub mod disk;
#[path = "../../tests/ledger/model.rs"]
pub mod model;
#[path = "../../tests/ledger/sample.rs"]
pub mod sample;
#[path = "../../tests/ledger/seen.rs"]
pub mod seen;
#[path = "../../tests/ledger/steps.rs"]
pub mod steps;

use sample::{Hands, NOON, attempt, claim, draw, key, payment, wait, wallet};

/// The bytes spell commands.
pub fn check(data: &[u8]) {
    if let Err(problem) = agreement::check(&data[..data.len().min(1200)]) {
        panic!("{problem}");
    }
}
