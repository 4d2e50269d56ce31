//! The libraries people use to call models: each is told a list of steps, does them unmodified, and says what its user saw.

use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use crate::process::{run, run_within};
use crate::{installed, tests_dir};

/// A published library, and the language it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sdk {
    /// npm `venice-x402-client`; its steps are the actions of `venice.mjs`.
    Venice,
    /// npm `openai`.
    OpenAiNode,
    /// PyPI `openai`.
    OpenAiPython,
    /// npm `@anthropic-ai/sdk`.
    AnthropicNode,
    /// PyPI `anthropic`.
    AnthropicPython,
    /// node's own HTTP/2; its steps are the actions of `h2.mjs`.
    Http2,
}

impl Sdk {
    /// Does `steps` (`[{do, …}]`) with `environment`, in one process and one after the other. One outcome comes back per
    /// step: `{value}` is what the library returned, `{error}` what it threw, with its class and message.
    pub fn perform(self, environment: &[(&str, &str)], steps: &[Value]) -> Vec<Value> {
        let mut command = self.command();
        command.envs(environment.iter().copied()).env("ORDER", Value::from(steps).to_string());
        // Long enough for streams that a test holds open while it does something else.
        let (code, stdout, stderr) = run_within(Duration::from_secs(180), command, "");
        let outcomes = serde_json::from_str::<Vec<Value>>(stdout.lines().last().unwrap_or_default());
        let outcomes = outcomes.unwrap_or_else(|_| panic!("{self:?} did not do it (exit code {code}):\n{stdout}\n{stderr}"));
        assert_eq!(outcomes.len(), steps.len(), "{self:?}: every step has an outcome");
        outcomes
    }

    fn command(self) -> Command {
        let python = |script: &str| {
            let clients = tests_dir().join("clients");
            let mut command = Command::new(installed(clients.join(".venv/bin/python")));
            command.arg(clients.join(script));
            command
        };
        match self {
            Sdk::Venice => node("venice.mjs", "venice-x402-client"),
            Sdk::OpenAiNode => node("openai.mjs", "openai"),
            Sdk::OpenAiPython => python("openai_client.py"),
            Sdk::AnthropicNode => node("anthropic.mjs", "@anthropic-ai/sdk"),
            Sdk::Http2 => {
                let mut command = Command::new("node");
                command.arg(tests_dir().join("clients/h2.mjs"));
                command
            }
            Sdk::AnthropicPython => python("anthropic_client.py"),
        }
    }
}

/// What the schema of OpenAPI says of a document: `{valid, version, errors}`.
pub fn judge_openapi(document: &str) -> Value {
    let (code, stdout, stderr) = run(node("openapi.mjs", "@seriousme/openapi-schema-validator"), document);
    let judged = serde_json::from_str(&stdout);
    judged.unwrap_or_else(|error| panic!("no verdict ({error}, exit code {code}):\n{stdout}\n{stderr}"))
}

/// A script of `tests/clients` that needs `package`.
pub(crate) fn node(script: &str, package: &str) -> Command {
    let clients = tests_dir().join("clients");
    installed(clients.join("node_modules").join(package));
    let mut command = Command::new("node");
    command.arg(clients.join(script));
    command
}
