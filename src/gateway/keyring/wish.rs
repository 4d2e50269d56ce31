//! What an owner asks of a key: its name, its limits, the models it may use, until when; read strictly, whatever JSON can say.

use std::collections::HashSet;
use std::time::Duration;

use serde::de::Deserializer;
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::catalogue::Catalogue;
use crate::clock::{Period, Timestamp};
use crate::error::{Code, Error};
use crate::keys::Record;
use crate::money::Micros;

/// Characters of a key's name, at most.
const NAME: usize = 64;
/// A limit above this is a mistake, and no number in JSON would say it exactly.
const MOST: Micros = Micros::new(1_000_000_000 * 1_000_000);
/// How long an old secret may be taken beside the new one, at most.
const LONGEST_GRACE: u64 = 7 * 24 * 60 * 60;
/// The end of the year 9999 in seconds: later times cannot be written down.
const LAST_SECOND: u64 = 253_402_300_799;

/// A new key, as it is asked for: `{name, spend_limit_usd, reset, models, expires_at}`. All but the name may be left out.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Wish {
    name: Option<Box<RawValue>>,
    spend_limit_usd: Option<Box<RawValue>>,
    reset: Option<Box<RawValue>>,
    models: Option<Box<RawValue>>,
    expires_at: Option<Box<RawValue>>,
}

/// What is to be changed of a key, as it is asked for: the same fields. What is left out stays; null takes a limit away.
#[derive(Clone, Deserialize, Serialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<Box<RawValue>>,
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    spend_limit_usd: Option<Option<Box<RawValue>>>,
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    reset: Option<Option<Box<RawValue>>>,
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    models: Option<Option<Box<RawValue>>>,
    #[serde(default, deserialize_with = "said", skip_serializing_if = "Option::is_none")]
    expires_at: Option<Option<Box<RawValue>>>,
}

/// A new secret, as it is asked for: for so long the old one is taken beside it.
#[derive(Clone, Deserialize, Serialize, Default)]
#[serde(deny_unknown_fields)]
pub struct Rotation {
    #[serde(default)]
    grace_seconds: u64,
}

/// Tells null from a field that is not there.
fn said<'de, D: Deserializer<'de>, T: Deserialize<'de>>(from: D) -> Result<Option<Option<T>>, D::Error> {
    Option::deserialize(from).map(Some)
}

/// What a new key may do: a wish that makes sense.
pub struct Terms {
    pub(super) name: String,
    pub(super) limit: Option<Micros>,
    pub(super) reset: Period,
    pub(super) models: Vec<String>,
    pub(super) expires_at: Option<Timestamp>,
}

/// What becomes of a key: a change that makes sense. `None` leaves things as they are.
pub struct Amendment {
    name: Option<String>,
    limit: Option<Option<Micros>>,
    reset: Option<Period>,
    models: Option<Vec<String>>,
    expires_at: Option<Option<Timestamp>>,
}

fn refuse(message: impl Into<String>) -> Error {
    Error::new(Code::InvalidRequest, message)
}

impl Wish {
    /// What is wished, once it is sure that it makes sense.
    pub(super) fn terms(&self, catalogue: &Catalogue, now: Timestamp) -> Result<Terms, Error> {
        Ok(Terms {
            name: name(self.name.as_deref().ok_or_else(|| refuse("a key has a name").param("name"))?)?,
            limit: self.spend_limit_usd.as_deref().map(limit).transpose()?,
            reset: self.reset.as_deref().map(reset).transpose()?.unwrap_or_default(),
            models: self.sold_models(catalogue)?,
            expires_at: self.expires_at.as_deref().map(|raw| future(raw, now)).transpose()?,
        })
    }

    fn sold_models(&self, catalogue: &Catalogue) -> Result<Vec<String>, Error> {
        let models = self.models.as_deref().map(models).transpose()?.unwrap_or_default();
        check_sold(&models, catalogue)?;
        Ok(models)
    }
}

impl Change {
    /// What is to be changed, once it is sure that it makes sense for any key.
    pub(super) fn amendment(&self, now: Timestamp) -> Result<Amendment, Error> {
        let Change { name: named, spend_limit_usd, reset: period, models: allowed, expires_at } = self;
        Ok(Amendment {
            name: named.as_deref().map(name).transpose()?,
            limit: spend_limit_usd.as_ref().map(|raw| raw.as_deref().map(limit).transpose()).transpose()?,
            reset: period.as_ref().map(|raw| raw.as_deref().map_or(Ok(Period::Ever), reset)).transpose()?,
            models: allowed.as_ref().map(|raw| raw.as_deref().map_or(Ok(Vec::new()), models)).transpose()?,
            expires_at: expires_at.as_ref().map(|raw| raw.as_deref().map(|raw| future(raw, now)).transpose()).transpose()?,
        })
    }
}

impl Amendment {
    /// The record as it is afterwards. A key keeps a model that is not sold any more for as long as its owner wants it to:
    /// if that had to go first, the last one to go would open the key for every model.
    pub(super) fn of(self, record: Record, catalogue: &Catalogue) -> Result<Record, Error> {
        let anew = self.models.iter().flatten().filter(|id| !record.models.contains(id));
        check_sold(anew, catalogue)?;
        Ok(Record {
            name: self.name.unwrap_or(record.name),
            limit: self.limit.unwrap_or(record.limit),
            reset: self.reset.unwrap_or(record.reset),
            models: self.models.unwrap_or(record.models),
            expires_at: self.expires_at.unwrap_or(record.expires_at),
            ..record
        })
    }
}

impl Rotation {
    /// How long the old secret is taken; zero ends it at once, and the calls that were made with it.
    ///
    /// # Errors
    /// `invalid_request` for more than seven days.
    pub fn grace(&self) -> Result<Duration, Error> {
        match self.grace_seconds {
            seconds @ 0..=LONGEST_GRACE => Ok(Duration::from_secs(seconds)),
            more => {
                let message = format!("grace_seconds is {more}; the old secret can be taken for {LONGEST_GRACE} s at most");
                Err(refuse(message).param("grace_seconds"))
            }
        }
    }
}

fn name(raw: &RawValue) -> Result<String, Error> {
    let text = text(raw, "name")?;
    let name = text.trim();
    let length = name.chars().count();
    if !(1..=NAME).contains(&length) || name.chars().any(char::is_control) {
        let message = format!("name has {length} characters; give the key a name of 1 to {NAME}, on one line");
        return Err(refuse(message).param("name"));
    }
    Ok(name.to_owned())
}

/// USD as text or as a number, which is read as the text it is written in: nothing is rounded.
fn limit(raw: &RawValue) -> Result<Micros, Error> {
    let text = if raw.get().starts_with('"') { text(raw, "spend_limit_usd")? } else { raw.get().to_owned() };
    let wrong = |why: String| refuse(format!("spend_limit_usd: {why}")).param("spend_limit_usd");
    match Micros::parse_usd(&text) {
        Ok(limit) if limit <= MOST => Ok(limit),
        Ok(_) => Err(wrong(format!("more than {MOST} USD; leave it out for a key without a limit"))),
        Err(why) => Err(wrong(why.to_string())),
    }
}

fn reset(raw: &RawValue) -> Result<Period, Error> {
    serde_json::from_str(raw.get()).map_err(|_| refuse("reset is none, day, week or month").param("reset"))
}

fn models(raw: &RawValue) -> Result<Vec<String>, Error> {
    let named: Vec<String> = serde_json::from_str(raw.get())
        .map_err(|_| refuse("models is a list of the ids of models; leave it out for all").param("models"))?;
    let mut seen = HashSet::new();
    Ok(named.into_iter().filter(|id| seen.insert(id.clone())).collect())
}

/// Refuses what nobody sells here: a misspelt model would lock the key, or open what somebody sells later.
fn check_sold<'a>(models: impl IntoIterator<Item = &'a String>, catalogue: &Catalogue) -> Result<(), Error> {
    let Some(unknown) = models.into_iter().find(|id| catalogue.find(id).is_none()) else { return Ok(()) };
    let unknown: String = unknown.chars().take(80).collect();
    Err(refuse(format!("there is no model {unknown:?} here; GET /v1/models lists them")).param("models"))
}

/// RFC 3339, or seconds since 1970.
fn future(raw: &RawValue, now: Timestamp) -> Result<Timestamp, Error> {
    let wrong = |message: &str| refuse(format!("expires_at {message}")).param("expires_at");
    let at = match raw.get().starts_with('"') {
        true => Timestamp::from_rfc3339(&text(raw, "expires_at")?),
        false => raw.get().parse().ok().filter(|seconds| *seconds <= LAST_SECOND).map(Timestamp::from_secs),
    };
    let at = at.ok_or_else(|| wrong("is a time such as 2027-01-31T00:00:00Z, or whole seconds since 1970"))?;
    if at <= now {
        return Err(wrong("has passed; name a time to come, or revoke the key"));
    }
    Ok(at)
}

fn text(raw: &RawValue, param: &'static str) -> Result<String, Error> {
    serde_json::from_str(raw.get()).map_err(|_| refuse(format!("{param} is not text")).param(param))
}
