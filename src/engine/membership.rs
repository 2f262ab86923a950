//! From the set of statements to who is a member and may do what.
