//! The local API (INTERFACES §5): HTTP/1.1 and JSON on the node's Unix socket. A face like any other: it holds
//! a [`Handle`](crate::node::Handle), sends commands and shows views.
//!
//! - [`server`] accepts connections of this user alone and ends with the node.
//! - [`routes`] says which path is which command or part of the view.
//! - [`json`] has the shapes on the wire; nothing of the engine is shown as it happens to be.
//! - [`events`] numbers what happens and lets readers come back with `since`.
//! - [`client`] is the other side: the one module through which the verbs talk to running nodes.

pub mod client;
pub mod events;
pub mod json;
mod openapi;
mod resolve;
mod routes;
pub mod screen;
pub mod server;
mod stream;
