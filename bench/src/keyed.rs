//! Figures of calls that a key pays for, with everything on: beside nginx, which only passes bytes, and on a slow disk.

use std::collections::HashMap;

use crate::load::Start;
use crate::measure::{median, quantile};
use crate::peers::Setup;
use crate::report::{Report, Target};
use crate::stage::{Kind, Options, Peer, Stage};
use crate::upstream::Plan;

/// What each peer did, round by round.
#[derive(Default)]
pub struct Rounds(HashMap<Peer, Vec<f64>>);

impl Rounds {
    pub fn push(&mut self, peer: Peer, value: f64) {
        self.0.entry(peer).or_default().push(value);
    }

    pub fn median(&self, peer: Peer) -> Option<f64> {
        median(self.of(peer))
    }

    /// `one` over `other`, round by round: what slowed the machine down in one round slowed both down.
    pub fn ratio(&self, one: Peer, other: Peer) -> Option<f64> {
        median(&self.of(one).iter().zip(self.of(other)).map(|(one, other)| one / other).collect::<Vec<_>>())
    }

    /// `one` less `other`, round by round.
    pub fn added(&self, one: Peer, other: Peer) -> Option<f64> {
        median(&self.of(one).iter().zip(self.of(other)).map(|(one, other)| one - other).collect::<Vec<_>>())
    }

    fn of(&self, peer: Peer) -> &[f64] {
        self.0.get(&peer).map_or(&[], Vec::as_slice)
    }
}

const NAMED: [(Peer, &str); 3] = [(Peer::Direct, "direct"), (Peer::Nginx, "nginx"), (Peer::Keyed, "farebox, with a key")];
/// What is in the figures of farebox.
const WHOLE: &str = "with a key that has a spending limit and a model list: key looked up, hold, upstream, usage read, charge and \
                     receipt in a durable group commit, log";
/// Calls per second of a machine that is not at its limit.
const PACE: usize = 4_000;

/// An unstreamed call: a prompt of 300 characters, an answer of 1 kB.
fn plain(callers: usize, count: usize, start: Start) -> Kind {
    let plan = Plan { events: 0, ms: 0, size: 800 };
    Kind { plan, stream: false, prompt: 300, callers, count, start }
}

/// How much one caller waits, and how much work gets done for many.
pub fn calls(report: &mut Report, stage: &mut Stage, options: &Options) -> Result<(), String> {
    let (mut rate, mut alone, mut cpu) = (Rounds::default(), Rounds::default(), Rounds::default());
    for _ in 0..options.rounds {
        for peer in stage.peers(&[Peer::Keyed]) {
            let round = stage.round(peer, &plain(64, options.count(20_000), Start::AtOnce))?;
            rate.push(peer, round.outcome.per_second());
            cpu.push(peer, round.cpu_us);
            let mut round = stage.round(peer, &plain(1, options.count(2_000), Start::AtOnce))?.outcome.latencies_ms();
            alone.push(peer, quantile(&mut round, 0.5).unwrap_or_default() * 1_000.0);
        }
    }
    let note = format!("300 B prompt, 1 kB answer, 64 callers; {WHOLE}");
    let ratio = rate.ratio(Peer::Keyed, Peer::Nginx);
    report.add("keyed calls per second / nginx", ratio, "", Target::AtLeast(0.85), &note);
    for (peer, name) in NAMED {
        report.add(&format!("unstreamed calls per second, {name}"), rate.median(peer), "/s", Target::Shown, "the same runs");
    }
    for (peer, name) in &NAMED[1..] {
        let note = "CPU of the whole process at 64 callers, the same runs";
        report.add(&format!("unstreamed call, {name}, 64 callers"), cpu.median(*peer), "us CPU", Target::Shown, note);
    }
    let note = format!("median time of a call less that of a direct one, one caller; {WHOLE}");
    let added = alone.added(Peer::Keyed, Peer::Direct);
    report.add("added by farebox to a keyed call, p50", added, "us", Target::AtMost(60.0), &note);
    let added = alone.added(Peer::Nginx, Peer::Direct);
    report.add("added by nginx to the same call, p50", added, "us", Target::Shown, "the same runs");
    report.add("the same call, direct, p50", alone.median(Peer::Direct), "us", Target::Shown, "the same runs");
    Ok(())
}

/// How long calls take at a pace that leaves room.
pub fn paced(report: &mut Report, stage: &mut Stage, options: &Options) -> Result<(), String> {
    let (mut p50, mut p99, mut cpu) = (Rounds::default(), Rounds::default(), Rounds::default());
    for _ in 0..options.rounds {
        for peer in stage.peers(&[Peer::Keyed]) {
            let round = stage.round(peer, &plain(64, options.count(8_000), Start::Paced(PACE)))?;
            let mut latencies = round.outcome.latencies_ms();
            p50.push(peer, quantile(&mut latencies, 0.5).unwrap_or_default() * 1_000.0);
            p99.push(peer, quantile(&mut latencies, 0.99).unwrap_or_default() * 1_000.0);
            cpu.push(peer, round.cpu_us);
        }
    }
    let note = format!("{PACE} calls a second over 64 connections; {WHOLE}");
    report.add("keyed call, paced, p50 / nginx", p50.ratio(Peer::Keyed, Peer::Nginx), "", Target::AtMost(1.2), &note);
    report.add("keyed call, paced, p99 / nginx", p99.ratio(Peer::Keyed, Peer::Nginx), "", Target::AtMost(2.0), "the same runs");
    let note = "CPU of the whole process (all threads), the same runs; the work of its commits is in it";
    report.add("keyed call, paced", cpu.median(Peer::Keyed), "us CPU", Target::AtMost(40.0), note);
    report.add("unpaid call through nginx, paced", cpu.median(Peer::Nginx), "us CPU", Target::Shown, "the same runs");
    for (peer, name) in NAMED {
        report.add(&format!("paced call, {name}, p50"), p50.median(peer), "us", Target::Shown, "the same runs");
    }
    Ok(())
}

/// How long the same calls take when every sync of the disk takes 2 ms longer.
pub fn slow_disk(report: &mut Report, options: &Options) -> Result<(), String> {
    let name = "keyed call, paced, p50 on a slow disk / on this one";
    let Some(slowable) = &options.slowable else {
        report.add(name, None, "", Target::Shown, "no build was named whose disk can be slowed");
        return Ok(());
    };
    let options = Options { farebox: slowable.clone(), nginx: None, ..options.clone() };
    let mut usual = Stage::set(&options, Setup::simulated())?;
    let mut slowed = Stage::set(&options, Setup { disk: Some("slow:2"), ..Setup::simulated() })?;
    let kind = plain(64, options.count(8_000), Start::Paced(PACE));
    let (mut before, mut after, mut ratio) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        let p50 = |stage: &mut Stage| -> Result<f64, String> {
            let mut latencies = stage.round(Peer::Keyed, &kind)?.outcome.latencies_ms();
            Ok(quantile(&mut latencies, 0.5).unwrap_or_default() * 1_000.0)
        };
        let (fast, slow) = (p50(&mut usual)?, p50(&mut slowed)?);
        before.push(fast);
        after.push(slow);
        ratio.push(slow / fast);
    }
    let note = "the same release build with fault points twice, in one of them each sync of the ledger's file takes 2 ms longer; \
                4000 calls a second over 64 connections";
    report.add(name, median(&ratio), "", Target::AtMost(1.15), note);
    report.add("keyed call, paced, p50 on this disk", median(&before), "us", Target::Shown, "the same runs");
    report.add("keyed call, paced, p50 on a slow disk", median(&after), "us", Target::Shown, "the same runs");
    usual.close()?;
    slowed.close()
}
