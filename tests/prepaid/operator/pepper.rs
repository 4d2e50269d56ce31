//! The pepper of the keys is lost: nothing is sold under another one in silence, and there is a way on, which costs every key and no money.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use farebox_rig::process::run;
use serde_json::{Value, json};

use crate::owner::{CHARGE, DOLLAR, MODEL, Owner, Shop};

const FORGET: [&str; 2] = ["keys", "forget-all"];

type Spoil = fn(&Path);

/// How a pepper is lost, and what is said of it.
const LOST: [(&str, Spoil); 3] = [
    ("is missing", |pepper| fs::remove_file(pepper).unwrap()),
    ("is damaged", |pepper| fs::write(pepper, "farebox-pepper-1 ").unwrap()),
    ("another pepper", |pepper| fs::write(pepper, format!("farebox-pepper-1 {}\n", "A".repeat(43))).unwrap()),
];

#[test]
fn a_lost_pepper_has_a_way_on_that_ends_every_key_and_touches_no_money() {
    for (words, lose) in LOST {
        let (mut shop, owner) = (Shop::open(), Owner::new(1));
        shop.top_up(&owner, DOLLAR);
        let (_, key) = shop.mint(&owner, &json!({ "name": "first" }));
        let (gone, _) = shop.mint(&owner, &json!({ "name": "revoked before" }));
        assert_eq!(shop.operator(&["keys", "revoke", &gone]).0, 0);
        assert_eq!(shop.call(&key, MODEL).status, 200);
        // Never behind the back of a gateway that sells with it.
        let (code, _, said) = shop.operator(&[&FORGET[..], &["--yes"]].concat());
        assert!(code == 78 && said.contains("stop it first"), "{code} {said}");
        assert_eq!(shop.knocks(&key).0, 200);
        shop.server.signal();
        shop.server.wait_exit();
        let pepper = shop.server.data_dir().join("keys.pepper");
        lose(&pepper);
        for command in [&["serve"][..], &["keys", "list", "--account", &owner.address()]] {
            let (code, _, said) = run(shop.server.command(command), "");
            assert!(code == 78 && said.contains(words) && said.contains("farebox keys forget-all --yes"), "{code} {said}");
        }
        let before = fs::read(shop.server.data_dir().join("ledger.redb")).unwrap();
        let (code, _, said) = shop.operator(&FORGET);
        assert!(code == 2 && said.contains("--yes") && said.contains("every key"), "{code} {said}");
        assert!(fs::read(shop.server.data_dir().join("ledger.redb")).unwrap() == before, "without --yes nothing is opened");
        let (code, forgotten, said) = shop.operator(&[&FORGET[..], &["--yes"]].concat());
        assert_eq!((code, &forgotten["revoked"]), (0, &json!(1)), "{said}");
        assert!(!pepper.exists() && forgotten["old_pepper"].is_null() == (words == "is missing"), "{forgotten}");
        shop.server.restart();
        assert_eq!(fs::metadata(&pepper).unwrap().permissions().mode() & 0o777, 0o600, "a new one was made");
        assert_eq!(shop.knocks(&key).0, 401, "the key is no key any more");
        assert_eq!(shop.call(&key, MODEL).status, 401);
        let states: Vec<_> = shop.listed(&owner).into_iter().map(|(_, state, _)| state).collect();
        assert_eq!(states, ["revoked", "revoked"], "its owner sees why");
        let (_, fresh) = shop.mint(&owner, &json!({ "name": "second" }));
        assert_eq!(shop.call(&fresh, MODEL).status, 200, "and goes on with a new one, on the same balance");
        shop.wait_settled(&owner);
        shop.close(&[(&owner, DOLLAR - 2 * u64::try_from(CHARGE).unwrap())]);
    }
}

#[test]
fn keys_are_forgotten_once_and_where_there_are_none_nothing_happens() {
    let mut shop = Shop::open();
    shop.server.signal();
    shop.server.wait_exit();
    for _ in 0..2 {
        let (code, forgotten, said) = shop.operator(&[&FORGET[..], &["--yes"]].concat());
        assert_eq!((code, &forgotten["revoked"]), (0, &json!(0)), "{said}");
    }
    assert!(shop.server.verify(&[]).clean);
    shop.server.restart();
    assert_eq!(shop.operator(&["allowance", "list"]).1["allowances"], Value::Array(Vec::new()));
    shop.close(&[]);
}
