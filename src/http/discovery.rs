//! What crawlers read of this gateway: `GET /.well-known/x402`, which names every paid route and how it is paid, and the API's
//! own document. Neither asks the ledger or a chain anything.

use std::cell::{OnceCell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use actix_web::http::header;
use actix_web::{HttpRequest, HttpResponse};
use bytes::Bytes;
use serde_json::{Value, json};

use super::openapi::{self, About};
use super::respond::{self, Edge};
use super::routes;
use super::table::{Access, Row};
use crate::catalogue::Model;
use crate::dialect::Goods;
use crate::error::{Code, Error};
use crate::gateway::Worker;
use crate::money::Micros;

/// For how long a list of what is sold is good enough: networks come and go.
const GOOD_FOR: Duration = Duration::from_secs(60);
/// For how long whoever reads it may keep it, in seconds.
const KEEP: &str = "public, max-age=300";

/// What ordinary calls are quoted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Prices {
    pub least: Micros,
    pub most: Micros,
}

/// The documents as one worker has made them.
#[derive(Default)]
pub struct Documents {
    openapi: OnceCell<Bytes>,
    discovery: RefCell<Option<(Instant, Bytes)>>,
}

/// `GET /openapi.json`.
pub async fn openapi(request: HttpRequest) -> HttpResponse {
    show(&request, |worker, edge| {
        let document = || {
            let prepaid = &worker.gateway.prepaid;
            let about = About {
                url: &worker.gateway.public_url,
                prices: &|goods| prices(worker, goods),
                top_up: Prices { least: prepaid.top_up_minimum, most: prepaid.top_up_maximum },
            };
            Bytes::from(openapi::document(&routes::rows(), &about).to_string())
        };
        edge.documents.openapi.get_or_init(document).clone()
    })
}

/// `GET /.well-known/x402`.
pub async fn discovery(request: HttpRequest) -> HttpResponse {
    show(&request, |worker, edge| {
        let mut kept = edge.documents.discovery.borrow_mut();
        match kept.as_ref().filter(|(made, _)| made.elapsed() < GOOD_FOR) {
            Some((_, document)) => document.clone(),
            None => {
                let document = Bytes::from(resources(worker, &routes::rows()).to_string());
                *kept = Some((Instant::now(), document.clone()));
                document
            }
        }
    })
}

fn show(request: &HttpRequest, document: impl FnOnce(&Worker, &Edge) -> Bytes) -> HttpResponse {
    let (Some(worker), Some(edge)) = (request.app_data::<Rc<Worker>>(), request.app_data::<Rc<Edge>>()) else {
        return respond::refuse(request, Error::new(Code::Internal, "the server is not set up").into());
    };
    let body = document(worker, edge);
    HttpResponse::Ok().insert_header((header::CACHE_CONTROL, KEEP)).content_type("application/json").body(body)
}

/// The models that are sold on a route.
fn on_sale(worker: &Worker, goods: Goods) -> impl Iterator<Item = &Model> {
    let models = worker.gateway.catalogue.models().iter();
    models.filter(move |model| goods.sells(model.kind) && worker.upstreams.forms(&model.upstreams, goods).is_ok())
}

fn prices(worker: &Worker, goods: Goods) -> Option<Prices> {
    let quotes = || on_sale(worker, goods).map(Model::typical_quote);
    Some(Prices { least: quotes().min()?, most: quotes().max()? })
}

/// One entry for each paid route on which something is sold: as x402's own lists of discovered resources have them, with the
/// plain list of addresses that other crawlers read beside it.
fn resources(worker: &Worker, rows: &[Row]) -> Value {
    let gateway = &worker.gateway;
    // The same routes once more, with errors of another shape, are not worth a second entry.
    let listed = rows.iter().filter(|row| row.path.starts_with("/v1/"));
    let items: Vec<_> = listed.filter_map(|row| entry(worker, row)).collect();
    let resources: Vec<_> = items.iter().map(|item| item["resource"].clone()).collect();
    let total = items.len();
    let url = |path: &str| format!("{}{path}", gateway.public_url);
    json!({
        "x402Version": 2,
        "version": 1,
        "name": "Farebox",
        "description": "Inference for USDC: pay for each call, or from the balance of a wallet.",
        "resources": resources,
        "items": items,
        "pagination": { "limit": total, "offset": 0, "total": total },
        "openapi": url("/openapi.json"),
        "models": url("/v1/models"),
        "pricing": url("/v1/pricing"),
    })
}

fn entry(worker: &Worker, row: &Row) -> Option<Value> {
    let gateway = &worker.gateway;
    let paid = |access: Access| match access {
        Access::Buyer(goods) => {
            let cheapest = on_sale(worker, goods).min_by_key(|model| model.typical_quote())?;
            let note = format!(
                "what an ordinary call of {} is quoted, the cheapest model on this route; the 402 to a request names what it costs at \
                 most",
                cheapest.id
            );
            Some((cheapest.typical_quote(), note))
        }
        Access::TopUp => {
            Some((gateway.prepaid.top_up_minimum, "the least that a top-up may bring; the payer decides".to_owned()))
        }
        _ => None,
    };
    let (operation, (amount, note)) = row.operations.iter().find_map(|operation| Some((operation, paid(operation.access)?)))?;
    let accepts = gateway.chains.templates(amount, gateway.payments.max_timeout_seconds);
    Some(json!({
        "resource": format!("{}{}", gateway.public_url, row.path),
        "type": "http",
        "method": operation.method.name(),
        "x402Version": 2,
        "description": operation.does,
        "mimeType": "application/json",
        "accepts": accepts,
        "lastUpdated": gateway.clock().now().to_rfc3339(),
        "metadata": { "amount": note },
    }))
}
