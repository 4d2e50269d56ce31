//! TLS of our own: real clients over HTTP/1.1 and HTTP/2, callers who leave, answers that break, and certificates that change.

use std::time::Duration;

use farebox_rig::account::{Key, usd};
use farebox_rig::anvil::BUYER;
use farebox_rig::http;
use farebox_rig::process::{eventually, run, run_within, wait_out_midnight};
use farebox_rig::sdk::Sdk;
use farebox_rig::secure::Authority;
use farebox_rig::server::{MODEL, Settings};
use serde_json::{Value, json};

use crate::shop::{ANSWER, CHARGE, CHAT, Shop, USAGE, body};

/// Years in which a certificate of a test is good.
const GOOD: std::ops::Range<i32> = 2020..2090;
const FUNDS: u64 = 5_000_000;
const TEN_DAYS: Duration = Duration::from_secs(10 * 24 * 60 * 60);

/// A shop that speaks TLS, and a key of the buyer whose balance is [`FUNDS`].
struct Secure {
    shop: Shop,
    authority: Authority,
    key: Key,
}

impl Secure {
    fn open(settings: &Settings) -> Secure {
        let shop = Shop::with(84532, settings);
        assert_eq!(shop.server.account(BUYER).top_up(FUNDS).status, 200);
        let key = shop.server.account(BUYER).mint_by_hand();
        let authority = Authority::new();
        shop.server.put("authority.pem", authority.pem());
        let line = "[server]\ntls = { certificate = \"full.pem\", key = \"file:key.pem\" }";
        shop.server.reconfigure(|text| text.replacen("[server]", line, 1));
        let secure = Secure { shop, authority, key };
        secure.put(&secure.authority.certificate(GOOD));
        let mut secure = secure;
        secure.shop.server.restart();
        assert!(secure.shop.server.url().starts_with("https://"));
        secure
    }

    fn put(&self, (certificate, key): &(String, String)) {
        self.shop.server.put("full.pem", certificate);
        self.shop.server.put("key.pem", key);
    }

    /// Does `steps` with node's HTTP/2, on one connection.
    fn http2(&self, environment: &[(&str, &str)], steps: &[Value]) -> Vec<Value> {
        let (url, ca) = (self.shop.server.url(), self.authority_file());
        let environment = [&[("BASE_URL", url.as_str()), ("CA", ca.as_str())], environment].concat();
        let outcomes = Sdk::Http2.perform(&environment, steps);
        outcomes.into_iter().map(|outcome| if outcome["error"].is_null() { outcome["value"].clone() } else { outcome }).collect()
    }

    /// Does a step of [`Secure::call`] with curl over HTTP/1.1: its exit code, what came with the version and the status behind
    /// it, and its complaints.
    fn curl(&self, step: &Value) -> (i32, String, String) {
        let mut curl = std::process::Command::new("curl");
        curl.args(["--silent", "--show-error", "--no-buffer", "--http1.1", "--write-out", "%{http_version} %{http_code}"]);
        curl.args(["--header", "content-type: application/json", "--cacert", &self.authority_file(), "--data-binary", "@-"]);
        curl.arg("--header").arg(format!("authorization: {}", step["headers"]["authorization"].as_str().unwrap()));
        curl.arg(self.shop.server.url() + step["path"].as_str().unwrap());
        // Long enough for a stream that a test holds open while certificates change.
        run_within(Duration::from_secs(180), curl, step["body"].as_str().unwrap())
    }

    fn authority_file(&self) -> String {
        self.shop.server.data_dir().with_file_name("authority.pem").display().to_string()
    }

    /// One call, as a step of `h2.mjs`.
    fn call(&self, directive: &str, stream: bool) -> Value {
        let headers = json!({ "authorization": format!("Bearer {}", self.key.text) });
        json!({ "do": "call", "path": CHAT, "headers": headers, "body": body(directive, stream) })
    }

    /// Calls that the upstream got and that ended as `outcome` says.
    fn calls(&self, outcome: &str) -> usize {
        self.shop.upstream.calls().iter().filter(|call| call["outcome"] == outcome).count()
    }

    /// What calls have cost so far, once none is running.
    fn charged(&self) -> u64 {
        let mut shown = Value::Null;
        eventually("no call is running", || {
            shown = self.account();
            shown["open_calls"] == 0
        });
        FUNDS - u64::try_from(usd(&shown["available_usd"])).unwrap()
    }

    fn account(&self) -> Value {
        let (code, stdout, stderr) = run(self.shop.server.command(&["account", BUYER.address]), "");
        assert_eq!(code, 0, "{stderr}");
        serde_json::from_str(&stdout).unwrap()
    }
}

#[test]
fn unmodified_clients_buy_over_http11_and_http2() {
    let secure = Secure::open(&Settings::default());
    let url = secure.shop.server.url();
    let ca = secure.authority_file();
    let params = |stream: bool| {
        let messages = json!([{ "role": "user", "content": USAGE }]);
        json!({ "do": "create", "params": { "model": MODEL, "max_tokens": 64, "stream": stream, "messages": messages } })
    };
    for sdk in [Sdk::OpenAiNode, Sdk::OpenAiPython] {
        let environment =
            [("BASE_URL", url.as_str()), ("API_KEY", &secure.key.text), ("NODE_EXTRA_CA_CERTS", &ca), ("SSL_CERT_FILE", &ca)];
        for outcome in sdk.perform(&environment, &[params(false), params(true)]) {
            assert_eq!(outcome["value"]["text"], ANSWER, "{sdk:?}: {outcome}");
        }
    }
    let models = json!({ "do": "call", "method": "GET", "path": "/v1/models" });
    let together = json!({ "do": "calls", "all": [secure.call(USAGE, false), secure.call(USAGE, true), models.clone()] });
    let unpaid = json!({ "do": "call", "path": CHAT, "body": body(USAGE, false) });
    let head = json!({ "do": "call", "method": "HEAD", "path": "/v1/models" });
    let steps = [models, secure.call(USAGE, false), secure.call(USAGE, true), together, unpaid, head];
    let [models, plain, stream, together, unpaid, head] = secure.http2(&[], &steps).try_into().unwrap();
    for answer in [&models, &plain, &stream, &together[0], &together[1], &together[2]] {
        assert_eq!(
            (&answer["status"], &answer["ended"], &answer["protocol"]),
            (&json!(200), &json!("end"), &json!("h2")),
            "{answer}"
        );
        assert!(answer["headers"]["x-request-id"].is_string() && answer["headers"]["date"].is_string(), "{answer}");
        assert!(answer["headers"]["connection"].is_null() && answer["headers"]["transfer-encoding"].is_null());
    }
    assert!(models["text"].as_str().unwrap().contains(MODEL) && plain["text"].as_str().unwrap().contains(ANSWER));
    assert!(stream["text"].as_str().unwrap().ends_with("data: [DONE]\n\n"), "{stream}");
    assert_eq!((&unpaid["status"], unpaid["headers"]["payment-required"].is_string()), (&json!(402), true), "{unpaid}");
    assert_eq!((&head["status"], &head["text"], &head["ended"]), (&json!(200), &json!(""), &json!("end")), "{head}");
    assert_eq!((secure.charged(), secure.shop.served()), (8 * CHARGE, 8));
    secure.shop.close(8 * CHARGE);
}

#[test]
fn a_caller_who_resets_a_stream_has_left_and_its_upstream_hears_it_whatever_it_does() {
    let secure = Secure::open(&Settings::default());
    let leave = |directive: &str, stream: bool, after: usize| {
        let mut step = secure.call(directive, stream);
        step["leave"] = after.into();
        step
    };
    // Before its head, in a silence of a stream, and in one of a plain answer. The connection serves on.
    let silent = "<<fake in=20 out=7 words=5 hang=3>>";
    let steps = [
        leave("<<fake ttfb=60000>>", false, 0),
        leave("<<fake ttfb=60000>>", true, 0),
        leave(silent, true, 1),
        secure.call(USAGE, true),
    ];
    let answers = secure.http2(&[], &steps);
    assert!(answers[..3].iter().all(|answer| answer["ended"] == "left"), "{answers:?}");
    assert_eq!((&answers[3]["ended"], &answers[3]["status"]), (&json!("end"), &json!(200)));
    eventually("the upstream is let go", || secure.calls("client_gone") + secure.calls("hang") >= 3);
    let charged = secure.charged();
    assert!(charged > CHARGE && charged < 2 * CHARGE, "what passed is charged, and nothing else: {charged}");
    assert_eq!(secure.shop.served(), 4);
    secure.shop.close(charged);
}

#[test]
fn an_answer_that_breaks_off_ends_in_a_reset_and_never_looks_complete() {
    let secure = Secure::open(&Settings::default());
    let steps = [secure.call("<<fake words=40 cut=6>>", true), secure.call("<<fake cut=40>>", false), secure.call(USAGE, false)];
    let [stream, plain, well] = secure.http2(&[], &steps).try_into().unwrap();
    assert_eq!((&stream["status"], &stream["ended"]), (&json!(200), &json!("reset")), "{stream}");
    let text = stream["text"].as_str().unwrap();
    assert!(text.contains("\"error\"") && !text.contains("[DONE]"), "{text}");
    assert!(plain["ended"] == "reset" || plain["status"] != 200, "{plain}");
    assert_eq!((&well["status"], &well["ended"]), (&json!(200), &json!("end")), "the connection serves on");
    let charged = secure.charged();
    secure.shop.close(charged);
}

#[test]
fn who_takes_nothing_of_an_answer_is_cut() {
    let settings = Settings { limits: vec!["body_seconds = 4".into()], ..Settings::default() };
    let secure = Secure::open(&settings);
    let models = json!({ "do": "call", "method": "GET", "path": "/openapi.json" });
    let all = [models, secure.call("<<fake in=20 words=3000>>", true)];
    let unread = secure.http2(&[("WINDOW", "0")], &[json!({ "do": "calls", "all": all })]).remove(0);
    for answer in unread.as_array().unwrap() {
        assert_eq!((&answer["text"], &answer["ended"]), (&json!(""), &json!("reset")), "{answer}");
    }
    let charged = secure.charged();
    assert!(charged < FUNDS / 2, "it is not charged for what it never took: {charged}");
    secure.shop.close(charged);
}

#[test]
fn a_certificate_that_is_renewed_is_shown_without_a_restart_and_a_bad_one_is_not() {
    let secure = Secure::open(&Settings::default());
    let shown = |protocols: &[&str]| secure.http2(&[], &[json!({ "do": "shown", "protocols": protocols })]).remove(0);
    let first = shown(&["h2", "http/1.1"]);
    assert_eq!((&first["protocol"], &shown(&["http/1.1"])["protocol"]), (&json!("h2"), &json!("http/1.1")), "{first}");

    // As certbot does it: the files change, and nobody says so. A stream that runs is not disturbed.
    let stream = secure.call("<<fake in=20 out=7 words=80 gap=100>>", true);
    std::thread::scope(|scope| {
        let running = scope.spawn(|| secure.http2(&[], &[stream]).remove(0));
        eventually("it has begun", || secure.shop.served() == 1);
        secure.put(&secure.authority.certificate(GOOD));
        eventually("the files are noticed", || secure.shop.server.output().contains("the certificate has changed"));
        let stream = running.join().unwrap();
        assert_eq!((&stream["status"], &stream["ended"]), (&json!(200), &json!("end")), "{stream}");
    });
    let second = shown(&["h2"]);
    assert_ne!(first["serial"], second["serial"]);

    let other = secure.authority.certificate(GOOD);
    secure.shop.server.put("key.pem", &other.1);
    let (code, said) = secure.shop.server.reload();
    assert!(code != 0 && said.contains("the key belongs to another certificate") && said.contains("old one stays"), "{said}");
    assert_eq!(shown(&["h2"])["serial"], second["serial"]);
    secure.put(&other);
    assert_eq!(secure.shop.server.reload().0, 0);
    assert_ne!(shown(&["h2"])["serial"], second["serial"]);
    let charged = secure.charged();
    secure.shop.close(charged);
}

#[test]
fn renewals_under_load_disturb_no_stream_and_newcomers_see_the_new_certificate() {
    let wide = ["per_ip_per_second", "per_ip_burst", "per_account_per_second", "per_account_burst", "streams_per_account"];
    let limits = wide.map(|limit| format!("{limit} = 1000")).to_vec();
    let secure = Secure::open(&Settings { limits, ..Settings::default() });
    let stream = secure.call("<<fake in=20 out=7 words=200 gap=900>>", true);
    let together = json!({ "do": "calls", "all": vec![stream.clone(); 6] });
    std::thread::scope(|scope| {
        let curls: Vec<_> = (0..12).map(|_| scope.spawn(|| secure.curl(&stream))).collect();
        let sessions: Vec<_> =
            (0..2).map(|_| scope.spawn(|| secure.http2(&[], std::slice::from_ref(&together)).remove(0))).collect();
        eventually("all streams run", || secure.shop.served() == 24);
        let mut serials = std::collections::BTreeSet::new();
        for number in 1..=4 {
            let noticed = || secure.shop.server.output().matches("the certificate has changed").count();
            let before = noticed();
            secure.put(&secure.authority.certificate(GOOD));
            // As certbot does it, and as an operator does who does not wait.
            if number % 2 == 0 {
                assert_eq!(secure.shop.server.reload().0, 0);
            } else {
                eventually("the files are noticed", || noticed() > before);
            }
            let shown = |protocol: &str| json!({ "do": "shown", "protocols": [protocol] });
            let [h2, http11] = secure.http2(&[], &[shown("h2"), shown("http/1.1")]).try_into().unwrap();
            assert_eq!((&h2["protocol"], &http11["protocol"]), (&json!("h2"), &json!("http/1.1")));
            assert_eq!(h2["serial"], http11["serial"]);
            assert!(serials.insert(h2["serial"].as_str().unwrap().to_owned()), "newcomers see the new one");
        }
        assert!(secure.shop.upstream.calls().iter().any(|call| call["outcome"] != "done"), "streams outlasted all renewals");
        secure.shop.upstream.hurry();
        for curl in curls {
            let (code, text, said) = curl.join().unwrap();
            assert!(code == 0 && text.ends_with("data: [DONE]\n\n1.1 200"), "{code}: {text} {said}");
        }
        for answer in sessions.into_iter().flat_map(|session| session.join().unwrap().as_array().unwrap().clone()) {
            let whole = answer["text"].as_str().is_some_and(|text| text.ends_with("data: [DONE]\n\n"));
            assert!(whole && answer["ended"] == "end" && answer["protocol"] == "h2", "{answer}");
        }
    });
    assert_eq!((secure.charged(), secure.shop.served()), (24 * CHARGE, 24));
    secure.shop.close(24 * CHARGE);
}

#[test]
fn a_certificate_that_cannot_be_used_is_refused_at_the_start_in_words() {
    use std::os::unix::fs::PermissionsExt as _;
    let secure = Secure::open(&Settings::default());
    let good = secure.authority.certificate(GOOD);
    let start = |why: &str| {
        let (code, _, stderr) = run(secure.shop.server.command(&["serve"]), "");
        assert!(code == 78 && stderr.contains("server.tls: ") && stderr.contains(why), "{why}: {code} {stderr}");
    };
    secure.put(&(good.0.clone(), secure.authority.certificate(GOOD).1));
    start("the key belongs to another certificate");
    secure.put(&(String::new(), good.1.clone()));
    start("there is no certificate in it");
    secure.put(&(good.0.clone(), "nothing".into()));
    start("no private key");
    secure.put(&good);
    let key = secure.shop.server.data_dir().with_file_name("key.pem");
    std::fs::set_permissions(&key, std::fs::Permissions::from_mode(0o644)).unwrap();
    start("can be read by others");
    std::fs::remove_file(&key).unwrap();
    start("key.pem: No such file");
    secure.shop.close(0);
}

#[test]
fn a_certificate_that_was_not_renewed_is_told_of_before_its_end_and_after_it_and_mended_by_its_files_alone() {
    let mut secure = Secure::open(&Settings { server: vec!["metrics = \"127.0.0.1:0\"".into()], ..Settings::default() });
    let check = |secure: &Secure| {
        let (code, stdout, _) = run(secure.shop.server.command(&["check"]), "");
        (code, stdout.lines().find(|line| line.contains("server.tls: ")).expect("it is looked at").to_owned())
    };
    let ask = |secure: &Secure, path: &str| {
        let output = secure.shop.server.output();
        let (_, rest) = output.rsplit_once("metrics   on http://").unwrap();
        http::send(rest.split('/').next().unwrap(), &http::Request::get(path)).unwrap()
    };
    let end = |secure: &Secure| {
        let page = ask(secure, "/metrics").text();
        let line = page.lines().find_map(|line| line.strip_prefix("farebox_certificate_expiry_timestamp_seconds "));
        line.expect("its end is among the numbers").to_owned()
    };
    assert_eq!((end(&secure).as_str(), ask(&secure, "/readyz").status), ("3786912000", 200), "the year 2090");
    let (code, said) = check(&secure);
    assert!(code == 0 && said.starts_with("ok ") && said.contains("is good until 2090"), "{code} {said}");
    assert!(!secure.shop.server.output().contains("was not renewed"));

    // Ten days before its end: once a day, however often it is looked at.
    wait_out_midnight();
    secure.put(&secure.authority.certificate_for(TEN_DAYS));
    secure.shop.server.has_said("full.pem was not renewed");
    let (code, said) = check(&secure);
    assert!(code == 0 && said.starts_with("warning ") && said.contains("certbot renew"), "{code} {said}");
    assert_eq!(ask(&secure, "/readyz").status, 200, "it is good");
    let count = |words: &str| secure.shop.server.output().matches(words).count();
    for looks in 2..=3 {
        secure.put(&secure.authority.certificate_for(TEN_DAYS));
        eventually("it is looked at", || count("the certificate has changed") == looks);
    }
    assert_eq!(count("the certificate expires on"), 1);
    secure.shop.server.move_clock(24 * 60 * 60);
    eventually("the next day", || count("the certificate expires on") == 2);
    secure.shop.server.move_clock(0);

    // A start after its end waits for the files, and needs nobody else.
    secure.put(&secure.authority.certificate(2020..2021));
    secure.shop.server.restart();
    secure.shop.server.has_said("the certificate has expired on 2021-01-01");
    let (code, said) = check(&secure);
    assert!(code == 1 && said.starts_with("FAILURE ") && said.contains("has expired on 2021-01-01"), "{code} {said}");
    let ready = ask(&secure, "/readyz");
    assert!(ready.status == 503 && ready.text().contains("full.pem was not renewed"), "{}", ready.text());
    assert_eq!(end(&secure), "1609459200");
    assert_eq!(secure.shop.server.reload().0, 0, "it stands in the way of no other change");
    secure.put(&secure.authority.certificate(GOOD));
    eventually("the files are noticed", || ask(&secure, "/readyz").status == 200);
    let answer = secure.http2(&[], &[secure.call(USAGE, true)]).remove(0);
    assert_eq!((&answer["status"], &answer["ended"]), (&json!(200), &json!("end")), "{answer}");
    assert_eq!(secure.charged(), CHARGE);
    secure.shop.close(CHARGE);
}

#[test]
fn a_stop_lets_streams_of_http2_end() {
    let mut secure = Secure::open(&Settings::default());
    let stream = secure.call("<<fake in=20 out=7 words=40 gap=100>>", true);
    let answer = std::thread::scope(|scope| {
        let running = scope.spawn(|| secure.http2(&[], &[stream]).remove(0));
        eventually("it has begun", || secure.shop.served() == 1);
        secure.shop.server.signal();
        running.join().unwrap()
    });
    assert_eq!((&answer["status"], &answer["ended"]), (&json!(200), &json!("end")), "{answer}");
    assert!(answer["text"].as_str().unwrap().ends_with("data: [DONE]\n\n"));
    secure.shop.server.wait_exit();
    secure.shop.close(CHARGE);
}
