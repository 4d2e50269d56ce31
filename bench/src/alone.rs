//! Figures of the program alone: how quickly it starts, what it weighs idle, and a paid call on a real EVM node.

use std::path::Path;

use farebox::chain::evm::key::PrivateKey;

use crate::buyer::Offer;
use crate::calls::beside_settlement;
use crate::http;
use crate::load::{self, Load, Start};
use crate::measure::{median, own_bytes, resident_bytes, runtime};
use crate::node::{BUYER_KEY, Node, SETTLER_KEY};
use crate::peers::{self, Farebox, INPUT_PRICE, OUTPUT_PRICE, Setup};
use crate::report::{Report, Target};
use crate::stage::{CHAT, Kind, Options};
use crate::upstream::{ANSWER_TOKENS, PROMPT_TOKENS, Plan};

/// Starts on fresh folders: time to the first 200, and memory.
pub fn starts(report: &mut Report, options: &Options) -> Result<(), String> {
    let (mut times, mut memory, mut own) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..options.count(11) {
        let farebox = Farebox::start(&options.farebox, "127.0.0.1:9", Setup::simulated())?;
        times.push(farebox.start.as_secs_f64());
        memory.push(resident_bytes(farebox.pid()) as f64 / 1e6);
        own.push(own_bytes(farebox.pid()) as f64 / 1e6);
        farebox.close(Some(0))?;
    }
    let note = "from execution to the first 200 on /healthz, on a fresh data folder";
    report.add("start", median(&times), "s", Target::AtMost(0.1), note);
    report.add("idle memory", median(&memory), "MB", Target::AtMost(20.0), "resident, after that first 200");
    let note = "the same without the text of the program, which the system shares and takes back as it likes";
    report.add("idle memory, its own", median(&own), "MB", Target::AtMost(8.0), note);
    Ok(())
}

/// Paid calls that are settled by real transactions on a local node, one after the other.
pub fn on_a_real_node(report: &mut Report, options: &Options) -> Result<(), String> {
    let name = "added beyond settlement on a real node, p50";
    let Some(chain) = Node::start(&options.project) else {
        report.add(name, None, "ms", Target::Shown, "there is no anvil; `scripts/test` installs it");
        return Ok(());
    };
    let chain = chain?;
    let settlement = format!("settlement = \"rpc\"\nrpc_urls = [{:?}]\nsettler_key = \"env:BENCH_SETTLER_KEY\"", chain.url());
    let setup = Setup { settlement, settler_key: SETTLER_KEY.into(), disk: None };
    let upstream = peers::upstream()?;
    let farebox = Farebox::start(&options.farebox, &upstream.address, setup)?;
    let count = options.count(60);
    let plan = Plan { events: 0, ms: 0, size: 800 };
    let body = Kind { plan, stream: false, prompt: 300, callers: 1, count, start: Start::AtOnce }.body();
    let direct = load::run(load(&upstream.address, vec![http::request("POST", CHAT, "", &body); count]))?;
    let paid = load::run(load(farebox.address(), payments(&farebox, &body, count)?))?;
    for (who, outcome) in [("direct", &direct), ("farebox", &paid)] {
        if outcome.failed > 0 {
            return Err(format!("{who}: {} calls failed: {}", outcome.failed, outcome.failures.join("; ")));
        }
    }
    let (beside, settled) = beside_settlement(&farebox, &paid.answers)?;
    let added = median(&beside).zip(median(&direct.latencies_ms())).map(|(paid, direct)| paid - direct);
    let note =
        "the same figure with anvil as the chain: simulating the transfer by eth_call is in it, sending and confirming not";
    report.add(name, added, "ms", Target::Shown, note);
    report.add("settlement on a real node, p50", median(&settled), "ms", Target::Shown, "anvil mines at once");
    let settlements = chain.settlements()?;
    if settlements != count as u64 {
        return Err(format!("{settlements} transactions for {count} paid calls"));
    }
    farebox.close(Some(paid.complete * (PROMPT_TOKENS * INPUT_PRICE + ANSWER_TOKENS * OUTPUT_PRICE)))
}

fn load(address: &str, requests: Vec<Vec<u8>>) -> Load {
    Load { address: address.to_owned(), requests, callers: 1, status: 200, events: 0, ending: b"}", start: Start::AtOnce }
}

fn payments(farebox: &Farebox, body: &str, count: usize) -> Result<Vec<Vec<u8>>, String> {
    let key = PrivateKey::parse(BUYER_KEY).map_err(|error| error.to_string())?;
    let runtime = runtime().map_err(|error| error.to_string())?;
    let offer = runtime.block_on(Offer::ask(farebox.address(), CHAT, body))?;
    let paid = |_| Ok(http::request("POST", CHAT, &format!("payment-signature: {}\r\n", offer.sign(&key)?), body));
    (0..count).map(paid).collect()
}

/// Figures that other programs have left in the folder for this report: `*.figures.json`, each a list of
/// `{figure, value, unit, at_most | at_least, note}`.
pub fn brought_along(report: &mut Report, folder: &Path) {
    let Ok(entries) = std::fs::read_dir(folder) else { return };
    let files = entries.flatten().map(|entry| entry.path()).filter(|path| path.to_string_lossy().ends_with(".figures.json"));
    for path in files {
        let figures = std::fs::read(&path).ok().and_then(|bytes| serde_json::from_slice::<serde_json::Value>(&bytes).ok());
        let Some(figures) = figures.as_ref().and_then(|figures| figures.as_array()) else {
            report.wrong(format!("{} is not a list of figures", path.display()));
            continue;
        };
        for figure in figures {
            let text = |key: &str| figure[key].as_str().unwrap_or_default().to_owned();
            let target = match (figure["at_most"].as_f64(), figure["at_least"].as_f64()) {
                (Some(limit), _) => Target::AtMost(limit),
                (None, Some(limit)) => Target::AtLeast(limit),
                (None, None) => Target::Shown,
            };
            report.add(&text("figure"), figure["value"].as_f64(), text("unit").leak(), target, &text("note"));
        }
    }
}
