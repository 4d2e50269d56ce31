//! Bytes that are written from front to back. Where they are many they lie in pages of their own, which the system has back the
//! moment they are gone; freed among small things, large ones leave holes that no later one fits in.

use bytes::{BufMut as _, Bytes, BytesMut};
use memmap2::{MmapMut, MmapOptions};

/// From here on bytes get pages of their own. No more than what common allocators take from the system one by one at first:
/// they stop doing so as soon as a larger one is freed, and keep that much for ever.
const LARGE: usize = 128 * 1024;

/// Bytes that are being written.
#[derive(Debug)]
pub struct Buffer(Room);

#[derive(Debug)]
enum Room {
    Small(BytesMut),
    /// How many bytes are written, and the pages, which are taken as they are written to.
    Large(usize, MmapMut),
}

impl Buffer {
    /// Room for so many bytes, and more if it must be. Of a large room only what is written to takes memory.
    pub fn with_capacity(bytes: usize) -> Buffer {
        Buffer(Room::of(bytes))
    }

    /// Bytes that were written.
    pub fn len(&self) -> usize {
        self.written().len()
    }

    /// Whether nothing was written yet.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Writes one byte.
    pub fn put_u8(&mut self, byte: u8) {
        self.put_slice(&[byte]);
    }

    /// Writes all of `bytes`.
    pub fn put_slice(&mut self, bytes: &[u8]) {
        if self.capacity() - self.len() < bytes.len() {
            // Twice as much, so that what grows and grows is seldom moved.
            let mut wider = Room::of((self.len() + bytes.len()).max(2 * self.capacity()));
            wider.put(self.written());
            self.0 = wider;
        }
        self.0.put(bytes);
    }

    /// What was written, to be shared from now on.
    pub fn freeze(self) -> Bytes {
        match self.0 {
            Room::Small(bytes) => bytes.freeze(),
            Room::Large(length, pages) => Bytes::from_owner(Pages { length, pages }),
        }
    }

    fn written(&self) -> &[u8] {
        match &self.0 {
            Room::Small(bytes) => bytes,
            Room::Large(length, pages) => &pages[..*length],
        }
    }

    fn capacity(&self) -> usize {
        match &self.0 {
            Room::Small(bytes) => bytes.capacity(),
            Room::Large(_, pages) => pages.len(),
        }
    }
}

impl Room {
    fn of(bytes: usize) -> Room {
        if bytes < LARGE {
            return Room::Small(BytesMut::with_capacity(bytes));
        }
        // A system that gives no pages that are not needed yet has memory for what is written.
        MmapOptions::new().len(bytes).map_anon().map_or_else(|_| Room::Small(BytesMut::new()), |pages| Room::Large(0, pages))
    }

    /// Writes where there is room.
    fn put(&mut self, bytes: &[u8]) {
        match self {
            Room::Small(room) => room.put_slice(bytes),
            Room::Large(length, pages) => {
                let end = *length + bytes.len();
                pages[*length..end].copy_from_slice(bytes);
                *length = end;
            }
        }
    }
}

/// What was written on pages of its own.
struct Pages {
    length: usize,
    pages: MmapMut,
}

impl AsRef<[u8]> for Pages {
    fn as_ref(&self) -> &[u8] {
        &self.pages[..self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_what_is_read_however_much_room_was_asked_for() {
        let text: Vec<u8> = (0..5 * LARGE).map(|n| (n % 251) as u8).collect();
        for room in [0, 1, LARGE - 1, LARGE, text.len() - 1, text.len(), text.len() + 1] {
            for step in [1_000, LARGE, text.len()] {
                let mut buffer = Buffer::with_capacity(room);
                assert!(buffer.is_empty());
                for piece in text.chunks(step) {
                    buffer.put_slice(piece);
                }
                buffer.put_u8(7);
                assert_eq!(buffer.len(), text.len() + 1);
                let bytes = buffer.freeze();
                assert!(bytes[..text.len()] == text && bytes.last() == Some(&7), "room {room}, step {step}");
            }
        }
    }

    #[test]
    fn a_part_of_it_lives_as_long_as_it_is_needed() {
        let mut buffer = Buffer::with_capacity(LARGE);
        buffer.put_slice(&vec![3; LARGE]);
        let part = buffer.freeze().slice(LARGE - 4..);
        assert_eq!(&part[..], [3; 4]);
    }
}
