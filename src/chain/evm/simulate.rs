//! Asking the chain whether a transfer would succeed now, and why not if it would not.

use serde_json::Value;

use super::abi;
use super::address::Address;
use super::node::{self, Block, Node};
use super::verified::{Proof, Verified};
use super::verify;
use super::word::Word;
use crate::chain::rpc::{Asking, RpcError};
use crate::chain::{Refused, reason};
use crate::money::Micros;

/// How the transfer is to be called.
pub struct Plan {
    pub data: Vec<u8>,
    /// Whether the payer is a wallet with code, whose signature check costs gas of its own.
    pub wallet: bool,
}

fn unavailable(error: RpcError) -> Refused {
    Refused::Unavailable(error.to_string())
}

/// What became of a transfer that was only tried.
pub struct Trial {
    /// The newest block when it was tried.
    pub latest: Block,
    pub asking: Asking,
    code: Vec<u8>,
    data: Vec<u8>,
    outcome: Result<(), RpcError>,
    tag: &'static str,
}

/// Runs the transfer as `settler` would, and judges it. A payer without code is judged by its signature, one with code (a
/// contract, or EIP-7702) by the token alone.
pub async fn simulate(node: &Node, settler: Address, payment: &Verified) -> Result<Plan, Refused> {
    attempt(node, settler, payment, "latest").await?.judge(node, settler, payment).await
}

/// Runs the transfer in one block: the `latest`, or the one that is `pending`. One round trip.
pub async fn attempt(node: &Node, settler: Address, payment: &Verified, tag: &'static str) -> Result<Trial, Refused> {
    let (authorization, signature) = (&payment.authorization, &payment.signature);
    let data = plain(payment).unwrap_or_else(|| abi::transfer_wallet(authorization, signature));
    let calls = [
        node::chain_id(),
        node::code(authorization.from),
        node::view_in(tag, settler, payment.asset, &data),
        node::block("latest"),
    ];
    let asking = node.asking();
    let [chain_id, code, outcome, latest] = node.batch(calls).await.map_err(unavailable)?;
    node.on_chain(chain_id, payment.chain_id, asking).map_err(unavailable)?;
    let code = code.and_then(|answer| node::read_bytes(&answer)).map_err(unavailable)?;
    let latest = latest.and_then(node::read_block).map_err(unavailable)?;
    Ok(Trial { latest, asking, code, data, outcome: outcome.map(|_| ()), tag })
}

/// The call that carries the signature as a payer without code makes it.
fn plain(payment: &Verified) -> Option<Vec<u8>> {
    match payment.proof {
        Proof::Recovered => abi::transfer_plain(&payment.authorization, &payment.signature),
        Proof::NeedsCode => None,
    }
}

impl Trial {
    pub async fn judge(self, node: &Node, settler: Address, payment: &Verified) -> Result<Plan, Refused> {
        let wallet = !self.code.is_empty();
        if !wallet && payment.proof == Proof::NeedsCode {
            return Err(verify::not_signed(&payment.authorization, &payment.presented.requirements));
        }
        let error = match self.outcome {
            Ok(()) => return Ok(Plan { data: self.data, wallet }),
            Err(error) => error,
        };
        if wallet && plain(payment).is_some() {
            // The wallet may read the signature in another form than we normalised it to.
            let data = abi::transfer_wallet(&payment.authorization, &payment.signature);
            if node.call(node::view_in(self.tag, settler, payment.asset, &data)).await.is_ok() {
                return Ok(Plan { data, wallet });
            }
        }
        Err(diagnose(node, payment, error).await)
    }
}

/// Names the reason of a transfer that would revert, in the order of x402 2.27 facilitators: not an EIP-3009 token, used
/// up, times and signature as the token says, balance, anything else.
pub async fn diagnose(node: &Node, payment: &Verified, error: RpcError) -> Refused {
    if !node::is_revert(&error) {
        return unavailable(error);
    }
    let balance = match unused(node, payment).await {
        Ok(balance) => balance,
        Err(refused) => return refused,
    };
    let text = revert_text(&error);
    if let Some(reason) = said(&text) {
        return invalid(reason, format!("the token refuses the transfer ({text}); sign the offer in PAYMENT-REQUIRED again"));
    }
    match covered(payment, balance) {
        Err(refused) => refused,
        Ok(()) => invalid(
            reason::SIMULATION,
            format!("the transfer would fail on the chain ({text}), so nothing was sent; pay from another wallet"),
        ),
    }
}

/// What speaks against a transfer as far as that shows without its signature. Whoever sees the signature of a payout can submit it,
/// so before the books have given the money for it no node is shown any.
pub async fn unsigned(node: &Node, payment: &Verified) -> Result<(), Refused> {
    let (authorization, asking) = (&payment.authorization, node.asking());
    // Whether the token moves anything between these two, such as while it is paused.
    let moves = abi::transfer(authorization.to, &authorization.value);
    let calls = [node::chain_id(), node::view(authorization.from, payment.asset, &moves)];
    let [chain_id, moved] = node.batch(calls).await.map_err(unavailable)?;
    node.on_chain(chain_id, payment.chain_id, asking).map_err(unavailable)?;
    covered(payment, unused(node, payment).await?)?;
    match moved {
        Err(error) if node::is_revert(&error) => {
            Err(invalid(reason::SIMULATION, format!("the token refuses the transfer ({})", revert_text(&error))))
        }
        moved => moved.map(|_| ()).map_err(unavailable),
    }
}

fn invalid(reason: &'static str, message: String) -> Refused {
    Refused::Invalid { reason, message }
}

/// The payer's balance of the token, if the authorization can still be used.
async fn unused(node: &Node, payment: &Verified) -> Result<Word, Refused> {
    let (authorization, asset) = (&payment.authorization, payment.asset);
    let calls = [
        node::view(asset, asset, &abi::authorization_state(authorization)),
        node::view(asset, asset, &abi::balance_of(authorization.from)),
    ];
    let [state, balance] = node.batch(calls).await.map_err(unavailable)?;
    let used = match state {
        Err(error) if node::is_revert(&error) => {
            return Err(invalid(reason::NOT_SUPPORTED, "the token does not know EIP-3009 authorizations".into()));
        }
        state => word(&state.map_err(unavailable)?),
    };
    match (used, word(&balance.map_err(unavailable)?)) {
        (Some(used), Some(balance)) if used.is_zero() => Ok(balance),
        (Some(_), Some(_)) => {
            Err(invalid(reason::NONCE_USED, "this authorization was used or cancelled already; sign a new one".into()))
        }
        _ => Err(Refused::Unavailable("the token's answers cannot be read".into())),
    }
}

/// Whether the payer has what the transfer moves.
fn covered(payment: &Verified, balance: Word) -> Result<(), Refused> {
    let authorization = &payment.authorization;
    if balance >= authorization.value {
        return Ok(());
    }
    let message = format!(
        "{} has {} USDC on {} and this costs {} USDC; add some there, or pay from another wallet",
        authorization.from,
        Micros::new(balance.as_u64().unwrap_or_default()),
        payment.presented.requirements.network,
        payment.amount()
    );
    Err(invalid(reason::BALANCE, message))
}

/// What a revert says, in its own words.
pub fn revert_text(error: &RpcError) -> String {
    match error {
        RpcError::Unreachable(_) => String::new(),
        RpcError::Answered { message, data } => {
            node::revert_data(data).and_then(|data| abi::revert_text(&data)).unwrap_or_else(|| message.clone())
        }
    }
}

/// The reasons that only the token's own words tell apart.
fn said(text: &str) -> Option<&'static str> {
    let text = text.to_lowercase();
    match () {
        _ if text.contains("not yet valid") => Some(reason::VALID_AFTER),
        _ if text.contains("expired") => Some(reason::VALID_BEFORE),
        _ if text.contains("signature") || text.contains("ecrecover") => Some(reason::SIGNATURE),
        _ => None,
    }
}

fn word(answer: &Value) -> Option<Word> {
    abi::word(&node::read_bytes(answer).ok()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_usdc_become_reasons() {
        for (text, expected) in [
            ("FiatTokenV2: authorization is expired", Some(reason::VALID_BEFORE)),
            ("FiatTokenV2: authorization is not yet valid", Some(reason::VALID_AFTER)),
            ("FiatTokenV2: invalid signature", Some(reason::SIGNATURE)),
            ("ECRecover: invalid signature 's' value", Some(reason::SIGNATURE)),
            ("Pausable: paused", None),
            ("Blacklistable: account is blacklisted", None),
        ] {
            assert_eq!(said(text), expected, "{text}");
        }
    }
}
