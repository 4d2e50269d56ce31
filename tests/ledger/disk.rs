//! A disk in memory that loses power: of what was not synced any part may survive, torn into sectors, in any order.

use std::io;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

const SECTOR: usize = 512;

/// A small generator with a printed seed, so that every failure can be run again.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    pub fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.next() % bound
    }
}

/// What goes wrong, and when.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// After this many operations nothing works any more.
    PowerCut(u64),
    /// The operation with this number fails once with this error.
    Fault(u64, io::ErrorKind),
    /// The sync with this number fails once.
    SyncFault(u64, io::ErrorKind),
}

#[derive(Debug, Default)]
struct State {
    synced: Vec<u8>,
    view: Vec<u8>,
    unsynced: Vec<(u64, Vec<u8>)>,
    operations: u64,
    syncs: u64,
}

/// The disk; clones share it.
#[derive(Clone, Debug)]
pub struct Disk {
    state: Arc<Mutex<State>>,
    trouble: Trouble,
}

impl Disk {
    pub fn new(trouble: Trouble) -> Self {
        Disk { state: Arc::default(), trouble }
    }

    /// The disk as the next start finds it: the same bytes, no trouble.
    pub fn reopened(&self) -> Disk {
        let view = self.state.lock().unwrap().view.clone();
        Disk::holding(view)
    }

    /// The disk after the power came back: what was synced, and a random part of what was not.
    pub fn after_power_cut(&self, random: &mut Random) -> Disk {
        let state = self.state.lock().unwrap();
        let mut bytes = state.synced.clone();
        let mut pieces: Vec<(u64, &[u8])> = Vec::new();
        for (offset, data) in &state.unsynced {
            for (index, sector) in data.chunks(SECTOR).enumerate() {
                pieces.push((offset + (index * SECTOR) as u64, sector));
            }
        }
        // Reordered: of two writes to one place either may be the last.
        for i in (1..pieces.len()).rev() {
            if random.below(2) == 0 {
                pieces.swap(i, random.below(i as u64 + 1) as usize);
            }
        }
        let luck = random.below(5);
        for (offset, sector) in pieces {
            if random.below(4) >= luck {
                continue;
            }
            let end = offset as usize + sector.len();
            if bytes.len() < end {
                bytes.resize(end, 0);
            }
            bytes[offset as usize..end].copy_from_slice(sector);
        }
        // The file's length is metadata: it may have grown or not.
        if random.below(2) == 0 && bytes.len() < state.view.len() {
            bytes.resize(state.view.len(), 0);
        }
        Disk::holding(bytes)
    }

    fn holding(bytes: Vec<u8>) -> Disk {
        let state = State { synced: bytes.clone(), view: bytes, ..State::default() };
        Disk { state: Arc::new(Mutex::new(state)), trouble: Trouble::None }
    }

    pub fn operations(&self) -> u64 {
        self.state.lock().unwrap().operations
    }

    fn step(&self, state: &mut State, sync: bool) -> io::Result<()> {
        state.operations += 1;
        state.syncs += u64::from(sync);
        match self.trouble {
            Trouble::PowerCut(after) if state.operations > after => Err(io::Error::other("no power")),
            Trouble::Fault(at, kind) if state.operations == at => Err(kind.into()),
            Trouble::SyncFault(at, kind) if sync && state.syncs == at => Err(kind.into()),
            _ => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().view.len() as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let state = self.state.lock().unwrap();
        let start = offset as usize;
        let bytes = state.view.get(start..start + out.len()).ok_or(io::ErrorKind::UnexpectedEof)?;
        out.copy_from_slice(bytes);
        Ok(())
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        self.step(&mut state, false)?;
        state.view.resize(len as usize, 0);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        self.step(&mut state, true)?;
        state.synced = state.view.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        self.step(&mut state, false)?;
        let (start, end) = (offset as usize, offset as usize + data.len());
        if state.view.len() < end {
            state.view.resize(end, 0);
        }
        state.view[start..end].copy_from_slice(data);
        state.unsynced.push((offset, data.to_vec()));
        Ok(())
    }
}
