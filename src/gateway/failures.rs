//! What went wrong lately, for the operator: in memory, a few of each code, and without a word of what was asked or answered.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::clock::Timestamp;
use crate::error::{Code, Error};
use crate::ids::RequestId;

/// How many are remembered of each code, so that trouble of one kind, which strangers may cause, does not push out another.
const OF_EACH: usize = 20;
/// Characters that are kept of a path, which a stranger may have made up.
const PATH: usize = 120;

/// The last failures of each code.
#[derive(Default)]
pub struct Failures(Mutex<BTreeMap<&'static str, VecDeque<Failure>>>);

/// One call that was not served as it should have been.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    pub at: Timestamp,
    pub request: RequestId,
    pub code: Code,
    /// The reason code of a payment that was refused.
    pub reason: Option<&'static str>,
    /// What the operator's log says of it.
    pub cause: Option<String>,
    pub path: String,
    pub model: Option<String>,
    pub upstream: Option<String>,
    /// Whether part of the answer had been delivered.
    pub broke_off: bool,
}

impl Failures {
    /// Remembers a refusal, if it is one that an operator should know of. Callers' own mistakes are none.
    pub fn refused(&self, at: Timestamp, request: RequestId, error: &Error, (path, model): (&str, Option<String>)) {
        let about_money = matches!(error.code, Code::PaymentInvalid | Code::SettlementFailed);
        if error.status() >= 500 || about_money || error.code == Code::UpstreamRejected {
            self.note(Failure::new(at, request, error, path, model));
        }
    }

    /// Remembers an answer that broke off after its head.
    pub fn broke_off(&self, at: Timestamp, request: RequestId, error: &Error, (model, upstream): (Option<&str>, Option<&str>)) {
        let failure = Failure::new(at, request, error, "", model.map(str::to_owned));
        self.note(Failure { upstream: upstream.map(str::to_owned), broke_off: true, ..failure });
    }

    /// What is remembered, the latest first.
    pub fn latest(&self) -> Vec<Failure> {
        let mut all: Vec<_> = self.lock().values().flatten().cloned().collect();
        all.sort_by_key(|failure| std::cmp::Reverse((failure.at, failure.request)));
        all
    }

    /// What is remembered of one call.
    pub fn of(&self, request: RequestId) -> Vec<Failure> {
        self.lock().values().flatten().filter(|failure| failure.request == request).cloned().collect()
    }

    fn note(&self, failure: Failure) {
        let mut all = self.lock();
        let kept = all.entry(failure.code.row().code).or_default();
        kept.push_back(failure);
        if kept.len() > OF_EACH {
            kept.pop_front();
        }
    }

    // What it holds is whole after every step.
    fn lock(&self) -> MutexGuard<'_, BTreeMap<&'static str, VecDeque<Failure>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Failure {
    fn new(at: Timestamp, request: RequestId, error: &Error, path: &str, model: Option<String>) -> Failure {
        let path = path.chars().take(PATH).collect();
        let (code, reason, cause) = (error.code, error.reason, error.cause.clone());
        Failure { at, request, code, reason, cause, path, model, upstream: None, broke_off: false }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refuse(failures: &Failures, number: u64, code: Code) {
        let error = Error::new(code, "the words of a prompt").because("status 500");
        failures.refused(Timestamp::from_millis(number), RequestId(number.into()), &error, ("/v1/messages", Some("m".into())));
    }

    #[test]
    fn trouble_is_remembered_and_callers_own_mistakes_are_not() {
        let failures = Failures::default();
        for (number, code) in (1..).zip(Code::ALL) {
            refuse(&failures, number, code);
        }
        let kept: Vec<_> = failures.latest().iter().map(|failure| failure.code).collect();
        assert!([Code::UpstreamError, Code::SettlementPending, Code::SettlementFailed].iter().all(|code| kept.contains(code)));
        for code in [Code::InvalidKey, Code::PaymentRequired, Code::InvalidRequest, Code::RateLimited, Code::NotAnOperator] {
            assert!(!kept.contains(&code), "{code:?}");
        }
        assert!(!format!("{:?}", failures.latest()).contains("prompt"), "what callers are told may repeat what they asked");
    }

    #[test]
    fn it_has_room_for_a_few_of_each_code_and_the_latest_stay() {
        let failures = Failures::default();
        refuse(&failures, 1, Code::SettlementFailed);
        (2..500).for_each(|number| refuse(&failures, number, Code::PaymentInvalid));
        let latest = failures.latest();
        assert_eq!(latest.len(), OF_EACH + 1, "a flood of one code does not push out another");
        assert_eq!((latest[0].request, latest[OF_EACH].code), (RequestId(499), Code::SettlementFailed));
        assert_eq!(failures.of(RequestId(499)).len(), 1);
        assert_eq!(failures.of(RequestId(2)), []);
    }
}
