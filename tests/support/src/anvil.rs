//! A real EVM node on which a stand-in for USDC already stands, and what a test asks it: who holds the money?

use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::http::{self, Request};
use crate::process::{Process, eventually};
use crate::{installed, tests_dir};

/// A wallet of the public test mnemonic. Everybody knows these keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wallet {
    pub address: &'static str,
    pub key: &'static str,
}

/// Pays gas for settlements.
pub const SETTLER: Wallet = Wallet {
    address: "0x70997970C51812dc3A010C7d01b50e0d17dc79C8",
    key: "0x59c6995e998f97a5a0044966f0945389dc9e86dae88c7a8412f4603b6b78690d",
};
/// Is paid; owns nothing when a chain starts.
pub const PAY_TO: Wallet = Wallet {
    address: "0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC",
    key: "0x5de4111afa1a4b94908f83103eb1f1706367c2e68ca870fc3fb9a804cdab365a",
};
/// Buys: 1,000 USDC and no ETH.
pub const BUYER: Wallet = Wallet {
    address: "0x90F79bf6EB2c4f870365E785982E1f101E93b906",
    key: "0x7c852118294e51e653712a81e05800f419141751be58f605c371e15141b007a6",
};
/// Buys as well: 1,000 USDC and no ETH.
pub const OTHER_BUYER: Wallet = Wallet {
    address: "0x15d34AAf54267DB7D7c367839AAf71A00a2C6A65",
    key: "0x47e179ec197488593b187f80a00eb0da91f1b9d0b13f8733639f19c30a34926a",
};
/// Owns neither USDC nor ETH.
pub const POOR_BUYER: Wallet = Wallet {
    address: "0x9965507D1a55bcC2695C58ba16FB37d819B0A4dc",
    key: "0x8b3a350cf5c34c9194ca85829a2df0ec3153be0318b5e2d3348e872092edffba",
};
/// May mint USDC, and owns ETH; also stands for the stranger who submits somebody else's payment.
pub const MINTER: Wallet = Wallet {
    address: "0xf39Fd6e51aad88F6F4ce6aB8827279cffFb92266",
    key: "0xac0974bec39a17e36ba4a6b4d238ff944bacb478cbed5efcae784d7bf4f2ff80",
};

/// keccak256("Transfer(address,address,uint256)")
const TRANSFER_TOPIC: &str = "0xddf252ad1be2c89b69c2b068fc378daa952ba7f163c4a11628f55a4df523b3ef";

/// A running chain.
pub struct Anvil {
    pub chain_id: u64,
    address: String,
    _process: Process,
}

/// One `Transfer` of the token: addresses in lower case, token units, and its transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transfer {
    pub from: String,
    pub to: String,
    pub value: u64,
    pub transaction: String,
}

impl Anvil {
    /// Starts Base Sepolia (84532) or Base (8453) as of now; blocks are mined as transactions come.
    pub fn start(chain_id: u64) -> Anvil {
        Anvil::start_ahead(chain_id, 0)
    }

    /// The same, with a clock that is so many seconds ahead of ours.
    pub fn start_ahead(chain_id: u64, seconds: i64) -> Anvil {
        let genesis = tests_dir().join(format!("chain/genesis-{chain_id}.json"));
        let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970").as_secs();
        let mut command = Command::new(binary());
        command.args(["--port", "0", "--accounts", "0", "--slots-in-an-epoch", "2"]);
        command.arg("--chain-id").arg(chain_id.to_string());
        // The genesis says 0; without this every authorization would be "not yet valid".
        command.arg("--timestamp").arg(now.saturating_add_signed(seconds).to_string());
        command.arg("--init").arg(genesis);
        let mut process = Process::spawn(command);
        let address = process.wait_for("Listening on ");
        let chain = Anvil { chain_id, address, _process: process };
        // The genesis block lives in 1970 all the same, and calls are simulated on the latest block.
        chain.mine(1);
        chain
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        &self.address
    }

    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// CAIP-2.
    pub fn network(&self) -> String {
        format!("eip155:{}", self.chain_id)
    }

    /// Where the token stands.
    pub fn usdc(&self) -> &'static str {
        match self.chain_id {
            84532 => "0x036CbD53842c5426634e7929541eC2318f3dCF7e",
            8453 => "0x833589fCD6eDb6E08f4c7C32D4f71b54bdA02913",
            other => panic!("there is no genesis for chain {other}"),
        }
    }

    /// One JSON-RPC call; panics when the node answers with an error.
    pub fn rpc(&self, method: &str, params: Value) -> Value {
        self.try_rpc(method, params).unwrap_or_else(|error| panic!("{method}: {error}"))
    }

    /// One JSON-RPC call; `Err` is the node's error object.
    pub fn try_rpc(&self, method: &str, params: Value) -> Result<Value, Value> {
        let call = json!({ "jsonrpc": "2.0", "id": 1, "method": method, "params": params });
        let answer = http::send(&self.address, &Request::post("/", call.to_string())).expect("the node answers");
        let mut answer = answer.json();
        match answer.get("error") {
            Some(error) => Err(error.clone()),
            None => Ok(answer["result"].take()),
        }
    }

    /// Token units that `owner` holds.
    pub fn usdc_balance(&self, owner: &str) -> u64 {
        let data = format!("0x70a08231{}", word(owner));
        units(self.rpc("eth_call", json!([{ "to": self.usdc(), "data": data }, "latest"])).as_str().unwrap_or_default())
    }

    /// How many transactions `sender` ever got into a block.
    pub fn transactions_of(&self, sender: &str) -> u64 {
        units(self.rpc("eth_getTransactionCount", json!([sender, "latest"])).as_str().unwrap_or_default())
    }

    /// The receipt of a transaction that is in a block.
    pub fn receipt(&self, hash: &str) -> Option<Value> {
        Some(self.rpc("eth_getTransactionReceipt", json!([hash]))).filter(|receipt| !receipt.is_null())
    }

    /// The receipt of a transaction, as soon as it is in a block.
    pub fn wait_receipt(&self, hash: &str) -> Value {
        eventually("a transaction gets into a block", || self.receipt(hash).is_some());
        self.receipt(hash).unwrap_or_default()
    }

    pub fn block_number(&self) -> u64 {
        units(self.rpc("eth_blockNumber", json!([])).as_str().unwrap_or_default())
    }

    /// Every transfer of the token since the chain began.
    pub fn transfers(&self) -> Vec<Transfer> {
        let filter = json!([{ "fromBlock": "0x0", "address": self.usdc(), "topics": [TRANSFER_TOPIC] }]);
        let logs = self.rpc("eth_getLogs", filter);
        let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
        let address = |topic: &Value| format!("0x{}", &text(topic)[26..]);
        let transfer = |log: &Value| Transfer {
            from: address(&log["topics"][1]),
            to: address(&log["topics"][2]),
            value: units(&text(&log["data"])),
            transaction: text(&log["transactionHash"]),
        };
        logs.as_array().expect("logs are a list").iter().map(transfer).collect()
    }

    pub fn mine(&self, blocks: u64) {
        self.rpc("anvil_mine", json!([format!("{blocks:#x}")]));
    }

    /// With `false`, transactions wait until [`Anvil::mine`].
    pub fn set_automine(&self, on: bool) {
        self.rpc("evm_setAutomine", json!([on]));
    }

    /// Replaces the last `depth` blocks by empty ones.
    pub fn reorg(&self, depth: u64) {
        self.rpc("anvil_reorg", json!([depth, []]));
    }

    /// Transactions that wait for a block.
    pub fn pending_transactions(&self) -> u64 {
        units(self.rpc("txpool_status", json!([]))["pending"].as_str().unwrap_or_default())
    }

    /// Submits somebody's signed authorization as `sender`, which the token allows anybody to do; returns the transaction.
    /// `payment` is a line of [`crate::buyer::sign`].
    pub fn submit(&self, sender: Wallet, payment: &Value) -> String {
        let authorization = &payment["authorization"];
        let field = |name: &str| authorization[name].as_str().expect("authorizations are text").to_owned();
        let number = |name: &str| format!("{:064x}", field(name).parse::<u128>().expect("decimal digits"));
        let signature = payment["signature"].as_str().expect("signatures are hex").trim_start_matches("0x").to_owned();
        let (rs, v) = signature.split_at(128);
        // transferWithAuthorization(address,address,uint256,uint256,uint256,bytes32,uint8,bytes32,bytes32)
        let mut data = format!("0xe3ee160e{}{}", word(&field("from")), word(&field("to")));
        for name in ["value", "validAfter", "validBefore"] {
            data.push_str(&number(name));
        }
        data.push_str(&format!("{}{}{rs}", word(&field("nonce")), word(v)));
        self.act_as(sender.address, self.usdc(), &data)
    }

    /// Takes somebody's signed authorization back, which everybody may submit who has the payer's word for it; returns the
    /// transaction. `payment` is a line of [`crate::buyer::sign`].
    pub fn cancel(&self, sender: Wallet, payment: &Value) -> String {
        let text = |value: &Value| value.as_str().expect("signed payments are text").to_owned();
        let (from, nonce) = (text(&payment["authorization"]["from"]), text(&payment["authorization"]["nonce"]));
        let signature = text(&payment["cancellation"]);
        let (rs, v) = signature.trim_start_matches("0x").split_at(128);
        // cancelAuthorization(address,bytes32,uint8,bytes32,bytes32)
        self.act_as(sender.address, self.usdc(), &format!("0x5a049a70{}{}{}{rs}", word(&from), word(&nonce), word(v)))
    }

    /// `from` moves everything it holds to `to`, in a transaction that goes first into the next block; returns what that was.
    pub fn drain(&self, from: Wallet, to: Wallet) -> u64 {
        let all = self.usdc_balance(from.address);
        self.pay(from, to, all);
        all
    }

    /// `from` moves `amount` token units to `to`; returns the transaction.
    pub fn pay(&self, from: Wallet, to: Wallet, amount: u64) -> String {
        // transfer(address,uint256)
        let data = format!("0xa9059cbb{}{}", word(to.address), word(&format!("{amount:x}")));
        self.act_as(from.address, self.usdc(), &data)
    }

    /// Sends a transaction as anybody, who is given the gas for it; returns its hash.
    pub fn act_as(&self, sender: &str, to: &str, data: &str) -> String {
        self.rpc("anvil_impersonateAccount", json!([sender]));
        self.rpc("anvil_setBalance", json!([sender, "0xde0b6b3a7640000"]));
        // 200 gwei: dearer than any settlement in a test, so that it goes first into the next block.
        let (gas, fee) = ("0x493e0", "0x2e90edd000");
        let transaction = json!([{
            "from": sender, "to": to, "data": data, "gas": gas, "maxFeePerGas": fee, "maxPriorityFeePerGas": fee,
        }]);
        let hash = self.rpc("eth_sendTransaction", transaction);
        hash.as_str().expect("a transaction hash").to_owned()
    }
}

/// Hex text, with or without `0x`, as a 32-byte word.
pub fn word(hex: &str) -> String {
    format!("{:0>64}", hex.trim_start_matches("0x").to_ascii_lowercase())
}

fn units(hex: &str) -> u64 {
    u64::from_str_radix(hex.trim_start_matches("0x").trim_start_matches('0'), 16).unwrap_or(0)
}

fn binary() -> std::path::PathBuf {
    let shipped = || tests_dir().join("clients/node_modules/@foundry-rs/anvil-linux-amd64/bin/anvil");
    installed(std::env::var_os("ANVIL_BIN").map_or_else(shipped, Into::into))
}
