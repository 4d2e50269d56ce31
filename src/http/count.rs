//! Counting the input of a message before it is bought: free, by our own estimate, and asked of nobody.

use std::rc::Rc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::json;

use super::paid::body;
use super::respond::{self, Edge};
use crate::dialect::Request;
use crate::error::{Code, Error};

pub async fn count_tokens(request: HttpRequest, payload: web::Payload) -> HttpResponse {
    match count(&request, payload).await {
        Ok(tokens) => HttpResponse::Ok().json(json!({ "input_tokens": tokens })),
        Err(error) => respond::refuse(&request, error.into()),
    }
}

/// The tokens that the request's input is taken for where an upstream reports none.
async fn count(request: &HttpRequest, payload: web::Payload) -> Result<u64, Error> {
    let Some(edge) = request.app_data::<Rc<Edge>>() else {
        return Err(Error::new(Code::Internal, "the server is not set up"));
    };
    let mut memory = edge.bodies.share(respond::source(edge, request));
    let body = body(request.headers(), payload, &edge.gateway.limits, false, |length| memory.grow(length)).await?;
    let counted = Request::read_to_count(&body)?;
    let model = edge.gateway.catalogue.sold(counted.model())?;
    Ok(counted.estimate(model).max(1))
}
