//! Measures a release build of farebox beside the upstream alone and nginx: interleaved rounds, medians, one table.

mod alone;
mod books;
mod buyer;
mod calls;
mod folder;
mod http;
mod keyed;
mod large;
mod load;
mod measure;
mod node;
mod peers;
mod purse;
mod release;
mod report;
mod stage;
mod streams;
mod upstream;

use std::path::PathBuf;
use std::process::{Command, ExitCode};

use crate::peers::Setup;
use crate::report::{Report, Target};
use crate::stage::{Options, Peer, Stage};

const USAGE: &str =
    "usage: farebox-bench run --farebox FILE --project FOLDER [--nginx FILE] [--slowable FILE] [--quick] [--only STEP]";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcome = match arguments.first().map(String::as_str) {
        Some("upstream") => upstream::run().map(|()| true).map_err(|error| error.to_string()),
        Some("run") => run(&arguments[1..]),
        _ => Err(USAGE.into()),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(why) => {
            eprintln!("farebox-bench: {why}");
            ExitCode::FAILURE
        }
    }
}

/// The value that follows `name`.
fn option<'a>(arguments: &'a [String], name: &str) -> Option<&'a str> {
    arguments.iter().position(|argument| argument == name).and_then(|at| arguments.get(at + 1)).map(String::as_str)
}

/// Programs are started in other folders.
fn absolute(file: &str) -> Result<PathBuf, String> {
    PathBuf::from(file).canonicalize().map_err(|error| format!("{file}: {error}"))
}

fn run(arguments: &[String]) -> Result<bool, String> {
    let (farebox, project) = option(arguments, "--farebox").zip(option(arguments, "--project")).ok_or(USAGE)?;
    let quick = arguments.iter().any(|argument| argument == "--quick");
    let options = Options {
        farebox: absolute(farebox)?,
        slowable: option(arguments, "--slowable").map(absolute).transpose()?.filter(|_| !quick),
        project: PathBuf::from(project),
        nginx: option(arguments, "--nginx").map(PathBuf::from).filter(|_| !quick),
        rounds: if quick { 1 } else { 5 },
        part: if quick { 20 } else { 1 },
    };
    // The upstream, the callers and the peers have two sockets a stream.
    rlimit::increase_nofile_limit(20_000).map_err(|error| format!("open files: {error}"))?;
    let mut report = Report::default();
    let only = option(arguments, "--only");
    release::inspect(&mut report, &options.farebox, &options.project.join("src"))?;
    if quick {
        report.stop_judging();
    }
    measure_all(&mut report, &options, only);
    let folder = options.project.join("target/bench");
    alone::brought_along(&mut report, &folder);
    let judged = if quick { "; a quick run, which judges no speed" } else { "" };
    report.finish(&folder, &format!("{}{judged}", machine()))
}

/// A step that fails is reported, and the next is taken.
fn measure_all(report: &mut Report, options: &Options, only: Option<&str>) {
    let wanted = |step: &str| only.is_none_or(|only| only == step);
    type Alone = fn(&mut Report, &Options) -> Result<(), String>;
    type Together = fn(&mut Report, &mut Stage, &Options) -> Result<(), String>;
    let together: [(&str, Together); 8] = [
        ("keyed", keyed::calls),
        ("paced", keyed::paced),
        ("quotes", calls::quotes),
        ("verification", |report, stage, options| calls::verification(report, stage, options)),
        ("paid", calls::paid),
        ("latency", calls::latency),
        ("bursts", streams::bursts),
        ("lag", streams::lag),
    ];
    for (name, step) in together.into_iter().filter(|(name, _)| wanted(name)) {
        eprintln!("== {name}");
        let taken = Stage::set(options, Setup::simulated()).and_then(|mut stage| {
            step(report, &mut stage, options)?;
            stage.close()
        });
        report.check(name, taken);
    }
    let apart: [(&str, Alone); 10] = [
        ("slow-disk", keyed::slow_disk),
        ("books", books::postings),
        ("node", alone::on_a_real_node),
        ("hang-ups", streams::hang_ups),
        ("prompts", streams::long_prompts),
        ("held", |report, options| streams::held(report, options, Peer::Farebox)),
        ("held-keyed", |report, options| streams::held(report, options, Peer::Keyed)),
        ("held-beside", streams::held_beside),
        ("large", large::requests),
        ("starts", alone::starts),
    ];
    for (name, step) in apart.into_iter().filter(|(name, _)| wanted(name)) {
        eprintln!("== {name}");
        let taken = step(report, options);
        report.check(name, taken);
    }
    if options.nginx.is_none() {
        report.add("figures beside nginx", None, "", Target::Shown, "nginx was not asked for or is not installed");
    }
}

/// What the figures were measured on.
fn machine() -> String {
    let processor = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let processor =
        processor.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':')).map(|(_, name)| name.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let busy = std::fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let kernel = Command::new("uname").arg("-r").output().map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    format!(
        "{cores} cores of {}, Linux {}, load {}; callers, upstream and every peer share them",
        processor.unwrap_or("an unknown processor"),
        kernel.unwrap_or_default(),
        busy.split(' ').next().unwrap_or("unknown")
    )
}
