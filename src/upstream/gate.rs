//! Whether an upstream is asked: failures in a row pause it, one call then finds out whether it is back, and what it says itself
//! about when to come again is heeded.

use std::collections::BTreeMap;
use std::time::Duration;

use tokio::time::Instant;

use crate::config::Failover;

/// What the end of a call says about its upstream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Word {
    Well,
    /// It cannot be reached, fails, does not answer, or does not take the operator's key.
    Down,
    /// The call ended for a reason of its own: its caller left, or its request was at fault.
    Nothing,
}

/// How long an upstream wants to be left alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Rest {
    pub time: Duration,
    /// All of it, and not the one model that was asked for.
    pub whole: bool,
}

/// What changed for all calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Change {
    /// It is not asked for so long.
    Paused(Duration),
    /// It is asked again.
    Resumed,
}

/// A call was let through. Says since which change, because the word of a call from before it is no news.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Pass(u64);

/// The most that an upstream is left alone for because it said so; then it is asked once more.
const LONGEST_REST: Duration = Duration::from_secs(60 * 60);
/// When to come again while a call finds out whether the upstream is back.
const SOON: Duration = Duration::from_secs(1);

/// The gate in front of one upstream.
#[derive(Debug)]
pub(super) struct Gate {
    rules: Failover,
    state: State,
    /// Counts the changes of `state`.
    changes: u64,
    /// Until when it wants to be left alone, and until when for one of its models.
    rest: Option<Instant>,
    rests: BTreeMap<String, Instant>,
}

#[derive(Debug, Clone, Copy)]
enum State {
    /// Everybody may pass. So many calls in a row found it down.
    Open { failures: u32 },
    /// Nobody may, for now.
    Paused { until: Instant, pause: Duration },
    /// One call finds out. If it has not said a word by then, as with a long answer, a second one may.
    Trying { until: Instant, pause: Duration },
}

impl Gate {
    pub fn new(rules: Failover) -> Gate {
        Gate { rules, state: State::Open { failures: 0 }, changes: 0, rest: None, rests: BTreeMap::new() }
    }

    /// Whether calls are let through as always: it was not found down, or is back.
    pub fn is_open(&self) -> bool {
        matches!(self.state, State::Open { .. })
    }

    /// How long a call for this model has to wait, as things stand; nothing if it may pass.
    pub fn wait(&self, model: &str, now: Instant) -> Option<Duration> {
        let left = |until: &Instant| until.checked_duration_since(now).filter(|left| !left.is_zero());
        let paused = match &self.state {
            State::Open { .. } => None,
            State::Paused { until, .. } => left(until),
            State::Trying { until, .. } => left(until).map(|left| left.min(SOON)),
        };
        let rest = self.rest.as_ref().and_then(left);
        let own = self.rests.get(model).and_then(left);
        paused.max(rest).max(own)
    }

    /// Lets a call pass, or says how long it would have to wait. Whoever passes must [tell](Gate::tell) how it went.
    pub fn enter(&mut self, model: &str, now: Instant) -> Result<Pass, Duration> {
        if let Some(wait) = self.wait(model, now) {
            return Err(wait);
        }
        match self.state {
            State::Open { .. } => {}
            State::Paused { pause, .. } => self.change(State::Trying { until: now + pause, pause }),
            // No change: the word of the one before counts still, however long its answer takes.
            State::Trying { pause, .. } => self.state = State::Trying { until: now + pause, pause },
        }
        Ok(Pass(self.changes))
    }

    /// How the call went that had this pass.
    pub fn tell(&mut self, pass: Pass, word: Word, now: Instant) -> Option<Change> {
        if pass.0 != self.changes {
            return None;
        }
        match (self.state, word) {
            (State::Open { .. }, Word::Well) => self.state = State::Open { failures: 0 },
            (State::Open { failures }, Word::Down) => {
                let failures = failures.saturating_add(1);
                if self.rules.failures > 0 && failures >= self.rules.failures {
                    return Some(self.pause(self.rules.pause, now));
                }
                self.state = State::Open { failures };
            }
            (State::Trying { .. }, Word::Well) => {
                self.change(State::Open { failures: 0 });
                return Some(Change::Resumed);
            }
            (State::Trying { pause, .. }, Word::Down) => {
                return Some(self.pause(pause.saturating_mul(2).min(self.rules.longest_pause), now));
            }
            // The next call finds out, unless one that is still on its way does.
            (State::Trying { pause, .. }, Word::Nothing) => self.state = State::Trying { until: now, pause },
            (State::Open { .. } | State::Paused { .. }, Word::Nothing) | (State::Paused { .. }, _) => {}
        }
        None
    }

    /// The upstream wants to be left alone. It is never asked earlier because of a later word.
    pub fn rest(&mut self, model: &str, rest: Rest, now: Instant) {
        let until = now + rest.time.min(LONGEST_REST);
        match rest.whole {
            true => self.rest = self.rest.max(Some(until)),
            false => {
                self.rests.retain(|_, until| *until > now);
                let own = self.rests.entry(model.to_owned()).or_insert(until);
                *own = until.max(*own);
            }
        }
    }

    fn pause(&mut self, pause: Duration, now: Instant) -> Change {
        self.change(State::Paused { until: now + pause, pause });
        Change::Paused(pause)
    }

    fn change(&mut self, state: State) {
        self.state = state;
        self.changes += 1;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const MODEL: &str = "m";
    const PAUSE: Duration = Duration::from_secs(5);
    const RULES: Failover = Failover { failures: 3, pause: PAUSE, longest_pause: Duration::from_secs(18) };

    fn failed(gate: &mut Gate, now: Instant) -> Option<Change> {
        let pass = gate.enter(MODEL, now).unwrap();
        gate.tell(pass, Word::Down, now)
    }

    #[test]
    fn failures_in_a_row_pause_it_and_one_call_that_goes_well_resumes_it() {
        let (mut gate, now) = (Gate::new(RULES), Instant::now());
        assert_eq!([failed(&mut gate, now), failed(&mut gate, now)], [None, None]);
        let pass = gate.enter(MODEL, now).unwrap();
        assert_eq!(gate.tell(pass, Word::Well, now), None, "one that goes well begins the count anew");
        assert_eq!([failed(&mut gate, now), failed(&mut gate, now)], [None, None]);
        assert_eq!(failed(&mut gate, now), Some(Change::Paused(PAUSE)));
        assert_eq!(gate.enter(MODEL, now + PAUSE / 2), Err(PAUSE / 2));

        let mut now = now + PAUSE;
        for pause in [10, 18, 18].map(Duration::from_secs) {
            let probe = gate.enter(MODEL, now).unwrap();
            assert_eq!(gate.enter(MODEL, now), Err(SOON), "one call finds out, and no second one with it");
            assert_eq!(gate.tell(probe, Word::Down, now), Some(Change::Paused(pause)), "the pause grows");
            assert!(gate.enter(MODEL, now + pause - SOON).is_err());
            now += pause;
        }
        let probe = gate.enter(MODEL, now).unwrap();
        assert_eq!(gate.tell(probe, Word::Well, now), Some(Change::Resumed));
        assert!((0..10).all(|_| gate.enter(MODEL, now).is_ok()));
        assert_eq!([failed(&mut gate, now), failed(&mut gate, now)], [None, None]);
        assert_eq!(failed(&mut gate, now), Some(Change::Paused(PAUSE)), "and is short again");
    }

    #[test]
    fn a_call_that_says_nothing_neither_pauses_nor_resumes_and_holds_nobody_up() {
        let (mut gate, now) = (Gate::new(RULES), Instant::now());
        for _ in 0..100 {
            let pass = gate.enter(MODEL, now).unwrap();
            assert_eq!(gate.tell(pass, Word::Nothing, now), None);
        }
        (0..3).for_each(|_| _ = failed(&mut gate, now));
        let later = now + PAUSE;
        let probe = gate.enter(MODEL, later).unwrap();
        assert_eq!(gate.tell(probe, Word::Nothing, later), None);
        let probe = gate.enter(MODEL, later).expect("the next call finds out");
        assert_eq!(gate.tell(probe, Word::Well, later), Some(Change::Resumed));
    }

    #[test]
    fn a_call_that_takes_its_time_to_find_out_is_joined_by_another_and_its_word_counts_all_the_same() {
        let (mut gate, now) = (Gate::new(RULES), Instant::now());
        (0..3).for_each(|_| _ = failed(&mut gate, now));
        let slow = gate.enter(MODEL, now + PAUSE).unwrap();
        assert!(gate.enter(MODEL, now + PAUSE + SOON).is_err());
        let second = gate.enter(MODEL, now + PAUSE * 2).expect("it is not waited for longer than the pause was");
        assert!(gate.enter(MODEL, now + PAUSE * 2).is_err(), "one more, and not all of them");
        assert_eq!(gate.tell(slow, Word::Well, now + PAUSE * 2), Some(Change::Resumed));
        assert_eq!(gate.tell(second, Word::Down, now + PAUSE * 3), None, "which is no news any more");
        assert!(gate.enter(MODEL, now + PAUSE * 3).is_ok());
    }

    #[test]
    fn calls_from_before_a_pause_do_not_lengthen_or_end_it() {
        let (mut gate, now) = (Gate::new(RULES), Instant::now());
        let before: Vec<_> = (0..20).map(|_| gate.enter(MODEL, now).unwrap()).collect();
        let changes: Vec<_> = before.iter().filter_map(|pass| gate.tell(*pass, Word::Down, now)).collect();
        assert_eq!(changes, [Change::Paused(PAUSE)], "however many fail at once");
        assert_eq!(gate.tell(before[0], Word::Well, now), None);
        assert!(gate.enter(MODEL, now).is_err());
        let probe = gate.enter(MODEL, now + PAUSE).unwrap();
        assert_eq!(gate.tell(before[1], Word::Well, now + PAUSE), None, "only the one that finds out has a say");
        assert_eq!(gate.tell(probe, Word::Down, now + PAUSE), Some(Change::Paused(PAUSE * 2)));
    }

    #[test]
    fn without_a_count_nothing_is_ever_paused() {
        let (mut gate, now) = (Gate::new(Failover { failures: 0, ..RULES }), Instant::now());
        assert!((0..1000).all(|_| failed(&mut gate, now).is_none()));
    }

    #[test]
    fn an_upstream_that_wants_to_be_left_alone_is_and_for_the_longest_time_it_named() {
        let (mut gate, now) = (Gate::new(RULES), Instant::now());
        let seconds = Duration::from_secs;
        gate.rest(MODEL, Rest { time: seconds(9), whole: false }, now);
        gate.rest(MODEL, Rest { time: seconds(2), whole: false }, now);
        assert_eq!(gate.enter(MODEL, now + seconds(3)), Err(seconds(6)));
        assert!(gate.enter("another", now).is_ok(), "its other models have limits of their own");
        assert!(gate.enter(MODEL, now + seconds(9)).is_ok());

        gate.rest(MODEL, Rest { time: seconds(9), whole: true }, now);
        assert_eq!(gate.enter("another", now), Err(seconds(9)));
        gate.rest(MODEL, Rest { time: seconds(86_400), whole: false }, now);
        assert_eq!(gate.enter(MODEL, now), Err(LONGEST_REST), "nobody is left alone for a day");
    }

    /// One step of a random story: calls come, end with a word or are forgotten, time passes.
    #[derive(Debug, Clone)]
    enum Step {
        Enter,
        End(usize, Word),
        Rest(u64),
        Pass(u64),
    }

    fn step() -> impl Strategy<Value = Step> {
        let word = prop_oneof![1 => Just(Word::Well), 3 => Just(Word::Down), 1 => Just(Word::Nothing)];
        prop_oneof![
            3 => Just(Step::Enter),
            4 => (0..8usize, word).prop_map(|(which, word)| Step::End(which, word)),
            1 => (0..12_000u64).prop_map(Step::Rest),
            2 => (0..9_000u64).prop_map(Step::Pass),
        ]
    }

    proptest! {
        #[test]
        fn whatever_happens_a_pause_is_kept_one_call_ends_it_and_nobody_waits_for_ever(
            story in prop::collection::vec(step(), 1..120)
        ) {
            let (mut gate, mut now) = (Gate::new(RULES), Instant::now());
            let mut running = Vec::new();
            let (mut paused_until, mut rest_until, mut probes, mut is_paused) = (now, now, 0, false);
            for step in story {
                match step {
                    Step::Enter => {
                        let wait = gate.wait(MODEL, now);
                        let entered = gate.enter(MODEL, now);
                        prop_assert_eq!(entered.err(), wait, "what was said before is what happens");
                        if let Ok(pass) = entered {
                            prop_assert!(now >= paused_until && now >= rest_until, "it was asked while it was to be left alone");
                            probes += usize::from(is_paused);
                            prop_assert!(probes <= 1, "two calls find out at the same time");
                            running.push(pass);
                        }
                    }
                    Step::End(which, word) if which < running.len() => {
                        let pass = running.remove(which);
                        let finds_out = is_paused && pass == Pass(gate.changes);
                        match gate.tell(pass, word, now) {
                            Some(Change::Paused(pause)) => {
                                prop_assert!(word == Word::Down && pause >= RULES.pause && pause <= RULES.longest_pause);
                                (paused_until, is_paused, probes) = (now + pause, true, 0);
                            }
                            Some(Change::Resumed) => {
                                prop_assert!(finds_out && word == Word::Well);
                                (is_paused, probes) = (false, 0);
                            }
                            None if finds_out && word == Word::Nothing => probes = 0,
                            None => {}
                        }
                    }
                    Step::End(..) => {}
                    Step::Rest(millis) => {
                        let time = Duration::from_millis(millis);
                        gate.rest(MODEL, Rest { time, whole: millis % 2 == 0 }, now);
                        rest_until = rest_until.max(now + time);
                    }
                    Step::Pass(millis) => {
                        now += Duration::from_millis(millis);
                        // A call that finds out and says nothing for so long is not alone any longer.
                        if let State::Trying { until, .. } = gate.state && now >= until {
                            probes = 0;
                        }
                    }
                }
            }
            // Whatever state it is in, it is asked again without anybody's help.
            prop_assert!(gate.enter(MODEL, now + RULES.longest_pause + Duration::from_secs(12)).is_ok());
        }
    }
}
