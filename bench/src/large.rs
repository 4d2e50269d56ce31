//! Figures of the largest requests that are taken: what they need while they are there, and what is left when they are gone.

use std::time::Duration;

use crate::load::{self, Start};
use crate::measure::{peak_bytes, resident_bytes};
use crate::peers::Setup;
use crate::report::{Report, Target};
use crate::stage::{Kind, Options, Peer, Stage};
use crate::upstream::Plan;

/// Requests at the same time.
const AT_ONCE: usize = 8;
/// Characters of each prompt: little less than what may be sent.
const PROMPT: usize = 32 * 1024 * 1024 - 1024;

/// Prompts of 32 MB: the most memory that eight of them had, and what was kept of it.
pub fn requests(report: &mut Report, options: &Options) -> Result<(), String> {
    for (peer, name, most) in [(Peer::Keyed, "passed on", 2.1), (Peer::Translated, "translated", 3.1)] {
        let mut stage = Stage::set(options, Setup::simulated())?;
        let plan = Plan { events: 0, ms: 0, size: 800 };
        let count = options.count(AT_ONCE);
        let kind = Kind { plan, stream: false, prompt: PROMPT, callers: count, count, start: Start::AtOnce };
        let (pid, before) = (stage.pid(peer), resident_bytes(stage.pid(peer)));
        let load = stage.prepare(peer, &kind)?;
        let outcome = load::run(load)?;
        stage.count(peer, &kind, &outcome)?;
        let peak = peak_bytes(pid).saturating_sub(before) as f64 / (count * PROMPT) as f64;
        // What is given back is given back by the callers' connections, which have just been closed.
        std::thread::sleep(Duration::from_secs(1));
        let kept = resident_bytes(pid).saturating_sub(before) as f64 / 1e6;
        let note =
            format!("{count} requests of 32 MB at once: the most memory that was resident, less that before, in their size");
        report.add(&format!("memory for requests of 32 MB, {name}"), Some(peak), "", Target::AtMost(most), &note);
        let note = "resident memory a second after they have ended, less that before them";
        report.add(&format!("memory kept of them, {name}"), Some(kept), "MB", Target::AtMost(20.0), note);
        stage.close()?;
    }
    Ok(())
}
