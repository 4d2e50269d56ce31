//! How upstreams say that they failed after they had begun so well: in an event, or in an answer with status 200. Only the kind
//! of a failure is passed on: its words may name the operator's account or key.

use std::borrow::Cow;
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::unstreamed::Unstreamed;
use super::{Dialect, Goods};
use crate::error::{Code, Error};

/// Reasons for which a chat upstream stops that are no end of an answer: it broke off.
const NO_END: [&str; 6] = ["error", "abort", "aborted", "cancelled", "canceled", "insufficient_system_resource"];
/// Seconds after which an upstream that is at its limit, and says so in its answer, may be asked again.
const RETRY_AFTER: u32 = 5;

/// What callers bring about by what they ask: the kinds and codes of the three dialects, and what their copies make of them.
const CALLERS_FAULTS: [&str; 28] = [
    "400",
    "403",
    "413",
    "422",
    "invalid_request_error",
    "invalid_request",
    "bad_request",
    "bad_request_error",
    "BadRequestError",
    "request_too_large",
    "string_above_max_length",
    "invalid_prompt",
    "invalid_image",
    "invalid_image_format",
    "invalid_image_mode",
    "invalid_image_url",
    "invalid_base64_image",
    "image_too_large",
    "image_too_small",
    "image_file_too_large",
    "image_parse_error",
    "unsupported_image_media_type",
    "empty_image_file",
    "image_file_not_found",
    "failed_to_download_image",
    "image_content_policy_violation",
    "content_policy_violation",
    "moderation_blocked",
];
/// What only the operator can change; some say it of an invalid request.
const OPERATORS_FAULTS: [&str; 11] = [
    "authentication_error",
    "permission_error",
    "billing_error",
    "insufficient_quota",
    "invalid_api_key",
    "account_deactivated",
    "billing_not_active",
    "billing_hard_limit_reached",
    "AuthenticationError",
    "401",
    "402",
];
/// Words of servers for their own failures.
const SERVERS_FAULTS: [&str; 7] = [
    "server_error",
    "api_error",
    "internal",
    "internal_error",
    "internal_server_error",
    "InternalServerError",
    "service_unavailable_error",
];
/// What the operator calls the model, or where the upstream has it.
const ASTRAY: [&str; 4] = ["model_not_found", "not_found_error", "NotFoundError", "404"];

/// An error as far as it is read.
#[derive(Deserialize, Default, Clone, Debug)]
pub(super) struct Failure<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Option<Cow<'a, str>>,
    #[serde(borrow, default)]
    code: Option<&'a RawValue>,
}

impl<'a> Failure<'a> {
    /// What cannot be read is a failure of no known kind.
    pub fn read(raw: &'a RawValue) -> Failure<'a> {
        serde_json::from_str(raw.get()).unwrap_or_default()
    }

    /// Of an error that is not an object of its own.
    pub fn coded(code: Option<&'a RawValue>) -> Failure<'a> {
        Failure { kind: None, code }
    }

    /// What it is for the caller, and what the operator reads of it.
    fn judge(self) -> Judged {
        // Some give a name, others the status that they would have given earlier.
        let name = self.code.map(|raw| text(raw).unwrap_or_else(|| raw.get().into())).unwrap_or_default();
        let kind = self.kind.unwrap_or_default();
        let is = |names: &[&str]| names.iter().any(|known| kind == *known || name == *known);
        let told = |c: &char| c.is_ascii_lowercase() || matches!(c, '_' | ' ');
        let mut cause: String = format!("{kind} {name}").chars().filter(told).take(80).collect();
        if name.len() == 3 && name.bytes().all(|byte| byte.is_ascii_digit()) {
            cause.push_str(&name);
        }
        if is(&["context_length_exceeded"]) {
            return Judged { code: Code::UpstreamRejected, blame: Blame::Nobody, is_too_long: true, cause };
        }
        let (code, blame) = match () {
            () if is(&["overloaded_error", "server_is_overloaded", "slow_down", "529"]) => {
                (Code::UpstreamOverloaded, Blame::Upstream)
            }
            () if is(&["rate_limit_error", "rate_limit_exceeded", "429", "503"]) => (Code::UpstreamUnavailable, Blame::Nobody),
            () if is(&["timeout_error", "408", "504", "524"]) => (Code::UpstreamTimeout, Blame::Nobody),
            () if is(&OPERATORS_FAULTS) => (Code::UpstreamAuth, Blame::Upstream),
            () if is(&ASTRAY) => (Code::UpstreamError, Blame::Nobody),
            () if is(&SERVERS_FAULTS) || is_server_status(&name) => (Code::UpstreamError, Blame::Upstream),
            () if is(&CALLERS_FAULTS) => (Code::UpstreamRejected, Blame::Nobody),
            // Of what nobody knows, nobody knows who brought it about.
            () => (Code::UpstreamError, Blame::Nobody),
        };
        Judged { code, blame, is_too_long: false, cause }
    }
}

/// Whether a status says that a server failed.
fn is_server_status(name: &str) -> bool {
    name.len() == 3 && name.starts_with('5') && name.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whom an answer that is none speaks against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blame {
    /// The upstream, which fails at other calls as well.
    Upstream,
    /// Nobody: it may be the request's fault.
    Nobody,
    /// Nobody, and the operator pays for it: another upstream would only do the same work once more.
    NobodyAtACost,
}

/// Why an answer that came with status 200 is none.
#[derive(Debug)]
pub struct NoAnswer {
    /// What its caller is told. It has neither words nor names of the upstream.
    pub error: Error,
    pub blame: Blame,
}

struct Judged {
    code: Code,
    blame: Blame,
    /// The conversation is too long for the model.
    is_too_long: bool,
    cause: String,
}

impl Judged {
    fn error(self, message: &str) -> Error {
        let because = format!("in-band error of type {:?}", self.cause.trim());
        if self.is_too_long {
            // Codex makes its conversation shorter when it reads this, and only then.
            let message = "the conversation is too long for this model; send a shorter one";
            return Error::new(self.code, message).reason("context_length_exceeded").because(because);
        }
        Error::new(self.code, message).because(because)
    }
}

/// What a caller is told whose stream ends with this failure.
pub(super) fn failed(failure: Failure<'_>) -> Error {
    failure
        .judge()
        .error("the upstream failed in the middle of the answer; what was delivered is charged, send the request again")
}

/// Whether this `finish_reason` says that the answer broke off.
pub(super) fn is_failure(reason: &RawValue) -> bool {
    text(reason).is_some_and(|reason| is_no_end(&reason))
}

/// The same of one that was read.
pub(super) fn is_no_end(reason: &str) -> bool {
    NO_END.contains(&reason)
}

/// A string, which other upstreams write as a number.
fn text(raw: &RawValue) -> Option<Cow<'_, str>> {
    serde_json::from_str(raw.get()).ok()
}

/// Finds the end of a JSON value in passing.
#[derive(Debug, Default)]
pub struct JsonEnd(Unstreamed);

impl JsonEnd {
    /// Whether the value is closed with this piece of it.
    pub fn has_come(&mut self, piece: &[u8]) -> bool {
        self.0.chunk(piece);
        self.0.complete()
    }
}

/// Why all of an answer that came with status 200, and not as a stream, is none; `None` for one that can be sold. One that
/// `is_translated` must say how it ended, because its caller is told so.
///
/// Its error is [`Code::UpstreamRejected`] for what the request is at fault, else a code of the upstream's failures.
pub fn failed_answer(form: Goods, is_translated: bool, body: &[u8]) -> Option<NoAnswer> {
    let Some(told) = std::str::from_utf8(body).ok().and_then(|text| serde_json::from_str::<Told<'_>>(text).ok()) else {
        let mut scanner = Unstreamed::default();
        scanner.chunk(body);
        // What is JSON to nobody but its end is passed on as it is, where nobody has to understand it.
        return (!scanner.complete() || is_translated).then(|| cut("an answer that is not one JSON value"));
    };
    let (kind, status) = (told.kind.and_then(text), told.status.and_then(text));
    let says_error = [told.object.and_then(text), kind].iter().flatten().any(|said| said == "error");
    if let Some(error) = told.error.filter(|error| is_there(error)) {
        return Some(refused(Failure::read(error)));
    }
    if says_error {
        return Some(refused(Failure::coded(told.code)));
    }
    match form {
        Goods::Words(Dialect::Responses) if status.is_some_and(|status| matches!(&*status, "failed" | "cancelled")) => {
            Some(refused(Failure::default()))
        }
        Goods::Words(Dialect::Chat) => failed_choice(told.choices?, is_translated, told.usage.is_some_and(is_there)),
        _ => None,
    }
}

/// A choice may fail for what it was asked, such as a call of a tool that the model got wrong, and be billed all the same.
fn failed_choice(choices: &RawValue, is_translated: bool, is_billed: bool) -> Option<NoAnswer> {
    let blame = if is_billed { Blame::NobodyAtACost } else { Blame::Nobody };
    let choices = serde_json::from_str::<Vec<Choice<'_>>>(choices.get()).ok()?;
    for choice in &choices {
        if choice.error.is_some_and(is_there) || choice.finish_reason.is_some_and(is_failure) {
            return Some(NoAnswer { blame, ..refused(choice.error.map(Failure::read).unwrap_or_default()) });
        }
    }
    let is_silent = choices.iter().any(|choice| choice.finish_reason.is_none());
    (is_translated && is_silent).then(|| cut("an answer that does not say how it ended"))
}

/// Some write an error that is none.
pub(super) fn is_there(error: &RawValue) -> bool {
    !matches!(error.get(), "null" | "false" | "\"\"" | "{}" | "[]" | "0")
}

fn cut(why: &str) -> NoAnswer {
    let message = "the upstream of this model gave no whole answer; try again";
    NoAnswer { error: Error::new(Code::UpstreamError, message).because(why), blame: Blame::Upstream }
}

/// What a caller is told of a plain answer that is a failure. Nothing of it was delivered.
fn refused(failure: Failure<'_>) -> NoAnswer {
    let judged = failure.judge();
    let (code, blame) = (judged.code, judged.blame);
    let message = match code {
        Code::UpstreamRejected => "the upstream refused the request; check it against the model's documentation",
        Code::UpstreamAuth => {
            "the upstream of this model is not available, which only the operator can change; try another model"
        }
        Code::UpstreamUnavailable => "the upstream is at its limit; try again in 5 s",
        Code::UpstreamOverloaded => "the upstream is overloaded; try again in 5 s",
        Code::UpstreamTimeout => "the upstream did not answer in time; try again, or ask for a shorter answer",
        _ => "the upstream of this model failed; try again",
    };
    let error = judged.error(message);
    let error = match code {
        Code::UpstreamUnavailable | Code::UpstreamOverloaded => error.retry_after(RETRY_AFTER),
        _ => error,
    };
    NoAnswer { error, blame }
}

/// The members of an answer that say whether it is one; of two with the same name the last.
#[derive(Default)]
struct Told<'a> {
    error: Option<&'a RawValue>,
    object: Option<&'a RawValue>,
    kind: Option<&'a RawValue>,
    code: Option<&'a RawValue>,
    status: Option<&'a RawValue>,
    choices: Option<&'a RawValue>,
    usage: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Choice<'a> {
    #[serde(borrow)]
    error: Option<&'a RawValue>,
    #[serde(borrow)]
    finish_reason: Option<&'a RawValue>,
}

impl<'de> Deserialize<'de> for Told<'de> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Members;
        impl<'de> Visitor<'de> for Members {
            type Value = Told<'de>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("an answer")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Told<'de>, A::Error> {
                let mut told = Told::default();
                while let Some(name) = map.next_key::<Cow<'de, str>>()? {
                    let member = match &*name {
                        "error" => &mut told.error,
                        "object" => &mut told.object,
                        "type" => &mut told.kind,
                        "code" => &mut told.code,
                        "status" => &mut told.status,
                        "choices" => &mut told.choices,
                        "usage" => &mut told.usage,
                        _ => {
                            map.next_value::<IgnoredAny>()?;
                            continue;
                        }
                    };
                    *member = Some(map.next_value()?);
                }
                Ok(told)
            }
        }
        deserializer.deserialize_map(Members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::dialect::Task;

    const CHAT: Goods = Goods::Words(Dialect::Chat);
    const MESSAGES: Goods = Goods::Words(Dialect::Messages);
    const RESPONSES: Goods = Goods::Words(Dialect::Responses);
    const IMAGES: Goods = Goods::Media(Task::ImageGenerations);

    fn code(form: Goods, body: &str) -> Option<Code> {
        let NoAnswer { error, .. } = failed_answer(form, false, body.as_bytes())?;
        let said = format!("{} {}", error.message, error.cause.unwrap_or_default());
        assert!(!said.contains("sk-secret") && !said.contains("org-12"), "{said}");
        Some(error.code)
    }

    #[test]
    fn an_error_is_no_answer_however_it_is_written() {
        let usage = r#""usage":{"prompt_tokens":5,"completion_tokens":5}"#;
        for (error, expected) in [
            (r#"{"message":"sk-secret"}"#, Code::UpstreamError),
            (r#""sk-secret of org-12""#, Code::UpstreamError),
            (r#"{"code":502,"message":"sk-secret"}"#, Code::UpstreamError),
            (r#"{"code":"502"}"#, Code::UpstreamError),
            (r#"{"code":429}"#, Code::UpstreamUnavailable),
            (r#"{"type":"overloaded_error"}"#, Code::UpstreamOverloaded),
            (r#"{"code":504}"#, Code::UpstreamTimeout),
            (r#"{"type":"server_error","code":"sk-secret"}"#, Code::UpstreamError),
            (r#"{"code":402}"#, Code::UpstreamAuth),
            (r#"{"code":403,"metadata":{"reasons":["sk-secret"]}}"#, Code::UpstreamRejected),
            (r#"{"code":"context_length_exceeded"}"#, Code::UpstreamRejected),
            ("[1]", Code::UpstreamError),
        ] {
            for form in [CHAT, MESSAGES, RESPONSES, IMAGES] {
                for body in [format!(r#"{{"error":{error},{usage}}}"#), format!(r#"{{{usage}, "\u0065rror" : {error} }}"#)] {
                    assert_eq!(code(form, &body), Some(expected), "{form:?}: {body}");
                }
            }
        }
        assert_eq!(code(CHAT, r#"{"object":"error","code":400,"message":"sk-secret"}"#), Some(Code::UpstreamRejected));
        assert_eq!(code(MESSAGES, r#"{"type":"error"}"#), Some(Code::UpstreamError));
    }

    #[test]
    fn what_the_request_is_at_fault_is_said_so_and_speaks_against_nobody() {
        for (error, expected, blame) in [
            (r#"{"type":"invalid_request_error","message":"x"}"#, Code::UpstreamRejected, Blame::Nobody),
            (r#"{"type":"request_too_large"}"#, Code::UpstreamRejected, Blame::Nobody),
            (r#"{"code":"invalid_prompt"}"#, Code::UpstreamRejected, Blame::Nobody),
            (r#"{"code":"invalid_image_url"}"#, Code::UpstreamRejected, Blame::Nobody),
            (r#"{"code":"image_content_policy_violation"}"#, Code::UpstreamRejected, Blame::Nobody),
            (r#"{"code":"context_length_exceeded"}"#, Code::UpstreamRejected, Blame::Nobody),
            (r#"{"type":"invalid_request_error","code":"invalid_api_key"}"#, Code::UpstreamAuth, Blame::Upstream),
            (r#"{"type":"invalid_request_error","code":"model_not_found"}"#, Code::UpstreamError, Blame::Nobody),
            (r#"{"type":"server_error"}"#, Code::UpstreamError, Blame::Upstream),
            (r#"{"type":"api_error"}"#, Code::UpstreamError, Blame::Upstream),
            (r#"{"code":500}"#, Code::UpstreamError, Blame::Upstream),
            (r#"{"code":"520"}"#, Code::UpstreamError, Blame::Upstream),
            (r#"{"type":"overloaded_error"}"#, Code::UpstreamOverloaded, Blame::Upstream),
            (r#"{"code":429}"#, Code::UpstreamUnavailable, Blame::Nobody),
            (r#"{"code":504}"#, Code::UpstreamTimeout, Blame::Nobody),
            (r#"{"code":"a_new_word"}"#, Code::UpstreamError, Blame::Nobody),
            (r#"{"message":"x"}"#, Code::UpstreamError, Blame::Nobody),
            (r#""x""#, Code::UpstreamError, Blame::Nobody),
        ] {
            let none = failed_answer(CHAT, false, format!(r#"{{"error":{error}}}"#).as_bytes()).unwrap();
            assert_eq!((none.error.code, none.blame), (expected, blame), "{error}");
        }
        let half = failed_answer(CHAT, false, br#"{"choices":["#).unwrap();
        assert_eq!(half.blame, Blame::Upstream, "it broke off");
    }

    #[test]
    fn a_choice_that_failed_is_no_answer() {
        let choice = |rest: &str| format!(r#"{{"choices":[{{"message":{{"content":"half"}}{rest}}}],"usage":{{}}}}"#);
        for rest in [
            r#","finish_reason":"error","error":{"code":502,"message":"sk-secret"}"#,
            r#","error":{"code":502}"#,
            r#","finish_reason":"error""#,
            r#","finish_reason":"abort""#,
        ] {
            assert_eq!(code(CHAT, &choice(rest)), Some(Code::UpstreamError), "{rest}");
        }
        for rest in [r#","finish_reason":"stop","error":null"#, r#","finish_reason":"length""#, "", r#","finish_reason":null"#] {
            assert_eq!(code(CHAT, &choice(rest)), None, "{rest}");
        }
        let translated = |rest| failed_answer(CHAT, true, choice(rest).as_bytes()).map(|none| none.error.code);
        assert_eq!(translated(r#","finish_reason":"stop""#), None);
        assert_eq!(translated(""), Some(Code::UpstreamError), "its caller would be told of an end that it had not");
    }

    #[test]
    fn a_choice_that_failed_speaks_against_nobody_and_is_not_paid_for_twice() {
        let blame = |usage: &str| {
            let body = format!(r#"{{"choices":[{{"finish_reason":"error","error":{{"code":502}}}}]{usage}}}"#);
            failed_answer(CHAT, false, body.as_bytes()).map(|none| none.blame)
        };
        assert_eq!(blame(r#","usage":{"prompt_tokens":5}"#), Some(Blame::NobodyAtACost));
        for none in ["", r#","usage":null"#, r#","usage":{}"#] {
            assert_eq!(blame(none), Some(Blame::Nobody), "{none}");
        }
    }

    #[test]
    fn a_response_fails_by_its_status_and_one_that_is_incomplete_has_ended() {
        let response = |status: &str| format!(r#"{{"status":"{status}","error":null,"output":[],"usage":{{}}}}"#);
        for (status, expected) in [
            ("failed", Some(Code::UpstreamError)),
            ("cancelled", Some(Code::UpstreamError)),
            ("incomplete", None),
            ("completed", None),
        ] {
            assert_eq!(code(RESPONSES, &response(status)), expected, "{status}");
        }
        assert_eq!(code(MESSAGES, &response("failed")), None, "a word of one dialect means nothing in another");
    }

    #[test]
    fn what_is_an_answer_is_none_of_these_whatever_it_says() {
        for body in [
            r#"{"choices":[{"message":{"content":"{\"error\":1}"},"finish_reason":"stop"}],"error":null}"#,
            r#"{"choices":[],"error":{}}"#,
            r#"{"content":[{"type":"text","text":"x","error":{"code":500}}],"type":"message"}"#,
            r#"{"data":[{"url":"x"}],"error":""}"#,
            r#"{"error":{"message":"first"},"error":null}"#,
            "[1]",
        ] {
            for form in [CHAT, MESSAGES, RESPONSES, IMAGES] {
                assert_eq!(code(form, body), None, "{body}");
            }
        }
    }

    #[test]
    fn half_an_answer_is_none() {
        let whole = r#"{"choices":[{"message":{"content":"é"},"finish_reason":"stop"}]}"#;
        for at in 0..whole.len() {
            assert!(failed_answer(CHAT, false, &whole.as_bytes()[..at]).is_some(), "cut at {at}");
        }
        assert!(failed_answer(CHAT, false, whole.as_bytes()).is_none());
    }
}
