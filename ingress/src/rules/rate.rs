//! A token bucket for each client's address. Pure but for its lock: the time is given.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};
use std::time::Instant;

use parking_lot::Mutex;
use skep_model::routing::RateLimit;

/// Addresses remembered for one route. When they are too many, those that have all their tokens again
/// are forgotten; and where that is not enough all are, who begin anew with a full bucket.
const MAX_CLIENTS: usize = 65_536;

#[derive(Debug)]
pub(super) struct Limiter {
    limit: RateLimit,
    clients: Mutex<HashMap<IpAddr, Bucket>>,
}

#[derive(Debug, Clone, Copy)]
struct Bucket {
    tokens: f64,
    at: Instant,
}

impl Bucket {
    /// What it holds by now.
    fn filled(self, limit: &RateLimit, now: Instant) -> f64 {
        let since = now.saturating_duration_since(self.at).as_secs_f64();
        (self.tokens + since * f64::from(limit.per_second)).min(f64::from(limit.burst))
    }
}

impl Limiter {
    pub(super) fn new(limit: RateLimit) -> Self {
        Self {
            limit,
            clients: Mutex::default(),
        }
    }

    /// Whether a client may ask once more.
    pub(super) fn take(&self, client: IpAddr, now: Instant) -> bool {
        let key = network(client);
        let mut clients = self.clients.lock();
        if clients.len() >= MAX_CLIENTS && !clients.contains_key(&key) {
            let most = f64::from(self.limit.burst);
            clients.retain(|_, bucket| bucket.filled(&self.limit, now) < most);
            if clients.len() >= MAX_CLIENTS {
                clients.clear();
            }
        }
        let bucket = clients.entry(key).or_insert(Bucket {
            tokens: f64::from(self.limit.burst),
            at: now,
        });
        let tokens = bucket.filled(&self.limit, now);
        let is_through = tokens >= 1.0;
        *bucket = Bucket {
            tokens: if is_through { tokens - 1.0 } else { tokens },
            at: now,
        };
        is_through
    }
}

/// Of IPv6 the network that one customer has: within it addresses cost nothing.
fn network(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V6(address) => {
            let bits = address.to_bits() & !u128::from(u64::MAX);
            IpAddr::V6(Ipv6Addr::from_bits(bits))
        }
        address => address,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn limiter(per_second: u32, burst: u32) -> Limiter {
        Limiter::new(RateLimit { per_second, burst })
    }

    #[test]
    fn the_burst_at_once_and_then_the_rate() {
        let (limiter, start) = (limiter(2, 3), Instant::now());
        let client: IpAddr = "192.0.2.1".parse().expect("an address");
        let through = |at_ms: u64| {
            let now = start + Duration::from_millis(at_ms);
            (0..10).filter(|_| limiter.take(client, now)).count()
        };
        assert_eq!(through(0), 3);
        assert_eq!(through(400), 0);
        assert_eq!(through(500), 1);
        assert_eq!(through(1_500), 2);
        assert_eq!(through(60_000), 3);
        let other: IpAddr = "192.0.2.2".parse().expect("an address");
        assert!(
            limiter.take(other, start),
            "others have buckets of their own"
        );
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let (limiter, now) = (limiter(1, 1), Instant::now());
        let take = |address: &str| limiter.take(address.parse().expect("an address"), now);
        assert!(take("2001:db8::1"));
        assert!(!take("2001:db8::ffff"));
        assert!(take("2001:db8:0:1::1"));
    }

    #[test]
    fn what_is_remembered_is_bounded() {
        let (limiter, now) = (limiter(1, 2), Instant::now());
        for number in 0..MAX_CLIENTS as u32 + 10 {
            assert!(limiter.take(IpAddr::from(number.to_be_bytes()), now));
        }
        assert!(limiter.clients.lock().len() <= MAX_CLIENTS);
    }
}
