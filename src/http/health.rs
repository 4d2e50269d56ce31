//! Whether the gateway lives and whether it is ready, for load balancers and watchdogs; the reasons are for the operator alone.

use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::public::with_edge;
use super::respond;
use crate::error::Code;
use crate::gateway::Gateway;

/// `GET /healthz`: 200 while calls can be sold, 503 once the ledger has stopped.
pub async fn healthz(request: HttpRequest) -> HttpResponse {
    with_edge(&request, |edge| alive(&edge.gateway))
}

/// `GET /readyz` as everybody may see it: which part is not ready, and not why.
pub async fn readyz(request: HttpRequest) -> HttpResponse {
    // Whoever asks here has got in.
    with_edge(&request, |edge| ready(&edge.gateway, None, false))
}

/// Whether the program lives and its ledger writes.
pub fn alive(gateway: &Gateway) -> HttpResponse {
    let networks: Vec<_> = gateway
        .chains
        .networks()
        .into_iter()
        .map(|network| {
            json!({
                "id": network.id,
                "settlement": network.settlement,
                "sellable": network.sellable.is_ok(),
            })
        })
        .collect();
    let admitting = gateway.ledger.is_admitting();
    let body = json!({
        "status": if admitting { "ok" } else { "ledger_unavailable" },
        "networks": networks,
        "calls_in_flight": gateway.calls_in_flight(),
    });
    answer(admitting, &body)
}

/// Whether everything that is configured can be used: the ledger writes, every network takes payments, some upstream of every
/// model is up, callers get in, and the program does not stop. Calls may be sold while it is not: a network that stands still stops no prepaid
/// call, so a load balancer should ask for health, and whoever wakes the operator for this. `closed` is why callers do not get in.
pub fn ready(gateway: &Gateway, closed: Option<&str>, to_the_operator: bool) -> HttpResponse {
    let mut waits_for = Vec::new();
    let mut missing = |part: String, why: &str| {
        waits_for.push(match to_the_operator {
            true => json!({ "part": part, "why": why }),
            false => json!({ "part": part }),
        });
    };
    if gateway.is_stopping() {
        missing("program".into(), "it stops; running calls may finish");
    }
    if let Some(why) = closed {
        missing("certificate".into(), why);
    }
    if !gateway.ledger.is_admitting() {
        let cause = gateway.ledger.failure().borrow().clone();
        missing("ledger".into(), cause.as_deref().unwrap_or("its disk is too far behind"));
    }
    for network in gateway.chains.networks() {
        if let Err(why) = &network.sellable {
            missing(format!("network {}", network.id), why);
        }
    }
    for model in gateway.catalogue.models() {
        if model.upstreams.iter().all(|serving| gateway.health.is_resting(&serving.upstream, &serving.model)) {
            missing(format!("model {}", model.id), "all its upstreams are down");
        }
    }
    answer(waits_for.is_empty(), &json!({ "ready": waits_for.is_empty(), "waits_for": waits_for }))
}

fn answer(good: bool, body: &Value) -> HttpResponse {
    match good {
        true => HttpResponse::Ok().json(body),
        false => HttpResponse::build(respond::status(Code::LedgerUnavailable)).json(body),
    }
}
