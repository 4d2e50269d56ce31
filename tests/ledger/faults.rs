//! A disk that fails: at whatever operation, the ledger takes nothing more, and the next start finds what was promised.

use std::io::ErrorKind;

use super::disk::{Disk, Fault, Random, Trouble};
use super::life::{History, find_the_truth, live, new_ledger, open};
use super::model::Model;
use super::steps::{By, Said, Step, perform};
use super::{Hands, NOON};

/// The representative life: every command there is, restarts included.
const SEED: u64 = 7;
const STEPS: u128 = 150;

#[test]
fn after_an_input_output_error_at_any_operation_the_ledger_stops_and_a_restart_finds_the_truth() {
    let made = new_ledger();
    let healthy = made.reopened();
    life_with(&healthy, None);
    let (operations, syncs) = (healthy.operations(), healthy.syncs());
    assert!(operations > 200 && syncs > 20, "{operations} operations and {syncs} syncs are no representative life");
    let every = |kind, sync_only, sticky| {
        (1..=if sync_only { syncs } else { operations }).map(move |nth| Fault { nth, sync_only, sticky, kind })
    };
    let kinds = [ErrorKind::StorageFull, ErrorKind::Other];
    let all = kinds.into_iter().flat_map(|kind| {
        [(false, false), (false, true), (true, false), (true, true)]
            .into_iter()
            .flat_map(move |(sync_only, sticky)| every(kind, sync_only, sticky))
    });
    let struck = all.filter(|fault| life_with(&made.with(Trouble::Fault(*fault)), Some(*fault))).count();
    assert!(struck as u64 > 4 * operations, "{struck} faults struck, there were {operations} operations in each life");
}

/// One life, and the next start; says whether the fault struck.
fn life_with(disk: &Disk, fault: Option<Fault>) -> bool {
    let mut random = Random::new(SEED);
    let hands = Hands::at(NOON);
    let mut history = History::from(Model::default());
    let Ok((ledger, _)) = open(disk, &hands) else {
        assert!(fault.is_some(), "a healthy disk opens");
        find_the_truth(&disk.reopened(), &hands, &history);
        return true;
    };
    let (went_on, mut in_hand) = live(&ledger, &hands, &mut random, &mut history, STEPS, 0);
    if !went_on {
        let claim = Step::Claim { payment: 9, payer: 1, amount: 77 };
        let deposit = Step::Deposit { payment: 9, payer: 1, amount: 77 };
        let by = By { key: None, limit: None, nonce: None, most_calls: 100 };
        let reserve = Step::Reserve { payer: 1, amount: 0, by };
        let use_nonce = Step::UseNonce { nonce: 200 };
        for step in [claim, deposit, reserve, use_nonce, Step::KeyEvent] {
            assert!(matches!(perform(&ledger, &mut in_hand, step, 1 << 100), Said::Stopped), "it took {step:?} after {fault:?}");
        }
        assert!(!ledger.is_admitting(), "{fault:?}");
        assert!(ledger.failure().borrow().is_some(), "nobody is told of {fault:?}");
    }
    ledger.close();
    drop(in_hand);
    drop(ledger);
    let (ledger, model) = find_the_truth(&disk.reopened(), &hands, &history);
    assert!(ledger.is_admitting());
    ledger.close();
    // Lost pages: what the failed sync did not bring to the disk is gone when the power goes as well.
    if fault.is_none_or(|fault| fault.sync_only) {
        find_the_truth(&disk.after_power_cut(&mut random), &hands, &history);
    }
    drop(model);
    !went_on
}
