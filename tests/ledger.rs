//! The ledger keeps its promises through random work, restarts, power cuts and failing disks.

#[path = "ledger/agreement.rs"]
mod agreement;
#[path = "ledger/copies.rs"]
mod copies;
#[path = "ledger/damage.rs"]
mod damage;
#[path = "ledger/damaged_tables.rs"]
mod damaged_tables;
#[path = "ledger/disk.rs"]
mod disk;
#[path = "ledger/faults.rs"]
mod faults;
#[path = "ledger/life.rs"]
mod life;
#[path = "ledger/limits.rs"]
mod limits;
#[path = "ledger/model.rs"]
mod model;
#[path = "ledger/older.rs"]
mod older;
#[path = "ledger/payouts.rs"]
mod payouts;
#[path = "ledger/power.rs"]
mod power;
#[path = "ledger/prepaid.rs"]
mod prepaid;
#[path = "ledger/promises.rs"]
mod promises;
#[path = "ledger/races.rs"]
mod races;
#[path = "ledger/sample.rs"]
mod sample;
#[path = "ledger/seen.rs"]
mod seen;
#[path = "ledger/steps.rs"]
mod steps;

use proptest::prelude::*;
use sample::{Hands, NOON, attempt, claim, clock, draw, key, payment, wait, wallet};

proptest! {
    #![proptest_config(ProptestConfig { cases: 256, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn the_ledger_agrees_with_a_simple_model_after_every_step(bytes in prop::collection::vec(any::<u8>(), 1..1200)) {
        prop_assert_eq!(agreement::check(&bytes), Ok(()));
    }
}
