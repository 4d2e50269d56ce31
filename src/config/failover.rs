//! What the operator says about upstreams that fail: when one is taken for down, and for how long it is then not asked.

use std::time::Duration;

use super::{ConfigError, bad, file};

/// When an upstream is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Failover {
    /// So many calls in a row that did not reach it, or that failed at one model; 0 for never.
    pub failures: u32,
    /// How long it is not asked, at first. Each attempt afterwards that fails doubles it.
    pub pause: Duration,
    /// Up to this, which is also the longest that a time is heeded which the upstream names itself.
    pub longest_pause: Duration,
}

impl Default for Failover {
    fn default() -> Self {
        let row = file::Failover::default();
        let (pause, longest_pause) = (Duration::from_millis(row.pause_ms), Duration::from_millis(row.longest_pause_ms));
        Failover { failures: row.failures, pause, longest_pause }
    }
}

pub(super) fn failover(row: &file::Failover) -> Result<Failover, ConfigError> {
    let (pause, longest_pause) = (Duration::from_millis(row.pause_ms), Duration::from_millis(row.longest_pause_ms));
    if row.pause_ms == 0 {
        return Err(bad("failover.pause_ms", "at least 1; failures = 0 never pauses an upstream"));
    }
    if !(row.pause_ms..=3_600_000).contains(&row.longest_pause_ms) {
        return Err(bad("failover.longest_pause_ms", "between pause_ms and 3600000"));
    }
    Ok(Failover { failures: row.failures, pause, longest_pause })
}
