//! A real EVM node for the paid path: the anvil that the tests install, with a stand-in for USDC.

use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};

use crate::http;
use crate::measure::{now_ns, runtime};
use crate::peers::Program;

/// A wallet of the public test mnemonic: everybody knows the key. It has 1,000 USDC there.
pub const BUYER_KEY: &str = "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6";
/// Another one, which pays gas.
pub const SETTLER_KEY: &str = "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d";
const SETTLER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

/// A running chain with the id of Base Sepolia.
pub struct Node(Program);

impl Node {
    /// Starts the node that `scripts/test` has installed in `project`; `None` when there is none.
    pub fn start(project: &Path) -> Option<Result<Node, String>> {
        let shipped = project.join("tests/clients/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
        let binary = std::env::var_os("ANVIL_BIN").map_or(shipped, Into::into);
        binary.exists().then(|| Node::run(&binary, &project.join("tests/chain/genesis-84532.json")))
    }

    fn run(binary: &Path, genesis: &Path) -> Result<Node, String> {
        let mut command = Command::new(binary);
        command.args(["--port", "0", "--accounts", "0", "--chain-id", "84532", "--init"]).arg(genesis);
        // The genesis says 0; without this every payment would be "not yet valid".
        command.arg("--timestamp").arg((now_ns() / 1_000_000_000).to_string()).stderr(Stdio::null());
        let program = Program::announced(command, "Listening on ").map_err(|why| format!("anvil does not start: {why}"))?;
        let node = Node(program);
        node.ask("anvil_mine", &json!(["0x1"]))?;
        Ok(node)
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.0.address)
    }

    /// How many transactions the settler got into a block.
    pub fn settlements(&self) -> Result<u64, String> {
        let count = self.ask("eth_getTransactionCount", &json!([SETTLER, "latest"]))?;
        let digits = count.as_str().and_then(|count| count.strip_prefix("0x"));
        digits.and_then(|digits| u64::from_str_radix(digits, 16).ok()).ok_or_else(|| format!("not a count: {count}"))
    }

    fn ask(&self, method: &str, params: &Value) -> Result<Value, String> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params }).to_string();
        let runtime = runtime().map_err(|error| error.to_string())?;
        let asked = runtime.block_on(http::ask(&self.0.address, &http::request("POST", "/", "", &call)));
        let (_, body) = asked.map_err(|error| format!("{method}: {error}"))?;
        let mut answer: Value = serde_json::from_slice(&body).map_err(|error| format!("{method}: {error}"))?;
        match answer.get("error") {
            Some(error) => Err(format!("{method}: {error}")),
            None => Ok(answer["result"].take()),
        }
    }
}
