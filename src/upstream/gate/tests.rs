//! Who is paused by what: nobody's own failures keep others out, nor one model's the rest, and every pause is tried by one call.

use proptest::prelude::*;

use super::line::SOON;
use super::*;

const PAUSE: Duration = Duration::from_secs(5);
const RULES: Failover = Failover { failures: 3, pause: PAUSE, longest_pause: Duration::from_secs(18) };
const NOTHING: News = News { whole: None, model: None, account: None };

fn account(number: u8) -> AccountId {
    AccountId::Evm([number; 20])
}

/// A call for the model `m` by one of many accounts.
fn by(number: u8) -> Caller<'static> {
    Caller { model: "m", account: Some(account(number)) }
}

fn ended(gate: &mut Gate, caller: Caller<'_>, word: Word, now: Instant) -> News {
    let pass = gate.enter(caller, now).unwrap();
    gate.tell(caller, pass, word, now)
}

/// Fails for three accounts, which pauses the model.
fn fail_for_three(gate: &mut Gate, now: Instant) -> [News; 3] {
    [1, 2, 3].map(|number| ended(gate, by(number), Word::Failing, now))
}

fn paused(pause: Duration) -> Option<Change> {
    Some(Change::Paused(pause))
}

#[test]
fn failures_in_a_row_pause_a_model_and_one_call_that_goes_well_resumes_it() {
    let (mut gate, now) = (Gate::new(RULES), Instant::now());
    (1..3).for_each(|number| assert_eq!(ended(&mut gate, by(number), Word::Failing, now), NOTHING));
    assert_eq!(ended(&mut gate, by(1), Word::Well, now), NOTHING, "one that goes well begins the count anew");
    let now = now + PAUSE;
    let news = fail_for_three(&mut gate, now);
    assert_eq!(news, [NOTHING, NOTHING, News { model: paused(PAUSE), ..NOTHING }]);
    assert_eq!(gate.enter(by(9), now + PAUSE / 2), Err(PAUSE / 2));

    let mut now = now + PAUSE;
    for pause in [10, 18, 18].map(Duration::from_secs) {
        let probe = gate.enter(by(1), now).unwrap();
        assert_eq!(gate.enter(by(2), now), Err(SOON), "one call finds out, and no second one with it");
        assert_eq!(gate.tell(by(1), probe, Word::Failing, now).model, paused(pause), "the pause grows");
        assert!(gate.enter(by(1), now + pause - SOON).is_err());
        now += pause;
    }
    assert_eq!(ended(&mut gate, by(1), Word::Well, now).model, Some(Change::Resumed));
    assert!((0..10).all(|number| gate.enter(by(number), now).is_ok()));
    assert_eq!(fail_for_three(&mut gate, now + PAUSE)[2].model, paused(PAUSE), "and is short again");
}

#[test]
fn a_model_that_fails_is_paused_and_the_others_of_its_upstream_are_not() {
    let (mut gate, now) = (Gate::new(RULES), Instant::now());
    fail_for_three(&mut gate, now);
    assert!(gate.enter(by(1), now).is_err());
    let other = Caller { model: "other", account: None };
    assert!((0..10).all(|_| ended(&mut gate, other, Word::Well, now) == NOTHING));
    assert!(gate.enter(by(1), now).is_err(), "nor does another one end its pause");
}

#[test]
fn an_upstream_that_cannot_be_reached_is_paused_with_all_its_models_whoever_asks() {
    let (mut gate, now) = (Gate::new(RULES), Instant::now());
    let of = |model| Caller { model, account: Some(account(1)) };
    for model in ["a", "b"] {
        assert_eq!(ended(&mut gate, of(model), Word::Unreachable, now), NOTHING);
    }
    assert_eq!(ended(&mut gate, of("c"), Word::Unreachable, now).whole, paused(PAUSE));
    assert_eq!(gate.wait(Caller { model: "d", account: None }, now), Some(PAUSE));
    let probe = gate.enter(of("a"), now + PAUSE).unwrap();
    assert_eq!(gate.tell(of("a"), probe, Word::Unreachable, now + PAUSE).whole, paused(PAUSE * 2));
    // A model that is dead finds out that the upstream is not.
    let now = now + PAUSE * 3;
    let news = ended(&mut gate, of("a"), Word::Failing, now);
    assert_eq!(news, News { whole: Some(Change::Resumed), ..NOTHING });
    assert!(["a", "b", "c"].iter().all(|model| gate.enter(of(model), now).is_ok()));
}

#[test]
fn what_fails_for_one_account_alone_is_paused_for_that_account_alone() {
    let (mut gate, now) = (Gate::new(RULES), Instant::now());
    let news: Vec<_> = (0..3).map(|_| ended(&mut gate, by(1), Word::Failing, now)).collect();
    assert_eq!(news, [NOTHING, NOTHING, News { account: paused(PAUSE), ..NOTHING }]);
    assert_eq!(gate.wait(by(1), now), Some(PAUSE));
    for other in [by(2), Caller { model: "m", account: None }, Caller { model: "other", account: Some(account(1)) }] {
        assert_eq!(gate.wait(other, now), None, "{other:?}");
    }
    // It finds out for itself, one call at a time and ever more seldom, and others are none the worse for it.
    let later = now + PAUSE;
    let probe = gate.enter(by(1), later).unwrap();
    assert_eq!(gate.enter(by(1), later), Err(SOON));
    assert_eq!(gate.tell(by(1), probe, Word::Failing, later).account, paused(PAUSE * 2));
    assert_eq!(gate.wait(by(2), later), None);
    assert_eq!(
        ended(&mut gate, by(2), Word::Well, later).account,
        Some(Change::Resumed),
        "it was not the upstream's fault for ever"
    );
    assert_eq!(gate.wait(by(1), later), None);
}

#[test]
fn what_fails_for_a_second_account_as_well_is_paused_for_all() {
    let (mut gate, now) = (Gate::new(RULES), Instant::now());
    (0..3).for_each(|_| _ = ended(&mut gate, by(1), Word::Failing, now));
    assert_eq!(ended(&mut gate, by(2), Word::Failing, now).model, paused(PAUSE));
    assert_eq!(gate.wait(Caller { model: "m", account: None }, now), Some(PAUSE));
}

#[test]
fn a_model_that_has_just_served_somebody_is_not_paused_for_all_however_many_fail_on_purpose() {
    let (mut gate, mut now) = (Gate::new(RULES), Instant::now());
    for _ in 0..20 {
        assert_eq!(ended(&mut gate, by(1), Word::Well, now), NOTHING);
        for number in 2..20 {
            assert_eq!(ended(&mut gate, by(number), Word::Failing, now).model, None);
        }
        now += PAUSE - Duration::from_millis(1);
    }
    (2..6).for_each(|number| _ = gate.enter(by(number), now).map(|pass| gate.tell(by(number), pass, Word::Failing, now)));
    assert_eq!(gate.wait(by(1), now), None);
    let now = now + SOON;
    assert_eq!(ended(&mut gate, by(2), Word::Failing, now).model, paused(PAUSE), "it has served nobody for as long as a pause");
}

#[test]
fn a_call_that_says_nothing_neither_pauses_nor_resumes_and_holds_nobody_up() {
    let (mut gate, now) = (Gate::new(RULES), Instant::now());
    assert!((0..100).all(|_| ended(&mut gate, by(1), Word::Nothing, now) == NOTHING));
    fail_for_three(&mut gate, now);
    let later = now + PAUSE;
    assert_eq!(ended(&mut gate, by(1), Word::Nothing, later), NOTHING);
    assert_eq!(ended(&mut gate, by(1), Word::Well, later).model, Some(Change::Resumed), "the next call finds out");
}

#[test]
fn a_call_that_takes_its_time_to_find_out_is_joined_by_another_and_its_word_counts_all_the_same() {
    let (mut gate, now) = (Gate::new(RULES), Instant::now());
    fail_for_three(&mut gate, now);
    let slow = gate.enter(by(1), now + PAUSE).unwrap();
    assert!(gate.enter(by(2), now + PAUSE + SOON).is_err());
    let second = gate.enter(by(2), now + PAUSE * 2).expect("it is not waited for longer than the pause was");
    assert!(gate.enter(by(3), now + PAUSE * 2).is_err(), "one more, and not all of them");
    assert_eq!(gate.tell(by(1), slow, Word::Well, now + PAUSE * 2).model, Some(Change::Resumed));
    assert_eq!(gate.tell(by(2), second, Word::Failing, now + PAUSE * 3), NOTHING, "which is no news any more");
    assert!(gate.enter(by(2), now + PAUSE * 3).is_ok());
}

#[test]
fn calls_from_before_a_pause_do_not_lengthen_or_end_it() {
    let (mut gate, now) = (Gate::new(RULES), Instant::now());
    let before: Vec<_> = (0..20).map(|number| gate.enter(by(number), now).unwrap()).collect();
    let changes: Vec<_> = (0..20).filter_map(|n| gate.tell(by(n), before[usize::from(n)], Word::Failing, now).model).collect();
    assert_eq!(changes, [Change::Paused(PAUSE)], "however many fail at once");
    assert_eq!(gate.tell(by(0), before[0], Word::Well, now), NOTHING);
    assert!(gate.enter(by(0), now).is_err());
    let probe = gate.enter(by(0), now + PAUSE).unwrap();
    assert_eq!(gate.tell(by(1), before[1], Word::Well, now + PAUSE), NOTHING, "only the one that finds out has a say");
    assert_eq!(gate.tell(by(0), probe, Word::Failing, now + PAUSE).model, paused(PAUSE * 2));
}

#[test]
fn without_a_count_nothing_is_ever_paused() {
    let (mut gate, now) = (Gate::new(Failover { failures: 0, ..RULES }), Instant::now());
    let words = [Word::Failing, Word::Unreachable];
    assert!((0..200u8).all(|n| ended(&mut gate, by(n / 50), words[usize::from(n % 2)], now) == NOTHING));
}

#[test]
fn an_upstream_that_wants_to_be_left_alone_is_but_not_for_longer_than_a_pause_may_be() {
    let (mut gate, now) = (Gate::new(RULES), Instant::now());
    let seconds = Duration::from_secs;
    gate.rest("m", seconds(9), now);
    gate.rest("m", seconds(2), now);
    assert_eq!(gate.enter(by(1), now + seconds(3)), Err(seconds(6)), "the longest time counts that it named");
    assert!(gate.enter(Caller { model: "other", account: None }, now).is_ok(), "its other models have limits of their own");
    assert!(gate.enter(by(1), now + seconds(9)).is_ok());
    gate.rest("m", seconds(3600), now);
    assert_eq!(gate.enter(by(1), now), Err(RULES.longest_pause), "nobody is left alone for an hour on one word");
}

/// One step of a random story: calls come, end with a word or are forgotten, time passes.
#[derive(Debug, Clone)]
enum Step {
    Enter(u8),
    End(usize, Word),
    Rest(u64),
    Pass(u64),
}

fn step() -> impl Strategy<Value = Step> {
    let word = prop_oneof![
        1 => Just(Word::Well), 4 => Just(Word::Failing), 3 => Just(Word::Unreachable), 1 => Just(Word::Nothing)
    ];
    prop_oneof![
        3 => (0..3u8).prop_map(Step::Enter),
        4 => (0..8usize, word).prop_map(|(which, word)| Step::End(which, word)),
        1 => (0..12_000u64).prop_map(Step::Rest),
        2 => (0..9_000u64).prop_map(Step::Pass),
    ]
}

/// What a change does to when somebody may be asked again.
fn until(change: Option<Change>, before: Instant, now: Instant) -> Instant {
    match change {
        Some(Change::Paused(pause)) => {
            assert!(pause >= RULES.pause && pause <= RULES.longest_pause);
            now + pause
        }
        Some(Change::Resumed) | None => before,
    }
}

proptest! {
    #[test]
    fn whatever_happens_a_pause_is_kept_and_nobody_waits_for_ever(story in prop::collection::vec(step(), 1..150)) {
        let (mut gate, mut now) = (Gate::new(RULES), Instant::now());
        let mut running = Vec::new();
        // Until when nobody may be asked, and until when each account may not.
        let (mut all, mut each) = (now, [now; 3]);
        for step in story {
            match step {
                Step::Enter(number) => {
                    let wait = gate.wait(by(number), now);
                    let entered = gate.enter(by(number), now);
                    prop_assert_eq!(entered.err(), wait, "what was said before is what happens");
                    if let Ok(pass) = entered {
                        prop_assert!(now >= all && now >= each[usize::from(number)], "asked while it was to be left alone");
                        running.push((number, pass));
                    }
                }
                Step::End(which, word) if which < running.len() => {
                    let (number, pass) = running.remove(which);
                    let news = gate.tell(by(number), pass, word, now);
                    all = until(news.whole, until(news.model, all, now), now).max(all);
                    let account = &mut each[usize::from(number)];
                    *account = until(news.account, *account, now);
                    if word == Word::Well && news.account == Some(Change::Resumed) || news.model.is_some() {
                        each = [now; 3];
                    }
                    let pauses = [news.whole, news.model, news.account].iter().filter(|c| matches!(c, Some(Change::Paused(_)))).count();
                    prop_assert!(pauses <= usize::from(matches!(word, Word::Failing | Word::Unreachable)), "one word, one pause");
                }
                Step::End(..) => {}
                Step::Rest(millis) => {
                    gate.rest("m", Duration::from_millis(millis), now);
                    all = all.max(now + Duration::from_millis(millis));
                }
                Step::Pass(millis) => now += Duration::from_millis(millis),
            }
        }
        // Whatever state it is in, it is asked again without anybody's help.
        for number in 0..3 {
            now += RULES.longest_pause + Duration::from_secs(12);
            prop_assert!(gate.enter(by(number), now).is_ok());
        }
    }
}
