//! Certificates from a real authority: asked for, proven, shown, kept, renewed under a running stream, and refused.

use std::os::unix::fs::PermissionsExt as _;

use farebox_rig::account::Key;
use farebox_rig::anvil::BUYER;
use farebox_rig::http::{self, Request};
use farebox_rig::pebble::Pebble;
use farebox_rig::process::{eventually, free_port, run};
use farebox_rig::sdk::Sdk;
use farebox_rig::secure::Authority;
use farebox_rig::server::Settings;
use serde_json::{Value, json};

use crate::shop::{CHARGE, CHAT, Shop, body};

const NAME: &str = "shop.example.test";

/// A shop whose certificate an authority gives, and a key of a buyer who has money there.
struct Named {
    shop: Shop,
    key: Key,
    port: u16,
}

impl Named {
    /// All but its start. `authority` vouches for the authority's own site.
    fn begin(authority: &Authority, pebble: &Pebble, port: u16, metrics: u16) -> Named {
        let shop = Shop::with(84532, &Settings::default());
        assert_eq!(shop.server.account(BUYER).top_up(5_000_000).status, 200);
        let key = shop.server.account(BUYER).mint_by_hand();
        shop.server.put("authority.pem", authority.pem());
        let tls = format!(
            "tls = {{ names = [\"{NAME}\"], contact = \"me@example.test\", authority = \"{}\", ca_file = \"authority.pem\" }}",
            pebble.directory()
        );
        let bind = format!(
            "public_url = \"https://other.example.test\"\nbind = \"127.0.0.1:{port}\"\nmetrics = \"127.0.0.1:{metrics}\"\n{tls}"
        );
        shop.server.reconfigure(|text| text.replacen("bind = \"127.0.0.1:0\"", &bind, 1));
        Named { shop, key, port }
    }

    fn start(mut self) -> Named {
        self.shop.server.restart();
        self
    }

    fn open(authority: &Authority, pebble: &Pebble, port: u16, metrics: u16) -> Named {
        Named::begin(authority, pebble, port, metrics).start()
    }

    /// Waits until so many certificates were given to this process.
    fn wait_given(&self, times: usize) {
        eventually("a certificate is given", || self.shop.server.output().matches("has given a certificate").count() == times);
    }

    /// Does `steps` over HTTP/2, as a client that believes who `root` vouches for.
    fn http2(&self, root: &str, steps: &[Value]) -> Vec<Value> {
        self.shop.server.put("root.pem", root);
        let ca = self.shop.server.data_dir().with_file_name("root.pem").display().to_string();
        let url = format!("https://127.0.0.1:{}", self.port);
        let outcomes = Sdk::Http2.perform(&[("BASE_URL", &url), ("CA", &ca), ("NAME", NAME)], steps);
        outcomes.into_iter().map(|outcome| if outcome["error"].is_null() { outcome["value"].clone() } else { outcome }).collect()
    }

    fn shown(&self, root: &str) -> Value {
        self.http2(root, &[json!({ "do": "shown", "protocols": ["h2"] })]).remove(0)["serial"].clone()
    }

    /// One streamed call, as a step of `h2.mjs`.
    fn stream(&self, directive: &str) -> Value {
        let headers = json!({ "authorization": format!("Bearer {}", self.key.text) });
        json!({ "do": "call", "path": CHAT, "headers": headers, "body": body(directive, true) })
    }
}

#[test]
fn an_authority_gives_a_certificate_that_clients_believe_a_restart_keeps_and_a_running_stream_survives_the_next() {
    let (authority, port) = (Authority::new(), free_port());
    let pebble = Pebble::start(&authority, port);
    let mut named = Named::open(&authority, &pebble, port, free_port());
    named.wait_given(1);
    let root = pebble.root();
    let first = named.shown(&root);
    assert!(first.is_string(), "{first}");
    let kept = named.shop.server.data_dir().join("certificate.json");
    assert_eq!(std::fs::metadata(&kept).unwrap().permissions().mode() & 0o777, 0o600, "its key is nobody else's to read");

    // A restart asks for nothing that is there already.
    named.shop.server.restart();
    assert_eq!((named.shown(&root), pebble.given()), (first.clone(), 1));

    // When two thirds of its hour are over it is renewed, and nobody's stream ends of that.
    let stream = named.stream("<<fake in=20 out=7 words=200 gap=600>>");
    let answer = std::thread::scope(|scope| {
        let running = scope.spawn(|| named.http2(&root, &[stream]).remove(0));
        eventually("it has begun", || named.shop.served() == 1);
        named.shop.server.move_clock(2500);
        named.wait_given(2);
        assert!(!running.is_finished(), "the stream was running when it came");
        named.shop.upstream.hurry();
        running.join().unwrap()
    });
    assert_eq!((&answer["status"], &answer["ended"]), (&json!(200), &json!("end")), "{answer}");
    assert_ne!(named.shown(&root), first);
    assert_eq!(pebble.given(), 2);
    named.shop.server.move_clock(0);
    let said = named.shop.server.output();
    assert!(!said.contains("PRIVATE KEY") && !said.contains("gave no certificate"), "{said}");
    named.shop.close(CHARGE);
}

#[test]
fn an_authority_that_does_not_find_us_is_told_with_its_reason_and_asked_again_when_that_is_mended() {
    let (authority, port, metrics) = (Authority::new(), free_port(), free_port());
    // It looks where nobody listens.
    let wrong = Pebble::start(&authority, free_port());
    let named = Named::open(&authority, &wrong, port, metrics);
    named.shop.server.has_said("gave no certificate for shop.example.test (no caller gets in without)");
    named.shop.server.has_said("and port 443 to this gateway?");
    let ready = || http::send(&format!("127.0.0.1:{metrics}"), &Request::get("/readyz")).unwrap();
    assert!(ready().status == 503 && ready().text().contains("certificate"), "{}", ready().text());
    assert_eq!(wrong.given(), 0);

    let right = Pebble::start(&authority, port);
    named.shop.server.reconfigure(|text| text.replace(wrong.directory(), right.directory()));
    assert_eq!(named.shop.server.reload().0, 0);
    named.wait_given(1);
    assert!(named.shown(&right.root()).is_string());
    eventually("it is ready", || ready().status == 200);

    let checked = || run(named.shop.server.command(&["check"]), "").1;
    let said = checked();
    assert!(
        said.contains("answers; it is asked for shop.example.test") && said.contains("callers are told another name"),
        "{said}"
    );
    named.shop.server.reconfigure(|text| text.replace(right.directory(), &right.directory().replace("/dir", "/nowhere")));
    let said = checked();
    assert!(said.contains("/nowhere answers, and is no directory of an ACME authority"), "{said}");

    // Files do not take the place of an authority while it runs; what is shown stays.
    named.shop.server.reconfigure(|text| {
        let tls = text.lines().find(|line| line.starts_with("tls = ")).unwrap().to_owned();
        text.replace(&tls, "tls = { certificate = \"full.pem\", key = \"file:key.pem\" }")
    });
    let (code, said) = named.shop.server.reload();
    assert!(code != 0 && said.contains("with a restart only"), "{code} {said}");
    assert!(named.shown(&right.root()).is_string());
    named.shop.close(0);
}

#[test]
fn a_certificate_that_is_not_good_yet_by_a_clock_that_is_behind_is_shown_kept_and_no_reason_for_another() {
    let (authority, port, metrics) = (Authority::new(), free_port(), free_port());
    let pebble = Pebble::start(&authority, port);
    let named = Named::begin(&authority, &pebble, port, metrics);
    named.shop.server.move_clock(-600);
    let mut named = named.start();
    named.wait_given(1);
    let first = named.shown(&pebble.root());
    assert!(first.is_string(), "callers judge by their own clocks: {first}");
    named.shop.server.has_said("is the clock of this machine right?");
    let ready = || http::send(&format!("127.0.0.1:{metrics}"), &Request::get("/readyz")).unwrap().text();
    assert!(ready().contains("is not good yet"), "{}", ready());

    named.shop.server.restart();
    assert_eq!(named.shown(&pebble.root()), first);
    named.shop.server.move_clock(0);
    eventually("the clock is right", || !ready().contains("certificate"));
    assert_eq!((named.shown(&pebble.root()), pebble.given()), (first, 1));
    assert!(!named.shop.server.output().contains("gave no certificate"));
    named.shop.close(0);
}

#[test]
fn a_certificate_that_cannot_be_written_is_shown_all_the_same_and_one_is_enough() {
    let (authority, port) = (Authority::new(), free_port());
    let mut pebble = Pebble::start(&authority, port);
    let named = Named::begin(&authority, &pebble, port, free_port());
    let (file, in_the_way) =
        (named.shop.server.data_dir().join("certificate.json"), named.shop.server.data_dir().join("certificate.new"));
    std::fs::create_dir(&in_the_way).unwrap();
    let mut named = named.start();
    named.wait_given(1);
    named.shop.server.has_said("cannot be written, and a restart would ask for another certificate");
    assert!(named.shown(&pebble.root()).is_string() && !file.exists());
    std::fs::remove_dir(&in_the_way).unwrap();
    eventually("there is room", || file.exists());
    named.shop.server.restart();
    assert!(named.shown(&pebble.root()).is_string());
    assert_eq!(pebble.given(), 1);

    // An authority that has forgotten its accounts is told of a new one.
    pebble.forget();
    named.shop.server.reconfigure(|text| text.replace(&format!("\"{NAME}\""), &format!("\"{NAME}\", \"www.{NAME}\"")));
    assert_eq!(named.shop.server.reload().0, 0);
    named.wait_given(2);
    assert!(named.shown(&pebble.root()).is_string());
    named.shop.close(0);
}
