//! What a request for media asks for, and how it is forwarded.

use serde_json::{Value, json};

use super::*;
use crate::catalogue::Serving;
use crate::money::Micros;
use crate::tariff::{Ceiling, Tariff};

pub fn model() -> Model {
    Model {
        id: "m".into(),
        kind: Kind::Image,
        upstreams: vec![Serving { upstream: "u".into(), model: "real".into(), weight: None }],
        tariff: Tariff::default(),
        pieces: None,
        ceiling: Ceiling::Flat(Micros::ONE),
        default_output: 100,
        max_output: 1000,
        image_tokens: 50,
        hidden_output: false,
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
        (Task::ImageGenerations, r#"{"model":"m","prompt":"p","n":1,"n":9}"#, None),
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
    assert_eq!(request.forward("real"), expected);
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
    let catalogue = Catalogue::new(vec![other, model()]);
    let found = |body: &str| {
        let request = Request::read(Task::ImageGenerations, "", body.as_bytes()).unwrap();
        request.find(&catalogue).map(|model| model.id.clone()).map_err(|error| error.code)
    };
    assert_eq!(found(r#"{"prompt":"p"}"#), Ok("m".into()), "the first that draws");
    assert_eq!(found(r#"{"prompt":"p","model":"m"}"#), Ok("m".into()));
    assert_eq!(found(r#"{"prompt":"p","model":"embed"}"#), Err(Code::InvalidRequest));
    assert_eq!(found(r#"{"prompt":"p","model":"none"}"#), Err(Code::ModelNotFound));
}
