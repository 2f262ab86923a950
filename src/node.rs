//! Joins engine and adapters: one driver per membership, and the handle that faces talk to.
