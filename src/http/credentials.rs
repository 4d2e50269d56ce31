//! What a request carries to say who pays: collected here, believed or refused by the gateway.

use actix_web::http::header::{self, HeaderMap, HeaderValue};

use crate::gateway::Credentials;
use crate::x402::{PAYMENT_HEADERS, SIGN_IN_HEADERS};

/// The credentials in the headers of a request. Nothing in its URL or its cookies is one: those end in the logs of proxies
/// and come along with requests that nobody meant to send.
pub fn credentials(headers: &HeaderMap) -> Credentials {
    let all = |names: &[&str]| -> Vec<String> {
        names.iter().flat_map(|name| headers.get_all(*name)).map(text).filter(|value| !value.is_empty()).collect()
    };
    Credentials {
        payments: all(&PAYMENT_HEADERS),
        sign_ins: all(&SIGN_IN_HEADERS),
        authorizations: headers.get_all(header::AUTHORIZATION).map(text).collect(),
        api_keys: headers.get_all("x-api-key").map(text).collect(),
    }
}

/// A value that is not text can be no credential; it is kept as one that will not be read, never ignored.
fn text(value: &HeaderValue) -> String {
    value.to_str().unwrap_or("\u{fffd}").trim().to_owned()
}
