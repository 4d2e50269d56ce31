//! What every answer carries: a request id, CORS, and for a refusal the error in the route's own shape with the offer.

use std::cell::RefCell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use actix_web::body::{BodyStream, BoxBody, SizedStream};
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};
use actix_web::http::{Method, StatusCode};
use actix_web::{HttpMessage as _, HttpRequest, HttpResponse, HttpResponseBuilder};
use tokio::sync::Semaphore;

use super::discovery::Documents;
use super::orders::Orders;
use super::pages::Pages;
use super::payment_required::PaymentRequired;
use super::routes::error_shape;
use super::{BodyMemory, RateLimits};
use crate::dialect::{ErrorShape, error_body};
use crate::error::{Code, Error};
use crate::fault;
use crate::gateway::{Gateway, Refusal, Served};
use crate::ids::RequestId;
use crate::ledger::Standing;
use crate::metrics;
use crate::x402::sign_in::Challenge;
use crate::x402::{OFFER_HEADER, RECEIPT_HEADERS, Receipt, Version};

/// What the edge knows about itself.
pub struct Edge {
    pub gateway: Arc<Gateway>,
    pub limits: Arc<RateLimits>,
    pub bodies: Arc<BodyMemory>,
    /// Turns of changes of keys, each of which waits for the disk.
    pub turns: Arc<Semaphore>,
    /// What people open in a browser.
    pub pages: Arc<Pages>,
    /// The orders of jobs that are under way on this thread.
    pub orders: Rc<Orders>,
    /// How the upstreams do.
    pub lots: RefCell<Lots>,
    pub documents: Documents,
}

/// Request headers a browser may send; the last two come from x402 clients, which send them on the paid retry.
const ALLOWED: &str = "content-type, authorization, x-api-key, anthropic-version, anthropic-beta, payment-signature, x-payment, \
                       x-402-payment, sign-in-with-x, x-sign-in-with-x, access-control-expose-headers, payment-retry";
/// Response headers a page may read.
const EXPOSED: &str = "PAYMENT-REQUIRED, PAYMENT-RESPONSE, X-PAYMENT-RESPONSE, X-Request-Id, Request-Id, X-Balance-Remaining, \
                       X-Allowance-Remaining, Retry-After";
/// What an answer depends on besides its URL.
const VARY: &str =
    "Anthropic-Version, Authorization, X-Api-Key, Payment-Signature, X-Payment, X-402-Payment, X-Sign-In-With-X, Sign-In-With-X";
const BALANCE: HeaderName = HeaderName::from_static("x-balance-remaining");
const ALLOWANCE: HeaderName = HeaderName::from_static("x-allowance-remaining");
const FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const SHOULD_RETRY: HeaderName = HeaderName::from_static("x-should-retry");
/// Seconds to wait for trouble that passes and names no time of its own.
const RETRY_AFTER: u32 = 5;
/// The id of a request under the two names by which it is looked for: OpenAI's SDKs and ours read the first, Anthropic's the second.
const REQUEST_ID: [HeaderName; 2] = [HeaderName::from_static("x-request-id"), HeaderName::from_static("request-id")];

/// Names a request and takes its bucket. `Err` is the answer to a request that goes no further.
pub fn enter(edge: &Rc<Edge>, request: &mut ServiceRequest) -> Result<RequestId, (RequestId, Box<ServiceResponse>)> {
    let id = fresh_id(edge);
    request.extensions_mut().insert(id);
    let stop = |response: HttpResponse| Err((id, Box::new(ServiceResponse::new(request.request().clone(), response))));
    if request.method() == Method::OPTIONS {
        return stop(preflight());
    }
    if !matches!(request.path(), "/healthz" | "/readyz") && !edge.limits.request(source(edge, request.request())) {
        return stop(refuse(request.request(), slow_down("too many requests come from your address", 1).into()));
    }
    Ok(id)
}

/// Lets the request through and dresses the answer.
pub async fn leave<F>(
    passport: Result<RequestId, (RequestId, Box<ServiceResponse>)>,
    next: Option<F>,
    begun: Instant,
) -> Result<ServiceResponse, actix_web::Error>
where
    F: Future<Output = Result<ServiceResponse, actix_web::Error>>,
{
    let (id, mut response) = match (passport, next) {
        (Err((id, response)), _) => (id, *response),
        (Ok(id), Some(next)) => (id, next.await?),
        (Ok(_), None) => return Err(actix_web::error::ErrorInternalServerError("a request was neither stopped nor let through")),
    };
    dress(response.headers_mut(), id);
    // One of the route table, or none of them.
    let route = response.request().match_pattern();
    metrics::HEADS.of(&[route.as_deref().unwrap_or("none")]).took(begun.elapsed());
    Ok(response)
}

fn dress(headers: &mut HeaderMap, id: RequestId) {
    if let Ok(value) = HeaderValue::from_str(&id.to_string()) {
        for name in REQUEST_ID {
            headers.insert(name, value.clone());
        }
    }
    headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
    headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static(EXPOSED));
    headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store, private"));
    }
    headers.insert(header::VARY, HeaderValue::from_static(VARY));
}

fn preflight() -> HttpResponse {
    HttpResponse::NoContent()
        .insert_header((header::ACCESS_CONTROL_ALLOW_METHODS, "GET, POST, PATCH, DELETE, OPTIONS"))
        .insert_header((header::ACCESS_CONTROL_ALLOW_HEADERS, ALLOWED))
        .insert_header((header::ACCESS_CONTROL_MAX_AGE, "86400"))
        .finish()
}

/// Randomness of the ids of many requests, fetched at once: asking for it costs as much as a small read.
#[derive(Default)]
pub struct Lots(Vec<[u8; 10]>);

/// Ids for whose randomness is asked at once.
const LOTS: usize = 64;

impl Lots {
    fn draw(&mut self) -> [u8; 10] {
        if self.0.is_empty() {
            let mut random = [0; 10 * LOTS];
            if let Err(error) = getrandom::fill(&mut random) {
                // Time still tells requests apart; only guessing becomes easier, and an id opens nothing.
                tracing::error!(%error, "no randomness for request ids");
            }
            self.0.extend(random.as_chunks().0);
        }
        self.0.pop().unwrap_or_default()
    }
}

fn fresh_id(edge: &Edge) -> RequestId {
    RequestId::new(edge.gateway.clock().now(), edge.lots.borrow_mut().draw())
}

/// The id this request was given on entry.
pub fn request_id(request: &HttpRequest) -> RequestId {
    request.extensions().get::<RequestId>().copied().unwrap_or(RequestId(0))
}

/// The address a request counts for.
pub fn source(edge: &Edge, request: &HttpRequest) -> std::net::IpAddr {
    let peer = request.peer_addr().map_or(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), |peer| peer.ip());
    let forwarded = request.headers().get_all(FORWARDED_FOR).filter_map(|value| value.to_str().ok());
    edge.limits.source(peer, &forwarded.collect::<Vec<_>>())
}

/// The status of a code.
pub fn status(code: Code) -> StatusCode {
    StatusCode::from_u16(code.row().status).expect("every status of the table has three digits")
}

/// What is too much, when it is payments.
pub const TOO_MANY_PAYMENTS: &str = "too many payments come from your address, and this one was not used";

/// A 429 of ours: what is too much, and for how many seconds.
pub fn slow_down(what: &str, seconds: u32) -> Error {
    Error::new(Code::RateLimited, format!("{what}; send this one again in {seconds} s")).retry_after(seconds)
}

/// A refusal as an answer, in the shape of the path it was asked on. The operator hears its cause here, once.
pub fn refuse(request: &HttpRequest, refusal: Refusal) -> HttpResponse {
    let (id, shape) = (request_id(request), error_shape(request.path()));
    let Refusal { error, offer, receipt, remedy, model } = refusal;
    log(request, id, &error);
    metrics::REFUSALS.of(&[error.code.row().code]).count();
    let edge = request.app_data::<Rc<Edge>>();
    if let Some(edge) = edge {
        let gateway = &edge.gateway;
        gateway.failures.refused(gateway.clock().now(), id, &error, (request.path(), model));
    }
    let required = edge.zip(offer.as_ref()).map(|(edge, offer)| PaymentRequired::new(edge, request.path(), offer, remedy));
    let mut response = HttpResponse::build(status(error.code));
    if let Some(required) = &required {
        response.insert_header((OFFER_HEADER, required.header(&error)));
    }
    advise(&mut response, &error, receipt.is_some());
    if let Some((receipt, version)) = receipt {
        insert_receipt(&mut response, &receipt, version);
    }
    let top_up_begins = shape == ErrorShape::TopUp && error.code == Code::PaymentRequired;
    if let Some(required) = required.as_ref().filter(|_| top_up_begins) {
        return response.json(required.offer(&error, request.query_string()));
    }
    let mut body = error_body(shape, &error, id);
    if let Some(required) = &required {
        required.add_to(&mut body, shape);
    }
    response.json(body)
}

/// Puts a receipt under the names of both versions.
pub fn insert_receipt(response: &mut HttpResponseBuilder, receipt: &Receipt, version: Version) {
    let value = receipt.header(version);
    RECEIPT_HEADERS.iter().for_each(|name| _ = response.insert_header((*name, value.as_str())));
}

/// An invitation to sign in for what is at `path`.
pub fn challenge(edge: &Edge, path: &str) -> Challenge {
    let gateway = &edge.gateway;
    let mut nonce = [0; 16];
    if let Err(error) = getrandom::fill(&mut nonce) {
        // A wallet may sign any nonce that it has not used before, so this one serves one time less.
        tracing::error!(%error, "no randomness for a sign-in");
    }
    let uri = format!("{}{path}", gateway.public_url);
    Challenge::new(gateway.sign_in_rules(), &uri, &gateway.prepaid.sign_in_statement, nonce, gateway.clock().now())
}

/// Says what a wallet can spend, for an answer to its key or its sign-in: USD with six decimals.
pub fn show_standing(response: &mut HttpResponseBuilder, standing: &Standing) {
    response.insert_header((BALANCE, standing.available.to_string()));
    if standing.has_allowance {
        response.insert_header((ALLOWANCE, standing.allowance.to_string()));
    }
}

/// Says whether to send the same request again. Never once a payment was settled or may be: an SDK that retries would
/// meet a 402 and sign a second payment.
fn advise(response: &mut HttpResponseBuilder, error: &Error, settled: bool) {
    // Who brought no payment and waits for one of before to arrive is told when to come again.
    let waits_for_money = error.code == Code::PaymentInProgress && error.retry_after.is_some();
    let about_a_payment = matches!(error.code, Code::SettlementPending | Code::PaymentInProgress | Code::PaymentAlreadyUsed);
    let pays_twice = settled || (about_a_payment && !waits_for_money);
    match error.status() {
        _ if pays_twice => _ = response.insert_header((SHOULD_RETRY, "false")),
        400..=404 => _ = response.insert_header((SHOULD_RETRY, "false")),
        429 | 503 | 529 => _ = response.insert_header((SHOULD_RETRY, "true")),
        _ if waits_for_money => _ = response.insert_header((SHOULD_RETRY, "true")),
        _ => {}
    }
    let passing = matches!(error.status(), 429 | 503 | 529);
    let seconds = error.retry_after.or(passing.then_some(RETRY_AFTER));
    if let Some(seconds) = seconds.filter(|_| !pays_twice) {
        response.insert_header((header::RETRY_AFTER, seconds));
    }
}

fn log(request: &HttpRequest, id: RequestId, error: &Error) {
    let (code, status) = (error.code.row().code, error.status());
    let (method, path, reason) = (request.method().as_str(), request.path(), error.reason);
    match (&error.cause, status) {
        (Some(cause), _) => tracing::warn!(request.id = %id, method, path, status, code, reason, cause, "refused: {code}"),
        (None, 500..) => tracing::warn!(request.id = %id, method, path, status, code, reason, "refused: {code}"),
        (None, _) => tracing::debug!(request.id = %id, method, path, status, code, reason, "refused: {code}"),
    }
}

/// A served call as an answer: 200, the receipt, and the body as it comes.
pub fn served(served: Served) -> HttpResponse {
    fault::point("reply.before");
    let mut response = HttpResponse::Ok();
    if let Some((receipt, version)) = served.receipt {
        insert_receipt(&mut response, &receipt, version);
    }
    if let Some(standing) = &served.standing {
        show_standing(&mut response, standing);
    }
    match served.stream {
        true => event_stream(&mut response),
        false => _ = response.insert_header((header::CONTENT_TYPE, served.content_type)),
    }
    let body = match served.content_length {
        Some(length) => BoxBody::new(SizedStream::new(length, served.body)),
        None => BoxBody::new(BodyStream::new(served.body)),
    };
    response.body(body)
}

fn event_stream(response: &mut HttpResponseBuilder) {
    response
        .insert_header((header::CONTENT_TYPE, "text/event-stream"))
        .insert_header((header::CACHE_CONTROL, "no-cache, no-store, private"))
        // nginx would gather events into its buffers.
        .insert_header(("x-accel-buffering", "no"));
}
