//! What became of our transactions: asked for everybody's at once, with the heights by which silence is judged.

use futures_util::future::join_all;
use serde_json::Value;

use super::node::{self, Asked, Level, nonsense};
use crate::chain::rounds;
use crate::chain::rpc::{Rpc, RpcError, Source, Whom};

/// Signatures in one question; nodes refuse more.
const MOST: usize = 256;

/// A transaction, and who may tell what became of it.
type Question = ([u8; 64], Whom);
/// Who waits for the next look.
pub type Rounds = rounds::Rounds<Question, Look>;
type Wanted = rounds::Wanted<Question, Look>;

/// What a node knows of one transaction, and how far the chain was before it said so.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Look {
    /// `None` when the node has never seen it in a block, as far back as it remembers.
    pub status: Option<Status>,
    /// Up to which slot it had looked.
    pub slot: u64,
    /// Blocks that two thirds of the stake have voted for.
    pub confirmed: u64,
    /// Blocks that cannot be replaced any more.
    pub finalized: u64,
    /// The slot of the last of those.
    pub final_slot: u64,
    /// Which node said all of this, if it was one.
    pub by: Option<Source>,
}

impl Look {
    /// Whether a block that is final by this answer may still have been unknown to whoever looked: several machines answer
    /// behind one address.
    pub fn is_behind(&self) -> bool {
        self.slot < self.final_slot
    }
}

/// A transaction that is in a block.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Status {
    pub slot: u64,
    pub succeeded: bool,
    pub level: Level,
}

/// What became of one transaction, in the next round.
pub async fn together(rounds: &Rounds, rpc: &Rpc, network: &str, question: Question) -> Asked<Look> {
    let ask = |wanted: Vec<Wanted>| async move {
        // Side by side: who has to wait for a node that does not answer does not hold up the others.
        let groups = in_groups(wanted).into_iter();
        join_all(groups.map(|(whom, these)| ask_for_all(rpc, network, whom, these))).await;
    };
    rounds.join(question, ask).await
}

/// Those that may be asked together, in the order in which they came.
fn in_groups(wanted: Vec<Wanted>) -> Vec<(Whom, Vec<Wanted>)> {
    let mut groups: Vec<(Whom, Vec<Wanted>)> = Vec::new();
    for one in wanted {
        let whom = one.question.1;
        match groups.iter_mut().find(|(of, these)| *of == whom && these.len() < MOST) {
            Some((_, these)) => these.push(one),
            None => groups.push((whom, vec![one])),
        }
    }
    groups
}

async fn ask_for_all(rpc: &Rpc, network: &str, whom: Whom, wanted: Vec<Wanted>) {
    let names: Vec<_> = wanted.iter().map(|one| name(&one.question.0)).collect();
    match looks(rpc, network, whom, &names).await {
        Ok(looks) => wanted.into_iter().zip(looks).for_each(|(one, look)| drop(one.tell.send(Ok(look)))),
        Err(error) => wanted.into_iter().for_each(|one| drop(one.tell.send(Err(error.clone())))),
    }
}

async fn looks(rpc: &Rpc, network: &str, whom: Whom, names: &[String]) -> Asked<Vec<Look>> {
    // In this order: what is silent at these heights was looked for no earlier than they were counted.
    let calls = vec![node::genesis(), node::height(Level::Confirmed), node::reach(Level::Finalized), node::statuses(names)];
    let (answers, by) = rpc.batch_of(whom, calls).await?;
    let [genesis, confirmed, finality, statuses] = <[Asked<Value>; 4]>::try_from(answers).map_err(|_| nonsense("a batch"))?;
    let theirs = node::read_genesis(&genesis?);
    if theirs != network {
        // Another chain is as silent about ours as one that lost it.
        return Err(RpcError::Unreachable(format!("the node is of the chain {theirs}, not of {network}")));
    }
    let confirmed = node::read_number(&confirmed?, "getBlockHeight")?;
    let (final_slot, finalized) = node::read_reach(&finality?)?;
    let answer = statuses?;
    let slot = node::read_number(&answer["context"]["slot"], "getSignatureStatuses")?;
    let statuses = read_statuses(&answer, names.len())?;
    Ok(statuses.into_iter().map(|status| Look { status, slot, confirmed, finalized, final_slot, by }).collect())
}

/// The name of a transaction: its first signature in base58.
pub fn name(signature: &[u8; 64]) -> String {
    bs58::encode(signature).into_string()
}

/// In the order of the question.
fn read_statuses(answer: &Value, expected: usize) -> Asked<Vec<Option<Status>>> {
    let read = |value: &Value| match value {
        Value::Null => Some(None),
        value => Some(Some(Status {
            slot: value["slot"].as_u64()?,
            succeeded: value.get("err")?.is_null(),
            level: match value["confirmationStatus"].as_str()? {
                "processed" => Level::Processed,
                "confirmed" => Level::Confirmed,
                "finalized" => Level::Finalized,
                _ => return None,
            },
        })),
    };
    let statuses = answer["value"].as_array().and_then(|list| list.iter().map(read).collect::<Option<Vec<_>>>());
    statuses.filter(|list| list.len() == expected).ok_or_else(|| nonsense("getSignatureStatuses"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn who_asks_the_same_nodes_is_asked_for_together_as_far_as_they_take_it() {
        let wanted = |whom| Wanted { question: ([0; 64], whom), tell: tokio::sync::oneshot::channel().0 };
        let mut all: Vec<_> = (0..300).map(|_| wanted(Whom::Any)).collect();
        let client = crate::chain::client::JsonClient::new(crate::tls::client(None).unwrap());
        let rpc = Rpc::new(client, vec![String::new(); 2]);
        all.extend(rpc.sources().map(|source| wanted(Whom::But(source))));
        let sizes: Vec<_> = in_groups(all).iter().map(|(_, these)| these.len()).collect();
        assert_eq!(sizes, [256, 44, 1, 1]);
    }

    #[test]
    fn only_an_answer_about_every_transaction_counts() {
        let landed = json!({"slot": 7, "confirmations": 3, "err": null, "confirmationStatus": "confirmed"});
        let status = Status { slot: 7, succeeded: true, level: Level::Confirmed };
        assert_eq!(read_statuses(&json!({"value": [null, landed]}), 2), Ok(vec![None, Some(status)]));
        for (field, value) in [("confirmationStatus", json!("rooted")), ("confirmationStatus", Value::Null), ("slot", json!("7"))]
        {
            let mut bad = landed.clone();
            bad[field] = value;
            assert!(read_statuses(&json!({"value": [bad]}), 1).is_err(), "{field}");
        }
        for bad in
            [json!({"value": []}), json!({"value": [null, null]}), json!({"value": null}), json!("busy"), json!({"value": [{}]})]
        {
            assert!(read_statuses(&bad, 1).is_err(), "silence about ours is not \"never seen\": {bad}");
        }
        let mut failed = landed;
        failed["err"] = json!({"InstructionError": [2, {"Custom": 1}]});
        assert!(!read_statuses(&json!({"value": [failed]}), 1).unwrap()[0].unwrap().succeeded);
    }
}
