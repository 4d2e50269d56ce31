//! A real EVM node with a stand-in for USDC on it, and what a test asks it: who holds the money?

use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

/// Address and private key of a wallet of the public test mnemonic; everybody knows these keys.
pub struct Wallet(pub &'static str, pub &'static str);

/// May mint, and owns ETH; stands for any stranger.
pub const STRANGER: &str = "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266";
/// Pays gas for settlements.
pub const SETTLER: Wallet =
    Wallet("0x70997970C51812dc3A010C7d01b50e0d17dc79C8", "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d");
/// Is paid; owns nothing when the chain starts.
pub const PAY_TO: &str = "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC";
/// Owns 1,000 USDC and no ETH.
pub const BUYER: Wallet =
    Wallet("0x90F79bf6EB2c4f870365E785982E1f101E93b906", "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6");
/// Owns nothing at all.
pub const POOR: Wallet =
    Wallet("0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc", "0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba");

/// A running chain; it ends with the test.
pub struct Anvil {
    pub chain_id: u64,
    address: String,
    child: Child,
}

impl Drop for Anvil {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Anvil {
    /// Base Sepolia (84532) or Base (8453), as of now; a block is mined for every transaction.
    pub fn start(chain_id: u64) -> Anvil {
        let tests = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests");
        let shipped = tests.join("clients/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
        let binary = std::env::var_os("ANVIL_BIN").map_or(shipped, PathBuf::from);
        assert!(binary.exists(), "anvil is not installed at {}; set ANVIL_BIN or run scripts/test", binary.display());
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs();
        let mut child = Command::new(binary)
            .args(["--port", "0", "--accounts", "0", "--slots-in-an-epoch", "2"])
            .args(["--chain-id", &chain_id.to_string(), "--timestamp", &now.to_string(), "--init"])
            .arg(tests.join(format!("chain/genesis-{chain_id}.json")))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = child.stdout.take().unwrap();
        let mut anvil = Anvil { chain_id, address: String::new(), child };
        let mut lines = BufReader::new(stdout).lines();
        anvil.address = lines
            .by_ref()
            .find_map(|line| line.unwrap().strip_prefix("Listening on ").map(str::to_owned))
            .expect("anvil says where it listens");
        // Keep reading, or the node would block on a full pipe.
        std::thread::spawn(move || lines.for_each(drop));
        // The genesis block itself says 1970.
        anvil.mine(1);
        anvil
    }

    /// Host and port.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    pub fn network(&self) -> String {
        format!("eip155:{}", self.chain_id)
    }

    pub fn usdc(&self) -> &'static str {
        match self.chain_id {
            84532 => "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            _ => "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
        }
    }

    /// One JSON-RPC call, over a connection of its own.
    pub fn rpc(&self, method: &str, params: Value) -> Value {
        let body = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params}).to_string();
        let mut stream = TcpStream::connect(&self.address).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
        let head = "POST / HTTP/1.1\r\nHost: anvil\r\nContent-Type: application/json\r\nConnection: close";
        write!(stream, "{head}\r\nContent-Length: {}\r\n\r\n{body}", body.len()).unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let json = &answer[answer.find('{').unwrap()..=answer.rfind('}').unwrap()];
        let mut answer: Value = serde_json::from_str(json).unwrap();
        assert!(answer.get("error").is_none(), "{method}: {}", answer["error"]);
        answer["result"].take()
    }

    pub fn mine(&self, blocks: u64) {
        self.rpc("anvil_mine", json!([format!("{blocks:#x}")]));
    }

    /// With `false`, transactions wait until somebody mines.
    pub fn automine(&self, on: bool) {
        self.rpc("evm_setAutomine", json!([on]));
    }

    /// Token units that `owner` holds.
    pub fn balance(&self, owner: &str) -> u64 {
        let data = format!("0x70a08231{}", word(owner));
        number(&self.rpc("eth_call", json!([{"to": self.usdc(), "data": data}, "latest"])))
    }

    /// How many transactions of `sender` are in blocks.
    pub fn sent_by(&self, sender: &str) -> u64 {
        number(&self.rpc("eth_getTransactionCount", json!([sender, "latest"])))
    }

    /// How many transactions wait for a block.
    pub fn waiting(&self) -> u64 {
        let status = self.rpc("txpool_status", json!([]));
        number(&status["pending"]) + number(&status["queued"])
    }

    /// Sends a transaction as anybody, at a fee above every settlement; returns its hash.
    pub fn act_as(&self, sender: &str, to: &str, data: &str) -> String {
        self.rpc("anvil_impersonateAccount", json!([sender]));
        self.rpc("anvil_setBalance", json!([sender, "0xde0b6b3a7640000"]));
        let fee = "0x2e90edd000";
        let transaction = json!([{"from": sender, "to": to, "data": data, "gas": "0x493e0",
            "maxFeePerGas": fee, "maxPriorityFeePerGas": fee}]);
        self.rpc("eth_sendTransaction", transaction).as_str().unwrap().to_owned()
    }
}

/// Hex text as a 32-byte word, padded on the left.
pub fn word(hex: &str) -> String {
    format!("{:0>64}", hex.trim_start_matches("0x").to_ascii_lowercase())
}

pub fn number(value: &Value) -> u64 {
    let digits = value.as_str().unwrap().trim_start_matches("0x").trim_start_matches('0');
    if digits.is_empty() { 0 } else { u64::from_str_radix(digits, 16).unwrap() }
}
