//! Behind real nginx and real Caddy, as the shipped snippets set them up: the clients buy, events come one by one, and a caller
//! that leaves is noticed.

use std::fs;
use std::path::Path;
use std::process::Command;

use farebox_rig::anvil::{Anvil, BUYER};
use farebox_rig::buyer::{Client, Order};
use farebox_rig::http::{self, Request};
use farebox_rig::process::{Process, eventually, free_port};
use farebox_rig::sdk::Sdk;
use farebox_rig::server::Settings;
use serde_json::json;
use tempfile::TempDir;

use crate::shop::{CHARGE, CHAT, FIVE, Shop, USAGE, body, with_key};

/// A proxy that runs, and where.
struct Proxy {
    address: String,
    _process: Process,
    _folder: TempDir,
}

#[derive(Clone, Copy, Debug)]
enum Kind {
    Nginx,
    Caddy,
}

fn snippet(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts").join(name)).unwrap()
}

/// The text with one thing changed that stands there.
fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the snippet has {from:?}");
    text.replace(from, to)
}

impl Proxy {
    /// Stands before `behind` on this port, without TLS and with everything else as it is shipped.
    fn start(kind: Kind, port: u16, behind: &str) -> Proxy {
        let folder = TempDir::new().unwrap();
        let address = format!("127.0.0.1:{port}");
        let process = match kind {
            Kind::Nginx => nginx(folder.path(), &address, behind),
            Kind::Caddy => caddy(folder.path(), &address, behind),
        };
        eventually("the proxy answers", || {
            http::send(&address, &Request::get("/healthz")).is_ok_and(|answer| answer.status == 200)
        });
        Proxy { address, _process: process, _folder: folder }
    }
}

fn nginx(folder: &Path, address: &str, behind: &str) -> Process {
    let text = with(&snippet("nginx.conf"), "127.0.0.1:4020", behind);
    let text = with(&text, "    listen 443 ssl;\n    listen [::]:443 ssl;\n", &format!("    listen {address};\n"));
    let tls = text.lines().filter(|line| line.trim_start().starts_with("ssl_certificate")).count();
    assert_eq!(tls, 2);
    let text: String =
        text.lines().filter(|line| !line.trim_start().starts_with("ssl_certificate")).map(|line| format!("{line}\n")).collect();
    let here = folder.display();
    let whole = format!(
        "daemon off;\nworker_processes 1;\npid {here}/pid;\nerror_log {here}/error.log;\nevents {{ worker_connections 512; }}\nhttp {{\n\
         access_log off;\nclient_body_temp_path {here}/body;\nproxy_temp_path {here}/proxy;\nfastcgi_temp_path {here}/fastcgi;\n\
         uwsgi_temp_path {here}/uwsgi;\nscgi_temp_path {here}/scgi;\n{text}}}\n"
    );
    fs::write(folder.join("nginx.conf"), whole).unwrap();
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf")).args(["-g", "master_process off;"]);
    Process::spawn(command)
}

fn caddy(folder: &Path, address: &str, behind: &str) -> Process {
    let text = with(&snippet("Caddyfile"), "127.0.0.1:4020", behind);
    let text = with(&text, "\nyour.name {", &format!("\nhttp://{address} {{"));
    fs::write(folder.join("Caddyfile"), format!("{{\n\tadmin off\n}}\n{text}")).unwrap();
    let mut command = Command::new("caddy");
    command.args(["run", "--adapter", "caddyfile", "--config"]).arg(folder.join("Caddyfile"));
    command.env("HOME", folder).env("XDG_DATA_HOME", folder).env("XDG_CONFIG_HOME", folder);
    Process::spawn(command)
}

/// A shop that callers see at the proxy's address.
fn behind(kind: Kind) -> (Shop, Proxy) {
    let port = free_port();
    let server = vec![format!("public_url = \"http://127.0.0.1:{port}\""), "trusted_proxies = [\"127.0.0.1/32\"]".into()];
    let shop = Shop::on(Anvil::start(8453), Settings { server, ..Settings::default() });
    let proxy = Proxy::start(kind, port, shop.server.address());
    (shop, proxy)
}

fn clients_buy(kind: Kind) {
    let (mut shop, proxy) = behind(kind);
    let url = format!("http://{}", proxy.address);
    let asked = Request::post(CHAT, body(USAGE, false));
    let (direct, through) = (shop.server.send(&asked), http::send(&proxy.address, &asked).unwrap());
    assert_eq!((direct.status, through.status), (402, 402), "{}", through.text());
    // All of it but the invitation to sign in, which is fresh each time.
    let offer = |answer: &http::Answer| {
        let mut offer = answer.decoded("payment-required").expect("the offer fits");
        offer.as_object_mut().unwrap().remove("extensions").expect("an invitation to sign in");
        offer
    };
    assert_eq!(offer(&through), offer(&direct), "the offer passes unchanged");
    for client in Client::ALL {
        for stream in [false, true] {
            let text = body(USAGE, stream);
            let order = Order { base_url: &url, route: CHAT, body: &text, wallet: BUYER, max_value_usd: "0.5" };
            let before: u64 = shop.chain.transfers().iter().map(|it| it.value).sum();
            let bought = client.buy(&order);
            assert_eq!(
                (&bought["status"], &bought["text"]),
                (&200.into(), &"hello wallet".into()),
                "{kind:?} {client:?}: {bought}"
            );
            let after: u64 = shop.chain.transfers().iter().map(|it| it.value).sum();
            shop.came_in(after - before, CHARGE);
        }
    }
    let key = shop.key();
    let messages = json!([{ "role": "user", "content": USAGE }]);
    for sdk in [Sdk::OpenAiNode, Sdk::OpenAiPython, Sdk::AnthropicNode, Sdk::AnthropicPython] {
        let step = |stream: bool| {
            let params = json!({ "model": "test-model", "max_tokens": 256, "stream": stream, "messages": messages });
            json!({ "do": "create", "params": params })
        };
        let outcomes = sdk.perform(&[("BASE_URL", &url), ("API_KEY", &key.text)], &[step(false), step(true)]);
        assert!(outcomes.iter().all(|outcome| outcome.get("error").is_none()), "{kind:?} {sdk:?}: {outcomes:?}");
        shop.came_in(0, 2 * CHARGE);
    }
    shop.close();
}

fn events_come_one_by_one(kind: Kind) {
    let (mut shop, proxy) = behind(kind);
    let key = shop.key();
    let prompt = "<<fake in=20 out=7 words=12 gap=150>>";
    let mut stream = http::open(&proxy.address, &with_key(&key, prompt, true)).unwrap();
    assert_eq!(stream.status, 200);
    let header = |name: &str| stream.headers.iter().find(|(it, _)| it == name).map(|(_, value)| value.clone());
    assert!(header("content-type").is_some_and(|kind| kind.starts_with("text/event-stream")), "{:?}", stream.headers);
    assert!(header("x-request-id").is_some() && header("x-balance-remaining").is_some() && header("content-encoding").is_none());
    let (mut pieces, mut text) = (0, Vec::new());
    while let Some(piece) = stream.next_chunk() {
        if pieces == 1 {
            let done = shop.upstream.calls().iter().any(|call| call["outcome"] == "done");
            assert!(!done, "{kind:?}: the first events came while the upstream had more to say");
        }
        pieces += 1;
        text.extend(piece);
    }
    assert!(stream.complete && String::from_utf8_lossy(&text).ends_with("data: [DONE]\n\n"));
    assert!(pieces >= 8, "{kind:?}: twelve words came in {pieces} pieces");

    // A caller that hangs up at the proxy is noticed, and pays for what passed.
    let mut stream = http::open(&proxy.address, &with_key(&key, "<<fake in=20 words=400 gap=100>>", true)).unwrap();
    assert!(stream.next_chunk().is_some());
    drop(stream);
    shop.server.has_said("the client left; charged");
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    let left = books.balance(BUYER.address);
    assert!(left < FIVE - CHARGE && left > FIVE - CHARGE - 400 * 15, "what passed was charged: {left}");
}

fn a_broken_answer_never_looks_complete(kind: Kind) {
    let (mut shop, proxy) = behind(kind);
    let key = shop.key();
    let answer = http::send(&proxy.address, &with_key(&key, "<<fake in=20 words=40 cut=3>>", true)).unwrap();
    let text = answer.text();
    assert!(answer.status == 200 && !text.contains("[DONE]"), "{kind:?}: {text}");
    assert!(text.lines().any(|line| line.starts_with("data: ") && line.contains("upstream_error")), "it says so itself: {text}");
    // Caddy of Debian ends what broke off behind it as if it were whole: there only the words say it.
    if let Kind::Nginx = kind {
        assert!(!answer.complete, "nor does it end like a whole one: {text}");
    }
    let large = Request::post(CHAT, body(&"x".repeat(33 * 1024 * 1024), false));
    let refused = http::send(&proxy.address, &large);
    assert!(refused.is_err() || refused.is_ok_and(|answer| answer.status == 413), "{kind:?}: a body above the limit is refused");
    let books = shop.server.audit();
    assert!(books.clean && books.balance(BUYER.address) <= FIVE, "{:#}", books.json);
}

#[test]
fn the_clients_buy_through_nginx() {
    clients_buy(Kind::Nginx);
}

#[test]
fn the_clients_buy_through_caddy() {
    clients_buy(Kind::Caddy);
}

#[test]
fn events_come_one_by_one_through_nginx() {
    events_come_one_by_one(Kind::Nginx);
}

#[test]
fn events_come_one_by_one_through_caddy() {
    events_come_one_by_one(Kind::Caddy);
}

#[test]
fn a_broken_answer_is_broken_through_nginx() {
    a_broken_answer_never_looks_complete(Kind::Nginx);
}

#[test]
fn a_broken_answer_is_broken_through_caddy() {
    a_broken_answer_never_looks_complete(Kind::Caddy);
}
