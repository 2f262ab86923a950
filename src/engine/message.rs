//! What travels on streams and gossip.
