//! How much a request asks for: pictures, seconds or characters, and of which size and quality.

use std::borrow::Cow;

use super::Task;
use crate::dialect::fields::refused;
use crate::error::Error;
use crate::tariff::SOUND;

/// Pictures that one request may ask for.
const MOST_IMAGES: u64 = 10;
const MOST_VARIANTS: u64 = 4;
/// Seconds of music or video that one request may ask for.
const MOST_SECONDS: u64 = 3600;
/// What a video has when its request does not say. It is written into what is forwarded.
pub(super) const USUAL_SECONDS: u64 = 4;
/// Pixels of a side, and how much larger a picture can be made.
const MOST_PIXELS: u64 = 16_384;
const MOST_SCALE: u64 = 16;
const USUAL_SCALE: u64 = 2;
/// Bytes of a second of the finest uncompressed sound: 192 kHz, two channels of 32 bits.
const FASTEST_WAV: u64 = 1_536_000;
/// Bytes of a second of sound in the densest form that is in use, and in a usual one (128 kbit/s).
const DENSEST: u64 = 1000;
const USUAL: u64 = 16_000;

/// One value of a request, however it came. What says nothing (`null`) is none.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Value<'a> {
    /// A string, its escapes resolved: an upstream reads what it says, not how it is written.
    Text(Cow<'a, str>),
    /// A number, `true` or `false` in JSON.
    Bare(&'a str),
    /// A list or an object.
    Nested,
}

/// The longest name of a size or quality.
const MAX_WORD: usize = 64;

impl<'a> Value<'a> {
    /// Reads a value of JSON whose grammar was checked.
    pub fn of_json(raw: &'a str) -> Option<Value<'a>> {
        match raw.as_bytes().first()? {
            b'"' => serde_json::from_str::<String>(raw).ok().map(|text| Value::Text(Cow::Owned(text))),
            b'[' | b'{' => Some(Value::Nested),
            b'n' => None,
            _ => Some(Value::Bare(raw)),
        }
    }

    fn plain(&self) -> Option<&str> {
        match self {
            Value::Text(text) => Some(text.trim()),
            Value::Bare(text) => Some(text),
            Value::Nested => None,
        }
    }

    /// A whole number, also one in quotes, or with an `s` for seconds or an `x` for times behind it.
    pub fn whole(&self) -> Option<u64> {
        let text = self.plain()?;
        text.strip_suffix(['s', 'S', 'x', 'X']).unwrap_or(text).parse().ok()
    }

    /// A word in lower case; none where it is empty.
    ///
    /// # Errors
    /// It is a list, an object, or longer than any size or quality is called.
    pub fn word(&self, name: &'static str) -> Result<Option<String>, Error> {
        match self.plain() {
            Some(text) if text.len() <= MAX_WORD => Ok((!text.is_empty()).then(|| text.to_ascii_lowercase())),
            _ => Err(refused(name, format!("{name} must be a string of at most {MAX_WORD} bytes"))),
        }
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

/// A whole number from 1 to `most`, if the field is there.
fn count(name: &'static str, value: Option<Value<'_>>, most: u64) -> Result<Option<u64>, Error> {
    match value.map(|value| value.whole()) {
        None => Ok(None),
        Some(Some(count)) if (1..=most).contains(&count) => Ok(Some(count)),
        Some(_) => Err(refused(name, format!("{name} must be a whole number from 1 to {most}"))),
    }
}

/// Reads how much a task asks for. `field` finds what a request says.
///
/// # Errors
/// Names the field that says too much, too little or nothing.
pub(super) fn facts<'a>(task: Task, field: impl Fn(&str) -> Option<Value<'a>>, sound: Option<&[u8]>) -> Result<Facts, Error> {
    let count = |name: &'static str, usual: u64, most: u64| Ok(count(name, field(name), most)?.unwrap_or(usual));
    let units = match task {
        Task::ImageGenerations | Task::ImageEdits => count("n", 1, MOST_IMAGES)?,
        Task::ImageGenerate => count("variants", count("n", 1, MOST_VARIANTS)?, MOST_VARIANTS)?,
        Task::ImageUpscale | Task::ImageEdit | Task::ImageMultiEdit | Task::ImageBackgroundRemove => 1,
        Task::Speech => characters(field("input"))?,
        Task::AudioQueue => count("duration_seconds", 0, MOST_SECONDS)?,
        Task::VideoQueue => count("duration", 0, MOST_SECONDS)?,
        Task::Videos | Task::VideosGenerations => match (count("seconds", 0, MOST_SECONDS)?, count("duration", 0, MOST_SECONDS)?)
        {
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
    let named = named(task, field)?;
    Ok(Facts { units, estimate: units, named })
}

fn named<'a>(task: Task, field: impl Fn(&str) -> Option<Value<'a>>) -> Result<Vec<String>, Error> {
    let mut named = Vec::new();
    for name in ["size", "quality", "resolution"] {
        let word = field(name).map(|value| value.word(name)).transpose()?.flatten();
        named.extend(word.filter(|word| word != "auto"));
    }
    match task {
        Task::ImageGenerate => {
            let [width, height] = ["width", "height"].map(|name| count(name, field(name), MOST_PIXELS));
            if let (Some(width), Some(height)) = (width?, height?) {
                named.push(format!("{width}x{height}"));
            }
        }
        Task::ImageUpscale => {
            named.push(format!("{}x", count("scale", field("scale"), MOST_SCALE)?.unwrap_or(USUAL_SCALE)));
        }
        Task::VideoQueue | Task::Videos | Task::VideosGenerations => {
            let said = field("audio");
            let sound = match said.as_ref().map(Value::plain) {
                Some(Some("true")) => true,
                Some(Some("false")) => false,
                // The wallet clients' videos have sound unless they are told not to.
                None | Some(Some("null")) => task == Task::VideoQueue,
                Some(_) => return Err(refused("audio", "audio must be true or false")),
            };
            named.extend(sound.then(|| SOUND.to_owned()));
        }
        _ => {}
    }
    Ok(named)
}

/// Characters of a text, as Unicode counts them.
fn characters(text: Option<Value<'_>>) -> Result<u64, Error> {
    match text {
        Some(Value::Text(text)) => Ok(text.chars().count() as u64),
        _ => Err(refused("input", "input must be a string: the words to be spoken")),
    }
}

/// Seconds of a recording: at most, and as it is taken for. Of plain WAV the head says it; of everything else only the length
/// is known.
fn seconds_of(sound: &[u8]) -> (u64, u64) {
    let length = sound.len() as u64;
    if let Some(bytes_per_second) = wav_rate(sound) {
        let seconds = length.div_ceil(bytes_per_second).max(1);
        return (seconds, seconds);
    }
    (length.div_ceil(DENSEST).max(1), length.div_ceil(USUAL).max(1))
}

/// Bytes of a second of an uncompressed WAV with its format first. A head that contradicts itself is not believed: programs
/// differ in which of its numbers they go by.
fn wav_rate(sound: &[u8]) -> Option<u64> {
    const UNCOMPRESSED: [u16; 2] = [1, 3];
    let head = sound.get(..44).filter(|head| head.starts_with(b"RIFF") && &head[8..16] == b"WAVEfmt ")?;
    let short = |at: usize| u16::from_le_bytes([head[at], head[at + 1]]);
    let long = |at: usize| u64::from(u32::from_le_bytes([head[at], head[at + 1], head[at + 2], head[at + 3]]));
    let (channels, frame, bits) = (u64::from(short(22)), u64::from(short(32)), u64::from(short(34)));
    let (samples, rate) = (long(24), long(28));
    let agrees = frame * 8 == channels * bits && rate == samples * frame && (DENSEST..=FASTEST_WAV).contains(&rate);
    (UNCOMPRESSED.contains(&short(20)) && agrees).then_some(rate)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(task: Task, fields: &[(&str, &'static str)]) -> Result<Facts, Error> {
        facts(task, |name| Value::of_json(fields.iter().find(|(known, _)| *known == name)?.1), None)
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
            (Task::Speech, &[("input", r#""h\u00e9\n\ud83d\ude00""#)], 4),
            (Task::ImageGenerate, &[("n", "2")], 2),
            (Task::ImageGenerate, &[("n", "2"), ("variants", "3")], 3),
            (Task::ImageGenerations, &[("n", "null")], 1),
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
            (Task::ImageGenerations, "n", "[10]"),
            (Task::ImageGenerations, "size", "[\"1024x1024\"]"),
            (Task::ImageGenerate, "variants", "5"),
            (Task::ImageGenerate, "width", "2048.0"),
            (Task::ImageUpscale, "scale", "4.0"),
            (Task::Speech, "input", "[\"a\"]"),
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
        assert_eq!(named(Task::ImageGenerations, &[("quality", r#""\u0068igh""#)]), ["high"], "as its reader has it");
        assert_eq!(named(Task::ImageUpscale, &[("scale", "4")]), ["4x"]);
        assert_eq!(named(Task::ImageUpscale, &[]), ["2x"]);
        assert_eq!(named(Task::ImageGenerate, &[("width", "512"), ("height", "768")]), ["512x768"]);
        assert_eq!(named(Task::VideoQueue, &[("resolution", "\"720p\""), ("audio", "true")]), ["720p", "audio"]);
    }

    #[test]
    fn a_recording_has_as_many_seconds_as_its_head_says() {
        let wav = b"RIFF\0\0\0\0WAVEfmt \x10\0\0\0\x01\0\x01\0\x40\x1f\0\0\x40\x1f\0\0\x01\0\x08\0data\0\0\0\0".to_vec();
        let with = |head: &[u8]| seconds_of(&[head, &[0; 8000 * 7]].concat());
        assert_eq!(with(&wav), (8, 8), "7 seconds, and a part of one for the head");
        for (at, lie) in [(29, 0xff), (20, 2), (24, 1), (34, 16)] {
            let mut lying = wav.clone();
            lying[at] = lie;
            assert_eq!(with(&lying).0, 57, "a head that contradicts itself at {at} is not believed");
        }
        assert_eq!(seconds_of(&[0; 16_001]), (17, 2), "of others only the length is known");
        assert_eq!(seconds_of(&[]), (1, 1));
    }
}
