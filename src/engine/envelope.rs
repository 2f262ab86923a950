//! Signed, encrypted document changes.
