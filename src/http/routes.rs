//! The route table: every paid route is one row, served under `/v1` and under `/api/v1`.

use actix_web::web::{self, ServiceConfig};

use super::{paid, public};
use crate::dialect::{Dialect, ErrorShape};

/// One paid route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    /// Below the prefix.
    path: &'static str,
    pub dialect: Dialect,
}

const PAID: [Route; 2] =
    [Route { path: "/chat/completions", dialect: Dialect::OpenAi }, Route { path: "/messages", dialect: Dialect::Anthropic }];

const PREFIXES: [&str; 2] = ["/v1", "/api/v1"];

pub fn configure(app: &mut ServiceConfig) {
    app.service(resource("/healthz", web::get().to(public::healthz)));
    for prefix in PREFIXES {
        for route in PAID {
            let handler = move |request, payload| paid::paid(route, request, payload);
            let path = format!("{prefix}{}", route.path);
            app.service(web::resource(path).route(web::post().to(handler)).default_service(web::to(public::post_only)));
        }
        app.service(resource(&format!("{prefix}/models"), web::get().to(public::models)));
        app.service(resource(&format!("{prefix}/models/{{id:.+}}"), web::get().to(public::model)));
        app.service(resource(&format!("{prefix}/pricing"), web::get().to(public::pricing)));
    }
}

fn resource(path: &str, get: actix_web::Route) -> actix_web::Resource {
    web::resource(path).route(get).route(web::head().to(public::head)).default_service(web::to(public::get_only))
}

/// The shape of errors on a path: flat below `/api`, Anthropic's on messages, OpenAI's elsewhere.
pub fn error_shape(path: &str) -> ErrorShape {
    if path.starts_with("/api/") {
        ErrorShape::Flat
    } else if path.starts_with("/v1/messages") {
        ErrorShape::Anthropic
    } else {
        ErrorShape::OpenAi
    }
}
