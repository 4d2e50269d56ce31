//! How much a request asks for: pictures, seconds or characters, and of which size and quality.

use super::Task;
use crate::dialect::fields::refused;
use crate::error::Error;

/// Pictures that one request may ask for.
const MOST_IMAGES: u64 = 10;
const MOST_VARIANTS: u64 = 4;
/// Seconds of music or video that one request may ask for.
const MOST_SECONDS: u64 = 3600;
/// What a video has when its request does not say. It is written into what is forwarded.
pub(super) const USUAL_SECONDS: u64 = 4;
/// Bytes of a second of sound in the densest form that is in use, and in a usual one (128 kbit/s).
const DENSEST: u64 = 1000;
const USUAL: u64 = 16_000;

/// One value of a request, however it came: text without quotes, or JSON.
#[derive(Clone, Copy)]
pub(super) struct Value<'a>(pub &'a str);

impl Value<'_> {
    /// A whole number, also one in quotes or with an `s` for seconds behind it.
    pub fn whole(self) -> Option<u64> {
        let bare = self.0.trim().trim_matches('"');
        bare.strip_suffix(['s', 'S', 'x', 'X']).unwrap_or(bare).parse().ok()
    }

    /// A word, without its quotes.
    pub fn word(self) -> Option<String> {
        let bare = self.0.trim().trim_matches('"');
        (!bare.is_empty() && bare != "null" && !bare.contains(['"', '\\'])).then(|| bare.to_ascii_lowercase())
    }
}

/// What is asked for, in the units of its task.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Facts {
    /// Pictures, seconds or characters at most.
    pub units: u64,
    /// What they are taken for when nobody counts them.
    pub estimate: u64,
    /// Sizes and qualities that have prices of their own.
    pub named: Vec<String>,
}

/// Reads how much a task asks for. `field` finds what a request says.
///
/// # Errors
/// Names the field that says too much, too little or nothing.
pub(super) fn facts<'a>(task: Task, field: impl Fn(&str) -> Option<Value<'a>>, sound: Option<&[u8]>) -> Result<Facts, Error> {
    let count = |name: &'static str, usual: u64, most: u64| match field(name).filter(|value| value.0.trim() != "null") {
        None => Ok(usual),
        Some(value) => match value.whole() {
            Some(count) if (1..=most).contains(&count) => Ok(count),
            _ => Err(refused(name, format!("{name} must be a whole number from 1 to {most}"))),
        },
    };
    let units = match task {
        Task::ImageGenerations | Task::ImageEdits => count("n", 1, MOST_IMAGES)?,
        Task::ImageGenerate => count("variants", 1, MOST_VARIANTS)?,
        Task::ImageUpscale | Task::ImageEdit | Task::ImageMultiEdit | Task::ImageBackgroundRemove => 1,
        Task::Speech => characters(field("input").map_or("", |value| value.0)),
        Task::AudioQueue => count("duration_seconds", 0, MOST_SECONDS)?,
        Task::VideoQueue => count("duration", 0, MOST_SECONDS)?,
        Task::VideosGenerations => match (count("seconds", 0, MOST_SECONDS)?, count("duration", 0, MOST_SECONDS)?) {
            (0, 0) => USUAL_SECONDS,
            // Which of the two an upstream goes by, nobody knows.
            (seconds, duration) if seconds != duration && seconds > 0 && duration > 0 => {
                return Err(refused("duration", "seconds and duration say two different lengths; send one of them"));
            }
            (seconds, duration) => seconds.max(duration),
        },
        Task::Transcriptions => {
            let (most, estimate) = seconds_of(sound.unwrap_or_default());
            return Ok(Facts { units: most, estimate, named: Vec::new() });
        }
        Task::Embeddings | Task::VideoTranscriptions => 0,
    };
    let named = named(task, field);
    Ok(Facts { units, estimate: units, named })
}

fn named<'a>(task: Task, field: impl Fn(&str) -> Option<Value<'a>>) -> Vec<String> {
    let word = |name: &str| field(name).and_then(Value::word).filter(|word| word != "auto");
    let mut named: Vec<_> = ["size", "quality", "resolution"].into_iter().filter_map(word).collect();
    match task {
        Task::ImageGenerate => {
            if let (Some(width), Some(height)) = (word("width"), word("height")) {
                named.push(format!("{width}x{height}"));
            }
        }
        Task::ImageUpscale => {
            named.push(format!("{}x", field("scale").and_then(Value::whole).unwrap_or(2)));
        }
        Task::VideoQueue | Task::VideosGenerations if field("audio").is_some_and(|value| value.0.trim() == "true") => {
            named.push("audio".into());
        }
        _ => {}
    }
    named
}

/// Characters of a JSON string, escapes counted as they are written: never fewer than it has.
fn characters(raw: &str) -> u64 {
    raw.trim().trim_matches('"').chars().count() as u64
}

/// Seconds of a recording: at most, and as it is taken for. Of WAV the head says it; of everything else only the length is known.
fn seconds_of(sound: &[u8]) -> (u64, u64) {
    let length = sound.len() as u64;
    let bytes_per_second = match sound {
        // RIFF WAVE with its format first: bytes 28 to 31 are the bytes of one second.
        [b'R', b'I', b'F', b'F', ..] if sound.len() >= 44 && &sound[8..16] == b"WAVEfmt " => {
            u64::from(u32::from_le_bytes([sound[28], sound[29], sound[30], sound[31]]))
        }
        _ => 0,
    };
    // A head that claims less than the densest sound that is in use is not believed.
    if bytes_per_second >= DENSEST {
        let seconds = length.div_ceil(bytes_per_second).max(1);
        // What pads the file may be anything, and the upstream has the last word.
        return (seconds.max(length.div_ceil(bytes_per_second.min(USUAL * 12))), seconds);
    }
    (length.div_ceil(DENSEST).max(1), length.div_ceil(USUAL).max(1))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(task: Task, fields: &[(&str, &'static str)]) -> Result<Facts, Error> {
        facts(task, |name| fields.iter().find(|(known, _)| *known == name).map(|(_, raw)| Value(raw)), None)
    }

    #[test]
    fn as_much_as_was_asked_for() {
        for (task, fields, units) in [
            (Task::ImageGenerations, &[][..], 1),
            (Task::ImageGenerations, &[("n", "3")], 3),
            (Task::ImageGenerate, &[("variants", "4")], 4),
            (Task::VideoQueue, &[("duration", "\"5s\"")], 5),
            (Task::VideosGenerations, &[("seconds", "\"8\"")], 8),
            (Task::VideosGenerations, &[], USUAL_SECONDS),
            (Task::VideosGenerations, &[("seconds", "null"), ("duration", "100")], 100),
            (Task::VideosGenerations, &[("seconds", "8"), ("duration", "\"8s\"")], 8),
            (Task::AudioQueue, &[("duration_seconds", "60")], 60),
            (Task::Speech, &[("input", "\"h\u{e9}llo\"")], 5),
        ] {
            assert_eq!(read(task, fields).unwrap().units, units, "{task:?} {fields:?}");
        }
    }

    #[test]
    fn too_much_nothing_and_nonsense_are_refused() {
        for (task, name, value) in [
            (Task::ImageGenerations, "n", "0"),
            (Task::ImageGenerations, "n", "11"),
            (Task::ImageGenerations, "n", "-1"),
            (Task::ImageGenerations, "n", "1.5"),
            (Task::ImageGenerate, "variants", "5"),
            (Task::VideoQueue, "duration", "\"long\""),
            (Task::AudioQueue, "duration_seconds", "99999999999999999999"),
        ] {
            assert!(read(task, &[(name, value)]).is_err(), "{task:?} {name} {value}");
        }
        let two_lengths = read(Task::VideosGenerations, &[("seconds", "4"), ("duration", "100")]);
        assert_eq!(two_lengths.unwrap_err().param, Some("duration"), "an upstream may go by the longer one");
    }

    #[test]
    fn size_and_quality_choose_the_price() {
        let named = |task, fields: &[(&str, &'static str)]| read(task, fields).unwrap().named;
        assert_eq!(named(Task::ImageGenerations, &[("size", "\"1024x1024\""), ("quality", "\"High\"")]), ["1024x1024", "high"]);
        assert_eq!(named(Task::ImageGenerations, &[("size", "\"auto\"")]), Vec::<String>::new());
        assert_eq!(named(Task::ImageUpscale, &[("scale", "4")]), ["4x"]);
        assert_eq!(named(Task::ImageUpscale, &[]), ["2x"]);
        assert_eq!(named(Task::ImageGenerate, &[("width", "512"), ("height", "768")]), ["512x768"]);
        assert_eq!(named(Task::VideoQueue, &[("resolution", "\"720p\""), ("audio", "true")]), ["720p", "audio"]);
    }

    #[test]
    fn a_recording_has_as_many_seconds_as_its_head_says() {
        let mut wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data\0\0\0\0".to_vec();
        wav.resize(44 + 8000 * 7, 0);
        assert_eq!(seconds_of(&wav), (8, 8), "7 seconds, and a part of one for the head");
        assert_eq!(seconds_of(&[0; 16_001]), (17, 2), "of others only the length is known");
        assert_eq!(seconds_of(&[]), (1, 1));
    }
}
