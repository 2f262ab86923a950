//! The invitation as text.
