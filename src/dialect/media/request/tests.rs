//! What a request for media asks for, and how it is forwarded.

use serde_json::{Value, json};

use super::*;
use crate::catalogue::Serving;
use crate::money::Micros;
use crate::tariff::{Ceiling, Pieces, Tariff};

pub fn model() -> Model {
    Model {
        kind: Kind::Image,
        upstreams: vec![Serving { upstream: "u".into(), model: "real".into(), weight: None, cost: None }],
        ceiling: Ceiling::Flat(Micros::ONE),
        default_output: 100,
        max_output: 1000,
        image_tokens: 50,
        ..Model::plain("m")
    }
}

fn read(task: Task, body: &str) -> Result<Value, Error> {
    let request = Request::read(task, "application/json", body.as_bytes())?;
    Ok(serde_json::from_slice(&request.forward("real")).unwrap())
}

#[test]
fn what_is_sold_is_forwarded_untouched_and_nothing_else() {
    let body = r#"{"prompt":"a \"cat\"","model":"m","n": 2,"webhook":"http://evil","size":"1024x1024","user":null}"#;
    let forwarded = read(Task::ImageGenerations, body).unwrap();
    assert_eq!(forwarded, json!({ "model": "real", "prompt": "a \"cat\"", "n": 2, "size": "1024x1024", "user": null }));
    let forwarded = read(Task::ImageMultiEdit, r#"{"prompt":"p","images":["x"],"modelId":"m"}"#).unwrap();
    assert_eq!(forwarded, json!({ "modelId": "real", "prompt": "p", "images": ["x"] }));
}

#[test]
fn a_length_that_is_left_open_is_written_into_what_is_forwarded() {
    assert_eq!(read(Task::VideosGenerations, r#"{"model":"m","prompt":"p"}"#).unwrap()["seconds"], "4");
    assert_eq!(read(Task::VideosGenerations, r#"{"model":"m","prompt":"p","duration":6}"#).unwrap()["seconds"], Value::Null);
}

#[test]
fn what_is_missing_or_there_twice_is_named() {
    for (task, body, param) in [
        (Task::ImageGenerations, r#"{"model":"m"}"#, Some("prompt")),
        (Task::ImageGenerations, r#"{"model":"m","prompt":""}"#, Some("prompt")),
        (Task::VideoQueue, r#"{"model":"m","prompt":"p"}"#, Some("duration")),
        (Task::ImageBackgroundRemove, r#"{"model":"m"}"#, Some("image")),
        (Task::Embeddings, r#"{"model":7,"input":"x"}"#, Some("model")),
        (Task::ImageGenerations, r#"{"model":"m","prompt":"p","stream":"yes"}"#, Some("stream")),
        (Task::ImageGenerations, r#"{"model":"m","prompt":"p","stream":"true"}"#, Some("stream")),
        (Task::ImageGenerations, r#"{"model":"m","prompt":"p","n":1,"\u006e":9}"#, Some("n")),
        (Task::ImageEdits, r#"{"model":"m","prompt":"p","image":"a","image":"b"}"#, Some("image")),
        (Task::Speech, r#"{"model":"m","input":"p","stream_format":["sse"]}"#, Some("stream_format")),
    ] {
        let error = read(task, body).unwrap_err();
        assert_eq!((error.code, error.param), (Code::InvalidRequest, param), "{body}");
    }
    assert_eq!(read(Task::Embeddings, "{").unwrap_err().code, Code::InvalidJson);
    assert_eq!(read(Task::Transcriptions, "{}").unwrap_err().code, Code::UnsupportedMediaType);
}

#[test]
fn a_form_is_forwarded_with_its_files_and_the_upstreams_name_of_the_model() {
    let form = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nm\r\n\
        --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\nID3\0\r\n\
        --b\r\nContent-Disposition: form-data; name=\"webhook\"\r\n\r\nhttp://evil\r\n\
        --b\r\nContent-Disposition: form-data; name=\"language\"\r\n\r\nde\r\n--b--\r\n";
    let request = Request::read(Task::Transcriptions, "multipart/form-data; boundary=b", form.as_bytes()).unwrap();
    assert_eq!((request.model(), request.stream()), (Some("m"), false));
    let expected = "--b\r\nContent-Disposition: form-data; name=\"model\"\r\n\r\nreal\r\n\
        --b\r\nContent-Disposition: form-data; name=\"file\"; filename=\"a.mp3\"\r\nContent-Type: audio/mpeg\r\n\r\nID3\0\r\n\
        --b\r\nContent-Disposition: form-data; name=\"language\"\r\n\r\nde\r\n--b--\r\n";
    let content_type = request.content_type();
    let ours = form::boundary(&content_type).unwrap();
    assert_eq!(request.forward("real"), expected.replace("--b", &format!("--{ours}")));
}

/// A form of fields: a name, what follows it in its head, and its value.
fn form(fields: &[(&str, &str, &str)]) -> String {
    let part = |(name, more, value): &(&str, &str, &str)| {
        format!("--b\r\nContent-Disposition: form-data; name=\"{name}\"{more}\r\n\r\n{value}\r\n")
    };
    fields.iter().map(part).collect::<String>() + "--b--\r\n"
}

const FILE: &str = "; filename=\"x\"";

#[test]
fn a_form_that_could_be_read_in_two_ways_is_refused() {
    let (prompt, image) = (("prompt", "", "p"), ("image", FILE, "png"));
    for (more, param) in [
        (vec![("n", FILE, "10")], "n"),
        (vec![("model", FILE, "m")], "model"),
        (vec![("model", "", "m"), ("model", "", "other")], "model"),
        (vec![("n", "", "1"), ("n", "", "10")], "n"),
        (vec![("n", "", "1x1")], "n"),
    ] {
        let body = form(&[vec![prompt, image], more].concat());
        let error = Request::read(Task::ImageEdits, "multipart/form-data; boundary=b", body.as_bytes()).err().unwrap();
        assert_eq!((error.code, error.param), (Code::InvalidRequest, Some(param)), "{}", error.message);
    }
    let mut body = form(&[prompt, image, ("n", "", "1?")]).into_bytes();
    let at = body.iter().rposition(|byte| *byte == b'?').unwrap();
    body[at] = 0xff;
    assert!(Request::read(Task::ImageEdits, "multipart/form-data; boundary=b", &body).is_err(), "no UTF-8");
    let body = form(&[("file", "", "sound")]);
    let error = Request::read(Task::Transcriptions, "multipart/form-data; boundary=b", body.as_bytes()).err().unwrap();
    assert_eq!(error.param, Some("file"));
    let error = Request::read(Task::Transcriptions, "multipart/form-data", body.as_bytes()).err().unwrap();
    assert!(error.code == Code::InvalidRequest && error.message.contains("boundary"), "{}", error.message);
}

#[test]
fn no_more_texts_are_embedded_at_once_than_the_providers_take() {
    let body = |item: &str, count: usize| format!(r#"{{"model":"m","input":[{}]}}"#, vec![item; count].join(","));
    assert!(read(Task::Embeddings, &body("\"x\"", 2048)).is_ok());
    assert_eq!(read(Task::Embeddings, &body("\"x\"", 2049)).unwrap_err().param, Some("input"));
    assert_eq!(read(Task::Embeddings, &body("[1,2]", 2049)).unwrap_err().param, Some("input"));
    assert!(read(Task::Embeddings, &body("17", 8000)).is_ok(), "one text in tokens");
}

#[test]
fn every_picture_is_counted_wherever_it_lies() {
    let input = |content_type: &str, body: &str| {
        let request = Request::read(Task::ImageMultiEdit, content_type, body.as_bytes()).unwrap();
        request.bound(&model()).input
    };
    assert_eq!(input("", r#"{"prompt":"p","images":["a","https://b",{"c":[1,2]}]}"#), 3 + 3 * 50);
    let parts = [("prompt", "", "p"), ("images", FILE, "png"), ("images", "", "https://b")];
    assert_eq!(input("multipart/form-data; boundary=b", &form(&parts)), 1 + 2 * 50);
}

#[test]
fn a_number_of_pictures_by_its_other_name_is_forwarded_by_the_routes_own() {
    let forwarded = read(Task::ImageGenerate, r#"{"model":"m","prompt":"p","n":2}"#).unwrap();
    assert_eq!(forwarded, json!({ "model": "real", "prompt": "p", "variants": 2 }));
    let forwarded = read(Task::ImageGenerate, r#"{"model":"m","prompt":"p","n":4,"variants":1}"#).unwrap();
    assert_eq!(forwarded, json!({ "model": "real", "prompt": "p", "variants": 1 }));
}

#[test]
fn where_the_route_has_no_model_none_is_forwarded() {
    let forwarded = read(Task::ImageUpscale, r#"{"model":"m","image":"aGk=","scale":4}"#).unwrap();
    assert_eq!(forwarded, json!({ "image": "aGk=", "scale": 4 }));
}

#[test]
fn what_lies_at_an_address_is_sold_by_the_call_alone() {
    let second = Pieces::flat(crate::tariff::Unit::Second, UnitPrice::each("0.0001").unwrap());
    let whisper = Model { kind: Kind::Transcription, ceiling: Ceiling::Computed, pieces: Some(second), ..model() };
    let call = Tariff { call: UnitPrice::each("0.05").unwrap(), ..Tariff::default() };
    let by_call = Model { id: "by-call".into(), pieces: None, tariff: call, ..whisper.clone() };
    let catalogue = Catalogue::new(vec![whisper, by_call]);
    let found = |body: &str| {
        let request = Request::read(Task::VideoTranscriptions, "", body.as_bytes()).unwrap();
        request.find(&catalogue, |_| true).map(|model| model.id.clone()).map_err(|error| error.code)
    };
    assert_eq!(found(r#"{"url":"https://video"}"#), Ok("by-call".into()));
    assert_eq!(found(r#"{"url":"https://video","model":"m"}"#), Err(Code::InvalidRequest));
}

#[test]
fn a_bound_covers_all_that_was_asked_for() {
    let request = Request::read(Task::ImageGenerations, "", br#"{"prompt":"twelve bytes","n":3}"#).unwrap();
    let bound = request.bound(&model());
    assert_eq!((bound.units, bound.output), (3, 3000), "each picture may have all the tokens there are");
    assert!(bound.input >= 12);
}

#[test]
fn a_model_is_found_by_name_or_by_what_it_does() {
    let other = Model { id: "embed".into(), kind: Kind::Embedding, ..model() };
    let unserved = Model { id: "unserved".into(), ..model() };
    let catalogue = Catalogue::new(vec![other, unserved, model()]);
    let found = |body: &str| {
        let request = Request::read(Task::ImageGenerations, "", body.as_bytes()).unwrap();
        request.find(&catalogue, |model| model.id != "unserved").map(|model| model.id.clone()).map_err(|error| error.code)
    };
    assert_eq!(found(r#"{"prompt":"p"}"#), Ok("m".into()), "the first that draws and that somebody serves");
    assert_eq!(found(r#"{"prompt":"p","model":"m"}"#), Ok("m".into()));
    assert_eq!(found(r#"{"prompt":"p","model":"embed"}"#), Err(Code::InvalidRequest));
    assert_eq!(found(r#"{"prompt":"p","model":"none"}"#), Err(Code::ModelNotFound));
}
