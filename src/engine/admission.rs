//! From ticket to member, both sides.
