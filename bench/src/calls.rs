//! Figures of single calls: the price of a quote, of checking a signature, of a paid call, and what it adds in time.

use std::collections::HashMap;
use std::time::Duration;

use farebox::chain::{self, Amounts, VerifiedPayment};
use farebox::clock::Timestamp;
use farebox::x402::Payment;

use crate::buyer::{self, Offer};
use crate::http;
use crate::load::{self, Load, Start};
use crate::measure::{cpu_ns, median, now_ns, own_thread_cpu_ns, quantile, runtime};
use crate::peers::Farebox;
use crate::report::{Report, Target};
use crate::stage::{CHAT, Kind, Options, Peer, Stage};
use crate::upstream::Plan;

/// An unstreamed call: a prompt of 300 characters, an answer of 1 kB.
fn plain(callers: usize, count: usize) -> Kind {
    let plan = Plan { events: 0, ms: 0, size: 800 };
    Kind { plan, stream: false, prompt: 300, callers, count, start: Start::AtOnce }
}

/// A quote over the wire.
pub fn quotes(report: &mut Report, stage: &mut Stage, options: &Options) -> Result<(), String> {
    let (body, count) = (plain(64, 1).body(), options.count(20_000));
    let mut spent = Vec::new();
    for _ in 0..options.rounds {
        let (address, requests) = (stage.farebox.address().to_owned(), vec![http::request("POST", CHAT, "", &body); count]);
        let load = Load { address, requests, callers: 64, status: 402, events: 0, ending: b"}", start: Start::AtOnce };
        let before = cpu_ns(stage.farebox.pid());
        let outcome = load::run(load)?;
        if outcome.failed > 0 {
            return Err(format!("{} quotes failed: {}", outcome.failed, outcome.failures.join("; ")));
        }
        spent.push((cpu_ns(stage.farebox.pid()) - before) as f64 / 1000.0 / count as f64);
    }
    let note = "CPU of the whole process for one unpaid POST answered 402 over a kept-alive connection, 64 callers: sockets, \
                HTTP, reading the body, the offer in both versions";
    report.add("quote", median(&spent), "us CPU", Target::AtMost(20.0), note);
    Ok(())
}

/// Checking a payment, through the library, on one thread.
pub fn verification(report: &mut Report, stage: &Stage, options: &Options) -> Result<(), String> {
    let runtime = runtime().map_err(|error| error.to_string())?;
    let offer = runtime.block_on(Offer::ask(stage.farebox.address(), CHAT, &plain(1, 1).body()))?;
    let count = options.count(8_000);
    let headers = (0..count).map(|number| offer.sign(&buyer::wallet(number)?)).collect::<Result<Vec<_>, _>>()?;
    let now = Timestamp::from_millis(now_ns() / 1_000_000);
    let verify = |header: &String| -> Result<VerifiedPayment, String> {
        let payment = Payment::from_header(header).map_err(|malformed| malformed.0)?;
        chain::verify(&payment, &offer.requirements, Amounts::Exact, now).map_err(|refused| format!("{refused:?}"))
    };
    let (mut spent, mut bare) = (Vec::new(), Vec::new());
    for _ in 0..options.rounds {
        bare.push(recoveries(count)?);
        let before = own_thread_cpu_ns();
        let payers =
            headers.iter().map(|header| verify(header).map(|verified| verified.payer())).collect::<Result<Vec<_>, _>>()?;
        spent.push((own_thread_cpu_ns() - before) as f64 / 1000.0 / count as f64);
        let distinct = payers.iter().collect::<std::collections::HashSet<_>>().len();
        if distinct != count {
            return Err(format!("{distinct} payers were recovered from {count} payments"));
        }
    }
    let note = "CPU of one thread: base64 and JSON of the header, EIP-712 digest, recovery of the signer, all comparisons";
    report.add("EIP-3009 verification", median(&spent), "us", Target::AtMost(65.0), note);
    let note =
        "k256 alone on the same thread, the part of it that depends on nothing but the machine (49 us where the target was set)";
    report.add("bare recovery of a signer", median(&bare), "us", Target::Shown, note);
    Ok(())
}

/// Microseconds of this thread's CPU for one recovery.
fn recoveries(count: usize) -> Result<f64, String> {
    use k256::ecdsa::{SigningKey, VerifyingKey};
    let key = SigningKey::from_slice(&[7; 32]).map_err(|error| error.to_string())?;
    let mut digest = [3; 32];
    let (signature, parity) = key.sign_prehash_recoverable(&digest);
    let before = own_thread_cpu_ns();
    for number in 0..count {
        // Another digest is another signer: each recovery is a whole one.
        digest[..8].copy_from_slice(&number.to_be_bytes());
        let found = VerifyingKey::recover_from_prehash(&digest, &signature, parity).map_err(|error| error.to_string())?;
        std::hint::black_box(found);
    }
    Ok((own_thread_cpu_ns() - before) as f64 / 1000.0 / count as f64)
}

/// What a paid call costs in CPU time, and how many there are in a second.
pub fn paid(report: &mut Report, stage: &mut Stage, options: &Options) -> Result<(), String> {
    let mut alone = Vec::new();
    let (mut cpu, mut rate) = (HashMap::<_, Vec<f64>>::new(), HashMap::<_, Vec<f64>>::new());
    for _ in 0..options.rounds {
        for peer in stage.peers(&[Peer::Farebox]) {
            let round = stage.round(peer, &plain(64, options.count(4_000)))?;
            cpu.entry(peer).or_default().push(round.cpu_us);
            rate.entry(peer).or_default().push(round.outcome.per_second());
        }
        alone.push(stage.round(Peer::Farebox, &plain(1, options.count(200)))?.cpu_us);
    }
    let of = |figures: &HashMap<Peer, Vec<f64>>, peer| figures.get(&peer).and_then(|values| median(values));
    let note = "CPU of the whole process (all threads), 64 callers: HTTP, signature check, chain simulation in process, durable \
                claim, upstream call, all settlement records of the simulated chain (signed, sent, confirmed, final), relay, \
                posting, log; the chain itself costs nothing";
    report.add("paid call, 64 callers", of(&cpu, Peer::Farebox), "us CPU", Target::AtMost(250.0), note);
    let note = "the same with one caller: no commit is shared, each call pays for all of its own";
    report.add("paid call, 1 caller", median(&alone), "us CPU", Target::AtMost(250.0), note);
    let note = "a call that nobody pays for, CPU of nginx";
    report.add("unpaid call through nginx, 64 callers", of(&cpu, Peer::Nginx), "us CPU", Target::Shown, note);
    for (peer, name) in [(Peer::Direct, "direct"), (Peer::Nginx, "nginx"), (Peer::Farebox, "farebox, paid")] {
        let note =
            "300 B prompt, 1 kB answer, 64 callers, all programs on the same cores; farebox's include payment and settlement";
        report.add(&format!("calls per second, {name}"), of(&rate, peer), "/s", Target::Shown, note);
    }
    Ok(())
}

/// What a paid call takes longer than a direct one, beside its settlement.
pub fn latency(report: &mut Report, stage: &mut Stage, options: &Options) -> Result<(), String> {
    let kind = plain(1, options.count(300));
    let mut p50 = HashMap::<_, Vec<f64>>::new();
    let mut settled = Vec::new();
    for _ in 0..options.rounds {
        for peer in stage.peers(&[Peer::Farebox]) {
            let round = stage.round(peer, &kind)?;
            let mut latencies = match peer {
                Peer::Direct | Peer::Nginx | Peer::Keyed | Peer::Translated => round.outcome.latencies_ms(),
                Peer::Farebox => {
                    let (beside, settlements) = beside_settlement(&stage.farebox, &round.outcome.answers)?;
                    settled.extend(settlements);
                    beside
                }
            };
            p50.entry(peer).or_default().extend(quantile(&mut latencies, 0.5));
        }
    }
    let of = |peer| p50.get(&peer).and_then(|values| median(values));
    let added = |peer| Some(of(peer)? - of(Peer::Direct)?);
    let note = "median time of a paid call, less its own settlement (from handing the payment to the chain until it is confirmed \
                and in the books, as the log says per call), less the median of a direct call; one caller; the durable claim is in it";
    report.add("added by farebox beyond settlement, p50", added(Peer::Farebox), "ms", Target::AtMost(0.3), note);
    let note = "the settlement that was taken out: a block time of 20 ms, and the durable records before and after it";
    report.add("settlement on the simulated chain, p50", median(&settled), "ms", Target::Shown, note);
    report.add("added by nginx, p50", added(Peer::Nginx), "ms", Target::Shown, "nobody pays");
    report.add("direct call, p50", of(Peer::Direct), "ms", Target::Shown, "");
    Ok(())
}

/// For each answer its time without its settlement, and the settlement; both in milliseconds.
pub fn beside_settlement(farebox: &Farebox, answers: &[(Option<String>, f64)]) -> Result<(Vec<f64>, Vec<f64>), String> {
    let settled = settlements(&farebox.log());
    let mut both = (Vec::new(), Vec::new());
    for (id, latency) in answers {
        let settlement = id.as_ref().and_then(|id| settled.get(id)).ok_or("an answer's settlement is not in the log")?;
        both.0.push(latency - settlement.as_secs_f64() * 1000.0);
        both.1.push(settlement.as_secs_f64() * 1000.0);
    }
    Ok(both)
}

/// How long each settlement took, by request id, from the log.
fn settlements(log: &str) -> HashMap<String, Duration> {
    let field = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}="))?;
        rest.split_whitespace().next().map(|value| value.trim_matches('"').to_owned())
    };
    let settlement = |line: &str| {
        let micros = field(line, "settled_in_us")?.parse().ok()?;
        Some((field(line, "request.id")?, Duration::from_micros(micros)))
    };
    log.lines().filter_map(settlement).collect()
}
