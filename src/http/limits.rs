//! Per-address token buckets, the memory for bodies, and which address a request really comes from.

use std::collections::HashMap;
use std::hash::Hash;
use std::net::{IpAddr, Ipv6Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use governor::{DefaultKeyedRateLimiter, Quota, RateLimiter};

use crate::account::AccountId;
use crate::config::{Cidr, Limits};

/// Addresses in `X-Forwarded-For` that are looked at, at most.
const HOPS: usize = 16;

/// The buckets of all callers. Unpaid attempts to pay have their own: they cost questions to the chain. Reading a balance
/// has one per wallet, which only its owner can use up.
pub struct RateLimits {
    requests: DefaultKeyedRateLimiter<IpAddr>,
    payments: Bucket<IpAddr>,
    top_ups: Bucket<IpAddr>,
    /// Each change of a key stays in the journal for ever, and wallets cost nothing.
    key_changes: Bucket<IpAddr>,
    balances: Bucket<AccountId>,
    statements: Bucket<AccountId>,
    jobs: Bucket<AccountId>,
    trusted: Vec<Cidr>,
}

/// So many a minute for each key.
struct Bucket<K: Hash + Eq + Clone> {
    limiter: DefaultKeyedRateLimiter<K>,
    /// Seconds until who has used it up has another one.
    every: u32,
}

impl<K: Hash + Eq + Clone> Bucket<K> {
    fn new(per_minute: u32) -> Self {
        let per_minute = NonZeroU32::new(per_minute).unwrap_or(NonZeroU32::MIN);
        Bucket { limiter: RateLimiter::keyed(Quota::per_minute(per_minute)), every: 60u32.div_ceil(per_minute.get()) }
    }

    /// Takes one; `Err` says after how many seconds there is another.
    fn take(&self, key: &K) -> Result<(), u32> {
        self.limiter.check_key(key).map_err(|_| self.every)
    }
}

impl RateLimits {
    pub fn new(limits: &Limits, trusted: Vec<Cidr>) -> Self {
        let at_least_one = |n: u32| NonZeroU32::new(n).unwrap_or(NonZeroU32::MIN);
        let requests = Quota::per_second(at_least_one(limits.per_ip_per_second)).allow_burst(at_least_one(limits.per_ip_burst));
        RateLimits {
            requests: RateLimiter::keyed(requests),
            payments: Bucket::new(limits.payments_per_ip_per_minute),
            top_ups: Bucket::new(limits.top_ups_per_ip_per_minute),
            key_changes: Bucket::new(limits.key_changes_per_ip_per_minute),
            balances: Bucket::new(limits.balance_reads_per_minute),
            statements: Bucket::new(limits.statement_reads_per_minute),
            jobs: Bucket::new(limits.job_polls_per_minute),
            trusted,
        }
    }

    pub fn request(&self, from: IpAddr) -> bool {
        self.requests.check_key(&bucket(from)).is_ok()
    }

    /// Takes one payment; `Err` says after how many seconds there is another, as in the functions below.
    pub fn payment(&self, from: IpAddr) -> Result<(), u32> {
        self.payments.take(&bucket(from))
    }

    /// Takes one payment to the top-up route.
    pub fn top_up(&self, from: IpAddr) -> Result<(), u32> {
        self.top_ups.take(&bucket(from))?;
        self.payment(from)
    }

    /// Takes one change of a key.
    pub fn key_change(&self, from: IpAddr) -> Result<(), u32> {
        self.key_changes.take(&bucket(from))
    }

    /// Takes one look at a wallet's balance, whose owner has shown that it is.
    pub fn balance(&self, wallet: AccountId) -> Result<(), u32> {
        self.balances.take(&wallet)
    }

    /// Takes one page of a wallet's statement, whose owner has shown that it is.
    pub fn statement(&self, wallet: AccountId) -> Result<(), u32> {
        self.statements.take(&wallet)
    }

    /// Takes one look at a job of a wallet, by somebody who may have it.
    pub fn job(&self, wallet: AccountId) -> Result<(), u32> {
        self.jobs.take(&wallet)
    }

    /// Forgets addresses that have been quiet, so that memory does not grow with the number of callers ever seen.
    pub fn forget_quiet(&self) {
        self.requests.retain_recent();
        self.payments.limiter.retain_recent();
        self.top_ups.limiter.retain_recent();
        self.key_changes.limiter.retain_recent();
        self.balances.limiter.retain_recent();
        self.statements.limiter.retain_recent();
        self.jobs.limiter.retain_recent();
    }

    /// Who sent a request: the peer, or, behind trusted proxies, the last address that none of them is. A proxy may add a
    /// line of its own below the caller's, so all lines count, the last first.
    pub fn source(&self, peer: IpAddr, forwarded: &[&str]) -> IpAddr {
        let trusted = |address: IpAddr| self.trusted.iter().any(|range| range.contains(address));
        // A listener for both versions of IP names callers of the older one in the newer one's words.
        let peer = peer.to_canonical();
        if !trusted(peer) {
            return peer;
        }
        let mut source = peer;
        for hop in forwarded.iter().rev().flat_map(|line| line.rsplit(',')).take(HOPS) {
            let Some(address) = address(hop.trim()) else { break };
            source = address;
            if !trusted(address) {
                break;
            }
        }
        source
    }
}

/// An address as proxies write it: bare, with a port, or in brackets.
fn address(hop: &str) -> Option<IpAddr> {
    let bare = hop.strip_prefix('[').and_then(|hop| hop.strip_suffix(']')).unwrap_or(hop);
    let address = bare.parse().or_else(|_| hop.parse().map(|address: SocketAddr| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// The memory for request bodies, which callers fill before they have shown that they can pay. Small bodies always have
/// room, and no address takes more than a part, so that nobody can keep the others out.
pub struct BodyMemory {
    limit: AtomicUsize,
    taken: Mutex<Taken>,
}

#[derive(Default)]
struct Taken {
    bytes: usize,
    by_source: HashMap<IpAddr, usize>,
}

/// What one body takes of it; given back when dropped.
pub struct BodyShare {
    memory: Arc<BodyMemory>,
    source: IpAddr,
    bytes: usize,
    copies: usize,
}

/// Bodies up to this size are not counted: sockets bound how many there are.
const SMALL: usize = 64 * 1024;
/// A body and its copy for an upstream.
const COPIES: usize = 2;
/// One address may take this part of the memory.
const PART: usize = 4;

impl BodyMemory {
    /// `limit` in bytes, copies included.
    pub fn new(limit: usize) -> Self {
        BodyMemory { limit: AtomicUsize::new(limit), taken: Mutex::default() }
    }

    /// Has more or less room from now on; what is taken stays taken.
    pub fn set_limit(&self, limit: usize) {
        self.limit.store(limit, Ordering::Relaxed);
    }

    /// For a body that is copied once at most.
    pub fn share(self: &Arc<Self>, source: IpAddr) -> BodyShare {
        self.share_for(source, COPIES)
    }

    /// For a body that may be there so many times at once, as it came among them.
    pub fn share_for(self: &Arc<Self>, source: IpAddr, copies: usize) -> BodyShare {
        BodyShare { memory: Arc::clone(self), source: bucket(source), bytes: 0, copies }
    }
}

impl BodyShare {
    /// Grows to a body of `length` bytes; false when there is no room, now.
    pub fn grow(&mut self, length: usize) -> bool {
        let wanted = if length <= SMALL { 0 } else { length.saturating_mul(self.copies) };
        let more = wanted.saturating_sub(self.bytes);
        if more == 0 {
            return true;
        }
        let Ok(mut taken) = self.memory.taken.lock() else { return false };
        let limit = self.memory.limit.load(Ordering::Relaxed);
        let of_source = taken.by_source.get(&self.source).copied().unwrap_or(0);
        if taken.bytes.saturating_add(more) > limit || of_source.saturating_add(more) > limit / PART {
            return false;
        }
        taken.bytes += more;
        *taken.by_source.entry(self.source).or_default() += more;
        self.bytes += more;
        true
    }
}

impl Drop for BodyShare {
    fn drop(&mut self) {
        let Ok(mut taken) = self.memory.taken.lock() else { return };
        taken.bytes = taken.bytes.saturating_sub(self.bytes);
        let left = taken.by_source.get(&self.source).copied().unwrap_or(0).saturating_sub(self.bytes);
        match left {
            0 => _ = taken.by_source.remove(&self.source),
            left => _ = taken.by_source.insert(self.source, left),
        }
    }
}

/// An IPv6 caller has a /64 for itself: one bucket, not 2^64.
pub fn bucket(address: IpAddr) -> IpAddr {
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
            per_account_per_second: 1,
            per_account_burst: 1,
            connections_per_ip: 1,
            payments_per_ip_per_minute: 1,
            top_ups_per_ip_per_minute: 1,
            key_changes_per_ip_per_minute: 1,
            balance_reads_per_minute: 1,
            statement_reads_per_minute: 1,
            job_polls_per_minute: 1,
            jobs_kept: Duration::from_secs(1),
            streams: 1,
            streams_per_account: 1,
            max_body: 1,
            max_bodies: 1,
            body_time: Duration::from_secs(1),
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
    fn a_proxy_is_known_and_its_caller_read_in_whichever_way_they_are_written() {
        let limits = limits(&[("10.0.0.0", 8), ("2001:db8:f::", 48)]);
        let stranger = ip("203.0.113.9");
        for hop in
            ["203.0.113.9", "203.0.113.9:4711", "::ffff:203.0.113.9", "[::ffff:203.0.113.9]:80", " 203.0.113.9 , 10.9.9.9:1"]
        {
            assert_eq!(limits.source(ip("::ffff:10.0.0.1"), &[hop]), stranger, "{hop}");
        }
        let v6 = ["2001:db8::7", "[2001:db8::7]", "[2001:db8::7]:443", "2001:db8::7, 2001:db8:f::1"];
        assert!(v6.iter().all(|hop| limits.source(ip("10.0.0.1"), &[hop]) == ip("2001:db8::7")));
        assert_eq!(limits.source(ip("::ffff:203.0.113.9"), &["1.2.3.4"]), stranger, "a stranger is not believed either way");
    }

    #[test]
    fn an_ipv6_network_shares_one_bucket() {
        let limits = limits(&[]);
        let allowed = (0..20).filter(|n| limits.request(ip(&format!("2001:db8::{n:x}")))).count();
        assert_eq!(allowed, 3);
        assert!(limits.request(ip("2001:db8:0:1::1")), "the next network is not punished");
    }

    #[test]
    fn bodies_together_take_no_more_than_their_room_and_nobody_keeps_the_others_out() {
        let memory = Arc::new(BodyMemory::new(16 * SMALL));
        let (mut greedy, mut again) = (memory.share(ip("192.0.2.1")), memory.share(ip("192.0.2.1")));
        assert!(greedy.grow(2 * SMALL), "a quarter, with its copy");
        assert!(!greedy.grow(2 * SMALL + 1) && !again.grow(SMALL + 1), "and no more for one address");
        assert!(again.grow(SMALL), "a small body always has room");
        let mut others: Vec<_> = (2..5).map(|n| memory.share(ip(&format!("192.0.2.{n}")))).collect();
        assert!(others.iter_mut().all(|other| other.grow(2 * SMALL)));
        let mut late = memory.share(ip("192.0.2.9"));
        assert!(!late.grow(2 * SMALL), "the room is taken");
        drop(greedy);
        assert!(late.grow(2 * SMALL), "and given back");
    }

    #[test]
    fn a_body_takes_as_much_as_all_its_copies() {
        let memory = Arc::new(BodyMemory::new(16 * SMALL));
        let source = ip("192.0.2.1");
        assert!(memory.share_for(source, 2).grow(2 * SMALL));
        assert!(!memory.share_for(source, 3).grow(2 * SMALL), "two dialects beside its own");
        let mut translated = memory.share_for(source, 3);
        assert!(translated.grow(SMALL + SMALL / 4));
        assert!(!memory.share_for(source, 2).grow(SMALL + 1), "what it takes is counted");
        drop(translated);
        assert!(memory.share_for(source, 2).grow(2 * SMALL), "and given back, all of it");
    }
}
