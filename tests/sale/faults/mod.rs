//! Death at every step: the program is killed at each named point, five times; after it the payer is served once or credited once.

mod books;
mod hold;
mod keys;
mod prepaid;
mod selling;
mod settling;
mod stand;
mod starting;
mod topping_up;

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread;

use farebox::ledger::Broken;
use farebox_rig::process::eventually;

/// So many times every point is tried, each time in another moment.
const TIMES: usize = 5;

/// Does `work` for every case, several at a time: most of it is waiting.
fn for_each<T: Sync>(cases: &[T], work: impl Fn(&T) + Sync) {
    let next = AtomicUsize::new(0);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| {
                while let Some(case) = cases.get(next.fetch_add(1, Ordering::Relaxed)) {
                    work(case);
                }
            });
        }
    });
}

/// Opens the books as soon as nobody holds them: a program that another test is just starting has our files open until it runs.
fn when_free<T>(open: impl Fn() -> Result<T, Broken>) -> T {
    let mut opened = open();
    eventually("the books are free", || {
        let held = opened.as_ref().is_err_and(|broken| broken.step == "lock");
        if held {
            opened = open();
        }
        !held
    });
    opened.unwrap_or_else(|broken| panic!("{broken:?}"))
}

/// Points that tests of other binaries die at, and where.
const ELSEWHERE: [(&str, &[&str]); 5] = [
    ("tests/media_jobs/deaths.rs", &["job.accepted", "job.before", "job.after", "job.fail.before", "job.fail.after"]),
    ("tests/payouts/deaths.rs", &["payout.before", "payout.after"]),
    ("tests/prepaid/keyring/deaths.rs", &["key.before"]),
    (
        "tests/prepaid/operator/deaths.rs",
        &[
            "refund.before",
            "refund.after",
            "adjust.before",
            "adjust.after",
            "block.before",
            "block.after",
            "unblock.before",
            "unblock.after",
            "copy.before",
            "copy.after",
            "backup.copied",
            "backup.whole",
        ],
    ),
    (
        "tests/solana/deaths.rs",
        &[
            "solana.sign.before",
            "solana.sign.after",
            "solana.broadcast.before",
            "solana.broadcast.after",
            "solana.confirm.before",
            "solana.confirm.after",
            "solana.resend.before",
            "solana.resend.after",
            "solana.reorg.before",
            "solana.reorg.after",
            "solana.final.before",
            "solana.final.after",
        ],
    ),
];

/// The points of [`ELSEWHERE`], which really stand in those files.
fn elsewhere() -> Vec<&'static str> {
    for (file, points) in ELSEWHERE {
        let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
        assert!(points.iter().all(|point| text.contains(&format!("\"{point}\""))), "{file} dies at all of {points:?}");
    }
    ELSEWHERE.iter().flat_map(|(_, points)| *points).copied().collect()
}

#[test]
fn every_point_of_the_program_is_tried_here_and_stands_in_one_place() {
    let mut placed = Vec::new();
    points_under(Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/src")), &mut placed);
    let distinct: BTreeSet<_> = placed.iter().cloned().collect();
    assert_eq!(distinct.len(), placed.len(), "a name stands for one place: {placed:?}");
    let tables = [
        selling::points(),
        starting::points(),
        settling::points(),
        hold::POINTS.to_vec(),
        keys::points(),
        topping_up::points(),
        prepaid::points(),
        books::POINTS.to_vec(),
    ];
    let tried = [tables.concat(), elsewhere()].concat();
    let tried: BTreeSet<_> = tried.into_iter().map(str::to_owned).collect();
    assert_eq!(distinct, tried, "left: points in the source; right: points that a test dies at");
}

/// The names of all points in the program's source. A point whose name is not written out cannot be found, and is refused.
fn points_under(folder: &Path, into: &mut Vec<String>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            points_under(&path, into);
        } else if !path.ends_with("src/fault.rs") {
            let text = fs::read_to_string(&path).unwrap();
            for (_, rest) in text.match_indices("fault::point(").map(|(at, found)| text.split_at(at + found.len())) {
                let name = rest.strip_prefix('"').and_then(|rest| rest.split_once("\")"));
                into.push(name.unwrap_or_else(|| panic!("{}: a point without a name", path.display())).0.to_owned());
            }
        }
    }
}
