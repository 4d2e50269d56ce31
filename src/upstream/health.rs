//! How the upstreams do, as all worker threads see it together: what one of them finds out is known to all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::gate::{Change, Gate, Pass, Rest, Word};
use crate::config::{self, Failover};

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
}

/// A call that was let through and has not said how it went. Dropped before it does, it says nothing.
pub(super) struct Visit<'a> {
    door: &'a Door,
    model: &'a str,
    pass: Option<Pass>,
}

impl Health {
    pub fn new(upstreams: &[config::Upstream], rules: Failover) -> Health {
        let door = |upstream: &config::Upstream| Door { name: upstream.name.clone(), gate: Mutex::new(Gate::new(rules)) };
        Health(upstreams.iter().map(door).collect())
    }

    /// The name of each upstream, and whether it is taken for up.
    pub fn states(&self) -> impl Iterator<Item = (&str, bool)> {
        self.0.iter().map(|door| (door.name.as_str(), door.gate().is_open()))
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
