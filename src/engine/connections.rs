//! Which peers to be connected to, and which connection of several to keep.
