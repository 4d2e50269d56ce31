//! To be written: the other deaths.
pub const POINTS: [&str; 0] = [];
