//! The unmodified `venice-x402-client` orders, waits, fetches and completes.

use farebox_rig::account::usd;
use farebox_rig::anvil::BUYER;
use farebox_rig::sdk::Sdk;
use serde_json::{Value, json};

use crate::shop::{CANARY, FIVE, Kind, Shop};

fn venice(shop: &Shop, steps: &[Value]) -> Vec<Value> {
    Sdk::Venice.perform(&[("BASE_URL", &shop.server.url()), ("PRIVATE_KEY", BUYER.key)], steps)
}

#[test]
fn it_makes_a_video_and_a_song_and_hears_of_a_failure_that_is_paid_back() {
    let shop = Shop::open();
    let film = |directive: &str| json!({ "model": "film", "prompt": format!("{CANARY} {directive}"), "duration": "5s" });
    let song = json!({ "model": "song", "prompt": format!("{CANARY} <<fake video_polls=2>>"), "duration_seconds": 30 });
    let done = venice(
        &shop,
        &[
            json!({ "do": "videoGenerate", "params": film("<<fake video_polls=2>>") }),
            json!({ "do": "wholeJob", "family": "audio", "params": song }),
            json!({ "do": "videoGenerate", "params": film("<<fake video_polls=0 video_fail=1>>") }),
            json!({ "do": "job", "about": "video.retrieve", "params": { "queue_id": "job_00000000000000000000000000000000" } }),
            json!({ "do": "getBalance" }),
        ],
    );
    assert_eq!(done[0]["value"]["type"], "video/mp4", "{done:?}");
    assert!(done[0]["value"]["bytes"].as_u64().is_some_and(|bytes| bytes > 0));
    assert_eq!(
        (&done[1]["value"]["made"]["type"], &done[1]["value"]["completed"]),
        (&json!("audio/wav"), &json!({ "success": true }))
    );
    let left = |charges: u64| i64::try_from(FIVE - charges).unwrap();
    assert_eq!(usd(&done[1]["balance"]), left(Kind::Video.charge() + Kind::Music.charge()), "it reads the balance on the way");
    assert_eq!(
        usd(&done[2]["balance"]),
        left(Kind::Video.charge() + Kind::Music.charge()),
        "and hears of what is back: {done:?}"
    );
    let failed = &done[2]["error"];
    assert_eq!((&failed["code"], &failed["message"]), (&json!("VIDEO_FAILED"), &json!("fake video failure")), "{done:?}");
    let unknown = &done[3]["error"];
    assert_eq!(
        (&unknown["code"], &unknown["details"]["code"]),
        (&json!("API_ERROR"), &json!("REQUEST_ID_NOT_FOUND")),
        "{done:?}"
    );
    let charges = Kind::Video.charge() + Kind::Music.charge();
    assert_eq!(usd(&done[4]["value"]["balanceUsd"]), i64::try_from(FIVE - charges).unwrap(), "the failed one is paid back");
    shop.close(charges);
}

#[test]
fn it_orders_a_video_step_by_step_and_asks_routes_that_it_has_no_helper_for() {
    let shop = Shop::open();
    let film = json!({ "model": "film", "prompt": format!("{CANARY} <<fake video_polls=1>>"), "duration": "5s" });
    let price = json!({ "model": "film", "duration": "5s" });
    let done = venice(
        &shop,
        &[
            json!({ "do": "request", "path": "/api/v1/video/quote", "body": price }),
            json!({ "do": "wholeJob", "family": "video", "params": film }),
            json!({ "do": "request", "path": "/api/v1/jobs" }),
            json!({ "do": "request", "path": "/api/v1/models?type=music" }),
        ],
    );
    assert_eq!(done[0]["value"], json!({ "quote": 0.5 }), "{done:?}");
    let made = &done[1]["value"];
    assert_eq!((&made["made"]["type"], &made["completed"]), (&json!("video/mp4"), &json!({ "success": true })), "{done:?}");
    let jobs = done[2]["value"]["data"].as_array().expect("a list").iter().map(|job| (&job["route"], &job["state"]));
    assert_eq!(jobs.collect::<Vec<_>>(), [(&json!("/video/queue"), &json!("completed"))], "{}", done[2]);
    assert_eq!(
        usd(&done[2]["balance"]),
        i64::try_from(FIVE - Kind::Video.charge()).unwrap(),
        "what is left is told beside the list"
    );
    let songs = done[3]["value"]["data"].as_array().expect("a list").iter().map(|model| &model["id"]);
    assert_eq!(songs.collect::<Vec<_>>(), ["song"]);
    shop.close(Kind::Video.charge());
}
