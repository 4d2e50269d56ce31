//! What is served: small, whole, under a policy that lets nothing else in, and readable before anything else has answered.

use std::fs;
use std::process::Command;

use farebox_rig::http::Request;
use farebox_rig::process::run;
use farebox_rig::tests_dir;
use serde_json::json;

use crate::browser::{Browser, open, read, see};
use crate::shop::simulated;

/// The most that the whole front end may have, compressed.
const MOST: u64 = 60 * 1024;
const POLICY: [&str; 5] =
    ["default-src 'none'", "script-src 'self'", "style-src 'self'", "connect-src 'self'", "frame-ancestors 'none'"];

#[test]
fn the_pages_come_with_their_policy_and_without_a_cookie() {
    let mut server = simulated(&["echo"]);
    for (path, kind) in [
        ("/", "text/html"),
        ("/topup", "text/html"),
        ("/dashboard", "text/html"),
        ("/models", "text/html"),
        ("/static/style.css", "text/css"),
        ("/static/topup.js", "text/javascript"),
        ("/static/icon.svg", "image/svg+xml"),
    ] {
        let answer = server.send(&Request::get(path));
        assert_eq!(answer.status, 200, "{path}");
        assert!(
            answer.header("content-type").is_some_and(|it| it.starts_with(kind)),
            "{path}: {:?}",
            answer.header("content-type")
        );
        let policy = answer.header("content-security-policy").unwrap_or_default().to_owned();
        assert!(POLICY.iter().all(|part| policy.contains(part)) && !policy.contains("unsafe"), "{path}: {policy}");
        assert_eq!((answer.header("set-cookie"), answer.header("x-content-type-options")), (None, Some("nosniff")), "{path}");
        let text = answer.text();
        assert!(!text.contains("<script>") && !text.contains(" style=") && !text.contains("http-equiv"), "{path}");

        let tag = answer.header("etag").expect("a tag").to_owned();
        let again = server.send(&Request::get(path).header("if-none-match", &tag));
        assert_eq!((again.status, again.text().len()), (304, 0), "{path}: a browser that has it is told so");
        assert_eq!(server.send(&Request::get(path).header("if-none-match", "\"other\"")).status, 200, "{path}");
        assert_eq!(server.send(&Request::post(path, "{}")).code(), "method_not_allowed", "{path}");
    }
    for path in ["/static/", "/static/../config.toml", "/static/%2e%2e/config.toml", "/static/page.js/", "/index.html", "/topup/"]
    {
        let answer = server.send(&Request::get(path));
        assert_eq!((answer.status, answer.code().as_str()), (404, "not_found"), "{path}: programs ask here, too");
    }
    assert!(server.audit().clean);
}

#[test]
fn the_whole_front_end_is_smaller_than_sixty_kilobytes() {
    let folder = tests_dir().parent().expect("the project").join("static");
    let files: Vec<_> = fs::read_dir(&folder).unwrap().map(|entry| entry.unwrap().path()).collect();
    assert!(files.len() >= 10, "these are the files of the pages: {files:?}");
    let script = "const z=require('zlib'),f=require('fs');console.log(process.argv.slice(1).reduce((n,p)=>n+z.gzipSync(f.readFileSync(p)).length,0))";
    let mut command = Command::new("node");
    command.arg("-e").arg(script).args(&files);
    let (code, stdout, stderr) = run(command, "");
    assert_eq!(code, 0, "{stderr}");
    let bytes: u64 = stdout.trim().parse().unwrap();
    assert!(bytes > 5_000 && bytes < MOST, "{bytes} bytes compressed");
}

#[test]
fn set_up_stands_there_with_this_gateways_address_and_its_cheapest_model_before_any_question_is_answered() {
    let mut server = simulated(&["first", "second"]);
    let text = server.send(&Request::get("/")).text();
    let url = server.public_url();
    for line in [
        format!("export ANTHROPIC_BASE_URL=\"{url}\""),
        "export ANTHROPIC_MODEL=\"first\"".to_owned(),
        format!("base_url = \"{url}/v1\""),
        "wire_api = \"responses\"".to_owned(),
    ] {
        assert!(text.contains(&line), "{line} is missing");
    }
    assert!(!text.contains("{{"), "every blank is filled");
    let block = |path: &str| json!({ "do": "hold", "path": path });
    let mut steps = vec![block("/v1/**"), block("/api/**"), block("/healthz")];
    for (path, words) in
        [("/", "AI models, paid in USDC"), ("/topup", "Sign one message in your wallet."), ("/models", "Models and prices")]
    {
        steps.extend([open(path), see(words)]);
    }
    steps.extend([open("/dashboard"), see("Sign in with your wallet"), read("nav")]);
    let seen = Browser::of(&server).does(&steps);
    assert!(seen.text().contains("Dashboard"));
    assert!(server.audit().clean);
}
