//! Peers found by multicast DNS, told again as long as they answer.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use libp2p::multiaddr::Multiaddr;
use libp2p::{PeerId, mdns};

use crate::engine::address::{Addr, Reach};
use crate::engine::event::{NetEvent, Source};
use crate::engine::ids::MemberId;
use crate::engine::limits;
use crate::net::convert::{from_multiaddr, to_member};

/// An announcement that is not renewed for so long is forgotten. No goodbye is ever sent.
const TTL: Duration = Duration::from_secs(30);
/// How often the network is asked. Below half of the time to live, so that nobody flaps.
const QUERY_INTERVAL: Duration = Duration::from_secs(10);
/// Seconds after which those who still answer are told again: a dial may have failed meanwhile.
pub(crate) const REPEAT_SECONDS: u32 = 10;

/// Multicast DNS for `peer`; none if this machine does not let us.
pub(crate) fn mdns(peer: PeerId) -> Option<mdns::tokio::Behaviour> {
    let config = mdns::Config {
        ttl: TTL,
        query_interval: QUERY_INTERVAL,
        enable_ipv6: false,
    };
    match mdns::tokio::Behaviour::new(config, peer) {
        Ok(mdns) => Some(mdns),
        Err(error) => {
            tracing::warn!(%error, "multicast DNS is not available");
            None
        }
    }
}

/// Who answers multicast DNS, and where.
#[derive(Debug, Default)]
pub(crate) struct Neighbours {
    at: BTreeMap<MemberId, BTreeSet<Addr>>,
}

impl Neighbours {
    /// Takes in what multicast DNS says, and returns what is new to the engine.
    pub(crate) fn update(&mut self, event: mdns::Event) -> Vec<NetEvent> {
        match event {
            mdns::Event::Discovered(found) => self.found(found),
            mdns::Event::Expired(lost) => {
                self.lost(lost);
                Vec::new()
            }
        }
    }

    /// All of them.
    pub(crate) fn all(&self) -> Vec<NetEvent> {
        self.at
            .keys()
            .filter_map(|peer| self.event(*peer))
            .collect()
    }

    fn found(&mut self, found: Vec<(PeerId, Multiaddr)>) -> Vec<NetEvent> {
        let mut changed = BTreeSet::new();
        for (peer, addr) in found.iter().filter_map(named) {
            if !self.at.contains_key(&peer) && self.at.len() >= limits::MDNS_PEERS_MAX {
                continue;
            }
            let addrs = self.at.entry(peer).or_default();
            if addrs.len() < limits::MDNS_ADDRESSES_PER_PEER_MAX {
                addrs.insert(addr);
                changed.insert(peer);
            }
        }
        changed
            .into_iter()
            .filter_map(|peer| self.event(peer))
            .collect()
    }

    fn lost(&mut self, lost: Vec<(PeerId, Multiaddr)>) {
        for (peer, addr) in lost.iter().filter_map(named) {
            if let Some(addrs) = self.at.get_mut(&peer) {
                addrs.remove(&addr);
                if addrs.is_empty() {
                    self.at.remove(&peer);
                }
            }
        }
    }

    fn event(&self, peer: MemberId) -> Option<NetEvent> {
        let addrs = self.at.get(&peer)?.iter().copied().collect();
        Some(NetEvent::Discovered {
            peer,
            addrs,
            source: Source::Mdns,
        })
    }
}

fn named((peer, addr): &(PeerId, Multiaddr)) -> Option<(MemberId, Addr)> {
    let addr = from_multiaddr(addr).filter(|addr| addr.ip.reach() != Reach::Never)?;
    Some((to_member(peer)?, addr))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::convert::to_peer;

    #[test]
    fn who_answers_is_told_again_until_it_expires() {
        let key = libp2p::identity::Keypair::ed25519_from_bytes([3; 32]).unwrap();
        let peer = key.public().to_peer_id();
        let addr: Multiaddr = "/ip4/192.0.2.7/tcp/4000".parse().unwrap();
        let unusable: Multiaddr = "/ip4/169.254.0.1/tcp/4000".parse().unwrap();
        let mut neighbours = Neighbours::default();

        let said = vec![(peer, addr.clone()), (peer, unusable)];
        let told = neighbours.update(mdns::Event::Discovered(said));
        let [
            NetEvent::Discovered {
                peer: member,
                addrs,
                source: Source::Mdns,
            },
        ] = &told[..]
        else {
            panic!("{told:?}");
        };
        assert_eq!(to_peer(member), Some(peer));
        assert_eq!(addrs.len(), 1);
        assert_eq!(neighbours.all().len(), 1);
        neighbours.update(mdns::Event::Expired(vec![(peer, addr)]));
        assert!(neighbours.all().is_empty());
    }

    #[test]
    fn a_flood_of_announcements_is_bounded() {
        let mut neighbours = Neighbours::default();
        for seed in 0..=255_u8 {
            for port in 0..4_u16 {
                let mut bytes = [seed; 32];
                bytes[0] = port.to_le_bytes()[0];
                let key = libp2p::identity::Keypair::ed25519_from_bytes(bytes).unwrap();
                let addr: Multiaddr = format!("/ip4/192.0.2.7/tcp/{port}").parse().unwrap();
                let found = vec![(key.public().to_peer_id(), addr)];
                let _told = neighbours.update(mdns::Event::Discovered(found));
            }
        }
        assert_eq!(neighbours.all().len(), limits::MDNS_PEERS_MAX);
    }
}
