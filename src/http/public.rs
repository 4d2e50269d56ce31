//! Routes that need no credentials: the catalogue, the price list, health, and the answers to wrong addresses.

use std::rc::Rc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::respond::{self, Edge};
use crate::error::{Code, Error};

pub async fn models(request: HttpRequest) -> HttpResponse {
    with_edge(&request, |edge| HttpResponse::Ok().json(edge.gateway.catalogue.list()))
}

pub async fn model(request: HttpRequest, id: web::Path<String>) -> HttpResponse {
    with_edge(&request, |edge| match edge.gateway.catalogue.sold(&id) {
        Ok(model) => HttpResponse::Ok().json(model.entry()),
        Err(error) => respond::refuse(&request, error.into()),
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
        "there is nothing at {path:?}; POST /v1/chat/completions and /v1/messages are sold, GET /v1/models lists the models"
    );
    respond::refuse(&request, Error::new(Code::NotFound, message).into())
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
