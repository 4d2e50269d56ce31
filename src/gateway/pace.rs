//! How often one wallet may call, from however many addresses it does.

use std::num::NonZeroU32;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::account::AccountId;
use crate::config::Limits;
use crate::error::{Code, Error};

/// A bucket for each wallet whose balance pays.
pub(super) struct Pace(DefaultKeyedRateLimiter<AccountId>);

impl Pace {
    pub fn new(limits: &Limits) -> Pace {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let quota = Quota::per_second(at_least_one(limits.per_account_per_second));
        Pace(RateLimiter::keyed(quota.allow_burst(at_least_one(limits.per_account_burst))))
    }

    /// Takes one call.
    ///
    /// # Errors
    /// [`Code::RateLimited`]: it had too many in the last second.
    pub fn call(&self, wallet: AccountId) -> Result<(), Error> {
        let slow_down = |_| {
            let message = "this wallet calls too often; nothing was charged, send this one again in 1 s";
            Error::new(Code::RateLimited, message).retry_after(1)
        };
        self.0.check_key(&wallet).map_err(slow_down)
    }

    /// Forgets wallets that have been quiet.
    pub fn forget_quiet(&self) {
        self.0.retain_recent();
    }
}
