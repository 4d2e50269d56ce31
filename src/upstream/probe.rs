//! Whether an upstream answers and takes the operator's key, asked by the one question that costs nothing: its list of models.

use actix_http::Method;
use awc::http::header;
use serde_json::Value;
use tokio::time::{Instant, timeout_at};

use super::client::{unsent, words};
use super::jobs::Question;
use super::{Kind, Upstreams};
use crate::config::Speaks;
use crate::dialect::Dialect;

/// What came of asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Probe {
    /// Built in: there is nobody to ask.
    BuiltIn,
    /// It lists these models, for this key.
    Lists(Vec<String>),
    /// It answers, and does not say what it serves; with this status.
    Answers(u16),
    /// It does not take the key; with this status.
    Refuses(u16),
    /// It fails, with this status.
    Fails(u16),
    /// Nobody answers. Why.
    Silent(String),
}

impl Upstreams {
    /// Asks one upstream for its list of models. `None` for a name that is not configured.
    pub async fn probe(&self, name: &str, deadline: Instant) -> Option<Probe> {
        let upstream = self.find(name)?;
        let http = match &upstream.kind {
            Kind::Echo => return Some(Probe::BuiltIn),
            Kind::Http(http) => http,
        };
        let question = Question::of(Method::GET, "/models".into());
        let mut head = match http.question(&question) {
            Ok(head) => head,
            Err(why) => return Some(Probe::Silent(why)),
        };
        if upstream.speaks.iter().all(|spoken| *spoken == Speaks::Messages) {
            head.headers.remove(header::AUTHORIZATION);
            http.identify(&mut head.headers, Dialect::Messages);
        }
        let (head, body) = match timeout_at(deadline, http.connections.exchange(head.into(), question.body, false)).await {
            Err(_) => return Some(Probe::Silent("no answer in time".into())),
            Ok(Err(error)) => {
                let failure = unsent(&error, 0).error;
                return Some(Probe::Silent(failure.cause.unwrap_or(failure.message)));
            }
            Ok(Ok(answer)) => answer,
        };
        let status = head.status.as_u16();
        Some(match status {
            200 => {
                let text = timeout_at(deadline, words(body)).await.unwrap_or_default();
                listed(&text).map_or(Probe::Answers(status), Probe::Lists)
            }
            401 | 403 => Probe::Refuses(status),
            500.. => Probe::Fails(status),
            _ => Probe::Answers(status),
        })
    }
}

fn listed(text: &[u8]) -> Option<Vec<String>> {
    let list: Value = serde_json::from_slice(text).ok()?;
    let ids = list.get("data")?.as_array()?.iter().filter_map(|model| model.get("id")?.as_str().map(str::to_owned));
    Some(ids.collect())
}
