//! Bad days at the start: a disk that cannot be written, a clock that is an hour off, nodes and upstreams that are gone. Each is
//! one clear sentence and the right exit code, costs nobody anything, and is over when its cause is.

use std::process::Command;

use farebox_rig::anvil::{Anvil, BUYER};
use farebox_rig::http::Request;
use farebox_rig::line::Line;
use farebox_rig::process::{eventually, run};
use farebox_rig::server::Settings;

use crate::shop::{CHARGE, CHAT, FIVE, Shop, USAGE, body, with_key};

/// The command in a mount of its own, in which one folder is read-only, whoever the user is.
fn read_only(command: &Command, folder: &std::path::Path) -> Command {
    let shown = folder.display();
    let script = format!("mount --bind '{shown}' '{shown}' && mount -o remount,ro,bind '{shown}' && exec \"$@\"");
    let mut inside = Command::new("unshare");
    inside.args(["--map-root-user", "--mount", "sh", "-c", &script, "sh"]);
    inside.arg(command.get_program()).args(command.get_args()).current_dir(command.get_current_dir().unwrap());
    for (name, value) in command.get_envs() {
        if let Some(value) = value {
            inside.env(name, value);
        }
    }
    inside
}

#[test]
fn a_data_folder_that_cannot_be_written_is_one_sentence_and_78_and_no_matter_once_it_can() {
    let mut shop = Shop::open();
    let key = shop.key();
    shop.call(&key, USAGE, false, CHARGE);
    assert!(shop.server.audit().clean);
    let data = shop.server.data_dir();
    for arguments in [&["serve"][..], &["check"]] {
        let (code, stdout, stderr) = run(read_only(&shop.server.command(arguments), &data), "");
        let said = format!("{stdout}{stderr}");
        let expected = if arguments == ["serve"] { 78 } else { 1 };
        assert_eq!(code, expected, "{arguments:?}: {said}");
        let lines: Vec<_> = said.lines().filter(|line| line.contains("ead-only")).collect();
        assert_eq!(lines.len(), 1, "{arguments:?}: one sentence:\n{said}");
        assert!(lines[0].contains(data.to_str().unwrap()), "{arguments:?}: it names the folder: {}", lines[0]);
        assert!(!said.contains("panicked") && !said.contains("listening"), "{said}");
    }
    shop.server.restart();
    shop.call(&key, USAGE, false, CHARGE);
    shop.close();
}

#[test]
fn a_clock_that_is_an_hour_off_at_the_start_is_told_and_nobody_pays_until_it_is_right() {
    for seconds in [3600, -3600] {
        let mut shop = Shop::open();
        shop.server.move_clock(seconds);
        shop.server.restart();
        let ready = shop.ask("/readyz");
        let why = ready.json()["waits_for"][0]["why"].as_str().unwrap().to_owned();
        assert!(ready.status == 503 && why.contains("clock") && why.contains("set the clock"), "{why}");
        let (code, stdout, _) = run(shop.server.command(&["check"]), "");
        assert!(code == 1 && stdout.contains("set the clock"), "{stdout}");
        let answer = shop.server.send(&Request::post(CHAT, body(USAGE, false)));
        assert_eq!(answer.header("payment-required"), None, "nothing is offered: {}", answer.text());
        assert_eq!(shop.chain.transfers(), []);
        shop.server.move_clock(0);
        eventually("payments are taken again", || shop.ask("/readyz").status == 200);
        shop.top_up(FIVE);
        shop.close();
    }
}

#[test]
fn a_node_and_an_upstream_that_are_gone_at_the_start_are_missed_until_they_are_back() {
    let chain = Anvil::start(8453);
    let node = Line::to(chain.address());
    node.cut();
    let upstream = farebox_rig::upstream::Upstream::start();
    let line = Line::to(upstream.url().trim_start_matches("http://"));
    line.cut();
    let failover = ["failures = 1", "pause_ms = 200", "longest_pause_ms = 200"].map(str::to_owned).to_vec();
    let settings = Settings { rpc_urls: vec![node.url()], upstream_url: Some(line.url()), failover, ..Settings::default() };
    let mut shop = Shop::on(chain, settings);
    assert_eq!(shop.server.send(&Request::get("/healthz")).status, 200, "it lives, and says what is missing");
    assert_eq!(shop.ask("/readyz").json()["waits_for"][0]["part"], "network eip155:8453");
    shop.server.has_said("nothing is sold on eip155:8453");
    let warned = |text: &str| shop.server.output().lines().filter(|line| line.contains(text)).count();
    assert_eq!(warned("nothing is sold on eip155:8453"), 1, "one sentence");
    assert_eq!(shop.server.send(&Request::post(CHAT, body(USAGE, false))).header("payment-required"), None);
    node.mend();
    eventually("payments are taken", || shop.numbers().get("farebox_network_ready{network=\"eip155:8453\"}") == "1");
    let key = shop.key();
    let answer = shop.server.send(&with_key(&key, USAGE, false));
    assert!(answer.status >= 502, "{}", answer.text());
    assert_eq!(shop.buyer().available(), i64::try_from(FIVE).unwrap(), "nothing was charged");
    line.mend();
    eventually("calls are served", || shop.server.send(&with_key(&key, USAGE, false)).status == 200);
    shop.came_in(0, CHARGE);
    let books = shop.server.audit();
    assert!(books.clean, "{:#}", books.json);
    assert_eq!(books.balance(BUYER.address), FIVE - CHARGE);
}
