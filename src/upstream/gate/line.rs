//! The line of calls to what may be down: open, paused, or tried by one call that finds out whether it is back.

use std::time::Duration;

use tokio::time::Instant;

use super::Change;

/// When to come again while a call finds out.
pub(super) const SOON: Duration = Duration::from_secs(1);

#[derive(Debug)]
pub(super) struct Line {
    pub state: State,
    /// Counts the changes of `state`: the word of a call from before the last one is no news.
    pub changes: u64,
}

#[derive(Debug, Clone, Copy)]
pub(super) enum State {
    /// Everybody may pass.
    Open,
    /// Nobody may, for now.
    Paused { until: Instant, pause: Duration },
    /// One call finds out. If it has not said a word by then, as with a long answer, a second one may.
    Trying { until: Instant, pause: Duration },
}

impl Default for Line {
    fn default() -> Line {
        Line { state: State::Open, changes: 0 }
    }
}

impl Line {
    /// How long a call has to wait; nothing if it may pass.
    pub fn wait(&self, now: Instant) -> Option<Duration> {
        match self.state {
            State::Open => None,
            State::Paused { until, .. } => left(until, now),
            State::Trying { until, .. } => left(until, now).map(|left| left.min(SOON)),
        }
    }

    /// Lets a call pass that nothing holds up.
    pub fn enter(&mut self, now: Instant) -> u64 {
        match self.state {
            State::Open => {}
            State::Paused { pause, .. } => self.change(State::Trying { until: now + pause, pause }),
            // No change: the word of the one before counts still, however long its answer takes.
            State::Trying { pause, .. } => self.state = State::Trying { until: now + pause, pause },
        }
        self.changes
    }

    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open)
    }

    pub fn pause(&mut self, pause: Duration, now: Instant) -> Change {
        self.change(State::Paused { until: now + pause, pause });
        Change::Paused(pause)
    }

    /// What the call that found out has found: that it is back, or is not, or nothing.
    pub fn tried(&mut self, is_back: Option<bool>, longest: Duration, now: Instant) -> Option<Change> {
        let State::Trying { pause, .. } = self.state else { return None };
        match is_back {
            Some(true) => {
                self.change(State::Open);
                Some(Change::Resumed)
            }
            Some(false) => Some(self.pause(pause.saturating_mul(2).min(longest), now)),
            // The next call finds out, unless one that is still on its way does.
            None => {
                self.state = State::Trying { until: now, pause };
                None
            }
        }
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.changes += 1;
    }
}

/// The time until then, if there is any.
pub(super) fn left(until: Instant, now: Instant) -> Option<Duration> {
    until.checked_duration_since(now).filter(|left| !left.is_zero())
}
