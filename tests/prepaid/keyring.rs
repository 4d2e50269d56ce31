//! Keys of an owner: shown once, known by their last four characters from then on, and true to the last change whatever dies.

#[cfg(feature = "fault-points")]
mod deaths;

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use farebox_rig::http::{self, Request};
use farebox_rig::process::{eventually, wait_out_midnight};
use farebox_rig::provider::{After, Provider, wait_gone};
use serde_json::{Value, json};

use crate::owner::{DOLLAR, MODEL, OTHER_MODEL, Owner, Proof, Shop, call};

#[test]
fn a_key_is_shown_once_and_speaks_for_its_wallet() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let wish = json!({
        "name": "  Zoë's \"agent\" <img src=x onerror=alert(1)>  ", "spend_limit_usd": "5.00", "reset": "week",
        "models": [MODEL, MODEL], "expires_at": "2999-01-01T00:00:00+01:00",
    });
    let answer = shop.ask("POST", "/api/keys", &shop.sign_in(&owner), Some(&wish));
    assert_eq!(answer.status, 200, "{}", answer.text());
    assert_eq!(answer.header("cache-control"), Some("no-store, private"));
    let (id, key) = shop.minted(&answer);
    assert!(key.starts_with("sk-x402-") && key.len() == 51, "a prefix that scanners know, and 32 bytes: {}", key.len());
    let minted = answer.json();
    for (field, value) in [
        ("account", json!(owner.account())),
        ("name", json!("Zoë's \"agent\" <img src=x onerror=alert(1)>")),
        ("last4", json!(&key[key.len() - 4..])),
        ("state", json!("active")),
        ("spend_limit_usd", json!(5)),
        ("left_usd", json!(5)),
        ("spent_usd", json!(0)),
        ("reset", json!("week")),
        ("models", json!([MODEL])),
        ("expires_at", json!("2998-12-31T23:00:00.000Z")),
        ("revoked_at", Value::Null),
        ("previous", Value::Null),
    ] {
        assert_eq!(minted[field], value, "{field}");
    }
    // From then on nobody is shown it, in no list and by no change.
    let own = |headers: &[(&str, &str)], path: &str| {
        let request = headers.iter().fold(Request::get(path), |request, (name, value)| request.header(name, value));
        shop.server.send(&request)
    };
    let bearer = format!("Bearer {key}");
    let listed = shop.ask("GET", "/api/keys", &shop.sign_in(&owner), None);
    let changed = shop.ask("PATCH", &format!("/api/keys/{id}"), &shop.sign_in(&owner), Some(&json!({ "name": "b" })));
    let told = own(&[("authorization", &bearer)], "/v1/key");
    for answer in [&listed, &changed, &told] {
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(!answer.text().contains(&key[8..]) && !answer.text().contains("\"key\":"), "{}", answer.text());
    }
    assert_eq!(listed.json()["keys"][0]["id"], id.as_str());
    // The key sees itself, under both prefixes and by both headers, and what it can spend.
    assert_eq!((&told.json()["id"], &told.json()["name"], &told.json()["available_usd"]), (&json!(id), &json!("b"), &json!(1)));
    assert_eq!(told.header("x-balance-remaining"), Some("1.000000"));
    for headers in [&[("x-api-key", key.as_str())][..], &[("x-api-key", &key), ("authorization", &bearer)]] {
        assert_eq!(own(headers, "/api/v1/key").json(), told.json());
    }
    for (headers, code) in [
        (vec![], "invalid_key"),
        (vec![("x-api-key", "sk-x402-short")], "invalid_key"),
        (vec![("authorization", "Basic eDp4")], "invalid_key"),
    ] {
        let refused = own(&headers, "/v1/key");
        assert_eq!((refused.status, refused.code().as_str()), (401, code), "{headers:?}");
    }
    shop.close(&[(&owner, DOLLAR)]);
}

/// Fields of a wish and values that make no sense in them.
fn mistakes(now: u64, account: &str) -> Vec<(&'static str, Vec<Value>)> {
    let long = "n".repeat(65);
    vec![
        (
            "name",
            vec![
                json!(""),
                json!("  "),
                json!(long),
                json!("n".repeat(10_000)),
                json!("a\nb"),
                json!("a\u{0}"),
                json!(7),
                json!(null),
            ],
        ),
        (
            "spend_limit_usd",
            [json!("abc"), json!("1e6"), json!("NaN"), json!("0x10"), json!(""), json!("-1"), json!(-1), json!("1,5"), json!([])]
                .into_iter()
                .chain([json!("0.0000001"), json!(true), json!("1000000000.000001"), json!(" 1"), json!({})])
                .collect(),
        ),
        ("reset", vec![json!("year"), json!("Day"), json!(1), json!("")]),
        ("models", vec![json!(["nope"]), json!([MODEL, "nope"]), json!(MODEL), json!([1]), json!({}), json!([null])]),
        ("expires_at", vec![json!("2001-01-01T00:00:00Z"), json!(1), json!(now), json!(now * 1000), json!("tomorrow")]),
        ("expires_at", vec![json!(-1), json!(1.5), json!(true), json!("2999-02-30T00:00:00Z"), json!("")]),
        ("limit", vec![json!("5.00")]),
        ("account", vec![json!(account)]),
    ]
}

#[test]
fn what_is_asked_of_a_key_is_read_strictly_and_a_mistake_costs_nothing() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let proof = shop.sign_in(&owner);
    let send = |body: &str| {
        let request = shop.request("POST", "/api/keys", &proof, None);
        shop.server.send(&request.with_text(body))
    };
    for body in
        ["", " ", "null", "[]", "7", "\"name\"", "{", "{\"name\":\"x\",}", "[\"x\",null,null,null,null]", "\u{feff}{}", "name=x"]
    {
        let answer = send(body);
        let codes = ["invalid_json", "invalid_request"];
        assert!(answer.status == 400 && codes.contains(&answer.code().as_str()), "{body}: {} {}", answer.status, answer.text());
    }
    let bad = mistakes(shop.now().secs(), &owner.account());
    for (field, values) in &bad {
        for value in values {
            let mut wish = json!({ "name": "k" });
            wish[*field] = value.clone();
            let answer = send(&wish.to_string());
            assert_eq!(
                (answer.status, answer.code().as_str()),
                (400, "invalid_request"),
                "{field}: {value:.60} {}",
                answer.text()
            );
            let error = answer.json()["error"].take();
            assert!(
                error["message"].as_str().is_some_and(|say| say.contains(field) && say.len() < 500),
                "it says which: {error}"
            );
        }
    }
    for raw in [r#"{"name":"k","spend_limit_usd":1e6}"#, r#"{"name":"k","name":"l"}"#, r#"{"name":"k","expires_at":1e10}"#] {
        assert_eq!(send(raw).code(), "invalid_request", "{raw}");
    }
    let huge = format!("{{\"name\":\"k\",\"models\":[\"{}\"]}}", "m".repeat(70_000));
    assert_eq!(send(&huge).code(), "request_too_large");
    // None of these was used up by it, nor is there any key.
    assert_eq!(shop.listed(&owner), []);
    for (limit, micros) in [("0.1", 0.1), ("\"0.10\"", 0.1), ("0", 0.0), ("123456789.123456", 123_456_789.123_456)] {
        let request = shop.request("POST", "/api/keys", &shop.sign_in(&owner), None);
        let answer = shop.server.send(&request.with_text(&format!("{{\"name\":\"k\",\"spend_limit_usd\":{limit}}}")));
        assert_eq!(answer.status, 200, "{limit}: {}", answer.text());
        assert_eq!(answer.json()["spend_limit_usd"].as_f64(), Some(micros), "{limit}");
        shop.minted(&answer);
    }
    let late = json!({ "name": "k", "expires_at": shop.now().secs() + 60 });
    let answer = shop.ask("POST", "/api/keys", &proof, Some(&late));
    assert_eq!(answer.status, 200, "the sign-in of all those mistakes is still good: {}", answer.text());
    shop.minted(&answer);
    shop.close(&[(&owner, DOLLAR)]);
}

#[test]
fn a_change_counts_from_the_next_call_on() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, 1_000_000);
    let (id, key) = shop.mint(&owner, &json!({ "name": "k" }));
    let session = shop.session(&owner);
    let change = |change: Value| {
        let answer = shop.ask("PATCH", &format!("/api/keys/{id}"), &session, Some(&change));
        assert_eq!(answer.status, 200, "{change}: {}", answer.text());
        answer.json()
    };
    let refused = |model: &str| {
        let answer = shop.call(&key, model);
        if answer.status == 200 { String::new() } else { answer.code() }
    };
    assert_eq!(refused(MODEL), "");
    change(json!({ "models": [OTHER_MODEL] }));
    assert_eq!([refused(MODEL), refused(OTHER_MODEL)], ["model_not_allowed", ""]);
    change(json!({ "models": null, "spend_limit_usd": "0.000001", "reset": "day" }));
    assert_eq!(refused(MODEL), "spend_limit_exceeded");
    let changed = change(json!({ "spend_limit_usd": null, "name": "renamed" }));
    assert_eq!(
        (&changed["spend_limit_usd"], &changed["reset"], &changed["name"]),
        (&Value::Null, &json!("day"), &json!("renamed"))
    );
    assert_eq!(refused(MODEL), "");
    let ends = shop.now().secs() + 3600;
    assert_ne!(change(json!({ "expires_at": ends }))["expires_at"], Value::Null);
    let kept = change(json!({}));
    assert_eq!((&kept["name"], &kept["reset"]), (&json!("renamed"), &json!("day")), "what is not named stays");
    assert_eq!(change(json!({ "expires_at": null, "reset": null }))["reset"], "none");
    for (body, code) in [(json!({ "name": "" }), 400), (json!({ "models": ["nope"] }), 400), (json!({ "key": "x" }), 400)] {
        assert_eq!(shop.ask("PATCH", &format!("/api/keys/{id}"), &session, Some(&body)).status, code, "{body}");
    }
    assert_eq!(shop.ask("PATCH", "/api/keys/key_1", &session, Some(&json!({}))).code(), "not_found");
    // A limit that never starts again counts all that the key has spent, whatever its limits were meanwhile.
    shop.wait_settled(&owner);
    assert_eq!(shop.get("/api/keys", &session)["keys"][0]["spent_usd"], json!(0.000_495));
    let used = shop.get("/api/usage", &session);
    assert_eq!(used["total"]["charge_usd"], json!(0.000_495), "{used:#}");
    shop.close(&[(&owner, 1_000_000 - 3 * 165)]);
}

#[test]
fn a_rotated_key_has_a_new_secret_and_the_old_one_for_as_long_as_was_chosen() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let (id, first) = shop.mint(&owner, &json!({ "name": "k", "spend_limit_usd": 1 }));
    let rotate = |body: Option<&Value>| shop.ask("POST", &format!("/api/keys/{id}/rotate"), &shop.sign_in(&owner), body);
    let answer = rotate(Some(&json!({ "grace_seconds": 3600 })));
    let (same, second) = shop.minted(&answer);
    assert_eq!((&same, answer.json()["previous"]["last4"].as_str()), (&id, Some(&first[first.len() - 4..])));
    assert_eq!([shop.knocks(&first).0, shop.knocks(&second).0], [200, 200], "both, for an hour");
    for grace in [
        json!({ "grace_seconds": 604_801 }),
        json!({ "grace_seconds": -1 }),
        json!({ "grace": 5 }),
        json!({ "grace_seconds": "5" }),
    ] {
        assert_eq!(rotate(Some(&grace)).code(), "invalid_request", "{grace}");
    }
    // Asked for once more, as by a script that lost the answer: the secret that is in use must not end by it.
    let pending = rotate(Some(&json!({ "grace_seconds": 3600 })));
    assert_eq!((pending.status, pending.code().as_str()), (409, "rotation_pending"), "{}", pending.text());
    let until = answer.json()["previous"]["valid_until"].take();
    assert_eq!(pending.json()["error"]["valid_until"], until);
    assert_eq!([shop.knocks(&first).0, shop.knocks(&second).0], [200, 200], "and nothing has ended");
    // Without a grace both end.
    let (_, third) = shop.minted(&rotate(None));
    assert_eq!([shop.knocks(&first), shop.knocks(&second)], [(401, "invalid_key".into()), (401, "invalid_key".into())]);
    assert_eq!(shop.knocks(&third).0, 200);
    assert_eq!(shop.listed(&owner), [(id.clone(), "active".into(), third[third.len() - 4..].into())], "it is one key, as before");
    assert_eq!(shop.get("/api/keys", &shop.sign_in(&owner))["keys"][0]["spend_limit_usd"], 1);
    assert_eq!(shop.ask("POST", &format!("/api/keys/{id}/revoke"), &shop.sign_in(&owner), None).status, 200);
    assert_eq!(rotate(None).code(), "invalid_request", "what is revoked stays so");
    assert_eq!(shop.knocks(&third), (401, "key_revoked".into()));
    shop.close(&[(&owner, DOLLAR)]);
}

#[cfg(feature = "fault-points")]
#[test]
fn time_ends_a_key_and_the_old_secret_of_a_rotated_one() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let (_, mortal) = shop.mint(&owner, &json!({ "name": "mortal", "expires_at": shop.now().secs() + 3600 }));
    let (id, old) = shop.mint(&owner, &json!({ "name": "rotated" }));
    let rotated =
        shop.ask("POST", &format!("/api/keys/{id}/rotate"), &shop.sign_in(&owner), Some(&json!({ "grace_seconds": 7200 })));
    let (_, new) = shop.minted(&rotated);
    let states = |expected: [u16; 3]| assert_eq!([&mortal, &old, &new].map(|key| shop.knocks(key).0), expected);
    states([200, 200, 200]);
    shop.move_clock(3700);
    states([401, 200, 200]);
    assert_eq!(shop.listed(&owner).iter().filter(|(_, state, _)| state == "expired").count(), 1);
    shop.move_clock(7300);
    states([401, 401, 200]);
    assert_eq!(shop.knocks(&old).1, "invalid_key");
    let keys = shop.get("/api/keys", &shop.sign_in(&owner));
    assert_eq!(keys["keys"][0]["previous"], Value::Null, "what is over is not shown");
    shop.close(&[(&owner, DOLLAR)]);
}

#[test]
fn revoking_a_key_ends_the_calls_that_run_with_it_and_gives_back_what_they_held() {
    const CALLS: usize = 64;
    let (shop, owner) = (Shop::with("", "streams_per_account = 100"), Owner::new(1));
    shop.top_up(&owner, 5_000_000);
    let (id, key) = shop.mint(&owner, &json!({ "name": "leaked" }));
    let (_, other) = shop.mint(&owner, &json!({ "name": "other" }));
    let hanging = call(&key, MODEL, "<<fake words=5 in=20 hang=3 flush=1>>", true);
    let mut streams: Vec<_> = thread::scope(|scope| {
        let open = |_| scope.spawn(|| http::open(shop.server.address(), &hanging).unwrap());
        let opening: Vec<_> = (0..CALLS).map(open).collect();
        opening.into_iter().map(|stream| stream.join().unwrap()).collect()
    });
    for stream in &mut streams {
        assert_eq!(stream.status, 200);
        stream.next_chunk().expect("every call is under way");
    }
    let session = shop.session(&owner);
    assert_eq!(shop.get("/api/account", &session)["open_calls"], CALLS);
    let revoked = shop.ask("POST", &format!("/api/keys/{id}/revoke"), &session, None);
    assert_eq!((revoked.status, &revoked.json()["state"]), (200, &json!("revoked")));
    let since = Instant::now();
    // From the answer on nothing is sold for it.
    for _ in 0..3 {
        assert_eq!(shop.call(&key, MODEL).code(), "key_revoked");
    }
    for mut stream in streams {
        let mut rest = Vec::new();
        while let Some(chunk) = stream.next_chunk() {
            rest.extend(chunk);
        }
        let rest = String::from_utf8(rest).unwrap();
        assert!(rest.contains("key_revoked") && !rest.contains("[DONE]"), "it says why: {rest}");
        assert!(!stream.complete, "and does not look complete");
    }
    let took = since.elapsed();
    assert!(took < Duration::from_secs(30), "all of them ended at once, not by any timer: {took:?}");
    eventually("the upstream is let go", || shop.upstream.calls().iter().all(|call| call["outcome"] != "open"));
    assert_eq!(shop.upstream.calls().len(), CALLS, "none was sold after the end");
    let account = shop.wait_settled(&owner);
    assert_eq!(shop.call(&other, MODEL).status, 200, "the wallet's other key is as good as before");
    let balance = (account["balance_usd"].as_f64().unwrap() * 1e6).round() as u64;
    let most = 64 * (100 * 15 + 200 * 3);
    assert!((5_000_000 - most..5_000_000).contains(&balance), "what passed was charged, no more: {balance}");
    // Asked for again, it is still so, and nothing can be changed of it.
    let again = shop.ask("POST", &format!("/api/keys/{id}/revoke"), &session, None).json();
    assert_eq!(again["revoked_at"], revoked.json()["revoked_at"]);
    let change = shop.ask("PATCH", &format!("/api/keys/{id}"), &session, Some(&json!({ "name": "alive" })));
    assert_eq!(change.code(), "invalid_request");
    shop.wait_settled(&owner);
    shop.close(&[(&owner, balance - 165)]);
}

#[test]
fn who_revokes_its_key_when_a_plain_answer_has_passed_has_not_had_it_for_nothing() {
    // Too long to be read to its end before any of it is sold: all but the last byte, and then nothing until the gateway leaves.
    let provider = Provider::start(|_, stream| {
        let message = json!({ "role": "assistant", "content": "all that was asked for ".repeat(60_000) });
        let usage = json!({ "prompt_tokens": 20, "completion_tokens": 7, "total_tokens": 27 });
        let choices = json!([{ "index": 0, "message": message, "finish_reason": "stop" }]);
        let body =
            json!({ "id": "x", "object": "chat.completion", "model": "m", "choices": choices, "usage": usage }).to_string();
        let head = format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n", body.len() + 1);
        stream.write_all(format!("{head}{body}").as_bytes()).expect("the gateway is there");
        wait_gone(stream);
        After::Close
    });
    let (mut shop, owner) = (Shop::open(), Owner::new(1));
    shop.server.reconfigure(|text| text.replace(&shop.upstream.url(), &provider.url()));
    shop.server.restart();
    shop.top_up(&owner, 1_000_000);
    let (id, key) = shop.mint(&owner, &json!({ "name": "k" }));
    let mut answer = http::open(shop.server.address(), &call(&key, MODEL, "", false)).unwrap();
    let mut read = Vec::new();
    while !String::from_utf8_lossy(&read).contains("total_tokens") {
        read.extend(answer.next_chunk().expect("all but the last byte comes"));
    }
    assert_eq!(shop.ask("POST", &format!("/api/keys/{id}/revoke"), &shop.sign_in(&owner), None).status, 200);
    while answer.next_chunk().is_some() {}
    assert!(!answer.complete, "it broke off");
    shop.wait_settled(&owner);
    shop.close(&[(&owner, 1_000_000 - 165)]);
}

#[test]
fn a_call_that_begins_after_a_revocation_was_answered_is_refused_and_every_other_is_charged_or_not_served() {
    let (shop, owner) = (Shop::with("", "streams_per_account = 100"), Owner::new(1));
    shop.top_up(&owner, 1_000_000);
    let (id, key) = shop.mint(&owner, &json!({ "name": "leaked" }));
    let session = shop.session(&owner);
    let revoked = AtomicBool::new(false);
    let calls: Vec<(bool, String)> = thread::scope(|scope| {
        let work = || {
            let mut seen: Vec<(bool, String)> = Vec::new();
            // Some calls more than it takes to be refused.
            while seen.iter().filter(|(late, ..)| *late).count() < 3 {
                let late = revoked.load(Ordering::SeqCst);
                let answer = shop.call(&key, MODEL);
                let code = match answer.status {
                    200 if answer.complete => "served".to_owned(),
                    200 => "cut off".to_owned(),
                    _ => answer.code(),
                };
                seen.push((late, code));
            }
            seen
        };
        let working: Vec<_> = (0..16).map(|_| scope.spawn(work)).collect();
        eventually("calls are served", || shop.upstream.calls().len() > 20);
        assert_eq!(shop.ask("POST", &format!("/api/keys/{id}/revoke"), &session, None).status, 200);
        revoked.store(true, Ordering::SeqCst);
        working.into_iter().flat_map(|seen| seen.join().unwrap()).collect()
    });
    for (late, became) in &calls {
        let fits = became == "key_revoked" || !late && ["served", "cut off"].contains(&became.as_str());
        assert!(fits, "after the answer: {late}, {became}");
    }
    let served = calls.iter().filter(|(_, became)| became == "served").count();
    let account = shop.wait_settled(&owner);
    let charged = 1_000_000 - (account["balance_usd"].as_f64().unwrap() * 1e6).round() as u64;
    let cut = charged - 165 * u64::try_from(served).unwrap();
    assert!(cut <= 16 * 165, "calls that were cut off paid at most their price: {cut}");
    shop.close(&[(&owner, 1_000_000 - charged)]);
}

#[test]
fn an_account_has_no_more_keys_than_it_may_however_they_are_asked_for() {
    const MOST: usize = 5;
    let (shop, owner, other) = (Shop::with(&format!("keys_per_account = {MOST}"), ""), Owner::new(1), Owner::new(2));
    shop.top_up(&owner, DOLLAR);
    shop.top_up(&other, DOLLAR);
    let session = shop.session(&owner);
    let mint = |proof: &Proof| shop.ask("POST", "/api/keys", proof, Some(&json!({ "name": "k" })));
    let answers: Vec<_> = thread::scope(|scope| {
        let asking: Vec<_> = (0..8).map(|_| scope.spawn(|| (0..25).map(|_| mint(&session)).collect::<Vec<_>>())).collect();
        asking.into_iter().flat_map(|asked| asked.join().unwrap()).collect()
    });
    let (made, refused): (Vec<_>, Vec<_>) = answers.iter().partition(|answer| answer.status == 200);
    assert_eq!((made.len(), refused.len()), (MOST, 200 - MOST));
    assert!(refused.iter().all(|answer| (answer.status, answer.code().as_str()) == (409, "key_limit")));
    let keys: Vec<_> = made.iter().map(|answer| shop.minted(answer)).collect();
    assert!(keys.iter().all(|(_, key)| shop.knocks(key).0 == 200), "those that were shown are good");
    assert_eq!(shop.listed(&owner).len(), MOST);
    shop.mint(&other, &json!({ "name": "another wallet is not concerned" }));
    let id = &keys[0].0;
    assert_eq!(shop.ask("POST", &format!("/api/keys/{id}/revoke"), &session, None).status, 200);
    shop.minted(&mint(&session));
    assert_eq!(mint(&session).code(), "key_limit");
    // Nor does minting and revoking go on for ever: the disk would fill.
    let rounds = (0..).take_while(|_| {
        let live = shop.listed(&owner).into_iter().find(|(_, state, _)| state == "active").unwrap().0;
        assert_eq!(shop.ask("POST", &format!("/api/keys/{live}/revoke"), &session, None).status, 200);
        let answer = mint(&session);
        if answer.status == 200 {
            shop.minted(&answer);
        }
        answer.status == 200
    });
    assert_eq!(rounds.count(), 20 * MOST - 2);
    assert_eq!(shop.listed(&owner).len(), MOST - 1 + 100, "of the revoked ones the newest hundred are shown");
    shop.close(&[(&owner, DOLLAR), (&other, DOLLAR)]);
}

#[test]
fn keys_are_not_changed_faster_than_the_operator_allows() {
    let (shop, owner) = (Shop::with("", "key_changes_per_ip_per_minute = 4"), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let session = shop.session(&owner);
    let (_, live) = shop.mint(&owner, &json!({ "name": "one" }));
    let mint = || shop.ask("POST", "/api/keys", &session, Some(&json!({ "name": "k" })));
    (0..2).for_each(|_| drop(shop.minted(&mint())));
    let slowed = mint();
    assert_eq!((slowed.status, slowed.code().as_str()), (429, "rate_limited"));
    assert_eq!((slowed.header("retry-after"), slowed.header("x-should-retry")), (Some("15"), Some("true")));
    let session_too = shop.ask("POST", "/api/session", &shop.sign_in(&owner), None);
    assert_eq!((session_too.status, session_too.code().as_str()), (429, "rate_limited"), "sessions count as well");
    let listed = shop.listed(&owner);
    assert_eq!(listed.len(), 3, "reading goes on, and nothing was made");
    for (id, _, _) in &listed {
        assert_eq!(shop.ask("POST", &format!("/api/keys/{id}/revoke"), &session, None).status, 200, "an end is always possible");
    }
    assert_eq!(shop.knocks(&live), (401, "key_revoked".into()));
    shop.close(&[(&owner, DOLLAR)]);
}

#[test]
fn a_wallet_that_never_had_money_here_mints_no_key() {
    let (shop, owner, granted) = (Shop::open(), Owner::new(1), Owner::new(2));
    let session = shop.session(&owner);
    for proof in [&session, &shop.sign_in(&owner)] {
        let answer = shop.ask("POST", "/api/keys", proof, Some(&json!({ "name": "k" })));
        assert_eq!((answer.status, answer.code().as_str()), (403, "top_up_first"), "{}", answer.text());
        assert!(answer.json()["error"]["message"].as_str().is_some_and(|say| say.starts_with("top up first")));
    }
    assert_eq!(shop.listed(&owner), []);
    assert_eq!(shop.operator(&["allowance", "set", &granted.address(), "1"]).0, 0);
    shop.mint(&granted, &json!({ "name": "an allowance is money, too" }));
    shop.top_up(&owner, DOLLAR);
    let (_, key) = shop.mint(&owner, &json!({ "name": "k" }));
    assert_eq!(shop.knocks(&key).0, 200);
    let books = shop.close(&[(&owner, DOLLAR), (&granted, 0)]);
    assert_eq!(books.json["key_events"], 2, "{:#}", books.json);
}

#[test]
fn changes_that_change_nothing_are_not_kept_and_others_are_a_hundred_a_day() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let session = shop.session(&owner);
    let (id, key) = shop.mint(&owner, &json!({ "name": "k", "spend_limit_usd": "5", "models": [MODEL] }));
    let (other, _) = shop.mint(&owner, &json!({ "name": "other" }));
    let path = format!("/api/keys/{id}");
    let change = |change: Value| shop.ask("PATCH", &path, &session, Some(&change));
    wait_out_midnight();
    for _ in 0..150 {
        let same = change(json!({ "name": " k ", "spend_limit_usd": 5.0, "reset": "none", "models": [MODEL, MODEL] }));
        assert_eq!((same.status, &same.json()["name"]), (200, &json!("k")), "{}", same.text());
    }
    for number in 0..99 {
        assert_eq!(change(json!({ "name": format!("k{number}") })).status, 200);
    }
    let rotate = || shop.ask("POST", &format!("{path}/rotate"), &session, None);
    let (_, key_now) = shop.minted(&rotate());
    for refused in [change(json!({ "name": "one more" })), rotate()] {
        assert_eq!((refused.status, refused.code().as_str()), (429, "rate_limited"), "{}", refused.text());
        let seconds: u64 = refused.header("retry-after").unwrap().parse().unwrap();
        assert!((1..=24 * 3600).contains(&seconds), "until midnight: {seconds}");
    }
    assert_eq!(change(json!({ "name": "k98" })).status, 200, "which it is already");
    assert_eq!(shop.ask("PATCH", &format!("/api/keys/{other}"), &session, Some(&json!({ "name": "o" }))).status, 200);
    assert_eq!((shop.knocks(&key).0, shop.knocks(&key_now).0), (401, 200));
    for _ in 0..20 {
        assert_eq!(shop.ask("POST", &format!("{path}/revoke"), &session, None).status, 200, "at any time");
    }
    let books = shop.close(&[(&owner, DOLLAR)]);
    assert_eq!(books.json["key_events"], 2 + 99 + 1 + 1 + 1, "what every start reads: {:#}", books.json);
}

#[test]
fn a_flood_of_changes_does_not_stand_before_the_end_of_a_key() {
    const FLOOD: usize = 200;
    let (shop, owner, flooder) = (Shop::with("keys_per_account = 1000", ""), Owner::new(1), Owner::new(2));
    [&owner, &flooder].iter().for_each(|owner| shop.top_up(owner, DOLLAR));
    let (id, key) = shop.mint(&owner, &json!({ "name": "stolen" }));
    let (session, flooding) = (shop.session(&owner), shop.session(&flooder));
    let before = thread::scope(|scope| {
        let mint = || shop.ask("POST", "/api/keys", &flooding, Some(&json!({ "name": "k" })));
        let flood: Vec<_> = (0..FLOOD).map(|_| scope.spawn(mint)).collect();
        eventually("the flood has begun", || shop.listed(&flooder).len() >= 5);
        assert_eq!(shop.ask("POST", &format!("/api/keys/{id}/revoke"), &session, None).status, 200);
        let before = shop.listed(&flooder).len();
        flood.into_iter().for_each(|asked| drop(shop.minted(&asked.join().unwrap())));
        before
    });
    assert_eq!(shop.knocks(&key), (401, "key_revoked".into()));
    assert!(before < FLOOD, "all {FLOOD} stood before it");
    shop.close(&[(&owner, DOLLAR), (&flooder, DOLLAR)]);
}

#[test]
fn what_a_key_bought_is_found_by_its_owner_and_by_nobody_else() {
    let (shop, owner, stranger) = (Shop::open(), Owner::new(1), Owner::new(2));
    shop.top_up(&owner, 1_000_000);
    let (id, key) = shop.mint(&owner, &json!({ "name": "k" }));
    let calls = [MODEL, MODEL, OTHER_MODEL].map(|model| shop.call(&key, model).header("x-request-id").unwrap().to_owned());
    shop.wait_settled(&owner);
    let session = shop.session(&owner);
    let path = format!("/api/receipts/{}", calls[2]);
    eventually("the receipt is on disk", || shop.ask("GET", &path, &session, None).status == 200);
    let receipt = shop.get(&path, &session);
    for (field, value) in [
        ("request_id", json!(calls[2])),
        ("account", json!(owner.account())),
        ("key", json!(id)),
        ("model", json!(OTHER_MODEL)),
        ("charge_usd", json!(0.000_165)),
        ("allowance_usd", json!(0)),
        ("input_tokens", json!(20)),
        ("output_tokens", json!(7)),
        ("complete", json!(true)),
        ("payment_id", Value::Null),
    ] {
        assert_eq!(receipt[field], value, "{field}: {receipt:#}");
    }
    let usage = shop.get("/api/usage?days=2", &session);
    assert_eq!(
        usage["total"],
        json!({ "calls": 3, "charge_usd": 0.000_495, "allowance_usd": 0, "input_tokens": 60, "output_tokens": 21 })
    );
    let rows = usage["rows"].as_array().unwrap();
    let row = |model: &str| rows.iter().find(|row| row["model"] == model && row["key"] == id.as_str()).unwrap();
    assert_eq!((rows.len(), &row(MODEL)["calls"], &row(OTHER_MODEL)["calls"]), (2, &json!(2), &json!(1)), "{usage:#}");
    let page = shop.get("/api/transactions?limit=2&offset=1", &session);
    let lines = page["transactions"].as_array().unwrap();
    assert_eq!((lines.len(), &page["pagination"]["has_more"]), (2, &json!(true)));
    assert_eq!(
        (&lines[0]["type"], &lines[0]["amount_usd"], &lines[0]["key"]),
        (&json!("CHARGE"), &json!(-0.000_165), &Value::Null)
    );
    let all = shop.get("/api/transactions", &session);
    assert_eq!(all["transactions"][3]["type"], "TOP_UP");
    let listed = shop.get("/api/keys", &session);
    assert_eq!((&listed["keys"][0]["spent_usd"], &listed["keys"][0]["held_usd"]), (&json!(0.000_495), &json!(0)));
    for query in [
        "usage?days=0",
        "usage?days=367",
        "usage?days=x",
        "usage?days=1&days=2",
        "transactions?limit=101",
        "transactions?offset=-1",
    ] {
        let answer = shop.ask("GET", &format!("/api/{query}"), &session, None);
        assert_eq!((answer.status, answer.code().as_str()), (400, "invalid_request"), "{query}");
    }
    let other = shop.session(&stranger);
    for path in [path.as_str(), "/api/receipts/req_1", "/api/receipts/x"] {
        assert_eq!(shop.ask("GET", path, &other, None).code(), "not_found", "{path}");
    }
    assert_eq!(shop.get("/api/usage", &other)["rows"], json!([]));
    assert_eq!(shop.get("/api/transactions", &other)["transactions"], json!([]));
    shop.close(&[(&owner, 1_000_000 - 3 * 165), (&stranger, 0)]);
}
