//! The table of error codes, and an error that tells the caller what to do next and the operator what happened.

use crate::money::Micros;

/// Every refusal and failure that leaves this program has one of these codes. Nothing else names a status.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Code {
    InvalidJson,
    InvalidRequest,
    InvalidPayment,
    InvalidAuthorization,
    UnsupportedNetwork,
    UnsupportedScheme,
    UnsupportedToken,
    WrongRecipient,
    WrongPayer,
    InvalidAmount,
    AmountTooLow,
    AmountTooHigh,
    PaymentRejected,
    InvalidKey,
    KeyRevoked,
    InvalidSignIn,
    InvalidSession,
    PaymentRequired,
    PaymentInvalid,
    SettlementFailed,
    InsufficientBalance,
    ModelNotAllowed,
    SpendLimitExceeded,
    WalletMismatch,
    TopUpFirst,
    KeyNotEnough,
    NotAnOperator,
    AccountBlocked,
    NotFound,
    ModelNotFound,
    RequestIdNotFound,
    JobNotFound,
    MediaNotFound,
    MethodNotAllowed,
    RequestTimeout,
    PaymentInProgress,
    PaymentAlreadyUsed,
    TooManyKeys,
    RotationPending,
    RequestTooLarge,
    UnsupportedMediaType,
    UpgradeRequired,
    RateLimited,
    TooManyCalls,
    Internal,
    UpstreamRejected,
    UpstreamError,
    UpstreamAuth,
    UpstreamUnavailable,
    UpstreamOverloaded,
    UpstreamTimeout,
    LedgerUnavailable,
    NetworkUnavailable,
    NotConfigured,
    ClockSkew,
    Busy,
    SettlementPending,
}

/// One row of the table: HTTP status, code on the wire, `type` in OpenAI's and in Anthropic's error object, and the code under
/// `/api/v1`, whose clients know other names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    pub status: u16,
    pub code: &'static str,
    pub openai: &'static str,
    pub anthropic: &'static str,
    pub flat: &'static str,
}

impl Code {
    pub const ALL: [Code; 57] = {
        use Code::*;
        [
            InvalidJson,
            InvalidRequest,
            InvalidPayment,
            InvalidAuthorization,
            UnsupportedNetwork,
            UnsupportedScheme,
            UnsupportedToken,
            WrongRecipient,
            WrongPayer,
            InvalidAmount,
            AmountTooLow,
            AmountTooHigh,
            PaymentRejected,
            InvalidKey,
            KeyRevoked,
            InvalidSignIn,
            InvalidSession,
            PaymentRequired,
            PaymentInvalid,
            SettlementFailed,
            InsufficientBalance,
            ModelNotAllowed,
            SpendLimitExceeded,
            WalletMismatch,
            TopUpFirst,
            KeyNotEnough,
            NotAnOperator,
            AccountBlocked,
            NotFound,
            ModelNotFound,
            RequestIdNotFound,
            JobNotFound,
            MediaNotFound,
            MethodNotAllowed,
            RequestTimeout,
            PaymentInProgress,
            PaymentAlreadyUsed,
            TooManyKeys,
            RotationPending,
            RequestTooLarge,
            UnsupportedMediaType,
            UpgradeRequired,
            RateLimited,
            TooManyCalls,
            Internal,
            UpstreamRejected,
            UpstreamError,
            UpstreamAuth,
            UpstreamUnavailable,
            UpstreamOverloaded,
            UpstreamTimeout,
            LedgerUnavailable,
            NetworkUnavailable,
            NotConfigured,
            ClockSkew,
            Busy,
            SettlementPending,
        ]
    };

    #[rustfmt::skip] // a table reads best as a table
    pub const fn row(self) -> Row {
        let (status, code, openai, anthropic, flat) = match self {
            Code::InvalidJson          => (400, "invalid_json",           "invalid_request_error", "invalid_request_error", "INVALID_JSON"),
            Code::InvalidRequest       => (400, "invalid_request",        "invalid_request_error", "invalid_request_error", "INVALID_REQUEST"),
            Code::InvalidPayment       => (400, "invalid_payment",        "invalid_request_error", "invalid_request_error", "INVALID_PAYMENT_FORMAT"),
            Code::InvalidAuthorization => (400, "invalid_authorization",  "invalid_request_error", "invalid_request_error", "INVALID_PAYMENT"),
            Code::UnsupportedNetwork   => (400, "unsupported_network",    "invalid_request_error", "invalid_request_error", "UNSUPPORTED_NETWORK"),
            Code::UnsupportedScheme    => (400, "unsupported_scheme",     "invalid_request_error", "invalid_request_error", "UNSUPPORTED_SCHEME"),
            Code::UnsupportedToken     => (400, "unsupported_token",      "invalid_request_error", "invalid_request_error", "UNSUPPORTED_TOKEN"),
            Code::WrongRecipient       => (400, "wrong_recipient",        "invalid_request_error", "invalid_request_error", "INVALID_PAYMENT_RECIPIENT"),
            Code::WrongPayer           => (400, "wrong_payer",            "invalid_request_error", "invalid_request_error", "INVALID_PAYMENT_PAYER"),
            Code::InvalidAmount        => (400, "invalid_amount",         "invalid_request_error", "invalid_request_error", "INVALID_AMOUNT"),
            Code::AmountTooLow         => (400, "amount_too_low",         "invalid_request_error", "invalid_request_error", "AMOUNT_TOO_LOW"),
            Code::AmountTooHigh        => (400, "amount_too_high",        "invalid_request_error", "invalid_request_error", "AMOUNT_TOO_HIGH"),
            Code::PaymentRejected      => (400, "payment_rejected",       "invalid_request_error", "invalid_request_error", "PAYMENT_VERIFICATION_FAILED"),
            Code::InvalidKey           => (401, "invalid_key",            "authentication_error",  "authentication_error",  "INVALID_KEY"),
            Code::KeyRevoked           => (401, "key_revoked",            "authentication_error",  "authentication_error",  "KEY_REVOKED"),
            Code::InvalidSignIn        => (401, "invalid_sign_in",        "authentication_error",  "authentication_error",  "X402_SIGN_IN_INVALID"),
            Code::InvalidSession       => (401, "invalid_session",        "authentication_error",  "authentication_error",  "INVALID_SESSION"),
            Code::PaymentRequired      => (402, "payment_required",       "payment_required",      "billing_error",         "PAYMENT_REQUIRED"),
            Code::PaymentInvalid       => (402, "payment_invalid",        "payment_required",      "billing_error",         "PAYMENT_VERIFICATION_FAILED"),
            Code::SettlementFailed     => (402, "settlement_failed",      "payment_required",      "billing_error",         "SETTLEMENT_FAILED"),
            Code::InsufficientBalance  => (402, "insufficient_balance",   "insufficient_quota",    "billing_error",         "PAYMENT_REQUIRED"),
            Code::ModelNotAllowed      => (403, "model_not_allowed",      "permission_error",      "permission_error",      "MODEL_NOT_ALLOWED"),
            Code::SpendLimitExceeded   => (403, "spend_limit_exceeded",   "permission_error",      "permission_error",      "SPEND_LIMIT_EXCEEDED"),
            Code::WalletMismatch       => (403, "wallet_mismatch",        "permission_error",      "permission_error",      "X402_WALLET_MISMATCH"),
            Code::TopUpFirst           => (403, "top_up_first",           "permission_error",      "permission_error",      "TOP_UP_FIRST"),
            Code::KeyNotEnough         => (403, "key_not_enough",         "permission_error",      "permission_error",      "KEY_NOT_ENOUGH"),
            Code::NotAnOperator        => (403, "not_an_operator",        "permission_error",      "permission_error",      "NOT_AN_OPERATOR"),
            Code::AccountBlocked       => (403, "account_blocked",        "permission_error",      "permission_error",      "ACCOUNT_BLOCKED"),
            Code::NotFound             => (404, "not_found",              "invalid_request_error", "not_found_error",       "NOT_FOUND"),
            Code::ModelNotFound        => (404, "model_not_found",        "invalid_request_error", "not_found_error",       "MODEL_NOT_FOUND"),
            Code::RequestIdNotFound    => (400, "request_id_not_found",   "invalid_request_error", "invalid_request_error", "REQUEST_ID_NOT_FOUND"),
            Code::JobNotFound          => (404, "job_not_found",          "invalid_request_error", "not_found_error",       "JOB_NOT_FOUND"),
            Code::MediaNotFound        => (404, "media_not_found",        "invalid_request_error", "not_found_error",       "MEDIA_NOT_FOUND"),
            Code::MethodNotAllowed     => (405, "method_not_allowed",     "invalid_request_error", "invalid_request_error", "METHOD_NOT_ALLOWED"),
            Code::RequestTimeout       => (408, "request_timeout",        "invalid_request_error", "timeout_error",         "REQUEST_TIMEOUT"),
            Code::PaymentInProgress    => (409, "payment_in_progress",    "invalid_request_error", "invalid_request_error", "PAYMENT_IN_PROGRESS"),
            Code::PaymentAlreadyUsed   => (409, "payment_already_used",   "invalid_request_error", "invalid_request_error", "PAYMENT_ALREADY_USED"),
            Code::TooManyKeys          => (409, "key_limit",              "invalid_request_error", "invalid_request_error", "KEY_LIMIT"),
            Code::RotationPending      => (409, "rotation_pending",       "invalid_request_error", "invalid_request_error", "ROTATION_PENDING"),
            Code::RequestTooLarge      => (413, "request_too_large",      "invalid_request_error", "request_too_large",     "PAYLOAD_TOO_LARGE"),
            Code::UnsupportedMediaType => (415, "unsupported_media_type", "invalid_request_error", "invalid_request_error", "UNSUPPORTED_MEDIA_TYPE"),
            Code::UpgradeRequired      => (426, "upgrade_required",       "invalid_request_error", "invalid_request_error", "UPGRADE_REQUIRED"),
            Code::RateLimited          => (429, "rate_limited",           "rate_limit_error",      "rate_limit_error",      "RATE_LIMITED"),
            Code::TooManyCalls         => (429, "concurrency_limit",      "rate_limit_error",      "rate_limit_error",      "X402_CONCURRENCY_LIMIT"),
            Code::Internal             => (500, "internal_error",         "server_error",          "api_error",             "INTERNAL_ERROR"),
            Code::UpstreamRejected     => (400, "upstream_rejected",      "invalid_request_error", "invalid_request_error", "UPSTREAM_REJECTED"),
            Code::UpstreamError        => (502, "upstream_error",         "server_error",          "api_error",             "UPSTREAM_ERROR"),
            Code::UpstreamAuth         => (502, "upstream_auth",          "server_error",          "api_error",             "UPSTREAM_AUTH"),
            Code::UpstreamUnavailable  => (503, "upstream_unavailable",   "server_error",          "api_error",             "UPSTREAM_UNAVAILABLE"),
            Code::UpstreamOverloaded   => (529, "upstream_overloaded",    "server_error",          "overloaded_error",      "UPSTREAM_OVERLOADED"),
            Code::UpstreamTimeout      => (504, "upstream_timeout",       "server_error",          "timeout_error",         "UPSTREAM_TIMEOUT"),
            Code::LedgerUnavailable    => (503, "ledger_unavailable",     "server_error",          "api_error",             "LEDGER_UNAVAILABLE"),
            Code::NetworkUnavailable   => (503, "network_unavailable",    "server_error",          "api_error",             "NETWORK_UNAVAILABLE"),
            Code::NotConfigured        => (503, "not_configured",         "server_error",          "api_error",             "X402_NOT_CONFIGURED"),
            Code::ClockSkew            => (503, "clock_skew",             "server_error",          "api_error",             "CLOCK_SKEW"),
            Code::Busy                 => (503, "busy",                   "server_error",          "overloaded_error",      "BUSY"),
            Code::SettlementPending    => (504, "settlement_pending",     "server_error",          "api_error",             "SETTLEMENT_TIMEOUT"),
        };
        Row { status, code, openai, anthropic, flat }
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
    /// The reason code of a payment (x402) or a sign-in that was refused.
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
