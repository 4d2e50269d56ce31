//! How the upstreams do, as all worker threads see it together: what one of them finds out is known to all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::gate::{Change, Gate, Pass, Rest, Word};
use crate::config::{self, Failover};
use crate::error::{Code, Error};
use crate::ids::RequestId;

pub use super::gate::Mood;

/// Failures of one upstream that are remembered.
const LATEST: usize = 20;

/// The gates of all upstreams, in the order of the configuration. A clone is the same one.
///
/// Shared by the worker threads, because a failing upstream would else be met anew by each of them, and a pause would be
/// ended by as many calls. It is looked at twice a call, for some ten nanoseconds.
#[derive(Clone, Debug)]
pub struct Health(Arc<[Door]>);

/// One upstream's gate, for whoever comes by.
#[derive(Debug)]
pub(super) struct Door {
    name: String,
    gate: Mutex<Gate>,
    answered: AtomicU64,
    failed: AtomicU64,
    latest: Mutex<VecDeque<Trouble>>,
}

/// How one upstream has done since the start, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Manner {
    pub name: String,
    pub state: Mood,
    /// After how long it is asked again, if nobody may ask it now.
    pub wait: Option<Duration>,
    pub failures_in_a_row: u32,
    /// Models that it wants to be left alone about, and for how long.
    pub resting: Vec<(String, Duration)>,
    /// Calls that it began to answer, and calls that it failed or refused.
    pub answered: u64,
    pub failed: u64,
    /// The latest first.
    pub latest: Vec<Trouble>,
}

/// One call that an upstream failed or refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trouble {
    pub request: RequestId,
    /// As the upstream calls it.
    pub model: String,
    pub code: Code,
    /// What the operator's log says of it.
    pub cause: Option<String>,
}

/// A call that was let through and has not said how it went. Dropped before it does, it says nothing.
pub(super) struct Visit<'a> {
    door: &'a Door,
    model: &'a str,
    pass: Option<Pass>,
}

impl Health {
    pub fn new(upstreams: &[config::Upstream], rules: Failover) -> Health {
        let door = |upstream: &config::Upstream| Door {
            name: upstream.name.clone(),
            gate: Mutex::new(Gate::new(rules)),
            answered: AtomicU64::default(),
            failed: AtomicU64::default(),
            latest: Mutex::default(),
        };
        Health(upstreams.iter().map(door).collect())
    }

    /// How each of them does, in the order of the configuration.
    pub fn manners(&self) -> Vec<Manner> {
        self.0.iter().map(Door::manner).collect()
    }

    pub(super) fn door(&self, name: &str) -> Option<&Door> {
        self.0.iter().find(|door| door.name == name)
    }
}

impl Door {
    fn gate(&self) -> MutexGuard<'_, Gate> {
        // What it holds is whole after every step, so that a thread that died holding it leaves nothing half done.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latest(&self) -> MutexGuard<'_, VecDeque<Trouble>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn manner(&self) -> Manner {
        let (state, wait, failures_in_a_row, resting) = self.gate().look(Instant::now());
        Manner {
            name: self.name.clone(),
            state,
            wait,
            failures_in_a_row,
            resting,
            answered: self.answered.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
            latest: self.latest().iter().rev().cloned().collect(),
        }
    }

    /// How long a call for this model has to wait, as things stand; nothing if it may pass.
    pub fn wait(&self, model: &str) -> Option<Duration> {
        self.gate().wait(model, Instant::now())
    }

    /// Lets a call pass, or says how long it would have to wait.
    pub fn enter<'a>(&'a self, model: &'a str) -> Result<Visit<'a>, Duration> {
        let pass = Some(self.gate().enter(model, Instant::now())?);
        Ok(Visit { door: self, model, pass })
    }
}

impl Visit<'_> {
    /// Remembers why it was not served, for the operator.
    pub fn note(&self, request: RequestId, error: &Error) {
        self.door.failed.fetch_add(1, Ordering::Relaxed);
        let trouble = Trouble { request, model: self.model.to_owned(), code: error.code, cause: error.cause.clone() };
        let mut latest = self.door.latest();
        latest.push_back(trouble);
        if latest.len() > LATEST {
            latest.pop_front();
        }
    }

    /// How it went, and how long the upstream wants to be left alone, if it said so.
    pub fn went(mut self, word: Word, rest: Option<Rest>) {
        if let Some(rest) = rest.filter(|rest| !rest.time.is_zero()) {
            self.door.gate().rest(self.model, rest, Instant::now());
            let (upstream, model, seconds) = (&self.door.name, self.model, rest.time.as_secs());
            tracing::info!(upstream, model, seconds, "upstream {upstream} wants to be left alone for {seconds} s");
        }
        self.say(word);
    }

    fn say(&mut self, word: Word) {
        let Some(pass) = self.pass.take() else { return };
        if word == Word::Well {
            self.door.answered.fetch_add(1, Ordering::Relaxed);
        }
        let change = self.door.gate().tell(pass, word, Instant::now());
        let upstream = &self.door.name;
        match change {
            Some(Change::Paused(pause)) => {
                let seconds = pause.as_secs_f32();
                tracing::warn!(upstream, seconds, "upstream {upstream} is down: it is not asked for {seconds} s");
            }
            Some(Change::Resumed) => tracing::info!(upstream, "upstream {upstream} is back: it is asked again"),
            None => {}
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.say(Word::Nothing);
    }
}
