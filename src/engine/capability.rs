//! Roles, ranks, capabilities and the one question `may`.
