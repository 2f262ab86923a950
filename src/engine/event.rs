//! Everything that can happen to a session.
