//! Hostile input to the routes of an account's owner, case by case: a clear refusal, no key made, nobody's session ridden on.

use std::collections::BTreeMap;

use farebox_rig::http::{Answer, Request};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::owner::{DOLLAR, Owner, Shop};

/// One row of `dashboard.json`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Case {
    id: String,
    route: String,
    method: String,
    headers: BTreeMap<String, String>,
    /// `{"json": …}` or `{"raw": text}`.
    body: Option<Value>,
    expect_status: Vec<u16>,
    /// One or any of; null goes with 200, and null alone is not checked.
    expect_code: Value,
    why: String,
    /// How the owner's session comes along.
    session: Session,
    repeat: Option<usize>,
    expect_some_status: Option<u16>,
}

#[derive(Deserialize, Clone, Copy, PartialEq, Eq)]
#[serde(rename_all = "lowercase")]
enum Session {
    None,
    Bearer,
    Cookie,
}

impl Case {
    fn request(&self, token: &str, names: &[(&str, &str)]) -> Request {
        let fill = |text: &str| {
            names.iter().fold(text.to_owned(), |text, (name, value)| text.replace(&format!("{{{{{name}}}}}"), value))
        };
        let body = match self.body.as_ref().map(|body| (&body["json"], &body["raw"])) {
            None => String::new(),
            Some((Value::Null, raw)) => raw.as_str().expect("json or raw").to_owned(),
            Some((json, _)) => generated(json).to_string(),
        };
        let mut request = Request::new(&self.method, &fill(&self.route)).with_text(&body);
        for (name, value) in &self.headers {
            let value = fill(value);
            assert!(!value.contains("{{"), "{}: nobody knows what {value} stands for", self.id);
            request = request.header(name, &value);
        }
        match self.session {
            Session::Bearer => request.header("authorization", &format!("Bearer {token}")),
            Session::Cookie => {
                assert!(self.headers["Cookie"].contains("SESSION"), "{}", self.id);
                request
            }
            Session::None => request,
        }
    }

    fn check(&self, answer: &Answer) {
        let about = format!("{} ({}): {} {}", self.id, self.why, answer.status, answer.text());
        assert!(self.expect_status.contains(&answer.status), "{about}");
        assert!(answer.header("x-request-id").is_some_and(|id| id.starts_with("req_")), "{about}");
        assert_eq!(answer.header("content-type"), Some("application/json"), "{about}");
        assert_eq!(answer.header("set-cookie"), None, "{about}");
        if answer.status == 200 {
            return;
        }
        let error = answer.json()["error"].take();
        assert!(error["message"].as_str().is_some_and(|message| message.len() > 20), "{about}");
        let code = answer.code();
        let fits = match &self.expect_code {
            Value::Null => true,
            Value::Array(any) => any.iter().any(|one| one == code.as_str()),
            one => one == code.as_str(),
        };
        assert!(fits, "{about}");
    }
}

/// Puts what `{"gen": "repeat"}` makes in its place.
fn generated(value: &Value) -> Value {
    match value {
        Value::Object(fields) if fields.get("gen") == Some(&json!("repeat")) => {
            let count = usize::try_from(fields["count"].as_u64().unwrap()).unwrap();
            fields["unit"].as_str().unwrap().repeat(count).into()
        }
        Value::Object(fields) => fields.iter().map(|(name, value)| (name.clone(), generated(value))).collect(),
        Value::Array(items) => items.iter().map(generated).collect(),
        other => other.clone(),
    }
}

#[test]
fn every_bad_input_to_an_account_is_refused_in_its_own_words_and_makes_no_key() {
    let cases: Vec<Case> = serde_json::from_str(include_str!("dashboard.json")).unwrap();
    assert_eq!(cases.len(), 14);
    let (shop, owner, other) = (Shop::open(), Owner::new(1), Owner::new(2));
    shop.top_up(&owner, DOLLAR);
    shop.top_up(&other, DOLLAR);
    let (_, foreign) = shop.mint(&other, &json!({ "name": "somebody else's" }));
    for case in &cases {
        let session = shop.session(&owner);
        let (cookie, wallet, url) = (format!("session={}", session.token()), other.address(), shop.server.url());
        let names = [("SESSION", cookie.as_str()), ("OTHER_WALLET", &wallet), ("PUBLIC_URL", &url)];
        let before = shop.listed(&owner).len();
        let mut made = 0;
        let mut statuses = Vec::new();
        for _ in 0..case.repeat.unwrap_or(1) {
            let answer = shop.server.send(&case.request(session.token(), &names));
            case.check(&answer);
            assert!(!answer.text().contains("somebody else"), "{}", case.id);
            if answer.status == 200 && case.method == "POST" {
                shop.minted(&answer);
                made += 1;
            }
            statuses.push(answer.status);
        }
        assert!(case.expect_some_status.is_none_or(|some| statuses.contains(&some)), "{}: {statuses:?}", case.id);
        assert_eq!(shop.listed(&owner).len(), before + made, "{}: a refusal makes no key", case.id);
        assert!(made <= 100, "{}", case.id);
    }
    assert_eq!((shop.listed(&other).len(), shop.knocks(&foreign).0), (1, 200), "nobody else was touched");
    assert_eq!(shop.upstream.calls().len(), 0);
    shop.close(&[(&owner, DOLLAR), (&other, DOLLAR)]);
}
