//! Simulated power cuts: whatever survives of the last writes, what was acknowledged is there and the books are clean.

use farebox::ids::{PaymentId, RequestId};
use farebox::ledger::{Ledger, Options, Paid, State};
use farebox::money::Micros;

use super::disk::{Disk, Random, Trouble};
use super::{attempt, claim, clock, wait, wallet};

/// Seeds in the suite; `FAREBOX_POWER_SEEDS` asks for more, `FAREBOX_POWER_FIRST` starts elsewhere.
const SEEDS: u64 = 2_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

#[test]
fn what_was_acknowledged_before_a_power_cut_is_there_after_it() {
    let (first, seeds) = (number("FAREBOX_POWER_FIRST", 1), number("FAREBOX_POWER_SEEDS", SEEDS));
    let acknowledged: usize = std::thread::scope(|scope| {
        let halves: Vec<_> = (0..2)
            .map(|half| scope.spawn(move || (first..first + seeds).filter(|seed| seed % 2 == half).map(one_cut).sum::<usize>()))
            .collect();
        halves.into_iter().map(|half| half.join().unwrap_or_else(|_| panic!("see the seed above"))).sum()
    });
    assert!(acknowledged as u64 > seeds, "the cuts came too early to prove anything: {acknowledged} acknowledged steps");
}

/// One life of a ledger that ends in a power cut, and its next start. Returns how many steps were acknowledged.
fn one_cut(seed: u64) -> usize {
    let result = std::panic::catch_unwind(|| live_and_recover(seed));
    result.unwrap_or_else(|cause| {
        eprintln!("power cut with seed {seed}: run with FAREBOX_POWER_FIRST={seed} FAREBOX_POWER_SEEDS=1");
        std::panic::resume_unwind(cause)
    })
}

#[derive(Default)]
struct Promised {
    claimed: Vec<PaymentId>,
    signed: Vec<PaymentId>,
    confirmed: Vec<(PaymentId, u64)>,
}

fn live_and_recover(seed: u64) -> usize {
    let mut random = Random::new(seed);
    let disk = Disk::new(Trouble::PowerCut(40 + random.below(400)));
    let mut promised = Promised::default();
    if let Ok((ledger, _)) = Ledger::open_on(disk.clone(), clock(), Options::default()) {
        live(&ledger, &mut random, &mut promised);
    }
    let (ledger, recovered) = Ledger::open_on(disk.after_power_cut(&mut random), clock(), Options::default())
        .unwrap_or_else(|error| panic!("the ledger does not open: {error}"));
    let report = ledger.verify().unwrap();
    assert!(report.ok, "{:?}", report.problems);
    assert_eq!(ledger.open_holds(), 0, "{recovered:?}");
    for id in &promised.claimed {
        assert!(ledger.payment(*id).unwrap().is_some(), "{id} was claimed and is unknown: it would be sold twice");
    }
    for id in &promised.signed {
        let row = ledger.payment(*id).unwrap().unwrap();
        assert!(!row.attempts.is_empty(), "{id} was signed and its transaction is lost");
        assert!(!matches!(row.state, State::Claimed | State::Voided), "{id} could be claimed again although it may arrive");
    }
    for (id, amount) in &promised.confirmed {
        let row = ledger.payment(*id).unwrap().unwrap();
        assert!(matches!(row.state, State::Confirmed | State::Final), "{id} arrived and is {:?}", row.state);
        assert_eq!(row.amount, *amount);
    }
    promised.claimed.len() + promised.signed.len() + promised.confirmed.len()
}

fn live(ledger: &Ledger, random: &mut Random, promised: &mut Promised) {
    let mut calls: Vec<Paid> = Vec::new();
    for n in 1..60u128 {
        let mut bytes = [0; 32];
        bytes[..16].copy_from_slice(&n.to_be_bytes());
        let (id, amount) = (PaymentId(bytes), 1 + random.below(10_000));
        let payer = wallet(1 + random.below(4) as u8);
        let Ok(reservation) = wait(ledger.claim(claim(id, payer, amount, n))) else { break };
        promised.claimed.push(id);
        if random.below(5) == 0 {
            continue;
        }
        if ledger.signed(id, attempt()).map(|durable| durable.wait_blocking()) != Ok(Ok(())) {
            break;
        }
        promised.signed.push(id);
        if random.below(5) == 0 {
            continue;
        }
        if ledger.confirmed(id, "0xaa", 1).map(|durable| durable.wait_blocking()) != Ok(Ok(())) {
            break;
        }
        promised.confirmed.push((id, amount));
        if let Ok(paid) = reservation.paid() {
            paid.checkpoint(Micros::new(random.below(amount)));
            calls.push(paid);
        }
        if let Ok(reservation) = wait(ledger.reserve(payer, Micros::new(random.below(500)), RequestId(1 << 90 | n), "echo"))
            && let Ok(paid) = reservation.paid()
        {
            calls.push(paid);
        }
        if random.below(2) == 0 && !calls.is_empty() {
            let call = calls.swap_remove(random.below(calls.len() as u64) as usize);
            let _ = call.post(Micros::new(random.below(2_000)));
        }
    }
    // The power is gone: what is in flight stays in flight.
    calls.into_iter().for_each(std::mem::forget);
}
