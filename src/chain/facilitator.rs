//! Settling through somebody else's x402 v2 facilitator: its word is read strictly and its silence never as a verdict.

use std::sync::Arc;

use awc::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::{Duration, sleep};
use tracing::{debug, error, info, warn};

use super::client::{Answer, JsonClient};
use super::evm::{Depth, hex};
use super::handle::{Closed, Entry};
use super::open::Hearing;
use super::payment::VerifiedPayment;
use super::witness::{Stands, Witness};
use super::{Attempt, Confirmation, Journal, JournalClosed, Refused, Settlement, reason, solana};
use crate::clock::Clock;
use crate::config::Secret;
use crate::fault;
use crate::x402::names::{self, Family};

/// An authorization is over for us so long after its end.
const EXPIRED: Duration = Duration::from_secs(30);
/// So long after its end a payment of unknown outcome is left to the operator, when there is no chain to ask.
const GIVEN_UP: Duration = Duration::from_secs(3600);

/// Where a chain counts blocks instead of seconds, a payment is over so long after it was verified: 150 blocks take a minute.
const BLOCKS: Duration = Duration::from_secs(600);

/// Between two looks whether a confirmed transfer is still there.
const WATCH: Duration = Duration::from_secs(5);

/// A remote facilitator for one network.
pub(super) struct Facilitator {
    pub client: JsonClient,
    /// Without a trailing slash.
    pub url: String,
    /// The whole value of the `Authorization` header.
    pub authorization: Option<Secret>,
    /// The chain itself, if the operator named its nodes.
    pub witness: Option<Witness>,
    /// How deep a transfer must be, where the chain is asked.
    pub depth: Depth,
    /// CAIP-2.
    pub network: String,
    pub entry: Arc<Entry>,
    pub journal: Arc<dyn Journal>,
    pub clock: Clock,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Verified {
    is_valid: bool,
    invalid_reason: Option<String>,
    invalid_message: Option<String>,
    payer: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Settled {
    success: bool,
    #[serde(default)]
    transaction: Option<String>,
    network: Option<String>,
    payer: Option<String>,
    error_reason: Option<String>,
    error_message: Option<String>,
}

/// What a `/settle` answer proves.
#[derive(Debug, PartialEq, Eq)]
enum Word {
    /// The money moved in this transaction.
    Paid(String),
    /// It says that it did not and will not move it.
    Refused { reason: &'static str, message: String },
    /// It was not asked to act: our credentials are wrong.
    NotAsked(String),
    /// Anything else.
    Unknown(String),
}

impl Facilitator {
    /// Asks for a verdict.
    pub async fn simulate(&self, payment: &VerifiedPayment) -> Result<(), Refused> {
        let answer = self.post("verify", payment).await.map_err(Refused::Unavailable)?;
        read_verify(&answer, &self.network, &payment.payer_address())
    }

    /// Settles, journaling the intent before the first request. An outcome that nobody knows stays open.
    pub async fn run(
        &self,
        payment: &VerifiedPayment,
        mut resumed: bool,
        mut confirmed: Option<Confirmation>,
        hearing: &Hearing,
    ) -> Result<(), JournalClosed> {
        if self.journal.is_outgoing(payment.id()) {
            // It may refuse today and submit tomorrow, and a payout must not be given back while that can be.
            error!(
                payment = %payment.id(),
                "this payout was begun with a key of our own and stays open: set the network's settlement back to what it was"
            );
            return Ok(());
        }
        let mut vanished = false;
        loop {
            let outcome = match confirmed.take() {
                Some(confirmation) => Settlement::Confirmed(confirmation),
                None => match self.settle(payment, resumed).await? {
                    Some(outcome) => outcome,
                    None => return Ok(()),
                },
            };
            hearing.tell(&outcome);
            let Settlement::Confirmed(found) = outcome else { return Ok(()) };
            if vanished {
                info!(payment = %payment.id(), tx = %found.tx, "the facilitator's transfer is on the chain again");
            }
            if self.lasts(payment, &found).await {
                self.journal.finalized(payment.id());
                return Ok(());
            }
            warn!(payment = %payment.id(), tx = %found.tx, "a confirmed transfer vanished; the facilitator is asked again");
            self.journal.unconfirmed(payment.id());
            hearing.take_back();
            (resumed, vanished) = (true, true);
        }
    }

    /// Watches a confirmed transfer until its block is final (`true`) or it has vanished. Without a chain to ask, the
    /// facilitator's word is all there is.
    async fn lasts(&self, payment: &VerifiedPayment, found: &Confirmation) -> bool {
        let Some(witness) = &self.witness else { return true };
        let mut missed = 0;
        loop {
            sleep(WATCH).await;
            match witness.stands(payment, found).await {
                Ok(Stands::Final) => return true,
                Ok(Stands::Yet) => missed = 0,
                // Nodes may be apart for a moment; the second miss counts.
                Ok(Stands::Not) if missed > 0 => return false,
                Ok(Stands::Not) => missed += 1,
                Err(why) => debug!(payment = %payment.id(), "the chain cannot be asked whether a transfer still stands: {why}"),
            }
        }
    }

    /// `None` leaves the payment open: nobody knows, and asking on is of no use.
    async fn settle(&self, payment: &VerifiedPayment, resumed: bool) -> Result<Option<Settlement>, JournalClosed> {
        let id = payment.id();
        if !resumed {
            // The hash is not known before; the entry says that money may move from now on.
            self.journal.signed(id, Attempt { tx: String::new(), raw: Vec::new(), bound_to: 0 }).await?;
        }
        self.journal.sent(id);
        // A request of unknown outcome may have settled, and then the next one is told "already used".
        let mut in_doubt = resumed;
        let mut named: Option<String> = None;
        let mut pause = Duration::from_millis(500);
        let outcome = loop {
            if named.is_none() {
                match self.ask(payment, in_doubt).await {
                    Word::Paid(tx) if self.witness.is_none() => break Settlement::Confirmed(Confirmation { tx, block: 0 }),
                    Word::Paid(tx) => (named, in_doubt) = (Some(tx), true),
                    Word::Refused { reason, message } if !in_doubt => break Settlement::Failed { reason, message },
                    Word::NotAsked(_) if self.is_past(payment, EXPIRED) && !in_doubt => {
                        let message = "the authorization ended before it could be settled".into();
                        break Settlement::Failed { reason: reason::VALID_BEFORE, message };
                    }
                    Word::NotAsked(why) => error!(payment = %id, "the facilitator refuses our credentials: {why}"),
                    Word::Refused { message: why, .. } | Word::Unknown(why) => {
                        in_doubt = true;
                        warn!(payment = %id, "it is unknown whether the facilitator settled: {why}");
                    }
                }
            }
            if in_doubt && let Some(outcome) = self.proven(payment, named.as_deref()).await {
                break outcome;
            }
            if self.witness.is_none() && self.is_past(payment, GIVEN_UP) {
                error!(
                    payment = %id, payer = %payment.payer_address(), micros = payment.amount().get(),
                    "nobody knows whether the facilitator settled this payment; it stays open: look it up on the chain, and \
                     name the network's rpc_urls, or close it with farebox give-up if it did not arrive"
                );
                self.journal.forgotten(id);
                return Ok(None);
            }
            sleep(pause).await;
            // Looking at the chain costs nobody anything.
            let longest = match &self.witness {
                Some(_) if named.is_some() => 2,
                Some(_) => 10,
                None => 60,
            };
            pause = (pause * 2).min(Duration::from_secs(longest));
        };
        fault::point("facilitator.settled");
        self.journal.settled(id, outcome.clone()).await?;
        Ok(Some(outcome))
    }

    /// Asks for the settlement, with the identical request each time.
    async fn ask(&self, payment: &VerifiedPayment, in_doubt: bool) -> Word {
        if in_doubt && self.witness.is_some() && self.is_past(payment, EXPIRED) {
            return Word::Unknown("its time is over; only the chain is asked now".into());
        }
        fault::point("facilitator.before");
        let answer = self.post("settle", payment).await;
        fault::point("facilitator.after");
        match answer {
            Ok(answer) => read_settle(&answer, payment.network(), &payment.payer_address()),
            Err(why) => Word::Unknown(why),
        }
    }

    /// What the chain proves, where it can be asked.
    async fn proven(&self, payment: &VerifiedPayment, tx: Option<&str>) -> Option<Settlement> {
        match self.witness.as_ref()?.verdict(payment, tx, self.depth).await {
            Ok(verdict) => verdict,
            Err(why) => {
                warn!(payment = %payment.id(), "the chain cannot be asked what the facilitator did: {why}");
                None
            }
        }
    }

    fn is_past(&self, payment: &VerifiedPayment, margin: Duration) -> bool {
        let end = payment.valid_before().unwrap_or_else(|| payment.presented().verified_at.plus(BLOCKS));
        self.clock.now() >= end.plus(margin)
    }

    /// Whether the chain's clock and ours agree, where the chain can be asked.
    pub async fn agree_on_time(&self) -> Result<(), Closed> {
        match &self.witness {
            Some(witness) => witness.agree_on_time(self.clock.now()).await,
            None => Ok(()),
        }
    }

    /// Whether it says that it serves our network; a facilitator that says nothing is believed to.
    pub async fn check(&self) -> Result<(), Closed> {
        if let Some(witness) = &self.witness {
            witness.check(self.clock.now()).await?;
        }
        let url = format!("{}/supported", self.url);
        let answer = self.client.get(&url, self.authorization()).await?;
        if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
            return Err(format!("the facilitator refuses our credentials ({})", answer.status).into());
        }
        let supported = serde_json::from_slice::<Value>(&answer.body).ok().filter(|_| answer.status.is_success());
        let kinds = supported.as_ref().and_then(|supported| supported["kinds"].as_array());
        let serves = |kind: &&Value| {
            let network = kind["network"].as_str().unwrap_or_default();
            kind["scheme"] == "exact" && names::caip2(network) == Some(self.network.as_str())
        };
        match kinds.map(|kinds| kinds.iter().find(serves)) {
            Some(None) => Err(format!("the facilitator does not settle on {}", self.network).into()),
            Some(Some(kind)) => takes(self.entry.offers.as_ref(), &kind["extra"], &self.network),
            None => takes(self.entry.offers.as_ref(), &Value::Null, &self.network),
        }
    }

    /// Looks for the blockhash that offers name, where the chain can be asked.
    pub async fn freshen(&self) {
        // Without a chain to ask there is never one.
        let Some(witness) = &self.witness else { return self.entry.note_silence() };
        match witness.blockhash().await {
            Ok(Some(blockhash)) => self.entry.note_blockhash(blockhash),
            Ok(None) => {}
            Err(why) => {
                self.entry.note_silence();
                debug!(network = self.network, "no blockhash for offers: {why}");
            }
        }
    }

    async fn post(&self, verb: &str, payment: &VerifiedPayment) -> Result<Answer, String> {
        let presented = payment.presented();
        let body = json!({
            "x402Version": 2,
            "paymentPayload": { "x402Version": 2, "accepted": presented.requirements, "payload": presented.payload },
            "paymentRequirements": presented.requirements,
        });
        self.client.post(&format!("{}/{verb}", self.url), self.authorization(), body.to_string().into_bytes()).await
    }

    fn authorization(&self) -> Option<&str> {
        self.authorization.as_ref().map(Secret::expose)
    }
}

/// Where the facilitator signs as well, buyers must know for whom they leave a place. Whom it named once, it need not name in
/// every answer: some of them are of a bad moment.
fn takes(offers: Option<&solana::Offers>, extra: &Value, network: &str) -> Result<(), Closed> {
    let Some(offers) = offers else { return Ok(()) };
    match extra["feePayer"].as_str().and_then(|text| text.parse().ok()) {
        Some(fee_payer) => offers.note_fee_payer(fee_payer),
        None if offers.has_fee_payer() => {}
        None => return Err(format!("the facilitator names no feePayer for {network}").into()),
    }
    Ok(())
}

/// Whether both are the same wallet: Ethereum's letters may be of either case, Solana's mean something each.
fn same_wallet(network: &str, one: &str, other: &str) -> bool {
    match Family::of_network(network) {
        Some(Family::Solana) => one == other,
        _ => one.eq_ignore_ascii_case(other),
    }
}

/// Whether this is how the network's transactions are named.
fn is_transaction(network: &str, text: &str) -> bool {
    match Family::of_network(network) {
        Some(Family::Solana) => solana::signature(text).is_some(),
        _ => hex::fixed::<32>(text).is_some(),
    }
}

fn read_verify(answer: &Answer, network: &str, payer: &str) -> Result<(), Refused> {
    if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Err(Refused::Unavailable(format!("the facilitator refuses our credentials ({})", answer.status)));
    }
    // Some answer 400 with a verdict; what cannot be read, and every 5xx, is not one.
    let Ok(verdict) = serde_json::from_slice::<Verified>(&answer.body) else {
        return Err(Refused::Unavailable(format!("the facilitator answered {} and no verdict", answer.status)));
    };
    if answer.status.is_server_error() || answer.status == StatusCode::TOO_MANY_REQUESTS {
        return Err(Refused::Unavailable(format!("the facilitator answered {}", answer.status)));
    }
    if verdict.is_valid {
        let somebody_else = verdict.payer.is_some_and(|other| !same_wallet(network, &other, payer));
        return match (answer.status == StatusCode::OK, somebody_else) {
            (true, false) => Ok(()),
            _ => Err(Refused::Unavailable("the facilitator's verdict is about something else".into())),
        };
    }
    let said = verdict.invalid_reason.unwrap_or_default();
    let reason = reason::known(&said).unwrap_or(reason::FACILITATOR);
    Err(Refused::Invalid { reason, message: told(&said, verdict.invalid_message.as_deref()) })
}

fn read_settle(answer: &Answer, network: &str, payer: &str) -> Word {
    if matches!(answer.status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN) {
        return Word::NotAsked(answer.status.to_string());
    }
    let Ok(settled) = serde_json::from_slice::<Settled>(&answer.body) else {
        return Word::Unknown(format!("it answered {} and no outcome", answer.status));
    };
    let tx = settled.transaction.unwrap_or_default();
    if settled.success {
        let same_network = settled.network.as_deref().and_then(names::caip2) == Some(network);
        let same_payer = settled.payer.is_none_or(|other| same_wallet(network, &other, payer));
        let well_formed = is_transaction(network, &tx);
        return match answer.status == StatusCode::OK && same_network && same_payer && well_formed {
            true => Word::Paid(tx),
            false => Word::Unknown("its success does not name our network, payer and a transaction".into()),
        };
    }
    let said = settled.error_reason.unwrap_or_default();
    let message = told(&said, settled.error_message.as_deref());
    // Only what is decided before anything is sent is an outcome. "Failed" without a hash is also what a facilitator says
    // when its node took the transaction and the answer was lost, and "used" what it says of its own earlier one.
    let before_sending = before_sending(&said).filter(|_| tx.is_empty());
    match before_sending {
        Some(reason)
            if answer.status.is_success()
                || answer.status.is_client_error() && answer.status != StatusCode::TOO_MANY_REQUESTS =>
        {
            Word::Refused { reason, message }
        }
        _ => Word::Unknown(message),
    }
}

/// The table's copy of a reason that is found before anything is sent.
fn before_sending(said: &str) -> Option<&'static str> {
    let maybe_sent =
        [solana::reason::SIMULATION, solana::reason::TRANSACTION, solana::reason::DUPLICATE, solana::reason::EXPIRED];
    let on_solana = solana::reason::ALL.into_iter().filter(|reason| !maybe_sent.contains(reason));
    BEFORE_SENDING.into_iter().chain(on_solana).find(|reason| *reason == said)
}

/// Refusals that a facilitator reads off the payment itself or the payer's balance.
const BEFORE_SENDING: [&str; 14] = [
    reason::INVALID_PAYLOAD,
    reason::REQUIREMENTS,
    reason::UNSUPPORTED_SCHEME,
    reason::SCHEME,
    reason::MISSING_DOMAIN,
    reason::NETWORK,
    reason::SIGNATURE,
    reason::RECIPIENT,
    reason::VALID_BEFORE,
    reason::VALID_AFTER,
    reason::VALUE_V1,
    reason::VALUE_V2,
    reason::BALANCE,
    // The name of the same in the specification.
    "insufficient_funds",
];

/// The facilitator's words as a buyer may read them: its first paragraph on one line. What follows is often a dump of the
/// call, with the signature and the address of its node in it.
fn told(reason: &str, message: Option<&str>) -> String {
    let paragraph = message.unwrap_or_default().lines().take_while(|line| !line.trim().is_empty()).collect::<Vec<_>>();
    let words = format!("{reason} {}", paragraph.join(" "));
    words.trim().chars().filter(|c| !c.is_control()).take(300).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const NETWORK: &str = "eip155:84532";
    const PAYER_ON_SOLANA: &str = "GtYsm93zTjwNeXuLC87GQLc3ELFzZATgfpFmPcFuked5";
    const PAYER: &str = "0x70997970C51812dc3A010C7d01b50e0d17dc79C8";

    fn answer(status: u16, body: Value) -> Answer {
        Answer { status: StatusCode::from_u16(status).unwrap(), body: body.to_string().into() }
    }

    #[test]
    fn only_a_complete_success_is_paid() {
        let tx = format!("0x{}", "ab".repeat(32));
        let good = json!({"success": true, "transaction": tx, "network": NETWORK, "payer": PAYER.to_ascii_lowercase()});
        assert_eq!(read_settle(&answer(200, good.clone()), NETWORK, PAYER), Word::Paid(tx.clone()));
        for (field, value) in [
            ("success", json!("true")),
            ("transaction", json!("")),
            ("transaction", json!("0x12")),
            ("network", json!("eip155:8453")),
            ("network", Value::Null),
            ("payer", json!("0x3C44CdDdB6a900fa2b585dd299e03d12FA4293BC")),
        ] {
            let mut bad = good.clone();
            bad[field] = value;
            assert!(matches!(read_settle(&answer(200, bad), NETWORK, PAYER), Word::Unknown(_)), "{field}");
        }
        assert!(matches!(read_settle(&answer(502, good), NETWORK, PAYER), Word::Unknown(_)));
        assert!(matches!(read_settle(&answer(200, json!({})), NETWORK, PAYER), Word::Unknown(_)), "200 alone is not paid");
    }

    #[test]
    fn a_refusal_is_a_verdict_and_trouble_is_not() {
        let refusal = json!({"success": false, "transaction": "", "errorReason": reason::BALANCE});
        let word = read_settle(&answer(200, refusal), NETWORK, PAYER);
        assert!(matches!(word, Word::Refused { reason: reason::BALANCE, .. }));
        for maybe_sent in [reason::TRANSACTION, reason::NONCE_USED, reason::SIMULATION, "some_new_word", ""] {
            let answered = answer(200, json!({"success": false, "transaction": "", "errorReason": maybe_sent}));
            assert!(matches!(read_settle(&answered, NETWORK, PAYER), Word::Unknown(_)), "{maybe_sent} may have been sent");
        }
        let pending = json!({"success": false, "transaction": "0xab", "errorReason": "settlement_pending"});
        assert!(matches!(read_settle(&answer(200, pending), NETWORK, PAYER), Word::Unknown(_)));
        assert!(matches!(read_settle(&answer(401, json!({"success": false})), NETWORK, PAYER), Word::NotAsked(_)));
    }

    #[test]
    fn a_buyer_reads_the_facilitators_reason_and_not_its_call() {
        let message = "it reverted with:\r\nERC20: balance\n\nContract Call:\n  args: (0xsignature)\n  URL: https://key@node";
        let refusal = json!({"isValid": false, "invalidReason": "insufficient_funds", "invalidMessage": message});
        let Err(Refused::Invalid { message, .. }) = read_verify(&answer(200, refusal), NETWORK, PAYER) else {
            panic!("a refusal")
        };
        assert_eq!(message, "insufficient_funds it reverted with: ERC20: balance");
        assert_eq!(told("x", Some(&"y".repeat(9000))).len(), 300);
        assert_eq!(told("", None), "");
    }

    #[test]
    fn our_own_trouble_with_the_facilitator_never_asks_the_buyer_to_pay_again() {
        for (status, body) in [(401, json!({})), (500, json!({"isValid": false})), (200, json!("?")), (429, json!({}))] {
            assert!(matches!(read_verify(&answer(status, body), NETWORK, PAYER), Err(Refused::Unavailable(_))), "{status}");
        }
        assert_eq!(read_verify(&answer(200, json!({"isValid": true, "payer": null})), NETWORK, PAYER), Ok(()));
        let refused = json!({"isValid": false, "invalidReason": reason::SIGNATURE});
        assert!(matches!(
            read_verify(&answer(400, refused), NETWORK, PAYER),
            Err(Refused::Invalid { reason: reason::SIGNATURE, .. })
        ));
    }

    #[test]
    fn an_answer_that_names_no_fee_payer_changes_nothing_once_one_was_named() {
        let offers = solana::Offers::new(b"secret", None, crate::clock::Timestamp::default());
        let takes = |extra: Value| takes(Some(&offers), &extra, "solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1");
        for nobody in [Value::Null, json!({}), json!({ "feePayer": 7 }), json!({ "feePayer": "nobody" })] {
            assert!(takes(nobody).is_err(), "nobody was ever named");
        }
        assert_eq!(takes(json!({ "feePayer": PAYER_ON_SOLANA })), Ok(()));
        for nobody in [Value::Null, json!({}), json!({ "feePayer": 7 })] {
            assert_eq!(takes(nobody), Ok(()));
            assert_eq!(offers.extra("one call")["feePayer"], PAYER_ON_SOLANA);
        }
    }

    #[test]
    fn on_solana_a_transaction_and_a_wallet_have_one_spelling_each() {
        let (network, payer) = ("solana:EtWTRABZaYq6iMfeYKouRu166VU2xqa1", PAYER_ON_SOLANA);
        let tx = bs58::encode([7; 64]).into_string();
        let settled = |tx: &str, payer: &str| {
            let said = json!({"success": true, "transaction": tx, "network": "solana-devnet", "payer": payer});
            read_settle(&answer(200, said), network, PAYER_ON_SOLANA)
        };
        assert_eq!(settled(&tx, payer), Word::Paid(tx.clone()));
        assert!(matches!(settled(&tx, &payer.to_ascii_lowercase()), Word::Unknown(_)), "somebody else");
        for other in ["", "0xab", &format!("0x{}", "ab".repeat(32)), &bs58::encode([7; 32]).into_string()] {
            assert!(matches!(settled(other, payer), Word::Unknown(_)), "{other}");
        }
        let refused = |reason: &str| {
            let said = json!({"success": false, "transaction": "", "errorReason": reason});
            read_settle(&answer(200, said), network, PAYER_ON_SOLANA)
        };
        assert!(matches!(refused(solana::reason::AMOUNT), Word::Refused { reason: solana::reason::AMOUNT, .. }));
        for maybe_sent in [solana::reason::SIMULATION, solana::reason::TRANSACTION, solana::reason::DUPLICATE] {
            assert!(matches!(refused(maybe_sent), Word::Unknown(_)), "{maybe_sent} may have been sent");
        }
    }
}
