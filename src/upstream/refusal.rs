//! What an upstream's refusal means for the call, and how much of its words a caller may see.

use serde::Deserialize;

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

/// What is to be done about an attempt that failed.
#[derive(Debug)]
pub(super) enum Failure {
    /// The same upstream may answer a second time.
    Again(Error),
    /// Another upstream may do better.
    Next(Error),
    /// Nobody can: the request is at fault, or the time is up.
    Final(Error),
}

/// Statuses whose fault is the caller's request. Not 404: the path and the model's name are the operator's.
pub(super) fn is_about_the_request(status: u16) -> bool {
    matches!(status, 400 | 413 | 422)
}

/// A refusal that is about the request, in the upstream's words as far as they may be seen.
pub(super) fn rejected(status: u16, body: &[u8], scrubber: &Scrubber) -> Failure {
    let said = said(body);
    // Anthropic says so with status 400, and only in prose.
    if said.as_deref().is_some_and(|said| said.to_ascii_lowercase().contains("credit balance")) {
        return failed(402, None);
    }
    let said = said.map(|said| scrubber.scrub(&said)).filter(|said| !said.is_empty());
    let message = match said {
        Some(said) => format!("the upstream refused the request: {said}"),
        None => "the upstream refused the request; check it against the model's documentation".to_owned(),
    };
    let code = if status == 413 { Code::RequestTooLarge } else { Code::UpstreamRejected };
    Failure::Final(Error::new(code, message).because(format!("status {status}")))
}

/// Any other status that is not 2xx.
pub(super) fn failed(status: u16, retry_after: Option<&str>) -> Failure {
    let wait = retry_after.and_then(|text| text.trim().parse().ok()).unwrap_or(DEFAULT_RETRY_AFTER).clamp(1, MAX_RETRY_AFTER);
    let because = |error: Error| error.because(format!("status {status}"));
    match status {
        // About the operator's account, which is no business of the caller.
        401..=403 => Failure::Next(because(Error::new(
            Code::UpstreamAuth,
            "the upstream of this model is not available, which only the operator can change; try another model",
        ))),
        429 => Failure::Next(because(
            Error::new(Code::UpstreamUnavailable, format!("the upstream is at its limit; try again in {wait} s"))
                .retry_after(wait),
        )),
        529 => Failure::Next(because(
            Error::new(Code::UpstreamOverloaded, format!("the upstream is overloaded; try again in {wait} s")).retry_after(wait),
        )),
        // Who says that the work took too long may still be at it.
        504 | 524 => Failure::Next(because(broken())),
        // 408 says that the request has not arrived, as does a server that gives up a connection just when it is used.
        408 | 500..=599 => Failure::Again(because(broken())),
        // A redirect is never followed: it would take the operator's key along.
        _ => Failure::Next(because(astray())),
    }
}

/// A 2xx that is not the answer that was asked for, such as the page of a captive portal.
pub(super) fn unusable(status: u16, content_type: &str) -> Failure {
    let shown: String = content_type.chars().filter(|c| c.is_ascii_graphic()).take(60).collect();
    Failure::Next(astray().because(format!("status {status} with content type {shown:?}")))
}

/// An accepted call whose answer is announced to be empty: there is nothing to sell in it.
pub(super) fn empty(status: u16) -> Failure {
    Failure::Next(astray().because(format!("status {status} with an empty body")))
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

/// Of several upstreams' failures, the one whose advice helps most: to wait, before to try again, before to give up.
pub(super) fn more_hopeful(before: Option<Error>, now: Error) -> Error {
    let rank = |error: &Error| match error.code {
        Code::UpstreamRejected => 0,
        Code::UpstreamUnavailable | Code::UpstreamOverloaded => 1,
        Code::UpstreamError => 2,
        _ => 3,
    };
    match before {
        Some(before) if rank(&before) <= rank(&now) => before,
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
        match rejected(400, body.as_bytes(), &scrubber) {
            Failure::Final(error) => error.message,
            other => panic!("{other:?}"),
        }
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
            let Failure::Next(error) = failed(status, None) else { panic!("{status}") };
            assert_eq!((error.code, error.status()), (Code::UpstreamAuth, 502));
        }
        let body = br#"{"type":"error","error":{"type":"invalid_request_error","message":"Your credit balance is too low"}}"#;
        let Failure::Next(error) = rejected(400, body, &Scrubber::new("http://x", None)) else { panic!() };
        assert_eq!(error.code, Code::UpstreamAuth);
    }

    #[test]
    fn waiting_times_are_passed_on_within_reason() {
        for (header, seconds) in [(Some("7"), 7), (Some("86400"), 60), (Some("0"), 1), (Some("soon"), 5), (None, 5)] {
            let Failure::Next(error) = failed(429, header) else { panic!() };
            assert_eq!((error.code, error.retry_after), (Code::UpstreamUnavailable, Some(seconds)));
        }
        let Failure::Next(error) = failed(529, None) else { panic!() };
        assert_eq!(error.code, Code::UpstreamOverloaded);
    }

    #[test]
    fn a_redirect_is_a_failure_and_not_a_second_chance() {
        assert!(matches!(failed(302, None), Failure::Next(error) if error.code == Code::UpstreamError));
        assert!(matches!(failed(503, None), Failure::Again(error) if error.code == Code::UpstreamError));
    }
}
