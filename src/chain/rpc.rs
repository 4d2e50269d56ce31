//! JSON-RPC to a chain's nodes: the next URL when one fails, several calls in one round trip where the node allows it.

use std::cell::Cell;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::client::JsonClient;

/// A provider that refused a list of calls may take one again after this long.
const RELENT: Duration = Duration::from_secs(600);

/// One call.
#[derive(Clone, Debug)]
pub struct Call {
    pub method: &'static str,
    pub params: Value,
}

impl Call {
    pub fn new(method: &'static str, params: Value) -> Call {
        Call { method, params }
    }
}

/// Why a call has no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum RpcError {
    /// No node answered, or none answered sense: the outcome is unknown.
    Unreachable(String),
    /// The node answered with an error. `message` is in lower case; nodes differ in codes and agree on words. `data` is what
    /// it added, or null.
    Answered { message: String, data: Value },
}

impl RpcError {
    /// Whether the node's words contain any of these (lower case).
    pub fn says(&self, words: &[&str]) -> bool {
        match self {
            RpcError::Unreachable(_) => false,
            RpcError::Answered { message, .. } => words.iter().any(|word| message.contains(word)),
        }
    }
}

impl std::fmt::Display for RpcError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            RpcError::Unreachable(why) => write!(f, "the node cannot be reached: {why}"),
            RpcError::Answered { message, .. } => write!(f, "the node answered: {message}"),
        }
    }
}

/// No answer of the expected shape. `spoke` when a node said something, so that asking in another way may help.
struct Silence {
    why: String,
    spoke: bool,
}

impl From<Silence> for RpcError {
    fn from(silence: Silence) -> RpcError {
        RpcError::Unreachable(silence.why)
    }
}

/// When something was asked: after so many nodes were passed over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Asking(u64);

/// One of a network's nodes, by its place among the URLs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Source(usize);

impl std::fmt::Display for Source {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "node {} of rpc_urls", self.0 + 1)
    }
}

/// Which of a network's nodes may answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Whom {
    Any,
    But(Source),
    Only(Source),
}

impl Whom {
    fn may(self, node: usize) -> bool {
        match self {
            Whom::Any => true,
            Whom::But(other) => other.0 != node,
            Whom::Only(one) => one.0 == node,
        }
    }
}

/// What each of several calls was answered, and the node that answered all of them, if it was one.
pub type Answers = (Vec<Result<Value, RpcError>>, Option<Source>);

/// The nodes of one network, the one that answered last first.
pub struct Rpc {
    client: JsonClient,
    urls: Vec<String>,
    preferred: Cell<usize>,
    /// How often a node was passed over.
    passes: Cell<u64>,
    /// Some providers refuse lists of calls; until then none is tried again at that node.
    no_lists_before: Vec<Cell<Option<Instant>>>,
}

#[derive(Deserialize)]
struct Reply {
    id: Option<u64>,
    #[serde(default)]
    result: Option<Value>,
    error: Option<ReplyError>,
}

#[derive(Deserialize)]
struct ReplyError {
    #[serde(default)]
    message: String,
    #[serde(default)]
    data: Value,
}

impl Rpc {
    pub fn new(client: JsonClient, urls: Vec<String>) -> Rpc {
        let no_lists_before = urls.iter().map(|_| Cell::new(None)).collect();
        Rpc { client, urls, preferred: Cell::new(0), passes: Cell::new(0), no_lists_before }
    }

    /// Taken before a question whose answer may show that its node is of no use.
    pub fn asking(&self) -> Asking {
        Asking(self.passes.get())
    }

    /// The node that was asked first since then is behind the others, or of another chain: ask the next one first. Many may
    /// find that out at once, and it is passed over once.
    pub fn pass_over(&self, asking: Asking) {
        if self.asking() == asking {
            self.passes.set(asking.0.wrapping_add(1));
            self.preferred.set((self.preferred.get() + 1) % self.urls.len().max(1));
        }
    }

    /// Asks, and asks the next node for as long as what went wrong was the node, each of them once.
    pub async fn any<T, E, F: Future<Output = Result<T, E>>>(&self, ask: impl Fn() -> F) -> Result<T, E> {
        let mut left = self.urls.len();
        loop {
            let asking = self.asking();
            let answer = ask().await;
            left = left.saturating_sub(1);
            if answer.is_ok() || self.asking() == asking || left == 0 {
                return answer;
            }
        }
    }

    pub async fn call(&self, call: Call) -> Result<Value, RpcError> {
        let request = request(0, &call).to_string().into_bytes();
        let (reply, _) = self.ask::<Reply>(Whom::Any, request).await?;
        outcome(reply)
    }

    /// All nodes, in the order of the URLs.
    pub fn sources(&self) -> impl Iterator<Item = Source> + use<> {
        (0..self.urls.len()).map(Source)
    }

    /// All calls in one round trip where the node takes that, answers in the order of the calls. Whatever could be asked is
    /// answered: each call has its own trouble.
    ///
    /// # Errors
    /// Why none of them could be asked.
    pub async fn batch(&self, calls: Vec<Call>) -> Result<Vec<Result<Value, RpcError>>, RpcError> {
        Ok(self.batch_of(Whom::Any, calls).await?.0)
    }

    /// The same, answered by one of these nodes, and by which of them.
    ///
    /// # Errors
    /// Why none of them could be asked.
    pub async fn batch_of(&self, whom: Whom, calls: Vec<Call>) -> Result<Answers, RpcError> {
        let list: Vec<_> = calls.iter().enumerate().map(|(id, call)| request(id, call)).collect();
        let list = Value::from(list).to_string().into_bytes();
        let (mut why, mut refused) = (NOBODY_ELSE.to_owned(), Vec::new());
        for (turn, node) in self.turns(whom) {
            let answered = match self.takes_lists(node) {
                false => self.one_by_one(node, whom, &calls).await,
                true => match self.post::<Vec<Reply>>(node, list.clone()).await.map(|replies| in_order(replies, calls.len())) {
                    Ok(Some(answers)) => Some((answers, Some(Source(node)))),
                    Ok(None) => {
                        refused.push(node);
                        why = format!("node {} left calls unanswered", node + 1);
                        None
                    }
                    Err(silence) => {
                        refused.extend(silence.spoke.then_some(node));
                        why = silence.why;
                        None
                    }
                },
            };
            if let Some(answers) = answered {
                self.prefer(turn, node, whom);
                return Ok(answers);
            }
        }
        // One error for the whole list, or for some of it: such a node is asked one by one for a while, unless that fails too.
        for node in refused {
            if let Some(answers) = self.one_by_one(node, whom, &calls).await {
                if let Some(flag) = self.no_lists_before.get(node) {
                    flag.set(Some(Instant::now() + RELENT));
                }
                return Ok(answers);
            }
        }
        Err(RpcError::Unreachable(why))
    }

    fn takes_lists(&self, node: usize) -> bool {
        self.no_lists_before.get(node).and_then(Cell::get).is_none_or(|time| Instant::now() >= time)
    }

    /// Each call of its own, at this node and where it fails at any other. `None` when nothing was answered.
    async fn one_by_one(&self, node: usize, whom: Whom, calls: &[Call]) -> Option<Answers> {
        let ask = |call| async move {
            let body = request(0, call).to_string().into_bytes();
            match self.post::<Reply>(node, body.clone()).await {
                Ok(reply) => Ok((reply, Source(node))),
                Err(_) => self.ask::<Reply>(whom, body).await,
            }
        };
        let asked = futures_util::future::join_all(calls.iter().map(ask)).await;
        let mut sources = asked.iter().map(|one| one.as_ref().ok().map(|(_, source)| *source));
        let first = sources.next().flatten();
        let source = first.filter(|_| sources.all(|source| source == first));
        let read = |one: Result<(Reply, Source), Silence>| outcome(one?.0);
        let answers: Vec<_> = asked.into_iter().map(read).collect();
        let silent = answers.iter().all(|answer| matches!(answer, Err(RpcError::Unreachable(_))));
        (!silent).then_some((answers, source))
    }

    /// The nodes to ask, one after the other. With a single node, a connection that was closed while idle deserves a second try.
    fn turns(&self, whom: Whom) -> impl Iterator<Item = (usize, usize)> + use<> {
        let (first, count) = (self.preferred.get(), self.urls.len());
        (0..count.max(2)).map(move |turn| (turn, (first + turn) % count.max(1))).filter(move |(_, node)| whom.may(*node))
    }

    /// A first answer changes nothing: its node may have been passed over meanwhile.
    fn prefer(&self, turn: usize, node: usize, whom: Whom) {
        if turn > 0 && whom == Whom::Any {
            self.preferred.set(node);
        }
    }

    /// Posts to one node after the other until one answers JSON of the expected shape. Sending the same bytes twice is
    /// harmless for every method we use: a transaction's hash is its identity.
    async fn ask<T: for<'a> Deserialize<'a>>(&self, whom: Whom, body: Vec<u8>) -> Result<(T, Source), Silence> {
        let mut last = Silence { why: NOBODY_ELSE.to_owned(), spoke: false };
        for (turn, node) in self.turns(whom) {
            match self.post(node, body.clone()).await {
                Ok(reply) => {
                    self.prefer(turn, node, whom);
                    return Ok((reply, Source(node)));
                }
                Err(silence) => last = silence,
            }
        }
        Err(last)
    }

    async fn post<T: for<'a> Deserialize<'a>>(&self, node: usize, body: Vec<u8>) -> Result<T, Silence> {
        let silence = |why, spoke| Err(Silence { why, spoke });
        let Some(url) = self.urls.get(node) else { return silence(NOBODY_ELSE.to_owned(), false) };
        match self.client.post(url, None, body).await {
            Ok(answer) if limited(answer.status.as_u16(), &answer.body) => {
                silence(format!("node {} limits our rate", node + 1), false)
            }
            Ok(answer) => match serde_json::from_slice(&answer.body) {
                Ok(reply) => Ok(reply),
                Err(_) => silence(format!("node {} answered {} and no JSON-RPC", node + 1, answer.status), true),
            },
            Err(error) => silence(format!("node {}: {error}", node + 1), false),
        }
    }
}

/// Said where nobody was asked.
const NOBODY_ELSE: &str = "there is no other node";

fn request(id: usize, call: &Call) -> Value {
    json!({"jsonrpc": "2.0", "id": id, "method": call.method, "params": call.params})
}

/// A rate limit is an answer of the provider, not of the chain; some send it as a JSON-RPC error. What a contract says
/// when it reverts is the payer's choice and never one.
fn limited(status: u16, body: &[u8]) -> bool {
    let limits = |reply: &Value| {
        let error = &reply["error"];
        let text = error["message"].as_str().unwrap_or_default().to_ascii_lowercase();
        let reverted = !error["data"].is_null() || error["code"] == 3 || text.contains("revert");
        // Some use the same code for too wide a question, which another node would refuse as well, or for too many at once.
        let too_wide = ["query returned", "block range", "batch"].iter().any(|word| text.contains(word));
        let says = ["rate limit", "too many requests", "capacity"].iter().any(|word| text.contains(word));
        error.is_object() && !too_wide && (error["code"] == -32005 || (says && !reverted))
    };
    if status == 429 {
        return true;
    }
    if body.len() > 1024 {
        return false;
    }
    match serde_json::from_slice(body) {
        Ok(Value::Array(replies)) => replies.iter().any(limits),
        Ok(reply) => limits(&reply),
        Err(_) => false,
    }
}

fn outcome(reply: Reply) -> Result<Value, RpcError> {
    match reply.error {
        None => Ok(reply.result.unwrap_or(Value::Null)),
        Some(error) => {
            let message: String = error.message.to_lowercase().chars().filter(|c| !c.is_control()).take(300).collect();
            Err(RpcError::Answered { message, data: error.data })
        }
    }
}

/// `None` when a call has no answer, or something is answered that was not asked.
fn in_order(replies: Vec<Reply>, expected: usize) -> Option<Vec<Result<Value, RpcError>>> {
    let mut answers: Vec<_> = (0..expected).map(|_| None).collect();
    for reply in replies {
        let place = reply.id.and_then(|id| usize::try_from(id).ok()).and_then(|id| answers.get_mut(id))?;
        *place = Some(outcome(reply));
    }
    answers.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_matched_to_their_calls_whatever_their_order() {
        let replies: Vec<Reply> = serde_json::from_str(
            r#"[{"id":1,"result":"0x2"},{"id":0,"error":{"code":3,"message":"Execution REVERTED","data":"0x08c3"}}]"#,
        )
        .unwrap();
        let answers = in_order(replies, 2).unwrap();
        assert_eq!(answers[0], Err(RpcError::Answered { message: "execution reverted".into(), data: "0x08c3".into() }));
        assert_eq!(answers[1], Ok("0x2".into()));
        for refused in [
            r#"[{"id":0,"result":"0x1"}]"#,
            r#"[{"id":null,"error":{"code":-32600,"message":"too many"}}]"#,
            r#"[{"id":0,"result":"0x1"},{"id":2,"result":"0x1"}]"#,
        ] {
            assert!(in_order(serde_json::from_str(refused).unwrap(), 2).is_none(), "never a success: {refused}");
        }
    }

    #[test]
    fn a_rate_limit_is_not_an_answer_of_the_chain() {
        let limited = |body: &str| super::limited(200, body.as_bytes());
        assert!(super::limited(429, b"slow down"));
        for body in [
            r#"{"error":{"code":-32005,"message":"limit exceeded"}}"#,
            r#"{"error":{"code":-32000,"message":"Too Many Requests"}}"#,
            r#"[{"id":0,"result":"0x1"},{"id":1,"error":{"code":429,"message":"over rate limit"}}]"#,
        ] {
            assert!(limited(body), "{body}");
        }
        for body in [
            r#"{"id":1,"result":"capacity"}"#,
            r#"{"error":{"code":3,"message":"execution reverted: too many requests","data":"0x08c379a0"}}"#,
            r#"{"error":{"code":3,"message":"rate limit"}}"#,
            r#"{"error":{"code":-32000,"message":"rate limit","data":"0x08c379a0"}}"#,
            r#"{"error":{"code":-32000,"message":"execution reverted: -32005 capacity"}}"#,
            r#"{"error":{"code":-32005,"message":"query returned more than 10000 results"}}"#,
            r#"{"error":{"code":-32005,"message":"batch size too large"}}"#,
        ] {
            assert!(!limited(body), "what the payer may have written: {body}");
        }
    }
}
