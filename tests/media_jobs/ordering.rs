//! Orders that go wrong: what an upstream has not named is not charged, and what it has taken is, whoever left meanwhile.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc;
use std::time::Duration;

use farebox_rig::anvil::BUYER;
use farebox_rig::http::{self, Request};
use farebox_rig::process::eventually;
use farebox_rig::provider::{After, Provider};
use serde_json::json;

use crate::shop::{By, FIVE, KINDS, Kind, Shop, WAYS};

fn json_answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

#[test]
fn an_upstream_that_refuses_an_order_costs_nobody_anything() {
    let shop = Shop::open();
    for (kind, by) in KINDS.into_iter().flat_map(|kind| WAYS.map(|by| (kind, by))) {
        let (before, paid) = (shop.balance(), shop.chain.transfers().len());
        let refused = shop.order_by(by, kind, "<<fake status=400>>");
        assert_eq!((refused.status, refused.code().as_str()), (400, "upstream_rejected"), "{}", refused.text());
        match by {
            By::Key | By::SignIn => assert_eq!((shop.balance(), shop.chain.transfers().len()), (before, paid), "{kind:?}"),
            // It had settled first, because an order cannot be called back: what it paid is its wallet's balance.
            By::Payment => {
                assert_eq!(shop.chain.transfers().len(), paid + 1);
                assert_eq!(shop.balance(), before + i64::try_from(kind.charge()).unwrap(), "{}", refused.text());
                assert!(refused.text().contains("is balance of"), "{}", refused.text());
            }
        }
    }
    assert_eq!(shop.account(BUYER).get("/v1/jobs").json()["data"], json!([]));
    shop.close(0);
}

#[test]
fn an_answer_that_names_no_job_is_not_charged() {
    let answers = [
        json_answer("{}"),
        json_answer(r#"{"queue_id":""}"#),
        json_answer("[]"),
        json_answer("not json"),
        json_answer(&format!(r#"{{"queue_id":"x","pad":"{}"}}"#, "y".repeat(70_000))),
        json_answer(r#"{"queue_id":"theirs"}"#).replace("content-length: 21", "content-length: 99"),
        json_answer(r#"{"queue_id":"theirs"}"#).replace("application/json", "text/html"),
    ];
    let next = Mutex::new(String::new());
    let next = std::sync::Arc::new(next);
    let provider = Provider::start({
        let next = std::sync::Arc::clone(&next);
        move |_, stream: &mut TcpStream| {
            _ = stream.write_all(next.lock().unwrap().as_bytes());
            After::Close
        }
    });
    let shop = Shop::before("", |_| provider.url());
    for answer in answers {
        *next.lock().unwrap() = answer.clone();
        for by in [By::Key, By::Payment] {
            let before = shop.balance();
            let refused = shop.order_by(by, Kind::Video, "");
            assert_eq!((refused.status, refused.code().as_str()), (502, "upstream_error"), "{answer}: {}", refused.text());
            let brought = if by == By::Payment { Kind::Video.charge() } else { 0 };
            assert_eq!(
                shop.balance(),
                before + i64::try_from(brought).unwrap(),
                "{by:?}: nothing is charged, {}",
                refused.text()
            );
        }
    }
    assert_eq!(shop.account(BUYER).get("/v1/jobs").json()["data"], json!([]));
    shop.close(0);
}

#[test]
fn who_leaves_before_the_answer_has_ordered_all_the_same_and_finds_the_job_in_the_list() {
    let (arrived, wait_arrived) = mpsc::channel();
    let (answer, wait_answer) = mpsc::channel::<()>();
    let (arrived, wait_answer) = (Mutex::new(arrived), Mutex::new(wait_answer));
    let provider = Provider::start(move |received, stream| {
        if received.head().contains("/queue") {
            arrived.lock().unwrap().send(()).unwrap();
            wait_answer.lock().unwrap().recv().unwrap();
            _ = stream.write_all(json_answer(r#"{"queue_id":"theirs-1"}"#).as_bytes());
        } else {
            _ = stream.write_all(json_answer(r#"{"status":"PROCESSING"}"#).as_bytes());
        }
        After::Keep
    });
    let mut shop = Shop::before("", |_| provider.url());
    let order = shop.keyed(Request::post(Kind::Video.route(), Kind::Video.body("")));
    let address = shop.server.address().to_owned();
    let mut leaver = TcpStream::connect(&address).unwrap();
    leaver.write_all(&order.bytes(&address)).unwrap();
    wait_arrived.recv().unwrap();
    drop(leaver);
    // The same with a key that ends meanwhile: what was ordered before is owed.
    let waiting = std::thread::spawn(move || http::send(&address, &order).unwrap());
    wait_arrived.recv().unwrap();
    shop.account(BUYER).revoke(&shop.key);
    (0..2).for_each(|_| answer.send(()).unwrap());
    let answered = waiting.join().unwrap();
    assert_eq!(answered.status, 200, "{}", answered.text());
    let listed = || shop.account(BUYER).get("/v1/jobs").json()["data"].as_array().unwrap().len();
    eventually("both are there", || listed() == 2);
    assert_eq!(shop.balance(), i64::try_from(FIVE - 2 * Kind::Video.charge()).unwrap());
    let jobs = shop.account(BUYER).get("/v1/jobs").json();
    for job in jobs["data"].as_array().unwrap() {
        let poll = shop.signed(BUYER, Kind::Video.poll(job["id"].as_str().unwrap()));
        assert_eq!(shop.server.send(&poll).json()["status"], "PROCESSING");
    }
    shop.server.restart();
    shop.close(2 * Kind::Video.charge());
}

#[test]
fn an_order_whose_buyer_has_left_is_in_the_list_although_the_program_is_told_to_stop_meanwhile() {
    let (arrived, wait_arrived) = mpsc::channel();
    let (answer, wait_answer) = mpsc::channel::<()>();
    let (arrived, wait_answer) = (Mutex::new(arrived), Mutex::new(wait_answer));
    let provider = Provider::start(move |_, stream| {
        arrived.lock().unwrap().send(()).unwrap();
        wait_answer.lock().unwrap().recv().unwrap();
        _ = stream.write_all(json_answer(r#"{"queue_id":"theirs-1"}"#).as_bytes());
        After::Close
    });
    let mut shop = Shop::before("", |_| provider.url());
    let order = shop.keyed(Request::post(Kind::Video.route(), Kind::Video.body("")));
    let address = shop.server.address().to_owned();
    let mut leaver = TcpStream::connect(&address).unwrap();
    leaver.write_all(&order.bytes(&address)).unwrap();
    wait_arrived.recv().unwrap();
    drop(leaver);
    shop.server.signal();
    eventually("it takes nobody new", || TcpStream::connect(&address).is_err());
    // A thread that has nothing more to do has ended by then.
    std::thread::sleep(Duration::from_secs(3));
    assert!(shop.server.is_running(), "an order is under way");
    answer.send(()).unwrap();
    shop.server.wait_exit();
    shop.server.restart();
    let jobs = shop.account(BUYER).get("/v1/jobs").json();
    assert_eq!(jobs["data"].as_array().map(Vec::len), Some(1), "{jobs}");
    assert_eq!(shop.balance(), i64::try_from(FIVE - Kind::Video.charge()).unwrap());
    shop.close(Kind::Video.charge());
}

#[test]
fn what_is_not_known_or_cannot_be_paid_is_refused_before_anything_moves() {
    let shop = Shop::open();
    let bad = |route: &str, body: serde_json::Value| shop.send_keyed(Request::post(route, body.to_string()));
    for (route, body, param) in [
        ("/v1/video/queue", json!({ "model": "film", "prompt": "x" }), "duration"),
        ("/v1/video/queue", json!({ "model": "film", "duration": "5s" }), "prompt"),
        ("/v1/video/queue", json!({ "model": "song", "prompt": "x", "duration": "5s" }), "model"),
        ("/v1/audio/queue", json!({ "model": "song", "prompt": "x" }), "duration_seconds"),
        ("/v1/videos/generations", json!({ "model": "film", "prompt": "x", "seconds": 4, "duration": 100 }), "duration"),
        ("/v1/videos/generations", json!({ "model": "film", "prompt": "x", "seconds": "forever" }), "seconds"),
    ] {
        let refused = bad(route, body.clone());
        assert_eq!((refused.status, &refused.json()["error"]["param"]), (400, &json!(param)), "{body}: {}", refused.text());
    }
    let dear = bad("/v1/video/queue", json!({ "model": "film", "prompt": "x", "duration": 60 }));
    assert_eq!((dear.status, dear.code().as_str()), (402, "insufficient_balance"), "{}", dear.text());
    let limited = shop.account(BUYER).mint(&json!({ "name": "cents", "spend_limit_usd": 0.4 }));
    let other = shop.account(BUYER).mint(&json!({ "name": "songs", "models": ["song"] }));
    for (key, code) in [(limited, "spend_limit_exceeded"), (other, "model_not_allowed")] {
        let order = Request::post(Kind::Video.route(), Kind::Video.body("")).header("x-api-key", &key.text);
        let refused = shop.server.send(&order);
        assert_eq!((refused.status, refused.code().as_str()), (403, code), "{}", refused.text());
    }
    assert_eq!(shop.upstream.calls().len(), 0, "the upstream was not asked");
    shop.close(0);
}
