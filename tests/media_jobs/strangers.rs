//! Who is not a job's buyer learns nothing of it, pays nothing for asking, and cannot end it.

use farebox_rig::anvil::{BUYER, OTHER_BUYER};
use farebox_rig::http::{Answer, Request};
use serde_json::json;

use crate::shop::{By, KINDS, Kind, Shop};

/// The refusal of a job that is not there.
fn assert_unknown(kind: Kind, answer: &Answer) {
    let expected = if kind == Kind::Videos { (404, "job_not_found") } else { (400, "request_id_not_found") };
    assert_eq!((answer.status, answer.code().as_str()), expected, "{}", answer.text());
}

#[test]
fn the_job_of_one_wallet_is_unknown_to_every_other_and_to_nobody() {
    let shop = Shop::open();
    for kind in KINDS {
        let bought = [By::Key, By::Payment].map(|by| kind.id(&shop.order_by(by, kind, "<<fake video_polls=0>>")));
        let polls = shop.upstream.calls().len();
        for (id, by_payment) in bought.iter().zip([false, true]) {
            let requests = [Some(kind.poll(id)), Some(kind.fetch(id)), kind.complete(id)];
            for request in requests.into_iter().flatten() {
                let strange = shop.server.send(&shop.signed(OTHER_BUYER, request.clone()));
                assert_unknown(kind, &strange);
                let wrong_key = shop.server.send(&request.clone().header("x-api-key", "sk-x402-nobody"));
                assert_eq!((wrong_key.status, wrong_key.code().as_str()), (401, "invalid_key"), "a wrong key is no nobody");
                if !by_payment {
                    assert_unknown(kind, &shop.server.send(&request));
                }
            }
        }
        assert_eq!(shop.upstream.calls().len(), polls, "the upstream was not asked for strangers");
        // The same words for a job that never was.
        let never = shop.signed(OTHER_BUYER, kind.poll("job_00000000000000000000000000000000"));
        let strange = shop.signed(OTHER_BUYER, kind.poll(&bought[0]));
        let words =
            [never, strange].map(|request| shop.server.send(&request).text().split("request_id\":").next().map(str::to_owned));
        assert_eq!(words[0], words[1], "a stranger cannot tell them apart");
        for request in [Some(kind.poll(&bought[0])), kind.complete(&bought[0])].into_iter().flatten() {
            assert_ne!(shop.send_keyed(request).status, 400, "the buyer is not hindered");
        }
    }
    let listed = shop.account(OTHER_BUYER).get("/v1/jobs");
    assert_eq!((listed.status, &listed.json()["data"]), (200, &json!([])), "{}", listed.text());
    let charges = KINDS.iter().map(|kind| 2 * kind.charge()).sum();
    shop.close(charges);
}

#[test]
fn a_job_is_found_on_the_route_on_which_it_was_bought_and_by_its_own_name_alone() {
    let shop = Shop::open();
    let ids = KINDS.map(|kind| shop.order(kind, "<<fake video_polls=0>>"));
    for (at, other) in [(Kind::Music, 1), (Kind::Video, 0), (Kind::Videos, 1), (Kind::Video, 2)] {
        assert_unknown(at, &shop.send_keyed(at.poll(&ids[other])));
    }
    for id in ["", "job_", "video_fake1", "job_ZZ", "job_0000000000000000000000000000000G", "..", &ids[0].to_uppercase()] {
        assert_unknown(Kind::Music, &shop.send_keyed(Kind::Music.poll(id)));
    }
    let retrieve = |body: &str| shop.send_keyed(Request::post("/v1/video/retrieve", body));
    for (body, code) in [
        ("{}".to_owned(), "invalid_request"),
        ("nonsense".to_owned(), "invalid_json"),
        (json!({ "queue_id": 7 }).to_string(), "invalid_request"),
        (json!({ "queue_id": ids[1], "model": "song" }).to_string(), "invalid_request"),
        (json!({ "queue_id": ids[1], "delete_after_retrieval": "yes" }).to_string(), "invalid_request"),
    ] {
        let answer = retrieve(&body);
        assert_eq!((answer.status, answer.code().as_str()), (400, code), "{body}: {}", answer.text());
    }
    assert_eq!(retrieve(&json!({ "queue_id": ids[1], "model": "film" }).to_string()).status, 200);
    assert_eq!(shop.send_keyed(Request::get("/v1/video/retrieve")).status, 405);
    let charges = KINDS.iter().map(|kind| kind.charge()).sum();
    shop.close(charges);
}

#[test]
fn a_wallet_sees_all_its_jobs_by_key_and_by_sign_in_and_no_others() {
    let shop = Shop::open();
    let ids: Vec<_> = [By::Key, By::SignIn, By::Payment].map(|by| Kind::Video.id(&shop.order_by(by, Kind::Video, ""))).into();
    let newest_first: Vec<_> = ids.iter().rev().cloned().collect();
    for answer in [shop.send_keyed(Request::get("/v1/jobs")), shop.account(BUYER).get("/api/v1/jobs")] {
        let listed = answer.json();
        let shown: Vec<_> = listed["data"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect();
        assert_eq!(shown, newest_first, "{listed}");
        let first = &listed["data"][0];
        assert_eq!((&first["model"], &first["route"], &first["state"]), (&json!("film"), &json!("/video/queue"), &json!("open")));
        assert!(!listed.to_string().contains("upstream"), "{listed}");
    }
    assert_eq!(shop.server.send(&Request::get("/v1/jobs")).status, 401, "nobody has none");
    shop.close(3 * Kind::Video.charge());
}

#[test]
fn who_asks_too_often_waits_and_hinders_no_other_wallet() {
    let shop = Shop::with("job_polls_per_minute = 3");
    let id = shop.order(Kind::Video, "<<fake video_polls=99>>");
    let answers: Vec<_> = (0..6).map(|_| shop.send_keyed(Kind::Video.poll(&id))).collect();
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert!(statuses.starts_with(&[200, 200, 200]) && statuses.contains(&429), "{statuses:?}");
    let refused = answers.iter().find(|answer| answer.status == 429).unwrap();
    assert!(refused.header("retry-after").is_some() && refused.code() == "rate_limited", "{}", refused.text());
    // A stranger's questions are not the buyer's.
    assert_unknown(Kind::Video, &shop.server.send(&shop.signed(OTHER_BUYER, Kind::Video.poll(&id))));
    assert_eq!(shop.account(OTHER_BUYER).get("/v1/jobs").status, 200);
    shop.close(Kind::Video.charge());
}
