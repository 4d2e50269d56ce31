//! Jobs in the books: what was ordered of an upstream that takes its time, whose it is, and that one which fails is paid back once.

use serde::{Deserialize, Serialize};

use super::book::{Book, Close, Rows, Write};
use super::failure::{Broken, Denied, Stopped};
use super::reservation::Paid;
use super::rows::Service;
use super::snapshot::{Snapshot, for_each, json};
use super::tables::{JOBS, JOBS_OF};
use super::written::account_hex;
use super::{Inner, Ledger, Refused};
use crate::account::AccountId;
use crate::clock::Timestamp;
use crate::fault;
use crate::ids::{Bought, JobId, RequestId};
use crate::money::Micros;

/// Jobs that one new job has forgotten at most: more than it adds, and never so many that others wait.
const FORGOTTEN_AT_ONCE: usize = 4;

/// What an upstream has accepted, for a call that is about to be charged.
#[derive(Debug, Clone)]
pub struct NewJob {
    /// The name by which its buyer asks for it.
    pub id: JobId,
    pub account: AccountId,
    /// It was paid for by its own payment, so that its buyer may be unable to say who it is.
    pub by_payment: bool,
    /// The route on which it was bought, below its prefix.
    pub task: &'static str,
    /// The model as its buyer calls it.
    pub model: String,
    /// Who has it, and what model and job are called there.
    pub upstream: String,
    pub upstream_model: String,
    pub upstream_job: String,
}

/// A job that was charged. Only the ledger makes one, in the transaction that charges its call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Job {
    #[serde(with = "account_hex")]
    pub account: AccountId,
    pub by_payment: bool,
    /// The call that was charged for it.
    pub request: u128,
    pub task: String,
    pub model: String,
    pub upstream: String,
    pub upstream_model: String,
    pub upstream_job: String,
    /// In milliseconds since 1970.
    pub created: u64,
    pub state: JobState,
    /// All of what it made was passed on to its buyer once. Such a job fails no more.
    #[serde(default)]
    pub delivered: bool,
    /// What it cost, in micros. Nobody else can write it, and so nobody else makes a job.
    charge: u64,
}

/// What is known of a job here; whether it is still worked on, only its upstream knows.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum JobState {
    /// Its buyer may ask for it.
    Open,
    /// Its upstream says that nothing comes of it.
    Failed {
        code: String,
        error: String,
        /// Whether its charge was given back; not if the payment itself had vanished from its chain.
        refunded: bool,
    },
    /// Its buyer has what it made and needs it no more.
    Completed,
}

impl JobState {
    /// In a word.
    pub fn name(&self) -> &'static str {
        match self {
            JobState::Open => "open",
            JobState::Failed { .. } => "failed",
            JobState::Completed => "completed",
        }
    }
}

impl Job {
    /// What it cost.
    pub fn charge(&self) -> Micros {
        Micros::new(self.charge)
    }
}

impl Bought for Job {
    fn request(&self) -> RequestId {
        RequestId(self.request)
    }

    fn upstream(&self) -> &str {
        &self.upstream
    }

    fn upstream_model(&self) -> &str {
        &self.upstream_model
    }

    fn upstream_job(&self) -> &str {
        &self.upstream_job
    }
}

impl Book {
    fn put_job(&mut self, rows: &mut Rows, id: JobId, job: &Job) {
        rows.push(Write::Job(id, job.clone()));
        self.jobs.insert(id, (job.clone(), self.ticket));
    }
}

impl Paid {
    /// Charges the call for a job that an upstream has accepted, at most what is held, and writes the job down: both or neither.
    /// Durable when this returns. Jobs of before `forget_before` are forgotten in passing. Returns the charge and the job.
    ///
    /// # Errors
    /// The call is not open any more, as when its payment has vanished from its chain, or the ledger has stopped. Nothing was
    /// charged then.
    pub async fn post_job(
        mut self,
        (owed, service): (Micros, impl Into<Service>),
        new: NewJob,
        forget_before: Timestamp,
    ) -> Result<(Micros, Job), Denied> {
        fault::point("job.before");
        let (request, ledger, service) = (self.request(), self.ledger(), service.into());
        let mut done = None;
        let durable = ledger.run(|inner, book| {
            let old = inner.on_disk(|disk| disk.jobs_before(forget_before, FORGOTTEN_AT_ONCE))?;
            let now = inner.clock.now();
            let (mut rows, charge) = book.close(request, Close::Post(owed), service, now)?;
            let job = Job {
                account: new.account,
                by_payment: new.by_payment,
                request: request.0,
                task: new.task.to_owned(),
                model: new.model,
                upstream: new.upstream,
                upstream_model: new.upstream_model,
                upstream_job: new.upstream_job,
                created: now.millis(),
                state: JobState::Open,
                delivered: false,
                charge: charge.get(),
            };
            book.put_job(&mut rows, new.id, &job);
            rows.extend(old.into_iter().map(|(id, account)| Write::ForgetJob(id, account)));
            done = Some((charge, job));
            Ok(rows)
        })?;
        // From here on the call has ended: dropping it would only be refused.
        self.has_ended();
        durable.wait().await?;
        fault::point("job.after");
        done.ok_or(Denied::Stopped(Stopped))
    }
}

impl Ledger {
    /// A job, unless it was forgotten.
    pub fn job(&self, id: JobId) -> Result<Option<Job>, Denied> {
        let remembered = self.inner.lock()?.jobs.get(&id).map(|(job, _)| job.clone());
        if remembered.is_some() { Ok(remembered) } else { self.inner.on_disk(|disk| disk.job(id)) }
    }

    /// The jobs of a wallet that are durable, the newest first. It reads the disk.
    pub fn jobs_of(&self, account: AccountId, limit: usize) -> Result<Vec<(JobId, Job)>, Denied> {
        self.inner.on_disk(|disk| disk.jobs_of(account, limit))
    }

    /// Writes down that a job has failed and gives all of its charge back, in one transaction, once: of a job that had failed
    /// before, or that was delivered, or that its buyer has completed, it changes nothing. Durable when this returns. Returns the
    /// job as it is then.
    ///
    /// # Errors
    /// [`Refused::WrongState`] for a job that is not known; otherwise as [`Ledger::refund`], and then the job has not failed.
    pub async fn fail_job(&self, id: JobId, code: &str, error: &str) -> Result<Job, Denied> {
        fault::point("job.fail.before");
        let mut done = None;
        let durable = self.run(|inner, book| {
            let mut job = inner.job(book, id)?;
            let mut rows = Rows::new();
            if job.state == JobState::Open && !job.delivered {
                let refunded = match inner.refunded(book, RequestId(job.request), None) {
                    Ok((more, _, _)) => {
                        rows = more;
                        true
                    }
                    // Its money was never there.
                    Err(Denied::Refused(Refused::WrongState)) => false,
                    Err(other) => return Err(other),
                };
                job.state = JobState::Failed { code: code.to_owned(), error: error.to_owned(), refunded };
                book.put_job(&mut rows, id, &job);
            }
            done = Some(job);
            Ok(rows)
        })?;
        durable.wait().await?;
        fault::point("job.fail.after");
        done.ok_or(Denied::Stopped(Stopped))
    }

    /// Writes down that all of what a job made was passed on, so that nothing that is said of it later gives its charge back.
    /// Durable when this returns; of a job that was delivered before, or is open no more, it changes nothing.
    ///
    /// # Errors
    /// [`Refused::WrongState`] for a job that is not known.
    pub async fn job_delivered(&self, id: JobId) -> Result<(), Denied> {
        let durable = self.run(|inner, book| {
            let mut job = inner.job(book, id)?;
            let mut rows = Rows::new();
            if job.state == JobState::Open && !job.delivered {
                job.delivered = true;
                book.put_job(&mut rows, id, &job);
            }
            Ok(rows)
        })?;
        durable.wait().await?;
        Ok(())
    }

    /// Writes down that the buyer of a job needs what it made no more, and says whether that was news. A job that has failed
    /// stays so. Durable when this returns; asked for again it changes nothing.
    ///
    /// # Errors
    /// [`Refused::WrongState`] for a job that is not known.
    pub async fn complete_job(&self, id: JobId) -> Result<(Job, bool), Denied> {
        let mut done = None;
        let durable = self.run(|inner, book| {
            let mut job = inner.job(book, id)?;
            let mut rows = Rows::new();
            let is_news = job.state == JobState::Open;
            if is_news {
                job.state = JobState::Completed;
                book.put_job(&mut rows, id, &job);
            }
            done = Some((job, is_news));
            Ok(rows)
        })?;
        durable.wait().await?;
        done.ok_or(Denied::Stopped(Stopped))
    }
}

impl Inner {
    /// The last state of a job that is known.
    fn job(&self, book: &Book, id: JobId) -> Result<Job, Denied> {
        let remembered = book.jobs.get(&id).map(|(job, _)| job.clone());
        let job = if remembered.is_some() { remembered } else { self.on_disk(|disk| disk.job(id))? };
        job.ok_or(Denied::Refused(Refused::WrongState))
    }
}

impl Snapshot<'_> {
    pub fn job(&self, id: JobId) -> Result<Option<Job>, Broken> {
        let table = self.0.open_table(JOBS).map_err(|error| Broken::new("read jobs", error))?;
        let row = table.get(id.0).map_err(|error| Broken::new("read jobs", error))?;
        row.map(|row| json(row.value())).transpose()
    }

    /// The oldest jobs of before a moment, and whose they are: their names sort by time.
    fn jobs_before(&self, before: Timestamp, limit: usize) -> Result<Vec<(JobId, AccountId)>, Broken> {
        let failed = |error: redb::Error| Broken::new("read jobs", error);
        let table = self.0.open_table(JOBS).map_err(|error| failed(error.into()))?;
        let rows = table.range(..JobId::new(before, [0; 10]).0).map_err(|error| failed(error.into()))?;
        rows.take(limit)
            .map(|row| {
                let (id, row) = row.map_err(|error| failed(error.into()))?;
                Ok((JobId(id.value()), json::<Job>(row.value())?.account))
            })
            .collect()
    }

    fn jobs_of(&self, account: AccountId, limit: usize) -> Result<Vec<(JobId, Job)>, Broken> {
        let failed = |error: redb::Error| Broken::new("read jobs_of", error);
        let table = self.0.open_table(JOBS_OF).map_err(|error| failed(error.into()))?;
        let owner = account.to_bytes();
        let rows = table.range((owner.as_slice(), 0)..=(owner.as_slice(), u128::MAX)).map_err(|error| failed(error.into()))?;
        let ids = rows.rev().take(limit).map(|row| row.map(|(name, _)| JobId(name.value().1)));
        ids.map(|id| {
            let id = id.map_err(|error| failed(error.into()))?;
            Ok((id, self.job(id)?.ok_or_else(|| Broken::row("jobs_of"))?))
        })
        .collect()
    }
}

/// Every job stands in its owner's list, belongs to a call that was charged to the same wallet, and if it failed and says so,
/// all that was paid for it is back.
pub(super) fn check(snapshot: &Snapshot, problems: &mut Vec<String>) -> Result<(), Broken> {
    let mut owned = 0u64;
    for_each(snapshot.0, JOBS, |id, row| {
        let (id, job): (_, Job) = (JobId(id), json(row)?);
        owned += 1;
        match snapshot.receipt(RequestId(job.request))? {
            None => problems.push(format!("{id} belongs to {}, which was not charged", RequestId(job.request))),
            Some(receipt) if receipt.account != job.account => {
                problems.push(format!("{id} is of {}, its charge of {}", job.account, receipt.account));
            }
            Some(receipt) if receipt.charge != job.charge => {
                problems.push(format!("{id} cost {} micros, its charge is {}", job.charge, receipt.charge));
            }
            Some(receipt) => {
                let refunded = matches!(job.state, JobState::Failed { refunded: true, .. });
                if refunded && receipt.money_back() != receipt.paid() {
                    problems.push(format!("{id} failed, and not all that was paid for it is back"));
                }
            }
        }
        Ok(())
    })?;
    let mut listed = 0u64;
    for_each(snapshot.0, JOBS_OF, |(account, id), ()| {
        listed += 1;
        let job = snapshot.job(JobId(id))?;
        if job.is_none_or(|job| job.account.to_bytes().as_slice() != account) {
            problems.push(format!("{} is listed for a wallet that does not have it", JobId(id)));
        }
        Ok(())
    })?;
    if owned != listed {
        problems.push(format!("there are {owned} jobs, and {listed} of them are listed for their wallets"));
    }
    Ok(())
}
