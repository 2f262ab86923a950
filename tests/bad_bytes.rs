//! Tickets that are none, and hosts that speak otherwise: what the program says to them, and how it ends.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use collab_p2p::engine::admission::AdmissionMessage;
use collab_p2p::engine::effect::NetEffect;
use collab_p2p::engine::event::{Lane, NetEvent};
use collab_p2p::engine::identity::MemberKey;
use collab_p2p::engine::ids::SessionId;
use collab_p2p::engine::ticket::{Ticket, TicketSecret};
use collab_p2p::net::{Net, NetConfig, NetEvents, NetHandle, Scope};

use crate::harness::{Machine, Ran, User, finish};

const JOIN: [&str; 5] = ["join", "--headless", "--no-mdns", "--timeout", "2s"];
/// Longer than that the system takes no argument and no variable.
const ARGUMENT_BYTES: usize = 100_000;

/// A ticket whose every field is in order; nobody is behind it.
fn ticket() -> Ticket {
    Ticket {
        session: SessionId([5; 32]),
        secret: TicketSecret::Open([7; 32]),
        discovery_key: [8; 32],
        host: MemberKey::from_bytes(&[6; 32]).id(),
        addresses: vec!["/ip4/127.0.0.1/tcp/9".to_owned()],
        chain: Vec::new(),
        expires: None,
    }
}

fn by_stdin(guest: &User, ticket: &[u8]) -> Ran {
    guest.run_with(&[&JOIN[..], &["-"]].concat(), ticket)
}

fn by_variable(guest: &User, ticket: &[u8]) -> Ran {
    let mut command = guest.command(&JOIN);
    command.env("COLLAB_P2P_TICKET", OsStr::from_bytes(ticket));
    finish(command, b"")
}

fn by_argument(guest: &User, ticket: &[u8]) -> Ran {
    let words = JOIN.map(OsStr::new);
    guest.run(&[&words[..], &[OsStr::from_bytes(ticket)]].concat())
}

/// Nothing that a terminal obeys: line ends and what can be seen.
#[track_caller]
fn is_inert(ran: &Ran) {
    let hostile = |char: char| (char.is_control() && char != '\n') || char == '\u{202e}';
    assert!(
        !ran.err.contains(hostile) && !ran.out.contains(hostile),
        "{:?}{:?}",
        ran.out,
        ran.err
    );
}

#[test]
fn a_ticket_of_a_megabyte_is_refused_by_its_length() {
    let machine = Machine::new();
    let guest = machine.user("guest");
    let text = ticket().to_text().repeat(1 << 13);
    assert!(text.len() > 1 << 20);

    let long = text.as_bytes();
    by_stdin(&guest, long).is_refusal(4, "ticket-too-long");
    by_stdin(&guest, &[&b" ".repeat(1 << 20), long].concat()).is_refusal(4, "ticket-too-long");
    by_variable(&guest, &long[..ARGUMENT_BYTES]).is_refusal(4, "ticket-too-long");
    by_argument(&guest, &long[..ARGUMENT_BYTES]).is_refusal(4, "ticket-too-long");
}

#[test]
fn bytes_that_are_no_text_are_no_ticket() {
    let machine = Machine::new();
    let guest = machine.user("guest");
    let text = ticket().to_text();
    let noise: Vec<u8> = (0..1_u32 << 20)
        .map(|n| n.wrapping_mul(2_654_435_769).to_be_bytes()[0])
        .collect();
    let noise: Vec<u8> = noise.into_iter().filter(|byte| *byte != b'\n').collect();
    let broken = [
        &text.as_bytes()[..40],
        &[0xff, 0xfe, 0xc3],
        text[40..].as_bytes(),
    ]
    .concat();

    for (bytes, code) in [
        (noise.as_slice(), "ticket-foreign"),
        (&broken, "ticket-foreign"),
    ] {
        let ran = by_stdin(&guest, bytes);
        ran.is_refusal(4, code);
        is_inert(&ran);
    }
    let ran = by_variable(&guest, &broken);
    ran.is_refusal(4, "ticket-malformed");
    is_inert(&ran);
    let ran = by_argument(&guest, &broken);
    ran.is_refusal(2, "usage");
    is_inert(&ran);
    let zeros = [text.as_bytes(), &[0; 20], b"\n"].concat();
    by_stdin(&guest, &zeros).is_refusal(4, "ticket-malformed");
    by_stdin(&guest, &[0; 100]).is_refusal(4, "ticket-foreign");
}

#[test]
fn what_a_terminal_would_obey_in_a_ticket_is_never_printed() {
    let machine = Machine::new();
    let guest = machine.user("guest");
    let text = ticket().to_text();
    let text = text.as_str();
    let (head, tail) = text.split_at(30);

    for hostile in [
        "\u{1b}[2J",
        "\u{1b}]0;mine\u{7}",
        "\r\u{8}\u{8}",
        "\u{9b}31m",
        "\u{202e}\u{85}",
    ] {
        for bad in [
            hostile.to_owned(),
            format!("{hostile}{text}"),
            format!("{head}{hostile}{tail}"),
            format!("cp2p{hostile}"),
            format!("cp2p1{hostile}"),
            format!("--{hostile}"),
            format!("-{hostile}"),
        ] {
            let ran = by_argument(&guest, bad.as_bytes());
            // What stands apart from a good ticket is passed over; then nobody is found.
            assert!(
                [2, 4, 5].contains(&ran.code),
                "{bad:?}: {} {}",
                ran.code,
                ran.err
            );
            is_inert(&ran);
        }
    }
}

#[test]
fn a_ticket_of_another_version_is_told_with_both_versions_and_what_to_do() {
    let machine = Machine::new();
    let guest = machine.user("guest");

    for version in ["0", "2", "9", "z"] {
        let other = ticket()
            .to_text()
            .replacen("cp2p1", &format!("cp2p{version}"), 1);
        let ran = by_stdin(&guest, other.as_bytes());
        let told = ran.is_refusal(9, "version-mismatch");

        assert!(
            told.contains(&format!("version {version}")) && told.contains('1'),
            "{told}"
        );
        assert!(
            ran.err
                .contains("the same version of collab-p2p on both sides"),
            "{}",
            ran.err
        );
    }
}

/// Something that listens where a ticket says, and answers each admission with these bytes.
struct Impostor {
    runtime: tokio::runtime::Runtime,
    net: Option<NetHandle>,
    ticket: Ticket,
}

impl Impostor {
    fn answering(answer: Vec<u8>) -> Self {
        let runtime = tokio::runtime::Runtime::new().unwrap();
        let (net, mut events, listen) = runtime.block_on(listening());
        let handle = net.clone();
        runtime.spawn(async move {
            while let Some(event) = events.recv().await {
                if let NetEvent::StreamOpened {
                    stream,
                    lane: Lane::Admission,
                    ..
                } = event
                {
                    let message = answer.clone();
                    handle.perform(NetEffect::Send { stream, message });
                }
            }
        });
        let mut ticket = ticket();
        ticket.addresses = listen;
        Self {
            runtime,
            net: Some(net),
            ticket,
        }
    }
}

impl Drop for Impostor {
    fn drop(&mut self) {
        if let Some(net) = self.net.take() {
            self.runtime.block_on(net.shutdown());
        }
    }
}

/// A node of ours as far as the network goes, under the key that [`ticket`] names, and where it listens.
async fn listening() -> (NetHandle, NetEvents, Vec<String>) {
    let config = NetConfig {
        mdns: false,
        scope: Scope::Loopback,
        ..NetConfig::new([6; 32])
    };
    let (net, mut events) = Net::start(config).unwrap();
    loop {
        if let Some(NetEvent::Listening(addrs)) = events.recv().await
            && addrs.len() >= 2
        {
            let listen = addrs.iter().map(ToString::to_string).collect();
            return (net, events, listen);
        }
    }
}

#[test]
fn a_host_that_speaks_another_version_is_told_with_both_versions_and_what_to_do() {
    let hello = AdmissionMessage::Hello {
        version: 7,
        token: [1; 32],
    };
    // A later version may say more than this program can read.
    let later = [hello.encode(), vec![0xff; 60]].concat();
    let machine = Machine::new();
    let guest = machine.user("guest");

    for answer in [hello.encode(), later] {
        let host = Impostor::answering(answer);
        let ran = by_argument(&guest, host.ticket.to_text().as_bytes());

        let told = ran.is_refusal(9, "version-mismatch");
        assert!(
            told.contains("version 7") && told.contains("version 1"),
            "{told}"
        );
        assert!(
            ran.err
                .contains("the same version of collab-p2p on both sides"),
            "{}",
            ran.err
        );
    }
}

#[test]
fn a_host_that_speaks_nonsense_is_given_up_in_time() {
    let machine = Machine::new();
    let guest = machine.user("guest");

    for answer in [vec![0xff; 100], vec![1; 3], vec![7; 60_000]] {
        let host = Impostor::answering(answer);
        let ran = by_argument(&guest, host.ticket.to_text().as_bytes());

        ran.is_refusal(5, "peer-unreachable");
        is_inert(&ran);
    }
}
