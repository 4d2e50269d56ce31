//! One promise per test: who is found, who is told, and what a change cannot do.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use farebox::account::AccountId;
use farebox::clock::Timestamp;
use farebox::ids::KeyId;
use farebox::keys::{Broken, Ended, Key, Keys, Record};
use farebox::money::Micros;

use crate::desk::{ALICE, Desk, NOW, random};

const BOB: AccountId = AccountId::Solana([0xb0; 32]);

fn desk() -> (tempfile::TempDir, Desk) {
    let folder = tempfile::tempdir().unwrap();
    let desk = Desk::open(folder.path());
    (folder, desk)
}

fn find(keys: &Keys, text: &str) -> Option<Arc<Key>> {
    keys.find(text).unwrap()
}

/// Whether the holder of a key has been told by now that it has ended.
fn is_told(key: &Key) -> bool {
    use std::future::Future as _;
    let mut context = std::task::Context::from_waker(std::task::Waker::noop());
    std::pin::pin!(key.until_revoked()).poll(&mut context).is_ready()
}

#[test]
fn a_minted_key_is_found_and_nothing_that_resembles_it() {
    let (_folder, desk) = desk();
    let (id, text) = desk.mint(ALICE, 1);
    let key = find(&desk.keys, &text).expect("it was just minted");
    assert_eq!((key.record.id, key.record.account), (id, ALICE));
    assert_eq!(key.record.seal.last4, text[text.len() - 4..]);
    assert_eq!(key.ended(NOW), None);
    assert!(!is_told(&key));

    assert_eq!(text.len(), 51);
    let other = if text.ends_with('A') { "B" } else { "A" };
    let tail = &text["sk-x402-".len()..];
    for wrong in [
        String::new(),
        "sk-x402-".into(),
        format!("{}{other}", &text[..50]),
        format!("{text}A"),
        format!("{text} "),
        format!(" {text}"),
        format!("{text}\n"),
        text[..50].to_owned(),
        text.to_uppercase(),
        text.replace("sk-x402-", "sk-x403-"),
        format!("sk-x402-{}", "=".repeat(43)),
        format!("sk-x402-{}", "é".repeat(21) + "a"),
        tail.to_owned(),
        "sk-x402-".to_owned() + &"A".repeat(1 << 20),
    ] {
        assert!(find(&desk.keys, &wrong).is_none(), "{wrong:.60}");
    }
    assert_eq!(find(&desk.keys, &text).expect("and nothing has hurt it").record.id, id);
}

#[test]
fn a_key_is_shown_by_reveal_and_by_nothing_else() {
    let (_folder, desk) = desk();
    let (plain, seal) = desk.keys.seal([9; 32]).unwrap();
    let shown = format!("{plain:?} {seal:?} {:?}", desk.keys);
    assert_eq!(shown, format!("PlainKey Seal(…{}) Keys", &plain.reveal()[47..]));
}

#[test]
fn a_revoked_key_is_revoked_for_everybody_at_once() {
    let (_folder, desk) = desk();
    let (id, text) = desk.mint(ALICE, 1);
    let (_, of_another) = desk.mint(ALICE, 2);
    let another = find(&desk.keys, &of_another).unwrap();
    let oldest = find(&desk.keys, &text).unwrap();
    desk.change(id, |record| record.name = "renamed".into());
    let newer = find(&desk.keys, &text).unwrap();
    assert_eq!(newer.record.name, "renamed", "a change shows at the next look-up");
    assert_eq!(oldest.ended(NOW), None, "a new name ends no call");
    assert!(!is_told(&oldest));

    desk.revoke(id);
    for held in [&oldest, &newer] {
        assert_eq!(held.ended(NOW), Some(Ended::Revoked));
        assert!(is_told(held), "a call in flight hears of it, also one that began before an earlier change");
    }
    let found = find(&desk.keys, &text).expect("a revoked key is known as such");
    assert_eq!(found.ended(NOW), Some(Ended::Revoked));
    assert!(find(&desk.keys, &of_another).is_some_and(|key| key.ended(NOW).is_none()), "nobody else's key is touched");
    assert!(!is_told(&another));
}

#[test]
fn whoever_waits_for_the_end_of_a_key_is_woken_by_it() {
    let (_folder, desk) = desk();
    let (id, text) = desk.mint(ALICE, 1);
    let key = find(&desk.keys, &text).unwrap();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().build().unwrap();
    thread::scope(|scope| {
        let patient = async { tokio::time::timeout(Duration::from_secs(60), key.until_revoked()).await };
        let waiting = scope.spawn(|| runtime.block_on(patient));
        desk.revoke(id);
        assert!(waiting.join().unwrap().is_ok());
    });
}

#[test]
fn a_rotated_key_has_two_secrets_for_the_time_that_was_chosen() {
    let (_folder, desk) = desk();
    let (id, first) = desk.mint(ALICE, 1);
    let held = find(&desk.keys, &first).unwrap();
    let until = NOW.plus(Duration::from_secs(60));
    let second = desk.rotate(id, 2, Some(until));
    let early = Timestamp::from_millis(until.millis() - 1);
    let old = find(&desk.keys, &first).expect("it was given a minute");
    assert_eq!((old.record.id, old.ended(early)), (id, None));
    assert_eq!(old.ended(until), Some(Ended::Replaced));
    assert!(!is_told(&held), "a call that runs goes on");
    let new = find(&desk.keys, &second).unwrap();
    assert_eq!((new.record.id, new.ended(until)), (id, None), "the new secret does not end with the old one");

    let third = desk.rotate(id, 3, None);
    assert!(find(&desk.keys, &second).is_none(), "no time was given to the second");
    assert!(find(&desk.keys, &first).is_none(), "nor more to the first");
    assert_eq!(new.ended(NOW), Some(Ended::Replaced));
    assert!(is_told(&new) && is_told(&held), "a secret that was dropped ends what runs with it");
    assert_eq!(find(&desk.keys, &third).unwrap().ended(NOW), None);

    desk.revoke(id);
    assert_eq!(find(&desk.keys, &third).unwrap().ended(NOW), Some(Ended::Revoked));
    assert!(find(&desk.keys, &first).is_none());
}

#[test]
fn revoking_a_key_ends_both_of_its_secrets() {
    let (_folder, desk) = desk();
    let (id, first) = desk.mint(ALICE, 1);
    let second = desk.rotate(id, 2, Some(NOW.plus(Duration::from_secs(60))));
    let held = [find(&desk.keys, &first).unwrap(), find(&desk.keys, &second).unwrap()];
    desk.revoke(id);
    for (key, text) in held.iter().zip([first, second]) {
        assert!(is_told(key));
        assert_eq!(find(&desk.keys, &text).unwrap().ended(NOW), Some(Ended::Revoked));
    }
}

#[test]
fn a_key_expires_at_its_instant() {
    let (_folder, desk) = desk();
    let (id, text) = desk.mint(ALICE, 1);
    desk.change(id, |record| record.expires_at = Some(NOW));
    let key = find(&desk.keys, &text).unwrap();
    assert_eq!(key.ended(Timestamp::from_millis(NOW.millis() - 1)), None);
    assert_eq!(key.ended(NOW), Some(Ended::Expired));
    desk.change(id, |record| record.expires_at = None);
    assert_eq!(find(&desk.keys, &text).unwrap().ended(NOW), None, "it was given more time");
}

#[test]
fn a_wallet_sees_its_own_keys_newest_first_also_those_it_revoked() {
    let (_folder, desk) = desk();
    // Minted out of order: what counts is when they were made.
    let ids: Vec<_> = [300, 1, 256, 2].iter().map(|number| desk.mint(ALICE, *number).0).collect();
    let (of_bob, _) = desk.mint(BOB, 4);
    desk.revoke(ids[2]);
    let listed: Vec<_> = desk.keys.of(ALICE).unwrap();
    assert_eq!(listed.iter().map(|record| record.id).collect::<Vec<_>>(), [ids[0], ids[2], ids[3], ids[1]]);
    assert_eq!(listed.iter().filter(|record| record.revoked_at.is_some()).count(), 1);
    assert_eq!(desk.keys.of(BOB).unwrap().iter().map(|record| record.id).collect::<Vec<_>>(), [of_bob]);
    assert!(desk.keys.of(AccountId::Evm([0; 20])).unwrap().is_empty());
}

#[test]
fn a_change_that_the_journal_refuses_changes_nothing() {
    let (_folder, desk) = desk();
    let (id, text) = desk.mint(ALICE, 1);
    let held = find(&desk.keys, &text).unwrap();
    let before = (desk.keys.get(id).unwrap(), desk.keys.applied());
    #[derive(Debug, PartialEq)]
    struct Full;
    impl From<Broken> for Full {
        fn from(broken: Broken) -> Full {
            panic!("{broken}")
        }
    }
    assert_eq!(desk.keys.change(|| Err(Full)).unwrap_err(), Full);
    assert_eq!((desk.keys.get(id).unwrap(), desk.keys.applied()), before);
    assert!(!is_told(&held));
    assert!(desk.keys.failure().borrow().is_none());
}

#[test]
fn randomness_that_repeats_itself_mints_no_key() {
    let (_folder, desk) = desk();
    let (id, text) = desk.mint(ALICE, 1);
    desk.keys.seal(random(1)).expect_err("the key would speak for two wallets");
    assert_eq!(find(&desk.keys, &text).unwrap().record.id, id);
    assert!(desk.keys.failure().borrow().is_none(), "and nothing else is wrong");
}

#[test]
fn a_change_that_goes_back_in_the_journal_stops_the_keys() {
    let (_folder, desk) = desk();
    let (id, text) = desk.mint(ALICE, 1);
    let record = desk.keys.get(id).unwrap().unwrap();
    let applied = desk.keys.applied();
    let refused: Result<_, Broken> = desk.keys.change(|| Ok((applied, record)));
    refused.unwrap_err();
    assert!(desk.keys.find(&text).is_err(), "nothing is answered from an index that nobody can explain");
    assert!(desk.keys.failure().borrow().is_some(), "and the program is told to end");
}

#[test]
fn changes_made_at_once_lose_nothing_of_each_other() {
    let (_folder, desk) = desk();
    let (id, text) = desk.mint(ALICE, 1);
    let (keys, seq) = (&desk.keys, &AtomicU64::new(desk.keys.applied()));
    thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(move || {
                for _ in 0..25 {
                    let changed: Result<_, Broken> = keys.change(|| {
                        let mut record = keys.get(id)?.unwrap();
                        record.limit = record.limit.unwrap_or_default().checked_add(Micros::new(1));
                        Ok((1 + seq.fetch_add(1, Ordering::SeqCst), record))
                    });
                    changed.unwrap();
                }
            });
        }
    });
    assert_eq!(find(keys, &text).unwrap().record.limit, Some(Micros::new(200)));
}

#[test]
fn nobody_who_looks_while_a_key_is_revoked_keeps_it_unknowingly() {
    let (_folder, desk) = desk();
    let minted: Vec<_> = (0..100).map(|number| desk.mint(ALICE, number)).collect();
    for (id, text) in &minted {
        let (keys, revoked) = (&desk.keys, &AtomicBool::new(false));
        thread::scope(|scope| {
            let look = || {
                let mut held = Vec::new();
                loop {
                    // Read first: what is found after it must say so.
                    let late = revoked.load(Ordering::SeqCst);
                    let key = find(keys, text).unwrap();
                    assert!(!late || key.ended(NOW) == Some(Ended::Revoked), "found alive after it was revoked");
                    held.push(key);
                    if late {
                        return held;
                    }
                }
            };
            let lookers = [scope.spawn(look), scope.spawn(look)];
            desk.revoke(*id);
            revoked.store(true, Ordering::SeqCst);
            for looker in lookers {
                for key in looker.join().unwrap() {
                    assert_eq!(key.ended(NOW), Some(Ended::Revoked), "whoever got it before was told");
                }
            }
        });
    }
}

#[test]
fn a_key_that_is_rotated_while_it_is_looked_up_is_the_old_one_or_the_new_one_and_stops_nobody() {
    let (_folder, desk) = desk();
    let (id, first) = desk.mint(ALICE, 1);
    let (keys, current, over) = (&desk.keys, &Mutex::new(first), &AtomicBool::new(false));
    thread::scope(|scope| {
        let look = || {
            while !over.load(Ordering::SeqCst) {
                let text = current.lock().unwrap().clone();
                if let Some(key) = find(keys, &text) {
                    assert_eq!(key.record.id, id);
                }
            }
        };
        let lookers = [scope.spawn(look), scope.spawn(look), scope.spawn(look)];
        let last = u64::try_from(desk.events()).unwrap();
        for number in 1..=1_500 {
            let (plain, seal) = keys.seal(random(1_000 + number)).unwrap();
            let record = Record { seal, previous: None, ..keys.get(id).unwrap().unwrap() };
            keys.change(|| Ok::<_, Broken>((last + number, record))).unwrap();
            *current.lock().unwrap() = plain.reveal().to_owned();
        }
        over.store(true, Ordering::SeqCst);
        for looker in lookers {
            looker.join().unwrap();
        }
    });
    assert!(find(keys, &current.lock().unwrap()).unwrap().ended(NOW).is_none(), "the last secret is good");
}

#[test]
fn a_shop_with_more_keys_than_fit_in_memory_still_tells_everybody() {
    let (_folder, desk) = desk();
    let (id, first) = desk.mint(ALICE, 1_000_000);
    let record = desk.keys.get(id).unwrap().unwrap();
    // In the journal only, without the disk of each change.
    let mint = |number: u64| {
        let (plain, seal) = desk.keys.seal(random(number)).unwrap();
        desk.note(&Record { id: KeyId(number.into()), seal, ..record.clone() });
        plain.reveal().to_owned()
    };
    let texts: Vec<_> = (0..13_000).map(mint).collect();
    let desk = desk.reopen(|_| {});
    assert_eq!((desk.opened.keys, desk.opened.caught_up), (13_001, 13_000));
    let held = [&first, &texts[0], &texts[12_999]].map(|text| find(&desk.keys, text).unwrap());
    for _ in 0..2 {
        assert!(texts.iter().all(|text| find(&desk.keys, text).is_some_and(|key| key.ended(NOW).is_none())));
    }
    for key in held {
        desk.revoke(key.record.id);
        assert!(is_told(&key), "{key:?} was forgotten, and found again for others, meanwhile");
    }
}
