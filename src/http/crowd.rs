//! The open connections of each address, so that nobody takes all of them.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use super::limits::bucket;
use crate::config::{Cidr, Config};

/// The part of [`Limits::body_time`](crate::config::Limits::body_time) after which a caller that takes nothing of its
/// answers is cut. Longer than a paid answer waits for its client, which has a limit of its own.
const UNREAD: u32 = 2;

/// Everybody who is connected. Proxies, and programs on this machine, are not counted: they bring everybody.
pub struct Crowd(Mutex<Inside>);

struct Inside {
    trusted: Vec<Cidr>,
    most: usize,
    unread: Duration,
    open: HashMap<IpAddr, usize>,
}

/// One connection of an address that is counted; given back when dropped.
pub struct Place {
    crowd: Arc<Crowd>,
    bucket: Option<IpAddr>,
}

impl Crowd {
    pub fn new(config: &Config) -> Crowd {
        let crowd = Inside { trusted: Vec::new(), most: 0, unread: Duration::ZERO, open: HashMap::new() };
        let crowd = Crowd(Mutex::new(crowd));
        crowd.follow(config);
        crowd
    }

    /// Goes by other limits from now on; who is inside stays.
    pub fn follow(&self, config: &Config) {
        let mut inside = self.inside();
        inside.trusted.clone_from(&config.trusted_proxies);
        inside.most = config.limits.connections_per_ip;
        inside.unread = config.limits.body_time / UNREAD;
    }

    /// Takes a place, and says how long a client may take nothing of its answers. Nothing when the address has all that it
    /// may have.
    pub fn enter(self: &Arc<Self>, from: IpAddr) -> Option<(Place, Duration)> {
        let mut inside = self.inside();
        let unread = inside.unread;
        if from.to_canonical().is_loopback() || inside.trusted.iter().any(|range| range.contains(from.to_canonical())) {
            return Some((Place { crowd: Arc::clone(self), bucket: None }, unread));
        }
        let (bucket, most) = (bucket(from), inside.most);
        let open = inside.open.entry(bucket).or_default();
        if *open >= most {
            return None;
        }
        *open += 1;
        Some((Place { crowd: Arc::clone(self), bucket: Some(bucket) }, unread))
    }

    /// How long a client may take nothing of its answers, at the moment.
    pub fn unread(&self) -> Duration {
        self.inside().unread
    }

    fn inside(&self) -> MutexGuard<'_, Inside> {
        // Numbers, whole after every step.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let Some(bucket) = self.bucket else { return };
        let mut inside = self.crowd.inside();
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
        let crowd = Arc::new(Crowd::new(&config(2)));
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
        assert!(crowd.inside().open.is_empty(), "who has left is forgotten");
    }
}
