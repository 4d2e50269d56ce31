//! The route table: every paid route is one row, served under `/v1` and under `/api/v1`.

use actix_web::dev::ServiceRequest;
use actix_web::http::Uri;
use actix_web::http::uri::PathAndQuery;
use actix_web::web::{self, ServiceConfig};
use actix_web::{FromRequest, Handler, HttpRequest, HttpResponse, Resource, guard};

use super::{accounts, jobs, paid, public, topup, wallet};
use crate::dialect::{Dialect, ErrorShape, Goods, Task};

/// One paid route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub goods: Goods,
}

/// What is sold, each on the path that it has below the prefixes.
fn paid_routes() -> impl Iterator<Item = Route> {
    let words = [Dialect::Chat, Dialect::Messages].into_iter().map(Goods::Words);
    let media = Task::ALL.into_iter().map(Goods::Media);
    words.chain(media).map(|goods| Route { goods })
}

const PREFIXES: [&str; 2] = ["/v1", "/api/v1"];

/// Routes are tried in this order, and no request fits two: those of calls come first.
pub fn configure(app: &mut ServiceConfig) {
    for prefix in PREFIXES {
        for route in paid_routes() {
            let handler = move |request, payload| paid::paid(route, request, payload);
            let path = format!("{prefix}{}", route.goods.path());
            app.service(web::resource(path).route(web::post().to(handler)).default_service(web::to(public::post_only)));
        }
    }
    app.service(reads("/healthz", public::healthz));
    owners(app);
    for prefix in PREFIXES {
        bought(app, prefix);
        let top_up = web::resource(format!("{prefix}/x402/top-up"));
        app.service(top_up.route(web::post().to(topup::top_up)).default_service(web::to(public::post_only)));
        app.service(reads(&format!("{prefix}/x402/balance/{{wallet}}"), wallet::balance));
        app.service(reads(&format!("{prefix}/x402/transactions/{{wallet}}"), wallet::transactions));
        app.service(reads(&format!("{prefix}/models"), public::models));
        app.service(reads(&format!("{prefix}/models/{{id:.+}}"), public::model));
        app.service(reads(&format!("{prefix}/pricing"), public::pricing));
        app.service(reads(&format!("{prefix}/key"), accounts::own_key));
    }
}

/// What a buyer may ask of the jobs it bought, and what one would cost.
fn bought(app: &mut ServiceConfig, prefix: &str) {
    for (family, task) in [("audio", Task::AudioQueue), ("video", Task::VideoQueue)] {
        let posts = |name: &str| web::resource(format!("{prefix}/{family}/{name}")).default_service(web::to(public::post_only));
        let retrieve = move |request, payload| jobs::retrieve(task, request, payload);
        app.service(posts("retrieve").route(web::post().to(retrieve)));
        let complete = move |request, payload| jobs::complete(task, request, payload);
        app.service(posts("complete").route(web::post().to(complete)));
        let quote = move |request, payload| jobs::quote(task, request, payload);
        app.service(posts("quote").route(web::post().to(quote)));
    }
    app.service(reads(&format!("{prefix}/videos/{{id}}"), jobs::video));
    app.service(reads(&format!("{prefix}/videos/{{id}}/content"), jobs::content));
    app.service(reads(&format!("{prefix}/jobs"), jobs::list));
}

/// Makes `//api/v1/…` the `/api/v1/…` that is meant: so it is asked for by clients that were given an address with a slash at
/// its end. Before routing, and so before the shape of an error is chosen.
pub fn collapse_leading_slashes(request: &mut ServiceRequest) {
    let Some(target) = request.uri().path_and_query().map(PathAndQuery::as_str).filter(|target| target.starts_with("//")) else {
        return;
    };
    let Ok(target) = format!("/{}", target.trim_start_matches('/')).parse::<PathAndQuery>() else { return };
    let mut parts = request.uri().clone().into_parts();
    parts.path_and_query = Some(target);
    if let Ok(uri) = Uri::from_parts(parts) {
        request.match_info_mut().get_mut().update(&uri);
        request.head_mut().uri = uri;
    }
}

/// What an account's owner may do, signed in.
fn owners(app: &mut ServiceConfig) {
    let only =
        |allowed: &'static str| web::to(move |request: HttpRequest| async move { public::wrong_method(&request, allowed) });
    let session = web::resource("/api/session").route(web::post().to(accounts::open_session));
    app.service(session.route(web::delete().to(accounts::close_session)).default_service(only("POST, DELETE, OPTIONS")));
    let keys = web::resource("/api/keys").route(web::route().guard(reading()).to(accounts::list_keys));
    app.service(keys.route(web::post().to(accounts::mint_key)).default_service(only("GET, HEAD, POST, OPTIONS")));
    let key = web::resource("/api/keys/{id}").route(web::patch().to(accounts::change_key));
    app.service(key.default_service(only("PATCH, OPTIONS")));
    let revoke = web::resource("/api/keys/{id}/revoke").route(web::post().to(accounts::revoke_key));
    app.service(revoke.default_service(web::to(public::post_only)));
    let rotate = web::resource("/api/keys/{id}/rotate").route(web::post().to(accounts::rotate_key));
    app.service(rotate.default_service(web::to(public::post_only)));
    app.service(reads("/api/account", accounts::show_account));
    app.service(reads("/api/usage", accounts::usage));
    app.service(reads("/api/transactions", accounts::transactions));
    app.service(reads("/api/receipts/{id}", accounts::receipt));
}

fn reading() -> impl guard::Guard {
    guard::Any(guard::Get()).or(guard::Head())
}

/// A route that is only read. `HEAD` is answered as `GET` is, without the body.
fn reads<H, A>(path: &str, handler: H) -> Resource
where
    H: Handler<A, Output = HttpResponse>,
    A: FromRequest + 'static,
{
    let route = web::route().guard(reading());
    web::resource(path).route(route.to(handler)).default_service(web::to(public::get_only))
}

/// The shape of errors on a path: the wallet clients' on theirs, Anthropic's on messages, OpenAI's elsewhere.
pub fn error_shape(path: &str) -> ErrorShape {
    if path.ends_with("/x402/top-up") {
        ErrorShape::TopUp
    } else if path.starts_with("/api/v1/") || path.starts_with("/v1/x402/") {
        ErrorShape::Flat
    } else if path.starts_with("/v1/messages") {
        ErrorShape::Anthropic
    } else {
        ErrorShape::OpenAi
    }
}
