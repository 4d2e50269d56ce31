//! Whether an upstream is asked: failures in a row pause it, one call then finds out whether it is back, and what it says itself
//! about when to come again is heeded.
//!
//! All of it is paused only when it cannot be reached, which no caller can bring about and which is true of every model. What it
//! answers to one model says nothing of its others. And what it answers to one account may be that account's own doing: such
//! failures pause the model for that account alone, until another one's call fails as well; nor is a model paused for all that
//! has just served somebody.

mod line;

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::account::AccountId;
use crate::config::Failover;
use line::{Line, State, left};

/// What the end of a call says about its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Well,
    /// There is no connection to it.
    Unreachable,
    /// There is, and it fails at this model, does not answer, or does not take the operator's key.
    Failing,
    /// The call ended for a reason of its own: its caller left, or its request was at fault.
    Nothing,
}

/// What changed for the calls that it concerns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is not asked for so long.
    Paused(Duration),
    /// It is asked again.
    Resumed,
}

/// What the word of one call has changed: for all calls, for those that ask for its model, for those of its account that do.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct News {
    pub whole: Option<Change>,
    pub model: Option<Change>,
    pub account: Option<Change>,
}

/// Whether an upstream is asked, for the operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mood {
    /// It is asked, maybe not for every model.
    Up,
    /// Nobody asks it, because there was no connection.
    Resting,
    /// One call finds out whether it is back.
    Trying,
}

impl Mood {
    pub fn name(self) -> &'static str {
        match self {
            Mood::Up => "up",
            Mood::Resting => "resting",
            Mood::Trying => "trying",
        }
    }
}

/// A model that an upstream is not asked for, for the operator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resting {
    /// As the upstream calls it.
    pub model: String,
    /// The one account for which it is not asked, if it is asked for others.
    pub account: Option<AccountId>,
    pub wait: Duration,
}

/// A call as its upstream's gate sees it: the model as the upstream calls it, and who pays, if that is known.
#[derive(Debug, Clone, Copy)]
pub(super) struct Caller<'a> {
    pub model: &'a str,
    pub account: Option<AccountId>,
}

/// A call was let through. Says since which changes, because the word of a call from before them is no news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass {
    whole: u64,
    model: u64,
    alone: Option<u64>,
}

/// The gate in front of one upstream.
#[derive(Debug)]
pub(super) struct Gate {
    rules: Failover,
    whole: Line,
    /// So many calls in a row did not reach it.
    unreached: u32,
    models: BTreeMap<String, Served>,
}

/// What is known of one model at this upstream.
#[derive(Debug, Default)]
struct Served {
    line: Line,
    streak: Streak,
    /// The account whose calls alone failed, for which alone it is paused.
    alone: Option<(AccountId, Line)>,
    /// When a call went well last.
    well: Option<Instant>,
    /// Until when the upstream wants to be left alone with it.
    rest: Option<Instant>,
}

/// Failures in a row.
#[derive(Debug, Default, Clone, Copy)]
struct Streak {
    failures: u32,
    /// Whose call the first of them was, and whether there was one of somebody else.
    account: Option<AccountId>,
    several: bool,
}

impl Gate {
    pub fn new(rules: Failover) -> Gate {
        Gate { rules, whole: Line::default(), unreached: 0, models: BTreeMap::new() }
    }

    /// Goes by other rules from now on; a pause that has begun lasts as long as it was to.
    pub fn follow(&mut self, rules: Failover) {
        self.rules = rules;
    }

    /// Whether calls are let through as always: neither it nor one of its models was found down.
    pub fn is_open(&self) -> bool {
        self.whole.is_open() && self.models.values().all(|served| served.line.is_open())
    }

    /// How long a call has to wait, as things stand; nothing if it may pass.
    pub fn wait(&self, caller: Caller<'_>, now: Instant) -> Option<Duration> {
        let whole = self.whole.wait(now);
        let Some(served) = self.models.get(caller.model) else { return whole };
        let alone = served.alone(caller.account).and_then(|line| line.wait(now));
        let rest = served.rest.and_then(|until| left(until, now));
        whole.max(served.line.wait(now)).max(alone).max(rest)
    }

    /// How it stands: whether it is asked, after how long it is asked again, and the models that it is not asked for.
    pub fn look(&self, now: Instant) -> (Mood, Option<Duration>, Vec<Resting>) {
        let mood = match self.whole.state {
            State::Open => Mood::Up,
            State::Paused { .. } => Mood::Resting,
            State::Trying { .. } => Mood::Trying,
        };
        let resting = self.models.iter().flat_map(|(model, served)| served.resting(model, now)).collect();
        (mood, self.whole.wait(now), resting)
    }

    /// Lets a call pass, or says how long it would have to wait. Whoever passes must [tell](Gate::tell) how it went.
    pub fn enter(&mut self, caller: Caller<'_>, now: Instant) -> Result<Pass, Duration> {
        if let Some(wait) = self.wait(caller, now) {
            return Err(wait);
        }
        let whole = self.whole.enter(now);
        let served = self.served(caller.model);
        let model = served.line.enter(now);
        let alone = served.alone.as_mut().filter(|(account, _)| Some(*account) == caller.account);
        Ok(Pass { whole, model, alone: alone.map(|(_, line)| line.enter(now)) })
    }

    /// How the call went that had this pass.
    pub fn tell(&mut self, caller: Caller<'_>, pass: Pass, word: Word, now: Instant) -> News {
        let whole = self.reached(pass.whole, word, now);
        let rules = self.rules;
        let served = self.served(caller.model);
        let is_well = match word {
            Word::Well => Some(true),
            Word::Failing => Some(false),
            Word::Unreachable | Word::Nothing => None,
        };
        if served.line.changes != pass.model {
            return News { whole, ..News::default() };
        }
        if is_well == Some(true) {
            (served.streak, served.well) = (Streak::default(), Some(now));
        }
        let mut news = News { whole, ..News::default() };
        if !served.line.is_open() {
            news.model = served.line.tried(is_well, rules.longest_pause, now);
            return news;
        }
        news.account = served.found_alone(caller.account, pass.alone, is_well, (&rules, now));
        if is_well == Some(false) {
            served.streak.add(caller.account);
            let paused = served.judge(&rules, now);
            (news.model, news.account) = (paused.model, paused.account.or(news.account));
        }
        news
    }

    /// The upstream wants to be left alone with this model: no longer than a pause of ours may be, as what it said may be wrong, or
    /// over sooner. It is never asked earlier because of a later word.
    pub fn rest(&mut self, model: &str, time: Duration, now: Instant) {
        let until = now + time.min(self.rules.longest_pause);
        let served = self.served(model);
        served.rest = served.rest.max(Some(until));
    }

    /// Whether there was a connection.
    fn reached(&mut self, pass: u64, word: Word, now: Instant) -> Option<Change> {
        let reached = match word {
            Word::Well | Word::Failing => Some(true),
            Word::Unreachable => Some(false),
            Word::Nothing => None,
        };
        if self.whole.changes != pass {
            return None;
        }
        if !self.whole.is_open() {
            self.unreached = 0;
            return self.whole.tried(reached, self.rules.longest_pause, now);
        }
        match reached {
            Some(true) => self.unreached = 0,
            Some(false) => self.unreached = self.unreached.saturating_add(1),
            None => {}
        }
        enough(&self.rules, self.unreached).then(|| self.whole.pause(self.rules.pause, now))
    }

    /// Models are those of the configuration: there are never many.
    fn served(&mut self, model: &str) -> &mut Served {
        self.models.entry(model.to_owned()).or_default()
    }
}

impl Served {
    /// For whom it is not asked for, and for how long: for everybody, or for one account alone.
    fn resting(&self, model: &str, now: Instant) -> impl Iterator<Item = Resting> {
        let all = self.line.wait(now).max(self.rest.and_then(|until| left(until, now))).map(|wait| (None, wait));
        let one = self.alone.as_ref().and_then(|(account, line)| Some((Some(*account), line.wait(now)?)));
        let model = model.to_owned();
        all.into_iter().chain(one).map(move |(account, wait)| Resting { model: model.clone(), account, wait })
    }

    /// The line of the one account for which it is paused, if this is that one.
    fn alone(&self, account: Option<AccountId>) -> Option<&Line> {
        self.alone.as_ref().filter(|(alone, _)| Some(*alone) == account).map(|(_, line)| line)
    }

    /// What the call of an account that is paused alone has found, and that it is so no more once anybody's call goes well.
    fn found_alone(
        &mut self,
        account: Option<AccountId>,
        pass: Option<u64>,
        is_well: Option<bool>,
        (rules, now): (&Failover, Instant),
    ) -> Option<Change> {
        let (alone, line) = self.alone.as_mut()?;
        if is_well == Some(true) {
            self.alone = None;
            return Some(Change::Resumed);
        }
        let finds_out = Some(*alone) == account && pass == Some(line.changes);
        finds_out.then(|| line.tried(is_well, rules.longest_pause, now))?
    }

    /// Pauses it after a failure, if there were enough: for all if several accounts had them and nobody had better luck in as long
    /// as a pause takes, for one account if all were its own.
    fn judge(&mut self, rules: &Failover, now: Instant) -> News {
        let mut news = News::default();
        if !enough(rules, self.streak.failures) {
            return news;
        }
        match (self.streak.several, self.streak.account) {
            (false, Some(account)) if self.alone.is_none() => {
                let mut line = Line::default();
                news.account = Some(line.pause(rules.pause, now));
                self.alone = Some((account, line));
            }
            (true, _) if self.well.is_none_or(|well| well + rules.pause <= now) => {
                (self.streak, self.alone) = (Streak::default(), None);
                news.model = Some(self.line.pause(rules.pause, now));
            }
            _ => {}
        }
        news
    }
}

impl Streak {
    fn add(&mut self, account: Option<AccountId>) {
        self.failures = self.failures.saturating_add(1);
        self.several |= self.account.is_some() && self.account != account;
        self.account = self.account.or(account);
    }
}

/// Whether so many failures in a row are enough for a pause.
fn enough(rules: &Failover, failures: u32) -> bool {
    rules.failures > 0 && failures >= rules.failures
}

#[cfg(test)]
mod tests;
