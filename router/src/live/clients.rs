//! Who is connected, and how often: the count of connections of each client.

use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use dashmap::DashMap;
use dashmap::mapref::entry::Entry;
use tokio::time::Instant;

/// How often it is told in the log that connections are refused.
const TOLD_EVERY: Duration = Duration::from_secs(10);

/// One client as far as an address tells: an IPv4 address, or the /64 network of an IPv6 one, which is what one household
/// or one machine has (RFC 6177); on Fly's private network, `fdaa::/16`, a machine has a /112.
pub(super) fn client(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => {
            let own = if ip.segments()[0] == 0xfdaa { 16 } else { 64 };
            Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << own)).into()
        }
        ip => ip,
    }
}

/// The connections of all clients; nothing is kept of one that has none.
#[derive(Debug)]
pub struct Clients {
    connections: DashMap<IpAddr, usize>,
    most: usize,
    refused: AtomicU64,
    told: Mutex<Option<Instant>>,
}

/// One connection of a client; counted out on drop.
#[derive(Debug)]
pub struct Connected {
    clients: Arc<Clients>,
    client: IpAddr,
}

impl Drop for Connected {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.clients.connections.entry(self.client) {
            if *count.get() > 1 {
                *count.get_mut() -= 1;
            } else {
                count.remove();
            }
        }
    }
}

impl Clients {
    /// Each client may have `most` connections.
    pub fn new(most: usize) -> Self {
        Self {
            connections: DashMap::new(),
            most,
            refused: AtomicU64::new(0),
            told: Mutex::new(None),
        }
    }

    /// Counts a connection in, unless its client has as many as it may.
    pub fn enter(self: &Arc<Self>, ip: IpAddr) -> Option<Connected> {
        let client = client(ip);
        let mut count = self.connections.entry(client).or_insert(0);
        (*count < self.most).then(|| {
            *count += 1;
            Connected {
                clients: Arc::clone(self),
                client,
            }
        })
    }

    /// Counts a refused connection; how many there were so far, where it is time to tell.
    pub fn refuse(&self) -> Option<u64> {
        let refused = self.refused.fetch_add(1, Ordering::Relaxed) + 1;
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.is_some_and(|told| told.elapsed() < TOLD_EVERY) {
            return None;
        }
        *told = Some(Instant::now());
        Some(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enter(clients: &Arc<Clients>, ip: &str) -> Option<Connected> {
        clients.enter(ip.parse().unwrap())
    }

    #[test]
    fn a_client_is_an_ipv4_address_or_an_ipv6_network() {
        for (one, other, same) in [
            ("192.0.2.1", "192.0.2.1", true),
            ("192.0.2.1", "192.0.2.2", false),
            ("192.0.2.1", "::ffff:192.0.2.1", true),
            ("2001:db8::1", "2001:db8::ffff:0:0:2", true),
            ("2001:db8:0:1::1", "2001:db8:0:2::1", false),
            // Two machines on Fly's private network.
            (
                "fdaa:7:1b2c:a7b:2f1:9c4d:11aa:2",
                "fdaa:7:1b2c:a7b:2f1:9c4d:11aa:3",
                true,
            ),
            (
                "fdaa:7:1b2c:a7b:2f1:9c4d:11aa:2",
                "fdaa:7:1b2c:a7b:2f1:9c4d:11ab:2",
                false,
            ),
        ] {
            let clients = Arc::new(Clients::new(1));
            let first = enter(&clients, one);
            assert!(first.is_some());
            assert_eq!(enter(&clients, other).is_none(), same, "{one} {other}");
        }
    }

    #[test]
    fn who_leaves_makes_room_and_is_forgotten() {
        let clients = Arc::new(Clients::new(2));
        let two = [enter(&clients, "192.0.2.1"), enter(&clients, "192.0.2.1")];
        assert!(enter(&clients, "192.0.2.1").is_none());
        let [one, other] = two;
        drop(one);
        let again = enter(&clients, "192.0.2.1");
        assert!(again.is_some());
        drop((again, other));
        assert!(clients.connections.is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn refusals_are_counted_and_seldom_told() {
        let clients = Clients::new(0);
        assert_eq!(clients.refuse(), Some(1));
        assert_eq!(clients.refuse(), None);
        tokio::time::advance(TOLD_EVERY).await;
        assert_eq!(clients.refuse(), Some(3));
    }
}
