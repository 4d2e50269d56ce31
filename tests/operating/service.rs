//! The unit under a real systemd, installed for real: it is started, reloaded, updated, stopped and killed, and ends as it should.

use std::thread;

use farebox_rig::anvil::BUYER;
use farebox_rig::http::{self, Request};
use farebox_rig::process::eventually;
use farebox_rig::secure::Authority;

use crate::installed::{CONFIG, Installed, becomes, put_release};
use crate::shop::{CHARGE, CHAT, FIVE, USAGE, body};

/// A call with a key.
fn keyed(key: &str, prompt: &str, stream: bool) -> Request {
    Request::post(CHAT, body(prompt, stream)).header("authorization", &format!("Bearer {key}"))
}

#[test]
fn an_installation_is_a_hardened_service_that_sells() {
    let installed = Installed::new();
    let machine = &installed.machine;
    for (path, rights) in [
        ("/etc/farebox", "750 root farebox"),
        (CONFIG, "640 root farebox"),
        ("/etc/farebox/secrets.env", "600 root root"),
        ("/var/lib/farebox", "700 farebox farebox"),
        ("/usr/local/bin/farebox", "755 root root"),
        ("/etc/systemd/system/farebox.service", "644 root root"),
    ] {
        assert_eq!(machine.must(&format!("stat -c '%a %U %G' {path}")).trim(), rights, "{path}");
    }
    let user = machine.must("getent passwd farebox");
    assert!(user.trim().ends_with(":/var/lib/farebox:/usr/sbin/nologin"), "{user}");
    assert_eq!(machine.must("systemctl is-enabled farebox").trim(), "enabled", "it starts with the machine");
    assert_eq!(installed.property("ActiveState"), "inactive", "nothing is sold before its operator says so");
    // The second step that the installation names.
    let (code, said) = installed.operator("check");
    assert_eq!(code, 0, "{said}");

    machine.must("systemctl start farebox");
    // It is active from when callers are served: nothing is waited for.
    installed.serves();
    let key = installed.key(FIVE);
    let (request, amount) = installed.paid(&[USAGE], false).remove(0);
    for request in [&request, &keyed(&key, USAGE, false), &keyed(&key, USAGE, true)] {
        let answer = installed.send(request);
        assert!(answer.status == 200 && answer.complete, "{}", answer.text());
    }
    let security = machine.must("systemd-analyze security --no-pager --threshold=20 farebox.service");
    assert!(security.contains("Overall exposure level for farebox.service"), "{security}");
    let status = machine.must("systemctl status --no-pager --lines=50 farebox");
    assert!(status.contains("active (running)") && status.contains("listening on http://"), "{status}");
    assert!(installed.journal().contains("outcome"), "a line for each sale");
    assert_eq!(installed.property("NRestarts"), "0");
    installed.close(FIVE + amount, 3 * CHARGE);
}

/// What somebody who had taken the service over would try; true where it works.
const BREAK_OUT: [(&str, bool, &str); 9] = [
    ("write its books", true, "touch /var/lib/farebox/probe && rm /var/lib/farebox/probe"),
    ("reach a node on this machine", true, "echo x >/dev/udp/127.0.0.1/9"),
    ("ask the cloud for the credentials of the machine", false, "echo x >/dev/udp/169.254.169.254/80"),
    ("read all secrets", false, "cat /etc/farebox/secrets.env"),
    ("change the configuration", false, "test -w /etc/farebox/config.toml"),
    ("change its program", false, "test -w /usr/local/bin/farebox"),
    ("see homes", false, "ls /home || ls /root"),
    ("see other processes", false, "ls -d /proc/1"),
    ("make namespaces", false, "unshare --user true"),
];

#[test]
fn who_took_the_service_over_could_do_little_with_it() {
    let installed = Installed::new();
    let machine = &installed.machine;
    let tries = BREAK_OUT
        .map(|(what, _, line)| format!("if ( {line} ) >/dev/null 2>&1; then echo 'can {what}'; else echo 'cannot {what}'; fi\n"));
    std::fs::write(machine.shared().join("probe"), tries.concat()).unwrap();
    // All of it works where nothing stands against it; but for the cloud, which need not be there.
    let said = machine.must("bash /srv/farebox/probe");
    assert!(BREAK_OUT.iter().all(|(what, ..)| said.contains(&format!("can {what}\n")) || what.contains("cloud")), "{said}");
    // Before the program itself, under all that the unit says.
    installed.drop_in("ExecStartPre=/bin/bash /srv/farebox/probe");
    machine.must("systemctl start farebox");
    let journal = installed.journal();
    for (what, works, _) in BREAK_OUT {
        let expected = if works { format!(": can {what}\n") } else { format!(": cannot {what}\n") };
        assert!(journal.contains(&expected), "{expected}{journal}");
    }
    installed.serves();
    installed.close(0, 0);
}

#[test]
fn a_second_installation_updates_the_program_and_keeps_configuration_secrets_and_books() {
    let installed = Installed::started();
    let machine = &installed.machine;
    let key = installed.key(FIVE);
    assert_eq!(installed.send(&keyed(&key, USAGE, false)).status, 200);
    let kept =
        "sha256sum /etc/farebox/config.toml /etc/farebox/secrets.env /etc/farebox/upstream.key /var/lib/farebox/keys.pepper";
    let (before, process) = (machine.must(kept), installed.property("MainPID"));
    let (started, enabled) = (machine.must("sha256sum </usr/local/bin/farebox"), "systemctl is-enabled farebox");
    // Another version: a byte behind the end of a program changes nothing that it does.
    put_release(&machine.shared(), |folder| {
        let program = folder.join("target/release/farebox");
        let mut bytes = std::fs::read(&program).unwrap();
        bytes.push(0);
        std::fs::write(program, bytes).unwrap();
    });
    let slow = installed.paid(&["<<fake in=20 out=7 words=20 gap=100>>"], true).remove(0);
    let answer = thread::scope(|scope| {
        let running = scope.spawn(|| installed.send(&slow.0));
        eventually("it has begun", || installed.upstream.calls().len() == 2);
        let said = machine.must("/srv/farebox/scripts/install");
        assert!(said.contains("is installed"), "{said}");
        running.join().unwrap()
    });
    assert_eq!((answer.status, answer.complete), (200, true), "a call that ran was served: {}", answer.text());
    installed.serves();
    assert_ne!(installed.property("MainPID"), process, "the new program runs");
    assert_ne!(machine.must("sha256sum </usr/local/bin/farebox"), started);
    let running = format!("sha256sum </proc/{}/exe", installed.property("MainPID"));
    assert_eq!(machine.must(&running), machine.must("sha256sum </usr/local/bin/farebox"));
    assert_eq!((machine.must(kept), machine.must(enabled).trim()), (before, "enabled"));
    assert_eq!(machine.must("stat -c '%a %U %G' /etc/farebox/config.toml.shipped").trim(), "640 root farebox");
    assert_eq!(installed.send(&keyed(&key, USAGE, false)).status, 200, "its key and balance are as they were");
    installed.close(FIVE + slow.1, 3 * CHARGE);
}

#[test]
fn an_update_whose_program_does_not_start_says_so() {
    let installed = Installed::started();
    put_release(&installed.machine.shared(), |folder| {
        // It answers for its version, and that is all.
        std::fs::write(folder.join("target/release/farebox"), "#!/bin/sh\n[ \"$1\" = --version ] && echo broken || exit 78\n")
            .unwrap();
    });
    let (code, said) = installed.machine.run("/srv/farebox/scripts/install");
    assert!(code != 0 && said.contains("does not start") && said.contains("journalctl -u farebox"), "{code}: {said}");
    put_release(&installed.machine.shared(), |_| ());
    installed.machine.must("/srv/farebox/scripts/install && systemctl restart farebox");
    installed.serves();
    installed.close(0, 0);
}

#[test]
fn a_reload_changes_prices_under_a_stream_and_a_bad_one_fails_and_changes_nothing() {
    let installed = Installed::started();
    let machine = &installed.machine;
    let key = installed.key(FIVE);
    let process = installed.property("MainPID");
    let slow = keyed(&key, "<<fake in=20 out=7 words=30 gap=100>>", true);
    let mut stream = http::open(&installed.address, &slow).unwrap();
    assert!(stream.next_chunk().is_some(), "it has begun");
    installed.configure(|text| text.replace("input = \"3\", output = \"15\"", "input = \"6\", output = \"30\""));
    machine.must("systemctl reload farebox");
    assert_eq!(installed.send(&keyed(&key, USAGE, false)).status, 200);
    installed.configure(|text| text.replace("output = \"15\"", "output = \"dear\""));
    let (code, said) = machine.run("systemctl reload farebox");
    assert_ne!(code, 0, "{said}");
    assert!(installed.journal().contains("price.output"), "the journal says what is wrong with it");
    installed.configure(|text| text);
    installed.serves();
    assert_eq!(installed.send(&keyed(&key, USAGE, false)).status, 200);
    while stream.next_chunk().is_some() {}
    assert!(stream.complete, "the stream went on");
    assert_eq!((installed.property("MainPID"), installed.property("NRestarts")), (process, "0".into()));
    installed.close(FIVE, CHARGE + 2 * 2 * CHARGE);
}

#[test]
fn restarts_and_stops_under_load_lose_no_money() {
    let installed = Installed::started();
    let key = installed.key(FIVE);
    let slow = "<<fake in=20 out=7 words=20 gap=100>>";
    let (mut paid, mut charged) = (FIVE, 0);
    for verb in ["restart", "stop"] {
        let mut requests = installed.paid(&[slow; 6], true);
        paid += requests.iter().map(|(_, amount)| amount).sum::<u64>();
        requests.extend((0..6).map(|_| (keyed(&key, slow, true), 0)));
        let before = installed.upstream.calls().len();
        thread::scope(|scope| {
            let callers: Vec<_> = requests.iter().map(|(request, _)| scope.spawn(|| installed.send(request))).collect();
            eventually("all are at the upstream", || installed.upstream.calls().len() == before + requests.len());
            installed.machine.must(&format!("systemctl {verb} farebox"));
            for caller in callers {
                let answer = caller.join().unwrap();
                assert_eq!((answer.status, answer.complete), (200, true), "{verb}: {}", answer.text());
            }
        });
        charged += requests.len() as u64 * CHARGE;
    }
    assert_eq!(installed.property("Result"), "success", "{}", installed.journal());
    installed.machine.must("systemctl start farebox");
    assert_eq!(installed.send(&keyed(&key, USAGE, false)).status, 200);
    installed.close(paid, charged + CHARGE);
}

#[test]
fn what_a_start_cannot_change_is_not_tried_again_and_what_it_can_is() {
    let installed = Installed::started();
    let machine = &installed.machine;
    let key = installed.key(FIVE);
    assert_eq!(installed.send(&keyed(&key, USAGE, false)).status, 200);
    eventually("the call is on disk", || installed.operator(&format!("account {}", BUYER.address)).1.contains("req_"));

    machine.must("systemctl kill --signal=KILL farebox");
    eventually("it was started again", || {
        installed.property("NRestarts") == "1" && installed.property("ActiveState") == "active"
    });
    installed.serves();
    assert_eq!(installed.send(&keyed(&key, USAGE, false)).status, 200, "with all that it had");

    installed.configure(|text| text.replace("output = \"15\"", "output = \"dear\""));
    let (code, said) = machine.run("systemctl restart farebox");
    assert_ne!(code, 0, "whoever starts it is told: {said}");
    becomes(&installed, "failed");
    let ended = ["Result", "ExecMainStatus", "NRestarts"].map(|name| installed.property(name));
    assert_eq!(ended, ["exit-code", "78", "0"], "it is not tried again");
    let journal = installed.journal();
    let told: Vec<_> = journal.lines().filter(|line| line.contains("the configuration cannot be used")).collect();
    assert!(told.len() == 1 && told[0].contains("price.output"), "{told:?}");

    installed.configure(|text| text);
    machine.must("systemctl start farebox");
    installed.serves();
    installed.close(FIVE, 2 * CHARGE);
}

#[test]
fn a_start_whose_address_somebody_else_has_is_tried_again_until_it_is_free() {
    let installed = Installed::new();
    let taken = std::net::TcpListener::bind(&installed.address).unwrap();
    installed.drop_in("RestartSec=100ms");
    let (code, said) = installed.machine.run("systemctl start farebox");
    assert_ne!(code, 0, "whoever starts it is told: {said}");
    eventually("it is tried again", || installed.property("NRestarts").parse::<u32>().unwrap() > 1);
    let journal = installed.journal();
    assert!(journal.contains("status=70") && journal.contains("cannot listen on"), "{journal}");
    assert!(!journal.contains("not closed cleanly"), "its books need no repair each time: {journal}");
    drop(taken);
    eventually("it is there", || installed.property("ActiveState") == "active");
    installed.serves();
    installed.close(0, 0);
}

#[test]
fn books_where_the_unit_may_not_write_are_refused_in_one_sentence_that_says_what_to_do() {
    let installed = Installed::new();
    let machine = &installed.machine;
    for (place, why) in [("/srv/books", "Read-only file system"), ("/home/books", "Permission denied")] {
        machine.must(&format!("install -d -o farebox -g farebox -m 0700 {place}"));
        installed.configure(|text| text.replace("/var/lib/farebox", place));
        let (code, said) = machine.run("systemctl start farebox");
        assert_ne!(code, 0, "{said}");
        becomes(&installed, "failed");
        assert_eq!((installed.property("ExecMainStatus").as_str(), installed.property("NRestarts").as_str()), ("78", "0"));
        let journal = installed.journal();
        let told: Vec<_> = journal.lines().filter(|line| line.contains(place)).collect();
        assert_eq!(told.len(), 1, "{journal}");
        assert!(told[0].contains(why) && told[0].contains("ReadWritePaths="), "{}", told[0]);
    }
    // As it says.
    installed.configure(|text| text.replace("/var/lib/farebox", "/srv/books"));
    installed.drop_in("ReadWritePaths=/srv/books");
    machine.must("systemctl start farebox");
    installed.serves();
    installed.close(0, 0);
}

#[test]
fn straight_on_tls_it_opens_a_low_port_once_the_unit_says_so_and_stays_hardened() {
    let mut installed = Installed::new();
    let port = (200..1000).rev().find(|port| std::net::TcpListener::bind(("127.0.0.1", *port)).is_ok()).expect("a port");
    installed.address = format!("127.0.0.1:{port}");
    let machine = &installed.machine;
    let authority = Authority::new();
    let (certificate, key) = authority.certificate(2020..2090);
    for (name, text) in [("full.pem", &certificate), ("key.pem", &key), ("authority.pem", &authority.pem().to_owned())] {
        std::fs::write(machine.shared().join(name), text).unwrap();
        machine.must(&format!("install -o farebox -g farebox -m 0600 /srv/farebox/{name} /etc/farebox/{name}"));
    }
    installed
        .configure(|text| text.replace("[server]", "[server]\ntls = { certificate = \"full.pem\", key = \"file:key.pem\" }"));
    let (code, _) = machine.run("systemctl start farebox");
    let free_from: u16 = machine.must("cat /proc/sys/net/ipv4/ip_unprivileged_port_start").trim().parse().unwrap();
    assert_eq!(code != 0, free_from > port, "the unit alone gives no right to it: {}", installed.journal());
    if code != 0 {
        let journal = installed.journal();
        assert!(journal.contains("cannot listen on") && journal.contains("CAP_NET_BIND_SERVICE"), "{journal}");
    }
    // The lines that the unit names.
    let unit = machine.must("cat /etc/systemd/system/farebox.service");
    let named: Vec<_> = unit.lines().filter_map(|line| line.strip_prefix("#   ")).filter(|line| line.contains('=')).collect();
    assert_eq!(named.len(), 3, "{named:?}");
    installed.drop_in(&named.join("\\n"));
    machine.must("systemctl restart farebox");
    let url = format!("https://{}/healthz", installed.address);
    let said = machine
        .must(&format!("curl --silent --show-error --http2 --cacert /etc/farebox/authority.pem -w ' %{{http_version}}' {url}"));
    assert!(said.ends_with(" 2") && said.contains("\"status\":\"ok\""), "{said}");
    machine.must("systemd-analyze security --no-pager --threshold=20 farebox.service");
    installed.close(0, 0);
}

#[test]
fn a_disk_that_is_full_ends_it_with_70_and_it_is_back_as_soon_as_there_is_room_however_late() {
    let installed = Installed::new();
    let machine = &installed.machine;
    machine.must("mount -t tmpfs -o size=3m,mode=0700,uid=$(id -u farebox),gid=$(id -g farebox) tmpfs /var/lib/farebox");
    installed.drop_in("RestartSec=100ms");
    machine.must("systemctl start farebox");
    let key = installed.key(FIVE);
    assert_eq!(installed.send(&keyed(&key, USAGE, false)).status, 200);
    eventually("the call is on disk", || installed.operator(&format!("account {}", BUYER.address)).1.contains("req_"));
    let (code, _) = machine.run("cat /dev/zero >/var/lib/farebox/filler");
    assert_ne!(code, 0, "the disk is full");
    let mut served = 1;
    // Until a write of the books fails, and then more often than any limit of systemd's own allows.
    eventually("it is tried again and again", || {
        let answer = http::send(&installed.address, &keyed(&key, USAGE, false));
        served += u64::from(answer.is_ok_and(|answer| answer.status == 200));
        installed.property("NRestarts").parse::<u32>().unwrap() > 8
    });
    let journal = installed.journal();
    assert!(journal.contains("status=70") && journal.contains("No space left on device"), "{journal}");
    machine.must("rm /var/lib/farebox/filler");
    eventually("it is back", || installed.property("ActiveState") == "active");
    installed.serves();
    let left = installed.balance();
    assert!(
        (FIVE - served * CHARGE..=FIVE - CHARGE).contains(&left),
        "calls of the last moments are its own loss: {left}, {served}"
    );
    assert_eq!(installed.send(&keyed(&key, USAGE, false)).status, 200);
    installed.close(FIVE, FIVE - left + CHARGE);
}
