//! A shop that was installed: `scripts/install` as root under a real systemd, started, watched and stopped as its operator does.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use farebox_rig::account::usd;
use farebox_rig::anvil::{Anvil, BUYER, SETTLER};
use farebox_rig::http::{self, Answer, Request};
use farebox_rig::machine::Machine;
use farebox_rig::process::{eventually, free_port};
use farebox_rig::server::{Books, Settings, configuration};
use farebox_rig::upstream::{UPSTREAM_KEY, Upstream};
use serde_json::Value;

use crate::shop::{paid, payments};

pub const CONFIG: &str = "/etc/farebox/config.toml";

/// A machine on which farebox is installed and sells for a chain and an upstream of the test.
pub struct Installed {
    pub chain: Anvil,
    pub upstream: Upstream,
    pub machine: Machine,
    /// Where callers find it.
    pub address: String,
}

impl Installed {
    /// Installs as README says and writes a configuration; nothing is started.
    pub fn new() -> Installed {
        let (chain, upstream, machine) = (Anvil::start(8453), Upstream::start(), Machine::boot());
        put_release(&machine.shared(), |_| ());
        // As after plain `su`, and from anywhere.
        let said = machine.must("cd /srv/farebox/target && PATH=/usr/bin:/bin ../scripts/install release/farebox");
        assert!(said.contains("is installed"), "{said}");
        let address = format!("127.0.0.1:{}", free_port());
        let installed = Installed { chain, upstream, machine, address };
        installed.configure(|text| text);
        // One secret in the environment, one in a file that the service's user may read.
        installed.machine.must(&format!("echo TEST_SETTLER_KEY={} >>/etc/farebox/secrets.env", SETTLER.key));
        installed.machine.must(&format!(
            "umask 077; echo {UPSTREAM_KEY} >/etc/farebox/upstream.key; chown farebox: /etc/farebox/upstream.key"
        ));
        installed
    }

    /// The same, and it serves.
    pub fn started() -> Installed {
        let installed = Installed::new();
        installed.machine.must("systemctl start farebox");
        installed.serves();
        installed
    }

    /// Writes its configuration: the test's own, changed.
    pub fn configure(&self, change: impl FnOnce(String) -> String) {
        let text = configuration(&[&self.chain], &self.upstream, &Settings::default());
        let own = [
            ("bind = \"127.0.0.1:0\"", format!("bind = \"{}\"", self.address)),
            ("data_dir = \"data\"", "data_dir = \"/var/lib/farebox\"".into()),
            ("env:TEST_UPSTREAM_KEY", "file:upstream.key".into()),
        ];
        let text = own.into_iter().fold(text, |text, (from, to)| {
            assert!(text.contains(from), "{from} is in {text}");
            text.replace(from, &to)
        });
        fs::write(self.machine.shared().join("config.new"), change(text)).unwrap();
        // In place: whose it is and who may read it stays as it was installed.
        self.machine.must(&format!("cat /srv/farebox/config.new >{CONFIG}"));
    }

    /// The service is what systemd calls active, and answers.
    pub fn serves(&self) {
        assert_eq!(self.machine.must("systemctl is-active farebox").trim(), "active");
        assert_eq!(self.send(&Request::get("/healthz")).status, 200);
    }

    pub fn send(&self, request: &Request) -> Answer {
        http::send(&self.address, request).unwrap_or_else(|error| panic!("no answer ({error})"))
    }

    /// One of the properties that `systemctl show` names.
    pub fn property(&self, name: &str) -> String {
        self.machine.must(&format!("systemctl show --value --property={name} farebox")).trim().to_owned()
    }

    /// What the service and systemd have said of it, all that was said so far.
    pub fn journal(&self) -> String {
        self.machine.must("journalctl --sync && journalctl --no-pager --unit=farebox")
    }

    /// A command of the operator's, as README says it is typed on an installed machine.
    pub fn operator(&self, arguments: &str) -> (i32, String) {
        self.machine.run(&format!(
            "systemd-run --quiet --pipe --wait --collect -p User=farebox -p EnvironmentFile=/etc/farebox/secrets.env \
             /usr/local/bin/farebox --config {CONFIG} {arguments}"
        ))
    }

    /// Changes one line of the unit, as `systemctl edit` does.
    pub fn drop_in(&self, line: &str) {
        let folder = "/etc/systemd/system/farebox.service.d";
        let write =
            format!("mkdir {folder} && printf '[Service]\\n{line}\\n' >{folder}/override.conf && systemctl daemon-reload");
        self.machine.must(&write);
    }

    /// Micros that the buyer can spend.
    pub fn balance(&self) -> u64 {
        let (code, said) = self.operator(&format!("account {}", BUYER.address));
        assert_eq!(code, 0, "{said}");
        u64::try_from(usd(&serde_json::from_str::<Value>(&said).unwrap()["available_usd"])).unwrap()
    }

    /// A key of the buyer, with `amount` micros behind it.
    pub fn key(&self, amount: u64) -> String {
        let offer = self.send(&Request::post("/api/v1/x402/top-up", ""));
        let mut requirements = offer.decoded("payment-required").expect("a top-up begins with an offer")["accepts"][0].clone();
        requirements["amount"] = amount.to_string().into();
        let header = payments(vec![requirements]).remove(0);
        let answer = self.send(&Request::post("/api/v1/x402/top-up", "").header("payment-signature", &header));
        assert_eq!(answer.status, 200, "{}", answer.text());
        let (code, said) = self.operator(&format!("keys mint --account {} --name laptop", BUYER.address));
        assert_eq!(code, 0, "{said}");
        serde_json::from_str::<Value>(&said).unwrap()["key"].as_str().unwrap().to_owned()
    }

    /// Requests that each carry a payment of their own, and what each brings, in micros.
    pub fn paid(&self, prompts: &[&str], stream: bool) -> Vec<(Request, u64)> {
        paid(|request| self.send(request), prompts, stream)
    }

    /// Stops the service and audits what it left: the chain has brought `paid` micros, calls have cost `charged` of them,
    /// and nothing secret was said.
    pub fn close(self, paid: u64, charged: u64) {
        self.machine.must("systemctl stop farebox");
        let (code, said) = self.operator("verify --chain");
        let json = said.find('{').and_then(|start| serde_json::Deserializer::from_str(&said[start..]).into_iter().next());
        let json: Value = json.unwrap_or_else(|| panic!("verify printed no JSON: {said}")).unwrap();
        let books = Books { clean: code == 0, json };
        assert!(books.clean, "{:#}", books.json);
        assert_eq!(self.chain.transfers().iter().map(|it| it.value).sum::<u64>(), paid, "what came in is what was paid");
        assert_eq!(books.balance(BUYER.address), paid - charged, "{:#}", books.json);
        self.assert_discreet();
    }

    fn assert_discreet(&self) {
        let said = self
            .machine
            .run("journalctl --sync; journalctl --no-pager; systemctl status --no-pager --full farebox; systemctl show farebox")
            .1;
        for secret in [UPSTREAM_KEY, SETTLER.key.trim_start_matches("0x"), "sk-x402-"] {
            assert!(!said.contains(secret), "{secret} was said:\n{said}");
        }
    }
}

/// Puts a clone of the project with a program that was built into `folder`, where `change` may make another version of it.
pub fn put_release(folder: &Path, change: impl FnOnce(&Path)) {
    let project = Path::new(env!("CARGO_MANIFEST_DIR"));
    let built = folder.join("target/release");
    fs::create_dir_all(&built).unwrap();
    fs::create_dir_all(folder.join("scripts")).unwrap();
    for name in ["config.toml", "scripts/install", "scripts/farebox.service"] {
        fs::copy(project.join(name), folder.join(name)).unwrap();
    }
    let program = built.join("farebox");
    fs::copy(env!("CARGO_BIN_EXE_farebox"), &program).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    change(folder);
}

/// Waits until the service is in a state, such as `failed`.
pub fn becomes(installed: &Installed, state: &str) {
    eventually(state, || installed.property("ActiveState") == state);
}
