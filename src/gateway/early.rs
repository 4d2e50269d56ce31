//! Sign-ins from the future: when nobody's is on time, it is this machine's clock that is behind, and its operator must hear it.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Timestamp;
use crate::x402::sign_in::fault::FUTURE_TIMESTAMP;

/// So many in a row, without one that was taken between them, are no slip of a single wallet's clock.
const MANY: u32 = 10;
/// How long nothing more is said of it.
const QUIET: Duration = Duration::from_secs(60 * 60);

/// How many sign-ins came too early, one after the other.
#[derive(Default)]
pub(super) struct Early {
    in_a_row: AtomicU32,
    /// In milliseconds; 0 before the first warning.
    warned_at: AtomicU64,
}

impl Early {
    /// Notes what became of a sign-in: the code of its refusal, or none. `now` must not jump. Warns now and then.
    pub fn note(&self, refused: Option<&'static str>, now: Timestamp) {
        if self.is_telling(refused, now) {
            tracing::warn!(
                "many sign-ins were signed in the future, as this machine's clock has it: it is probably behind, so set it \
                 (timedatectl says whether it is synchronised)"
            );
        }
    }

    fn is_telling(&self, refused: Option<&'static str>, now: Timestamp) -> bool {
        match refused {
            None => self.in_a_row.store(0, Ordering::Relaxed),
            // What is wrong otherwise says nothing about clocks.
            Some(code) if code != FUTURE_TIMESTAMP => {}
            Some(_) if self.in_a_row.fetch_add(1, Ordering::Relaxed).saturating_add(1) >= MANY => {
                self.in_a_row.store(0, Ordering::Relaxed);
                let (now, last) = (now.millis(), self.warned_at.load(Ordering::Relaxed));
                let again = last == 0 || now.saturating_sub(last) >= Timestamp::default().plus(QUIET).millis();
                // Of two that come at once one warns.
                return again && self.warned_at.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok();
            }
            Some(_) => {}
        }
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_operator_hears_once_an_hour_of_a_clock_that_is_behind_and_never_of_one_wallets() {
        let (early, mut now) = (Early::default(), Timestamp::from_secs(1_700_000_000));
        let told = |times: u32, code, now| (0..times).filter(|_| early.is_telling(code, now)).count();
        assert_eq!(told(MANY - 1, Some(FUTURE_TIMESTAMP), now), 0);
        assert_eq!(told(1, None, now), 0, "one that is on time begins the count anew");
        assert_eq!(told(MANY - 1, Some(FUTURE_TIMESTAMP), now), 0);
        assert_eq!(told(100, Some("X402_SIGN_IN_EXPIRED"), now), 0);
        assert_eq!(told(1, Some(FUTURE_TIMESTAMP), now), 1);
        assert_eq!(told(1000, Some(FUTURE_TIMESTAMP), now), 0, "once");
        now = now.plus(QUIET);
        assert_eq!(told(1000, Some(FUTURE_TIMESTAMP), now), 1, "and an hour later again");
    }
}
