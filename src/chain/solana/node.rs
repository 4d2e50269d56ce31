//! What we ask a Solana node, with typed answers; an answer of the wrong shape counts as no answer.

use std::cell::Cell;
use std::future::Future;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::address::Pubkey;
use super::evidence::BLOCKHASH_LIFE;
use super::status::{self, Look, Rounds};
use super::transaction::Transaction;
use crate::chain::rounds::Shared;
use crate::chain::rpc::{Asking, Call, Rpc, RpcError, Source, Whom};

/// Looks that are at least this far apart happen at multiples of it.
const STEP: Duration = Duration::from_millis(200);
/// An answer that is younger serves everybody who asks the same.
const MOMENT: Duration = Duration::from_millis(500);
/// The clock of the chain, an account like any other.
const CLOCK: &str = "SysvarC1ock11111111111111111111111111111111";
/// Where the clock keeps UNIX seconds.
const CLOCK_SECONDS: usize = 32;
/// The characters of a genesis hash that a network's CAIP-2 name has (namespace `solana`).
const REFERENCE: usize = 32;
/// Transactions on one page of an account's history; nodes give no more.
pub const PAGE: u32 = 1000;

pub type Asked<T> = Result<T, RpcError>;

/// How sure the chain is of what it says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// One node has run it; forks that lose are seen as well.
    Processed,
    /// Two thirds of the stake have voted for it.
    Confirmed,
    /// It cannot be replaced any more.
    Finalized,
}

impl Level {
    pub fn name(self) -> &'static str {
        match self {
            Level::Processed => "processed",
            Level::Confirmed => "confirmed",
            Level::Finalized => "finalized",
        }
    }
}

/// The hash of a recent block, and the last height at which a transaction may name it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Blockhash {
    pub hash: [u8; 32],
    pub last_valid: u64,
}

/// An account as it stands on the chain.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Account {
    pub lamports: u64,
    /// The program that it belongs to.
    pub program: Pubkey,
    pub data: Vec<u8>,
}

/// How a transaction that was only tried would end.
#[derive(Clone, Debug, PartialEq)]
pub struct Trial {
    /// Null when it would succeed, else the chain's own error, such as `"BlockhashNotFound"`.
    pub error: Value,
    /// The slot of the chain that it was tried on.
    pub slot: u64,
}

/// A transaction that is in a block.
#[derive(Clone, Debug, PartialEq)]
pub struct Landed {
    pub slot: u64,
    pub succeeded: bool,
    pub transaction: Transaction,
    /// What its fee payer paid for it, in lamports, where the node says so.
    pub fee: Option<u64>,
    before: Vec<Holding>,
    after: Vec<Holding>,
}

/// What a node shows under the name of a transaction.
#[derive(Clone, Debug, PartialEq)]
pub enum Shown {
    Nothing,
    /// One that we cannot read, so it is not ours: ours was read before it was taken.
    Foreign,
    Landed(Box<Landed>),
}

/// One line of an account's history.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// The name of the transaction.
    pub tx: String,
    pub slot: u64,
    /// UNIX seconds by the chain's clock, where the node knows them.
    pub time: Option<u64>,
    /// All that its memos say, each behind its length, where the node knows that.
    pub memo: Option<String>,
}

/// What a token account held, beside a transaction.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Holding {
    account_index: usize,
    mint: String,
    ui_token_amount: Amount,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
struct Amount {
    amount: String,
}

impl Landed {
    /// By how many token units the account at `place` grew. `None` if it was no account for `mint`, or shrank.
    pub fn gained(&self, place: Pubkey, mint: Pubkey) -> Option<u64> {
        let index = self.transaction.message.keys().iter().position(|key| *key == place)?;
        let mint = mint.to_string();
        let at = |side: &[Holding]| {
            let entry = side.iter().find(|entry| entry.account_index == index)?;
            (entry.mint == mint).then(|| entry.ui_token_amount.amount.parse::<u64>().ok())?
        };
        at(&self.after)?.checked_sub(at(&self.before)?)
    }
}

/// Typed JSON-RPC to one network.
pub struct Node {
    rpc: Rpc,
    /// CAIP-2.
    network: String,
    rounds: Rounds,
    started: Instant,
    newest: Shared<Blockhash>,
    /// How many blocks the chain had when it had most: some nodes behind an address may be far behind others.
    highest: Cell<u64>,
}

impl Node {
    pub fn new(rpc: Rpc, network: &str) -> Node {
        let (network, highest) = (network.to_owned(), Cell::default());
        Node { rpc, network, rounds: Rounds::default(), started: Instant::now(), newest: Shared::default(), highest }
    }

    /// So many blocks the chain had; returns the most that it ever had.
    pub fn note_height(&self, height: u64) -> u64 {
        self.highest.set(self.highest.get().max(height));
        self.highest.get()
    }

    /// Several calls in one round trip; read each answer with the functions below. The node says in the same breath that it is of
    /// our chain: another one knows nothing of what happens on ours.
    pub async fn batch_here<const N: usize>(&self, calls: [Call; N]) -> Asked<[Asked<Value>; N]> {
        self.all_here(calls.into()).await?.try_into().map_err(|_| nonsense("a batch"))
    }

    /// The same for as many as there are.
    pub async fn all_here(&self, calls: Vec<Call>) -> Asked<Vec<Asked<Value>>> {
        let asking = self.asking();
        let all = [genesis()].into_iter().chain(calls).collect();
        let (mut answers, by) = self.rpc.batch_of(Whom::Any, all).await?;
        let here = match by {
            Some(_) => self.is_here(answers.remove(0)),
            None => Err(RpcError::Unreachable("no node answered all that was asked".into())),
        };
        self.heed(asking, here)?;
        Ok(answers)
    }

    fn is_here(&self, genesis: Asked<Value>) -> Asked<()> {
        match read_genesis(&genesis?) {
            theirs if theirs == self.network => Ok(()),
            theirs => Err(RpcError::Unreachable(format!("the node is of the chain {theirs}, not of {}", self.network))),
        }
    }

    /// Several calls in one round trip to one node, whatever its chain.
    pub async fn batch_of(&self, source: Source, calls: Vec<Call>) -> Asked<Vec<Asked<Value>>> {
        Ok(self.rpc.batch_of(Whom::Only(source), calls).await?.0)
    }

    async fn batch_at<const N: usize>(&self, source: Source, calls: [Call; N]) -> Asked<[Asked<Value>; N]> {
        self.batch_of(source, calls.into()).await?.try_into().map_err(|_| nonsense("a batch"))
    }

    /// All nodes, in the order of the URLs.
    pub fn sources(&self) -> impl Iterator<Item = Source> + use<> {
        self.rpc.sources()
    }

    /// Whoever can say whether this node is right: any other, or itself where there is no other.
    pub fn others(&self, source: Source) -> Whom {
        match self.rpc.sources().count() {
            0 | 1 => Whom::Any,
            _ => Whom::But(source),
        }
    }

    /// Whether this node shows that it keeps what was on the chain at a moment (UNIX seconds) and since.
    pub async fn remembers(&self, source: Source, moment: u64) -> bool {
        let asked = async {
            let [genesis, first] = self.batch_at(source, [genesis(), first_kept()]).await?;
            self.is_here(genesis)?;
            let first = read_number(&first?, "getFirstAvailableBlock")?;
            let [time] = self.batch_at(source, [block_time(first)]).await?;
            read_number(&time?, "getBlockTime")
        };
        asked.await.is_ok_and(|time| time < moment)
    }

    /// One call. A node that has no answer to it is passed over.
    pub async fn call(&self, call: Call) -> Asked<Value> {
        let asking = self.asking();
        self.heed(asking, self.rpc.call(call).await)
    }

    /// After trouble with an answer, be it the node's own error or nonsense, the next node is asked first.
    pub fn heed<T>(&self, asking: Asking, answer: Asked<T>) -> Asked<T> {
        if answer.is_err() {
            self.pass_over(asking);
        }
        answer
    }

    /// What became of a transaction of ours, asked together with whoever asks at about the same moment.
    pub async fn look(&self, signature: [u8; 64], whom: Whom) -> Asked<Look> {
        let asking = self.asking();
        let look = status::together(&self.rounds, &self.rpc, &self.network, (signature, whom)).await;
        let look = if whom == Whom::Any { self.heed(asking, look)? } else { look? };
        self.note_height(look.confirmed.max(look.finalized));
        Ok(look)
    }

    /// The newest blockhash that two thirds of the stake have voted for; a moment old at most.
    pub async fn blockhash(&self) -> Asked<Blockhash> {
        let asking = self.asking();
        let ask = async {
            let [blockhash] = self.batch_here([blockhash()]).await?;
            read_blockhash(&blockhash?)
        };
        let asked = self.newest.get(MOMENT, ask).await;
        let blockhash = self.heed(asking, asked)?;
        self.note_height(blockhash.last_valid.saturating_sub(BLOCKHASH_LIFE));
        Ok(blockhash)
    }

    /// Whether a transaction may still name this blockhash.
    pub async fn is_alive(&self, blockhash: &[u8; 32]) -> Asked<bool> {
        let [alive] = self.batch_here([is_valid(blockhash)]).await?;
        read_flag(&alive?, "isBlockhashValid")
    }

    /// A transaction that is confirmed, or `None`.
    pub async fn transaction(&self, signature: &str) -> Asked<Option<Landed>> {
        match self.shown(signature).await? {
            Shown::Nothing => Ok(None),
            Shown::Foreign => Err(nonsense("getTransaction")),
            Shown::Landed(landed) => Ok(Some(*landed)),
        }
    }

    /// What a node shows as a confirmed transaction of which we only know the name.
    pub async fn shown(&self, signature: &str) -> Asked<Shown> {
        let asking = self.asking();
        let ask = async {
            let [answer] = self.batch_here([transaction(signature)]).await?;
            match answer {
                Err(error) if error.says(&["version"]) && error.says(&["not supported"]) => Ok(Shown::Foreign),
                answer => read_shown(&answer?),
            }
        };
        self.heed(asking, ask.await)
    }

    /// Hands bytes over. An error is no verdict: the node may have passed them on all the same.
    pub async fn send(&self, raw: &[u8]) -> Asked<()> {
        // Simulated before it was signed, and sent again by us: neither is left to the node.
        let options = json!({ "encoding": "base64", "skipPreflight": true, "maxRetries": 0 });
        self.rpc.call(Call::new("sendTransaction", json!([STANDARD.encode(raw), options]))).await.map(|_| ())
    }

    /// About as long as `pause`, and so that all who wait look at the same moments, in rounds.
    pub fn in_step(&self, pause: Duration) -> Duration {
        if pause < STEP {
            return pause;
        }
        let late = (self.started.elapsed() + pause).as_micros() % STEP.as_micros();
        pause.saturating_sub(Duration::from_micros(u64::try_from(late).unwrap_or(0)))
    }

    /// Asks, and asks the next node for as long as the one that answered had to be passed over, each of them once.
    pub async fn any<T, E, F: Future<Output = Result<T, E>>>(&self, ask: impl Fn() -> F) -> Result<T, E> {
        self.rpc.any(ask).await
    }

    /// Taken before a question whose answer may show that its node is of no use.
    pub fn asking(&self) -> Asking {
        self.rpc.asking()
    }

    /// The node that answered is behind, or not of this chain: the next one is asked first from then on.
    pub fn pass_over(&self, asking: Asking) {
        self.rpc.pass_over(asking);
    }
}

pub fn genesis() -> Call {
    Call::new("getGenesisHash", json!([]))
}

/// The CAIP-2 name of the chain that begins with this block.
pub fn read_genesis(answer: &Value) -> String {
    let hash = answer.as_str().and_then(|hash| hash.get(..REFERENCE));
    format!("solana:{}", hash.unwrap_or_default())
}

/// The slot and the height of the chain as sure as this, counted at the same moment.
pub fn reach(level: Level) -> Call {
    Call::new("getEpochInfo", json!([{ "commitment": level.name() }]))
}

/// Slot and height.
pub fn read_reach(answer: &Value) -> Asked<(u64, u64)> {
    match (answer["absoluteSlot"].as_u64(), answer["blockHeight"].as_u64()) {
        (Some(slot), Some(height)) => Ok((slot, height)),
        _ => Err(nonsense("getEpochInfo")),
    }
}

/// The slot of the oldest block that the node keeps.
fn first_kept() -> Call {
    Call::new("getFirstAvailableBlock", json!([]))
}

/// UNIX seconds of a block, by the chain's clock.
fn block_time(slot: u64) -> Call {
    Call::new("getBlockTime", json!([slot]))
}

/// What became of transactions, as far back as the node remembers.
pub fn statuses(names: &[String]) -> Call {
    Call::new("getSignatureStatuses", json!([names, { "searchTransactionHistory": true }]))
}

/// How many blocks the chain has; slots without a block do not count.
pub fn height(level: Level) -> Call {
    Call::new("getBlockHeight", json!([{ "commitment": level.name() }]))
}

pub fn blockhash() -> Call {
    Call::new("getLatestBlockhash", json!([{ "commitment": Level::Confirmed.name() }]))
}

/// Whether a transaction may still name this blockhash.
pub fn is_valid(blockhash: &[u8; 32]) -> Call {
    let text = Pubkey(*blockhash).to_string();
    Call::new("isBlockhashValid", json!([text, { "commitment": Level::Processed.name() }]))
}

pub fn accounts(keys: &[Pubkey]) -> Call {
    let keys: Vec<_> = keys.iter().map(Pubkey::to_string).collect();
    Call::new("getMultipleAccounts", json!([keys, { "encoding": "base64", "commitment": Level::Confirmed.name() }]))
}

/// Runs a transaction without keeping what it does. Our own signature is not there yet, so signatures are not looked at: the
/// payer's was judged before, and ours must not leave before it is durable.
pub fn simulate(raw: &[u8]) -> Call {
    let options = json!({ "encoding": "base64", "sigVerify": false, "replaceRecentBlockhash": false, "commitment": Level::Confirmed.name() });
    Call::new("simulateTransaction", json!([STANDARD.encode(raw), options]))
}

pub fn transaction(signature: &str) -> Call {
    let options = json!({ "encoding": "base64", "commitment": Level::Confirmed.name(), "maxSupportedTransactionVersion": 0 });
    Call::new("getTransaction", json!([signature, options]))
}

/// One page of the confirmed transactions that name an account, newest first: those older than `before`. A node that is not yet
/// at this slot says so instead.
pub fn history(account: Pubkey, before: Option<&str>, slot: u64, limit: u32) -> Call {
    let mut options = json!({ "limit": limit, "commitment": Level::Confirmed.name(), "minContextSlot": slot });
    if let Some(before) = before {
        options["before"] = before.into();
    }
    Call::new("getSignaturesForAddress", json!([account.to_string(), options]))
}

/// The chain's own clock, together with whatever other accounts are wanted.
pub fn clock_key() -> Pubkey {
    CLOCK.parse().expect("the constant is base58 of 32 bytes")
}

/// UNIX seconds by the chain's clock.
pub fn read_clock(account: Option<&Account>) -> Asked<u64> {
    let seconds = account.and_then(|account| account.data.get(CLOCK_SECONDS..CLOCK_SECONDS + 8)?.try_into().ok());
    let seconds = seconds.and_then(|bytes| u64::try_from(i64::from_le_bytes(bytes)).ok());
    seconds.ok_or_else(|| nonsense("the clock"))
}

pub fn read_number(answer: &Value, what: &str) -> Asked<u64> {
    answer.as_u64().ok_or_else(|| nonsense(what))
}

pub fn read_flag(answer: &Value, what: &str) -> Asked<bool> {
    answer["value"].as_bool().ok_or_else(|| nonsense(what))
}

pub fn read_blockhash(answer: &Value) -> Asked<Blockhash> {
    let value = &answer["value"];
    let hash = value["blockhash"].as_str().and_then(|text| text.parse::<Pubkey>().ok());
    match (hash, value["lastValidBlockHeight"].as_u64()) {
        (Some(hash), Some(last_valid)) => Ok(Blockhash { hash: hash.0, last_valid }),
        _ => Err(nonsense("getLatestBlockhash")),
    }
}

/// In the order of the question; `None` for an account that does not exist.
pub fn read_accounts(answer: &Value, expected: usize) -> Asked<Vec<Option<Account>>> {
    let read = |value: &Value| match value {
        Value::Null => Some(None),
        value => Some(Some(Account {
            lamports: value["lamports"].as_u64()?,
            program: value["owner"].as_str()?.parse().ok()?,
            data: STANDARD.decode(value["data"][0].as_str()?).ok()?,
        })),
    };
    let accounts = answer["value"].as_array().and_then(|list| list.iter().map(read).collect::<Option<Vec<_>>>());
    accounts.filter(|list| list.len() == expected).ok_or_else(|| nonsense("getMultipleAccounts"))
}

pub fn read_trial(answer: &Value) -> Asked<Trial> {
    let value = &answer["value"];
    match (value.get("err"), answer["context"]["slot"].as_u64()) {
        (Some(error), Some(slot)) => Ok(Trial { error: error.clone(), slot }),
        _ => Err(nonsense("simulateTransaction")),
    }
}

pub fn read_shown(answer: &Value) -> Asked<Shown> {
    if answer.is_null() {
        return Ok(Shown::Nothing);
    }
    let raw = answer["transaction"][0].as_str().and_then(|text| STANDARD.decode(text).ok());
    let raw = raw.ok_or_else(|| nonsense("getTransaction"))?;
    let Ok(transaction) = Transaction::parse(&raw) else { return Ok(Shown::Foreign) };
    let landed = (|| {
        let meta = &answer["meta"];
        let holdings = |side: &str| Vec::<Holding>::deserialize(meta.get(side)?).ok();
        Some(Landed {
            slot: answer["slot"].as_u64()?,
            succeeded: meta.get("err")?.is_null(),
            transaction,
            fee: meta["fee"].as_u64(),
            before: holdings("preTokenBalances")?,
            after: holdings("postTokenBalances")?,
        })
    })();
    landed.map(|landed| Shown::Landed(Box::new(landed))).ok_or_else(|| nonsense("getTransaction"))
}

/// Newest first.
pub fn read_history(answer: &Value) -> Asked<Vec<Entry>> {
    let text = |entry: &Value, field: &str| entry[field].as_str().map(str::to_owned);
    let read = |entry: &Value| {
        let slot = entry["slot"].as_u64()?;
        Some(Entry { tx: text(entry, "signature")?, slot, time: entry["blockTime"].as_u64(), memo: text(entry, "memo") })
    };
    let found = answer.as_array().and_then(|list| list.iter().map(read).collect());
    found.ok_or_else(|| nonsense("getSignaturesForAddress"))
}

pub fn nonsense(what: &str) -> RpcError {
    RpcError::Unreachable(format!("the node's answer to {what} makes no sense"))
}
