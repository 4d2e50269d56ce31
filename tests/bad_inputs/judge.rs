//! What is wrong with an answer: every rule of the table, each complaint in words.

use farebox_rig::anvil::SETTLER;
use farebox_rig::upstream::UPSTREAM_KEY;
use serde_json::Value;

use crate::case::{Case, Shape};
use crate::shop::Moved;
use crate::wire::Answer;

const ANTHROPIC_TYPES: [&str; 9] = [
    "invalid_request_error",
    "authentication_error",
    "billing_error",
    "permission_error",
    "not_found_error",
    "request_too_large",
    "rate_limit_error",
    "api_error",
    "overloaded_error",
];

/// What an answer to `case` must be, whatever moved.
pub fn answer(case: &Case, answer: &Answer) -> Vec<String> {
    let mut complaints = Vec::new();
    let mut must = |holds: bool, what: String| {
        if !holds {
            complaints.push(what);
        }
    };
    let code = answer.code();
    let shown: String = answer.text().chars().take(300).collect();
    must(
        // HEAD is answered without the body that would name the code.
        if case.method == "HEAD" {
            case.expect_status.contains(&answer.status)
        } else {
            case.expects(answer.status, code.as_deref())
        },
        format!("answered {} {code:?}, expected {:?} {}: {shown}", answer.status, case.expect_status, case.expect_code),
    );
    must(answer.status != 422, "422 is never used".into());
    let head: String = answer.headers.iter().map(|(name, value)| format!("{name}: {value}\n")).collect();
    let offer = answer.offer().map(|offer| offer.to_string()).unwrap_or_default();
    let said = format!("{head}{}{offer}", answer.text());
    for secret in [UPSTREAM_KEY, &SETTLER.key[2..]] {
        must(!said.contains(secret), "the answer contains a secret of the operator".into());
    }
    for absent in &case.absent {
        must(!said.contains(absent.as_str()), format!("the answer contains {absent:?}: {said}"));
    }
    if case.not_http {
        must(answer.body.is_empty(), format!("not a bare answer: {} {shown}", answer.status));
        return complaints;
    }
    must(answer.header("x-request-id").is_some_and(|id| id.starts_with("req_")), "no X-Request-Id of ours".into());
    must(answer.header("x-content-type-options") == Some("nosniff"), "no nosniff".into());
    if answer.status < 400 {
        must(answer.complete != case.broken, format!("complete: {}", answer.complete));
        if case.broken {
            must(answer.text().contains("\"error\"") && !answer.text().contains("[DONE]"), "a broken stream looks whole".into());
        }
        return complaints;
    }
    must(answer.header("content-length").is_some_and(|length| length != "0"), "no body".into());
    if case.method != "HEAD" {
        must(answer.header("content-type") == Some("application/json"), format!("not JSON: {head}"));
        complaints.extend(shape(case.shape, &answer.json()));
    }
    complaints.extend(advice(answer, code.as_deref()));
    complaints.extend(payment(case, answer));
    complaints
}

fn shape(shape: Shape, body: &Value) -> Option<String> {
    let error = &body["error"];
    let text = |name: &str| error[name].as_str().is_some_and(|text| !text.is_empty());
    let fine = match shape {
        Shape::OpenAi => text("message") && text("type") && text("code") && error.get("param").is_some(),
        Shape::Anthropic => {
            let kind = error["type"].as_str().unwrap_or_default();
            body["type"] == "error" && text("message") && text("code") && ANTHROPIC_TYPES.contains(&kind)
        }
        Shape::Plain => error.is_string() && body["code"].is_string(),
        // Where it begins, the answer is an offer and no error.
        Shape::TopUp if body["error"] == "Payment required" => body["accepts"].is_array(),
        Shape::TopUp => error.is_string() && body["message"].is_string() && body["details"]["code"].is_string(),
        Shape::None => true,
    };
    (!fine).then(|| format!("not in the shape {shape:?}: {body}"))
}

/// Whether the answer says rightly to send the same again, or not.
fn advice(answer: &Answer, code: Option<&str>) -> Option<String> {
    let retry = answer.header("x-should-retry");
    let pays_twice = matches!(code, Some("settlement_pending" | "payment_in_progress" | "payment_already_used"));
    let settled = answer.header("payment-response").is_some();
    let fine = match answer.status {
        _ if pays_twice || settled => retry == Some("false") && answer.header("retry-after").is_none(),
        400..=404 => retry == Some("false"),
        429 | 503 | 529 => retry == Some("true") && answer.header("retry-after").is_some(),
        _ => true,
    };
    (!fine).then(|| format!("wrong advice to retry: {retry:?}, Retry-After {:?}", answer.header("retry-after")))
}

/// A 402 always brings the offer, and names the reason of a payment that is refused.
fn payment(case: &Case, answer: &Answer) -> Option<String> {
    let offer = answer.offer();
    if answer.status == 402 && offer.as_ref().is_none_or(|offer| offer["accepts"][0]["amount"].is_null()) {
        return Some("a 402 without an offer".into());
    }
    let reason = case.reason.as_deref()?;
    let body = answer.json();
    let named = [&body["error"]["reason"], &offer.unwrap_or_default()["error"]].map(|value| value.as_str().map(str::to_owned));
    let fine = named.iter().all(|named| named.as_deref() == Some(reason));
    (answer.status == 402 && !fine).then(|| format!("the reason is {named:?}, not {reason}"))
}

/// What may have moved: everything for a served call, nothing for a refused one.
pub fn moves(case: &Case, served: bool, amount: Option<u64>, before: Moved, after: Moved) -> Option<String> {
    let paid = served || case.settled;
    let is_call = case.shape != Shape::TopUp;
    let expected = Moved {
        earned: before.earned + amount.filter(|_| paid).unwrap_or(0),
        transactions: before.transactions + u64::from(paid && amount.is_some()),
        // An upstream that behaves badly may be asked again.
        calls: if case.upstream.is_some() {
            after.calls
        } else {
            before.calls + usize::from(is_call && paid && amount.is_some())
        },
    };
    (after != expected).then(|| format!("moved {after:?}, expected {expected:?}"))
}
