//! Topping up: a payment that buys no call and becomes balance of the wallet that signed it, once, however often it is sent.

use std::sync::Arc;

use super::quote::Quote;
use super::settle::{self, Waited};
use super::{Credentials, Gateway, Refusal};
use crate::account::AccountId;
use crate::chain::reason::{self, About, about};
use crate::chain::{self, Confirmation, VerifiedPayment};
use crate::error::{Code, Error};
use crate::ids::{PaymentId, RequestId};
use crate::ledger::{self, Outcome, State};
use crate::money::Micros;
use crate::x402::{Payment, Receipt, Requirements, Version};

/// One request to the top-up route. Its body says nothing.
pub struct TopUp {
    pub request: RequestId,
    /// The path as it was asked: the resource that the offer names.
    pub path: String,
    pub credentials: Credentials,
}

/// A payment that is balance of its payer now, whether this request brought it or an earlier one.
#[derive(Debug)]
pub struct ToppedUp {
    pub wallet: AccountId,
    pub credited: Micros,
    /// What the wallet can spend now. Told to the first who brings the payment, and of those who repeat it only to who shows
    /// by a sign-in or a key to be that wallet: by then the payment stands on its chain for everybody to copy, and is nobody's
    /// credential.
    pub balance: Option<Micros>,
    pub payment: PaymentId,
    pub receipt: (Receipt, Version),
}

/// The name that some buyers' libraries give to every USDC.
const HARDCODED_NAME: &str = "USD Coin";
/// Said of a payment that was signed for a token of that name where ours has another.
const HARDCODED: &str = "sdk_hardcoded_token_name";

/// Takes a top-up: any amount within the operator's limits, settled and durably credited to its payer before this returns.
///
/// # Errors
/// Without a payment the offer, as `payment_required`. Nothing is credited or taken for any refusal but
/// `settlement_pending`, after which the payment is credited as soon as its chain has it.
pub async fn top_up(gateway: &Arc<Gateway>, call: &TopUp) -> Result<ToppedUp, Refusal> {
    gateway.chains.freshen().await;
    let quote = Quote::top_up(gateway, &call.path);
    if gateway.chains.networks().is_empty() {
        return Err(Error::new(Code::NotConfigured, "no payment network is configured here, so nothing can be paid").into());
    }
    let payment = match call.credentials.payment() {
        Ok(Some(payment)) => payment,
        Ok(None) => return Err(required(quote)),
        Err(error) => return Err(quote.refuse_if_payable(error)),
    };
    match take(gateway, call, &quote, &payment).await {
        Ok(topped_up) => Ok(topped_up),
        Err(Refusal { error, receipt, .. }) => {
            let refusal = quote.refuse_if_payable(error);
            Err(Refusal { receipt, ..refusal })
        }
    }
}

/// The 402 for a caller that brought nothing: the beginning of every top-up.
fn required(quote: Quote) -> Refusal {
    let amount = quote.amount;
    let message = format!(
        "Payment required: sign one of `accepts` for {amount} USDC or more and send this request again with PAYMENT-SIGNATURE."
    );
    quote.refuse(Error::new(Code::PaymentRequired, message).requiring(amount))
}

async fn take(gateway: &Arc<Gateway>, call: &TopUp, quote: &Quote, payment: &Payment) -> Result<ToppedUp, Refusal> {
    let _place = gateway.admit()?;
    let told = |error: Error| told(gateway, quote, payment, error);
    let (turn, known) = match settle::enter(gateway, quote, payment) {
        Ok(entered) => entered,
        Err(error) => return Err(told(settle::or_barred(gateway, payment, error)).into()),
    };
    if let Some(row) = known {
        let topped_up = again(turn.id, &row, payment).map_err(|refusal| *refusal)?;
        return Ok(ToppedUp { balance: balance_of_known(gateway, &call.credentials, topped_up.wallet), ..topped_up });
    }
    // What is its balance by now was told.
    gateway.check_payer(payment)?;
    let verified = match settle::verify(gateway, quote, payment, std::time::Duration::ZERO) {
        Ok(verified) => verified,
        Err(error) if settle::is_about_time(&error) => {
            return Err(told(settle::unless_our_clock(gateway, payment, error).await).into());
        }
        Err(error) => return Err(told(error).into()),
    };
    settle::check_waste(gateway, &verified)?;
    gateway.chains.simulate(&verified).await.map_err(|refused| told(settle::refused(refused)))?;
    let deposit = settle::deposit(gateway, &verified, call.request, &call.path).await?;
    let waited = settle::wait(verified.network(), gateway.prepaid.top_up_wait, gateway.chains.settle(verified.clone())).await;
    // A claim for which nothing was signed goes back; anything else goes on without us.
    drop(deposit);
    match waited {
        Waited::Confirmed(confirmation) => credited(gateway, call, &verified, &confirmation).map_err(|refusal| *refusal),
        Waited::Failed { reason, message } => Err(settle::failed(&verified, reason, &message)),
        Waited::Unknown => Err(settle::unknown(gateway, verified.id()).into()),
    }
}

/// The chain has it; what the books say counts.
fn credited(
    gateway: &Gateway,
    call: &TopUp,
    payment: &VerifiedPayment,
    confirmation: &Confirmation,
) -> Result<ToppedUp, Box<Refusal>> {
    let (wallet, id) = (payment.payer(), payment.id());
    let credited = gateway.ledger.payment(id).ok().flatten().and_then(|row| row.outcome);
    let (Some(Outcome::Credited { amount }), Ok(standing)) = (credited, gateway.ledger.standing(wallet)) else {
        return Err(Box::new(settle::not_in_the_books(payment, confirmation)));
    };
    let tx = &confirmation.tx;
    tracing::info!(request.id = %call.request, account = %wallet, payment = %id, micros = amount, tx, "topped up");
    let receipt = settle::receipt(payment, confirmation);
    Ok(ToppedUp { wallet, credited: Micros::new(amount), balance: Some(standing.available), payment: id, receipt })
}

/// What a wallet can spend, for who has shown to be it. A sign-in or a key that is not good proves nothing, and is not needed.
fn balance_of_known(gateway: &Gateway, credentials: &Credentials, wallet: AccountId) -> Option<Micros> {
    let payer = gateway.identify(credentials).ok().flatten().filter(|payer| payer.account() == wallet)?;
    gateway.ledger.standing(payer.account()).ok().map(|standing| standing.available)
}

/// The answer to a top-up that is known: the same as the first time. It says nothing that its chain does not say.
fn again(id: PaymentId, row: &ledger::Payment, payment: &Payment) -> Result<ToppedUp, Box<Refusal>> {
    let refused = |error: Error| Box::new(Refusal::from(error));
    let known = || settle::known(id, row);
    let verified = VerifiedPayment::from_bytes(&row.detail).map_err(|error| refused(known().because(error.to_string())))?;
    if !row.top_up {
        return Err(refused(known()));
    }
    if !verified.is_authorized_by(payment) {
        let message = "another authorization with this nonce was presented before; sign one with a new nonce";
        let error = Error::new(Code::PaymentAlreadyUsed, message).detail("outcome", "taken");
        return Err(refused(error.detail("payment_id", id.to_string())));
    }
    match (row.state, row.outcome, &row.confirmed) {
        (State::Failed, ..) => {
            let reason = row.reason.as_deref().and_then(reason::known).unwrap_or(reason::SETTLE);
            Err(Box::new(settle::failed(&verified, reason, "its chain has proven that it cannot arrive any more")))
        }
        (_, Some(Outcome::Credited { amount }), Some((tx, block))) => {
            let (receipt, _) = settle::receipt(&verified, &Confirmation { tx: tx.clone(), block: *block });
            let credited = Micros::new(amount);
            Ok(ToppedUp { wallet: row.payer, credited, balance: None, payment: id, receipt: (receipt, payment.version) })
        }
        _ => {
            let message = "this payment is settling; send it again in a while, and sign no other: it is credited once";
            let error = Error::new(Code::PaymentInProgress, message).detail("outcome", "pending");
            Err(refused(error.detail("payment_id", id.to_string())))
        }
    }
}

/// A refusal of a payment in the words of this route, where each cause has a code of its own.
fn told(gateway: &Gateway, quote: &Quote, payment: &Payment, error: Error) -> Error {
    let code = match (error.code, error.reason) {
        (Code::InvalidPayment, _) => Code::InvalidAuthorization,
        (Code::PaymentInvalid, Some(reason)) => match about(reason) {
            About::Network => Code::UnsupportedNetwork,
            About::Scheme => Code::UnsupportedScheme,
            About::Token => Code::UnsupportedToken,
            About::Recipient => Code::WrongRecipient,
            About::Payer => Code::WrongPayer,
            About::TooLow => Code::AmountTooLow,
            About::TooHigh => Code::AmountTooHigh,
            About::Amount => Code::InvalidAmount,
            About::Requirements | About::Time | About::Signature | About::Other => Code::PaymentRejected,
        },
        (other, _) => other,
    };
    let error = Error { code, ..error };
    let Ok(wanted) = quote.wanted(gateway, payment) else { return error };
    let about = error.reason.map(about);
    if about == Some(About::Requirements) && is_for_another_token(payment, &wanted) {
        return Error { code: Code::UnsupportedToken, ..error };
    }
    if about == Some(About::Signature) && chain::is_signed_for(HARDCODED_NAME, payment, &wanted) {
        let name = wanted.extra.as_ref().and_then(|extra| extra.get("name")).cloned().unwrap_or_default();
        let message = format!(
            "the signature is for a token that is named {HARDCODED_NAME:?}, as some libraries name every USDC, and on {} its name is \
             {name}; sign with `name` and `version` of the offer's `extra`",
            wanted.network
        );
        return Error { message, ..error.reason(HARDCODED) };
    }
    error
}

fn is_for_another_token(payment: &Payment, wanted: &Requirements) -> bool {
    payment.accepted.as_ref().is_some_and(|accepted| !accepted.asset.eq_ignore_ascii_case(&wanted.asset))
}
