//! Every page in both themes and at the width of a phone: kept as pictures for people, judged by axe-core for the rest.

use serde_json::{Value, json};

use crate::browser::{Browser, axe, click, fill, open, see, shots};
use crate::shop::{call, simulated};

/// Looks at what is there now: pictures, and what axe finds in both themes.
fn look(name: &str) -> Vec<Value> {
    let theme = |scheme: &str| json!({ "do": "theme", "scheme": scheme });
    vec![shots(name), theme("dark"), axe(), theme("light"), axe()]
}

/// The steps that say what is wrong, and what they said.
fn wrongs(steps: &[Value], said: impl Fn(usize) -> Value) -> Vec<String> {
    let looks = steps.iter().enumerate().filter(|(_, step)| step["do"] == "axe" || step["do"] == "shots");
    let bad = looks.map(|(at, step)| (step, said(at))).filter(|(_, said)| said != &json!([]) && said != &json!(0));
    bad.map(|(step, said)| format!("{step}: {said}")).collect()
}

#[test]
fn every_page_can_be_read_by_everybody_on_a_phone_and_in_the_dark() {
    let mut server = simulated(&["claude-sonnet-4-6", "gpt-5.5-pro", "llama-4-maverick"]);
    let mut steps = vec![open("/")];
    steps.extend(look("start"));
    steps.extend([open("/models"), see("3 of 3 models")]);
    steps.extend(look("models"));
    steps.extend([fill("Search", "gpt"), see("1 of 3 models"), fill("Search", "none of them"), see("No model fits")]);
    steps.extend([open("/topup"), click("Practice wallet"), see("Connected:")]);
    steps.extend(look("topup"));
    steps.extend([click("Sign and top up $10.00"), see("New balance")]);
    steps.extend(look("topup-done"));
    steps.push(open("/dashboard"));
    steps.extend(look("dashboard-out"));
    steps.extend([click("Practice wallet"), see("Signed in as"), click("New key"), fill("Name", "laptop")]);
    steps.extend(look("dashboard-new-key"));
    steps.extend([click("Make key"), see("Copy it now.")]);
    steps.extend(look("dashboard-fresh-key"));
    steps.extend(["claude-sonnet-4-6", "claude-sonnet-4-6", "gpt-5.5-pro", "llama-4-maverick"].map(call));
    steps.extend([json!({ "do": "reload" }), click("Practice wallet"), see("4 calls")]);
    steps.extend(look("dashboard"));
    let seen = Browser::of(&server).does(&steps);
    let wrongs = wrongs(&steps, |step| seen.value(step).clone());
    assert!(wrongs.is_empty(), "{}", wrongs.join("\n"));
    assert!(server.audit().clean);
}

#[test]
fn the_keyboard_alone_tops_up_and_makes_a_key() {
    let mut server = simulated(&["echo"]);
    let focus = |css: &str| json!({ "do": "tab", "css": css });
    let enter = || json!({ "do": "press", "key": "Enter" });
    // Longer than any wallet is waited for.
    let stays = "(async () => { const button = document.activeElement; await new Promise((over) => setTimeout(over, 500)); \
                 return document.activeElement === button })()";
    let steps = [
        open("/topup"),
        see("Practice wallet"),
        focus("#wallets button"),
        json!({ "do": "evaluate", "script": stays }),
        enter(),
        see("Connected:"),
        focus("#sign"),
        enter(),
        see("New balance"),
        focus("#pending a"),
        enter(),
        see("Sign in with your wallet"),
        focus("#wallets button"),
        enter(),
        see("Signed in as"),
        focus("#new-key"),
        enter(),
        focus("#k-name"),
        json!({ "do": "type", "text": "by hand" }),
        enter(),
        see("Copy it now."),
    ];
    let seen = Browser::of(&server).does(&steps);
    assert_eq!(seen.value(3), &json!(true), "a button that has the focus keeps it");
    assert!(server.audit().clean);
}
