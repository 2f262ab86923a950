//! The read-only picture for the faces: plain data.
