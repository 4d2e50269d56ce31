//! How an error reads: one body that OpenAI's, Anthropic's and our own clients all understand, and its form inside a stream.

use bytes::Bytes;
use serde_json::{Map, Value, json};

use super::Dialect;
use crate::error::{Code, Error};
use crate::ids::RequestId;

/// The shape of an error body, which follows the route.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ErrorShape {
    /// An object, with OpenAI's `type`.
    OpenAi,
    /// The same object, with Anthropic's `type`.
    Anthropic,
    /// `{"error": "text", "code": "…"}`, everywhere under `/api/v1`.
    Flat,
    /// `{"error": "CODE", "message": "text", "details": {…}}`, where top-ups are paid.
    TopUp,
}

impl From<Dialect> for ErrorShape {
    fn from(dialect: Dialect) -> Self {
        match dialect {
            Dialect::Chat | Dialect::Responses => ErrorShape::OpenAi,
            Dialect::Messages => ErrorShape::Anthropic,
        }
    }
}

/// The body of an error answer. The operator's part ([`Error::cause`]) is never in it.
pub fn error_body(shape: ErrorShape, error: &Error, request: RequestId) -> Map<String, Value> {
    let row = error.code.row();
    let mut extras = Map::new();
    if let Some(reason) = error.reason {
        extras.insert("reason".into(), reason.into());
    }
    if let Some(required) = error.required {
        extras.insert("required_micro".into(), required.get().into());
    }
    extras.extend(error.details.iter().map(|(name, value)| ((*name).to_owned(), value.clone())));

    let mut body = Map::new();
    let kind = match shape {
        ErrorShape::OpenAi => row.openai,
        ErrorShape::Anthropic => row.anthropic,
        ErrorShape::Flat => {
            body.insert("error".into(), error.message.as_str().into());
            body.insert("code".into(), flat_code(error).into());
            if let Some(param) = error.param {
                body.insert("param".into(), param.into());
            }
            body.insert("request_id".into(), request.to_string().into());
            extras.into_iter().for_each(|(name, value)| _ = body.entry(name).or_insert(value));
            return body;
        }
        ErrorShape::TopUp => {
            body.insert("error".into(), flat_code(error).into());
            body.insert("message".into(), error.message.as_str().into());
            extras.insert("code".into(), row.code.into());
            extras.insert("request_id".into(), request.to_string().into());
            body.insert("details".into(), Value::Object(extras));
            return body;
        }
    };
    let required = extras.get("required_micro").cloned();
    let mut inner = Map::new();
    inner.insert("type".into(), kind.into());
    inner.insert("code".into(), row.code.into());
    inner.insert("message".into(), error.message.as_str().into());
    inner.insert("param".into(), json!(error.param));
    extras.into_iter().for_each(|(name, value)| _ = inner.entry(name).or_insert(value));
    body.insert("type".into(), "error".into());
    body.insert("error".into(), Value::Object(inner));
    body.insert("request_id".into(), request.to_string().into());
    if let Some(required) = required {
        body.insert("required_micro".into(), required);
    }
    body
}

/// The code under `/api/v1`: of a sign-in that was refused, the reason says exactly why.
fn flat_code(error: &Error) -> &'static str {
    match (error.code, error.reason) {
        (Code::InvalidSignIn, Some(reason)) => reason,
        (code, _) => code.row().flat,
    }
}

/// The last event of a stream that breaks. After it the connection is aborted, not ended cleanly, because several clients take
/// a clean end for a complete answer. Only to clients of responses the event itself is an end.
pub fn broken_stream(dialect: Dialect, error: &Error, request: RequestId) -> Bytes {
    let mut body = error_body(dialect.into(), error, request);
    let event = match dialect {
        Dialect::Chat => return format!("data: {}\n\n", Value::Object(body)).into(),
        Dialect::Messages => "error",
        Dialect::Responses => {
            fail_response(&mut body, error, request);
            "response.failed"
        }
    };
    format!("event: {event}\ndata: {}\n\n", Value::Object(body)).into()
}

/// Makes an error body the last event of a response. Codex reads the error within the response; the SDKs throw the one beside it,
/// and would else tell their callers of nothing but a broken connection.
fn fail_response(body: &mut Map<String, Value>, error: &Error, request: RequestId) {
    let code = error.reason.unwrap_or(error.code.row().code);
    let response = json!({
        "id": format!("resp_{request}"),
        "object": "response",
        "created_at": 0,
        "status": "failed",
        "error": { "code": code, "message": error.message },
        "incomplete_details": null,
        "instructions": null,
        "metadata": {},
        "model": "",
        "output": [],
        "parallel_tool_calls": true,
        "temperature": null,
        "tool_choice": "auto",
        "tools": [],
        "top_p": null,
        "usage": null,
    });
    body.insert("type".into(), "response.failed".into());
    body.insert("sequence_number".into(), 0.into());
    body.insert("response".into(), response);
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::money::Micros;

    fn error() -> Error {
        let error = Error::new(Code::InsufficientBalance, "top up at /topup").because("secret cause");
        error.requiring(Micros::new(1234)).reason("why").detail("payment_id", "pay_1").detail("code", "forged")
    }

    #[test]
    fn one_body_reads_as_openai_and_as_anthropic() {
        let body = Value::Object(error_body(ErrorShape::Anthropic, &error(), RequestId(7)));
        assert_eq!((&body["type"], &body["error"]["type"]), (&json!("error"), &json!("billing_error")));
        assert_eq!(body["error"]["code"], "insufficient_balance", "a detail never replaces the code");
        assert_eq!(body["error"]["param"], Value::Null);
        assert_eq!(body["error"]["payment_id"], "pay_1");
        assert_eq!(body["required_micro"], 1234);
        assert_eq!(body["error"]["required_micro"], 1234);
        assert_eq!(body["request_id"], RequestId(7).to_string());
        assert_eq!(error_body(ErrorShape::OpenAi, &error(), RequestId(7))["error"]["type"], "insufficient_quota");
    }

    #[test]
    fn under_api_v1_the_error_is_a_text() {
        let body = Value::Object(error_body(ErrorShape::Flat, &error(), RequestId(7)));
        assert_eq!((&body["error"], &body["code"]), (&json!("top up at /topup"), &json!("PAYMENT_REQUIRED")));
        assert_eq!((&body["required_micro"], &body["reason"]), (&json!(1234), &json!("why")));
    }

    #[test]
    fn the_operators_part_of_an_error_is_in_no_shape() {
        for shape in [ErrorShape::OpenAi, ErrorShape::Anthropic, ErrorShape::Flat] {
            let text = Value::Object(error_body(shape, &error(), RequestId(7))).to_string();
            assert!(!text.contains("secret cause"), "{text}");
        }
    }

    #[test]
    fn a_broken_stream_ends_with_an_error_event_on_one_line() {
        let error = Error::new(Code::UpstreamError, "line one\nline two");
        let chat = broken_stream(Dialect::Chat, &error, RequestId(7));
        let messages = broken_stream(Dialect::Messages, &error, RequestId(7));
        assert!(chat.starts_with(b"data: {") && chat.ends_with(b"}\n\n"));
        assert!(messages.starts_with(b"event: error\ndata: {") && messages.ends_with(b"}\n\n"));
        assert_eq!(chat.iter().filter(|byte| **byte == b'\n').count(), 2);
    }

    #[test]
    fn a_broken_response_says_so_where_codex_and_where_the_sdks_look() {
        let error = Error::new(Code::UpstreamRejected, "too\nlong").reason("context_length_exceeded").because("secret cause");
        for (error, code) in
            [(&error, "context_length_exceeded"), (&Error { reason: None, ..error.clone() }, "upstream_rejected")]
        {
            let bytes = broken_stream(Dialect::Responses, error, RequestId(7));
            let text = std::str::from_utf8(&bytes).unwrap();
            let data = text.strip_prefix("event: response.failed\ndata: ").and_then(|rest| rest.strip_suffix("\n\n")).unwrap();
            let event: Value = serde_json::from_str(data).unwrap();
            assert_eq!((&event["type"], &event["response"]["status"]), (&json!("response.failed"), &json!("failed")));
            assert_eq!(event["response"]["error"], json!({ "code": code, "message": "too\nlong" }));
            assert_eq!(event["error"]["message"], "too\nlong");
            assert!(!text.contains("secret cause") && text.lines().count() == 3, "{text}");
        }
    }
}
