//! The open connections of each address and of all, so that nobody takes all of them and none is taken from a call's upstream.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::limits::bucket;
use super::watched::Patience;
use super::{CROWDED_IDLE, IDLE, SPARE_FILES};
use crate::config::{Cidr, Config};

/// The part of [`Limits::body_time`](crate::config::Limits::body_time) after which a caller that takes nothing of its
/// answers is cut.
const UNREAD: u32 = 2;
/// Never sooner: a paid answer waits for its client for half a minute, and says so where it ends for that.
const UNREAD_AT_LEAST: Duration = Duration::from_secs(40);

/// Callers have at least this part of the files that may be open, however many streams are promised.
const AT_LEAST: usize = 4;

/// Everybody who is connected. Proxies, and programs on this machine, may be so many as there is room for: they bring everybody.
pub struct Crowd {
    /// How many files may be open.
    files: usize,
    inside: Mutex<Inside>,
}

struct Inside {
    trusted: Vec<Cidr>,
    most: usize,
    room: usize,
    unread: Duration,
    open: HashMap<IpAddr, usize>,
    total: usize,
}

/// One connection, and the address where that is counted; given back when dropped.
pub struct Place {
    crowd: Arc<Crowd>,
    bucket: Option<IpAddr>,
}

impl Crowd {
    /// Of so many `files` that may be open.
    pub fn new(config: &Config, files: usize) -> Crowd {
        let (trusted, unread, open) = (Vec::new(), Duration::ZERO, HashMap::new());
        let inside = Inside { trusted, most: 0, room: 0, unread, open, total: 0 };
        let crowd = Crowd { files, inside: Mutex::new(inside) };
        crowd.follow(config);
        crowd
    }

    /// Goes by other limits from now on; who is inside stays.
    pub fn follow(&self, config: &Config) {
        let mut inside = self.inside();
        inside.trusted.clone_from(&config.trusted_proxies);
        inside.most = config.limits.connections_per_ip;
        inside.room = self.files.saturating_sub(config.limits.streams + SPARE_FILES).max(self.files / AT_LEAST);
        inside.unread = (config.limits.body_time / UNREAD).max(UNREAD_AT_LEAST);
    }

    /// Takes a place, and says how long it may keep us waiting. Nothing when the address has all that it may have, or all
    /// together have.
    pub fn enter(self: &Arc<Self>, from: IpAddr) -> Option<(Place, Patience)> {
        let mut inside = self.inside();
        let mut patience = Patience { idle: IDLE, unread: inside.unread };
        if inside.total >= inside.room {
            return None;
        }
        if from.to_canonical().is_loopback() || inside.trusted.iter().any(|range| range.contains(from.to_canonical())) {
            inside.total += 1;
            // A proxy closes its connections in its own time, which must be shorter than ours.
            return Some((Place { crowd: Arc::clone(self), bucket: None }, patience));
        }
        let (bucket, most, is_crowded) = (bucket(from), inside.most, inside.total > inside.room / 2);
        let open = inside.open.entry(bucket).or_default();
        if *open >= most {
            return None;
        }
        if is_crowded || *open > most / 2 {
            patience.idle = CROWDED_IDLE;
        }
        *open += 1;
        inside.total += 1;
        Some((Place { crowd: Arc::clone(self), bucket: Some(bucket) }, patience))
    }

    /// How long a client may take nothing of its answers, at the moment.
    pub fn unread(&self) -> Duration {
        self.inside().unread
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Numbers, whole after every step.
        self.inside.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut inside = self.crowd.inside();
        inside.total = inside.total.saturating_sub(1);
        let Some(bucket) = self.bucket else { return };
        if let Some(open) = inside.open.get_mut(&bucket) {
            *open = open.saturating_sub(1);
            if *open == 0 {
                inside.open.remove(&bucket);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    fn config(most: usize) -> Config {
        let text = format!(
            "[server]\nbind = \"127.0.0.1:1\"\ntrusted_proxies = [\"10.0.0.0/8\"]\n[limits]\nconnections_per_ip = {most}\n"
        );
        Config::parse(&text, Path::new("."), &|_| None).unwrap()
    }

    #[test]
    fn an_address_has_so_many_connections_and_proxies_and_this_machine_as_many_as_they_like() {
        let crowd = Arc::new(Crowd::new(&config(2), 65_536));
        let enter = |from: &str| crowd.enter(from.parse().unwrap());
        let first = enter("203.0.113.1");
        let second = enter("203.0.113.1");
        assert!(first.is_some() && second.is_some() && enter("203.0.113.1").is_none());
        assert!(enter("203.0.113.2").is_some(), "another address is not punished");
        drop(first);
        assert!(enter("203.0.113.1").is_some(), "a connection that ends makes room");

        let network: Vec<_> = (1..=3).map(|n| enter(&format!("2001:db8::{n}"))).collect();
        assert!(network[1].is_some() && network[2].is_none(), "an IPv6 network is one caller");
        for from in ["127.0.0.1", "::1", "10.1.2.3", "::ffff:10.1.2.3"] {
            let all: Vec<_> = (0..9).map(|_| enter(from)).collect();
            assert!(all.iter().all(Option::is_some), "{from}");
        }
        crowd.follow(&config(4));
        let more: Vec<_> = (0..4).map(|_| enter("203.0.113.1")).collect();
        assert_eq!(more.iter().flatten().count(), 3, "one is still inside");
        drop((second, more, network));
        assert!(crowd.inside().open.is_empty() && crowd.inside().total == 0, "who has left is forgotten");
    }

    #[test]
    fn silence_is_borne_for_long_while_there_is_room_and_from_proxies_always() {
        let mut config = config(4);
        config.limits.streams = 5;
        let crowd = Arc::new(Crowd::new(&config, config.limits.streams + SPARE_FILES + 200));
        let enter = |from: [u8; 4]| crowd.enter(from.into()).unwrap();
        let one: Vec<_> = (0..4).map(|_| enter([203, 0, 113, 1])).collect();
        let idle: Vec<_> = one.iter().map(|(_, patience)| patience.idle).collect();
        assert_eq!(idle, [IDLE, IDLE, IDLE, CROWDED_IDLE], "who has more than half of its places");
        let _crowd: Vec<_> = (0..97).map(|_| enter([127, 0, 0, 1])).collect();
        assert_eq!(enter([203, 0, 113, 2]).1.idle, CROWDED_IDLE, "more than half of all places");
        assert_eq!((enter([127, 0, 0, 1]).1.idle, enter([10, 0, 0, 1]).1.idle), (IDLE, IDLE));
    }

    #[test]
    fn callers_leave_a_file_for_the_upstream_of_every_call_whoever_they_are() {
        let (mut config, room) = (config(1000), 200);
        config.limits.streams = 5;
        let crowd = Arc::new(Crowd::new(&config, config.limits.streams + SPARE_FILES + room));
        // From addresses that each have room, and from this machine.
        let enter = |n: usize| {
            crowd.enter(if n.is_multiple_of(2) { [127, 0, 0, 1] } else { [203, 0, 113, u8::try_from(n).unwrap()] }.into())
        };
        let mut inside: Vec<_> = (0..room).map(enter).collect();
        assert!(inside.iter().all(Option::is_some));
        assert!(enter(room).is_none() && enter(room + 1).is_none(), "the rest is for upstreams");
        inside.pop();
        assert!(enter(room + 1).is_some(), "a connection that ends makes room");
        let small = Arc::new(Crowd::new(&config, 64));
        let entered: Vec<_> = (0..64).map(|_| small.enter([127, 0, 0, 1].into())).collect();
        assert_eq!(entered.iter().flatten().count(), 16, "where files are few, it still serves");
    }
}
