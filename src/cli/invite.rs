//! `invite create|list|show`.

use std::io::IsTerminal;

use clap::{Args, Subcommand, ValueEnum};
use serde_json::{Value, json};

use crate::cli::error::CliError;
use crate::cli::nodes::{self, items, text};
use crate::cli::output::{Column, minute, shown};
use crate::cli::values::{Expiry, expiry};
use crate::cli::{Context, ask, values};
use crate::engine::error::Code;
use crate::engine::time::Wall;
use crate::gateway::json::Time;

/// Make and show invitations.
#[derive(Debug, Args)]
pub(crate) struct InviteArgs {
    #[command(subcommand)]
    verb: Verb,
}

/// What a ticket makes of its bearer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum TicketRole {
    /// Watch and chat
    Viewer,
    /// Also edit, invite and share terminals
    Editor,
}

impl TicketRole {
    /// The word in the API.
    pub(crate) fn word(self) -> &'static str {
        match self {
            Self::Viewer => "viewer",
            Self::Editor => "editor",
        }
    }
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Make an invitation and print its ticket
    Create {
        /// What its bearer becomes
        #[arg(long, value_enum, default_value_t = TicketRole::Viewer)]
        role: TicketRole,
        /// How long one may join by it, or never
        #[arg(long, value_parser = expiry, default_value = "24h", value_name = "DURATION|never")]
        expires: Expiry,
        #[command(flatten)]
        ask: ask::AskArgs,
        /// A ticket without addresses
        #[arg(long)]
        no_addrs: bool,
        /// Put the join command into the clipboard, by way of the terminal
        #[arg(long)]
        copy: bool,
    },
    /// List invitations
    List,
    /// Print an invitation's ticket
    Show {
        /// Its id (6 characters suffice); the newest if none is named
        id: Option<String>,
        /// Put the join command into the clipboard, by way of the terminal
        #[arg(long)]
        copy: bool,
    },
}

/// Runs one of the verbs.
pub(crate) async fn run(context: &Context, args: &InviteArgs) -> Result<i32, CliError> {
    let found = nodes::one(context).await?;
    match &args.verb {
        Verb::Create {
            role,
            expires,
            ask,
            no_addrs,
            copy,
        } => {
            let seconds = expires.0.map(|duration| duration.as_secs());
            let body = json!({
                "role": role.word(),
                "expires_in": seconds,
                "ask": ask.word(),
                "addresses": !no_addrs,
            });
            let invite = found.client.post("/api/v1/invites", &body).await?;
            if std::io::stdout().is_terminal() && !context.output.json {
                explain(context, &invite);
            }
            print(context, &invite, *copy);
        }
        Verb::List => {
            let invites = found.client.get("/api/v1/invites").await?;
            if context.output.json {
                context.output.value(&invites);
            } else if items(&invites).is_empty() {
                context
                    .output
                    .say("no invitations here yet: `collab-p2p invite create` makes one");
            } else {
                let now = crate::node::clock::wall();
                let rows: Vec<Vec<String>> =
                    items(&invites).iter().map(|one| row(one, now)).collect();
                let table = context.output.table(&HEAD, &rows);
                context.output.page(&table, false);
            }
        }
        Verb::Show { id, copy } => {
            let invites = found.client.get("/api/v1/invites").await?;
            let id = match id {
                Some(id) => {
                    let codes = (
                        Code::NoInvite,
                        Code::Usage,
                        "no invitation here has the id `{}`",
                    );
                    text(nodes::pick(items(&invites), "id", id, codes)?, "id")
                }
                None => items(&invites)
                    .last()
                    .map(|invite| text(invite, "id"))
                    .ok_or_else(|| {
                        CliError::new(
                            Code::NoInvite,
                            "this session has no invitation that can be shown",
                        )
                    })?,
            };
            let invite = found.client.get(&format!("/api/v1/invites/{id}")).await?;
            print(context, &invite, *copy);
        }
    }
    Ok(0)
}

const HEAD: [Column; 5] = [
    Column::whole("INVITE"),
    Column::whole("ROLE"),
    Column::whole("STATE"),
    Column::whole("USED"),
    Column::whole("EXPIRES"),
];

fn row(invite: &Value, now: Wall) -> Vec<String> {
    let field = |key: &str| invite.get(key).map(shown).unwrap_or_default();
    let open = invite.get("open") == Some(&Value::Bool(true));
    let ends = invite.get("expires_at").and_then(Value::as_str);
    let ends = ends.and_then(Time::parse).map(|Time(end)| end);
    let expired = ends.is_some_and(|end| end <= now);
    let state = match (expired, open) {
        (true, _) => "expired",
        (false, true) => "open",
        (false, false) => "over",
    };
    vec![
        field("id").chars().take(10).collect(),
        field("role"),
        state.to_owned(),
        field("used"),
        match ends {
            None => "never".to_owned(),
            Some(end) if expired => format!("{} ago", values::short(now.since(end))),
            Some(end) => format!("in {}", values::short(end.since(now))),
        },
    ]
}

/// For a person at a terminal: how the bearer joins, what that makes of it, and until when.
fn explain(context: &Context, invite: &Value) {
    let field = |key: &str| invite.get(key).map(shown).unwrap_or_default();
    let until = match field("expires_at").as_str() {
        "" => "without end".to_owned(),
        at => format!("until {}", minute(at)),
    };
    let role = field("role");
    let command = field("join_command");
    context.output.say(&format!(
        "whoever has this line joins as {role}, {until}:\n{command}\nthe ticket alone:"
    ));
}

fn print(context: &Context, invite: &Value, copy: bool) {
    if context.output.json {
        context.output.value(invite);
    } else {
        context.output.line(&text(invite, "ticket"));
    }
    if copy {
        crate::cli::share::copy(context, &text(invite, "join_command"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_invitation_is_listed_with_the_time_that_is_left() {
        let now = Wall(1_700_000_000_000);
        let listed = |end: Option<i64>| {
            let at = |end: i64| Wall(now.0.saturating_add_signed(end * 1_000));
            let end = end.map(|end| crate::cli::output::time(at(end)));
            let invite = json!({"id": "c3fec9c22400", "role": "viewer", "open": true, "used": 1,
                "expires_at": end});
            row(&invite, now)[2..].join(" ")
        };
        assert_eq!(listed(Some(7_300)), "open 1 in 2 h");
        assert_eq!(listed(Some(-90)), "expired 1 1 min ago");
        assert_eq!(listed(None), "open 1 never");
    }
}
