//! The text that a wallet signs to sign in: EIP-4361 for Ethereum wallets and its twin for Solana's, read to the letter.

use super::fault::{INVALID_MESSAGE, SignInFault, shown};
use super::text;
use crate::clock::Timestamp;
use crate::x402::names::{self, Family};

impl Family {
    /// The first line from behind the domain.
    const fn words(self) -> &'static str {
        match self {
            Family::Evm => " wants you to sign in with your Ethereum account:",
            Family::Solana => " wants you to sign in with your Solana account:",
        }
    }

    /// The CAIP-2 identifier of a chain of this family, given as CAIP-2 or by its bare reference (`8453`); for Solana also by
    /// the names of its clusters, which early x402 clients signed. `None` for what no chain is called.
    pub fn caip2(self, chain: &str) -> Option<String> {
        match self {
            Family::Evm => {
                let reference = chain.strip_prefix("eip155:").unwrap_or(chain);
                names::caip2(&format!("eip155:{reference}")).map(str::to_owned)
            }
            Family::Solana => {
                let reference = chain.strip_prefix("solana:").unwrap_or(chain);
                let named = match reference {
                    "mainnet" => "5eykt4UsFv8P8NJdTREpY1vzqKqZKvdp",
                    "devnet" => "EtWTRABZaYq6iMfeYKouRu166VU2xqa1",
                    "testnet" => "4uhcVJyU9pJkvQyS88uRDiswHXSCkY3z",
                    other => other,
                };
                // The first 32 digits of the genesis hash, in base58.
                let digits = named.bytes().all(|b| b.is_ascii_alphanumeric() && !b"0OIl".contains(&b));
                (named.len() == 32 && digits).then(|| format!("solana:{named}"))
            }
        }
    }

    /// What stands behind `Chain ID: ` for a CAIP-2 chain: its reference alone.
    pub fn reference(caip2: &str) -> &str {
        caip2.split_once(':').map_or(caip2, |(_, reference)| reference)
    }
}

/// A time as it was signed, and when that is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Time {
    text: String,
    at: Timestamp,
}

impl Time {
    /// Reads RFC 3339; `None` for anything else.
    pub fn read(text: &str) -> Option<Time> {
        Some(Time { text: text.to_owned(), at: Timestamp::from_rfc3339(text)? })
    }

    pub fn at(&self) -> Timestamp {
        self.at
    }

    pub fn as_str(&self) -> &str {
        &self.text
    }
}

impl From<Timestamp> for Time {
    fn from(at: Timestamp) -> Time {
        Time { text: at.to_rfc3339(), at }
    }
}

/// The fields of the text, each spelt as it was signed. EIP-4361 names and explains them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    pub family: Family,
    /// Of the first line, where most wallets write the domain alone.
    pub scheme: Option<String>,
    /// An RFC 3986 authority: a host, and a port if it is not the usual one.
    pub domain: String,
    /// A word; whether it is an address is for whoever knows the chain.
    pub address: String,
    pub statement: Option<String>,
    pub uri: String,
    /// For EVM chains decimal digits.
    pub chain: String,
    /// Solana wallets may leave it out, which the grammar allows and [`super::SignIn`]'s users do not.
    pub nonce: Option<String>,
    pub issued_at: Time,
    pub expiration_time: Option<Time>,
    pub not_before: Option<Time>,
    pub request_id: Option<String>,
    pub resources: Option<Vec<String>>,
}

impl Message {
    /// Reads the text of a wallet of `family`. Line ends are `\n`, the order is that of EIP-4361, nothing may follow. An EVM
    /// text has exactly one reading and [`Message::text`] writes it again; Solana's may have one empty line or two where
    /// there is no statement.
    ///
    /// # Errors
    /// `X402_SIGN_IN_INVALID_MESSAGE`, with the line that is wrong.
    pub fn parse(text: &str, family: Family) -> Result<Message, SignInFault> {
        if text.contains('\r') {
            return Err(SignInFault::new(INVALID_MESSAGE, "the message has carriage returns; its lines end with \\n alone"));
        }
        let mut lines = Lines { rest: Some(text), number: 0 };
        let (scheme, domain) = first_line(&mut lines, family)?;
        let address = lines.take(text::is_word, "an address")?.to_owned();
        lines.take(str::is_empty, "an empty line")?;
        let statement = statement(&mut lines, family)?;
        let uri = lines.field("URI: ", text::is_uri, "a URI")?.to_owned();
        lines.field("Version: ", |version| version == "1", "1")?;
        let chain = match family {
            Family::Evm => lines.field("Chain ID: ", text::is_digits, "a number; for Base it is 8453")?,
            Family::Solana => lines.field("Chain ID: ", text::is_chain, "a chain")?,
        };
        let chain = chain.to_owned();
        let nonce = lines.option("Nonce: ", text::is_nonce, "8 to 128 letters and digits")?.map(str::to_owned);
        let issued_at = time(lines.field("Issued At: ", is_time, TIME)?)?;
        let expiration_time = lines.option("Expiration Time: ", is_time, TIME)?.map(time).transpose()?;
        let not_before = lines.option("Not Before: ", is_time, TIME)?.map(time).transpose()?;
        let request_id = lines.option("Request ID: ", text::is_pchars, "letters, digits and -._~!$&'()*+,;=:@%")?;
        let request_id = request_id.map(str::to_owned);
        let resources = resources(&mut lines)?;
        lines.end()?;
        Ok(Message {
            family,
            scheme,
            domain,
            address,
            statement,
            uri,
            chain,
            nonce,
            issued_at,
            expiration_time,
            not_before,
            request_id,
            resources,
        })
    }

    /// Writes the text. It reads as the same message if every field follows the grammar.
    pub fn text(&self) -> String {
        let scheme = self.scheme.as_ref().map(|scheme| format!("{scheme}://")).unwrap_or_default();
        let mut lines = vec![format!("{scheme}{}{}", self.domain, self.family.words()), self.address.clone(), String::new()];
        match (&self.statement, self.family) {
            (Some(statement), _) => lines.extend([statement.clone(), String::new()]),
            // Without a statement EIP-4361 keeps its empty line, and Solana's wallets do not.
            (None, Family::Evm) => lines.push(String::new()),
            (None, Family::Solana) => {}
        }
        lines.push(format!("URI: {}", self.uri));
        lines.push("Version: 1".to_owned());
        lines.push(format!("Chain ID: {}", self.chain));
        let written = |name: &str, value: Option<&str>| value.map(|value| format!("{name}: {value}"));
        lines.extend(written("Nonce", self.nonce.as_deref()));
        lines.push(format!("Issued At: {}", self.issued_at.text));
        lines.extend(written("Expiration Time", self.expiration_time.as_ref().map(Time::as_str)));
        lines.extend(written("Not Before", self.not_before.as_ref().map(Time::as_str)));
        lines.extend(written("Request ID", self.request_id.as_deref()));
        if let Some(resources) = &self.resources {
            lines.push("Resources:".to_owned());
            lines.extend(resources.iter().map(|uri| format!("- {uri}")));
        }
        lines.join("\n")
    }
}

/// `[scheme://]domain wants you to sign in with your … account:`.
fn first_line(lines: &mut Lines, family: Family) -> Result<(Option<String>, String), SignInFault> {
    let line = lines.take(|_| true, "a first line")?;
    let Some(place) = line.strip_suffix(family.words()) else {
        let other = [Family::Evm, Family::Solana].into_iter().find(|other| line.ends_with(other.words()));
        return Err(match other {
            Some(_) => lines.wrong("a wallet of the chain that `chainId` or `type` names; this is one of another family"),
            None => lines.wrong(&format!("the domain and{:?}", family.words())),
        });
    };
    let (scheme, domain) = match place.split_once("://") {
        Some((scheme, domain)) => (Some(scheme), domain),
        None => (None, place),
    };
    if !scheme.is_none_or(text::is_scheme) || !text::is_authority(domain) {
        return Err(lines.wrong("a domain, such as your.name or 127.0.0.1:4020"));
    }
    Ok((scheme.map(str::to_owned), domain.to_owned()))
}

fn statement(lines: &mut Lines, family: Family) -> Result<Option<String>, SignInFault> {
    let (line, after) = (lines.peek(0), lines.peek(1));
    // A statement may look like the line that follows it. The empty line behind it tells.
    let is_one = after == Some("");
    match (line, family) {
        (Some(""), _) => {
            lines.take(str::is_empty, "an empty line")?;
            Ok(None)
        }
        (Some(line), Family::Solana) if !is_one && line.starts_with("URI: ") => Ok(None),
        _ => {
            let statement = lines.take(text::is_statement, "a statement of plain characters, or nothing")?.to_owned();
            lines.take(str::is_empty, "an empty line after the statement (without a statement there are two empty lines)")?;
            Ok(Some(statement))
        }
    }
}

fn resources(lines: &mut Lines) -> Result<Option<Vec<String>>, SignInFault> {
    if lines.peek(0) != Some("Resources:") {
        return Ok(None);
    }
    lines.take(|_| true, "Resources:")?;
    let mut resources = Vec::new();
    while let Some(uri) = lines.option("- ", text::is_uri, "a URI")? {
        resources.push(uri.to_owned());
    }
    Ok(Some(resources))
}

const TIME: &str = "a time such as 2026-01-02T03:04:05Z";

fn is_time(text: &str) -> bool {
    Timestamp::from_rfc3339(text).is_some()
}

fn time(text: &str) -> Result<Time, SignInFault> {
    Time::read(text).ok_or_else(|| SignInFault::new(INVALID_MESSAGE, format!("{} is not {TIME}", shown(text))))
}

/// The lines of a text one after the other, counted for the refusal.
struct Lines<'a> {
    /// What is still to be read; `None` after the last line.
    rest: Option<&'a str>,
    number: usize,
}

impl<'a> Lines<'a> {
    /// A line further on; 0 is the next.
    fn peek(&self, ahead: usize) -> Option<&'a str> {
        self.rest?.split('\n').nth(ahead)
    }

    /// The next line, if it is `good`; `what` says what belongs there.
    fn take(&mut self, good: impl Fn(&str) -> bool, what: &str) -> Result<&'a str, SignInFault> {
        self.number += 1;
        let Some(rest) = self.rest else { return Err(self.wrong(what)) };
        let (line, rest) = match rest.split_once('\n') {
            Some((line, rest)) => (line, Some(rest)),
            None => (rest, None),
        };
        self.rest = rest;
        if good(line) { Ok(line) } else { Err(self.wrong(what)) }
    }

    /// The value of the next line, which must be this field.
    fn field(&mut self, name: &str, good: impl Fn(&str) -> bool, what: &str) -> Result<&'a str, SignInFault> {
        match self.option(name, good, what)? {
            Some(value) => Ok(value),
            None => {
                self.number += 1;
                Err(self.wrong(&format!("{name:?} and {what}")))
            }
        }
    }

    /// The value of the next line, if it is this field.
    fn option(&mut self, name: &str, good: impl Fn(&str) -> bool, what: &str) -> Result<Option<&'a str>, SignInFault> {
        if !self.peek(0).is_some_and(|line| line.starts_with(name)) {
            return Ok(None);
        }
        let line = self.take(|line| good(&line[name.len()..]), &format!("{name:?} and {what}"))?;
        Ok(Some(&line[name.len()..]))
    }

    fn end(&mut self) -> Result<(), SignInFault> {
        if self.rest.is_none() {
            return Ok(());
        }
        self.number += 1;
        Err(self.wrong("its end: the fields have one order, each stands there once, and nothing follows them"))
    }

    fn wrong(&self, what: &str) -> SignInFault {
        SignInFault::new(INVALID_MESSAGE, format!("line {} of the signed message should be {what}", self.number))
    }
}
