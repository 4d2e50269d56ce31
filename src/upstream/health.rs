//! How the upstreams do, as all worker threads see it together: what one of them finds out is known to all.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::gate::{Caller, Change, Gate, Pass, Word};
use crate::config::{self, Failover};
use crate::error::{Code, Error};
use crate::ids::RequestId;

pub use super::gate::{Mood, Resting};

/// Failures of one upstream that are remembered.
const LATEST: usize = 20;

/// The gates of all upstreams, in the order of the configuration. A clone is the same one.
///
/// Shared by the worker threads, because a failing upstream would else be met anew by each of them, and a pause would be
/// ended by as many calls. It is looked at twice a call, for some ten nanoseconds.
#[derive(Clone, Debug)]
pub struct Health(Arc<[Arc<Door>]>);

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
    /// What it is not asked for now.
    pub resting: Vec<Resting>,
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
    caller: Caller<'a>,
    pass: Option<Pass>,
}

impl Health {
    pub fn new(upstreams: &[config::Upstream], rules: Failover) -> Health {
        Health(Arc::default()).renewed(upstreams, rules)
    }

    /// The gates of another list. What is known of an upstream stays known under its name; calls under way tell it to both.
    #[must_use]
    pub fn renewed(&self, upstreams: &[config::Upstream], rules: Failover) -> Health {
        let door = |upstream: &config::Upstream| {
            let known = self.0.iter().find(|door| door.name == upstream.name).cloned();
            known.inspect(|door| door.gate().follow(rules)).unwrap_or_else(|| Arc::new(Door::new(&upstream.name, rules)))
        };
        Health(upstreams.iter().map(door).collect())
    }

    /// How each of them does, in the order of the configuration.
    pub fn manners(&self) -> Vec<Manner> {
        self.0.iter().map(|door| door.manner()).collect()
    }

    /// The name of each upstream, and whether it is asked for everything: neither it nor one of its models was found down.
    pub fn states(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0.iter().map(|door| (door.name.as_str(), door.gate().is_open()))
    }

    /// Whether nobody's call for a model, named as the upstream calls it, would be sent there now.
    pub fn is_resting(&self, upstream: &str, model: &str) -> bool {
        self.door(upstream).is_some_and(|door| door.wait(Caller { model, account: None }).is_some())
    }

    pub(super) fn door(&self, name: &str) -> Option<&Door> {
        self.0.iter().find(|door| door.name == name).map(Arc::as_ref)
    }
}

impl Door {
    fn new(name: &str, rules: Failover) -> Door {
        let gate = Mutex::new(Gate::new(rules));
        let (answered, failed) = (AtomicU64::default(), AtomicU64::default());
        Door { name: name.to_owned(), gate, answered, failed, latest: Mutex::default() }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        // What it holds is whole after every step, so that a thread that died holding it leaves nothing half done.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn latest(&self) -> MutexGuard<'_, VecDeque<Trouble>> {
        self.latest.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn manner(&self) -> Manner {
        let (state, wait, resting) = self.gate().look(Instant::now());
        let [answered, failed] = [&self.answered, &self.failed].map(|count| count.load(Ordering::Relaxed));
        let latest = self.latest().iter().rev().cloned().collect();
        Manner { name: self.name.clone(), state, wait, resting, answered, failed, latest }
    }

    /// How long a call has to wait, as things stand; nothing if it may pass.
    pub fn wait(&self, caller: Caller<'_>) -> Option<Duration> {
        self.gate().wait(caller, Instant::now())
    }

    /// Lets a call pass, or says how long it would have to wait.
    pub fn enter<'a>(&'a self, caller: Caller<'a>) -> Result<Visit<'a>, Duration> {
        let pass = Some(self.gate().enter(caller, Instant::now())?);
        Ok(Visit { door: self, caller, pass })
    }
}

impl Visit<'_> {
    /// Remembers why it was not served, for the operator.
    pub fn note(&self, request: RequestId, error: &Error) {
        self.door.failed.fetch_add(1, Ordering::Relaxed);
        let model = self.caller.model.to_owned();
        let mut latest = self.door.latest();
        latest.push_back(Trouble { request, model, code: error.code, cause: error.cause.clone() });
        if latest.len() > LATEST {
            latest.pop_front();
        }
    }

    /// How it went, and how long the upstream wants to be left alone with this model, if it said so.
    pub fn went(mut self, word: Word, rest: Option<Duration>) {
        if let Some(rest) = rest.filter(|rest| !rest.is_zero()) {
            let model = self.caller.model;
            self.door.gate().rest(model, rest, Instant::now());
            let (upstream, seconds) = (&self.door.name, rest.as_secs());
            tracing::info!(upstream, model, seconds, "upstream {upstream} wants to be left alone with {model} for {seconds} s");
        }
        self.say(word);
    }

    fn say(&mut self, word: Word) {
        let Some(pass) = self.pass.take() else { return };
        if word == Word::Well {
            self.door.answered.fetch_add(1, Ordering::Relaxed);
        }
        let news = self.door.gate().tell(self.caller, pass, word, Instant::now());
        let (upstream, model) = (&self.door.name, self.caller.model);
        match news.whole {
            Some(Change::Paused(pause)) => {
                let seconds = pause.as_secs_f32();
                tracing::warn!(upstream, seconds, "upstream {upstream} is down: it is not asked for {seconds} s");
            }
            Some(Change::Resumed) => tracing::info!(upstream, "upstream {upstream} is back: it is asked again"),
            None => {}
        }
        match news.model {
            Some(Change::Paused(pause)) => {
                let seconds = pause.as_secs_f32();
                tracing::warn!(
                    upstream,
                    model,
                    seconds,
                    "upstream {upstream} fails at {model}: it is not asked for it for {seconds} s"
                );
            }
            Some(Change::Resumed) => tracing::info!(upstream, model, "upstream {upstream} serves {model} again"),
            None => {}
        }
        let Some(account) = self.caller.account else { return };
        match news.account {
            Some(Change::Paused(pause)) => {
                let seconds = pause.as_secs_f32();
                tracing::warn!(upstream, model, %account, seconds, "upstream {upstream} fails at {model} for one account alone: it is not asked for that account for {seconds} s");
            }
            Some(Change::Resumed) => tracing::info!(upstream, model, "upstream {upstream} serves {model} to every account again"),
            None => {}
        }
    }
}

impl Drop for Visit<'_> {
    fn drop(&mut self) {
        self.say(Word::Nothing);
    }
}
