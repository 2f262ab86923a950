//! `GET /openapi.json`: the routes as OpenAPI 3.1, so that scripts and generators find them. Bodies are described
//! by their names in [`super::json`]; a test holds this table and the router together.

use serde_json::{Map, Value, json};

/// A route: method, path, what it does, and the names of its body and its answer, where it has them.
type Route = (
    &'static str,
    &'static str,
    &'static str,
    Option<&'static str>,
    &'static str,
);

const ROUTES: [Route; 31] = [
    (
        "get",
        "/health",
        "Whether the node lives, and whom it serves",
        None,
        "Health",
    ),
    (
        "get",
        "/ready",
        "Whether the node is a member of its session",
        None,
        "Ready",
    ),
    ("get", "/openapi.json", "This description", None, "OpenApi"),
    (
        "get",
        "/api/v1/session",
        "The session and where this node stands",
        None,
        "Session",
    ),
    (
        "patch",
        "/api/v1/session",
        "Change facts of the session",
        Some("SessionChange"),
        "Done",
    ),
    (
        "delete",
        "/api/v1/session",
        "Close the session for all",
        None,
        "Done",
    ),
    (
        "post",
        "/api/v1/session/leave",
        "End this membership",
        None,
        "Done",
    ),
    (
        "get",
        "/api/v1/sessions",
        "Memberships of this state folder",
        None,
        "Membership list",
    ),
    (
        "get",
        "/api/v1/participants",
        "Participants, present and absent",
        None,
        "Participant list",
    ),
    (
        "get",
        "/api/v1/participants/{who}",
        "One participant",
        None,
        "Participant",
    ),
    (
        "get",
        "/api/v1/presence",
        "What everybody does",
        None,
        "Presence list",
    ),
    (
        "put",
        "/api/v1/presence",
        "Say what I do",
        Some("PresenceChange"),
        "Done",
    ),
    (
        "get",
        "/api/v1/invites",
        "Invitations, without tickets",
        None,
        "Invite list",
    ),
    (
        "post",
        "/api/v1/invites",
        "Make an invitation",
        Some("NewInvite"),
        "Invite",
    ),
    (
        "get",
        "/api/v1/invites/{id}",
        "One invitation with its ticket",
        None,
        "Invite",
    ),
    (
        "post",
        "/api/v1/tickets/inspect",
        "What a ticket says",
        Some("TicketText"),
        "TicketFacts",
    ),
    (
        "get",
        "/api/v1/approvals",
        "Newcomers who wait for a decision here",
        None,
        "Approval list",
    ),
    (
        "post",
        "/api/v1/approvals/{who}/approve",
        "Let a newcomer in",
        None,
        "Done",
    ),
    (
        "post",
        "/api/v1/approvals/{who}/deny",
        "Refuse a newcomer",
        None,
        "Done",
    ),
    (
        "get",
        "/api/v1/messages",
        "The newest messages (since, before, limit)",
        None,
        "Message list",
    ),
    (
        "post",
        "/api/v1/messages",
        "Say something",
        Some("NewMessage"),
        "MessageId",
    ),
    (
        "get",
        "/api/v1/control",
        "Who may type (terminal)",
        None,
        "Control",
    ),
    (
        "post",
        "/api/v1/control/{verb}",
        "Change who may type",
        Some("ControlOrder"),
        "Done",
    ),
    (
        "get",
        "/api/v1/terminals",
        "Shared terminals",
        None,
        "Terminal list",
    ),
    (
        "get",
        "/api/v1/terminals/{terminal}",
        "One terminal",
        None,
        "Terminal",
    ),
    (
        "get",
        "/api/v1/terminals/{terminal}/screen",
        "Its picture (text, wait)",
        None,
        "Picture",
    ),
    (
        "post",
        "/api/v1/terminals/{terminal}/input",
        "Type into it",
        Some("Input"),
        "Typed",
    ),
    ("get", "/api/v1/peers", "Connected peers", None, "Peer list"),
    (
        "get",
        "/api/v1/network",
        "How the node is connected",
        None,
        "Network",
    ),
    (
        "get",
        "/api/v1/queues",
        "The node's bounded queues: what waits, the most that has waited, the limit",
        None,
        "Queue list",
    ),
    (
        "get",
        "/api/v1/events",
        "Events as SSE, NDJSON or WebSocket (since)",
        None,
        "Envelope",
    ),
];

/// The description.
pub(super) fn document() -> Value {
    let mut paths: Map<String, Value> = Map::new();
    for (method, path, summary, body, answer) in ROUTES {
        let operations = paths.entry(path).or_insert_with(|| parameters(path));
        if let Some(operations) = operations.as_object_mut() {
            operations.insert(method.to_owned(), operation(summary, body, answer));
        }
    }
    json!({
        "openapi": "3.1.0",
        "info": {"title": "collab-p2p local API", "version": env!("CARGO_PKG_VERSION")},
        "paths": paths,
    })
}

/// The variable parts of a path.
fn parameters(path: &str) -> Value {
    let names = path
        .split('/')
        .filter_map(|part| part.strip_prefix('{')?.strip_suffix('}'));
    let parameters: Vec<Value> = names
        .map(|name| json!({"name": name, "in": "path", "required": true, "schema": {"type": "string"}}))
        .collect();
    json!({"parameters": parameters})
}

fn operation(summary: &str, body: Option<&str>, answer: &str) -> Value {
    let mut operation = json!({
        "summary": summary,
        "responses": {
            "2XX": {"description": answer},
            "default": {
                "description": "Problem",
                "content": {"application/problem+json": {"schema": {"type": "object"}}},
            },
        },
    });
    if let (Some(body), Some(operation)) = (body, operation.as_object_mut()) {
        let content = json!({"application/json": {"schema": {"type": "object", "title": body}}});
        operation.insert("requestBody".to_owned(), json!({"content": content}));
    }
    operation
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::command::Reply;
    use crate::gateway::routes::tests::a_view;
    use crate::gateway::server::tests::Served;

    #[tokio::test]
    async fn every_described_route_is_there() {
        let node = Served::start(a_view(), |_| Ok(Reply::Done));

        for (method, path, ..) in ROUTES
            .iter()
            .filter(|(_, path, ..)| !path.ends_with("/events"))
        {
            let named = path
                .replace("{who}", "dora")
                .replace("{terminal}", "default");
            let named = named
                .replace("{id}", &"06".repeat(32))
                .replace("{verb}", "take");
            let named = named.replace("participants/dora", "participants/bob");
            let status = node.status(&method.to_uppercase(), &named, b"{}").await;
            // A body that lacks what it must have, and a picture that is not there, are no missing routes.
            assert!(![404, 405].contains(&status), "{method} {path}: {status}");
        }
    }

    #[tokio::test]
    async fn the_description_is_served_and_names_variables() {
        let node = Served::start(a_view(), |_| Ok(Reply::Done));

        let document = node.json("/openapi.json").await;

        assert_eq!(document["openapi"], "3.1.0");
        let input = &document["paths"]["/api/v1/terminals/{terminal}/input"];
        assert_eq!(input["parameters"][0]["name"], "terminal");
        assert_eq!(
            input["post"]["requestBody"]["content"]["application/json"]["schema"]["title"],
            "Input"
        );
    }
}
