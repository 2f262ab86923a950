//! Addresses as plain data: where a node listens and where a peer may be dialled.
//!
//! The text form is that of multiaddr (<https://multiformats.io/multiaddr/>) for the two transports in use:
//! `/ip4/192.0.2.7/tcp/4000` and `/ip4/192.0.2.7/udp/4000/quic-v1`, with `ip6` likewise.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// An IP address, in network byte order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Ip {
    /// Version 4.
    V4([u8; 4]),
    /// Version 6.
    V6([u8; 16]),
}

/// How bytes travel to an address.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub enum Transport {
    /// TCP with Noise and Yamux.
    Tcp,
    /// QUIC version 1 over UDP.
    Quic,
}

/// A place to dial or to listen at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Addr {
    /// The host's address.
    pub ip: Ip,
    /// The TCP or UDP port; 0 means any when listening.
    pub port: u16,
    /// What is spoken there.
    pub transport: Transport,
}

/// A network that one of our interfaces is in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Network {
    /// Our address in it.
    pub ip: Ip,
    /// Leading bits that all its addresses share.
    pub prefix: u8,
}

/// A text that is no address we speak.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is no address like /ip4/192.0.2.7/tcp/4000 or /ip4/192.0.2.7/udp/4000/quic-v1")]
pub struct ParseAddrError(pub String);

/// What an address may be dialled for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// This machine only.
    Loopback,
    /// Private ranges (RFC 1918, RFC 6598, RFC 4193) and documentation ranges.
    Private,
    /// Routable.
    Public,
    /// Link-local, multicast, unspecified, broadcast: never dialled.
    Never,
}

impl Ip {
    /// What kind of address this is.
    pub fn reach(&self) -> Reach {
        match self.unmapped() {
            Self::V4(octets) => reach_v4(Ipv4Addr::from(octets)),
            Self::V6(octets) => reach_v6(Ipv6Addr::from(octets)),
        }
    }

    /// The version 4 address inside a mapped version 6 one, else itself.
    pub fn unmapped(self) -> Self {
        match self {
            Self::V4(_) => self,
            Self::V6(octets) => Ipv6Addr::from(octets)
                .to_ipv4_mapped()
                .map_or(self, |v4| Self::V4(v4.octets())),
        }
    }
}

fn reach_v4(ip: Ipv4Addr) -> Reach {
    let [a, b, _, _] = ip.octets();
    if ip.is_loopback() {
        Reach::Loopback
    } else if ip.is_link_local() || ip.is_multicast() || ip.is_broadcast() || a == 0 || a >= 240 {
        Reach::Never
    } else if ip.is_private() || ip.is_documentation() || (a == 100 && (64..128).contains(&b)) {
        Reach::Private
    } else {
        Reach::Public
    }
}

fn reach_v6(ip: Ipv6Addr) -> Reach {
    let [first, second, ..] = ip.segments();
    if ip.is_loopback() {
        Reach::Loopback
    } else if ip.is_unspecified() || ip.is_multicast() || ip.is_unicast_link_local() {
        Reach::Never
    } else if ip.is_unique_local() || (first == 0x2001 && second == 0xdb8) {
        Reach::Private
    } else {
        Reach::Public
    }
}

impl Network {
    /// Whether `ip` is in this network.
    pub fn holds(&self, ip: &Ip) -> bool {
        match (self.ip.unmapped(), ip.unmapped()) {
            (Ip::V4(ours), Ip::V4(theirs)) => same_prefix(&ours, &theirs, self.prefix),
            (Ip::V6(ours), Ip::V6(theirs)) => same_prefix(&ours, &theirs, self.prefix),
            (Ip::V4(_), Ip::V6(_)) | (Ip::V6(_), Ip::V4(_)) => false,
        }
    }
}

fn same_prefix(ours: &[u8], theirs: &[u8], prefix: u8) -> bool {
    let mut left = u32::from(prefix);
    for (a, b) in ours.iter().zip(theirs) {
        if left == 0 {
            return true;
        }
        let bits = left.min(8);
        let mask = u8::MAX.checked_shl(8 - bits).unwrap_or(0);
        if a & mask != b & mask {
            return false;
        }
        left -= bits;
    }
    left == 0
}

impl fmt::Display for Addr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.ip {
            Ip::V4(octets) => write!(f, "/ip4/{}", Ipv4Addr::from(octets))?,
            Ip::V6(octets) => write!(f, "/ip6/{}", Ipv6Addr::from(octets))?,
        }
        match self.transport {
            Transport::Tcp => write!(f, "/tcp/{}", self.port),
            Transport::Quic => write!(f, "/udp/{}/quic-v1", self.port),
        }
    }
}

impl FromStr for Addr {
    type Err = ParseAddrError;

    fn from_str(text: &str) -> Result<Self, ParseAddrError> {
        parse(text).ok_or_else(|| ParseAddrError(text.chars().take(100).collect()))
    }
}

fn parse(text: &str) -> Option<Addr> {
    let mut parts = text.strip_prefix('/')?.split('/');
    let ip = match (parts.next()?, parts.next()?) {
        ("ip4", ip) => Ip::V4(ip.parse::<Ipv4Addr>().ok()?.octets()),
        ("ip6", ip) => Ip::V6(ip.parse::<Ipv6Addr>().ok()?.octets()),
        _ => return None,
    };
    let (kind, port) = (parts.next()?, parts.next()?.parse().ok()?);
    let transport = match (kind, parts.next()) {
        ("tcp", None) => Transport::Tcp,
        ("udp", Some("quic-v1")) => Transport::Quic,
        _ => return None,
    };
    parts.next().is_none().then_some(Addr {
        ip,
        port,
        transport,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_survives_its_text_form() {
        for text in [
            "/ip4/192.0.2.7/tcp/4000",
            "/ip4/10.0.0.1/udp/1/quic-v1",
            "/ip6/2001:db8::1/tcp/65535",
            "/ip6/::1/udp/9/quic-v1",
        ] {
            assert_eq!(text.parse::<Addr>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_not_spoken_is_no_address() {
        for text in [
            "",
            "/",
            "/ip4/1.2.3.4",
            "/dns/x/tcp/1",
            "/ip4/1.2.3.4/udp/1",
            "/ip4/1.2.3.4/tcp/70000",
        ] {
            assert!(text.parse::<Addr>().is_err(), "{text}");
        }
    }

    #[test]
    fn reach_follows_the_registries() {
        let reach = |ip: &str| {
            format!("/ip4/{ip}/tcp/1")
                .parse::<Addr>()
                .unwrap()
                .ip
                .reach()
        };
        assert_eq!(reach("127.0.0.1"), Reach::Loopback);
        assert_eq!(reach("10.1.2.3"), Reach::Private);
        assert_eq!(reach("100.64.0.1"), Reach::Private);
        assert_eq!(reach("169.254.1.1"), Reach::Never);
        assert_eq!(reach("224.0.0.251"), Reach::Never);
        assert_eq!(reach("0.0.0.0"), Reach::Never);
        assert_eq!(reach("8.8.8.8"), Reach::Public);
        let mapped: Addr = "/ip6/::ffff:127.0.0.1/tcp/1".parse().unwrap();
        assert_eq!(mapped.ip.reach(), Reach::Loopback);
    }

    #[test]
    fn a_network_holds_what_shares_its_prefix() {
        let network = Network {
            ip: Ip::V4([10, 77, 0, 1]),
            prefix: 23,
        };
        assert!(network.holds(&Ip::V4([10, 77, 1, 200])));
        assert!(!network.holds(&Ip::V4([10, 77, 2, 1])));
        assert!(!network.holds(&Ip::V6([0; 16])));
    }
}
