//! The dashboard's routes and the files of the pages under hostile requests: each is refused, moves no money and makes no key.

use farebox_rig::anvil::{BUYER, OTHER_BUYER};
use farebox_rig::http::Request;
use farebox_rig::server::Server;
use serde_json::{Value, json};

use crate::shop::simulated;

/// Two dollars in micros.
const PAID: u64 = 2_000_000;

/// Sends one case, with `token` as it says: as a bearer, or in a cookie, which must count for nothing.
fn send(server: &Server, case: &Value, token: &str) -> (u16, String, String) {
    let text = |name: &str| case[name].as_str().unwrap_or_default().to_owned();
    let path = text("route").replace("{{OTHER_WALLET}}", OTHER_BUYER.address);
    let mut request = Request::new(&text("method"), &path);
    for (name, value) in case["headers"].as_object().into_iter().flatten() {
        let value = value.as_str().unwrap_or_default().replace("{{SESSION}}", &format!("session={token}"));
        request = request.header(name, &value.replace("{{PUBLIC_URL}}", &server.public_url()));
    }
    if case["session"] == "bearer" && case["id"] != "dash-no-session" {
        request = request.header("authorization", &format!("Bearer {token}"));
    }
    let mut body = case["body"]["json"].clone();
    if let Some(count) = body["name"]["count"].as_u64() {
        body["name"] = json!("n".repeat(usize::try_from(count).expect("a short name")));
    }
    request = match case["body"]["raw"].as_str() {
        Some(raw) => request.with_text(raw),
        None if body.is_null() => request,
        None => request.with_text(&body.to_string()),
    };
    let answer = server.send(&request);
    assert!(answer.header("x-request-id").is_some(), "{case}");
    assert_eq!((answer.header("set-cookie"), answer.header("location")), (None, None), "{case}");
    let code = if answer.status < 300 { String::new() } else { answer.code() };
    (answer.status, code, answer.text())
}

fn is_one_of(wanted: &Value, status: u16) -> bool {
    wanted.as_array().is_some_and(|all| all.contains(&json!(status)))
}

#[test]
fn hostile_requests_to_the_dashboard_and_for_files_are_refused_and_move_nothing() {
    let cases: Vec<Value> = serde_json::from_str(include_str!("bad_inputs.json")).expect("the table is JSON");
    assert_eq!(cases.len(), 22);
    let mut server = simulated(&["echo"]);
    let wide = "[limits]\nper_ip_per_second = 1000\nper_ip_burst = 1000\nkey_changes_per_ip_per_minute = 1000\n";
    server.reconfigure(|text| format!("{text}{wide}"));
    server.restart();
    let buyer = server.account(BUYER);
    assert_eq!(buyer.top_up(PAID).status, 200);
    let opened = server.send(&Request::new("POST", "/api/session").header("x-sign-in-with-x", &buyer.sign_in()));
    let token = opened.json()["token"].as_str().expect("a session").to_owned();
    let keys = || {
        let listed = server.send(&Request::get("/api/keys").header("authorization", &format!("Bearer {token}")));
        listed.json()["keys"].as_array().unwrap_or_else(|| panic!("{}", listed.text())).len()
    };
    // The flood last: after it nothing is minted for a while.
    let (floods, cases): (Vec<_>, Vec<_>) = cases.into_iter().partition(|case| !case["repeat"].is_null());
    for case in &cases {
        let before = keys();
        let (status, code, text) = send(&server, case, &token);
        assert!(is_one_of(&case["expect_status"], status), "{case}: {status} {text}");
        let wanted = case["expect_code"].as_str().map(|code| json!([code])).unwrap_or_else(|| case["expect_code"].clone());
        if let Some(wanted) = wanted.as_array() {
            assert!(wanted.contains(&json!(code)), "{case}: {code} {text}");
        }
        assert!(!text.contains("root:") && !text.contains("redb\u{1a}"), "{case}");
        let made = usize::from(case["method"] == "POST" && status < 300);
        assert_eq!(keys(), before + made, "{case}: a refused key was made");
        assert!(!text.contains(OTHER_BUYER.address), "{case}: {text}");
    }
    for case in &floods {
        let times = case["repeat"].as_u64().expect("so often");
        let statuses: Vec<u16> = (0..times).map(|_| send(&server, case, &token).0).collect();
        assert!(statuses.iter().any(|status| is_one_of(&case["expect_some_status"], *status)), "{statuses:?}");
        assert!(statuses.iter().all(|status| *status < 500), "{statuses:?}");
        assert!(keys() <= 100, "more keys than a wallet may have");
    }
    assert_eq!(u64::try_from(buyer.available()).expect("no debt"), PAID, "nothing was spent");
    let books = server.audit();
    assert!(books.clean, "{:#}", books.json);
}
