//! A job that fails is paid back, all of it and once, whoever asks and however often; what is not sure has not failed.

use farebox_rig::anvil::{BUYER, OTHER_BUYER};
use farebox_rig::buyer::send_copies;
use farebox_rig::http::{Answer, Request};
use farebox_rig::process::run;
use serde_json::{Value, json};

use crate::shop::{By, KINDS, Kind, Shop, WAYS};

const FAILS: &str = "<<fake video_polls=0 video_fail=1>>";

/// What a buyer is told of a job that failed.
fn assert_failed(kind: Kind, told: &Value) {
    let (status, error) = (&told["status"], &told["error"]);
    assert_eq!((status, &told["credits_refunded"]), (&json!("failed"), &json!(true)), "{told}");
    match kind {
        Kind::Videos => assert_eq!(error, &json!({ "code": "generation_failed", "message": "fake failure" }), "{told}"),
        Kind::Music | Kind::Video => {
            assert_eq!((error, &told["code"]), (&json!("fake video failure"), &json!("CONTENT_POLICY")), "{told}");
        }
    }
}

#[test]
fn a_job_that_failed_is_paid_back_to_its_wallet_however_it_was_paid_and_says_the_same_ever_after() {
    let mut shop = Shop::open();
    let mut told = Vec::new();
    for (kind, by) in KINDS.into_iter().flat_map(|kind| WAYS.map(|by| (kind, by))) {
        let before = shop.balance();
        let id = kind.id(&shop.order_by(by, kind, FAILS));
        let charge = i64::try_from(kind.charge()).unwrap();
        let answer = shop.send_keyed(kind.poll(&id));
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert_failed(kind, &answer.json());
        // What a payment brought stays here, as balance of its payer.
        let expected = if by == By::Payment { before + charge } else { before };
        assert_eq!(shop.balance(), expected, "{kind:?} by {by:?}");
        let asked = shop.upstream.calls().len();
        assert_eq!(shop.send_keyed(kind.poll(&id)).json(), answer.json(), "the same once more");
        assert_eq!(shop.upstream.calls().len(), asked, "its upstream is not asked again");
        told.push((kind, id, answer.json()));
    }
    let balance = shop.balance();
    shop.server.kill();
    shop.server.restart();
    for (kind, id, before) in &told {
        assert_eq!(&shop.send_keyed(kind.poll(id)).json(), before, "and after a restart");
        if *kind == Kind::Videos {
            let content = shop.send_keyed(kind.fetch(id));
            assert_eq!((content.status, content.code().as_str()), (404, "media_not_found"), "{}", content.text());
        }
        if let Some(complete) = kind.complete(id) {
            assert_eq!(shop.send_keyed(complete).json(), json!({ "success": true }));
            assert_eq!(&shop.send_keyed(kind.poll(id)).json(), before, "it stays failed");
        }
    }
    assert_eq!(shop.balance(), balance, "nothing was given back twice");
    assert_eq!(shop.account(BUYER).statement().of("REFUND").len(), 9, "one for each");
    shop.close(0);
}

#[test]
fn sixty_four_polls_at_once_pay_a_failed_job_back_once() {
    let shop = Shop::with("streams_per_account = 100");
    for kind in KINDS {
        let before = shop.balance();
        let id = shop.order(kind, FAILS);
        let answers = send_copies(shop.server.address(), &shop.keyed(kind.poll(&id)), 64);
        let refunded = |answer: &&(u16, String)| answer.0 == 200 && answer.1.contains("\"credits_refunded\":true");
        assert_eq!(answers.iter().filter(refunded).count(), 64, "{answers:?}");
        assert_eq!(shop.balance(), before, "{kind:?}");
    }
    let statement = shop.account(BUYER).statement();
    let mut refunds = statement.of("REFUND");
    let mut charges: Vec<_> = statement.of("CHARGE").iter().map(|charge| -charge).collect();
    refunds.sort_unstable();
    charges.sort_unstable();
    assert_eq!((refunds.len(), refunds), (3, charges), "one for each, of all that it cost");
    shop.close(0);
}

#[test]
fn what_the_operator_gave_back_before_is_not_given_back_again() {
    let shop = Shop::open();
    let ordered = shop.send_keyed(Request::post(Kind::Video.route(), Kind::Video.body(FAILS)));
    let (id, request) = (Kind::Video.id(&ordered), ordered.header("x-request-id").unwrap().to_owned());
    let (code, _, said) = run(shop.server.command(&["refund", &request, "0.2"]), "");
    assert_eq!(code, 0, "{said}");
    assert_failed(Kind::Video, &shop.send_keyed(Kind::Video.poll(&id)).json());
    let refunds = shop.account(BUYER).statement().of("REFUND");
    assert_eq!(refunds, [200_000, 300_000], "together all of it, and no more");
    shop.close(0);
}

#[test]
fn a_stranger_who_asks_cannot_bring_a_refund_about_and_gets_none() {
    let shop = Shop::open();
    let id = shop.order(Kind::Video, FAILS);
    let strange = shop.server.send(&shop.signed(OTHER_BUYER, Kind::Video.poll(&id)));
    assert_eq!(strange.status, 400, "{}", strange.text());
    assert_eq!(shop.account(BUYER).statement().of("REFUND"), [] as [i64; 0], "nobody has heard of the failure");
    assert_failed(Kind::Video, &shop.send_keyed(Kind::Video.poll(&id)).json());
    shop.close(0);
}

/// Sends a poll while the upstream behaves like this.
fn poll_under(shop: &Shop, kind: Kind, id: &str, behaviour: &Value) -> Answer {
    shop.upstream.configure(behaviour);
    let answer = shop.send_keyed(kind.poll(id));
    shop.upstream.configure(&json!({}));
    answer
}

#[test]
fn an_upstream_in_trouble_has_not_said_that_a_job_failed() {
    let shop = Shop::open();
    let jobs = KINDS.map(|kind| (kind, shop.order(kind, "<<fake video_polls=0>>")));
    let balance = shop.balance();
    for status in [400, 401, 403, 429, 500, 502, 503, 529] {
        for (kind, id) in &jobs {
            let answer = poll_under(&shop, *kind, id, &json!({ "status": status }));
            assert!(answer.status >= 500, "{kind:?}, {status}: {} {}", answer.status, answer.text());
            assert_ne!(answer.code(), "internal_error", "{}", answer.text());
        }
    }
    assert_eq!(shop.balance(), balance, "nothing was given back");
    for (kind, id) in &jobs {
        assert_eq!(shop.send_keyed(kind.fetch(id)).header("content-type"), Some(kind.media_type()), "and it is there after all");
    }
    shop.close(KINDS.iter().map(|kind| kind.charge()).sum());
}

#[cfg(feature = "fault-points")]
#[test]
fn a_job_that_its_upstream_has_forgotten_is_lost_and_not_failed_and_after_a_month_we_forget_it_too() {
    let shop = Shop::open();
    let id = shop.order(Kind::Video, "");
    shop.upstream.reset();
    let fresh = shop.send_keyed(Kind::Video.poll(&id));
    assert_eq!(fresh.json()["status"], "PROCESSING", "it may not have been written down there yet: {}", fresh.text());
    shop.server.move_clock(3600);
    let lost = shop.send_keyed(Kind::Video.poll(&id));
    assert_eq!((lost.status, lost.code().as_str()), (404, "media_not_found"), "{}", lost.text());
    assert!(lost.text().contains("ask the operator about req_"), "{}", lost.text());
    shop.server.move_clock(29 * 24 * 3600);
    let second = shop.order(Kind::Video, "<<fake video_polls=0>>");
    assert_eq!(shop.send_keyed(Kind::Video.poll(&id)).code(), "media_not_found", "it is known for a month");
    shop.server.move_clock(31 * 24 * 3600);
    let third = shop.order(Kind::Video, "");
    assert_eq!(shop.send_keyed(Kind::Video.poll(&id)).code(), "request_id_not_found", "and then no more");
    let listed = shop.send_keyed(Request::get("/v1/jobs")).json();
    let shown: Vec<_> = listed["data"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap()).collect();
    assert_eq!(shown, [third, second], "{listed}");
    shop.server.move_clock(0);
    assert_eq!(shop.account(BUYER).statement().of("REFUND"), [] as [i64; 0]);
    shop.close(3 * Kind::Video.charge());
}
