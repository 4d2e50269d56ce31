//! How the upstreams do, as all worker threads see it together: what one of them finds out is known to all.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::gate::{Caller, Change, Gate, Pass, Word};
use crate::config::{self, Failover};

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

    pub(super) fn door(&self, name: &str) -> Option<&Door> {
        self.0.iter().find(|door| door.name == name).map(Arc::as_ref)
    }
}

impl Door {
    fn new(name: &str, rules: Failover) -> Door {
        Door { name: name.to_owned(), gate: Mutex::new(Gate::new(rules)) }
    }

    fn gate(&self) -> MutexGuard<'_, Gate> {
        // What it holds is whole after every step, so that a thread that died holding it leaves nothing half done.
        self.gate.lock().unwrap_or_else(PoisonError::into_inner)
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
