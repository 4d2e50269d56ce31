//! Figures of event streams: how many in a second, how late an event is, what a held one weighs, how soon a hang-up is noticed.

use std::time::{Duration, Instant};

use crate::http::Connection;
use crate::keyed::Rounds;
use crate::load::{self, Start};
use crate::measure::{quantile, resident_bytes, runtime};
use crate::peers::{self, Setup};
use crate::report::{Report, Target};
use crate::stage::{Kind, Options, Peer, Stage};
use crate::upstream::Plan;

const EVENTS: u64 = 200;
const NAMED: [(Peer, &str); 4] =
    [(Peer::Direct, "direct"), (Peer::Nginx, "nginx"), (Peer::Keyed, "farebox, with a key"), (Peer::Farebox, "farebox, paid")];

/// Streams of 200 events as fast as they go.
pub fn bursts(report: &mut Report, stage: &mut Stage, options: &Options) -> Result<(), String> {
    let plan = Plan { events: EVENTS, ms: 0, size: 0 };
    let kind = Kind { plan, stream: true, prompt: 300, callers: 64, count: options.count(1_920), start: Start::AtOnce };
    let (mut rate, mut cpu) = (Rounds::default(), Rounds::default());
    for _ in 0..options.rounds {
        for peer in stage.peers(&[Peer::Keyed, Peer::Farebox]) {
            let round = stage.round(peer, &kind)?;
            rate.push(peer, round.outcome.per_second());
            cpu.push(peer, round.cpu_us / EVENTS as f64);
        }
    }
    let note = "200 events as fast as they go, 64 callers; farebox looks each stream's key up, holds, reads the usage and posts";
    report.add("keyed streams per second / nginx", rate.ratio(Peer::Keyed, Peer::Nginx), "", Target::AtLeast(0.9), note);
    let note =
        "the same, only that each stream also verifies, claims, settles (20 ms of block time) and posts a payment of its own";
    report.add("paid streams per second / nginx", rate.ratio(Peer::Farebox, Peer::Nginx), "", Target::Shown, note);
    for (peer, name) in NAMED {
        report.add(&format!("streams per second, {name}"), rate.median(peer), "/s", Target::Shown, "the same runs");
    }
    let note = "CPU of the peer for one event of these streams";
    for (peer, name) in &NAMED[1..] {
        report.add(&format!("CPU per event, bursts, {name}"), cpu.median(*peer), "us", Target::Shown, note);
    }
    Ok(())
}

/// 64 streams with an event every 20 ms.
pub fn lag(report: &mut Report, stage: &mut Stage, options: &Options) -> Result<(), String> {
    let events = options.count(usize::try_from(EVENTS).unwrap_or(1)).max(20) as u64;
    let plan = Plan { events, ms: 20, size: 0 };
    // Begun one after the other, so that the streams are out of step with each other, as callers are.
    let kind = Kind { plan, stream: true, prompt: 300, callers: 64, count: 64, start: Start::Ramp(400) };
    let (mut p50, mut p99, mut cpu) = (Rounds::default(), Rounds::default(), Rounds::default());
    for _ in 0..options.rounds {
        for peer in stage.peers(&[Peer::Keyed, Peer::Farebox]) {
            let mut round = stage.round(peer, &kind)?;
            p50.push(peer, quantile(&mut round.outcome.lags_ms, 0.5).unwrap_or_default());
            p99.push(peer, quantile(&mut round.outcome.lags_ms, 0.99).unwrap_or_default());
            cpu.push(peer, round.cpu_us / events as f64);
        }
    }
    let note = "64 streams, an event every 20 ms: from writing it upstream to its arrival; events that were written before the \
                head of the answer had arrived (farebox holds them until the chain has confirmed) are left out for every peer";
    report.add("event lag p99, keyed / nginx", p99.ratio(Peer::Keyed, Peer::Nginx), "", Target::AtMost(1.5), note);
    report.add("event lag p99, paid / nginx", p99.ratio(Peer::Farebox, Peer::Nginx), "", Target::AtMost(1.5), "the same runs");
    for (peer, name) in NAMED {
        report.add(&format!("event lag p50, {name}"), p50.median(peer), "ms", Target::Shown, "the same runs");
        report.add(&format!("event lag p99, {name}"), p99.median(peer), "ms", Target::Shown, "the same runs");
    }
    let note = "CPU for one slow event, of the same runs";
    report.add("CPU per slow event, keyed / nginx", cpu.ratio(Peer::Keyed, Peer::Nginx), "", Target::AtMost(1.6), note);
    let note = "the same with a payment for each stream";
    report.add("CPU per slow event, paid / nginx", cpu.ratio(Peer::Farebox, Peer::Nginx), "", Target::Shown, note);
    Ok(())
}

/// Memory of one held stream, at a fresh farebox and a fresh nginx.
pub fn held(report: &mut Report, options: &Options, ours: Peer) -> Result<(), String> {
    let mut stage = Stage::set(options, Setup::simulated())?;
    let count = options.count(5_000);
    let kind = held_open(count, 400, 300);
    let peers = if ours == Peer::Keyed { vec![ours] } else { stage.peers(&[ours]) };
    for peer in peers.into_iter().filter(|peer| *peer != Peer::Direct) {
        report_weight(report, &mut stage, peer, &kind)?;
    }
    stage.close()
}

/// Memory of one of 2,000 held streams whose buyers have a key: passed through, translated, and beside them nginx.
pub fn held_beside(report: &mut Report, options: &Options) -> Result<(), String> {
    let count = options.count(2_000);
    let kind = held_open(count, 400, 300);
    for peer in [Peer::Nginx, Peer::Keyed, Peer::Translated] {
        // A program of its own for each: what one has had in use, the next would find.
        let mut stage = Stage::set(options, Setup::simulated())?;
        if peer != Peer::Nginx || stage.nginx.is_some() {
            report_weight(report, &mut stage, peer, &kind)?;
        }
        stage.close()?;
    }
    Ok(())
}

fn report_weight(report: &mut Report, stage: &mut Stage, peer: Peer, kind: &Kind) -> Result<(), String> {
    let (weight, count) = (weigh(stage, peer, kind)?, kind.count);
    let (name, target) = match peer {
        Peer::Farebox => ("farebox, paid", Target::AtMost(40.0)),
        Peer::Keyed => ("farebox, with a key", Target::AtMost(40.0)),
        Peer::Translated => ("farebox, translated", Target::AtMost(40.0)),
        Peer::Direct | Peer::Nginx => ("nginx", Target::Shown),
    };
    let note = "resident memory of open streams with an event a second, less that before them, divided";
    report.add(&format!("memory per stream of {count}, {name}"), Some(weight), "kB", target, note);
    Ok(())
}

/// Memory of streams whose prompts were long: what is kept of a request while its answer streams.
pub fn long_prompts(report: &mut Report, options: &Options) -> Result<(), String> {
    let mut stage = Stage::set(options, Setup::simulated())?;
    let count = options.count(100);
    let kind = held_open(count, 40, 2_000_000);
    let weight = weigh(&mut stage, Peer::Farebox, &kind)?;
    let note = format!("{count} open streams whose prompts have 2 MB each; a fresh process, what the allocator keeps is in it");
    report.add("memory per stream with a 2 MB prompt", Some(weight), "kB", Target::AtMost(100.0), &note);
    stage.close()
}

/// Streams with an event a second that begin `ramp` in a second and are all open for some seconds.
fn held_open(count: usize, ramp: usize, prompt: usize) -> Kind {
    let plan = Plan { events: (count / ramp) as u64 + 12, ms: 1_000, size: 0 };
    Kind { plan, stream: true, prompt, callers: count, count, start: Start::Ramp(ramp) }
}

/// Opens all streams, reads the memory while every one is open, and lets them end. Kilobytes per stream.
fn weigh(stage: &mut Stage, peer: Peer, kind: &Kind) -> Result<f64, String> {
    let load = stage.prepare(peer, kind)?;
    let (pid, wanted) = (stage.pid(peer), kind.count as u64);
    let before = resident_bytes(pid);
    let loading = std::thread::spawn(move || load::run(load));
    let opened = all_open(stage, wanted, || loading.is_finished());
    // A moment in which each stream passes events.
    std::thread::sleep(Duration::from_millis(2_000));
    let (during, still) = (resident_bytes(pid), peers::open_calls(&stage.upstream));
    let outcome = loading.join().map_err(|_| "the load generator panicked")??;
    stage.count(peer, kind, &outcome)?;
    opened?;
    match still? {
        open if open == wanted => Ok((during.saturating_sub(before)) as f64 / 1000.0 / wanted as f64),
        open => Err(format!("{open} of {wanted} streams were open when the memory was read")),
    }
}

fn all_open(stage: &Stage, wanted: u64, ended: impl Fn() -> bool) -> Result<(), String> {
    let begun = Instant::now();
    let mut most = 0;
    while begun.elapsed() < Duration::from_secs(60) && !ended() {
        most = most.max(peers::open_calls(&stage.upstream)?);
        if most >= wanted {
            return Ok(());
        }
        std::thread::sleep(Duration::from_millis(50));
    }
    Err(format!("only {most} of {wanted} streams were open at once"))
}

/// How soon the upstream's connection is closed when a caller hangs up while the upstream is silent.
pub fn hang_ups(report: &mut Report, options: &Options) -> Result<(), String> {
    let mut stage = Stage::set(options, Setup::simulated())?;
    let plan = Plan { events: 1, ms: 60_000, size: 0 };
    let kind = Kind { plan, stream: true, prompt: 300, callers: 1, count: 1, start: Start::AtOnce };
    let mut times = Vec::new();
    for _ in 0..options.count(20) {
        times.push(hang_up(&mut stage, &kind)?);
    }
    let note = "from closing the caller's connection to the upstream seeing its own closed, the slowest of all";
    report.add("hang-up noticed", quantile(&mut times, 1.0), "ms", Target::AtMost(50.0), note);
    // What an answer without a word costs is not this figure's business; the books are checked all the same.
    stage.farebox.close(None)
}

fn hang_up(stage: &mut Stage, kind: &Kind) -> Result<f64, String> {
    let load = stage.prepare(Peer::Farebox, kind)?;
    let runtime = runtime().map_err(|error| error.to_string())?;
    let opened = runtime.block_on(async {
        let mut connection = Connection::open(&load.address).await?;
        connection.send(&load.requests[0]).await?;
        let head = connection.head().await?;
        std::io::Result::Ok((connection, head.status))
    });
    let (connection, status) = opened.map_err(|error| error.to_string())?;
    if status != 200 || peers::open_calls(&stage.upstream)? != 1 {
        return Err(format!("status {status}, and {} calls at the upstream", peers::open_calls(&stage.upstream)?));
    }
    let begun = Instant::now();
    drop(connection);
    while peers::open_calls(&stage.upstream)? > 0 {
        if begun.elapsed() > Duration::from_secs(10) {
            return Err("a hang-up was not noticed".into());
        }
    }
    Ok(begun.elapsed().as_secs_f64() * 1000.0)
}
