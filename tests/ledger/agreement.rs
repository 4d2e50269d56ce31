//! Random commands: after every one of them the ledger and the model say the same, also after restarts.

use farebox::ledger::{Ledger, Options};

use super::clock;
use super::disk::{Disk, Trouble};
use super::model::{Model, Seen};
use super::steps::{Said, Step, perform};

/// Performs what `bytes` spell on a new ledger and on the model; says where they part.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let mut disk = Disk::new(Trouble::None);
    let mut ledger = open(&disk)?;
    let mut model = Model::default();
    let mut calls = Vec::new();
    for (n, step) in Step::spelled(bytes).into_iter().enumerate() {
        let expected = model.take(step, n as u128);
        let done = match perform(&ledger, &mut calls, step, n as u128) {
            Said::Done | Said::Promised(_) | Said::Durable => true,
            Said::Refused => false,
            Said::Stopped => return Err(format!("step {n}, {step:?}: the ledger has stopped")),
        };
        if done != expected {
            return Err(format!("step {n}, {step:?}: done is {done}, the model says {expected}"));
        }
        if Seen::of(&ledger) != model.seen() {
            return Err(format!("step {n}, {step:?}: {:?}, the model says {:?}", Seen::of(&ledger), model.seen()));
        }
        // Now and then a stop in the middle: what nobody serves any more the next start ends.
        if n % 16 == 15 && bytes[n] & 1 == 1 {
            ledger.close();
            calls.clear();
            disk = disk.reopened();
            ledger = open(&disk)?;
            model = model.restarted();
        }
    }
    calls.clear();
    model = model.given_up();
    ledger.close();
    let ledger = open(&disk.reopened())?;
    let report = ledger.verify_in_passes(2).map_err(|broken| broken.to_string())?;
    let house = |name: &str| report.house.get(name).copied().unwrap_or(0);
    let (seen, earned) = (Seen::of(&ledger), (house("sales"), house("bad debt")));
    let is_right = report.ok && seen == model.seen() && earned == model.house();
    if is_right { Ok(()) } else { Err(format!("at the end: {:?}, {seen:?}, {earned:?}; not {model:?}", report.problems)) }
}

fn open(disk: &Disk) -> Result<Ledger, String> {
    Ok(Ledger::open_on(disk.clone(), clock(), Options::default()).map_err(|broken| broken.to_string())?.0)
}
