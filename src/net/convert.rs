//! Between the engine's plain names and libp2p's: addresses, keys, topics.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use libp2p::gossipsub::TopicHash;
use libp2p::multiaddr::{Multiaddr, Protocol};
use libp2p::{PeerId, identity};

use crate::engine::address::{Addr, Ip, Network, Reach, Transport};
use crate::engine::event::{Lane, Path};
use crate::engine::ids::{MemberId, TopicId};

/// A peer id of an ed25519 key is the identity multihash (code 0, 36 bytes) of the protobuf message that
/// holds key type 1 and the 32 bytes of the key: <https://github.com/libp2p/specs/blob/master/peer-ids>.
const ED25519_PEER_PREFIX: [u8; 6] = [0x00, 0x24, 0x08, 0x01, 0x12, 0x20];

/// The libp2p name of a member.
pub(crate) fn to_peer(member: &MemberId) -> Option<PeerId> {
    let key = identity::ed25519::PublicKey::try_from_bytes(member.as_bytes()).ok()?;
    Some(identity::PublicKey::from(key).to_peer_id())
}

/// The member whose key the peer proved; none for keys of other kinds.
pub(crate) fn to_member(peer: &PeerId) -> Option<MemberId> {
    let bytes = peer.to_bytes();
    let key = bytes.strip_prefix(&ED25519_PEER_PREFIX)?;
    key.try_into().ok().map(MemberId)
}

/// The multiaddr of an address.
pub(crate) fn to_multiaddr(addr: &Addr) -> Multiaddr {
    let ip = Multiaddr::from(to_ip(&addr.ip));
    match addr.transport {
        Transport::Tcp => ip.with(Protocol::Tcp(addr.port)),
        Transport::Quic => ip.with(Protocol::Udp(addr.port)).with(Protocol::QuicV1),
    }
}

/// The address in a multiaddr, whatever peer it names; none if it is not one that we dial.
pub(crate) fn from_multiaddr(addr: &Multiaddr) -> Option<Addr> {
    let mut parts = addr.iter();
    let ip = host(parts.next()?)?;
    let service = parts.next()?;
    let (transport, port) = if let Protocol::Tcp(port) = service {
        (Transport::Tcp, port)
    } else if let (Protocol::Udp(port), Some(Protocol::QuicV1)) = (service, parts.next()) {
        (Transport::Quic, port)
    } else {
        return None;
    };
    let named = matches!(parts.next(), None | Some(Protocol::P2p(_)));
    (named && parts.next().is_none()).then_some(Addr {
        ip,
        port,
        transport,
    })
}

/// The host that a multiaddr begins with.
pub(crate) fn ip_of(addr: &Multiaddr) -> Option<Ip> {
    host(addr.iter().next()?).map(Ip::unmapped)
}

fn host(part: Protocol<'_>) -> Option<Ip> {
    if let Protocol::Ip4(ip) = part {
        Some(Ip::V4(ip.octets()))
    } else if let Protocol::Ip6(ip) = part {
        Some(Ip::V6(ip.octets()))
    } else {
        None
    }
}

/// The peer that a multiaddr names.
pub(crate) fn peer_of(addr: &Multiaddr) -> Option<PeerId> {
    addr.iter().find_map(|part| {
        if let Protocol::P2p(peer) = part {
            Some(peer)
        } else {
            None
        }
    })
}

/// The standard library's form of an IP address.
pub(crate) fn to_ip(ip: &Ip) -> IpAddr {
    match *ip {
        Ip::V4(octets) => IpAddr::V4(Ipv4Addr::from(octets)),
        Ip::V6(octets) => IpAddr::V6(Ipv6Addr::from(octets)),
    }
}

/// The engine's form of an IP address.
pub(crate) fn from_ip(ip: IpAddr) -> Ip {
    match ip {
        IpAddr::V4(ip) => Ip::V4(ip.octets()),
        IpAddr::V6(ip) => Ip::V6(ip.octets()),
    }
}

/// How a host is reached, given the networks of our interfaces. One of our own addresses is this machine.
pub(crate) fn path_to(ip: &Ip, networks: &[Network]) -> Path {
    let ip = ip.unmapped();
    if ip.reach() == Reach::Loopback || networks.iter().any(|network| network.ip.unmapped() == ip) {
        Path::Loopback
    } else if networks.iter().any(|network| network.holds(&ip)) {
        Path::Lan
    } else {
        Path::Direct
    }
}

/// The gossip name of a topic: its hexadecimal digits.
pub(crate) fn to_topic(topic: &TopicId) -> TopicHash {
    TopicHash::from_raw(topic.to_string())
}

/// The topic that a gossip name stands for.
pub(crate) fn from_topic(topic: &TopicHash) -> Option<TopicId> {
    topic.as_str().parse().ok()
}

/// The protocol name of a lane.
pub(crate) fn protocol_of(lane: Lane) -> &'static str {
    match lane {
        Lane::Admission => "/collab-p2p/1/admission",
        Lane::Control => "/collab-p2p/1/control",
        Lane::Input => "/collab-p2p/1/input",
        Lane::Screen => "/collab-p2p/1/screen",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_member_is_its_peer_id() {
        let key = identity::Keypair::ed25519_from_bytes([7; 32]).unwrap();
        let public = key.public().try_into_ed25519().unwrap();
        let member = MemberId(public.to_bytes());

        assert_eq!(to_member(&key.public().to_peer_id()), Some(member));
        assert_eq!(to_peer(&member), Some(key.public().to_peer_id()));
        assert_eq!(to_member(&PeerId::from_bytes(&[0, 2, 8, 1]).unwrap()), None);
    }

    #[test]
    fn an_address_is_its_multiaddr() {
        for text in ["/ip4/192.0.2.7/tcp/4000", "/ip6/2001:db8::1/udp/9/quic-v1"] {
            let addr: Addr = text.parse().unwrap();
            assert_eq!(to_multiaddr(&addr).to_string(), text);
            assert_eq!(from_multiaddr(&text.parse().unwrap()), Some(addr));
        }
    }

    #[test]
    fn names_circuits_and_other_transports_are_no_addresses() {
        let peer = PeerId::random();
        for text in [
            "/dns4/example.org/tcp/1".to_owned(),
            "/ip4/192.0.2.7/udp/1".to_owned(),
            "/ip4/192.0.2.7/tcp/1/ws".to_owned(),
            format!("/ip4/192.0.2.7/tcp/1/p2p/{peer}/p2p-circuit"),
        ] {
            assert_eq!(from_multiaddr(&text.parse().unwrap()), None, "{text}");
        }
        let named: Multiaddr = format!("/ip4/192.0.2.7/tcp/1/p2p/{peer}").parse().unwrap();
        assert!(from_multiaddr(&named).is_some());
    }

    #[test]
    fn a_path_follows_our_interfaces() {
        let networks = [Network {
            ip: Ip::V4([10, 77, 0, 1]),
            prefix: 24,
        }];
        let path = |octets| path_to(&Ip::V4(octets), &networks);

        assert_eq!(path([127, 0, 0, 1]), Path::Loopback);
        assert_eq!(path([10, 77, 0, 1]), Path::Loopback);
        assert_eq!(path([10, 77, 0, 2]), Path::Lan);
        assert_eq!(path([10, 78, 0, 2]), Path::Direct);
    }
}
