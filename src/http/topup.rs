//! The top-up route: the offer for who brings no payment, and for who does the balance that it has become.

use std::rc::Rc;

use actix_web::{HttpRequest, HttpResponse, web};
use futures_util::StreamExt as _;
use serde_json::{Map, Value};

use super::credentials::credentials;
use super::respond::{self, Edge};
use crate::error::{Code, Error};
use crate::gateway::{Refusal, TopUp, ToppedUp, top_up as take};

/// Bytes of a body, which nobody reads, that are let by.
const MOST_BODY: usize = 64 * 1024;

pub async fn top_up(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    match answer(&request, payload).await {
        Ok(topped_up) => respond_with(&topped_up),
        Err(refusal) => respond::refuse(&request, refusal),
    }
}

async fn answer(request: &HttpRequest, payload: web::Payload) -> Result<ToppedUp, Refusal> {
    let Some(edge) = request.app_data::<Rc<Edge>>() else {
        return Err(Error::new(Code::Internal, "the server is not set up").into());
    };
    let credentials = credentials(request.headers());
    if !credentials.payments.is_empty() {
        let bucket = edge.limits.top_up(respond::source(edge, request));
        bucket.map_err(|seconds| respond::slow_down(respond::TOO_MANY_PAYMENTS, seconds))?;
    }
    let limits = &edge.gateway.limits;
    tokio::time::timeout(limits.body_time, pass_over(payload)).await.map_err(|_| {
        let seconds = limits.body_time.as_secs();
        Error::new(Code::RequestTimeout, format!("the body did not arrive within {seconds} s; a top-up needs none"))
    })??;
    let call = TopUp { request: respond::request_id(request), path: request.path().to_owned(), credentials };
    take(&edge.gateway, &call).await
}

/// Lets the body by: what a top-up is worth is in the payment, and nothing else is asked.
async fn pass_over(mut payload: web::Payload) -> Result<(), Error> {
    let mut passed = 0;
    while let Some(chunk) = payload.next().await {
        let chunk = chunk.map_err(|error| {
            let refusal = Error::new(Code::RequestTimeout, "the body broke off; a top-up needs none, send it without");
            refusal.because(error.to_string())
        })?;
        passed += chunk.len();
        if passed > MOST_BODY {
            let message = format!("the body has more than {MOST_BODY} bytes, and a top-up needs none; send it without");
            return Err(Error::new(Code::RequestTooLarge, message));
        }
    }
    Ok(())
}

fn respond_with(topped_up: &ToppedUp) -> HttpResponse {
    let (receipt, version) = &topped_up.receipt;
    let mut response = HttpResponse::Ok();
    respond::insert_receipt(&mut response, receipt, *version);
    let mut data = Map::new();
    data.insert("walletAddress".into(), topped_up.wallet.address().into());
    data.insert("amountCredited".into(), topped_up.credited.as_usd().into());
    if let Some(balance) = topped_up.balance {
        data.insert("newBalance".into(), balance.as_usd().into());
    }
    data.insert("paymentId".into(), topped_up.payment.to_string().into());
    let body: Map<_, Value> = [("success".into(), true.into()), ("data".into(), data.into())].into_iter().collect();
    response.json(body)
}
