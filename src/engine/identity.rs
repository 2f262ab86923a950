//! Keys of members: signing, agreement, domain separation.
