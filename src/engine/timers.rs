//! Deadlines, each with a name.
