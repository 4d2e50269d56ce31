//! Jobs: sold as every call is and charged when their upstream has accepted them; looked after for nothing, by their buyer alone.

use std::collections::HashMap;
use std::rc::Rc;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::StreamExt as _;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::relay::{Pace, RelayBody, pass_on};
use super::settle::ledger_unavailable;
use super::told::{Outcome, PaidBy, Told};
use super::{Call, Credentials, Gateway, Payer, Place, Worker};
use crate::account::AccountId;
use crate::catalogue::Model;
use crate::clock::Timestamp;
use crate::dialect::{Goods, Purchase, Task};
use crate::error::{Code, Error};
use crate::fault;
use crate::ids::{JobId, RequestId};
use crate::ledger::{Denied, Job, JobState, Ledger, NewJob, Paid, Refused, Service};
use crate::money::Micros;
use crate::tariff::Tariff;
use crate::upstream::{self, Answer, Found, Report};

/// The most that is read of an answer that names a job.
const MOST: usize = 64 * 1024;
/// How long a new job may be unknown to the upstream that has just accepted it.
const SETTLING_IN: Duration = Duration::from_secs(600);
/// Jobs that a wallet is shown at once.
const SHOWN: usize = 100;

/// A job that an upstream has accepted, before its call is charged.
pub(super) struct Accepted {
    id: JobId,
    task: Task,
    upstream: String,
    upstream_model: String,
    upstream_job: String,
    answer: Bytes,
}

/// Reads the answer that names a job; `None` for a call that orders none.
///
/// # Errors
/// [`Code::UpstreamError`]: it is too long, broke off, or names none. Then nothing may be charged: nobody could ask for it.
pub(super) async fn accepted(call: &Call, answer: &mut Answer) -> Result<Option<Accepted>, Error> {
    let (Goods::Media(task), Some(id)) = (call.goods, call.job) else { return Ok(None) };
    let unusable = |why: String| {
        let message = "the upstream of this model took the job and did not say what it is called; nothing was charged, try again";
        Error::new(Code::UpstreamError, message).because(why)
    };
    let mut bytes = BytesMut::new();
    while let Some(piece) = answer.body.next().await {
        let piece = piece.map_err(|broken| unusable(broken.to_string()))?;
        if bytes.len() + piece.len() > MOST {
            return Err(unusable(format!("an answer of more than {MOST} bytes")));
        }
        bytes.extend_from_slice(&piece);
    }
    let upstream_job = upstream::named(&bytes).ok_or_else(|| unusable("an answer without the name of a job".into()))?;
    fault::point("job.accepted");
    Ok(Some(Accepted {
        id,
        task,
        upstream: answer.upstream.clone(),
        upstream_model: answer.model.clone(),
        upstream_job,
        answer: bytes.freeze(),
    }))
}

/// Who ordered a job, and how it is charged.
pub(super) struct Order<'a> {
    pub request: &'a Purchase<'a>,
    pub model: &'a Model,
    /// The model's, with what only this way of paying costs.
    pub tariff: Tariff,
    /// Who orders, and what is told of that.
    pub told: Told,
    /// What it costs whatever it asks for.
    pub flat: Option<Micros>,
}

/// Charges an accepted job and writes it down, both or neither. Returns what its buyer is told, once that is durable.
///
/// # Errors
/// [`Code::LedgerUnavailable`].
pub(super) async fn book(gateway: &Gateway, order: Order<'_>, accepted: Accepted, paid: Paid) -> Result<Bytes, Error> {
    let Order { request, model, tariff, told, flat } = order;
    let (account, by_payment) = (told.account, told.paid_by == PaidBy::Payment);
    let Accepted { id, task, upstream, upstream_model, upstream_job, answer } = accepted;
    let mut gauge = request.gauge(model, Goods::Media(task), "application/json");
    gauge.chunk(&answer);
    let metered = gauge.usage();
    let usage = metered.usage;
    let owed = flat.unwrap_or_else(|| tariff.charge(&usage, paid.ceiling()));
    let cost = model.cost_at(&upstream, &upstream_model).and_then(|cost| cost.of(&usage));
    let service = Service { usage, upstream: upstream.clone(), cost };
    let new = NewJob {
        id,
        account,
        by_payment,
        task: task.row().path,
        model: model.id.clone(),
        upstream_model,
        upstream,
        upstream_job,
    };
    let request = paid.request();
    let kept = u64::try_from(gateway.limits.jobs_kept.as_millis()).unwrap_or(u64::MAX);
    let forget_before = Timestamp::from_millis(gateway.clock.now().millis().saturating_sub(kept));
    let (charge, job) = paid.post_job((owed, service), new, forget_before).await.map_err(|denied| unavailable(&denied))?;
    let words = format!("queued a job; charged {charge}");
    let outcome = Outcome { word: "ordered", words, error: None, is_trouble: false, charge, metered };
    told.tell((request, &job.upstream), &outcome);
    Ok(ordered(task, id, &job).to_string().into())
}

/// What the buyer of a new job is told.
fn ordered(task: Task, id: JobId, job: &Job) -> Value {
    match task {
        task if task.has_address() => video(id, job, "queued", None),
        _ => json!({ "model": job.model, "queue_id": id.to_string(), "status": "QUEUED" }),
    }
}

/// A video as it is shown where videos have addresses.
fn video(id: JobId, job: &Job, status: &str, progress: Option<u64>) -> Value {
    json!({
        "id": id.to_string(), "task_id": id.to_string(), "object": "video", "model": job.model, "status": status,
        "progress": progress.unwrap_or(0), "created_at": job.created / 1000, "error": null,
    })
}

fn unavailable(denied: &Denied) -> Error {
    ledger_unavailable(&denied.to_string())
}

/// What a request for a quote asks: the price of the call that the same body would be. A prompt may be left out.
///
/// # Errors
/// As that call would be refused, before anybody is asked who pays.
pub fn quote(worker: &Worker, task: Task, body: &[u8]) -> Result<Micros, Error> {
    let goods = Goods::Media(task);
    let request = Purchase::read_to_quote(task, body)?;
    let served = |model: &Model| worker.upstreams.forms(&model.upstreams, goods).is_ok();
    let model = request.find(&worker.gateway.catalogue, served)?;
    worker.upstreams.forms(&model.upstreams, goods)?;
    Ok(model.quote(&request.bound(&model)))
}

/// A job that somebody asks about who may.
pub struct Looked {
    pub id: JobId,
    pub task: Task,
    pub job: Job,
    /// By what its buyer said who it is, if it did.
    pub payer: Option<Payer>,
}

/// What became of a job.
#[derive(Debug)]
pub enum Progress {
    /// Milliseconds that such jobs take, and that this one has taken; percent.
    Working {
        average: u64,
        running: u64,
        progress: Option<u64>,
    },
    /// What it made can be had.
    Done,
    Failed {
        code: String,
        error: String,
        refunded: bool,
    },
}

impl Looked {
    /// Finds the job that a request names, if it is for whoever sent it: the wallet that bought it, by its sign-in or any of
    /// its keys; and who sends neither, if the job was paid for by a payment, whose buyer has nothing but its name.
    ///
    /// # Errors
    /// `unknown`, the same for a job that is not there and for one of somebody else; [`Code::InvalidKey`],
    /// [`Code::KeyRevoked`], [`Code::InvalidSignIn`]; [`Code::LedgerUnavailable`].
    pub fn find(gateway: &Gateway, credentials: &Credentials, task: Task, id: &str, unknown: Code) -> Result<Looked, Error> {
        let payer = gateway.identify(credentials)?;
        let none = || {
            let who = match &payer {
                Some(_) => "no job of this wallet has that id on this route",
                None => "no job that was paid for by its own payment has that id on this route",
            };
            let advice = "send the id as it was answered, with a key or a sign-in of the wallet that bought it";
            Error::new(unknown, format!("{who}; {advice}"))
        };
        let id = JobId::parse(id).ok_or_else(none)?;
        let job = gateway.ledger.job(id).map_err(|denied| unavailable(&denied))?.ok_or_else(none)?;
        let is_its_buyer = match &payer {
            Some(payer) => payer.account() == job.account,
            None => job.by_payment,
        };
        let is_asked_for_there = match task.has_address() {
            true => Task::ALL.into_iter().any(|task| task.has_address() && job.task == task.row().path),
            false => job.task == task.row().path,
        };
        match is_its_buyer && is_asked_for_there {
            true => Ok(Looked { id, task, job, payer }),
            false => Err(none()),
        }
    }

    /// Asks what became of it, and gives its charge back, once, if its upstream says that it has failed before it was delivered.
    ///
    /// # Errors
    /// [`Code::MediaNotFound`] for what is there no more, or was delivered and cannot be had again; as
    /// [`upstream::Upstreams::ask`] when the upstream does not say.
    pub async fn progress(&mut self, worker: &Worker, deadline: Instant) -> Result<Progress, Error> {
        let _turn = worker.gateway.look(self.job.account)?;
        match self.ask(worker, deadline).await? {
            Ok(_) => Ok(Progress::Done),
            Err(progress) => Ok(progress),
        }
    }

    /// The same; if what it made is there, its bytes. With `then_forget` it is completed when all of them have passed.
    ///
    /// # Errors
    /// As [`Looked::progress`] and [`upstream::Upstreams::open`].
    pub async fn media(
        &mut self,
        worker: &Rc<Worker>,
        deadline: Instant,
        then_forget: bool,
    ) -> Result<Result<Media, Progress>, Error> {
        let turn = worker.gateway.look(self.job.account)?;
        let found = match self.ask(worker, deadline).await? {
            Ok(found) => found,
            Err(progress) => return Ok(Err(progress)),
        };
        let answer = worker.upstreams.open((&self.job, self.task), found, deadline).await?.ok_or_else(gone)?;
        let Answer { content_type, content_length, body, .. } = answer;
        let (worker, id, task, job) = (Rc::clone(worker), self.id, self.task, self.job.clone());
        let pace = Pace::after(worker.gateway.limits.wall_clock);
        let then = async move {
            delivered(&worker, id, &job).await;
            if then_forget {
                forget(&worker, id, task, &job).await;
            }
        };
        Ok(Ok(Media { content_type, content_length, body: pass_on((body, content_length), pace, turn, then) }))
    }

    async fn ask(&mut self, worker: &Worker, deadline: Instant) -> Result<Result<Found, Progress>, Error> {
        let gateway = &worker.gateway;
        if let Some(known) = self.known() {
            return known.map(Err);
        }
        let age = Duration::from_millis(gateway.clock.now().millis().saturating_sub(self.job.created));
        let age_ms = u64::try_from(age.as_millis()).unwrap_or(u64::MAX);
        match worker.upstreams.ask(&self.job, self.task, deadline).await? {
            Report::Done(found) => Ok(Ok(found)),
            Report::Working { average, running, progress } => {
                let running = running.unwrap_or(age_ms);
                Ok(Err(Progress::Working { average: average.unwrap_or(running), running, progress }))
            }
            Report::Unknown if age < SETTLING_IN => {
                Ok(Err(Progress::Working { average: age_ms, running: age_ms, progress: None }))
            }
            Report::Unknown => Err(lost(&self.job)),
            Report::Failed { .. } if self.job.delivered => Err(had(&self.job)),
            Report::Failed { code, error } => {
                let code = code.unwrap_or_else(|| "generation_failed".into());
                let failed = gateway.ledger.fail_job(self.id, &code, &error).await.map_err(|denied| match denied {
                    // It was forgotten in this very moment.
                    Denied::Refused(Refused::WrongState) => gone(),
                    Denied::Refused(other) => {
                        let message = "this job has failed, and its charge cannot be given back at the moment; ask again later";
                        Error::new(Code::Internal, message).because(format!("{other:?}"))
                    }
                    stopped => unavailable(&stopped),
                })?;
                if self.job.state != failed.state {
                    tracing::info!(request.id = %RequestId(failed.request), account = %failed.account, job = %self.id, "a job has failed; its charge is back");
                }
                self.job = failed;
                // It is open still if all of it was passed on in this very moment.
                self.known().unwrap_or_else(|| Err(had(&self.job))).map(Err)
            }
        }
    }

    /// What is known without asking.
    fn known(&self) -> Option<Result<Progress, Error>> {
        match &self.job.state {
            JobState::Open => None,
            JobState::Failed { code, error, refunded } => {
                Some(Ok(Progress::Failed { code: code.clone(), error: error.clone(), refunded: *refunded }))
            }
            JobState::Completed => Some(Err(gone())),
        }
    }

    /// Its buyer needs it no more: nothing is shown of it from now on, and its upstream is told so, if it can be. A job that is
    /// still worked on is not stopped by it, and one that failed stays so.
    ///
    /// # Errors
    /// [`Code::LedgerUnavailable`].
    pub async fn complete(&mut self, worker: &Worker, deadline: Instant) -> Result<(), Error> {
        let _turn = worker.gateway.look(self.job.account)?;
        let (job, is_news) = worker.gateway.ledger.complete_job(self.id).await.map_err(|denied| unavailable(&denied))?;
        self.job = job;
        if is_news && let Err(error) = worker.upstreams.forget(&self.job, self.task, deadline).await {
            not_told(self.id, &error);
        }
        Ok(())
    }

    /// As it is shown where videos have addresses; `place` is that of this one.
    pub fn video(&self, progress: &Progress, place: &str) -> Value {
        match progress {
            Progress::Working { progress, .. } => video(self.id, &self.job, "in_progress", *progress),
            Progress::Done => {
                let mut shown = video(self.id, &self.job, "completed", Some(100));
                shown["url"] = format!("{place}/content").into();
                shown
            }
            Progress::Failed { code, error, refunded } => {
                let mut shown = video(self.id, &self.job, "failed", None);
                shown["error"] = json!({ "code": code, "message": error });
                shown["credits_refunded"] = (*refunded).into();
                shown
            }
        }
    }
}

/// The jobs of a wallet that it may ask for, the newest first. It reads the disk.
///
/// # Errors
/// [`Code::LedgerUnavailable`].
pub fn list(ledger: &Ledger, account: AccountId) -> Result<Value, Error> {
    let jobs = ledger.jobs_of(account, SHOWN).map_err(|denied| unavailable(&denied))?;
    let shown = jobs.iter().map(|(id, job)| {
        let state = match job.state {
            JobState::Open => "open",
            JobState::Failed { .. } => "failed",
            JobState::Completed => "completed",
        };
        json!({
            "id": id.to_string(), "object": "job", "route": job.task, "model": job.model, "state": state,
            "delivered": job.delivered, "created_at": job.created / 1000, "request_id": RequestId(job.request).to_string(),
        })
    });
    Ok(json!({ "object": "list", "data": shown.collect::<Vec<_>>() }))
}

fn gone() -> Error {
    Error::new(
        Code::MediaNotFound,
        "what this job made is there no more; it was completed by its buyer, or its upstream has deleted it",
    )
}

/// Its buyer has had it: whatever its upstream says of it now, or has done with it, nothing is given back.
fn had(job: &Job) -> Error {
    let request = RequestId(job.request);
    let message = format!(
        "what this job made was delivered, and cannot be had again at the moment; nothing is given back for it, and if you need it once more ask the operator about {request}"
    );
    let cause = format!(
        "upstream {:?} says that a job has failed, or has put its result elsewhere, after it was delivered",
        job.upstream
    );
    Error::new(Code::MediaNotFound, message).because(cause)
}

fn lost(job: &Job) -> Error {
    let request = RequestId(job.request);
    let message = format!(
        "the upstream does not know this job at the moment; ask again later, and if it stays so ask the operator about {request}"
    );
    Error::new(Code::MediaNotFound, message).because(format!("upstream {:?} does not know its job", job.upstream))
}

fn not_told(id: JobId, error: &Error) {
    tracing::debug!(job = %id, cause = error.cause.as_deref(), "an upstream was not told that a job is completed");
}

/// How many requests of each wallet look after jobs at the moment.
#[derive(Default)]
pub(super) struct Looks(Mutex<HashMap<AccountId, usize>>);

/// One of them; it ends when this is dropped.
pub(super) struct Look {
    gateway: Arc<Gateway>,
    account: AccountId,
    _place: Place,
}

impl Gateway {
    fn look(self: &Arc<Self>, account: AccountId) -> Result<Look, Error> {
        let place = self.admit()?;
        let most = self.limits.streams_per_account;
        let mut looks = self.looks.0.lock().unwrap_or_else(PoisonError::into_inner);
        let running = looks.entry(account).or_default();
        if *running >= most {
            let message =
                format!("this wallet has {most} requests for jobs running, as many as it may have at once; ask again in 1 s");
            return Err(Error::new(Code::TooManyCalls, message).retry_after(1));
        }
        *running += 1;
        Ok(Look { gateway: Arc::clone(self), account, _place: place })
    }
}

impl Drop for Look {
    fn drop(&mut self) {
        let mut looks = self.gateway.looks.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(running) = looks.get_mut(&self.account) {
            *running = running.saturating_sub(1);
            if *running == 0 {
                looks.remove(&self.account);
            }
        }
    }
}

/// What a job made, on its way.
pub struct Media {
    pub content_type: &'static str,
    /// Bytes of it, if the upstream said so.
    pub content_length: Option<u64>,
    /// Its bytes as they come. Dropping it closes the connection to the upstream.
    pub body: RelayBody,
}

/// Remembers that all of what a job made was passed on.
async fn delivered(worker: &Worker, id: JobId, job: &Job) {
    if !job.delivered
        && let Err(denied) = worker.gateway.ledger.job_delivered(id).await
    {
        tracing::warn!(job = %id, %denied, "it is not written down that a job was delivered");
    }
}

/// Completes a job whose buyer asked for that beforehand.
async fn forget(worker: &Worker, id: JobId, task: Task, job: &Job) {
    match worker.gateway.ledger.complete_job(id).await {
        Ok((_, true)) => {}
        // Another fetch of it came to its end before.
        Ok((_, false)) => return,
        Err(denied) => {
            tracing::debug!(job = %id, %denied, "a job is not completed");
            return;
        }
    }
    let deadline = Instant::now() + worker.gateway.limits.wall_clock;
    if let Err(error) = worker.upstreams.forget(job, task, deadline).await {
        not_told(id, &error);
    }
}
