//! `farebox serve`: open the books, start settlement, serve until a signal, close the books last.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpListener};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::reload::Running;
use super::{BAD_CONFIGURATION, FAIL_STOP, code_of, code_of_keys, machine_clock, ready, say, socket};
use crate::catalogue::Serving;
use crate::config::{Config, Remainder};
use crate::gateway::{Gateway, watch};
use crate::http::{self, Editions};
use crate::keys::{self, Keys};
use crate::ledger::{Ledger, Money, Options, kept_out};
use crate::money::Micros;
use crate::upstream::Upstreams;
use crate::webhooks;

/// How often the books are checked while the gateway runs.
const CHECK_EVERY: Duration = Duration::from_secs(600);

/// How long running answers may go on after the ledger has failed.
const DRAIN: Duration = Duration::from_secs(10);

/// How long calls that were cut off may take to end in the books.
const LAST_CALLS: Duration = Duration::from_secs(2);

/// How long what the operator is told last may take to be delivered.
const LAST_WORDS: Duration = Duration::from_secs(5);

/// Open files that every system allows unasked.
const FILES_AT_LEAST: u64 = 256;

pub fn run(path: PathBuf, config: Config) -> ExitCode {
    match actix_web::rt::System::new().block_on(serve(path, config)) {
        Ok(code) => code,
        Err(Trouble { message, code, .. }) => {
            say::err(format_args!("farebox: {message}"));
            ExitCode::from(code)
        }
    }
}

/// Why a program that needs the books ends.
pub(super) struct Trouble {
    pub message: String,
    pub code: u8,
    /// Somebody else has them open.
    pub taken: bool,
}

pub(super) fn trouble(code: u8) -> impl Fn(String) -> Trouble {
    move |message| Trouble { message, code, taken: false }
}

async fn serve(path: PathBuf, config: Config) -> Result<ExitCode, Trouble> {
    // First: whoever does not listen ends of it.
    let hangup = listen_for(SignalKind::hangup())?;
    Upstreams::new(&config.upstreams).map_err(|error| trouble(BAD_CONFIGURATION)(error.to_string()))?;
    let files = raise_open_files(config.limits.streams);
    let clock = machine_clock();
    let certificate = config.tls.as_ref().map(|place| http::Certificate::open(place, clock.clone())).transpose();
    let certificate = certificate.map_err(|why| trouble(BAD_CONFIGURATION)(format!("server.tls: {why}")))?;
    // Before the books are touched, for it may be tried again for hours; and before the gateway, which says in its offers and sign-ins
    // where it is. Who connects from now on waits a moment.
    let ((listener, address), numbers) = (listen(config.bind)?, config.metrics.map(listen).transpose()?);
    let metrics = numbers.as_ref().map(|(_, address)| *address);
    // A command by hand may have them, which ends: a service manager tries again.
    let ledger = open_ledger(&config, clock.clone());
    let ledger = ledger.map_err(|trouble| Trouble { code: if trouble.taken { FAIL_STOP } else { trouble.code }, ..trouble })?;
    let keys = open_keys(&config, &ledger)?;
    let config = config.bound_to(address);
    let (notices, outbox) = webhooks::open(&config.webhooks, clock.clone());
    let delivery = outbox.deliver().map_err(trouble(BAD_CONFIGURATION))?;
    let gateway = Gateway::start(&config, ledger.clone(), keys, notices.clone(), clock);
    let gateway = Arc::new(gateway.map_err(|error| trouble(BAD_CONFIGURATION)(error.to_string()))?);
    // Before anybody is told that we listen: from then on a signal is a stop in good order.
    let signals = Signals::listen()?;
    let (server, editions) = http::start(&config, Arc::clone(&gateway), listener, certificate, files)
        .map_err(|error| trouble(FAIL_STOP)(format!("cannot serve on {address}: {error}")))?;
    let running = Running::new(path, config.clone(), editions);
    let operator = socket::listen(&config.data_dir, running.clone());
    if let Err(error) = &operator {
        tracing::warn!(%error, "the operator's commands cannot reach this gateway while it runs");
    }
    let editions = running.editions().clone();
    actix_web::rt::spawn(reload_on(hangup, running));
    if let Some((listener, address)) = numbers {
        let numbers = http::start_numbers(editions.clone(), listener);
        let cannot = |error| trouble(FAIL_STOP)(format!("cannot serve server.metrics on {address}: {error}"));
        actix_web::rt::spawn(numbers.map_err(cannot)?);
    }
    introduce(&config, &gateway, (address, metrics));
    if let Err(error) = ready::tell(std::env::var_os(ready::SOCKET).as_deref()) {
        tracing::warn!(%error, "the service manager could not be told that callers are served");
    }
    actix_web::rt::spawn(check_the_books(ledger.clone()));
    actix_web::rt::spawn(delivery);
    let watched = editions.clone();
    let watching = actix_web::rt::spawn(watch(move || watched.gateway()));
    let code = until_the_end(server, &gateway, signals, &editions).await?;
    drop(operator);
    // The books are closed after the last call: its reservation ended with it.
    ledger.close();
    // It ends with the ledger, and that this has failed is the last that it tells.
    let _ = tokio::time::timeout(LAST_WORDS, watching).await;
    notices.settle(LAST_WORDS).await;
    // Also when the last write of a stop in good order failed.
    Ok(if ledger.is_broken() { ExitCode::from(FAIL_STOP) } else { code })
}

fn listen(bind: SocketAddr) -> Result<(TcpListener, SocketAddr), Trouble> {
    let listener = TcpListener::bind(bind).and_then(|listener| listener.local_addr().map(|address| (listener, address)));
    listener.map_err(|error| {
        // An interface may come up after us, and whoever has the port may end: a service manager tries again.
        let (code, hint) = match error.kind() {
            ErrorKind::AddrNotAvailable => (FAIL_STOP, "; this machine does not have that address, or not yet"),
            ErrorKind::AddrInUse => (FAIL_STOP, ""),
            ErrorKind::PermissionDenied => {
                (BAD_CONFIGURATION, "; a port below 1024 needs CAP_NET_BIND_SERVICE, see farebox.service for how")
            }
            _ => (BAD_CONFIGURATION, ""),
        };
        trouble(code)(format!("cannot listen on {bind}: {error}{hint}"))
    })
}

/// The books, made if there are none.
pub(super) fn open_ledger(config: &Config, clock: crate::clock::Clock) -> Result<Ledger, Trouble> {
    private_folder(&config.data_dir)
        .map_err(|error| trouble(BAD_CONFIGURATION)(format!("{}: {}", config.data_dir.display(), kept_out(&error))))?;
    let money = match (config.is_simulated(), config.is_test()) {
        (true, _) => Money::Simulated,
        (false, true) => Money::Test,
        (false, false) => Money::Main,
    };
    let options = Options {
        keep_remainder: config.payments.remainder == Remainder::Keep,
        hold_durable_above: config.payments.hold_durable_above,
        money,
    };
    let path = config.data_dir.join(crate::ledger::FILE);
    let (ledger, recovered) = Ledger::open(&path, clock, options).map_err(|broken| Trouble {
        message: format!("{}: {broken}", path.display()),
        code: code_of(&broken),
        taken: broken.is_taken(),
    })?;
    only_for_us(&path).map_err(|error| trouble(FAIL_STOP)(format!("{}: {error}", path.display())))?;
    tracing::info!(
        calls.voided = recovered.voided,
        calls.charged = recovered.charged,
        payments.open = recovered.open_payments,
        "the ledger is open"
    );
    Ok(ledger)
}

/// The keys of the journal, in an index next to the books.
pub(super) fn open_keys(config: &Config, ledger: &Ledger) -> Result<Keys, Trouble> {
    let journal = ledger.key_events_after(0).map_err(|denied| trouble(FAIL_STOP)(denied.to_string()))?;
    // For a pepper, if there is none yet.
    let mut random = [0; 32];
    getrandom::fill(&mut random).map_err(|error| trouble(FAIL_STOP)(format!("no randomness: {error}")))?;
    let (folder, pepper) = (config.data_dir.join(keys::FOLDER), config.data_dir.join(keys::PEPPER));
    let (keys, opened) =
        Keys::open(&folder, &pepper, random, &journal).map_err(|broken| trouble(code_of_keys(&broken))(broken.to_string()))?;
    if let Some(cause) = &opened.rebuilt {
        let moved_to = opened.moved_to.as_ref().map(|path| path.display().to_string());
        tracing::warn!(cause, moved_to, "the index of keys was made anew from the journal");
    }
    tracing::info!(keys = opened.keys, caught_up = opened.caught_up, "the keys are open");
    Ok(keys)
}

/// Has as many files open as the system allows, and says how many. A call in flight is two open sockets; says so when the system
/// allows fewer than the configuration promises.
fn raise_open_files(streams: usize) -> usize {
    let needed = streams.saturating_mul(2).saturating_add(http::SPARE_FILES);
    let allowed = rlimit::increase_nofile_limit(u64::MAX).unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of open files could not be raised");
        FILES_AT_LEAST
    });
    let allowed = usize::try_from(allowed).unwrap_or(usize::MAX);
    if allowed < needed {
        tracing::warn!(allowed, needed, "fewer open files are allowed than limits.streams needs; raise LimitNOFILE");
    }
    allowed
}

/// Nobody but the operator reads the books.
pub(super) fn private_folder(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// The books hold payers' signatures; a folder that was there before may be open to others.
fn only_for_us(path: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::PermissionsExt as _;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
}

/// Says what is sold, where, and whether the money is real. Plain lines on stdout; everything later goes to the log.
fn introduce(config: &Config, gateway: &Gateway, (address, metrics): (SocketAddr, Option<SocketAddr>)) {
    // A stdout that cannot be written stops no sale.
    let tell = |line: std::fmt::Arguments<'_>| drop(say::out(line));
    tell(format_args!("farebox {}", env!("CARGO_PKG_VERSION")));
    for model in gateway.catalogue.models() {
        tell(format_args!("  sells     {} (from {})", model.id, in_order(&model.upstreams)));
    }
    for network in gateway.chains.networks() {
        let state = match &network.sellable {
            Ok(()) => "ready".to_owned(),
            Err(problem) => format!("NOT SOLD ON: {problem}"),
        };
        tell(format_args!("  paid on   {} to {} ({}, {state})", network.id, network.pay_to, network.settlement));
    }
    if let Some(metrics) = metrics {
        tell(format_args!("  metrics   on http://{metrics}/metrics"));
    }
    warn_of_gas(gateway);
    if config.is_readable_on_the_way() {
        tracing::warn!(
            public_url = config.public_url,
            "callers come over plain http: whoever is on the way reads their keys, and what is signed to sign in covers neither \
             method nor body of a request; only https protects them, so put a TLS proxy in front and write https:// there"
        );
    }
    if config.is_simulated() {
        tell(format_args!("  MONEY IS SIMULATED: signatures are checked for real, no USDC moves"));
    }
    tell(format_args!("  try it    farebox pay \"Hello\""));
    tell(format_args!("listening on {}://{address}", config.scheme()));
}

/// Who is asked for a model: `a, then b`; those that weights choose between are `a or b`.
fn in_order(servings: &[Serving]) -> String {
    let mut order = String::new();
    for (place, serving) in servings.iter().enumerate() {
        let before = place.checked_sub(1).and_then(|before| servings.get(before));
        order.push_str(match before {
            None => "",
            Some(before) if before.weight.is_some() && serving.weight.is_some() => " or ",
            Some(_) => ", then ",
        });
        order.push_str(&serving.upstream);
    }
    order
}

/// Tells of calls whose quote does not pay for the gas of their settlement.
fn warn_of_gas(gateway: &Gateway) {
    for network in gateway.chains.networks() {
        let Some(gas) = network.gas else { continue };
        let surcharge = gateway.surcharge(&network.id).get();
        for model in gateway.catalogue.models() {
            let (quote, network) = (Micros::new(model.typical_quote().get().saturating_add(surcharge)), &network.id);
            if quote >= gas {
                continue;
            }
            let model = &model.id;
            tracing::warn!(
                model, network, %quote, %gas,
                "an ordinary call of {model} is quoted {quote} USDC, less than its settlement on {network} costs in gas ({gas} USDC); surcharge of its [[network]] adds that"
            );
        }
    }
}

/// The two ways to ask for an end.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn listen() -> Result<Signals, Trouble> {
        Ok(Signals { terminate: listen_for(SignalKind::terminate())?, interrupt: listen_for(SignalKind::interrupt())? })
    }
}

fn listen_for(kind: SignalKind) -> Result<Signal, Trouble> {
    signal(kind).map_err(|error| trouble(FAIL_STOP)(format!("cannot listen for signals: {error}")))
}

/// Reads the configuration again whenever SIGHUP says so.
async fn reload_on(mut hangup: Signal, running: Running) {
    while hangup.recv().await.is_some() {
        // What came of it is in the log.
        let _ = running.reload().await;
    }
}

/// Serves until a signal, or until the ledger or the index of keys fails.
async fn until_the_end(
    server: actix_web::dev::Server,
    gateway: &Gateway,
    signals: Signals,
    editions: &Editions,
) -> Result<ExitCode, Trouble> {
    let handle = server.handle();
    let mut running = actix_web::rt::spawn(server);
    let ledger = &gateway.ledger;
    let (mut ledger_failed, mut keys_failed) = (ledger.failure(), gateway.keys.failure());
    let Signals { mut terminate, mut interrupt } = signals;
    let code = tokio::select! {
        _ = terminate.recv() => ExitCode::SUCCESS,
        _ = interrupt.recv() => ExitCode::SUCCESS,
        _ = ledger_failed.wait_for(Option::is_some) => ExitCode::from(FAIL_STOP),
        _ = keys_failed.wait_for(Option::is_some) => ExitCode::from(FAIL_STOP),
    };
    let graceful = code == ExitCode::SUCCESS;
    gateway.stops();
    tracing::info!(graceful, "stopping; running calls may finish");
    // The command is sent at once; the server ends when its last call does. It takes no second command, so whoever cannot
    // wait ends the task, which cuts the calls off.
    drop(handle.stop(true));
    let served = tokio::select! {
        served = &mut running => Some(served),
        _ = terminate.recv(), if graceful => None,
        _ = interrupt.recv(), if graceful => None,
        // Every call has ended by then; what is left are callers who do not take their answers.
        () = tokio::time::sleep(editions.patience() + LAST_CALLS), if graceful => None,
        // Admission refuses already; answers that are paid for got a moment to end.
        () = tokio::time::sleep(DRAIN), if !graceful => None,
    };
    match served {
        Some(Ok(Err(error))) => Err(trouble(FAIL_STOP)(format!("the server failed: {error}"))),
        Some(_) => Ok(code),
        None => {
            tracing::warn!("running calls are cut off");
            running.abort();
            let _ = running.await;
            // Its workers end with it, each on its own thread; their calls are ended in the books as they are dropped. What
            // is left after this the next start ends, at its last checkpoint.
            let patience = tokio::time::Instant::now() + LAST_CALLS;
            while ledger.open_holds() > 0 && tokio::time::Instant::now() < patience {
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            Ok(code)
        }
    }
}

/// Looks for a break in the books now and then; a break is the operator's to see at once.
async fn check_the_books(ledger: Ledger) {
    loop {
        tokio::time::sleep(CHECK_EVERY).await;
        let checked = ledger.clone();
        match actix_web::web::block(move || checked.check_totals()).await {
            Ok(Ok(None)) => return,
            Ok(Ok(Some(report))) if report.ok => tracing::info!(postings = report.postings, "the books are clean"),
            Ok(Ok(Some(report))) => {
                tracing::error!(problems = ?report.problems, "the books are broken; stop the gateway and run farebox verify")
            }
            Ok(Err(error)) => tracing::error!(%error, "the books could not be checked"),
            Err(error) => tracing::error!(%error, "the books could not be checked"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_start_says_who_is_asked_first_and_who_shares() {
        let serving = |(upstream, weight): &(&str, u32)| {
            let weight = std::num::NonZeroU32::new(*weight);
            Serving { upstream: (*upstream).to_owned(), model: "m".to_owned(), weight, cost: None }
        };
        let said = |servings: &[(&str, u32)]| in_order(&servings.iter().map(serving).collect::<Vec<_>>());
        assert_eq!(said(&[("a", 0), ("b", 0)]), "a, then b");
        assert_eq!(said(&[("a", 3), ("b", 1), ("c", 0)]), "a or b, then c");
        assert_eq!(said(&[("a", 0), ("b", 1), ("c", 1)]), "a, then b or c");
    }
}
