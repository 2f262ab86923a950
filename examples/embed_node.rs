//! Shares a session through the library: a program of one's own opens a terminal, prints the ticket, tells what
//! happens, answers in the chat, and ends with the shell.
//!
//! ```sh
//! cargo run --example embed_node -- sh -c 'echo shared; sleep 60'
//! ```
#![expect(
    clippy::print_stdout,
    clippy::print_stderr,
    reason = "an example that talks to the person who runs it"
)]

use std::error::Error;
use std::path::PathBuf;
use std::time::Duration;

use collab_p2p::engine::NewSession;
use collab_p2p::engine::capability::Role;
use collab_p2p::engine::command::{Ask, Command, ControlMode, TerminalSpec};
use collab_p2p::engine::effect::StopReason;
use collab_p2p::engine::view::{SessionEvent, What};
use collab_p2p::node::folder::{EnvPaths, Folders};
use collab_p2p::node::{self, Handle, Settings, ShareWith};

#[tokio::main]
async fn main() -> Result<(), Box<dyn Error>> {
    let mut argv: Vec<String> = std::env::args().skip(1).collect();
    if argv.is_empty() {
        argv = ["sh", "-c", "echo shared by embed_node; sleep 60"]
            .map(str::to_owned)
            .into();
    }
    // A folder of its own: what this example shares is no membership of yours.
    let state = std::env::temp_dir().join(format!("collab-p2p-embed-{}", std::process::id()));

    let running = node::share(settings(state.clone())?, what(argv)).await?;
    let ticket = running
        .invite
        .as_ref()
        .and_then(|invite| invite.ticket.clone())
        .unwrap_or_default();
    println!("{ticket}");

    let handle = running.handle.clone();
    let talking = tokio::spawn(talk(handle));
    let reason = running.stopped().await;
    talking.abort();
    if let StopReason::Closed(Some(status)) = reason {
        eprintln!("the shell has ended with status {}", status.0);
    }
    std::fs::remove_dir_all(state)?;
    Ok(())
}

fn settings(state: PathBuf) -> Result<Settings, Box<dyn Error>> {
    let env = EnvPaths {
        temp: std::env::temp_dir(),
        ..EnvPaths::default()
    };
    Ok(Settings {
        folders: Folders::resolve(Some(state), &env)?,
        listen: Vec::new(),
        mdns: true,
        lan_only: false,
    })
}

fn what(argv: Vec<String>) -> ShareWith {
    ShareWith {
        new: NewSession {
            name: "embed".to_owned(),
            title: "embedded".to_owned(),
            ask: Ask::Auto,
            control: ControlMode::Ask,
        },
        terminal: TerminalSpec {
            argv,
            cwd: None,
            env: Vec::new(),
            title: "embedded".to_owned(),
            cols: 80,
            rows: 24,
        },
        role: Role::Viewer,
        expires_in: Some(Duration::from_secs(3_600)),
        addresses: true,
    }
}

/// Greets whoever joins, and says what is said.
async fn talk(handle: Handle) {
    let mut events = handle.events();
    let me = handle.view().me;
    while let Ok(event) = events.recv().await {
        let SessionEvent { what, .. } = &event.event;
        if let What::ParticipantJoined {
            participant, name, ..
        } = what
            && *participant != me
        {
            let greeting = Command::PostMessage {
                text: format!("welcome, {name}"),
                reply: None,
                mentions: vec![*participant],
                anchor: None,
            };
            if let Err(error) = handle.command(greeting).await {
                eprintln!("the greeting was not saved: {error}");
            }
        }
        if let What::MessagePosted { message } = what {
            eprintln!(
                "{}: {}",
                message.name.escape_debug(),
                message.text.escape_debug()
            );
        }
    }
}
