//! What an operator sees of the gateway, signed in with a wallet that the configuration names: money, health, failures, one sale in full.

use std::rc::Rc;
use std::time::Duration;

use actix_web::web::{self, Path};
use actix_web::{HttpRequest, HttpResponse};
use serde_json::{Value, json};

use super::accounts;
use super::credentials::credentials;
use super::respond::{self, Edge};
use crate::chain::NetworkStatus;
use crate::clock::Timestamp;
use crate::error::{Code, Error};
use crate::gateway::account;
use crate::gateway::trail::{self, Sought};
use crate::ids::PaymentId;
use crate::ledger::{Ledger, Payment, State};
use crate::money::Micros;
use crate::upstream::{Manner, Resting};

/// Payments whose outcome is not known that are listed, at most; the oldest of them.
const OPEN_PAYMENTS: usize = 100;
/// How long the rest of an overview waits for the money in it.
const PATIENCE: Duration = Duration::from_secs(20);

/// `GET /api/operator/overview`: what is sold for now, what is still on its way, and what was earned on the last `days`.
pub async fn overview(request: HttpRequest) -> HttpResponse {
    let shown = async {
        let edge = operator(&request)?;
        let days = accounts::number(&request, "days", 1..=account::MOST_DAYS, account::DAYS)?;
        let gateway = &edge.gateway;
        // Whoever looks because something is wrong with the books sees the rest of it.
        let (report, problem) = match tokio::time::timeout(PATIENCE, gateway.reports.of_last_days(days)).await {
            Ok(Ok(report)) => (Some(report), None),
            Ok(Err(error)) => (None, Some(error.message)),
            Err(_) => (None, Some("it is still being added up; refresh in a minute, or ask for fewer days".to_owned())),
        };
        Ok(json!({
            "version": env!("CARGO_PKG_VERSION"),
            "now": gateway.clock().now().to_rfc3339(),
            "admitting": gateway.ledger.is_admitting(),
            "calls_in_flight": gateway.calls_in_flight(),
            "blocked_wallets": gateway.ledger.count_blocked(),
            "networks": gateway.chains.networks().into_iter().map(network).collect::<Vec<_>>(),
            "open_payments": on_their_way(&gateway.ledger),
            "report": report.as_deref(),
            "report_problem": problem,
        }))
    };
    let shown = shown.await;
    answer(&request, shown)
}

fn network(network: NetworkStatus) -> Value {
    json!({
        "id": network.id,
        "name": network.name,
        "settlement": network.settlement,
        "pay_to": network.pay_to,
        "gas_usd": network.gas.map(|gas| gas.to_string()),
        "sellable": network.sellable.is_ok(),
        "problem": network.sellable.err(),
    })
}

/// The payments of which no chain has said yet whether they arrived, the oldest first.
fn on_their_way(ledger: &Ledger) -> Vec<Value> {
    let mut open = ledger.open_payments();
    open.retain(|(_, payment)| matches!(payment.state, State::Claimed | State::Signed | State::Sent));
    open.sort_by_key(|(_, payment)| payment.claimed_at);
    let line = |(id, payment): &(PaymentId, Payment)| {
        json!({
            "payment_id": id.to_string(),
            "state": payment.state,
            "network": payment.network,
            "account": payment.payer.to_string(),
            "amount_usd": Micros::new(payment.amount).to_string(),
            "top_up": payment.top_up,
            "since": Timestamp::from_millis(payment.claimed_at).to_rfc3339(),
        })
    };
    open.iter().take(OPEN_PAYMENTS).map(line).collect()
}

/// `GET /api/operator/upstreams`: how each of them does, as the worker threads see it together.
pub async fn upstreams(request: HttpRequest) -> HttpResponse {
    let shown = operator(&request).map(|edge| {
        let resting = |it: &Resting| {
            json!({ "model": it.model, "account": it.account.map(|account| account.to_string()), "seconds": it.wait.as_secs().max(1) })
        };
        let upstream = |manner: Manner| {
            json!({
                "name": manner.name,
                "state": manner.state.name(),
                "asked_again_in_seconds": manner.wait.map(|wait| wait.as_secs().max(1)),
                "resting_models": manner.resting.iter().map(resting).collect::<Vec<_>>(),
                "answered": manner.answered,
                "failed": manner.failed,
                "latest_failures": manner.latest.iter().map(|trouble| json!({
                    "request_id": trouble.request.to_string(),
                    "at": trouble.request.arrived().to_rfc3339(),
                    "model": trouble.model,
                    "code": trouble.code.row().code,
                    "cause": trouble.cause,
                })).collect::<Vec<_>>(),
            })
        };
        json!({ "upstreams": edge.gateway.health.manners().into_iter().map(upstream).collect::<Vec<_>>() })
    });
    answer(&request, shown)
}

/// `GET /api/operator/failures`: what went wrong since the start, the latest first, a few of each code.
pub async fn failures(request: HttpRequest) -> HttpResponse {
    let shown = operator(&request).map(|edge| {
        let manners = edge.gateway.health.manners();
        let of_whom = |shown: &mut Value| {
            let asked =
                manners.iter().filter(|manner| manner.latest.iter().any(|it| shown["request_id"] == it.request.to_string()));
            let names: Vec<_> = asked.map(|manner| manner.name.as_str()).collect();
            if shown["upstream"].is_null() && !names.is_empty() {
                shown["upstream"] = names.join(", ").into();
            }
        };
        let mut failures: Vec<_> = edge.gateway.failures.latest().iter().map(trail::shown).collect();
        failures.iter_mut().for_each(of_whom);
        json!({ "failures": failures })
    });
    answer(&request, shown)
}

/// `GET /api/operator/sales/{id}`: one sale as a sequence, by the id of its request or of its payment.
pub async fn sale(request: HttpRequest, id: Path<String>) -> HttpResponse {
    let found = async {
        let edge = operator(&request)?;
        let wrong = || Error::new(Code::NotFound, "a sale is named req_ and 32 digits of hex, or pay_ and 64");
        let sought = Sought::parse(id.trim()).ok_or_else(wrong)?;
        let gateway = std::sync::Arc::clone(&edge.gateway);
        let search = move || trail::trail(&gateway.ledger, sought, |request| gateway.failures.of(request));
        web::block(search).await.map_err(|_| accounts::stopping())?
    };
    let found = found.await;
    answer(&request, found)
}

/// The gateway, for who holds a session of an operator's wallet.
fn operator(request: &HttpRequest) -> Result<&Rc<Edge>, Error> {
    let edge = accounts::edge(request)?;
    let account = accounts::session(edge, &credentials(request.headers()))?;
    match edge.gateway.operators.contains(&account) {
        true => Ok(edge),
        false => {
            let message = format!(
                "{} is no operator of this gateway; its address belongs into operators in [server] of config.toml, which \
                 `farebox reload` has read again",
                account.address()
            );
            Err(Error::new(Code::NotAnOperator, message))
        }
    }
}

fn answer(request: &HttpRequest, shown: Result<Value, Error>) -> HttpResponse {
    match shown {
        Ok(shown) => HttpResponse::Ok().json(shown),
        Err(error) => respond::refuse(request, error.into()),
    }
}
