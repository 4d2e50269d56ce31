//! What we ask a node, with typed answers; an answer of the wrong shape counts as no answer.

use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::abi;
use super::address::Address;
use super::hex;
use super::round::{self, Receipts, Rounds};
use crate::chain::rounds::Shared;
use crate::chain::rpc::{Asking, Call, Rpc, RpcError};

/// A block's head.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub number: u64,
    /// UNIX seconds.
    pub timestamp: u64,
    /// Wei per gas; `None` on chains without EIP-1559.
    pub base_fee: Option<u128>,
}

/// An event that a contract emitted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    pub address: Address,
    pub topics: Vec<[u8; 32]>,
    pub data: Vec<u8>,
    pub tx: [u8; 32],
    pub block: u64,
}

/// The receipt of a mined transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Receipt {
    pub tx: [u8; 32],
    pub block: u64,
    pub succeeded: bool,
    pub logs: Vec<Log>,
    /// What its sender paid for it, in wei, where the node says so.
    pub fee: Option<u64>,
}

/// Looks that are at least this far apart happen at multiples of it.
const STEP: Duration = Duration::from_millis(250);
/// How long an answer about finality is good for everybody who asks.
const FRESH: Duration = Duration::from_secs(5);
/// Where a chain does not say what is final, this many blocks are.
const FINAL_DEPTH: u64 = 64;

/// Typed JSON-RPC to one network.
pub struct Node {
    rpc: Rpc,
    rounds: Rounds,
    started: Instant,
    /// The latest block, for questions that a few seconds do not change.
    head: Shared<Block>,
    /// The newest final block.
    horizon: Shared<Block>,
    /// The newest safe one.
    safe: Shared<Block>,
}

pub type Asked<T> = Result<T, RpcError>;

impl Node {
    pub fn new(rpc: Rpc) -> Node {
        Node {
            rpc,
            rounds: Rounds::default(),
            started: Instant::now(),
            head: Shared::default(),
            horizon: Shared::default(),
            safe: Shared::default(),
        }
    }

    /// Several calls in one round trip; read each answer with the functions below.
    pub async fn batch<const N: usize>(&self, calls: [Call; N]) -> Asked<[Asked<Value>; N]> {
        let answers = self.rpc.batch(calls.into()).await?;
        answers.try_into().map_err(|_| nonsense("a batch"))
    }

    /// The receipts of several transactions, `None` where there is none, and the latest block.
    pub async fn receipts(&self, hashes: &[[u8; 32]]) -> Asked<Receipts> {
        round::alone(&self.rpc, hashes).await
    }

    /// The same for transactions of ours, together with whoever asks for some at about the same moment.
    pub async fn our_receipts(&self, hashes: &[[u8; 32]]) -> Asked<Receipts> {
        round::together(&self.rounds, &self.rpc, hashes).await
    }

    /// About as long as `pause`, and so that all who wait look at the same moments, in rounds.
    pub fn in_step(&self, pause: Duration) -> Duration {
        if pause < STEP {
            return pause;
        }
        let late = (self.started.elapsed() + pause).as_micros() % STEP.as_micros();
        pause.saturating_sub(Duration::from_micros(u64::try_from(late).unwrap_or(0)))
    }

    pub async fn block(&self, tag: &str) -> Asked<Block> {
        read_block(self.rpc.call(block(tag)).await?)
    }

    /// The latest block, or one that was it a few seconds ago; what strangers can make us ask for costs one question.
    pub async fn recent(&self) -> Asked<Block> {
        self.head.get(FRESH, self.block("latest")).await
    }

    pub async fn numbered(&self, number: u64) -> Asked<Block> {
        self.block(&format!("{number:#x}")).await
    }

    /// The newest block that cannot be replaced any more. A few seconds old at most.
    pub async fn finalized(&self) -> Asked<Block> {
        let ask = async {
            match self.rpc.call(block("finalized")).await {
                Ok(answer) if !answer.is_null() => read_block(answer),
                Ok(_) => self.deep_block().await,
                Err(error) if unknown_tag(&error) => self.deep_block().await,
                Err(error) => Err(error),
            }
        };
        self.horizon.get(FRESH, ask).await
    }

    /// The newest block that only a failure of the whole network replaces: on a rollup, one whose data is on its parent
    /// chain. Where a node cannot say which that is, or says that it is the latest, as some do whatever the chain, it is the
    /// newest final one. A few seconds old at most.
    pub async fn safe(&self) -> Asked<Block> {
        let ask = async {
            // In this order: a block that comes in between must not make the latest look older than it is.
            let [latest, safe] = self.batch([block("latest"), block("safe")]).await?;
            let latest = read_block(latest?)?;
            match safe {
                Ok(answer) if !answer.is_null() => {
                    let safe = read_block(answer)?;
                    if safe.number < latest.number { Ok(safe) } else { self.finalized().await }
                }
                Ok(_) | Err(RpcError::Answered { .. }) => self.finalized().await,
                Err(error) => Err(error),
            }
        };
        self.safe.get(FRESH, ask).await
    }

    async fn deep_block(&self) -> Asked<Block> {
        let latest = self.block("latest").await?;
        self.numbered(latest.number.saturating_sub(FINAL_DEPTH)).await
    }

    /// What a contract answers in one certain block. A node that does not have the block cannot say, and the next one is
    /// asked first from then on; a node that is behind must never be taken for the chain.
    pub async fn view_at(&self, contract: Address, data: &[u8], number: u64) -> Asked<Vec<u8>> {
        let params = json!([transaction(contract, contract, data), format!("{number:#x}")]);
        let asking = self.asking();
        let answer = self.rpc.call(Call::new("eth_call", params)).await;
        if answer.as_ref().is_err_and(|error| !is_revert(error)) {
            self.pass_over(asking);
        }
        read_bytes(&answer?)
    }

    pub async fn send(&self, raw: &[u8]) -> Asked<()> {
        self.rpc.call(Call::new("eth_sendRawTransaction", json!([hex::encode(raw)]))).await.map(|_| ())
    }

    /// Events of `address` in a range of blocks, any of `events`, with the two indexed topics given. An answer counts only if
    /// its node has the last block of the range: one that is behind finds nothing there.
    pub async fn logs(&self, address: Address, events: &[&str], topics: [[u8; 32]; 2], from: u64, to: u64) -> Asked<Vec<Log>> {
        self.logs_of(address, json!([events, hex::encode(&topics[0]), hex::encode(&topics[1])]), from, to).await
    }

    /// Transfers of `token` to an owner in a range of blocks; an answer counts as that of [`Node::logs`] does.
    pub async fn arrivals(&self, token: Address, owner: Address, from: u64, to: u64) -> Asked<Vec<Log>> {
        self.logs_of(token, json!([abi::TRANSFER_EVENT, null, hex::encode(&owner.to_word())]), from, to).await
    }

    /// Transfers of `token` from an owner; an answer counts as that of [`Node::logs`] does.
    pub async fn departures(&self, token: Address, owner: Address, from: u64, to: u64) -> Asked<Vec<Log>> {
        self.logs_of(token, json!([abi::TRANSFER_EVENT, hex::encode(&owner.to_word())]), from, to).await
    }

    async fn logs_of(&self, address: Address, topics: Value, from: u64, to: u64) -> Asked<Vec<Log>> {
        let filter = json!({
            "address": address.to_string(), "fromBlock": format!("{from:#x}"), "toBlock": format!("{to:#x}"), "topics": topics,
        });
        let asking = self.asking();
        let [answer, end] = self.batch([Call::new("eth_getLogs", json!([filter])), block(&format!("{to:#x}"))]).await?;
        let answer = answer?;
        if let Err(error) = end.and_then(read_block) {
            self.pass_over(asking);
            return Err(RpcError::Unreachable(format!("the node does not have block {to}: {error}")));
        }
        let logs = answer.as_array().ok_or_else(|| nonsense("eth_getLogs"))?;
        logs.iter().map(|log| read_log(log).ok_or_else(|| nonsense("eth_getLogs"))).collect()
    }

    pub async fn call(&self, call: Call) -> Asked<Value> {
        self.rpc.call(call).await
    }

    /// Asks, and asks the next node for as long as the one that answered had to be passed over, each of them once.
    pub async fn any<T, E, F: Future<Output = Result<T, E>>>(&self, ask: impl Fn() -> F) -> Result<T, E> {
        self.rpc.any(ask).await
    }

    /// Taken before a question whose answer may show that its node is of no use.
    pub fn asking(&self) -> Asking {
        self.rpc.asking()
    }

    /// The node that answered is not of now, or not of this chain: the next one is asked first from then on.
    pub fn pass_over(&self, asking: Asking) {
        self.rpc.pass_over(asking);
        self.head.forget();
    }

    /// Whether the node that answered is on the chain that we mean; there may be several. One that is not is passed over.
    pub fn on_chain(&self, answer: Asked<Value>, chain_id: u64, asking: Asking) -> Asked<()> {
        let theirs = read_number(&answer?)?;
        if theirs == chain_id {
            return Ok(());
        }
        self.pass_over(asking);
        Err(RpcError::Unreachable(format!("rpc_urls lead to chain {theirs}, not to {chain_id}")))
    }
}

pub fn chain_id() -> Call {
    Call::new("eth_chainId", json!([]))
}

pub fn block(tag: &str) -> Call {
    Call::new("eth_getBlockByNumber", json!([tag, false]))
}

pub fn code(address: Address) -> Call {
    Call::new("eth_getCode", json!([address.to_string(), "latest"]))
}

pub fn balance(address: Address) -> Call {
    Call::new("eth_getBalance", json!([address.to_string(), "latest"]))
}

/// How many transactions an account has sent: mined ones (`latest`), or waiting ones as well (`pending`).
pub fn count(address: Address, tag: &str) -> Call {
    Call::new("eth_getTransactionCount", json!([address.to_string(), tag]))
}

/// A call that changes nothing, at the latest block.
pub fn view(from: Address, to: Address, data: &[u8]) -> Call {
    view_in("latest", from, to, data)
}

/// A call that changes nothing, in the block of that name.
pub fn view_in(tag: &str, from: Address, to: Address, data: &[u8]) -> Call {
    Call::new("eth_call", json!([transaction(from, to, data), tag]))
}

pub fn estimate(from: Address, to: Address, data: &[u8]) -> Call {
    Call::new("eth_estimateGas", json!([transaction(from, to, data)]))
}

pub fn tip() -> Call {
    Call::new("eth_maxPriorityFeePerGas", json!([]))
}

pub fn receipt(hash: &[u8; 32]) -> Call {
    Call::new("eth_getTransactionReceipt", json!([hex::encode(hash)]))
}

fn transaction(from: Address, to: Address, data: &[u8]) -> Value {
    json!({"from": from.to_string(), "to": to.to_string(), "data": hex::encode(data)})
}

/// Whether the node says that it does not know the word `finalized`, as opposed to having trouble.
fn unknown_tag(error: &RpcError) -> bool {
    error.says(&["finalized", "tag", "invalid", "unsupported", "not supported", "unknown block", "unknown variant", "hex string"])
}

fn nonsense(what: &str) -> RpcError {
    RpcError::Unreachable(format!("{what} was answered with something else"))
}

/// A number such as `"0x1a"`.
pub fn read_quantity(answer: &Value) -> Asked<u128> {
    answer.as_str().and_then(hex::quantity).ok_or_else(|| nonsense("a number"))
}

/// A suggested tip, in wei per gas; not every node suggests one.
pub fn read_tip(answer: Asked<Value>) -> u128 {
    answer.and_then(|tip| read_quantity(&tip)).unwrap_or(0)
}

pub fn read_number(answer: &Value) -> Asked<u64> {
    u64::try_from(read_quantity(answer)?).map_err(|_| nonsense("a number"))
}

pub fn read_bytes(answer: &Value) -> Asked<Vec<u8>> {
    answer.as_str().and_then(hex::decode).ok_or_else(|| nonsense("bytes"))
}

pub fn read_block(answer: Value) -> Asked<Block> {
    let base_fee = match &answer["baseFeePerGas"] {
        Value::Null => None,
        fee => Some(read_quantity(fee)?),
    };
    Ok(Block { number: read_number(&answer["number"])?, timestamp: read_number(&answer["timestamp"])?, base_fee })
}

/// Whether the contract reverted, as opposed to the node being unable to say.
pub fn is_revert(error: &RpcError) -> bool {
    match error {
        RpcError::Unreachable(_) => false,
        RpcError::Answered { message, data } => revert_data(data).is_some() || message.contains("revert"),
    }
}

/// What a contract said when it reverted: hex as geth sends it, or nested once.
pub fn revert_data(data: &Value) -> Option<Vec<u8>> {
    let text = data.as_str().or_else(|| data.get("data").and_then(Value::as_str))?;
    hex::decode(text)
}

/// `None` while the transaction is not mined. A receipt of another transaction than the one asked for is nonsense.
pub fn read_receipt(answer: &Value, hash: &[u8; 32]) -> Asked<Option<Receipt>> {
    if answer.is_null() || (answer.is_object() && answer["blockNumber"].is_null()) {
        return Ok(None);
    }
    let receipt = (|| {
        Some(Receipt {
            tx: hex::fixed(answer["transactionHash"].as_str()?).filter(|tx| tx == hash)?,
            block: read_number(&answer["blockNumber"]).ok()?,
            succeeded: match answer["status"].as_str()? {
                "0x1" => true,
                "0x0" => false,
                _ => return None,
            },
            logs: answer["logs"].as_array()?.iter().map(read_log).collect::<Option<_>>()?,
            fee: read_fee(answer),
        })
    })();
    receipt.map(Some).ok_or_else(|| nonsense("eth_getTransactionReceipt"))
}

/// What the sender paid: for the gas, and on rollups that say so for what they write to their parent chain.
fn read_fee(answer: &Value) -> Option<u64> {
    let gas = read_quantity(&answer["gasUsed"]).ok()?.checked_mul(read_quantity(&answer["effectiveGasPrice"]).ok()?)?;
    let parent = match &answer["l1Fee"] {
        Value::Null => 0,
        fee => read_quantity(fee).ok()?,
    };
    u64::try_from(gas.checked_add(parent)?).ok()
}

fn read_log(log: &Value) -> Option<Log> {
    if log["removed"] == true {
        return None;
    }
    let topics = log["topics"].as_array()?.iter().map(|topic| hex::fixed(topic.as_str()?)).collect::<Option<_>>()?;
    Some(Log {
        address: Address::parse(log["address"].as_str()?)?,
        topics,
        data: hex::decode(log["data"].as_str()?)?,
        tx: hex::fixed(log["transactionHash"].as_str()?)?,
        block: read_number(&log["blockNumber"]).ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Value {
        json!({"transactionHash": hex::encode(&[7; 32]), "blockNumber": "0x10", "status": "0x1", "logs": []})
    }

    #[test]
    fn a_revert_is_told_from_a_node_that_cannot_say() {
        let answered = |message: &str, data: Value| RpcError::Answered { message: message.into(), data };
        for reverted in [
            answered("execution reverted", Value::Null),
            answered("vm error", "0x08c3".into()),
            answered("internal error", json!({"data": "0x08c3"})),
        ] {
            assert!(is_revert(&reverted), "{reverted}");
        }
        assert!(!is_revert(&answered("internal error", json!("no hex"))));
        assert!(!is_revert(&RpcError::Unreachable("revert".into())));
        assert_eq!(revert_data(&"0x08c3".into()), Some(vec![0x08, 0xc3]));
    }

    #[test]
    fn a_fee_is_gas_times_price_and_what_a_rollup_asks_beside_and_unknown_where_nobody_says() {
        let fee = |more: &[(&str, &str)]| {
            let mut answer = answer();
            more.iter().for_each(|(field, value)| answer[*field] = (*value).into());
            read_receipt(&answer, &[7; 32]).unwrap().unwrap().fee
        };
        let gas = [("gasUsed", "0x10"), ("effectiveGasPrice", "0x3b9aca00")];
        assert_eq!(fee(&gas), Some(16_000_000_000));
        assert_eq!(fee(&[&gas[..], &[("l1Fee", "0x5")]].concat()), Some(16_000_000_005));
        assert_eq!(fee(&[&gas[..], &[("l1Fee", "five")]].concat()), None, "not known in full");
        assert_eq!(fee(&gas[..1]), None);
        assert_eq!(fee(&[("gasUsed", "0xffffffffffffffff"), ("effectiveGasPrice", "0xffffffffffffffff")]), None);
    }

    #[test]
    fn only_the_receipt_that_was_asked_for_counts() {
        assert!(read_receipt(&answer(), &[7; 32]).unwrap().unwrap().succeeded);
        assert!(read_receipt(&answer(), &[8; 32]).is_err(), "another transaction's receipt proves nothing");
        assert_eq!(read_receipt(&Value::Null, &[7; 32]), Ok(None));
        assert!(read_receipt(&json!("busy"), &[7; 32]).is_err(), "an answer of another shape does not say \"not mined\"");
        for (field, value) in [("status", json!("0x2")), ("status", Value::Null), ("logs", Value::Null)] {
            let mut bad = answer();
            bad[field] = value;
            assert!(read_receipt(&bad, &[7; 32]).is_err(), "{field}");
        }
    }
}
