//! Simulated power cuts: whatever survives of the last writes, what was acknowledged is there and the books are clean.

use farebox::ledger::copy_on;

use super::disk::{Disk, Random, Trouble};
use super::life::{History, find_the_truth, live, new_ledger, open};
use super::model::Model;
use super::{Hands, NOON};

/// Seeds in the suite; `FAREBOX_POWER_SEEDS` asks for more, `FAREBOX_POWER_FIRST` starts elsewhere.
const SEEDS: u64 = 10_000;

fn number(name: &str, default: u64) -> u64 {
    std::env::var(name).ok().and_then(|text| text.parse().ok()).unwrap_or(default)
}

/// Runs one test for every seed on two threads; returns the sum of what they return.
fn for_every_seed(one: fn(u64) -> usize, share: u64) -> (u64, usize) {
    let (first, seeds) = (number("FAREBOX_POWER_FIRST", 1), (number("FAREBOX_POWER_SEEDS", SEEDS) / share).max(1));
    let sum = std::thread::scope(|scope| {
        let halves: Vec<_> = (0..2)
            .map(|half| {
                scope.spawn(move || {
                    (first..first + seeds).filter(|seed| seed % 2 == half).map(|seed| named(seed, one)).sum::<usize>()
                })
            })
            .collect();
        halves.into_iter().map(|half| half.join().unwrap_or_else(|_| panic!("see the seed above"))).sum()
    });
    (seeds, sum)
}

fn named(seed: u64, one: fn(u64) -> usize) -> usize {
    let result = std::panic::catch_unwind(|| one(seed));
    result.unwrap_or_else(|cause| {
        let name = std::thread::current().name().unwrap_or("power").to_owned();
        eprintln!("power cut with seed {seed} ({name}); again: FAREBOX_POWER_FIRST={seed} FAREBOX_POWER_SEEDS=1 cargo test --test ledger power");
        std::panic::resume_unwind(cause)
    })
}

#[test]
fn what_was_acknowledged_before_a_power_cut_is_there_after_it() {
    let (seeds, promises) = for_every_seed(lives_with_power_cuts, 1);
    // One seed asked for by hand may cut too early to prove much.
    assert!(seeds < 100 || promises as u64 > seeds, "the cuts came too early to prove anything: {promises} promises");
}

/// Lives on one disk, each ended by a power cut, each recovery but the last perhaps interrupted by another one.
fn lives_with_power_cuts(seed: u64) -> usize {
    let mut random = Random::new(seed);
    let mut disk = new_ledger().with(Trouble::PowerCut(20 + random.below(240)));
    let hands = Hands::at(NOON);
    let mut history = History::from(Model::default());
    let mut promises = 0;
    for life in 0..1 + random.below(2) {
        if let Ok((ledger, _)) = open(&disk, &hands) {
            let (_, in_hand) = live(&ledger, &hands, &mut random, &mut history, 80, u128::from(life) << 64);
            // The power is gone: what is in flight stays in flight.
            disk.cut();
            drop(in_hand);
        }
        promises += history.promises;
        disk = disk.after_power_cut(&mut random);
        for _ in 0..random.below(3) {
            let interrupted = disk.with(Trouble::PowerCut(random.below(60)));
            drop(open(&interrupted, &hands));
            interrupted.cut();
            disk = interrupted.after_power_cut(&mut random);
        }
        let (ledger, model) = find_the_truth(&disk, &hands, &history);
        ledger.close();
        history = History::from(model);
        disk = disk.with(Trouble::PowerCut(20 + random.below(240)));
    }
    promises
}

#[test]
fn a_power_cut_while_the_ledger_is_read_into_a_new_file_loses_nothing() {
    let (_, finished) = for_every_seed(rewrite_with_a_power_cut, 10);
    assert!(finished > 0, "no rewrite came to its end");
}

/// A rewrite that says it is done may replace the old file; one that was cut leaves the old file as good as it was.
fn rewrite_with_a_power_cut(seed: u64) -> usize {
    let mut random = Random::new(seed);
    let old = new_ledger();
    let hands = Hands::at(NOON);
    let mut history = History::from(Model::default());
    let (ledger, _) = open(&old, &hands).expect("a healthy disk opens");
    let (_, in_hand) = live(&ledger, &hands, &mut random, &mut history, 40, 0);
    old.cut();
    drop((in_hand, ledger));
    let old = old.after_power_cut(&mut random);
    let after = random.below(120);
    let (source, target) = (old.with(Trouble::PowerCut(after)), Disk::new(Trouble::PowerCut(after)));
    let done = copy_on(source.clone(), target.clone()).is_ok();
    source.cut();
    target.cut();
    let survivor = if done { &target } else { &source };
    let (ledger, _) = find_the_truth(&survivor.after_power_cut(&mut random), &hands, &history);
    ledger.close();
    usize::from(done)
}
