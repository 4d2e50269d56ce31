//! The unmodified OpenAI SDKs order a video, wait for it, fetch it and delete it, whichever path its upstream takes orders on.

use farebox_rig::sdk::Sdk;
use serde_json::{Value, json};

use crate::shop::{CANARY, FIVE, Kind, Shop};

/// A video of eight seconds; `directive` steers the fake upstream.
fn film(directive: &str, delete: bool) -> Value {
    let params = json!({ "model": "film", "prompt": format!("{CANARY} a cat {directive}"), "seconds": "8", "size": "1280x720" });
    json!({ "do": "film", "params": params, "delete": delete })
}

fn makes_videos(sdk: Sdk, speaks: &str) {
    let shop = Shop::that_speaks(speaks);
    let steps = [film("<<fake video_polls=2>>", true), film("<<fake video_polls=1 video_fail=1>>", false)];
    let url = shop.server.url();
    let done = sdk.perform(&[("BASE_URL", &url), ("API_KEY", &shop.key.text)], &steps);
    let made = &done[0]["value"];
    assert_eq!((&made["ordered"]["object"], &made["ordered"]["model"]), (&"video".into(), &"film".into()), "{}", done[0]);
    assert_eq!(made["seen"], json!(["queued", "in_progress", "in_progress", "completed"]));
    assert_eq!(made["type"], "video/mp4", "{made}");
    assert!(made["bytes"].as_u64() > Some(0), "{made}");
    assert_eq!(made["deleted"], json!({ "id": made["ordered"]["id"], "object": "video.deleted", "deleted": true }));
    let failed = &done[1]["value"];
    assert_eq!(failed["seen"], json!(["queued", "in_progress", "failed"]), "{}", done[1]);
    assert_eq!(failed["error"]["message"], "fake failure", "in the upstream's words");
    // Each was ordered once, where this upstream takes orders.
    let path = format!("/{speaks}");
    let orders = shop.upstream.calls().iter().filter(|call| call["method"] == "POST").cloned().collect::<Vec<_>>();
    let asked: Vec<_> = orders.iter().map(|order| order["path"].as_str().unwrap().replacen("/v1", "", 1)).collect();
    assert_eq!(asked, [path.as_str(); 2]);
    // What was deleted is there no more, and the one that failed is paid back.
    let gone = shop.send_keyed(Kind::Videos.fetch(made["ordered"]["id"].as_str().unwrap()));
    assert_eq!((gone.status, gone.code().as_str()), (404, "media_not_found"), "{}", gone.text());
    assert_eq!(shop.balance(), i64::try_from(FIVE - Kind::Videos.charge()).unwrap());
    shop.close(Kind::Videos.charge());
}

#[test]
fn the_typescript_sdk_makes_videos_where_orders_go_to_openais_path() {
    makes_videos(Sdk::OpenAiNode, "videos");
}

#[test]
fn the_python_sdk_makes_videos_where_orders_go_to_openais_path() {
    makes_videos(Sdk::OpenAiPython, "videos");
}

#[test]
fn the_python_sdk_makes_videos_where_orders_go_to_a_path_below_it() {
    makes_videos(Sdk::OpenAiPython, "videos/generations");
}
