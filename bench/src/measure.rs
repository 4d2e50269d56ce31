//! What is read from the machine: time, CPU time and memory of processes; and medians of what was read.

use std::fs;
use std::io;
use std::time::{SystemTime, UNIX_EPOCH};

/// Nanoseconds since 1970, the same for every process on one machine.
pub fn now_ns() -> u64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_nanos());
    u64::try_from(since).unwrap_or(u64::MAX)
}

/// One thread for everything: the machine's other cores belong to the program that is measured.
pub fn runtime() -> io::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build()
}

/// Nanoseconds that all threads of a process and of its children have run, living threads only. Counts what ran, not
/// what the machine's other work delayed.
pub fn cpu_ns(pid: u32) -> u64 {
    family(pid).into_iter().map(cpu_of_one).sum()
}

/// Nanoseconds that this thread has run.
pub fn own_thread_cpu_ns() -> u64 {
    first_number(&fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default())
}

/// Resident bytes of a process and its children.
pub fn resident_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmRSS:")
}

/// Of these, what is not read from files: without the text of the program, which the system shares and takes back as it likes.
pub fn own_bytes(pid: u32) -> u64 {
    status_bytes(pid, "RssAnon:")
}

/// The most resident bytes that each of them has ever had, together.
pub fn peak_bytes(pid: u32) -> u64 {
    status_bytes(pid, "VmHWM:")
}

fn status_bytes(pid: u32, line: &str) -> u64 {
    let of_one = |pid: u32| {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        status.lines().find_map(|found| found.strip_prefix(line)).map_or(0, first_number) * 1024
    };
    family(pid).into_iter().map(of_one).sum()
}

fn cpu_of_one(pid: u32) -> u64 {
    let Ok(threads) = fs::read_dir(format!("/proc/{pid}/task")) else { return 0 };
    let spent = |thread: fs::DirEntry| first_number(&fs::read_to_string(thread.path().join("schedstat")).unwrap_or_default());
    threads.flatten().map(spent).sum()
}

/// A process and its children (nginx works in children).
fn family(pid: u32) -> Vec<u32> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    let children = children.split_whitespace().filter_map(|child| child.parse().ok()).flat_map(family);
    std::iter::once(pid).chain(children).collect()
}

fn first_number(text: &str) -> u64 {
    text.split_whitespace().next().and_then(|number| number.parse().ok()).unwrap_or(0)
}

/// The value below which `part` (0 to 1) of all values lie; `None` without values.
pub fn quantile(values: &mut [f64], part: f64) -> Option<f64> {
    values.sort_unstable_by(f64::total_cmp);
    let rank = (values.len() as f64 * part).ceil() as usize;
    values.get(rank.clamp(1, values.len().max(1)) - 1).copied()
}

pub fn median(values: &[f64]) -> Option<f64> {
    quantile(&mut values.to_vec(), 0.5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_values_that_were_measured() {
        let values: Vec<f64> = (1..=100).rev().map(f64::from).collect();
        assert_eq!(median(&values), Some(50.0));
        assert_eq!(quantile(&mut values.clone(), 0.99), Some(99.0));
        assert_eq!(quantile(&mut values.clone(), 1.0), Some(100.0));
        assert_eq!(median(&[]), None);
    }

    #[test]
    fn the_cpu_time_of_this_process_grows_as_it_works() {
        let before = cpu_ns(std::process::id());
        let mut work = 0u64;
        while cpu_ns(std::process::id()) < before + 2_000_000 {
            work = work.wrapping_add(1);
        }
        assert!(work > 0 && resident_bytes(std::process::id()) > 100_000);
    }
}
