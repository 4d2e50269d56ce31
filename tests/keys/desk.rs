//! A desk where keys are minted, changed and revoked, with a journal that is a file of lines, so that it survives a kill.

use std::cell::RefCell;
use std::fs::{self, OpenOptions};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use farebox::account::AccountId;
use farebox::clock::{Period, Timestamp};
use farebox::ids::KeyId;
use farebox::keys::{Broken, FOLDER, Keys, Opened, PEPPER, Previous, Record};

pub const ALICE: AccountId = AccountId::Evm([0xa1; 20]);

/// When everything happens, unless a test says otherwise.
pub const NOW: Timestamp = Timestamp::from_secs(1_763_640_000);

/// Keys in a folder of their own.
pub struct Desk {
    pub folder: PathBuf,
    pub keys: Keys,
    pub opened: Opened,
    journal: RefCell<Vec<(u64, Vec<u8>)>>,
}

/// What the journal in a folder says. A last line that a kill has cut was never acknowledged.
pub fn journal(folder: &Path) -> Vec<(u64, Vec<u8>)> {
    let text = fs::read_to_string(folder.join("journal")).unwrap_or_default();
    let whole = text.split_inclusive('\n').filter_map(|line| line.strip_suffix('\n'));
    let event = |line: &str| {
        let (seq, record) = line.split_once(' ').unwrap();
        (seq.parse().unwrap(), record.as_bytes().to_vec())
    };
    whole.map(event).collect()
}

fn keep_whole_lines(journal: &Path) {
    let Ok(bytes) = fs::read(journal) else { return };
    let whole = bytes.iter().rposition(|byte| *byte == b'\n').map_or(0, |last| last + 1);
    OpenOptions::new().write(true).open(journal).unwrap().set_len(whole as u64).unwrap();
}

/// Thirty-two bytes that are like no others. The real program draws them; a test wants the same every time.
pub fn random(number: u64) -> [u8; 32] {
    let mut bytes = [0; 32];
    let mut state = number.wrapping_add(1);
    for chunk in bytes.chunks_exact_mut(8) {
        // The steps of SplitMix64.
        state = state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mixed = (state ^ (state >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        chunk.copy_from_slice(&(mixed ^ (mixed >> 31)).to_be_bytes());
    }
    bytes
}

impl Desk {
    pub fn try_open(folder: &Path) -> Result<Desk, Broken> {
        let journal = journal(folder);
        keep_whole_lines(&folder.join("journal"));
        let (keys, opened) = Keys::open(&folder.join(FOLDER), &folder.join(PEPPER), random(77), &journal)?;
        Ok(Desk { folder: folder.to_owned(), keys, opened, journal: RefCell::new(journal) })
    }

    pub fn open(folder: &Path) -> Desk {
        Desk::try_open(folder).unwrap_or_else(|broken| panic!("{broken}"))
    }

    /// Closes the keys, lets `meanwhile` do something to their files, and opens them again.
    pub fn reopen(self, meanwhile: impl FnOnce(&Path)) -> Desk {
        let folder = self.folder.clone();
        drop(self);
        meanwhile(&folder);
        Desk::open(&folder)
    }

    pub fn events(&self) -> usize {
        self.journal.borrow().len()
    }

    /// Writes a record down, as the ledger would, and says under which number.
    pub fn note(&self, record: &Record) -> u64 {
        let mut journal = self.journal.borrow_mut();
        // With gaps: the numbers only have to grow.
        let seq = journal.last().map_or(1, |(last, _)| last + 3);
        let mut file = OpenOptions::new().create(true).append(true).open(self.folder.join("journal")).unwrap();
        let line = [seq.to_string().as_bytes(), b" ", &record.to_bytes(), b"\n"].concat();
        file.write_all(&line).unwrap();
        journal.push((seq, record.to_bytes()));
        seq
    }

    /// Mints the key number `number` of an account, which was made at that many milliseconds.
    pub fn try_mint(&self, account: AccountId, number: u64) -> Result<(KeyId, String), Broken> {
        let (plain, seal) = self.keys.seal(random(number))?;
        let record = Record {
            id: KeyId(u128::from(number) << 64 | 5),
            account,
            name: format!("agent {number}"),
            seal,
            limit: None,
            reset: Period::Ever,
            models: Vec::new(),
            expires_at: None,
            created_at: Timestamp::from_millis(number),
            revoked_at: None,
            previous: None,
        };
        let minted: Result<Record, Broken> = self.keys.change(|| Ok((self.note(&record), record)));
        Ok((minted?.id, plain.reveal().to_owned()))
    }

    pub fn mint(&self, account: AccountId, number: u64) -> (KeyId, String) {
        self.try_mint(account, number).unwrap()
    }

    pub fn try_change(&self, id: KeyId, change: impl FnOnce(&mut Record)) -> Result<Record, Broken> {
        self.keys.change(|| {
            let mut record = self.keys.get(id)?.unwrap();
            change(&mut record);
            Ok((self.note(&record), record))
        })
    }

    pub fn change(&self, id: KeyId, change: impl FnOnce(&mut Record)) -> Record {
        self.try_change(id, change).unwrap()
    }

    pub fn revoke(&self, id: KeyId) {
        self.change(id, |record| record.revoked_at = Some(NOW));
    }

    /// Gives a key a new secret; the old one lasts until then.
    pub fn rotate(&self, id: KeyId, number: u64, until: Option<Timestamp>) -> String {
        let (plain, seal) = self.keys.seal(random(number)).unwrap();
        self.change(id, |record| {
            let old = std::mem::replace(&mut record.seal, seal);
            record.previous = until.map(|until| Previous { seal: old, until });
        });
        plain.reveal().to_owned()
    }
}
