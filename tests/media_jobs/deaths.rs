//! Death at each step of an order and of a failure: what was charged can be fetched, what cannot be fetched was not charged, and
//! a failed job is paid back once.

use farebox_rig::anvil::BUYER;
use farebox_rig::http::{self, Request};
use serde_json::{Value, json};

use crate::shop::{By, Kind, Shop};

/// So many times every point is tried.
const TIMES: usize = 5;

/// Every point that an order comes by, in their order, and whether it is charged by then. The first commit is the hold's.
const ORDERING: [(&str, bool); 6] = [
    ("job.accepted", false),
    ("job.before", false),
    ("commit.before:2", false),
    ("commit.after:2", true),
    ("job.after", true),
    ("reply.before", true),
];

/// Every point that the end of a failed job comes by, and whether it is written down by then.
const FAILING: [(&str, bool); 4] =
    [("job.fail.before", false), ("commit.before", false), ("commit.after", true), ("job.fail.after", true)];

/// The ids of the buyer's jobs, the newest first.
fn listed(shop: &Shop) -> Vec<String> {
    let listed = shop.account(BUYER).get("/v1/jobs").json();
    listed["data"].as_array().unwrap().iter().map(|job| job["id"].as_str().unwrap().to_owned()).collect()
}

/// Sends a request to a server that dies of it.
fn die_of(shop: &mut Shop, request: &Request, point: &str) {
    let answer = http::send(shop.server.address(), request);
    assert!(!answer.is_ok_and(|answer| answer.complete && answer.status == 200), "nobody is answered at {point}");
    shop.server.wait_death(point);
    shop.server.restart();
}

#[test]
fn a_death_while_a_job_is_ordered_leaves_it_charged_and_there_or_neither() {
    let mut shop = Shop::open();
    let mut charges = 0;
    for (point, charged) in ORDERING.iter().copied().cycle().take(ORDERING.len() * TIMES) {
        let before = (shop.balance(), listed(&shop).len());
        // Where no block comes for two minutes, nothing is sold.
        shop.chain.mine(1);
        shop.server.restart_armed(point);
        let order = shop.keyed(Request::post(Kind::Video.route(), Kind::Video.body("<<fake video_polls=0>>")));
        die_of(&mut shop, &order, point);
        let cost = if charged { Kind::Video.charge() } else { 0 };
        charges += cost;
        let (balance, jobs) = (before.0 - i64::try_from(cost).unwrap(), before.1 + usize::from(charged));
        let now = listed(&shop);
        assert_eq!((shop.balance(), now.len()), (balance, jobs), "{point}: charged and there, or neither");
        if charged {
            let media = shop.send_keyed(Kind::Video.fetch(&now[0]));
            assert_eq!(media.header("content-type"), Some("video/mp4"), "{point}: {}", media.text());
        }
        if shop.balance() < i64::try_from(Kind::Video.charge()).unwrap() {
            assert_eq!(shop.account(BUYER).top_up(5_000_000).status, 200);
        }
    }
    shop.close(charges);
}

#[test]
fn a_death_while_a_job_is_ordered_by_payment_leaves_the_money_its_wallets_or_the_job_there() {
    let mut shop = Shop::open();
    let mut charges = 0;
    let points: Vec<_> = ORDERING.iter().filter(|(point, _)| !point.starts_with("commit")).collect();
    for (point, charged) in points.iter().cycle().take(points.len() * TIMES) {
        let before = (shop.balance(), listed(&shop).len());
        shop.server.restart_armed(point);
        farebox_rig::process::eventually("payments are taken", || {
            shop.server.send(&Request::post(Kind::Video.route(), Kind::Video.body(""))).status == 402
        });
        let order = shop.paid(BUYER, Request::post(Kind::Video.route(), Kind::Video.body("<<fake video_polls=0>>")));
        die_of(&mut shop, &order, point);
        let brought = if *charged { 0 } else { Kind::Video.charge() };
        charges += if *charged { Kind::Video.charge() } else { 0 };
        let now = listed(&shop);
        let expected = (before.0 + i64::try_from(brought).unwrap(), before.1 + usize::from(*charged));
        assert_eq!((shop.balance(), now.len()), expected, "{point}: the job is there, or the money is its wallet's");
        if *charged {
            let media = shop.server.send(&Kind::Video.fetch(&now[0]));
            assert_eq!(media.header("content-type"), Some("video/mp4"), "{point}: {}", media.text());
        }
    }
    shop.close(charges);
}

#[test]
fn a_death_while_a_failed_job_is_paid_back_pays_it_back_once() {
    let mut shop = Shop::open();
    let rounds = FAILING.iter().copied().cycle().take(FAILING.len() * TIMES);
    for (number, (point, written)) in rounds.enumerate() {
        let before = shop.balance();
        let by = [By::Key, By::SignIn][number % 2];
        let id = Kind::Video.id(&shop.order_by(by, Kind::Video, "<<fake video_polls=0 video_fail=1>>"));
        shop.server.restart_armed(point);
        let poll = shop.keyed(Kind::Video.poll(&id));
        die_of(&mut shop, &poll, point);
        let asked = shop.asked("/video/retrieve");
        let told: Vec<Value> = (0..3).map(|_| shop.send_keyed(Kind::Video.poll(&id)).json()).collect();
        assert!(told.iter().all(|told| told == &told_of_a_failure()), "{point}: {told:?}");
        assert_eq!(shop.asked("/video/retrieve") - asked, usize::from(!written), "{point}: asked again only if it was lost");
        assert_eq!(shop.balance(), before, "{point}: all of it is back, once");
    }
    let refunds = shop.account(BUYER).statement().of("REFUND");
    assert_eq!(refunds, vec![i64::try_from(Kind::Video.charge()).unwrap(); FAILING.len() * TIMES]);
    shop.close(0);
}

fn told_of_a_failure() -> Value {
    json!({ "status": "failed", "error": "fake video failure", "code": "CONTENT_POLICY", "credits_refunded": true })
}
