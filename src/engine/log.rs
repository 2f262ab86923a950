//! One member's hash chain of statements and envelopes.
