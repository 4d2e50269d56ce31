//! Routes that need no credentials: the catalogue, the price list, and the answers to wrong addresses.

use std::rc::Rc;

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::Value;

use super::respond::{self, Edge};
use super::routes;
use crate::catalogue::{Catalogue, Kind, Model, Page, WrongPage};
use crate::dialect::Goods;
use crate::error::{Code, Error};
use crate::gateway::Worker;
use crate::upstream::Upstreams;

/// Whose clients a list of models is for.
enum Audience {
    /// Anthropic's, which say so in a header.
    Anthropic,
    /// Wallet clients, which have a prefix of their own.
    Wallet,
    /// OpenAI's and everybody else's.
    Everybody,
}

impl Audience {
    fn of(request: &HttpRequest) -> Audience {
        if request.headers().contains_key("anthropic-version") {
            Audience::Anthropic
        } else if request.path().starts_with("/api/") {
            Audience::Wallet
        } else {
            Audience::Everybody
        }
    }
}

/// `GET …/models`. Credentials are no business of this route, and bad ones no trouble.
pub async fn models(request: HttpRequest) -> HttpResponse {
    with_edge(&request, |edge| {
        let catalogue = &edge.gateway.catalogue;
        let list = match Audience::of(&request) {
            Audience::Anthropic => a_page_of(catalogue, request.query_string()),
            Audience::Wallet => those_of_a_type(catalogue, request.query_string()),
            Audience::Everybody => Ok(catalogue.list()),
        };
        match list {
            Ok(list) => HttpResponse::Ok().json(list),
            Err(error) => respond::refuse(&request, error.into()),
        }
    })
}

/// `GET …/models/{id}`, where an id may have slashes.
pub async fn model(request: HttpRequest, id: web::Path<String>) -> HttpResponse {
    with_edge(&request, |edge| match (edge.gateway.catalogue.sold(&id), Audience::of(&request)) {
        (Ok(model), Audience::Anthropic) => HttpResponse::Ok().json(model.anthropic_entry()),
        (Ok(model), Audience::Wallet) => HttpResponse::Ok().json(model.wallet_entry()),
        (Ok(model), Audience::Everybody) => HttpResponse::Ok().json(model.entry()),
        (Err(error), _) => respond::refuse(&request, error.into()),
    })
}

/// The most entries that are asked for at once.
const MOST_ENTRIES: usize = 1000;

fn a_page_of(catalogue: &Catalogue, query: &str) -> Result<Value, Error> {
    let mut page = Page::default();
    for (name, value) in parameters(query)? {
        match name.as_str() {
            "limit" => {
                let limit = value.parse().ok().filter(|limit| (1..=MOST_ENTRIES).contains(limit));
                let wrong = || bad_parameter("limit", &format!("not a number from 1 to {MOST_ENTRIES}"));
                page.limit = Some(limit.ok_or_else(wrong)?);
            }
            "after_id" => page.after = Some(value),
            "before_id" => page.before = Some(value),
            _ => {}
        }
    }
    catalogue.anthropic_list(&page).map_err(|WrongPage { param, why }| bad_parameter(param, why))
}

fn those_of_a_type(catalogue: &Catalogue, query: &str) -> Result<Value, Error> {
    let parameters = parameters(query)?;
    let wanted = parameters.iter().find(|(name, _)| name == "type").map_or("all", |(_, value)| value);
    catalogue.wallet_list(wanted).ok_or_else(|| bad_parameter("type", &format!("not one of {}", Kind::WALLET_NAMES)))
}

/// What the query of a request says, decoded.
fn parameters(query: &str) -> Result<Vec<(String, String)>, Error> {
    let pairs = web::Query::<Vec<(String, String)>>::from_query(query);
    pairs
        .map(web::Query::into_inner)
        .map_err(|_| Error::new(Code::InvalidRequest, "the query cannot be read; write ?name=value&…"))
}

fn bad_parameter(param: &'static str, why: &str) -> Error {
    Error::new(Code::InvalidRequest, format!("{param} in the query is {why}")).param(param)
}

/// The price list, and on which routes each model is sold.
pub async fn pricing(request: HttpRequest) -> HttpResponse {
    with_edge(&request, |edge| {
        let catalogue = &edge.gateway.catalogue;
        let mut list = catalogue.pricing();
        if let (Some(worker), Some(entries)) = (request.app_data::<Rc<Worker>>(), list["data"].as_array_mut()) {
            for (entry, model) in entries.iter_mut().zip(catalogue.models()) {
                entry["routes"] = routes_of(&worker.upstreams, model).into();
            }
        }
        HttpResponse::Ok().json(list)
    })
}

fn routes_of(upstreams: &Upstreams, model: &Model) -> Vec<String> {
    let sold = |goods: &Goods| goods.sells(model.kind) && upstreams.forms(&model.upstreams, *goods).is_ok();
    routes::paid_routes().map(|route| route.goods).filter(sold).map(|goods| format!("/v1{}", goods.path())).collect()
}

pub async fn not_found(request: HttpRequest) -> HttpResponse {
    let path: String = request.path().chars().take(80).collect();
    let message = format!(
        "there is nothing at {path:?}; GET /openapi.json lists all there is, such as POST /v1/chat/completions, /v1/messages and \
         /v1/responses, and GET /v1/models the models"
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

/// The answer to every method but those that are `allowed`.
pub fn wrong_method(request: &HttpRequest, allowed: &str) -> HttpResponse {
    let error = Error::new(
        Code::MethodNotAllowed,
        format!("{} is not possible at this address; use {}", shown_method(request), allowed.trim_end_matches(", OPTIONS")),
    );
    let mut response = respond::refuse(request, error.into());
    if let Ok(allowed) = header::HeaderValue::from_str(allowed) {
        response.headers_mut().insert(header::ALLOW, allowed);
    }
    response
}

fn shown_method(request: &HttpRequest) -> String {
    request.method().as_str().chars().take(20).collect()
}

pub(super) fn with_edge(request: &HttpRequest, answer: impl FnOnce(&Edge) -> HttpResponse) -> HttpResponse {
    match request.app_data::<Rc<Edge>>() {
        Some(edge) => answer(edge),
        None => respond::refuse(request, Error::new(Code::Internal, "the server is not set up").into()),
    }
}
