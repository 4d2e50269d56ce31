//! What an answer used, as it is told to the caller: the upstream's report, and our estimate where it made none.

use serde_json::Value;

use super::super::usage::Reports;
use super::super::{Dialect, estimate_tokens};
use crate::tariff::Usage;

/// What was used, in tokens. The kinds of input are apart; what was thought is part of the output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Used {
    pub usage: Usage,
    pub thinking: Option<u64>,
}

impl Used {
    /// All that was read, from wherever: what OpenAI calls prompt or input tokens.
    pub fn input(&self) -> u64 {
        let Usage { input, cache_read, .. } = self.usage;
        [input, cache_read, self.cache_write()].iter().fold(0, |sum, part| sum.saturating_add(*part))
    }

    pub fn cache_write(&self) -> u64 {
        self.usage.cache_write_5m.saturating_add(self.usage.cache_write_1h)
    }

    /// All that was read and written.
    pub fn total(&self) -> u64 {
        self.input().saturating_add(self.usage.output)
    }
}

/// Reports and the words that passed, added up.
#[derive(Debug)]
pub(super) struct Tally {
    upstream: Dialect,
    input_estimate: u64,
    reports: Reports,
    thinking: Option<u64>,
    /// UTF-8 bytes of text, thinking, refusals, names and arguments.
    bytes: u64,
    /// Events that brought any of them.
    events: u64,
    counted: u64,
}

impl Tally {
    /// `input_estimate`: tokens of the request.
    pub fn new(upstream: Dialect, input_estimate: u64) -> Tally {
        Tally { upstream, input_estimate, reports: Reports::default(), thinking: None, bytes: 0, events: 0, counted: 0 }
    }

    /// Takes a `usage` object in the upstream's dialect; nothing else is one.
    pub fn report(&mut self, usage: &Value) {
        if !usage.is_object() {
            return;
        }
        self.reports.take(self.upstream, &usage.to_string());
        let thinking = match self.upstream {
            Dialect::Chat => &usage["completion_tokens_details"]["reasoning_tokens"],
            Dialect::Responses => &usage["output_tokens_details"]["reasoning_tokens"],
            Dialect::Messages => &usage["output_tokens_details"]["thinking_tokens"],
        };
        self.thinking = thinking.as_u64().or(self.thinking);
    }

    /// Counts words of the answer.
    pub fn count(&mut self, words: &str) {
        self.bytes = self.bytes.saturating_add(words.len() as u64);
    }

    /// An event has passed.
    pub fn passed(&mut self) {
        self.events += u64::from(self.bytes > self.counted);
        self.counted = self.bytes;
    }

    /// What was used; `complete` once the answer has ended.
    pub fn used(&self, complete: bool) -> Used {
        let output = estimate_tokens(self.bytes).max(self.events);
        let usage = self.reports.settle(self.upstream, complete, self.input_estimate, output).usage;
        Used { usage, thinking: self.thinking.map(|thinking| thinking.min(usage.output)) }
    }
}
