//! Large files and large answers pass, and the gateway holds little of them.

use farebox_rig::http::{self, Request};
use serde_json::json;

use crate::shop::{Shop, by_key, plain_key};

const MB: u64 = 1 << 20;

/// The most memory that the server ever had.
fn peak(shop: &Shop) -> u64 {
    let line = shop.server.status_of("status", "VmHWM:").unwrap();
    line.trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

#[test]
fn a_recording_of_31_mb_is_passed_on_and_held_twice_at_most() {
    let mut shop = Shop::open();
    let key = shop.key(&plain_key());
    let file = "s".repeat(31 * MB as usize);
    let body = format!(
        "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nwatcher\r\n\
         --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"long.mp3\"\r\n\r\n{file}\r\n--b--\r\n"
    );
    let request = Request::new("POST", "/v1/audio/transcriptions").header("content-type", "multipart/form-data; boundary=b");
    let before = peak(&shop);
    let answer = shop.server.send(&by_key(&request.clone().with_text(&body), &key));
    assert_eq!(answer.status, 200, "{}", answer.text());
    let more = peak(&shop) - before;
    assert!(more < 80 * MB, "{} MB more than before", more / MB);
    shop.wait_charged(50_000);
    let too_large = request.with_text(&format!("{body}{}", " ".repeat(2 * MB as usize)));
    let answer = shop.server.send(&by_key(&too_large, &key));
    assert_eq!((answer.status, answer.code().as_str()), (413, "request_too_large"));
    assert_eq!(shop.upstream.calls().len(), 1);
    shop.close(50_000);
}

#[test]
fn a_picture_of_20_mb_passes_without_being_held() {
    let mut shop = Shop::open();
    let key = shop.key(&plain_key());
    shop.upstream.configure(&json!({ "pad": 20 * MB }));
    let body = json!({ "model": "gpt-image-by-piece", "prompt": "a cat" }).to_string();
    let before = peak(&shop);
    let mut answer = http::open(shop.server.address(), &by_key(&Request::post("/v1/images/generations", body), &key)).unwrap();
    assert_eq!(answer.status, 200);
    let mut length = 0;
    while let Some(chunk) = answer.next_chunk() {
        length += chunk.len() as u64;
    }
    assert!(answer.complete && length > 20 * MB, "{length}");
    let more = peak(&shop) - before;
    assert!(more < 10 * MB, "{} MB more than before", more / MB);
    shop.wait_charged(50_000);
    shop.close(50_000);
}
