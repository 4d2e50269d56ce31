//! Random commands: after every one of them the ledger and the model say the same, also after restarts.

use farebox::ledger::{Ledger, Options};

use super::disk::{Disk, Trouble};
use super::model::Model;
use super::seen::{Seen, Written};
use super::steps::{InHand, Said, Step, perform};
use super::{Hands, NOON};

/// Performs what `bytes` spell on a new ledger and on the model; says where they part.
pub fn check(bytes: &[u8]) -> Result<(), String> {
    let mut disk = Disk::new(Trouble::None);
    let hands = Hands::at(NOON);
    let mut ledger = open(&disk, &hands)?;
    let mut model = Model::default();
    let mut in_hand = InHand::nothing(&hands);
    for (n, step) in Step::spelled(bytes).into_iter().enumerate() {
        let expected = model.take(step, n as u128);
        let done = match perform(&ledger, &mut in_hand, step, n as u128) {
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
            in_hand = InHand::nothing(&hands);
            disk = disk.reopened();
            ledger = open(&disk, &hands)?;
            model = model.restarted(hands.now());
            is_written(&ledger, &model).map_err(|parted| format!("restart after step {n}: {parted}"))?;
        }
    }
    drop(in_hand);
    model = model.given_up();
    ledger.close();
    let ledger = open(&disk.reopened(), &hands)?;
    let report = ledger.verify_in_passes(2).map_err(|broken| broken.to_string())?;
    let house = |name: &str| report.house.get(name).copied().unwrap_or(0);
    let (counted, earned) = ((report.receipts, report.key_events), (house("sales"), house("bad debt"), house("outgoing")));
    let is_right = report.ok && counted == model.counted() && earned == model.house();
    is_written(&ledger, &model.restarted(hands.now()))?;
    if is_right { Ok(()) } else { Err(format!("at the end: {:?}, {counted:?}, {earned:?}", report.problems)) }
}

/// What a ledger that was just started says of itself, and what the model says of it.
fn is_written(ledger: &Ledger, model: &Model) -> Result<(), String> {
    let (seen, written) = (Seen::of(ledger), Written::of(ledger, model.requests()));
    let parted = seen != model.seen() || written != model.written();
    if parted { Err(format!("{seen:?} {written:?}, the model says {:?} {:?}", model.seen(), model.written())) } else { Ok(()) }
}

fn open(disk: &Disk, hands: &Hands) -> Result<Ledger, String> {
    Ok(Ledger::open_on(disk.clone(), hands.clock(), Options::default()).map_err(|broken| broken.to_string())?.0)
}
