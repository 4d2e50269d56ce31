//! What an answer that is not words has used, read as it passes: pictures are counted, seconds and tokens are as reported.

use std::borrow::Cow;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::{Request, Task};
use crate::catalogue::Model;
use crate::dialect::failure::{Failure, failed};
use crate::dialect::meter::Pass;
use crate::dialect::sse::Event;
use crate::dialect::unstreamed::Unstreamed;
use crate::dialect::usage::Metered;
use crate::money::UnitPrice;
use crate::tariff::Usage;

/// A transcription up to this length is read for its duration.
const MAX_TRANSCRIPT: usize = 4 * 1024 * 1024;

/// Measures one answer.
#[derive(Debug)]
pub struct Gauge {
    task: Task,
    /// Pieces that were asked for, and what they are taken for when nobody counts them.
    most: u64,
    pieces: u64,
    input_estimate: u64,
    /// Tokens of output that a picture is taken for, or the whole of what is no picture; none where output costs nothing.
    output_estimate: u64,
    reports: Reports,
    body: Body,
}

#[derive(Debug)]
enum Body {
    Events {
        /// Answers that have ended.
        ended: u64,
        /// A draft of the next picture has passed.
        begun: bool,
        bytes: u64,
        done: bool,
    },
    Json {
        scanner: Box<Unstreamed>,
        /// Of a transcription.
        transcript: Option<Vec<u8>>,
    },
    Bytes {
        seen: u64,
        ended: bool,
    },
}

/// What the upstream said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Reports {
    input: Option<u64>,
    output: Option<u64>,
    seconds: Option<u64>,
}

#[derive(Deserialize, Default)]
struct Report<'a> {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    /// As older routes and gateways call them.
    prompt_tokens: Option<u64>,
    completion_tokens: Option<u64>,
    #[serde(borrow)]
    seconds: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Transcript<'a> {
    #[serde(borrow)]
    duration: Option<&'a RawValue>,
}

#[derive(Deserialize)]
struct Said<'a> {
    #[serde(borrow, rename = "type", default)]
    kind: Cow<'a, str>,
    #[serde(borrow)]
    usage: Option<&'a RawValue>,
    #[serde(borrow)]
    error: Option<&'a RawValue>,
}

/// Whole seconds of a number such as `12.5`, begun ones counted.
fn seconds(raw: &str) -> Option<u64> {
    let (whole, part) = raw.trim_matches('"').split_once('.').unwrap_or((raw.trim_matches('"'), ""));
    let begun = u64::from(part.bytes().any(|digit| digit != b'0'));
    whole.parse::<u64>().ok()?.checked_add(begun)
}

impl Reports {
    fn take(&mut self, raw: &str) {
        let Ok(report) = serde_json::from_str::<Report<'_>>(raw) else { return };
        self.input = report.input_tokens.or(report.prompt_tokens).or(self.input);
        self.output = report.output_tokens.or(report.completion_tokens).or(self.output);
        self.seconds = report.seconds.and_then(|raw| seconds(raw.get())).or(self.seconds);
    }
}

impl Gauge {
    /// For the answer to a request, of this `Content-Type`.
    pub fn new(request: &Request<'_>, model: &Model, content_type: &str) -> Gauge {
        let task = request.task();
        let body = if request.stream() {
            Body::Events { ended: 0, begun: false, bytes: 0, done: false }
        } else if content_type == "application/json" {
            Body::Json { scanner: Box::default(), transcript: (task == Task::Transcriptions).then(Vec::new) }
        } else {
            Body::Bytes { seen: 0, ended: false }
        };
        let (most, pieces) = (request.bound(model).units, request.pieces());
        let output_estimate = match model.tariff.tokens.output > UnitPrice::default() {
            true => request.output_estimate(model),
            false => 0,
        };
        let input_estimate = request.estimate(model);
        Gauge { task, most, pieces, input_estimate, output_estimate, reports: Reports::default(), body }
    }

    /// Reads one event of a streamed answer.
    pub fn event(&mut self, event: &Event) -> Pass {
        let (most, reports) = (self.most.max(1), &mut self.reports);
        let Body::Events { ended, begun, bytes, done } = &mut self.body else { return Pass::Forward };
        if *done {
            return Pass::Drop;
        }
        *bytes = bytes.saturating_add(event.data().len() as u64);
        if event.data() == b"[DONE]" {
            *done = true;
            return Pass::Done;
        }
        let said = match serde_json::from_slice::<Said<'_>>(event.data()) {
            Ok(said) => said,
            Err(error) if error.is_data() => return Pass::Forward,
            Err(_) => return Pass::Drop,
        };
        if said.error.is_some() || said.kind == "error" || event.name() == b"error" {
            return Pass::Error(failed(said.error.map(Failure::read).unwrap_or_default()));
        }
        said.usage.iter().for_each(|raw| reports.take(raw.get()));
        let last = match &*said.kind {
            "image_generation.partial_image" | "image_edit.partial_image" => {
                *begun = true;
                false
            }
            "image_generation.completed" | "image_edit.completed" => {
                (*ended, *begun) = (*ended + 1, false);
                *ended == most
            }
            "speech.audio.done" | "transcript.text.done" => {
                *ended += 1;
                true
            }
            _ => false,
        };
        *done = last;
        if last { Pass::Done } else { Pass::Forward }
    }

    /// Reads the next bytes of an answer that is not streamed.
    pub fn chunk(&mut self, chunk: &[u8]) {
        match &mut self.body {
            Body::Json { scanner, transcript } => {
                scanner.chunk(chunk);
                if let Some(text) = transcript {
                    match text.len() + chunk.len() <= MAX_TRANSCRIPT {
                        true => text.extend_from_slice(chunk),
                        false => *transcript = None,
                    }
                }
            }
            Body::Bytes { seen, .. } => *seen = seen.saturating_add(chunk.len() as u64),
            Body::Events { .. } => {}
        }
    }

    /// The body has come to its end as its framing has it.
    pub fn ended(&mut self) {
        if let Body::Bytes { seen, ended } = &mut self.body {
            *ended = *seen > 0;
        }
    }

    /// Whoever asked for it has left: a picture of which drafts have passed is one that was taken.
    pub fn abandoned(&mut self) {
        if let Body::Events { ended, begun, .. } = &mut self.body {
            *ended += u64::from(std::mem::take(begun));
        }
    }

    /// Whether what has passed is of use without the rest: whole pictures are, half a recording is not.
    pub fn has_parts(&self) -> bool {
        self.counts_pictures() && matches!(&self.body, Body::Events { ended, .. } if *ended > 0)
    }

    /// Whether the whole answer has passed: the last event, the end of the JSON value, or of a file the end that its framing
    /// promised.
    pub fn complete(&self) -> bool {
        match &self.body {
            Body::Events { done, .. } => *done,
            Body::Json { scanner, .. } => scanner.complete(),
            Body::Bytes { ended, .. } => *ended,
        }
    }

    /// Bytes of the answer itself that have passed.
    pub fn answer_bytes(&self) -> u64 {
        match &self.body {
            Body::Events { bytes, .. } => *bytes,
            Body::Bytes { seen, .. } => *seen,
            Body::Json { scanner, .. } if self.counts_pictures() => scanner.listed(),
            Body::Json { scanner, .. } => u64::from(scanner.complete()),
        }
    }

    fn counts_pictures(&self) -> bool {
        matches!(self.task, Task::ImageGenerations | Task::ImageEdits | Task::ImageGenerate)
    }

    /// What was used. It may be asked at any time.
    pub fn usage(&self) -> Metered {
        let mut reports = self.reports;
        if let Body::Json { scanner, .. } = &self.body {
            scanner.usage().iter().for_each(|raw| reports.take(raw));
        }
        let reported = reports != Reports::default();
        let (input, units) = (reports.input.unwrap_or(self.input_estimate), self.units(reports));
        let answers = if self.counts_pictures() { units } else { 1 };
        let output = reports.output.unwrap_or_else(|| answers.saturating_mul(self.output_estimate));
        let usage = Usage { input, output, units, ..Usage::default() };
        Metered { usage, estimated: !reported }
    }

    fn units(&self, reports: Reports) -> u64 {
        match (&self.body, self.task) {
            (Body::Events { ended, .. }, Task::ImageGenerations | Task::ImageEdits) => *ended,
            (Body::Json { scanner, .. }, _) if self.counts_pictures() => scanner.listed().min(self.most),
            (Body::Bytes { .. }, Task::ImageGenerate) => 1,
            // What nobody says is what was quoted: how little a file is for how long it lasts is its caller's choice.
            (_, Task::Transcriptions) => reports.seconds.or_else(|| self.duration()).unwrap_or(self.most).min(self.most),
            _ => self.pieces,
        }
    }

    /// What a transcription says of the length of its recording.
    fn duration(&self) -> Option<u64> {
        let Body::Json { transcript: Some(text), .. } = &self.body else { return None };
        let transcript = serde_json::from_slice::<Transcript<'_>>(text).ok()?;
        seconds(transcript.duration?.get())
    }
}

#[cfg(test)]
mod tests;
