//! The invitation as text: `cp2p1` and lower-case base32 without padding.
//!
//! The base32 holds two bytes of length (big endian, of the payload), one byte that guards them, the payload
//! in postcard, and four bytes of checksum. So a ticket that was cut off is told from a mistyped one. A ticket is
//! a secret: whoever holds it can join. It is never sent over the wire; `Debug` shows its session only, and
//! [`Ticket::to_text`] is the one way to the text.

use core::net::{Ipv4Addr, Ipv6Addr};
use std::fmt;

use data_encoding::{BASE32_NOPAD, Encoding, Specification};
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::engine::bounded;
use crate::engine::identity::{InviteKey, derive_key};
use crate::engine::ids::{MemberId, SessionId};
use crate::engine::limits::{
    ADDRESS_BYTES_MAX, GRANT_BYTES_MAX, GRANT_CHAIN_MAX, TICKET_ADDRESSES_MAX, TICKET_BYTES_MAX,
};
use crate::engine::time::Wall;

/// In front of every ticket: the format's name and its version.
const NAME: &str = "cp2p";
const VERSION: char = '1';
const PREFIX: &str = "cp2p1";
const HEADER_BYTES: usize = 3;
const CHECKSUM_BYTES: usize = 4;

/// Why a text is no ticket.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TicketError {
    /// Nothing but white space and quotes.
    #[error("the ticket is empty")]
    Empty,
    /// Something else.
    #[error("this is no ticket: a ticket begins with {PREFIX}")]
    Foreign,
    /// The beginning of a ticket.
    #[error("the ticket is cut off: it has {got} characters of {expected}")]
    Truncated {
        /// Characters that it has.
        got: usize,
        /// Characters that it had when it was made.
        expected: usize,
    },
    /// A mistyped or damaged ticket.
    #[error("the ticket is mistyped: its checksum does not match")]
    Malformed,
    /// More than any ticket has.
    #[error("a ticket has at most {TICKET_BYTES_MAX} bytes, got {0}")]
    TooLong(usize),
    /// A ticket of another version of the format.
    #[error("the ticket has version {got}, expected {VERSION}")]
    Version {
        /// The version it has.
        got: char,
    },
}

impl TicketError {
    /// The stable code that faces show.
    pub fn code(&self) -> &'static str {
        match self {
            Self::Empty => "ticket-empty",
            Self::Foreign => "ticket-foreign",
            Self::Truncated { .. } => "ticket-truncated",
            Self::Malformed => "ticket-malformed",
            Self::TooLong(_) => "ticket-too-long",
            Self::Version { .. } => "version-mismatch",
        }
    }
}

/// The seed of an invitation's key, as the ticket holds it. The order of the variants is part of the format.
#[derive(Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum TicketSecret {
    /// Ready to use.
    Open([u8; 32]),
    /// Under a password: XChaCha20-Poly1305 with a key from Argon2id, whose parameters the version fixes.
    Password {
        /// Salt of Argon2id.
        salt: [u8; 16],
        /// Nonce of the cipher.
        nonce: [u8; 24],
        /// The seed under it.
        ciphertext: [u8; 32],
        /// Its authentication.
        tag: [u8; 16],
    },
}

impl fmt::Debug for TicketSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Open(_) => "Open(..)",
            Self::Password { .. } => "Password(..)",
        })
    }
}

/// An invitation. The secrets in it leave memory when it is dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The session it invites to.
    pub session: SessionId,
    /// The seed of the invitation's key.
    pub secret: TicketSecret,
    /// The key under which the session is found; it never changes.
    pub discovery_key: [u8; 32],
    /// The member whom the addresses reach.
    pub host: MemberId,
    /// Multiaddresses as text, without a peer id at the end.
    pub addresses: Vec<String>,
    /// Signed grants that narrow the one in the membership log; empty for a member's own invitation.
    pub chain: Vec<Vec<u8>>,
    /// When joining ends, as a hint: sponsors judge by the grant.
    pub expires: Option<Wall>,
}

impl Ticket {
    /// The key that proves the invitation; none while a password is missing.
    pub fn invite_key(&self) -> Option<InviteKey> {
        match &self.secret {
            TicketSecret::Open(seed) => Some(InviteKey::from_seed(seed)),
            TicketSecret::Password { .. } => None,
        }
    }

    /// Whether a password has to be asked for.
    pub fn needs_password(&self) -> bool {
        match self.secret {
            TicketSecret::Open(_) => false,
            TicketSecret::Password { .. } => true,
        }
    }

    /// Whether joining has ended by this clock, as far as the ticket says.
    pub fn is_expired(&self, now: Wall) -> bool {
        self.expires.is_some_and(|end| now > end)
    }

    /// The secret text. Addresses and links beyond their bounds are left out, so every ticket can be read again.
    pub fn to_text(&self) -> Zeroizing<String> {
        let framed = Zeroizing::new(self.framed());
        let mut text = Zeroizing::new(BASE32_NOPAD.encode(&framed));
        text.make_ascii_lowercase();
        Zeroizing::new(format!("{PREFIX}{}", text.as_str()))
    }

    /// The line that a guest pastes into a shell.
    pub fn join_command(&self) -> Zeroizing<String> {
        Zeroizing::new(format!("collab-p2p join {}", self.to_text().as_str()))
    }

    /// Reads a ticket from what a person pasted: the bare text in any case, `collab-p2p:cp2p1…`, a whole
    /// `collab-p2p join …` line, with quotes or white space around, or wrapped over several lines.
    pub fn parse(text: &str) -> Result<Self, TicketError> {
        if text.len() > TICKET_BYTES_MAX {
            return Err(TicketError::TooLong(text.len()));
        }
        let found = find(text)?;
        let base32 = found.strip_prefix(PREFIX).ok_or(TicketError::Malformed)?;
        let expected = expected_length(base32)?;
        if base32.len() < expected {
            let prefix = PREFIX.len();
            return Err(TicketError::Truncated {
                got: prefix + base32.len(),
                expected: prefix + expected,
            });
        }
        let framed = decode_base32(base32).ok_or(TicketError::Malformed)?;
        Self::unframe(&framed).ok_or(TicketError::Malformed)
    }

    fn framed(&self) -> Vec<u8> {
        let payload = Zeroizing::new(self.payload());
        let length = u16::try_from(payload.len()).unwrap_or(u16::MAX);
        let [high, low] = length.to_be_bytes();
        let mut framed = vec![high, low, guard([high, low])];
        framed.extend_from_slice(&payload);
        framed.extend_from_slice(&checksum(&payload));
        framed
    }

    fn payload(&self) -> Vec<u8> {
        let addresses = self
            .addresses
            .iter()
            .filter(|address| address.len() <= ADDRESS_BYTES_MAX);
        let chain = self
            .chain
            .iter()
            .filter(|link| link.len() <= GRANT_BYTES_MAX);
        let wire = WireTicket {
            session: self.session,
            secret: self.secret.clone(),
            discovery_key: self.discovery_key,
            host: self.host,
            addresses: addresses
                .take(TICKET_ADDRESSES_MAX)
                .map(|text| WireAddress::of(text))
                .collect(),
            chain: chain.take(GRANT_CHAIN_MAX).cloned().collect(),
            expires: self.expires,
        };
        postcard::to_stdvec(&wire).unwrap_or_default()
    }

    /// None where length, checksum or encoding are not what [`Self::framed`] makes.
    fn unframe(framed: &[u8]) -> Option<Self> {
        let (header, rest) = framed.split_first_chunk::<HEADER_BYTES>()?;
        let (payload, sum) = rest.split_last_chunk::<CHECKSUM_BYTES>()?;
        let [high, low, _] = *header;
        if payload.len() != usize::from(u16::from_be_bytes([high, low]))
            || *sum != checksum(payload)
        {
            return None;
        }
        let wire: WireTicket = postcard::from_bytes(payload).ok()?;
        let ticket = Self {
            session: wire.session,
            secret: wire.secret,
            discovery_key: wire.discovery_key,
            host: wire.host,
            addresses: wire.addresses.iter().map(ToString::to_string).collect(),
            chain: wire.chain,
            expires: wire.expires,
        };
        (ticket.payload() == payload).then_some(ticket)
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Ticket(to {})", self.session.short())
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        self.discovery_key.zeroize();
    }
}

impl Drop for TicketSecret {
    fn drop(&mut self) {
        match self {
            Self::Open(seed) => seed.zeroize(),
            Self::Password { .. } => {}
        }
    }
}

/// A ticket as it is encoded.
#[derive(Serialize, Deserialize)]
struct WireTicket {
    session: SessionId,
    secret: TicketSecret,
    discovery_key: [u8; 32],
    host: MemberId,
    #[serde(deserialize_with = "bounded::list::<_, _, TICKET_ADDRESSES_MAX>")]
    addresses: Vec<WireAddress>,
    #[serde(deserialize_with = "bounded::list::<_, _, GRANT_CHAIN_MAX>")]
    chain: Vec<Vec<u8>>,
    expires: Option<Wall>,
}

/// An address in few bytes. The order of the variants is part of the format.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
enum WireAddress {
    Tcp4([u8; 4], u16),
    Quic4([u8; 4], u16),
    Tcp6([u8; 16], u16),
    Quic6([u8; 16], u16),
    /// Any other address.
    Text(String),
}

impl WireAddress {
    /// The shortest form that gives the very same text again.
    fn of(text: &str) -> Self {
        Self::compact(text)
            .filter(|compact| compact.to_string() == text)
            .unwrap_or_else(|| Self::Text(text.to_owned()))
    }

    fn compact(text: &str) -> Option<Self> {
        let mut parts = text.strip_prefix('/')?.split('/');
        let (family, ip) = (parts.next()?, parts.next()?);
        let (carrier, port) = (parts.next()?, parts.next()?.parse().ok()?);
        let rest: Vec<&str> = parts.collect();
        match (family, carrier, rest.as_slice()) {
            ("ip4", "tcp", []) => Some(Self::Tcp4(ip.parse::<Ipv4Addr>().ok()?.octets(), port)),
            ("ip4", "udp", ["quic-v1"]) => {
                Some(Self::Quic4(ip.parse::<Ipv4Addr>().ok()?.octets(), port))
            }
            ("ip6", "tcp", []) => Some(Self::Tcp6(ip.parse::<Ipv6Addr>().ok()?.octets(), port)),
            ("ip6", "udp", ["quic-v1"]) => {
                Some(Self::Quic6(ip.parse::<Ipv6Addr>().ok()?.octets(), port))
            }
            _ => None,
        }
    }
}

impl fmt::Display for WireAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp4(ip, port) => write!(f, "/ip4/{}/tcp/{port}", Ipv4Addr::from(*ip)),
            Self::Quic4(ip, port) => write!(f, "/ip4/{}/udp/{port}/quic-v1", Ipv4Addr::from(*ip)),
            Self::Tcp6(ip, port) => write!(f, "/ip6/{}/tcp/{port}", Ipv6Addr::from(*ip)),
            Self::Quic6(ip, port) => write!(f, "/ip6/{}/udp/{port}/quic-v1", Ipv6Addr::from(*ip)),
            Self::Text(text) => f.write_str(text),
        }
    }
}

/// The ticket in a pasted text, in lower case, joined where a line end cut it.
fn find(text: &str) -> Result<Zeroizing<String>, TicketError> {
    let mut words = text
        .split_whitespace()
        .map(unquoted)
        .filter(|word| !word.is_empty())
        .peekable();
    if words.peek().is_none() {
        return Err(TicketError::Empty);
    }
    let first = words
        .by_ref()
        .map(|word| Zeroizing::new(word.to_ascii_lowercase()))
        .find_map(|word| {
            let bare = word.strip_prefix("collab-p2p:").unwrap_or(&word);
            bare.starts_with(NAME)
                .then(|| Zeroizing::new(bare.to_owned()))
        });
    let mut found = first.ok_or(TicketError::Foreign)?;
    check_version(&found)?;
    for word in words {
        let word = Zeroizing::new(word.to_ascii_lowercase());
        let is_whole = found
            .strip_prefix(PREFIX)
            .is_some_and(|base32| expected_length(base32).is_ok_and(|most| base32.len() >= most));
        if is_whole || !word.bytes().all(is_base32) {
            break;
        }
        found.push_str(&word);
    }
    Ok(found)
}

fn check_version(found: &str) -> Result<(), TicketError> {
    match found.strip_prefix(NAME).map(|rest| rest.chars().next()) {
        Some(Some(VERSION)) => Ok(()),
        Some(Some(got)) if got.is_ascii_alphanumeric() => Err(TicketError::Version { got }),
        Some(Some(_)) => Err(TicketError::Foreign),
        Some(None) | None => Err(too_short(found.len())),
    }
}

fn unquoted(word: &str) -> &str {
    let quote = |c: char| {
        matches!(
            c,
            '"' | '\'' | '`' | '<' | '>' | '“' | '”' | '‘' | '’' | '«' | '»'
        )
    };
    word.trim_matches(quote)
}

fn is_base32(byte: u8) -> bool {
    matches!(byte, b'a'..=b'z' | b'2'..=b'7')
}

/// Characters of base32 that the header announces.
fn expected_length(base32: &str) -> Result<usize, TicketError> {
    if !base32.bytes().all(is_base32) {
        return Err(TicketError::Malformed);
    }
    // Five characters hold the three bytes of the header and one bit more.
    let head = base32
        .get(..5)
        .ok_or_else(|| too_short(PREFIX.len() + base32.len()))?;
    let bytes = header_encoding().and_then(|encoding| encoding.decode(head.as_bytes()).ok());
    let header = bytes
        .as_deref()
        .and_then(|bytes| bytes.first_chunk::<HEADER_BYTES>());
    let [high, low, guarded] = *header.ok_or(TicketError::Malformed)?;
    if guarded != guard([high, low]) {
        return Err(TicketError::Malformed);
    }
    let length = usize::from(u16::from_be_bytes([high, low]));
    Ok(BASE32_NOPAD.encode_len(HEADER_BYTES + length + CHECKSUM_BYTES))
}

/// Shorter than the header, so the true length is unknown: the shortest ticket stands for it.
fn too_short(got: usize) -> TicketError {
    let least = HEADER_BYTES + 4 * 32 + CHECKSUM_BYTES;
    TicketError::Truncated {
        got,
        expected: PREFIX.len() + BASE32_NOPAD.encode_len(least),
    }
}

/// Lower-case base32 that ignores the bits after the last whole byte.
fn header_encoding() -> Option<Encoding> {
    let mut specification = Specification::new();
    specification
        .symbols
        .push_str("abcdefghijklmnopqrstuvwxyz234567");
    specification.check_trailing_bits = false;
    specification.encoding().ok()
}

fn decode_base32(text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let upper = Zeroizing::new(text.to_ascii_uppercase());
    BASE32_NOPAD
        .decode(upper.as_bytes())
        .ok()
        .map(Zeroizing::new)
}

/// CRC-8 (polynomial x⁸+x²+x+1): finds every slip within one character of the length.
fn guard(length: [u8; 2]) -> u8 {
    length.iter().fold(0xA5, |crc, byte| {
        (0..8).fold(crc ^ byte, |crc, _| {
            if crc & 0x80 == 0 {
                crc << 1
            } else {
                (crc << 1) ^ 0x07
            }
        })
    })
}

fn checksum(payload: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = derive_key("collab-p2p v1 ticket checksum", &[payload]);
    [a, b, c, d]
}

#[cfg(test)]
pub(in crate::engine) mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_ticket_survives_its_text() {
        for ticket in [plain(), with_password(), with_chain()] {
            let text = ticket.to_text();

            assert!(text.starts_with("cp2p1"));
            assert_eq!(Ticket::parse(&text), Ok(ticket));
        }
    }

    #[test]
    fn the_line_to_paste_has_at_most_700_characters_with_four_addresses() {
        let line = plain().join_command();

        assert_eq!(plain().addresses.len(), 4);
        assert!(line.len() <= 700, "{}", line.len());
        assert_eq!(line.lines().count(), 1);
    }

    #[test]
    fn a_ticket_is_found_in_what_people_paste() {
        let (ticket, text) = (plain(), plain().to_text());
        let text = text.as_str();
        let (head, tail) = text.split_at(80);
        let pasted = [
            format!("  {text}\n"),
            format!("'{text}'"),
            format!("“{text}”"),
            format!("collab-p2p:{text}"),
            format!("<collab-p2p:{text}>"),
            format!("collab-p2p join {text}"),
            format!("$ collab-p2p join \"{text}\" --name ana"),
            format!("\"collab-p2p join {text}\""),
            format!("collab-p2p join --name ana {head}\n{tail}\n"),
            text.to_ascii_uppercase(),
        ];

        for paste in pasted {
            assert_eq!(Ticket::parse(&paste).as_ref(), Ok(&ticket), "{paste}");
        }
    }

    #[test]
    fn a_ticket_cut_off_anywhere_is_told_as_such() {
        for ticket in [plain(), with_chain()] {
            let text = ticket.to_text();
            for length in NAME.len()..text.len() {
                let verdict = Ticket::parse(&text[..length]);
                assert!(
                    matches!(verdict, Err(TicketError::Truncated { .. })),
                    "at {length}"
                );
            }
            let cut = format!("collab-p2p join {} --name ana", &text[..100]);
            let expected = text.len();
            assert_eq!(
                Ticket::parse(&cut),
                Err(TicketError::Truncated { got: 100, expected })
            );
        }
    }

    #[test]
    fn a_ticket_with_one_wrong_character_is_told_as_mistyped() {
        let text = plain().to_text();

        for place in PREFIX.len()..text.len() {
            for wrong in ["a", "7", "k", "0", "-"] {
                if &text[place..=place] == wrong {
                    continue;
                }
                let mistyped = format!("{}{wrong}{}", &text[..place], &text[place + 1..]);
                let verdict = Ticket::parse(&mistyped);
                assert_eq!(verdict, Err(TicketError::Malformed), "{wrong} at {place}");
            }
        }
    }

    #[test]
    fn what_is_no_ticket_is_told_apart() {
        let text = plain().to_text();
        let version = text.replacen("cp2p1", "cp2p2", 1);
        let longer = format!("{}aaaa", text.as_str());

        assert_eq!(Ticket::parse(" \n\"\" "), Err(TicketError::Empty));
        assert_eq!(
            Ticket::parse("https://example.org/s/abc"),
            Err(TicketError::Foreign)
        );
        assert_eq!(Ticket::parse("collab-p2p join"), Err(TicketError::Foreign));
        assert_eq!(
            Ticket::parse(&version),
            Err(TicketError::Version { got: '2' })
        );
        assert_eq!(
            Ticket::parse(&"c".repeat(8_193)),
            Err(TicketError::TooLong(8_193))
        );
        assert_eq!(Ticket::parse(&longer), Err(TicketError::Malformed));
    }

    #[test]
    fn codes_are_those_of_the_interface() {
        assert_eq!(TicketError::Empty.code(), "ticket-empty");
        assert_eq!(
            TicketError::Truncated {
                got: 1,
                expected: 2
            }
            .code(),
            "ticket-truncated"
        );
        assert_eq!(TicketError::Version { got: '2' }.code(), "version-mismatch");
    }

    #[test]
    fn a_ticket_has_no_second_spelling() {
        let ticket = plain();
        let verbose = WireTicket {
            session: ticket.session,
            secret: ticket.secret.clone(),
            discovery_key: ticket.discovery_key,
            host: ticket.host,
            addresses: vec![WireAddress::Text("/ip4/127.0.0.1/tcp/80".to_owned())],
            chain: Vec::new(),
            expires: None,
        };

        let verdict = Ticket::parse(&frame(&postcard::to_stdvec(&verbose).unwrap()));

        assert_eq!(verdict, Err(TicketError::Malformed));
    }

    #[test]
    fn an_address_comes_back_as_the_same_text() {
        let addresses = [
            "/ip4/192.168.1.20/udp/40123/quic-v1",
            "/ip4/10.0.0.1/tcp/65535",
            "/ip6/fd00::1/udp/1/quic-v1",
            "/ip6/::ffff:1.2.3.4/tcp/9",
            "/ip4/1.2.3.4/udp/9",
            "/ip4/1.2.3.4/tcp/09",
            "/dns4/relay.example.org/tcp/443/wss",
            "no address",
        ];

        for address in addresses {
            assert_eq!(WireAddress::of(address).to_string(), address);
        }
    }

    #[test]
    fn a_ticket_prints_nothing_secret() {
        let ticket = plain();

        let shown = format!("{ticket:?} {:?}", ticket.secret);

        assert_eq!(shown, "Ticket(to 0505050505) Open(..)");
    }

    #[test]
    fn a_ticket_under_a_password_yields_no_key() {
        assert!(with_password().invite_key().is_none() && with_password().needs_password());
        let key = plain().invite_key().map(|key| key.id());
        assert_eq!(key, Some(InviteKey::from_seed(&[7; 32]).id()));
    }

    #[test]
    fn a_ticket_is_expired_after_its_end() {
        assert!(!plain().is_expired(Wall(1_800_000_000_000)));
        assert!(plain().is_expired(Wall(1_800_000_000_001)));
    }

    proptest! {
        #[test]
        fn no_text_makes_the_parser_panic(text in ".{0,200}") {
            prop_assert!(Ticket::parse(&text).is_err());
            let begun = format!("cp2p1{text}");
            prop_assert!(Ticket::parse(&begun).is_err());
        }

        #[test]
        fn no_payload_makes_the_parser_panic(payload in prop::collection::vec(any::<u8>(), 0..300)) {
            prop_assert!(Ticket::parse(&frame(&payload)).is_err());
        }
    }

    fn plain() -> Ticket {
        Ticket {
            session: SessionId([5; 32]),
            secret: TicketSecret::Open([7; 32]),
            discovery_key: [8; 32],
            host: MemberId([6; 32]),
            addresses: vec![
                "/ip6/fd12:3456:789a:bcde:f012:3456:789a:bcde/udp/40123/quic-v1".to_owned(),
                "/ip6/fd12:3456:789a:bcde:f012:3456:789a:bcde/tcp/40123".to_owned(),
                "/ip6/fd12:3456:789a:bcde:f012:3456:789a:bcdf/udp/40123/quic-v1".to_owned(),
                "/ip4/192.168.178.120/udp/40123/quic-v1".to_owned(),
            ],
            chain: Vec::new(),
            expires: Some(Wall(1_800_000_000_000)),
        }
    }

    fn with_password() -> Ticket {
        let mut ticket = plain();
        ticket.secret = TicketSecret::Password {
            salt: [1; 16],
            nonce: [2; 24],
            ciphertext: [3; 32],
            tag: [4; 16],
        };
        ticket
    }

    fn with_chain() -> Ticket {
        let mut ticket = plain();
        ticket.chain = vec![vec![9; 300], vec![10; 300]];
        ticket.expires = None;
        ticket
    }

    /// The binary form inside tickets of each kind.
    pub(in crate::engine) fn payloads() -> Vec<Vec<u8>> {
        [plain(), with_password(), with_chain()]
            .map(|ticket| ticket.payload())
            .into()
    }

    /// A ticket's text around any payload, with its right length and checksum.
    pub(in crate::engine) fn frame(payload: &[u8]) -> String {
        let [high, low] = u16::try_from(payload.len()).unwrap().to_be_bytes();
        let header = [high, low, guard([high, low])];
        let framed = [&header[..], payload, &checksum(payload)[..]].concat();
        format!(
            "{PREFIX}{}",
            BASE32_NOPAD.encode(&framed).to_ascii_lowercase()
        )
    }
}
