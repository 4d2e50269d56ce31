//! The index of keys fails under a gateway that sells: nobody is told anything on its word, the program ends, and the next start is whole.

use serde_json::json;

use crate::owner::{CHARGE, DOLLAR, MODEL, Owner, Shop};

/// What the program ends with when something has failed that its next start mends.
const FAIL_STOP: i32 = 70;

#[test]
fn an_index_of_keys_that_fails_ends_the_gateway_and_the_next_start_has_every_change() {
    for what in ["mint", "revoke", "rotate"] {
        let (mut shop, owner) = (Shop::open(), Owner::new(1));
        shop.top_up(&owner, DOLLAR);
        let (_, key) = shop.mint(&owner, &json!({ "name": "kept" }));
        let (doomed, other) = shop.mint(&owner, &json!({ "name": "doomed" }));
        // A start that has nothing to write does not come by: it fails at the first change.
        shop.server.restart_armed("keys.sync:1");
        assert_eq!(shop.call(&key, MODEL).status, 200, "{what}: until then it sells");
        let session = shop.session(&owner);
        let change = |path: &str, body| shop.ask("POST", path, &session, Some(&body));
        let answer = match what {
            "mint" => change("/api/keys", json!({ "name": "new" })),
            "revoke" => change(&format!("/api/keys/{doomed}/revoke"), json!({})),
            _ => change(&format!("/api/keys/{doomed}/rotate"), json!({})),
        };
        assert_eq!((answer.status, answer.code().as_str()), (503, "ledger_unavailable"), "{what}: {}", answer.text());
        assert!(!answer.text().contains("sk-x402-"), "{what}: no secret is shown that nobody can vouch for");
        assert_eq!(shop.server.wait_code(), Some(FAIL_STOP), "{what}: {}", shop.server.output());
        assert!(shop.server.output().contains("the index of keys has failed"), "{what}");
        // The journal had the change before the index failed.
        shop.server.restart();
        let mut states: Vec<_> = shop.listed(&owner).into_iter().map(|(_, state, _)| state).collect();
        states.sort();
        match what {
            "mint" => assert_eq!(states, ["active", "active", "active"], "a key that nobody knows, for its owner to revoke"),
            "revoke" => assert_eq!(states, ["active", "revoked"]),
            _ => assert_eq!(states, ["active", "active"]),
        }
        assert_eq!((shop.knocks(&key).0, shop.knocks(&other).0), (200, if what == "mint" { 200 } else { 401 }), "{what}");
        assert_eq!(shop.call(&key, MODEL).status, 200, "{what}");
        shop.wait_settled(&owner);
        assert_eq!(shop.upstream.calls().len(), 2, "{what}");
        shop.close(&[(&owner, DOLLAR - 2 * u64::try_from(CHARGE).unwrap())]);
    }
}
