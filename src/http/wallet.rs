//! What a wallet may see of itself as its clients ask for it: its balance, and the statement that sums to it.

use std::rc::Rc;

use actix_web::{HttpRequest, HttpResponse, web};
use serde_json::{Value, json};

use super::credentials::credentials;
use super::limits::RateLimits;
use super::respond::{self, Edge};
use crate::account::AccountId;
use crate::error::{Code, Error};
use crate::gateway::{Payer, Purpose, Refusal, Remedy, account};
use crate::ledger::{Denied, Entry, Movement, Standing};
use crate::money::signed_usd;
use crate::x402::{Offer, Resource};

/// Lines of a statement that are shown when nobody says how many, and at most.
const LINES: usize = 50;
const MOST_LINES: usize = 100;

/// `GET …/x402/balance/{wallet}`.
pub async fn balance(request: HttpRequest, wallet: web::Path<String>) -> HttpResponse {
    let answer = async {
        let owner = Owner::of(&request, &wallet, Opens::ToKeys, RateLimits::balance).await?;
        let prepaid = &owner.edge.gateway.prepaid;
        let standing = owner.standing()?;
        let is_blocked = owner.edge.gateway.ledger.is_blocked(owner.account);
        let body = json!({
            "walletAddress": owner.account.address(),
            "balanceUsd": standing.available.as_usd(),
            "canConsume": !(is_blocked || standing.available.is_zero() && standing.allowance.is_zero()),
            "minimumTopUpUsd": prepaid.top_up_minimum.as_usd(),
            "suggestedTopUpUsd": prepaid.top_up_suggested.as_usd(),
            "diemBalanceUsd": standing.allowance.as_usd(),
        });
        Ok(tell(&standing, body))
    };
    answer.await.unwrap_or_else(|refusal| respond::refuse(&request, refusal))
}

/// `GET …/x402/transactions/{wallet}?limit=&offset=`: the newest lines first. They say what the wallet does with all its keys,
/// so one key, which may be in the hands of somebody who is given a few cents, does not open them.
pub async fn transactions(request: HttpRequest, wallet: web::Path<String>) -> HttpResponse {
    let answer = async {
        let page = Page::of(request.query_string())?;
        let owner = Owner::of(&request, &wallet, Opens::ToItsOwner, RateLimits::statement).await?;
        let (ledger, account) = (owner.edge.gateway.ledger.clone(), owner.account);
        let Page { limit, offset } = page;
        // Rows are read from the disk, which may be a moment behind the balance.
        let flushed = ledger.flush().map_err(|denied| unavailable(&denied))?;
        flushed.wait().await.map_err(|stopped| unavailable(&stopped.into()))?;
        let read = web::block(move || ledger.statement(account, limit, offset)).await;
        let (entries, more) = read.map_err(|_| stopping())?.map_err(|denied| unavailable(&denied))?;
        let standing = owner.standing()?;
        let body = json!({
            "walletAddress": account.address(),
            "currentBalance": standing.available.as_usd(),
            "transactions": entries.iter().map(line).collect::<Vec<_>>(),
            "pagination": { "limit": limit, "offset": offset, "hasMore": more },
        });
        Ok(tell(&standing, body))
    };
    answer.await.unwrap_or_else(|refusal| respond::refuse(&request, refusal))
}

/// To whom a route opens.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Opens {
    /// To the wallet that signed in, and to a key, which speaks for its wallet and spends its balance anyway.
    ToKeys,
    /// To the wallet that signed in.
    ToItsOwner,
}

/// Who asks about its own wallet.
struct Owner<'a> {
    edge: &'a Edge,
    account: AccountId,
}

impl<'a> Owner<'a> {
    /// Checks in this order: that the path names a wallet, that the request says who asks, in a way that opens this route, that
    /// it is that wallet, and that it does not ask too often.
    async fn of(
        request: &'a HttpRequest,
        path: &str,
        opens: Opens,
        bucket: fn(&RateLimits, AccountId) -> Result<(), u32>,
    ) -> Result<Owner<'a>, Refusal> {
        let Some(edge) = request.app_data::<Rc<Edge>>() else {
            return Err(Error::new(Code::Internal, "the server is not set up").into());
        };
        let named = wallet(path)?;
        let payer = edge.gateway.identify(&credentials(request.headers()))?.ok_or_else(|| invitation(edge, request.path()))?;
        if opens == Opens::ToItsOwner && matches!(payer, Payer::Key(_)) {
            let message = "a key pays for calls and reads the balance; what moved is shown to its wallet alone: sign in with it \
                           (X-Sign-In-With-X), without the key";
            return Err(Error::new(Code::KeyNotEnough, message).into());
        }
        let account = payer.account();
        if named != account {
            return Err(Error::new(Code::WalletMismatch, "You can only access data of your own wallet").into());
        }
        bucket(&edge.limits, account).map_err(|seconds| respond::slow_down("this wallet is asked about too often", seconds))?;
        edge.gateway.consume(&payer, Purpose::Read).await?;
        Ok(Owner { edge, account })
    }

    fn standing(&self) -> Result<Standing, Error> {
        self.edge.gateway.ledger.standing(self.account).map_err(|denied| unavailable(&denied))
    }
}

/// The wallet that a path names, of either family.
fn wallet(path: &str) -> Result<AccountId, Error> {
    AccountId::from_address(path).ok_or_else(|| {
        let shown: String = path.chars().take(60).collect();
        let message = format!("{shown:?} is no wallet address; write 0x and 40 hex digits, or a Solana address in base58");
        Error::new(Code::InvalidRequest, message).param("walletAddress")
    })
}

/// The 402 for whoever did not say who it is. Nothing can be paid here, so nothing is offered but to sign in.
fn invitation(edge: &Edge, path: &str) -> Refusal {
    let url = format!("{}{path}", edge.gateway.public_url);
    let resource = Resource { url, description: "Balance of a wallet".into(), mime_type: "application/json".into() };
    let message = "sign in with the wallet: answer the challenge in extensions and send that as X-Sign-In-With-X";
    let offer = Some(Offer { resource, accepts: Vec::new() });
    let error = Error::new(Code::PaymentRequired, message);
    Refusal { offer, remedy: Some(Remedy::Identify), ..error.into() }
}

/// Which lines of a statement are asked for.
#[derive(Debug, PartialEq, Eq)]
struct Page {
    limit: usize,
    offset: usize,
}

impl Page {
    fn of(query: &str) -> Result<Page, Error> {
        let said = |name: &'static str, what: &str| {
            Error::new(Code::InvalidRequest, format!("{name} is not {what}; send it once, in digits")).param(name)
        };
        let pairs = web::Query::<Vec<(String, String)>>::from_query(query).map_err(|_| said("limit", "readable"))?;
        let number = |name: &'static str, usual: usize| -> Option<usize> {
            let mut values = pairs.iter().filter(|(other, _)| other == name).map(|(_, value)| value);
            match (values.next(), values.next()) {
                (None, _) => Some(usual),
                (Some(digits), None) if digits.bytes().all(|b| b.is_ascii_digit()) => digits.parse().ok(),
                _ => None,
            }
        };
        let limit = number("limit", LINES).filter(|limit| (1..=MOST_LINES).contains(limit));
        let offset = number("offset", 0).filter(|offset| *offset <= account::MOST_OFFSET);
        Ok(Page {
            limit: limit.ok_or_else(|| said("limit", &format!("between 1 and {MOST_LINES}")))?,
            offset: offset.ok_or_else(|| said("offset", &format!("a whole number from 0 to {}", account::MOST_OFFSET)))?,
        })
    }
}

fn line(entry: &Entry) -> Value {
    json!({
        "id": entry.number.to_string(),
        "amount": signed_usd(entry.amount),
        "balanceAfter": signed_usd(entry.balance_after),
        "type": match entry.movement {
            Movement::TopUp => "TOP_UP",
            Movement::Charge => "CHARGE",
            Movement::Refund => "REFUND",
            // Their clients know three names.
            Movement::Adjustment if entry.amount < 0 => "CHARGE",
            Movement::Adjustment => "REFUND",
        },
        "createdAt": entry.at.to_rfc3339(),
        "requestId": entry.request.map(|request| request.to_string()),
        "modelId": entry.model,
    })
}

fn tell(standing: &Standing, data: Value) -> HttpResponse {
    let mut response = HttpResponse::Ok();
    respond::show_standing(&mut response, standing);
    response.json(json!({ "success": true, "data": data }))
}

fn unavailable(denied: &Denied) -> Error {
    let message = "the books cannot be read at the moment; ask again later";
    Error::new(Code::LedgerUnavailable, message).retry_after(5).because(denied.to_string())
}

fn stopping() -> Error {
    Error::new(Code::Busy, "the gateway is stopping; ask again in a moment").retry_after(5)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_is_asked_for_once_and_in_digits() {
        let page = |query: &str| Page::of(query).ok().map(|page| (page.limit, page.offset));
        for (query, expected) in [
            ("", Some((50, 0))),
            ("limit=1", Some((1, 0))),
            ("limit=100&offset=7&other=x", Some((100, 7))),
            ("offset=%31", Some((50, 1))),
            ("limit=0", None),
            ("limit=101", None),
            ("limit=1000000000", None),
            ("limit=-1", None),
            ("limit=+1", None),
            ("limit=1.0", None),
            ("limit=", None),
            ("limit=1&limit=1000", None),
            ("offset=-1", None),
            ("offset=1000000", Some((50, 1_000_000))),
            ("offset=1000001", None),
            ("offset=18446744073709551616", None),
        ] {
            assert_eq!(page(query), expected, "{query:?}");
        }
    }

    #[test]
    fn a_wallet_is_known_however_its_hex_is_written_and_nothing_else_is_a_wallet() {
        let mixed = "0x90F79bf6EB2c4f870365E785982E1f101E93b906";
        let account = wallet(mixed).unwrap();
        assert_eq!(wallet(&format!("0x{}", mixed[2..].to_lowercase())).unwrap(), account);
        assert_eq!(account.address(), mixed.to_lowercase());
        let mint = "EPjFWdd5AufqSSqeM2qN1xzybapC8G4wEGGkZwyTDt1v";
        assert_eq!(wallet(mint).unwrap().address(), mint);
        assert!(wallet(&format!("1{mint}")).is_err() && wallet(&mint[..40]).is_err(), "32 bytes, no more and no less");
        for bad in ["", "0x", "0x1234", &mixed[2..], &mixed[..41], "0X90F79bf6EB2c4f870365E785982E1f101E93b906", "0OIl"] {
            assert!(wallet(bad).is_err(), "{bad}");
        }
    }
}
