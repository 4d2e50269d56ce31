//! Routes that need no credentials: the catalogue, the price list, health, and the answers to wrong addresses.

use std::rc::Rc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::respond::{self, Edge};
use crate::error::{Code, Error};
use crate::gateway::model_not_found;

pub async fn models(request: HttpRequest) -> HttpResponse {
    with_edge(&request, |edge| HttpResponse::Ok().json(edge.gateway.catalogue.list()))
}

pub async fn model(request: HttpRequest, id: web::Path<String>) -> HttpResponse {
    with_edge(&request, |edge| match edge.gateway.catalogue.find(&id) {
        Some(model) => HttpResponse::Ok().json(model.entry()),
        None => respond::refuse(&request, model_not_found(&id).into()),
    })
}

pub async fn pricing(request: HttpRequest) -> HttpResponse {
    with_edge(&request, |edge| HttpResponse::Ok().json(edge.gateway.catalogue.pricing()))
}

/// Health for a load balancer and an operator: 200 while calls can be sold, 503 once the ledger has stopped.
pub async fn healthz(request: HttpRequest) -> HttpResponse {
    with_edge(&request, |edge| {
        let gateway = &edge.gateway;
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
        match admitting {
            true => HttpResponse::Ok().json(body),
            false => HttpResponse::build(respond::status(Code::LedgerUnavailable)).json(body),
        }
    })
}

pub async fn not_found(request: HttpRequest) -> HttpResponse {
    let path: String = request.path().chars().take(80).collect();
    let message = format!(
        "there is nothing at {path:?}; POST /v1/chat/completions, /v1/messages and /v1/responses are sold, GET /v1/models lists the models"
    );
    respond::refuse(&request, Error::new(Code::NotFound, message).into())
}

/// What OpenAI keeps of a response, and what it does with that.
pub async fn nothing_stored(request: HttpRequest) -> HttpResponse {
    let message = "responses are not stored here, so there is none to read, to continue, to cancel or to compact; POST /v1/responses \
                   with the whole conversation as input";
    respond::refuse(&request, Error::new(Code::NotFound, message).into())
}

/// Codex asks for a WebSocket first, and falls back to a POST at once if this is the answer.
pub async fn no_websocket(request: HttpRequest) -> HttpResponse {
    let message = "responses are not sent over a WebSocket here; POST the request, with stream: true for events";
    let mut response = respond::refuse(&request, Error::new(Code::UpgradeRequired, message).into());
    response.headers_mut().insert(header::UPGRADE, header::HeaderValue::from_static("HTTP/1.1"));
    response
}

pub async fn post_only(request: HttpRequest) -> HttpResponse {
    wrong_method(&request, "POST, OPTIONS")
}

pub async fn get_only(request: HttpRequest) -> HttpResponse {
    wrong_method(&request, "GET, HEAD, OPTIONS")
}

pub(super) fn wrong_method(request: &HttpRequest, allowed: &'static str) -> HttpResponse {
    let error = Error::new(
        Code::MethodNotAllowed,
        format!("{} is not possible at this address; use {}", shown_method(request), allowed.trim_end_matches(", OPTIONS")),
    );
    let mut response = respond::refuse(request, error.into());
    response.headers_mut().insert(header::ALLOW, header::HeaderValue::from_static(allowed));
    response
}

fn shown_method(request: &HttpRequest) -> String {
    request.method().as_str().chars().take(20).collect()
}

fn with_edge(request: &HttpRequest, answer: impl FnOnce(&Edge) -> HttpResponse) -> HttpResponse {
    match request.app_data::<Rc<Edge>>() {
        Some(edge) => answer(edge),
        None => respond::refuse(request, Error::new(Code::Internal, "the server is not set up").into()),
    }
}
