//! The operator's hand: keys, accounts, allowances and refunds by command, the same on a gateway that runs and on one that does not.

mod adjust;
mod backup;
mod blocked;
#[cfg(feature = "fault-points")]
mod deaths;
mod pepper;
mod report;
mod strangers;

use std::fs;
use std::io::{BufRead as _, BufReader, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::os::unix::net::{UnixListener, UnixStream};
use std::process::Command;
use std::thread;

use farebox_rig::process::{run, wait_out_midnight};
use serde_json::{Value, json};

use crate::owner::{CHARGE, DOLLAR, MODEL, Owner, Shop};

/// What an operator does in a day, which comes to the same wherever it is done. Returns the key that was minted and not revoked.
fn a_day(shop: &Shop, owner: &Owner) -> String {
    let address = owner.address();
    let done = |arguments: &[&str]| {
        let (code, printed, said) = shop.operator(arguments);
        assert_eq!(code, 0, "{arguments:?}: {said}");
        printed
    };
    let mint =
        ["keys", "mint", "--account", &address, "--name", "by hand", "--limit", "5.00", "--reset", "day", "--models", MODEL];
    let minted = done(&mint);
    let key = shop.keep(minted["key"].as_str().unwrap());
    assert_eq!((&minted["spend_limit_usd"], &minted["reset"], &minted["models"]), (&json!(5), &json!("day"), &json!([MODEL])));
    let doomed = done(&["keys", "mint", "--account", &owner.account(), "--name", "doomed"]);
    shop.keep(doomed["key"].as_str().unwrap());
    let revoked = done(&["keys", "revoke", doomed["id"].as_str().unwrap()]);
    assert_eq!((&revoked["state"], &revoked["id"]), (&json!("revoked"), &doomed["id"]));
    let listed = done(&["keys", "list", "--account", &address]);
    let states: Vec<_> = listed["keys"].as_array().unwrap().iter().map(|key| key["state"].as_str().unwrap()).collect();
    assert!(states.contains(&"active") && states.contains(&"revoked"), "{listed:#}");
    assert!(!listed.to_string().contains(&key[8..]), "no list shows a key");
    let granted = done(&["allowance", "set", &address, "2.50", "--until", "2999-01-01", "--note", "a friend"]);
    assert_eq!((&granted["usd_per_day"], &granted["valid_until"]), (&json!(2.5), &json!("2999-01-01T00:00:00.000Z")));
    assert_eq!(done(&["allowance", "list"])["allowances"], json!([granted]));
    let account = done(&["account", &address]);
    assert_eq!((&account["allowance"]["left_usd"], &account["account"]), (&json!(2.5), &json!(owner.account())));
    assert_eq!(done(&["allowance", "remove", &address])["removed"], true);
    assert_eq!(done(&["account", &address])["allowance"], Value::Null);
    for (arguments, code) in [
        (vec!["allowance", "remove", &address], 1),
        (vec!["allowance", "set", &address, "1e3"], 2),
        (vec!["allowance", "set", &address, "1000000000.000001"], 2),
        (vec!["allowance", "set", &address, "1", "--from", "2027-01-02", "--until", "2027-01-01"], 2),
        (vec!["keys", "revoke", "key_00000000000000000000000000000000"], 1),
        (vec!["keys", "revoke", "x"], 2),
        (vec!["keys", "mint", "--account", &address, "--name", ""], 2),
        (vec!["keys", "mint", "--account", &address, "--name", "k", "--models", "nope"], 2),
        (vec!["keys", "mint", "--account", "0x1234", "--name", "k"], 2),
        (vec!["account", "0xAbCdEf0000000000000000000000000000000000"], 2),
        (vec!["refund", "req_00000000000000000000000000000000"], 1),
        (vec!["refund", "req_1"], 2),
        (vec!["keys"], 2),
    ] {
        let (got, printed, said) = shop.operator(&arguments);
        assert_eq!((got, &printed), (code, &Value::Null), "{arguments:?}: {said}");
        assert!(!said.is_empty());
    }
    key
}

#[test]
fn a_command_does_the_same_on_a_gateway_that_runs_and_on_one_that_does_not() {
    let (mut shop, owner) = (Shop::open(), Owner::new(1));
    let running = a_day(&shop, &owner);
    assert_eq!(shop.knocks(&running).0, 200, "it is known at once");
    shop.server.signal();
    shop.server.wait_exit();
    assert!(!shop.server.data_dir().join("operator.sock").exists(), "a stop in good order leaves no socket");
    let stopped = a_day(&shop, &owner);
    shop.server.restart();
    assert_eq!([shop.knocks(&running).0, shop.knocks(&stopped).0], [200, 200]);
    let states: Vec<_> = shop.listed(&owner).into_iter().map(|(_, state, _)| state).collect();
    assert_eq!(states.iter().filter(|state| *state == "active").count(), 2, "{states:?}");
    assert_eq!(states.len(), 4);
    shop.close(&[(&owner, 0)]);
}

#[test]
fn a_key_that_the_operator_revokes_is_refused_at_once() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, DOLLAR);
    let (id, key) = shop.mint(&owner, &json!({ "name": "stolen" }));
    assert_eq!(shop.knocks(&key).0, 200);
    assert_eq!(shop.operator(&["keys", "revoke", &id]).0, 0);
    assert_eq!(shop.knocks(&key), (401, "key_revoked".into()));
    assert_eq!(shop.listed(&owner)[0].1, "revoked", "its owner sees it");
    shop.close(&[(&owner, DOLLAR)]);
}

#[test]
fn the_operator_changes_and_rotates_a_key_as_its_owner_does() {
    let (mut shop, owner) = (Shop::open(), Owner::new(1));
    let key = shop.mint_by_hand(&owner);
    let id = shop.listed(&owner)[0].0.clone();
    let done = |shop: &Shop, arguments: &[&str]| {
        let (code, printed, said) = shop.operator(arguments);
        assert_eq!(code, 0, "{arguments:?}: {said}");
        printed
    };
    let all = ["--name", "n", "--limit", "2.50", "--reset", "week", "--models", MODEL, "--expires", "2999-01-01T00:00:00Z"];
    let changed = done(&shop, &[&["keys", "change", &id][..], &all].concat());
    let facts = |of: &Value| ["name", "spend_limit_usd", "reset", "models", "expires_at"].map(|field| of[field].clone());
    let expires = json!("2999-01-01T00:00:00.000Z");
    assert_eq!(facts(&changed), [json!("n"), json!(2.5), json!("week"), json!([MODEL]), expires]);
    assert!(!changed.to_string().contains(&key[8..]), "no secret is shown: {changed}");
    // Half of it on the running gateway, half on the stopped one.
    let rotated = done(&shop, &["keys", "rotate", &id, "--grace", "3600"]);
    let second = shop.keep(rotated["key"].as_str().unwrap());
    assert_eq!([shop.knocks(&key).0, shop.knocks(&second).0], [200, 200]);
    shop.server.signal();
    shop.server.wait_exit();
    let bare = done(&shop, &["keys", "change", &id, "--limit", "none", "--models", "all", "--expires", "never"]);
    assert_eq!(facts(&bare), [json!("n"), Value::Null, json!("week"), json!([]), Value::Null], "what is not named stays");
    for (arguments, code, words) in [
        (vec!["keys", "rotate", &id, "--grace", "60"], 1, "is taken until"),
        (vec!["keys", "rotate", &id, "--grace", "604801"], 2, "grace_seconds"),
        (vec!["keys", "rotate", "x"], 2, "key_"),
        (vec!["keys", "change", &id], 2, "--limit"),
        (vec!["keys", "change", &id, "--limit", "1e3"], 2, "spend_limit_usd"),
        (vec!["keys", "change", &id, "--models", "nope"], 2, "nope"),
        (vec!["keys", "change", "key_00000000000000000000000000000000", "--name", "n"], 1, "no key"),
    ] {
        let (got, printed, said) = shop.operator(&arguments);
        assert!((got, &printed) == (code, &Value::Null) && said.contains(words), "{arguments:?}: {got} {said}");
    }
    let third = shop.keep(done(&shop, &["keys", "rotate", &id])["key"].as_str().unwrap());
    shop.server.restart();
    assert_eq!([&key, &second, &third].map(|key| shop.knocks(key).0), [401, 401, 200], "without a grace the old ones end");
    shop.close(&[(&owner, 0)]);
}

#[test]
fn nobody_makes_files_in_a_folder_that_is_somebody_elses() {
    let folder = tempfile::TempDir::new().unwrap();
    let me = fs::metadata(folder.path()).unwrap().uid();
    // Root gives a folder away; whoever is not root takes one of root's.
    let data_dir = if me == 0 { folder.path().join("data") } else { "/".into() };
    if me == 0 {
        fs::create_dir(&data_dir).unwrap();
        std::os::unix::fs::chown(&data_dir, Some(65_534), None).unwrap();
    }
    let owner = fs::metadata(&data_dir).unwrap().uid();
    let names = || fs::read_dir(&data_dir).unwrap().map(|entry| entry.unwrap().file_name()).collect::<Vec<_>>();
    let before = names();
    let config = folder.path().join("config.toml");
    fs::write(&config, format!("[server]\ndata_dir = {data_dir:?}\n")).unwrap();
    for words in ["allowance list", "account 0x1111111111111111111111111111111111111111"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_farebox"));
        command.arg("--config").arg(&config).args(words.split(' '));
        let (code, printed, said) = run(command, "");
        assert_eq!((code, printed.as_str()), (78, ""), "{said}");
        assert!(said.contains(&format!("sudo -u '#{owner}'")) && said.contains(data_dir.to_str().unwrap()), "{said}");
    }
    assert_eq!(names(), before, "nothing was made");
}

#[test]
fn a_refund_gives_back_what_was_paid_and_never_more() {
    let (mut shop, owner) = (Shop::open(), Owner::new(1));
    shop.top_up(&owner, 1_000_000);
    let (_, key) = shop.mint(&owner, &json!({ "name": "k" }));
    let calls = [MODEL; 3].map(|model| shop.call(&key, model).header("x-request-id").unwrap().to_owned());
    shop.wait_settled(&owner);
    let balance = |shop: &Shop| shop.wait_settled(&owner)["balance_usd"].as_f64().map(|usd| (usd * 1e6).round() as i64).unwrap();
    assert_eq!(balance(&shop), 1_000_000 - 3 * CHARGE);
    // A part, the same again, more than there is, less than was given back, the rest, and the rest again.
    let given_back = |arguments: &[&str]| {
        let (code, printed, said) = shop.operator(&[&["refund", &calls[0]], arguments].concat());
        (code, printed["gave_back_usd"].clone(), printed["refunded_usd"].clone(), said)
    };
    for (usd, now, balance_after) in [("0.0001", json!(0.0001), 100), ("0.0001", json!(0), 100)] {
        let (code, gave_back, in_all, said) = given_back(&[usd]);
        assert_eq!((code, gave_back, in_all), (0, now, json!(0.0001)), "{said}");
        assert_eq!(balance(&shop), 1_000_000 - 3 * CHARGE + balance_after, "so much in all, however often it is said");
    }
    for (usd, words) in [("0.000166", "0.000165"), ("0.00009", "0.0001"), ("0", "in all")] {
        let (code, _, _, said) = given_back(&[usd]);
        assert!(code == 2 && said.contains(words), "{usd}: {code} {said}");
    }
    for now in [json!(0.000_065), json!(0)] {
        let (code, gave_back, in_all, said) = given_back(&[]);
        assert_eq!((code, gave_back, in_all), (0, now, json!(0.000_165)), "{said}");
    }
    assert_eq!(balance(&shop), 1_000_000 - 2 * CHARGE);
    // Two who ask at once give it back once.
    let mut said: Vec<_> = thread::scope(|scope| {
        let ask = || shop.operator(&["refund", &calls[1]]).1["gave_back_usd"].to_string();
        let asking: Vec<_> = (0..2).map(|_| scope.spawn(ask)).collect();
        asking.into_iter().map(|asked| asked.join().unwrap()).collect()
    });
    said.sort();
    assert_eq!(said, ["0", "0.000165"]);
    assert_eq!(balance(&shop), 1_000_000 - CHARGE);
    // The owner sees it.
    let session = shop.session(&owner);
    let receipt = shop.get(&format!("/api/receipts/{}", calls[1]), &session);
    assert_eq!((&receipt["charge_usd"], &receipt["refunded_usd"]), (&json!(0.000_165), &json!(0.000_165)));
    let lines = shop.get("/api/transactions", &session);
    assert_eq!(
        (&lines["transactions"][0]["type"], &lines["transactions"][0]["amount_usd"]),
        (&json!("REFUND"), &json!(0.000_165))
    );
    shop.server.signal();
    shop.server.wait_exit();
    assert_eq!(shop.operator(&["refund", &calls[2]]).0, 0, "the same on a stopped gateway");
    assert_eq!(shop.operator(&["refund", &calls[2]]).1["gave_back_usd"], 0);
    shop.server.restart();
    shop.close(&[(&owner, 1_000_000)]);
}

#[test]
fn an_allowance_is_spent_before_the_balance_and_by_nobody_after_it_was_taken_away() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    let key = shop.mint_by_hand(&owner);
    assert_eq!(shop.call(&key, MODEL).code(), "insufficient_balance");
    wait_out_midnight();
    assert_eq!(shop.operator(&["allowance", "set", &owner.address(), "1"]).0, 0);
    let answer = shop.call(&key, MODEL);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let account = shop.wait_settled(&owner);
    assert_eq!((&account["allowance"]["left_usd"], &account["balance_usd"]), (&json!(0.999_835), &json!(0)));
    let session = shop.session(&owner);
    let usage = shop.get("/api/usage", &session);
    assert_eq!((&usage["total"]["charge_usd"], &usage["total"]["allowance_usd"]), (&json!(0.000_165), &json!(0.000_165)));
    assert_eq!(shop.get("/api/transactions", &session)["transactions"], json!([]), "no money moved");
    // Given back on the same day, it is there for another call.
    let request = answer.header("x-request-id").unwrap();
    let (code, given_back, said) = shop.operator(&["refund", request]);
    assert_eq!((code, &given_back["gave_back_usd"]), (0, &json!(0.000_165)), "{said}");
    let account = shop.wait_settled(&owner);
    assert_eq!((&account["allowance"]["left_usd"], &account["balance_usd"]), (&json!(1), &json!(0)), "as an allowance");
    assert_eq!(shop.get("/api/keys", &session)["keys"][0]["spent_usd"], 0);
    assert_eq!(shop.operator(&["allowance", "remove", &owner.address()]).0, 0);
    assert_eq!(shop.call(&key, MODEL).code(), "insufficient_balance");
    shop.close(&[(&owner, 0)]);
}

#[cfg(feature = "fault-points")]
#[test]
fn an_allowance_renews_at_midnight_and_what_was_left_of_it_lapses() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    let day = 24 * 3600;
    let into_the_day = shop.now().secs() % day;
    // Ten minutes before a midnight.
    let before = day - into_the_day + day - 600;
    shop.move_clock(before);
    assert_eq!(shop.operator(&["allowance", "set", &owner.address(), "0.01"]).0, 0);
    let (_, key) = shop.mint(&owner, &json!({ "name": "k", "spend_limit_usd": "1", "reset": "day" }));
    assert_eq!(shop.call(&key, MODEL).status, 200);
    let left = |shop: &Shop| shop.wait_settled(&owner)["allowance"]["left_usd"].clone();
    assert_eq!(left(&shop), json!(0.009_835));
    let spent = |shop: &Shop| shop.get("/api/keys", &shop.sign_in(&owner))["keys"][0]["spent_usd"].clone();
    assert_eq!(spent(&shop), json!(0.000_165));
    shop.move_clock(before + 1200);
    assert_eq!((left(&shop), spent(&shop)), (json!(0.01), json!(0)), "a new day, and nothing rolled over");
    assert_eq!(shop.call(&key, MODEL).status, 200);
    assert_eq!((left(&shop), spent(&shop)), (json!(0.009_835), json!(0.000_165)));
    let usage = shop.get("/api/usage?days=2", &shop.sign_in(&owner));
    assert_eq!((usage["rows"].as_array().unwrap().len(), &usage["total"]["calls"]), (2, &json!(2)), "each on its day: {usage:#}");
    shop.close(&[(&owner, 0)]);
}

#[test]
fn what_a_killed_gateway_left_behind_keeps_nobody_out() {
    let (mut shop, owner) = (Shop::open(), Owner::new(1));
    let socket = shop.server.data_dir().join("operator.sock");
    assert_eq!(fs::metadata(&socket).unwrap().permissions().mode() & 0o777, 0o600, "for its own user only");
    shop.server.kill();
    assert!(socket.exists(), "nobody took it away");
    assert_eq!(shop.operator(&["account", &owner.address()]).0, 0, "on the stopped gateway, past the dead socket");
    shop.server.restart();
    let (code, printed, said) = shop.operator(&["account", &owner.address()]);
    assert_eq!((code, &printed["account"]), (0, &json!(owner.account())), "{said}");
    assert!(!said.contains("the ledger is open"), "the one that runs was asked: {said}");
    shop.close(&[(&owner, 0)]);
}

#[test]
fn a_command_that_is_no_command_harms_nobody() {
    let (shop, owner) = (Shop::open(), Owner::new(1));
    let socket = shop.server.data_dir().join("operator.sock");
    let say = |text: &[u8]| {
        let mut stream = UnixStream::connect(&socket).unwrap();
        // It may have heard enough before the end.
        let _ = stream.write_all(text);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        let mut answer = String::new();
        let _ = BufReader::new(stream).read_line(&mut answer);
        answer
    };
    let long = [b"{\"list_keys\":\"".as_slice(), &[b'x'; 200_000]].concat();
    for text in
        [&b""[..], b"\n", b"{}\n", b"null\n", b"\"list_allowances\"", b"{\"mint_key\":{}}\n", b"\xff\xfe\n", &long, b"[1,2]\n"]
    {
        let answer = say(text);
        let fine = answer.is_empty() || answer.contains("allowances");
        assert!(fine, "{answer}");
    }
    assert_eq!(shop.operator(&["account", &owner.address()]).0, 0, "and others are heard as before");
    assert_eq!(shop.operator(&["allowance", "list"]).1, json!({ "allowances": [] }), "nothing was granted");
    shop.close(&[(&owner, 0)]);
}

#[test]
fn a_gateway_that_does_not_answer_is_no_reason_to_open_its_books() {
    let (mut shop, owner) = (Shop::open(), Owner::new(1));
    shop.server.kill();
    let socket = shop.server.data_dir().join("operator.sock");
    fs::remove_file(&socket).unwrap();
    // Takes the command and ends without a word.
    let listener = UnixListener::bind(&socket).unwrap();
    let deaf = thread::spawn(move || drop(BufReader::new(listener.accept().unwrap().0).read_line(&mut String::new())));
    let (code, printed, said) = shop.operator(&["keys", "mint", "--account", &owner.address(), "--name", "k"]);
    deaf.join().unwrap();
    assert_eq!((code, printed), (1, Value::Null));
    assert!(said.contains("look what came of it"), "{said}");
    shop.server.restart();
    assert_eq!(shop.listed(&owner), [], "it was not minted behind its back");
    shop.close(&[(&owner, 0)]);
}

#[test]
fn keys_are_checked_with_the_books() {
    let (mut shop, owner) = (Shop::open(), Owner::new(1));
    let key = shop.mint_by_hand(&owner);
    shop.server.signal();
    shop.server.wait_exit();
    assert!(shop.server.verify(&[]).clean);
    let (pepper, aside) = (shop.server.data_dir().join("keys.pepper"), shop.server.data_dir().join("aside"));
    // Without the pepper no key would be known any more; made anew it would be another one, silently.
    fs::rename(&pepper, &aside).unwrap();
    let books = shop.server.verify(&[]);
    assert!(!books.clean && books.json["problems"].to_string().contains("keys.pepper"), "{:#}", books.json);
    let (code, _, said) = run(shop.server.command(&["serve"]), "");
    assert!(code == 78 && said.contains("keys.pepper"), "{code} {said}");
    assert!(!pepper.exists(), "none was made in its place");
    fs::rename(&aside, &pepper).unwrap();
    // What stands in the index and not in the journal is nobody's word.
    fs::write(shop.server.data_dir().join("keys/db"), vec![0; 64_000]).unwrap();
    let books = shop.server.verify(&[]);
    assert!(!books.clean && books.json["ok"] == false, "{:#}", books.json);
    shop.server.restart();
    assert_eq!(shop.knocks(&key).0, 200, "the next start mends it");
    shop.close(&[(&owner, 0)]);
}
