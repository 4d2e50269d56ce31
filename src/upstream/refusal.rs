//! What an upstream's refusal means for the call, and how much of its words a caller may see.

use std::time::Duration;

use jiff::fmt::rfc2822;
use serde::Deserialize;

use super::answer::Broken;
use super::gate::Word;
use crate::dialect::{Blame, NoAnswer};
use crate::error::{Code, Error};

/// The most that is read of a refusal.
pub(super) const MAX_BODY_BYTES: usize = 64 * 1024;
/// The most that a caller sees of one, in characters.
const MAX_MESSAGE_CHARS: usize = 500;
/// Seconds to wait that are passed on at most, and when the upstream names none.
const MAX_RETRY_AFTER: u32 = 60;
const DEFAULT_RETRY_AFTER: u32 = 5;

/// What a caller is told about an answer that is none.
pub(super) const NOT_USABLE: &str = "the upstream of this model gave no usable answer; try again later, or another model";

/// An attempt that failed: what the caller is told if nobody does better, what is to be done about it, and what it says about
/// the upstream to other calls.
#[derive(Debug)]
pub(super) struct Failure {
    pub error: Error,
    pub then: Then,
    pub word: Word,
    /// How long the upstream wants to be left alone with this model.
    pub rest: Option<Duration>,
}

/// What is to be done about an attempt that failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Then {
    /// The same upstream may answer a second time.
    Again,
    /// Another upstream may do better.
    Next,
    /// Nobody can: the request is at fault, or the time is up.
    Final,
}

impl Failure {
    pub fn new(then: Then, error: Error) -> Failure {
        Failure { error, then, word: Word::Nothing, rest: None }
    }

    /// The same, if `fails` as one after which the upstream is taken to fail at this model.
    pub fn failing_if(self, fails: bool) -> Failure {
        Failure { word: if fails { Word::Failing } else { self.word }, ..self }
    }
}

/// Statuses whose fault is the caller's request. Not 404: the path and the model's name are the operator's.
pub(super) fn is_about_the_request(status: u16) -> bool {
    matches!(status, 400 | 413 | 422)
}

/// A refusal that is about the request, in the upstream's words as far as they may be seen.
pub(super) fn rejected(status: u16, body: &[u8], scrubber: &Scrubber) -> Failure {
    let said = said(body);
    // Anthropic says so with status 400, and only in prose. A caller's words may be repeated, but not as the first.
    if status == 400 && said.as_deref().is_some_and(|said| said.starts_with("Your credit balance is too low")) {
        return failed(402, None, true);
    }
    let said = said.map(|said| scrubber.scrub(&said)).filter(|said| !said.is_empty());
    let message = match said {
        Some(said) => format!("the upstream refused the request: {said}"),
        None => "the upstream refused the request; check it against the model's documentation".to_owned(),
    };
    let code = if status == 413 { Code::RequestTooLarge } else { Code::UpstreamRejected };
    Failure::new(Then::Final, Error::new(code, message).because(format!("status {status}")))
}

/// Any other status that is not 2xx, with the time after which the upstream wants to be asked again, to a call that asked for a
/// stream or not.
pub(super) fn failed(status: u16, retry_after: Option<Duration>, stream: bool) -> Failure {
    let wait = retry_after.map_or(DEFAULT_RETRY_AFTER, seconds);
    let (then, error, fails) = match status {
        // About the operator's account, which is no business of the caller.
        401..=403 => (
            Then::Next,
            Error::new(
                Code::UpstreamAuth,
                "the upstream of this model is not available, which only the operator can change; try another model",
            ),
            // 403 is also said of one prompt that a provider will not have.
            status != 403,
        ),
        429 => (Then::Next, later(Code::UpstreamUnavailable, "the upstream is at its limit", wait), false),
        529 => (Then::Next, later(Code::UpstreamOverloaded, "the upstream is overloaded", wait), true),
        // Sent again at once it would come too early.
        503 if retry_after.is_some() => (Then::Next, later(Code::UpstreamUnavailable, "the upstream is away", wait), true),
        // Who says that the work took too long may still be at it. A stream begins before the work is done, or not at all.
        504 | 524 => (Then::Next, broken(), stream),
        // It says that the request has not arrived, as does a server that gives up a connection just when it is used.
        408 => (Then::Again, broken(), false),
        500..=599 => (Then::Again, broken(), true),
        // A redirect is never followed: it would take the operator's key along.
        _ => (Then::Next, astray(), false),
    };
    let failure = Failure::new(then, error.because(format!("status {status}"))).failing_if(fails);
    // Limits are those of a model, and so is a 503 of an upstream that still loads one.
    Failure { rest: retry_after.filter(|_| matches!(status, 429 | 503 | 529)), ..failure }
}

/// When to come again, as `Retry-After` says it (RFC 9110, section 10.2.3): in seconds, or as a date, which is held against the
/// answer's own `Date`, so that our clock does not matter.
pub(super) fn retry_after(value: Option<&str>, date: Option<&str>) -> Option<Duration> {
    let value = value?.trim();
    if let Ok(seconds) = value.parse() {
        return Some(Duration::from_secs(seconds));
    }
    let at = |text: &str| rfc2822::parse(text.trim()).ok().map(|at| at.timestamp().as_second());
    u64::try_from(at(value)?.checked_sub(at(date?)?)?).ok().map(Duration::from_secs)
}

/// What a caller is told to wait: whole seconds, at least one, and not for ever.
fn seconds(wait: Duration) -> u32 {
    let whole = wait.as_secs() + u64::from(wait.subsec_nanos() > 0);
    u32::try_from(whole).unwrap_or(MAX_RETRY_AFTER).clamp(1, MAX_RETRY_AFTER)
}

fn later(code: Code, what: &str, wait: u32) -> Error {
    Error::new(code, format!("{what}; try again in {wait} s")).retry_after(wait)
}

/// Nothing was sent: the upstream is paused, or has said when it wants to be asked again.
pub(super) fn paused(wait: Duration) -> Error {
    let what = "the upstream of this model is down or at its limit, and was not asked";
    later(Code::UpstreamUnavailable, what, seconds(wait))
}

/// A 2xx that is not the answer that was asked for, such as the page of a captive portal.
pub(super) fn unusable(status: u16, content_type: &str) -> Failure {
    let shown: String = content_type.chars().filter(|c| c.is_ascii_graphic()).take(60).collect();
    Failure::new(Then::Next, astray().because(format!("status {status} with content type {shown:?}")))
}

/// An accepted call whose answer is announced to be empty: there is nothing to sell in it.
pub(super) fn empty(status: u16) -> Failure {
    Failure::new(Then::Next, astray().because(format!("status {status} with an empty body"))).failing_if(true)
}

/// A file whose end nobody could tell from a connection that was cut.
pub(super) fn endless(status: u16) -> Failure {
    Failure::new(
        Then::Next,
        astray().because(format!("status {status} with a file whose length is not said, and which is not chunked")),
    )
}

/// An answer with status 200 that says it is a failure, or is none, before any of it was sold.
pub(super) fn within(NoAnswer { error, blame }: NoAnswer) -> Failure {
    let is_final = error.code == Code::UpstreamRejected || blame == Blame::NobodyAtACost;
    Failure::new(if is_final { Then::Final } else { Then::Next }, error).failing_if(blame == Blame::Upstream)
}

/// A plain answer that did not come to its end.
pub(super) fn broke_off(broken: &Broken) -> Failure {
    match broken {
        Broken::Deadline => Failure::new(Then::Final, timed_out()),
        Broken::Truncated { .. } | Broken::Connection(_) => {
            Failure::new(Then::Next, self::broken().because(broken.to_string())).failing_if(true)
        }
    }
}

fn broken() -> Error {
    Error::new(Code::UpstreamError, "the upstream of this model failed; try again")
}

fn astray() -> Error {
    Error::new(Code::UpstreamError, NOT_USABLE)
}

pub(super) fn timed_out() -> Error {
    Error::new(Code::UpstreamTimeout, "the upstream did not answer in time; try again, or ask for a shorter answer")
        .because("no head before the deadline")
}

/// Of several upstreams' failures, the one whose advice helps most: to wait, for as short as possible, before to try again,
/// before to give up.
pub(super) fn more_hopeful(before: Option<Error>, now: Error) -> Error {
    let rank = |error: &Error| match error.code {
        Code::UpstreamRejected => 0,
        Code::UpstreamUnavailable | Code::UpstreamOverloaded => 1,
        Code::UpstreamError => 2,
        _ => 3,
    };
    let order = |error: &Error| (rank(error), error.retry_after);
    match before {
        Some(before) if order(&before) <= order(&now) => before,
        _ => now,
    }
}

/// `error.message` of a JSON refusal in either dialect.
fn said(body: &[u8]) -> Option<String> {
    #[derive(Deserialize)]
    struct Refusal {
        error: Said,
    }
    #[derive(Deserialize)]
    struct Said {
        message: String,
    }
    serde_json::from_slice::<Refusal>(body).ok().map(|refusal| refusal.error.message)
}

/// Knows what of an upstream's words a caller must not see.
pub(super) struct Scrubber {
    secrets: Vec<String>,
}

impl Scrubber {
    pub fn new(base_url: &str, key: Option<&str>) -> Scrubber {
        let host = base_url.split_once("://").map_or(base_url, |(_, rest)| rest).split('/').next().unwrap_or_default();
        let name = host.rsplit_once(':').map_or(host, |(name, _)| name);
        // A very short name would hide half of every sentence and gives nothing away.
        let address = [base_url, host, name].into_iter().filter(|text| text.len() > 3);
        Scrubber { secrets: key.into_iter().chain(address).map(str::to_ascii_lowercase).collect() }
    }

    /// The text on one line and not too long, where every word that holds the operator's key, the upstream's address,
    /// or what looks like a key or an account of anybody is taken out.
    pub(super) fn scrub(&self, text: &str) -> String {
        let mut after_bearer = false;
        let mut words = Vec::new();
        for word in text.split(|c: char| c.is_whitespace() || c.is_control()).filter(|word| !word.is_empty()) {
            let lower = word.to_ascii_lowercase();
            let hidden = after_bearer || self.secrets.iter().any(|secret| lower.contains(secret)) || looks_secret(&lower);
            after_bearer = lower.ends_with("bearer");
            words.push(if hidden { "[removed]" } else { word });
        }
        words.join(" ").chars().take(MAX_MESSAGE_CHARS).collect()
    }
}

/// Whether a word in lower case has the start of a key or an account's name where a word may start.
fn looks_secret(word: &str) -> bool {
    const MARKS: [&str; 7] = ["sk-", "sk_", "gsk_", "xai-", "org-", "proj_", "aiza"];
    MARKS
        .iter()
        .any(|mark| word.match_indices(mark).any(|(at, _)| !word[..at].ends_with(|before: char| before.is_ascii_alphanumeric())))
}

impl std::fmt::Debug for Scrubber {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Scrubber")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(body: &str) -> String {
        let scrubber = Scrubber::new("https://llm.internal:8443/openai", Some("S3cret-Value"));
        let refused = rejected(400, body.as_bytes(), &scrubber);
        assert_eq!((refused.then, refused.word), (Then::Final, Word::Nothing));
        refused.error.message
    }

    #[test]
    fn a_refusal_keeps_its_reason_and_loses_its_secrets() {
        let body = r#"{"error":{"message":"model gpt-x does not exist for key S3CRET-value, sk-abc*****xyz (org-12) at https://llm.internal:8443/openai/v1\nrisk-free"}}"#;
        let shown = message(body);
        assert!(shown.contains("model gpt-x does not exist for key") && shown.ends_with("risk-free"), "{shown}");
        for hidden in ["s3cret", "sk-", "org-12", "llm.internal"] {
            assert!(!shown.to_lowercase().replace("risk-free", "").contains(hidden), "{hidden} in {shown}");
        }
    }

    #[test]
    fn what_is_not_an_error_in_json_is_not_shown_at_all() {
        for body in ["", "<html>S3cret-Value</html>", "{\"detail\":\"x S3cret-Value\"}", "{\"error\":\"S3cret-Value\"}", "[1]"] {
            assert!(!message(body).contains("S3cret"), "{body}");
        }
        let long = format!(r#"{{"error":{{"message":"{}"}}}}"#, "é ".repeat(2000));
        assert!(message(&long).chars().count() < 600);
        assert!(!message(r#"{"error":{"message":"got Authorization: Bearer abcdef"}}"#).contains("abcdef"));
    }

    #[test]
    fn the_operators_troubles_are_not_the_callers() {
        for status in [401, 402, 403] {
            let failure = failed(status, None, false);
            assert_eq!((failure.error.code, failure.error.status()), (Code::UpstreamAuth, 502));
            let word = if status == 403 { Word::Nothing } else { Word::Failing };
            assert_eq!((failure.then, failure.word), (Then::Next, word), "{status}");
        }
        let body = br#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low"}}"#;
        let failure = rejected(400, body, &Scrubber::new("http://x", None));
        assert_eq!((failure.error.code, failure.then), (Code::UpstreamAuth, Then::Next));
        let echoed = br#"{"error":{"message":"Invalid value: 'Your credit balance is too low'"}}"#;
        let failure = rejected(400, echoed, &Scrubber::new("http://x", None));
        assert_eq!(
            (failure.then, failure.word),
            (Then::Final, Word::Nothing),
            "what a caller wrote says nothing of the upstream"
        );
    }

    #[test]
    fn an_answer_that_is_none_speaks_against_its_upstream_only_where_that_is_to_blame() {
        for (code, blame, then, word) in [
            (Code::UpstreamRejected, Blame::Nobody, Then::Final, Word::Nothing),
            (Code::UpstreamError, Blame::Nobody, Then::Next, Word::Nothing),
            (Code::UpstreamError, Blame::NobodyAtACost, Then::Final, Word::Nothing),
            (Code::UpstreamError, Blame::Upstream, Then::Next, Word::Failing),
        ] {
            let failure = within(NoAnswer { error: Error::new(code, "x"), blame });
            assert_eq!((failure.then, failure.word), (then, word), "{code:?} {blame:?}");
        }
    }

    #[test]
    fn waiting_times_are_passed_on_within_reason() {
        for (header, told) in [(Some("7"), 7), (Some("86400"), 60), (Some("0"), 1), (Some("soon"), 5), (None, 5)] {
            let error = failed(429, retry_after(header, None), true).error;
            assert_eq!((error.code, error.retry_after), (Code::UpstreamUnavailable, Some(told)));
        }
        assert_eq!(failed(529, None, true).error.code, Code::UpstreamOverloaded);
        assert_eq!(paused(Duration::from_millis(1200)).retry_after, Some(2));
    }

    #[test]
    fn when_to_come_again_is_read_in_seconds_and_as_a_date() {
        let (date, later) = ("Sun, 06 Nov 1994 08:49:37 GMT", "Sun, 06 Nov 1994 08:51:07 GMT");
        for (value, date, expected) in [
            (" 7 ", None, Some(7)),
            (later, Some(date), Some(90)),
            (later, None, None),
            (date, Some(later), None),
            (later, Some("yesterday"), None),
            ("-3", Some(date), None),
            ("soon", Some(date), None),
        ] {
            assert_eq!(retry_after(Some(value), date), expected.map(Duration::from_secs), "{value} at {date:?}");
        }
    }

    #[test]
    fn only_an_upstream_that_says_when_is_left_alone() {
        let time = Duration::from_secs(9);
        for status in [429, 529, 503] {
            assert_eq!(failed(status, Some(time), true).rest, Some(time), "{status}");
            assert_eq!(failed(status, None, true).rest, None, "{status}");
        }
        assert_eq!(failed(500, Some(time), true).rest, None);
        assert_eq!(failed(503, Some(time), true).then, Then::Next, "not at once");
    }

    #[test]
    fn what_a_caller_can_easily_bring_about_does_not_make_an_upstream_look_failing() {
        for status in [404, 408, 429, 302, 499] {
            assert_eq!(failed(status, None, true).word, Word::Nothing, "{status}");
        }
        for status in [504, 524] {
            assert_eq!(failed(status, None, false).word, Word::Nothing, "{status}: a long answer that was asked for at once");
            assert_eq!(failed(status, None, true).word, Word::Failing, "{status}");
        }
        for status in [500, 502, 503, 520, 529] {
            assert_eq!(failed(status, None, false).word, Word::Failing, "{status}");
        }
    }

    #[test]
    fn a_redirect_is_a_failure_and_not_a_second_chance() {
        for (status, then) in [(302, Then::Next), (503, Then::Again)] {
            let failure = failed(status, None, true);
            assert_eq!((failure.then, failure.error.code), (then, Code::UpstreamError));
        }
    }
}
