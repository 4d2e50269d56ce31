//! The peers of one comparison, side by side on one machine: the upstream directly, nginx, farebox.

use std::path::PathBuf;

use serde_json::json;

use crate::buyer;
use crate::load::{self, Load, Outcome, Start};
use crate::measure::{cpu_ns, runtime};
use crate::peers::{self, Farebox, INPUT_PRICE, MODEL, Nginx, OUTPUT_PRICE, Program, Setup};
use crate::purse::Purse;
use crate::upstream::{ANSWER_TOKENS, PROMPT_TOKENS, Plan};

pub const CHAT: &str = "/v1/chat/completions";
/// Wallets that buy in turn, so that none has two payments under way.
const WALLETS: usize = 2048;
const MESSAGES: &str = "/v1/messages";

/// How much is measured.
#[derive(Clone)]
pub struct Options {
    pub farebox: PathBuf,
    /// A release build whose disk can be slowed; `None`: that is not measured.
    pub slowable: Option<PathBuf>,
    pub project: PathBuf,
    /// `None`: the figures that need it are not measured.
    pub nginx: Option<PathBuf>,
    /// Rounds of which the median counts.
    pub rounds: usize,
    /// Divides the number of requests.
    pub part: usize,
}

impl Options {
    /// `count` requests, or the part of them that this run takes.
    pub fn count(&self, count: usize) -> usize {
        (count / self.part).max(1)
    }
}

/// Who is asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Peer {
    Direct,
    Nginx,
    /// With a payment for each call.
    Farebox,
    /// With a key that spends a balance.
    Keyed,
    /// With that key, in a dialect that the upstream does not speak.
    Translated,
}

impl Peer {
    fn path(self) -> &'static str {
        if self == Peer::Translated { MESSAGES } else { CHAT }
    }

    /// What a whole answer ends with.
    fn ending(self, stream: bool) -> &'static [u8] {
        match (stream, self) {
            (false, _) => b"}",
            (true, Peer::Translated) => b"data: {\"type\":\"message_stop\"}\n\n",
            (true, _) => b"data: [DONE]\n\n",
        }
    }
}

/// One upstream and what stands before it.
pub struct Stage {
    pub upstream: Program,
    pub nginx: Option<Nginx>,
    pub farebox: Farebox,
    purse: Purse,
    /// Micros that farebox must have charged when it is closed.
    owed: u64,
}

/// One kind of call.
#[derive(Clone)]
pub struct Kind {
    pub plan: Plan,
    pub stream: bool,
    /// Characters of the prompt beside the instruction.
    pub prompt: usize,
    pub callers: usize,
    pub count: usize,
    pub start: Start,
}

/// What one peer did in one round.
pub struct Round {
    pub outcome: Outcome,
    /// CPU time of the peer's process and children, per complete answer.
    pub cpu_us: f64,
}

impl Kind {
    pub fn body(&self) -> String {
        let content = format!("{} {}", self.plan.directive(), "p".repeat(self.prompt));
        let messages = json!([{ "role": "user", "content": content }]);
        json!({ "model": MODEL, "max_tokens": 256, "stream": self.stream, "messages": messages }).to_string()
    }

    /// Micros that one complete call costs.
    fn charge(&self) -> u64 {
        let answered = if self.stream { self.plan.events } else { ANSWER_TOKENS };
        PROMPT_TOKENS * INPUT_PRICE + answered * OUTPUT_PRICE
    }

    fn load(&self, peer: Peer, address: &str, requests: Vec<Vec<u8>>) -> Load {
        Load {
            address: address.to_owned(),
            requests,
            callers: self.callers,
            status: 200,
            events: if self.stream { self.plan.events } else { 0 },
            ending: peer.ending(self.stream),
            start: self.start,
        }
    }
}

impl Stage {
    /// Fresh programs, farebox in `setup`.
    pub fn set(options: &Options, setup: Setup) -> Result<Stage, String> {
        let upstream = peers::upstream()?;
        let nginx = options.nginx.as_ref().map(|binary| Nginx::start(binary, &upstream.address)).transpose()?;
        let farebox = Farebox::start(&options.farebox, &upstream.address, setup)?;
        let runtime = runtime().map_err(|error| error.to_string())?;
        let purse = runtime.block_on(Purse::fill(farebox.address()))?;
        Ok(Stage { upstream, nginx, farebox, purse, owed: 0 })
    }

    /// Those who are here and farebox as it is to be asked, in the order in which they are.
    pub fn peers(&self, farebox: &[Peer]) -> Vec<Peer> {
        let nginx = self.nginx.as_ref().map(|_| Peer::Nginx);
        [Some(Peer::Direct), nginx].into_iter().flatten().chain(farebox.iter().copied()).collect()
    }

    fn address(&self, peer: Peer) -> &str {
        match (peer, &self.nginx) {
            (Peer::Nginx, Some(nginx)) => &nginx.program.address,
            (Peer::Direct | Peer::Nginx, _) => &self.upstream.address,
            (Peer::Farebox | Peer::Keyed | Peer::Translated, _) => self.farebox.address(),
        }
    }

    pub fn pid(&self, peer: Peer) -> u32 {
        match (peer, &self.nginx) {
            (Peer::Nginx, Some(nginx)) => nginx.program.pid(),
            (Peer::Direct | Peer::Nginx, _) => self.upstream.pid(),
            (Peer::Farebox | Peer::Keyed | Peer::Translated, _) => self.farebox.pid(),
        }
    }

    /// One round of a kind of call at one peer. Payments are signed before the clock runs; every answer must be complete.
    pub fn round(&mut self, peer: Peer, kind: &Kind) -> Result<Round, String> {
        let load = self.prepare(peer, kind)?;
        let pid = self.pid(peer);
        let before = cpu_ns(pid);
        let outcome = load::run(load)?;
        let spent = cpu_ns(pid).saturating_sub(before);
        self.count(peer, kind, &outcome)?;
        let cpu_us = spent as f64 / 1000.0 / outcome.complete as f64;
        Ok(Round { outcome, cpu_us })
    }

    /// The requests of a round, those to farebox with what pays for each.
    pub fn prepare(&self, peer: Peer, kind: &Kind) -> Result<Load, String> {
        let (address, path, body) = (self.address(peer).to_owned(), peer.path(), kind.body());
        let requests = match peer {
            Peer::Direct | Peer::Nginx => vec![crate::http::request("POST", path, "", &body); kind.count],
            Peer::Keyed | Peer::Translated => {
                vec![crate::http::request("POST", path, &self.purse.header(), &body); kind.count]
            }
            Peer::Farebox => {
                let runtime = runtime().map_err(|error| error.to_string())?;
                runtime.block_on(buyer::presign(&address, path, &body, kind.count, WALLETS.max(kind.callers)))?
            }
        };
        Ok(kind.load(peer, &address, requests))
    }

    /// Holds an outcome against what was sent, and notes what farebox must have charged for it.
    pub fn count(&mut self, peer: Peer, kind: &Kind, outcome: &Outcome) -> Result<(), String> {
        if matches!(peer, Peer::Farebox | Peer::Keyed | Peer::Translated) {
            self.owed += outcome.complete * kind.charge();
        }
        match outcome.failed {
            0 => Ok(()),
            failed => Err(format!("{peer:?}: {failed} of {} calls failed: {}", kind.count, outcome.failures.join("; "))),
        }
    }

    /// Stops everything; farebox's books must be clean and have charged exactly what is owed.
    pub fn close(self) -> Result<(), String> {
        self.farebox.close(Some(self.owed))
    }
}
