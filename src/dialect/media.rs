//! What is sold beside words: embeddings, images, speech, transcriptions, music and video, a row each.

mod facts;
mod form;
mod gauge;
mod request;

use crate::catalogue::Kind;

pub use gauge::Gauge;
pub use request::Request;

/// One kind of call that is not about words.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Task {
    Embeddings,
    /// OpenAI's images.
    ImageGenerations,
    ImageEdits,
    /// The wallet clients' images.
    ImageGenerate,
    ImageUpscale,
    ImageEdit,
    ImageMultiEdit,
    ImageBackgroundRemove,
    Speech,
    Transcriptions,
    VideoTranscriptions,
    /// Jobs: the answer names one, which is asked for until it is done.
    AudioQueue,
    VideoQueue,
    /// OpenAI's videos, and the same where others have them.
    Videos,
    VideosGenerations,
}

/// How a body may come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    Json,
    /// As JSON or as a form with files (RFC 7578).
    Either,
    /// As a form: there is always a file.
    Multipart,
}

/// What its answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Answers {
    Json,
    /// JSON, or the bytes of one file.
    JsonOrBytes,
    /// The bytes of one file.
    Bytes,
    /// JSON or text.
    JsonOrText,
}

/// What there is to know of a task.
#[derive(Debug)]
pub struct Row {
    pub task: Task,
    /// Below `/v1`, here and at an upstream.
    pub path: &'static str,
    /// Kinds of models that do it; the first of these in the catalogue does it for a request that names no model.
    pub kinds: &'static [Kind],
    pub form: Form,
    pub answers: Answers,
    /// Fields without which there is nothing to do. Of those joined by a `|`, one is enough.
    pub needs: &'static [&'static str],
    /// What is forwarded beside the model and what is needed. Everything else is left out: it may cost what is in no tariff.
    pub fields: &'static [&'static str],
    /// The field that an upstream has the model in; none where it is empty.
    pub model_field: &'static str,
}

const fn row(task: Task, path: &'static str, kinds: &'static [Kind], form: Form, answers: Answers) -> Row {
    Row { task, path, kinds, form, answers, needs: &[], fields: &[], model_field: "model" }
}

impl Row {
    const fn needs(self, needs: &'static [&'static str]) -> Row {
        Row { needs, ..self }
    }

    const fn takes(self, fields: &'static [&'static str]) -> Row {
        Row { fields, ..self }
    }

    const fn named_in(self, model_field: &'static str) -> Row {
        Row { model_field, ..self }
    }
}

use Answers::{Bytes, JsonOrBytes, JsonOrText};
use Form::{Either, Json, Multipart};

const DRAWS: &[Kind] = &[Kind::Image];
const EDITS: &[Kind] = &[Kind::Edit, Kind::Image];

/// Fields of an order of OpenAI's videos and of those after it.
const OF_VIDEOS: &[&str] =
    &["seconds", "duration", "size", "aspect_ratio", "resolution", "negative_prompt", "image_url", "input_reference", "audio"];

const ROWS: [Row; 15] = [
    row(Task::Embeddings, "/embeddings", &[Kind::Embedding], Json, Answers::Json).needs(&["input"]).takes(&[
        "encoding_format",
        "dimensions",
        "user",
    ]),
    row(Task::ImageGenerations, "/images/generations", DRAWS, Json, Answers::Json).needs(&["prompt"]).takes(&[
        "n",
        "size",
        "quality",
        "style",
        "background",
        "moderation",
        "output_format",
        "output_compression",
        "response_format",
        "stream",
        "partial_images",
        "user",
    ]),
    row(Task::ImageEdits, "/images/edits", EDITS, Either, Answers::Json).needs(&["prompt", "image|image[]|images"]).takes(&[
        "mask",
        "n",
        "size",
        "quality",
        "background",
        "input_fidelity",
        "moderation",
        "output_format",
        "output_compression",
        "response_format",
        "stream",
        "partial_images",
        "user",
    ]),
    row(Task::ImageGenerate, "/image/generate", DRAWS, Either, JsonOrBytes).needs(&["prompt"]).takes(&[
        "width",
        "height",
        "steps",
        "cfg_scale",
        "seed",
        "negative_prompt",
        "style_preset",
        "format",
        "variants",
        "n",
        "return_binary",
        "safe_mode",
        "aspect_ratio",
        "resolution",
        "quality",
        "hide_watermark",
        "embed_exif_metadata",
    ]),
    row(Task::ImageUpscale, "/image/upscale", &[Kind::Upscale], Either, JsonOrBytes)
        .needs(&["image"])
        .takes(&["scale", "creativity", "enhance", "enhanceCreativity", "enhancePrompt", "replication"])
        .named_in(""),
    row(Task::ImageEdit, "/image/edit", EDITS, Either, JsonOrBytes).needs(&["prompt", "image"]).takes(&[
        "aspect_ratio",
        "resolution",
        "quality",
        "output_format",
        "safe_mode",
    ]),
    row(Task::ImageMultiEdit, "/image/multi-edit", EDITS, Either, JsonOrBytes)
        .needs(&["prompt", "images|images[]|image"])
        .takes(&["aspect_ratio", "resolution", "quality", "output_format", "safe_mode"])
        .named_in("modelId"),
    row(Task::ImageBackgroundRemove, "/image/background-remove", &[Kind::Edit], Either, JsonOrBytes)
        .needs(&["image|image_url"])
        .named_in(""),
    row(Task::Speech, "/audio/speech", &[Kind::Speech], Json, Bytes).needs(&["input"]).takes(&[
        "voice",
        "instructions",
        "response_format",
        "speed",
        "stream_format",
        "streaming",
        "language",
    ]),
    row(Task::Transcriptions, "/audio/transcriptions", &[Kind::Transcription], Multipart, JsonOrText).needs(&["file"]).takes(&[
        "language",
        "prompt",
        "response_format",
        "temperature",
        "timestamp_granularities[]",
        "timestamps",
        "include[]",
        "stream",
        "chunking_strategy",
    ]),
    row(Task::VideoTranscriptions, "/video/transcriptions", &[Kind::Transcription], Json, JsonOrText)
        .needs(&["url"])
        .takes(&["response_format"]),
    row(Task::AudioQueue, "/audio/queue", &[Kind::Music], Json, Answers::Json).needs(&["prompt"]).takes(&[
        "lyrics_prompt",
        "duration_seconds",
        "force_instrumental",
        "lyrics_optimizer",
        "loop",
        "voice",
        "language_code",
        "speed",
    ]),
    row(Task::VideoQueue, "/video/queue", &[Kind::Video], Json, Answers::Json).needs(&["prompt", "duration"]).takes(&[
        "negative_prompt",
        "aspect_ratio",
        "resolution",
        "audio",
        "image_url",
        "end_image_url",
        "video_url",
        "audio_url",
        "reference_image_urls",
        "reference_video_urls",
        "reference_audio_urls",
    ]),
    row(Task::Videos, "/videos", &[Kind::Video], Either, Answers::Json).needs(&["prompt"]).takes(OF_VIDEOS),
    row(Task::VideosGenerations, "/videos/generations", &[Kind::Video], Either, Answers::Json)
        .needs(&["prompt"])
        .takes(OF_VIDEOS),
];

impl Task {
    pub const ALL: [Task; ROWS.len()] = {
        let mut all = [Task::Embeddings; ROWS.len()];
        let mut place = 0;
        while place < ROWS.len() {
            all[place] = ROWS[place].task;
            place += 1;
        }
        all
    };

    pub fn row(self) -> &'static Row {
        static ALL: [Row; ROWS.len()] = ROWS;
        ALL.iter().find(|row| row.task == self).unwrap_or(&ALL[0])
    }

    /// Whether the answer only names a job.
    pub const fn is_job(self) -> bool {
        matches!(self, Task::AudioQueue | Task::VideoQueue) || self.has_address()
    }

    /// Whether the job that it orders is asked for at an address of its own. Where one such order is taken the other is too: they
    /// differ in nothing but their paths.
    pub const fn has_address(self) -> bool {
        matches!(self, Task::Videos | Task::VideosGenerations)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_task_has_one_row_of_its_own() {
        for task in Task::ALL {
            assert_eq!(task.row().task, task);
            assert_eq!(Task::ALL.iter().filter(|other| other.row().path == task.row().path).count(), 1, "{task:?}");
            assert!(!task.row().kinds.is_empty(), "{task:?}");
        }
    }
}
