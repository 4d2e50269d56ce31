//! What an upstream says a call used, and what is believed of it.

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Dialect;
use crate::tariff::Usage;

/// What a call used, for the charge.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Metered {
    pub usage: Usage,
    /// Whether any part of it is our estimate because the upstream did not report it.
    pub estimated: bool,
}

/// Reports as they come in, merged. Whatever is not made of whole numbers from zero up is no report.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Reports {
    input: Option<u64>,
    output: Option<u64>,
    cache_read: Option<u64>,
    cache_write: Option<u64>,
    cache_write_5m: Option<u64>,
    cache_write_1h: Option<u64>,
}

/// OpenAI's report: its prompt tokens include the cached ones.
#[derive(Deserialize)]
struct ChatUsage {
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    prompt_tokens_details: Option<ChatDetails>,
}

#[derive(Deserialize)]
struct ChatDetails {
    cached_tokens: Option<u64>,
    cache_write_tokens: Option<u64>,
}

/// OpenAI's report on responses, which counts as that on chat does.
#[derive(Deserialize)]
struct ResponsesUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    input_tokens_details: Option<ChatDetails>,
}

/// Anthropic's report: its input tokens exclude the cached ones.
#[derive(Deserialize)]
struct MessagesUsage {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_creation: Option<CacheCreation>,
}

#[derive(Deserialize)]
struct CacheCreation {
    ephemeral_5m_input_tokens: Option<u64>,
    ephemeral_1h_input_tokens: Option<u64>,
}

/// The last number wins, except that a zero never replaces what was reported before.
fn merge(known: &mut Option<u64>, reported: Option<u64>) {
    match reported {
        Some(0) if known.is_some() => {}
        Some(_) => *known = reported,
        None => {}
    }
}

impl Reports {
    /// Takes a `usage` object; one that cannot be believed as a whole is ignored as a whole.
    pub fn take(&mut self, dialect: Dialect, raw: &str) {
        match dialect {
            Dialect::Chat => {
                let Ok(Some(usage)) = serde_json::from_str::<Option<ChatUsage>>(raw) else { return };
                self.take_openai(usage.prompt_tokens, usage.completion_tokens, usage.prompt_tokens_details);
            }
            Dialect::Responses => {
                let Ok(Some(usage)) = serde_json::from_str::<Option<ResponsesUsage>>(raw) else { return };
                self.take_openai(usage.input_tokens, usage.output_tokens, usage.input_tokens_details);
            }
            Dialect::Messages => {
                let Ok(Some(usage)) = serde_json::from_str::<Option<MessagesUsage>>(raw) else { return };
                merge(&mut self.input, usage.input_tokens);
                // Cumulative, so that a smaller number is an older one.
                let output = usage.output_tokens.max(self.output);
                merge(&mut self.output, output);
                merge(&mut self.cache_read, usage.cache_read_input_tokens);
                merge(&mut self.cache_write, usage.cache_creation_input_tokens);
                if let Some(split) = usage.cache_creation {
                    merge(&mut self.cache_write_5m, split.ephemeral_5m_input_tokens);
                    merge(&mut self.cache_write_1h, split.ephemeral_1h_input_tokens);
                }
            }
        }
    }

    fn take_openai(&mut self, input: Option<u64>, output: Option<u64>, details: Option<ChatDetails>) {
        merge(&mut self.input, input);
        merge(&mut self.output, output);
        if let Some(details) = details {
            merge(&mut self.cache_read, details.cached_tokens);
            merge(&mut self.cache_write_5m, details.cache_write_tokens);
        }
    }

    /// As [`Reports::take`], for a value found in a stream: a member that may be there and may be null.
    pub fn take_raw(&mut self, dialect: Dialect, raw: Option<&RawValue>) {
        if let Some(raw) = raw {
            self.take(dialect, raw.get());
        }
    }

    /// What is charged: what was reported, and the estimate where nothing (or an impossible zero) was. The output of an
    /// answer that broke off is the larger of both, since a report may be older than the last text.
    pub fn settle(&self, dialect: Dialect, complete: bool, input_estimate: u64, output_estimate: u64) -> Metered {
        let (usage, input_reported) = match dialect {
            Dialect::Chat | Dialect::Responses => self.openai(),
            Dialect::Messages => self.anthropic(),
        };
        let mut usage = usage;
        if !input_reported {
            usage = Usage { input: input_estimate, ..Usage::default() };
        }
        let output = self.output.filter(|output| *output > 0 || output_estimate == 0);
        usage.output = match output {
            Some(output) if complete => output,
            Some(output) => output.max(output_estimate),
            None => output_estimate,
        };
        let estimated = !input_reported || output != Some(usage.output);
        Metered { usage, estimated }
    }

    /// Prompt tokens include those read from and written to the cache; clones report more cached than there are.
    fn openai(&self) -> (Usage, bool) {
        let prompt = self.input.unwrap_or(0);
        let cache_read = self.cache_read.unwrap_or(0).min(prompt);
        let cache_write_5m = self.cache_write_5m.unwrap_or(0).min(prompt - cache_read);
        let input = prompt - cache_read - cache_write_5m;
        (Usage { input, cache_read, cache_write_5m, ..Usage::default() }, prompt > 0)
    }

    /// All three are apart; cache writes without a split by lifetime are five-minute ones.
    fn anthropic(&self) -> (Usage, bool) {
        let written = self.cache_write.unwrap_or(0);
        let cache_write_1h = self.cache_write_1h.unwrap_or(0);
        let rest = written.saturating_sub(cache_write_1h);
        let cache_write_5m = self.cache_write_5m.unwrap_or(0).max(rest);
        let (input, cache_read) = (self.input.unwrap_or(0), self.cache_read.unwrap_or(0));
        let reported = (input | cache_read | cache_write_5m | cache_write_1h) > 0;
        (Usage { input, cache_read, cache_write_5m, cache_write_1h, output: 0, units: 0 }, reported)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(dialect: Dialect, reports: &[&str]) -> Metered {
        let mut merged = Reports::default();
        reports.iter().for_each(|raw| merged.take(dialect, raw));
        merged.settle(dialect, true, 100, 50)
    }

    fn usage(input: u64, output: u64, cache_read: u64, cache_write_5m: u64, cache_write_1h: u64) -> Usage {
        Usage { input, output, cache_read, cache_write_5m, cache_write_1h, units: 0 }
    }

    #[test]
    fn openai_prompt_tokens_are_counted_once_although_they_include_the_cached() {
        let report = r#"{"prompt_tokens":1000,"completion_tokens":7,"total_tokens":1007,
            "prompt_tokens_details":{"cached_tokens":600,"cache_write_tokens":300,"audio_tokens":0}}"#;
        let metered = settled(Dialect::Chat, &[report]);
        assert_eq!(metered, Metered { usage: usage(100, 7, 600, 300, 0), estimated: false });
    }

    #[test]
    fn more_cached_than_prompt_tokens_is_never_charged_as_more_than_the_prompt() {
        let report =
            r#"{"prompt_tokens":10,"completion_tokens":7,"prompt_tokens_details":{"cached_tokens":18446744073709551615}}"#;
        assert_eq!(settled(Dialect::Chat, &[report]).usage, usage(0, 7, 10, 0, 0));
    }

    #[test]
    fn anthropic_tokens_are_apart_and_split_by_lifetime() {
        let start = r#"{"input_tokens":3,"cache_read_input_tokens":50,"cache_creation_input_tokens":30,
            "cache_creation":{"ephemeral_5m_input_tokens":10,"ephemeral_1h_input_tokens":20},"output_tokens":1}"#;
        let end = r#"{"input_tokens":0,"cache_creation_input_tokens":0,"cache_read_input_tokens":0,"output_tokens":9}"#;
        let metered = settled(Dialect::Messages, &[start, end]);
        assert_eq!(metered, Metered { usage: usage(3, 9, 50, 10, 20), estimated: false });
    }

    #[test]
    fn cache_writes_without_a_split_are_five_minute_ones() {
        let report = r#"{"input_tokens":3,"cache_creation_input_tokens":30,"output_tokens":9}"#;
        assert_eq!(settled(Dialect::Messages, &[report]).usage, usage(3, 9, 0, 30, 0));
    }

    #[test]
    fn input_that_a_clone_reports_only_at_the_end_counts() {
        let reports = [r#"{"input_tokens":0,"output_tokens":0}"#, r#"{"input_tokens":42,"output_tokens":5}"#];
        assert_eq!(settled(Dialect::Messages, &reports), Metered { usage: usage(42, 5, 0, 0, 0), estimated: false });
    }

    #[test]
    fn an_unbelievable_report_is_ignored_and_the_estimate_is_charged() {
        let estimate = Metered { usage: usage(100, 50, 0, 0, 0), estimated: true };
        for number in ["-1", "1.5", "1e300", "18446744073709551616", "\"7\"", "true", "[]", "{}", "null", "0"] {
            let chat = format!(r#"{{"prompt_tokens":{number},"completion_tokens":{number}}}"#);
            assert_eq!(settled(Dialect::Chat, &[&chat]), estimate, "{chat}");
            let messages = format!(r#"{{"input_tokens":{number},"output_tokens":{number}}}"#);
            assert_eq!(settled(Dialect::Messages, &[&messages]), estimate, "{messages}");
        }
        for junk in ["null", "0", "[]", "\"x\"", "{}", r#"{"prompt_tokens":5,"completion_tokens":5,"prompt_tokens":0}"#] {
            assert_eq!(settled(Dialect::Chat, &[junk]), estimate, "{junk}");
        }
    }

    #[test]
    fn enormous_numbers_neither_wrap_nor_panic() {
        let most = u64::MAX;
        let report = format!(r#"{{"input_tokens":{most},"output_tokens":{most},"cache_creation_input_tokens":{most}}}"#);
        assert_eq!(settled(Dialect::Messages, &[&report]).usage, usage(most, most, 0, most, 0));
    }

    #[test]
    fn a_later_unbelievable_report_does_not_undo_an_earlier_one() {
        let good = r#"{"prompt_tokens":8,"completion_tokens":9}"#;
        for bad in ["null", r#"{"prompt_tokens":-8,"completion_tokens":0}"#, r#"{"prompt_tokens":0,"completion_tokens":0}"#] {
            let metered = settled(Dialect::Chat, &[good, bad]);
            assert_eq!(metered, Metered { usage: usage(8, 9, 0, 0, 0), estimated: false }, "{bad}");
        }
    }

    #[test]
    fn a_broken_off_answer_costs_at_least_the_text_that_passed() {
        let mut reports = Reports::default();
        reports.take(Dialect::Messages, r#"{"input_tokens":20,"output_tokens":1}"#);
        let metered = reports.settle(Dialect::Messages, false, 100, 50);
        assert_eq!(metered, Metered { usage: usage(20, 50, 0, 0, 0), estimated: true });
        reports.take(Dialect::Messages, r#"{"output_tokens":60}"#);
        let metered = reports.settle(Dialect::Messages, false, 100, 50);
        assert_eq!(metered, Metered { usage: usage(20, 60, 0, 0, 0), estimated: false });
    }
}
