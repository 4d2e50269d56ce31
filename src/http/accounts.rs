//! The routes of an account's owner, in JSON: sessions, keys, usage, statement and receipts; and what a key may know of itself.

use std::ops::RangeInclusive;
use std::rc::Rc;
use std::sync::Arc;

use actix_web::web::{self, Payload};
use actix_web::{HttpRequest, HttpResponse};
use serde::de::{DeserializeOwned, IgnoredAny};
use serde_json::{Value, json};

use super::credentials::credentials;
use super::paid;
use super::respond::{self, Edge};
use crate::account::AccountId;
use crate::config::Limits;
use crate::error::{Code, Error};
use crate::gateway::{Change, Credentials, Fresh, Keyring, Payer, Purpose, Rotation, Whose, Wish, account};
use crate::ids::{KeyId, RequestId};
use crate::x402;

/// Bytes of a body on these routes.
const MOST: usize = 64 * 1024;
/// Characters of an error about a body, which may quote a name that the caller sent.
const WORDS: usize = 300;

/// What a handler here gives back.
type Answer = Result<HttpResponse, Error>;

/// Who asks, and by what.
enum Owner {
    /// The token of a session.
    Session(AccountId),
    /// A sign-in header, which a change uses up.
    SignedIn(Payer),
}

impl Owner {
    /// Whoever signed this request, or holds the token of a session. An API key does not do: who finds one must not be able
    /// to make more of them.
    fn of(edge: &Edge, credentials: &Credentials) -> Result<Owner, Error> {
        if !credentials.sign_ins.is_empty() {
            let payer = edge.gateway.identify(credentials)?;
            return payer.map(Owner::SignedIn).ok_or_else(|| Error::new(Code::Internal, "a sign-in was not read"));
        }
        session(edge, credentials).map(Owner::Session)
    }

    fn account(&self) -> AccountId {
        match self {
            Owner::Session(account) => *account,
            Owner::SignedIn(payer) => payer.account(),
        }
    }

    /// Uses the sign-in up as the operator's policy says. After this nothing may be wrong with the request any more.
    async fn spend(&self, edge: &Edge, purpose: Purpose) -> Result<AccountId, Error> {
        if let Owner::SignedIn(payer) = self {
            edge.gateway.consume(payer, purpose).await?;
        }
        Ok(self.account())
    }
}

/// Who holds the session whose token came.
pub fn session(edge: &Edge, credentials: &Credentials) -> Result<AccountId, Error> {
    let token = session_token(credentials)?;
    edge.gateway.sessions.find(token, edge.gateway.clock().now()).ok_or_else(no_session)
}

/// The one token that came, as `Authorization: Bearer`.
fn session_token(credentials: &Credentials) -> Result<&str, Error> {
    let is_key = |text: &String| text.contains("sk-x402-");
    if credentials.authorizations.iter().chain(&credentials.api_keys).any(is_key) {
        let message = "an API key pays for calls and opens nothing here; sign in with the wallet (POST /api/session). \
                       GET /v1/key shows what a key may know";
        return Err(Error::new(Code::InvalidSession, message));
    }
    let [value] = credentials.authorizations.as_slice() else {
        let message = "sign in first: send X-Sign-In-With-X here, or to POST /api/session for a token to send as \
                       Authorization: Bearer";
        return Err(Error::new(Code::InvalidSession, message));
    };
    let token = value.split_once(' ').filter(|(scheme, _)| scheme.eq_ignore_ascii_case("bearer"));
    token.map(|(_, token)| token.trim()).ok_or_else(no_session)
}

fn no_session() -> Error {
    let message = "this session is not known or is over; sign in again (POST /api/session)";
    Error::new(Code::InvalidSession, message)
}

pub async fn open_session(request: HttpRequest) -> HttpResponse {
    let opened = async {
        let edge = edge(&request)?;
        let credentials = credentials(request.headers());
        if credentials.sign_ins.is_empty() {
            let message = "a session begins with a signed message; send it as X-Sign-In-With-X";
            return Err(Error::new(Code::InvalidSession, message));
        }
        let owner = Owner::of(edge, &credentials)?;
        let what = "too many sessions are opened from your address, and this sign-in was not used";
        edge.limits.key_change(respond::source(edge, &request)).map_err(|seconds| respond::slow_down(what, seconds))?;
        let random = random()?;
        let account = owner.spend(edge, Purpose::Change).await?;
        let known = account::is_known(&edge.gateway.ledger, account)?;
        let opened = edge.gateway.sessions.open(account, known, random, edge.gateway.clock().now());
        let full = "too many sessions are open at the moment; top up first, or sign each request";
        let opened = opened.ok_or_else(|| Error::new(Code::Busy, full).retry_after(60))?;
        Ok(HttpResponse::Ok().json(json!({
            "token": opened.reveal(),
            "account": account.to_string(),
            "expires_at": opened.expires_at.to_rfc3339(),
        })))
    };
    answer(&request, opened.await)
}

pub async fn close_session(request: HttpRequest) -> HttpResponse {
    let closed = || {
        let edge = edge(&request)?;
        let credentials = credentials(request.headers());
        match edge.gateway.sessions.close(session_token(&credentials)?) {
            true => Ok(HttpResponse::NoContent().finish()),
            false => Err(no_session()),
        }
    };
    answer(&request, closed())
}

pub async fn show_account(request: HttpRequest) -> HttpResponse {
    let shown = seen(&request, |keyring, owner| {
        let mut shown = account::standing(&keyring.ledger, owner, keyring.clock.now())?;
        shown["keys"] = keyring.live(owner)?.into();
        Ok(shown)
    });
    answer(&request, shown.await)
}

pub async fn list_keys(request: HttpRequest) -> HttpResponse {
    let listed = seen(&request, |keyring, owner| Ok(json!({ "keys": keyring.list(owner)? })));
    answer(&request, listed.await)
}

pub async fn mint_key(request: HttpRequest, payload: Payload) -> HttpResponse {
    let minted = async {
        let (edge, owner) = change_of(&request)?;
        let keyring = edge.gateway.keyring();
        let terms = keyring.terms(&body::<Wish>(&request, payload, edge).await?)?;
        if !account::is_known(&keyring.ledger, owner.account())? {
            let message = "top up first: a wallet that never had money or an allowance here has no use for keys";
            return Err(Error::new(Code::TopUpFirst, message));
        }
        let fresh = fresh()?;
        let account = owner.spend(edge, Purpose::Change).await?;
        in_turn(edge, account, move || Ok(keyring.mint(account, terms, fresh)?.reveal())).await
    };
    answer(&request, minted.await)
}

pub async fn change_key(request: HttpRequest, id: web::Path<String>, payload: Payload) -> HttpResponse {
    let changed = async {
        let (edge, owner) = change_of(&request)?;
        let (keyring, id) = (edge.gateway.keyring(), key_id(&id)?);
        let amendment = keyring.amendment(&body::<Change>(&request, payload, edge).await?)?;
        let account = owner.spend(edge, Purpose::Change).await?;
        in_turn(edge, account, move || keyring.change(Whose::Of(account), id, amendment)).await
    };
    answer(&request, changed.await)
}

/// Ending a key must be possible whatever others do: it has no bucket (a key ends once, and that is all it writes) and waits
/// for no turn.
pub async fn revoke_key(request: HttpRequest, id: web::Path<String>) -> HttpResponse {
    let revoked = async {
        let edge = edge(&request)?;
        let owner = Owner::of(edge, &credentials(request.headers()))?;
        let (keyring, id) = (edge.gateway.keyring(), key_id(&id)?);
        let account = owner.spend(edge, Purpose::Change).await?;
        apart(edge, account, move || keyring.revoke(Whose::Of(account), id)).await
    };
    answer(&request, revoked.await)
}

pub async fn rotate_key(request: HttpRequest, id: web::Path<String>, payload: Payload) -> HttpResponse {
    let rotated = async {
        let (edge, owner) = change_of(&request)?;
        let (keyring, id) = (edge.gateway.keyring(), key_id(&id)?);
        let grace = body::<Rotation>(&request, payload, edge).await?.grace()?;
        let fresh = fresh()?;
        let account = owner.spend(edge, Purpose::Change).await?;
        in_turn(edge, account, move || Ok(keyring.rotate(Whose::Of(account), id, grace, fresh)?.reveal())).await
    };
    answer(&request, rotated.await)
}

pub async fn usage(request: HttpRequest) -> HttpResponse {
    let days = number(&request, "days", 1..=account::MOST_DAYS, account::DAYS);
    let used = seen(&request, |keyring, owner| account::usage(&keyring.ledger, owner, days?, keyring.clock.now()));
    answer(&request, used.await)
}

pub async fn transactions(request: HttpRequest) -> HttpResponse {
    let limit = number(&request, "limit", 1..=account::MOST_LINES, account::LINES);
    let offset = number(&request, "offset", 0..=account::MOST_OFFSET, 0);
    let lines = seen(&request, |keyring, owner| account::transactions(&keyring.ledger, owner, limit?, offset?));
    answer(&request, lines.await)
}

pub async fn receipt(request: HttpRequest, id: web::Path<String>) -> HttpResponse {
    let shown = seen(&request, move |keyring, owner| {
        let wrong = || Error::new(Code::NotFound, "a request id is req_ and 32 digits of hex, as X-Request-Id says it");
        account::receipt(&keyring.ledger, owner, RequestId::parse(&id).ok_or_else(wrong)?)
    });
    answer(&request, shown.await)
}

/// What a key is told about itself and the balance it spends.
pub async fn own_key(request: HttpRequest) -> HttpResponse {
    let told = async {
        let edge = edge(&request)?;
        // Whatever else came along: this is about the key.
        let credentials = Credentials { sign_ins: Vec::new(), ..credentials(request.headers()) };
        let Some(Payer::Key(key)) = edge.gateway.identify(&credentials)? else {
            return Err(Error::new(Code::InvalidKey, "send the key as Authorization: Bearer sk-x402-… or as x-api-key"));
        };
        let keyring = edge.gateway.keyring();
        let account = key.record.account;
        apart(edge, account, move || {
            let mut told = keyring.facts(&key.record)?;
            let mut standing = account::standing(&keyring.ledger, account, keyring.clock.now())?;
            ["available_usd", "allowance"].into_iter().for_each(|name| told[name] = standing[name].take());
            Ok(told)
        })
        .await
    };
    answer(&request, told.await)
}

/// Something that an owner only looks at.
async fn seen(request: &HttpRequest, look: impl FnOnce(Keyring, AccountId) -> Result<Value, Error> + Send + 'static) -> Answer {
    let edge = edge(request)?;
    let owner = Owner::of(edge, &credentials(request.headers()))?;
    let account = owner.spend(edge, Purpose::Read).await?;
    let keyring = edge.gateway.keyring();
    apart(edge, account, move || look(keyring, account)).await
}

/// The beginning of every change: who asks, and that it is not too often.
fn change_of(request: &HttpRequest) -> Result<(&Rc<Edge>, Owner), Error> {
    let edge = edge(request)?;
    let owner = Owner::of(edge, &credentials(request.headers()))?;
    edge.gateway.check_blocked(owner.account())?;
    let what = "keys are changed too often from your address, and this change was not made";
    edge.limits.key_change(respond::source(edge, request)).map_err(|seconds| respond::slow_down(what, seconds))?;
    Ok((edge, owner))
}

/// A change that waits for its turn, so that however many are asked for, one that ends a key finds few before it.
async fn in_turn(edge: &Edge, account: AccountId, work: impl FnOnce() -> Result<Value, Error> + Send + 'static) -> Answer {
    let turn = Arc::clone(&edge.turns).acquire_owned().await.map_err(|_| stopping())?;
    // It is kept until the work is done, also when the caller has left.
    let work = move || {
        let done = work();
        drop(turn);
        done
    };
    apart(edge, account, work).await
}

pub fn stopping() -> Error {
    Error::new(Code::Busy, "the gateway is stopping; ask again in a moment").retry_after(5)
}

/// Does what blocks on a thread for it, to its end, also when the caller leaves; the answer says what `account` can spend.
async fn apart(edge: &Edge, account: AccountId, work: impl FnOnce() -> Result<Value, Error> + Send + 'static) -> Answer {
    let done = web::block(work).await.map_err(|_| stopping())??;
    let mut response = HttpResponse::Ok();
    respond::show_standing(&mut response, &account::now(&edge.gateway.ledger, account)?);
    Ok(response.json(done))
}

/// Reads a small JSON object, whatever it is called. An empty body is an empty object. Fields that nobody knows are refused:
/// a misspelt limit would be none.
async fn body<T: DeserializeOwned>(request: &HttpRequest, payload: Payload, edge: &Edge) -> Result<T, Error> {
    let limits = Limits { max_body: MOST, ..edge.gateway.limits.clone() };
    let bytes = paid::body(request.headers(), payload, &limits, false, |_| true).await?;
    let words = |text: &dyn std::fmt::Display| text.to_string().chars().take(WORDS).collect::<String>();
    let text = std::str::from_utf8(&bytes).map_err(|_| Error::new(Code::InvalidJson, "the body is not text in UTF-8"))?;
    let text = if text.trim().is_empty() { "{}" } else { text };
    if let Err(error) = serde_json::from_str::<IgnoredAny>(text) {
        return Err(Error::new(Code::InvalidJson, format!("the body is not JSON: {}", words(&error))));
    }
    x402::object(text, "the body").map_err(|malformed| Error::new(Code::InvalidRequest, words(&malformed)))
}

fn key_id(text: &str) -> Result<KeyId, Error> {
    KeyId::parse(text)
        .ok_or_else(|| Error::new(Code::NotFound, "a key's id is key_ and 32 digits of hex, as GET /api/keys lists it"))
}

/// A whole number in the query; `usual` where there is none.
pub fn number(request: &HttpRequest, name: &'static str, range: RangeInclusive<usize>, usual: usize) -> Result<usize, Error> {
    let said = request.query_string().split('&').map(|pair| pair.split_once('=').unwrap_or((pair, "")));
    let said: Vec<_> = said.filter(|(key, _)| *key == name).map(|(_, text)| text).collect();
    let number = match said.as_slice() {
        [] => Some(usual),
        [text] if text.bytes().all(|byte| byte.is_ascii_digit()) => text.parse().ok().filter(|number| range.contains(number)),
        _ => None,
    };
    let (least, most) = range.into_inner();
    number.ok_or_else(|| Error::new(Code::InvalidRequest, format!("{name} is a whole number from {least} to {most}")).param(name))
}

fn fresh() -> Result<Fresh, Error> {
    Ok(Fresh { id: random()?, secret: random()? })
}

/// Without randomness there are no secrets.
fn random<const N: usize>() -> Result<[u8; N], Error> {
    let mut random = [0; N];
    let failed = |error: getrandom::Error| {
        Error::new(Code::Internal, "there is no randomness for a secret; nothing was changed").because(error.to_string())
    };
    getrandom::fill(&mut random).map_err(failed)?;
    Ok(random)
}

pub fn edge(request: &HttpRequest) -> Result<&Rc<Edge>, Error> {
    request.app_data::<Rc<Edge>>().ok_or_else(|| Error::new(Code::Internal, "the server is not set up"))
}

fn answer(request: &HttpRequest, answer: Answer) -> HttpResponse {
    answer.unwrap_or_else(|error| respond::refuse(request, error.into()))
}
