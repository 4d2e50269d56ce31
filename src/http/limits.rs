//! Per-address token buckets, the memory for bodies, and which address a request really comes from.

use std::net::{IpAddr, Ipv6Addr};
use std::num::NonZeroU32;
use std::sync::Arc;

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::{Cidr, Limits};

/// Addresses in `X-Forwarded-For` that are looked at, at most.
const HOPS: usize = 16;

/// The buckets of all callers. Unpaid attempts to pay have their own: they cost questions to the chain.
pub struct RateLimits {
    requests: DefaultKeyedRateLimiter<IpAddr>,
    payments: DefaultKeyedRateLimiter<IpAddr>,
    trusted: Vec<Cidr>,
}

impl RateLimits {
    pub fn new(limits: &Limits, trusted: Vec<Cidr>) -> Self {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let requests = Quota::per_second(at_least_one(limits.per_ip_per_second)).allow_burst(at_least_one(limits.per_ip_burst));
        let payments = Quota::per_minute(at_least_one(limits.payments_per_ip_per_minute));
        RateLimits { requests: RateLimiter::keyed(requests), payments: RateLimiter::keyed(payments), trusted }
    }

    pub fn request(&self, from: IpAddr) -> bool {
        self.requests.check_key(&bucket(from)).is_ok()
    }

    pub fn payment(&self, from: IpAddr) -> bool {
        self.payments.check_key(&bucket(from)).is_ok()
    }

    /// Forgets addresses that have been quiet, so that memory does not grow with the number of callers ever seen.
    pub fn forget_quiet(&self) {
        self.requests.retain_recent();
        self.payments.retain_recent();
    }

    /// Who sent a request: the peer, or, behind trusted proxies, the last address that none of them is. A proxy may add a
    /// line of its own below the caller's, so all lines count, the last first.
    pub fn source(&self, peer: IpAddr, forwarded: &[&str]) -> IpAddr {
        let trusted = |address: IpAddr| self.trusted.iter().any(|range| range.contains(address));
        if !trusted(peer) {
            return peer;
        }
        let mut source = peer;
        for hop in forwarded.iter().rev().flat_map(|line| line.rsplit(',')).take(HOPS) {
            let Ok(address) = hop.trim().parse() else { break };
            source = address;
            if !trusted(address) {
                break;
            }
        }
        source
    }
}

/// The memory for request bodies, which callers fill before they have shown that they can pay.
pub struct BodyMemory(Arc<Semaphore>);

/// What one body takes of it; given back when dropped.
#[derive(Default)]
pub struct BodyShare(Vec<OwnedSemaphorePermit>, usize);

/// Memory is counted in pieces of this many bytes.
const PIECE: usize = 64 * 1024;

impl BodyMemory {
    pub fn new(bytes: usize) -> Self {
        BodyMemory(Arc::new(Semaphore::new((bytes / PIECE).clamp(1, Semaphore::MAX_PERMITS))))
    }

    /// Grows a share to `bytes`; false when there is no room, now.
    pub fn grow(&self, share: &mut BodyShare, bytes: usize) -> bool {
        let missing = bytes.div_ceil(PIECE).saturating_sub(share.1);
        let Ok(pieces) = u32::try_from(missing) else { return false };
        if pieces == 0 {
            return true;
        }
        let Ok(permit) = Arc::clone(&self.0).try_acquire_many_owned(pieces) else { return false };
        share.1 += missing;
        share.0.push(permit);
        true
    }
}

/// An IPv6 caller has a /64 for itself: one bucket, not 2^64.
fn bucket(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(v4) => IpAddr::V4(v4),
        IpAddr::V6(v6) => IpAddr::V6(Ipv6Addr::from_bits(v6.to_bits() >> 64 << 64)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn limits(trusted: &[(&str, u8)]) -> RateLimits {
        let limits = Limits {
            per_ip_per_second: 1,
            per_ip_burst: 3,
            payments_per_ip_per_minute: 1,
            streams: 1,
            max_body: 1,
            max_bodies: 1,
            wall_clock: Duration::from_secs(1),
        };
        let trusted = trusted.iter().map(|(address, prefix)| Cidr { address: address.parse().unwrap(), prefix: *prefix });
        RateLimits::new(&limits, trusted.collect())
    }

    fn ip(text: &str) -> IpAddr {
        text.parse().unwrap()
    }

    #[test]
    fn a_spoofed_forwarded_header_does_not_move_a_caller_to_another_bucket() {
        let limits = limits(&[]);
        assert_eq!(limits.source(ip("203.0.113.9"), &["1.2.3.4"]), ip("203.0.113.9"));
    }

    #[test]
    fn behind_trusted_proxies_the_last_stranger_is_the_caller() {
        let limits = limits(&[("10.0.0.0", 8)]);
        assert_eq!(limits.source(ip("10.0.0.1"), &["6.6.6.6, 203.0.113.9, 10.0.0.2"]), ip("203.0.113.9"));
        assert_eq!(limits.source(ip("10.0.0.1"), &[]), ip("10.0.0.1"));
        assert_eq!(limits.source(ip("10.0.0.1"), &["nonsense"]), ip("10.0.0.1"));
        assert_eq!(
            limits.source(ip("10.0.0.1"), &["6.6.6.6", "203.0.113.9"]),
            ip("203.0.113.9"),
            "the proxy's own line is the last"
        );
    }

    #[test]
    fn an_ipv6_network_shares_one_bucket() {
        let limits = limits(&[]);
        let allowed = (0..20).filter(|n| limits.request(ip(&format!("2001:db8::{n:x}")))).count();
        assert_eq!(allowed, 3);
        assert!(limits.request(ip("2001:db8:0:1::1")), "the next network is not punished");
    }

    #[test]
    fn bodies_together_take_no_more_than_their_room_and_give_it_back() {
        let memory = BodyMemory::new(4 * PIECE);
        let (mut one, mut other) = (BodyShare::default(), BodyShare::default());
        assert!(memory.grow(&mut one, 3 * PIECE - 1) && memory.grow(&mut one, 3 * PIECE));
        assert!(memory.grow(&mut other, PIECE));
        assert!(!memory.grow(&mut other, PIECE + 1), "the fifth piece has no room");
        drop(one);
        assert!(memory.grow(&mut other, 4 * PIECE));
    }
}
