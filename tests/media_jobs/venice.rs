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
            json!({ "do": "audioJob", "params": song }),
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
