//! A browser that does what a test says, step by step, with wallets in its pages.

use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use farebox_rig::process::run_within;
use farebox_rig::server::Server;
use farebox_rig::{installed, tests_dir};
use serde_json::{Value, json};

/// How long a browser may be at it: some pages are looked at in both themes and at two widths, each with all rules.
const A_TOUR: Duration = Duration::from_secs(300);

/// Who uses the browser: its wallets, and where its pictures go.
pub struct Browser<'a> {
    server: &'a Server,
    wallets: Vec<Value>,
}

/// What came of each step.
pub struct Seen(Vec<Value>);

impl<'a> Browser<'a> {
    pub fn of(server: &'a Server) -> Browser<'a> {
        Browser { server, wallets: Vec::new() }
    }

    /// With a wallet, as `browser_wallets.mjs` describes one.
    pub fn with(mut self, wallet: Value) -> Browser<'a> {
        self.wallets.push(wallet);
        self
    }

    /// Does all steps in one browser with a fresh profile. A page that breaks its policy, throws or loads anything from
    /// elsewhere fails the test, and so does a step that cannot be done.
    pub fn does(&self, steps: &[Value]) -> Seen {
        let clients = tests_dir().join("clients");
        installed(clients.join("node_modules/playwright-core"));
        let profile = tempfile::tempdir().expect("a temporary folder");
        let mut command = Command::new("node");
        command.arg(clients.join("browser.mjs"));
        command.env("URL", self.server.public_url()).env("CHROMIUM", chromium()).env("PROFILE", profile.path());
        command.env("SHOTS", pictures()).env("WALLETS", json!(self.wallets).to_string()).env("ORDER", json!(steps).to_string());
        let (code, stdout, stderr) = run_within(A_TOUR, command, "");
        let outcomes: Option<Vec<Value>> = stdout.lines().last().and_then(|line| serde_json::from_str(line).ok());
        let outcomes = outcomes.unwrap_or_else(|| panic!("the browser broke (exit code {code}):\n{stdout}\n{stderr}"));
        for (step, outcome) in steps.iter().zip(&outcomes) {
            let error = &outcome["error"]["message"];
            assert!(error.is_null(), "{step}\n{}", error.as_str().unwrap_or_default());
            assert_eq!(outcome["offences"], json!([]), "what a page may never do, in {step}");
        }
        assert_eq!(outcomes.len(), steps.len(), "every step has an outcome");
        Seen(outcomes)
    }
}

impl Seen {
    /// What a step returned.
    pub fn value(&self, step: usize) -> &Value {
        &self.0[step]["value"]
    }

    /// What the last step returned.
    pub fn last(&self) -> &Value {
        self.value(self.0.len() - 1)
    }

    /// The text that the last step returned.
    pub fn text(&self) -> &str {
        self.last().as_str().unwrap_or_else(|| panic!("not a text: {}", self.last()))
    }
}

/// `CHROMIUM`, or where Debian has it.
fn chromium() -> PathBuf {
    installed(std::env::var_os("CHROMIUM").map_or_else(|| "/usr/bin/chromium".into(), PathBuf::from))
}

/// Where pictures of the pages go, for people to look at.
fn pictures() -> PathBuf {
    tests_dir().parent().expect("the tests stand in the project").join("target/pages")
}

pub fn open(path: &str) -> Value {
    json!({ "do": "open", "path": path })
}

pub fn click(name: &str) -> Value {
    json!({ "do": "click", "role": "button", "name": name })
}

pub fn fill(label: &str, text: &str) -> Value {
    json!({ "do": "fill", "label": label, "text": text })
}

pub fn see(text: &str) -> Value {
    json!({ "do": "see", "text": text })
}

pub fn missing(text: &str) -> Value {
    json!({ "do": "missing", "text": text })
}

/// Waits until so many requests are held.
pub fn held(count: usize) -> Value {
    json!({ "do": "held", "count": count })
}

/// Lets go the requests that are held, at least so many; returns how many there were.
pub fn release(count: usize) -> Value {
    json!({ "do": "release", "count": count })
}

pub fn read(css: &str) -> Value {
    json!({ "do": "read", "css": css })
}

pub fn wallet(set: &Value) -> Value {
    json!({ "do": "wallet", "set": set })
}

/// Has a wallet give no answer to a method, as one does whose owner has not decided yet.
pub fn silent(name: &str, method: &str) -> Value {
    json!({ "do": "wallet", "name": name, "set": { "silent": method } })
}

/// Has every wallet answer what it was asked, and waits until the page has heard it.
pub fn answers_again() -> Value {
    json!({ "do": "answer" })
}

pub fn shots(name: &str) -> Value {
    json!({ "do": "shots", "name": name })
}

pub fn axe() -> Value {
    json!({ "do": "axe" })
}
