//! What the journal says about every key: its last record, up to some event.

use std::collections::HashMap;

use super::Broken;
use super::record::{Fingerprint, Record};
use crate::ids::KeyId;

/// The keys as the journal has them.
pub(super) struct History {
    /// The last record of each key, and the event it came with.
    pub records: HashMap<KeyId, (u64, Record)>,
    /// The last event; 0 for none.
    pub last: u64,
}

impl History {
    /// Reads the journal from its first event to the one with the number `until`.
    pub fn read<B: AsRef<[u8]>>(journal: &[(u64, B)], until: u64) -> Result<History, Broken> {
        let mut history = History { records: HashMap::new(), last: 0 };
        for (seq, bytes) in journal.iter().take_while(|(seq, _)| *seq <= until) {
            if *seq <= history.last {
                return Err(Broken::examine("journal", format!("event {seq} of keys comes after event {}", history.last)));
            }
            let record = Record::from_bytes(bytes.as_ref());
            let record = record.map_err(|error| Broken::examine("journal", format!("event {seq} of keys: {error}")))?;
            history.last = *seq;
            history.records.insert(record.id, (*seq, record));
        }
        history.one_key_for_each_secret()?;
        Ok(history)
    }

    fn one_key_for_each_secret(&self) -> Result<(), Broken> {
        let mut keys = HashMap::new();
        for (_, record) in self.records.values() {
            for seal in record.seals() {
                if let Some(other) = keys.insert(seal.mac, record.id) {
                    let cause = format!("{other} and {} have the same secret; revoke both", record.id);
                    return Err(Broken::examine("journal", cause));
                }
            }
        }
        Ok(())
    }

    /// Keys that somebody may still use. Nobody asks whether their time is over: it is enough that nobody revoked them.
    pub fn live(&self) -> usize {
        self.all_live().count()
    }

    /// Live keys that a pepper with this fingerprint would not find.
    pub fn live_under_another_pepper(&self, fingerprint: Fingerprint) -> usize {
        self.all_live().filter(|record| record.seal.pepper != fingerprint).count()
    }

    pub fn all_live(&self) -> impl Iterator<Item = &Record> {
        self.records.values().map(|(_, record)| record).filter(|record| record.revoked_at.is_none())
    }
}
