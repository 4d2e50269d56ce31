//! Random lives of keys: after every step they are what a simple model says, whichever copy of the files a start finds.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use farebox::account::AccountId;
use farebox::clock::Timestamp;
use farebox::ids::KeyId;
use farebox::keys::{FOLDER, Record};
use proptest::prelude::*;

use crate::damage::copy_tree;
use crate::desk::{Desk, NOW};

#[derive(Clone, Debug)]
enum Step {
    Mint {
        account: u8,
    },
    Rename {
        key: usize,
    },
    Rotate {
        key: usize,
        until: Option<u64>,
    },
    Revoke {
        key: usize,
    },
    /// Stops and starts.
    Reopen,
    /// Stops, keeps a copy of the index as it is now, and starts.
    Copy,
    /// Stops, puts a copy of that time back, and starts: the journal is ahead of it.
    Restore {
        copy: usize,
    },
    Delete,
    Spoil {
        at: u64,
    },
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        6 => (0u8..3).prop_map(|account| Step::Mint { account }),
        4 => any::<usize>().prop_map(|key| Step::Rename { key }),
        4 => (any::<usize>(), proptest::option::of(0..3u64)).prop_map(|(key, until)| Step::Rotate { key, until }),
        3 => any::<usize>().prop_map(|key| Step::Revoke { key }),
        1 => Just(Step::Reopen),
        1 => Just(Step::Copy),
        2 => any::<usize>().prop_map(|copy| Step::Restore { copy }),
        1 => Just(Step::Delete),
        1 => any::<u64>().prop_map(|at| Step::Spoil { at }),
    ];
    prop::collection::vec(step, 1..40)
}

/// What must be true: a map of records, and every secret that was ever shown.
#[derive(Default)]
struct Model {
    records: BTreeMap<KeyId, Record>,
    shown: Vec<(String, KeyId)>,
    copies: usize,
}

impl Model {
    fn pick(&self, key: usize) -> Option<KeyId> {
        let ids: Vec<_> = self.records.keys().copied().collect();
        (!ids.is_empty()).then(|| ids[key % ids.len()])
    }

    fn take(&mut self, desk: Desk, step: &Step) -> Desk {
        let fresh = self.shown.len() as u64;
        match *step {
            Step::Mint { account } => {
                let (id, text) = desk.mint(AccountId::Evm([account; 20]), fresh);
                self.shown.push((text, id));
                self.note(&desk, id);
            }
            Step::Rename { key } => {
                if let Some(id) = self.pick(key) {
                    desk.change(id, |record| record.name.push('+'));
                    self.note(&desk, id);
                }
            }
            Step::Rotate { key, until } => {
                if let Some(id) = self.pick(key) {
                    let text = desk.rotate(id, fresh, until.map(|later| Timestamp::from_secs(NOW.secs() + later)));
                    self.shown.push((text, id));
                    self.note(&desk, id);
                }
            }
            Step::Revoke { key } => {
                if let Some(id) = self.pick(key) {
                    desk.revoke(id);
                    self.note(&desk, id);
                }
            }
            Step::Reopen => return desk.reopen(|_| {}),
            Step::Copy => {
                self.copies += 1;
                return desk.reopen(|folder| copy_tree(&folder.join(FOLDER), &kept(folder, self.copies - 1)));
            }
            Step::Restore { copy } => {
                let Some(copy) = copy.checked_rem(self.copies) else { return desk };
                return desk.reopen(|folder| {
                    fs::remove_dir_all(folder.join(FOLDER)).unwrap();
                    copy_tree(&kept(folder, copy), &folder.join(FOLDER));
                });
            }
            Step::Delete => return desk.reopen(|folder| fs::remove_dir_all(folder.join(FOLDER)).unwrap()),
            Step::Spoil { at } => return desk.reopen(|folder| spoil(&folder.join(FOLDER).join("db"), at)),
        }
        desk
    }

    /// Takes over what a change has made of a record, which the journal has as its last event.
    fn note(&mut self, desk: &Desk, id: KeyId) {
        let (_, bytes) = crate::desk::journal(&desk.folder).pop().unwrap();
        self.records.insert(id, Record::from_bytes(&bytes).unwrap());
    }

    fn agrees(&self, desk: &Desk) -> Result<(), TestCaseError> {
        for (text, id) in &self.shown {
            let record = &self.records[id];
            let current = text.ends_with(&record.seal.last4);
            let previous = record.previous.as_ref().is_some_and(|previous| text.ends_with(&previous.seal.last4));
            let found = desk.keys.find(text).unwrap();
            let expected = (current || previous).then_some(record);
            prop_assert_eq!(found.as_ref().map(|key| &key.record), expected, "{}", id);
            if let Some(key) = found {
                let over = previous && record.previous.as_ref().is_some_and(|previous| previous.until <= NOW);
                prop_assert_eq!(key.ended(NOW).is_some(), record.revoked_at.is_some() || over);
            }
        }
        for account in (0..3).map(|account| AccountId::Evm([account; 20])) {
            let mut expected: Vec<_> = self.records.values().filter(|record| record.account == account).cloned().collect();
            expected.sort_by_key(|record| std::cmp::Reverse((record.created_at, record.id)));
            prop_assert_eq!(desk.keys.of(account).unwrap(), expected);
        }
        Ok(())
    }
}

fn kept(folder: &Path, copy: usize) -> std::path::PathBuf {
    folder.join(format!("copy-{copy}"))
}

fn spoil(file: &Path, at: u64) {
    let mut bytes = fs::read(file).unwrap();
    let length = bytes.len().max(1) as u64;
    let at = usize::try_from(at % length).unwrap();
    bytes.iter_mut().skip(at).take(64).for_each(|byte| *byte ^= 0x5a);
    fs::write(file, bytes).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, failure_persistence: None, ..ProptestConfig::default() })]
    #[test]
    fn keys_are_what_a_simple_model_says_after_every_step(steps in steps()) {
        let folder = tempfile::tempdir().unwrap();
        let mut desk = Desk::open(folder.path());
        let mut model = Model::default();
        for step in &steps {
            desk = model.take(desk, step);
            model.agrees(&desk)?;
        }
        let desk = desk.reopen(|_| {});
        model.agrees(&desk)?;
    }
}
