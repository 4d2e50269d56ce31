//! Where results are fetched from: the upstream's own address, whatever it says, and nothing but media passes.

use std::io::Write as _;
use std::net::TcpStream;
use std::sync::{Arc, Mutex};

use farebox_rig::anvil::BUYER;
use farebox_rig::http::{self, Request};
use farebox_rig::process::eventually;
use farebox_rig::provider::{After, Provider, Received};
use farebox_rig::secure::{Authority, Door};
use farebox_rig::upstream::UPSTREAM_KEY;
use serde_json::json;

use crate::shop::{Kind, Shop};

/// What the scripted upstream answers to a question about a job: the head's rest and the body.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<String>>);

impl Script {
    fn says(&self, answer: impl Into<String>) {
        *self.0.lock().unwrap() = answer.into();
    }

    /// JSON that says that the job is done, and where.
    fn done_at(&self, url: &str) {
        self.says(json_answer(&json!({ "status": "COMPLETED", "download_url": url }).to_string()));
    }

    fn answer(&self) -> String {
        self.0.lock().unwrap().clone()
    }
}

/// Said of a job, this is true: its result is also where the upstream has all such things.
const IN_ITS_PLACE: &str = "in_its_place";

fn json_answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn media_answer(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-type: video/mp4\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// An upstream that takes every order, has a film at `/files/film.mp4`, and else answers as scripted.
fn upstream(script: &Script) -> Provider {
    let script = script.clone();
    Provider::start(move |received: &Received, stream: &mut TcpStream| {
        let line = received.head().lines().next().unwrap_or_default().to_owned();
        let answer = match () {
            () if line.contains("/queue") => json_answer(r#"{"queue_id":"theirs-1","status":"QUEUED"}"#),
            () if line.contains("/videos/generations") => json_answer(r#"{"id":"theirs-2","status":"queued"}"#),
            () if line.contains(" /files/film.mp4") => media_answer("the film"),
            () if line.contains(" /files/moved") => {
                "HTTP/1.1 302 Found\r\nlocation: /files/film.mp4\r\ncontent-length: 0\r\n\r\n".into()
            }
            () if line.contains("/content HTTP") && script.answer().contains(IN_ITS_PLACE) => media_answer("the film"),
            () if line.contains(" /files/page") => json_answer("{}").replace("application/json", "text/html"),
            () => script.answer(),
        };
        _ = stream.write_all(answer.as_bytes());
        After::Keep
    })
}

#[test]
fn a_result_is_fetched_from_the_upstreams_own_address_and_from_nowhere_else() {
    let script = Script::default();
    let trap = Provider::connections(|_, _| {});
    let provider = upstream(&script);
    let shop = Shop::before("", |_| provider.url());
    let (own, trap_at) = (provider.url(), trap.url());
    let (host, trap_host) = (own.trim_start_matches("http://"), trap_at.trim_start_matches("http://"));
    let trap_port = trap_host.split_once(':').unwrap().1;
    for url in [
        format!("http://{trap_host}/files/film.mp4"),
        format!("http://localhost:{trap_port}/files/film.mp4"),
        format!("http://[::1]:{trap_port}/files/film.mp4"),
        format!("http://[::ffff:127.0.0.1]:{trap_port}/files/film.mp4"),
        format!("http://2130706433:{trap_port}/files/film.mp4"),
        format!("http://{host}@{trap_host}/files/film.mp4"),
        format!("http://user:pass@{host}/files/film.mp4"),
        format!("//{trap_host}/files/film.mp4"),
        format!("/\\{trap_host}/files/film.mp4"),
        format!("https://{host}/files/film.mp4"),
        format!("ftp://{host}/files/film.mp4"),
        "http://127.0.0.1/files/film.mp4".into(),
        "http://169.254.169.254/latest/meta-data".into(),
        "file:///etc/passwd".into(),
        "data:video/mp4;base64,AAAA".into(),
        format!("{own}/files/film.mp4\r\nx-evil: 1"),
    ] {
        script.done_at(&url);
        let before = shop.balance();
        let id = shop.order(Kind::Video, "");
        let asked = provider.requests().len();
        for _ in 0..2 {
            let answer = shop.send_keyed(Kind::Video.fetch(&id));
            let told = answer.json();
            assert_eq!(
                (answer.status, &told["status"], &told["credits_refunded"]),
                (200, &json!("failed"), &json!(true)),
                "{url}"
            );
            assert_eq!(told["code"], "result_not_fetchable", "{url}");
            assert!(!answer.text().contains(trap_port), "{url} is not told: {}", answer.text());
        }
        assert_eq!(provider.requests().len(), asked + 1, "{url}: the upstream was asked for the job, and nothing was fetched");
        assert_eq!(shop.balance(), before, "{url}: what nobody can have costs nothing, and is given back once");
    }
    assert_eq!(trap.connected(), 0, "nobody ever connected there");
    shop.server.has_said("until media_hosts names it");
    let id = shop.order(Kind::Video, "");
    for moved in ["/files/moved", "/files/page"] {
        script.done_at(&format!("{own}{moved}"));
        let answer = shop.send_keyed(Kind::Video.fetch(&id));
        assert_eq!((answer.status, answer.code().as_str()), (502, "upstream_error"), "{moved}: {}", answer.text());
    }
    let fetched = provider.requests().iter().filter(|request| request.contains("/files/film.mp4 HTTP")).count();
    assert_eq!(fetched, 0, "a redirect is not followed");
    for url in [format!("{own}/files/film.mp4"), format!("HTTP://{host}/files/film.mp4?sig=1#here"), "/files/film.mp4".into()] {
        script.done_at(&url);
        let answer = shop.send_keyed(Kind::Video.fetch(&id));
        assert_eq!((answer.status, answer.text().as_str()), (200, "the film"), "{url}");
        assert_eq!(answer.header("content-type"), Some("video/mp4"));
    }
    shop.close(Kind::Video.charge());
}

#[test]
fn a_video_whose_url_is_elsewhere_is_fetched_from_its_own_address_at_the_upstream() {
    let (script, trap) = (Script::default(), Provider::connections(|_, _| {}));
    let provider = upstream(&script);
    let shop = Shop::before("", |_| provider.url());
    let elsewhere = format!("{}/files/film.mp4", trap.url());
    script
        .says(json_answer(&json!({ "status": "completed", "url": "", "video_url": elsewhere, IN_ITS_PLACE: true }).to_string()));
    let id = shop.order(Kind::Videos, "");
    let told = shop.send_keyed(Kind::Videos.poll(&id)).json();
    assert_eq!(told["status"], "completed", "{told}");
    let answer = shop.send_keyed(Kind::Videos.fetch(&id));
    assert_eq!((answer.status, answer.text().as_str()), (200, "the film"));
    assert_eq!(trap.connected(), 0, "nobody ever connected there");
    shop.close(Kind::Videos.charge());
}

#[test]
fn a_result_at_a_media_host_is_fetched_over_tls_and_without_the_operators_key() {
    let (script, authority, folder) = (Script::default(), Authority::new(), tempfile::tempdir().unwrap());
    let provider = upstream(&script);
    let elsewhere = Provider::start(|received, stream| {
        let answer = match received.head().contains(" /files/film.mp4") {
            true => media_answer("the film"),
            false => "HTTP/1.1 302 Found\r\nlocation: /files/film.mp4\r\ncontent-length: 0\r\n\r\n".into(),
        };
        _ = stream.write_all(answer.as_bytes());
        After::Close
    });
    let door = Door::to(elsewhere.url().trim_start_matches("http://"), &authority, "localhost");
    let host = door.url().trim_start_matches("https://").trim_end_matches('/').to_owned();
    let ca_file = folder.path().join("ca.pem");
    std::fs::write(&ca_file, authority.pem()).unwrap();
    let mut shop = Shop::before("", |_| provider.url());
    shop.server
        .reconfigure(|text| text.replace("speaks =", &format!("media_hosts = [{host:?}]\nca_file = {ca_file:?}\nspeaks =")));
    shop.server.restart();
    for kind in [Kind::Video, Kind::Videos] {
        script.done_at(&format!("https://{host}/files/film.mp4?sig=1"));
        let id = shop.order(kind, "");
        let answer = shop.send_keyed(kind.fetch(&id));
        assert_eq!((answer.status, answer.text().as_str()), (200, "the film"), "{kind:?}");
        let fetched = elsewhere.requests().pop().expect("it was asked");
        assert!(fetched.starts_with("GET /files/film.mp4?sig=1 HTTP/1.1\r\n"), "{fetched}");
        assert!(!fetched.contains(UPSTREAM_KEY) && !fetched.to_lowercase().contains("authorization"), "{fetched}");
    }
    // A redirect leads nowhere from there, either.
    script.done_at(&format!("https://{host}/files/moved"));
    let id = shop.order(Kind::Video, "");
    let moved = shop.send_keyed(Kind::Video.fetch(&id));
    assert_eq!((moved.status, moved.code().as_str()), (502, "upstream_error"), "{}", moved.text());
    assert_eq!(elsewhere.requests().len(), 3);
    shop.close(2 * Kind::Video.charge() + Kind::Videos.charge());
}

/// Waits until it stands in the books that all of what a job made was passed on.
fn wait_delivered(shop: &Shop, id: &str) {
    eventually("it is written down as delivered", || {
        let listed = shop.send_keyed(Request::get("/v1/jobs")).json();
        listed["data"].as_array().unwrap().iter().any(|job| job["id"] == id && job["delivered"] == true)
    });
}

#[test]
fn what_was_delivered_is_not_paid_back_whatever_its_upstream_says_of_it_later() {
    let script = Script::default();
    let provider = upstream(&script);
    let mut shop = Shop::before("", |_| provider.url());
    let film = format!("{}/files/film.mp4", provider.url());
    let jobs = [Kind::Video, Kind::Videos].map(|kind| (kind, shop.order(kind, "")));
    let balance = shop.balance();
    script.done_at(&film);
    for (kind, id) in &jobs {
        assert_eq!(shop.send_keyed(kind.fetch(id)).text(), "the film");
        wait_delivered(&shop, id);
    }
    let failed = json_answer(&json!({ "status": "failed", "error": "it was deleted" }).to_string());
    let elsewhere = json_answer(&json!({ "status": "COMPLETED", "url": "https://cdn.example/film.mp4" }).to_string());
    for (round, said) in [failed.clone(), elsewhere, failed].into_iter().enumerate() {
        script.says(said);
        for (kind, id) in &jobs {
            for request in [kind.poll(id), kind.fetch(id)] {
                let answer = shop.send_keyed(request);
                assert_eq!((answer.status, answer.code().as_str()), (404, "media_not_found"), "{}", answer.text());
                assert!(answer.text().contains("nothing is given back"), "{}", answer.text());
            }
        }
        assert_eq!(shop.balance(), balance, "round {round}");
        if round == 1 {
            shop.server.kill();
            shop.server.restart();
        }
    }
    script.done_at(&film);
    for (kind, id) in &jobs {
        assert_eq!(shop.send_keyed(kind.fetch(id)).text(), "the film", "and it is there again when it can be had");
    }
    assert_eq!(shop.account(BUYER).statement().of("REFUND"), [] as [i64; 0]);
    shop.close(Kind::Video.charge() + Kind::Videos.charge());
}

#[test]
fn who_asks_for_the_head_of_a_film_or_gets_an_empty_one_has_not_been_given_it() {
    let script = Script::default();
    let provider = upstream(&script);
    let shop = Shop::before("", |_| provider.url());
    let before = shop.balance();
    let id = shop.order(Kind::Videos, "");
    script.done_at(&format!("{}/files/film.mp4", provider.url()));
    let head = shop.send_keyed(Request::new("HEAD", &format!("/v1/videos/{id}/content")));
    assert_eq!((head.status, head.text().as_str()), (200, ""));
    let asked = |what: &str| provider.requests().iter().filter(|received| received.contains(what)).count();
    assert_eq!(asked("/files/film.mp4"), 0, "the film itself is not fetched for that");
    script.says(media_answer(""));
    let empty = shop.send_keyed(Kind::Videos.fetch(&id));
    assert_eq!((empty.status, empty.code().as_str()), (404, "media_not_found"), "{}", empty.text());
    assert!(empty.text().contains("not there yet"), "{}", empty.text());
    script.says(json_answer(&json!({ "status": "failed", "error": "it was too long" }).to_string()));
    let told = shop.send_keyed(Kind::Videos.poll(&id)).json();
    assert_eq!(told["status"], "failed", "{told}");
    assert_eq!(shop.balance(), before, "all of it is given back");
    shop.close(0);
}

#[test]
fn a_film_that_breaks_off_is_not_taken_for_a_whole_one() {
    let script = Script::default();
    let provider = Provider::start({
        let script = script.clone();
        move |received, stream| {
            let answer = match received.head().contains("/queue") {
                true => json_answer(r#"{"queue_id":"theirs-1"}"#),
                false => script.answer(),
            };
            _ = stream.write_all(answer.as_bytes());
            After::Close
        }
    });
    let shop = Shop::before("", |_| provider.url());
    let id = shop.order(Kind::Video, "");
    script.says(media_answer("half a film").replace("content-length: 11", "content-length: 22"));
    let broken = shop.send_keyed(Kind::Video.fetch(&id));
    assert_eq!((broken.status, broken.complete), (200, false), "the connection breaks as the upstream's did");
    script.says(media_answer("a whole film"));
    let whole = shop.send_keyed(Kind::Video.fetch(&id));
    assert_eq!((whole.text().as_str(), whole.complete), ("a whole film", true), "and it can be fetched again");
    // Half a film is none: what fails then is paid back.
    let second = shop.order(Kind::Video, "");
    let before = shop.balance();
    script.says(media_answer("half a film").replace("content-length: 11", "content-length: 22"));
    assert!(!shop.send_keyed(Kind::Video.fetch(&second)).complete);
    script.says(json_answer(&json!({ "status": "failed" }).to_string()));
    assert_eq!(shop.send_keyed(Kind::Video.poll(&second)).json()["credits_refunded"], true);
    assert_eq!(shop.balance(), before + i64::try_from(Kind::Video.charge()).unwrap());
    shop.close(Kind::Video.charge());
}

#[test]
fn bytes_pass_as_they_come_and_who_leaves_lets_the_upstream_go() {
    let (more, gone) = (Arc::new(Mutex::new(())), Arc::new(Mutex::new(false)));
    let provider = Provider::start({
        let (more, gone) = (Arc::clone(&more), Arc::clone(&gone));
        move |received, stream| {
            if received.head().contains("/queue") {
                _ = stream.write_all(json_answer(r#"{"queue_id":"theirs-1"}"#).as_bytes());
                return After::Keep;
            }
            let length = 64 * 1024 * 1024;
            let head = format!("HTTP/1.1 200 OK\r\ncontent-type: video/mp4\r\ncontent-length: {length}\r\n\r\nfirst");
            _ = stream.write_all(head.as_bytes());
            drop(more.lock());
            farebox_rig::provider::wait_gone(stream);
            *gone.lock().unwrap() = true;
            After::Close
        }
    });
    let shop = Shop::before("streams_per_account = 1", |_| provider.url());
    let id = shop.order(Kind::Video, "");
    let held = more.lock().unwrap();
    let mut stream = http::open(shop.server.address(), &shop.keyed(Kind::Video.fetch(&id))).unwrap();
    assert_eq!((stream.status, stream.next_chunk().as_deref()), (200, Some(&b"first"[..])), "the first bytes are here");
    // A wallet has so many fetches at once; another wallet's are not counted.
    let second = shop.send_keyed(Kind::Video.fetch(&id));
    assert_eq!((second.status, second.code().as_str()), (429, "concurrency_limit"), "{}", second.text());
    drop(stream);
    drop(held);
    eventually("the upstream is let go", || *gone.lock().unwrap());
    shop.close(Kind::Video.charge());
}

#[test]
fn an_upstream_that_left_the_configuration_is_missed_in_words_and_the_job_is_there_when_it_is_back() {
    let mut shop = Shop::open();
    let id = shop.order(Kind::Video, "<<fake video_polls=0>>");
    shop.server.reconfigure(|text| text.replace("name = \"fake\"", "name = \"other\""));
    shop.server.restart();
    let missed = shop.send_keyed(Kind::Video.fetch(&id));
    assert_eq!((missed.status, missed.code().as_str()), (503, "upstream_unavailable"), "{}", missed.text());
    assert!(missed.header("retry-after").is_some());
    shop.server.reconfigure(|text| text.replace("name = \"other\"", "name = \"fake\""));
    shop.server.restart();
    assert_eq!(shop.send_keyed(Kind::Video.fetch(&id)).header("content-type"), Some("video/mp4"));
    assert_eq!(shop.account(BUYER).statement().of("REFUND"), [] as [i64; 0]);
    shop.close(Kind::Video.charge());
}

#[test]
fn asking_for_content_too_early_says_what_to_ask_instead() {
    let shop = Shop::open();
    let id = shop.order(Kind::Videos, "<<fake video_polls=1>>");
    let early = shop.send_keyed(Kind::Videos.fetch(&id));
    assert_eq!((early.status, early.code().as_str()), (404, "media_not_found"), "{}", early.text());
    assert_eq!(shop.send_keyed(Request::get(&format!("/api/v1/videos/{id}"))).json()["status"], "completed");
    assert_eq!(shop.send_keyed(Kind::Videos.fetch(&id)).header("content-type"), Some("video/mp4"));
    shop.close(Kind::Videos.charge());
}
