//! What a request carries to say who pays: collected here, believed or refused by the gateway.

use std::sync::LazyLock;

use actix_web::http::header::{self, HeaderMap, HeaderName, HeaderValue};

use crate::gateway::Credentials;
use crate::x402::{PAYMENT_HEADERS, SIGN_IN_HEADERS};

/// Names that are looked for in every request, read once.
static PAYMENTS: LazyLock<Vec<HeaderName>> = LazyLock::new(|| names(&PAYMENT_HEADERS));
static SIGN_INS: LazyLock<Vec<HeaderName>> = LazyLock::new(|| names(&SIGN_IN_HEADERS));
const API_KEY: HeaderName = HeaderName::from_static("x-api-key");

fn names(names: &[&str]) -> Vec<HeaderName> {
    names.iter().filter_map(|name| HeaderName::from_bytes(name.as_bytes()).ok()).collect()
}

/// The credentials in the headers of a request. Nothing in its URL or its cookies is one: those end in the logs of proxies
/// and come along with requests that nobody meant to send.
pub fn credentials(headers: &HeaderMap) -> Credentials {
    let all = |names: &[HeaderName]| -> Vec<String> {
        names.iter().flat_map(|name| headers.get_all(name)).map(text).filter(|value| !value.is_empty()).collect()
    };
    Credentials {
        payments: all(&PAYMENTS),
        sign_ins: all(&SIGN_INS),
        authorizations: headers.get_all(header::AUTHORIZATION).map(text).collect(),
        api_keys: headers.get_all(API_KEY).map(text).collect(),
    }
}

/// A value that is not text can be no credential; it is kept as one that will not be read, never ignored.
fn text(value: &HeaderValue) -> String {
    value.to_str().unwrap_or("\u{fffd}").trim().to_owned()
}
