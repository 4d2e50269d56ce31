//! The route table: every paid route is one row, served under `/v1` and under `/api/v1`.

use actix_web::dev::ServiceRequest;
use actix_web::guard;
use actix_web::http::Uri;
use actix_web::http::header;
use actix_web::http::uri::PathAndQuery;
use actix_web::web::{self, ServiceConfig};

use super::table::{Access, At, Row};
use super::{accounts, count, discovery, health, jobs, operator, pages, paid, public, topup, wallet};
use crate::dialect::{Answers, Dialect, ErrorShape, Goods, Task};

/// One paid route.
#[derive(Clone, Copy, Debug)]
pub struct Route {
    pub goods: Goods,
}

/// What is sold, each on the path that it has below the prefixes.
pub fn paid_routes() -> impl Iterator<Item = Route> {
    let words = Dialect::ALL.into_iter().map(Goods::Words);
    let media = Task::ALL.into_iter().map(Goods::Media);
    words.chain(media).map(|goods| Route { goods })
}

const PREFIXES: [&str; 2] = ["/v1", "/api/v1"];

/// Makes every route known to the server.
pub fn configure(app: &mut ServiceConfig) {
    lay(&mut |at| _ = app.service(at.resource()));
}

/// Every route, for the documents.
pub fn rows() -> Vec<Row> {
    let mut rows = Vec::new();
    lay(&mut |at| rows.push(at.row()));
    rows
}

/// The table. Routes are tried in this order, and no request fits two: those of calls come first.
fn lay(add: &mut dyn FnMut(At)) {
    for prefix in PREFIXES {
        for route in paid_routes() {
            let handler = move |request, payload| paid::paid(route, request, payload);
            let at = At::new(format!("{prefix}{}", route.goods.path()));
            let at = at.post(what_is_sold(route.goods), Access::Buyer(route.goods), handler);
            add(match route.goods {
                Goods::Words(Dialect::Responses) => at.quietly(web::get().guard(websocket()).to(public::no_websocket)),
                _ => at,
            });
        }
    }
    add(At::new("/healthz").get("Says whether calls are sold at the moment", Access::Anybody, health::healthz));
    add(At::new("/readyz").get("Says whether everything that is configured can be used", Access::Anybody, health::readyz));
    add(At::new("/openapi.json").get("This document", Access::Anybody, discovery::openapi));
    let listed = "Lists the paid routes and the ways to pay, for crawlers";
    add(At::new("/.well-known/x402").get(listed, Access::Anybody, discovery::discovery));
    for path in pages::paths() {
        add(At::new(path).page(pages::page));
    }
    owners(add);
    operators(add);
    for prefix in PREFIXES {
        below(prefix, add);
        bought(prefix, add);
    }
}

/// What is the same below each prefix.
fn below(prefix: &str, add: &mut dyn FnMut(At)) {
    let at = |path: &str| At::new(format!("{prefix}{path}"));
    let counted = "Counts the tokens of a prompt, for free";
    let count = at("/messages/count_tokens").post(counted, Access::Anybody, count::count_tokens);
    add(count.taking(&["model", "messages"], &["system", "tools", "tool_choice", "thinking"]));
    add(at("/responses/{tail:.*}").quietly(web::route().to(public::nothing_stored)));
    add(at("/x402/top-up").post("Makes a payment the balance of its payer", Access::TopUp, topup::top_up));
    add(at("/x402/balance/{wallet}").get("Says what a wallet can spend", Access::WalletOrKey, wallet::balance));
    let statement = at("/x402/transactions/{wallet}").get("The statement of a wallet", Access::Wallet, wallet::transactions);
    add(statement.asking(&["limit", "offset"]));
    let models =
        at("/models").get("Lists the models on sale, as each kind of client knows them", Access::Anybody, public::models);
    add(models.asking(&["type", "limit", "after_id", "before_id"]));
    add(at("/models/{id:.+}").get("One model on sale", Access::Anybody, public::model));
    add(at("/pricing").get("What everything costs", Access::Anybody, public::pricing));
    add(at("/key").get("What a key may still spend, and on what", Access::Key, accounts::own_key));
}

/// A few words for each paid route.
fn what_is_sold(goods: Goods) -> &'static str {
    match goods {
        Goods::Words(Dialect::Chat) => "Chat completions, as OpenAI has them",
        Goods::Words(Dialect::Messages) => "Messages, as Anthropic has them",
        Goods::Words(Dialect::Responses) => "Responses, as OpenAI has them; nothing is stored",
        Goods::Media(task) => match task {
            Task::Embeddings => "Embeddings, as OpenAI has them",
            Task::ImageGenerations => "Makes images, as OpenAI does",
            Task::ImageEdits => "Changes images, as OpenAI does",
            Task::ImageGenerate => "Makes images",
            Task::ImageUpscale => "Makes an image larger",
            Task::ImageEdit => "Changes an image",
            Task::ImageMultiEdit => "Makes one image of several",
            Task::ImageBackgroundRemove => "Takes the background from an image",
            Task::Speech => "Speaks a text",
            Task::Transcriptions => "Writes down what is said in a recording",
            Task::VideoTranscriptions => "Writes down what is said in a video",
            Task::AudioQueue => "Begins to make music",
            Task::VideoQueue => "Begins to make a video",
            Task::Videos => "Begins to make a video, as OpenAI does",
            Task::VideosGenerations => "The same, on the path that others have",
        },
    }
}

/// What a buyer may ask of the jobs it bought, and what one would cost.
fn bought(prefix: &str, add: &mut dyn FnMut(At)) {
    let at = |path: &str| At::new(format!("{prefix}{path}"));
    // The fields that decide a price, those without which there is none first.
    let [song, film] = [&["model", "duration_seconds"][..], &["model", "resolution", "audio"]];
    for (family, task, needed, others) in
        [("audio", Task::AudioQueue, &[][..], song), ("video", Task::VideoQueue, &["duration"], film)]
    {
        let at = |name: &str| at(&format!("/{family}/{name}"));
        let retrieve = move |request, payload| jobs::retrieve(task, request, payload);
        let at_retrieve = at("retrieve").post("Says how far a job is, or gives what it made", Access::WalletOrKey, retrieve);
        let at_retrieve = at_retrieve.taking(&["queue_id"], &["model", "delete_media_on_completion"]);
        add(at_retrieve.answering(Answers::JsonOrBytes));
        let complete = move |request, payload| jobs::complete(task, request, payload);
        let at_complete = at("complete").post("Says that a job is needed no more", Access::WalletOrKey, complete);
        add(at_complete.taking(&["queue_id"], &["model"]));
        let quote = move |request, payload| jobs::quote(task, request, payload);
        let at_quote = at("quote").post("What a job would cost at most", Access::Anybody, quote);
        add(at_quote.taking(needed, others));
    }
    let video = at("/videos/{id}").get("Says how far a video is", Access::WalletOrKey, jobs::video);
    add(video.delete("Says that a video is needed no more", Access::WalletOrKey, jobs::delete));
    let content = at("/videos/{id}/content").get("The video itself", Access::WalletOrKey, jobs::content);
    add(content.answering(Answers::Bytes));
    add(at("/jobs").get("Lists the jobs of a wallet", Access::WalletOrKey, jobs::list));
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
fn owners(add: &mut dyn FnMut(At)) {
    let session =
        At::new("/api/session").post("Opens a session for the wallet that signed in", Access::Wallet, accounts::open_session);
    add(session.delete("Ends the session", Access::Session, accounts::close_session));
    let keys = At::new("/api/keys").get("Lists the keys of the wallet", Access::Owner, accounts::list_keys);
    let keys = keys.post("Mints a key, which is shown this once", Access::Owner, accounts::mint_key);
    add(keys.taking(&["name"], &["spend_limit_usd", "reset", "models", "expires_at"]));
    let key = At::new("/api/keys/{id}").patch("Changes what a key may do", Access::Owner, accounts::change_key);
    add(key.taking(&[], &["name", "spend_limit_usd", "reset", "models", "expires_at"]));
    add(At::new("/api/keys/{id}/revoke").post("Ends a key for good", Access::Owner, accounts::revoke_key));
    let rotated = At::new("/api/keys/{id}/rotate").post("Gives a key another text", Access::Owner, accounts::rotate_key);
    add(rotated.taking(&[], &["grace_seconds"]));
    add(At::new("/api/account").get("The balance of the wallet", Access::Owner, accounts::show_account));
    let usage = At::new("/api/usage").get("What was used and charged, day by day", Access::Owner, accounts::usage);
    add(usage.asking(&["days"]));
    let statement = At::new("/api/transactions").get("The statement of the wallet", Access::Owner, accounts::transactions);
    add(statement.asking(&["limit", "offset"]));
    add(At::new("/api/receipts/{id}").get("What one call was charged", Access::Owner, accounts::receipt));
}

/// What an operator may look at, in a session of a wallet that the configuration names.
fn operators(add: &mut dyn FnMut(At)) {
    let at = |path: &str| At::new(format!("/api/operator/{path}"));
    let overview = "What is sold for now, what is on its way and what was earned, for an operator";
    add(at("overview").get(overview, Access::Session, operator::overview).asking(&["days"]));
    add(at("upstreams").get("How the upstreams do, for an operator", Access::Session, operator::upstreams));
    add(at("failures").get("What went wrong lately, for an operator", Access::Session, operator::failures));
    add(at("sales/{id}").get("One sale as a sequence of steps, for an operator", Access::Session, operator::sale));
}

/// Asked to go on as a WebSocket.
fn websocket() -> impl guard::Guard {
    guard::fn_guard(|context| {
        let upgrade = context.head().headers().get(header::UPGRADE).and_then(|value| value.to_str().ok());
        upgrade.is_some_and(|protocols| protocols.split(',').any(|name| name.trim().eq_ignore_ascii_case("websocket")))
    })
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
