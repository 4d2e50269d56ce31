//! What is read out of an upstream's words about a job, and which addresses it can never lead to.

use super::*;

fn upstream(base_url: &str) -> HttpUpstream {
    HttpUpstream::new(base_url, None, None, &["https://cdn.example".into(), "https://cdn.example:8443".into()])
        .map_err(|(key, why)| format!("{key}: {why}"))
        .unwrap()
}

#[test]
fn only_the_upstreams_own_address_is_led_to() {
    let http = upstream("https://media.example:8443/gate");
    for (url, path) in [
        ("https://media.example:8443/files/a.mp4?sig=1", Some("/files/a.mp4?sig=1")),
        ("HTTPS://MEDIA.example:8443/x", Some("/x")),
        ("https://media.example:8443", Some("/")),
        ("/files/a.mp4", Some("/files/a.mp4")),
        ("//evil.example/x", None),
        ("/\\evil.example/x", None),
        ("http://media.example:8443/x", None),
        ("https://media.example/x", None),
        ("https://media.example:443/x", None),
        ("https://media.example:84430/x", None),
        ("https://evil.example:8443/x", None),
        ("https://media.example.evil.example:8443/x", None),
        ("https://media.example:8443@evil.example/x", None),
        ("https://user@media.example:8443/x", None),
        ("https://[::1]:8443/x", None),
        ("https://127.0.0.1:8443/x", None),
        ("file:///etc/passwd", None),
        ("gopher://media.example:8443/x", None),
        ("data:video/mp4;base64,AAAA", None),
        ("", None),
        ("a.mp4", None),
        ("https://media.example:8443/a b", None),
        ("https://media.example:8443/a\r\nx: y", None),
    ] {
        assert_eq!(http.located(url), path.map(|path| (At::Origin, path.to_owned())), "{url}");
    }
    let usual = upstream("https://media.example").located("https://media.example:443/x");
    assert_eq!(usual, Some((At::Origin, "/x".to_owned())));
    assert_eq!(upstream("http://media.example").origin(), "http://media.example");
}

#[test]
fn a_media_host_is_led_to_by_its_exact_name_and_port_and_over_tls_alone() {
    let http = upstream("https://media.example");
    for (url, place) in [
        ("https://cdn.example/a?sig=1", Some(0)),
        ("https://CDN.example:443/a?sig=1", Some(0)),
        ("https://cdn.example:8443/a?sig=1", Some(1)),
        ("http://cdn.example/a?sig=1", None),
        ("https://cdn.example:444/a?sig=1", None),
        ("https://a.cdn.example/a?sig=1", None),
        ("https://cdn.example.evil.example/a?sig=1", None),
        ("https://cdn.example@evil.example/a?sig=1", None),
        ("https://me@cdn.example/a?sig=1", None),
    ] {
        assert_eq!(http.located(url), place.map(|place| (At::MediaHost(place), "/a?sig=1".to_owned())), "{url}");
    }
}

#[test]
fn of_a_url_only_its_host_is_logged() {
    for (url, host) in [
        ("https://cdn.example:8443/secret?sig=1", "https://cdn.example:8443"),
        ("https://me:secret@cdn.example?sig=1", "cdn.example"),
        ("data:video/mp4;base64,AAAA", "data:video"),
        ("https://x\r\nforged", "https://xforged"),
    ] {
        assert_eq!(shown(url), host);
    }
}

#[test]
fn a_job_has_the_first_plain_name_that_its_answer_gives() {
    for (answer, name) in [
        (r#"{"model":"m","queue_id":"q-1","status":"QUEUED"}"#, Some("q-1")),
        (r#"{"id":"video_1","task_id":"t-2"}"#, Some("t-2")),
        (r#"{"id":77}"#, Some("77")),
        (r#"{"id":null,"queue_id":""}"#, None),
        (r#"{"id":"a\nb"}"#, None),
        ("[1]", None),
        ("not json", None),
    ] {
        assert_eq!(named(answer.as_bytes()).as_deref(), name, "{answer}");
    }
    assert_eq!(named(format!(r#"{{"id":"{}"}}"#, "x".repeat(257)).as_bytes()), None);
}

#[test]
fn a_job_is_over_only_when_its_upstream_says_so() {
    let http = upstream("https://media.example");
    let read_as = |task, text: &str| http.read(task, &serde_json::from_str(text).unwrap());
    let read = |text: &str| read_as(Task::VideosGenerations, text);
    for text in ["{}", r#"{"status":"QUEUED"}"#, r#"{"status":"in_progress"}"#, r#"{"status":"FAILING"}"#, r#"{"status":7}"#] {
        assert!(matches!(read(text), Report::Working { .. }), "{text}");
    }
    for text in [r#"{"status":"FAILED","error":"no"}"#, r#"{"state":"cancelled"}"#, r#"{"status":"error"}"#] {
        assert!(matches!(read(text), Report::Failed { .. }), "{text}");
    }
    assert!(matches!(read(r#"{"status":"COMPLETED"}"#), Report::Done(Found::InItsPlace)));
    for queue in [Task::AudioQueue, Task::VideoQueue] {
        assert!(matches!(read_as(queue, r#"{"status":"COMPLETED"}"#), Report::Unknown), "it has no other place to look at");
        assert!(matches!(read_as(queue, r#"{"status":"COMPLETED","url":"/v"}"#), Report::Done(Found::At(_))));
    }
    assert!(matches!(read(r#"{"status":"completed","video":{"url":"/v"}}"#), Report::Done(Found::At(url)) if url == "/v"));
    let told = read(r#"{"status":"PROCESSING","average_execution_time":1000.5,"execution_duration":20,"progress":400}"#);
    assert!(matches!(told, Report::Working { average: Some(1000), running: Some(20), progress: Some(100) }), "{told:?}");
}

#[test]
fn a_result_is_at_the_first_url_that_can_be_fetched_from() {
    let http = upstream("https://media.example");
    for (said, found) in [
        (r#"{"url":"","video_url":"https://media.example/v"}"#, Some("https://media.example/v")),
        (r#"{"url":"https://other.example/v","download_url":"/v"}"#, Some("/v")),
        (r#"{"video_url":"/sent/by/the/caller","video":{"url":"https://cdn.example/v"}}"#, Some("https://cdn.example/v")),
        (r#"{"url":"https://other.example/v","video_url":"/sent/by/the/caller"}"#, Some("https://other.example/v")),
        (r#"{"url":"https://other.example/v","video_url":""}"#, Some("https://other.example/v")),
        (r#"{"url":"","audio_url":""}"#, None),
        (r#"{"url":null,"result":{"url":7}}"#, None),
    ] {
        assert_eq!(http.url(&serde_json::from_str(said).unwrap()), found, "{said}");
    }
}

#[test]
fn a_failure_keeps_its_reason_and_loses_its_secrets() {
    let http = upstream("https://media.example");
    let failure = |text: &str| match http.read(Task::VideoQueue, &serde_json::from_str(text).unwrap()) {
        Report::Failed { code, error } => (code, error),
        other => panic!("{other:?}"),
    };
    let (code, error) = failure(r#"{"status":"failed","error":{"code":"policy","message":"not for sk-abc at media.example"}}"#);
    assert_eq!((code.as_deref(), error.as_str()), (Some("policy"), "not for [removed] at [removed]"));
    let (code, error) = failure(r#"{"status":"failed","error":null,"code":"<b>"}"#);
    assert_eq!(code, None);
    assert!(!error.is_empty());
}

#[test]
fn the_name_of_a_job_leads_to_no_other_place() {
    assert_eq!(place("video_1-a"), "/videos/video_1-a");
    assert_eq!(place("../keys?x=1#y"), "/videos/%2E%2E%2Fkeys%3Fx%3D1%23y");
}
