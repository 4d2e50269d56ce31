//! The operator's own listener: `/metrics` for Prometheus, and health with its reasons. No caller is served there.

use std::net::TcpListener;
use std::time::{Duration, Instant};

use actix_web::dev::Server;
use actix_web::http::header;
use actix_web::{App, HttpResponse, HttpServer, web};

use super::{Editions, health};
use crate::gateway::Gateway;
use crate::metrics::{self, Page, Value};

/// How long a request head may take to arrive.
const HEAD: Duration = Duration::from_secs(5);
/// Connections at the same time.
const CONNECTIONS: usize = 64;

/// Starts to tell the operator's programs how things stand.
pub fn start(editions: Editions, listener: TcpListener) -> std::io::Result<Server> {
    let since = Instant::now();
    let server = HttpServer::new(move || {
        let to = |answer: fn(&Editions) -> HttpResponse| {
            let editions = editions.clone();
            web::get().to(move || {
                let response = answer(&editions);
                async move { response }
            })
        };
        let numbers = {
            let editions = editions.clone();
            web::get().to(move || {
                let page = page(&editions, since.elapsed());
                let kind = (header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8");
                async move { HttpResponse::Ok().insert_header(kind).body(page) }
            })
        };
        App::new()
            .route("/metrics", numbers)
            .route("/healthz", to(|editions| health::alive(&editions.gateway())))
            .route("/readyz", to(|editions| health::ready(&editions.gateway(), editions.closed().as_deref(), true)))
    })
    .workers(1)
    .max_connections(CONNECTIONS)
    .client_request_timeout(HEAD)
    .shutdown_timeout(1)
    .disable_signals()
    .listen(listener)?;
    Ok(server.run())
}

/// Everything that is counted, and how things stand at this moment.
fn page(editions: &Editions, up: Duration) -> String {
    let (mut page, gateway) = (Page::default(), editions.gateway());
    program(&mut page, up);
    page.begin(
        "farebox_certificate_expiry_timestamp_seconds",
        "gauge",
        "When the certificate ends that callers are shown, in seconds since 1970; nothing where they are shown none.",
    );
    if let Some(end) = editions.certificate_end() {
        page.sample("farebox_certificate_expiry_timestamp_seconds", &[], Value::Whole(end.secs().into()));
    }
    books(&mut page, &gateway);
    networks(&mut page, &gateway);
    page.begin(
        "farebox_upstream_up",
        "gauge",
        "Whether an upstream is asked for everything: 0 while it or one of its models was found down.",
    );
    for (name, is_up) in gateway.health.states() {
        page.sample("farebox_upstream_up", &[("upstream", name)], flag(is_up));
    }
    metrics::write(&mut page);
    page.into_text()
}

fn flag(yes: bool) -> Value {
    Value::Whole(yes.into())
}

fn program(page: &mut Page, up: Duration) {
    page.begin("farebox_build_info", "gauge", "Which build this is.");
    page.sample("farebox_build_info", &[("version", env!("CARGO_PKG_VERSION"))], Value::Whole(1));
    page.gauge("farebox_uptime_seconds", "How long it has run.", Value::Whole(up.as_secs().into()));
    // Only Linux has these.
    if let Some(bytes) = resident_bytes() {
        page.gauge("process_resident_memory_bytes", "Memory that it holds.", Value::Whole(bytes));
    }
    if let Ok(files) = std::fs::read_dir("/proc/self/fd") {
        let count = i128::try_from(files.count()).unwrap_or(i128::MAX);
        page.gauge("process_open_fds", "Files and sockets that it has open.", Value::Whole(count));
    }
}

fn resident_bytes() -> Option<i128> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    line.trim().strip_suffix("kB")?.trim().parse::<i128>().ok()?.checked_mul(1024)
}

fn books(page: &mut Page, gateway: &Gateway) {
    let count = |number: usize| Value::Whole(i128::try_from(number).unwrap_or(i128::MAX));
    page.gauge("farebox_calls_in_flight", "Calls that are being served.", count(gateway.calls_in_flight()));
    page.gauge("farebox_calls_limit", "How many there may be (limits.streams).", count(gateway.limits.streams));
    page.gauge("farebox_ledger_admitting", "Whether the ledger takes new calls.", flag(gateway.ledger.is_admitting()));
    // A ledger that has stopped has no sums to tell; the line above says so.
    let Ok(totals) = gateway.ledger.totals() else { return };
    let usdc = |micros: i64| Value::Usdc(micros.into());
    page.gauge("farebox_liabilities_usdc", "What wallets have: what you owe them.", usdc(totals.wallets));
    page.gauge("farebox_held_usdc", "What of that stands for calls in flight.", Value::Usdc(totals.held.into()));
    page.gauge("farebox_holds", "Open holds.", count(totals.holds));
    page.gauge("farebox_revenue_usdc", "What was earned and not given back, ever.", usdc(totals.sales));
    page.gauge("farebox_transit_usdc", "Payments that arrived and whose calls still run.", usdc(totals.transit));
    page.gauge("farebox_outgoing_usdc", "Balance on its way back to its wallets on chains.", usdc(totals.outgoing));
    page.gauge("farebox_bad_debt_usdc", "Lost to transfers that vanished from their chain; negative.", usdc(totals.bad_debt));
    page.gauge("farebox_ledger_backlog", "Batches of rows that wait for the disk.", count(totals.backlog));
    page.gauge("farebox_ledger_backlog_limit", "From how many on nothing is sold.", count(totals.most_backlog));
    page.begin("farebox_payments_open", "gauge", "Payments that their chain may still change.");
    for ((network, state), number) in &totals.payments {
        page.sample("farebox_payments_open", &[("network", network), ("state", state)], Value::Whole((*number).into()));
    }
}

fn networks(page: &mut Page, gateway: &Gateway) {
    let networks = gateway.chains.networks();
    let ready = networks.iter().map(|network| (network.id.as_str(), flag(network.sellable.is_ok())));
    page.gauges("farebox_network_ready", "Whether payments are taken on a network.", "network", ready);
    let purses = || networks.iter().filter_map(|network| Some((network.id.as_str(), network.purse.as_ref()?)));
    let has = purses().map(|(id, purse)| (id, Value::Coins(purse.has, purse.digits)));
    page.gauges("farebox_gas_coins", "What the settler has for gas, in the chain's own coin.", "network", has);
    let needs = purses().map(|(id, purse)| (id, Value::Coins(purse.needs, purse.digits)));
    page.gauges("farebox_gas_needed_coins", "With less than this nothing is sold.", "network", needs);
    let gas = networks.iter().filter_map(|network| Some((network.id.as_str(), Value::Usdc(network.gas?.get().into()))));
    page.gauges("farebox_settlement_gas_usdc", "What one settlement costs in gas (coin_usd).", "network", gas);
}
