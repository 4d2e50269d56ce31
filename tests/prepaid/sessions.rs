//! Sessions: a wallet signs in once and keeps its keys for half a day; nothing else opens an account, and a leaked key least of all.

use farebox_rig::http::Request;
use serde_json::json;

use crate::owner::{DOLLAR, Owner, Proof, Shop};

/// Every route of an account's owner, with a body where one belongs.
fn routes(key: &str) -> Vec<(&'static str, String)> {
    let route = |method, path: &str| (method, path.replace("{id}", key));
    vec![
        route("GET", "/api/account"),
        route("GET", "/api/keys"),
        route("POST", "/api/keys"),
        route("PATCH", "/api/keys/{id}"),
        route("POST", "/api/keys/{id}/revoke"),
        route("POST", "/api/keys/{id}/rotate"),
        route("GET", "/api/usage"),
        route("GET", "/api/transactions"),
        route("GET", "/api/receipts/req_00000000000000000000000000000000"),
        route("DELETE", "/api/session"),
    ]
}

#[test]
fn a_session_opens_what_its_wallet_owns_until_it_is_ended() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let opened = shop.ask("POST", "/api/session", &shop.sign_in(&owner), None);
    assert_eq!(opened.status, 200, "{}", opened.text());
    let opened_at = shop.now();
    let session = opened.json();
    assert_eq!(session["account"], owner.account());
    let lasts =
        farebox::clock::Timestamp::from_rfc3339(session["expires_at"].as_str().unwrap()).unwrap().secs() - opened_at.secs();
    assert!((12 * 3600 - 5..=12 * 3600).contains(&lasts), "half a day: {lasts}");
    assert_eq!(opened.header("set-cookie"), None, "no cookie");
    assert_eq!(opened.header("cache-control"), Some("no-store, private"));
    let token = shop.keep(session["token"].as_str().unwrap());
    let proof = Proof::bearer(&token);
    // One sign-in is enough for many changes.
    let minted = shop.ask("POST", "/api/keys", &proof, Some(&json!({ "name": "laptop" })));
    let (id, _) = shop.minted(&minted);
    shop.get("/api/keys", &proof);
    assert_eq!(shop.ask("POST", &format!("/api/keys/{id}/revoke"), &proof, None).status, 200);
    let account = shop.get("/api/account", &proof);
    assert_eq!((&account["account"], &account["keys"]), (&owner.account().into(), &0.into()));
    // A second session does not end the first, and an end ends one.
    let second = shop.session(&owner);
    assert_eq!(shop.ask("DELETE", "/api/session", &proof, None).status, 204);
    for (method, path) in routes(&id) {
        let answer = shop.ask(method, &path, &proof, Some(&json!({ "name": "x" })));
        assert_eq!((answer.status, answer.code().as_str()), (401, "invalid_session"), "{method} {path}");
    }
    shop.get("/api/keys", &second);
    assert_eq!(shop.listed(&owner).len(), 1, "nothing was minted after the end");
    shop.close(&[(&owner, DOLLAR)]);
}

#[test]
fn a_sign_in_opens_one_session() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let proof = shop.sign_in(&owner);
    assert_eq!(shop.ask("POST", "/api/session", &proof, None).status, 200);
    let again = shop.ask("POST", "/api/session", &proof, None);
    assert_eq!((again.status, again.code().as_str()), (401, "invalid_sign_in"), "{}", again.text());
    assert_eq!(again.json()["error"]["reason"], "X402_SIGN_IN_NONCE_REUSED");
    // The same for a change, and reading uses nothing up.
    let proof = shop.sign_in(&owner);
    for _ in 0..3 {
        shop.get("/api/keys", &proof);
    }
    let wish = json!({ "name": "one" });
    shop.minted(&shop.ask("POST", "/api/keys", &proof, Some(&wish)));
    assert_eq!(shop.ask("POST", "/api/keys", &proof, Some(&wish)).status, 401);
    assert_eq!(shop.listed(&owner).len(), 1);
    shop.close(&[(&owner, DOLLAR)]);
}

#[test]
fn nothing_but_a_session_or_a_sign_in_opens_an_account() {
    let (shop, owner, stranger) = (Shop::open(), Owner::new(1), Owner::new(2));
    shop.top_up(&owner, DOLLAR);
    let (id, key) = shop.mint(&owner, &json!({ "name": "leaked" }));
    let session = shop.session(&owner);
    let token = session.token();
    let bare = Request::new;
    for (method, path) in routes(&id) {
        let body = json!({ "name": "x", "key": "x" }).to_string();
        let request = |name: &str, value: &str| Request::with_body(method, &path, body.clone()).header(name, value);
        let refused = [
            ("nothing", Request::with_body(method, &path, body.clone())),
            ("a key", request("authorization", &format!("Bearer {key}"))),
            ("a key as x-api-key", request("x-api-key", &key)),
            ("a key beside a session", request("authorization", &format!("Bearer {token}")).header("x-api-key", &key)),
            ("a session as x-api-key", request("x-api-key", token)),
            ("a session as a cookie", request("cookie", &format!("session={token}; token={token}"))),
            ("a session without a scheme", request("authorization", token)),
            ("two sessions", request("authorization", &format!("Bearer {token}")).header("authorization", "Bearer session-x")),
            ("half a session", request("authorization", &format!("Bearer {}", &token[..token.len() - 1]))),
            ("a session in the query", bare(method, &format!("{path}?token={token}&session={token}"))),
            ("the token of nobody", request("authorization", &format!("Bearer session-{}", "A".repeat(43)))),
            ("a payment", request("payment-signature", "e30=")),
        ];
        for (what, request) in refused {
            let request = request.header("origin", "https://evil.example");
            let answer = shop.server.send(&request);
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (401, "invalid_session"),
                "{method} {path}: {what}: {}",
                answer.text()
            );
            assert!(answer.json()["error"]["message"].as_str().is_some_and(|say| say.contains("sign in")), "{}", answer.text());
        }
        if method != "DELETE" {
            let bad = request("x-sign-in-with-x", "e30=").header("authorization", &format!("Bearer {token}"));
            assert_eq!(shop.server.send(&bad).code(), "invalid_sign_in", "a bad sign-in is not passed over: {path}");
        }
    }
    // Of somebody else's keys nobody hears.
    let other = shop.session(&stranger);
    for (method, path) in routes(&id).into_iter().filter(|(_, path)| path.contains(&id)) {
        let answer = shop.ask(method, &path, &other, Some(&json!({})));
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{method} {path}: {}", answer.text());
    }
    assert_eq!(shop.listed(&stranger), []);
    assert_eq!(shop.get(&format!("/api/keys?wallet={}", owner.address()), &other), json!({ "keys": [] }));
    let own = shop.listed(&owner);
    assert_eq!((own.len(), own[0].1.as_str()), (1, "active"), "nothing has become of the key");
    assert_eq!(shop.knocks(&key).0, 200);
    shop.close(&[(&owner, DOLLAR), (&stranger, 0)]);
}

#[test]
fn a_restart_ends_every_session() {
    let (mut shop, owner) = (Shop::open(), Owner::new(1));
    let session = shop.session(&owner);
    shop.get("/api/account", &session);
    shop.server.restart();
    assert_eq!(shop.ask("GET", "/api/account", &session, None).code(), "invalid_session");
    shop.close(&[(&owner, 0)]);
}

#[cfg(feature = "fault-points")]
#[test]
fn a_session_lasts_twelve_hours() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    let session = shop.session(&owner);
    shop.move_clock(12 * 3600 - 60);
    shop.get("/api/account", &session);
    shop.move_clock(12 * 3600 + 60);
    assert_eq!(shop.ask("GET", "/api/account", &session, None).code(), "invalid_session");
    assert_eq!(shop.ask("POST", "/api/keys", &session, Some(&json!({ "name": "late" }))).status, 401);
    assert_eq!(shop.listed(&owner), []);
    shop.close(&[(&owner, 0)]);
}

#[test]
fn a_page_elsewhere_may_ask_and_gets_no_cookie_to_ride_on() {
    let shop = Shop::open();
    for (path, method) in [("/api/session", "DELETE"), ("/api/keys/key_1", "PATCH"), ("/api/keys", "POST")] {
        let asks = Request::new("OPTIONS", path)
            .header("origin", "https://page.example")
            .header("access-control-request-method", method)
            .header("access-control-request-headers", "authorization,content-type");
        let answer = shop.server.send(&asks);
        assert_eq!(answer.status, 204);
        let allowed = answer.header("access-control-allow-methods").unwrap();
        assert!(allowed.split(", ").any(|one| one == method), "{path}: {allowed}");
        assert_eq!(answer.header("access-control-allow-credentials"), None, "cookies and logins of a browser stay out");
    }
    let wrong = [
        ("GET", "/api/session"),
        ("PUT", "/api/keys"),
        ("GET", "/api/keys/key_1"),
        ("DELETE", "/api/account"),
        ("GET", "/api/keys/key_1/revoke"),
    ];
    for (method, path) in wrong {
        let answer = shop.server.send(&Request::new(method, path));
        assert_eq!((answer.status, answer.code().as_str()), (405, "method_not_allowed"), "{method} {path}");
        assert!(answer.header("allow").is_some_and(|allow| !allow.split(", ").any(|one| one == method)), "{method} {path}");
    }
    shop.close(&[]);
}
