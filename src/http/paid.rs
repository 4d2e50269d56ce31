//! The one handler behind every paid route: read the body within its bound, take the credentials, sell.

use std::rc::Rc;
use std::sync::Arc;

use actix_web::error::PayloadError;
use actix_web::http::header::{self, HeaderMap};
use actix_web::{HttpRequest, HttpResponse, web};
use bytes::Bytes;
use futures_util::StreamExt as _;
use tokio::time::Instant;

use super::credentials::credentials;
use super::respond::{self, Edge};
use super::routes::{Route, error_shape};
use crate::buffer::Buffer;
use crate::config::Limits;
use crate::dialect::{Dialect, ErrorShape, Goods};
use crate::error::{Code, Error};
use crate::gateway::{Call, Gateway, Refusal, Worker, serve};
use crate::ids::JobId;
use crate::upstream::forwardable;

pub async fn paid(route: Route, request: HttpRequest, payload: web::Payload) -> HttpResponse {
    match sell(route, &request, payload).await {
        Ok(mut served) => {
            if knows_failed_responses(route, &request) {
                served.body.end_with_its_words();
            }
            respond::served(served)
        }
        Err(refusal) => respond::refuse(&request, refusal),
    }
}

/// OpenAI ends a response that failed like any other, after an event that says so, and Codex reads that event only then. Wallet
/// clients, which have a prefix of their own, do not know it and need a connection that breaks, as those of other dialects do.
fn knows_failed_responses(route: Route, request: &HttpRequest) -> bool {
    route.goods == Goods::Words(Dialect::Responses) && error_shape(request.path()) == ErrorShape::OpenAi
}

async fn sell(route: Route, request: &HttpRequest, payload: web::Payload) -> Result<crate::gateway::Served, Refusal> {
    let (Some(worker), Some(edge)) = (request.app_data::<Rc<Worker>>(), request.app_data::<Rc<Edge>>()) else {
        return Err(Error::new(Code::Internal, "the server is not set up").into());
    };
    let limits = &worker.gateway.limits;
    let arrived = Instant::now();
    let deadline = arrived + limits.wall_clock;
    let credentials = credentials(request.headers());
    if !credentials.payments.is_empty() {
        let bucket = edge.limits.payment(respond::source(edge, request));
        bucket.map_err(|seconds| respond::slow_down(respond::TOO_MANY_PAYMENTS, seconds))?;
    }
    // Held until the answer's head, from when on the body is on its way to the upstream, and by all that works on it.
    let mut memory = edge.bodies.share_for(respond::source(edge, request), worker.upstreams.copies(route.goods));
    let may_be_form = route.goods.takes_forms();
    let body = body(request.headers(), payload, limits, may_be_form, |length| memory.grow(length)).await?;
    let call = Call {
        request: respond::request_id(request),
        goods: route.goods,
        content_type: text(request.headers(), header::CONTENT_TYPE),
        path: request.path().to_owned(),
        query: Some(request.query_string()).filter(|query| !query.is_empty()).map(str::to_owned),
        body,
        memory: Arc::new(memory),
        credentials,
        headers: forwarded(request.headers()),
        arrived,
        job: if route.goods.is_job() { Some(fresh_job(&edge.gateway)?) } else { None },
        deadline,
    };
    if call.job.is_none() {
        return serve(worker, call).await;
    }
    // What an upstream was asked to make it makes, whether its buyer waits for the answer or not: the order goes on without it,
    // and the job is found in the list of its wallet.
    let (worker, order) = (Rc::clone(worker), edge.orders.begin());
    let ordered = actix_web::rt::spawn(async move {
        let served = serve(&worker, call).await;
        drop(order);
        served
    });
    match ordered.await {
        Ok(served) => served,
        Err(error) => {
            let error =
                Error::new(Code::Internal, "the order was given up; ask for the jobs of your wallet").because(error.to_string());
            Err(error.into())
        }
    }
}

/// A name for a job, which nobody may guess.
fn fresh_job(gateway: &Gateway) -> Result<JobId, Error> {
    let mut random = [0; 10];
    getrandom::fill(&mut random).map_err(|error| {
        let message = "there is no randomness for the name of a job; nothing was charged";
        Error::new(Code::Internal, message).because(error.to_string())
    })?;
    Ok(JobId::new(gateway.clock().now(), random))
}

/// The part of its time for which a body may make no progress.
const STALL: u32 = 4;

fn forwarded(headers: &HeaderMap) -> Vec<(String, String)> {
    let text = |(name, value): (&header::HeaderName, &header::HeaderValue)| {
        Some((name.as_str().to_owned(), value.to_str().ok()?.to_owned()))
    };
    headers.iter().filter(|(name, _)| forwardable(name.as_str())).filter_map(text).collect()
}

/// The body of a request, within its bounds of size, time and memory, if it can be JSON or, where that is taken, a form.
pub async fn body(
    headers: &HeaderMap,
    payload: web::Payload,
    limits: &Limits,
    may_be_form: bool,
    has_room: impl FnMut(usize) -> bool,
) -> Result<Bytes, Error> {
    check_encoding(headers)?;
    let body = tokio::time::timeout(limits.body_time, read(headers, payload, limits, has_room)).await.map_err(|_| {
        let seconds = limits.body_time.as_secs();
        Error::new(Code::RequestTimeout, format!("the body did not arrive within {seconds} s; send the request again"))
    })??;
    check_media_type(headers, &body, may_be_form)?;
    Ok(body)
}

/// The body must come as it is: an encoding would hide its size.
fn check_encoding(headers: &HeaderMap) -> Result<(), Error> {
    match lower_case(headers, header::CONTENT_ENCODING).as_str() {
        "" | "identity" => Ok(()),
        encoding => {
            let message = format!("the body has Content-Encoding {:?}; send it as it is, without that header", shown(encoding));
            Err(Error::new(Code::UnsupportedMediaType, message))
        }
    }
}

/// JSON is read whatever it is called, because retrying clients lose the header and `curl -d` calls it a form; a form is
/// refused as one, where none with files is taken.
fn check_media_type(headers: &HeaderMap, body: &[u8], may_be_form: bool) -> Result<(), Error> {
    let media_type = lower_case(headers, header::CONTENT_TYPE);
    let forms = ["multipart/", "application/x-www-form-urlencoded"];
    let is_form = forms.iter().any(|kind| media_type.starts_with(kind));
    let is_taken = may_be_form && media_type.starts_with("multipart/form-data");
    if is_form && !is_taken && !body.trim_ascii_start().starts_with(b"{") {
        let or = if may_be_form { ", or multipart/form-data" } else { "" };
        let message =
            format!("the body is {:?}; send one JSON object, with Content-Type: application/json{or}", shown(&media_type));
        return Err(Error::new(Code::UnsupportedMediaType, message));
    }
    Ok(())
}

/// What a caller sent, short enough to be said back.
fn shown(text: &str) -> String {
    text.chars().take(60).collect()
}

fn lower_case(headers: &HeaderMap, name: header::HeaderName) -> String {
    text(headers, name).to_ascii_lowercase()
}

fn text(headers: &HeaderMap, name: header::HeaderName) -> String {
    headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default().to_owned()
}

/// Why a body did not come to its end: whoever sent it is gone and reads this no more, or (RFC 9112 section 7.1) its chunks
/// are framed wrongly, which sending it again would not change.
fn broken_off(headers: &HeaderMap, error: &PayloadError) -> Error {
    let refusal = match headers.contains_key(header::TRANSFER_ENCODING) {
        true => Error::new(
            Code::InvalidRequest,
            "the body ended too early or its chunks are not framed as HTTP/1.1 says; send it with a Content-Length instead of \
             Transfer-Encoding: chunked",
        ),
        false => Error::new(Code::RequestTimeout, "the body ended before its Content-Length; send the request again"),
    };
    refusal.because(error.to_string())
}

/// Bytes that a body is given room for before any of it has come.
const FIRST_ROOM: usize = 1024 * 1024;

/// Reads the body, refusing one that is announced or turns out too long, or that the memory for bodies has no room for.
async fn read(
    headers: &HeaderMap,
    mut payload: web::Payload,
    limits: &Limits,
    mut has_room: impl FnMut(usize) -> bool,
) -> Result<Bytes, Error> {
    let limit = limits.max_body;
    let too_large =
        |length: &str| Error::new(Code::RequestTooLarge, format!("the body has {length} bytes; send one of at most {limit}"));
    let announced =
        headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()).and_then(|text| text.parse::<usize>().ok());
    if let Some(length) = announced.filter(|length| *length > limit) {
        return Err(too_large(&length.to_string()));
    }
    // What is announced takes memory only as it arrives, and room only as there is some for it.
    let mut body = Buffer::with_capacity(announced.unwrap_or(0).min(FIRST_ROOM));
    loop {
        let patience = limits.body_time / STALL;
        let chunk = tokio::time::timeout(patience, payload.next()).await;
        let chunk = chunk.map_err(|_| {
            let seconds = patience.as_secs();
            Error::new(Code::RequestTimeout, format!("nothing more of the body came for {seconds} s; send the request again"))
        })?;
        let Some(chunk) = chunk else { return Ok(body.freeze()) };
        let chunk = chunk.map_err(|error| broken_off(headers, &error))?;
        if body.len() + chunk.len() > limit {
            return Err(too_large(&format!("more than {limit}")));
        }
        if !has_room(body.len() + chunk.len()) {
            return Err(Error::new(
                Code::Busy,
                "too many large requests are arriving at the moment; nothing was charged, send this one again in 1 s",
            )
            .retry_after(1));
        }
        body.put_slice(&chunk);
    }
}
