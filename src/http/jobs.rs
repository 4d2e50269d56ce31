//! The routes of jobs that were bought: asked for until they are done, fetched, completed, listed; and what one would cost. All free.

use std::rc::Rc;

use actix_web::body::{self, BodyStream, BoxBody, SizedStream};
use actix_web::http::{Method, header};
use actix_web::web::{self, Payload};
use actix_web::{HttpRequest, HttpResponse, HttpResponseBuilder};
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::credentials::credentials;
use super::paid;
use super::respond::{self, Edge};
use crate::account::AccountId;
use crate::config::Limits;
use crate::dialect::Task;
use crate::error::{Code, Error};
use crate::gateway::account;
use crate::gateway::jobs::{self, Looked, Media, Progress};
use crate::gateway::{Purpose, Worker};

/// Bytes of a body on these routes, but for a quote, which may be asked with all that is asked for.
const MOST: usize = 64 * 1024;

/// What is said of the job that is meant.
#[derive(Deserialize)]
struct Asked {
    queue_id: Option<String>,
    model: Option<String>,
    /// Two clients have two names for it.
    #[serde(default)]
    delete_media_on_completion: Option<bool>,
    #[serde(default)]
    delete_after_retrieval: Option<bool>,
}

/// `POST …/{audio,video}/retrieve`: how far a job is, or what it made.
pub async fn retrieve(task: Task, request: HttpRequest, payload: Payload) -> HttpResponse {
    let answer = async {
        let (worker, edge) = shop(&request)?;
        let asked = asked(&request, payload, worker).await?;
        let mut looked = find(&request, edge, task, &asked).await?;
        let forget = asked.delete_media_on_completion == Some(true) || asked.delete_after_retrieval == Some(true);
        Ok(match looked.media(worker, deadline(worker), forget).await? {
            Ok(media) => stream(shown(edge, &looked)?, media),
            Err(progress) => shown(edge, &looked)?.json(told(&progress)),
        })
    };
    answer.await.unwrap_or_else(|error: Error| respond::refuse(&request, error.into()))
}

/// `POST …/{audio,video}/complete`: the buyer needs it no more.
pub async fn complete(task: Task, request: HttpRequest, payload: Payload) -> HttpResponse {
    let answer = async {
        let (worker, edge) = shop(&request)?;
        let asked = asked(&request, payload, worker).await?;
        let mut looked = find(&request, edge, task, &asked).await?;
        looked.complete(worker, deadline(worker)).await?;
        Ok(shown(edge, &looked)?.json(json!({ "success": true })))
    };
    answer.await.unwrap_or_else(|error: Error| respond::refuse(&request, error.into()))
}

/// `GET …/videos/{id}`: how far a video is.
pub async fn video(request: HttpRequest, id: web::Path<String>) -> HttpResponse {
    let answer = async {
        let (worker, edge) = shop(&request)?;
        let mut looked = find_video(&request, edge, &id).await?;
        let progress = looked.progress(worker, deadline(worker)).await?;
        let place = format!("{}{}", worker.gateway.public_url, request.path());
        Ok(shown(edge, &looked)?.json(looked.video(&progress, &place)))
    };
    answer.await.unwrap_or_else(|error: Error| respond::refuse(&request, error.into()))
}

/// `DELETE …/videos/{id}`: the buyer needs it no more, as OpenAI's clients say and read it.
pub async fn delete(request: HttpRequest, id: web::Path<String>) -> HttpResponse {
    let answer = async {
        let (worker, edge) = shop(&request)?;
        let mut looked = find_video(&request, edge, &id).await?;
        looked.complete(worker, deadline(worker)).await?;
        Ok(shown(edge, &looked)?.json(json!({ "id": looked.id.to_string(), "object": "video.deleted", "deleted": true })))
    };
    answer.await.unwrap_or_else(|error: Error| respond::refuse(&request, error.into()))
}

/// `GET …/videos/{id}/content`: the video itself.
pub async fn content(request: HttpRequest, id: web::Path<String>) -> HttpResponse {
    let answer = async {
        let (worker, edge) = shop(&request)?;
        let mut looked = find_video(&request, edge, &id).await?;
        // The server would write the head alone and read the whole film nevertheless.
        if request.method() == Method::HEAD {
            return match looked.progress(worker, deadline(worker)).await? {
                Progress::Done => Ok(shown(edge, &looked)?.body(BoxBody::new(body::None::new()))),
                progress => Err(not_there(&progress)),
            };
        }
        match looked.media(worker, deadline(worker), false).await? {
            Ok(media) => Ok(stream(shown(edge, &looked)?, media)),
            Err(progress) => Err(not_there(&progress)),
        }
    };
    answer.await.unwrap_or_else(|error: Error| respond::refuse(&request, error.into()))
}

/// `GET …/jobs`: the jobs of the wallet that asks, also those whose answer it never got.
pub async fn list(request: HttpRequest) -> HttpResponse {
    let answer = async {
        let (_, edge) = shop(&request)?;
        let payer = edge.gateway.identify(&credentials(request.headers()))?.ok_or_else(|| {
            let message =
                "whose jobs? Send a key as Authorization: Bearer sk-x402-…, or sign in with the wallet that bought them";
            Error::new(Code::InvalidKey, message)
        })?;
        poll(edge, payer.account())?;
        edge.gateway.consume(&payer, Purpose::Read).await?;
        let (ledger, account) = (edge.gateway.ledger.clone(), payer.account());
        let listed = web::block(move || jobs::list(&ledger, account)).await;
        let listed =
            listed.map_err(|_| Error::new(Code::Busy, "the gateway is stopping; ask again in a moment").retry_after(1))??;
        Ok(with_balance(edge, account)?.json(listed))
    };
    answer.await.unwrap_or_else(|error: Error| respond::refuse(&request, error.into()))
}

/// `POST …/{audio,video}/quote`: what the same body would cost at most where such jobs are sold.
pub async fn quote(task: Task, request: HttpRequest, payload: Payload) -> HttpResponse {
    let answer = async {
        let (worker, edge) = shop(&request)?;
        let mut memory = edge.bodies.share(respond::source(edge, &request));
        let limits = &worker.gateway.limits;
        let body = paid::body(request.headers(), payload, limits, false, |length| memory.grow(length)).await?;
        let quote = jobs::quote(worker, task, &body)?;
        Ok(HttpResponse::Ok().json(json!({ "quote": quote.as_usd() })))
    };
    answer.await.unwrap_or_else(|error: Error| respond::refuse(&request, error.into()))
}

fn shop(request: &HttpRequest) -> Result<(&Rc<Worker>, &Rc<Edge>), Error> {
    let shop = request.app_data::<Rc<Worker>>().zip(request.app_data::<Rc<Edge>>());
    shop.ok_or_else(|| Error::new(Code::Internal, "the server is not set up"))
}

fn deadline(worker: &Worker) -> Instant {
    Instant::now() + worker.gateway.limits.wall_clock
}

async fn asked(request: &HttpRequest, payload: Payload, worker: &Worker) -> Result<Asked, Error> {
    let limits = Limits { max_body: MOST, ..worker.gateway.limits.clone() };
    let body = paid::body(request.headers(), payload, &limits, false, |_| true).await?;
    serde_json::from_slice(&body).map_err(|error| match error.is_data() {
        true => {
            Error::new(Code::InvalidRequest, "queue_id and model must be strings, and delete_media_on_completion true or false")
                .param("queue_id")
        }
        false => Error::new(Code::InvalidJson, "the body is not JSON; send an object with the queue_id that was answered"),
    })
}

async fn find(request: &HttpRequest, edge: &Edge, task: Task, asked: &Asked) -> Result<Looked, Error> {
    let Some(id) = &asked.queue_id else {
        return Err(Error::new(Code::InvalidRequest, "queue_id is required: the one that was answered").param("queue_id"));
    };
    let looked = Looked::find(&edge.gateway, &credentials(request.headers()), task, id, Code::RequestIdNotFound)?;
    if asked.model.as_ref().is_some_and(|model| *model != looked.job.model) {
        let message = format!("this job is of {}; leave model out, or name that one", looked.job.model);
        return Err(Error::new(Code::InvalidRequest, message).param("model"));
    }
    admit(edge, looked).await
}

async fn find_video(request: &HttpRequest, edge: &Edge, id: &str) -> Result<Looked, Error> {
    let looked = Looked::find(&edge.gateway, &credentials(request.headers()), Task::Videos, id, Code::JobNotFound)?;
    admit(edge, looked).await
}

/// Takes the bucket of the wallet whose job it is, and the sign-in where each is good for once.
async fn admit(edge: &Edge, looked: Looked) -> Result<Looked, Error> {
    poll(edge, looked.job.account)?;
    if let Some(payer) = &looked.payer {
        edge.gateway.consume(payer, Purpose::Read).await?;
    }
    Ok(looked)
}

fn poll(edge: &Edge, account: AccountId) -> Result<(), Error> {
    edge.limits.job(account).map_err(|seconds| respond::slow_down("jobs of this wallet are asked for too often", seconds))
}

/// As clients of queues read it: in capitals while it works, in small letters when it has failed.
fn told(progress: &Progress) -> Value {
    match progress {
        Progress::Working { average, running, .. } => {
            json!({ "status": "PROCESSING", "average_execution_time": average, "execution_duration": running })
        }
        Progress::Failed { code, error, refunded } => {
            json!({ "status": "failed", "error": error, "code": code, "credits_refunded": refunded })
        }
        Progress::Done => json!({ "status": "COMPLETED" }),
    }
}

/// There is no content of a video that is not there.
fn not_there(progress: &Progress) -> Error {
    let message = match progress {
        Progress::Failed { error, .. } => format!("this video has failed, and there is none: {error}"),
        Progress::Working { .. } | Progress::Done => {
            "this video is not there yet; ask for its status, without /content, until it is completed".to_owned()
        }
    };
    Error::new(Code::MediaNotFound, message)
}

/// The beginning of an answer about a job. Whoever said whose it is hears what that wallet can spend, with what a job that failed
/// has just brought back.
fn shown(edge: &Edge, looked: &Looked) -> Result<HttpResponseBuilder, Error> {
    match &looked.payer {
        Some(payer) => with_balance(edge, payer.account()),
        None => Ok(HttpResponse::Ok()),
    }
}

fn with_balance(edge: &Edge, account: AccountId) -> Result<HttpResponseBuilder, Error> {
    let mut response = HttpResponse::Ok();
    respond::show_standing(&mut response, &account::now(&edge.gateway.ledger, account)?);
    Ok(response)
}

fn stream(mut response: HttpResponseBuilder, media: Media) -> HttpResponse {
    response.insert_header((header::CONTENT_TYPE, media.content_type));
    let body = match media.content_length {
        Some(length) => BoxBody::new(SizedStream::new(length, media.body)),
        None => BoxBody::new(BodyStream::new(media.body)),
    };
    response.body(body)
}
