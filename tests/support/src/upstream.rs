//! A fake inference provider whose answers, delays and failures are exact, and which remembers what it was asked.

use std::process::Command;

use serde_json::Value;

use crate::http::{self, Request};
use crate::process::Process;
use crate::{installed, tests_dir};

/// The key without which it refuses; the gateway has it, buyers never see it.
pub const UPSTREAM_KEY: &str = "sk-upstream-canary-5d2f";

/// A running fake upstream. Prompts steer it: `<<fake in=20 out=7>>`, `<<fake status=500>>`, `<<fake cut=3>>` and more,
/// listed at the head of `fake_upstream/__main__.py`.
pub struct Upstream {
    address: String,
    _process: Process,
}

impl Upstream {
    pub fn start() -> Upstream {
        let mut command = Command::new("python3");
        command.arg(installed(tests_dir().join("support/fake_upstream")));
        command.args(["--port", "0", "--require-key", UPSTREAM_KEY]);
        let mut process = Process::spawn(command);
        let line = process.wait_for("listening on http://");
        let address = line.split(' ').next().unwrap_or_default().to_owned();
        Upstream { address, _process: process }
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// The calls it got, oldest first: method, path, headers, body, status, `usage` it reported, and the `outcome`.
    pub fn calls(&self) -> Vec<Value> {
        let log = self.ask(&Request::get("/__log?limit=5000"));
        log.as_array().expect("the log is a list").clone()
    }

    /// Sets its behaviour for every call from now on, as in `{"ttfb": 500}`; `{}` makes it well again.
    pub fn configure(&self, behaviour: &Value) {
        self.ask(&Request::post("/__config", behaviour.to_string()));
    }

    /// Sends what is left of every answer that waits before it begins (`ttfb`) or between events (`gap`), and of those that
    /// follow, at once: a test has seen what it kept them running for.
    pub fn hurry(&self) {
        self.configure(&serde_json::json!({ "hurry": 1 }));
    }

    /// Queues behaviours, one per call.
    pub fn script(&self, behaviours: &[Value]) {
        self.ask(&Request::post("/__script", Value::from(behaviours).to_string()));
    }

    /// Forgets all calls and behaviours.
    pub fn reset(&self) {
        self.ask(&Request::post("/__reset", "{}"));
    }

    fn ask(&self, request: &Request) -> Value {
        http::send(&self.address, request).expect("the fake upstream answers").json()
    }
}
