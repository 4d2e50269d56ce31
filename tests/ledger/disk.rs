//! A disk in memory that loses power: of what was not synced any part may survive, torn into sectors, in any order.

use std::io;
use std::ops::Range;
use std::sync::{Arc, Mutex};

use redb::StorageBackend;

const SECTOR: usize = 512;
const PAGE: usize = 4096;

/// The bytes of a disk. Copies share the pages that they have in common, so that ten thousand disks are cheap.
#[derive(Clone, Debug, Default)]
struct Bytes {
    pages: Vec<Option<Arc<[u8; PAGE]>>>,
    len: usize,
}

impl Bytes {
    fn set_len(&mut self, len: usize) {
        if let Some(Some(last)) = self.pages.get_mut(len / PAGE).filter(|_| len < self.len) {
            Arc::make_mut(last)[len % PAGE..].fill(0);
        }
        self.pages.resize(len.div_ceil(PAGE), None);
        self.len = len;
    }

    fn write(&mut self, offset: usize, data: &[u8]) {
        self.set_len(self.len.max(offset + data.len()));
        each_page(offset, data.len(), |page, inside, done| {
            let page = self.pages[page].get_or_insert_with(|| Arc::new([0; PAGE]));
            Arc::make_mut(page)[inside.clone()].copy_from_slice(&data[done..done + inside.len()]);
        });
    }

    fn read(&self, offset: usize, out: &mut [u8]) -> io::Result<()> {
        if offset + out.len() > self.len {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        each_page(offset, out.len(), |page, inside, done| {
            let part = &mut out[done..done + inside.len()];
            match &self.pages[page] {
                Some(page) => part.copy_from_slice(&page[inside]),
                None => part.fill(0),
            }
        });
        Ok(())
    }
}

/// Visits the pages under some bytes: the page, the place inside it, and how many bytes came before.
fn each_page(offset: usize, len: usize, mut visit: impl FnMut(usize, Range<usize>, usize)) {
    let mut done = 0;
    while done < len {
        let start = (offset + done) % PAGE;
        let end = PAGE.min(start + len - done);
        visit((offset + done) / PAGE, start..end, done);
        done += end - start;
    }
}

/// A small generator with a printed seed, so that every failure can be run again.
#[derive(Clone)]
pub struct Random(u64);

impl Random {
    pub fn new(seed: u64) -> Self {
        Random(seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1)
    }

    fn number(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    pub fn below(&mut self, bound: u64) -> u64 {
        self.number() % bound
    }
}

/// What goes wrong, and when. Operations are counted from 1: reads, writes, changes of length and syncs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Trouble {
    None,
    /// After this many operations nothing works any more.
    PowerCut(u64),
    Fault(Fault),
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fault {
    /// The operation that fails; of the syncs only, if `sync_only`.
    pub nth: u64,
    pub sync_only: bool,
    /// Whether all later ones fail as well.
    pub sticky: bool,
    pub kind: io::ErrorKind,
}

#[derive(Debug)]
struct State {
    trouble: Trouble,
    synced: Bytes,
    view: Bytes,
    unsynced: Vec<(u64, Vec<u8>)>,
    operations: u64,
    syncs: u64,
}

/// The disk; clones share it.
#[derive(Clone, Debug)]
pub struct Disk {
    state: Arc<Mutex<State>>,
}

impl Disk {
    pub fn new(trouble: Trouble) -> Self {
        Disk::holding(Bytes::default(), trouble)
    }

    /// The disk as the next start finds it when only the program had died: the same bytes, no trouble.
    pub fn reopened(&self) -> Disk {
        self.with(Trouble::None)
    }

    /// The same bytes, and this trouble.
    pub fn with(&self, trouble: Trouble) -> Disk {
        let view = self.state.lock().unwrap().view.clone();
        Disk::holding(view, trouble)
    }

    /// Nothing works from now on.
    pub fn cut(&self) {
        self.state.lock().unwrap().trouble = Trouble::PowerCut(0);
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
            bytes.write(offset as usize, sector);
        }
        // The file's length is metadata: it may have grown or not.
        if random.below(2) == 0 && bytes.len < state.view.len {
            bytes.set_len(state.view.len);
        }
        Disk::holding(bytes, Trouble::None)
    }

    fn holding(bytes: Bytes, trouble: Trouble) -> Disk {
        let (synced, view) = (bytes.clone(), bytes);
        let state = State { trouble, synced, view, unsynced: Vec::new(), operations: 0, syncs: 0 };
        Disk { state: Arc::new(Mutex::new(state)) }
    }

    pub fn operations(&self) -> u64 {
        self.state.lock().unwrap().operations
    }

    pub fn syncs(&self) -> u64 {
        self.state.lock().unwrap().syncs
    }
}

impl State {
    fn step(&mut self, sync: bool) -> io::Result<()> {
        self.operations += 1;
        self.syncs += u64::from(sync);
        match self.trouble {
            Trouble::PowerCut(after) if self.operations > after => Err(io::Error::other("no power")),
            Trouble::Fault(fault) if sync || !fault.sync_only => {
                let now = if fault.sync_only { self.syncs } else { self.operations };
                let strikes = now == fault.nth || (fault.sticky && now > fault.nth);
                if strikes { Err(fault.kind.into()) } else { Ok(()) }
            }
            Trouble::None | Trouble::PowerCut(_) | Trouble::Fault(_) => Ok(()),
        }
    }
}

impl StorageBackend for Disk {
    fn len(&self) -> io::Result<u64> {
        Ok(self.state.lock().unwrap().view.len as u64)
    }

    fn read(&self, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.step(false)?;
        state.view.read(offset as usize, out)
    }

    fn set_len(&self, len: u64) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.step(false)?;
        state.view.set_len(len as usize);
        Ok(())
    }

    fn sync_data(&self) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.step(true)?;
        state.synced = state.view.clone();
        state.unsynced.clear();
        Ok(())
    }

    fn write(&self, offset: u64, data: &[u8]) -> io::Result<()> {
        let mut state = self.state.lock().unwrap();
        state.step(false)?;
        state.view.write(offset as usize, data);
        state.unsynced.push((offset, data.to_vec()));
        Ok(())
    }
}
