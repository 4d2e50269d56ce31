//! The table of error codes, and an error that tells the caller what to do next and the operator what happened.

use crate::money::Micros;

/// Every refusal and failure that leaves this program has one of these codes. Nothing else names a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    InvalidJson,
    InvalidRequest,
    InvalidPayment,
    InvalidKey,
    KeyRevoked,
    PaymentRequired,
    PaymentInvalid,
    SettlementFailed,
    InsufficientBalance,
    ModelNotAllowed,
    SpendLimitExceeded,
    NotFound,
    ModelNotFound,
    MethodNotAllowed,
    RequestTimeout,
    PaymentInProgress,
    PaymentAlreadyUsed,
    RequestTooLarge,
    UnsupportedMediaType,
    UpgradeRequired,
    RateLimited,
    Internal,
    UpstreamRejected,
    UpstreamError,
    UpstreamAuth,
    UpstreamUnavailable,
    UpstreamOverloaded,
    UpstreamTimeout,
    LedgerUnavailable,
    NetworkUnavailable,
    ClockSkew,
    Busy,
    SettlementPending,
}

/// One row of the table: HTTP status, code on the wire, `type` in OpenAI's and in Anthropic's error object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub status: u16,
    pub code: &'static str,
    pub openai: &'static str,
    pub anthropic: &'static str,
}

impl Code {
    pub const ALL: [Code; 33] = {
        use Code::*;
        [
            InvalidJson,
            InvalidRequest,
            InvalidPayment,
            InvalidKey,
            KeyRevoked,
            PaymentRequired,
            PaymentInvalid,
            SettlementFailed,
            InsufficientBalance,
            ModelNotAllowed,
            SpendLimitExceeded,
            NotFound,
            ModelNotFound,
            MethodNotAllowed,
            RequestTimeout,
            PaymentInProgress,
            PaymentAlreadyUsed,
            RequestTooLarge,
            UnsupportedMediaType,
            UpgradeRequired,
            RateLimited,
            Internal,
            UpstreamRejected,
            UpstreamError,
            UpstreamAuth,
            UpstreamUnavailable,
            UpstreamOverloaded,
            UpstreamTimeout,
            LedgerUnavailable,
            NetworkUnavailable,
            ClockSkew,
            Busy,
            SettlementPending,
        ]
    };

    #[rustfmt::skip] // a table reads best as a table
    pub const fn row(self) -> Row {
        let (status, code, openai, anthropic) = match self {
            Code::InvalidJson          => (400, "invalid_json",           "invalid_request_error", "invalid_request_error"),
            Code::InvalidRequest       => (400, "invalid_request",        "invalid_request_error", "invalid_request_error"),
            Code::InvalidPayment       => (400, "invalid_payment",        "invalid_request_error", "invalid_request_error"),
            Code::InvalidKey           => (401, "invalid_key",            "authentication_error",  "authentication_error"),
            Code::KeyRevoked           => (401, "key_revoked",            "authentication_error",  "authentication_error"),
            Code::PaymentRequired      => (402, "payment_required",       "payment_required",      "billing_error"),
            Code::PaymentInvalid       => (402, "payment_invalid",        "payment_required",      "billing_error"),
            Code::SettlementFailed     => (402, "settlement_failed",      "payment_required",      "billing_error"),
            Code::InsufficientBalance  => (402, "insufficient_balance",   "insufficient_quota",    "billing_error"),
            Code::ModelNotAllowed      => (403, "model_not_allowed",      "permission_error",      "permission_error"),
            Code::SpendLimitExceeded   => (403, "spend_limit_exceeded",   "permission_error",      "permission_error"),
            Code::NotFound             => (404, "not_found",              "invalid_request_error", "not_found_error"),
            Code::ModelNotFound        => (404, "model_not_found",        "invalid_request_error", "not_found_error"),
            Code::MethodNotAllowed     => (405, "method_not_allowed",     "invalid_request_error", "invalid_request_error"),
            Code::RequestTimeout       => (408, "request_timeout",        "invalid_request_error", "timeout_error"),
            Code::PaymentInProgress    => (409, "payment_in_progress",    "invalid_request_error", "invalid_request_error"),
            Code::PaymentAlreadyUsed   => (409, "payment_already_used",   "invalid_request_error", "invalid_request_error"),
            Code::RequestTooLarge      => (413, "request_too_large",      "invalid_request_error", "request_too_large"),
            Code::UnsupportedMediaType => (415, "unsupported_media_type", "invalid_request_error", "invalid_request_error"),
            Code::UpgradeRequired      => (426, "upgrade_required",       "invalid_request_error", "invalid_request_error"),
            Code::RateLimited          => (429, "rate_limited",           "rate_limit_error",      "rate_limit_error"),
            Code::Internal             => (500, "internal_error",         "server_error",          "api_error"),
            Code::UpstreamRejected     => (400, "upstream_rejected",      "invalid_request_error", "invalid_request_error"),
            Code::UpstreamError        => (502, "upstream_error",         "server_error",          "api_error"),
            Code::UpstreamAuth         => (502, "upstream_auth",          "server_error",          "api_error"),
            Code::UpstreamUnavailable  => (503, "upstream_unavailable",   "server_error",          "api_error"),
            Code::UpstreamOverloaded   => (529, "upstream_overloaded",    "server_error",          "overloaded_error"),
            Code::UpstreamTimeout      => (504, "upstream_timeout",       "server_error",          "timeout_error"),
            Code::LedgerUnavailable    => (503, "ledger_unavailable",     "server_error",          "api_error"),
            Code::NetworkUnavailable   => (503, "network_unavailable",    "server_error",          "api_error"),
            Code::ClockSkew            => (503, "clock_skew",             "server_error",          "api_error"),
            Code::Busy                 => (503, "busy",                   "server_error",          "overloaded_error"),
            Code::SettlementPending    => (504, "settlement_pending",     "server_error",          "api_error"),
        };
        Row { status, code, openai, anthropic }
    }
}

/// A refusal or failure on its way to a caller.
#[derive(Debug, Clone)]
pub struct Error {
    pub code: Code,
    /// What the caller should do next.
    pub message: String,
    /// The request field at fault.
    pub param: Option<&'static str>,
    /// The x402 reason code of a payment that was refused.
    pub reason: Option<&'static str>,
    /// What this call needs, when money is what is missing.
    pub required: Option<Micros>,
    /// Seconds after which the same request may succeed.
    pub retry_after: Option<u32>,
    /// Further fields for the error object, such as `payment_id`.
    pub details: Vec<(&'static str, serde_json::Value)>,
    /// For the operator's log only.
    pub cause: Option<String>,
}

impl Error {
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        let message = message.into();
        Error { code, message, param: None, reason: None, required: None, retry_after: None, details: Vec::new(), cause: None }
    }

    pub fn param(mut self, param: &'static str) -> Self {
        self.param = Some(param);
        self
    }

    pub fn reason(mut self, reason: &'static str) -> Self {
        self.reason = Some(reason);
        self
    }

    pub fn requiring(mut self, required: Micros) -> Self {
        self.required = Some(required);
        self
    }

    pub fn retry_after(mut self, seconds: u32) -> Self {
        self.retry_after = Some(seconds);
        self
    }

    pub fn detail(mut self, name: &'static str, value: impl Into<serde_json::Value>) -> Self {
        self.details.push((name, value.into()));
        self
    }

    pub fn because(mut self, cause: impl Into<String>) -> Self {
        self.cause = Some(cause.into());
        self
    }

    pub fn status(&self) -> u16 {
        self.code.row().status
    }
}

impl std::fmt::Display for Error {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}: {}", self.code.row().code, self.message)
    }
}

impl std::error::Error for Error {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_code_has_its_own_name_and_a_client_or_server_status() {
        let names: std::collections::HashSet<_> = Code::ALL.iter().map(|code| code.row().code).collect();
        assert_eq!(names.len(), Code::ALL.len());
        assert!(Code::ALL.iter().all(|code| (400..600).contains(&code.row().status) && code.row().status != 422));
    }
}
