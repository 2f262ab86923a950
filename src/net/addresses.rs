//! Our own addresses: where we listen, and the networks of our interfaces.

use std::collections::BTreeSet;

use if_addrs::IfAddr;
use libp2p::core::transport::ListenerId;
use libp2p::multiaddr::Multiaddr;

use crate::engine::address::{Addr, Ip, Network, Reach, Transport};
use crate::net::convert::{from_ip, from_multiaddr};

/// How far a node reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Scope {
    /// Wherever a route leads.
    #[default]
    Anywhere,
    /// This machine and the networks of its interfaces.
    Lan,
    /// This machine.
    Loopback,
}

/// All addresses, both transports, both versions, any port.
pub fn everywhere() -> Vec<Addr> {
    let ips = [Ip::V4([0; 4]), Ip::V6([0; 16])];
    let transports = [Transport::Quic, Transport::Tcp];
    ips.into_iter()
        .flat_map(|ip| {
            transports.map(|transport| Addr {
                ip,
                port: 0,
                transport,
            })
        })
        .collect()
}

/// Replaces "all interfaces" by the loopback address of the same version.
pub(crate) fn on_loopback(addr: Addr) -> Addr {
    let ip = match addr.ip {
        Ip::V4([0, 0, 0, 0]) => Ip::V4([127, 0, 0, 1]),
        Ip::V6(octets) if octets == [0; 16] => {
            let mut loopback = [0; 16];
            loopback[15] = 1;
            Ip::V6(loopback)
        }
        Ip::V4(_) | Ip::V6(_) => addr.ip,
    };
    Addr { ip, ..addr }
}

/// The networks of our interfaces, loopback and link-local ones left out.
pub(crate) fn networks() -> Vec<Network> {
    let interfaces = if_addrs::get_if_addrs().unwrap_or_else(|error| {
        tracing::warn!(%error, "the interfaces of this machine cannot be read");
        Vec::new()
    });
    let networks: BTreeSet<Network> = interfaces
        .into_iter()
        .map(|interface| match interface.addr {
            IfAddr::V4(v4) => Network {
                ip: from_ip(v4.ip.into()),
                prefix: v4.prefixlen,
            },
            IfAddr::V6(v6) => Network {
                ip: from_ip(v6.ip.into()),
                prefix: v6.prefixlen,
            },
        })
        .filter(|network| matches!(network.ip.reach(), Reach::Private | Reach::Public))
        .collect();
    networks.into_iter().collect()
}

/// The addresses at which our listeners are reached.
#[derive(Debug, Default)]
pub(crate) struct Listening {
    of: Vec<(ListenerId, Addr)>,
    reported: Option<Vec<Addr>>,
}

impl Listening {
    /// A listener has come to an address.
    pub(crate) fn add(&mut self, listener: ListenerId, addr: &Multiaddr) {
        self.of.extend(dialable(addr).map(|addr| (listener, addr)));
    }

    /// A listener has lost an address. True if it was one at which others reached us.
    pub(crate) fn remove(&mut self, listener: ListenerId, addr: &Multiaddr) -> bool {
        let Some(addr) = dialable(addr) else {
            return false;
        };
        let before = self.of.len();
        self.of.retain(|of| *of != (listener, addr));
        self.of.len() < before && addr.ip.reach() != Reach::Loopback
    }

    /// Whether one of the hosts at which others reach us is `ip`.
    pub(crate) fn is_at(&self, ip: &Ip) -> bool {
        self.of.iter().any(|(_, addr)| addr.ip == *ip)
    }

    /// A listener has ended.
    pub(crate) fn end(&mut self, listener: ListenerId) {
        self.of.retain(|(of, _)| *of != listener);
    }

    /// All addresses, if they differ from those told last.
    pub(crate) fn changed(&mut self) -> Option<Vec<Addr>> {
        let all: BTreeSet<Addr> = self.of.iter().map(|(_, addr)| *addr).collect();
        let now: Vec<Addr> = all.into_iter().collect();
        if self.reported.as_ref() == Some(&now) {
            return None;
        }
        self.reported = Some(now.clone());
        Some(now)
    }
}

fn dialable(addr: &Multiaddr) -> Option<Addr> {
    from_multiaddr(addr).filter(|addr| addr.ip.reach() != Reach::Never)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_told_when_they_change_and_never_link_local_ones() {
        let listener = ListenerId::next();
        let mut listening = Listening::default();
        for addr in [
            "/ip4/127.0.0.1/tcp/1",
            "/ip4/10.0.0.1/tcp/1",
            "/ip6/fe80::1/tcp/1",
        ] {
            listening.add(listener, &addr.parse().unwrap());
        }

        assert_eq!(listening.changed().map(|told| told.len()), Some(2));
        assert_eq!(listening.changed(), None);
        assert!(listening.is_at(&Ip::V4([10, 0, 0, 1])));
        assert!(!listening.is_at(&Ip::V4([10, 0, 0, 2])));
        assert!(listening.remove(listener, &"/ip4/10.0.0.1/tcp/1".parse().unwrap()));
        assert!(!listening.remove(listener, &"/ip4/127.0.0.1/tcp/1".parse().unwrap()));
        assert_eq!(listening.changed(), Some(Vec::new()));
    }
}
